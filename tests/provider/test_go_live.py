"""`GoLiveOperator`: which go-lives it adopts, `if_live`, `version`, and the wait for the completion."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException, AirflowTaskTimeout
from harness import Connect, Log, clear_faults, deferral, event_of, eventually, finish, resume, state_of
from submitting import (
    adopt_or_fail,
    deferred_or_not,
    effects,
    location_of,
    migrated_or_not,
    operator,
    posts,
    statuses,
)

from airflow_provider_cpp.exceptions import ConflictError, NotFoundError, ValidationError
from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook

if TYPE_CHECKING:
    from airflow_provider_cpp.operators.cloud_partner import GoLiveOperator
    from dev.emulator_process import Emulator

Context = dict[str, Any]
slow = pytest.mark.parametrize("offer", ["slow", "slow-classic"])
quick = pytest.mark.parametrize("offer", ["quick", "quick-classic"])


def go_live(offer: str = "slow", **arguments: Any) -> GoLiveOperator:
    task: GoLiveOperator = operator("golive", offer, **arguments)
    return task


def complete(emulator: Emulator, offer: str) -> None:
    eventually(lambda: state_of(emulator, offer) == "completed")


def start_later(context: Context) -> None:
    """Let the Dag run start after all operations so far."""
    context["dag_run"].start_date = datetime.now(UTC) + timedelta(minutes=1)


def test_publisher_of_the_task_overrides_the_connection(emulator: Emulator, context: Context) -> None:
    location = go_live(publisher_id="fabrikam").execute(context)
    assert location.startswith("/api/publishers/fabrikam/offers/slow/operations/")


# --- existing operations ---


def test_running_go_live_is_a_conflict_with_if_running_fail(emulator: Emulator, context: Context) -> None:
    with pytest.raises(ConflictError, match=r"goLive runs on it .*since 20\d\d-"):
        go_live("going-live", if_running="fail").execute(context)
    assert posts(emulator) == []


@adopt_or_fail
def test_running_publish_is_a_conflict_with_its_start_time(
    emulator: Emulator, context: Context, if_running: str
) -> None:
    with pytest.raises(ConflictError, match=r"contoso/publishing .*publish runs on it .*since 20\d\d-"):
        go_live("publishing", if_running=if_running).execute(context)
    assert posts(emulator) == []


def test_publish_that_awaits_the_signoff_is_no_conflict(emulator: Emulator, context: Context) -> None:
    assert CloudPartnerHook().get_offer_status("slow").awaiting_publisher
    go_live(if_running="fail").execute(context)
    assert effects(emulator) == 1


def test_failed_go_live_is_not_adopted(emulator: Emulator, context: Context) -> None:
    first = go_live("failing").execute(context)
    eventually(lambda: state_of(emulator, "failing") == "failed")
    assert go_live("failing").execute(context) != first
    assert effects(emulator) == 2


@slow
def test_canceled_go_live_is_not_adopted(emulator: Emulator, context: Context, offer: str) -> None:
    go_live(offer).execute(context)
    CloudPartnerHook().cancel(offer)
    eventually(lambda: state_of(emulator, offer) == "canceled")
    go_live(offer).execute(context)
    assert effects(emulator) == 2
    assert state_of(emulator, offer) == "running"


@quick
@adopt_or_fail
def test_success_since_the_dag_run_started_is_adopted(
    emulator: Emulator, context: Context, offer: str, if_running: str
) -> None:
    first = go_live(offer).execute(context)
    complete(emulator, offer)
    assert go_live(offer, if_running=if_running).execute(context) == first
    assert len(posts(emulator)) == 1


@quick
@adopt_or_fail
def test_success_before_the_dag_run_started_is_not_adopted(
    emulator: Emulator, context: Context, offer: str, if_running: str
) -> None:
    start_later(context)
    go_live(offer).execute(context)
    complete(emulator, offer)
    with pytest.raises(ValidationError, match="live already"):
        go_live(offer, if_running=if_running).execute(context)
    assert statuses(emulator) == [202, 400]


def test_success_is_not_adopted_if_the_preview_is_newer(emulator: Emulator, context: Context) -> None:
    first = go_live("quick").execute(context)
    complete(emulator, "quick")
    hook = CloudPartnerHook()
    hook.publish("quick")
    eventually(lambda: hook.get_offer("quick", slot="preview").version == 3)
    assert go_live("quick").execute(context) != first
    assert effects(emulator) == 2


# --- if_live ---


@pytest.mark.parametrize("offer", ["live", "live-classic"])
def test_live_version_is_skipped_with_if_live_skip(emulator: Emulator, context: Context, offer: str) -> None:
    start_later(context)
    with pytest.raises(AirflowSkipException, match=f"contoso/{offer}: production has the preview's version"):
        go_live(offer, if_live="skip").execute(context)
    assert posts(emulator) == []


def test_live_version_is_a_success_with_if_live_succeed(emulator: Emulator, context: Context) -> None:
    start_later(context)
    assert go_live("live", if_live="succeed", wait_for_completion=True).execute(context) is None
    assert posts(emulator) == []


def test_live_version_is_submitted_by_default(emulator: Emulator, context: Context) -> None:
    start_later(context)
    with pytest.raises(ValidationError, match="live already"):
        go_live("live").execute(context)
    assert len(posts(emulator)) == 1


@pytest.mark.parametrize("offer", ["slow", "update"])
@pytest.mark.parametrize("if_live", ["skip", "succeed"])
def test_new_version_is_submitted_with_if_live(
    emulator: Emulator, context: Context, offer: str, if_live: str
) -> None:
    assert go_live(offer, if_live=if_live).execute(context)
    assert effects(emulator) == 1


# --- version ---


@slow
@pytest.mark.parametrize("version", [2, "2"])
def test_version_in_preview_goes_live(
    emulator: Emulator, context: Context, offer: str, version: int | str
) -> None:
    assert go_live(offer, version=version).execute(context) == location_of(emulator, offer)


@slow
@pytest.mark.parametrize("version", [1, 3, "3"])
def test_version_that_is_not_in_preview_does_not_go_live(
    emulator: Emulator, context: Context, offer: str, version: int | str
) -> None:
    reason = rf"contoso/{offer} .*version {version} was to go live, but version 2 is in preview"
    with pytest.raises(ConflictError, match=reason):
        go_live(offer, version=version).execute(context)
    assert emulator.requests(method="POST", path="^/api/") == []


@migrated_or_not
@pytest.mark.parametrize("fault", [{"status": 404}, {"replace": {"body": "{}"}}], ids=["empty", "no version"])
def test_running_go_live_of_an_unknown_version_is_not_adopted(
    emulator: Emulator, context: Context, kind: str, fault: dict[str, Any]
) -> None:
    emulator.inject(path="slot/preview$", **fault)
    with pytest.raises(ConflictError, match="the preview slot shows no version"):
        go_live(f"going-live{kind}", version=2).execute(context)
    assert go_live(f"going-live{kind}", version=2).execute(context) == location_of(
        emulator, f"going-live{kind}"
    )
    assert posts(emulator) == []


def test_version_check_survives_an_outage(emulator: Emulator, context: Context) -> None:
    emulator.inject(path="slot/preview$", status=503, count=2)
    assert go_live(version=2).execute(context)


def test_live_version_counts_although_another_is_in_preview(emulator: Emulator, context: Context) -> None:
    start_later(context)
    assert go_live("update", version=3, if_live="succeed").execute(context) is None
    with pytest.raises(AirflowSkipException, match="production has version 3 already"):
        go_live("update", version="3", if_live="skip").execute(context)
    assert posts(emulator) == []


@pytest.mark.parametrize("version", ["", "latest", "None", True, 0, "1.5", -1])
def test_invalid_version_is_rejected(emulator: Emulator, context: Context, version: Any) -> None:
    with pytest.raises(ValueError, match=r"version must (be a whole number|not be empty)"):
        go_live(version=version).execute(context)
    assert posts(emulator) == []


@migrated_or_not
def test_offer_without_preview_is_rejected_with_the_cure(
    emulator: Emulator, context: Context, kind: str
) -> None:
    with pytest.raises(ValidationError, match=rf"contoso/next{kind} .*Publish the offer first"):
        go_live(f"next{kind}").execute(context)


@pytest.mark.parametrize("offer", ["next", "nowhere"])
def test_empty_preview_is_not_reported_as_another_version(
    emulator: Emulator, context: Context, offer: str
) -> None:
    with pytest.raises(NotFoundError, match=f"contoso/{offer}") as raised:
        go_live(offer, version=2).execute(context)
    assert "version None" not in str(raised.value)


# --- arguments ---


@pytest.mark.parametrize(
    "wrong",
    [
        {"if_running": "retry"},
        {"if_live": "fail"},
        {"poke_interval": -1},
        {"max_wait": "long"},
        {"timeout": float("nan")},
        {"timeout": True},
    ],
    ids=str,
)
def test_invalid_argument_is_rejected_by_the_constructor(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        go_live(**wrong)


def test_ids_and_connection_are_templated_and_name_the_instance() -> None:
    task = go_live("web", publisher_id="contoso")
    assert set(task.template_fields) == {"cloud_partner_conn_id", "offer_id", "publisher_id", "version"}
    assert task.map_index_template == "{{ task.subject }}"
    assert task.subject == "contoso/web"


# --- wait ---


@deferred_or_not
@quick
def test_wait_ends_with_the_completion(
    emulator: Emulator, context: Context, offer: str, deferrable: bool
) -> None:
    location = finish(go_live(offer, wait_for_completion=True, deferrable=deferrable), context)
    assert location == location_of(emulator, offer)
    assert state_of(emulator, offer) == "completed"
    assert len(posts(emulator)) == 1


def test_kill_before_the_wait_cancels_nothing(emulator: Emulator, context: Context) -> None:
    task = go_live(cancel_on_kill=True)
    task.on_kill()
    task.execute(context)
    task.on_kill()
    assert emulator.requests(path="/cancel$") == []


TIMED_OUT = {"wait_for_completion": True, "cancel_on_kill": True, "execution_timeout": timedelta(seconds=0.5)}


@pytest.mark.parametrize("problem", ["refused", "invalid connection", "missing connection"])
def test_failed_cancel_does_not_hide_the_timeout(
    emulator: Emulator,
    connect: Connect,
    context: Context,
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
    problem: str,
) -> None:
    task = go_live(**TIMED_OUT)
    event = event_of(deferral(task, context))
    if problem == "refused":
        emulator.inject(path="/cancel$", status=403)
    elif problem == "invalid connection":
        connect(emulator, extra={"timeout": "soon"})
    else:
        monkeypatch.delenv("AIRFLOW_CONN_CLOUD_PARTNER_DEFAULT")
    with pytest.raises(AirflowTaskTimeout):
        task.execute_complete(context, event)
    assert log.containing("could not cancel operation")


def test_new_worker_cancels_the_operation_of_the_event(emulator: Emulator, context: Context) -> None:
    deferred = deferral(go_live(**TIMED_OUT), context)
    with pytest.raises(AirflowTaskTimeout):
        resume(go_live(publisher_id="contoso", **TIMED_OUT), context, deferred)
    assert eventually(lambda: state_of(emulator, "slow") == "canceled")


def test_operation_that_could_not_be_read_is_canceled(emulator: Emulator, context: Context) -> None:
    deferred = deferral(go_live(**TIMED_OUT), context)
    emulator.inject(path="/operations/", status=500, count=1000)
    event = event_of(deferred)
    clear_faults(emulator)
    with pytest.raises(AirflowTaskTimeout):
        go_live(**TIMED_OUT).execute_complete(context, event)
    assert len(posts(emulator, "cancel")) == 1
