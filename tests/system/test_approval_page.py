"""A user approves or rejects a release in Airflow's UI: the page, and the effect of each button."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from dev.local_airflow import wait_for
from tests.system.watching import accepted, completed_at, go_lives, slots, started, states_of, tasks_of
from tests.versions import needs_approval

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from dev.emulator_process import Emulator
    from dev.local_airflow import LocalAirflow
    from tests.system.conftest import Keep, RunOf

pytestmark = [pytest.mark.timeout(400), needs_approval]


def open_approval_page(page: Page, airflow: LocalAirflow, dag_id: str, run_id: str) -> None:
    """Open the approval page when the task requests the approval."""
    asking = airflow.wait_for_question(dag_id, run_id, "approve")
    airflow.wait_until_handed_over(asking)
    run = f"/dags/{dag_id}/runs/{quote(run_id, safe='')}"
    page.goto(f"{airflow.url}{run}/tasks/{asking['task_id']}/required_actions")
    expect(page.get_by_role("button", name="Approve", exact=True)).to_be_enabled()


def test_page_shows_the_changes_and_approve_takes_the_offer_live(
    airflow: LocalAirflow, emulator: Emulator, runs: RunOf, page: Page
) -> None:
    dag_id, run_id = runs["release"]
    open_approval_page(page, airflow, dag_id, run_id)

    expect(page.get_by_text("Go live with version 4 of contoso/contoso-web?").first).to_be_visible()
    expect(page.get_by_text("to go live: version 4", exact=True)).to_be_visible()
    expect(page.get_by_text("live now: version 3", exact=True)).to_be_visible()
    preview = page.get_by_role("link", name="Look at the preview")
    expect(preview).to_have_attribute(
        "href", "https://azuremarketplace.microsoft.com/marketplace/apps/contoso.contoso-web-preview"
    )
    changes = page.get_by_role("code").filter(has_text='+description: <b id="injected">bold</b>')
    expect(changes).to_contain_text("+    1.7.0:")
    expect(changes).to_contain_text("osVhdUrl: https://contoso.blob.core.windows.net/images/web-1.7.0.vhd")
    # Markup in the offer is shown as plain text.
    for element in ("#injected", "img[src=nowhere]", "a[href*='injected.example']", "h1:text('heading')"):
        expect(page.locator(element)).to_have_count(0)
    assert page.title() != "1"
    assert go_lives(emulator, "contoso-web") == 0

    page.get_by_role("button", name="Approve", exact=True).click()

    assert airflow.wait_for_run(dag_id, run_id) == "success"
    assert accepted(emulator, "contoso-web") == {"publish": 1, "golive": 1}
    assert slots(emulator, "contoso-web") == {"preview": 4, "production": 4}
    tasks = tasks_of(airflow, dag_id, run_id)
    assert started(tasks["announce", -1]) >= completed_at(emulator, "contoso-web")
    assert airflow.xcom(tasks["approve", -1])["chosen_options"] == ["Approve"]
    # The asset has started the Dag `announce`.
    wait_for(lambda: bool(airflow.runs_of("announce")), "the Dag announce to be started", seconds=60)
    [announcing] = airflow.runs_of("announce")
    assert airflow.wait_for_run("announce", announcing["dag_run_id"]) == "success"
    told = airflow.xcom(tasks_of(airflow, "announce", announcing["dag_run_id"])["tell", -1])
    link = "https://azuremarketplace.microsoft.com/marketplace/apps/contoso.contoso-web"
    assert told == [f"{link} is live, by run {run_id} of release_offer"]


def test_reject_skips_the_go_live_and_records_the_user(
    airflow: LocalAirflow, emulator: Emulator, runs: RunOf, page: Page, keep: Keep
) -> None:
    dag_id, run_id = runs["rejected"]
    open_approval_page(page, airflow, dag_id, run_id)
    expect(page.get_by_role("code").filter(has_text="+description: Your blog")).to_be_visible()
    keep("approval")

    page.get_by_role("button", name="Reject", exact=True).click()

    assert airflow.wait_for_run(dag_id, run_id) == "success"
    assert states_of(airflow, dag_id, run_id) == {
        "publish": "success",
        "review": "success",
        "approve": "skipped",
        "go_live": "skipped",
        "announce": "skipped",
    }
    assert accepted(emulator, "contoso-blog") == {"publish": 1, "golive": 0}
    assert slots(emulator, "contoso-blog") == {"preview": 4, "production": 3}
    approve = tasks_of(airflow, dag_id, run_id)["approve", -1]
    answer = airflow.xcom(approve)
    assert answer["chosen_options"] == ["Reject"]
    assert answer["responded_by_user"]["name"]
    rejected = (
        rf"version 4 of contoso/contoso-blog\? Answered by {answer['responded_by_user']['name']}: Reject"
    )
    assert re.search(rejected, airflow.task_log(approve))
