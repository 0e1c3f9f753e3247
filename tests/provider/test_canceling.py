"""`cancel_on_kill`: who ended the task, and the cancel in the short time that Airflow allows."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import tenacity
from airflow.providers.common.compat.sdk import DAG, AirflowSensorTimeout, AirflowTaskTimeout
from harness import TaskInstance, eventually, operations, state_of
from relay import running_relay

from airflow_provider_cpp.exceptions import (
    CloudPartnerError,
    OperationCanceledError,
    PermissionDeniedError,
)
from airflow_provider_cpp.hooks import cloud_partner
from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
from airflow_provider_cpp.operators.cloud_partner import GoLiveOperator
from airflow_provider_cpp.task_termination import describe_user_action
from airflow_provider_cpp.triggers.cloud_partner import OperationTrigger
from dev.local_airflow import AIRFLOW

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness import Connect, Log
    from relay import Sent

    from dev.emulator_process import Emulator

both = pytest.mark.parametrize("variant", ["sync", "async"])
classic_too = pytest.mark.parametrize("offer", ["slow", "slow-classic"])
BUSY = {"status": 503, "headers": {"Retry-After": "1"}}


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cloud_partner._SHORT_RETRY, "wait", tenacity.wait_fixed(0.05))


def cancel(variant: str, location: str) -> None:
    hook = CloudPartnerHook()
    if variant == "sync":
        hook.cancel_operation(location)
    else:
        asyncio.run(hook.acancel_operation(location))


def cancels(emulator: Emulator) -> list[dict[str, Any]]:
    return emulator.requests(method="POST", path="/cancel$")


@both
@pytest.mark.parametrize("path", ["/operations/", "/cancel$"])
@pytest.mark.parametrize("fault", [BUSY, {"status": 500}, {"status": 429}, {"close": "before"}], ids=str)
def test_transient_fault_does_not_prevent_the_cancel(
    emulator: Emulator, variant: str, path: str, fault: dict[str, Any]
) -> None:
    location = CloudPartnerHook().go_live("slow")
    emulator.inject(path=path, **fault)
    cancel(variant, location)
    assert emulator.faults() == []
    assert eventually(lambda: state_of(emulator, "slow") == "canceled")
    assert sum(one["effect"] for one in cancels(emulator)) == 1


@both
def test_outage_raises_its_error_after_a_few_attempts(emulator: Emulator, variant: str) -> None:
    location = CloudPartnerHook().go_live("slow")
    emulator.inject(path="/cancel$", status=500, count=100)
    with pytest.raises(CloudPartnerError, match="500"):
        cancel(variant, location)
    assert 1 < len(cancels(emulator)) < 10


@both
def test_permission_error_is_raised_at_once(emulator: Emulator, variant: str) -> None:
    location = CloudPartnerHook().go_live("slow")
    emulator.inject(path="/cancel$", status=403)
    with pytest.raises(PermissionDeniedError):
        cancel(variant, location)
    assert len(cancels(emulator)) == 1


@both
@pytest.mark.parametrize("offer", ["quick", "quick-classic", "failing", "failing-classic"])
def test_finished_operation_is_not_canceled(emulator: Emulator, variant: str, offer: str) -> None:
    location = CloudPartnerHook().go_live(offer)
    eventually(lambda: state_of(emulator, offer) in ("completed", "failed"))
    cancel(variant, location)
    assert cancels(emulator) == []


@both
def test_later_operation_is_not_canceled(emulator: Emulator, variant: str) -> None:
    hook = CloudPartnerHook()
    location = hook.go_live("slow")
    hook.cancel("slow")
    eventually(lambda: state_of(emulator, "slow") == "canceled")
    hook.go_live("slow")
    cancel(variant, location)
    assert len(cancels(emulator)) == 1
    assert [one["submissionState"] for one in operations(emulator, "slow")] == ["running", "canceled"]


@both
@classic_too
def test_canceled_operation_is_not_canceled_again(
    emulator: Emulator, connect: Connect, tmp_path: Path, variant: str, offer: str
) -> None:
    location = CloudPartnerHook().go_live(offer)
    emulator.inject(path="/cancel$", close="after")
    with running_relay(emulator, tmp_path) as relay:
        connect(emulator, host=relay.url, extra={"verify": relay.verify})

        def wait_until_canceled(sent: Sent) -> None:
            if "/operations/" in sent.target and cancels(emulator):
                eventually(lambda: state_of(emulator, offer) == "canceled")

        relay.before = wait_until_canceled
        cancel(variant, location)
    assert len(cancels(emulator)) == 1


# --- who ended the task ---

BY_USER = ["failed", None, "scheduled", "queued", "restarting"]
BY_AIRFLOW = ["running", "deferred", "success", "skipped", "upstream_failed", "removed"]
Report = Any


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the state that Airflow reports for the task, and for other tasks of its Dag run."""

    def set_states(state: str | None, **others: str) -> None:
        states = {TaskInstance.task_id: state, **others}
        if AIRFLOW < (3, 0):
            run = SimpleNamespace(
                get_task_instances=lambda state: [
                    SimpleNamespace(task_id=task_id, map_index=-1)
                    for task_id, one in states.items()
                    if one in state
                ]
            )
            monkeypatch.setattr(TaskInstance, "current_state", lambda _: state, raising=False)
            monkeypatch.setattr(TaskInstance, "get_dagrun", lambda _: run, raising=False)
            return

        def get_task_states(
            dag_id: str, run_ids: list[str], task_ids: list[str] | None = None, map_index: int | None = None
        ) -> dict[str, dict[str, str | None]]:
            found = {name: one for name, one in states.items() if task_ids is None or name in task_ids}
            return {run_ids[0]: found}

        monkeypatch.setattr(
            "airflow.sdk.execution_time.task_runner.RuntimeTaskInstance.get_task_states",
            staticmethod(get_task_states),
        )

    return set_states


