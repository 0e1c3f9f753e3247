from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from airflow.exceptions import AirflowRescheduleException
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
)
from harness import HTML, Log, deferral, finish, resume, state_of

from airflow_provider_cpp.core import polling
from airflow_provider_cpp.exceptions import (
    NotFoundError,
    OperationCanceledError,
    OperationFailedError,
    PermissionDeniedError,
)
from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
from airflow_provider_cpp.sensors.cloud_partner import OfferStatusSensor
from airflow_provider_cpp.triggers.cloud_partner import OfferStatusTrigger

if TYPE_CHECKING:
    from dev.emulator_process import Emulator

Context = Any

STATUS = "/status$"
DEFERRED, POKE, RESCHEDULE = "deferred", "poke", "reschedule"
two_modes = pytest.mark.parametrize("mode", [DEFERRED, POKE])
all_modes = pytest.mark.parametrize("mode", [DEFERRED, POKE, RESCHEDULE])
SIGNOFF = "waitingForPublisherReview"


def sensor(offer: Any, mode: str = DEFERRED, **arguments: Any) -> OfferStatusSensor:
    """The task, with short intervals."""
    limits = {"poke_interval": 0.01, "max_wait": 0.05, "timeout": 60} | arguments
    if mode != DEFERRED:
        limits |= {"deferrable": False, "mode": mode}
    return OfferStatusSensor(task_id="wait", offer_id=offer, **limits)


def wait(context: Context, offer: str, mode: str, **arguments: Any) -> Any:
    """Run the task in a mode, as Airflow does, and return its result."""
    while True:
        try:
            return finish(sensor(offer, mode, **arguments), context)
        except AirflowRescheduleException:
            context["ti"].first_reschedule_date = context["ti"].first_reschedule_date or datetime.now(UTC)


def polls(emulator: Emulator) -> list[dict[str, Any]]:
    return emulator.requests(path=STATUS)


def answer(emulator: Emulator, status: str, *steps: dict[str, Any], count: int = 1) -> None:
    """Set the status that the next polls find."""
    body = json.dumps({"status": status, "messages": [], "steps": steps})
    emulator.inject(path=STATUS, count=count, replace={"body": body})


def step(status: str, name: str = "publisher-signoff") -> dict[str, Any]:
    return {"id": name, "stepName": name, "status": status, "messages": []}


# --- success ---


@all_modes
@pytest.mark.parametrize("offer", ["next", "next-classic"])
def test_sensor_waits_for_the_signoff_by_default(
    emulator: Emulator, context: Context, offer: str, mode: str
) -> None:
    CloudPartnerHook().publish(offer)
    answer(emulator, "running", count=2)
    result = wait(context, offer, mode)
    assert result["status"] == SIGNOFF
    assert result["steps"][-2]["status"] == SIGNOFF
    assert len(polls(emulator)) > 2


@two_modes
@pytest.mark.parametrize("offer", ["quick", "quick-classic"])
def test_sensor_waits_until_the_offer_is_live(
    emulator: Emulator, context: Context, offer: str, mode: str
) -> None:
    CloudPartnerHook().go_live(offer)
    result = wait(context, offer, mode, statuses=["succeeded"])
    assert result["status"] == "succeeded"
    assert state_of(emulator, offer) == "completed"


@all_modes
@pytest.mark.parametrize("field", ["id", "stepName"])
@pytest.mark.parametrize("word", [SIGNOFF, "WaitingForPublisherReview", "Waiting for publisher-review"])
def test_awaited_signoff_counts_while_the_status_is_running(
    emulator: Emulator, context: Context, word: str, field: str, mode: str
) -> None:
    answer(emulator, "Running", step("InProgress"))
    answer(emulator, "Running", {"id": "one", "stepName": "two", "status": word, field: "publisher-signoff"})
    assert wait(context, "publishing", mode)["status"] == SIGNOFF
    assert emulator.faults() == []


@two_modes
@pytest.mark.parametrize("word", ["succeeded", "Succeeded", SIGNOFF, "WaitingForPublisherReview"])
def test_camel_and_pascal_case_are_understood(
    emulator: Emulator, context: Context, word: str, mode: str
) -> None:
    answer(emulator, word)
    assert wait(context, "publishing", mode)["status"] == word[0].lower() + word[1:]


