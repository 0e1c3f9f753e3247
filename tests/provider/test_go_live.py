from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException, AirflowTaskTimeout
from harness import (
    Connect,
    Log,
    clear_faults,
    deferral,
    event_of,
    eventually,
    finish,
    operations,
    resume,
    state_of,
)
from relay import running_relay

from airflow_provider_cpp.exceptions import (
    CloudPartnerError,
    ConflictError,
    NotFoundError,
    OperationCanceledError,
    OperationFailedError,
    PermissionDeniedError,
    ValidationError,
)
from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
from airflow_provider_cpp.operators.cloud_partner import GoLiveOperator

if TYPE_CHECKING:
    from pathlib import Path

    from relay import Sent

    from dev.emulator_process import Emulator

Context = dict[str, Any]


def go_live(offer: str = "slow", **arguments: Any) -> GoLiveOperator:
    """The task; it does not rest between two tries."""
    return GoLiveOperator(task_id="go_live", offer_id=offer, **{"poke_interval": 0.01, **arguments})


def posts(emulator: Emulator) -> list[dict[str, Any]]:
    return emulator.requests(method="POST", path="/golive$")


def effects(emulator: Emulator) -> int:
    """How many requests began a go-live."""
    return sum(post["effect"] for post in posts(emulator))


def asked(emulator: Emulator) -> str:
    """What the API was asked, in order, a letter each: L for the list, P for a go-live, . for the rest."""
    letters = []
    for request in emulator.requests(path="^/api/"):
        if request["path"].endswith("/submissions/"):
            letters.append("L")
        else:
            letters.append("P" if request["path"].endswith("/golive") else ".")
    return "".join(letters)


def succeeded(emulator: Emulator, offer: str) -> None:
    eventually(lambda: state_of(emulator, offer) == "completed")


classic_too = pytest.mark.parametrize("offer", ["slow", "slow-classic"])


# --- starting ---


@classic_too
def test_the_location_of_what_was_started_is_returned(
    emulator: Emulator, context: Context, offer: str
) -> None:
    location = go_live(offer).execute(context)
    assert location == operations(emulator, offer)[0]["location"]
    assert effects(emulator) == 1


def test_the_list_is_looked_at_before_anything_is_sent(emulator: Emulator, context: Context) -> None:
    go_live().execute(context)
    assert re.fullmatch(r"L\.*P", asked(emulator))


def test_the_publisher_of_the_task_comes_before_that_of_the_connection(
    emulator: Emulator, context: Context
) -> None:
    location = go_live(publisher_id="fabrikam").execute(context)
    assert location.startswith("/api/publishers/fabrikam/offers/slow/operations/")


@classic_too
def test_a_second_try_adopts_what_runs(emulator: Emulator, context: Context, offer: str, log: Log) -> None:
    first = go_live(offer).execute(context)
    assert go_live(offer).execute(context) == first
    assert len(posts(emulator)) == 1
    assert log.containing("runs already")


def test_what_runs_is_not_adopted_if_it_is_to_fail(emulator: Emulator, context: Context) -> None:
    with pytest.raises(ConflictError, match=r"goLive runs on it .*since 20\d\d-"):
        go_live("going-live", if_running="fail").execute(context)
    assert posts(emulator) == []


@pytest.mark.parametrize("if_running", ["adopt", "fail"])
def test_a_publish_that_runs_is_a_conflict_that_says_since_when(
    emulator: Emulator, context: Context, if_running: str
) -> None:
    with pytest.raises(ConflictError, match=r"contoso/publishing .*publish runs on it .*since 20\d\d-"):
        go_live("publishing", if_running=if_running).execute(context)
    assert posts(emulator) == []


@pytest.mark.parametrize(("offer", "state"), [("slow", "succeeded"), ("slow-classic", "running")])
def test_a_publish_that_awaits_the_signoff_does_not_block(
    emulator: Emulator, context: Context, offer: str, state: str
) -> None:
    assert operations(emulator, offer, "publish")[0]["submissionState"] == state
    go_live(offer, if_running="fail").execute(context)
    assert effects(emulator) == 1


