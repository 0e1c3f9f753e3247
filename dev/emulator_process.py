"""The emulator as a separate process, for tests."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent


class Emulator:
    """A running emulator.

    :param args: arguments of its command line; without `--port`, it uses a free port
    """

    def __init__(self, *args: str) -> None:
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by `close`
        port = [] if "--port" in args else ["--port", "0"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "airflow_provider_cpp.emulator", *port, *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            # Ctrl-C reaches only the parent process, which then stops the emulator.
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise RuntimeError(f"The emulator exited with code {code}: {self.stderr}")
        #: The Airflow connection, as JSON.
        self.connection: dict[str, Any] = json.loads(line)
        #: Path of the certificate authority.
        self.ca: str = self.connection["extra"]["verify"]
        self.url: str = self.connection["host"]
        self._tls = ssl.create_default_context(cafile=self.ca)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def port(self) -> int:
        port = urllib.parse.urlsplit(self.url).port
        assert port is not None
        return port

    @property
    def stderr(self) -> str:
        """The emulator's standard error so far."""
        self._stderr.seek(0)
        return self._stderr.read()

    def requests(self, **filters: str) -> list[dict[str, Any]]:
        """Return the journal, filtered by `method` and `path` (a regular expression)."""
        found: list[dict[str, Any]] = self._control("GET", f"requests?{urllib.parse.urlencode(filters)}")
        return found

    def offers(self) -> dict[str, dict[str, Any]]:
        """Return the state of each offer, by `publisher/offer`."""
        return {
            f"{offer['publisherId']}/{offer['offerId']}": offer for offer in self._control("GET", "offers")
        }

    def inject(self, **fault: Any) -> None:
        """Inject a fault; for the keys, see `airflow_provider_cpp.emulator.faults`."""
        self._control("POST", "faults", fault)

    def faults(self) -> list[dict[str, Any]]:
        """Return the remaining faults."""
        remaining: list[dict[str, Any]] = self._control("GET", "faults")
        return remaining

    def clear_faults(self) -> None:
        self._control("DELETE", "faults")

    def revoke_tokens(self) -> None:
        self._control("POST", "tokens/revoke")

    def reset(self) -> None:
        """Restore the seed and the initial faults, and clear the journal."""
        self._control("POST", "reset")

    def handshake(self, name: str) -> None:
        """Connect over TLS; fail if the certificate is not valid for the name."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            self._tls.wrap_socket(connection, server_hostname=name).close()

    def wait(self) -> int:
        """Wait until the process exits, and return its exit code."""
        return self._process.wait(timeout=10)

    def stop(self) -> int:
        """Stop the process with SIGTERM, and return its exit code."""
        self._process.terminate()
        return self.wait()

    def kill(self) -> None:
        """Stop the process with SIGKILL."""
        self._process.kill()
        self.wait()

    def close(self) -> None:
        """Stop the process in any state, and release its resources."""
        if self._process.poll() is None:
            try:
                self.stop()  # SIGTERM, so that it removes its temporary files
            except subprocess.TimeoutExpired:
                self.kill()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._stderr.close()

    def _control(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"{self.url}/_emulator/{path}",
            json.dumps(body).encode() if body is not None else None,
            method=method,
        )
        with urllib.request.urlopen(request, context=self._tls, timeout=10) as response:
            return json.load(response)


@contextmanager
def running_emulator(*args: str) -> Iterator[Emulator]:
    """Run an emulator with these arguments of its command line; without `--port`, it uses a free port."""
    emulator = Emulator(*args)
    try:
        yield emulator
    finally:
        emulator.close()
