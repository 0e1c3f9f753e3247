"""TLS servers of an attacker: they record requests, and return the response that a test sets."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import trustme

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from email.message import Message
    from pathlib import Path

    from dev.emulator_process import Emulator


@dataclass
class Sent:
    """A received request."""

    method: str
    target: str
    headers: Message
    body: bytes

    @property
    def host(self) -> str:
        return str(self.headers["Host"])

    @property
    def is_for_identity(self) -> bool:
        return "/oauth2/" in self.target or self.target.startswith("/msi/")

    @property
    def is_signed(self) -> bool:
        """Whether the request contains a token, or a credential that buys a token."""
        names = (b"client_secret", b"client_assertion", b"assertion=")
        return (
            "Authorization" in self.headers
            or "X-IDENTITY-HEADER" in self.headers
            or any(name in self.body for name in names)
        )


@dataclass
class Passed:
    """A request that was forwarded to the emulator, and its response."""

    sent: Sent
    status: int
    headers: dict[str, str]
    body: bytes


def as_http(status: int, headers: dict[str, str], body: bytes) -> bytes:
    headers = {"Connection": "close"} | headers
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} Whatever\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    listener: Listener

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        connection.settimeout(20)
        return self.listener.tls.wrap_socket(
            connection, server_side=True, do_handshake_on_connect=False
        ), address

    def handle_error(self, *_: object) -> None:
        """Log nothing: clients close the connection after an unexpected response."""


@dataclass
class Listener:
    """A server. Without an emulator behind it, every response is 418.

    :param answer: the bytes to answer with before the connection is closed; None to ask the emulator
    """

    tls: ssl.SSLContext
    emulator: Emulator | None = None
    answer: Callable[[Sent], bytes | None] = lambda _: None
    requests: list[Sent] = field(default_factory=list)
    passed: list[Passed] = field(default_factory=list)
    port: int = 0

    @property
    def netloc(self) -> str:
        return f"localhost:{self.port}"

    @property
    def url(self) -> str:
        return f"https://{self.netloc}"

    @property
    def signed(self) -> list[Sent]:
        return [sent for sent in self.requests if sent.is_signed]

    def pass_on(self, sent: Sent) -> bytes:
        if self.emulator is None:
            return as_http(418, {"Content-Type": "text/plain"}, b"elsewhere")
        context = ssl.create_default_context(cafile=self.emulator.ca)
        headers = {name: value for name, value in sent.headers.items() if name.lower() != "accept-encoding"}
        upstream = http.client.HTTPSConnection("localhost", self.emulator.port, context=context, timeout=20)
        try:
            upstream.request(sent.method, sent.target, sent.body, headers | {"Connection": "close"})
            answer = upstream.getresponse()
            body = answer.read()
        finally:
            upstream.close()
        headers = {
            name: value
            for name, value in answer.getheaders()
            if name.lower() not in ("connection", "content-length", "transfer-encoding")
        }
        self.passed.append(Passed(sent, answer.status, headers, body))
        return as_http(answer.status, headers, body)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def _handle(self) -> None:
        listener = self.server.listener
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        sent = Sent(self.command, self.path, self.headers, body)
        listener.requests.append(sent)
        raw = listener.answer(sent)
        with suppress(OSError):
            self.wfile.write(listener.pass_on(sent) if raw is None else raw)
        self.close_connection = True

    do_GET = do_POST = do_PUT = do_HEAD = do_OPTIONS = _handle  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@dataclass
class Ground:
    """Starts listeners with a certificate authority that clients trust."""

    tls: ssl.SSLContext
    verify: str

    @contextmanager
    def listener(self, emulator: Emulator | None = None) -> Iterator[Listener]:
        listener = Listener(self.tls, emulator)
        with _Server(("127.0.0.1", 0), _Handler) as server:
            server.listener = listener
            listener.port = server.server_address[1]
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
            try:
                yield listener
            finally:
                server.shutdown()


def make_ground(directory: Path, *others: Path) -> Ground:
    authority = trustme.CA()
    bundle = directory / "bundle.pem"
    bundle.write_bytes(authority.cert_pem.bytes() + b"".join(other.read_bytes() for other in others))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(tls)
    return Ground(tls, str(bundle))


class Names:
    """Replaces the name service: resolves every name to this machine, and records the names."""

    def __init__(self) -> None:
        self.asked: set[str] = set()
        self._real = socket.getaddrinfo

    def getaddrinfo(self, host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else str(host)
        self.asked.add(name)
        return self._real("127.0.0.1", port, *args, **kwargs)
