"""Requests and responses of an HTTP API as values, without I/O."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import quote, urlsplit

from airflow_provider_cpp.core.errors import ERRORS_BY_STATUS, CloudPartnerError
from airflow_provider_cpp.core.text import CONTROL_CHARACTERS, html_to_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DEFAULT_PORTS = {"https": 443, "http": 80}
Json = Any
T = TypeVar("T")


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
    base_url: str = ""

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
        return max(0.0, (with_timezone(then) - with_timezone(now)).total_seconds())


@dataclass(frozen=True, slots=True)
class Request(Generic[T]):
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
    read_ok: Callable[[Request[T], Response], T]
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
        code, words = _service_message(response.body)
        kind = ERRORS_BY_STATUS.get(response.status, CloudPartnerError)
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


def is_unsafe_in_path(name: str) -> bool:
    """Whether a name, decoded, would mean more than itself in a path."""
    return name.strip() in (".", "..") or bool(re.search(rf"[/\\?#{CONTROL_CHARACTERS}]", name))


def quote_segment(value: object, name: str) -> str:
    r"""Return an id percent-encoded for its place in a path.

    :param value: the id as the user gave it
    :param name: what to call it in the error
    :raises ValueError: it is no text, or is none that an id can be
    """
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, not {type(value).__name__}: {value!r}")
    if value.strip() == "" or is_unsafe_in_path(value):
        raise ValueError(
            f"{name} {value!r} can't be used: it must not be empty, '.' or '..', nor have '/', '\\', '?', "
            "'#' or a control character."
        )
    return quote(value, safe="")


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


def _service_message(body: bytes) -> tuple[str | None, str]:
    """Return the service's error code and message, whichever of its forms they come in."""
    try:
        answer = parse_json(body)
    except ValueError:
        return None, html_to_text(body[:20000].decode("utf-8", "replace"))
    if isinstance(answer, dict):
        error = answer.get("error", answer)
        if not isinstance(error, dict):
            error = {"message": error}
        details = error.get("details")
        texts = [error.get("message"), *(d.get("message") for d in dicts(details))]
        code = error.get("code")
        return (
            html_to_text(code, 100) or None if isinstance(code, str) else None,
            "; ".join(filter(None, map(html_to_text, texts))),
        )
    return None, html_to_text(answer)


def parse_json(body: bytes) -> Json:
    """Return the body's JSON.

    :raises ValueError: it is none, or nested deeper or with longer numbers than Python reads
    """
    try:
        return json.loads(body)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def with_timezone(moment: datetime) -> datetime:
    """Return a point in time with a time zone, UTC if it has no time zone."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def dicts(raw: Json) -> list[dict[str, Json]]:
    """Return the objects in a JSON array; other items are left out."""
    return [item for item in raw if isinstance(item, dict)] if isinstance(raw, list) else []
