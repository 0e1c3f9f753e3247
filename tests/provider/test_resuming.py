"""A task resumes after its wait in a new process, which has the stored trigger and event only."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.exceptions import AirflowRescheduleException
from airflow.providers.common.compat.sdk import AirflowSensorTimeout, AirflowTaskTimeout
from harness import deferral, resume

from airflow_provider_cpp.exceptions import OperationFailedError
from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
from airflow_provider_cpp.operators.cloud_partner import GoLiveOperator
from airflow_provider_cpp.sensors.cloud_partner import OperationSensor

if TYPE_CHECKING:
    from dev.emulator_process import Emulator

Context = dict[str, Any]


def go_live(offer: str, **arguments: Any) -> GoLiveOperator:
    return GoLiveOperator(
        task_id="go_live",
        offer_id=offer,
        wait_for_completion=True,
        **{"poke_interval": 0.01, "max_wait": 0.05, **arguments},
    )


def rescheduled(location: str, **arguments: Any) -> OperationSensor:
    return OperationSensor(
        task_id="wait",
        operation_location=location,
        deferrable=False,
        mode="reschedule",
        **{"poke_interval": 0.01, "max_wait": 0.05, **arguments},
    )


# --- name of a mapped instance ---


@pytest.mark.parametrize("offer", ["quick", "quick-classic"])
def test_resumed_task_has_the_name_of_the_deferred_task(
    emulator: Emulator, context: Context, offer: str
) -> None:
    first = go_live(offer)
    deferred = deferral(first, context)
    resumed = go_live(offer)
    assert resumed.subject == offer
    resume(resumed, context, deferred)
    assert resumed.subject == first.subject == f"contoso/{offer}"


@pytest.mark.parametrize("offer", ["failing", "failing-classic"])
def test_resumed_task_that_fails_keeps_its_name(emulator: Emulator, context: Context, offer: str) -> None:
    deferred = deferral(go_live(offer), context)
    resumed = go_live(offer)
    with pytest.raises(OperationFailedError):
        resume(resumed, context, deferred)
    assert resumed.subject == f"contoso/{offer}"


def test_resumed_task_keeps_its_publisher(emulator: Emulator, context: Context) -> None:
    arguments = {"publisher_id": "fabrikam", "timeout": 0.5}
    deferred = deferral(go_live("slow", **arguments), context)
    resumed = go_live("slow", **arguments)
    with pytest.raises(AirflowSensorTimeout, match="fabrikam/slow"):
        resume(resumed, context, deferred)
    assert resumed.subject == "fabrikam/slow"


@pytest.mark.parametrize("event", [None, "", [], {}, {"location": None}, {"location": "nowhere"}], ids=str)
def test_unreadable_event_leaves_the_name(context: Context, event: Any) -> None:
    resumed = go_live("slow")
    with pytest.raises(Exception, match="invalid event"):
        resumed.execute_complete(context, event)
    assert resumed.subject == "slow"


# --- time limits ---


def test_execution_timeout_limits_each_poll_of_a_rescheduled_wait(
    emulator: Emulator, context: Context
) -> None:
    location = CloudPartnerHook().go_live("slow")
    context["ti"].first_reschedule_date = datetime.now(UTC) - timedelta(minutes=11)
    context["ti"].max_tries = 0
    task = rescheduled(location, execution_timeout=timedelta(minutes=10))
    with pytest.raises(AirflowRescheduleException):
        task.execute(context)


@pytest.mark.parametrize("kind", ["operator", "sensor"])
def test_execution_timeout_limits_a_deferred_wait_as_a_whole(
    emulator: Emulator, context: Context, kind: str
) -> None:
    limits = {"execution_timeout": timedelta(seconds=0.5), "timeout": 60}
    if kind == "operator":
        tasks = [go_live("slow", **limits) for _ in range(2)]
    else:
        location = CloudPartnerHook().go_live("slow")
        limits |= {"poke_interval": 0.01, "max_wait": 0.05}
        tasks = [OperationSensor(task_id="wait", operation_location=location, **limits) for _ in range(2)]
    start = time.monotonic()
    deferred = deferral(tasks[0], context)
    with pytest.raises(AirflowTaskTimeout, match="Polling of contoso/slow"):
        resume(tasks[1], context, deferred)
    assert 0.5 <= time.monotonic() - start < 20


@pytest.mark.parametrize("name", ["timeout", "poke_interval", "max_wait"])
@pytest.mark.parametrize(
    "value",
    [float("inf"), float("-inf"), float("nan"), -1, timedelta(seconds=-1), True, "60", None],
    ids=str,
)
def test_invalid_time_is_rejected_by_the_constructor(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a timedelta or a number of seconds"):
        go_live("slow", **{name: value})


def test_timeout_ends_a_rescheduled_wait_despite_execution_timeout(
    emulator: Emulator, context: Context
) -> None:
    location = CloudPartnerHook().go_live("slow")
    context["ti"].first_reschedule_date = datetime.now(UTC) - timedelta(minutes=11)
    context["ti"].max_tries = 0
    task = OperationSensor(
        task_id="wait",
        operation_location=location,
        deferrable=False,
        mode="reschedule",
        execution_timeout=timedelta(minutes=5),
        timeout=600,
    )
    with pytest.raises(AirflowSensorTimeout):
        task.execute(context)
