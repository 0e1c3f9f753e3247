"""Starting an operation exactly once, whatever fails.

A request to start has three kinds of ends. It is answered. Or it surely had no effect (nobody was reached,
429, 503 with Retry-After): then it is sent again. Or nobody knows (the connection was lost after sending,
5xx): then it is never blindly repeated, but the operation is looked up in the offer's list of operations,
which is the only truth about what was started. The same look comes before every request, since an earlier
try of the task may have been killed between the request and the XCom.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeVar

import tenacity

from airflow_provider_cpp.api import (
    CloudPartnerError,
    ConflictError,
    NotFoundError,
    OperationStatus,
    Submission,
    locations_of,
)
from airflow_provider_cpp.waiting import LONGEST_RETRY_AFTER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook

T = TypeVar("T")
IfRunning = Literal["adopt", "fail"]

#: Tries of a question, and of a request that surely had no effect.
TRIES = 8
#: Seconds between two looks for an operation whose request had an unknown outcome; the list may lag behind.
#: A minute in all. Should the operation show up later still, the service refuses a second one while it runs.
LOOKS = (0, 1, 2, 4, 8, 15, 30)
#: Requests with an unknown outcome before the task gives up.
UNKNOWN_OUTCOMES = 3

log = logging.getLogger(__name__)


@dataclass
class Start:
    """One kind of operation on one offer, to be started exactly once.

    :param verb: what people call it, e.g. `go live`
    :param request: sends the request, and returns the Location
    :param is_mine: tells the operations of this kind
    :param is_effective: tells whether what such an operation would achieve is so already
    :param pause: the longest wait between two tries or looks, in seconds, unless the service asks for more
    """

    hook: CloudPartnerHook
    publisher_id: str
    offer_id: str
    verb: str
    request: Callable[[], str]
    is_mine: Callable[[Submission], bool]
    is_effective: Callable[[], bool]
    pause: float
    _before: set[str] = field(default_factory=set)

    def adopt(self, *, if_running: IfRunning, since: datetime | None) -> str | None:
        """Return the Location of an operation that makes a request needless; None if there is none.

        That is one that runs, or one that succeeded since this Dag run began and whose effect still holds.
        One that failed or was canceled is never adopted.

        :param if_running: `fail` to raise for one that runs
        :param since: when the Dag run began
        :raises ConflictError: something else runs on the offer, or this does with `if_running="fail"`
        """
        submissions = self._list()
        self._before = {submission.id for submission in submissions}
        for submission in submissions:
            if submission.is_running and self.is_mine(submission):
                if if_running == "fail":
                    raise self._conflict(submission)
                log.info("%s: a %s runs already (%s); adopting it.", self, self.verb, _since(submission))
                return self._locate(submission)
        for submission in submissions:
            if submission.is_running and not (submission.is_publish and self._awaits_publisher()):
                raise self._conflict(submission)
        for submission in submissions:
            if self.is_mine(submission) and _succeeded_since(submission, since) and self.is_done():
                log.info(
                    "%s: a %s succeeded since this Dag run began (%s), and nothing came after it; "
                    "adopting it.",
                    self,
                    self.verb,
                    _since(submission),
                )
                return self._locate(submission)
        return None

    def is_done(self) -> bool:
        """Whether what the operation would achieve is so already."""
        return self._patiently(self.is_effective)

    def submit(self, *, if_running: IfRunning) -> str:
        """Send the request, and return the Location of the one operation that came of it.

        :raises CloudPartnerError: the service refused, or what became of the request can't be told. It is
            safe to try again then: the next try looks first.
        """
        in_doubt = 0
        while True:
            try:
                location = self._patiently(self.request, lambda error: error.is_unprocessed)
                log.info("%s: the service accepted the %s: %s", self, self.verb, location)
                return location
            except CloudPartnerError as error:
                unknown = error.accepted or error.has_unknown_outcome
                in_doubt += unknown
                if in_doubt:
                    # A refusal, too, may come of a request before that had its effect after all.
                    log.warning("%s: looking whether the request had its effect. %s", self, error)
                    if submission := self._look(self._is_new):
                        return self._locate(submission)
                if isinstance(error, ConflictError):
                    return self._resolve(error, if_running)
                if not unknown or error.accepted or in_doubt >= UNKNOWN_OUTCOMES:
                    raise
                log.warning("%s: no %s was begun; sending it again.", self, self.verb)

    def _resolve(self, refusal: ConflictError, if_running: IfRunning) -> str:
        """Adopt what began between look and request, or say what it is."""
        running = self._look(lambda submission: submission.is_running)
        if running is None:
            raise refusal
        if self.is_mine(running) and if_running == "adopt":
            return self._locate(running)
        raise self._conflict(running) from refusal

    def __str__(self) -> str:
        """Return what the log calls it: the offer."""
        return f"{self.publisher_id}/{self.offer_id}"

    def _is_new(self, submission: Submission) -> bool:
        return self.is_mine(submission) and submission.id not in self._before

    def _list(self) -> list[Submission]:
        return self._patiently(lambda: self.hook.list_operations(self.offer_id, self.publisher_id))

    def _awaits_publisher(self) -> bool:
        """Whether the publish that runs waits for nothing but go live."""
        return self._patiently(
            lambda: self.hook.get_offer_status(self.offer_id, self.publisher_id)
        ).awaiting_publisher

    def _look(self, wanted: Callable[[Submission], bool]) -> Submission | None:
        """Look for an operation in the list, for as long as the list may lag behind."""
        for seconds in LOOKS:
            time.sleep(min(seconds, self.pause))
            for submission in self._list():
                if wanted(submission):
                    return submission
        return None

    def _locate(self, submission: Submission) -> str:
        """Return the Location of a listed operation, which the list doesn't name: ask where it can be."""
        locations = locations_of(submission, self.publisher_id, self.offer_id)
        for seconds in LOOKS:
            time.sleep(min(seconds, self.pause))
            for location in locations:
                if self._is_found(location):
                    return location
        raise NotFoundError(
            f"{self}: the {self.verb} {submission.id} is in the list of operations, but at none of "
            f"{', '.join(locations) or 'no location'}. Nothing was sent; try again when the service shows it."
        )

    def _is_found(self, location: str) -> bool:
        try:
            self._patiently(lambda: self.hook.get_operation(location))
        except NotFoundError:
            return False
        return True

    def _conflict(self, running: Submission) -> ConflictError:
        return ConflictError(
            f"No {self.verb} of {self} was sent: a {running.submission_type or 'operation'} runs on it "
            f"({_since(running)}). {ConflictError.hint}"
        )

    def _patiently(
        self,
        ask: Callable[[], T],
        again: Callable[[CloudPartnerError], bool] = lambda error: error.is_transient,
    ) -> T:
        """Ask, and again after the wait that the service asked for, or a growing one."""

        def pause(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.retry_after if isinstance(error, CloudPartnerError) else None
            return max(grow(state), min(asked or 0.0, LONGEST_RETRY_AFTER))

        grow = tenacity.wait_random_exponential(multiplier=0.5, max=self.pause)
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(
                lambda error: isinstance(error, CloudPartnerError) and again(error)
            ),
            wait=pause,
            stop=tenacity.stop_after_attempt(TRIES),
            before_sleep=tenacity.before_sleep_log(log, logging.WARNING),
            reraise=True,
        )(ask)


def _succeeded_since(submission: Submission, since: datetime | None) -> bool:
    if submission.status is not OperationStatus.SUCCEEDED:
        return False
    # Without times it can't be told; then it is taken for one of this run, since its effect holds.
    return since is None or submission.changed is None or submission.changed >= since


def _since(submission: Submission) -> str:
    def words() -> Iterator[str]:
        yield f"id {submission.id or 'unknown'}"
        yield submission.status
        if submission.created:
            yield f"since {submission.created.isoformat(timespec='seconds')}"
        if submission.changed:
            yield f"last changed {submission.changed.isoformat(timespec='seconds')}"

    return ", ".join(words())
