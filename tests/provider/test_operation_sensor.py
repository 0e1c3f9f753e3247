from __future__ import annotations

import json
import re
import time
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.exceptions import AirflowRescheduleException
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
)
from harness import TIME_SCALE, Connect, Log, answer_in_turn, deferral, eventually, finish, operations

from airflow_provider_cpp.core import polling
from airflow_provider_cpp.exceptions import (
    AuthenticationError,
    NotFoundError,
    OperationCanceledError,
    OperationFailedError,
    PermissionDeniedError,
)
from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
from airflow_provider_cpp.sensors.cloud_partner import OperationSensor
from dev.emulator_process import Emulator

if TYPE_CHECKING:
    from pathlib import Path

Context = dict[str, Any]

POLL = "/operations/"
DEFERRED, POKE, RESCHEDULE = "deferred", "poke", "reschedule"
two_modes = pytest.mark.parametrize("mode", [DEFERRED, POKE])
all_modes = pytest.mark.parametrize("mode", [DEFERRED, POKE, RESCHEDULE])


def sensor(location: Any, mode: str = DEFERRED, **arguments: Any) -> OperationSensor:
    """The task, with short intervals."""
    limits = {"poke_interval": 0.01, "max_wait": 0.05, "timeout": 60} | arguments
    if mode != DEFERRED:
        limits |= {"deferrable": False, "mode": mode}
    return OperationSensor(task_id="wait", operation_location=location, **limits)


def wait(context: Context, location: Any, mode: str, **arguments: Any) -> Any:
    """Run the task in a mode, as Airflow does, and return its result."""
    while True:
        try:
            return finish(sensor(location, mode, **arguments), context)
        except AirflowRescheduleException:
            context["ti"].first_reschedule_date = context["ti"].first_reschedule_date or datetime.now(UTC)


def location_of(emulator: Emulator, offer: str, kind: str = "goLive") -> str:
    return str(operations(emulator, offer, kind)[0]["location"])


def polls(emulator: Emulator) -> list[dict[str, Any]]:
    return emulator.requests(path=POLL)


# --- success ---


@all_modes
@pytest.mark.parametrize("offer", ["quick", "quick-classic"])
def test_sensor_waits_until_the_operation_completes(
    emulator: Emulator, context: Context, offer: str, mode: str
) -> None:
    location = CloudPartnerHook().go_live(offer)
    answer_in_turn(emulator, [], [])
    result = wait(context, location, mode)
    assert result == {
        "location": location,
        "publisher_id": "contoso",
        "offer_id": offer,
        "version": 2,
        "status": "succeeded",
        "progress_percentage": 100,
        "steps": [{"id": "live", "name": "Live", "status": "complete", "progress_percentage": 100}],
        "messages": ["Step completed."],
    }
    assert json.loads(json.dumps(result)) == result
    assert len(polls(emulator)) > 2


@two_modes
@pytest.mark.parametrize("offer", ["live", "live-classic"])
def test_finished_operation_takes_one_poll_and_no_deferral(
    emulator: Emulator, context: Context, offer: str, mode: str
) -> None:
    result = sensor(location_of(emulator, offer), mode).execute(context)
    assert result["status"] == "succeeded"
    assert len(polls(emulator)) == 1


@two_modes
def test_absolute_location_on_the_connections_host_is_valid(
    emulator: Emulator, context: Context, mode: str
) -> None:
    location = CloudPartnerHook().go_live("quick")
    assert wait(context, emulator.url + location, mode)["location"] == location


@two_modes
@pytest.mark.parametrize(("offer", "status"), [("next", "succeeded"), ("next-classic", "running")])
def test_until_preview_ends_at_the_awaited_signoff(
    emulator: Emulator, context: Context, mode: str, offer: str, status: str
) -> None:
    location = CloudPartnerHook().publish(offer)
    result = wait(context, location, mode, until="preview")
    assert result["status"] == status
    signoff = [step["status"] for step in result["steps"] if step["id"] == "publisher-signoff"]
    assert signoff == ["waitingForPublisherReview"]


@pytest.mark.parametrize(("offer", "status"), [("slow", "succeeded"), ("slow-classic", "running")])
def test_ready_preview_causes_no_deferral(
    emulator: Emulator, context: Context, offer: str, status: str
) -> None:
    location = location_of(emulator, offer, "publish")
    assert sensor(location, until="preview").execute(context)["status"] == status


# --- locations ---

