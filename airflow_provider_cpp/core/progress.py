"""Progress of an operation or an offer: status for polling, sentences for the log, JSON for XCom."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Protocol

from airflow_provider_cpp.core.models import OfferState, OfferStatus, Operation, OperationStatus, Step
from airflow_provider_cpp.core.text import html_to_text, normalize_status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_cpp.core.http import Request

Until = Literal["completed", "preview"]
#: The model in a poll's response.
Progress = Operation | OfferStatus

#: The preview is ready and the publisher has to go live.
SIGNOFF = OfferState.WAITING_FOR_PUBLISHER_REVIEW.value
SUCCESS_STATUSES: dict[Until, tuple[str, ...]] = {
    "completed": (OperationStatus.SUCCEEDED.value,),
    "preview": (OperationStatus.SUCCEEDED.value, SIGNOFF),
}
FAILURE_STATUSES = (OperationStatus.FAILED.value, OperationStatus.CANCELED.value)

MESSAGE_LIMIT = 20
_MESSAGE_LENGTH = 500
# A log line for a step appears each time its percentage changes by at least this much.
_PERCENT_PER_LINE = 10

_STEP_PREDICATES = {
    "notStarted": "has not started",
    "complete": "is complete",
    "waitingForPublisherReview": "is waiting for the publisher",
    "waitingForApproval": "is waiting for approval",
    "blocked": "is blocked",
    "rejected": "was rejected",
    "canceled": "was canceled",
    "failed": "failed",
}
_OPERATION_PREDICATES = {
    "notStarted": "has not started",
    "running": "is running",
    "succeeded": "succeeded",
    "failed": "failed",
    "canceled": "was canceled",
}
_CURES = {
    "failed": "Correct the problems that the messages name, then publish again and go live.",
    "canceled": "It was canceled at the service: start it again if you still need it.",
    "succeeded": "It completed before it could be canceled: its changes stay in place.",
}
_UNITS = {"min": 60, "hour": 3600, "day": 86400, "week": 604800}
# The service's standard message of a complete step repeats the status.
_NO_NEWS = "step completed."


class Outcome(StrEnum):
    """How polling ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    #: A later poll cannot succeed, for example after a 403.
    ERROR = "error"
    TIMEOUT = "timeout"


class PollTarget(Protocol):
    """An operation or an offer to poll."""

    @property
    def identity(self) -> Mapping[str, str]:
        """Location and ids, as results and events contain them."""

    def request(self, base_url: str) -> Request[Any]:
        """Return the request of each poll.

        :param base_url: the connection's host
        """

    def version(self, progress: Progress) -> int | None:
        """Return the version that the service is publishing, if the response contains it."""


def effective_status(progress: Progress) -> str:
    """Return the status that polling uses: while the signoff is awaited, that replaces `running`."""
    unfinished = ("running", "notStarted", "unknown")
    awaits_signoff = progress.status.value in unfinished and progress.awaiting_publisher
    return SIGNOFF if awaits_signoff else progress.status.value


def describe_status(progress: Progress) -> str:
    """Return a clause with the status, such as `the operation is running`."""
    status = effective_status(progress)
    if isinstance(progress, OfferStatus):
        return f"the offer's status is {status}"
    if status == SIGNOFF:
        return "the operation is waiting for the publisher's signoff"
    return f"the operation {_OPERATION_PREDICATES.get(status, f'has the status {status}')}"


def unknown_status(progress: Progress) -> str | None:
    """Return the service's own word for a status that no documentation lists; None for a known status."""
    if progress.status.value != OperationStatus.UNKNOWN.value:
        return None
    return html_to_text(normalize_status(progress.raw["status"]), 100)


def reported_step(step: Step, reported: Sequence[tuple[str, str, int]]) -> tuple[str, str, int]:
    """Return a step's id, status and percentage, or the last reported ones if the change is too small."""
    key, status, percentage = step.id or step.name, step.status, step.progress_percentage
    for known in reported:
        if known[:2] == (key, status) and abs(known[2] - percentage) < _PERCENT_PER_LINE:
            return known
    return key, status, percentage


