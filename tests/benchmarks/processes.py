"""The processes of the benchmarks: each measurement has a fresh one, which gets nothing of this machine's."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parent.parent.parent
#: Remove these variables: they could redirect requests or select another Airflow.
_FOREIGN = ("AIRFLOW", "_AIRFLOW", "AZURE_", "SSL_CERT", "PYTHON")
_FOREIGN_ENDS = ("_PROXY", "_CA_BUNDLE")


class MeasurementError(Exception):
    """A process of a measurement failed; the text is the end of its error output."""


def measure(module: str, *arguments: str, environment: Mapping[str, str], within: float = 300) -> Any:
    """Run a module of the benchmarks in a fresh process, and return the JSON that it prints.

    :param environment: variables to add to the environment of this process
    :param within: time limit in seconds
    :raises MeasurementError: the process failed or exceeded the time limit
    """
    command = [sys.executable, "-m", f"tests.benchmarks.{module}", *arguments]
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_FOREIGN) and not name.upper().endswith(_FOREIGN_ENDS)
    }
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**own, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MeasurementError(f"{module} {' '.join(arguments)} took more than {within:g} s") from None
    if done.returncode:
        raise MeasurementError(done.stderr.strip()[-2000:] or f"it ended with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def airflow_environment(home: Path) -> dict[str, str]:
    """The environment of an Airflow with its own home that logs only warnings and errors.

    Two of the peers log at each poll. The measurement excludes this cost.
    """
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    }


def open_files() -> None:
    """Let this process have as many files and connections as the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 20_000 if most == resource.RLIM_INFINITY else most
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
