"""Run the tests on every supported Airflow: `make test-matrix`.

The session `oldest` uses the oldest supported Python and the lower bounds of `pyproject.toml`; the session
`newest` uses the newest Python and package versions.
"""

from __future__ import annotations

from pathlib import Path

import nox

OLDEST_PYTHON = "3.11"
#: The newest Python that each Airflow supports.
NEWEST_PYTHON = {"2.11": "3.12", "3.0": "3.12", "3.1": "3.13", "3.2": "3.13", "3.3": "3.13"}
AIRFLOWS = list(NEWEST_PYTHON)
#: Additional packages for an Airflow.
EXTRA_PACKAGES = {"3.0": ["apache-airflow-providers-fab"]}  # for labels and fields of the connection form
PROJECT = nox.project.load_toml("pyproject.toml")


@nox.session(python=OLDEST_PYTHON)
@nox.parametrize("airflow", AIRFLOWS, ids=AIRFLOWS)
def oldest(session: nox.Session, airflow: str) -> None:
    """Run the tests with the lower bounds of the dependencies."""
    dependencies = PROJECT["project"]["dependencies"]
    bounds = [
        dependency
        for dependency in dependencies
        if ">=" in dependency and not dependency.startswith("apache-airflow>")
    ]
    # The pinned providers need newer versions of each other than the lower bounds.
    unpinned = ("apache-airflow-providers-", "azure-identity=")
    kept = tuple(EXTRA_PACKAGES.get(airflow, []))
    pins = [pin for pin in read_pins(airflow) if not pin.startswith(unpinned) or pin.startswith(kept)]
    run_tests(session, airflow, pins + [bound.replace(">=", "==") for bound in bounds])


@nox.session
@nox.parametrize("python,airflow", [(NEWEST_PYTHON[one], one) for one in AIRFLOWS], ids=AIRFLOWS)
def newest(session: nox.Session, airflow: str) -> None:
    """Run the tests with the newest versions of the dependencies."""
    run_tests(session, airflow, read_pins(airflow))


def read_pins(airflow: str) -> list[str]:
    """Return the tested package versions for an Airflow."""
    return Path("constraints", f"airflow-{airflow}.txt").read_text().splitlines()


def run_tests(session: nox.Session, airflow: str, pins: list[str]) -> None:
    """Install these versions and run pytest with the arguments after `--`."""
    constraints = Path(session.virtualenv.location, "constraints.txt")
    constraints.write_text("\n".join(pins))
    # Not pip's own `--group`: the pip of a session may be older than 25.1.
    packages = [*nox.project.dependency_groups(PROJECT, "dev"), *EXTRA_PACKAGES.get(airflow, [])]
    session.install("--constraint", str(constraints), "--editable", ".[emulator]", *packages)
    session.run("python", "-m", "pytest", "--numprocesses", "2", *session.posargs)