@pytest.mark.parametrize("state", BY_USER + BY_AIRFLOW)
def test_only_failed_and_cleared_tasks_were_ended_by_a_user(report: Report, state: str | None) -> None:
    report(state)
    action = describe_user_action(TaskInstance())
    assert action == ("failed" if state == "failed" else "cleared" if state in BY_USER else None)


@pytest.mark.parametrize("other", ["failed", "success", "skipped"])
@pytest.mark.parametrize("fail_fast", [True, False])
def test_failed_task_counts_unless_fail_fast_may_be_the_cause(
    report: Report, other: str, fail_fast: bool
) -> None:
    report("failed", other=other)
    action = describe_user_action(TaskInstance(), fail_fast=fail_fast)
    assert action == (None if fail_fast and other == "failed" else "failed")


@pytest.mark.skipif(AIRFLOW < (3, 0), reason="Airflow 2 reads its database")
@pytest.mark.parametrize(
    "states", [{}, {"wait_3": "failed"}, {"wait_4": "failed", "wait_3": "success"}], ids=str
)
def test_mapped_task_is_judged_by_its_own_state(
    monkeypatch: pytest.MonkeyPatch, states: dict[str, str]
) -> None:
    monkeypatch.setattr(
        "airflow.sdk.execution_time.task_runner.RuntimeTaskInstance.get_task_states",
        staticmethod(lambda **_: {"manual": states}),
    )
    ti = SimpleNamespace(dag_id="release", run_id="manual", task_id="wait", map_index=4)
    assert describe_user_action(ti) == states.get("wait_4")


def killed_trigger(
    location: str, *, cancel_on_kill: bool = True, until: str = "succeeded"
) -> OperationTrigger:
    now = time.time()
    spec = {"subject": "contoso/slow", "until": [until], "fail_on": ["failed"], "started_at": now}
    spec |= {"deadline": now + 60, "poke_interval": 0.01, "max_wait": 0.05}
    trigger = OperationTrigger(
        cloud_partner_conn_id="cloud_partner_default",
        operation_location=location,
        spec=spec,
        cancel_on_kill=cancel_on_kill,
    )
    # The setter of Airflow 3 needs a complete task instance.
    name = "_task_instance" if hasattr(trigger, "_task_instance") else "task_instance"
    setattr(trigger, name, TaskInstance())
    return trigger


@pytest.mark.parametrize(("state", "canceled"), [("failed", True), (None, True), ("skipped", False)])
async def test_killed_trigger_cancels_after_a_users_action_only(
    emulator: Emulator, report: Report, state: str | None, canceled: bool
) -> None:
    """`fail_fast` and `dagrun_timeout` set a deferred task to skipped."""
    location = await CloudPartnerHook().ago_live("slow")
    report(state, other="failed")
    await killed_trigger(location).on_kill()
    assert len(cancels(emulator)) == canceled


