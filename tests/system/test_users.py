"""User actions on a release that waits in the triggerer, and their effect on the operation at the service."""

from __future__ import annotations

import re
import urllib.error
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from dev.emulator_process import SUCCESS
from dev.local_airflow import wait_for
from tests.system.watching import completed_at, posts, started, states_of, tasks_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from dev.emulator_process import Emulator
    from dev.local_airflow import LocalAirflow
    from tests.system.conftest import RunOf

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


def run_path(ti: dict[str, Any]) -> str:
    return f"/dags/{ti['dag_id']}/dagRuns/{ti['dag_run_id']}"


def mark_failed(airflow: LocalAirflow, ti: dict[str, Any]) -> None:
    airflow.api("PATCH", f"{run_path(ti)}/taskInstances/{ti['task_id']}", {"new_state": "failed"})


def mark_success(airflow: LocalAirflow, ti: dict[str, Any]) -> None:
    airflow.api("PATCH", f"{run_path(ti)}/taskInstances/{ti['task_id']}", {"new_state": "success"})


def clear(airflow: LocalAirflow, ti: dict[str, Any]) -> None:
    which = {"dag_run_id": ti["dag_run_id"], "task_ids": [ti["task_id"]], "include_downstream": True}
    how = {"dry_run": False, "only_failed": False}
    airflow.api("POST", f"/dags/{ti['dag_id']}/clearTaskInstances", which | how)


def pause(airflow: LocalAirflow, ti: dict[str, Any]) -> None:
    airflow.api("PATCH", f"/dags/{ti['dag_id']}", {"is_paused": True})


def unpause(airflow: LocalAirflow, dag_id: str) -> None:
    airflow.api("PATCH", f"/dags/{dag_id}", {"is_paused": False})


def delete_run(airflow: LocalAirflow, ti: dict[str, Any]) -> None:
    """Delete the run, as far as Airflow lets users: it refuses while the run runs."""
    with pytest.raises(urllib.error.HTTPError, match="409"):
        airflow.api("DELETE", run_path(ti))
    airflow.api("PATCH", run_path(ti), {"state": "failed"})
    airflow.api("DELETE", run_path(ti))


def leave_alone(airflow: LocalAirflow, ti: dict[str, Any]) -> None:
    """Do nothing."""


ENDS_THE_TRIGGER = (mark_failed, mark_success, clear, delete_run)


@dataclass(frozen=True)
class Case:
    """A run, and the user action on its deferred task; no `act` if no user acts on the task."""

    dag_id: str
    offer_id: str
    act: Callable[[LocalAirflow, dict[str, Any]], None] | None = None
    task_id: str = "go_live"


CASES = {
    "failed": Case("users_release", "user-failed", mark_failed),
    "failed, sensor": Case("go_live_then_wait", "user-failed-sensor", mark_failed, "wait"),
    "failed, canceling": Case("users_release_canceling", "user-failed-canceling", mark_failed),
    "failed, canceling, slow": Case("users_release_canceling", "user-failed-canceling-slow", mark_failed),
    "succeeded": Case("users_release", "user-succeeded", mark_success),
    "succeeded, canceling": Case("users_release_canceling", "user-succeeded-canceling", mark_success),
    "cleared": Case("users_release", "user-cleared", clear),
    "cleared, canceling": Case("users_release_canceling", "user-cleared-canceling", clear),
    "paused": Case("users_pause", "user-paused", pause),
    "deleted": Case("users_release", "user-deleted", delete_run),
    "restarted": Case("users_release_canceling", "user-restarted", leave_alone),
    "limited": Case("users_limit", "user-limited"),
    "limited, canceling": Case("users_limit_canceling", "user-limited-canceling"),
    "impatient": Case("users_lose_patience", "user-impatient"),
    "retried": Case("users_release", "user-retried"),
}


#: Seconds by which the service delays its next response after the user action: longer than Airflow waits
#: before it interrupts `on_kill`, and longer than the next try needs to start.
HOLDS = {"failed, canceling, slow": 3, "cleared, canceling": 10}


@pytest.fixture(scope="module")
def acted(airflow: LocalAirflow, emulator: Emulator) -> RunOf:
    """Start all runs, act on each once it waits, then restart the triggerer; Dag and run by name."""
    # The response is lost, and the lookup of the go-live fails.
    emulator.inject(method="POST", path="/user-retried/golive$", close="after")
    emulator.inject(method="GET", path="/user-retried/submissions", skip=1, status=403)
    runs = {
        name: (case.dag_id, airflow.trigger(case.dag_id, {"offer": case.offer_id}))
        for name, case in CASES.items()
    }
    waits: dict[str, dict[str, Any]] = {}

    def all_are_acted_on() -> bool:
        pending = {name: case for name, case in CASES.items() if case.act and name not in waits}
        for name, case in pending.items():
            ti = tasks_of(airflow, *runs[name])[case.task_id, -1]
            if case.act and ti["state"] == "deferred" and starts(airflow, ti):
                if name in HOLDS:
                    emulator.inject(
                        method="GET", path=f"/{case.offer_id}/operations/", hold=HOLDS[name], count=1
                    )
                case.act(airflow, ti)
                waits[name] = ti
        return not pending

    wait_for(all_are_acted_on, "every wait to be acted on", seconds=180)
    ended = [ti for name, ti in waits.items() if CASES[name].act in ENDS_THE_TRIGGER]
    wait_for(
        lambda: all(TRIGGER_ENDED in airflow.task_log(ti) for ti in ended),
        "the triggers of these tasks to end",
        seconds=60,
    )
    with suppress(TimeoutError):  # the tests say so
        wait_for(lambda: "cancel" in sent(emulator, "failed, canceling, slow"), "the slow cancel", seconds=10)
    airflow.stop_component("triggerer")
    airflow.start_component("triggerer")
    return runs


