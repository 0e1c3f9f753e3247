"""Asking the service about an offer's operations, patiently: it may not answer, or not show them yet."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import tenacity

from airflow_provider_cpp.core.errors import CloudPartnerError, ConflictError, NotFoundError
from airflow_provider_cpp.core.polling import LONGEST_RETRY_AFTER
from airflow_provider_cpp.core.text import normalize_status
from airflow_provider_cpp.portal.locations import candidate_locations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from airflow_provider_cpp.core.models import Operation, Submission
    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook

T = TypeVar("T")

#: Tries of a question, and of a request that surely had no effect; between them a growing time up to this, in
#: seconds, unless the service asks for more.
TRIES = 8
LONGEST_PAUSE = 30.0
#: Seconds between two looks for what the service may not show yet. After the short ones the request is sent
#: again, for should the operation be there and not be shown still, the service refuses a second one. The
#: long ones are for what surely is there.
SHORT_DELAYS = (0.0, 1.0, 2.0, 4.0, 8.0)
LONG_DELAYS = (*SHORT_DELAYS, 15.0, 30.0, 60.0)

log = logging.getLogger(__name__)


def retry_transient(
    ask: Callable[[], T], again: Callable[[CloudPartnerError], bool] = lambda error: error.is_transient
) -> T:
    """Ask, and again after the wait that the service asked for, or a growing one.

    :param again: for which errors
    """

    def pause(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, CloudPartnerError) else None
        return max(grow(state), min(asked or 0.0, LONGEST_RETRY_AFTER))

    grow = tenacity.wait_random_exponential(multiplier=0.5, max=LONGEST_PAUSE)
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(
            lambda error: isinstance(error, CloudPartnerError) and again(error)
        ),
        wait=pause,
        stop=tenacity.stop_after_attempt(TRIES),
        before_sleep=tenacity.before_sleep_log(log, logging.WARNING),
        reraise=True,
    )(ask)


def poll_delays(pauses: Iterable[float]) -> Iterator[None]:
    """Yield once after each pause, in seconds."""
    for seconds in pauses:
        time.sleep(seconds)
        yield


@dataclass(frozen=True)
class OfferOperations:
    """The operations of one offer, as the service shows them."""

    hook: CloudPartnerHook
    publisher_id: str
    offer_id: str

    def __str__(self) -> str:
        """Return what the log calls it: the offer."""
        return f"{self.publisher_id}/{self.offer_id}"

    def listed(self) -> list[Submission]:
        """Return them all. The list names no Location, and may lag behind."""
        return retry_transient(lambda: self.hook.list_operations(self.offer_id, self.publisher_id))

    def ask(self, location: str) -> Operation:
        """Return one, as its own path answers it."""
        return retry_transient(lambda: self.hook.get_operation(location))

    def awaits_publisher(self) -> bool:
        """Whether the preview is ready and nothing but the publisher's signoff is awaited."""
        return retry_transient(
            lambda: self.hook.get_offer_status(self.offer_id, self.publisher_id)
        ).awaiting_publisher

    def look(self, wanted: Callable[[Submission], bool], pauses: Iterable[float]) -> Submission | None:
        """Look for one in the list, for as long as the list may lag behind."""
        for _ in poll_delays(pauses):
            for submission in self.listed():
                if wanted(submission):
                    return submission
        return None

    def locations(self, submission: Submission) -> list[str]:
        """Return where a listed one may be found."""
        return candidate_locations(submission, self.publisher_id, self.offer_id, is_migrated=self.is_migrated)

    @cached_property
    def is_migrated(self) -> bool:
        """Whether the offer was migrated to Partner Center; it decides the form of a Location."""
        offer = retry_transient(lambda: self.hook.get_offer(self.offer_id, self.publisher_id))
        return normalize_status(offer.pc_migration_status) != "none"

    def find(self, submission: Submission) -> tuple[str, Operation] | None:
        """Return a listed one's Location and itself; None if the service shows it nowhere."""
        for location in self.locations(submission):
            try:
                return location, self.ask(location)
            except NotFoundError:
                continue
        return None

    def locate(self, submission: Submission) -> tuple[str, Operation]:
        """Find a listed one, for as long as the service may not show it.

        :raises NotFoundError: the service shows it nowhere
        """
        for _ in poll_delays(LONG_DELAYS):
            if found := self.find(submission):
                return found
        raise NotFoundError(
            f"{self}: the list of operations has {describe(submission)}, but the service knows it at none of "
            f"{', '.join(self.locations(submission)) or 'no location'}. It goes on at the service. Try again "
            "later: this task adopts it once the service shows it."
        )

    def conflict(self, verb: str, running: Submission, why: str = "") -> ConflictError:
        """Return the error for what can't be begun since something runs."""
        return ConflictError(
            f"No {verb} of {self} was sent: a {_kind(running)} runs on it ({_words(running)}). "
            f"{why or ConflictError.hint}"
        )


def describe(submission: Submission) -> str:
    """Return a listed operation in words: what it is, how it stands, since when."""
    return f"a {_kind(submission)} ({_words(submission)})"


def _kind(submission: Submission) -> str:
    return submission.submission_type or "operation"


def _words(submission: Submission) -> str:
    words = [f"id {submission.id or 'unknown'}", submission.status.value]
    if submission.created:
        words.append(f"since {submission.created.isoformat(timespec='seconds')}")
    if submission.changed:
        words.append(f"last changed {submission.changed.isoformat(timespec='seconds')}")
    return ", ".join(words)