def describe_step(step: Step, *, now: float, is_new: bool) -> tuple[int, str]:
    """Return log level and sentences for a step that changed.

    :param now: seconds since the epoch
    :param is_new: whether the status changed, rather than the percentage only
    """
    errors = [message.text for message in step.messages if message.level == "error" and message.text]
    if errors:
        texts = "; ".join(text.removesuffix(".") for text in errors)
        predicate = _STEP_PREDICATES.get(step.status, "reports errors")
        return logging.ERROR, f"step {step.name} {predicate}: {texts}."
    if step.status == "inProgress":
        predicate = f"is in progress ({step.progress_percentage} %)"
    else:
        predicate = _STEP_PREDICATES.get(step.status, f"has the status {step.status!r}")
    sentences = [f"step {step.name} {predicate}."]
    if is_new and step.status == "inProgress" and step.estimated_time:
        sentences.append(_describe_estimate(step.estimated_time, now))
    message = step.messages[-1].text if step.messages else ""
    if message and message.lower() != _NO_NEWS:
        sentences.append(message)
    return logging.INFO, " ".join(sentences)


def _describe_estimate(estimate: str, now: float) -> str:
    """Return a sentence for an estimate such as `< 5 day`, with the date that follows from it."""
    text = re.sub(r"^<\s*", "less than ", re.sub(r"^~\s*", "about ", estimate.strip()))
    found = re.findall(r"(\d{1,4})\s*(min|hour|day|week)", text)
    if not found:
        return f"The service expects it to take {text}."
    number, unit = found[-1]
    if int(number) > 1 and unit != "min":
        text = re.sub(rf"{unit}$", f"{unit}s", text)
    due = datetime.fromtimestamp(now, UTC) + timedelta(seconds=int(number) * _UNITS[unit])
    date = f"{due:%Y-%m-%d}" if unit in ("day", "week") else f"{due:%H:%M} UTC"
    return f"The service expects it to take {text} (until {date})."


def summarize(target: PollTarget, progress: Progress) -> dict[str, Any]:
    """Return an operation or an offer's status as the small JSON object that goes to XCom.

    Its `messages` are texts without markup, errors first, at most `MESSAGE_LIMIT`. If there are more, the
    last text states how many are missing.
    """
    # The service repeats a step's message in the operation.
    texts = _texts(progress.all_messages)
    if len(texts) > MESSAGE_LIMIT:
        texts[MESSAGE_LIMIT - 1 :] = [f"… and {len(texts) - MESSAGE_LIMIT + 1} more messages, not shown"]
    steps = progress.steps
    mean = sum(step.progress_percentage for step in steps) // len(steps) if steps else 0
    status = progress.status.value if isinstance(progress, Operation) else effective_status(progress)
    return {
        **target.identity,
        "version": target.version(progress),
        "status": status,
        "progress_percentage": 100 if status == "succeeded" else mean,
        "steps": [
            {
                "id": step.id,
                "name": step.name,
                "status": step.status,
                "progress_percentage": step.progress_percentage,
            }
            for step in steps
        ],
        "messages": texts,
    }


def explain_failure(
    subject: str, identity: Mapping[str, str], outcome: Outcome, progress: Progress | None
) -> str:
    """Return the error text for `Outcome.FAILED` and `Outcome.CANCELED`."""
    location = identity.get("location")
    step = progress.current_step if progress else None
    where = f" in step {step.name}" if step else ""
    messages = progress.all_messages if progress else ()
    errors = [message for message in messages if message.level == "error"] or messages
    reason = "; ".join(_texts(errors)[:5]).removesuffix(".") or "the service gave no message"
    status = effective_status(progress) if progress else outcome.value
    cure = _CURES.get(status, "")
    if location:
        predicate = _OPERATION_PREDICATES.get(status, f"has the status {status}")
        return f"The operation on {subject} {predicate}{where}: {reason}. {cure} ({location})"
    if status not in FAILURE_STATUSES:
        cure = "The task's `fail_on` contains this status."
    return f"The status of the offer {subject} is {status}{where}: {reason}. {cure}"


def explain_timeout(
    subject: str,
    identity: Mapping[str, str],
    *,
    statuses: Sequence[str],
    seconds: float,
    progress: Progress | None,
) -> str:
    """Return the error text for `Outcome.TIMEOUT`.

    :param statuses: the statuses that would have ended polling with success
    :param seconds: how long polling took
    """
    location = identity.get("location")
    state = "No poll got a usable response."
    if progress:
        step = progress.current_step
        state = f"Last status: {effective_status(progress)}{f' in step {step.name}' if step else ''}."
    return (
        f"Polling of {subject} timed out after {timedelta(seconds=round(seconds))}: "
        f"{f'operation {location}' if location else 'the offer'} did not reach the status "
        f"{' or '.join(statuses)}. {state} The operation continues at the service: to keep polling, raise "
        "`timeout` and clear this task."
    )


def _texts(messages: Sequence[Any]) -> list[str]:
    return list(dict.fromkeys(message.text[:_MESSAGE_LENGTH] for message in messages if message.text))
