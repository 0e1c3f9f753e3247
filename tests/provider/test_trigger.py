from __future__ import annotations

import asyncio
import gc
import json
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psutil
import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout
from harness import Connect, Log, Principal, deferral, event_of, eventually, operations, state_of

from airflow_provider_cpp.core import polling
from airflow_provider_cpp.exceptions import (
    CloudPartnerError,
    NotFoundError,
    OperationCanceledError,
    OperationFailedError,
    PermissionDeniedError,
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
    spec = {
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
        spec=spec,
        cancel_on_kill=cancel_on_kill,
    )


def stored(one: OperationTrigger) -> OperationTrigger:
    """The trigger as another process creates it from the database."""
    path, arguments = json.loads(json.dumps(one.serialize()))
    made = load(path)(**arguments)
    assert isinstance(made, OperationTrigger)
    return made


def load(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


async def event(one: OperationTrigger) -> Any:
    (found,) = [event.payload async for event in one.run()]
    return found


def location_of(emulator: Emulator, offer: str) -> str:
    return str(operations(emulator, offer)[0]["location"])


@pytest.mark.parametrize("cancel_on_kill", [True, False])
def test_trigger_survives_storage(cancel_on_kill: bool) -> None:
    one = trigger("/api/operations/contoso$slow$2$production", cancel_on_kill=cancel_on_kill)
    assert stored(one).serialize() == one.serialize()


@pytest.mark.parametrize("task", ["sensor", "operator"])
def test_stored_trigger_and_event_contain_no_secret(
    emulator: Emulator, context: Context, principal: Principal, task: str
) -> None:
    location = location_of(emulator, "going-live")
    limits = {"poke_interval": 0.01, "max_wait": 0.05, "timeout": 0.5}
    waiting = (
        OperationSensor(task_id="wait", operation_location=location, **limits)
        if task == "sensor"
        else GoLiveOperator(task_id="wait", offer_id="going-live", wait_for_completion=True, **limits)
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
    assert {one["status"] for one in events} == {"succeeded"}
    assert len(emulator.requests(path=TOKEN)) == tokens + 1
    assert not any(aio._sessions_by_loop.values())


async def test_simultaneous_triggers_read_the_connection_once(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    read = cloud_partner.get_async_connection

    async def counted(*args: Any, **kwargs: Any) -> Any:
        reads.append(args)
        return await read(*args, **kwargs)

    monkeypatch.setattr(cloud_partner, "get_async_connection", counted)
    location = await CloudPartnerHook().ago_live("quick")
    reads.clear()
    await asyncio.gather(*(event(trigger(location)) for _ in range(200)))
    assert len(reads) == 1


async def test_changed_secret_affects_new_triggers_only(emulator: Emulator, connect: Connect) -> None:
    location = location_of(emulator, "going-live")
    old = asyncio.create_task(event(trigger(location)))
    await asyncio.to_thread(eventually, lambda: len(emulator.requests(path="/operations/")) > 2)
    connect(emulator, password="mistyped")
    found = await event(trigger(location))
    assert (found["status"], found["error"]) == ("error", "AuthenticationError")
    connect(emulator)
    polls = len(emulator.requests(path="/operations/"))
    await asyncio.to_thread(eventually, lambda: len(emulator.requests(path="/operations/")) > polls + 2)
    await CloudPartnerHook().acancel("going-live")
    assert (await old)["status"] == "canceled"


async def test_many_triggers_use_at_most_fifty_connections(emulator: Emulator) -> None:
    emulator.inject(method="GET", path="/operations/", delay=0.5)
    location = location_of(emulator, "going-live")
    port = urlsplit(emulator.url).port

    def connections() -> set[int]:
        found = psutil.Process().net_connections("tcp")
        return {one.laddr.port for one in found if one.status == "ESTABLISHED" and one.raddr.port == port}

    others = connections()
    waits = [asyncio.create_task(event(trigger(location))) for _ in range(300)]
    await asyncio.to_thread(eventually, lambda: len(connections() - others) >= 50)
    # All of them poll in turns.
    before = len(emulator.requests(path="/operations/"))
    await asyncio.to_thread(eventually, lambda: len(emulator.requests(path="/operations/")) > before + 600)
    assert len(connections() - others) == 50
    for wait in waits:
        wait.cancel()
    await asyncio.wait(waits)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_closed_event_loop_leaves_no_session_open(emulator: Emulator) -> None:
    location = location_of(emulator, "going-live")
    for _ in range(2):
        with pytest.raises(TimeoutError):
            asyncio.run(asyncio.wait_for(event(trigger(location)), 0.3))
    # A loop that closes without a cancel.
    loop = asyncio.new_event_loop()
    wait = loop.create_task(event(trigger(location)))
    loop.run_until_complete(asyncio.sleep(0.3))
    loop.close()
    found = asyncio.run(asyncio.wait_for(event(trigger(location, seconds=0.1)), 30))
    assert found["status"] == "timeout"
    assert not any(aio._sessions_by_loop.values())
    # Python reports the abandoned task when it frees it: here, and not during another test.
    del wait, loop
    gc.collect()


async def test_timeout_reports_the_last_unchanged_response(emulator: Emulator) -> None:
    found = await event(trigger(location_of(emulator, "going-live"), seconds=0.5))
    assert found["status"] == "timeout"
    assert found["result"]["status"] == "running"
    assert "Last status: running in step" in found["message"]
    assert len(emulator.requests(path="/operations/")) > 3


async def test_empty_response_is_a_transient_fault(emulator: Emulator, log: Log) -> None:
    emulator.inject(method="GET", path="/operations/", count=2, replace={"status": 200, "body": ""})
    location = await CloudPartnerHook().ago_live("quick")
    assert (await event(trigger(location)))["status"] == "succeeded"
    assert len(log.containing("the poll failed")) == 2
    assert len(log.containing("responds again")) == 1


async def test_hanging_service_does_not_delay_the_timeout(
    emulator: Emulator, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aio, "_POLLS", 2)
    connect(emulator, extra={"timeout": 1})
    location = location_of(emulator, "going-live")
    emulator.inject(method="GET", path="/operations/", count=None, delay=5)
    # In sequence, the requests would take half a minute.
    waits = [asyncio.create_task(event(trigger(location, seconds=2))) for _ in range(60)]
    done, late = await asyncio.wait(waits, timeout=15)
    assert not late
    assert {wait.result()["status"] for wait in done} == {"timeout"}


async def test_trigger_can_run_twice(emulator: Emulator) -> None:
    location = await CloudPartnerHook().ago_live("quick")
    one = trigger(location)
    assert [(await event(one))["status"] for _ in range(2)] == ["succeeded", "succeeded"]


async def test_stop_of_the_triggerer_does_not_cancel_the_operation(emulator: Emulator) -> None:
    location = location_of(emulator, "going-live")
    running = asyncio.create_task(event(trigger(location, cancel_on_kill=True)))
    await asyncio.to_thread(eventually, lambda: len(emulator.requests(path="/operations/")) > 2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert emulator.requests(method="POST", path="/cancel$") == []
    assert state_of(emulator, "going-live") == "running"
    assert not any(aio._sessions_by_loop.values())


async def test_connection_without_a_secret_ends_polling(emulator: Emulator, connect: Connect) -> None:
    location = location_of(emulator, "going-live")
    connect(emulator, password=None)
    found = await event(trigger(location))
    assert found["status"] == "error"
    assert found["error"] == "ValueError"
    assert "cloud_partner_default" in found["message"]


async def test_missing_connection_ends_polling(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    location = location_of(emulator, "going-live")
    monkeypatch.setattr(polling, "NOT_FOUND_SECONDS", 0.2)
    monkeypatch.delenv("AIRFLOW_CONN_CLOUD_PARTNER_DEFAULT")
    found = await event(trigger(location))
    assert (found["status"], found["error"]) == ("error", "NotFoundError")
    assert "'cloud_partner_default' is not defined" in found["message"]


@pytest.mark.parametrize(
    "extra",
    [{"certificate_path": "/no/such/file.pem"}, {"verify": "/no/such/bundle.pem"}, {"timeout": "soon"}],
    ids=str,
)
async def test_invalid_connection_is_never_transient(
    emulator: Emulator, connect: Connect, extra: dict[str, Any]
) -> None:
    location = location_of(emulator, "going-live")
    connect(emulator, extra=extra)
    found = await event(trigger(location))
    assert (found["status"], found["error"]) == ("error", "ValueError")
    with pytest.raises(ValueError, match="cloud_partner_default"):
        complete(found)


# --- triggers and events that an earlier release stored ---

STORED = json.loads((Path(__file__).parents[1] / "samples" / "stored_triggers.json").read_text())
stored_triggers = pytest.mark.parametrize("name", STORED["triggers"])


@stored_triggers
def test_trigger_of_an_earlier_release_keeps_its_arguments(name: str) -> None:
    one = STORED["triggers"][name]
    old = one["kwargs"]
    path, new = load(one["classpath"])(**old).serialize()
    assert path == one["classpath"]
    assert new["spec"] == {
        **old["wait"],
        "until": tuple(old["wait"]["until"]),
        "fail_on": tuple(old["wait"]["fail_on"]),
    }
    for key in ("steps", "faults", "not_found"):
        assert new["state"][key] == old["seen"][key]
    assert not {"wait", "seen"} & set(new)
    for key in set(old) - {"wait", "seen"}:
        assert new[key] == old[key]


@stored_triggers
async def test_trigger_of_an_earlier_release_still_runs(emulator: Emulator, name: str) -> None:
    one = STORED["triggers"][name]
    now = time.time()
    limits = {"started_at": now, "deadline": now + 60, "poke_interval": 0.01, "max_wait": 0.05}
    kwargs = {**one["kwargs"], "wait": {**one["kwargs"]["wait"], **limits}, "first_poll_at": 0.0}
    if "operation_location" in kwargs:
        kwargs["operation_location"] = await CloudPartnerHook().ago_live("quick")
    else:
        await CloudPartnerHook().ago_live("quick")
        kwargs |= {"offer_id": "quick"}
        kwargs["wait"] |= {"until": ["succeeded"]}
    found = await event(load(one["classpath"])(**kwargs))
    assert (found["status"], found["result"]["offer_id"]) == ("succeeded", "quick")


@pytest.mark.parametrize("name", STORED["events"])
def test_event_of_an_earlier_release_is_read(name: str) -> None:
    old = STORED["events"][name]
    if old["end"] == "succeeded":
        result = complete(old)
        assert result | old["result"] == result
        assert (result["publisher_id"], result["offer_id"]) in (
            ("contoso", "quick"),
            ("contoso", "slow-classic"),
        )
        return
    error = {
        "failed": OperationFailedError,
        "canceled": OperationCanceledError,
        "timeout": AirflowSensorTimeout,
        "error": PermissionDeniedError,
    }[old["end"]]
    with pytest.raises(error) as raised:
        complete(old)
    assert str(raised.value) == old["message"]


# --- events ---

SUMMARY = {
    "location": "/api/operations/contoso$slow$2$production",
    "publisher_id": "contoso",
    "offer_id": "slow",
    "version": 2,
    "status": "failed",
    "progress_percentage": 0,
    "steps": [],
    "messages": ["No SSH key."],
}


def complete(payload: Any) -> Any:
    sensor = OperationSensor(task_id="wait", operation_location=SUMMARY["location"])
    return sensor.execute_complete({}, payload)


def test_event_of_success_contains_the_result() -> None:
    event = {"status": "succeeded", "location": SUMMARY["location"], "result": SUMMARY}
    assert complete(event) == SUMMARY


@pytest.mark.parametrize(
    ("end", "error"), [("failed", OperationFailedError), ("canceled", OperationCanceledError)]
)
def test_event_of_a_failure_raises_its_error(end: str, error: type[OperationFailedError]) -> None:
    with pytest.raises(error, match="Because") as raised:
        complete({"status": end, "result": SUMMARY, "message": "Because.", "step": "Live"})
    assert raised.value.step == "Live"
    assert raised.value.messages == ("No SSH key.",)


@pytest.mark.parametrize(
    ("name", "error"),
    [("NotFoundError", NotFoundError), ("ValueError", ValueError), ("Unheard", CloudPartnerError)],
)
def test_event_of_an_error_raises_that_error(name: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="Because"):
        complete({"status": "error", "result": None, "error": name, "message": "Because."})


@pytest.mark.parametrize(
    "payload",
    [
        None,
        "succeeded",
        [],
        {},
        {"status": "succeeded"},
        {"status": "succeeded", "result": None},
        {"status": "succeeded", "result": "all of it"},
        {"status": "succeeded", "result": {}},
        {"status": "perhaps", "message": "?"},
        {"status": "failed", "message": "?"},
        {"status": "failed", "message": "?", "step": None, "result": None},
        {"status": "failed", "message": "?", "step": None, "result": {"messages": 5}},
        {"status": "error", "message": "?"},
        {"status": "error", "message": "?", "error": ["NotFoundError"]},
        {"status": {}, "message": "?"},
        {"status": "error", "message": "?", "error": {}},
        {"end": "succeeded"},
        {"end": "failed", "message": "?"},
    ],
    ids=str,
)
@pytest.mark.parametrize("task", ["sensor", "operator"])
def test_invalid_event_is_an_error(payload: Any, task: str) -> None:
    waiting = (
        OperationSensor(task_id="wait", operation_location=SUMMARY["location"])
        if task == "sensor"
        else GoLiveOperator(task_id="wait", offer_id="slow", wait_for_completion=True)
    )
    with pytest.raises(CloudPartnerError, match="sent an invalid event"):
        waiting.execute_complete({}, payload)


async def test_outage_of_the_connection_store_does_not_end_polling(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = await CloudPartnerHook().ago_live("quick")
    read, failures = cloud_partner.get_async_connection, [RuntimeError("API_SERVER_ERROR")] * 2

    async def fails_at_first(*args: Any, **kwargs: Any) -> Any:
        if failures:
            raise failures.pop()
        return await read(*args, **kwargs)

    monkeypatch.setattr(cloud_partner, "get_async_connection", fails_at_first)

    assert (await event(stored(trigger(location))))["status"] == "succeeded"
    assert not failures
