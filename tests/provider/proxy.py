"""A proxy of the kind that companies have: it notes which hosts it connects to. All of them are here."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Proxy(ThreadingHTTPServer):
    """Knows CONNECT, and takes every host for this machine."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        #: Hosts, in the order in which they were asked for.
        self.connected: list[str] = []
        #: The header with the password, of each.
        self.authorizations: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_CONNECT(self) -> None:
        assert isinstance(self.server, Proxy)
        host, _, port = self.path.rpartition(":")
        self.server.connected.append(host)
        self.server.authorizations.append(self.headers["Proxy-Authorization"])
        with socket.create_connection(("127.0.0.1", int(port)), timeout=30) as service:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=_pump, args=(service, self.connection), daemon=True)
            back.start()
            _pump(self.connection, service)
            back.join(30)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def running_proxy() -> Iterator[Proxy]:
    with Proxy() as proxy:
        threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
