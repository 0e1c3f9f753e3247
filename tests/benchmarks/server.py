"""The server that the benchmarks poll: the responses of four services, over TLS, in a separate process.

It is a minimal HTTP server, because a framework would be the bottleneck. It counts requests and connections;
a second port, without TLS, returns the counts and accepts commands.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
import time
import zlib
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.processes import ROOT, open_files

if TYPE_CHECKING:
    from collections.abc import Iterator

TENANT = "5c2fa1e6-3b0d-4c52-9f6e-0d7a4b1c8e21"
#: azure-identity renews a token when five minutes of its life are left, and not within half a minute of the
#: request before. So this one is renewed after half a minute: a run sees what happens then.
TOKEN_LIFE = 330
TOKEN_IN_USE = 30
#: A step gets on by a few percent as often, in seconds.
PACE = 10
#: Stands in an answer where each wait's own differs.
_WHOSE = "@whose@@"

_STEPS = (
    ("displaydummycertify", "Validate Pre-Requisites", "< 15 min"),
    ("displaycertify", "Certification", "< 5 day"),
    ("displayprovision", "Provisioning", "< 1 day"),
    ("displaypackage", "Packaging and Lead Generation Registration", "< 1 hour"),
    ("publisher-signoff", "Publisher signoff", ""),
    ("live", "Live", "~2-5 days"),
)


@dataclass(frozen=True)
class Target:
    """Where a server listens.

    :param url: base URL to poll
    :param control_port: port for counts and commands
    :param ca: path of the certificate authority
    """

    url: str
    control_port: int
    ca: str


@contextmanager
def running_server(directory: Path) -> Iterator[Target]:
    """Run a server on free ports; its certificate authority goes into a directory."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.server", str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        # Ctrl-C must reach only the parent process, which then stops the server.
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Target(**json.loads(process.stdout.readline()))
    finally:
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Control:
    """Asks a server for its counts, from an event loop that must not be blocked by it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, target: Target) -> Control:
        return cls(*await asyncio.open_connection("127.0.0.1", target.control_port))

    async def __call__(self, command: str) -> dict[str, int]:
        """Send `counts`, `reset` or `finish`; return the counts.

        They are, each since the last reset: `polls`, `waits` (how many different ones polled), `tokens`,
        `misses` (requests that it has no answer for), `open`, `most` and `total` connections.
        """
        self._writer.write(f"GET /{command} HTTP/1.1\r\n\r\n".encode())
        head = await self._reader.readuntil(b"\r\n\r\n")
        body = await self._reader.readexactly(_length_of(head.lower()))
        counts: dict[str, int] = json.loads(body)
        return counts

    def close(self) -> None:
        self._writer.close()


# --- the responses of the services ------------------------------------------------------------------------


def operation(percentage: int, *, ended: bool) -> dict[str, Any]:
    """An operation of the Cloud Partner Portal in its second step, or at its end."""
    steps = []
    for number, (key, name, estimate) in enumerate(_STEPS):
        complete = ended or number == 0
        said = f"Step {name} completed. See <a href='https://example.com/{key}/{_WHOSE}'>the report</a>."
        steps.append(
            {
                "id": key,
                "stepName": name,
                "estimatedTimeFrame": estimate,
                "description": f"{name} of the offer, as the portal shows it to its publisher.",
                "status": "complete" if complete else "inProgress" if number == 1 else "notStarted",
                "progressPercentage": 100 if complete else percentage if number == 1 else 0,
                "messages": [
                    {"messageHtml": said, "level": "information", "timestamp": "2026-03-28T19:50:36.500052Z"}
                ]
                if complete
                else [],
            }
        )
    return {
        "status": "succeeded" if ended else "running",
        "messages": [],
        "publishingVersion": 2,
        "offerVersion": 1,
        "cancellationRequestState": "canCancel",
        "steps": steps,
        "previewLinks": [],
        "liveLinks": [],
    }


def _dbt_run(percentage: int, *, ended: bool) -> dict[str, Any]:
    status = 10 if ended else 3
    names = ("created_at", "updated_at", "dequeued_at", "started_at", "finished_at", "last_checked_at")
    flags = ("is_complete", "is_success", "is_error", "is_cancelled", "has_docs_generated", "can_retry")
    texts = ("git_branch", "git_sha", "status_message", "dbt_version", "owner_thread_id", "executed_by")
    run = {
        "id": 1,
        "trigger_id": 2,
        "account_id": 1,
        "environment_id": 3,
        "project_id": 4,
        "job_definition_id": 5,
        "status": status,
        "status_humanized": "Success" if ended else "Running",
        **dict.fromkeys(names, "2026-03-28 19:50:36.500052+00:00"),
        **dict.fromkeys(flags, ended),
        **dict.fromkeys(texts, "a text of about as many characters as these have"),
        "href": f"https://cloud.getdbt.com/deploy/1/projects/4/runs/{_WHOSE}/",
        "duration": f"00:{percentage:02}:00",
        "run_steps": [],
    }
    return {
        "status": {
            "code": 200,
            "is_success": True,
            "user_message": "Success!",
            "developer_message": "",
        },
        "data": run,
    }


def _fivetran_connector(percentage: int, *, ended: bool) -> dict[str, Any]:
    return {
        "code": "Success",
        "message": "Operation performed.",
        "data": {
            "id": "a_connector",
            "group_id": _WHOSE,
            "service": "google_sheets",
            "service_version": 1,
            "schema": "google_sheets.a_table",
            "connected_by": "a_person",
            "created_at": "2026-01-01T00:00:00.000000Z",
            "succeeded_at": "2026-03-28T20:50:36.500052Z" if ended else "2026-03-28T19:50:36.500052Z",
            "failed_at": None,
            "paused": False,
            "pause_after_trial": False,
            "sync_frequency": 360,
            "schedule_type": "auto",
            "status": {
                "setup_state": "connected",
                "schema_status": "ready",
                "sync_state": "scheduled" if ended else "syncing",
                "update_state": "on_schedule",
                "is_historical_sync": False,
                "tasks": [],
                "warnings": [
                    {"code": f"a_warning_{n}", "message": f"Of the {percentage} rows some have no key."}
                    for n in range(3)
                ],
            },
            "config": {f"setting_{n}": "a value of a few words, as settings have them" for n in range(8)},
        },
    }


def _sensed(percentage: int, *, ended: bool) -> dict[str, Any]:
    """The response for an HTTP sensor, which succeeds when the status is not 404."""
    return operation(percentage, ended=ended)


def _openid(url: str) -> dict[str, Any]:
    return {
        "issuer": f"{url}/{TENANT}/v2.0",
        "authorization_endpoint": f"{url}/{TENANT}/oauth2/v2.0/authorize",
        "token_endpoint": f"{url}/{TENANT}/oauth2/v2.0/token",
    }


def _token() -> dict[str, Any]:
    return {
        "token_type": "Bearer",
        "expires_in": TOKEN_LIFE,
        "ext_expires_in": TOKEN_LIFE,
        "access_token": "an-opaque-token-" + "0123456789" * 120,
    }


_POLLED = {
    b"/api/publishers/": operation,
    b"/api/v2/accounts/": _dbt_run,
    b"/v1/connectors/": _fivetran_connector,
    b"/sensed/": _sensed,
}


@cache
def _polled(kind: bytes, percentage: int, ended: bool) -> bytes:
    status = "404 Not Found" if kind == b"/sensed/" and not ended else "200 OK"
    return _answer(_POLLED[kind](percentage, ended=ended), status)


def _answer(document: Any, status: str = "200 OK") -> bytes:
    body = json.dumps(document).encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json; charset=utf-8\r\nCache-Control: no-store\r\n"
        "Strict-Transport-Security: max-age=31536000\r\nX-Request-Id: 56615b67-2185-49fe-80d2\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


# --- the server -------------------------------------------------------------------------------------------


class _Service:
    """The counts and the responses."""

    def __init__(self) -> None:
        self.url = ""
        self.open = 0
        self.reset()

    def reset(self) -> None:
        self.counts: Counter[str] = Counter()
        self.waits: set[bytes] = set()
        self.most = self.open
        self.total = self.open
        self.ended = False
        self.began = time.monotonic()

    def answer(self, path: bytes) -> bytes:
        for kind in _POLLED:
            if path.startswith(kind):
                self.counts["polls"] += 1
                self.waits.add(path)
                whose = zlib.crc32(path)
                # Each gets on at another time, so that any second brings as much news.
                age = int(time.monotonic() - self.began) + whose % PACE
                answer = _polled(kind, min(99, 3 * (age // PACE)), self.ended)
                return answer.replace(_WHOSE.encode(), b"%08x" % whose)
        if path.endswith(b"/token"):
            self.counts["tokens"] += 1
            return _answer(_token())
        if path.endswith(b"/openid-configuration") or b"/openid-configuration?" in path:
            return _answer(_openid(self.url))
        self.counts["misses"] += 1
        return _answer({"error": {"code": "NotFound", "message": "There is nothing here."}}, "404 Not Found")

    def control(self, path: bytes) -> bytes:
        if path == b"/reset":
            self.reset()
        elif path == b"/finish":
            self.ended = True
        counts = {name: self.counts[name] for name in ("polls", "tokens", "misses")}
        connections = {"open": self.open, "most": self.most, "total": self.total}
        return _answer({**counts, **connections, "waits": len(self.waits)})


class _Connection(asyncio.Protocol):
    """HTTP/1.1 with connections that are kept."""

    def __init__(self, service: _Service, *, is_control: bool) -> None:
        self._service = service
        self._is_control = is_control
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if not self._is_control:
            self._service.open += 1
            self._service.total += 1
            self._service.most = max(self._service.most, self._service.open)

    def connection_lost(self, _: Exception | None) -> None:
        if not self._is_control:
            self._service.open -= 1

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            until = end + 4 + (0 if head.startswith(b"GET ") else _length_of(head.lower() + b"\r\n"))
            if len(self._buffer) < until:
                return
            self._buffer = self._buffer[until:]
            path = head.split(b" ", 2)[1]
            answer = self._service.control(path) if self._is_control else self._service.answer(path)
            self._transport.write(answer)


def _length_of(head: bytes) -> int:
    _, found, rest = head.partition(b"content-length:")
    return int(rest.partition(b"\r\n")[0]) if found else 0


async def _serve(directory: Path) -> None:
    import trustme

    authority = trustme.CA()
    ca = directory / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    service = _Service()
    loop = asyncio.get_running_loop()
    polled = await loop.create_server(
        lambda: _Connection(service, is_control=False), "127.0.0.1", 0, ssl=context, backlog=4096
    )
    control = await loop.create_server(lambda: _Connection(service, is_control=True), "127.0.0.1", 0)
    service.url = f"https://127.0.0.1:{polled.sockets[0].getsockname()[1]}"
    where = {"url": service.url, "control_port": control.sockets[0].getsockname()[1], "ca": str(ca)}
    sys.stdout.write(json.dumps(where) + "\n")
    sys.stdout.flush()
    # The parent process closes this standard input when it ends, for any reason.
    closed = asyncio.Event()
    loop.add_reader(sys.stdin, closed.set)
    await closed.wait()


if __name__ == "__main__":
    open_files()
    asyncio.run(_serve(Path(sys.argv[1])))