def test_one_that_failed_is_not_adopted(emulator: Emulator, context: Context) -> None:
    first = go_live("failing").execute(context)
    eventually(lambda: state_of(emulator, "failing") == "failed")
    assert go_live("failing").execute(context) != first
    assert effects(emulator) == 2


@classic_too
def test_one_that_was_canceled_is_not_adopted(emulator: Emulator, context: Context, offer: str) -> None:
    go_live(offer).execute(context)
    CloudPartnerHook().cancel(offer)
    eventually(lambda: state_of(emulator, offer) == "canceled")
    go_live(offer).execute(context)
    assert effects(emulator) == 2
    assert state_of(emulator, offer) == "running"


@pytest.mark.parametrize("offer", ["quick", "quick-classic"])
def test_one_that_succeeded_since_the_dag_run_began_is_adopted(
    emulator: Emulator, context: Context, offer: str
) -> None:
    first = go_live(offer).execute(context)
    succeeded(emulator, offer)
    assert go_live(offer).execute(context) == first
    assert len(posts(emulator)) == 1


def test_one_that_succeeded_before_the_dag_run_began_is_not_adopted(
    emulator: Emulator, context: Context
) -> None:
    context["dag_run"].start_date = datetime.now(UTC) + timedelta(minutes=1)
    go_live("quick").execute(context)
    succeeded(emulator, "quick")
    with pytest.raises(ValidationError, match="live already"):
        go_live("quick").execute(context)
    assert [post["status"] for post in posts(emulator)] == [202, 400]


def test_one_that_succeeded_is_not_adopted_when_there_is_a_newer_preview(
    emulator: Emulator, context: Context
) -> None:
    first = go_live("quick").execute(context)
    succeeded(emulator, "quick")
    hook = CloudPartnerHook()
    hook.publish("quick")
    eventually(lambda: hook.get_offer_status("quick").awaiting_publisher)
    assert go_live("quick").execute(context) != first
    assert effects(emulator) == 2


# --- what is live already ---


@pytest.mark.parametrize("offer", ["live", "live-classic"])
def test_what_is_live_already_is_skipped_if_asked_for(
    emulator: Emulator, context: Context, offer: str
) -> None:
    context["dag_run"].start_date = datetime.now(UTC) + timedelta(minutes=1)
    with pytest.raises(AirflowSkipException, match="production has the preview's version already"):
        go_live(offer, if_live="skip").execute(context)
    assert posts(emulator) == []


def test_what_is_live_already_is_a_success_if_asked_for(emulator: Emulator, context: Context) -> None:
    context["dag_run"].start_date = datetime.now(UTC) + timedelta(minutes=1)
    assert go_live("live", if_live="succeed", wait_for_completion=True).execute(context) is None
    assert posts(emulator) == []


def test_what_is_live_already_is_submitted_by_default(emulator: Emulator, context: Context) -> None:
    context["dag_run"].start_date = datetime.now(UTC) + timedelta(minutes=1)
    with pytest.raises(ValidationError, match="live already"):
        go_live("live").execute(context)
    assert len(posts(emulator)) == 1


@pytest.mark.parametrize("offer", ["slow", "update"])
@pytest.mark.parametrize("if_live", ["skip", "succeed"])
def test_what_is_not_live_yet_is_submitted(
    emulator: Emulator, context: Context, offer: str, if_live: str
) -> None:
    assert go_live(offer, if_live=if_live).execute(context)
    assert effects(emulator) == 1


# --- exactly once, whatever fails ---

HTML = "<html><h1>502 Bad Gateway</h1></html>"
FOREIGN = "https://elsewhere.example/api/publishers/contoso/offers/slow/operations/1"
UNKNOWN_OUTCOMES = {
    "closed before": {"close": "before"},
    "closed after": {"close": "after"},
    "500 before": {"status": 500},
    "500 after": {"replace": {"status": 500, "body": ""}},
    "502 before": {"status": 502, "body": HTML},
    "502 after": {"replace": {"status": 502, "body": HTML}},
    "503 before": {"status": 503},
    "503 after": {"replace": {"status": 503}},
    "504 after": {"replace": {"status": 504, "body": HTML}},
    "408 after": {"replace": {"status": 408}},
    "202 without a location": {"replace": {"headers": {"Location": None}}},
    "202 with a foreign location": {"replace": {"headers": {"Location": FOREIGN}}},
    "202 with a useless location": {"replace": {"headers": {"Location": "/api/publishers"}}},
}


