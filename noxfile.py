"""`make test-matrix`: the tests on every Airflow that is supported.

Each with the oldest Python and the oldest of what `pyproject.toml` allows beside it, and with the newest.
"""

from __future__ import annotations

from pathlib import Path

import nox

OLDEST_PYTHON = "3.11"
#: The newest Python that each Airflow is made for.
NEWEST_PYTHON = {"2.11": "3.12", "3.0": "3.12", "3.1": "3.13", "3.2": "3.13", "3.3": "3.13"}
AIRFLOWS = list(NEWEST_PYTHON)
#: What an Airflow needs beside it.
BESIDE = {"3.0": ["apache-airflow-providers-fab"]}  # for a form's labels and fields


@nox.session(python=OLDEST_PYTHON)
@nox.parametrize("airflow", AIRFLOWS, ids=AIRFLOWS)
def oldest(session: nox.Session, airflow: str) -> None:
    """Run the tests with the lower bounds, and the versions of all else that these allow."""
    dependencies = nox.project.load_toml("pyproject.toml")["project"]["dependencies"]
    bounds = [dependency for dependency in dependencies if not dependency.startswith("apache-airflow>")]
    # Newer providers than these want newer ones beside them.
    bounded = ("apache-airflow-providers-", "azure-identity=")
    kept = tuple(BESIDE.get(airflow, []))
    pins = [pin for pin in pins_of(airflow) if not pin.startswith(bounded) or pin.startswith(kept)]
    run_tests(session, airflow, pins + [bound.replace(">=", "==") for bound in bounds])


@nox.session
@nox.parametrize("python,airflow", [(NEWEST_PYTHON[one], one) for one in AIRFLOWS], ids=AIRFLOWS)
def newest(session: nox.Session, airflow: str) -> None:
    """Run the tests with the newest versions."""
    run_tests(session, airflow, pins_of(airflow))


def pins_of(airflow: str) -> list[str]:
    """Return the versions that are known to be good with an Airflow."""
    return Path("constraints", f"airflow-{airflow}.txt").read_text().splitlines()


def run_tests(session: nox.Session, airflow: str, pins: list[str]) -> None:
    """Run the tests with these versions; what follows `--` is for pytest."""
    constraints = Path(session.virtualenv.location, "constraints.txt")
    constraints.write_text("\n".join(pins))
    session.install("--constraint", str(constraints), "--editable", ".[dev]", *BESIDE.get(airflow, []))
    session.run("python", "-m", "pytest", "--numprocesses", "2", *session.posargs)
