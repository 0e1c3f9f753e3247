"""Requests and responses of an HTTP API as values, without I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import quote, urlsplit

from airflow_provider_cpp.core.error_bodies import read_error_body
from airflow_provider_cpp.core.errors import ERRORS_BY_STATUS, CloudPartnerError
from airflow_provider_cpp.core.text import CONTROL_CHARACTERS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DEFAULT_PORTS = {"https": 443, "http": 80}
# Response headers that Microsoft support asks for.
_SUPPORT_IDS = {"correlation id": "X-Ms-Correlation-Request-Id", "request id": "X-Ms-Request-Id"}
_SUPPORT_ID = re.compile(r"[\w.:/|=-]{1,120}", re.ASCII)
Json = Any
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response.

    :param status: HTTP status
    :param headers: names in any case
    :param base_url: host of the connection; a Location on another host is refused
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    base_url: str = ""

    def header(self, name: str) -> str | None:
        """Return a header's value, or None. Names compare without case."""
        return next((value for key, value in self.headers.items() if key.lower() == name.lower()), None)

    @property
    def retry_after(self) -> float | None:
        """Seconds of the header Retry-After; None without a valid header."""
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

    @property
    def support_ids(self) -> str:
        """The ids by which Microsoft support finds the request, as a sentence; empty without them."""
        found = [
            f"{name} {value}"
            for name, header in _SUPPORT_IDS.items()
            if (value := (self.header(header) or "").strip()) and _SUPPORT_ID.fullmatch(value)
        ]
        return f"For Microsoft support: {', '.join(found)}." if found else ""


@dataclass(frozen=True, slots=True)
class Request(Generic[T]):
    """A request, and how to read its response.

    :param action: the action as error messages call it, e.g. `Go live of contoso/web`
    :param method: HTTP method
    :param path: percent-encoded path with its query; relative to the connection's host
    :param read_ok: reads a response with a status below 300
    :param json_body: JSON body; None for no body
    :param headers: beyond authorization and content type
    :param hints: likely cause and cure by error code or HTTP status, instead of the hint of the error class
    """

    action: str
    method: str
    path: str
    read_ok: Callable[[Request[T], Response], T]
    json_body: Json = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    hints: Mapping[int | str, str] = field(default_factory=dict)

    def target(self, api_version: str) -> str:
        """Return the path with `api-version` in its query. The path of a Location already contains it."""
        if re.search(r"[?&]api-version=", self.path):
            return self.path
        return f"{self.path}{'&' if '?' in self.path else '?'}api-version={quote(api_version, safe='')}"

    def read(self, response: Response) -> T:
        """Return the value of a successful response.

        :raises CloudPartnerError: or a subclass, for each other response
        """
        if 200 <= response.status < 300:
            return self.read_ok(self, response)
        raise self.error(response)

    def error(self, response: Response, problem: str | None = None) -> CloudPartnerError:
        """Return the exception for an error response (reference: Error codes).

        :param problem: why a response with a success status is an error
        """
        code, words = read_error_body(response.body)
        kind = ERRORS_BY_STATUS.get(response.status, CloudPartnerError)
        if problem is None and 300 <= response.status < 400:
            problem = "a redirect, which is never followed, since a token goes to the connection's host only"
        explanation = ": ".join(filter(None, (code, words))) or "without an explanation"
        status = f"{response.status} ({problem})" if problem else f"{response.status}"
        text = f"{self.action} failed: {self.method} {self.path} was answered {status}, {explanation}"
        hint = self.hints.get(code or "") or self.hints.get(response.status)
        if hint is None:
            hint = kind.hint if words else kind.hint_without_explanation or kind.hint
        return kind(
            " ".join(filter(None, (f"{text.removesuffix('.')}.", hint, response.support_ids))),
            status=response.status,
            code=code,
            retry_after=response.retry_after,
        )


def is_unsafe_in_path(name: str) -> bool:
    """Whether a decoded name would change the path that contains it."""
    return name.strip() in (".", "..") or bool(re.search(rf"[/\\?#{CONTROL_CHARACTERS}]", name))


def quote_segment(value: object, name: str) -> str:
    r"""Return an id percent-encoded for its place in a path.

    :param value: the id as the user gave it
    :param name: name of the parameter, for the error
    :raises ValueError: the id is not text, or contains a character that no id contains
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
    """Return scheme, host and port of an absolute URL, in the form for comparison.

    :raises ValueError: it is not an http(s) URL with a host, or contains a user name
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its message quotes a part of the URL, which may be a password
        parts, port = urlsplit(""), None
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc:
        raise ValueError("Not a plain http(s) URL: it needs a host, and no user name or password.")
    return (parts.scheme, parts.hostname.lower(), DEFAULT_PORTS[parts.scheme] if port is None else port)


def with_timezone(moment: datetime) -> datetime:
    """Return a point in time with a time zone, UTC if it has no time zone."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def dicts(raw: Json) -> list[dict[str, Json]]:
    """Return the objects in a JSON array, without its other items."""
    return [item for item in raw if isinstance(item, dict)] if isinstance(raw, list) else []
