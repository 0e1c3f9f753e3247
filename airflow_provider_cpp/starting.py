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
    Operation,
    OperationStatus,
    Submission,
    locations_of,
)
from airflow_provider_cpp.waiting import LONGEST_RETRY_AFTER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook

T = TypeVar("T")
IfRunning = Literal["adopt", "fail"]

#: Tries of a question, and of a request that surely had no effect; between them a growing time up to this, in
#: seconds, unless the service asks for more.
TRIES = 8
LONGEST_PAUSE = 30.0
#: Seconds between two looks for what the service may not show yet. After the short ones the request is sent
#: again, for should the operation be there and not be shown still, the service refuses a second one. The
#: long ones are for what surely is there.
SHORT_LOOKS = (0.0, 1.0, 2.0, 4.0, 8.0)
LONG_LOOKS = (*SHORT_LOOKS, 15.0, 30.0, 60.0)
#: Seconds between two looks at an operation that is being canceled, which takes one to three minutes.
CANCELING_LOOKS = (5.0,) * 60
#: Requests with an unknown outcome before the task gives up.
UNKNOWN_OUTCOMES = 3

_NEVER_ADOPTED = (OperationStatus.FAILED, OperationStatus.CANCELED)

log = logging.getLogger(__name__)


@dataclass
class Start:
    """One kind of operation on one offer, to be started exactly once.

    :param hook: asks the service
    :param publisher_id: id of the offer's publisher
    :param offer_id: id of the offer
    :param verb: what people call such an operation, e.g. `go-live`
    :param request: sends the request, and returns the Location
    :param is_mine: tells the operations of this kind
    :param is_achieved: tells whether what such an operation would achieve is so already
    """

    hook: CloudPartnerHook
    publisher_id: str
    offer_id: str
    verb: str
    request: Callable[[], str]
    is_mine: Callable[[Submission], bool]
    is_achieved: Callable[[], bool]
    _before: list[Submission] = field(default_factory=list)
    _ended_at: set[str] = field(default_factory=set)

    def adopt(self, *, if_running: IfRunning, since: datetime | None) -> str | None:
        """Return the Location of an operation that makes a request needless; None if there is none.

        That is one that runs, or one that succeeded since this Dag run began and whose effect still holds.
        One that failed, was canceled or is being canceled is never adopted.

        :param if_running: `fail` to raise for one that runs
        :param since: when the Dag run began
        :raises ConflictError: something else runs on the offer, or this does with `if_running="fail"`
        """
        for seconds in LONG_LOOKS:
            time.sleep(seconds)
            self._before = self._list()
            running = [submission for submission in self._before if submission.is_running]
            for submission in filter(self.is_mine, running):
                if if_running == "fail":
                    raise self._conflict(submission)
                if location := self._adoptable(submission):
                    log.info("%s: a %s runs already (%s); adopting it.", self, self.verb, _words(submission))
                    return location
            others = [submission for submission in running if not self.is_mine(submission)]
            ended = [self._has_ended(submission) for submission in others]
            if not any(ended):
                break
            log.info("%s: the list of operations lags behind; looking again.", self)
        for submission in self._before:
            if self.is_mine(submission) and _succeeded_since(submission, since) and self.check_achieved():
                log.info(
                    "%s: a %s succeeded in this Dag run (%s); adopting it.",
                    self,
                    self.verb,
                    _words(submission),
                )
                return self._locate(submission)[0]
        return None

    def check_achieved(self) -> bool:
        """Ask whether what the operation would achieve is so already."""
        return self._patiently(self.is_achieved)

    def submit(self, *, if_running: IfRunning) -> str:
        """Send the request, and return the Location of the one operation that came of it.

        :raises CloudPartnerError: the service refused, or what became of the request can't be told. It is
            safe to try again then: the next try looks first.
        """
        in_doubt = 0
        while True:
            try:
                location = self._patiently(self.request, lambda error: error.is_unprocessed)
            except CloudPartnerError as error:
                unknown = error.accepted or error.has_unknown_outcome
                in_doubt += unknown
                if in_doubt:
                    # A refusal, too, may come of a request before that had its effect after all.
                    log.warning("%s: looking whether the request had its effect. %s", self, error)
                    looks = LONG_LOOKS if error.accepted else SHORT_LOOKS
                    if submission := self._look(self._is_new, looks):
                        return self._locate(submission)[0]
                if isinstance(error, ConflictError):
                    return self._resolve(error, if_running)
                if not unknown or error.accepted or in_doubt >= UNKNOWN_OUTCOMES:
                    raise
                log.warning("%s: no %s was begun; sending it again.", self, self.verb)
            else:
                log.info("%s: the service accepted the %s: %s", self, self.verb, location)
                self._outlast_namesake(location)
                return location

    def _resolve(self, refusal: ConflictError, if_running: IfRunning) -> str:
        """Adopt what began between look and request, or say what it is."""
        mine = self._look(lambda submission: submission.is_running and self.is_mine(submission), LONG_LOOKS)
        if mine and if_running == "adopt":
            if location := self._adoptable(mine):
                return location
            raise ConflictError(
                f"No {self.verb} of {self} was sent: another one ran on it and has ended badly since "
                f"({_words(mine)}). Try again now that nothing runs."
            ) from refusal
        running = mine or self._look(lambda submission: submission.is_running, (0.0,))
        raise self._conflict(running) if running else refusal

    def _adoptable(self, running: Submission) -> str | None:
        """Return the Location of an operation that runs by the list; None if it failed, or is canceled."""
        location, operation = self._locate(running)
        for seconds in CANCELING_LOOKS:
            if operation.is_terminal or not operation.is_being_canceled:
                break
            log.info("%s: a %s is being canceled; waiting for its end.", self, self.verb)
            time.sleep(seconds)
            operation = self._ask(location)
        if operation.is_being_canceled and not operation.is_terminal:
            raise self._conflict(running)
        if operation.status in _NEVER_ADOPTED:
            self._ended_at.add(_path(location))
            return None
        return location

    def _has_ended(self, other: Submission) -> bool:
        """Whether what runs by the list has ended, so that the list lags behind.

        :raises ConflictError: it runs, and is no publish that waits for nothing but the publisher
        """
        found = self._find(other)
        if found and found[1].is_terminal:
            return True
        if not other.is_publish or not ((found and found[1].awaiting_publisher) or self._awaits_publisher()):
            raise self._conflict(other)
        return False

    def _outlast_namesake(self, location: str) -> None:
        """Wait until an operation is shown at its Location, if an earlier one that ended badly had the same.

        So it is where a go-live of an offer that was not migrated is repeated.
        """
        for submission in self._before:
            if submission.status in _NEVER_ADOPTED:
                self._ended_at |= set(map(_path, locations_of(submission, self.publisher_id, self.offer_id)))
        if _path(location) in self._ended_at:
            for seconds in LONG_LOOKS:
                time.sleep(seconds)
                try:
                    if self._ask(location).status not in _NEVER_ADOPTED:
                        return
                except CloudPartnerError as error:
                    # It is begun, so this is the wait's to survive.
                    log.warning("%s: the %s can't be read yet. %s", self, self.verb, error)

    def __str__(self) -> str:
        """Return what the log calls it: the offer."""
        return f"{self.publisher_id}/{self.offer_id}"

    def _is_new(self, submission: Submission) -> bool:
        known = {before.id for before in self._before}
        return self.is_mine(submission) and (submission.is_running or submission.id not in known)

    def _list(self) -> list[Submission]:
        return self._patiently(lambda: self.hook.list_operations(self.offer_id, self.publisher_id))

    def _ask(self, location: str) -> Operation:
        return self._patiently(lambda: self.hook.get_operation(location))

    def _awaits_publisher(self) -> bool:
        """Whether the publish that runs waits for nothing but go live."""
        return self._patiently(
            lambda: self.hook.get_offer_status(self.offer_id, self.publisher_id)
        ).awaiting_publisher

    def _look(self, wanted: Callable[[Submission], bool], looks: Iterable[float]) -> Submission | None:
        """Look for an operation in the list, for as long as the list may lag behind."""
        for seconds in looks:
            time.sleep(seconds)
            for submission in self._list():
                if wanted(submission):
                    return submission
        return None

    def _find(self, submission: Submission) -> tuple[str, Operation] | None:
        """Return a listed operation and its Location, which the list doesn't name: ask where it can be."""
        for location in locations_of(submission, self.publisher_id, self.offer_id):
            try:
                return location, self._ask(location)
            except NotFoundError:
                continue
        return None

    def _locate(self, submission: Submission) -> tuple[str, Operation]:
        """Find a listed operation, for as long as the service may not show it."""
        for seconds in LONG_LOOKS:
            time.sleep(seconds)
            if found := self._find(submission):
                return found
        locations = locations_of(submission, self.publisher_id, self.offer_id)
        raise NotFoundError(
            f"{self}: the list of operations has a {self.verb} ({_words(submission)}), but the service "
            f"knows it at none of {', '.join(locations) or 'no location'}. It goes on at the service. Try "
            "again later: this task adopts it once the service shows it."
        )

    def _conflict(self, running: Submission) -> ConflictError:
        return ConflictError(
            f"No {self.verb} of {self} was sent: a {running.submission_type or 'operation'} runs on it "
            f"({_words(running)}). {ConflictError.hint}"
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


def _path(location: str) -> str:
    return location.partition("?")[0]


def _succeeded_since(submission: Submission, since: datetime | None) -> bool:
    if submission.status is not OperationStatus.SUCCEEDED:
        return False
    # Without times it can't be told; then it is taken for one of this run, since its effect holds.
    return since is None or submission.changed is None or submission.changed >= since


def _words(submission: Submission) -> str:
    def words() -> Iterator[str]:
        yield f"id {submission.id or 'unknown'}"
        yield submission.status
        if submission.created:
            yield f"since {submission.created.isoformat(timespec='seconds')}"
        if submission.changed:
            yield f"last changed {submission.changed.isoformat(timespec='seconds')}"

    return ", ".join(words())
