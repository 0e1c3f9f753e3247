"""What a task is after its wait, in a process that knows nothing but what was stored."""

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


# --- the name of a mapped task ---


@pytest.mark.parametrize("offer", ["quick", "quick-classic"])
def test_a_fresh_task_is_named_as_the_one_that_was_deferred(
    emulator: Emulator, context: Context, offer: str
) -> None:
    first = go_live(offer)
    deferred = deferral(first, context)
    fresh = go_live(offer)
    assert fresh.subject == offer
    resume(fresh, context, deferred)
    assert fresh.subject == first.subject == f"contoso/{offer}"


@pytest.mark.parametrize("offer", ["failing", "failing-classic"])
def test_a_fresh_task_that_fails_is_named_as_well(emulator: Emulator, context: Context, offer: str) -> None:
    deferred = deferral(go_live(offer), context)
    fresh = go_live(offer)
    with pytest.raises(OperationFailedError):
        resume(fresh, context, deferred)
    assert fresh.subject == f"contoso/{offer}"


def test_a_fresh_task_keeps_the_publisher_that_it_names(emulator: Emulator, context: Context) -> None:
    arguments = {"publisher_id": "fabrikam", "timeout": 0.5}
    deferred = deferral(go_live("slow", **arguments), context)
    fresh = go_live("slow", **arguments)
    with pytest.raises(AirflowSensorTimeout, match="fabrikam/slow"):
        resume(fresh, context, deferred)
    assert fresh.subject == "fabrikam/slow"


@pytest.mark.parametrize("event", [None, "", [], {}, {"location": None}, {"location": "nowhere"}], ids=str)
def test_an_event_that_can_not_be_read_leaves_the_name(context: Context, event: Any) -> None:
    fresh = go_live("slow")
    with pytest.raises(Exception, match="invalid event"):
        fresh.execute_complete(context, event)
    assert fresh.subject == "slow"


# --- how long it may take ---


def test_each_poll_of_a_rescheduled_wait_has_the_execution_timeout_to_itself(
    emulator: Emulator, context: Context
) -> None:
    location = CloudPartnerHook().go_live("slow")
    context["ti"].first_reschedule_date = datetime.now(UTC) - timedelta(minutes=11)
    context["ti"].max_tries = 0
    task = rescheduled(location, execution_timeout=timedelta(minutes=10))
    with pytest.raises(AirflowRescheduleException):
        task.execute(context)


@pytest.mark.parametrize("kind", ["operator", "sensor"])
def test_a_deferred_wait_is_limited_by_the_execution_timeout_as_a_whole(
    emulator: Emulator, context: Context, kind: str
) -> None:
    limits = {"execution_timeout": timedelta(seconds=0.5), "timeout": 60}
    if kind == "operator":
        tasks = [go_live("slow", **limits) for _ in range(2)]
    else:
        location = CloudPartnerHook().go_live("slow")
        limits |= {"poke_interval": 0.01, "max_wait": 0.05}
        tasks = [OperationSensor(task_id="wait", operation_location=location, **limits) for _ in range(2)]
    began = time.monotonic()
    deferred = deferral(tasks[0], context)
    with pytest.raises(AirflowTaskTimeout, match="Polling of contoso/slow"):
        resume(tasks[1], context, deferred)
    assert 0.5 <= time.monotonic() - began < 20


@pytest.mark.parametrize("name", ["timeout", "poke_interval", "max_wait"])
@pytest.mark.parametrize(
    "value",
    [float("inf"), float("-inf"), float("nan"), -1, timedelta(seconds=-1), True, "60", None],
    ids=str,
)
def test_a_time_that_is_none_is_refused_when_the_task_is_made(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a timedelta or a number of seconds"):
        go_live("slow", **{name: value})


def test_a_rescheduled_wait_that_is_too_long_times_out_as_a_sensor_whatever_a_poll_may_take(
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
