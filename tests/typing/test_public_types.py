"""mypy accepts correct uses of the public API, and reports wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from mypy import api

from airflow_provider_cpp.version_compat import AIRFLOW_V_3_3_PLUS

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="Earlier versions type their decorators differently.")
def test_mypy_accepts_right_and_reports_wrong_uses_of_the_api() -> None:
    report, errors, status = api.run(
        ["--strict", "--config-file", str(ROOT / "pyproject.toml"), str(ROOT / "tests/typing/api.py")]
    )
    assert (report.splitlines()[:-1], errors, status) == ([], "", 0)
