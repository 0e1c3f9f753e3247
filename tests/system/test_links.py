"""Task details in the UI for a release manager: links, name, and the reason for a skip."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from dev.local_airflow import AIRFLOW, wait_for
from tests.system.conftest import MANY
from tests.system.watching import tasks_of
from tests.versions import needs_airflow_3

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from dev.local_airflow import LocalAirflow
    from tests.system.conftest import Keep, RunOf

pytestmark = [pytest.mark.timeout(400), needs_airflow_3]

SHOP = "https://azuremarketplace.microsoft.com/marketplace/apps"
PARTNER_CENTER = "https://partner.microsoft.com/dashboard/commercial-marketplace/overview"


def open_task(
    page: Page, airflow: LocalAirflow, run: tuple[str, str], task_id: str, index: int = -1, tab: str = ""
) -> None:
    """Open the page of a task instance."""
    dag_id, run_id = run
    mapped = f"/mapped/{index}" if index >= 0 else ""
    page.goto(f"{airflow.url}/dags/{dag_id}/runs/{quote(run_id, safe='')}/tasks/{task_id}{mapped}{tab}")


def check_links(
    page: Page, airflow: LocalAirflow, run: tuple[str, str], task_id: str, index: int = -1, **links: str
) -> None:
    """Check that the page of a task instance has exactly these links to pages of its offer."""
    open_task(page, airflow, run, task_id, index, "/details")
    expect(page.get_by_role("link", name="Partner Center")).to_have_attribute("href", PARTNER_CENTER)
    for name in ("preview", "live"):
        link = page.get_by_role("link", name=f"{name.capitalize()} listing")
        if name in links:
            expect(link).to_have_attribute("href", f"{SHOP}/{links[name]}")
        else:
            expect(link).to_have_count(0)


def test_the_instances_of_a_mapped_task_are_listed_by_their_offers(
    airflow: LocalAirflow, runs: RunOf, page: Page, keep: Keep
) -> None:
    run = runs["example"]
    airflow.wait_for_run(*run)
    open_task(page, airflow, run, "release.wait/mapped")
    for offer in ("linux", "database", "classic"):
        expect(page.get_by_text(f"contoso/contoso-{offer}").first).to_be_visible()
    keep("mapped")


@pytest.mark.xfail(
    (3, 2) <= AIRFLOW < (3, 3),
    reason="its triggerer now and then writes the last lines of a trigger into its own log",
    strict=False,
)
def test_log_of_a_wait_shows_the_progress_of_the_release(
    airflow: LocalAirflow, runs: RunOf, page: Page, keep: Keep
) -> None:
    run = runs["many"]
    airflow.wait_for_run(*run)
    open_task(page, airflow, run, "release_offer.publish", 0)
    expect(page.get_by_text(f"{MANY[0]}: step Publisher signoff").first).to_be_visible()
    keep("log")


def test_a_mapped_task_is_named_by_its_offer_and_links_to_its_pages(
    airflow: LocalAirflow, runs: RunOf, page: Page, keep: Keep
) -> None:
    run = runs["mapped"]
    airflow.wait_for_run(*run)
    for index, offer in enumerate(("offer-6", "offer-7")):
        pages = {"preview": f"contoso.{offer}-preview", "live": f"contoso.{offer}"}
        check_links(page, airflow, run, "wait", index, **pages)
        expect(page.get_by_text(f"wait [contoso/{offer}]")).to_be_visible()
        keep("links")
        # `go_live` succeeds as soon as the operation has started.
        check_links(page, airflow, run, "go_live", index, preview=pages["preview"])


def test_release_links_to_the_preview_and_then_to_the_live_listing(
    airflow: LocalAirflow, runs: RunOf, page: Page
) -> None:
    run = runs["many"]
    airflow.wait_for_run(*run)
    pages = {"preview": "contoso.many-0-preview", "live": "contoso.many-0"}
    check_links(page, airflow, run, "release_offer.publish", 0, preview=pages["preview"])
    check_links(page, airflow, run, "release_offer.go_live", 0, **pages)


def test_a_publish_that_failed_links_to_no_preview(airflow: LocalAirflow, runs: RunOf, page: Page) -> None:
    run = runs["uncertified"]
    assert airflow.wait_for_run(*run) == "failed"
    check_links(page, airflow, run, "release_offer.publish")


def test_task_waiting_for_a_go_live_links_only_to_the_preview(airflow: LocalAirflow, page: Page) -> None:
    run = ("go_live_then_wait", airflow.trigger("go_live_then_wait", {"offer": "offer-watched"}))
    wait_for(
        lambda: tasks_of(airflow, *run).get(("wait", -1), {}).get("state") == "deferred",
        "the task to wait",
        seconds=300,
    )
    check_links(page, airflow, run, "wait", preview="contoso.offer-watched-preview")


def test_a_go_live_that_failed_links_to_no_live_listing(
    airflow: LocalAirflow, runs: RunOf, page: Page
) -> None:
    run = runs["failing"]
    airflow.wait_for_run(*run)
    check_links(page, airflow, run, "wait", preview="contoso.offer-failing-preview")


def test_skipped_live_offer_links_to_its_listing_and_shows_the_reason(
    airflow: LocalAirflow, runs: RunOf, page: Page
) -> None:
    run = runs["unchanged"]
    airflow.wait_for_run(*run)
    pages = {"preview": "contoso.unchanged-preview", "live": "contoso.unchanged"}
    check_links(page, airflow, run, "release_offer.go_live", **pages)
    open_task(page, airflow, run, "release_offer.go_live")
    said = "contoso/unchanged: production has the preview's version already. Nothing to do."
    expect(page.get_by_text(said)).to_be_visible()
