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
    """The task; it hardly rests between two polls."""
    patience = {"poke_interval": 0.01, "max_wait": 0.05, "timeout": 60} | arguments
    if mode != DEFERRED:
        patience |= {"deferrable": False, "mode": mode}
    return OfferStatusSensor(task_id="wait", offer_id=offer, **patience)


def wait(context: Context, offer: str, mode: str, **arguments: Any) -> Any:
    """Execute the task to its end as Airflow does, in a mode; return its result."""
    while True:
        try:
            return finish(sensor(offer, mode, **arguments), context)
        except AirflowRescheduleException:
            context["ti"].first_reschedule_date = context["ti"].first_reschedule_date or datetime.now(UTC)


def polls(emulator: Emulator) -> list[dict[str, Any]]:
    return emulator.requests(path=STATUS)


def answer(emulator: Emulator, status: str, *steps: dict[str, Any], count: int = 1) -> None:
    """Let the next polls find an offer in a status."""
    body = json.dumps({"status": status, "messages": [], "steps": steps})
    emulator.inject(path=STATUS, count=count, replace={"body": body})


def step(status: str, name: str = "publisher-signoff") -> dict[str, Any]:
    return {"id": name, "stepName": name, "status": status, "messages": []}


# --- success ---


@all_modes
@pytest.mark.parametrize("offer", ["next", "next-classic"])
def test_the_signoff_is_waited_for(emulator: Emulator, context: Context, offer: str, mode: str) -> None:
    CloudPartnerHook().publish(offer)
    answer(emulator, "running", count=2)
    result = wait(context, offer, mode)
    assert result["status"] == SIGNOFF
    assert result["steps"][-2]["status"] == SIGNOFF
    assert len(polls(emulator)) > 2


@two_modes
@pytest.mark.parametrize("offer", ["quick", "quick-classic"])
def test_the_release_is_waited_for(emulator: Emulator, context: Context, offer: str, mode: str) -> None:
    CloudPartnerHook().go_live(offer)
    result = wait(context, offer, mode, statuses=["succeeded"])
    assert result["status"] == "succeeded"
    assert state_of(emulator, offer) == "completed"


@all_modes
@pytest.mark.parametrize("field", ["id", "stepName"])
@pytest.mark.parametrize("word", [SIGNOFF, "WaitingForPublisherReview", "Waiting for publisher-review"])
def test_a_signoff_that_is_awaited_counts_though_the_status_is_still_running(
    emulator: Emulator, context: Context, word: str, field: str, mode: str
) -> None:
    answer(emulator, "Running", step("InProgress"))
    answer(emulator, "Running", {"id": "one", "stepName": "two", "status": word, field: "publisher-signoff"})
    assert wait(context, "publishing", mode)["status"] == SIGNOFF
    assert emulator.faults() == []


