"""mypy accepts correct uses of the public API, and reports wrong ones."""

from __future__ import annotations

from pathlib import Path

from mypy import api

from tests.versions import needs_airflow_3

ROOT = Path(__file__).parents[2]


# Airflow 2 does not type its decorators, so mypy reports each use of them.
@needs_airflow_3
def test_mypy_accepts_right_and_reports_wrong_uses_of_the_api() -> None:
    report, errors, status = api.run(
        ["--strict", "--config-file", str(ROOT / "pyproject.toml"), str(ROOT / "tests/typing/api.py")]
    )
    assert (report.splitlines()[:-1], errors, status) == ([], "", 0)