BAD_LOCATIONS = [
    "https://elsewhere.example/api/publishers/contoso/offers/slow/operations/1",
    "https://localhost:1/api/publishers/contoso/offers/slow/operations/1",
    "//elsewhere.example/api/publishers/contoso/offers/slow/operations/1",
    "http://localhost/api/operations/contoso$slow$2$preview",
    "/api/publishers/contoso/offers/slow",
    "/api/publishers/contoso/offers/slow/operations/",
    "/api/publishers/contoso/offers/slow/operations/..",
    "/api/publishers/contoso/offers/..%2f..%2fx/operations/1",
    "/api/publishers/contoso/offers/slow/operations/1#part",
    "/api/publishers/contoso/offers/slow/operations/1\r\nX-Header: 1",
    "/api/operations/contoso$slow$2",
    "\\\\elsewhere.example/api/operations/contoso$slow$2$preview",
    "None",
    "",
    None,
]


@two_modes
@pytest.mark.parametrize("location", BAD_LOCATIONS)
def test_invalid_location_is_rejected_before_any_request(
    emulator: Emulator, context: Context, location: Any, mode: str
) -> None:
    with pytest.raises(ValueError, match=r"location|path of an operation|connection's host"):
        sensor(location, mode).execute(context)
    assert emulator.requests() == []


def test_invalid_until_is_rejected() -> None:
    with pytest.raises(ValueError, match="until must be one of 'completed', 'preview'"):
        sensor("/api/operations/contoso$slow$2$preview", until="live")


def test_location_is_templated_and_names_the_mapped_task() -> None:
    task = sensor("/api/operations/contoso$web$2$preview?api-version=2017-10-31")
    assert set(task.template_fields) == {"cloud_partner_conn_id", "operation_location"}
    assert task.map_index_template == "{{ task.subject }}"
    assert task.subject == "contoso/web"


# --- failures ---


@all_modes
def test_failed_operation_fails_without_retries_with_the_reason(
    emulator: Emulator, context: Context, mode: str
) -> None:
    location = CloudPartnerHook().go_live("failing")
    with pytest.raises(OperationFailedError, match="in step Live: No SSH key & no password") as raised:
        wait(context, location, mode)
    assert isinstance(raised.value, AirflowFailException)
    assert raised.value.step == "Live"
    assert raised.value.messages[0] == "No SSH key & no password."
    assert "<" not in str(raised.value)


@all_modes
def test_canceled_operation_fails_without_retries(emulator: Emulator, context: Context, mode: str) -> None:
    hook = CloudPartnerHook()
    location = hook.go_live("slow")
    hook.cancel("slow")
    with pytest.raises(OperationCanceledError, match="was canceled") as raised:
        wait(context, location, mode)
    assert isinstance(raised.value, AirflowFailException)


@two_modes
def test_error_contains_at_most_twenty_messages(emulator: Emulator, context: Context, mode: str) -> None:
    location = CloudPartnerHook().go_live("talkative")
    with pytest.raises(OperationFailedError) as raised:
        wait(context, location, mode)
    assert len(raised.value.messages) == 20
    assert raised.value.messages[0] == "Problem 0"
    assert re.fullmatch(r"… and \d+ more messages, not shown", raised.value.messages[-1])


@all_modes
@pytest.mark.parametrize("offer", ["failing", "talkative"])
def test_soft_fail_skips_a_failed_operation(
    emulator: Emulator, context: Context, offer: str, mode: str
) -> None:
    location = CloudPartnerHook().go_live(offer)
    with pytest.raises(AirflowSkipException):
        wait(context, location, mode, soft_fail=True)


@two_modes
def test_soft_fail_skips_an_operation_that_already_failed(
    emulator: Emulator, context: Context, mode: str
) -> None:
    hook = CloudPartnerHook()
    location = hook.go_live("failing")
    eventually(lambda: hook.get_operation(location).is_terminal)
    with pytest.raises(AirflowSkipException):
        sensor(location, mode, soft_fail=True).execute(context)


@all_modes
def test_timeout_ends_polling(emulator: Emulator, context: Context, mode: str) -> None:
    with pytest.raises(AirflowSensorTimeout):
        wait(context, location_of(emulator, "going-live"), mode, timeout=0.2)
    assert operations(emulator, "going-live")[0]["submissionState"] == "running"


@all_modes
def test_soft_fail_skips_a_timeout(emulator: Emulator, context: Context, mode: str) -> None:
    with pytest.raises(AirflowSkipException):
        wait(context, location_of(emulator, "going-live"), mode, timeout=0.2, soft_fail=True)


