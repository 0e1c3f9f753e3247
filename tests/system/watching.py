"""Helpers for the tests of whole Dags: read tasks in Airflow and operations at the service."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from dev.emulator_process import SUCCESS

if TYPE_CHECKING:
    from dev.emulator_process import Emulator
    from dev.local_airflow import LocalAirflow


def accepted(emulator: Emulator, offer_id: str) -> dict[str, int]:
    """How many publish and go-live requests for an offer the service accepted."""
    return {
        verb: sum(post["effect"] for post in emulator.requests(method="POST", path=f"/{offer_id}/{verb}$"))
        for verb in ("publish", "golive")
    }


def go_lives(emulator: Emulator, offer_id: str) -> int:
    """How many go-lives of an offer the service accepted."""
    return accepted(emulator, offer_id)["golive"]


def posts(emulator: Emulator, offer_id: str) -> list[str]:
    """The POST requests for an offer, accepted or not, except requests with an expired token."""
    sent = emulator.requests(method="POST", path=f"/offers/{offer_id}/")
    return [post["path"] for post in sent if post["status"] != 401]


def slots(emulator: Emulator, offer_id: str) -> dict[str, int | None]:
    """The versions in preview and in production."""
    found: dict[str, int | None] = emulator.offers()[f"contoso/{offer_id}"]["slots"]
    return found


def is_live(emulator: Emulator, offer_id: str) -> bool:
    """Whether production has a version, and the same one as the preview."""
    versions = slots(emulator, offer_id)
    return versions["production"] is not None and versions["production"] == versions["preview"]


def completed_at(emulator: Emulator, offer_id: str) -> datetime:
    """When the latest operation, a go-live, completed."""
    live = emulator.offers()[f"contoso/{offer_id}"]["operations"][0]
    assert live["submissionType"] == "goLive"
    assert live["submissionState"] in SUCCESS
    return datetime.fromisoformat(live["lastActionDateTime"])


def tasks_of(airflow: LocalAirflow, dag_id: str, run_id: str) -> dict[tuple[str, int], dict[str, Any]]:
    """A run's task instances by task id, without its groups, and map index."""
    found = airflow.task_instances(dag_id, run_id)
    return {(task["task_id"].rpartition(".")[2], task["map_index"]): task for task in found}


def states_of(airflow: LocalAirflow, dag_id: str, run_id: str, map_index: int = -1) -> dict[str, str]:
    """The states of a run's task instances of one map index, by task id without its groups."""
    tasks = tasks_of(airflow, dag_id, run_id)
    return {task_id: task["state"] for (task_id, index), task in tasks.items() if index == map_index}


def started(task: dict[str, Any]) -> datetime:
    """When a task instance began."""
    return datetime.fromisoformat(task["start_date"])
