from __future__ import annotations

import asyncio
import json
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psutil
import pytest
from harness import Connect, Log, Principal, deferral, event_of, eventually, operations, state_of

from airflow_provider_cpp.exceptions import (
    CloudPartnerError,
    NotFoundError,
    OperationCanceledError,
    OperationFailedError,
)
from airflow_provider_cpp.hooks import cloud_partner
from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
from airflow_provider_cpp.operators.cloud_partner import GoLiveOperator
from airflow_provider_cpp.sensors.cloud_partner import OperationSensor
from airflow_provider_cpp.transport import aio
from airflow_provider_cpp.triggers.cloud_partner import OperationTrigger

if TYPE_CHECKING:
    from dev.emulator_process import Emulator

Context = dict[str, Any]
TOKEN = "oauth2/v2.0/token"


def trigger(location: str, *, cancel_on_kill: bool = False, seconds: float = 60.0) -> OperationTrigger:
    now = time.time()
    wait = {
        "subject": "contoso/slow",
        "until": ["succeeded"],
        "fail_on": ["failed", "canceled"],
        "started_at": now,
        "deadline": now + seconds,
        "poke_interval": 0.01,
        "max_wait": 0.05,
    }
    return OperationTrigger(
        cloud_partner_conn_id="cloud_partner_default",
        operation_location=location,
        wait=wait,
        cancel_on_kill=cancel_on_kill,
    )


def stored(one: OperationTrigger) -> OperationTrigger:
    """The trigger as another process makes it from what is stored."""
    path, arguments = json.loads(json.dumps(one.serialize()))
    module, _, name = path.rpartition(".")
    made = getattr(import_module(module), name)(**arguments)
    assert isinstance(made, OperationTrigger)
    return made


async def event(one: OperationTrigger) -> Any:
    (found,) = [event.payload async for event in one.run()]
    return found


def location_of(emulator: Emulator, offer: str) -> str:
    return str(operations(emulator, offer)[0]["location"])


@pytest.mark.parametrize("cancel_on_kill", [True, False])
def test_what_is_stored_makes_the_same_trigger(cancel_on_kill: bool) -> None:
    one = trigger("/api/operations/contoso$slow$2$production", cancel_on_kill=cancel_on_kill)
    assert stored(one).serialize() == one.serialize()


@pytest.mark.parametrize("task", ["sensor", "operator"])
def test_neither_what_is_stored_nor_the_event_has_a_secret(
    emulator: Emulator, context: Context, principal: Principal, task: str
) -> None:
    location = location_of(emulator, "going-live")
    patience = {"poke_interval": 0.01, "max_wait": 0.05, "timeout": 0.5}
    waiting = (
        OperationSensor(task_id="wait", operation_location=location, **patience)
        if task == "sensor"
        else GoLiveOperator(task_id="wait", offer_id="going-live", wait_for_completion=True, **patience)
    )
    deferred = deferral(waiting, context)
    crossing = json.dumps([deferred.trigger.serialize(), deferred.kwargs, event_of(deferred)])
    assert location in crossing
    for secret in (principal.secret, principal.client, principal.tenant, "Bearer"):
        assert secret not in crossing


async def test_fifty_triggers_share_one_token_and_one_session(emulator: Emulator) -> None:
    location = await CloudPartnerHook().ago_live("quick")
    tokens = len(emulator.requests(path=TOKEN))
    events = await asyncio.gather(*(event(stored(trigger(location))) for _ in range(50)))
    assert {one["end"] for one in events} == {"succeeded"}
    assert len(emulator.requests(path=TOKEN)) == tokens + 1
    assert not any(aio._sessions_by_loop.values())


