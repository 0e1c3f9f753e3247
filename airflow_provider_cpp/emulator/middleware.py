"""The middleware of all client requests: it keeps the journal and applies the faults."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from airflow_provider_cpp.emulator.journal import Entry, Journal
from airflow_provider_cpp.emulator.offers import timestamp

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from airflow_provider_cpp.emulator.faults import Faults

CORRELATION_HEADER = "X-Ms-Correlation-Request-Id"
_STATUS_MEMBERS = ("status", "submissionState")


class JournalMiddleware:
    """An ASGI application around the emulator's own.

    :param report: called with each completed request
    :param clock_offset: seconds by which the date of responses is wrong
    """

    def __init__(
        self,
        app: ASGIApp,
        journal: Journal,
        faults: Faults,
        report: Callable[[Entry], None],
        clock_offset: float,
    ) -> None:
        self._app = app
        self._journal = journal
        self._faults = faults
        self._report = report
        self._clock_offset = clock_offset

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request. Requests that control the emulator pass unchanged."""
        if scope["path"].startswith("/_emulator/"):
            await self._app(scope, receive, send)
            return
        entry = Entry(
            sequence=self._journal.next_sequence(),
            time=timestamp(time.time()),
            method=scope["method"],
            path=scope["raw_path"].decode("ascii"),
            query=scope["query_string"].decode("ascii", "replace"),
        )
        scope.setdefault("state", {})["entry"] = entry
        # Read the whole body, so that no client loses its connection while it sends.
        body = await _body(receive)
        if body is None:
            return
        action = entry.fault = self._faults.take(entry.method, entry.path)
        action = action or {}
        scope["state"]["lag"] = action.get("lag", 0)
        try:
            await asyncio.sleep(action.get("delay", 0))
            response = None if self._journal.is_obsolete(entry) else await self._respond(scope, body, action)
        except asyncio.CancelledError:  # the emulator stops
            response = None
        if action.get("close") == "after":
            response = None
        entry.status = None if response is None else response.status_code
        self._journal.add(entry)
        self._report(entry)
        try:
            await asyncio.sleep(action.get("hold", 0))
        except asyncio.CancelledError:
            response = None
        if response is None:
            await _abort(scope, receive)
        elif "truncate" in action:
            await send(_start(response))
            await send(_content(bytes(response.body)[: action["truncate"]], more=True))
            await _abort(scope, receive)
        else:
            await send(_start(response))
            await send(_content(bytes(response.body), more=False))

    async def _respond(self, scope: Scope, body: bytes, action: dict[str, Any]) -> Response | None:
        """Return the response; None to close the connection instead."""
        if action.get("close") == "before":
            return None
        if "status" in action:
            response, parts = Response(), action
        else:
            response, parts = await _handled(self._app, scope, body), action.get("replace", {})
        response.headers["Date"] = formatdate(time.time() + self._clock_offset, usegmt=True)
        response.headers[CORRELATION_HEADER] = str(uuid.uuid4())
        _change(response, parts, Request(scope))
        return response


async def _handled(app: ASGIApp, scope: Scope, body: bytes) -> Response:
    """Return the response of an application to a request whose body was read before."""
    response = Response()
    content = bytearray()

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            response.status_code = message["status"]
            response.raw_headers = list(message["headers"])
        else:
            content.extend(message.get("body", b""))

    await app({**scope, "path": scope["path"].removesuffix("/")}, receive, send)
    response.body = bytes(content)
    return response


def _change(response: Response, parts: dict[str, Any], request: Request) -> None:
    """Replace parts of a response."""
    host = f"{request.url.scheme}://{request.url.netloc}"
    location = response.headers.get("Location")
    response.status_code = parts.get("status", response.status_code)
    if "body" in parts:
        response.body = parts["body"].replace("{location}", location or "").encode()
    elif "json" in parts:
        response.body = _merged(bytes(response.body), parts["json"])
    elif "words" in parts:
        response.body = _reworded(bytes(response.body), parts["words"])
    if response.status_code in (204, 304):
        response.body = b""  # HTTP allows none
        del response.headers["Content-Length"]
    else:
        response.headers["Content-Length"] = str(len(response.body))
    for name, value in parts.get("headers", {}).items():
        if value is None or (location is None and "{location}" in value):
            del response.headers[name]
        else:
            response.headers[name] = value.replace("{host}", host).replace("{location}", location or "")


def _merged(body: bytes, members: dict[str, Any]) -> bytes:
    """Return a JSON body with replaced members of its object, or of each object in its array."""
    try:
        document = json.loads(body)
    except ValueError:
        return body
    for one in document if isinstance(document, list) else [document]:
        if isinstance(one, dict):
            one.update(members)
            for name, value in members.items():
                if value is None:
                    del one[name]
    return json.dumps(document).encode()


def _reworded(body: bytes, words: dict[str, str] | str) -> bytes:
    """Return a JSON body with other status words."""

    def replaced(word: str) -> str:
        if isinstance(words, dict):
            return words.get(word, word)
        return word[:1].upper() + word[1:]

    def walk(value: Any) -> Any:
        if isinstance(value, list):
            return [walk(item) for item in value]
        if not isinstance(value, dict):
            return value
        return {
            key: replaced(item) if key in _STATUS_MEMBERS and isinstance(item, str) else walk(item)
            for key, item in value.items()
        }

    try:
        return json.dumps(walk(json.loads(body))).encode()
    except ValueError:
        return body


def _start(response: Response) -> Message:
    return {
        "type": "http.response.start",
        "status": response.status_code,
        "headers": response.raw_headers,
    }


def _content(body: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def _body(receive: Receive) -> bytes | None:
    """Return the whole body of a request; None if the client disconnected before its end."""
    content = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        content += message.get("body", b"")
        more = message.get("more_body", False)
    return bytes(content)


async def _abort(scope: Scope, receive: Receive) -> None:
    """Close the connection and wait until it is closed; otherwise the server would send an error response."""
    # A TLS transport raises this if the client has disconnected.
    with contextlib.suppress(AttributeError):
        scope["state"]["transport"].abort()
    while (await receive())["type"] != "http.disconnect":
        pass
