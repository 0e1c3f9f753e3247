"""The one decision of a wait: is this an end, which one, and how long until the next question.

`decide` is a function from what is known, what came back and the time, to what is known now and what to do.
Whoever waits (sensor, operator, trigger) asks the service, calls it, logs what it says, and sleeps as long as
it says. Like `api`, this module does no I/O and knows no Airflow.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_cpp.core.errors import CloudPartnerError, NotFoundError
from airflow_provider_cpp.core.models import OfferState, OfferStatus, Operation, OperationStatus, Step
from airflow_provider_cpp.core.text import html_to_text, normalize_status

if TYPE_CHECKING:
    from collections.abc import Mapping

Until = Literal["completed", "preview"]
#: What is waited on.
Progress = Operation | OfferStatus

#: The states in which a wait for an operation ends well, and in which it ends badly.
SIGNOFF = OfferState.WAITING_FOR_PUBLISHER_REVIEW.value
SUCCESS_STATUSES: dict[Until, tuple[str, ...]] = {
    "completed": (OperationStatus.SUCCEEDED.value,),
    "preview": (OperationStatus.SUCCEEDED.value, SIGNOFF),
}
FAILURE_STATUSES = (OperationStatus.FAILED.value, OperationStatus.CANCELED.value)

#: The service answers 404 for minutes after it accepted an operation. The seventh in a row is believed: with
#: the default `poke_interval` and the time between them doubled each time, after 25 minutes.
NOT_FOUND_LIMIT = 7
#: Between two questions lies a twentieth of the age of the wait, within `poke_interval` and `max_wait`. It
#: depends on the age alone, so a restart of the triggerer doesn't make an old wait ask often again.
AGE_PER_WAIT = 20
#: Up to this share of a wait is taken off at random, so that releases that began together don't ask together.
JITTER = 0.15
#: No Retry-After is obeyed beyond this, in seconds: a mistaken one must not put off a release for days.
LONGEST_RETRY_AFTER = 3600.0
#: An interval of 0 must not make a loop that never rests, in seconds.
SHORTEST_WAIT = 0.01

#: By so many percent a step moves on for a line in the log: a triggerer writes its log for all who wait.
TELLING_PROGRESS = 10

MESSAGE_LIMIT = 20


class Outcome(StrEnum):
    """How a wait ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    #: The service gave an answer that waiting does not cure.
    ERROR = "error"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class PollSpec:
    """What is waited for, and how patiently. Times are seconds, points in time seconds since the epoch.

    :param subject: what to call it in logs, e.g. `contoso/web`
    :param until: the states that end it well; `waitingForPublisherReview` when the publisher's signoff is
        awaited, whatever the status is then
    :param fail_on: the states that end it badly
    :param started_at: when the wait began, before any restart
    :param deadline: when it is given up
    :param poke_interval: the shortest time between two questions
    :param max_wait: the longest
    :param exponential_backoff: whether the time grows from the one to the other
    """

    subject: str
    until: tuple[str, ...]
    fail_on: tuple[str, ...]
    started_at: float
    deadline: float
    poke_interval: float
    max_wait: float
    exponential_backoff: bool = True

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> PollSpec:
        """Return it from what `dataclasses.asdict` returned."""
        return cls(**{**raw, "until": tuple(raw["until"]), "fail_on": tuple(raw["fail_on"])})

    def interval(self, now: float, *, faults: int = 0, jitter: float = 0.0) -> float:
        """Return the seconds until the next question.

        :param faults: how many polls in a row brought no answer; each doubles the time, up to `max_wait`
        :param jitter: a random number from 0 to 1
        """
        longest = max(self.poke_interval, self.max_wait)
        grown = (now - self.started_at) / AGE_PER_WAIT if self.exponential_backoff else 0.0
        seconds = min(longest, max(self.poke_interval * 2.0 ** min(faults, 30), grown))
        return max(SHORTEST_WAIT, seconds * (1 - JITTER * jitter))