@two_modes
@pytest.mark.parametrize("word", ["succeeded", "Succeeded", SIGNOFF, "WaitingForPublisherReview"])
def test_both_casings_of_the_service_are_understood(
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
def test_any_status_in_any_spelling_is_waited_for(
    emulator: Emulator, context: Context, statuses: Any, offer: str, expected: str, mode: str
) -> None:
    assert wait(context, offer, mode, statuses=statuses, fail_on=["canceled"])["status"] == expected


def test_a_wait_for_running_does_not_end_at_the_signoff(emulator: Emulator, context: Context) -> None:
    answer(emulator, "running", step(SIGNOFF))
    answer(emulator, "running", step("inProgress"))
    assert wait(context, "publishing", DEFERRED, statuses=["running"])["status"] == "running"
    assert emulator.faults() == []


@two_modes
@pytest.mark.parametrize("offer", ["slow", "slow-classic", "live", "live-classic"])
def test_what_is_there_already_is_not_deferred_and_asked_for_once(
    emulator: Emulator, context: Context, offer: str, mode: str
) -> None:
    result: Any = sensor(offer, mode).execute(context)
    assert result["status"] in (SIGNOFF, "succeeded")
    assert len(polls(emulator)) == 1


@all_modes
def test_the_result_is_a_small_json_object(emulator: Emulator, context: Context, mode: str) -> None:
    said = [{"messageHtml": f"<b>Note {number}</b>", "level": "information"} for number in range(30)]
    answer(emulator, "succeeded", step("complete", "live") | {"messages": said})
    result = wait(context, "publishing", mode)
    assert json.loads(json.dumps(result)) == result
    assert result == {
        "publisher_id": "contoso",
        "offer_id": "publishing",
        "status": "succeeded",
        "steps": [{"id": "live", "name": "live", "status": "complete", "progress_percentage": 100}],
        "messages": [*(f"Note {number}" for number in range(19)), "… and 11 more messages, not shown"],
    }


def test_the_publisher_of_the_task_comes_before_that_of_the_connection(
    emulator: Emulator, context: Context
) -> None:
    assert wait(context, "slow", DEFERRED, publisher_id="fabrikam")["publisher_id"] == "fabrikam"


# --- ends that are none ---


@all_modes
@pytest.mark.parametrize("offer", ["failing", "failing-classic"])
def test_a_failure_carries_step_and_messages_and_is_not_retried(
    emulator: Emulator, context: Context, offer: str, mode: str
) -> None:
    CloudPartnerHook().go_live(offer)
    said = f"The offer contoso/{offer} is failed in step live: No SSH key & no password"
    with pytest.raises(OperationFailedError, match=said) as raised:
        wait(context, offer, mode, statuses=["succeeded"])
    assert isinstance(raised.value, AirflowFailException)
    assert raised.value.step == "live"
    assert raised.value.messages[0] == "No SSH key & no password."
    assert "<" not in str(raised.value)


@all_modes
@pytest.mark.parametrize("offer", ["going-live", "going-live-classic"])
def test_a_cancellation_is_told_and_not_retried(
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
def test_any_status_can_be_one_that_fails(
    emulator: Emulator, context: Context, offer: str, status: str, mode: str
) -> None:
    word = status[0].lower() + status[1:]
    with pytest.raises(OperationFailedError, match=f"contoso/{offer} is {word}"):
        wait(context, offer, mode, statuses=["running"], fail_on=[status])


@two_modes
def test_a_status_that_is_not_to_fail_is_waited_out(emulator: Emulator, context: Context, mode: str) -> None:
    answer(emulator, "failed")
    answer(emulator, "canceled")
    answer(emulator, "succeeded")
    assert wait(context, "publishing", mode, fail_on=[])["status"] == "succeeded"


@two_modes
def test_an_unknown_word_is_told_of_once_and_is_no_end(
    emulator: Emulator, context: Context, mode: str, log: Log
) -> None:
    answer(emulator, "pondering", count=3)
    answer(emulator, "succeeded")
    assert wait(context, "publishing", mode)["status"] == "succeeded"
    assert len(log.containing("unknown offer status 'pondering'")) == 1


@all_modes
def test_a_bad_end_is_a_skip_with_soft_fail(emulator: Emulator, context: Context, mode: str) -> None:
    answer(emulator, "running")
    answer(emulator, "failed")
    with pytest.raises(AirflowSkipException):
        wait(context, "publishing", mode, soft_fail=True)


@all_modes
@pytest.mark.parametrize(
    ("soft_fail", "error"), [(False, AirflowSensorTimeout), (True, AirflowSkipException)]
)
def test_the_timeout_ends_the_wait(
    emulator: Emulator, context: Context, mode: str, soft_fail: bool, error: type[Exception]
) -> None:
    with pytest.raises(error):
        wait(context, "publishing", mode, timeout=0.2, soft_fail=soft_fail)


def test_the_timeout_says_what_was_waited_for_and_what_was_seen(emulator: Emulator, context: Context) -> None:
    said = (
        r"Gave up waiting for contoso/publishing .*the offer did not become waitingForPublisherReview or "
        r"succeeded\. It was last seen running in step displaydummycertify"
    )
    with pytest.raises(AirflowSensorTimeout, match=said):
        wait(context, "publishing", DEFERRED, timeout=0.2)


@two_modes
def test_the_execution_timeout_holds_as_well(emulator: Emulator, context: Context, mode: str) -> None:
    with pytest.raises(AirflowTaskTimeout):
        wait(context, "publishing", mode, execution_timeout=timedelta(seconds=0.2))


@two_modes
@pytest.mark.parametrize(
    ("offer", "error"), [("nowhere", NotFoundError), ("publishing", PermissionDeniedError)]
)
def test_an_answer_that_waiting_does_not_cure_ends_the_wait(
    emulator: Emulator, context: Context, offer: str, error: type[Exception], mode: str
) -> None:
    if error is PermissionDeniedError:
        emulator.inject(path=STATUS, status=403, count=100)
    with pytest.raises(error, match=f"contoso/{offer}"):
        wait(context, offer, mode)


# --- what a wait survives ---

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
def test_a_fault_does_not_end_the_wait(
    emulator: Emulator, context: Context, fault: dict[str, Any], mode: str, log: Log
) -> None:
    answer(emulator, "running")
    emulator.inject(path=STATUS, count=3, **fault)
    assert wait(context, "slow", mode)["status"] == SIGNOFF
    assert [poll["fault"] is None for poll in polls(emulator)] == [False] * 4 + [True]
    assert log.containing("contoso/slow: ")
    assert log.containing("the wait goes on")


@two_modes
def test_revoked_tokens_do_not_end_the_wait(
    emulator: Emulator, context: Context, mode: str, log: Log
) -> None:
    answer(emulator, "running", count=2)
    emulator.inject(path=STATUS, status=500)
    log.react("the wait goes on", emulator.revoke_tokens)
    assert wait(context, "slow", mode)["status"] == SIGNOFF
    assert [poll["status"] for poll in polls(emulator)] == [200, 200, 500, 401, 200]


# --- what the log says ---


@two_modes
def test_a_poll_that_brings_nothing_new_is_not_logged(
    emulator: Emulator, context: Context, mode: str, log: Log
) -> None:
    answer(emulator, "running", step("inProgress", "displaycertify"), count=5)
    answer(emulator, "succeeded", step("complete", "displaycertify"))
    wait(context, "publishing", mode)
    said = [line.partition(" (next poll")[0] for line in log.containing("contoso/publishing: ")]
    assert said == [
        "contoso/publishing: displaycertify inProgress 0 %",
        "contoso/publishing: offer running",
        "contoso/publishing: displaycertify complete 100 %",
        "contoso/publishing: offer succeeded",
    ]


# --- arguments ---


@pytest.mark.parametrize("name", ["statuses", "fail_on"])
@pytest.mark.parametrize("words", [["live"], ["unknown"], [""], [None], [5], "succeeded"], ids=str)
def test_a_word_that_is_no_status_is_refused_when_the_task_is_made(name: str, words: Any) -> None:
    with pytest.raises(ValueError, match=name):
        sensor("slow", **{name: words})


@pytest.mark.parametrize(
    ("statuses", "fail_on"),
    [(["failed"], ["failed"]), (["Canceled"], ["canceled"]), (["completed"], ["succeeded"])],
)
def test_a_status_can_not_be_a_good_and_a_bad_end(statuses: list[str], fail_on: list[str]) -> None:
    with pytest.raises(ValueError, match="can't be both"):
        sensor("slow", statuses=statuses, fail_on=fail_on)


def test_a_wait_without_a_good_end_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one status"):
        sensor("slow", statuses=[])


@two_modes
@pytest.mark.parametrize("field", ["offer_id", "publisher_id"])
@pytest.mark.parametrize("value", ["", "..", "a/b", "a\nb", 5])
def test_an_id_that_none_can_be_is_refused_before_anything_is_sent(
    emulator: Emulator, context: Context, field: str, value: Any, mode: str
) -> None:
    arguments = {"offer": "slow", "publisher_id": None, field.replace("offer_id", "offer"): value}
    with pytest.raises(ValueError, match=field):
        sensor(arguments.pop("offer"), mode, **arguments).execute(context)
    assert emulator.requests() == []


def test_what_a_template_may_stand_in_is_rendered(emulator: Emulator, context: Context) -> None:
    task = sensor("{{ params.offer }}", publisher_id="{{ params.publisher }}")
    task.render_template_fields({"params": {"offer": "slow", "publisher": "contoso"}})
    assert task.execute(context)["status"] == SIGNOFF
    assert set(task.template_fields) == {"cloud_partner_conn_id", "offer_id", "publisher_id"}


# --- the name of a mapped task, and what is stored ---


def test_publisher_and_offer_name_the_mapped_task() -> None:
    task = sensor("web", publisher_id="contoso")
    assert task.map_index_template == "{{ task.subject }}"
    assert task.subject == "contoso/web"


@pytest.mark.parametrize("end", ["succeeded", "failed"])
def test_a_fresh_task_is_named_as_the_one_that_was_deferred(
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


def test_what_is_stored_makes_the_same_trigger(emulator: Emulator, context: Context) -> None:
    answer(emulator, "running", step("inProgress", "displaycertify"))
    trigger = deferral(sensor("publishing"), context).trigger
    path, arguments = json.loads(json.dumps(trigger.serialize()))
    module, _, name = path.rpartition(".")
    made = getattr(import_module(module), name)(**arguments)
    assert isinstance(made, OfferStatusTrigger)
    assert made.serialize() == trigger.serialize()
    assert made.wait.until == (SIGNOFF, "succeeded")
    assert made.seen.steps == (("displaycertify", "inProgress", 0),)
    assert 0 < made.wait.deadline - time.time() <= 60


def test_neither_what_is_stored_nor_the_result_has_a_secret(emulator: Emulator, context: Context) -> None:
    deferred = deferral(sensor("publishing"), context)
    answer(emulator, "succeeded")
    crossing = json.dumps([deferred.trigger.serialize(), resume(sensor("publishing"), context, deferred)])
    assert str(emulator.connection["password"]) not in crossing
    assert str(emulator.connection["login"]) not in crossing


def test_an_offer_that_never_moves_is_left_to_whoever_moves_it(
    emulator: Emulator, context: Context, log: Log
) -> None:
    log.react("offer neverPublished", lambda: CloudPartnerHook().publish("next"))
    assert wait(context, "next", DEFERRED)["status"] == SIGNOFF
    assert state_of(emulator, "next", "publish") == "completed"
