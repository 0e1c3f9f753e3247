"""Run the emulator in tests of your own Dags.

Load the fixtures in your `conftest.py`::

    pytest_plugins = ["airflow_provider_cpp.emulator.testing"]

In a test that uses `cloud_partner_emulator`, the connection `cloud_partner_default` is that of the emulator::

    def test_release_goes_live(cloud_partner_emulator):
        dag.test()
        assert cloud_partner_emulator.offers()["contoso/contoso-linux"]["status"] == "succeeded"

One emulator serves the whole test session; each test starts with the offers of the seed. Override
`cloud_partner_emulator_arguments` to choose a seed or another time scale::

    @pytest.fixture(scope="session")
    def cloud_partner_emulator_arguments():
        return ["--seed", "tests/offers.json", "--time-scale", "86400"]

The fixtures need pytest and the extra `emulator`.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Environment variable from which Airflow reads the default connection.
CONNECTION_VARIABLE = "AIRFLOW_CONN_CLOUD_PARTNER_DEFAULT"

_PACKAGE_PARENT = Path(__file__).parents[2]
_STOP_TIMEOUT = 10


class Emulator:
    """An emulator in a process of its own.

    :param arguments: arguments of `python -m airflow_provider_cpp.emulator`; without `--port` it listens on a
        free port
    :raises RuntimeError: the emulator did not start; the message has what it wrote to standard error
    """

    def __init__(self, *arguments: str) -> None:
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed by `close`
        port = [] if "--port" in arguments else ["--port", "0"]
        path = os.pathsep.join(filter(None, [str(_PACKAGE_PARENT), os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(  # noqa: S603  this interpreter, and arguments of the test
            [sys.executable, "-m", "airflow_provider_cpp.emulator", *port, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            # Ctrl-C ends the test process, which then stops the emulator.
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        line = self._output.readline()
        if not line:
            code, words = self._process.wait(), self.stderr
            self._release()
            raise RuntimeError(f"The emulator ended with exit code {code}: {words}")
        #: The Airflow connection as a JSON object.
        self.connection: dict[str, Any] = json.loads(line)
        #: Path of the certificate authority's file.
        self.ca: str = self.connection["extra"]["verify"]
        self.url: str = self.connection["host"]
        self._tls = ssl.create_default_context(cafile=self.ca)

    @property
    def _output(self) -> Any:
        return self._process.stdout

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def port(self) -> int:
        """Port on which it listens."""
        return urllib.parse.urlsplit(self.url).port or 443

    @property
    def stderr(self) -> str:
        """Everything that it wrote to standard error so far."""
        self._stderr.seek(0)
        return self._stderr.read()

    def offers(self) -> dict[str, dict[str, Any]]:
        """Return the state of every offer, by `publisher/offer`."""
        found = self._control("GET", "offers")
        return {f"{offer['publisherId']}/{offer['offerId']}": offer for offer in found}

    def requests(self, **filters: str) -> list[dict[str, Any]]:
        """Return the requests that it received, oldest first.

        :param filters: `method`, and `path` as a regular expression
        """
        found: list[dict[str, Any]] = self._control("GET", f"requests?{urllib.parse.urlencode(filters)}")
        return found

    def inject(self, **fault: Any) -> None:
        """Inject a fault; `airflow_provider_cpp.emulator.faults` describes its fields."""
        self._control("POST", "faults", fault)

    def faults(self) -> list[dict[str, Any]]:
        """Return the faults that are still active."""
        remaining: list[dict[str, Any]] = self._control("GET", "faults")
        return remaining

    def clear_faults(self) -> None:
        """Remove all faults."""
        self._control("DELETE", "faults")

    def revoke_tokens(self) -> None:
        """Refuse every access token that was issued so far."""
        self._control("POST", "tokens/revoke")

    def reset(self) -> None:
        """Restore the offers of the seed and the initial faults, and empty the list of requests."""
        self._control("POST", "reset")

    def wait(self) -> int:
        """Wait until the process ended, and return its exit code."""
        return self._process.wait(timeout=_STOP_TIMEOUT)

    def stop(self) -> int:
        """End the process with SIGTERM, and return its exit code."""
        self._process.terminate()
        return self.wait()

    def kill(self) -> None:
        """End the process with SIGKILL."""
        self._process.kill()
        self.wait()

    def close(self) -> None:
        """End the process if it still runs, and release its files."""
        if self._process.poll() is None:
            try:
                self.stop()  # so that it removes its temporary files
            except subprocess.TimeoutExpired:
                self.kill()
        self._release()

    def _release(self) -> None:
        self._output.close()
        self._stderr.close()

    def _control(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(  # noqa: S310  the emulator's own https address
            f"{self.url}/_emulator/{path}",
            json.dumps(body).encode() if body is not None else None,
            method=method,
        )
        with urllib.request.urlopen(request, context=self._tls, timeout=_STOP_TIMEOUT) as answer:  # noqa: S310
            return json.load(answer)


@contextmanager
def running_emulator(*arguments: str) -> Iterator[Emulator]:
    """Run an emulator while the body of the `with` statement runs.

    :param arguments: arguments of `python -m airflow_provider_cpp.emulator`
    """
    emulator = Emulator(*arguments)
    try:
        yield emulator
    finally:
        emulator.close()


@pytest.fixture(scope="session")
def cloud_partner_emulator_arguments() -> Sequence[str]:
    """Return the emulator's command-line arguments: a day passes in a second. Override it in your tests."""
    return ["--time-scale", "86400"]


@pytest.fixture(scope="session")
def cloud_partner_emulator_process(cloud_partner_emulator_arguments: Sequence[str]) -> Iterator[Emulator]:
    """Run one emulator for the whole test session."""
    with running_emulator(*cloud_partner_emulator_arguments) as emulator:
        yield emulator


@pytest.fixture
def cloud_partner_emulator(
    cloud_partner_emulator_process: Emulator, monkeypatch: pytest.MonkeyPatch
) -> Emulator:
    """Return an emulator with the offers of its seed; `cloud_partner_default` is the connection to it."""
    cloud_partner_emulator_process.reset()
    monkeypatch.setenv(CONNECTION_VARIABLE, json.dumps(cloud_partner_emulator_process.connection))
    return cloud_partner_emulator_process
