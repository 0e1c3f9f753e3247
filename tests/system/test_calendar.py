"""Backfills of missed days."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dev.emulator_process import SUCCESS
from tests.system.watching import states_of
from tests.versions import needs_airflow_3

if TYPE_CHECKING:
    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
    from dev.emulator_process import Emulator
    from dev.local_airflow import LocalAirflow
    from tests.system.conftest import RunOf

pytestmark = needs_airflow_3

CALENDAR = "release_calendar"
DUE = {
    "contoso-mail": ["4.0.0", "4.0.1"],
    "contoso-shop": ["2.5.0", "2.5.1"],
    "contoso-wiki": ["1.1.0"],
}
IMAGES = "microsoft-azure-virtualmachines.vmImages"


def run_on(airflow: LocalAirflow, day: int) -> tuple[str, str]:
    """Dag and run of a day in March in the example's calendar."""
    [run_id] = [
        run["dag_run_id"]
        for run in airflow.runs_of(CALENDAR)
        if run["logical_date"].startswith(f"2026-03-{day:02}")
    ]
    return CALENDAR, run_id


def images_of_go_lives(emulator: Emulator, hook: CloudPartnerHook, offer_id: str) -> list[set[str]]:
    """The images available to customers after each completed go-live, in the order of their start."""
    lives = [
        operation
        for operation in reversed(emulator.offers()[f"contoso/{offer_id}"]["operations"])
        if operation["submissionType"] == "goLive" and operation["submissionState"] in SUCCESS
    ]
    found = [hook.get_offer(offer_id, version=live["publishingVersion"]).definition for live in lives]
    # The version that was live before the first day has no images.
    return [images for one in found if (images := set(one["plans"][0].get(IMAGES, {})))]


@pytest.mark.timeout(400)
def test_backfill_releases_only_the_offers_due_on_each_day(
    airflow: LocalAirflow, emulator: Emulator, hook: CloudPartnerHook, runs: RunOf
) -> None:
    assert [airflow.wait_for_run(*run_on(airflow, day)) for day in (1, 2, 3)] == ["success"] * 3

    assert images_of_go_lives(emulator, hook, "contoso-mail")[0] == {"4.0.0"}
    lane = states_of(airflow, *run_on(airflow, 2), map_index=0)
    assert lane == dict.fromkeys(["previous_version_is_live", "add_image", "publish", "go_live"], "success")
    for day in (1, 3):
        states = states_of(airflow, *run_on(airflow, day))
        assert states.pop("due") == "success"
        assert set(states.values()) == {"skipped"}