@two_modes
@pytest.mark.parametrize(
    ("statuses", "offer", "expected"),
    [
        (["WaitingForPublisherReview"], "slow", SIGNOFF),
        (["waiting-for-publisher-review"], "slow-classic", SIGNOFF),
        (["running"], "publishing", "running"),
        (["Running"], "publishing-classic", "running"),
        (["NeverPublished"], "next", "neverPublished"),
        (("failed", "neverPublished"), "next-classic", "neverPublished"),
    ],
)
def test_statuses_may_have_any_spelling(
    emulator: Emulator, context: Context, statuses: Any, offer: str, expected: str, mode: str
) -> None:
    assert wait(context, offer, mode, statuses=statuses, fail_on=["canceled"])["status"] == expected


def test_running_is_not_reached_at_the_signoff(emulator: Emulator, context: Context) -> None:
    answer(emulator, "running", step(SIGNOFF))
    answer(emulator, "running", step("inProgress"))
    assert wait(context, "publishing", DEFERRED, statuses=["running"])["status"] == "running"
    assert emulator.faults() == []


@two_modes
@pytest.mark.parametrize("offer", ["slow", "slow-classic", "live", "live-classic"])
def test_reached_status_takes_one_poll_and_no_deferral(
    emulator: Emulator, context: Context, offer: str, mode: str
) -> None:
    result: Any = sensor(offer, mode).execute(context)
    assert result["status"] in (SIGNOFF, "succeeded")
    assert len(polls(emulator)) == 1


@all_modes
def test_result_is_a_small_json_object(emulator: Emulator, context: Context, mode: str) -> None:
    said = [{"messageHtml": f"<b>Note {number}</b>", "level": "information"} for number in range(30)]
    answer(emulator, "succeeded", step("complete", "live") | {"messages": said})
    result = wait(context, "publishing", mode)
    assert json.loads(json.dumps(result)) == result
    assert result == {
        "publisher_id": "contoso",
        "offer_id": "publishing",
        "version": None,
        "status": "succeeded",
        "progress_percentage": 100,
        "steps": [{"id": "live", "name": "live", "status": "complete", "progress_percentage": 100}],
        "messages": [*(f"Note {number}" for number in range(19)), "… and 11 more messages, not shown"],
    }


def test_publisher_of_the_task_overrides_the_connections(emulator: Emulator, context: Context) -> None:
    assert wait(context, "slow", DEFERRED, publisher_id="fabrikam")["publisher_id"] == "fabrikam"


# --- failures ---


@all_modes
@pytest.mark.parametrize("offer", ["failing", "failing-classic"])
def test_failed_status_fails_without_retries_with_the_reason(
    emulator: Emulator, context: Context, offer: str, mode: str
) -> None:
    CloudPartnerHook().go_live(offer)
    text = f"The status of the offer contoso/{offer} is failed in step live: No SSH key & no password"
    with pytest.raises(OperationFailedError, match=text) as raised:
        wait(context, offer, mode, statuses=["succeeded"])
    assert isinstance(raised.value, AirflowFailException)
    assert raised.value.step == "live"
    assert raised.value.messages[0] == "No SSH key & no password."
    assert "<" not in str(raised.value)


@all_modes
@pytest.mark.parametrize("offer", ["going-live", "going-live-classic"])
def test_canceled_status_fails_without_retries(
    emulator: Emulator, context: Context, offer: str, mode: str
) -> None:
    CloudPartnerHook().cancel(offer)
    with pytest.raises(OperationCanceledError, match=f"contoso/{offer} is canceled") as raised:
        wait(context, offer, mode)
    assert isinstance(raised.value, AirflowFailException)
    assert raised.value.step == "live"


@two_modes
@pytest.mark.parametrize(
    ("offer", "status"), [("next", "neverPublished"), ("slow", SIGNOFF), ("live", "Succeeded")]
)
def test_fail_on_may_contain_any_status(
    emulator: Emulator, context: Context, offer: str, status: str, mode: str
) -> None:
    word = status[0].lower() + status[1:]
    with pytest.raises(OperationFailedError, match=f"contoso/{offer} is {word}"):
        wait(context, offer, mode, statuses=["running"], fail_on=[status])


@two_modes
def test_status_outside_fail_on_does_not_end_polling(emulator: Emulator, context: Context, mode: str) -> None:
    answer(emulator, "failed")
    answer(emulator, "canceled")
    answer(emulator, "succeeded")
    assert wait(context, "publishing", mode, fail_on=[])["status"] == "succeeded"


