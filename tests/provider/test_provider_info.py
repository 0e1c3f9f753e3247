"""The provider's metadata for Airflow, and the connection form: its fields and their stored values."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest
from airflow.providers.common.compat.sdk import Connection
from airflow.providers_manager import ProvidersManager

from airflow_provider_cpp.get_provider_info import CONNECTION_FIELDS, FIELD_BEHAVIOUR, get_provider_info
from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook, Settings
from airflow_provider_cpp.links import cloud_partner as links

ROOT = Path(__file__).parents[2]
INFO = get_provider_info()


def schema(name: str) -> Any:
    """A JSON schema that this Airflow ships."""
    file = Path(airflow.__path__[0]) / name
    if not file.exists():
        pytest.skip(f"this Airflow ships no {name}")
    return json.loads(file.read_text())


def test_provider_info_is_valid_by_the_schema_of_this_airflow() -> None:
    jsonschema.validate(INFO, schema("provider_info.schema.json"))


@pytest.mark.parametrize("part", ["integrations", "connection-types", "extra-links", "triggers"])
def test_parts_are_valid_by_the_schema_of_airflows_own_providers(part: str) -> None:
    wanted = schema("provider.yaml.schema.json")["properties"][part]
    jsonschema.validate(INFO[part], wanted)


def test_how_to_guides_exist() -> None:
    guides = [guide for integration in INFO["integrations"] for guide in integration["how-to-guide"]]
    assert guides
    assert [guide for guide in guides if not (ROOT / guide.lstrip("/")).is_file()] == []


def test_provider_info_names_every_module_of_each_kind() -> None:
    for kind in ("hooks", "operators", "sensors", "triggers"):
        there = {file.stem for file in (ROOT / "airflow_provider_cpp" / kind).glob("[!_]*.py")} - {"base"}
        named = {name.rpartition(".")[2] for entry in INFO[kind] for name in entry["python-modules"]}
        assert named == there


def test_provider_info_names_every_link_of_the_operators() -> None:
    shown = (links.PREVIEW, links.LIVE, links.PARTNER_CENTER)
    assert set(INFO["extra-links"]) == {f"{type(link).__module__}.{type(link).__name__}" for link in shown}
    for path in INFO["extra-links"]:
        module, _, name = path.rpartition(".")
        assert issubclass(getattr(import_module(module), name), links.OfferLink)


def test_airflow_finds_the_provider_connection_links_and_triggers() -> None:
    manager = ProvidersManager()
    assert manager.providers["airflow-provider-cpp"].data["name"] == INFO["name"]
    hook: Any = manager.hooks["cloud_partner"]
    assert (hook.hook_name, hook.connection_testable) == ("Microsoft Cloud Partner Portal", True)
    assert set(INFO["extra-links"]) <= set(manager.extra_links_class_names)
    known = {trigger.trigger_class_name for trigger in manager.trigger}
    assert known >= set(INFO["triggers"][0]["python-modules"])


def test_reading_provider_info_imports_no_airflow() -> None:
    code = "import airflow_provider_cpp.get_provider_info, sys; print('airflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# --- the form -----------------------------------------------------------------------------------------------


def settings(**extra: Any) -> Settings:
    """The settings of a connection that a user saved with the form."""
    connection = Connection(
        conn_id="saved",
        conn_type="cloud_partner",
        login="client",
        password="secret",
        extra=json.dumps({"tenantId": "tenant", **extra}),
    )
    return Settings.from_connection(connection, connection.extra_dejson)


#: For each field, the user's input and the value that Airflow 3's form stores.
TYPED: dict[str, tuple[str, Any]] = {
    "tenantId": ("another tenant", "another tenant"),
    "publisherId": ("contoso", "contoso"),
    "certificate_path": (__file__, __file__),
    "managed_identity_client_id": ("an identity", "an identity"),
    "workload_identity_tenant_id": ("a tenant", "a tenant"),
    "authority": ("https://login.microsoftonline.us", "https://login.microsoftonline.us"),
    "verify": ("false", "false"),
    "timeout": ("12.5", 12.5),
    "proxies": ('{"https":"http://proxy:8080"}', {"https": "http://proxy:8080"}),
    "api_version": ("2018-01-01", "2018-01-01"),
}


def test_each_form_field_is_read_and_has_a_label_and_a_help_text() -> None:
    assert set(TYPED) == set(CONNECTION_FIELDS)
    for name, (_, value) in TYPED.items():
        assert settings(**{name: value}) != settings(), name
        assert CONNECTION_FIELDS[name]["label"]
        assert CONNECTION_FIELDS[name]["description"].endswith(".")


@pytest.mark.parametrize("name", TYPED)
def test_values_of_airflow_2_and_3_forms_are_read_alike(name: str) -> None:
    typed, value = TYPED[name]
    expected = settings(**{name: value})
    prefixed = f"extra__cloud_partner__{name}"
    assert settings(**{name: typed}) == expected
    if name != "tenantId":
        assert settings(**{prefixed: typed}) == expected
    assert settings(**{prefixed: "something else", name: typed}) == expected
    assert settings(**{prefixed: typed, name: ""}) == expected


@pytest.mark.parametrize("empty", ["", None])
def test_empty_field_is_treated_as_absent(empty: str | None) -> None:
    assert settings(**{name: empty for name in TYPED if name != "tenantId"}) == settings()


@pytest.mark.parametrize(
    ("stored", "value"),
    [("True", True), ("true", True), ("False", False), ("FALSE", False)],
)
def test_verify_may_be_text(stored: str, value: bool) -> None:
    assert settings(verify=stored) == settings(verify=value)


@pytest.mark.parametrize(
    "stored",
    [
        '{"https": "http://proxy:8080"}',
        '{"https":"http:\\/\\/proxy:8080"}',
        " {'https': 'http://proxy:8080'} ",  # Airflow 2's form, when it is saved again
    ],
)
def test_proxies_may_be_an_objects_text(stored: str) -> None:
    assert settings(proxies=stored).proxies.configured == (("https", "http://proxy:8080"),)


def test_proxies_may_be_one_url() -> None:
    assert dict(settings(proxies="http://proxy:8080").proxies.configured) == dict.fromkeys(
        ("http", "https"), "http://proxy:8080"
    )


@pytest.mark.parametrize("stored", ['{"https": ', "{1: 2}", '{"https": null}', "{https: [a]}", "{{"])
def test_proxies_that_are_no_object_of_urls_are_refused(stored: str) -> None:
    with pytest.raises(ValueError, match="extra 'proxies' must be an object such as"):
        settings(proxies=stored)


def test_only_the_scheme_which_the_host_has_is_hidden() -> None:
    assert FIELD_BEHAVIOUR["hidden-fields"] == ["schema"]
    behaviour = CloudPartnerHook.get_ui_field_behaviour()
    assert set(behaviour) == {"hidden_fields", "relabeling", "placeholders"}
    assert behaviour["relabeling"]["password"] == "Client secret"
    jsonschema.validate(behaviour, schema("customized_form_field_behaviours.schema.json"))


def test_hook_widgets_match_the_fields_of_the_connection_form() -> None:
    pytest.importorskip("flask_appbuilder", reason="only Airflow 2 builds its forms with it")
    widgets = CloudPartnerHook.get_connection_form_widgets()
    assert {name: (field.args[0], field.kwargs["description"]) for name, field in widgets.items()} == {
        name: (field["label"], field["description"]) for name, field in CONNECTION_FIELDS.items()
    }


def test_connection_test_does_not_show_airflows_generated_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_KVZWT3SI", json.dumps({"conn_type": "cloud_partner", "password": "x"}))
    works, message = CloudPartnerHook("KVzWT3SI").test_connection()
    assert not works
    assert message == "The connection has a password but no client id: set the login to the client id."
