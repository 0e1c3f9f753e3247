"""Another client acts on an offer between two requests of a task; the start of a Dag run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException
from harness import eventually, revise, state_of
from submitting import effects, freeze_list, listed, location_of, operator, posts

from airflow_provider_cpp.exceptions import CloudPartnerError, ConflictError, OperationFailedError
from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
from airflow_provider_cpp.operators.base import run_started_at
from airflow_provider_cpp.operators.cloud_partner import UpdateOfferOperator
from airflow_provider_cpp.release.lookup import OfferOperations

if TYPE_CHECKING:
    from harness import Log

    from dev.emulator_process import Emulator

Context = dict[str, Any]
POSTPONED = {"status": 429, "headers": {"Retry-After": "1"}}


def publish_another(offer: str) -> None:
    """Withdraw the preview, and publish another draft."""
    hook = CloudPartnerHook()
    hook.cancel(offer)
    revise(offer)
    hook.publish(offer)
    eventually(lambda: OfferOperations(hook, "contoso", offer).find_offer(slot="preview"))


# --- between two requests ---


def test_version_that_left_the_preview_does_not_go_live_in_a_retry(
    emulator: Emulator, context: Context, log: Log
) -> None:
    version = CloudPartnerHook().get_offer("quick", slot="preview").version
    emulator.inject(method="POST", path="/golive$", **POSTPONED)
    log.react("retrying in", lambda: publish_another("quick"))
    with pytest.raises(ConflictError, match=f"version {version} was to go live, but version"):
        operator("golive", "quick", version=version).execute(context)
    assert effects(emulator) == 0


def test_canceled_go_live_in_an_outdated_list_is_not_the_lost_one(
    emulator: Emulator, context: Context
) -> None:
    hook = CloudPartnerHook()
    canceled = hook.go_live("slow")
    outdated = listed("slow")
    hook.cancel("slow")
    eventually(lambda: state_of(emulator, "slow") == "canceled")
    freeze_list(emulator, outdated, count=4)
    emulator.inject(method="POST", path="/golive$", close="before")
    assert operator("golive", "slow").execute(context) != canceled
    assert effects(emulator) == 2
    assert state_of(emulator, "slow") == "running"


def test_canceled_go_live_in_an_outdated_list_is_no_conflict(emulator: Emulator, context: Context) -> None:
    hook = CloudPartnerHook()
    hook.go_live("slow")
    outdated = listed("slow")
    hook.cancel("slow")
    eventually(lambda: state_of(emulator, "slow") == "canceled")
    freeze_list(emulator, outdated, count=1)
    operator("golive", "slow", if_running="fail").execute(context)
    assert effects(emulator) == 2


# --- cancel ---


def test_operation_started_during_a_postponed_cancel_keeps_running(
    emulator: Emulator, context: Context, log: Log
) -> None:
    hook = CloudPartnerHook()
    hook.go_live("brief")
    emulator.inject(method="POST", path="/cancel$", **POSTPONED)

    def publish_next() -> None:
        eventually(lambda: state_of(emulator, "brief") == "completed")
        revise("brief")
        hook.publish("brief")

    log.react("retrying in", publish_next)
    with pytest.raises(OperationFailedError, match="completed before it could be canceled"):
        operator("cancel", "brief").execute(context)
    assert effects(emulator, "cancel") == 0
    eventually(lambda: hook.get_offer("brief", slot="preview").version == 3)


def test_cancel_fails_if_the_running_operation_is_not_listed(emulator: Emulator, context: Context) -> None:
    freeze_list(emulator)
    with pytest.raises(CloudPartnerError, match="contoso/publishing was canceled: the offer is running"):
        operator("cancel", "publishing").execute(context)


# --- start of the Dag run ---


def test_start_of_a_run_is_its_due_time_only_after_a_clear() -> None:
    now = datetime.now(UTC)
    due = now - timedelta(days=60)
    run = SimpleNamespace(clear_number=0, start_date=now, run_after=due)
    assert run_started_at(run) == now
    run.clear_number = 1
    assert run_started_at(run) == due
    assert run_started_at(SimpleNamespace(data_interval_end=due, start_date=now)) == due


@pytest.mark.parametrize(("end", "logical_date"), [(0, -1), (-1, 0)], ids=["scheduled", "manual"])
def test_due_time_on_airflow_2_is_the_later_of_both_times(end: int, logical_date: int) -> None:
    now = datetime.now(UTC)
    run = SimpleNamespace(
        clear_number=1,
        start_date=now + timedelta(days=1),
        data_interval_end=now + timedelta(hours=end),
        logical_date=now + timedelta(hours=logical_date),
    )
    assert run_started_at(run) == now


@pytest.mark.parametrize(("cleared", "outcome"), [(0, "skipped"), (1, "adopted")])
def test_success_before_a_backfill_is_adopted_only_after_a_clear(
    emulator: Emulator, context: Context, cleared: int, outcome: str
) -> None:
    CloudPartnerHook().go_live("quick")
    eventually(lambda: state_of(emulator, "quick") == "completed")
    now = datetime.now(UTC)
    context["dag_run"] = SimpleNamespace(
        clear_number=cleared, start_date=now + timedelta(seconds=1), run_after=now - timedelta(days=60)
    )
    task = operator("golive", "quick", if_live="skip")
    if outcome == "skipped":
        with pytest.raises(AirflowSkipException):
            task.execute(context)
    else:
        assert task.execute(context) == location_of(emulator, "quick")
    assert len(posts(emulator)) == 1


# --- errors of a change ---


def returns_a_secret(offer: dict[str, Any]) -> Any:
    return {"storageAccountKey": "hunter2"}


@pytest.mark.parametrize(
    "change", ['{"storageAccountKey": "hunter2"}', returns_a_secret, {"definition": None, "key": "hunter2"}]
)
def test_error_does_not_contain_values_of_the_change(
    emulator: Emulator, context: Context, change: Any
) -> None:
    with pytest.raises(ValueError, match="definition") as refused:
        UpdateOfferOperator(task_id="change", offer_id="slow", definition=change).execute(context)
    assert "hunter2" not in str(refused.value)
    assert emulator.requests(method="PUT") == []
