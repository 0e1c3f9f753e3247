"""Operations: how a publish or a go-live moves through its steps.

The position of an operation is computed from its start time and the current time. Nothing runs in the
background, so a restart loses nothing and a test needs no waiting. Section "What an operation looks like" of
the API reference. Times are seconds since the epoch.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

VIRTUAL_MACHINE = "microsoft-azure-virtualmachines"
SIGNOFF = "publisher-signoff"
LIVE = "live"

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0

Kind = Literal["publish", "goLive"]
Status = Literal["running", "succeeded", "completed", "failed", "canceled"]


@dataclass(frozen=True)
class StepKind:
    """The fixed properties of a step; `seconds` is its usual duration."""

    title: str
    description: str
    estimate: str
    seconds: float


#: The steps that take time. The publisher decides how long the signoff takes.
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
#: Time between a cancel request and the operation's status `canceled`; one to three minutes at the service.
CANCEL_SECONDS = 2 * _MINUTE


@dataclass(frozen=True)
class Message:
    """A message of a step: HTML, its level, and its time."""

    html: str
    level: Literal["information", "warning", "error"]
    at: float


@dataclass(frozen=True)
class Step:
    """The state of one step."""

    id: str
    status: str
    percent: int = 0
    messages: tuple[Message, ...] = ()


@dataclass
class Operation:
    """A publish or a go-live with its timetable.

    :param durations: seconds per step, in order, already divided by the time scale
    :param failing_step: the step that fails with `failure_messages` instead of completing
    :param signed_off: when a go-live of this publish was accepted
    :param cancel_requested: when the cancel request was accepted; the operation stops there
    :param canceled: when the cancellation becomes visible
    :param migrated: whether the offer is migrated; then a publish ends when its preview is ready
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
    migrated: bool = False

    @property
    def success(self) -> Status:
        """The status of this operation after it succeeded."""
        return "succeeded" if self.migrated else "completed"


@dataclass(frozen=True)
class Progress:
    """The state of an operation; `changed` is the time of its last change."""

    status: Status
    steps: tuple[Step, ...]
    changed: float

    @property
    def is_success(self) -> bool:
        """Whether the operation succeeded."""
        return self.status in ("succeeded", "completed")

    @property
    def awaits_signoff(self) -> bool:
        """Whether the preview is ready and go live may be called."""
        return self._signoff == "waitingForPublisherReview"

    @property
    def is_withdrawn(self) -> bool:
        """Whether the preview was canceled after the publish succeeded."""
        return self.is_success and self._signoff == "canceled"

    @property
    def current_step(self) -> Step:
        """The first step that is not complete."""
        return next((step for step in self.steps if step.status != "complete"), self.steps[-1])

    @property
    def _signoff(self) -> str | None:
        return next((step.status for step in self.steps if step.id == SIGNOFF), None)


def steps_of(kind: Kind, offer_type_id: str) -> list[str]:
    """Return the timed steps of an operation, in order. Only virtual machines have the provisioning step."""
    if kind == "goLive":
        return [LIVE]
    steps = [step for step in STEPS if step != LIVE]
    if offer_type_id != VIRTUAL_MACHINE:
        steps.remove("displayprovision")
    return steps


def as_of(operation: Operation, then: float) -> Operation:
    """Return an operation as it was at a time after its start, without later signoffs and cancellations."""
    if operation.signed_off is not None and operation.signed_off > then:
        operation = replace(operation, signed_off=None)
    if operation.cancel_requested is not None and operation.cancel_requested > then:
        operation = replace(operation, cancel_requested=None, canceled=None)
    return operation


def progress(operation: Operation, now: float) -> Progress:
    """Compute the state of an operation at a time."""
    effective = now if operation.cancel_requested is None else min(now, operation.cancel_requested)
    state = _timed_steps(operation, effective)
    if operation.kind == "publish":
        state = _with_signoff(operation, state)
    if operation.cancel_requested is not None and operation.canceled is not None:
        if not state.is_success:
            state = replace(state, changed=operation.cancel_requested)
        if now >= operation.canceled:
            state = _canceled(state, operation.canceled)
    return state


def _timed_steps(operation: Operation, now: float) -> Progress:
    status: Status = operation.success
    steps: list[Step] = []
    changed = operation.started
    for name, seconds in operation.durations.items():
        if status != operation.success:
            steps.append(Step(name, "notStarted"))
        elif now < changed + seconds:
            status = "running"
            steps.append(Step(name, "inProgress", percent=_percent(now - changed, seconds)))
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
    # The clock may have been set back to a time before the operation started.
    return int(100 * passed / seconds) if passed > 0 else 0


def _with_signoff(operation: Operation, state: Progress) -> Progress:
    """Add the publisher's signoff, and the step `live` that follows it, to the steps of a publish."""
    live = Step(LIVE, "notStarted")
    if not state.is_success:
        return replace(state, steps=(*state.steps, Step(SIGNOFF, "notStarted"), live))
    if operation.signed_off is not None:
        steps = (*state.steps, _complete(SIGNOFF, operation.signed_off), live)
        # The publish of a migrated offer ended before the signoff.
        changed = state.changed if operation.migrated else operation.signed_off
        return Progress(state.status, steps, changed)
    ready = Message(
        "Your offer is <b>ready for preview</b>.<br/>Review it, then select &quot;Go live&quot;.",
        "information",
        state.changed,
    )
    waiting = Step(SIGNOFF, "waitingForPublisherReview", messages=(ready,))
    status = state.status if operation.migrated else "running"
    return replace(state, status=status, steps=(*state.steps, waiting, live))


def _canceled(state: Progress, at: float) -> Progress:
    """Cancel the current step. A publish that succeeded keeps its status: only its preview is withdrawn."""
    message = Message("The operation was <b>canceled</b>.", "warning", at)
    steps = tuple(
        replace(step, status="canceled", messages=(*step.messages, message))
        if step.status in ("inProgress", "waitingForPublisherReview")
        else step
        for step in state.steps
    )
    if state.is_success:
        return replace(state, steps=steps)
    return Progress("canceled", steps, at)


def _complete(step: str, at: float) -> Step:
    return Step(step, "complete", percent=100, messages=(Message("Step completed.", "information", at),))
