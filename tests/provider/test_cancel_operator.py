"""`CancelOperator`; what a hook and a kill do to cancel is in `test_canceling`."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout
from harness import UNKNOWN_OUTCOMES, Log, deferral, eventually, finish, operations, state_of

from airflow_provider_cpp.exceptions import (
    CloudPartnerError,
    NotFoundError,
    OperationFailedError,
    PermissionDeniedError,
)
from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
from airflow_provider_cpp.operators.cloud_partner import CancelOperator

if TYPE_CHECKING:
    from dev.emulator_process import Emulator

Context = Any

POLL = "/operations/"
NOTHING_RUNS = ["next", "next-classic", "live", "live-classic"]
RUNNING = {
    "publishing": "publish",
    "publishing-classic": "publish",
    "going-live": "goLive",
    "going-live-classic": "goLive",
}
whatever_runs = pytest.mark.parametrize(("offer", "kind"), RUNNING.items(), ids=RUNNING)
nothing_runs = pytest.mark.parametrize("offer", NOTHING_RUNS)
both_ways = pytest.mark.parametrize("deferrable", [True, False])
at_signoff = pytest.mark.parametrize("offer", ["slow", "slow-classic"])


def cancel(offer: str, **arguments: Any) -> CancelOperator:
    """The task; it hardly rests between two polls."""
    patience = {"poke_interval": 0.01, "max_wait": 0.05, "timeout": 60}
    return CancelOperator(task_id="cancel", offer_id=offer, **{**patience, **arguments})


def posts(emulator: Emulator) -> list[dict[str, Any]]:
    return emulator.requests(method="POST", path="/cancel$")


def effects(emulator: Emulator) -> int:
    """How many requests canceled something."""
    return sum(post["effect"] for post in posts(emulator))


def location_of(emulator: Emulator, offer: str, kind: str) -> str:
    return str(operations(emulator, offer, kind)[0]["location"])


def show(emulator: Emulator, location: str, count: int, **changes: Any) -> None:
    """Let the next polls of an operation be answered as now, but for some changes."""
    body = json.dumps(CloudPartnerHook().get_operation(location).raw | changes)
    emulator.inject(path=re.escape(location.partition("?")[0]), count=count, replace={"body": body})


# --- nothing runs ---


@nothing_runs
def test_where_nothing_runs_nothing_is_sent_and_none_returned(
    emulator: Emulator, context: Context, offer: str, log: Log
) -> None:
    assert cancel(offer).execute(context) is None
    assert posts(emulator) == []
    assert log.containing(f"contoso/{offer}: nothing runs")


@nothing_runs
def test_that_nothing_runs_is_an_error_if_asked_for(emulator: Emulator, context: Context, offer: str) -> None:
    with pytest.raises(NotFoundError, match=f"contoso/{offer}: nothing runs on the offer"):
        cancel(offer, missing_ok=False).execute(context)
    assert posts(emulator) == []


def test_an_offer_that_does_not_exist_is_an_error_though_nothing_runs_on_it(
    emulator: Emulator, context: Context
) -> None:
    with pytest.raises(NotFoundError, match="contoso/nowhere"):
        cancel("nowhere").execute(context)
    assert posts(emulator) == []


# --- what runs is canceled ---


@both_ways
@whatever_runs
def test_what_runs_is_canceled_and_waited_for(
    emulator: Emulator, context: Context, offer: str, kind: str, deferrable: bool
) -> None:
    location = location_of(emulator, offer, kind)
    assert finish(cancel(offer, deferrable=deferrable), context) == location
    assert state_of(emulator, offer, kind) == "canceled"
    assert effects(emulator) == len(posts(emulator)) == 1


@both_ways
def test_the_wait_lasts_until_the_operation_itself_is_shown_as_canceled(
    emulator: Emulator, context: Context, deferrable: bool
) -> None:
    location = location_of(emulator, "going-live", "goLive")
    show(emulator, location, 8, cancellationRequestState="canCancel")
    finish(cancel("going-live", deferrable=deferrable), context)
    assert emulator.faults() == []
    last = emulator.requests(path=POLL)[-1]
    assert last["fault"] is None
    assert state_of(emulator, "going-live") == "canceled"


@at_signoff
def test_a_publish_that_awaits_the_signoff_is_canceled_at_once(
    emulator: Emulator, context: Context, offer: str
) -> None:
    assert cancel(offer).execute(context) == location_of(emulator, offer, "publish")
    assert [post["status"] for post in posts(emulator)] == [200]
    assert state_of(emulator, offer, "publish") == "canceled"


@whatever_runs
def test_the_end_is_not_waited_for_unless_asked_for(
    emulator: Emulator, context: Context, offer: str, kind: str
) -> None:
    task = cancel(offer, wait_for_completion=False)
    assert task.execute(context) == location_of(emulator, offer, kind)
    assert emulator.requests(path="^/api/")[-1]["path"].endswith("/cancel")


def test_the_location_can_be_read_while_the_task_waits(emulator: Emulator, context: Context) -> None:
    location = location_of(emulator, "going-live", "goLive")
    show(emulator, location, 1000, cancellationRequestState="canCancel")
    deferral(cancel("going-live"), context)
    assert context["ti"].xcoms == {"return_value": location}


def test_a_publish_that_failed_meanwhile_runs_no_more(emulator: Emulator, context: Context, log: Log) -> None:
    location = location_of(emulator, "publishing", "publish")
    log.react("accepted the cancel", lambda: show(emulator, location, 1000, status="failed"))
    assert cancel("publishing").execute(context) == location


@whatever_runs
def test_one_that_is_being_canceled_is_waited_for_without_a_second_request(
    emulator: Emulator, context: Context, offer: str, kind: str
) -> None:
    hook = CloudPartnerHook()
    location = location_of(emulator, offer, kind)
    listed = json.dumps([submission.raw for submission in hook.list_operations(offer)])
    show(emulator, location, 3, cancellationRequestState="canceling")
    hook.cancel(offer)
    emulator.inject(path="submissions/$", replace={"body": listed})
    assert finish(cancel(offer), context) == location
    assert state_of(emulator, offer, kind) == "canceled"
    assert len(posts(emulator)) == 1


@both_ways
@whatever_runs
def test_one_that_completed_before_it_could_be_canceled_is_a_failure(
    emulator: Emulator, context: Context, offer: str, kind: str, deferrable: bool, log: Log
) -> None:
    location = location_of(emulator, offer, kind)
    log.react("accepted the cancel", lambda: show(emulator, location, 1000, status="completed"))
    said = rf"contoso/{offer} succeeded.*completed before it could be canceled"
    with pytest.raises(OperationFailedError, match=said):
        finish(cancel(offer, deferrable=deferrable), context)


@both_ways
def test_a_cancel_that_does_not_end_ends_at_the_timeout(
    emulator: Emulator, context: Context, deferrable: bool
) -> None:
    location = location_of(emulator, "going-live", "goLive")
    show(emulator, location, 1000, cancellationRequestState="canceling")
    said = "Polling of contoso/going-live .*did not reach the status canceled"
    with pytest.raises(AirflowSensorTimeout, match=said):
        finish(cancel("going-live", timeout=0.2, deferrable=deferrable), context)


# --- exactly once, whatever fails ---


@pytest.mark.parametrize("offer", ["going-live", "going-live-classic"])
@pytest.mark.parametrize("fault", UNKNOWN_OUTCOMES.values(), ids=UNKNOWN_OUTCOMES)
def test_after_an_unknown_outcome_exactly_one_request_has_an_effect(
    emulator: Emulator, context: Context, offer: str, fault: dict[str, Any]
) -> None:
    emulator.inject(path="/cancel$", **fault)
    assert finish(cancel(offer), context) == location_of(emulator, offer, "goLive")
    assert effects(emulator) == 1
    assert len(posts(emulator)) == 1 + (not posts(emulator)[0]["effect"])
    assert state_of(emulator, offer) == "canceled"


@whatever_runs
@pytest.mark.parametrize(
    "location", [None, "https://elsewhere.example/api/operations/a$b$2$preview"], ids=["none", "foreign"]
)
def test_an_answer_without_a_usable_location_does_not_matter(
    emulator: Emulator, context: Context, offer: str, kind: str, location: str | None
) -> None:
    emulator.inject(path="/cancel$", replace={"headers": {"Location": location}})
    assert finish(cancel(offer), context) == location_of(emulator, offer, kind)
    assert len(posts(emulator)) == 1


@at_signoff
@pytest.mark.parametrize("close", ["before", "after"])
def test_a_lost_answer_to_what_is_canceled_at_once_is_no_error(
    emulator: Emulator, context: Context, offer: str, close: str
) -> None:
    emulator.inject(path="/cancel$", close=close)
    assert cancel(offer).execute(context) == location_of(emulator, offer, "publish")
    assert effects(emulator) == 1


@whatever_runs
def test_a_worker_that_is_killed_after_its_request_leaves_nothing_to_send(
    emulator: Emulator, context: Context, monkeypatch: pytest.MonkeyPatch, offer: str, kind: str
) -> None:
    send = CloudPartnerHook.cancel

    class KilledError(BaseException):
        pass

    def killed(*args: Any, **kwargs: Any) -> None:
        send(*args, **kwargs)
        raise KilledError

    with monkeypatch.context() as until_killed:
        until_killed.setattr(CloudPartnerHook, "cancel", killed)
        with pytest.raises(KilledError):
            cancel(offer).execute(context)
    # None if it is shown as canceled by then.
    assert finish(cancel(offer), context) in (location_of(emulator, offer, kind), None)
    assert state_of(emulator, offer, kind) == "canceled"
    assert len(posts(emulator)) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_request_that_is_put_off_is_repeated(emulator: Emulator, context: Context, status: int) -> None:
    emulator.inject(path="/cancel$", status=status, headers={"Retry-After": "0"}, count=2)
    finish(cancel("going-live"), context)
    assert [post["status"] for post in posts(emulator)] == [status, status, 202]


def test_an_outage_in_every_question_is_waited_out(emulator: Emulator, context: Context) -> None:
    for path in ("submissions/$", POLL, "oauth2/v2.0/token"):
        emulator.inject(path=path, status=503, count=2)
    finish(cancel("going-live"), context)
    assert state_of(emulator, "going-live") == "canceled"


def test_an_outcome_that_stays_unknown_ends_in_the_error(emulator: Emulator, context: Context) -> None:
    emulator.inject(path="/cancel$", status=500, count=100)
    with pytest.raises(CloudPartnerError, match=r"contoso/going-live .*500"):
        cancel("going-live").execute(context)
    assert len(posts(emulator)) == 3


def test_a_refusal_is_raised_at_once(emulator: Emulator, context: Context) -> None:
    emulator.inject(path="/cancel$", status=403)
    with pytest.raises(PermissionDeniedError, match="contoso/going-live"):
        cancel("going-live").execute(context)
    assert len(posts(emulator)) == 1


@whatever_runs
def test_what_the_list_does_not_show_yet_is_found_nevertheless(
    emulator: Emulator, context: Context, offer: str, kind: str
) -> None:
    emulator.inject(path="submissions/$", count=2, replace={"body": "[]"})
    assert finish(cancel(offer), context) == location_of(emulator, offer, kind)


@pytest.mark.parametrize("offer", ["quick", "quick-classic"])
def test_what_ended_while_the_list_shows_that_it_runs_is_left_alone(
    emulator: Emulator, context: Context, offer: str
) -> None:
    hook = CloudPartnerHook()
    hook.go_live(offer)
    listed = json.dumps([submission.raw for submission in hook.list_operations(offer)])
    eventually(lambda: state_of(emulator, offer) == "completed")
    emulator.inject(path="submissions/$", replace={"body": listed})
    assert cancel(offer).execute(context) is None
    assert posts(emulator) == []


# --- arguments ---


@pytest.mark.parametrize("offer", ["going-live", "next"])
def test_a_bad_address_is_refused_before_anything_is_sent(
    emulator: Emulator, context: Context, offer: str
) -> None:
    with pytest.raises(ValueError, match="notification_emails must be e-mail addresses"):
        cancel(offer, notification_emails=["contoso.com"]).execute(context)
    assert emulator.requests(path="^/api/") == []


@pytest.mark.parametrize("offer", ["", "..", "a/b", "a\nb", 5])
def test_an_id_that_none_can_be_is_refused_before_anything_is_sent(
    emulator: Emulator, context: Context, offer: Any
) -> None:
    with pytest.raises(ValueError, match="offer_id"):
        cancel(offer).execute(context)
    assert emulator.requests() == []


def test_what_a_template_may_stand_in_is_rendered_and_the_mapped_task_has_a_name(
    emulator: Emulator, context: Context
) -> None:
    task = cancel("{{ params.offer }}", publisher_id="{{ params.publisher }}")
    task.render_template_fields({"params": {"offer": "going-live", "publisher": "contoso"}})
    assert finish(task, context) == location_of(emulator, "going-live", "goLive")
    assert task.map_index_template == "{{ task.subject }}"
    assert task.subject == "contoso/going-live"
    assert {"notification_emails", "cloud_partner_conn_id"} < set(task.template_fields)
