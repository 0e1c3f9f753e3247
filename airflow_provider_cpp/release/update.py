"""Change an offer's draft once, without overwriting a change of another user.

The service refuses a PUT with an ETag if the offer changed after it was read. It sends no ETag with a
migrated offer; that offer is read again immediately before the PUT, and compared. After a PUT with an unknown
outcome (connection lost, 5xx), the offer is read to find out whether it was written.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_provider_cpp.core.errors import CloudPartnerError, PreconditionFailedError
from airflow_provider_cpp.release import lookup
from airflow_provider_cpp.release.lookup import OfferOperations, poll_delays, retry_transient

if TYPE_CHECKING:
    from airflow_provider_cpp.core.models import Offer
    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook

log = logging.getLogger(__name__)


class OfferUpdate:
    """One change of one offer's draft.

    :param if_match: `etag` to write only if the offer did not change after it was read; `*` to overwrite it;
        or the ETag of the version that the change is based on
    """

    def __init__(self, hook: CloudPartnerHook, publisher_id: str, offer_id: str, if_match: str) -> None:
        self.hook = hook
        self.publisher_id = publisher_id
        self.offer_id = offer_id
        self.if_match = if_match
        # Whether the latest error is that of a PUT, and not of the read before it.
        self._is_sent = False

    def __str__(self) -> str:
        """Return the offer as log and errors call it."""
        return f"{self.publisher_id}/{self.offer_id}"

    def read(self) -> Offer:
        """Return the draft."""
        return OfferOperations(self.hook, self.publisher_id, self.offer_id).get_offer()

    def write(self, before: Offer, changed: dict[str, Any]) -> Offer:
        """Write the changed offer, and return the offer that the service shows afterwards.

        :param before: the offer that was read and changed
        :raises PreconditionFailedError: the offer changed after it was read
        :raises CloudPartnerError: the service refused the offer, or the outcome stayed unknown
        """
        unknown: CloudPartnerError | None = None
        for _ in poll_delays(lookup.SHORT_DELAYS):
            try:
                return self._put(before, changed)
            except CloudPartnerError as error:
                if self._is_sent and error.has_unknown_outcome:
                    unknown = error
                # A failed precondition can result from the earlier request with an unknown outcome.
                elif unknown is None or not isinstance(error, PreconditionFailedError):
                    raise
            log.warning("%s: checking whether the offer was written. %s", self, unknown)
            found = self.read()
            if self.is_written(before, found, changed):
                return found
            if self.if_match != "*" and not self.is_unchanged(before, found):
                log.warning(
                    "%s: the offer changed, but its content differs from the content that this task wrote. "
                    "Another user changed it, or the service replaced a part, such as the URL of a file.",
                    self,
                )
                break
        assert unknown is not None  # noqa: S101  otherwise the loop returned or raised
        raise unknown

    def is_unchanged(self, before: Offer, now: Offer) -> bool:
        """Whether the offer is the same version as when it was read before."""
        if before.etag and now.etag:
            return before.etag == now.etag
        return _fingerprint(before) == _fingerprint(now)

    def is_written(self, before: Offer, found: Offer, changed: dict[str, Any]) -> bool:
        """Whether the service shows the changed offer."""
        return not self.is_unchanged(before, found) and _is_shown(found.definition, changed["definition"])

    def _put(self, before: Offer, changed: dict[str, Any]) -> Offer:
        """Send the request, and again while the service certainly did not process it."""

        def send() -> Offer:
            self._is_sent = False
            if_match = self._precondition(before)
            self._is_sent = True
            return self.hook.put_offer(self.offer_id, changed, self.publisher_id, if_match=if_match)

        return retry_transient(
            send, lambda error: self._is_sent and error.is_unprocessed, description=f"Writing {self}"
        )

    def _precondition(self, before: Offer) -> str:
        """Return the value of If-Match.

        :raises PreconditionFailedError: without an ETag, the offer is not the offer that was read
        """
        if self.if_match != "etag":
            return self.if_match
        if before.etag:
            return before.etag
        now = self.read()
        if not self.is_unchanged(before, now):
            raise PreconditionFailedError(
                f"{self}: nothing was written, because the offer changed after it was read (version "
                f"{before.version}, {_changed(before)}; now version {now.version}, {_changed(now)}). Retry "
                "the task: it reads the offer again and applies the change to its current version."
            )
        return now.etag or "*"


def _fingerprint(offer: Offer) -> tuple[Any, ...]:
    return offer.version, offer.raw.get("changedTime"), offer.definition


def _changed(offer: Offer) -> str:
    return f"changed {offer.changed.isoformat(timespec='seconds') if offer.changed else 'at an unknown time'}"


def _is_shown(shown: Any, written: Any) -> bool:
    """Whether the service shows the content that was written, except secret values, which it never shows."""
    if isinstance(shown, dict) and isinstance(written, dict):
        return all(key in written and _is_shown(value, written[key]) for key, value in shown.items())
    if isinstance(shown, list) and isinstance(written, list):
        return len(shown) == len(written) and all(map(_is_shown, shown, written))
    return bool(shown == written)