async def test_waits_that_begin_together_ask_airflow_for_the_connection_once(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    ask = cloud_partner.get_async_connection

    async def counted(*args: Any, **kwargs: Any) -> Any:
        asked.append(args)
        return await ask(*args, **kwargs)

    monkeypatch.setattr(cloud_partner, "get_async_connection", counted)
    location = await CloudPartnerHook().ago_live("quick")
    asked.clear()
    await asyncio.gather(*(event(trigger(location)) for _ in range(200)))
    assert len(asked) == 1


async def test_a_new_secret_is_for_new_waits_and_old_ones_go_on(emulator: Emulator, connect: Connect) -> None:
    location = location_of(emulator, "going-live")
    old = asyncio.create_task(event(trigger(location)))
    await asyncio.to_thread(eventually, lambda: len(emulator.requests(path="/operations/")) > 2)
    connect(emulator, password="mistyped")
    found = await event(trigger(location))
    assert (found["end"], found["error"]) == ("error", "AuthenticationError")
    connect(emulator)
    polls = len(emulator.requests(path="/operations/"))
    await asyncio.to_thread(eventually, lambda: len(emulator.requests(path="/operations/")) > polls + 2)
    await CloudPartnerHook().acancel("going-live")
    assert (await old)["end"] == "canceled"


async def test_any_number_of_waits_has_at_most_fifty_connections(emulator: Emulator) -> None:
    emulator.inject(method="GET", path="/operations/", delay=0.5)
    location = location_of(emulator, "going-live")
    port = urlsplit(emulator.url).port

    def connections() -> set[int]:
        found = psutil.Process().net_connections("tcp")
        return {one.laddr.port for one in found if one.status == "ESTABLISHED" and one.raddr.port == port}

    others = connections()
    waits = [asyncio.create_task(event(trigger(location))) for _ in range(300)]
    await asyncio.to_thread(eventually, lambda: len(connections() - others) >= 50)
    # All of them ask, in turns.
    asked = len(emulator.requests(path="/operations/"))
    await asyncio.to_thread(eventually, lambda: len(emulator.requests(path="/operations/")) > asked + 600)
    assert len(connections() - others) == 50
    for wait in waits:
        wait.cancel()
    await asyncio.wait(waits)


def test_an_event_loop_that_ended_amid_the_waits_leaves_nothing_behind(emulator: Emulator) -> None:
    location = location_of(emulator, "going-live")
    for _ in range(2):
        with pytest.raises(TimeoutError):
            asyncio.run(asyncio.wait_for(event(trigger(location)), 0.3))
    # One that was not even told to end.
    loop = asyncio.new_event_loop()
    wait = loop.create_task(event(trigger(location)))
    loop.run_until_complete(asyncio.sleep(0.3))
    loop.close()
    found = asyncio.run(asyncio.wait_for(event(trigger(location, seconds=0.1)), 30))
    assert found["end"] == "timeout"
    assert not any(aio._sessions_by_loop.values())
    del wait


async def test_what_was_seen_last_is_told_though_it_was_long_unchanged(emulator: Emulator) -> None:
    found = await event(trigger(location_of(emulator, "going-live"), seconds=0.5))
    assert found["end"] == "timeout"
    assert found["result"]["status"] == "running"
    assert "last seen running in step" in found["message"]
    assert len(emulator.requests(path="/operations/")) > 3


async def test_an_empty_answer_is_a_fault_like_any_other(emulator: Emulator, log: Log) -> None:
    emulator.inject(method="GET", path="/operations/", count=2, replace={"status": 200, "body": ""})
    location = await CloudPartnerHook().ago_live("quick")
    assert (await event(trigger(location)))["end"] == "succeeded"
    assert len(log.containing("no usable answer")) == 2
    assert len(log.containing("answers again")) == 1


async def test_a_service_that_hangs_keeps_no_wait_beyond_its_deadline(
    emulator: Emulator, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aio, "_POLLS", 2)
    connect(emulator, extra={"timeout": 1})
    location = location_of(emulator, "going-live")
    emulator.inject(method="GET", path="/operations/", count=None, delay=5)
    # One after the other they would take half a minute.
    waits = [asyncio.create_task(event(trigger(location, seconds=2))) for _ in range(60)]
    done, late = await asyncio.wait(waits, timeout=15)
    assert not late
    assert {wait.result()["end"] for wait in done} == {"timeout"}


async def test_a_cancel_does_not_wait_for_polls(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aio, "_POLLS", 1)
    location = location_of(emulator, "going-live")
    emulator.inject(method="GET", path="/operations/", count=1, hold=20)
    waits = [asyncio.create_task(event(trigger(location))) for _ in range(3)]
    await asyncio.to_thread(eventually, lambda: len(emulator.requests(path="/operations/")) == 1)
    killed = trigger(location, cancel_on_kill=True)
    await killed.on_kill()
    assert len(emulator.requests(method="POST", path="/cancel$")) == 1
    assert not any(wait.done() for wait in waits)
    for wait in waits:
        wait.cancel()
    await asyncio.wait(waits)


async def test_one_trigger_can_wait_twice(emulator: Emulator) -> None:
    location = await CloudPartnerHook().ago_live("quick")
    one = trigger(location)
    assert [(await event(one))["end"] for _ in range(2)] == ["succeeded", "succeeded"]


async def test_a_triggerer_that_stops_leaves_the_operation_alone(emulator: Emulator) -> None:
    location = location_of(emulator, "going-live")
    running = asyncio.create_task(event(trigger(location, cancel_on_kill=True)))
    await asyncio.to_thread(eventually, lambda: len(emulator.requests(path="/operations/")) > 2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert emulator.requests(method="POST", path="/cancel$") == []
    assert state_of(emulator, "going-live") == "running"
    assert not any(aio._sessions_by_loop.values())


async def test_a_kill_cancels_the_operation_if_asked_for(emulator: Emulator) -> None:
    await stored(trigger(location_of(emulator, "going-live"), cancel_on_kill=True)).on_kill()
    await asyncio.to_thread(eventually, lambda: state_of(emulator, "going-live") == "canceled")


async def test_a_kill_leaves_the_operation_alone_by_default(emulator: Emulator) -> None:
    await stored(trigger(location_of(emulator, "going-live"))).on_kill()
    assert emulator.requests() == []


async def test_a_kill_after_the_end_cancels_nothing(emulator: Emulator) -> None:
    """What runs on the offer by then is somebody else's."""
    location = await CloudPartnerHook().ago_live("quick")
    await asyncio.to_thread(eventually, lambda: state_of(emulator, "quick") == "completed")
    await CloudPartnerHook().apublish("quick")
    await trigger(location, cancel_on_kill=True).on_kill()
    assert emulator.requests(method="POST", path="/cancel$") == []


async def test_a_connection_that_can_not_be_used_ends_the_wait(emulator: Emulator, connect: Connect) -> None:
    location = location_of(emulator, "going-live")
    connect(emulator, password=None)
    found = await event(trigger(location))
    assert found["end"] == "error"
    assert found["error"] == "ValueError"
    assert "cloud_partner_default" in found["message"]


async def test_a_connection_that_does_not_exist_ends_the_wait(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = location_of(emulator, "going-live")
    monkeypatch.delenv("AIRFLOW_CONN_CLOUD_PARTNER_DEFAULT")
    found = await event(trigger(location))
    assert (found["end"], found["error"]) == ("error", "NotFoundError")
    assert "'cloud_partner_default' is not defined" in found["message"]


# --- events on arrival ---

SUMMARY = {
    "location": "/api/operations/contoso$slow$2$production",
    "status": "failed",
    "progress_percentage": 0,
    "steps": [],
    "messages": ["No SSH key."],
}


def complete(payload: Any) -> Any:
    sensor = OperationSensor(task_id="wait", operation_location=SUMMARY["location"])
    return sensor.execute_complete({}, payload)


def test_an_event_of_success_is_the_summary() -> None:
    event = {"end": "succeeded", "location": SUMMARY["location"], "result": SUMMARY}
    assert complete(event) == SUMMARY


@pytest.mark.parametrize(
    ("end", "error"), [("failed", OperationFailedError), ("canceled", OperationCanceledError)]
)
def test_an_event_of_a_bad_end_is_its_error(end: str, error: type[OperationFailedError]) -> None:
    with pytest.raises(error, match="Because") as raised:
        complete({"end": end, "result": SUMMARY, "message": "Because.", "step": "Live"})
    assert raised.value.step == "Live"
    assert raised.value.messages == ("No SSH key.",)


@pytest.mark.parametrize(
    ("name", "error"),
    [("NotFoundError", NotFoundError), ("ValueError", ValueError), ("Unheard", CloudPartnerError)],
)
def test_an_event_of_an_error_is_that_error(name: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="Because"):
        complete({"end": "error", "result": None, "error": name, "message": "Because."})


@pytest.mark.parametrize(
    "payload",
    [
        None,
        "succeeded",
        [],
        {},
        {"end": "succeeded"},
        {"end": "succeeded", "result": None},
        {"end": "succeeded", "result": "all of it"},
        {"end": "succeeded", "result": {}},
        {"end": "perhaps", "message": "?"},
        {"end": "failed", "message": "?"},
        {"end": "failed", "message": "?", "step": None, "result": None},
        {"end": "failed", "message": "?", "step": None, "result": {"messages": 5}},
        {"end": "error", "message": "?"},
        {"end": "error", "message": "?", "error": ["NotFoundError"]},
        {"end": {}, "message": "?"},
    ],
    ids=str,
)
@pytest.mark.parametrize("task", ["sensor", "operator"])
def test_an_event_that_can_not_be_read_says_so(payload: Any, task: str) -> None:
    waiting = (
        OperationSensor(task_id="wait", operation_location=SUMMARY["location"])
        if task == "sensor"
        else GoLiveOperator(task_id="wait", offer_id="slow", wait_for_completion=True)
    )
    with pytest.raises(CloudPartnerError, match="event that can't be read"):
        waiting.execute_complete({}, payload)


async def test_a_wait_goes_on_when_airflow_can_not_say_what_the_connection_is(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = await CloudPartnerHook().ago_live("quick")
    read, failures = cloud_partner.get_async_connection, [RuntimeError("API_SERVER_ERROR")] * 2

    async def away_at_first(*args: Any, **kwargs: Any) -> Any:
        if failures:
            raise failures.pop()
        return await read(*args, **kwargs)

    monkeypatch.setattr(cloud_partner, "get_async_connection", away_at_first)

    assert (await event(stored(trigger(location))))["end"] == "succeeded"
    assert not failures