@all_modes
def test_timeout_ends_polling_in_an_outage(emulator: Emulator, context: Context, mode: str) -> None:
    emulator.inject(path=POLL, status=503, count=1000)
    with pytest.raises(AirflowSensorTimeout):
        wait(context, location_of(emulator, "going-live"), mode, timeout=0.3)


def test_shorter_execution_timeout_applies_while_deferred(emulator: Emulator, context: Context) -> None:
    limit = timedelta(seconds=0.2)
    with pytest.raises(AirflowTaskTimeout, match="Polling of contoso/going-live timed out"):
        wait(context, location_of(emulator, "going-live"), DEFERRED, execution_timeout=limit)


def test_deferral_timeout_is_later_than_the_triggers_own(emulator: Emulator, context: Context) -> None:
    deferred = deferral(sensor(location_of(emulator, "going-live"), timeout=100), context)
    assert deferred.timeout is not None
    assert timedelta(seconds=100) < deferred.timeout < timedelta(seconds=1000)


@two_modes
def test_403_ends_polling_at_once(emulator: Emulator, context: Context, mode: str) -> None:
    emulator.inject(path=POLL, status=403, skip=2, count=1000)
    with pytest.raises(PermissionDeniedError, match="managed application in local directory"):
        wait(context, location_of(emulator, "going-live"), mode)
    assert len(polls(emulator)) == 3


@two_modes
def test_401_with_a_fresh_token_ends_polling(emulator: Emulator, context: Context, mode: str) -> None:
    emulator.inject(path=POLL, status=401, skip=2, count=1000)
    with pytest.raises(AuthenticationError):
        wait(context, location_of(emulator, "going-live"), mode)
    assert len(polls(emulator)) == 4


@two_modes
def test_changed_secret_does_not_end_polling(
    emulator: Emulator, connect: Connect, context: Context, mode: str, log: Log
) -> None:
    location = CloudPartnerHook().go_live("quick")
    answer_in_turn(emulator, [], [])
    emulator.inject(path=POLL, status=500)
    emulator.inject(path=POLL, status=401, count=2)
    # The settings differ from those of the polls before.
    log.react("polling continues", lambda: connect(emulator, extra={"timeout": 29}))
    assert wait(context, location, mode)["status"] == "succeeded"
    assert len(log.containing("The connection has changed")) == 1


def test_retry_does_not_inherit_the_404_of_a_killed_try(emulator: Emulator, context: Context) -> None:
    context |= {"task_state_store": StateStore()}
    context["ti"].try_number = 1
    context["ti"].first_reschedule_date = datetime.now(UTC) - timedelta(hours=1)
    location = gone(emulator)
    old = polling.PollState(not_found=1, not_found_since=time.time() - 3000)
    stored = {"started_at": time.time() - 3600, "try_number": 1, "state": old.to_json()}
    context["task_state_store"]["cloud_partner_poll_state"] = stored
    context["ti"].try_number = 2
    with pytest.raises(AirflowRescheduleException):
        sensor(location, RESCHEDULE, timeout=604800).execute(context)


