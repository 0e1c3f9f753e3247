"""Take offers live, wait until they are live, and then announce them: the smallest release Dag.

Each offer is a mapped instance of the task group, so a slow or failed offer does not delay the others.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import dag, task, task_group

from airflow_provider_cpp.operators.cloud_partner import GoLiveOperator
from airflow_provider_cpp.sensors.cloud_partner import OperationSensor

OFFERS = ["contoso-linux", "contoso-database", "contoso-classic"]


@task
def announce(operation: dict[str, Any]) -> None:
    """Announce the release. Replace this with your mail, chat message, or repository tag."""
    print(f"Live: {operation['location']}")


# A retry is safe: it looks for the operation of an earlier try before it sends a request.
@dag(schedule=None, default_args={"retries": 3}, tags=["marketplace"])
def go_live() -> None:
    """Take each offer from its preview to production."""

    @task_group
    def release(offer_id: str) -> None:
        started = GoLiveOperator(task_id="go_live", offer_id=offer_id)
        completed = OperationSensor(task_id="wait", operation_location=started.output)
        announce(completed.output)

    release.expand(offer_id=OFFERS)


go_live()
