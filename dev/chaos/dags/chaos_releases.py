"""Release Dags for `make chaos`. Each run releases the offer in its conf."""

from __future__ import annotations

import json
import os
import time
from datetime import timedelta
from typing import Any

from airflow.sdk import dag, task

from airflow_provider_cpp import version_compat
from airflow_provider_cpp.operators.cloud_partner import GoLiveOperator
from airflow_provider_cpp.sensors.cloud_partner import OperationSensor
from airflow_provider_cpp.task_groups import release_offer

if os.environ["CHAOS_TASK_STATE"] == "0":
    # As on Airflow before 3.3.
    version_compat.HAS_TASK_STATE_STORE = False

OFFER = "{{ params.offer }}"
SECONDS = 5
#: More retries than in production, because components are killed every few seconds.
RETRIES = {"retries": 8, "retry_delay": timedelta(seconds=3)}
DAG: dict[str, Any] = {
    "schedule": None,
    "params": {"offer": ""},
    "default_args": RETRIES,
    "max_active_runs": 1000,
    "max_active_tasks": 1000,
}


@task
def announce(params: dict[str, Any]) -> None:
    """Append offer and time to a file, in one write, so that no partial line is possible."""
    line = json.dumps({"offer": params["offer"], "time": time.time()})
    file = os.open(os.environ["CHAOS_ANNOUNCEMENTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{line}\n".encode())
    os.close(file)


@dag(**DAG)
def wait_in_the_triggerer() -> None:
    """Go live and wait in the triggerer."""
    go_live = GoLiveOperator(task_id="go_live", offer_id=OFFER)
    wait = OperationSensor(task_id="wait", operation_location=go_live.output, poke_interval=SECONDS)
    wait >> announce()


@dag(**DAG)
def wait_in_a_worker() -> None:
    """Go live and wait in a worker."""
    go_live = GoLiveOperator(task_id="go_live", offer_id=OFFER)
    wait = OperationSensor(
        task_id="wait", operation_location=go_live.output, poke_interval=SECONDS, deferrable=False
    )
    wait >> announce()


@dag(**DAG)
def wait_in_the_same_task() -> None:
    """Go live and wait in the same task."""
    live = GoLiveOperator(task_id="go_live", offer_id=OFFER, wait_for_completion=True, poke_interval=SECONDS)
    live >> announce()


@dag(**DAG)
def publish_and_go_live() -> None:
    """Publish and go live with the task group."""
    release_offer(OFFER, poke_interval=SECONDS) >> announce()


wait_in_the_triggerer()
wait_in_a_worker()
wait_in_the_same_task()
publish_and_go_live()
