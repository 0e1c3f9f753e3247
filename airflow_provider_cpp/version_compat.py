"""Differences between the supported Airflow versions."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow import __version__
from packaging.version import Version

if TYPE_CHECKING:
    from datetime import datetime

_VERSION = Version(Version(__version__).base_version)

AIRFLOW_V_3_1_PLUS: bool = Version("3.1") <= _VERSION
AIRFLOW_V_3_3_PLUS: bool = Version("3.3") <= _VERSION

#: Whether a task's context has `task_state_store`, which survives retries and clears.
HAS_TASK_STATE_STORE: bool = AIRFLOW_V_3_3_PLUS


def get_first_reschedule_date(context: Any, *, retries: int | None) -> datetime | None:
    """Return when the first run of a rescheduled task started; None in that first run.

    :param retries: the task's `retries`
    """
    ti = context["ti"]
    if hasattr(ti, "get_first_reschedule_date"):  # Airflow 3
        date: datetime | None = ti.get_first_reschedule_date(context)
        return date
    sensors = import_module("airflow.sensors.base")
    started: datetime | None = sensors._orig_start_date(
        dag_id=ti.dag_id,
        task_id=ti.task_id,
        run_id=ti.run_id,
        map_index=ti.map_index,
        # As in `BaseSensorOperator`: a clear raises `max_tries`, and starts a new first try.
        try_number=(ti.max_tries or 0) - (retries or 0) + 1,
    )
    return started
