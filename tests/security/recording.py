"""Record requests with their secrets, and all places where a secret must not appear, at level DEBUG."""

from __future__ import annotations

import json
import logging
import traceback
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import aiohttp
import requests

from airflow_provider_cpp.core.errors import CloudPartnerError
from airflow_provider_cpp.triggers import cloud_partner as triggers
from tests.security.searching import Secrets

try:
    import structlog
except ModuleNotFoundError:  # Airflow 2
    structlog = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterator

_FORMATTER = logging.Formatter("%(name)s %(levelname)s %(message)s")


class Recording:
    """The secrets that were sent, and the log records, errors and stored triggers of that period."""

    def __init__(self) -> None:
        self.secrets = Secrets()
        #: Name and level of each logger with its text, arguments and tracebacks.
        self.logged: list[tuple[str, str]] = []
        self.errors: list[BaseException] = []
        self.stored: list[tuple[str, str]] = []

    def places(self) -> list[tuple[str, str | bytes]]:
        """Return each recorded text with its place."""
        found: list[tuple[str, str | bytes]] = [*self.logged, *self.stored]
        for error in self.errors:
            found += places_of(error)
        return found

    def clear(self) -> None:
        self.logged.clear()
        self.errors.clear()
        self.stored.clear()

    def log(self, record: logging.LogRecord) -> None:
        try:
            text = _FORMATTER.format(record)
        except Exception as error:  # the arguments are recorded even if the record can't be formatted
            text = repr(error)
        # A handler that writes JSON also writes the arguments.
        arguments = repr({key: value for key, value in vars(record).items() if key not in ("msg", "message")})
        self.logged.append((f"log {record.name} {record.levelname}", f"{text}\n{record.msg}\n{arguments}"))

    def structured(self, _: Any, method: str, event: Any) -> Any:
        """A processor of structlog."""
        text = repr(event)
        if event.get("exc_info") is True:
            text += traceback.format_exc()
        self.logged.append((f"log structlog {method.upper()}", text))
        return event


def places_of(error: BaseException) -> list[tuple[str, str | bytes]]:
    """Return the texts of an exception and of its causes."""
    found: list[tuple[str, str | bytes]] = []
    todo: list[BaseException | None] = [error]
    known: list[BaseException] = []
    while todo:
        current = todo.pop()
        if current is None or any(current is other for other in known):
            continue
        known.append(current)
        # `from None` hides the context of an exception.
        todo += [current.__cause__, None if current.__suppress_context__ else current.__context__]
        name = type(current).__name__
        found += [(f"str({name})", str(current)), (f"repr({name})", repr(current))]
        found.append((f"vars({name})", repr(vars(current))))
    found.append((f"traceback of {type(error).__name__}", "".join(traceback.format_exception(error))))
    return found


@contextmanager
def recording() -> Iterator[Recording]:
    """Record every logger at every level."""
    kept = Recording()
    with ExitStack() as stack:
        for target, name, replacement in (
            (logging.Logger, "isEnabledFor", lambda *_: True),
            (logging.Logger, "handle", _keeping(kept, logging.Logger.isEnabledFor, logging.Logger.handle)),
            (requests.adapters.HTTPAdapter, "send", _learning(kept, requests.adapters.HTTPAdapter.send)),
            (aiohttp.ClientSession, "_request", _alearning(kept, aiohttp.ClientSession._request)),
            (CloudPartnerError, "__init__", _collecting(kept, CloudPartnerError.__init__)),
            *(
                (kind, "serialize", _noting(kept, kind.serialize))
                for kind in (triggers.OperationTrigger, triggers.OfferStatusTrigger)
            ),
        ):
            stack.enter_context(patch.object(target, name, replacement))
        if structlog:
            processors = structlog.get_config()["processors"]
            processors.insert(0, kept.structured)
            stack.callback(processors.remove, kept.structured)
        yield kept


def _keeping(kept: Recording, enabled: Any, handle: Any) -> Any:
    def wrapped(self: logging.Logger, record: logging.LogRecord) -> None:
        if not self.disabled and self.filter(record):
            kept.log(record)
        if enabled(self, record.levelno):
            handle(self, record)

    return wrapped


def _learning(kept: Recording, send: Any) -> Any:
    def wrapped(self: Any, sent: requests.PreparedRequest, *args: Any, **kwargs: Any) -> Any:
        kept.secrets.learn(sent.headers, sent.body)
        answer = send(self, sent, *args, **kwargs)
        if "/oauth2/" in (sent.url or "") or "/msi/" in (sent.url or ""):
            kept.secrets.learn({}, answer.content)
        return answer

    return wrapped


def _alearning(kept: Recording, request: Any) -> Any:
    async def wrapped(self: Any, method: str, url: Any, **kwargs: Any) -> Any:
        kept.secrets.learn(kwargs.get("headers") or {}, kwargs.get("data"))
        if isinstance(kwargs.get("data"), dict):
            kept.secrets.learn({}, json.dumps(kwargs["data"]))
        return await request(self, method, url, **kwargs)

    return wrapped


def _collecting(kept: Recording, make: Any) -> Any:
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        kept.errors.append(self)
        make(self, *args, **kwargs)

    return wrapped


def _noting(kept: Recording, serialize: Any) -> Any:
    def wrapped(self: Any) -> Any:
        stored = serialize(self)
        kept.stored.append(("trigger row", json.dumps(stored)))
        return stored

    return wrapped
