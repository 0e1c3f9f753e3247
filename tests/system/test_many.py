"""Many offers in one run, of which some fail, and offers that have nothing new."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.system.conftest import MANY, MANY_FAILING
from tests.system.watching import accepted, is_live, posts, states_of, tasks_of

if TYPE_CHECKING:
    from dev.emulator_process import Emulator
    from dev.local_airflow import LocalAirflow
    from tests.system.conftest import RunOf

pytestmark = pytest.mark.timeout(400)


def test_failing_offer_stops_no_other_and_goes_live_once_cleared(
    airflow: LocalAirflow, emulator: Emulator, runs: RunOf
) -> None:
    run = runs["many"]
    others = [offer_id for offer_id in MANY if offer_id != MANY_FAILING]

    assert airflow.wait_for_run(*run) == "failed"

    for offer_id in others:
        assert is_live(emulator, offer_id)
        assert accepted(emulator, offer_id) == {"publish": 1, "golive": 1}
    assert accepted(emulator, MANY_FAILING) == {"publish": 1, "golive": 0}
    failing = MANY.index(MANY_FAILING)
    assert states_of(airflow, *run, map_index=failing) == {"publish": "failed", "go_live": "upstream_failed"}
    summary = tasks_of(airflow, *run)["summary", -1]
    assert summary["state"] == "failed"
    lines = airflow.xcom(summary)
    assert {offer_id: lines[offer_id] for offer_id in others} == dict.fromkeys(others, "live")
    assert lines[MANY_FAILING] == "failed in step displaycertify: The image has no SSH key."
    log = airflow.task_log(summary)
    assert f"1 of {len(MANY)} offers are not live: {MANY_FAILING}" in log

    airflow.clear_failed(*run)  # the seed lets it fail only once

    assert airflow.wait_for_run(*run) == "success"
    assert all(is_live(emulator, offer_id) for offer_id in MANY)
    assert airflow.xcom(tasks_of(airflow, *run)["summary", -1]) == dict.fromkeys(MANY, "live")
    assert accepted(emulator, MANY_FAILING) == {"publish": 2, "golive": 1}
    assert [accepted(emulator, offer_id) for offer_id in others] == [{"publish": 1, "golive": 1}] * len(
        others
    )


def test_live_offer_with_refused_changes_is_not_reported_as_released(
    airflow: LocalAirflow, emulator: Emulator, runs: RunOf
) -> None:
    run = runs["many, refused"]

    assert airflow.wait_for_run(*run) == "failed"

    assert airflow.xcom(tasks_of(airflow, *run)["summary", -1]) == {
        "refused": "live, but without the draft's changes",
        "unchanged": "live",
    }
    lanes = [states_of(airflow, *run, map_index=index) for index in (0, 1)]
    assert lanes[0] == {"publish": "failed", "go_live": "upstream_failed"}
    assert lanes[1] == {"publish": "success", "go_live": "skipped"}
    assert accepted(emulator, "refused") == {"publish": 0, "golive": 0}


@pytest.mark.parametrize(
    ("name", "offer_id"),
    [("unchanged", "unchanged"), ("unchanged, not migrated", "unchanged-classic")],
)
def test_unchanged_live_offer_is_skipped_and_nothing_is_sent(
    airflow: LocalAirflow, emulator: Emulator, runs: RunOf, name: str, offer_id: str
) -> None:
    assert airflow.wait_for_run(*runs[name]) == "success"

    assert states_of(airflow, *runs[name]) == {
        "publish": "success",
        "go_live": "skipped",
        "announce": "skipped",
    }
    assert posts(emulator, offer_id) == []