TRIGGER_ENDED = "trigger completed"


def starts(airflow: LocalAirflow, ti: dict[str, Any]) -> int:
    """How often triggerers started the triggers of a task."""
    return len(re.findall(r"trigger \S+ \(ID \d+\) starting", airflow.task_log(ti)))


def sent(emulator: Emulator, name: str) -> list[str]:
    """The POST requests for a case's offer, in order."""
    return [path.rpartition("/")[2] for path in posts(emulator, CASES[name].offer_id)]


def ends(emulator: Emulator, name: str) -> list[str]:
    """The states of the go-lives of a case's offer, in the order of their start."""
    operations = emulator.offers()[f"contoso/{CASES[name].offer_id}"]["operations"]
    states = [one["submissionState"] for one in reversed(operations) if one["submissionType"] == "goLive"]
    return ["completed" if state in SUCCESS else state for state in states]


def wait_for_the_service(emulator: Emulator, name: str, state: str) -> None:
    wait_for(lambda: ends(emulator, name)[-1:] == [state], f"{name} to be {state}", seconds=120)


@pytest.mark.parametrize("name", ["failed", "failed, sensor"])
def test_go_live_continues_after_the_task_is_marked_failed(
    airflow: LocalAirflow, emulator: Emulator, acted: RunOf, name: str
) -> None:
    assert airflow.wait_for_run(*acted[name]) == "failed"

    tasks = tasks_of(airflow, *acted[name])
    waited = tasks[CASES[name].task_id, -1]
    assert (waited["state"], waited["try_number"]) == ("failed", 1)
    assert tasks["announce", -1]["state"] == "upstream_failed"
    wait_for_the_service(emulator, name, "completed")
    assert sent(emulator, name) == ["golive"]


@pytest.mark.parametrize("name", ["failed, canceling", "failed, canceling, slow"])
def test_go_live_is_canceled_with_cancel_on_kill_when_marked_failed(
    airflow: LocalAirflow, emulator: Emulator, acted: RunOf, name: str
) -> None:
    assert airflow.wait_for_run(*acted[name]) == "failed"

    assert states_of(airflow, *acted[name]) == {"go_live": "failed", "announce": "upstream_failed"}
    assert sent(emulator, name) == ["golive", "cancel"]
    wait_for_the_service(emulator, name, "canceled")


@pytest.mark.parametrize("name", ["succeeded", "succeeded, canceling"])
def test_marked_as_success_is_announced_at_once_and_never_canceled(
    airflow: LocalAirflow, emulator: Emulator, acted: RunOf, name: str
) -> None:
    assert airflow.wait_for_run(*acted[name]) == "success"

    assert sent(emulator, name) == ["golive"]
    wait_for_the_service(emulator, name, "completed")
    assert started(tasks_of(airflow, *acted[name])["announce", -1]) < completed_at(
        emulator, CASES[name].offer_id
    )


@pytest.mark.parametrize("name", ["cleared", "cleared, canceling"])
def test_task_cleared_while_it_waits_goes_live_once(
    airflow: LocalAirflow, emulator: Emulator, acted: RunOf, name: str
) -> None:
    assert airflow.wait_for_run(*acted[name]) == "success"

    assert ends(emulator, name).count("completed") == 1
    requests = sent(emulator, name)
    assert requests.count("golive") == 1 + requests.count("cancel")
    if name == "cleared":
        assert requests == ["golive"]
    tasks = tasks_of(airflow, *acted[name])
    assert tasks["go_live", -1]["try_number"] == 2
    assert started(tasks["announce", -1]) >= completed_at(emulator, CASES[name].offer_id)


def test_wait_continues_while_the_dag_is_paused(
    airflow: LocalAirflow, emulator: Emulator, acted: RunOf
) -> None:
    run = acted["paused"]
    wait_for(lambda: states_of(airflow, *run)["go_live"] == "scheduled", "the wait to end", seconds=120)
    assert ends(emulator, "paused") == ["completed"]
    assert (airflow.run_state(*run), states_of(airflow, *run)["announce"]) == ("running", None)

    unpause(airflow, CASES["paused"].dag_id)

    assert airflow.wait_for_run(*run) == "success"
    assert sent(emulator, "paused") == ["golive"]
    assert tasks_of(airflow, *run)["go_live", -1]["try_number"] == 1