def test_later_rescheduled_poll_survives_an_unreadable_connection(
    emulator: Emulator, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = location_of(emulator, "going-live")
    context["ti"].first_reschedule_date = datetime.now(UTC) - timedelta(seconds=10)
    monkeypatch.delenv("AIRFLOW_CONN_CLOUD_PARTNER_DEFAULT")
    with pytest.raises(AirflowRescheduleException):
        sensor(location, RESCHEDULE).execute(context)


def gone(emulator: Emulator) -> str:
    """The location of an unknown operation."""
    location = location_of(emulator, "going-live")
    return re.sub(r"[0-9a-f-]{36}", "00000000-0000-0000-0000-000000000000", location)


class StateStore(dict[str, Any]):
    """Airflow's task state store."""

    def set(self, key: str, value: Any) -> None:
        self[key] = json.loads(json.dumps(value))


with_store = pytest.mark.parametrize("store", [True, False], ids=["state store", "no state store"])


@all_modes
@with_store
def test_not_found_is_final_after_the_same_time_in_every_mode(
    emulator: Emulator, context: Context, mode: str, store: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "NOT_FOUND_SECONDS", 1.0)
    context |= {"task_state_store": StateStore()} if store else {}
    location = gone(emulator)
    before = time.monotonic()
    with pytest.raises(NotFoundError):
        wait(context, location, mode)
    assert time.monotonic() - before >= 1


@with_store
def test_rescheduled_poll_holds_no_worker_after_a_404(
    emulator: Emulator, context: Context, log: Log, store: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("the task sleeps in the worker"))
    context |= {"task_state_store": StateStore()} if store else {}
    location = gone(emulator)
    for number in (1, 2, 3):
        before = datetime.now(UTC)
        with pytest.raises(AirflowRescheduleException) as rescheduled:
            sensor(location, RESCHEDULE, poke_interval=30, max_wait=600, timeout=604800).execute(context)
        context["ti"].first_reschedule_date = context["ti"].first_reschedule_date or before
        assert len(polls(emulator)) == number
        pause = (rescheduled.value.reschedule_date - before).total_seconds()
        assert pause == pytest.approx(30 * (2 ** (number - 1) if store else 1), rel=0.2)
        announced = re.findall(r"Next poll in (\S+) s", log.lines[-1])
        assert [float(seconds) for seconds in announced] == pytest.approx([pause], rel=0.05)


def test_late_404_of_a_rescheduled_sensor_is_not_final(emulator: Emulator, context: Context) -> None:
    """With the state store, a 404 counts from the first one, and not from the start."""
    context |= {"task_state_store": StateStore()}
    location = location_of(emulator, "going-live")
    context["ti"].first_reschedule_date = datetime.now(UTC) - timedelta(days=2)
    emulator.inject(path=POLL, status=404, skip=1, count=3)
    for _ in range(4):
        with pytest.raises(AirflowRescheduleException):
            sensor(location, RESCHEDULE, timeout=604800).execute(context)
    assert emulator.faults() == []


@pytest.mark.parametrize("lasts", [True, False])
def test_late_404_without_a_state_store_is_confirmed(
    emulator: Emulator, context: Context, lasts: bool
) -> None:
    location = location_of(emulator, "going-live")
    context["ti"].first_reschedule_date = datetime.now(UTC) - timedelta(days=2)
    emulator.inject(path=POLL, status=404, count=3 if lasts else 2)
    with pytest.raises(NotFoundError if lasts else AirflowRescheduleException):
        sensor(location, RESCHEDULE, timeout=604800).execute(context)
    assert len(polls(emulator)) == 3


@pytest.mark.parametrize(
    "value",
    [None, "text", {}, {"started_at": 0.0, "state": {}}, {"started_at": 1e12, "state": {"steps": 5}}],
    ids=str,
)
def test_stale_or_invalid_stored_state_is_ignored(emulator: Emulator, context: Context, value: Any) -> None:
    context |= {"task_state_store": StateStore(cloud_partner_poll_state=value)}
    context["ti"].first_reschedule_date = datetime.now(UTC) - timedelta(seconds=10)
    with pytest.raises(AirflowRescheduleException):
        sensor(location_of(emulator, "going-live"), RESCHEDULE).execute(context)
    assert context["task_state_store"]["cloud_partner_poll_state"]["state"]["faults"] == 0


def test_failing_state_store_does_not_fail_the_task(emulator: Emulator, context: Context, log: Log) -> None:
    broken = SimpleNamespace(get=lambda _: 1 / 0, set=lambda *_: 1 / 0)
    context |= {"task_state_store": broken}
    context["ti"].first_reschedule_date = datetime.now(UTC) - timedelta(seconds=10)
    with pytest.raises(AirflowRescheduleException):
        sensor(location_of(emulator, "going-live"), RESCHEDULE).execute(context)
    assert len(log.containing("task state store: division by zero")) == 2


def test_rescheduled_sensor_logs_each_change_once(emulator: Emulator, context: Context, log: Log) -> None:
    context |= {"task_state_store": StateStore()}
    emulator.inject(path=POLL, status=500, skip=5)
    counted: list[int] = []

    def cancel() -> None:
        counted.append(len(log.containing("operation is running")))
        CloudPartnerHook().cancel("going-live")

    log.react("polling continues", cancel)
    with pytest.raises(OperationCanceledError):
        wait(context, location_of(emulator, "going-live"), RESCHEDULE)
    assert counted == [1]


@pytest.mark.parametrize("mode", [POKE, RESCHEDULE])
def test_silent_fail_does_not_poll_without_a_pause(
    emulator: Emulator, context: Context, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("airflow_provider_cpp.core.polling.Poller.request", lambda *_: 1 / 0)
    task = sensor(location_of(emulator, "going-live"), mode, silent_fail=True, poke_interval=30, timeout=60)
    for _ in range(2):
        with suppress(ZeroDivisionError):
            task.poke(context)
        pauses.append(task._get_next_poke_interval(0, lambda: 1.0, 1))
    assert pauses == [30, 30]


# --- faults ---

HTML = "<html><h1>Bad gateway</h1></html>"
SURVIVED = {
    "500": {"status": 500},
    "502 with HTML": {"status": 502, "body": HTML},
    "503": {"status": 503, "headers": {"Retry-After": "0"}},
    "504": {"status": 504},
    "429": {"status": 429},
    "408": {"status": 408},
    "404 at first": {"status": 404, "body": '{"error": {"code": "ResourceNotFound", "message": "No."}}'},
    "302": {"status": 302, "headers": {"Location": "https://elsewhere.example/"}},
    "HTML": {"status": 200, "body": HTML},
    "invalid JSON": {"status": 200, "body": '{"status": '},
    "another JSON": {"status": 200, "body": "[[]]"},
    "nothing": {"status": 200, "body": ""},
    "no content": {"status": 204},
    "closed before": {"close": "before"},
    "closed after": {"close": "after"},
    "cut off": {"truncate": 20},
    "broken compression": {"status": 200, "headers": {"Content-Encoding": "gzip"}, "body": "no gzip"},
    "deep JSON": {"status": 200, "body": "[" * 100_000},
}


@two_modes
@pytest.mark.parametrize("fault", SURVIVED.values(), ids=SURVIVED)
def test_transient_fault_does_not_end_polling(
    emulator: Emulator, context: Context, fault: dict[str, Any], mode: str, log: Log
) -> None:
    emulator.inject(path=POLL, count=4, **fault)
    location = CloudPartnerHook().go_live("quick")
    assert wait(context, location, mode)["status"] == "succeeded"
    assert sum(poll["fault"] is not None for poll in polls(emulator)) == 4
    assert log.containing("polling continues")
    assert log.containing("responds again")


@two_modes
def test_slow_response_does_not_end_polling(
    emulator: Emulator, connect: Connect, context: Context, mode: str
) -> None:
    connect(emulator, extra={"timeout": 0.5})
    location = CloudPartnerHook().go_live("quick")
    answer_in_turn(emulator, [])
    emulator.inject(path=POLL, delay=0.8)
    assert wait(context, location, mode)["status"] == "succeeded"
    assert eventually(lambda: [poll for poll in polls(emulator) if "delay" in (poll["fault"] or {})])


@two_modes
def test_outage_of_the_identity_host_does_not_end_polling(
    emulator: Emulator, context: Context, mode: str, log: Log
) -> None:
    location = CloudPartnerHook().go_live("quick")
    emulator.inject(path="oauth2/v2.0/token", status=503, headers={"Retry-After": "0"}, count=4)
    assert wait(context, location, mode)["status"] == "succeeded"
    assert log.containing("Could not get a token")


@two_modes
def test_revoked_token_does_not_end_polling(
    emulator: Emulator, context: Context, mode: str, log: Log
) -> None:
    location = CloudPartnerHook().go_live("quick")
    answer_in_turn(emulator, [], [])
    emulator.inject(path=POLL, status=500)
    log.react("polling continues", emulator.revoke_tokens)
    assert wait(context, location, mode)["status"] == "succeeded"
    assert [poll["status"] for poll in polls(emulator)][:5] == [200, 200, 500, 401, 200]


@two_modes
@pytest.mark.parametrize(("status", "polls_before"), [(429, 0), (503, 2)])
def test_retry_after_is_honored(
    emulator: Emulator, context: Context, status: int, polls_before: int, mode: str
) -> None:
    location = CloudPartnerHook().go_live("quick")
    answer_in_turn(emulator, *[[]] * polls_before)
    emulator.inject(path=POLL, status=status, headers={"Retry-After": "1"})
    wait(context, location, mode)
    times = [datetime.fromisoformat(poll["time"]) for poll in polls(emulator)[polls_before:]]
    assert times[1] - times[0] >= timedelta(seconds=1)


def test_retry_after_is_honored_in_reschedule_mode(emulator: Emulator, context: Context) -> None:
    emulator.inject(path=POLL, status=429, headers={"Retry-After": "50"})
    before = datetime.now(UTC)
    with pytest.raises(AirflowRescheduleException) as rescheduled:
        sensor(location_of(emulator, "going-live"), RESCHEDULE).execute(context)
    assert rescheduled.value.reschedule_date - before >= timedelta(seconds=50)


@two_modes
def test_restart_of_the_service_does_not_end_polling(
    connect: Connect, context: Context, seed_file: str, tmp_path: Path, mode: str, log: Log
) -> None:
    arguments = ("--seed", seed_file, "--time-scale", str(TIME_SCALE), "--state", str(tmp_path / "state"))
    with ExitStack() as cleanup:
        emulator = Emulator(*arguments)
        cleanup.callback(emulator.close)

        def restart() -> None:
            cleanup.callback(Emulator("--port", str(emulator.port), *arguments).close)

        connect(emulator)
        location = CloudPartnerHook().go_live("quick")
        answer_in_turn(emulator, [])
        log.react("operation is running", emulator.kill)
        log.react("polling continues", restart)
        assert wait(context, location, mode)["status"] == "succeeded"
    assert log.containing("responds again")


# --- log ---


@two_modes
def test_awaited_signoff_is_one_warning_and_polling_continues(
    emulator: Emulator, context: Context, mode: str, log: Log
) -> None:
    emulator.inject(path=POLL, status=500, skip=5)
    log.react("polling continues", lambda: CloudPartnerHook().go_live("slow-classic"))
    result = wait(context, location_of(emulator, "slow-classic", "publish"), mode)
    assert result["status"] == "succeeded"
    assert len(polls(emulator)) >= 7
    assert len(log.containing("signoff is awaited")) == 1


@two_modes
def test_unknown_status_is_one_warning_and_polling_continues(
    emulator: Emulator, context: Context, mode: str, log: Log
) -> None:
    body = json.dumps({"status": "pondering", "steps": [], "messages": []})
    emulator.inject(path=POLL, count=5, replace={"body": body})
    location = CloudPartnerHook().go_live("quick")
    assert wait(context, location, mode)["status"] == "succeeded"
    assert len(log.containing("the unknown status 'pondering'")) == 1


@two_modes
def test_poll_without_a_change_is_not_logged(
    emulator: Emulator, context: Context, mode: str, log: Log
) -> None:
    counted: list[int] = []
    emulator.inject(path=POLL, status=500, skip=8)
    location = location_of(emulator, "going-live")

    def cancel() -> None:
        counted.append(len(log.containing("contoso/going-live")) - 1)
        CloudPartnerHook().cancel("going-live")

    log.react("polling continues", cancel)
    with pytest.raises(OperationCanceledError):
        wait(context, location, mode)
    assert len(log.containing("Live is in progress")) == 1
    assert counted == [2]  # the step, and the operation


@two_modes
def test_each_change_of_a_step_is_logged_once(
    emulator: Emulator, context: Context, mode: str, log: Log
) -> None:
    answer_in_turn(
        emulator,
        [("Certification", 0)],
        [("Certification", 0)],
        [("Certification", 40)],
        [("Certification", 40)],
        [("Certification", 100), ("Provisioning", 10)],
        [("Certification", 100), ("Provisioning", 10)],
    )
    wait(context, location_of(emulator, "live"), mode)
    lines = [line.split(": ", 1)[1] for line in log.containing("contoso/live: step ")]
    assert [line.partition(". Next poll")[0].removesuffix(".") for line in lines] == [
        "step Certification is in progress (0 %)",
        "step Certification is in progress (40 %)",
        "step Certification is complete",
        "step Provisioning is in progress (10 %)",
        "step Live is complete",
    ]


def test_reschedule_date_is_the_announced_next_poll(emulator: Emulator, context: Context, log: Log) -> None:
    """The interval grows with the age of the polling, here two days."""
    context["ti"].first_reschedule_date = datetime.now(UTC) - timedelta(days=2)
    task = sensor(
        location_of(emulator, "going-live"), RESCHEDULE, poke_interval=30, max_wait=600, timeout=604800
    )
    before = datetime.now(UTC)
    with pytest.raises(AirflowRescheduleException) as rescheduled:
        task.execute(context)
    due = (rescheduled.value.reschedule_date - before).total_seconds()
    assert due > 400
    (announced,) = re.findall(r"Next poll in (\S+) s", "\n".join(log.lines))
    assert float(announced) == pytest.approx(due, rel=0.05)


@two_modes
def test_log_contains_no_secret(emulator: Emulator, context: Context, mode: str, log: Log) -> None:
    emulator.inject(path=POLL, status=500, count=2)
    location = CloudPartnerHook().go_live("quick")
    wait(context, location, mode)
    everything = "\n".join(log.lines)
    assert str(emulator.connection["password"]) not in everything
    assert "Bearer" not in everything
