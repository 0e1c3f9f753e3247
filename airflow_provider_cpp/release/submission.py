"""Start an operation exactly once, whichever request, response or process fails.

A request that starts an operation has one of three results:

* The service answers: the operation has started, or the service refused it.
* The request certainly had no effect: the service was not reached, or answered 429, or 503 with Retry-After.
  The request is sent again.
* The outcome is unknown: the connection was lost after sending, or the service answered another 5xx. The
  request is not repeated blindly: the operation is looked up in the offer's list of operations first.

An earlier attempt of the task may have been killed between the request and the XCom. So the same lookup
precedes each request, and the journal reconnects a retry to the operation of the earlier attempt.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, ClassVar

from airflow_provider_cpp.core.errors import CloudPartnerError, ConflictError, NotFoundError
from airflow_provider_cpp.core.models import OperationStatus
from airflow_provider_cpp.release import lookup
from airflow_provider_cpp.release.journal import Journal
from airflow_provider_cpp.release.lookup import Retry, describe, poll_delays

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from airflow_provider_cpp.constants import IfRunning
    from airflow_provider_cpp.core.models import Operation, Submission
    from airflow_provider_cpp.release.journal import Entry
    from airflow_provider_cpp.release.lookup import OfferOperations


#: Pauses in seconds between reads of an operation that is being canceled, which takes one to three minutes.
CANCELING_DELAYS = (5.0,) * 60
#: Pauses in seconds between reads of an operation that the trigger of an earlier attempt may be canceling.
KILLED_DELAYS = (5.0,) * 3

_NEVER_ADOPTED = (OperationStatus.FAILED, OperationStatus.CANCELED)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Policy:
    """Which existing operations a task adopts.

    :param if_running: `adopt` a running operation that another client started, or `fail`
    :param run_started_at: when the Dag run started; None if that is unknown
    :param may_be_canceling: whether the trigger of an earlier attempt may be canceling its operation
    """

    if_running: IfRunning = "adopt"
    run_started_at: datetime | None = None
    may_be_canceling: bool = False


@dataclass
class Submitter(ABC):
    """Start one kind of operation on one offer exactly once: call `adopt`, then `submit` if it returned None.

    :param offer: the offer
    :param journal: the record of the task's request
    :param policy: which existing operations to adopt
    """

    #: The request in words.
    verb: ClassVar[str]
    #: Cause and cure, if the running operation of this kind has other content than the request.
    stale_reason: ClassVar[str]

    offer: OfferOperations
    _: KW_ONLY
    journal: Journal = field(default_factory=Journal)
    policy: Policy = Policy()
    _listed: list[Submission] = field(default_factory=list, init=False)
    # Ids of the operations that no request of this task started, or that are not to be adopted.
    _known_ids: frozenset[str] = field(default=frozenset(), init=False)
    # Whether a request was sent whose outcome is unknown.
    _in_doubt: bool = field(default=False, init=False)
    # Paths of operations that failed or were canceled. The next operation may reuse the path.
    _ended_at: set[str] = field(default_factory=set, init=False)

    # --- what each kind of operation defines ----------------------------------------------------------------

    @abstractmethod
    def send(self) -> str:
        """Send the request, and return the Location of the operation."""

    @abstractmethod
    def matches(self, submission: Submission) -> bool:
        """Return whether a list entry is an operation of this kind."""

    @abstractmethod
    def is_applied(self) -> bool:
        """Return whether the offer already is in the state that the operation leads to."""

    @property
    @abstractmethod
    def applied_state(self) -> str:
        """That state, as a clause."""

    @abstractmethod
    def is_stale(self, running: Submission) -> bool:
        """Return whether a running operation of this kind has other content than the request."""

    @abstractmethod
    def check(self) -> None:
        """Raise an error if the request must not be sent; called before each request."""

    def may_coexist(self, other: Submission, operation: Operation | None) -> bool:
        """Return whether the service accepts the request while this operation of another kind is running.

        :param operation: the operation at its Location; None if the service does not show it
        """
        return False

    def awaiting_signoff(self) -> Submission | None:
        """Return the listed operation of this kind that succeeded and now awaits the publisher's signoff."""
        return None

    # --- adopt an operation ---------------------------------------------------------------------------------

    def adopt(self) -> str | None:
        """Return the Location of an operation that makes the request unnecessary, or None.

        These operations are adopted, in this order:

        1. the operation that an earlier attempt of this task started, if it is running or succeeded;
        2. a running operation of this kind, unless `if_running` is `fail`;
        3. an operation of this kind that succeeded since the Dag run started, if its effect still holds;
        4. a publish that succeeded, if its preview has the draft's definition and awaits the signoff, unless
           `if_running` is `fail`.

        An operation that failed, was canceled, or is being canceled is never adopted.

        :raises ConflictError: another kind of operation is running, or this kind with `if_running="fail"`
        """
        entry = self.journal.read()
        location = (self._reconnect(entry) if entry else None) or self._adopt_listed()
        if location is not None:
            self.journal.accepted(location)
        return location

    def _reconnect(self, entry: Entry) -> str | None:
        """Return the Location of the operation that an earlier attempt of this task started."""
        if entry.location is not None:
            return self._reconnect_to(entry.location, entry)
        log.info("%s: looking up the %s that an earlier attempt may have started.", self.offer, self.verb)
        self._known_ids, self._in_doubt = entry.known_ids, True
        submission = self._look_up(self._is_new, lookup.LONG_DELAYS, report_others=True)
        if submission is None:
            log.info("%s: found no %s of an earlier attempt.", self.offer, self.verb)
            return None
        location, operation = self.offer.locate(submission)
        if self._can_adopt(location, operation, submission):
            log.info("%s: found %s of an earlier attempt; adopting it.", self.offer, describe(submission))
            return location
        return None

    def _reconnect_to(self, location: str, entry: Entry) -> str | None:
        """Return the recorded Location, if its operation is to be adopted.

        :raises CloudPartnerError: this is a retry, and the service does not show the operation
        """
        for _ in poll_delays(lookup.LONG_DELAYS):
            try:
                operation = self.offer.get_operation(location)
            except NotFoundError:
                continue
            # The list may not show the operation yet.
            own = (one for one in self.offer.list_operations() if _path(location) in self._paths(one))
            if self._can_adopt(location, operation, next(own, None), entry):
                log.info(
                    "%s: an earlier attempt started the %s; adopting %s.", self.offer, self.verb, location
                )
                return location
            return None
        if entry.is_retry:
            raise CloudPartnerError(
                f"{self.offer}: the service accepted the {self.verb} {location}, but answers 404 Not Found "
                "for it. No request was sent again. Retry the task later; to start a new operation, clear "
                "the task."
            )
        log.warning("%s: the service does not show %s, which this task started.", self.offer, location)
        return None

    def _adopt_listed(self) -> str | None:
        """Return the Location of a listed operation, if one is to be adopted."""
        for _ in poll_delays(lookup.LONG_DELAYS):
            self._listed = self.offer.list_operations()
            running = [submission for submission in self._listed if submission.is_running]
            is_outdated = False
            for submission in filter(self.matches, running):
                location, operation = self._find_running(submission)
                if self._can_adopt(location, operation, submission):
                    log.info(
                        "%s: adopting %s, which the list shows as running.", self.offer, describe(submission)
                    )
                    return location
                is_outdated |= operation.status is OperationStatus.SUCCEEDED
            for submission in running:
                if not self.matches(submission):
                    is_outdated |= self._has_ended(submission)
            if not is_outdated:
                break
            log.info("%s: the list of operations is out of date; reading it again.", self.offer)
        for submission in self._listed:
            is_success = self.matches(submission) and submission.status is OperationStatus.SUCCEEDED
            if is_success and self._is_of_this_run(submission) and self.is_applied():
                log.info(
                    "%s: adopting %s, which succeeded in this Dag run.", self.offer, describe(submission)
                )
                return self.offer.locate(submission)[0]
        if self.policy.if_running == "adopt" and (pending := self.awaiting_signoff()) and self.is_applied():
            log.info("%s: adopting %s, whose preview awaits the signoff.", self.offer, describe(pending))
            return self.offer.locate(pending)[0]
        return None

    def _find_running(self, submission: Submission) -> tuple[str, Operation]:
        """Return Location and operation of an entry that the list shows as running.

        :raises ConflictError: the operation is running, and `if_running` is `fail`
        """
        if self.policy.if_running == "adopt":
            return self.offer.locate(submission)
        found = self.offer.find(submission)
        if found is None or not found[1].is_terminal:
            raise self.offer.conflict(self.verb, submission)
        return found

    def _can_adopt(
        self,
        location: str,
        operation: Operation,
        submission: Submission | None,
        entry: Entry | None = None,
    ) -> bool:
        """Return whether to adopt an operation.

        :param submission: its list entry; None if the list does not show the operation
        :param entry: the journal's record, if it has this Location
        :raises ConflictError: it is running with other content, or is being canceled without end
        """
        was_running = not operation.is_terminal
        operation = self._wait_for_cancel(location, operation, submission)
        if operation.status in _NEVER_ADOPTED:
            self._ended_at.add(_path(location))
            return False
        if not operation.is_terminal:
            self._refuse_if_stale(submission)
            return True
        # A retry never repeats the success of its task. A cleared task does, unless the effect holds.
        if entry is not None and entry.is_retry:
            return True
        is_of_this_run = entry is not None or was_running or self._is_of_this_run(submission)
        return is_of_this_run and self.is_applied()

    def _wait_for_cancel(
        self, location: str, operation: Operation, submission: Submission | None
    ) -> Operation:
        """Return the operation after its cancel has ended, if one is under way."""
        for _ in poll_delays(KILLED_DELAYS if self.policy.may_be_canceling else ()):
            if operation.is_terminal or operation.is_being_canceled:
                break
            operation = self.offer.get_operation(location)
        if operation.is_being_canceled and not operation.is_terminal:
            log.info("%s: a %s is being canceled; waiting until it is canceled.", self.offer, self.verb)
            for _ in poll_delays(CANCELING_DELAYS):
                operation = self.offer.get_operation(location)
                if operation.is_terminal or not operation.is_being_canceled:
                    break
            else:
                raise self.offer.conflict(self.verb, submission or location)
        return operation

    def _refuse_if_stale(self, running: Submission | None) -> None:
        if running is not None and self.is_stale(running):
            raise self.offer.conflict(self.verb, running, self.stale_reason)

    def _is_of_this_run(self, submission: Submission | None) -> bool:
        """Return whether an operation that succeeded ended since the Dag run started.

        It ended after its last listed change, so an outdated entry can prove it. Without times it cannot be
        told; then the effect decides.
        """
        since = self.policy.run_started_at
        changed = submission.changed if submission else None
        return since is None or changed is None or changed >= since

    def _has_ended(self, other: Submission) -> bool:
        """Return whether an operation of another kind has ended, although the list shows it as running.

        :raises ConflictError: the operation is running, and the service would refuse the request
        """
        found = self.offer.find(other)
        operation = found[1] if found else None
        if operation is not None and operation.is_terminal:
            return True
        if self.may_coexist(other, operation):
            return False
        raise self.offer.conflict(self.verb, other)

    # --- send the request -----------------------------------------------------------------------------------

    def submit(self) -> str:
        """Send the request, and return the Location of the one operation that it started.

        :raises CloudPartnerError: the service refused the request, or the outcome stays unknown. The next
            attempt of the task looks the operation up before it sends anything.
        """
        # `adopt` has rejected these.
        self._known_ids |= {submission.id for submission in self._listed if submission.id}
        retry = Retry(f"Starting the {self.verb} of {self.offer}")
        unknown_outcomes = 0
        while True:
            self.check()
            self.journal.sending(self._known_ids)
            try:
                location = self.send()
            except CloudPartnerError as error:
                if error.is_unprocessed and retry.pause_after(error):
                    continue
                if error.accepted or error.has_unknown_outcome:
                    unknown_outcomes += 1
                    self._in_doubt = True
                if found := self._find_started(error):
                    return found
                if (
                    not error.has_unknown_outcome
                    or error.accepted
                    or unknown_outcomes >= lookup.UNKNOWN_OUTCOMES
                ):
                    raise
                log.warning(
                    "%s: found no %s that the request started; sending it again (attempt %d of %d).",
                    self.offer,
                    self.verb,
                    unknown_outcomes + 1,
                    lookup.UNKNOWN_OUTCOMES,
                )
            else:
                self.journal.accepted(location)
                log.info("%s: the service accepted the %s: %s", self.offer, self.verb, location)
                self._wait_until_shown(location)
                return location

    def _find_started(self, error: CloudPartnerError) -> str | None:
        """Return the Location of the operation that the request started in spite of an error; None if none.

        A refusal, too, may be the result of an earlier request that had its effect.

        :raises ConflictError: an operation is running that is not to be adopted
        :raises CloudPartnerError: an operation succeeded whose effect does not hold; the next attempt decides
        """
        if not self._in_doubt:
            self.journal.refused()
        if isinstance(error, ConflictError):
            submission, location = self._resolve_conflict(error)
        elif self._in_doubt:
            log.warning("%s: looking up whether the request started a %s. %s", self.offer, self.verb, error)
            found = self._look_up(self._is_new, lookup.LONG_DELAYS if error.accepted else lookup.SHORT_DELAYS)
            if found is None:
                return None
            submission, (location, operation) = found, self.offer.locate(found)
            if operation.status is OperationStatus.SUCCEEDED and not self.is_applied():
                log.warning(
                    "%s: %s does not have the effect of the request.", self.offer, describe(submission)
                )
                raise error
            self._refuse_if_stale(submission)
        else:
            return None
        self.journal.accepted(location)
        log.info("%s: found %s; the request is not sent again.", self.offer, describe(submission))
        return location

    def _resolve_conflict(self, refusal: ConflictError) -> tuple[Submission, str]:
        """Return the running operation that caused a refusal: this task's own, or another client's.

        :raises ConflictError: it is not to be adopted, or the list does not show it
        """
        log.warning("%s: looking up which operation is running. %s", self.offer, refusal)
        running = self._look_up(self._is_running, lookup.LONG_DELAYS, report_others=True)
        if running is None:
            raise refusal
        is_own = self._in_doubt and self._is_new(running)
        location, operation = self.offer.locate(running) if is_own else self._find_running(running)
        if self._can_adopt(location, operation, running):
            return running, location
        raise ConflictError(
            f"No {self.verb} of {self.offer} was started: {describe(running)} was running, and has ended "
            "since. Retry the task."
        ) from refusal

    def _look_up(
        self, is_wanted: Callable[[Submission], bool], pauses: Iterable[float], *, report_others: bool = False
    ) -> Submission | None:
        """Return a list entry, as soon as the list shows one; None if it does not.

        :param report_others: raise a `ConflictError` at once if an operation of another kind is running
        """
        for _ in poll_delays(pauses):
            listed = self.offer.list_operations()
            for submission in filter(is_wanted, listed):
                return submission
            for submission in listed:
                if report_others and submission.is_running and not self.matches(submission):
                    self._has_ended(submission)
        return None

    def _is_running(self, submission: Submission) -> bool:
        return submission.is_running and self.matches(submission)

    def _is_new(self, submission: Submission) -> bool:
        """Return whether a request of this task may have started an operation.

        The known ids may be incomplete, because the list was out of date. So an operation that has ended is
        new only if it ended since the Dag run started, and did not fail before the request.
        """
        if not self.matches(submission) or submission.id in self._known_ids:
            return False
        if submission.status in _NEVER_ADOPTED and not self._ended_at.isdisjoint(self._paths(submission)):
            return False
        return submission.is_running or (bool(submission.id) and self._is_of_this_run(submission))

    def _wait_until_shown(self, location: str) -> None:
        """Wait until the service shows the new operation, if an earlier one had the same Location.

        That is the case if the go-live of an offer that was not migrated is repeated.
        """
        for submission in self._listed:
            if submission.status in _NEVER_ADOPTED:
                self._ended_at |= self._paths(submission)
        if _path(location) not in self._ended_at:
            return
        for _ in poll_delays(lookup.LONG_DELAYS):
            try:
                if self.offer.get_operation(location).status not in _NEVER_ADOPTED:
                    return
            except CloudPartnerError as error:
                # The operation has started; the polling loop handles read errors.
                log.warning("%s: the %s cannot be read yet. %s", self.offer, self.verb, error)

    def _paths(self, submission: Submission) -> set[str]:
        return set(map(_path, self.offer.locations(submission)))


def _path(location: str) -> str:
    return location.partition("?")[0]
