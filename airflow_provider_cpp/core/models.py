"""Operations, offers and publishers as frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from airflow_provider_cpp.core.text import normalize_status

if TYPE_CHECKING:
    from datetime import datetime

    from airflow_provider_cpp.core.http import Json


class OperationStatus(StrEnum):
    """How an operation stands (reference: Retrieve operations)."""

    NOT_STARTED = "notStarted"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    #: The service used a word that nobody documented. Not an end.
    UNKNOWN = "unknown"


class OfferState(StrEnum):
    """How an offer stands (reference: Retrieve offer status)."""

    NEVER_PUBLISHED = "neverPublished"
    NOT_STARTED = "notStarted"
    WAITING_FOR_PUBLISHER_REVIEW = "waitingForPublisherReview"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    CANCELED = "canceled"
    FAILED = "failed"
    #: The service used a word that nobody documented.
    UNKNOWN = "unknown"


#: The documented states of an offer by their folded words.
OFFER_STATES = {normalize_status(state): state for state in OfferState if state != OfferState.UNKNOWN} | {
    "completed": OfferState.SUCCEEDED
}
_STOPPED_STEP = ("failed", "rejected", "blocked", "canceled")


@dataclass(frozen=True)
class Message:
    """What the service says of an operation or a step.

    :param text: without markup and control characters; the service sends HTML
    :param level: `information`, `warning` or `error`
    :param timestamp: when it was said; None if that can't be read
    """

    text: str
    level: str
    timestamp: datetime | None = None


@dataclass(frozen=True)
class Step:
    """A step of a release, such as Certification.

    :param id: the service's id, e.g. `displaycertify`
    :param name: what people read, e.g. `Certification`
    :param status: one of the documented words, in camelCase; the service's own word if it is another
    :param progress_percentage: 0 to 100
    :param estimated_time: the service's estimate, e.g. `< 5 day`
    """

    id: str
    name: str
    status: str
    progress_percentage: int
    estimated_time: str
    messages: tuple[Message, ...] = ()

    @property
    def is_signoff(self) -> bool:
        """Whether this is the publisher's signoff; clients have seen it named in either field."""
        return "publishersignoff" in (normalize_status(self.id), normalize_status(self.name))


@dataclass(frozen=True)
class _Progress:
    """What operations and offer statuses have in common: steps with messages."""

    steps: tuple[Step, ...]
    messages: tuple[Message, ...]
    raw: Json = field(repr=False)
    retry_after: float | None = field(default=None, kw_only=True)

    @property
    def current_step(self) -> Step | None:
        """The step that stopped the operation or is under way; None if there are no steps."""
        for under_way in (
            lambda step: step.status in _STOPPED_STEP,
            lambda step: step.status not in ("complete", "notStarted"),
            lambda step: step.status != "complete",
        ):
            for step in self.steps:
                if under_way(step):
                    return step
        return self.steps[-1] if self.steps else None

    @property
    def awaiting_publisher(self) -> bool:
        """Whether the preview is ready and the publisher's signoff (that is: go live) is awaited."""
        word = self.raw.get("status") if isinstance(self.raw, dict) else None
        return normalize_status(word) == "waitingforpublisherreview" or any(
            step.is_signoff and step.status == "waitingForPublisherReview" for step in self.steps
        )

    @property
    def all_messages(self) -> tuple[Message, ...]:
        """The messages of the whole and of every step, errors first, then warnings, each in their order."""
        order = {"error": 0, "warning": 1}
        collected = [*self.messages, *(message for step in self.steps for message in step.messages)]
        return tuple(sorted(collected, key=lambda message: order.get(message.level, 2)))


@dataclass(frozen=True)
class Operation(_Progress):
    """A long-running operation (reference: Retrieve operations).

    `raw` is the service's own JSON; `retry_after` the seconds that it asked to wait, if it did.
    """

    status: OperationStatus = field(kw_only=True)

    @property
    def is_terminal(self) -> bool:
        """Whether the operation ended: it succeeded, failed, or was canceled."""
        return self.status in (OperationStatus.SUCCEEDED, OperationStatus.FAILED, OperationStatus.CANCELED)

    @property
    def is_being_canceled(self) -> bool:
        """Whether somebody asked to cancel it, which takes the service one to three minutes."""
        word = self.raw.get("cancellationRequestState") if isinstance(self.raw, dict) else None
        # The reference has `canCancel` only; what is taken for a request begins with "cancel".
        return normalize_status(word).startswith("cancel")

    @property
    def progress_percentage(self) -> int:
        """How far it is, 0 to 100: the mean of its steps."""
        if self.status is OperationStatus.SUCCEEDED:
            return 100
        return sum(s.progress_percentage for s in self.steps) // len(self.steps) if self.steps else 0


@dataclass(frozen=True)
class OfferStatus(_Progress):
    """How an offer stands (reference: Retrieve offer status). `raw` is the service's own JSON."""

    status: OfferState = field(kw_only=True)

    @property
    def awaiting_publisher(self) -> bool:
        """Whether the preview is ready and go live may be called.

        The status may still be `running` then, so the signoff step counts as well.
        """
        return self.status is OfferState.WAITING_FOR_PUBLISHER_REVIEW or super().awaiting_publisher


@dataclass(frozen=True)
class Submission:
    """One of an offer's operations, as their list has it (reference: Retrieve operations).

    :param submission_type: `publish`, `goLive` or another word of the service's
    :param slot: `staging` for a publish, `production` for a go-live
    :param changed: when it last changed; for one that ended, when it ended
    :param created: when it began, if the service says so
    """

    id: str
    offer_id: str
    publisher_id: str
    submission_type: str
    status: OperationStatus
    slot: str
    offer_version: int | None
    publishing_version: int | None
    changed: datetime | None
    created: datetime | None
    raw: Json = field(repr=False)

    @property
    def is_running(self) -> bool:
        """Whether it has not ended; a word that nobody documented counts as running."""
        return self.status not in (
            OperationStatus.SUCCEEDED,
            OperationStatus.FAILED,
            OperationStatus.CANCELED,
        )

    @property
    def is_go_live(self) -> bool:
        """Whether it takes the offer to production."""
        return normalize_status(self.submission_type) == "golive"

    @property
    def is_publish(self) -> bool:
        """Whether it takes the offer to its preview."""
        return normalize_status(self.submission_type) == "publish"


@dataclass(frozen=True)
class Offer:
    """An offer in a slot (reference: Retrieve a specific offer).

    :param version: number of the version; each publish increments it
    :param definition: the content that the publisher edits. The service returns no secret values, but URLs
        can contain SAS signatures, so the definition is not part of the `repr`.
    :param etag: pass it as `if_match` to change this version of the offer; None if the service sent no ETag,
        as for the draft of a migrated offer
    """

    id: str
    publisher_id: str
    offer_type_id: str
    status: str
    version: int | None
    definition: Json = field(repr=False)
    etag: str | None
    changed: datetime | None
    pc_migration_status: str
    raw: Json = field(repr=False)


@dataclass(frozen=True)
class Publisher:
    """A publisher that the service principal is a user of."""

    id: str
    name: str
    raw: Json = field(repr=False)