def test_go_live_continues_after_its_run_is_deleted(
    airflow: LocalAirflow, emulator: Emulator, acted: RunOf
) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        airflow.run_state(*acted["deleted"])

    wait_for_the_service(emulator, "deleted", "completed")
    assert sent(emulator, "deleted") == ["golive"]


@pytest.mark.parametrize(
    ("name", "requests", "end"),
    [
        ("limited", ["golive"], "completed"),
        ("limited, canceling", ["golive", "cancel"], "canceled"),
    ],
)
def test_execution_timeout_ends_a_deferred_wait(
    airflow: LocalAirflow, emulator: Emulator, acted: RunOf, name: str, requests: list[str], end: str
) -> None:
    assert airflow.wait_for_run(*acted[name]) == "failed"

    assert states_of(airflow, *acted[name]) == {"go_live": "failed", "announce": "upstream_failed"}
    log = airflow.task_log(tasks_of(airflow, *acted[name])["go_live", -1])
    assert "Pausing task as DEFERRED" in log
    assert re.search("AirflowTaskTimeout.*Polling of .* timed out after 0:00:20", log, re.DOTALL)
    wait_for_the_service(emulator, name, end)
    assert sent(emulator, name) == requests


def test_sensor_timeout_fails_or_skips_the_downstream_tasks(
    airflow: LocalAirflow, emulator: Emulator, acted: RunOf
) -> None:
    run = acted["impatient"]
    assert airflow.wait_for_run(*run) == "failed"

    assert states_of(airflow, *run) == {
        "go_live": "success",
        "deferred": "failed",
        "announce_deferred": "upstream_failed",
        "deferred_softly": "skipped",
        "announce_deferred_softly": "skipped",
        "in_a_worker": "failed",
        "announce_in_a_worker": "upstream_failed",
        "in_a_worker_softly": "skipped",
        "announce_in_a_worker_softly": "skipped",
    }
    tasks = tasks_of(airflow, *run)
    for name in ("deferred", "in_a_worker"):
        assert tasks[name, -1]["try_number"] == 1
        assert "AirflowSensorTimeout" in airflow.task_log(tasks[name, -1])
    for name in ("deferred", "deferred_softly"):
        assert "Pausing task as DEFERRED" in airflow.task_log(tasks[name, -1])
    assert (sent(emulator, "impatient"), ends(emulator, "impatient")) == (["golive"], ["running"])


def test_retry_adopts_the_go_live_of_the_failed_try(
    airflow: LocalAirflow, emulator: Emulator, acted: RunOf
) -> None:
    assert airflow.wait_for_run(*acted["retried"]) == "success"

    live = tasks_of(airflow, *acted["retried"])["go_live", -1]
    assert live["try_number"] == 2
    assert "adopting" in airflow.task_log(live)
    assert (sent(emulator, "retried"), ends(emulator, "retried")) == (["golive"], ["completed"])


def test_triggerer_restart_cancels_nothing_and_the_wait_continues(
    airflow: LocalAirflow, emulator: Emulator, acted: RunOf
) -> None:
    assert airflow.wait_for_run(*acted["restarted"]) == "success"

    tasks = tasks_of(airflow, *acted["restarted"])
    assert starts(airflow, tasks["go_live", -1]) == 2
    assert (sent(emulator, "restarted"), ends(emulator, "restarted")) == (["golive"], ["completed"])
    assert tasks["go_live", -1]["try_number"] == 1
    assert started(tasks["announce", -1]) >= completed_at(emulator, "user-restarted")


def test_stalled_triggerer_that_was_replaced_cancels_nothing(
    airflow: LocalAirflow, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = "users_release_canceling", airflow.trigger("users_release_canceling", {"offer": "user-stalled"})

    def live() -> dict[str, Any]:
        return tasks_of(airflow, *run)["go_live", -1]

    wait_for(lambda: starts(airflow, live()) == 1, "the wait to be in the triggerer", seconds=120)
    monkeypatch.setattr(
        airflow, "components", {**airflow.components, "other": airflow.components["triggerer"]}
    )
    leader = psutil.Process(airflow.pid("triggerer"))
    stalled = [leader, *leader.children(recursive=True)]
    airflow.start_component("other")
    for process in stalled:
        process.suspend()
    try:
        wait_for(lambda: starts(airflow, live()) == 2, "the other to take over", seconds=120)
    finally:
        for process in stalled:
            process.resume()
    wait_for(
        lambda: TRIGGER_ENDED in airflow.task_log(live()),
        "the first one to leave it to the other",
        seconds=60,
    )
    airflow.stop_component("other")

    assert [path.rpartition("/")[2] for path in posts(emulator, "user-stalled")] == ["golive"]
    assert live()["state"] == "deferred"