@classic_too
@pytest.mark.parametrize("fault", UNKNOWN_OUTCOMES.values(), ids=UNKNOWN_OUTCOMES)
def test_an_unknown_outcome_is_looked_up_and_one_go_live_comes_of_it(
    emulator: Emulator, context: Context, offer: str, fault: dict[str, Any]
) -> None:
    emulator.inject(path="golive$", **fault)
    location = go_live(offer).execute(context)
    assert effects(emulator) == 1
    (running,) = operations(emulator, offer)
    assert location == running["location"]
    assert "PP" not in asked(emulator).replace(".", "")


@pytest.mark.parametrize(
    "fault",
    [{"status": 429, "headers": {"Retry-After": "1"}}, {"status": 503, "headers": {"Retry-After": "1"}}],
    ids=["429", "503"],
)
def test_a_request_that_is_put_off_is_repeated_after_the_wait_asked_for(
    emulator: Emulator, context: Context, fault: dict[str, Any]
) -> None:
    emulator.inject(path="golive$", **fault)
    go_live().execute(context)
    first, second = (datetime.fromisoformat(post["time"]) for post in posts(emulator))
    assert second - first >= timedelta(seconds=1)
    assert effects(emulator) == 1


def test_a_list_that_lags_behind_is_looked_at_again(emulator: Emulator, context: Context) -> None:
    emulator.inject(path="golive$", close="after")
    emulator.inject(path="submissions/$", skip=1, count=3, replace={"body": "[]"})
    go_live().execute(context)
    assert len(posts(emulator)) == 1
    assert effects(emulator) == 1


def test_a_list_that_lags_too_long_leaves_it_to_the_service_to_refuse_a_second(
    emulator: Emulator, context: Context
) -> None:
    emulator.inject(path="golive$", close="after")
    emulator.inject(path="submissions/$", skip=1, count=7, replace={"body": "[]"})
    location = go_live().execute(context)
    assert location == operations(emulator, "slow")[0]["location"]
    assert [post["status"] for post in posts(emulator)] == [None, 409]
    assert effects(emulator) == 1


def test_what_was_accepted_is_not_sent_again_though_it_can_not_be_found(
    emulator: Emulator, context: Context
) -> None:
    emulator.inject(path="golive$", replace={"headers": {"Location": None}})
    emulator.inject(path="submissions/$", skip=1, count=100, replace={"body": "[]"})
    with pytest.raises(CloudPartnerError, match="there is no Location header") as raised:
        go_live().execute(context)
    assert raised.value.accepted
    assert len(posts(emulator)) == 1


def test_an_outcome_that_stays_unknown_ends_in_the_error_and_the_next_try_adopts(
    emulator: Emulator, context: Context
) -> None:
    emulator.inject(path="golive$", close="after")
    emulator.inject(path="submissions/$", skip=1, count=100, status=500)
    with pytest.raises(CloudPartnerError, match="500"):
        go_live().execute(context)
    begun = operations(emulator, "slow")[0]["location"]
    clear_faults(emulator)
    assert go_live().execute(context) == begun
    assert len(posts(emulator)) == 1


def test_outages_in_every_question_before_are_waited_out(emulator: Emulator, context: Context) -> None:
    for path in ("submissions/$", "status$", "oauth2/v2.0/token"):
        emulator.inject(path=path, status=500, count=2)
    go_live().execute(context)
    assert len(posts(emulator)) == 1


def test_a_request_that_never_reached_the_service_is_repeated(
    emulator: Emulator, connect: Connect, context: Context, tmp_path: Path, log: Log
) -> None:
    with running_relay(emulator, tmp_path) as relay:
        connect(emulator, host=relay.url, extra={"verify": relay.verify})

        def hang_up(sent: Sent) -> None:
            # The list of operations is the last lookup before the request.
            if "/submissions" in sent.target:
                relay.stop()

        relay.after = hang_up
        log.react("was not sent", relay.start)
        location = go_live().execute(context)
    assert location == operations(emulator, "slow")[0]["location"]
    assert log.containing("was not sent")
    assert len(posts(emulator)) == 1


