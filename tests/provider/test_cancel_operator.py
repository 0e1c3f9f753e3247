"""`CancelOperator`. Tests of `cancel_on_kill` are in `test_canceling`."""

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
from airflow_provider_cpp.release import cancellation

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
    """The task, with short poll intervals."""
    polling = {"poke_interval": 0.01, "max_wait": 0.05, "timeout": 60}
    return CancelOperator(task_id="cancel", offer_id=offer, **{**polling, **arguments})


def posts(emulator: Emulator) -> list[dict[str, Any]]:
    return emulator.requests(method="POST", path="/cancel$")


def effects(emulator: Emulator) -> int:
    """Number of requests that had an effect."""
    return sum(post["effect"] for post in posts(emulator))


def location_of(emulator: Emulator, offer: str, kind: str) -> str:
    return str(operations(emulator, offer, kind)[0]["location"])


def state_of_offer(emulator: Emulator, offer: str) -> tuple[str, int | None]:
    """The status of an offer, and the version in its preview."""
    found = emulator.offers()[f"contoso/{offer}"]
    return found["status"], found["slots"]["preview"]


def show(emulator: Emulator, location: str, count: int, **changes: Any) -> None:
    """Let the next polls of an operation return its current state with some changes."""
    body = json.dumps(CloudPartnerHook().get_operation(location).raw | changes)
    emulator.inject(path=re.escape(location.partition("?")[0]), count=count, replace={"body": body})


# --- nothing to cancel ---


@nothing_runs
def test_without_an_operation_no_request_is_sent(
    emulator: Emulator, context: Context, offer: str, log: Log
) -> None:
    assert cancel(offer).execute(context) is None
    assert posts(emulator) == []
    assert log.containing(f"contoso/{offer}: no operation is running")


@nothing_runs
def test_without_an_operation_missing_ok_false_is_an_error(
    emulator: Emulator, context: Context, offer: str
) -> None:
    with pytest.raises(NotFoundError, match=f"contoso/{offer}: no operation is running on the offer"):
        cancel(offer, missing_ok=False).execute(context)
    assert posts(emulator) == []


def test_an_unknown_offer_is_an_error(emulator: Emulator, context: Context) -> None:
    with pytest.raises(NotFoundError, match="contoso/nowhere"):
        cancel("nowhere").execute(context)
    assert posts(emulator) == []


# --- a running operation, or a preview ---


@both_ways
@whatever_runs
def test_a_running_operation_is_canceled_and_waited_for(
    emulator: Emulator, context: Context, offer: str, kind: str, deferrable: bool
) -> None:
    location = location_of(emulator, offer, kind)
    assert finish(cancel(offer, deferrable=deferrable), context) == location
    assert state_of(emulator, offer, kind) == "canceled"
    assert effects(emulator) == len(posts(emulator)) == 1


