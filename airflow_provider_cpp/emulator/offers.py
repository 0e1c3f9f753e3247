"""Offers, their versions, and the checks of a request's body."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from airflow_provider_cpp.emulator.operations import Operation

#: Where the service stores the artifacts that it downloaded.
ARTIFACT_STORE = "https://catalogartifact.azureedge.net/publicartifacts"

# Files of a listing, not the disks of a virtual machine: those stay where the publisher has them.
_ARTIFACT = re.compile(r"https?://\S+\.(png|jpe?g|gif|svg|pdf|csv|zip)(\?\S*)?", re.IGNORECASE)
# Two changes of an offer are at least this far apart, in seconds, so that each has its own ETag.
_TICK = 1e-6


class ServiceError(Exception):
    """A refused request: HTTP status, error code and message of the response."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def bad_request(message: str) -> ServiceError:
    """Return the error for a request with wrong content."""
    return ServiceError(400, "BadRequest", message)


@dataclass
class Failure:
    """A step that fails with error messages (HTML); `times` counts down, None means always."""

    step: str
    messages: list[str]
    times: int | None


@dataclass
class Offer:
    """An offer: its draft, its published versions, and its operations, the oldest first.

    :param published: definition by version, of each accepted publish
    :param changed: when the draft was last changed
    :param modified: when the draft or the version was last changed; the ETag follows from it
    """

    publisher_id: str
    id: str
    type_id: str
    migrated: bool
    version: int
    definition: dict[str, Any]
    changed: float
    published: dict[int, dict[str, Any]] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)
    step_seconds: dict[str, float] = field(default_factory=dict)
    failure: Failure | None = None
    invalid: str | None = None
    modified: float = 0.0

    def touch(self, now: float) -> None:
        """Record a change, so that older ETags become stale."""
        self.modified = max(now, max(self.modified, self.changed) + _TICK)

    @property
    def etag(self) -> str:
        """The entity tag of the draft. Section "Concurrency control"."""
        time = timestamp(max(self.modified, self.changed))
        return f"W/\"datetime'{quote(time, safe='')}'\""


@dataclass(frozen=True)
class OfferVersion:
    """An offer as it is in a slot, or as it was published with a version number."""

    offer: Offer
    version: int
    definition: dict[str, Any]
    changed: float


@dataclass(frozen=True)
class Cancellation:
    """The result of a cancel request.

    :param operation: the canceled operation, otherwise the latest one; None for an offer without operations
    :param at_once: whether the cancellation is complete
    :param accepted: whether this request changed anything
    """

    operation: Operation | None
    at_once: bool
    accepted: bool


def timestamp(seconds: float) -> str:
    """Format a time as the service does: UTC, with up to seven digits after the point.

    >>> timestamp(1490730636.5)
    '2017-03-28T19:50:36.5Z'
    """
    whole, ticks = divmod(round(seconds * 10_000_000), 10_000_000)
    fraction = f".{ticks:07d}".rstrip("0").rstrip(".")
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}{fraction}Z"


def check_offer_body(body: Any, fixed: dict[str, str]) -> None:
    """Check the body of a PUT.

    :param fixed: values that the body cannot change
    :raises ServiceError: 400
    """
    if not isinstance(body, dict) or not isinstance(body.get("definition"), dict):
        raise bad_request("The body must be an offer, a JSON object with the object 'definition'.")
    for key, value in fixed.items():
        if body.get(key, value) != value:
            raise bad_request(f"'{key}' must be '{value}'.")


def store_artifacts(value: Any, publisher_id: str, offer_id: str) -> Any:
    """Return a definition in which the URLs of artifacts point to the service's own storage."""
    if isinstance(value, dict):
        return {key: store_artifacts(item, publisher_id, offer_id) for key, item in value.items()}
    if isinstance(value, list):
        return [store_artifacts(item, publisher_id, offer_id) for item in value]
    if not isinstance(value, str) or value.startswith(ARTIFACT_STORE) or not _ARTIFACT.fullmatch(value):
        return value
    name = urlsplit(value).path.rpartition("/")[2]
    return f"{ARTIFACT_STORE}/{quote(publisher_id)}.{quote(offer_id)}-{uuid.uuid4()}/{name}"


def notification_emails(body: Any) -> str:
    """Return the notification addresses in a request's body.

    :raises ServiceError: 400
    """
    metadata = body.get("metadata") if isinstance(body, dict) else None
    emails = metadata.get("notification-emails", "") if isinstance(metadata, dict) else None
    if not isinstance(emails, str):
        raise bad_request(
            "The body must be like {'metadata': {'notification-emails': 'a@contoso.com,b@contoso.com'}}."
        )
    for email in filter(None, emails.split(",")):
        if "@" not in email:
            raise bad_request(f"'{email}' in 'notification-emails' is not an email address.")
    return emails


def validation_problems(offer: Offer) -> list[str]:
    """Return the reasons why the offer cannot be published, as sentences."""
    problems = [] if offer.invalid is None else [offer.invalid]
    if not offer.definition.get("displayText"):
        problems.append("The offer has no 'displayText'.")
    if not isinstance(offer.definition.get("offer"), dict):
        problems.append("The offer has no 'offer' details.")
    plans = offer.definition.get("plans")
    if not isinstance(plans, list) or not plans:
        problems.append("The offer has no 'plans'.")
    return problems
