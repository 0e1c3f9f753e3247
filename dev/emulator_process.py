"""The emulator as a process of its own, with what only this project's tests need."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_cpp.emulator import testing

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent


class Emulator(testing.Emulator):
    """A running emulator."""

    def handshake(self, name: str) -> None:
        """Connect, and fail unless its certificate is valid for a name."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            self._tls.wrap_socket(connection, server_hostname=name).close()


@contextmanager
def running_emulator(*arguments: str) -> Iterator[Emulator]:
    """Run an emulator while the body of the `with` statement runs."""
    emulator = Emulator(*arguments)
    try:
        yield emulator
    finally:
        emulator.close()