@two_modes
def test_unknown_status_is_one_warning_and_polling_continues(
    emulator: Emulator, context: Context, mode: str, log: Log
) -> None:
    answer(emulator, "pondering", count=3)
    answer(emulator, "succeeded")
    assert wait(context, "publishing", mode)["status"] == "succeeded"
    assert len(log.containing("the unknown status 'pondering'")) == 1


@all_modes
def test_soft_fail_skips_a_failed_status(emulator: Emulator, context: Context, mode: str) -> None:
    answer(emulator, "running")
    answer(emulator, "failed")
    with pytest.raises(AirflowSkipException):
        wait(context, "publishing", mode, soft_fail=True)


@all_modes
@pytest.mark.parametrize(
    ("soft_fail", "error"), [(False, AirflowSensorTimeout), (True, AirflowSkipException)]
)
def test_timeout_ends_polling(
    emulator: Emulator, context: Context, mode: str, soft_fail: bool, error: type[Exception]
) -> None:
    with pytest.raises(error):
        wait(context, "publishing", mode, timeout=0.2, soft_fail=soft_fail)


def test_timeout_names_statuses_and_the_last_status(emulator: Emulator, context: Context) -> None:
    text = (
        r"Polling of contoso/publishing timed out .*the offer did not reach the status "
        r"waitingForPublisherReview or succeeded\. Last status: running in step displaydummycertify"
    )
    with pytest.raises(AirflowSensorTimeout, match=text):
        wait(context, "publishing", DEFERRED, timeout=0.2)


@two_modes
def test_execution_timeout_ends_polling(emulator: Emulator, context: Context, mode: str) -> None:
    with pytest.raises(AirflowTaskTimeout):
        wait(context, "publishing", mode, execution_timeout=timedelta(seconds=0.2))


