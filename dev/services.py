"""PostgreSQL and Redis on this machine, for a production-like Airflow.

Each runs as a process with its own folder, on a free port of the loopback interface only. `make services`
installs the programs from Debian.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2

from dev.local_airflow import wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Service:
    """A server that can be killed and started again with the same port and data."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = lasting_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def command(self) -> Sequence[str]:
        raise NotImplementedError

    def start(self) -> None:
        """Start the server and wait until it listens."""
        with (self.home / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.home,
                start_new_session=True,
            )
        wait_for(self._listens, f"{type(self).__name__} to listen at {self.port}", seconds=60)

    def stop(self, *, kill: bool = False) -> None:
        """Stop the server, with SIGTERM or SIGKILL."""
        if self._process is None:
            return
        if kill:
            self._process.kill()
        else:
            self._process.terminate()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=10)
        self._process = None

    def _listens(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(
                f"{type(self).__name__} exited:\n{(self.home / 'server.log').read_text()[-2000:]}"
            )
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0


class PostgreSQL(_Service):
    """A PostgreSQL server with one database, `airflow`, whose superuser needs no password on the loopback."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        home.mkdir(parents=True)
        self._data = home / "data"
        # PostgreSQL refuses to run as root.
        self._as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if self._as_user:
            shutil.chown(home, "postgres")
        self._bin = _postgresql_programs()
        self._run("initdb", "-D", str(self._data), "-U", "airflow", "--auth=trust", "-E", "UTF8")

    @property
    def url(self) -> str:
        return f"postgresql+psycopg2://airflow@127.0.0.1:{self.port}/airflow"

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a query.

        :raises psycopg2.Error: the server is down
        """
        connection = psycopg2.connect(self.url.replace("+psycopg2", ""), connect_timeout=3)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(sql, values or None)
                return cursor.fetchall()
        finally:
            connection.close()

    def command(self) -> Sequence[str]:
        sockets = f"-cunix_socket_directories={self.home}"
        options = ["-h", "127.0.0.1", "-p", str(self.port), sockets, "-cmax_connections=300"]
        return [*self._as_user, str(self._bin / "postgres"), "-D", str(self._data), *options]

    def make_database(self) -> None:
        """Create the database on the running server."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "airflow", "airflow")

    def stop(self, *, kill: bool = False) -> None:
        """Stop the server with all its children: fast, or with SIGQUIT, so that the next start recovers."""
        if self._process is not None:
            # As after a power failure. Killing only the leader would leave its children.
            self._run("pg_ctl", "stop", "-D", str(self._data), "-m", "immediate" if kill else "fast")
            self._process.wait(timeout=30)
            self._process = None

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [*self._as_user, str(self._bin / program), *arguments],
            capture_output=True,
            text=True,
            cwd=self.home,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stdout}\n{done.stderr}")


class Redis(_Service):
    """A Redis server with an append-only file, as in production."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        home.mkdir(parents=True)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> Sequence[str]:
        found = shutil.which("redis-server")
        if not found:
            raise RuntimeError("redis-server was not found: `make services` installs it.")
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.home)]
        return [found, *options, "--appendonly", "yes", "--save", ""]


def lasting_port() -> int:
    """Return a free port that the system does not assign to others while its server is down."""
    while True:
        port = random.randrange(10_000, 30_000)  # below the ports of outgoing connections
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def _postgresql_programs() -> Path:
    """Return the folder of PostgreSQL's programs, which Debian does not add to the path."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    found = str(versions[-1]) if versions else shutil.which("initdb")
    if not found:
        raise RuntimeError("PostgreSQL was not found: `make services` installs it.")
    return Path(found).parent
