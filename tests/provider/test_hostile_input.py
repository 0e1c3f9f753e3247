"""Random values from users and from the database: each is usable, or refused with a clear error."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from airflow.models import Connection
from airflow.providers.common.compat.sdk import AirflowException
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_cpp.arguments import CHECKS, check_argument
from airflow_provider_cpp.emulator.faults import FaultError, Faults
from airflow_provider_cpp.emulator.seed import BUILT_IN, SeedError, parse
from airflow_provider_cpp.events import read_event
from airflow_provider_cpp.exceptions import CloudPartnerError
from airflow_provider_cpp.hooks.cloud_partner import Settings
from airflow_provider_cpp.operators.cloud_partner import GoLiveOperator, PublishOperator, UpdateOfferOperator
from airflow_provider_cpp.portal import requests as portal
from airflow_provider_cpp.sensors.cloud_partner import OfferStatusSensor, OperationSensor

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
EXTRAS = (
    *("tenantId", "publisherId", "authority", "certificate_path", "managed_identity_client_id"),
    *("workload_identity_tenant_id", "verify", "timeout", "proxies", "proxy", "api_version"),
)


@given(
    st.none() | st.text(max_size=20),
    st.none() | st.text(max_size=8),
    st.none() | st.text(max_size=8),
    st.dictionaries(st.sampled_from(EXTRAS), values),
)
def test_a_connection_is_usable_or_refused(
    host: str | None, login: str | None, password: str | None, extra: dict[str, Any]
) -> None:
    connection = Connection(conn_id="c", conn_type="cloud_partner", host=host, login=login, password=password)
    try:
        found = Settings.from_connection(connection, extra)
    except ValueError as error:
        message = str(error)
        assert "Connection 'c'" in message
        return
    assert found.base_url.startswith(("https://", "http://"))
    assert found.authority.startswith(("https://", "http://"))
    assert 0 < found.timeout < 3600
    assert {found: True}[found]


LOCATION = "/api/publishers/contoso/offers/web/operations/1"
REFUSED = (ValueError, TypeError, AirflowException)
times = scalars | st.timedeltas() | st.floats(0.01, 1e9)


@pytest.mark.parametrize("name", ["poke_interval", "max_wait", "timeout", "until", "if_running", "if_live"])
@example(float("nan"))
@example(float("inf"))
@example(timedelta(0))
@given(times)
def test_any_argument_is_usable_or_refused_when_the_dag_is_parsed(name: str, value: Any) -> None:
    makers: list[Any] = [
        lambda: GoLiveOperator(task_id="t", offer_id="o", **{name: value}),
        lambda: PublishOperator(task_id="t", offer_id="o", **{name: value}),
        lambda: OperationSensor(task_id="t", operation_location=LOCATION, **{name: value}),
        lambda: OfferStatusSensor(task_id="t", offer_id="o", **{name: value}),
    ]
    for make in makers:
        try:
            task = make()
        except REFUSED:
            continue
        if name in ("poke_interval", "timeout"):
            assert 0 <= getattr(task, name) < float("inf")


@pytest.mark.parametrize("name", sorted(CHECKS))
@given(values | st.sampled_from(["true", "a@x.com,b@x.com", "[", LOCATION, "1", "draft"]))
def test_any_rendered_argument_is_usable_or_a_value_error(name: str, value: Any) -> None:
    with suppress(ValueError):
        usable = check_argument(name, value)
        assert check_argument(name, usable) == usable


@given(values, st.dictionaries(st.text(max_size=8), values, max_size=3))
def test_any_change_of_an_offer_is_applied_or_refused(change: Any, definition: dict[str, Any]) -> None:
    offer = {"id": "o", "definition": definition}
    before = copy.deepcopy(offer)
    with suppress(ValueError):
        task = UpdateOfferOperator(task_id="t", offer_id="o", definition=change)
        assert isinstance(task._change(offer, {})["definition"], dict)
    assert offer == before


@given(values)
def test_any_address_or_definition_becomes_json_or_is_refused(value: Any) -> None:
    for make in (
        lambda: portal.publish("p", "o", notification_emails=value),
        lambda: portal.put_offer("p", "o", value),
    ):
        try:
            call = make()
        except (ValueError, TypeError):
            continue
        json.dumps(call.json_body, allow_nan=False)


EVENT_KEYS = ("status", "location", "result", "message", "step", "error", "publisher_id", "offer_id")
ENDS = ("succeeded", "failed", "canceled", "timeout", "error")
results = values | st.fixed_dictionaries(
    {}, optional={"status": scalars, "location": scalars, "messages": values}
)
events = values | st.fixed_dictionaries(
    {"status": st.sampled_from(ENDS) | values},
    optional={key: results if key == "result" else values for key in EVENT_KEYS[1:]},
)


@given(events)
def test_an_event_from_the_database_is_a_result_or_an_error(event: Any) -> None:
    try:
        result = read_event(event)
    except (CloudPartnerError, AirflowException, TimeoutError, ValueError):
        return
    assert event["status"] == "succeeded"
    assert isinstance(result["status"], str)


FAULT_KEYS = ("method", "path", "skip", "probability", "count", "delay", "hold", "lag", "status", "headers")
FAULT_KEYS += ("body", "close", "replace", "truncate", "unknown")


@given(st.dictionaries(st.sampled_from(FAULT_KEYS), values))
def test_a_fault_is_injected_or_refused(rule: dict[str, Any]) -> None:
    faults = Faults()
    try:
        faults.inject(rule)
    except FaultError:
        assert faults.documents == []
        return
    for path in ("/api/publishers", "/api/operations/1", ""):
        faults.take("POST", path)


@given(st.data())
def test_a_seed_is_usable_or_refused(data: st.DataObject) -> None:
    """A part of the emulator's own seed, anywhere in it, is something else."""
    seed = json.loads(json.dumps(BUILT_IN))
    place: Any = seed
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(values)
    with suppress(SeedError):
        parse(seed)
