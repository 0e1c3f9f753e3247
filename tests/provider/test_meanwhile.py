"""What somebody else does to an offer while a task looks, waits, or sends."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException
from harness import eventually, operations, revise, state_of

from airflow_provider_cpp.exceptions import (
    CloudPartnerError,
    ConflictError,
    OperationFailedError,
)
from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
from airflow_provider_cpp.operators.base import run_started_at
from airflow_provider_cpp.operators.cloud_partner import (
    CancelOperator,
    GoLiveOperator,
    PublishOperator,
    UpdateOfferOperator,
)

if TYPE_CHECKING:
    from harness import Log

    from dev.emulator_process import Emulator

Context = dict[str, Any]
IMPATIENT = {"status": 429, "headers": {"Retry-After": "1"}}


def accepted(emulator: Emulator, verb: str) -> int:
    return sum(post["effect"] for post in emulator.requests(method="POST", path=f"/{verb}$"))


def go_live(offer: str, **arguments: Any) -> GoLiveOperator:
    return GoLiveOperator(task_id="go_live", offer_id=offer, **arguments)


def publish_another(offer: str) -> None:
    """Withdraw what awaits the signoff, and publish something else."""
    hook = CloudPartnerHook()
    hook.cancel(offer)
    revise(offer)
    hook.publish(offer)
    eventually(lambda: hook.get_offer_status(offer).awaiting_publisher)


def list_once(emulator: Emulator, listed: list[dict[str, Any]], count: int = 1) -> None:
    emulator.inject(method="GET", path="/submissions/", count=count, replace={"body": json.dumps(listed)})


# --- the version that was approved ---


def test_a_version_that_is_no_longer_in_preview_does_not_go_live_after_a_wait(
    emulator: Emulator, context: Context, log: Log
) -> None:
    version = CloudPartnerHook().get_offer("quick", slot="preview").version
    emulator.inject(method="POST", path="/golive$", **IMPATIENT)
    log.react("Retrying", lambda: publish_another("quick"))
    with pytest.raises(ConflictError, match=f"version {version} was to go live, but version"):
        go_live("quick", version=version).execute(context)
    assert accepted(emulator, "golive") == 0


def test_a_version_that_is_live_is_live_though_another_is_in_preview(
    emulator: Emulator, context: Context
) -> None:
    context["dag_run"] = SimpleNamespace(start_date=datetime.now(UTC) + timedelta(seconds=1))
    assert go_live("update", version=3, if_live="succeed").execute(context) is None
    with pytest.raises(AirflowSkipException, match="production has version 3 already"):
        go_live("update", version="3", if_live="skip").execute(context)
    assert emulator.requests(method="POST", path="/golive$") == []


@pytest.mark.parametrize("version", ["", "latest", "None", True, 0, "1.5", -1])
def test_a_version_that_is_none_is_refused(emulator: Emulator, context: Context, version: Any) -> None:
    with pytest.raises(ValueError, match="version must be a whole number"):
        go_live("slow", version=version).execute(context)
    assert emulator.requests(method="POST", path="/golive$") == []


# --- a list that lags behind ---


def test_a_publish_that_the_list_did_not_show_is_not_adopted_if_it_is_of_another_draft(
    emulator: Emulator, context: Context
) -> None:
    revise("publishing")
    list_once(emulator, [])
    emulator.inject(method="POST", path="/publish$", close="before")
    with pytest.raises(ConflictError, match="began before the offer was last changed"):
        PublishOperator(task_id="publish", offer_id="publishing").execute(context)
    assert accepted(emulator, "publish") == 0


def test_a_canceled_go_live_that_is_still_listed_is_not_taken_for_one_whose_answer_was_lost(
    emulator: Emulator, context: Context
) -> None:
    hook = CloudPartnerHook()
    dead = hook.go_live("slow")
    listed = [submission.raw for submission in hook.list_operations("slow")]
    hook.cancel("slow")
    eventually(lambda: state_of(emulator, "slow") == "canceled")
    list_once(emulator, listed, count=4)
    emulator.inject(method="POST", path="/golive$", close="before")
    assert go_live("slow").execute(context) != dead
    assert accepted(emulator, "golive") == 2
    assert state_of(emulator, "slow") == "running"


def test_one_that_has_ended_is_no_conflict_though_the_list_has_it_running(
    emulator: Emulator, context: Context
) -> None:
    hook = CloudPartnerHook()
    hook.go_live("slow")
    listed = [submission.raw for submission in hook.list_operations("slow")]
    hook.cancel("slow")
    eventually(lambda: state_of(emulator, "slow") == "canceled")
    list_once(emulator, listed)
    go_live("slow", if_running="fail").execute(context)
    assert accepted(emulator, "golive") == 2


# --- cancel ---


def test_what_began_while_the_service_let_a_cancel_wait_is_not_canceled(
    emulator: Emulator, context: Context, log: Log
) -> None:
    hook = CloudPartnerHook()
    hook.go_live("brief")
    emulator.inject(method="POST", path="/cancel$", **IMPATIENT)

    def begin_another() -> None:
        eventually(lambda: state_of(emulator, "brief") == "completed")
        revise("brief")
        hook.publish("brief")

    log.react("Retrying", begin_another)
    with pytest.raises(OperationFailedError, match="completed before it could be canceled"):
        CancelOperator(task_id="cancel", offer_id="brief", poke_interval=0.01).execute(context)
    assert accepted(emulator, "cancel") == 0
    eventually(lambda: hook.get_offer_status("brief").awaiting_publisher)


def test_nothing_is_said_to_be_canceled_while_the_service_says_that_something_runs(
    emulator: Emulator, context: Context
) -> None:
    list_once(emulator, [], count=100)
    with pytest.raises(CloudPartnerError, match="contoso/publishing was canceled: the offer is running"):
        CancelOperator(task_id="cancel", offer_id="publishing").execute(context)


# --- since when ---


def test_a_run_that_was_not_cleared_began_when_it_started_however_long_it_was_due() -> None:
    now = datetime.now(UTC)
    long_ago = now - timedelta(days=60)
    run = SimpleNamespace(clear_number=0, start_date=now, run_after=long_ago)
    assert run_started_at(run) == now
    run.clear_number = 1
    assert run_started_at(run) == long_ago
    assert run_started_at(SimpleNamespace(data_interval_end=long_ago, start_date=now)) == long_ago


@pytest.mark.parametrize(("cleared", "outcome"), [(0, "skipped"), (1, "adopted")])
def test_what_went_live_before_a_backfill_began_is_none_of_its(
    emulator: Emulator, context: Context, cleared: int, outcome: str
) -> None:
    CloudPartnerHook().go_live("quick")
    eventually(lambda: state_of(emulator, "quick") == "completed")
    now = datetime.now(UTC)
    context["dag_run"] = SimpleNamespace(
        clear_number=cleared, start_date=now + timedelta(seconds=1), run_after=now - timedelta(days=60)
    )
    task = go_live("quick", if_live="skip")
    if outcome == "skipped":
        with pytest.raises(AirflowSkipException):
            task.execute(context)
    else:
        assert task.execute(context) == operations(emulator, "quick")[0]["location"]
    assert accepted(emulator, "golive") == 1


# --- what is said of a change that can't be made ---


def returns_a_secret(offer: dict[str, Any]) -> Any:
    return {"storageAccountKey": "hunter2"}


@pytest.mark.parametrize(
    "change", ['{"storageAccountKey": "hunter2"}', returns_a_secret, {"definition": None, "key": "hunter2"}]
)
def test_no_value_of_a_change_is_in_its_error(emulator: Emulator, context: Context, change: Any) -> None:
    with pytest.raises(ValueError, match="definition") as refused:
        UpdateOfferOperator(task_id="change", offer_id="slow", definition=change).execute(context)
    assert "hunter2" not in str(refused.value)
    assert emulator.requests(method="PUT") == []