@dataclass(frozen=True, slots=True)
class PollState:
    """What earlier polls brought: to log only news, and to tell lasting faults from passing ones."""

    steps: tuple[tuple[str, str, int], ...] = ()
    told: frozenset[str] = frozenset()
    faults: int = 0
    not_found: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON, for a trigger's arguments."""
        return {
            "steps": [list(step) for step in self.steps],
            "told": sorted(self.told),
            "faults": self.faults,
            "not_found": self.not_found,
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> PollState:
        """Return it from what `to_json` returned."""
        steps = tuple((key, status, percentage) for key, status, percentage in raw["steps"])
        return cls(steps, frozenset(raw["told"]), raw["faults"], raw["not_found"])


@dataclass(frozen=True, slots=True)
class Unchanged:
    """An answer that is to the letter the one before.

    :param retry_after: seconds that the service asked to wait, if it did
    """

    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows from a poll.

    :param seen: for the next call of `decide`
    :param end: how the wait ended; None to go on
    :param seconds: until the next poll
    :param log: lines to log, each with its level
    """

    seen: PollState
    end: Outcome | None = None
    seconds: float = 0.0
    log: tuple[tuple[int, str], ...] = field(default=())


def decide(
    wait: PollSpec,
    seen: PollState,
    answer: Progress | Unchanged | CloudPartnerError,
    *,
    now: float,
    jitter: float,
) -> Decision:
    """Decide what follows from a poll.

    :param answer: how what is waited on stands, or the error that came instead
    :param now: seconds since the epoch
    :param jitter: a random number from 0 to 1
    """
    if isinstance(answer, CloudPartnerError):
        return _after_error(wait, seen, answer, now, jitter)
    seconds = _until_next(wait, now, answer.retry_after, wait.interval(now, jitter=jitter))
    log: tuple[tuple[int, str], ...] = ()
    if not isinstance(answer, Unchanged):
        seen, log = _news(wait, seen, answer, seconds)
        if end := _end(wait, answer):
            return Decision(seen, end, log=log)
    if now >= wait.deadline:
        return Decision(seen, Outcome.TIMEOUT, log=log)
    return Decision(seen, seconds=seconds, log=log)


def state_of(answer: Progress) -> str:
    """Return the state that a wait goes by: the signoff's being awaited comes before `running`."""
    under_way = ("running", "notStarted", "unknown")
    return SIGNOFF if answer.status.value in under_way and answer.awaiting_publisher else answer.status.value


def _end(wait: PollSpec, answer: Progress) -> Outcome | None:
    state = state_of(answer)
    if state in wait.until:
        return Outcome.SUCCEEDED
    if state in wait.fail_on:
        return Outcome.CANCELED if answer.status.value == OperationStatus.CANCELED.value else Outcome.FAILED
    return None


def _after_error(
    wait: PollSpec, seen: PollState, error: CloudPartnerError, now: float, jitter: float
) -> Decision:
    if isinstance(error, NotFoundError):
        seen = replace(seen, not_found=seen.not_found + 1)
        lasting = seen.not_found >= NOT_FOUND_LIMIT
        what = f"not found ({seen.not_found} times in a row; the {NOT_FOUND_LIMIT}th is believed)"
        seconds = wait.interval(now, faults=seen.not_found - 1, jitter=jitter)
    else:
        seen = replace(seen, faults=seen.faults + 1, not_found=0)
        lasting = not error.is_transient
        what = "no usable answer"
        seconds = wait.interval(now, faults=seen.faults, jitter=jitter)
    if lasting:
        return Decision(seen, Outcome.ERROR)
    if now >= wait.deadline:
        return Decision(seen, Outcome.TIMEOUT, log=((logging.WARNING, f"{wait.subject}: {what}. {error}"),))
    seconds = _until_next(wait, now, error.retry_after, seconds)
    line = f"{wait.subject}: {what}; the wait goes on, next poll in {_number(seconds)} s. {error}"
    return Decision(seen, seconds=seconds, log=((logging.WARNING, line),))


def _number(seconds: float) -> str:
    return f"{seconds:.3g}" if seconds < 100 else f"{seconds:.0f}"


def _until_next(wait: PollSpec, now: float, retry_after: float | None, seconds: float) -> float:
    """Obey the service's Retry-After first, but ask once more when the deadline comes."""
    asked = min(retry_after or 0.0, LONGEST_RETRY_AFTER)
    return max(0.0, min(max(asked, seconds), wait.deadline - now))


def _news(
    wait: PollSpec, seen: PollState, answer: Progress, seconds: float
) -> tuple[PollState, tuple[tuple[int, str], ...]]:
    """Return what is known now, and a line for each thing that is new."""
    lines: list[tuple[int, str]] = []
    now = tuple(_as_told(step, seen) for step in answer.steps)
    for step, state in zip(answer.steps, now, strict=True):
        if state in seen.steps or (step.status == "notStarted" and not seen.steps):
            continue
        errors = [message.text for message in step.messages if message.level == "error" and message.text]
        said = "; ".join(text.removesuffix(".") for text in errors) or (
            step.messages[-1].text if step.messages else ""
        )
        is_open = step.estimated_time and step.status != "complete" and not errors
        estimate = f", estimated {step.estimated_time}" if is_open else ""
        line = f"{wait.subject}: {step.name} {step.status} {state[2]} %{estimate}"
        lines.append((logging.ERROR if errors else logging.INFO, f"{line}: {said}" if said else line))
    told = set(seen.told)

    def tell_once(level: int, line: str) -> None:
        if line not in told:
            told.add(line)
            lines.append((level, line))

    noun = "operation" if isinstance(answer, Operation) else "offer"
    if answer.status.value == OperationStatus.UNKNOWN.value:
        word = html_to_text(normalize_status(answer.raw["status"]), 100)
        tell_once(logging.WARNING, f"{wait.subject}: unknown {noun} status {word!r}; not taken for an end.")
    end = _end(wait, answer)
    if state_of(answer) == SIGNOFF and not end:
        tell_once(
            logging.WARNING,
            f"{wait.subject}: the preview is ready and the publisher's signoff is awaited. This wait is for "
            f"{' or '.join(wait.until)} and goes on; somebody has to go live. (To wait for the preview of an "
            "operation only: until='preview'.)",
        )
    is_bad = end in (Outcome.FAILED, Outcome.CANCELED)
    tell_once(logging.ERROR if is_bad else logging.INFO, f"{wait.subject}: {noun} {answer.status}")
    if seen.faults or seen.not_found:
        lines.append((logging.INFO, f"{wait.subject}: the service answers again, {noun} {answer.status}."))
    if lines and seconds and not end:
        lines[-1] = (lines[-1][0], f"{lines[-1][1]} (next poll in {_number(seconds)} s)")
    return PollState(steps=now, told=frozenset(told)), tuple(lines)


def _as_told(step: Step, seen: PollState) -> tuple[str, str, int]:
    """Return how a step stands, or how it stood when that was logged, unless it moved on since."""
    key, status, percentage = step.id or step.name, step.status, step.progress_percentage
    for told in seen.steps:
        if told[:2] == (key, status) and abs(told[2] - percentage) < TELLING_PROGRESS:
            return told
    return key, status, percentage


def summarize(identity: Mapping[str, str], answer: Progress) -> dict[str, Any]:
    """Return how an operation or an offer stands as the small JSON object that goes to XCom.

    Its `messages` are texts without markup, errors first, at most `MESSAGE_LIMIT`; where there were more, the
    last one says how many.

    :param identity: what it is, e.g. the operation's `location`
    """
    # The service says the same of the operation and of its step.
    texts = list(dict.fromkeys(message.text[:500] for message in answer.all_messages if message.text))
    if len(texts) > MESSAGE_LIMIT:
        texts[MESSAGE_LIMIT - 1 :] = [f"… and {len(texts) - MESSAGE_LIMIT + 1} more messages, not shown"]
    how_far = (
        {"status": answer.status.value, "progress_percentage": answer.progress_percentage}
        if isinstance(answer, Operation)
        else {"status": state_of(answer)}
    )
    return {
        **identity,
        **how_far,
        "steps": [
            {
                "id": step.id,
                "name": step.name,
                "status": step.status,
                "progress_percentage": step.progress_percentage,
            }
            for step in answer.steps
        ],
        "messages": texts,
    }


def explain(wait: PollSpec, identity: Mapping[str, str], end: Outcome, answer: Progress | None) -> str:
    """Return the error text for a wait that ended with `FAILED`, `CANCELED` or `TIMEOUT`."""
    location = identity.get("location")
    noun = f"operation {location}" if location else "the offer"
    step = answer.current_step if answer else None
    where = f" in step {step.name}" if step else ""
    if end is Outcome.TIMEOUT:
        state = f"It was last seen {state_of(answer)}{where}." if answer else "It was never seen."
        limit = timedelta(seconds=round(wait.deadline - wait.started_at))
        return (
            f"Gave up waiting for {wait.subject} after {limit}: {noun} did not become "
            f"{' or '.join(wait.until)}. {state} It goes on at the service: raise the timeout and clear this "
            "task to go on waiting."
        )
    messages = answer.all_messages if answer else ()
    errors = [message for message in messages if message.level == "error"] or messages
    texts = dict.fromkeys(message.text[:500] for message in errors if message.text)
    said = ("; ".join(list(texts)[:5]) or "without a message").removesuffix(".")
    verb = state_of(answer) if answer else end.value
    subject = f"The operation on {wait.subject} {verb}" if location else f"The offer {wait.subject} is {verb}"
    cure = _CURES.get(verb, "")
    if verb not in ("failed", "canceled") and not location:
        cure = "That is a state that this wait fails on."
    return f"{subject}{where}: {said}. {cure}{f' ({location})' if location else ''}"


_CURES = {
    "failed": "Correct what the messages name, publish again, and go live.",
    "canceled": "It was canceled at the service; start it again if it is still wanted.",
    "succeeded": "It completed before it could be canceled: what it did stands.",
}
