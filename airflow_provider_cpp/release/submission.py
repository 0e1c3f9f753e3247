"""Starting an operation exactly once, whatever fails.

A request to start has three kinds of ends. It is answered. Or it surely had no effect (nobody was reached,
429, 503 with Retry-After): then it is sent again. Or nobody knows (the connection was lost after sending,
5xx): then it is never blindly repeated, but the operation is looked up in the offer's list of operations,
which is the only truth about what was started. The same look comes before every request, since an earlier
try of the task may have been killed between the request and the XCom.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from airflow_provider_cpp.core.errors import CloudPartnerError, ConflictError
from airflow_provider_cpp.core.models import OperationStatus, Submission
from airflow_provider_cpp.release import lookup
from airflow_provider_cpp.release.lookup import OfferOperations, describe, poll_delays, retry_transient

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

IfRunning = Literal["adopt", "fail"]

GO_LIVE, PUBLISH = "go-live", "publish"
#: Seconds between two looks at an operation that is being canceled, which takes one to three minutes.
CANCELING_DELAYS = (5.0,) * 60
#: Seconds between two looks at what an earlier try waited for, and its trigger may be about to cancel.
KILLED_DELAYS = (5.0,) * 3
#: Requests with an unknown outcome before the task gives up.
UNKNOWN_OUTCOMES = 3

_NEVER_ADOPTED = (OperationStatus.FAILED, OperationStatus.CANCELED)

log = logging.getLogger(__name__)


@dataclass
class Start:
    """One kind of operation on one offer, to be started exactly once.

    :param offer: the offer's operations
    :param verb: what people call such an operation: `GO_LIVE` or `PUBLISH`
    :param request: sends the request, and returns the Location
    :param is_mine: tells the operations of this kind
    :param is_achieved: tells whether what such an operation would achieve is so already
    :param is_stale: tells of one of this kind that runs whether it does something else than the request would
    :param check: raises if the request must not be sent as things stand; asked before each time it is
    :param may_be_killed: whether an earlier try's wait, which somebody cleared, may be about to cancel what
        runs
    """

    offer: OfferOperations
    verb: str
    request: Callable[[], str]
    is_mine: Callable[[Submission], bool]
    is_achieved: Callable[[], bool]
    is_stale: Callable[[Submission], bool] = lambda submission: False
    check: Callable[[], None] = lambda: None
    may_be_killed: bool = False
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
        for _ in poll_delays(lookup.LONG_DELAYS):
            self._before = self.offer.listed()
            running = [submission for submission in self._before if submission.is_running]
            for submission in filter(self.is_mine, running):
                if if_running == "fail" and not self._is_over(submission):
                    raise self.offer.conflict(self.verb, submission)
                if location := self._adoptable(submission):
                    log.info("%s: %s runs already; adopting it.", self.offer, describe(submission))
                    return location
            others = [submission for submission in running if not self.is_mine(submission)]
            ended = [self._has_ended(submission) for submission in others]
            if not any(ended):
                break
            log.info("%s: the list of operations lags behind; looking again.", self.offer)
        for submission in self._before:
            if self.is_mine(submission) and _succeeded_since(submission, since) and self.check_achieved():
                log.info("%s: %s ended in this Dag run; adopting it.", self.offer, describe(submission))
                return self.offer.locate(submission)[0]
        if if_running == "adopt" and (publish := self._publish_of_preview()) and self.check_achieved():
            log.info("%s: the preview of %s awaits the signoff; adopting it.", self.offer, describe(publish))
            return self.offer.locate(publish)[0]
        return None

    def _publish_of_preview(self) -> Submission | None:
        """Return the publish whose preview awaits the signoff.

        The publish of a migrated offer succeeds when the preview is ready; that of other offers still runs.
        """
        if self.verb != PUBLISH:
            return None
        mine = filter(self.is_mine, self._before)
        latest = max(mine, key=lambda submission: submission.publishing_version or 0, default=None)
        is_ready = latest and latest.status is OperationStatus.SUCCEEDED and self.offer.awaits_publisher()
        return latest if is_ready else None

    def check_achieved(self) -> bool:
        """Ask whether what the operation would achieve is so already."""
        return retry_transient(self.is_achieved)

    def submit(self, *, if_running: IfRunning) -> str:
        """Send the request, and return the Location of the one operation that came of it.

        :raises CloudPartnerError: the service refused, or what became of the request can't be told. It is
            safe to try again then: the next try looks first.
        """
        in_doubt, is_sent = 0, False

        def send() -> str:
            nonlocal is_sent
            is_sent = False
            self.check()
            is_sent = True
            return self.request()

        while True:
            try:
                location = retry_transient(send, lambda error: is_sent and error.is_unprocessed)
            except CloudPartnerError as error:
                if not is_sent:
                    raise
                unknown = error.accepted or error.has_unknown_outcome
                in_doubt += unknown
                if in_doubt:
                    # A refusal, too, may come of a request before that had its effect after all.
                    log.warning("%s: looking whether the request had its effect. %s", self.offer, error)
                    pauses = lookup.LONG_DELAYS if error.accepted else lookup.SHORT_DELAYS
                    if submission := self.offer.look(self._is_new, pauses):
                        location, _ = self.offer.locate(submission)
                        self._refuse_if_stale(submission)
                        return location
                if isinstance(error, ConflictError):
                    return self._resolve(error, if_running)
                if not unknown or error.accepted or in_doubt >= UNKNOWN_OUTCOMES:
                    raise
                log.warning("%s: no %s was begun; sending it again.", self.offer, self.verb)
            else:
                log.info("%s: the service accepted the %s: %s", self.offer, self.verb, location)
                self._outlast_namesake(location)
                return location

    def _resolve(self, refusal: ConflictError, if_running: IfRunning) -> str:
        """Adopt what began between look and request, or say what it is."""
        mine = self.offer.look(
            lambda submission: submission.is_running and self.is_mine(submission), lookup.LONG_DELAYS
        )
        if mine and if_running == "adopt":
            if location := self._adoptable(mine):
                return location
            raise ConflictError(
                f"No {self.verb} of {self.offer} was sent: {describe(mine)} ran on it and has ended badly "
                "since. Try again now that nothing runs."
            ) from refusal
        running = mine or self.offer.look(lambda submission: submission.is_running, (0.0,))
        raise self.offer.conflict(self.verb, running) if running else refusal

    def _adoptable(self, running: Submission) -> str | None:
        """Return the Location of an operation that runs by the list; None if it failed, or is canceled.

        :raises ConflictError: it is of the same kind, but does something else; or its cancel doesn't end
        """
        location, operation = self.offer.locate(running)
        for _ in poll_delays(KILLED_DELAYS if self.may_be_killed else ()):
            if operation.is_terminal or operation.is_being_canceled:
                break
            operation = self.offer.ask(location)
        if operation.is_being_canceled and not operation.is_terminal:
            log.info("%s: a %s is being canceled; waiting for its end.", self.offer, self.verb)
            for _ in poll_delays(CANCELING_DELAYS):
                operation = self.offer.ask(location)
                if operation.is_terminal or not operation.is_being_canceled:
                    break
            else:
                raise self.offer.conflict(self.verb, running)
        if operation.status in _NEVER_ADOPTED:
            self._ended_at.add(_path(location))
            return None
        self._refuse_if_stale(running)
        return location

    def _refuse_if_stale(self, submission: Submission) -> None:
        if retry_transient(lambda: self.is_stale(submission)):
            raise self.offer.conflict(
                self.verb,
                submission,
                "It began before the offer was last changed, so it is of something else. Go live with it, or "
                "wait until it ended, or cancel it; then try again.",
            )

    def _is_over(self, running: Submission) -> bool:
        """Whether what runs by the list has ended by its own Location."""
        found = self.offer.find(running)
        return found is not None and found[1].is_terminal

    def _has_ended(self, other: Submission) -> bool:
        """Whether what runs by the list has ended, so that the list lags behind.

        :raises ConflictError: it runs, and is no publish that waits for nothing but a go-live
        """
        found = self.offer.find(other)
        if found and found[1].is_terminal:
            return True
        may_wait = other.is_publish and self.verb == GO_LIVE
        if may_wait and ((found and found[1].awaiting_publisher) or self.offer.awaits_publisher()):
            return False
        raise self.offer.conflict(self.verb, other)

    def _outlast_namesake(self, location: str) -> None:
        """Wait until an operation is shown at its Location, if an earlier one that ended badly had the same.

        So it is where a go-live of an offer that was not migrated is repeated.
        """
        for submission in self._before:
            if submission.status in _NEVER_ADOPTED:
                self._ended_at |= set(map(_path, self.offer.locations(submission)))
        if _path(location) in self._ended_at:
            for _ in poll_delays(lookup.LONG_DELAYS):
                try:
                    if self.offer.ask(location).status not in _NEVER_ADOPTED:
                        return
                except CloudPartnerError as error:
                    # It is begun, so this is the wait's to survive.
                    log.warning("%s: the %s can't be read yet. %s", self.offer, self.verb, error)

    def _is_new(self, submission: Submission) -> bool:
        if not self.is_mine(submission):
            return False
        # Without an id, what runs now is all that can be told.
        known = {before.id for before in self._before}
        return submission.id not in known if submission.id else submission.is_running


def _path(location: str) -> str:
    return location.partition("?")[0]


def _succeeded_since(submission: Submission, since: datetime | None) -> bool:
    if submission.status is not OperationStatus.SUCCEEDED:
        return False
    # Without times it can't be told; then it is taken for one of this run, since its effect holds.
    return since is None or submission.changed is None or submission.changed >= since
