"""Features of the installed Airflow, by its version."""

from __future__ import annotations

from airflow import __version__
from packaging.version import Version

AIRFLOW_V_3_3_PLUS: bool = Version(Version(__version__).base_version) >= Version("3.3")

#: Whether a task's context has `task_state_store`, which survives retries and clears.
HAS_TASK_STATE_STORE: bool = AIRFLOW_V_3_3_PLUS
