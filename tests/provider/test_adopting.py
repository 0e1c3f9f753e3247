"""Which go-live `GoLiveOperator` takes for its own while the service's answers lag behind or differ."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from harness import Connect, Log, deferral, eventually, finish, operations, state_of
from relay import running_relay

from airflow_provider_cpp.exceptions import ConflictError, ValidationError
from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
from airflow_provider_cpp.operators.cloud_partner import GoLiveOperator
from airflow_provider_cpp.sensors.cloud_partner import OperationSensor
from dev.emulator_process import Emulator, running_emulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from relay import Sent

Context = dict[str, Any]

SUBMISSIONS = "submissions/$"
classic_too = pytest.mark.parametrize("offer", ["slow", "slow-classic"])
quick_and_classic = pytest.mark.parametrize("offer", ["quick", "quick-classic"])


def go_live(offer: str, **arguments: Any) -> GoLiveOperator:
    """The task; it does not rest between two tries."""
    return GoLiveOperator(
        task_id="go_live", offer_id=offer, **{"poke_interval": 0.01, "max_wait": 0.05, **arguments}
    )


def outcomes(emulator: Emulator) -> list[int | None]:
    """How the requests to go live were answered."""
    return [post["status"] for post in emulator.requests(method="POST", path="/golive$")]


def listed(offer: str) -> str:
    """The list of an offer's operations, as it is now."""
    return json.dumps([submission.raw for submission in CloudPartnerHook().list_operations(offer)])


def lag(emulator: Emulator, stale: str, count: int) -> None:
    """Let the list be as it was, for so many looks."""
    emulator.inject(path=SUBMISSIONS, count=count, replace={"body": stale})


# --- what is being canceled ---


@pytest.fixture(scope="module")
def slow_emulator(seed_file: str) -> Iterator[Emulator]:
    """Here a cancel shows after two seconds."""
    with running_emulator("--seed", seed_file, "--time-scale", "60") as emulator:
        yield emulator


@classic_too
def test_one_that_is_being_canceled_is_waited_for_and_not_adopted(
    slow_emulator: Emulator, connect: Connect, context: Context, offer: str, log: Log
) -> None:
    slow_emulator.reset()
    connect(slow_emulator)
    first = go_live(offer).execute(context)
    assert CloudPartnerHook().cancel(offer)
    assert state_of(slow_emulator, offer) == "running"
    second = go_live(offer).execute(context)
    assert log.containing("is being canceled")
    assert outcomes(slow_emulator) == [202, 202]
    assert [one["submissionState"] for one in operations(slow_emulator, offer)] == ["running", "canceled"]
    assert (second == first) == offer.endswith("classic")  # where it is repeated at the same Location
    assert CloudPartnerHook().get_operation(second).status == "running"


