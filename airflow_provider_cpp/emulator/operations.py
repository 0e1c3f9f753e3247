"""Operations: how a publish or a go-live moves through its steps, computed from its start and the time it is.

Nothing runs in the background. An operation keeps its timetable, and `progress` says where it stands at a
given time, so that a restart loses nothing and a test needs no waiting. Section "What an operation looks
like" of the API reference. Times are seconds since the epoch.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

VIRTUAL_MACHINE = "microsoft-azure-virtualmachines"
SIGNOFF = "publisher-signoff"
LIVE = "live"

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0

Kind = Literal["publish", "goLive"]
Status = Literal["running", "completed", "failed", "canceled"]


@dataclass(frozen=True)
class StepKind:
    """What is known of a step before it runs; the usual duration is in seconds."""

    title: str
    description: str
    estimate: str
    seconds: float


# The steps that take time. The publisher's signoff takes as long as the publisher does.
STEPS = {
    "displaydummycertify": StepKind(
        "Validate Pre-Requisites", "Offer settings provided are validated", "< 15 min", 10 * _MINUTE
    ),
    "displaycertify": StepKind(
        "Certification",
        "Your offer is analyzed by our certification systems for issues.",
        "< 5 day",
        2.5 * _DAY,
    ),
    "displayprovision": StepKind(
        "Provisioning", "Your virtual machine is being replicated.", "< 1 day", 18 * _HOUR
    ),
    "displaypackage": StepKind(
        "Packaging and Lead Generation Registration",
        "Your virtual machine is being packaged for customers.",
        "< 1 hour",
        45 * _MINUTE,
    ),
    LIVE: StepKind("Live", "Offer is publicly visible and available for purchase.", "~2-5 days", 3 * _DAY),
}
SIGNOFF_KIND = StepKind("Publisher signoff", "Offer is available to preview.", "", 0)
# From the request to cancel until the operation shows it: one to three minutes at the service.
CANCEL_SECONDS = 2 * _MINUTE


@dataclass(frozen=True)
class Message:
    """What the service says about a step: HTML, a level, and since when."""

    html: str
    level: Literal["information", "warning", "error"]
    at: float


@dataclass(frozen=True)
class Step:
    """Where one step stands."""

    id: str
    status: str
    percent: int = 0
    messages: tuple[Message, ...] = ()


@dataclass
class Operation:
    """A publish or a go-live with its timetable.

    :param durations: seconds per step, in order, with the time scale of its start applied.
    :param failing_step: the step that ends with ``failure_messages`` instead of completing.
    :param signed_off: when go live was accepted, for a publish.
    :param cancel_requested: when its cancellation was accepted; from then on it doesn't move.
    :param canceled: when it shows that it is canceled.
    """

    id: str
    kind: Kind
    version: int
    offer_version: int
    emails: str
    started: float
    durations: dict[str, float]
    failing_step: str | None = None
    failure_messages: list[str] = field(default_factory=list)
    signed_off: float | None = None
    cancel_requested: float | None = None
    canceled: float | None = None


@dataclass(frozen=True)
class Progress:
    """Where an operation stands; ``changed`` is when it last moved."""

    status: Status
    steps: tuple[Step, ...]
    changed: float

    @property
    def at_signoff(self) -> bool:
        """Whether the preview is ready and go live may be called."""
        return self.steps[-1].status == "waitingForPublisherReview"

    @property
    def current_step(self) -> Step:
        """The step that the operation is at, or ended with."""
        return next((step for step in self.steps if step.status != "complete"), self.steps[-1])


def steps_of(kind: Kind, offer_type_id: str) -> list[str]:
    """Return the timed steps of an operation, in order; only virtual machines are provisioned."""
    if kind == "goLive":
        return [LIVE]
    steps = [step for step in STEPS if step != LIVE]
    if offer_type_id != VIRTUAL_MACHINE:
        steps.remove("displayprovision")
    return steps


def as_of(operation: Operation, then: float) -> Operation:
    """Return an operation as it was at a time after its start, without what was asked of it later."""
    if operation.signed_off is not None and operation.signed_off > then:
        operation = replace(operation, signed_off=None)
    if operation.cancel_requested is not None and operation.cancel_requested > then:
        operation = replace(operation, cancel_requested=None, canceled=None)
    return operation


def progress(operation: Operation, now: float) -> Progress:
    """Compute where an operation stands at a time."""
    seen = now if operation.cancel_requested is None else min(now, operation.cancel_requested)
    state = _timed_steps(operation, seen)
    if operation.kind == "publish":
        state = _with_signoff(operation, state)
    if operation.cancel_requested is not None and operation.canceled is not None:
        state = replace(state, changed=operation.cancel_requested)
        if now >= operation.canceled:
            state = _canceled(state, operation.canceled)
    return state


def _timed_steps(operation: Operation, seen: float) -> Progress:
    status: Status = "completed"
    steps: list[Step] = []
    changed = operation.started
    for name, seconds in operation.durations.items():
        if status != "completed":
            steps.append(Step(name, "notStarted"))
        elif seen < changed + seconds:
            status = "running"
            steps.append(Step(name, "inProgress", percent=_percent(seen - changed, seconds)))
        elif name == operation.failing_step:
            status = "failed"
            changed += seconds
            errors = tuple(Message(html, "error", changed) for html in operation.failure_messages)
            steps.append(Step(name, "failed", messages=errors))
        else:
            changed += seconds
            steps.append(_complete(name, changed))
    return Progress(status, tuple(steps), changed)


def _percent(passed: float, seconds: float) -> int:
    # The clock may have been set back to before the operation began.
    return int(100 * passed / seconds) if passed > 0 else 0


def _with_signoff(operation: Operation, state: Progress) -> Progress:
    """Add the last step of a publish, which is the publisher's own."""
    if state.status != "completed":
        return replace(state, steps=(*state.steps, Step(SIGNOFF, "notStarted")))
    if operation.signed_off is not None:
        done = _complete(SIGNOFF, operation.signed_off)
        return Progress("completed", (*state.steps, done), operation.signed_off)
    ready = Message(
        "Your offer is <b>ready for preview</b>.<br/>Review it, then select &quot;Go live&quot;.",
        "information",
        state.changed,
    )
    waiting = Step(SIGNOFF, "waitingForPublisherReview", messages=(ready,))
    return replace(state, status="running", steps=(*state.steps, waiting))


def _canceled(state: Progress, at: float) -> Progress:
    note = Message("The operation was <b>canceled</b>.", "warning", at)
    steps = tuple(
        replace(step, status="canceled", messages=(*step.messages, note))
        if step.status in ("inProgress", "waitingForPublisherReview")
        else step
        for step in state.steps
    )
    return Progress("canceled", steps, at)


def _complete(step: str, at: float) -> Step:
    return Step(step, "complete", percent=100, messages=(Message("Step completed.", "information", at),))
