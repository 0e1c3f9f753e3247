"""Whole Dags on a real scheduler, worker and triggerer, against the emulator over TLS."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, inspect, text

from dev.local_airflow import wait_for
from tests.system.watching import completed_at, go_lives, tasks_of

if TYPE_CHECKING:
    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
    from dev.emulator_process import Emulator
    from dev.local_airflow import LocalAirflow
    from tests.system.conftest import RunOf

pytestmark = pytest.mark.timeout(400)


def database_rows(airflow: LocalAirflow) -> list[str]:
    """Every row of every table of Airflow's database."""
    engine = create_engine(airflow.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
    with engine.connect() as connection:
        tables = inspect(connection).get_table_names()
        return [str(row) for table in tables for row in connection.execute(text(f'SELECT * FROM "{table}"'))]


def was_deferred(airflow: LocalAirflow, task: dict[str, Any]) -> bool:
    return "Pausing task as DEFERRED" in airflow.task_log(task)


@pytest.mark.parametrize(
    ("name", "offer_id", "deferred"),
    [
        ("deferred", "offer-0", True),
        ("deferred, not migrated", "offer-1", True),
        ("in a worker", "offer-2", False),
        ("in a worker, not migrated", "offer-3", False),
        ("in the same task", "offer-4", True),
        ("in the same task, not migrated", "offer-5", True),
    ],
)
def test_announcement_runs_only_after_the_operation_completed(
    airflow: LocalAirflow, emulator: Emulator, runs: RunOf, name: str, offer_id: str, deferred: bool
) -> None:
    assert airflow.wait_for_run(*runs[name]) == "success"

    tasks = tasks_of(airflow, *runs[name])
    announced = datetime.fromisoformat(tasks["announce", -1]["start_date"])
    assert announced >= completed_at(emulator, offer_id)
    assert go_lives(emulator, offer_id) == 1
    waiting = tasks.get(("wait", -1), tasks["go_live", -1])
    # On a busy machine the first poll may come after the operation ended; then there is nothing to wait for.
    location = airflow.xcom(tasks["go_live", -1]).partition("?")[0]
    first_poll = emulator.requests(method="GET", path=f"{re.escape(location)}$")[0]
    in_time = datetime.fromisoformat(first_poll["time"]) < completed_at(emulator, offer_id)
    assert was_deferred(airflow, waiting) is (deferred and in_time)
    assert "step Live is complete" in airflow.task_log(waiting)


def test_the_example_dag_takes_mapped_offers_of_both_kinds_live(
    airflow: LocalAirflow, emulator: Emulator, runs: RunOf
) -> None:
    assert airflow.wait_for_run(*runs["example"]) == "success"

    tasks = tasks_of(airflow, *runs["example"])
    for index, offer_id in enumerate(["contoso-linux", "contoso-database", "contoso-classic"]):
        assert go_lives(emulator, offer_id) == 1
        assert tasks["go_live", index]["rendered_map_index"] == f"contoso/{offer_id}"
        assert tasks["wait", index]["rendered_map_index"] == f"contoso/{offer_id}"
        announced = datetime.fromisoformat(tasks["announce", index]["start_date"])
        assert announced >= completed_at(emulator, offer_id)
    assert airflow.xcom(tasks["go_live", 2]).startswith("/api/operations/contoso$contoso-classic$")
    assert airflow.xcom(tasks["wait", 2])["status"] == "succeeded"


def test_mapped_tasks_pass_on_both_forms_of_location(
    airflow: LocalAirflow, emulator: Emulator, runs: RunOf
) -> None:
    assert airflow.wait_for_run(*runs["mapped"]) == "success"

    tasks = tasks_of(airflow, *runs["mapped"])
    locations = [airflow.xcom(tasks["go_live", index]) for index in (0, 1)]
    assert locations[0].startswith("/api/publishers/contoso/offers/offer-6/operations/")
    assert locations[1].startswith("/api/operations/contoso$offer-7$")
    assert [airflow.xcom(tasks["announce", index])["location"] for index in (0, 1)] == locations
    assert [go_lives(emulator, offer_id) for offer_id in ("offer-6", "offer-7")] == [1, 1]


def test_failed_operation_fails_the_wait_without_retries(airflow: LocalAirflow, runs: RunOf) -> None:
    assert airflow.wait_for_run(*runs["failing"]) == "failed"

    tasks = tasks_of(airflow, *runs["failing"])
    assert (tasks["wait", -1]["state"], tasks["wait", -1]["try_number"]) == ("failed", 1)
    assert tasks["announce", -1]["state"] == "upstream_failed"
    log = airflow.task_log(tasks["wait", -1])
    assert re.search("OperationFailedError.*failed in step Live: The image has no SSH key", log, re.DOTALL)
    assert "<b>" not in log


def test_a_canceled_operation_fails_the_wait_without_retries(
    airflow: LocalAirflow, hook: CloudPartnerHook, runs: RunOf
) -> None:
    run = runs["lasting"]
    wait_for(
        lambda: tasks_of(airflow, *run)["wait", -1]["state"] == "deferred",
        "the wait to be deferred",
        seconds=120,
    )
    hook.cancel("offer-lasting")

    assert airflow.wait_for_run(*run) == "failed"
    tasks = tasks_of(airflow, *run)
    assert (tasks["wait", -1]["state"], tasks["wait", -1]["try_number"]) == ("failed", 1)
    assert tasks["announce", -1]["state"] == "upstream_failed"
    assert "OperationCanceledError" in airflow.task_log(tasks["wait", -1])


def test_an_operation_that_is_finished_already_causes_no_deferral(
    airflow: LocalAirflow, hook: CloudPartnerHook
) -> None:
    location = hook.go_live("offer-8")
    wait_for(lambda: hook.get_operation(location).is_terminal, "the operation to end", seconds=60)

    run_id = airflow.trigger("wait_only", {"location": location})

    assert airflow.wait_for_run("wait_only", run_id) == "success"
    wait = tasks_of(airflow, "wait_only", run_id)["wait", -1]
    assert not was_deferred(airflow, wait)
    assert airflow.xcom(wait)["progress_percentage"] == 100


def test_wait_survives_a_triggerer_crash_and_an_expired_token(
    airflow: LocalAirflow, emulator: Emulator
) -> None:
    run_id = airflow.trigger("go_live_then_wait", {"offer": "offer-9"})

    def state() -> Any:
        return tasks_of(airflow, "go_live_then_wait", run_id)["wait", -1]["state"]

    wait_for(lambda: state() == "deferred", "the wait to be deferred", seconds=120)
    airflow.stop_component("triggerer", kill=True)
    airflow.start_component("triggerer")

    assert airflow.wait_for_run("go_live_then_wait", run_id) == "success"
    tasks = tasks_of(airflow, "go_live_then_wait", run_id)
    assert go_lives(emulator, "offer-9") == 1
    announced = datetime.fromisoformat(tasks["announce", -1]["start_date"])
    assert announced >= completed_at(emulator, "offer-9")


def test_no_secret_is_in_the_database_or_in_a_log(
    airflow: LocalAirflow, emulator: Emulator, runs: RunOf
) -> None:
    assert airflow.wait_for_run(*runs["deferred"]) == "success"
    secret = emulator.connection["password"].encode()

    searched = [file for file in airflow.home.rglob("*") if file.is_file() and "dags" not in file.parts]

    rows = database_rows(airflow)
    assert any("OperationTrigger" in row or "operation_location" in row for row in rows)
    assert not [row for row in rows if secret.decode() in row]
    assert any("task_id=wait" in str(file) for file in searched)
    assert not [file for file in searched if secret in file.read_bytes()]
