from __future__ import annotations

import json
import re
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
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
    """The task; it hardly rests between two polls."""
    patience = {"poke_interval": 0.01, "max_wait": 0.05, "timeout": 60} | arguments
    if mode != DEFERRED:
        patience |= {"deferrable": False, "mode": mode}
    return OperationSensor(task_id="wait", operation_location=location, **patience)


def wait(context: Context, location: Any, mode: str, **arguments: Any) -> Any:
    """Execute the task to its end as Airflow does, in a mode; return its result."""
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
def test_the_completion_is_waited_for(emulator: Emulator, context: Context, offer: str, mode: str) -> None:
    location = CloudPartnerHook().go_live(offer)
    answer_in_turn(emulator, [], [])
    result = wait(context, location, mode)
    assert result == {
        "location": location,
        "status": "succeeded",
        "progress_percentage": 100,
        "steps": [{"id": "live", "name": "Live", "status": "complete", "progress_percentage": 100}],
        "messages": ["Step completed."],
    }
    assert json.loads(json.dumps(result)) == result
    assert len(polls(emulator)) > 2


@two_modes
@pytest.mark.parametrize("offer", ["live", "live-classic"])
def test_what_ended_already_is_not_deferred_and_asked_for_once(
    emulator: Emulator, context: Context, offer: str, mode: str
) -> None:
    result = sensor(location_of(emulator, offer), mode).execute(context)
    assert result["status"] == "succeeded"
    assert len(polls(emulator)) == 1


@two_modes
def test_an_absolute_location_on_the_connections_own_host_is_waited_on(
    emulator: Emulator, context: Context, mode: str
) -> None:
    location = CloudPartnerHook().go_live("quick")
    assert wait(context, emulator.url + location, mode)["location"] == location


@two_modes
def test_the_preview_is_waited_for_if_asked_for(emulator: Emulator, context: Context, mode: str) -> None:
    location = CloudPartnerHook().publish("next")
    result = wait(context, location, mode, until="preview")
    assert result["status"] == "running"
    assert result["steps"][-1]["status"] == "waitingForPublisherReview"


def test_a_preview_that_is_ready_is_not_deferred(emulator: Emulator, context: Context) -> None:
    location = location_of(emulator, "slow", "publish")
    assert sensor(location, until="preview").execute(context)["status"] == "running"


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
def test_a_location_that_none_can_be_is_refused_before_anything_is_sent(
    emulator: Emulator, context: Context, location: Any, mode: str
) -> None:
    with pytest.raises(ValueError, match=r"location|path of an operation|connection's host"):
        sensor(location, mode).execute(context)
    assert emulator.requests() == []


def test_until_is_one_of_two_words() -> None:
    with pytest.raises(ValueError, match="until must be one of completed, preview"):
        sensor("/api/operations/contoso$slow$2$preview", until="live")


def test_the_location_is_templated_and_its_offer_names_the_mapped_task() -> None:
    task = sensor("/api/operations/contoso$web$2$preview?api-version=2017-10-31")
    assert set(task.template_fields) == {"cloud_partner_conn_id", "operation_location"}
    assert task.map_index_template == "{{ task.subject }}"
    assert task.subject == "contoso/web"


# --- ends that are none ---


