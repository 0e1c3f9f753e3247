"""A forward proxy for tests: it records each request, and connects every host name to this machine."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator


class Proxy(ThreadingHTTPServer):
    """Supports CONNECT, and refuses requests over plain http.

    :param tls: for an https proxy
    """

    daemon_threads = True

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._tls = tls
        #: Host names of the CONNECT requests.
        self.connected: list[str] = []
        #: Their `Proxy-Authorization` headers.
        self.authorizations: list[str | None] = []
        #: Requests over plain http, as text.
        self.plain: list[str] = []
        #: Status of the answers to CONNECT.
        self.status = 200

    @property
    def address(self) -> str:
        return f"localhost:{self.server_address[1]}"

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.address}"

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        if self._tls:
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def handle_error(self, *_: object) -> None:
        """Print nothing: some tests let clients close the connection."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def do_CONNECT(self) -> None:
        host, _, port = self.path.rpartition(":")
        self.server.connected.append(host)
        self.server.authorizations.append(self.headers["Proxy-Authorization"])
        self.close_connection = True
        if self.server.status != 200:
            self.send_response(self.server.status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        with socket.create_connection(("127.0.0.1", int(port)), timeout=30) as service:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=_pump, args=(service, self.connection), daemon=True)
            back.start()
            _pump(self.connection, service)
            back.join(30)

    def do_GET(self) -> None:
        self.server.plain.append(f"{self.requestline}\n{self.headers}")
        self.send_error(502)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def running_proxy(tls: ssl.SSLContext | None = None) -> Iterator[Proxy]:
    with Proxy(tls) as proxy:
        threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