@two_modes
@pytest.mark.parametrize(
    ("offer", "error"), [("nowhere", NotFoundError), ("publishing", PermissionDeniedError)]
)
def test_error_that_no_poll_can_cure_ends_polling(
    emulator: Emulator,
    context: Context,
    offer: str,
    error: type[Exception],
    mode: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(polling, "NOT_FOUND_SECONDS", 0.2)
    if error is PermissionDeniedError:
        emulator.inject(path=STATUS, status=403, count=100)
    with pytest.raises(error, match=f"contoso/{offer}"):
        wait(context, offer, mode)


# --- faults ---

SURVIVED = {
    "503": {"status": 503, "headers": {"Retry-After": "0"}},
    "500": {"status": 500},
    "HTML": {"status": 200, "body": HTML},
    "no status": {"status": 200, "body": "{}"},
    "closed before": {"close": "before"},
    "closed after": {"close": "after"},
    "cut off": {"truncate": 20},
    "404 at first": {"status": 404},
}


@all_modes
@pytest.mark.parametrize("fault", SURVIVED.values(), ids=SURVIVED)
def test_transient_fault_does_not_end_polling(
    emulator: Emulator, context: Context, fault: dict[str, Any], mode: str, log: Log
) -> None:
    answer(emulator, "running")
    emulator.inject(path=STATUS, count=3, **fault)
    assert wait(context, "slow", mode)["status"] == SIGNOFF
    assert [poll["fault"] is None for poll in polls(emulator)] == [False] * 4 + [True]
    assert log.containing("contoso/slow: ")
    assert log.containing("polling continues")


@two_modes
def test_revoked_token_does_not_end_polling(
    emulator: Emulator, context: Context, mode: str, log: Log
) -> None:
    answer(emulator, "running", count=2)
    emulator.inject(path=STATUS, status=500)
    log.react("polling continues", emulator.revoke_tokens)
    assert wait(context, "slow", mode)["status"] == SIGNOFF
    assert [poll["status"] for poll in polls(emulator)] == [200, 200, 500, 401, 200]


# --- log ---


@two_modes
def test_poll_without_a_change_is_not_logged(
    emulator: Emulator, context: Context, mode: str, log: Log
) -> None:
    answer(emulator, "running", step("inProgress", "displaycertify"), count=5)
    answer(emulator, "succeeded", step("complete", "displaycertify"))
    wait(context, "publishing", mode)
    lines = [line.partition(" Next poll")[0] for line in log.containing("contoso/publishing: ")]
    assert lines == [
        "contoso/publishing: step displaycertify is in progress (0 %).",
        "contoso/publishing: the offer's status is running.",
        "contoso/publishing: step displaycertify is complete.",
        "contoso/publishing: the offer's status is succeeded.",
    ]


# --- arguments ---


@pytest.mark.parametrize("name", ["statuses", "fail_on"])
@pytest.mark.parametrize("words", [["live"], ["unknown"], [""], [None], [5], "succeeded"], ids=str)
def test_unknown_status_is_rejected_by_the_constructor(name: str, words: Any) -> None:
    with pytest.raises(ValueError, match=name):
        sensor("slow", **{name: words})


@pytest.mark.parametrize(
    ("statuses", "fail_on"),
    [(["failed"], ["failed"]), (["Canceled"], ["canceled"]), (["completed"], ["succeeded"])],
)
def test_status_in_both_lists_is_rejected(statuses: list[str], fail_on: list[str]) -> None:
    with pytest.raises(ValueError, match="can't be both"):
        sensor("slow", statuses=statuses, fail_on=fail_on)


def test_empty_statuses_are_rejected() -> None:
    with pytest.raises(ValueError, match="at least one status"):
        sensor("slow", statuses=[])


@two_modes
@pytest.mark.parametrize("field", ["offer_id", "publisher_id"])
@pytest.mark.parametrize("value", ["", "..", "a/b", "a\nb", 5])
def test_invalid_id_is_rejected_before_any_request(
    emulator: Emulator, context: Context, field: str, value: Any, mode: str
) -> None:
    arguments = {"offer": "slow", "publisher_id": None, field.replace("offer_id", "offer"): value}
    with pytest.raises(ValueError, match=field):
        sensor(arguments.pop("offer"), mode, **arguments).execute(context)
    assert emulator.requests() == []


def test_ids_are_templated(emulator: Emulator, context: Context) -> None:
    task = sensor("{{ params.offer }}", publisher_id="{{ params.publisher }}")
    task.render_template_fields({"params": {"offer": "slow", "publisher": "contoso"}})
    assert task.execute(context)["status"] == SIGNOFF
    assert set(task.template_fields) == {"cloud_partner_conn_id", "offer_id", "publisher_id"}


# --- name of a mapped task, stored trigger ---


def test_publisher_and_offer_name_the_mapped_task() -> None:
    task = sensor("web", publisher_id="contoso")
    assert task.map_index_template == "{{ task.subject }}"
    assert task.subject == "contoso/web"


@pytest.mark.parametrize("end", ["succeeded", "failed"])
def test_resumed_task_has_the_name_of_the_deferred_one(
    emulator: Emulator, context: Context, end: str
) -> None:
    first, fresh = sensor("publishing"), sensor("publishing")
    deferred = deferral(first, context)
    answer(emulator, end)
    if end == "failed":
        with pytest.raises(OperationFailedError):
            resume(fresh, context, deferred)
    else:
        resume(fresh, context, deferred)
    assert fresh.subject == first.subject == "contoso/publishing"


def test_trigger_survives_storage(emulator: Emulator, context: Context) -> None:
    answer(emulator, "running", step("inProgress", "displaycertify"))
    trigger = deferral(sensor("publishing"), context).trigger
    path, arguments = json.loads(json.dumps(trigger.serialize()))
    module, _, name = path.rpartition(".")
    made = getattr(import_module(module), name)(**arguments)
    assert isinstance(made, OfferStatusTrigger)
    assert made.serialize() == trigger.serialize()
    assert made.spec.until == (SIGNOFF, "succeeded")
    assert made.state.steps == (("displaycertify", "inProgress", 0),)
    assert 0 < made.spec.deadline - time.time() <= 60


def test_stored_trigger_and_result_contain_no_secret(emulator: Emulator, context: Context) -> None:
    deferred = deferral(sensor("publishing"), context)
    answer(emulator, "succeeded")
    crossing = json.dumps([deferred.trigger.serialize(), resume(sensor("publishing"), context, deferred)])
    assert str(emulator.connection["password"]) not in crossing
    assert str(emulator.connection["login"]) not in crossing


def test_publish_by_someone_else_is_noticed(emulator: Emulator, context: Context, log: Log) -> None:
    log.react("status is neverPublished", lambda: CloudPartnerHook().publish("next"))
    assert wait(context, "next", DEFERRED)["status"] == SIGNOFF
    assert state_of(emulator, "next", "publish") == "completed"
