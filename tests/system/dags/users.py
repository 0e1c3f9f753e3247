"""Releases that a user acts on while they wait; each run's conf names the offer."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import dag, task

from airflow_provider_cpp.operators.cloud_partner import GoLiveOperator
from airflow_provider_cpp.sensors.cloud_partner import OperationSensor

OFFER = "{{ params.offer }}"
# Longer than a busy scheduler needs to record a deferral: a task that resumes earlier fails.
POKE_INTERVAL = 10
# Time limit of a wait that must time out: later than the first poll of the triggerer.
TOO_SHORT = timedelta(seconds=20)
# Retries that the tests can detect.
PATIENCE = {"retries": 2, "retry_delay": timedelta(seconds=1)}


@task
def announce(what: Any) -> Any:
    """Return the result of the previous task."""
    return what


def release(dag_id: str, **how: Any) -> None:
    """Create a Dag that takes an offer live and waits in one task, and announces the release."""

    @dag(dag_id=dag_id, schedule=None, params={"offer": ""}, default_args=PATIENCE)
    def go_live_and_announce() -> None:
        live = GoLiveOperator(
            task_id="go_live", offer_id=OFFER, wait_for_completion=True, poke_interval=POKE_INTERVAL, **how
        )
        announce(live.output)

    go_live_and_announce()


@dag(schedule=None, params={"offer": ""}, default_args=PATIENCE)
def users_lose_patience() -> None:
    """Wait for one operation in several ways, until the sensors time out."""
    live = GoLiveOperator(task_id="go_live", offer_id=OFFER)
    ways: dict[str, dict[str, Any]] = {
        "deferred": {"timeout": TOO_SHORT, "poke_interval": POKE_INTERVAL},
        "deferred_softly": {"timeout": TOO_SHORT, "poke_interval": POKE_INTERVAL, "soft_fail": True},
        "in_a_worker": {"timeout": 2, "poke_interval": 1, "deferrable": False},
        "in_a_worker_softly": {"timeout": 2, "poke_interval": 1, "deferrable": False, "soft_fail": True},
    }
    for name, how in ways.items():
        wait = OperationSensor(task_id=name, operation_location=live.output, **how)
        announce.override(task_id=f"announce_{name}")(wait.output)


release("users_release")
release("users_release_canceling", cancel_on_kill=True)
# Paused by a test.
release("users_pause")
release("users_limit", execution_timeout=TOO_SHORT, retries=0)
release("users_limit_canceling", execution_timeout=TOO_SHORT, retries=0, cancel_on_kill=True)
users_lose_patience()
