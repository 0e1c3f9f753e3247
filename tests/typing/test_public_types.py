"""mypy accepts correct uses of the public API, and reports wrong ones."""

from __future__ import annotations

from pathlib import Path

from mypy import api

ROOT = Path(__file__).parents[2]


def test_mypy_accepts_right_and_reports_wrong_uses_of_the_api() -> None:
    report, errors, status = api.run(
        ["--strict", "--config-file", str(ROOT / "pyproject.toml"), str(ROOT / "tests/typing/api.py")]
    )
    assert (report.splitlines()[:-1], errors, status) == ([], "", 0)
