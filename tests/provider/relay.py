"""A TLS server that records each request, and forwards it to the emulator."""

from __future__ import annotations

import ssl
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from email.message import Message

    from dev.emulator_process import Emulator


@dataclass
class Sent:
    """A recorded request."""

    method: str
    target: str
    headers: Message
    body: bytes


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


@dataclass
class Relay:
    """A relay in front of the emulator. Its `verify` is a CA bundle for both.

    `before` and `after` are called with every forwarded request.
    """

    emulator: Emulator
    verify: str
    tls: ssl.SSLContext
    certificate_authority: bytes
    requests: list[Sent] = field(default_factory=list)
    before: Callable[[Sent], object] = lambda _: None
    after: Callable[[Sent], object] = lambda _: None
    _port: int = 0
    _server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"https://localhost:{self._port}"

    def start(self) -> None:
        """Accept connections, always on the same port."""
        self._server = server = ThreadingHTTPServer(("127.0.0.1", self._port), _Handler)
        server.relay = self  # type: ignore[attr-defined]
        server.socket = self.tls.wrap_socket(server.socket, server_side=True)
        self._port = server.server_address[1]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Refuse new connections; current requests get their response."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
        self._server = None

    def pass_on(self, sent: Sent) -> tuple[int, Message, bytes]:
        headers = {
            name: value
            for name, value in sent.headers.items()
            if name.lower() not in ("host", "connection", "content-length", "accept-encoding")
        }
        request = urllib.request.Request(
            f"{self.emulator.url}{sent.target}", sent.body or None, headers, method=sent.method
        )
        context = ssl.create_default_context(cafile=self.emulator.ca)
        opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context), urllib.request.ProxyHandler({}), _NoRedirect
        )
        try:
            answer = opener.open(request, timeout=20)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            return answer.status, answer.headers, answer.read()


class _Handler(BaseHTTPRequestHandler):
    def _handle(self) -> None:
        relay: Relay = self.server.relay  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        sent = Sent(self.command, self.path, self.headers, body)
        relay.requests.append(sent)
        relay.before(sent)
        status, headers, content = relay.pass_on(sent)
        relay.after(sent)
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("connection", "content-length", "date", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = _handle  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def running_relay(emulator: Emulator, directory: Path) -> Iterator[Relay]:
    authority = trustme.CA()
    bundle = directory / "bundle.pem"
    bundle.write_bytes(Path(emulator.ca).read_bytes() + authority.cert_pem.bytes())
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    relay = Relay(emulator, str(bundle), tls, authority.cert_pem.bytes())
    relay.start()
    try:
        yield relay
    finally:
        relay.stop()