@all_modes
def test_a_failure_carries_step_and_messages_and_is_not_retried(
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
def test_a_cancellation_is_told_and_not_retried(emulator: Emulator, context: Context, mode: str) -> None:
    hook = CloudPartnerHook()
    location = hook.go_live("slow")
    hook.cancel("slow")
    with pytest.raises(OperationCanceledError, match="canceled") as raised:
        wait(context, location, mode)
    assert isinstance(raised.value, AirflowFailException)


@two_modes
def test_of_many_messages_twenty_are_kept_with_a_note(
    emulator: Emulator, context: Context, mode: str
) -> None:
    location = CloudPartnerHook().go_live("talkative")
    with pytest.raises(OperationFailedError) as raised:
        wait(context, location, mode)
    assert len(raised.value.messages) == 20
    assert raised.value.messages[0] == "Problem 0"
    assert re.fullmatch(r"… and \d+ more messages, not shown", raised.value.messages[-1])


@all_modes
@pytest.mark.parametrize("offer", ["failing", "talkative"])
def test_a_failure_is_a_skip_with_soft_fail(
    emulator: Emulator, context: Context, offer: str, mode: str
) -> None:
    location = CloudPartnerHook().go_live(offer)
    with pytest.raises(AirflowSkipException):
        wait(context, location, mode, soft_fail=True)


@two_modes
def test_what_failed_already_is_a_skip_with_soft_fail(
    emulator: Emulator, context: Context, mode: str
) -> None:
    hook = CloudPartnerHook()
    location = hook.go_live("failing")
    eventually(lambda: hook.get_operation(location).is_terminal)
    with pytest.raises(AirflowSkipException):
        sensor(location, mode, soft_fail=True).execute(context)


@all_modes
def test_the_timeout_ends_the_wait(emulator: Emulator, context: Context, mode: str) -> None:
    with pytest.raises(AirflowSensorTimeout):
        wait(context, location_of(emulator, "going-live"), mode, timeout=0.2)
    assert operations(emulator, "going-live")[0]["submissionState"] == "running"


@all_modes
def test_the_timeout_is_a_skip_with_soft_fail(emulator: Emulator, context: Context, mode: str) -> None:
    with pytest.raises(AirflowSkipException):
        wait(context, location_of(emulator, "going-live"), mode, timeout=0.2, soft_fail=True)


@all_modes
def test_the_timeout_ends_the_wait_in_an_outage_as_well(
    emulator: Emulator, context: Context, mode: str
) -> None:
    emulator.inject(path=POLL, status=503, count=1000)
    with pytest.raises(AirflowSensorTimeout):
        wait(context, location_of(emulator, "going-live"), mode, timeout=0.3)


def test_a_shorter_execution_timeout_holds_while_deferred(emulator: Emulator, context: Context) -> None:
    limit = timedelta(seconds=0.2)
    with pytest.raises(AirflowTaskTimeout, match="Gave up waiting for contoso/going-live"):
        wait(context, location_of(emulator, "going-live"), DEFERRED, execution_timeout=limit)


def test_airflow_gives_the_trigger_up_only_after_its_own_end(emulator: Emulator, context: Context) -> None:
    deferred = deferral(sensor(location_of(emulator, "going-live"), timeout=100), context)
    assert deferred.timeout is not None
    assert timedelta(seconds=100) < deferred.timeout < timedelta(seconds=1000)


@two_modes
def test_a_403_ends_the_wait_with_its_error(emulator: Emulator, context: Context, mode: str) -> None:
    emulator.inject(path=POLL, status=403, skip=2, count=1000)
    with pytest.raises(PermissionDeniedError, match="managed application in local directory"):
        wait(context, location_of(emulator, "going-live"), mode)
    assert len(polls(emulator)) == 3


@two_modes
def test_a_401_that_no_fresh_token_cures_ends_the_wait_with_its_error(
    emulator: Emulator, context: Context, mode: str
) -> None:
    emulator.inject(path=POLL, status=401, skip=2, count=1000)
    with pytest.raises(AuthenticationError):
        wait(context, location_of(emulator, "going-live"), mode)
    assert len(polls(emulator)) == 4


def gone(emulator: Emulator) -> str:
    """The location of an operation that there is not."""
    location = location_of(emulator, "going-live")
    return re.sub(r"[0-9a-f-]{36}", "00000000-0000-0000-0000-000000000000", location)


@two_modes
def test_a_lasting_404_ends_the_wait_with_its_error(emulator: Emulator, context: Context, mode: str) -> None:
    with pytest.raises(NotFoundError):
        wait(context, gone(emulator), mode)
    assert 5 <= len(polls(emulator)) <= 20


def test_a_lasting_404_ends_a_rescheduled_wait_as_well(emulator: Emulator, context: Context) -> None:
    """Each poll is a process of its own; an hour after the first one, they are not the first minutes."""
    context["ti"].first_reschedule_date = datetime.now(UTC) - timedelta(hours=1)

    def poll_until_it_ends() -> None:
        for _ in range(20):
            with suppress(AirflowRescheduleException):
                sensor(gone(emulator), RESCHEDULE, timeout=timedelta(days=1)).execute(context)

    with pytest.raises(NotFoundError):
        poll_until_it_ends()


# --- what a wait survives ---

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
def test_a_fault_does_not_end_the_wait(
    emulator: Emulator, context: Context, fault: dict[str, Any], mode: str, log: Log
) -> None:
    emulator.inject(path=POLL, count=4, **fault)
    location = CloudPartnerHook().go_live("quick")
    assert wait(context, location, mode)["status"] == "succeeded"
    assert sum(poll["fault"] is not None for poll in polls(emulator)) == 4
    assert log.containing("the wait goes on")
    assert log.containing("answers again")


@two_modes
def test_an_answer_that_takes_too_long_does_not_end_the_wait(
    emulator: Emulator, connect: Connect, context: Context, mode: str
) -> None:
    connect(emulator, extra={"timeout": 0.5})
    location = CloudPartnerHook().go_live("quick")
    answer_in_turn(emulator, [])
    emulator.inject(path=POLL, delay=0.8)
    assert wait(context, location, mode)["status"] == "succeeded"
    assert eventually(lambda: [poll for poll in polls(emulator) if "delay" in (poll["fault"] or {})])


@two_modes
def test_an_outage_of_the_identity_host_does_not_end_the_wait(
    emulator: Emulator, context: Context, mode: str, log: Log
) -> None:
    location = CloudPartnerHook().go_live("quick")
    emulator.inject(path="oauth2/v2.0/token", status=503, headers={"Retry-After": "0"}, count=4)
    assert wait(context, location, mode)["status"] == "succeeded"
    assert log.containing("Could not get a token")


@two_modes
def test_revoked_tokens_do_not_end_the_wait(
    emulator: Emulator, context: Context, mode: str, log: Log
) -> None:
    location = CloudPartnerHook().go_live("quick")
    answer_in_turn(emulator, [], [])
    emulator.inject(path=POLL, status=500)
    log.react("the wait goes on", emulator.revoke_tokens)
    assert wait(context, location, mode)["status"] == "succeeded"
    assert [poll["status"] for poll in polls(emulator)][:5] == [200, 200, 500, 401, 200]


@two_modes
@pytest.mark.parametrize(("status", "polls_before"), [(429, 0), (503, 2)])
def test_retry_after_is_honoured(
    emulator: Emulator, context: Context, status: int, polls_before: int, mode: str
) -> None:
    location = CloudPartnerHook().go_live("quick")
    answer_in_turn(emulator, *[[]] * polls_before)
    emulator.inject(path=POLL, status=status, headers={"Retry-After": "1"})
    wait(context, location, mode)
    asked = [datetime.fromisoformat(poll["time"]) for poll in polls(emulator)[polls_before:]]
    assert asked[1] - asked[0] >= timedelta(seconds=1)


def test_retry_after_is_honoured_when_rescheduled(emulator: Emulator, context: Context) -> None:
    emulator.inject(path=POLL, status=429, headers={"Retry-After": "50"})
    before = datetime.now(UTC)
    with pytest.raises(AirflowRescheduleException) as rescheduled:
        sensor(location_of(emulator, "going-live"), RESCHEDULE).execute(context)
    assert rescheduled.value.reschedule_date - before >= timedelta(seconds=50)


@two_modes
def test_an_emulator_that_is_killed_and_restarted_does_not_end_the_wait(
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
        log.react("operation running", emulator.kill)
        log.react("the wait goes on", restart)
        assert wait(context, location, mode)["status"] == "succeeded"
    assert log.containing("answers again")


# --- what the log says ---


@two_modes
def test_the_signoff_is_told_of_once_and_the_wait_goes_on(
    emulator: Emulator, context: Context, mode: str, log: Log
) -> None:
    emulator.inject(path=POLL, status=500, skip=5)
    log.react("the wait goes on", lambda: CloudPartnerHook().go_live("slow"))
    result = wait(context, location_of(emulator, "slow", "publish"), mode)
    assert result["status"] == "succeeded"
    assert len(polls(emulator)) >= 7
    assert len(log.containing("signoff is awaited")) == 1


@two_modes
def test_an_unknown_status_is_told_of_once_and_the_wait_goes_on(
    emulator: Emulator, context: Context, mode: str, log: Log
) -> None:
    body = json.dumps({"status": "pondering", "steps": [], "messages": []})
    emulator.inject(path=POLL, count=5, replace={"body": body})
    location = CloudPartnerHook().go_live("quick")
    assert wait(context, location, mode)["status"] == "succeeded"
    assert len(log.containing("unknown operation status 'pondering'")) == 1


@two_modes
def test_a_poll_that_brings_nothing_new_is_not_logged(
    emulator: Emulator, context: Context, mode: str, log: Log
) -> None:
    counted: list[int] = []
    emulator.inject(path=POLL, status=500, skip=8)
    location = location_of(emulator, "going-live")

    def cancel() -> None:
        counted.append(len(log.containing("contoso/going-live")) - 1)
        CloudPartnerHook().cancel("going-live")

    log.react("the wait goes on", cancel)
    with pytest.raises(OperationCanceledError):
        wait(context, location, mode)
    assert len(log.containing("Live inProgress")) == 1
    assert counted == [2]  # the step, and the operation


@two_modes
def test_each_step_that_changes_or_moves_on_is_logged_once(
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
    said = [line.split(": ", 1)[1] for line in log.containing("contoso/live: ") if " %" in line]
    assert [line.partition(" %")[0] for line in said] == [
        "Certification inProgress 0",
        "Certification inProgress 40",
        "Certification complete 100",
        "Provisioning inProgress 10",
        "Live complete 100",
    ]


def test_the_log_of_a_rescheduled_wait_tells_when_the_next_poll_is_due(
    emulator: Emulator, context: Context, log: Log
) -> None:
    """The interval grows with the age of the wait, which began two days ago."""
    context["ti"].first_reschedule_date = datetime.now(UTC) - timedelta(days=2)
    task = sensor(
        location_of(emulator, "going-live"), RESCHEDULE, poke_interval=30, max_wait=600, timeout=604800
    )
    before = datetime.now(UTC)
    with pytest.raises(AirflowRescheduleException) as rescheduled:
        task.execute(context)
    due = (rescheduled.value.reschedule_date - before).total_seconds()
    assert due > 400
    (said,) = re.findall(r"(?i)next poll in (\S+) s", "\n".join(log.lines))
    assert float(said) == pytest.approx(due, rel=0.2)


@two_modes
def test_no_secret_is_logged(emulator: Emulator, context: Context, mode: str, log: Log) -> None:
    emulator.inject(path=POLL, status=500, count=2)
    location = CloudPartnerHook().go_live("quick")
    wait(context, location, mode)
    everything = "\n".join(log.lines)
    assert str(emulator.connection["password"]) not in everything
    assert "Bearer" not in everything
