"""Differences between the supported Airflow versions."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime


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
