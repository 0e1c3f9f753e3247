"""Approvals of several offers at once, and of an offer that changes after the request for approval."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from dev.local_airflow import wait_for
from tests.system.conftest import edit
from tests.system.watching import accepted, is_live, posts, slots, states_of, tasks_of
from tests.versions import needs_approval

if TYPE_CHECKING:
    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
    from dev.emulator_process import Emulator
    from dev.local_airflow import LocalAirflow
    from tests.system.conftest import RunOf

pytestmark = [pytest.mark.timeout(400), needs_approval]


def test_of_mapped_offers_only_the_approved_one_goes_live(
    airflow: LocalAirflow, emulator: Emulator, runs: RunOf
) -> None:
    run = runs["lanes"]
    for index, option in enumerate(["Reject", "Approve"]):
        asking = airflow.wait_for_question(*run, "approve", map_index=index)
        airflow.answer(asking, option)

    assert airflow.wait_for_run(*run) == "success"

    assert accepted(emulator, "lane-rejected") == {"publish": 1, "golive": 0}
    assert accepted(emulator, "lane-approved") == {"publish": 1, "golive": 1}
    assert not is_live(emulator, "lane-rejected")
    assert is_live(emulator, "lane-approved")
    lanes = [states_of(airflow, *run, map_index=index) for index in (0, 1)]
    assert lanes[0] == {
        "publish": "success",
        "review": "success",
        "approve": "skipped",
        "go_live": "skipped",
    }
    assert set(lanes[1].values()) == {"success"}
    # Downstream of the group, the task that requires all offers is skipped; the task that requires one runs.
    after = states_of(airflow, *run)
    assert after["announce"] == "skipped"
    assert after["announce_those_that_are_live"] == "success"
    for (task_id, index), task in tasks_of(airflow, *run).items():
        if index >= 0 and task["state"] == "success":
            assert ("lane-rejected", "lane-approved")[index] in task["rendered_map_index"], task_id


def test_version_published_during_the_approval_does_not_go_live(
    airflow: LocalAirflow, emulator: Emulator, runs: RunOf, hook: CloudPartnerHook
) -> None:
    run = runs["outdated"]
    asking = airflow.wait_for_question(*run, "approve")
    hook.cancel("outdated")
    edit(hook, "outdated", description="Second thought")
    hook.publish("outdated")
    wait_for(lambda: hook.get_offer_status("outdated").awaiting_publisher, "the second preview", seconds=60)

    airflow.answer(asking, "Approve")

    assert airflow.wait_for_run(*run) == "failed"
    tasks = tasks_of(airflow, *run)
    assert (tasks["approve", -1]["state"], tasks["go_live", -1]["state"]) == ("success", "failed")
    assert tasks["announce", -1]["state"] == "upstream_failed"
    log = airflow.task_log(tasks["go_live", -1])
    assert re.search(
        "ConflictError.*No go-live of contoso/outdated was sent: version 7 was to go live, but "
        "version 8 is in preview",
        log,
        re.DOTALL,
    )
    assert not [path for path in posts(emulator, "outdated") if path.endswith("/golive")]
    assert slots(emulator, "outdated") == {"preview": 8, "production": 6}
