"""A retry finds the operation of an earlier attempt through Airflow's task state store."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from harness import Log, clear_faults, eventually, revise, state_of
from submitting import (
    SUBMISSIONS,
    KilledError,
    adopt_or_fail,
    each_slow,
    freeze_list,
    listed,
    location_of,
    migrated_or_not,
    operator,
    states,
    statuses,
)

from airflow_provider_cpp import version_compat
from airflow_provider_cpp.exceptions import CloudPartnerError, ConflictError, ValidationError
from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook

if TYPE_CHECKING:
    from dev.emulator_process import Emulator

Context = dict[str, Any]


class Store:
    """A task state store that can be out of order."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.is_broken = False

    def get(self, key: str, default: Any = None) -> Any:
        self._check()
        return json.loads(self.values[key]) if key in self.values else default

    def set(self, key: str, value: Any) -> None:
        self._check()
        self.values[key] = json.dumps(value)

    def delete(self, key: str) -> None:
        self._check()
        self.values.pop(key, None)

    def _check(self) -> None:
        if self.is_broken:
            raise RuntimeError("API_SERVER_ERROR")


@pytest.fixture(autouse=True)
def store(context: Context, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store of the task, on each Airflow version."""
    monkeypatch.setattr(version_compat, "HAS_TASK_STATE_STORE", True)
    context["task_state_store"] = Store()
    context["ti"].try_number, context["ti"].max_tries = 1, 2
    return context["task_state_store"]  # type: ignore[no-any-return]


def kill_in(monkeypatch: pytest.MonkeyPatch, verb: str, *, after: bool) -> None:
    """Kill the attempt before or after its next request reaches the service."""
    name = {"golive": "go_live"}.get(verb, verb)
    send = getattr(CloudPartnerHook, name)

    def killed(*arguments: Any, **options: Any) -> None:
        monkeypatch.setattr(CloudPartnerHook, name, send)
        if after:
            send(*arguments, **options)
        raise KilledError

    monkeypatch.setattr(CloudPartnerHook, name, killed)


def clear(context: Context) -> None:
    """Do what Airflow does to a task instance that a user clears."""
    ti = context["ti"]
    ti.try_number, ti.max_tries = ti.try_number + 1, ti.try_number + 2


# --- the record has a Location ---


@each_slow
@adopt_or_fail
def test_retry_adopts_recorded_operation_without_the_list(
    emulator: Emulator, context: Context, verb: str, offer: str, if_running: str, log: Log
) -> None:
    location = operator(verb, offer).execute(context)
    freeze_list(emulator)
    assert operator(verb, offer, if_running=if_running).execute(context) == location
    assert statuses(emulator, verb) == [202]
    assert log.containing(f"contoso/{offer}: an earlier attempt started the")


def test_other_clients_go_live_is_a_conflict_with_if_running_fail(
    emulator: Emulator, context: Context
) -> None:
    with pytest.raises(ConflictError, match="goLive runs on it"):
        operator("golive", "going-live", if_running="fail").execute(context)
    assert context["task_state_store"].values == {}


@migrated_or_not
@pytest.mark.parametrize("newer_preview", [False, True])
def test_retry_adopts_recorded_success_in_spite_of_clocks(
    emulator: Emulator, context: Context, kind: str, newer_preview: bool
) -> None:
    location = operator("golive", f"quick{kind}").execute(context)
    eventually(lambda: state_of(emulator, f"quick{kind}") == "completed")
    context["dag_run"] = SimpleNamespace(start_date=datetime.now(UTC) + timedelta(days=1))
    if newer_preview:
        publish_newer_version(f"quick{kind}")
    assert operator("golive", f"quick{kind}").execute(context) == location
    assert statuses(emulator) == [202]


@migrated_or_not
@pytest.mark.parametrize("newer_preview", [False, True])
def test_cleared_task_repeats_a_success_only_for_a_newer_preview(
    emulator: Emulator, context: Context, kind: str, newer_preview: bool
) -> None:
    operator("golive", f"quick{kind}").execute(context)
    eventually(lambda: state_of(emulator, f"quick{kind}") == "completed")
    if newer_preview:
        publish_newer_version(f"quick{kind}")
    clear(context)
    location = operator("golive", f"quick{kind}").execute(context)
    assert location == location_of(emulator, f"quick{kind}")
    assert statuses(emulator) == [202] * (1 + newer_preview)


def publish_newer_version(offer: str) -> None:
    hook = CloudPartnerHook()
    revise(offer)
    hook.publish(offer)
    version = hook.get_offer(offer, slot="production").version
    eventually(
        lambda: (
            hook.get_offer_status(offer).awaiting_publisher
            or hook.get_offer(offer, slot="preview").version != version
        )
    )


@migrated_or_not
@pytest.mark.parametrize("end", ["failed", "canceled"])
@pytest.mark.parametrize("cleared", [False, True])
def test_recorded_operation_without_success_is_started_again(
    emulator: Emulator, context: Context, kind: str, end: str, cleared: bool
) -> None:
    offer = {"failed": "failing", "canceled": "slow"}[end] + kind
    operator("golive", offer).execute(context)
    if end == "canceled":
        CloudPartnerHook().cancel(offer)
    eventually(lambda: state_of(emulator, offer) == end)
    if cleared:
        clear(context)
    location = operator("golive", offer).execute(context)
    assert location == location_of(emulator, offer)
    assert (states(emulator, offer)[1], statuses(emulator)) == (end, [202, 202])


@migrated_or_not
def test_recorded_failure_is_not_taken_for_the_lost_request(
    emulator: Emulator, context: Context, kind: str
) -> None:
    offer = f"failing{kind}"
    operator("golive", offer).execute(context)
    eventually(lambda: state_of(emulator, offer) == "failed")
    freeze_list(emulator, count=2)
    emulator.inject(path="golive$", status=500)
    assert operator("golive", offer).execute(context) == location_of(emulator, offer)
    assert statuses(emulator) == [202, 500, 202]


LOST = "/api/publishers/contoso/offers/slow/operations/1?api-version=2017-10-31"


def test_retry_does_not_repeat_an_operation_that_the_service_lost(
    emulator: Emulator, context: Context, store: Store
) -> None:
    store.set("cloud_partner_operation", {"location": LOST, "generation": 2})
    reason = rf"contoso/slow: the service accepted the go-live {re.escape(LOST)}, but answers 404 Not Found"
    with pytest.raises(CloudPartnerError, match=reason):
        operator("golive", "slow").execute(context)
    assert statuses(emulator) == []
    assert store.get("cloud_partner_operation")["location"] == LOST


def test_recorded_operation_that_the_service_lost_is_started_again(
    emulator: Emulator, context: Context, store: Store, log: Log
) -> None:
    store.set("cloud_partner_operation", {"location": LOST, "generation": 2})
    clear(context)
    assert operator("golive", "slow").execute(context) == location_of(emulator, "slow")
    assert log.containing(f"the service does not show {LOST}")


# --- the record has no Location: it is unknown whether the request was sent ---


@each_slow
def test_request_of_killed_attempt_is_found_in_an_outdated_list(
    emulator: Emulator, context: Context, monkeypatch: pytest.MonkeyPatch, verb: str, offer: str, log: Log
) -> None:
    outdated = listed(offer)
    kill_in(monkeypatch, verb, after=True)
    with pytest.raises(KilledError):
        operator(verb, offer).execute(context)
    freeze_list(emulator, outdated, count=6)
    assert operator(verb, offer).execute(context) == location_of(emulator, offer, verb)
    assert statuses(emulator, verb) == [202]
    assert log.containing("of an earlier attempt; adopting it")


@each_slow
def test_request_that_a_killed_attempt_did_not_send_is_sent_later(
    emulator: Emulator, context: Context, monkeypatch: pytest.MonkeyPatch, verb: str, offer: str, log: Log
) -> None:
    kill_in(monkeypatch, verb, after=False)
    with pytest.raises(KilledError):
        operator(verb, offer).execute(context)
    assert operator(verb, offer).execute(context)
    assert statuses(emulator, verb) == [202]
    assert log.containing("found no")


def test_lost_request_that_failed_is_not_adopted(
    emulator: Emulator, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_in(monkeypatch, "golive", after=True)
    with pytest.raises(KilledError):
        operator("golive", "failing").execute(context)
    eventually(lambda: state_of(emulator, "failing") == "failed")
    operator("golive", "failing").execute(context)
    assert statuses(emulator) == [202, 202]


def test_old_success_is_not_adopted_for_a_lost_request(
    emulator: Emulator, context: Context, store: Store
) -> None:
    CloudPartnerHook().go_live("quick")
    eventually(lambda: state_of(emulator, "quick") == "completed")
    context["dag_run"] = SimpleNamespace(start_date=datetime.now(UTC) + timedelta(days=1))
    store.set("cloud_partner_operation", {"known_ids": [], "generation": 2})
    with pytest.raises(ValidationError, match="live already"):
        operator("golive", "quick").execute(context)


def test_unknown_outcome_stays_recorded_until_it_is_known(
    emulator: Emulator, context: Context, store: Store
) -> None:
    emulator.inject(path="golive$", close="after")
    emulator.inject(path=SUBMISSIONS, skip=1, count=100, status=500)
    with pytest.raises(CloudPartnerError, match="500"):
        operator("golive", "slow").execute(context)
    assert store.get("cloud_partner_operation")["state"] == "sending"
    clear_faults(emulator)
    location = operator("golive", "slow").execute(context)
    assert store.get("cloud_partner_operation")["location"] == location
    assert len(statuses(emulator)) == 1


@pytest.mark.parametrize("status", [400, 403, 404, 422])
def test_refused_request_leaves_no_record(
    emulator: Emulator, context: Context, store: Store, status: int
) -> None:
    emulator.inject(path="golive$", status=status)
    with pytest.raises(CloudPartnerError):
        operator("golive", "slow").execute(context)
    assert store.values == {}


# --- the store ---


@each_slow
def test_broken_store_does_not_fail_the_task(
    emulator: Emulator, context: Context, store: Store, verb: str, offer: str, log: Log
) -> None:
    store.is_broken = True
    location = operator(verb, offer).execute(context)
    assert operator(verb, offer).execute(context) == location
    assert statuses(emulator, verb) == [202]
    assert log.containing("Could not write to the task state store")


@pytest.mark.parametrize("record", ["text", 5, [], {}, {"location": 5}, {"known_ids": "all"}], ids=str)
def test_unreadable_record_does_not_fail_the_task(
    emulator: Emulator, context: Context, store: Store, record: Any
) -> None:
    store.set("cloud_partner_operation", record)
    assert operator("golive", "slow").execute(context)
    assert statuses(emulator) == [202]


def test_record_states_time_and_attempt(emulator: Emulator, context: Context, store: Store) -> None:
    location = operator("golive", "slow").execute(context)
    record = store.get("cloud_partner_operation")
    assert (record["location"], record["attempt"]) == (location, 1)
    assert datetime.fromisoformat(record["time"]) <= datetime.now(UTC)


def test_airflow_without_a_store_uses_the_list(
    emulator: Emulator, context: Context, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(version_compat, "HAS_TASK_STATE_STORE", False)
    operator("golive", "slow").execute(context)
    assert store.values == {}
