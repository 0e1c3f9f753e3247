"""Cancel the running operation of an offer, or its preview.

The service answers a cancel request with 202 even if nothing runs, and shows the result minutes later. So the
target is found first, and the result is read from the target.

The publish of a migrated offer ends when the preview is ready, so no operation runs while the preview awaits
the publisher's signoff. A cancel then withdraws the preview, and the offer's status shows the result.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_cpp.core.errors import CloudPartnerError
from airflow_provider_cpp.core.models import OfferState, OperationStatus
from airflow_provider_cpp.release import lookup
from airflow_provider_cpp.release.lookup import describe, poll_delays, retry_transient

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_cpp.core.models import Submission
    from airflow_provider_cpp.release.lookup import OfferOperations

#: Seconds before each poll of an offer whose preview is being withdrawn; a cancel takes one to three minutes.
WITHDRAWAL_DELAYS = (0.0, *(5.0,) * 60)

_IN_PROGRESS = (OfferState.RUNNING, OfferState.NOT_STARTED, OfferState.WAITING_FOR_PUBLISHER_REVIEW)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Canceled:
    """An accepted cancel.

    :param location: Location path of the canceled operation; for a preview, that of its publish
    :param is_complete: whether the cancel is complete; otherwise the operation has to be polled
    """

    location: str
    is_complete: bool = False


@dataclass(frozen=True)
class _RunningOperation:
    """An operation to cancel."""

    offer: OfferOperations
    location: str

    def needs_request(self) -> bool:
        """Whether the operation still runs and no cancel of it was accepted."""
        operation = self.offer.get_operation(self.location)
        return not (operation.is_terminal or operation.is_being_canceled)

    def result(self, location: str, *, wait: bool) -> Canceled:
        """Return the result of an accepted request."""
        return Canceled(location)


@dataclass(frozen=True)
class _Preview(_RunningOperation):
    """The preview of a migrated offer, whose publish succeeded."""

    def needs_request(self) -> bool:
        """Whether the preview awaits the signoff and no cancel of it was accepted."""
        return (
            self.offer.get_status().awaiting_publisher
            and not self.offer.get_operation(self.location).is_being_canceled
        )

    def result(self, location: str, *, wait: bool) -> Canceled:
        """Wait until the preview is withdrawn, and return the result.

        :raises CloudPartnerError: the offer's status does not change
        """
        if location != self.location and not self.offer.get_operation(location).is_terminal:
            return Canceled(location)  # a go-live started in between, and is canceled
        for _ in poll_delays(WITHDRAWAL_DELAYS if wait else ()):
            status = self.offer.get_status()
            if status.status not in _IN_PROGRESS and not status.awaiting_publisher:
                log.info("%s: the preview is withdrawn; the offer is %s.", self.offer, status.status)
                break
        else:
            if wait:
                raise CloudPartnerError(
                    f"The preview of {self.offer} was not withdrawn: the service accepted the cancel, but "
                    f"the offer is still {status.status}. Run this task again, or cancel the release in "
                    "Partner Center."
                )
        return Canceled(location, is_complete=True)


def cancel(
    offer: OfferOperations, request: Callable[[], str | None], *, wait: bool = True
) -> Canceled | None:
    """Cancel the running operation of an offer, or the preview that awaits the signoff.

    :param request: sends the request; returns the Location in the response, if it has one
    :param wait: wait until a preview is withdrawn
    :return: None if there is nothing to cancel
    :raises CloudPartnerError: the service refused, cannot be reached, or does not list the running operation
    """
    target = _find_target(offer)
    if target is None:
        return None

    def send() -> str:
        # The target may end before a request is repeated, and another operation may start.
        if not target.needs_request():
            return target.location
        # If the list of operations is stale, the service cancels a newer operation and returns its Location.
        canceled = request() or target.location
        log.info("%s: the service accepted the cancel of %s", offer, canceled)
        return canceled

    unknown_outcomes = 0
    while True:
        try:
            location = retry_transient(
                send, lambda error: error.is_unprocessed, description=f"Canceling the operation of {offer}"
            )
        except CloudPartnerError as error:
            unknown_outcomes += 1
            if error.accepted:
                location = target.location
            elif not error.has_unknown_outcome or unknown_outcomes >= lookup.UNKNOWN_OUTCOMES:
                raise
            else:
                log.warning("%s: checking whether the cancel had its effect. %s", offer, error)
                continue
        return target.result(location, wait=wait)


def _find_target(offer: OfferOperations) -> _RunningOperation | None:
    """Return the running operation or the preview of an offer; None if there is nothing to cancel.

    :raises CloudPartnerError: an operation runs, but the service does not list it for minutes
    """
    for _ in poll_delays(lookup.LONG_DELAYS):
        submissions = offer.list_operations()
        for submission in submissions:
            if submission.is_running:
                location, operation = offer.locate(submission)
                if not operation.is_terminal:
                    log.info("%s: found a running operation: %s.", offer, describe(submission))
                    return _RunningOperation(offer, location)
        status = offer.get_status()
        if status.awaiting_publisher and (publish := _publish_of_preview(submissions)):
            log.info("%s: the preview awaits the publisher's signoff; canceling it.", offer)
            return _Preview(offer, offer.locate(publish)[0])
        if status.status not in _IN_PROGRESS:
            return None
        log.info("%s: the offer is %s, but no operation is listed; polling again.", offer, status.status)
    raise CloudPartnerError(
        f"Nothing of {offer} was canceled: the offer is {status.status}, but the service lists no running "
        "operation. Try again in some minutes."
    )


def _publish_of_preview(submissions: list[Submission]) -> Submission | None:
    """Return the latest publish, if it succeeded."""
    publishes = [submission for submission in submissions if submission.is_publish]
    latest = max(publishes, key=lambda one: one.publishing_version or 0, default=None)
    return latest if latest and latest.status is OperationStatus.SUCCEEDED else None
