"""Run whole flows with every logger at DEBUG: no log, result or stored value contains a secret."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

import pytest
from airflow.providers.common.compat.sdk import redact as airflow_redact

from airflow_provider_cpp.exceptions import CloudPartnerError, ValidationError
from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
from airflow_provider_cpp.operators.cloud_partner import (
    CancelOperator,
    GetOfferOperator,
    GoLiveOperator,
    PublishOperator,
    UpdateOfferOperator,
)
from airflow_provider_cpp.sensors.cloud_partner import OfferStatusSensor, OperationSensor
from tests.provider.harness import SAS_URL, SIGNATURE, UNREADABLE, deferral, event_of, finish, resume

if TYPE_CHECKING:
    from collections.abc import Callable

    from dev.emulator_process import Emulator
    from tests.provider.harness import Connect, Principal
    from tests.security.listening import Ground, Listener
    from tests.security.recording import Recording

patience: dict[str, Any] = {"poke_interval": 0.05, "max_wait": 0.2, "timeout": 30}


def test_the_search_finds_a_leaked_secret(
    recorded: Recording, gateway: Listener, principal: Principal, capfd: pytest.CaptureFixture[str]
) -> None:
    """The search notices a leak: this test leaks secrets on purpose."""
    CloudPartnerHook().list_publishers()
    token = gateway.signed[-1].headers["Authorization"].partition(" ")[2]
    for hidden in (token, base64.b64encode(f"x Bearer {token}".encode()).decode(), token[5:40]):
        recorded.clear()
        logging.getLogger("anywhere").debug("unlucky", extra={"seen": hidden})
        with pytest.raises(AssertionError, match=r"access.token in log anywhere DEBUG"):
            check(recorded, gateway, principal)
    recorded.clear()
    error = CloudPartnerError("unlucky")
    error.__cause__ = ValueError(quote_plus(principal.secret))
    with pytest.raises(AssertionError, match=r"client.secret in str\(ValueError"):
        check(recorded, gateway, principal)


def check(recorded: Recording, gateway: Listener, principal: Principal, *said: tuple[str, str]) -> None:
    """Fail if a recorded text, or a text of the test, contains a secret."""
    for sent in gateway.requests:
        recorded.secrets.learn(sent.headers, sent.body)
    for passed in gateway.passed:
        recorded.secrets.learn({}, passed.body)
    # The header of an assertion, and names of identities, are not secrets.
    allowed = {principal.client, principal.tenant, principal.subject, principal.issuer}
    known = recorded.secrets.known
    assert any(name in ("access token", "access_token") for name in known.values()) or gateway.requests
    recorded.secrets.known = {secret: name for secret, name in known.items() if secret not in allowed}
    places = [*recorded.places(), *said]
    assert places
    hits = recorded.secrets.find_all(places)
    assert not hits, "\n".join(hits)


# --- successful flows ---------------------------------------------------------------------------------------


def _go_live(context: dict[str, Any]) -> Any:
    task = GoLiveOperator(task_id="go_live", offer_id="quick", wait_for_completion=True, **patience)
    return finish(task, context)


def _wait_deferred(context: dict[str, Any]) -> Any:
    # On a busy machine, a quick operation ends before the first poll.
    location = GoLiveOperator(task_id="go_live", offer_id="slow-classic").execute(context)
    task = OperationSensor(task_id="wait", operation_location=location, **patience)
    deferred = deferral(task, context)
    CloudPartnerHook().cancel("slow-classic")
    with pytest.raises(Exception, match="was canceled"):
        resume(task, context, deferred)
    return location, deferred.trigger.serialize(), deferred.kwargs


def _wait_in_worker(context: dict[str, Any]) -> Any:
    location = GoLiveOperator(task_id="go_live", offer_id="quick").execute(context)
    task = OperationSensor(task_id="wait", operation_location=location, deferrable=False, **patience)
    return location, task.execute(context)


def _failing(context: dict[str, Any]) -> Any:
    task = GoLiveOperator(task_id="go_live", offer_id="failing", wait_for_completion=True, **patience)
    with pytest.raises(Exception, match="failed in step"):
        finish(task, context)


def _publish(context: dict[str, Any]) -> Any:
    task = PublishOperator(
        task_id="publish",
        offer_id="next",
        notification_emails=["a@contoso.com"],
        wait_for_completion=True,
        **patience,
    )
    return finish(task, context)


def _cancel(context: dict[str, Any]) -> Any:
    return finish(CancelOperator(task_id="cancel", offer_id="going-live", **patience), context)


def _update(context: dict[str, Any]) -> Any:
    task = UpdateOfferOperator(task_id="update", offer_id="next", definition={"displayText": "New"})
    read = GetOfferOperator(task_id="get", offer_id="next").execute(context)
    return read, task.execute(context), {name: getattr(task, name) for name in task.template_fields}


def _signed_message(context: dict[str, Any]) -> Any:
    """A wait for an operation whose failed step quotes a SAS URL."""
    task = GoLiveOperator(task_id="go_live", offer_id="unreadable", wait_for_completion=True, **patience)
    with pytest.raises(Exception, match=r"failed in step .*web\.vhd") as raised:
        finish(task, context)
    hook = CloudPartnerHook()
    status = hook.get_offer_status("unreadable")
    return str(raised.value), [message.text for message in status.all_messages], raised.value.messages


def _signed_messages_in_worker(context: dict[str, Any]) -> Any:
    location = GoLiveOperator(task_id="go_live", offer_id="unreadable").execute(context)
    task = OperationSensor(task_id="wait", operation_location=location, deferrable=False, **patience)
    with pytest.raises(Exception, match="failed in step"):
        task.execute(context)


def _signed_offer(context: dict[str, Any]) -> Any:
    """An offer with a SAS URL: read, changed, refused, and written with an unknown outcome."""
    read = GetOfferOperator(task_id="get", offer_id="secretive").execute(context)
    assert "web.vhd" in json.dumps(read)
    change = {"plans": [{"planId": "standard", "osVhdUrl": "{{ params.url }}"}]}
    task = UpdateOfferOperator(task_id="update", offer_id="secretive", definition=change)
    task.render_template_fields({"params": {"url": SAS_URL}})
    refusals = []
    for body in (UNREADABLE, json.dumps({"error": {"message": SAS_URL, "sig": SIGNATURE}})):
        context["emulator"].inject(method="PUT", status=400, body=body)
        with pytest.raises(ValidationError, match="was answered 400") as raised:
            task.execute(context)
        refusals.append(repr(raised.value))
    context["emulator"].inject(method="PUT", close="after")
    offer = CloudPartnerHook().get_offer("secretive")
    fields = {name: airflow_redact(getattr(task, name)) for name in task.template_fields}
    return read, refusals, task.execute(context), fields, repr(offer), repr(CloudPartnerHook().list_offers())


def _offer_status(context: dict[str, Any]) -> Any:
    GoLiveOperator(task_id="go_live", offer_id="quick").execute(context)
    task = OfferStatusSensor(task_id="wait", offer_id="quick", statuses=("succeeded",), **patience)
    return finish(task, context)


def _test_connection(_: dict[str, Any]) -> Any:
    return CloudPartnerHook().test_connection()


def _both_variants(_: dict[str, Any]) -> Any:
    async def ask() -> Any:
        async with CloudPartnerHook() as hook:
            return [await hook.alist_offers(), await hook.alist_publishers(), repr(hook), vars(hook)]

    # In debug mode, asyncio logs slow callbacks with their arguments.
    async def slowly() -> Any:
        asyncio.get_running_loop().slow_callback_duration = 0.0
        return await ask()

    hook = CloudPartnerHook()
    found = [hook.list_offers(), hook.list_publishers(), repr(hook), repr(hook.settings)]
    return found, asyncio.run(slowly(), debug=True)


def _revoked(context: dict[str, Any]) -> Any:
    hook = CloudPartnerHook()
    hook.list_operations("quick")
    context["emulator"].revoke_tokens()
    return hook.list_operations("quick")


def _survived(context: dict[str, Any]) -> Any:
    """A wait that meets an outage, a page of HTML, and a lost connection."""
    location = GoLiveOperator(task_id="go_live", offer_id="quick").execute(context)
    emulator = context["emulator"]
    for fault in ({"status": 502, "body": "<html>Bad"}, {"close": "before"}, {"status": 500}):
        emulator.inject(path="/operations/", **fault)
    return finish(OperationSensor(task_id="wait", operation_location=location, **patience), context)


FLOWS: dict[str, Callable[[dict[str, Any]], Any]] = {
    flow.__name__.strip("_"): flow
    for flow in (
        _go_live,
        _wait_deferred,
        _wait_in_worker,
        _failing,
        _publish,
        _cancel,
        _update,
        _signed_message,
        _signed_messages_in_worker,
        _signed_offer,
        _offer_status,
        _test_connection,
        _both_variants,
        _revoked,
        _survived,
    )
}
#: Flows that depend on the way to authenticate.
SHORT = ("test_connection", "both_variants", "wait_deferred")


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("sign_in", ["secret"], indirect=True)
def test_no_flow_leaks_a_secret(
    recorded: Recording,
    gateway: Listener,
    emulator: Emulator,
    principal: Principal,
    context: dict[str, Any],
    sign_in: str,
    flow: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    result = FLOWS[flow](context | {"emulator": emulator})
    xcoms = json.dumps(context["ti"].xcoms)
    out, err = capfd.readouterr()
    said = [("result", repr(result)), ("XCom", xcoms), ("stdout", out), ("stderr", err)]
    check(recorded, gateway, principal, *said, ("emulator", emulator.stderr))


@pytest.mark.parametrize("flow", SHORT)
def test_no_way_to_authenticate_leaks_a_secret(
    recorded: Recording,
    gateway: Listener,
    emulator: Emulator,
    principal: Principal,
    context: dict[str, Any],
    sign_in: str,
    flow: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    result = FLOWS[flow](context)
    if flow == "test_connection":
        assert result[0], result[1]
    assert gateway.signed
    out, err = capfd.readouterr()
    said = [("result", repr(result)), ("stdout", out), ("stderr", err)]
    check(recorded, gateway, principal, *said, ("journal", json.dumps(emulator.requests())))


@pytest.mark.parametrize(
    "changes",
    [
        {"password": "a wrong secret/of+somebody"},
        {"extra": {"tenantId": "5c2fa1e6-3b0d-4c52-9f6e-000000000000"}},
        {"login": "0f7e6c1d-7a55-4f0b-8f0e-000000000000"},
        {"host": "https://localhost:1"},
        {"extra": {"authority": "https://localhost:1"}},
        {"extra": {"proxies": {"https": "http://user:a-proxy-password@localhost:1"}}},
        {"extra": {"publisherId": "unknown"}},
    ],
    ids=str,
)
@pytest.mark.parametrize("variant", ["sync", "async"])
def test_no_failing_connection_leaks_a_secret(
    recorded: Recording,
    gateway: Listener,
    ground: Ground,
    emulator: Emulator,
    connect: Connect,
    principal: Principal,
    changes: dict[str, Any],
    variant: str,
) -> None:
    recorded.secrets.add("wrong secret", changes.get("password"))
    recorded.secrets.add("proxy password", "a-proxy-password")
    extra = {"authority": gateway.url, "verify": ground.verify} | changes.get("extra", {})
    connect(emulator, **({"host": gateway.url} | changes | {"extra": extra}))
    hook = CloudPartnerHook()
    if variant == "sync":
        works, message = hook.test_connection()
        assert not works
    else:
        with pytest.raises(Exception, match=r"\w") as raised:
            asyncio.run(hook.alist_offers())
        message = repr(raised.value)
    gateway.requests.append(SimpleNamespace(headers={}, body=b""))  # type: ignore[arg-type]
    check(recorded, gateway, principal, ("message", message))


# --- other libraries ----------------------------------------------------------------------------------------


def test_httplib_at_its_own_debug_level_prints_every_header(
    gateway: Listener, recorded: Recording, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`http.client` prints each request, in every program, and no log filter can prevent that.

    The level is not a logger's: only Python code can set it. docs/security.md documents it.
    """
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
    CloudPartnerHook().list_publishers()
    out, _ = capfd.readouterr()
    for sent in gateway.requests:
        recorded.secrets.learn(sent.headers, sent.body)
    assert recorded.secrets.find("stdout", out)


def test_an_event_of_an_error_has_no_secret(
    recorded: Recording, gateway: Listener, principal: Principal, emulator: Emulator, connect: Connect
) -> None:
    """The event crosses the metadata database."""
    location = "/api/publishers/contoso/offers/slow/operations/1"
    emulator.inject(path="/operations/", status=502)
    deferred = deferral(OperationSensor(task_id="wait", operation_location=location, **patience), {})
    emulator.clear_faults()
    emulator.inject(path="/operations/", status=403)
    event = event_of(deferred)
    assert event["status"] == "error"
    check(recorded, gateway, principal, ("event", json.dumps(event)))
