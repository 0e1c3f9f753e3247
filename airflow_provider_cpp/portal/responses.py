"""Read the responses of the Cloud Partner Portal API."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_cpp.core.error_bodies import parse_json
from airflow_provider_cpp.core.http import Json, Request, Response, T, dicts, with_timezone
from airflow_provider_cpp.core.models import (
    OFFER_STATES,
    Message,
    Offer,
    OfferState,
    OfferStatus,
    Operation,
    OperationStatus,
    Publisher,
    Step,
    Submission,
)
from airflow_provider_cpp.core.text import html_to_text, normalize_status, short_text
from airflow_provider_cpp.portal.locations import normalize_location

if TYPE_CHECKING:
    from collections.abc import Callable

OPERATION_STATUSES = {
    normalize_status(status): status for status in OperationStatus if status != OperationStatus.UNKNOWN
} | {"completed": OperationStatus.SUCCEEDED}
STEP_STATUSES = {
    normalize_status(status): status
    for status in (
        "notStarted",
        "inProgress",
        "waitingForPublisherReview",
        "waitingForApproval",
        "blocked",
        "rejected",
        "complete",
        "canceled",
        "failed",
    )
} | {"running": "inProgress", "completed": "complete"}


def read_json(call: Request[Any], response: Response, kind: type) -> Json:
    """Return the JSON of a response, of the given type.

    :raises CloudPartnerError: the body is not JSON, or of another type
    """
    try:
        answer = parse_json(response.body)
    except ValueError:
        raise call.error(response, "but not with JSON") from None
    if not isinstance(answer, kind):
        raise call.error(response, f"but not with a JSON {'array' if kind is list else 'object'}")
    return answer


def read_location(call: Request[Any], response: Response) -> str:
    """Return the Location of an accepted operation.

    :raises CloudPartnerError: the response names no Location that can be used; `accepted` is set
    """
    location = response.header("Location") or response.header("Operation-Location")
    try:
        if not location:
            raise ValueError("there is no Location header")
        return normalize_location(location, response.base_url)
    except ValueError as problem:
        error = call.error(
            response,
            f"accepted, but where the operation is found can't be told: {html_to_text(str(problem))}",
        )
        error.accepted = True
        raise error from None


def read_cancel(call: Request[str | None], response: Response) -> str | None:
    """Return the Location of the operation that is being canceled; None if it is canceled already."""
    if response.status != 200:
        return read_location(call, response)
    if response.body.strip():
        read_json(call, response, object)  # the page of something in between cancels nothing
    return None


def read_operation(call: Request[Operation], response: Response) -> Operation:
    """Return the operation in a response (reference: Retrieve operations)."""
    raw = read_progress(call, response)
    status = OPERATION_STATUSES.get(normalize_status(raw["status"]), OperationStatus.UNKNOWN)
    return Operation(*_steps_and_messages(raw), raw, status=status, retry_after=response.retry_after)


def read_offer_status(call: Request[OfferStatus], response: Response) -> OfferStatus:
    """Return the status of an offer in a response (reference: Retrieve offer status)."""
    raw = read_progress(call, response)
    status = OFFER_STATES.get(normalize_status(raw["status"]), OfferState.UNKNOWN)
    return OfferStatus(*_steps_and_messages(raw), raw, status=status, retry_after=response.retry_after)


def read_progress(call: Request[Any], response: Response) -> dict[str, Json]:
    """Return the JSON object of an operation or of an offer's status."""
    raw = read_json(call, response, object)
    # The reference prints the object inside an array of one.
    if isinstance(raw, list) and len(raw) == 1:
        raw = raw[0]
    if not isinstance(raw, dict) or not isinstance(raw.get("status"), str):
        raise call.error(response, "but not with an object that has a status")
    return raw


def publishing_version(raw: Json) -> int | None:
    """Return the version that an operation publishes, from the service's JSON; None if it is missing."""
    return _integer(raw.get("publishingVersion")) if isinstance(raw, dict) else None