@pytest.mark.parametrize("until", ["running", "succeeded"])
async def test_operation_that_reached_its_status_is_not_canceled(
    emulator: Emulator, report: Report, log: Log, until: str
) -> None:
    """The trigger of another triggerer sent the event, and the task is scheduled."""
    report("scheduled")
    trigger = killed_trigger(await CloudPartnerHook().ago_live("slow"), until=until)
    emulator.inject(path="/operations/", status=503)
    await trigger.on_kill()
    assert len(cancels(emulator)) == (until != "running")
    assert bool(log.containing("is not canceled: it reached the status")) == (until == "running")


async def test_killed_trigger_without_cancel_on_kill_sends_nothing(
    emulator: Emulator, report: Report
) -> None:
    report("failed")
    await killed_trigger(operations(emulator, "going-live")[0]["location"], cancel_on_kill=False).on_kill()
    assert emulator.requests() == []


@pytest.mark.parametrize("way", ["no task instance", "no report"])
async def test_operation_continues_if_airflow_reports_no_state(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, log: Log, way: str
) -> None:
    trigger = killed_trigger(operations(emulator, "going-live")[0]["location"])
    if way == "no task instance":
        trigger._task_instance = None
    monkeypatch.setattr("airflow_provider_cpp.task_termination._state_of", lambda _: 1 / 0)
    await trigger.on_kill()
    assert emulator.requests() == []
    assert log.containing("Airflow did not report the state of the task")


async def test_cancel_is_not_delayed_by_polls(
    emulator: Emulator, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_cpp.transport.aio._POLLS", 1)
    report("failed")
    location = str(operations(emulator, "going-live")[0]["location"])
    emulator.inject(method="GET", path="/operations/", count=1, hold=20)

    async def run() -> None:
        async for _ in killed_trigger(location).run():
            pass

    running = [asyncio.create_task(run()) for _ in range(3)]
    await asyncio.to_thread(eventually, lambda: len(emulator.requests(path="/operations/")) == 1)
    await killed_trigger(location).on_kill()
    assert len(cancels(emulator)) == 1
    assert not any(task.done() for task in running)
    for task in running:
        task.cancel()
    await asyncio.wait(running)


async def test_killed_trigger_leaves_a_later_operation_alone(emulator: Emulator, report: Report) -> None:
    report("failed")
    location = await CloudPartnerHook().ago_live("quick")
    await asyncio.to_thread(eventually, lambda: state_of(emulator, "quick") == "completed")
    await CloudPartnerHook().apublish("quick")
    await killed_trigger(location).on_kill()
    assert cancels(emulator) == []


def waiting_in_worker(*, fail_fast: bool = False, **arguments: Any) -> GoLiveOperator:
    name = "fail_fast" if AIRFLOW >= (3, 0) else "fail_stop"
    return GoLiveOperator(
        task_id="go_live",
        offer_id="slow",
        dag=DAG("release", schedule=None, **{name: fail_fast}),
        wait_for_completion=True,
        deferrable=False,
        poke_interval=0.01,
        max_wait=0.05,
        **{"cancel_on_kill": True, "timeout": 60, **arguments},
    )


@pytest.mark.parametrize(
    ("state", "fail_fast", "other", "canceled"),
    [
        ("failed", False, "success", True),
        ("failed", False, "failed", True),
        ("failed", True, "success", True),
        ("failed", True, "failed", False),
        ("restarting", True, "failed", True),
        ("running", False, "success", False),
    ],
    ids=[
        "failed",
        "others failed",
        "failed with fail_fast",
        "fail_fast",
        "cleared",
        "shutdown of the worker",
    ],
)
def test_killed_worker_cancels_after_a_users_action_only(
    emulator: Emulator,
    context: dict[str, Any],
    report: Report,
    log: Log,
    state: str,
    fail_fast: bool,
    other: str,
    canceled: bool,
) -> None:
    report(state, other=other)
    task = waiting_in_worker(fail_fast=fail_fast, timeout=60 if canceled else 1)
    log.react("operation is running", task.on_kill)
    with pytest.raises(OperationCanceledError if canceled else AirflowSensorTimeout):
        task.execute(context)
    assert len(cancels(emulator)) == canceled


def test_airflows_execution_timeout_cancels_the_running_task(
    emulator: Emulator, context: dict[str, Any], report: Report, log: Log
) -> None:
    """Airflow raises the timeout in the task, and then calls `on_kill`."""
    report("running")
    task = waiting_in_worker()

    def time_out() -> None:
        raise AirflowTaskTimeout

    log.react("operation is running", time_out)
    with pytest.raises(AirflowTaskTimeout):
        task.execute(context)
    task.on_kill()
    assert len(cancels(emulator)) == 1
