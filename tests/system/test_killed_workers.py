"""A worker process is killed between the request to go live and the XCom, on a real Airflow."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from dev.local_airflow import AIRFLOW, wait_for
from tests.system.watching import posts, tasks_of

if TYPE_CHECKING:
    from dev.emulator_process import Emulator
    from dev.local_airflow import LocalAirflow

pytestmark = [
    pytest.mark.skipif(AIRFLOW < (3, 3), reason="Airflow has the task state store since 3.3"),
    pytest.mark.timeout(300),
]


def hide_operations(emulator: Emulator, offer_id: str, lookups: int) -> None:
    """Return an empty list of operations in some lookups after the first one."""
    path = f"/{offer_id}/submissions"
    emulator.inject(method="GET", path=path, skip=1, count=lookups, replace={"body": "[]"})


def retried(airflow: LocalAirflow, run: tuple[str, str]) -> dict[str, Any]:
    """Wait for the run's success, and return the task that goes live."""
    assert airflow.wait_for_run(*run) == "success"
    live = tasks_of(airflow, *run)["go_live", -1]
    assert live["try_number"] == 2
    return live


def test_retry_adopts_the_location_in_the_task_state_store(airflow: LocalAirflow, emulator: Emulator) -> None:
    offer_id = "killed-before-xcom"
    hide_operations(emulator, offer_id, lookups=1000)
    run = "killed_before_xcom", airflow.trigger("killed_before_xcom", {"offer": offer_id})

    live = retried(airflow, run)

    assert len(posts(emulator, offer_id)) == 1
    assert "an earlier attempt started the go-live" in airflow.task_log(live)
    assert airflow.xcom(live) == emulator.offers()[f"contoso/{offer_id}"]["operations"][0]["location"]


def test_retry_looks_up_a_request_without_response(airflow: LocalAirflow, emulator: Emulator) -> None:
    offer_id = "killed-in-request"
    hide_operations(emulator, offer_id, lookups=3)
    emulator.inject(method="POST", path=f"/{offer_id}/golive$", hold=30, count=1)
    run = "killed_in_request", airflow.trigger("killed_in_request", {"offer": offer_id})
    wait_for(lambda: bool(posts(emulator, offer_id)), "the request to go live", seconds=120)
    kill_process_of(tasks_of(airflow, *run)["go_live", -1])

    live = retried(airflow, run)

    assert len(posts(emulator, offer_id)) == 1
    assert "of an earlier attempt; adopting it" in airflow.task_log(live)


def kill_process_of(ti: dict[str, Any]) -> None:
    """Kill the process that runs the code of a task."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cmdline()[:1] == [f"airflow worker -- {ti['id']}"]:
                process.kill()
                return
    raise AssertionError(f"no process runs {ti['task_id']}")
