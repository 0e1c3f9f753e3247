"""Waits, one mapped task for each operation: the load of the triggerer's benchmark, which defers them."""

from __future__ import annotations

from airflow.sdk import dag, task

from airflow_provider_cpp.sensors.cloud_partner import OperationSensor


@task
def operations() -> list[str]:
    """Return the operations' locations; never run."""
    raise NotImplementedError


@dag(schedule=None)
def waits() -> None:
    """Wait on each operation, in the triggerer."""
    OperationSensor.partial(task_id="wait", poke_interval=60).expand(operation_location=operations())


waits()
