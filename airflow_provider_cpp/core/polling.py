"""Polling without I/O: what each response means, when polling ends, and when the next poll is due.

`Poller` is the one poll loop body for every mode. The caller (a task in a worker, or a trigger) sends the
requests, writes the log lines, and sleeps.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_cpp.core.errors import CloudPartnerError, NotFoundError
from airflow_provider_cpp.core.http import Request, Response
from airflow_provider_cpp.core.models import OperationStatus
from airflow_provider_cpp.core.progress import FAILURE_STATUSES as FAILURE_STATUSES
from airflow_provider_cpp.core.progress import SIGNOFF as SIGNOFF
from airflow_provider_cpp.core.progress import SUCCESS_STATUSES as SUCCESS_STATUSES
from airflow_provider_cpp.core.progress import Outcome as Outcome
from airflow_provider_cpp.core.progress import (
    PollTarget,
    Progress,
    describe_status,
    describe_step,
    effective_status,
    explain_failure,
    explain_timeout,
    reported_step,
    summarize,
    unknown_status,
)
from airflow_provider_cpp.core.progress import Until as Until

if TYPE_CHECKING:
    from collections.abc import Mapping

#: After it accepted an operation, the service may answer 404 for minutes. A 404 is final when every response
#: of so many seconds was a 404. The limit is a time, so that it is the same for every mode and interval.
NOT_FOUND_SECONDS = 25 * 60.0
#: The interval is the age of the polling divided by this number, within `poke_interval` and `max_wait`. It
#: depends on the age only, so a restarted triggerer does not poll old operations more often.
AGE_PER_INTERVAL = 20
#: Up to this share of an interval is taken off at random, so that releases that started together do not poll
#: together.
JITTER = 0.15
#: The longest Retry-After that is honored, in seconds: a wrong value must not delay a release for days.
LONGEST_RETRY_AFTER = 3600.0
#: The shortest interval in seconds, also for `poke_interval=0`.
SHORTEST_INTERVAL = 0.01

LogLines = tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class PollSpec:
    """What polling waits for, and how often it polls. Durations and points in time (epoch) are in seconds.

    :param subject: name for log lines and errors, for example `contoso/web`
    :param until: statuses that end polling with success; `waitingForPublisherReview` is also the status
        while the publisher's signoff is awaited
    :param fail_on: statuses that end polling with a failure
    :param started_at: time of the first poll, in any process
    :param deadline: time at which polling times out
    :param poke_interval: shortest time between two polls
    :param max_wait: longest time between two polls
    :param exponential_backoff: whether the time between two polls grows with the age of the polling
    """

    subject: str
    until: tuple[str, ...]
    fail_on: tuple[str, ...]
    started_at: float
    deadline: float
    poke_interval: float
    max_wait: float
    exponential_backoff: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return the spec as JSON, for a trigger's arguments."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> PollSpec:
        """Return the spec from the result of `to_json`."""
        return cls(**{**raw, "until": tuple(raw["until"]), "fail_on": tuple(raw["fail_on"])})

    def interval(self, now: float, *, faults: int = 0, jitter: float = 0.0) -> float:
        """Return the seconds until the next poll.

        :param faults: number of consecutive failed polls; each doubles the interval, up to `max_wait`
        :param jitter: a random number from 0 to 1
        """
        longest = max(self.poke_interval, self.max_wait)
        grown = (now - self.started_at) / AGE_PER_INTERVAL if self.exponential_backoff else 0.0
        seconds = min(longest, max(self.poke_interval * 2.0 ** min(faults, 30), grown))
        return max(SHORTEST_INTERVAL, seconds * (1 - JITTER * jitter))


@dataclass(frozen=True, slots=True)
class PollState:
    """Findings of the polls so far, for the next poll.

    :param steps: id, status and percentage of each step, as last logged
    :param reported: keys of the log lines that are not logged again
    :param faults: number of consecutive polls without a usable response
    :param not_found: number of consecutive responses 404
    :param not_found_since: time of the first of these, in seconds since the epoch
    """

    steps: tuple[tuple[str, str, int], ...] = ()
    reported: frozenset[str] = frozenset()
    faults: int = 0
    not_found: int = 0
    not_found_since: float | None = None

    @property
    def is_failing(self) -> bool:
        """Whether the last poll got no usable response."""
        return bool(self.faults or self.not_found)

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON, for a trigger's arguments."""
        return {
            "steps": [list(step) for step in self.steps],
            "reported": sorted(self.reported),
            "faults": self.faults,
            "not_found": self.not_found,
            "not_found_since": self.not_found_since,
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> PollState:
        """Return the state from the result of `to_json`; earlier releases stored less."""
        return cls(
            steps=tuple((key, status, percentage) for key, status, percentage in raw["steps"]),
            reported=frozenset(raw.get("reported", ())),
            faults=raw["faults"],
            not_found=raw["not_found"],
            not_found_since=raw.get("not_found_since"),
        )


@dataclass(frozen=True, slots=True)
class Unchanged:
    """A response whose body is equal to the previous one.

    :param retry_after: the service's Retry-After in seconds, if there is one
    """

    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The result of a poll.

    :param state: state for the next poll
    :param outcome: how polling ended; None if it continues
    :param seconds: time until the next poll
    :param log: lines to log, each with its level
    :param event: JSON with the outcome, if `Poller` ended polling
    """

    state: PollState
    outcome: Outcome | None = None
    seconds: float = 0.0
    log: LogLines = ()
    event: dict[str, Any] | None = field(default=None, compare=False)


class Poller:
    """Poll one operation or offer.

    For each poll, send `request` and pass the result to `feed`. Log its lines, then end with its event or
    sleep for its seconds.
    """

    # Thousands of pollers share a triggerer.
    __slots__ = ("_last", "_request", "spec", "state", "target")

    def __init__(self, spec: PollSpec, target: PollTarget, state: PollState | None = None) -> None:
        self.spec = spec
        self.target = target
        self.state = state or PollState()
        self._request: Request[Any] | None = None
        self._last: Progress | bytes | None = None

    def request(self, base_url: str) -> Request[Any]:
        """Return the request of the next poll.

        :param base_url: the connection's host
        :raises ValueError: the location or an id is invalid
        """
        if self._request is None:
            self._request = self.target.request(base_url)
        return self._request

    @property
    def known_body(self) -> bytes | None:
        """The body that need not be read again. None after a failed poll: the recovery is logged."""
        return self._last if isinstance(self._last, bytes) and not self.state.is_failing else None

    def feed(
        self,
        result: Progress | Unchanged | CloudPartnerError,
        *,
        now: float,
        jitter: float,
        body: bytes | None = None,
    ) -> Decision:
        """Take the result of a poll and return the decision.

        :param now: seconds since the epoch
        :param jitter: a random number from 0 to 1
        :param body: the response's body. The poller keeps it instead of `result`, which takes more memory.
        """
        decision = decide(self.spec, self.state, result, now=now, jitter=jitter)
        self.state = decision.state
        if not isinstance(result, Unchanged | CloudPartnerError):
            self._last = result if body is None else body
        if decision.outcome is None:
            return decision
        error = result if isinstance(result, CloudPartnerError) else None
        return replace(decision, event=self._event(decision.outcome, error))

    def fail(self, error: Exception) -> dict[str, Any]:
        """Return the event for an error that no later poll can cure, such as an invalid connection."""
        return self._event(Outcome.ERROR, error)

    def _event(self, outcome: Outcome, error: Exception | None) -> dict[str, Any]:
        last = self._last
        if isinstance(last, bytes):
            last = None if self._request is None else self._request.read(Response(200, {}, last))
        return make_event(self.spec, self.target, outcome, progress=last, error=error)


def decide(
    spec: PollSpec,
    state: PollState,
    result: Progress | Unchanged | CloudPartnerError,
    *,
    now: float,
    jitter: float,
) -> Decision:
    """Return the decision after a poll.

    :param result: the operation or the offer's status, or the error instead of a response
    :param now: seconds since the epoch
    :param jitter: a random number from 0 to 1
    """
    if isinstance(result, CloudPartnerError):
        return _after_error(spec, state, result, now, jitter)
    seconds = _until_next(spec, now, result.retry_after, spec.interval(now, jitter=jitter))
    log: LogLines = ()
    if not isinstance(result, Unchanged):
        outcome = _outcome(spec, result)
        state, log = _changes(spec, state, result, outcome, now=now, seconds=seconds)
        if outcome:
            return Decision(state, outcome, log=log)
    if now >= spec.deadline:
        return Decision(state, Outcome.TIMEOUT, log=log)
    return Decision(state, seconds=seconds, log=log)


def _outcome(spec: PollSpec, progress: Progress) -> Outcome | None:
    status = effective_status(progress)
    if status in spec.until:
        return Outcome.SUCCEEDED
    if status in spec.fail_on:
        is_canceled = progress.status.value == OperationStatus.CANCELED.value
        return Outcome.CANCELED if is_canceled else Outcome.FAILED
    return None


def _after_error(
    spec: PollSpec, state: PollState, error: CloudPartnerError, now: float, jitter: float
) -> Decision:
    if isinstance(error, NotFoundError):
        since = now if state.not_found_since is None else state.not_found_since
        state = replace(state, not_found=state.not_found + 1, not_found_since=since)
        is_final = now - since >= NOT_FOUND_SECONDS
        word = "404 Not Found" if error.status else "not found"
        age, limit = _number(max(0.0, now - since)), _number(NOT_FOUND_SECONDS)
        problem = f"{word} (for {age} s; final after {limit} s)"
        seconds = spec.interval(now, faults=state.not_found - 1, jitter=jitter)
    else:
        state = replace(state, faults=state.faults + 1, not_found=0, not_found_since=None)
        is_final = not error.is_transient
        problem = "the poll failed"
        seconds = spec.interval(now, faults=state.faults, jitter=jitter)
    if is_final:
        return Decision(state, Outcome.ERROR)
    if now >= spec.deadline:
        line = f"{spec.subject}: {problem}. {error}"
        return Decision(state, Outcome.TIMEOUT, log=((logging.WARNING, line),))
    seconds = _until_next(spec, now, error.retry_after, seconds)
    line = f"{spec.subject}: {problem}; polling continues. Next poll in {_number(seconds)} s. {error}"
    return Decision(state, seconds=seconds, log=((logging.WARNING, line),))


def _number(seconds: float) -> str:
    return f"{seconds:.3g}" if seconds < 100 else f"{seconds:.0f}"


def _until_next(spec: PollSpec, now: float, retry_after: float | None, seconds: float) -> float:
    """Honor Retry-After, but poll once more at the deadline."""
    requested = min(retry_after or 0.0, LONGEST_RETRY_AFTER)
    return max(0.0, min(max(requested, seconds), spec.deadline - now))


def _changes(
    spec: PollSpec,
    state: PollState,
    progress: Progress,
    outcome: Outcome | None,
    *,
    now: float,
    seconds: float,
) -> tuple[PollState, LogLines]:
    """Return the new state, and a log line for each change."""
    lines: list[tuple[int, str]] = []
    steps = tuple(reported_step(step, state.steps) for step in progress.steps)
    known = {key: status for key, status, _ in state.steps}
    for step, current in zip(progress.steps, steps, strict=True):
        if current in state.steps or (step.status == "notStarted" and not state.steps):
            continue
        lines.append(describe_step(step, now=now, is_new=known.get(current[0]) != step.status))
    reported = set(state.reported)

    def report_once(key: str, level: int, text: str) -> None:
        if key not in reported:
            reported.add(key)
            lines.append((level, text))

    description = describe_status(progress)
    word = unknown_status(progress)
    if word is not None:
        report_once(
            f"unknown {word}",
            logging.WARNING,
            f"the service reports the unknown status {word!r}; polling continues.",
        )
    if effective_status(progress) == SIGNOFF and not outcome:
        report_once(
            "signoff",
            logging.WARNING,
            "the preview is ready and the publisher's signoff is awaited. Go live to continue: this task "
            f"polls until the status is {' or '.join(spec.until)}. (To stop at the preview of an operation, "
            "set until='preview'.)",
        )
    is_failure = outcome in (Outcome.FAILED, Outcome.CANCELED)
    report_once(str(progress.status), logging.ERROR if is_failure else logging.INFO, f"{description}.")
    if state.is_failing:
        lines.append((logging.INFO, f"the service responds again; {description}."))
    if lines and seconds and not outcome:
        lines[-1] = (lines[-1][0], f"{lines[-1][1]} Next poll in {_number(seconds)} s.")
    log = tuple((level, f"{spec.subject}: {text}") for level, text in lines)
    return PollState(steps=steps, reported=frozenset(reported)), log


def make_event(
    spec: PollSpec,
    target: PollTarget,
    outcome: Outcome,
    *,
    progress: Progress | None,
    error: Exception | None = None,
) -> dict[str, Any]:
    """Return the outcome of polling as JSON.

    :param progress: the last response, if there was one
    :param error: the error instead of a response, if that ended polling
    :return: `status` and `message`; the target's location and ids; `result`, the summary of the last
        response; `step`, the name of the current step; and `error`, the name of the error's class
    """
    identity = target.identity
    step = progress.current_step if progress else None
    if error is not None and outcome is Outcome.ERROR:
        message = str(error)
    elif outcome is Outcome.TIMEOUT:
        seconds = spec.deadline - spec.started_at
        message = explain_timeout(
            spec.subject, identity, statuses=spec.until, seconds=seconds, progress=progress
        )
    elif outcome is Outcome.SUCCEEDED and progress:
        message = f"{spec.subject}: {describe_status(progress)}."
    else:
        message = explain_failure(spec.subject, identity, outcome, progress)
    return {
        "status": outcome.value,
        "message": message,
        **identity,
        "result": summarize(target, progress) if progress else None,
        "step": step.name if step else None,
        "error": type(error).__name__ if outcome is Outcome.ERROR else None,
    }