def test_what_somebody_else_began_in_between_is_adopted(
    emulator: Emulator, connect: Connect, context: Context, tmp_path: Path
) -> None:
    with running_relay(emulator, tmp_path) as relay:
        connect(emulator, host=relay.url, extra={"verify": relay.verify})
        other: list[str] = []

        def overtake(sent: Sent) -> None:
            if sent.method == "POST" and not other:
                other.append("")
                connect(emulator)
                other[0] = CloudPartnerHook().go_live("slow")

        relay.before = overtake
        location = go_live().execute(context)
    assert [location] == other
    assert [post["status"] for post in posts(emulator)] == [202, 409]


def test_what_somebody_else_began_in_between_is_a_conflict_if_asked_for(
    emulator: Emulator, connect: Connect, context: Context, tmp_path: Path
) -> None:
    with running_relay(emulator, tmp_path) as relay:
        connect(emulator, host=relay.url, extra={"verify": relay.verify})

        def overtake(sent: Sent) -> None:
            if sent.method == "POST":
                connect(emulator)
                CloudPartnerHook().go_live("slow")

        relay.before = overtake
        with pytest.raises(ConflictError, match="goLive runs on it"):
            go_live(if_running="fail").execute(context)
    assert effects(emulator) == 1


def test_a_worker_that_is_killed_after_its_request_leaves_what_the_next_adopts(
    emulator: Emulator, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.inject(path="golive$", close="after")

    class KilledError(BaseException):
        pass

    def killed(*_: Any) -> None:
        raise KilledError

    with monkeypatch.context() as until_killed:
        until_killed.setattr("airflow_provider_cpp.release.lookup.OfferOperations.look", killed)
        with pytest.raises(KilledError):
            go_live().execute(context)
    assert go_live().execute(context) == operations(emulator, "slow")[0]["location"]
    assert len(posts(emulator)) == 1


@pytest.mark.parametrize(
    ("offer", "publisher", "error"),
    [("nowhere", None, NotFoundError), ("next", None, ValidationError), ("slow", "nobody", NotFoundError)],
)
def test_a_refusal_is_raised_at_once(
    emulator: Emulator, context: Context, offer: str, publisher: str | None, error: type[Exception]
) -> None:
    with pytest.raises(error):
        go_live(offer, publisher_id=publisher).execute(context)
    assert len(emulator.requests(path="^/api/")) <= 3


def test_a_principal_that_is_not_registered_is_refused_at_once(emulator: Emulator, context: Context) -> None:
    emulator.inject(path="submissions/$", status=403)
    with pytest.raises(PermissionDeniedError, match="managed application in local directory"):
        go_live().execute(context)
    assert posts(emulator) == []


# --- arguments ---


@pytest.mark.parametrize("field", ["offer_id", "publisher_id"])
@pytest.mark.parametrize("value", ["", " ", ".", "..", "a/b", "a\\b", "a?b", "a#b", "a\nb", 5])
def test_an_id_that_none_can_be_is_refused_before_anything_is_sent(
    emulator: Emulator, context: Context, field: str, value: Any
) -> None:
    arguments = {"offer_id": "slow", field: value}
    with pytest.raises(ValueError, match=field):
        go_live(arguments.pop("offer_id"), **arguments).execute(context)
    assert emulator.requests() == []


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
def test_a_wrong_argument_is_refused_when_the_task_is_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        go_live(**wrong)


def test_ids_and_connection_are_templated_and_name_the_mapped_task() -> None:
    task = go_live("web", publisher_id="contoso")
    assert set(task.template_fields) == {"cloud_partner_conn_id", "offer_id", "publisher_id", "version"}
    assert task.map_index_template == "{{ task.subject }}"
    assert task.subject == "contoso/web"


# --- waiting for the completion ---

both_ways = pytest.mark.parametrize("deferrable", [True, False])


@both_ways
@pytest.mark.parametrize("offer", ["quick", "quick-classic"])
def test_the_completion_is_waited_for(
    emulator: Emulator, context: Context, offer: str, deferrable: bool
) -> None:
    task = go_live(offer, wait_for_completion=True, deferrable=deferrable, max_wait=0.05)
    location = finish(task, context)
    assert location == operations(emulator, offer)[0]["location"]
    assert state_of(emulator, offer) == "completed"
    assert len(posts(emulator)) == 1


def test_the_location_can_be_read_while_the_task_waits(emulator: Emulator, context: Context) -> None:
    deferral(go_live(wait_for_completion=True), context)
    assert context["ti"].xcoms == {"return_value": operations(emulator, "slow")[0]["location"]}


@both_ways
def test_a_go_live_that_fails_says_in_which_step_and_why(
    emulator: Emulator, context: Context, deferrable: bool
) -> None:
    task = go_live("failing", wait_for_completion=True, deferrable=deferrable, max_wait=0.05)
    with pytest.raises(OperationFailedError, match="in step Live: No SSH key & no password") as raised:
        finish(task, context)
    assert raised.value.step == "Live"
    assert raised.value.messages[0] == "No SSH key & no password."


@both_ways
def test_a_go_live_that_is_canceled_meanwhile_says_so(
    emulator: Emulator, context: Context, deferrable: bool, log: Log
) -> None:
    log.react("Live inProgress", lambda: CloudPartnerHook().cancel("slow"))
    task = go_live(wait_for_completion=True, deferrable=deferrable, max_wait=0.05)
    with pytest.raises(OperationCanceledError, match="canceled at the service"):
        finish(task, context)


@both_ways
@pytest.mark.parametrize("cancel", [True, False])
def test_the_execution_timeout_cancels_the_operation_only_if_asked_for(
    emulator: Emulator, context: Context, deferrable: bool, cancel: bool
) -> None:
    task = go_live(
        wait_for_completion=True,
        deferrable=deferrable,
        cancel_on_kill=cancel,
        max_wait=0.05,
        execution_timeout=timedelta(seconds=0.3),
    )
    with pytest.raises(AirflowTaskTimeout, match="Gave up waiting for contoso/slow"):
        finish(task, context)
    assert len(emulator.requests(method="POST", path="/cancel$")) == cancel
    if cancel:
        assert eventually(lambda: state_of(emulator, "slow") == "canceled")
    else:
        assert state_of(emulator, "slow") == "running"


def test_a_kill_before_the_wait_cancels_nothing(emulator: Emulator, context: Context) -> None:
    task = go_live(cancel_on_kill=True)
    task.on_kill()
    task.execute(context)
    task.on_kill()
    assert emulator.requests(path="/cancel$") == []


def test_a_cancel_that_is_refused_does_not_hide_the_timeout(
    emulator: Emulator, context: Context, log: Log
) -> None:
    task = go_live(wait_for_completion=True, cancel_on_kill=True, execution_timeout=timedelta(seconds=0.5))
    deferred = deferral(task, context)
    event = event_of(deferred)
    emulator.inject(path="/cancel$", status=403)
    with pytest.raises(AirflowTaskTimeout):
        task.execute_complete(context, event)
    assert log.containing("could not be canceled")


def test_a_fresh_worker_knows_from_the_event_what_to_cancel(emulator: Emulator, context: Context) -> None:
    arguments = {"wait_for_completion": True, "cancel_on_kill": True}
    deferred = deferral(go_live(execution_timeout=timedelta(seconds=0.5), **arguments), context)
    task = go_live(publisher_id="contoso", execution_timeout=timedelta(seconds=0.5), **arguments)
    with pytest.raises(AirflowTaskTimeout):
        resume(task, context, deferred)
    assert eventually(lambda: state_of(emulator, "slow") == "canceled")


def test_an_operation_that_was_not_seen_in_the_whole_wait_is_canceled_as_well(
    emulator: Emulator, context: Context
) -> None:
    arguments = {"wait_for_completion": True, "cancel_on_kill": True, "max_wait": 0.05}
    deferred = deferral(go_live(execution_timeout=timedelta(seconds=0.5), **arguments), context)
    emulator.inject(path="/operations/", status=500, count=1000)
    event = event_of(deferred)
    clear_faults(emulator)
    task = go_live(execution_timeout=timedelta(seconds=0.5), **arguments)
    with pytest.raises(AirflowTaskTimeout):
        task.execute_complete(context, event)
    assert len(emulator.requests(method="POST", path="/cancel$")) == 1
