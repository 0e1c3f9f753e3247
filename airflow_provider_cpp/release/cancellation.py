"""Canceling what runs on an offer, and nothing else.

The service says 202 whether or not anything runs, and shows the cancel minutes later. So what runs is found
first, and what became of the request is asked there, unless the answer names another place.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_provider_cpp.core.errors import CloudPartnerError
from airflow_provider_cpp.core.models import OfferState
from airflow_provider_cpp.release import lookup
from airflow_provider_cpp.release.lookup import describe, poll_delays, retry_transient

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_cpp.release.lookup import OfferOperations

#: Requests with an unknown outcome before the task gives up.
UNKNOWN_OUTCOMES = 3

_UNDER_WAY = (OfferState.RUNNING, OfferState.NOT_STARTED, OfferState.WAITING_FOR_PUBLISHER_REVIEW)

log = logging.getLogger(__name__)


def cancel(offer: OfferOperations, request: Callable[[], str | None]) -> str | None:
    """Cancel what runs on an offer.

    :param request: sends the request; returns the Location that the answer names, if it does
    :return: Location path of the operation that is being canceled; None if nothing runs
    :raises CloudPartnerError: the service refused, or can't be reached, or doesn't list what runs
    """
    location = _find_running(offer)
    if location is None:
        return None

    def send() -> str:
        # It may end while the service lets us wait, and something else begin.
        if _is_settled(offer, location):
            return location
        # The list may have been late, and the service cancel what began since.
        canceled = request() or location
        log.info("%s: the service accepted the cancel of %s", offer, canceled)
        return canceled

    in_doubt = 0
    while True:
        try:
            return retry_transient(
                send, lambda error: error.is_unprocessed, description=f"Canceling the operation of {offer}"
            )
        except CloudPartnerError as error:
            # Where the operation is found is known without the answer.
            if error.accepted:
                return location
            in_doubt += 1
            if not error.has_unknown_outcome or in_doubt >= UNKNOWN_OUTCOMES:
                raise
            log.warning("%s: looking whether the cancel had its effect. %s", offer, error)


def _is_settled(offer: OfferOperations, location: str) -> bool:
    """Whether there is nothing left to cancel, or somebody has asked for it already."""
    operation = offer.get_operation(location)
    return operation.is_terminal or operation.is_being_canceled


def _find_running(offer: OfferOperations) -> str | None:
    """Return the Location of what runs on an offer; None if nothing does.

    :raises CloudPartnerError: something runs, but isn't listed for minutes
    """
    for _ in poll_delays(lookup.LONG_DELAYS):
        for submission in offer.list_operations():
            if submission.is_running:
                location, operation = offer.locate(submission)
                if not operation.is_terminal:
                    log.info("%s: %s runs.", offer, describe(submission))
                    return location
        status = offer.get_status().status
        if status not in _UNDER_WAY:
            return None
        log.info("%s: the offer is %s, but no operation is listed; looking again.", offer, status)
    raise CloudPartnerError(
        f"Nothing of {offer} was canceled: the offer is {status}, but the service lists no operation that "
        "runs on it. Try again in some minutes."
    )