def read_offer(call: Request[Offer], response: Response) -> Offer:
    """Return the offer in a response, with its ETag."""
    return parse_offer(read_json(call, response, dict), etag=response.header("ETag"))


def list_reader(
    read_item: Callable[[dict[str, Json]], T],
) -> Callable[[Request[list[T]], Response], list[T]]:
    """Return a reader of a JSON array whose items `read_item` reads."""

    def read(call: Request[list[T]], response: Response) -> list[T]:
        answer = read_json(call, response, list)
        if not all(isinstance(item, dict) for item in answer):
            raise call.error(response, "but not with a list of objects")
        return [read_item(item) for item in answer]

    return read


def parse_publisher(raw: dict[str, Json]) -> Publisher:
    """Return a publisher from the service's JSON."""
    name = raw.get("name", raw.get("displayName"))
    return Publisher(short_text(raw.get("id", raw.get("publisherId"))), html_to_text(name), raw)


def parse_offer(raw: dict[str, Json], etag: str | None = None) -> Offer:
    """Return an offer from the service's JSON."""
    return Offer(
        id=short_text(raw.get("id")),
        publisher_id=short_text(raw.get("publisherId")),
        offer_type_id=short_text(raw.get("offerTypeId")),
        status=short_text(raw.get("status")),
        version=_integer(raw.get("version")),
        definition=raw.get("definition"),
        etag=etag,
        changed=_timestamp(raw.get("changedTime")),
        pc_migration_status=short_text(raw.get("pcMigrationStatus")),
        raw=raw,
    )


def parse_submission(raw: dict[str, Json]) -> Submission:
    """Return an item of the list of operations from the service's JSON."""
    return Submission(
        id=short_text(raw.get("id")),
        offer_id=short_text(raw.get("offerId")),
        publisher_id=short_text(raw.get("publisherId")),
        submission_type=short_text(raw.get("submissionType")),
        status=OPERATION_STATUSES.get(normalize_status(raw.get("submissionState")), OperationStatus.UNKNOWN),
        slot=short_text(raw.get("slot")),
        offer_version=_integer(raw.get("offerVersion")),
        publishing_version=_integer(raw.get("publishingVersion")),
        changed=_timestamp(raw.get("lastActionDateTime")) or _timestamp(raw.get("changedTime")),
        created=_timestamp(raw.get("createdDateTime")),
        raw=raw,
    )


def _steps_and_messages(raw: dict[str, Json]) -> tuple[tuple[Step, ...], tuple[Message, ...]]:
    return tuple(map(_step, dicts(raw.get("steps")))), _messages(raw.get("messages"))


def _step(raw: dict[str, Json]) -> Step:
    word = short_text(raw.get("status"))
    status = STEP_STATUSES.get(normalize_status(word), word)
    percentage = _integer(raw.get("progressPercentage"))
    return Step(
        id=short_text(raw.get("id")),
        name=short_text(raw.get("stepName")) or short_text(raw.get("id")),
        status=status,
        progress_percentage=100 if status == "complete" else min(max(percentage or 0, 0), 100),
        estimated_time=short_text(raw.get("estimatedTimeFrame")),
        messages=_messages(raw.get("messages")),
    )


def _messages(raw: Json) -> tuple[Message, ...]:
    return tuple(
        Message(
            text=html_to_text(item.get("messageHtml")),
            level=short_text(item.get("level")).lower() or "information",
            timestamp=_timestamp(item.get("timestamp")),
        )
        for item in dicts(raw)
    )


def _integer(value: Json) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,20}", value, re.ASCII):
        return int(value)
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    return None


def _timestamp(value: Json) -> datetime | None:
    """Return a point in time with its zone; up to seven digits of a second's fraction are read."""
    if not isinstance(value, str):
        return None
    try:
        return with_timezone(datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", value)))
    except (ValueError, OverflowError):
        return None
