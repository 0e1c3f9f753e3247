"""The publish of an offer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_cpp.release.submission import Submitter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_cpp.core.models import Offer, Submission


@dataclass
class Publish(Submitter):
    """Publish an offer's draft to its preview.

    :param notification_emails: addresses that the service notifies
    """

    verb = "publish"
    stale_reason = (
        "It started before the offer was last changed, so it publishes other content. Go live with it, wait "
        "until it has ended, or cancel it; then retry the task."
    )
    applied_state = "the preview has the draft's definition already"

    notification_emails: Sequence[str] = ()

    def send(self) -> str:
        """Send the publish."""
        return self.offer.hook.publish(
            self.offer.offer_id, self.offer.publisher_id, notification_emails=self.notification_emails
        )

    def matches(self, submission: Submission) -> bool:
        """Return whether a list entry is a publish."""
        return submission.is_publish

    def is_applied(self) -> bool:
        """Return whether the preview has the draft's definition."""
        return self._is_draft(self.offer.find_offer(slot="preview"))

    def is_stale(self, running: Submission) -> bool:
        """Return whether a running publish has another definition than the draft, if the service shows it."""
        version = running.publishing_version or 0
        published = self.offer.find_offer(version=version) if version > 0 else None
        return published is not None and not self._is_draft(published)

    def check(self) -> None:
        """Check nothing: the service validates the draft."""

    def _is_draft(self, offer: Offer | None) -> bool:
        draft = self.offer.find_offer()
        return draft is not None and offer is not None and offer.definition == draft.definition
