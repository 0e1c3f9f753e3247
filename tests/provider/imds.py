"""The managed identity endpoint of a virtual machine (IMDS), for tests."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness import Principal

    from dev.emulator_process import Emulator


class Imds:
    """An endpoint that accepts no connection until `answer` is called.

    It issues tokens of the emulator, or refuses each request if no identity is assigned.
    """

    def __init__(self, emulator: Emulator, principal: Principal, *, assigned: bool = True) -> None:
        self.requests = 0
        self._emulator, self._principal, self._assigned = emulator, principal, assigned
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        # With a full backlog, the kernel does not answer further connections.
        self._waiting = [socket.socket() for _ in range(3)]
        for one in self._waiting:
            one.setblocking(False)
            one.connect_ex(self._socket.getsockname())
        self._server: ThreadingHTTPServer | None = None

    def answer(self) -> None:
        """Answer all requests from now on."""
        imds = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                imds.requests += 1
                status, document = imds._respond(self.headers.get("Metadata"), urlsplit(self.path).query)
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
        self._server.socket.close()
        self._server.socket = self._socket
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        if self._server:
            self._server.shutdown()
        for one in (self._socket, *self._waiting):
            one.close()

    def _respond(self, metadata: str | None, query: str) -> tuple[int, dict[str, Any]]:
        if metadata != "true":
            return 400, {"error": "invalid_request", "error_description": "Required metadata header missing"}
        if not self._assigned:
            return 400, {"error": "invalid_request", "error_description": "Identity not found"}
        parameters = dict(parse_qsl(query)) | {"api-version": "2019-08-01"}
        request = urllib.request.Request(
            f"{self._emulator.url}/msi/token?{urlencode(parameters)}",
            headers={"X-IDENTITY-HEADER": self._principal.identity_header},
        )
        tls = ssl.create_default_context(cafile=self._emulator.ca)
        with urllib.request.urlopen(request, context=tls, timeout=10) as response:
            token = json.load(response)
        return 200, token | {"expires_in": "3600"}


@contextmanager
def running_imds(emulator: Emulator, principal: Principal, *, assigned: bool = True) -> Iterator[Imds]:
    """Run an endpoint that does not answer yet."""
    imds = Imds(emulator, principal, assigned=assigned)
    try:
        yield imds
    finally:
        imds.close()
