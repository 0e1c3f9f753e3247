"""The Cloud Partner Portal API, version 2017-10-31: what to send, and what an answer means.

Nothing here does I/O or knows Airflow. Each function that is named for an endpoint returns a `Call`: the
request to send, and how to read what comes back. Whoever sends it (the hook, with requests or with aiohttp)
hands the `Response` to `Call.read`, which returns a frozen value or raises a `CloudPartnerError`. Whatever
bytes arrive, nothing else is raised.

"Reference" in a docstring means Microsoft's reference of this API; the section's name follows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from functools import lru_cache
from html import unescape
from typing import Any, ClassVar, Generic, TypeVar
from urllib.parse import quote, unquote, urlencode, urlsplit, urlunsplit

API_VERSION = "2017-10-31"
DEFAULT_HOST = "https://cloudpartner.azure.com"
DEFAULT_PORTS = {"https": 443, "http": 80}
#: What a token is asked for, whatever host the connection names (reference: Authentication).
TOKEN_SCOPE = "https://cloudpartner.azure.com/.default"

# Characters that break a line, hide text, or can't be encoded.
_CONTROLS = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"

Json = Any
T = TypeVar("T")


# --- errors -----------------------------------------------------------------------------------------------


class CloudPartnerError(Exception):
    """A request to the Cloud Partner Portal API did not bring what was asked for.

    :param message: what was tried, on which offer, what the service answered, the likely cause and its cure
    :param status: HTTP status of the answer; None if there was no answer
    :param code: the service's own error code, if it gave one
    :param retry_after: seconds that the service asked to wait, if it did
    :param unsent: the request surely never reached the service (connection refused, unknown host)
    :param accepted: the service accepted the request, but its answer can't be used
    """

    hint: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        unsent: bool = False,
        accepted: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after = retry_after
        self.unsent = unsent
        self.accepted = accepted

    @property
    def is_transient(self) -> bool:
        """Whether the same question may be answered later: no answer, an outage, or not the API's answer.

        An answer with an error of the caller's (4xx, but for 408 and 429) stays what it is: "do not retry
        before fixing the cause" (reference: Considerations).
        """
        status = self.status
        return status is None or status < 400 or status in (408, 429) or status >= 500

    @property
    def is_unprocessed(self) -> bool:
        """Whether the request surely had no effect, and may be sent again later.

        So it is when it never reached the service, and when the service said to come back later.
        """
        return self.unsent or self.status == 429 or (self.status == 503 and self.retry_after is not None)

    @property
    def has_unknown_outcome(self) -> bool:
        """Whether the request may or may not have had its effect."""
        return self.is_transient and not self.is_unprocessed


class ValidationError(CloudPartnerError):
    """400 or 422: the service refused the request, or the offer failed validation."""

    hint = "Correct what the message names; sending the same again brings the same answer."


class AuthenticationError(CloudPartnerError):
    """401, or no token could be had: the service principal could not sign in."""

    hint = (
        "Check the connection's client id, secret or certificate and tenantId, and that the secret has not "
        "expired."
    )

    @property
    def is_transient(self) -> bool:
        """Never: a 401 gets here only after a fresh token did not cure it."""
        return False


class PermissionDeniedError(CloudPartnerError):
    """403: the service principal is not a user of the publisher."""

    hint = (
        "The service principal is not a user of this publisher. The usual cause is that the wrong one of "
        "its two Object IDs was registered: it must be the one of the 'managed application in local "
        "directory' (the enterprise application), not the one of the app registration. Or the publisher id "
        "is wrong."
    )


class NotFoundError(CloudPartnerError):
    """404: unknown publisher, offer, slot, version or operation."""

    hint = (
        "Check the publisher id and the offer id. A slot is not found until something was put into it, and a "
        "new operation may take minutes to show."
    )


class ConflictError(CloudPartnerError):
    """409: another operation is running on the offer."""

    hint = "Only one operation can run on an offer at a time: wait until it ended, or cancel it."


class PreconditionFailedError(CloudPartnerError):
    """412: the offer was changed since its ETag was read."""

    hint = "Somebody changed the offer in between: read it again and apply the change to what it is now."


_ERRORS: dict[int, type[CloudPartnerError]] = {
    400: ValidationError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    412: PreconditionFailedError,
    422: ValidationError,
}


# --- values -----------------------------------------------------------------------------------------------


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


# The same few short words are in each answer, of thousands of operations.
_WORDS, _LONGEST_WORD = 1024, 100


def fold(word: object) -> str:
    """Return a word of the service's as it is compared: without case, spaces, hyphens and underscores."""
    if not isinstance(word, str):
        return ""
    return _fold(word) if len(word) <= _LONGEST_WORD else _fold.__wrapped__(word)


