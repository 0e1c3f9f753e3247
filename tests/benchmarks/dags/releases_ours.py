"""Many releases with this provider: go live, wait in the triggerer, announce."""

from __future__ import annotations

import logging
from typing import Any

from airflow.sdk import Param, dag, task, task_group

from airflow_provider_cpp.operators.cloud_partner import GoLiveOperator
from airflow_provider_cpp.sensors.cloud_partner import OperationSensor

log = logging.getLogger(__name__)


@task
def offers(params: Any = None) -> list[str]:
    """Return the offers of this run."""
    return list(params["offers"])


@task
def announce(operation: dict[str, Any]) -> None:
    """Tell the world."""
    log.info("Live: %s", operation["location"])


@dag(schedule=None, params={"offers": Param([], type="array")}, max_active_tasks=1000)
def releases_ours() -> None:
    """Take each offer live."""

    @task_group
    def release(offer_id: str) -> None:
        started = GoLiveOperator(task_id="go_live", offer_id=offer_id)
        completed = OperationSensor(task_id="wait", operation_location=started.output, poke_interval=10)
        announce(completed.output)

    release.expand(offer_id=offers())


releases_ours()
