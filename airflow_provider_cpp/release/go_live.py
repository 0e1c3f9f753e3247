"""The go-live of an offer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_cpp.core.errors import ConflictError
from airflow_provider_cpp.release.submission import Submitter

if TYPE_CHECKING:
    from airflow_provider_cpp.core.models import Offer, Operation, Submission


@dataclass
class GoLive(Submitter):
    """Take an offer from preview to production.

    :param version: the version that must be in preview; None for any
    """

    verb = "go-live"
    stale_reason = (
        "It takes another version live than the requested one, or the preview slot shows no version. Wait "
        "until it has ended, or cancel it; then review the preview again."
    )

    version: int | None = None

    def send(self) -> str:
        """Send the go-live."""
        return self.offer.hook.go_live(self.offer.offer_id, self.offer.publisher_id)

    def matches(self, submission: Submission) -> bool:
        """Return whether a list entry is a go-live."""
        return submission.is_go_live

    def is_applied(self) -> bool:
        """Return whether production has the version, or without one the preview's version."""
        version = self.version or _version(self.offer.find_offer(slot="preview"))
        return version is not None and version == _version(self.offer.find_offer(slot="production"))

    @property
    def applied_state(self) -> str:
        """What `is_applied` checks."""
        what = "the preview's version" if self.version is None else f"version {self.version}"
        return f"production has {what} already"

    def is_stale(self, running: Submission) -> bool:
        """Return whether a running go-live takes another version live: it takes the version in preview."""
        if self.version is None:
            return False
        return _version(self.offer.find_offer(slot="preview")) != self.version

    def check(self) -> None:
        """Raise a `ConflictError` if another version is in preview."""
        if self.version is None:
            return
        preview = self.offer.get_offer(slot="preview")
        if preview.version != self.version:
            raise ConflictError(
                f"No go-live of {self.offer} was sent: version {self.version} was to go live, but version "
                f"{preview.version} is in preview. The offer was published in the meantime: review the "
                "preview again."
            )

    def may_coexist(self, other: Submission, operation: Operation | None) -> bool:
        """Return whether a publish only waits for the publisher's signoff, which a go-live gives."""
        if not other.is_publish:
            return False
        is_ready = operation is not None and operation.awaiting_publisher
        return is_ready or self.offer.get_status().awaiting_publisher


def _version(offer: Offer | None) -> int | None:
    return offer.version if offer else None
