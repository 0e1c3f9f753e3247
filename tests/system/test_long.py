"""Releases of the size of a company's: fifty offers in one run, and ten days at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.system.conftest import FIFTY, FIFTY_FAILING
from tests.system.test_calendar import CALENDAR, DUE, images_of_go_lives, run_on
from tests.system.watching import accepted, is_live, posts, states_of, tasks_of

if TYPE_CHECKING:
    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
    from dev.emulator_process import Emulator
    from dev.local_airflow import LocalAirflow

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]

DAYS = range(1, 11)
MONTH = ("2026-03-01", "2026-03-10")
# The day on which the service fails contoso-shop, once, and the day of its next release.
FAILING_DAY, DAY_AFTER_IT = 5, 9


@pytest.fixture(scope="module")
def fifty(airflow: LocalAirflow) -> tuple[str, str]:
    """A run that releases fifty offers."""
    return "release_many", airflow.trigger("release_many", {"offers": FIFTY})


@pytest.fixture(scope="module")
def ten_days(airflow: LocalAirflow) -> None:
    """Ten days of the calendar, side by side."""
    airflow.backfill(CALENDAR, *MONTH)


@pytest.fixture(autouse=True)
def _begun(fifty: tuple[str, str], ten_days: None) -> None:
    """Both at once, since they mostly wait."""


def test_fifty_offers_go_live_once_each_except_the_failing_ones(
    airflow: LocalAirflow, emulator: Emulator, fifty: tuple[str, str]
) -> None:
    assert airflow.wait_for_run(*fifty, seconds=900) == "failed"

    tasks = tasks_of(airflow, *fifty)
    counts, live, states = {}, {}, {}
    for index, offer_id in enumerate(FIFTY):
        counts[offer_id] = accepted(emulator, offer_id)
        live[offer_id] = is_live(emulator, offer_id)
        states[offer_id] = (tasks["publish", index]["state"], tasks["go_live", index]["state"])
    good = [offer_id for offer_id in FIFTY if offer_id not in FIFTY_FAILING]
    assert len(good) == 47
    assert [offer_id for offer_id in FIFTY if counts[offer_id] == {"publish": 1, "golive": 1}] == good
    assert [offer_id for offer_id in FIFTY if live[offer_id]] == good
    assert {offer_id: states[offer_id] for offer_id in good} == dict.fromkeys(good, ("success", "success"))
    for offer_id in FIFTY_FAILING:
        assert counts[offer_id] == {"publish": 1, "golive": 0}
        assert states[offer_id] == ("failed", "upstream_failed")
    lines = airflow.xcom(tasks["summary", -1])
    assert list(lines) == FIFTY
    assert {offer_id: line for offer_id, line in lines.items() if line != "live"} == {
        offer_id: f"failed in step {step}: {text}" for offer_id, (step, _, text) in FIFTY_FAILING.items()
    }
    assert "3 of 50 offers are not live: fifty-07, fifty-22, fifty-49" in airflow.task_log(
        tasks["summary", -1]
    )


def test_parallel_days_release_in_order_and_resume_after_a_failure(
    airflow: LocalAirflow, emulator: Emulator, hook: CloudPartnerHook
) -> None:
    # A day in the middle fails.
    failing = run_on(airflow, FAILING_DAY)
    assert airflow.wait_for_run(*failing, seconds=900) == "failed"
    lanes = [states_of(airflow, *failing, map_index=index) for index in (0, 1)]
    assert [lane["publish"] for lane in lanes] == ["failed", "success"]
    assert images_of_go_lives(emulator, hook, "contoso-shop") == []
    # Only its offer waits.
    others = [run_on(airflow, day) for day in DAYS if day not in (FAILING_DAY, DAY_AFTER_IT)]
    assert {airflow.wait_for_run(*run, seconds=900) for run in others} == {"success"}
    next_one = run_on(airflow, DAY_AFTER_IT)
    assert airflow.run_state(*next_one) == "running"
    assert states_of(airflow, *next_one, map_index=0)["add_image"] is None

    airflow.clear_failed(*failing)

    assert airflow.wait_for_run(*failing, seconds=900) == "success"
    assert airflow.wait_for_run(*next_one, seconds=900) == "success"
    for offer_id, versions in DUE.items():
        # Each go-live added the image of its own day to the images of the earlier days.
        expected = [set(versions[: number + 1]) for number in range(len(versions))]
        assert images_of_go_lives(emulator, hook, offer_id) == expected
        assert is_live(emulator, offer_id)
        assert accepted(emulator, offer_id)["golive"] == len(versions)
    counts = {offer_id: accepted(emulator, offer_id)["publish"] for offer_id in DUE}
    assert counts == {"contoso-mail": 2, "contoso-shop": 3, "contoso-wiki": 1}

    sent = {offer_id: posts(emulator, offer_id) for offer_id in DUE}
    airflow.backfill(CALENDAR, *MONTH, "--reprocess-behavior", "completed")
    airflow.wait_for_backfills(CALENDAR, seconds=900)

    assert {airflow.run_state(*run_on(airflow, day)) for day in DAYS} == {"success"}
    assert tasks_of(airflow, *failing)["publish", 0]["try_number"] == 3  # so it ran again
    assert {offer_id: posts(emulator, offer_id) for offer_id in DUE} == sent
