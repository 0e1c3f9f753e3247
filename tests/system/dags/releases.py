"""Release Dags in the shapes that users write; each run's conf names the offer."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import dag, task

from airflow_provider_cpp.operators.cloud_partner import GoLiveOperator
from airflow_provider_cpp.sensors.cloud_partner import OperationSensor

OFFER = "{{ params.offer }}"
# Seconds between polls: longer than a busy scheduler needs to record a deferral. Airflow treats a task that
# resumes earlier as dead and retries it.
SECONDS = 10
# Retries that the tests can detect: a failed operation must not use them.
PATIENCE = {"retries": 2, "retry_delay": timedelta(seconds=1)}


@task
def announce(what: Any) -> Any:
    """Return the result of the previous task."""
    return what


@dag(schedule=None, params={"offer": ""}, default_args=PATIENCE)
def go_live_then_wait() -> None:
    """Go live, and wait in the triggerer."""
    go_live = GoLiveOperator(task_id="go_live", offer_id=OFFER)
    wait = OperationSensor(task_id="wait", operation_location=go_live.output, poke_interval=SECONDS)
    announce(wait.output)


@dag(schedule=None, params={"offer": ""}, default_args=PATIENCE)
def wait_in_a_worker() -> None:
    """Go live, and wait in a worker."""
    go_live = GoLiveOperator(task_id="go_live", offer_id=OFFER)
    wait = OperationSensor(
        task_id="wait", operation_location=go_live.output, poke_interval=SECONDS, deferrable=False
    )
    announce(wait.output)


@dag(schedule=None, params={"offer": ""}, default_args=PATIENCE)
def wait_in_the_same_task() -> None:
    """Go live and wait, in one task."""
    live = GoLiveOperator(task_id="go_live", offer_id=OFFER, wait_for_completion=True, poke_interval=SECONDS)
    announce(live.output)


@dag(schedule=None, params={"location": ""}, default_args=PATIENCE)
def wait_only() -> None:
    """Wait for an operation that another client started."""
    wait = OperationSensor(task_id="wait", operation_location="{{ params.location }}", poke_interval=SECONDS)
    announce(wait.output)


@dag(schedule=None, params={"offers": []}, default_args=PATIENCE)
def mapped() -> None:
    """Map each task over the offers of the run's conf."""

    @task
    def offers(params: dict[str, Any]) -> list[str]:
        chosen: list[str] = params["offers"]
        return chosen

    go_live = GoLiveOperator.partial(task_id="go_live").expand(offer_id=offers())
    wait = OperationSensor.partial(task_id="wait", poke_interval=SECONDS).expand(
        operation_location=go_live.output
    )
    announce.expand(what=wait.output)


go_live_then_wait()
wait_in_a_worker()
wait_in_the_same_task()
wait_only()
mapped()
