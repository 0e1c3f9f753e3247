"""What every request of a client passes: the journal is kept here, and faults are applied."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from airflow_provider_cpp.emulator.documents import timestamp
from airflow_provider_cpp.emulator.journal import Entry, Journal

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from airflow_provider_cpp.emulator.faults import Faults


class Gate:
    """An ASGI application around the emulator's own.

    :param report: called with every request that was answered.
    :param clock_offset: seconds by which the date of answers is off.
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
        """Handle one request; those that control the emulator pass untouched."""
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
        scope["state"]["entry"] = entry
        # Read to its end, so that a client is never cut off while it still sends.
        body = await _body(receive)
        if body is None:
            return
        action = entry.fault = self._faults.take(entry.method, entry.path)
        action = action or {}
        scope["state"]["lag"] = action.get("lag", 0)
        try:
            await asyncio.sleep(action.get("delay", 0))
            answer = None if self._journal.is_over(entry) else await self._answer(scope, body, action)
        except asyncio.CancelledError:  # the emulator is stopped meanwhile
            answer = None
        if action.get("close") == "after":
            answer = None
        entry.status = None if answer is None else answer.status_code
        self._journal.add(entry)
        self._report(entry)
        try:
            await asyncio.sleep(action.get("hold", 0))
        except asyncio.CancelledError:
            answer = None
        if answer is None:
            await _abort(scope, receive)
        elif "truncate" in action:
            await send(_start(answer))
            await send(_content(bytes(answer.body)[: action["truncate"]], more=True))
            await _abort(scope, receive)
        else:
            await send(_start(answer))
            await send(_content(bytes(answer.body), more=False))

    async def _answer(self, scope: Scope, body: bytes, action: dict[str, Any]) -> Response | None:
        """Return the answer, None to close the connection instead."""
        if action.get("close") == "before":
            return None
        if "status" in action:
            answer, parts = Response(), action
        else:
            answer, parts = await _handled(self._app, scope, body), action.get("replace", {})
        answer.headers["Date"] = formatdate(time.time() + self._clock_offset, usegmt=True)
        _change(answer, parts, Request(scope))
        return answer


async def _handled(app: ASGIApp, scope: Scope, body: bytes) -> Response:
    """Return the answer that an application gives to a request whose body was read already."""
    answer = Response()
    content = bytearray()

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status_code = message["status"]
            answer.raw_headers = list(message["headers"])
        else:
            content.extend(message.get("body", b""))

    await app({**scope, "path": scope["path"].removesuffix("/")}, receive, send)
    answer.body = bytes(content)
    return answer


def _change(answer: Response, parts: dict[str, Any], request: Request) -> None:
    """Replace some parts of an answer."""
    answer.status_code = parts.get("status", answer.status_code)
    if "body" in parts:
        answer.body = parts["body"].encode()
    elif "json" in parts:
        answer.body = _merged(bytes(answer.body), parts["json"])
    if answer.status_code in (204, 304):
        answer.body = b""  # by HTTP, these have none
        del answer.headers["Content-Length"]
    else:
        answer.headers["Content-Length"] = str(len(answer.body))
    host = f"{request.url.scheme}://{request.url.netloc}"
    location = answer.headers.get("Location")
    for name, value in parts.get("headers", {}).items():
        if value is None or (location is None and "{location}" in value):
            del answer.headers[name]
        else:
            answer.headers[name] = value.replace("{host}", host).replace("{location}", location or "")


def _merged(body: bytes, members: dict[str, Any]) -> bytes:
    """Return a JSON body with members of its object, or of each object in its array, replaced."""
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


def _start(answer: Response) -> Message:
    return {"type": "http.response.start", "status": answer.status_code, "headers": answer.raw_headers}


def _content(body: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def _body(receive: Receive) -> bytes | None:
    """Return the whole body of a request, None if the client gave up before it was sent."""
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
    """Close the connection as it is, and wait for that: the server would answer with an error otherwise."""
    # A TLS transport whose client has gone already may say so in this way.
    with contextlib.suppress(AttributeError):
        scope["state"]["transport"].abort()
    while (await receive())["type"] != "http.disconnect":
        pass
