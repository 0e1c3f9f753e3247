"""The connection's form in the UI of Airflow 2."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from airflow_provider_cpp.get_provider_info import CONNECTION_FIELDS
from tests.versions import needs_airflow_2

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from dev.emulator_process import Emulator
    from dev.local_airflow import LocalAirflow

pytestmark = [pytest.mark.timeout(400), needs_airflow_2]


def test_a_connection_is_made_tested_and_saved_with_the_form(
    airflow: LocalAirflow, emulator: Emulator, page: Page
) -> None:
    wanted = emulator.connection
    page.goto(f"{airflow.url}/connection/add")
    page.locator("#conn_type").select_option("cloud_partner", force=True)
    form = page.locator("#model_form")
    expect(form.get_by_text("Client secret", exact=True)).to_be_visible()
    expect(form.get_by_text("Schema", exact=True)).to_be_hidden()
    expect(page.locator("#password")).to_have_attribute("type", "password")
    for field in CONNECTION_FIELDS.values():
        expect(form.get_by_text(field["label"], exact=True)).to_be_visible()
        expect(form.get_by_text(field["description"], exact=True)).to_be_visible()

    page.locator("#conn_id").fill("made_with_the_form")
    for name in ("host", "login", "password"):
        page.locator(f"#{name}").fill(wanted[name])
    for name, value in wanted["extra"].items():
        page.locator(f"#extra__cloud_partner__{name}").fill(value)
    page.locator("#password").fill("a-wrong-secret")
    page.locator("#test-connection").click()
    expect(page.get_by_text("Authentication failed: the client secret is wrong")).to_be_visible()
    page.locator("#password").fill(wanted["password"])
    page.locator("#test-connection").click()
    expect(page.get_by_text("Signed in; publisher contoso has")).to_be_visible()

    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Added Row")).to_be_visible()
    stored = airflow.connection("made_with_the_form")
    assert {name: stored[name] for name in ("host", "login", "password")} == {
        name: wanted[name] for name in ("host", "login", "password")
    }
    assert stored["extra_dejson"] == wanted["extra"]