@both_ways
def test_polling_lasts_until_the_operation_is_canceled(
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
@pytest.mark.parametrize("wait", [True, False])
def test_a_preview_that_awaits_the_signoff_is_withdrawn(
    emulator: Emulator, context: Context, offer: str, wait: bool
) -> None:
    task = cancel(offer, wait_for_completion=wait, missing_ok=False)
    assert task.execute(context) == location_of(emulator, offer, "publish")
    assert [post["status"] for post in posts(emulator)] == [200]
    assert state_of_offer(emulator, offer) == ("canceled", None)
    with pytest.raises(NotFoundError, match="nothing to cancel"):
        task.execute(context)


@pytest.mark.parametrize("headers", [{}, {"Location": None}])
def test_a_withdrawal_that_takes_minutes_is_waited_for(
    emulator: Emulator, context: Context, log: Log, headers: dict[str, None]
) -> None:
    emulator.inject(path="/cancel$", replace={"status": 202, "headers": headers})
    status = {"status": "waitingForPublisherReview"}
    log.react(
        "accepted the cancel", lambda: emulator.inject(path="/status$", count=3, replace={"json": status})
    )
    assert cancel("slow").execute(context) == location_of(emulator, "slow", "publish")
    assert emulator.faults() == []
    assert len(posts(emulator)) == 1


def test_a_preview_is_withdrawn_while_the_offer_is_shown_as_running(
    emulator: Emulator, context: Context
) -> None:
    emulator.inject(path="/status$", count=2, replace={"json": {"status": "running"}})
    assert cancel("slow").execute(context) == location_of(emulator, "slow", "publish")
    assert state_of_offer(emulator, "slow") == ("canceled", None)


def test_a_preview_that_stays_is_an_error(
    emulator: Emulator, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancellation, "WITHDRAWAL_DELAYS", (0.0, 0.05))
    emulator.inject(path="/cancel$", status=202)
    with pytest.raises(
        CloudPartnerError, match=r"preview of contoso/slow was not withdrawn: .*waitingForPublisher"
    ):
        cancel("slow").execute(context)
    assert len(posts(emulator)) == 1


def test_a_go_live_that_starts_before_the_request_is_canceled(emulator: Emulator, context: Context) -> None:
    send = CloudPartnerHook.cancel
    started: list[str] = []

    def cancel_after_go_live(hook: CloudPartnerHook, *args: Any, **kwargs: Any) -> str | None:
        started.append(hook.go_live("slow"))
        return send(hook, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CloudPartnerHook, "cancel", cancel_after_go_live)
        assert [finish(cancel("slow"), context)] == started
    assert state_of(emulator, "slow") == "canceled"


@whatever_runs
def test_the_location_can_be_in_the_body_only(emulator: Emulator, offer: str, kind: str) -> None:
    headers = {"Location": None, "Operation-Location": None}
    replace = {"headers": headers, "body": '{"operation": {"location": "{location}"}}'}
    emulator.inject(path="/cancel$", replace=replace)
    assert CloudPartnerHook().cancel(offer) == location_of(emulator, offer, kind)


@whatever_runs
def test_without_wait_for_completion_the_task_ends_after_the_request(
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


def test_a_publish_that_fails_during_the_cancel_counts_as_canceled(
    emulator: Emulator, context: Context, log: Log
) -> None:
    location = location_of(emulator, "publishing", "publish")
    log.react("accepted the cancel", lambda: show(emulator, location, 1000, status="failed"))
    assert cancel("publishing").execute(context) == location


@whatever_runs
def test_an_operation_being_canceled_gets_no_second_request(
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
def test_an_operation_that_completed_before_the_cancel_is_a_failure(
    emulator: Emulator, context: Context, offer: str, kind: str, deferrable: bool, log: Log
) -> None:
    location = location_of(emulator, offer, kind)
    log.react("accepted the cancel", lambda: show(emulator, location, 1000, status="completed"))
    said = rf"contoso/{offer} succeeded.*completed before it could be canceled"
    with pytest.raises(OperationFailedError, match=said):
        finish(cancel(offer, deferrable=deferrable), context)


@both_ways
def test_a_cancel_that_never_completes_ends_at_the_timeout(
    emulator: Emulator, context: Context, deferrable: bool
) -> None:
    location = location_of(emulator, "going-live", "goLive")
    show(emulator, location, 1000, cancellationRequestState="canceling")
    said = "Polling of contoso/going-live .*did not reach the status canceled"
    with pytest.raises(AirflowSensorTimeout, match=said):
        finish(cancel("going-live", timeout=0.2, deferrable=deferrable), context)


# --- exactly once after failures ---


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
def test_a_response_without_a_usable_location_is_accepted(
    emulator: Emulator, context: Context, offer: str, kind: str, location: str | None
) -> None:
    headers = {"Location": location, "Operation-Location": None}
    emulator.inject(path="/cancel$", replace={"headers": headers})
    assert finish(cancel(offer), context) == location_of(emulator, offer, kind)
    assert len(posts(emulator)) == 1


@at_signoff
@pytest.mark.parametrize("close", ["before", "after"])
def test_a_lost_response_to_an_immediate_cancel_is_no_error(
    emulator: Emulator, context: Context, offer: str, close: str
) -> None:
    emulator.inject(path="/cancel$", close=close)
    assert cancel(offer).execute(context) == location_of(emulator, offer, "publish")
    assert effects(emulator) == 1


@whatever_runs
def test_a_retry_after_a_killed_worker_sends_no_second_request(
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


def test_outages_during_lookups_and_polls_are_retried(emulator: Emulator, context: Context) -> None:
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
def test_an_operation_missing_from_a_stale_list_is_found(
    emulator: Emulator, context: Context, offer: str, kind: str
) -> None:
    emulator.inject(path="submissions/$", count=2, replace={"body": "[]"})
    assert finish(cancel(offer), context) == location_of(emulator, offer, kind)


@pytest.mark.parametrize("offer", ["quick", "quick-classic"])
def test_an_ended_operation_in_a_stale_list_is_not_canceled(
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
def test_an_invalid_address_is_refused_before_any_request(
    emulator: Emulator, context: Context, offer: str
) -> None:
    with pytest.raises(ValueError, match="notification_emails must be e-mail addresses"):
        cancel(offer, notification_emails=["contoso.com"]).execute(context)
    assert emulator.requests(path="^/api/") == []


@pytest.mark.parametrize("offer", ["", "..", "a/b", "a\nb", 5])
def test_an_invalid_id_is_refused_before_any_request(
    emulator: Emulator, context: Context, offer: Any
) -> None:
    with pytest.raises(ValueError, match="offer_id"):
        cancel(offer).execute(context)
    assert emulator.requests() == []


def test_templates_are_rendered_and_a_mapped_instance_has_a_name(
    emulator: Emulator, context: Context
) -> None:
    task = cancel("{{ params.offer }}", publisher_id="{{ params.publisher }}")
    task.render_template_fields({"params": {"offer": "going-live", "publisher": "contoso"}})
    assert finish(task, context) == location_of(emulator, "going-live", "goLive")
    assert task.map_index_template == "{{ task.subject }}"
    assert task.subject == "contoso/going-live"
    assert {"notification_emails", "cloud_partner_conn_id"} < set(task.template_fields)
