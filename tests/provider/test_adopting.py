"""Which go-live `GoLiveOperator` adopts while list and Location disagree, or share a reused Location."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from harness import Connect, Log, deferral, eventually, finish, state_of
from submitting import freeze_list, listed, location_of, operator, states, statuses

from airflow_provider_cpp.exceptions import ConflictError, ValidationError
from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
from airflow_provider_cpp.sensors.cloud_partner import OperationSensor
from dev.emulator_process import Emulator, running_emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_cpp.operators.cloud_partner import GoLiveOperator

Context = dict[str, Any]

slow = pytest.mark.parametrize("offer", ["slow", "slow-classic"])
quick = pytest.mark.parametrize("offer", ["quick", "quick-classic"])


def go_live(offer: str, **arguments: Any) -> GoLiveOperator:
    task: GoLiveOperator = operator("golive", offer, **arguments)
    return task


# --- an operation that is being canceled ---


@pytest.fixture(scope="module")
def slow_emulator(seed_file: str) -> Iterator[Emulator]:
    """An emulator where a cancel takes two seconds."""
    with running_emulator("--seed", seed_file, "--time-scale", "60") as emulator:
        yield emulator


@slow
def test_go_live_that_is_being_canceled_is_not_adopted(
    slow_emulator: Emulator, connect: Connect, context: Context, offer: str, log: Log
) -> None:
    slow_emulator.reset()
    connect(slow_emulator)
    first = go_live(offer).execute(context)
    assert CloudPartnerHook().cancel(offer)
    assert state_of(slow_emulator, offer) == "running"
    second = go_live(offer).execute(context)
    assert log.containing("is being canceled")
    assert statuses(slow_emulator) == [202, 202]
    assert states(slow_emulator, offer) == ["running", "canceled"]
    assert (second == first) == offer.endswith("classic")  # reused Location
    assert CloudPartnerHook().get_operation(second).status == "running"


@slow
def test_cancel_without_end_is_a_conflict(
    emulator: Emulator, context: Context, offer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = go_live(offer).execute(context)
    canceling = CloudPartnerHook().get_operation(location).raw | {"cancellationRequestState": "canceling"}
    path = re.escape(location.partition("?")[0])
    emulator.inject(path=path, count=1000, replace={"body": json.dumps(canceling)})
    monkeypatch.setattr("airflow_provider_cpp.release.submission.CANCELING_DELAYS", (0.01,) * 3)
    with pytest.raises(ConflictError, match="goLive runs on it"):
        go_live(offer).execute(context)
    assert statuses(emulator) == [202]


# --- an outdated list shows an operation as running that failed or was canceled ---


@slow
def test_canceled_go_live_in_an_outdated_list_is_not_adopted(
    emulator: Emulator, context: Context, offer: str
) -> None:
    first = go_live(offer).execute(context)
    outdated = listed(offer)
    CloudPartnerHook().cancel(offer)
    eventually(lambda: state_of(emulator, offer) == "canceled")
    freeze_list(emulator, outdated, count=1)
    second = go_live(offer).execute(context)
    assert statuses(emulator) == [202, 202]
    assert (second == first) == offer.endswith("classic")
    assert state_of(emulator, offer) == "running"


@pytest.mark.parametrize("offer", ["failing", "failing-classic"])
def test_failed_go_live_in_an_outdated_list_is_not_adopted(
    emulator: Emulator, context: Context, offer: str
) -> None:
    go_live(offer).execute(context)
    eventually(lambda: state_of(emulator, offer) == "failed")
    freeze_list(emulator, listed(offer).replace('"failed"', '"running"'), count=1)
    go_live(offer).execute(context)
    assert statuses(emulator) == [202, 202]
    assert states(emulator, offer)[1] == "failed"


# --- a cleared Dag run ---


@quick
@pytest.mark.parametrize("name", ["run_after", "data_interval_end"])
def test_cleared_run_adopts_its_success(emulator: Emulator, context: Context, offer: str, name: str) -> None:
    first = go_live(offer).execute(context)
    eventually(lambda: state_of(emulator, offer) == "completed")
    now = datetime.now(UTC)
    context["dag_run"] = SimpleNamespace(
        **{name: now - timedelta(minutes=1)}, start_date=now + timedelta(minutes=1)
    )
    assert go_live(offer).execute(context) == first
    assert statuses(emulator) == [202]


@quick
def test_cleared_run_does_not_adopt_a_success_before_it_was_due(
    emulator: Emulator, context: Context, offer: str
) -> None:
    go_live(offer).execute(context)
    eventually(lambda: state_of(emulator, offer) == "completed")
    later = datetime.now(UTC) + timedelta(minutes=1)
    context["dag_run"] = SimpleNamespace(run_after=later, start_date=later)
    with pytest.raises(ValidationError, match="live already"):
        go_live(offer).execute(context)
    assert statuses(emulator) == [202, 400]


# --- an outdated list shows the publish that awaited the signoff ---


@slow
@pytest.mark.parametrize("lookups", [1, 2, 5])
def test_go_live_of_a_killed_worker_is_found_in_an_outdated_list(
    emulator: Emulator, context: Context, offer: str, lookups: int, log: Log
) -> None:
    outdated = listed(offer)
    started = CloudPartnerHook().go_live(offer)
    freeze_list(emulator, outdated, count=lookups)
    assert go_live(offer).execute(context) == started
    if offer == "slow":
        # The publish of a migrated offer has ended, so an outdated list looks like a current one. The service
        # refuses the second request.
        assert statuses(emulator) == [202, 409]
    else:
        assert statuses(emulator) == [202]
        assert log.containing("the list of operations is out of date; reading it again")


@slow
def test_lost_response_is_found_in_an_outdated_list(emulator: Emulator, context: Context, offer: str) -> None:
    emulator.inject(path="golive$", close="after")
    freeze_list(emulator, listed(offer), count=1 + 3)
    location = go_live(offer).execute(context)
    assert location == location_of(emulator, offer)
    assert statuses(emulator) == [None]


@slow
def test_conflict_is_resolved_after_a_long_outdated_list(
    emulator: Emulator, context: Context, offer: str
) -> None:
    emulator.inject(path="golive$", close="after")
    freeze_list(emulator, listed(offer), count=1 + 5 + 7)
    location = go_live(offer).execute(context)
    assert location == location_of(emulator, offer)
    assert statuses(emulator) == [None, 409]


# --- an offer that was not migrated: its second go-live reuses the Location of the first ---


def cancel_first_go_live(emulator: Emulator, context: Context, offer: str) -> str:
    location = go_live(offer).execute(context)
    CloudPartnerHook().cancel(offer)
    eventually(lambda: state_of(emulator, offer) == "canceled")
    return str(location)


def fail_first_go_live(emulator: Emulator, context: Context, offer: str) -> str:
    location = go_live(offer).execute(context)
    eventually(lambda: state_of(emulator, offer) == "failed")
    return str(location)


def show_first_go_live(emulator: Emulator, location: str, count: int) -> None:
    """Let the next reads of an operation return its current state."""
    old = json.dumps(CloudPartnerHook().get_operation(location).raw)
    emulator.inject(path=re.escape(location.partition("?")[0]), count=count, status=200, body=old)


@pytest.mark.parametrize("reads", [1, 5])
@pytest.mark.parametrize("deferrable", [True, False])
def test_earlier_failure_does_not_end_the_wait(
    emulator: Emulator, context: Context, deferrable: bool, reads: int
) -> None:
    first = fail_first_go_live(emulator, context, "failing-classic")
    show_first_go_live(emulator, first, reads)
    task = go_live("failing-classic", wait_for_completion=True, deferrable=deferrable)
    assert finish(task, context) == first
    assert emulator.faults() == []
    assert statuses(emulator) == [202, 202]
    assert state_of(emulator, "failing-classic") == "completed"


def test_earlier_failure_does_not_end_the_wait_of_a_sensor(emulator: Emulator, context: Context) -> None:
    first = fail_first_go_live(emulator, context, "failing-classic")
    show_first_go_live(emulator, first, 3)
    location = go_live("failing-classic").execute(context)
    assert location == first
    sensor = OperationSensor(task_id="wait", operation_location=location, poke_interval=0.01, max_wait=0.05)
    assert finish(sensor, context)["status"] == "succeeded"
    assert statuses(emulator) == [202, 202]


def test_earlier_cancel_does_not_end_the_wait(emulator: Emulator, context: Context) -> None:
    first = cancel_first_go_live(emulator, context, "slow-classic")
    show_first_go_live(emulator, first, 3)
    deferral(go_live("slow-classic", wait_for_completion=True), context)
    assert context["ti"].xcoms["return_value"] == first
    assert statuses(emulator) == [202, 202]
    assert state_of(emulator, "slow-classic") == "running"


def test_earlier_cancel_does_not_end_the_wait_of_a_sensor(emulator: Emulator, context: Context) -> None:
    first = cancel_first_go_live(emulator, context, "slow-classic")
    show_first_go_live(emulator, first, 3)
    location = go_live("slow-classic").execute(context)
    assert location == first
    deferral(OperationSensor(task_id="wait", operation_location=location), context)