@lru_cache(_WORDS)
def _fold(word: str) -> str:
    return re.sub(r"[\s_-]+", "", word).lower()


_OPERATION_STATUS = {
    fold(status): status for status in OperationStatus if status != OperationStatus.UNKNOWN
} | {"completed": OperationStatus.SUCCEEDED}
#: The documented states of an offer by their folded words.
OFFER_STATES = {fold(state): state for state in OfferState if state != OfferState.UNKNOWN} | {
    "completed": OfferState.SUCCEEDED
}
_STEP_STATUS = {
    fold(status): status
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
        return "publishersignoff" in (fold(self.id), fold(self.name))


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
        return fold(word) == "waitingforpublisherreview" or any(
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
        return fold(word).startswith("cancel")

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
        return fold(self.submission_type) == "golive"

    @property
    def is_publish(self) -> bool:
        """Whether it takes the offer to its preview."""
        return fold(self.submission_type) == "publish"


@dataclass(frozen=True)
class Offer:
    """An offer as it is in a slot (reference: Retrieve a specific offer).

    :param version: raised by each publishing
    :param definition: what the publisher edits; secret values are not returned
    :param etag: what a change must be based on; None where the service sent none
    """

    id: str
    publisher_id: str
    offer_type_id: str
    status: str
    version: int | None
    definition: Json
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


# --- requests and responses -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Response:
    """What came back.

    :param status: HTTP status
    :param headers: names in any case
    :param base_url: the connection's host that was asked; a Location is taken from no other
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    base_url: str = DEFAULT_HOST

    def header(self, name: str) -> str | None:
        """Return a header's value, its name compared without case; None if it isn't there."""
        return next((value for key, value in self.headers.items() if key.lower() == name.lower()), None)

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait as the service asked; None if it did not, or not understandably."""
        value = (self.header("Retry-After") or "").strip()
        if not value:
            return None
        if re.fullmatch(r"\d{1,9}(\.\d+)?", value):
            return float(value)
        try:
            then = parsedate_to_datetime(value)
            now = parsedate_to_datetime(self.header("Date") or "")
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
        return max(0.0, (_aware(then) - _aware(now)).total_seconds())


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request, and how to read its answer.

    :param action: what is done, in words for people, e.g. `Go live of contoso/web`
    :param method: HTTP method
    :param path: percent-encoded path with its query; relative to the connection's host
    :param read_ok: reads an answer with a status below 300
    :param json_body: what is sent as JSON; None for no body
    :param headers: beyond authorization and content type
    :param hints: likely cause and cure by HTTP status, where this request has a better one than its error
    """

    action: str
    method: str
    path: str
    read_ok: Callable[[Call[T], Response], T]
    json_body: Json = None
    headers: Mapping[str, str] = field(default_factory=dict)
    hints: Mapping[int, str] = field(default_factory=dict)

    def target(self, api_version: str) -> str:
        """Return the path with `api-version` in its query, which a Location has already."""
        if re.search(r"[?&]api-version=", self.path):
            return self.path
        return f"{self.path}{'&' if '?' in self.path else '?'}api-version={quote(api_version, safe='')}"

    def read(self, response: Response) -> T:
        """Return what the answer means.

        :raises CloudPartnerError: or one of its subclasses, for every other answer than a success
        """
        if 200 <= response.status < 300:
            return self.read_ok(self, response)
        raise self.error(response)

    def error(self, response: Response, problem: str | None = None) -> CloudPartnerError:
        """Return the error for an answer that is none (reference: Error codes)."""
        code, words = _service_words(response.body)
        kind = _ERRORS.get(response.status, CloudPartnerError)
        if problem is None and 300 <= response.status < 400:
            problem = "a redirect, which is never followed, since a token goes to the connection's host only"
        said = " ".join(filter(None, (code and f"{code}:", words))) or "without an explanation"
        text = f"{self.action} failed: {self.method} {self.path} was answered {response.status}"
        text += f" ({problem}), {said}" if problem else f", {said}"
        return kind(
            f"{text.removesuffix('.')}. {self.hints.get(response.status, kind.hint)}".rstrip(),
            status=response.status,
            code=code,
            retry_after=response.retry_after,
        )


def _is_forbidden(name: str) -> bool:
    """Whether a name, decoded, would mean more than itself in a path."""
    return name.strip() in (".", "..") or bool(re.search(rf"[/\\?#{_CONTROLS}]", name))


def segment(value: object, name: str) -> str:
    r"""Return an id percent-encoded for its place in a path.

    :param value: the id as the user gave it
    :param name: what to call it in the error
    :raises ValueError: it is no text, or is none that an id can be
    """
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, not {type(value).__name__}: {value!r}")
    if value.strip() == "" or _is_forbidden(value):
        raise ValueError(
            f"{name} {value!r} can't be used: it must not be empty, '.' or '..', nor have '/', '\\', '?', "
            "'#' or a control character."
        )
    return quote(value, safe="")


def _offer_path(publisher_id: str, offer_id: str) -> str:
    return f"/api/publishers/{segment(publisher_id, 'publisher_id')}/offers/{segment(offer_id, 'offer_id')}"


def list_publishers() -> Call[list[Publisher]]:
    """List the publishers of this service principal (seen in public clients; not in the reference)."""
    return Call("List publishers", "GET", "/api/publishers", _reader_of_list(_publisher))


def list_offers(publisher_id: str, *, offer_type_id: str | None = None) -> Call[list[Offer]]:
    """List a publisher's offers (reference: Retrieve offers).

    :param offer_type_id: only offers of this type, e.g. `microsoft-azure-virtualmachines`; what else a
        service lists that doesn't know the filter is left out
    """
    path = f"/api/publishers/{segment(publisher_id, 'publisher_id')}/offers"
    action, read_all = f"List offers of {publisher_id}", _reader_of_list(_offer)
    if offer_type_id is None:
        return Call(action, "GET", path, read_all)
    literal = segment(offer_type_id, "offer_type_id").replace("%27", "%27%27")
    return Call(
        action,
        "GET",
        f"{path}?$filter=offerTypeId%20eq%20%27{literal}%27",
        lambda call, response: [
            offer for offer in read_all(call, response) if offer.offer_type_id == offer_type_id
        ],
    )


def get_offer(
    publisher_id: str, offer_id: str, *, slot: str | None = None, version: int | None = None
) -> Call[Offer]:
    """Read an offer: its draft, what is in a slot, or a version (reference: Retrieve a specific offer).

    :param slot: `draft`, `preview` or `production`
    :param version: a version's number; not together with `slot`
    :raises ValueError: for another slot, a version below 1, or both
    """
    path, what = _offer_path(publisher_id, offer_id), ""
    if slot is not None and version is not None:
        raise ValueError("Name a slot or a version, not both.")
    if slot is not None:
        if slot not in ("draft", "preview", "production"):
            raise ValueError(f"slot must be 'draft', 'preview' or 'production', not {slot!r}")
        path, what = f"{path}/slot/{slot}", f"the {slot} slot of "
    if version is not None:
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise ValueError(f"version must be a whole number from 1, not {version!r}")
        path, what = f"{path}/versions/{version}", f"version {version} of "
    return Call(f"Read {what}{publisher_id}/{offer_id}", "GET", path, _read_offer)


def put_offer(
    publisher_id: str, offer_id: str, definition: Json, *, if_match: str | None = None
) -> Call[Offer]:
    """Create or modify an offer (reference: Create or modify an offer; Concurrency control).

    :param definition: the whole offer as the service's JSON, or what stands there under `definition`
    :param if_match: ETag of what the change is based on, or `*`; None creates
    :raises ValueError: the definition is no JSON object, or the ETag is no header's value
    """
    path = _offer_path(publisher_id, offer_id)
    if not isinstance(definition, Mapping):
        raise ValueError(f"An offer's definition must be a JSON object, not {type(definition).__name__}")
    body = dict(definition) if "definition" in definition else {"definition": dict(definition)}
    try:
        json.dumps(body, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"An offer's definition must be JSON values only: {error}") from None
    if if_match is not None and not (isinstance(if_match, str) and re.fullmatch(r"[\x21-\x7e]+", if_match)):
        raise ValueError(f"if_match must be an ETag or '*', not {if_match!r}")
    headers = {} if if_match is None else {"If-Match": if_match}
    hints = {}
    if if_match is None:
        hints[400] = (
            "Correct what the message names. To modify an offer that exists, if_match must be the ETag that "
            "was read with it, or '*' to overwrite it."
        )
    return Call(f"Write {publisher_id}/{offer_id}", "PUT", path, _read_offer, body, headers, hints)


def publish(publisher_id: str, offer_id: str, *, notification_emails: Iterable[str] = ()) -> Call[str]:
    """Publish an offer to its preview; answers with the Location of the operation (reference: Publish)."""
    path = f"{_offer_path(publisher_id, offer_id)}/publish"
    action = f"Publish of {publisher_id}/{offer_id}"
    return Call(action, "POST", path, _read_location, _metadata(notification_emails))


def go_live(publisher_id: str, offer_id: str) -> Call[str]:
    """Take an offer from preview to production; answers with the Location (reference: Go live)."""
    path = f"{_offer_path(publisher_id, offer_id)}/golive"
    hints = {
        400: "Publish the offer first, and wait for its preview: go live takes what is in preview and not in "
        "production yet."
    }
    return Call(f"Go live of {publisher_id}/{offer_id}", "POST", path, _read_location, hints=hints)


def cancel(publisher_id: str, offer_id: str, *, notification_emails: Iterable[str] = ()) -> Call[str | None]:
    """Cancel what runs on an offer (reference: Cancel).

    Answers with the Location of the operation while it is being canceled, None if it was canceled at once.
    """
    path = f"{_offer_path(publisher_id, offer_id)}/cancel"
    action = f"Cancel of {publisher_id}/{offer_id}"
    return Call(action, "POST", path, _read_cancel, _metadata(notification_emails))


def get_offer_status(publisher_id: str, offer_id: str) -> Call[OfferStatus]:
    """Read how an offer stands (reference: Retrieve offer status)."""
    path = f"{_offer_path(publisher_id, offer_id)}/status"
    return Call(f"Read the status of {publisher_id}/{offer_id}", "GET", path, _read_offer_status)


def list_operations(publisher_id: str, offer_id: str, *, status: str | None = None) -> Call[list[Submission]]:
    """List an offer's operations (reference: Retrieve operations).

    :param status: only those in this state, e.g. `running`. What else a service lists that doesn't know the
        filter (clients have seen two spellings of its name) is left out.
    """
    path = f"{_offer_path(publisher_id, offer_id)}/submissions/"
    action, read_all = f"List operations of {publisher_id}/{offer_id}", _reader_of_list(_submission)
    if status is None:
        return Call(action, "GET", path, read_all)
    known = _OPERATION_STATUS.get(fold(status))
    if known is not OperationStatus.SUCCEEDED:  # which the service has two words for
        path += f"?{urlencode({'status': status, 'submissionState': status})}"

    def is_wanted(submission: Submission) -> bool:
        return submission.status == known or fold(submission.raw.get("submissionState")) == fold(status)

    return Call(action, "GET", path, lambda call, response: list(filter(is_wanted, read_all(call, response))))


def get_operation(location: str, base_url: str) -> Call[Operation]:
    """Read an operation (reference: Retrieve operations).

    :param location: where it is found; see `normalize_location`
    :raises ValueError: it isn't an operation's location on this host
    """
    location = normalize_location(location, base_url)
    return Call(f"Read operation {location}", "GET", location, _read_operation)


def _metadata(notification_emails: Iterable[str]) -> Json:
    addresses = [notification_emails] if isinstance(notification_emails, str) else list(notification_emails)
    for address in addresses:
        if not isinstance(address, str) or not re.fullmatch(r"[^\s,@\x00-\x1f]+@[^\s,@\x00-\x1f]+", address):
            raise ValueError(f"notification_emails must be e-mail addresses; {address!r} is none")
    return {"metadata": {"notification-emails": ",".join(addresses)}}


# --- locations --------------------------------------------------------------------------------------------

_LOCATION_PATHS = (
    re.compile(
        r"/api/publishers/(?P<publisher>[^/]+)/offers/(?P<offer>[^/]+)/operations/[^/]+/?", re.IGNORECASE
    ),
    re.compile(r"/api/operations/(?P<publisher>[^/$]+)\$(?P<offer>[^/$]+)\$\d+\$[A-Za-z]+/?", re.IGNORECASE),
)


def normalize_location(location: object, base_url: str) -> str:
    """Return an operation's Location as the path that is asked for it, otherwise as it came.

    Both relative forms and the older absolute one are taken, the absolute only on the connection's own host.

    :param location: what the service or a user gave
    :param base_url: the connection's host with its scheme, e.g. `https://cloudpartner.azure.com`
    :raises ValueError: another host, a path that isn't an operation's, control characters
    """
    if not isinstance(location, str):
        raise ValueError(
            f"An operation's location must be text, not {type(location).__name__}. Did the task that starts "
            "the operation return one? A skipped or 'already live' go-live has none."
        )
    wanted = (
        "Wanted is what the service named when it accepted the operation, such as "
        "'/api/publishers/{publisher}/offers/{offer}/operations/{id}?api-version=2017-10-31' or "
        "'/api/operations/{publisher}${offer}${number}${slot}?api-version=2017-10-31'."
    )
    if not re.fullmatch(r"[\x21-\x7e]+", location) or re.search(r"[\\#\"<>`]", location):
        raise ValueError(f"{location!r} has characters that no operation's location has. {wanted}")
    try:
        parts = urlsplit(location)
        foreign = location.startswith("//") or (parts.scheme and origin(location) != origin(base_url))
    except ValueError:
        foreign = True
    if foreign:
        raise ValueError(
            f"{location!r} is not on the connection's host {base_url}: nothing was sent, since a token goes "
            f"to that host only. {wanted}"
        )
    if _named_in(parts.path) is None:
        raise ValueError(f"{location!r} is not the path of an operation. {wanted}")
    return urlunsplit(("", "", parts.path, parts.query, ""))


def offer_of(location: str) -> tuple[str, str]:
    """Return the publisher's and the offer's id that a location names.

    :raises ValueError: it is not the path of an operation
    """
    if named := _named_in(urlsplit(location).path):
        return named
    raise ValueError(f"{location!r} is not the path of an operation")


def _named_in(path: str) -> tuple[str, str] | None:
    # The `$` of the older form may have come encoded; a segment that hides a slash or a step up may not.
    for pattern, spelled in zip(_LOCATION_PATHS, (path, path.replace("%24", "$")), strict=True):
        if match := pattern.fullmatch(spelled):
            if any(_is_forbidden(unquote(part)) for part in path.split("/")):
                return None
            return unquote(match["publisher"]), unquote(match["offer"])
    return None


def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of an absolute URL, as they are compared.

    :raises ValueError: not an http(s) URL with a host, or one with a user name in it
    """
    parts = urlsplit(url)
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc:
        raise ValueError(f"{url!r} is not a plain http(s) URL")
    return (
        parts.scheme,
        parts.hostname.lower(),
        DEFAULT_PORTS[parts.scheme] if parts.port is None else parts.port,
    )


def locations_of(submission: Submission, publisher_id: str, offer_id: str) -> list[str]:
    """Return where a listed operation of an offer may be found, most likely first.

    The list of operations names no Location. An offer that was migrated has it under the publisher, with the
    id; one that was not, among all operations, with the number of its publishing and its slot (in the
    reference's example `preview` where the list says `staging`).
    """
    identifier = quote(submission.id, safe="$")
    if "$" in submission.id:
        paths = [f"/api/operations/{identifier}"]
    else:
        slots = ("preview", "staging") if fold(submission.slot) == "staging" else (quote(submission.slot),)
        older = f"{segment(publisher_id, 'publisher_id')}${segment(offer_id, 'offer_id')}"
        paths = [
            f"{_offer_path(publisher_id, offer_id)}/operations/{identifier}",
            *(f"/api/operations/{older}${submission.publishing_version}${slot}" for slot in slots),
        ]
    return [f"{path}?api-version={API_VERSION}" for path in paths if _named_in(path)]


def preview_url(publisher_id: str, offer_id: str) -> str:
    """Return the page on which an offer's preview can be looked at, by those who may."""
    return f"{live_url(publisher_id, offer_id)}-preview"


def live_url(publisher_id: str, offer_id: str) -> str:
    """Return an offer's page for its customers."""
    publisher, offer = segment(publisher_id, "publisher_id"), segment(offer_id, "offer_id")
    return f"https://azuremarketplace.microsoft.com/marketplace/apps/{publisher}.{offer}"


# --- reading answers --------------------------------------------------------------------------------------


_TAG = re.compile(r"<(script|style)\b[^>]*>[^<]*|</?[a-zA-Z!?][^>]*(>|$)", re.IGNORECASE)
# Between these and the text around them there is no space.
_INLINE = re.compile(r"</?(a|b|code|em|font|i|small|span|strong|sub|sup|u)\b", re.IGNORECASE)
# What an error page may repeat of a request's headers. "Basic" alone is a tier's name as well.
_CREDENTIALS = re.compile(r"(\bbearer\s+|\bauthorization\W{1,8}basic\s+)[\w.~+/=-]+", re.IGNORECASE)
# Python doesn't read numbers as long as these may be.
_LONG_REFERENCE = re.compile(r"&#[0-9]{9,};?")
# Most words of the service's have none of these.
_SPECIAL = re.compile(f"[<&{_CONTROLS}]")
# So often escaped text is unfolded; what is escaped more often is nobody's honest message.
_ESCAPES = 5


def plain_text(markup: object, limit: int = 1000) -> str:
    """Return the text of the service's HTML, on one line, cut at `limit` characters.

    What is left holds no tag, not even one that was escaped twice, and no control character.
    """
    if not isinstance(markup, str):
        return ""
    text = _CREDENTIALS.sub(r"\1***", markup[: 4 * limit])
    if _SPECIAL.search(text):
        text = _without_markup(text)
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _without_markup(text: str) -> str:
    for _ in range(_ESCAPES):
        before = text
        text = _TAG.sub(lambda tag: "" if _INLINE.match(tag[0]) else " ", text)
        text = unescape(_LONG_REFERENCE.sub(" ", text))
        if text == before:
            break
    else:
        text = text.translate({ord("<"): " ", ord("&"): " "})
    return re.sub(f"[{_CONTROLS}]+", " ", text)


def _service_words(body: bytes) -> tuple[str | None, str]:
    """Return the service's error code and message, whichever of its forms they come in."""
    try:
        answer = _json(body)
    except ValueError:
        return None, plain_text(body[:20000].decode("utf-8", "replace"))
    if isinstance(answer, dict):
        error = answer.get("error", answer)
        if not isinstance(error, dict):
            error = {"message": error}
        details = error.get("details")
        texts = [error.get("message"), *(d.get("message") for d in _dicts(details))]
        code = error.get("code")
        return (
            plain_text(code, 100) or None if isinstance(code, str) else None,
            "; ".join(filter(None, map(plain_text, texts))),
        )
    return None, plain_text(answer)


def _json(body: bytes) -> Json:
    """Return the body's JSON.

    :raises ValueError: it is none, or nested deeper or with longer numbers than Python reads
    """
    try:
        return json.loads(body)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _read_json(call: Call[Any], response: Response, kind: type) -> Json:
    try:
        answer = _json(response.body)
    except ValueError:
        raise call.error(response, "but not with JSON") from None
    if not isinstance(answer, kind):
        raise call.error(response, f"but not with a JSON {'array' if kind is list else 'object'}")
    return answer


def _read_location(call: Call[Any], response: Response) -> str:
    location = response.header("Location") or response.header("Operation-Location")
    try:
        if not location:
            raise ValueError("there is no Location header")
        return normalize_location(location, response.base_url)
    except ValueError as problem:
        error = call.error(
            response, f"accepted, but where the operation is found can't be told: {plain_text(str(problem))}"
        )
        error.accepted = True
        raise error from None


def _read_cancel(call: Call[str | None], response: Response) -> str | None:
    if response.status != 200:
        return _read_location(call, response)
    if response.body.strip():
        _read_json(call, response, object)  # the page of something in between cancels nothing
    return None


def _read_operation(call: Call[Operation], response: Response) -> Operation:
    raw = _read_progress(call, response)
    status = _OPERATION_STATUS.get(fold(raw["status"]), OperationStatus.UNKNOWN)
    return Operation(*_steps_and_messages(raw), raw, status=status, retry_after=response.retry_after)


def _read_offer_status(call: Call[OfferStatus], response: Response) -> OfferStatus:
    raw = _read_progress(call, response)
    status = OFFER_STATES.get(fold(raw["status"]), OfferState.UNKNOWN)
    return OfferStatus(*_steps_and_messages(raw), raw, status=status, retry_after=response.retry_after)


def _read_progress(call: Call[Any], response: Response) -> dict[str, Json]:
    raw = _read_json(call, response, object)
    # The reference prints the object inside an array of one.
    if isinstance(raw, list) and len(raw) == 1:
        raw = raw[0]
    if not isinstance(raw, dict) or not isinstance(raw.get("status"), str):
        raise call.error(response, "but not with an object that has a status")
    return raw


def _read_offer(call: Call[Offer], response: Response) -> Offer:
    return _offer(_read_json(call, response, dict), etag=response.header("ETag"))


def _reader_of_list(
    read_item: Callable[[dict[str, Json]], T],
) -> Callable[[Call[list[T]], Response], list[T]]:
    def read(call: Call[list[T]], response: Response) -> list[T]:
        answer = _read_json(call, response, list)
        if not all(isinstance(item, dict) for item in answer):
            raise call.error(response, "but not with a list of objects")
        return [read_item(item) for item in answer]

    return read


def _publisher(raw: dict[str, Json]) -> Publisher:
    name = raw.get("name", raw.get("displayName"))
    return Publisher(_text(raw.get("id", raw.get("publisherId"))), plain_text(name), raw)


def _offer(raw: dict[str, Json], etag: str | None = None) -> Offer:
    return Offer(
        id=_text(raw.get("id")),
        publisher_id=_text(raw.get("publisherId")),
        offer_type_id=_text(raw.get("offerTypeId")),
        status=_text(raw.get("status")),
        version=_integer(raw.get("version")),
        definition=raw.get("definition"),
        etag=etag,
        changed=_timestamp(raw.get("changedTime")),
        pc_migration_status=_text(raw.get("pcMigrationStatus")),
        raw=raw,
    )


def _submission(raw: dict[str, Json]) -> Submission:
    return Submission(
        id=_text(raw.get("id")),
        offer_id=_text(raw.get("offerId")),
        publisher_id=_text(raw.get("publisherId")),
        submission_type=_text(raw.get("submissionType")),
        status=_OPERATION_STATUS.get(fold(raw.get("submissionState")), OperationStatus.UNKNOWN),
        slot=_text(raw.get("slot")),
        offer_version=_integer(raw.get("offerVersion")),
        publishing_version=_integer(raw.get("publishingVersion")),
        changed=_timestamp(raw.get("lastActionDateTime")) or _timestamp(raw.get("changedTime")),
        created=_timestamp(raw.get("createdDateTime")),
        raw=raw,
    )


def _steps_and_messages(raw: dict[str, Json]) -> tuple[tuple[Step, ...], tuple[Message, ...]]:
    return tuple(map(_step, _dicts(raw.get("steps")))), _messages(raw.get("messages"))


def _step(raw: dict[str, Json]) -> Step:
    word = _text(raw.get("status"))
    status = _STEP_STATUS.get(fold(word), word)
    percentage = _integer(raw.get("progressPercentage"))
    return Step(
        id=_text(raw.get("id")),
        name=_text(raw.get("stepName")) or _text(raw.get("id")),
        status=status,
        progress_percentage=100 if status == "complete" else min(max(percentage or 0, 0), 100),
        estimated_time=_text(raw.get("estimatedTimeFrame")),
        messages=_messages(raw.get("messages")),
    )


def _messages(raw: Json) -> tuple[Message, ...]:
    return tuple(
        Message(
            text=plain_text(item.get("messageHtml")),
            level=_text(item.get("level")).lower() or "information",
            timestamp=_timestamp(item.get("timestamp")),
        )
        for item in _dicts(raw)
    )


def _dicts(raw: Json) -> list[dict[str, Json]]:
    return [item for item in raw if isinstance(item, dict)] if isinstance(raw, list) else []


def _text(value: Json) -> str:
    """Return an id, name or word as one short line without control characters; markup is kept out too.

    An estimate such as `< 5 day` is no markup, since no name follows its bracket.
    """
    return _word(value) if isinstance(value, str) and len(value) <= _LONGEST_WORD else plain_text(value, 500)


_word = lru_cache(_WORDS)(plain_text)


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
        return _aware(datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", value)))
    except (ValueError, OverflowError):
        return None


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
