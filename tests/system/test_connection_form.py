"""The connection form in Airflow's UI: a platform engineer creates, tests and changes a connection."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from airflow_provider_cpp.get_provider_info import CONNECTION_FIELDS
from tests.system.conftest import STRANGER
from tests.versions import needs_form, needs_test_connection

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from dev.emulator_process import Emulator
    from dev.local_airflow import LocalAirflow
    from tests.system.conftest import Keep

pytestmark = [pytest.mark.timeout(400), needs_form]


def open_form(page: Page, airflow: LocalAirflow, conn_id: str) -> Locator:
    """Open the form of a new connection of this type."""
    page.goto(f"{airflow.url}/connections")
    page.get_by_role("button", name="Add Connection").click()
    form = page.get_by_role("dialog")
    form.locator("input[name=connection_id]").fill(conn_id)
    form.get_by_role("combobox").click()
    page.get_by_role("option", name="Microsoft Cloud Partner Portal").click()
    expect(form.get_by_label("Client id")).to_be_visible()
    return form


def open_extras(form: Locator) -> None:
    form.get_by_role("button", name="Extra Fields", exact=True).click()
    expect(form.get_by_text("Tenant id", exact=True)).to_be_visible()


def save(form: Locator) -> None:
    form.get_by_role("button", name="Save").click()
    expect(form).to_have_count(0)


def row(page: Page, conn_id: str) -> Locator:
    return page.get_by_role("row").filter(has_text=conn_id)


def test_form_labels_and_explains_each_field_and_hides_the_secret(
    airflow: LocalAirflow, page: Page, keep: Keep
) -> None:
    form = open_form(page, airflow, "looked_at")
    for label in ("Host", "Client id", "Client secret", "Port"):
        expect(form.get_by_text(label, exact=True)).to_be_visible()
    expect(form.get_by_text("Schema", exact=True)).to_have_count(0)
    expect(form.locator("input[name=password]")).to_have_attribute("type", "password")
    expect(form.locator("input[name=host]")).to_have_attribute(
        "placeholder", "https://cloudpartner.azure.com"
    )
    keep("connection-form")
    open_extras(form)
    keep("connection-form-extra")
    for field in CONNECTION_FIELDS.values():
        expect(form.get_by_text(field["label"], exact=True)).to_be_visible()
        expect(form.get_by_text(field["description"], exact=True)).to_be_visible()


@needs_test_connection
@pytest.mark.parametrize(
    ("conn_id", "changes", "title", "said"),
    [
        ("good", {}, "Successful", r"Signed in; publisher contoso has \d+ offers\."),
        (
            "wrong_secret",
            {"password": "a-wrong-secret"},
            "Failed",
            r"Authentication failed: the client secret is wrong",
        ),
        (
            "unregistered",
            {"login": STRANGER["clientId"], "password": STRANGER["secret"]},
            "Failed",
            r"Object IDs was registered: it must be the one of the 'managed application in local directory'",
        ),
    ],
    ids=["good", "wrong secret", "unregistered"],
)
def test_a_connection_made_with_the_form_is_tested_with_a_click(
    airflow: LocalAirflow,
    emulator: Emulator,
    page: Page,
    keep: Keep,
    conn_id: str,
    changes: dict[str, str],
    title: str,
    said: str,
) -> None:
    wanted = emulator.connection | changes
    host = urlsplit(wanted["host"])
    form = open_form(page, airflow, conn_id)
    # The button of Airflow 3.3.1 and 3.3.2 tests only connections with a port.
    form.locator("input[name=host]").fill(f"{host.scheme}://{host.hostname}")
    form.locator("input[name=port]").fill(str(host.port))
    form.locator("input[name=login]").fill(wanted["login"])
    form.locator("input[name=password]").fill(wanted["password"])
    open_extras(form)
    for name, value in wanted["extra"].items():
        form.locator(f"input[name=element_{name}]").fill(value)
    save(form)

    row(page, conn_id).get_by_role("button", name="Test Connection").click()

    expect(page.get_by_text(f"Test Connection {title}")).to_be_visible()
    expect(page.get_by_text(re.compile(said))).to_be_visible()
    keep(f"test-connection-{conn_id}")
    expect(page.get_by_text(wanted["password"])).to_have_count(0)


@needs_test_connection
def test_saving_the_form_keeps_settings_that_it_does_not_show(
    airflow: LocalAirflow, emulator: Emulator, page: Page
) -> None:
    proxies = {"https": "http://somebody:topsecret@proxy.example:8080"}
    extra = emulator.connection["extra"] | {"proxies": proxies, "verify": True, "timeout": 45}
    body = emulator.connection | {"connection_id": "changed", "extra": json.dumps(extra)}
    airflow.api("POST", "/connections", body)
    page.goto(f"{airflow.url}/connections")
    row(page, "changed").get_by_role("button", name="Edit Connection").click()
    form = page.get_by_role("dialog")
    open_extras(form)
    expect(form.locator("input[name=element_publisherId]")).to_have_value("contoso")
    expect(form.get_by_text("topsecret")).to_have_count(0)
    form.locator("input[name=element_publisherId]").fill("fabrikam")
    save(form)

    after = airflow.connection("changed")
    assert after["password"] == emulator.connection["password"]
    assert after["extra_dejson"]["proxies"] == proxies
    assert after["extra_dejson"]["publisherId"] == "fabrikam"