@classic_too
def test_one_whose_cancel_does_not_end_is_a_conflict(
    emulator: Emulator, context: Context, offer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = go_live(offer).execute(context)
    canceling = CloudPartnerHook().get_operation(location).raw | {"cancellationRequestState": "canceling"}
    path = re.escape(location.partition("?")[0])
    emulator.inject(path=path, count=1000, replace={"body": json.dumps(canceling)})
    monkeypatch.setattr("airflow_provider_cpp.release.submission.CANCELING_DELAYS", (0.01,) * 3)
    with pytest.raises(ConflictError, match="goLive runs on it"):
        go_live(offer).execute(context)
    assert outcomes(emulator) == [202]


# --- what has ended, while the list says that it runs ---


@classic_too
def test_one_that_was_canceled_is_not_adopted_though_the_list_lags_behind(
    emulator: Emulator, context: Context, offer: str
) -> None:
    first = go_live(offer).execute(context)
    stale = listed(offer)
    CloudPartnerHook().cancel(offer)
    eventually(lambda: state_of(emulator, offer) == "canceled")
    lag(emulator, stale, 1)
    second = go_live(offer).execute(context)
    assert outcomes(emulator) == [202, 202]
    assert (second == first) == offer.endswith("classic")
    assert state_of(emulator, offer) == "running"


@pytest.mark.parametrize("offer", ["failing", "failing-classic"])
def test_one_that_failed_is_not_adopted_though_the_list_lags_behind(
    emulator: Emulator, context: Context, offer: str
) -> None:
    go_live(offer).execute(context)
    eventually(lambda: state_of(emulator, offer) == "failed")
    lag(emulator, listed(offer).replace('"failed"', '"running"'), 1)
    go_live(offer).execute(context)
    assert outcomes(emulator) == [202, 202]
    assert [one["submissionState"] for one in operations(emulator, offer)][1] == "failed"


# --- a run that was cleared ---


@quick_and_classic
@pytest.mark.parametrize("name", ["run_after", "data_interval_end"])
def test_a_run_that_was_cleared_knows_its_own_success(
    emulator: Emulator, context: Context, offer: str, name: str
) -> None:
    first = go_live(offer).execute(context)
    eventually(lambda: state_of(emulator, offer) == "completed")
    now = datetime.now(UTC)
    context["dag_run"] = SimpleNamespace(
        **{name: now - timedelta(minutes=1)}, start_date=now + timedelta(minutes=1)
    )
    assert go_live(offer).execute(context) == first
    assert outcomes(emulator) == [202]


@quick_and_classic
def test_a_success_before_a_run_that_was_due_later_is_not_its_own(
    emulator: Emulator, context: Context, offer: str
) -> None:
    go_live(offer).execute(context)
    eventually(lambda: state_of(emulator, offer) == "completed")
    later = datetime.now(UTC) + timedelta(minutes=1)
    context["dag_run"] = SimpleNamespace(run_after=later, start_date=later)
    with pytest.raises(ValidationError, match="live already"):
        go_live(offer).execute(context)
    assert outcomes(emulator) == [202, 400]


# --- a list that shows what was before the go-live: the publish that awaits the signoff ---


@classic_too
@pytest.mark.parametrize("looks", [1, 2, 5])
def test_what_a_killed_worker_began_is_adopted_though_the_list_lags_behind(
    emulator: Emulator, context: Context, offer: str, looks: int, log: Log
) -> None:
    stale = listed(offer)
    begun = CloudPartnerHook().go_live(offer)
    lag(emulator, stale, looks)
    assert go_live(offer).execute(context) == begun
    if offer == "slow":
        # The publish of a migrated offer has ended, so a stale list looks like a current one.
        assert outcomes(emulator) == [202, 409]
    else:
        assert outcomes(emulator) == [202]
        assert log.containing("lags behind")


@classic_too
def test_an_answer_that_was_lost_is_found_though_the_list_lags_behind(
    emulator: Emulator, context: Context, offer: str
) -> None:
    emulator.inject(path="golive$", close="after")
    lag(emulator, listed(offer), 1 + 3)
    location = go_live(offer).execute(context)
    assert location == operations(emulator, offer)[0]["location"]
    assert outcomes(emulator) == [None]


@classic_too
def test_a_conflict_is_resolved_though_the_list_lags_too_long(
    emulator: Emulator, context: Context, offer: str
) -> None:
    emulator.inject(path="golive$", close="after")
    lag(emulator, listed(offer), 1 + 5 + 5 + 3)
    location = go_live(offer).execute(context)
    assert location == operations(emulator, offer)[0]["location"]
    assert outcomes(emulator) == [None, 409]


@classic_too
def test_what_somebody_else_began_is_adopted_though_the_list_lags_behind(
    emulator: Emulator, connect: Connect, context: Context, tmp_path: Path, offer: str
) -> None:
    stale = listed(offer)
    with running_relay(emulator, tmp_path) as relay:
        connect(emulator, host=relay.url, extra={"verify": relay.verify})
        other: list[str] = []

        def overtake(sent: Sent) -> None:
            if sent.method == "POST" and not other:
                connect(emulator)
                other.append(CloudPartnerHook().go_live(offer))
                lag(emulator, stale, 3)

        relay.before = overtake
        location = go_live(offer).execute(context)
    assert [location] == other
    assert outcomes(emulator) == [202, 409]


# --- an offer that was not migrated: its second go-live is at the Location of the first ---


def canceled_before(emulator: Emulator, context: Context, offer: str) -> str:
    location = go_live(offer).execute(context)
    CloudPartnerHook().cancel(offer)
    eventually(lambda: state_of(emulator, offer) == "canceled")
    return str(location)


def failed_before(emulator: Emulator, context: Context, offer: str) -> str:
    location = go_live(offer).execute(context)
    eventually(lambda: state_of(emulator, offer) == "failed")
    return str(location)


def show_the_old_one(emulator: Emulator, location: str, count: int) -> None:
    """Let the next polls of an operation be answered as now."""
    old = json.dumps(CloudPartnerHook().get_operation(location).raw)
    emulator.inject(path=re.escape(location.partition("?")[0]), count=count, status=200, body=old)


@pytest.mark.parametrize("looks", [1, 5])
@pytest.mark.parametrize("deferrable", [True, False])
def test_the_failure_of_the_one_before_does_not_end_the_wait(
    emulator: Emulator, context: Context, deferrable: bool, looks: int
) -> None:
    first = failed_before(emulator, context, "failing-classic")
    show_the_old_one(emulator, first, looks)
    task = go_live("failing-classic", wait_for_completion=True, deferrable=deferrable)
    assert finish(task, context) == first
    assert emulator.faults() == []
    assert outcomes(emulator) == [202, 202]
    assert state_of(emulator, "failing-classic") == "completed"


def test_the_failure_of_the_one_before_does_not_end_the_wait_of_a_sensor(
    emulator: Emulator, context: Context
) -> None:
    first = failed_before(emulator, context, "failing-classic")
    show_the_old_one(emulator, first, 3)
    location = go_live("failing-classic").execute(context)
    assert location == first
    sensor = OperationSensor(task_id="wait", operation_location=location, poke_interval=0.01, max_wait=0.05)
    assert finish(sensor, context)["status"] == "succeeded"
    assert outcomes(emulator) == [202, 202]


def test_the_cancel_of_the_one_before_does_not_end_the_wait(emulator: Emulator, context: Context) -> None:
    first = canceled_before(emulator, context, "slow-classic")
    show_the_old_one(emulator, first, 3)
    deferral(go_live("slow-classic", wait_for_completion=True), context)
    assert context["ti"].xcoms == {"return_value": first}
    assert outcomes(emulator) == [202, 202]
    assert state_of(emulator, "slow-classic") == "running"


def test_the_cancel_of_the_one_before_does_not_end_the_wait_of_a_sensor(
    emulator: Emulator, context: Context
) -> None:
    first = canceled_before(emulator, context, "slow-classic")
    show_the_old_one(emulator, first, 3)
    location = go_live("slow-classic").execute(context)
    assert location == first
    deferral(OperationSensor(task_id="wait", operation_location=location), context)
