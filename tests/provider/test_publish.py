"""`PublishOperator`, and what `GoLiveOperator` says of a preview that is none or another one."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException, AirflowTaskTimeout
from harness import (
    UNKNOWN_OUTCOMES,
    Connect,
    Log,
    deferral,
    eventually,
    finish,
    operations,
    revise,
    state_of,
)
from relay import running_relay

from airflow_provider_cpp.exceptions import (
    ConflictError,
    NotFoundError,
    OperationCanceledError,
    OperationFailedError,
    ValidationError,
)
from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
from airflow_provider_cpp.operators.cloud_partner import GoLiveOperator, PublishOperator

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from relay import Sent

    from dev.emulator_process import Emulator

Context = Any

#: Never published; a publish of it does not end.
never_published = pytest.mark.parametrize("offer", ["next-slow", "next-slow-classic"])
#: The publisher's signoff is awaited.
at_signoff = pytest.mark.parametrize("offer", ["slow", "slow-classic"])
quick_and_classic = pytest.mark.parametrize("offer", ["quick", "quick-classic"])
both_ways = pytest.mark.parametrize("deferrable", [True, False])
whatever_runs = pytest.mark.parametrize("if_running", ["adopt", "fail"])


def publish(offer: str = "next-slow", **arguments: Any) -> PublishOperator:
    """The task; it hardly rests between two tries."""
    patience = {"poke_interval": 0.01, "max_wait": 0.05}
    return PublishOperator(task_id="publish", offer_id=offer, **{**patience, **arguments})


def waiting(offer: str, **arguments: Any) -> PublishOperator:
    return publish(offer, wait_for_completion=True, **arguments)


def posts(emulator: Emulator) -> list[dict[str, Any]]:
    return emulator.requests(method="POST", path="/publish$")


def effects(emulator: Emulator) -> int:
    """How many requests began a publish."""
    return sum(post["effect"] for post in posts(emulator))


def the_one(emulator: Emulator, offer: str) -> Any:
    """Location of the only publish that there is of an offer."""
    (only,) = operations(emulator, offer, "publish")
    return only["location"]


def release(emulator: Emulator, offer: str) -> None:
    """Take what is in preview live, so that the publish completes."""
    CloudPartnerHook().go_live(offer)
    eventually(lambda: state_of(emulator, offer) == "completed")


def await_signoff(offer: str) -> None:
    eventually(lambda: CloudPartnerHook().get_offer_status(offer).awaiting_publisher)


# --- starting ---


@never_published
def test_the_location_of_what_was_started_is_returned(
    emulator: Emulator, context: Context, offer: str
) -> None:
    assert publish(offer).execute(context) == the_one(emulator, offer)
    assert effects(emulator) == 1


def test_the_list_is_looked_at_before_anything_is_sent(emulator: Emulator, context: Context) -> None:
    publish().execute(context)
    asked = [request["path"].rpartition("next-slow")[2] for request in emulator.requests(path="^/api/")]
    assert asked == ["/submissions/", "/publish"]


@pytest.mark.parametrize(
    ("addresses", "told"),
    [((), ""), (["a@contoso.com", "b@contoso.com"], "a@contoso.com,b@contoso.com")],
    ids=["none", "two"],
)
def test_the_notification_addresses_reach_the_service(
    emulator: Emulator, context: Context, addresses: Any, told: str
) -> None:
    publish(notification_emails=addresses).execute(context)
    (published,) = operations(emulator, "next-slow", "publish")
    assert published["definition"]["metadata"]["emails"] == told


@pytest.mark.parametrize("address", ["contoso.com", "a@contoso.com,b@contoso.com", "a@b\r\nX: 1"])
@pytest.mark.parametrize("offer", ["next-slow", "publishing"])
def test_a_bad_address_is_refused_before_anything_is_sent(
    emulator: Emulator, context: Context, offer: str, address: Any
) -> None:
    with pytest.raises(ValueError, match="notification_emails must be e-mail addresses"):
        publish(offer, notification_emails=["a@contoso.com", address]).execute(context)
    assert emulator.requests(path="^/api/") == []


@pytest.mark.parametrize("field", ["offer_id", "publisher_id"])
@pytest.mark.parametrize("value", ["", "..", "a/b", "a\nb", 5])
def test_an_id_that_none_can_be_is_refused_before_anything_is_sent(
    emulator: Emulator, context: Context, field: str, value: Any
) -> None:
    arguments = {"offer_id": "next", field: value}
    with pytest.raises(ValueError, match=field):
        publish(arguments.pop("offer_id"), **arguments).execute(context)
    assert emulator.requests() == []


@pytest.mark.parametrize(
    "wrong", [{"if_running": "retry"}, {"if_published": "fail"}, {"timeout": -1}], ids=str
)
def test_a_wrong_argument_is_refused_when_the_task_is_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        publish(**wrong)


def test_what_a_template_may_stand_in_is_rendered(emulator: Emulator, context: Context) -> None:
    task = publish(
        "{{ params.offer }}",
        publisher_id="{{ params.publisher }}",
        cloud_partner_conn_id="cloud_partner_{{ params.connection }}",
        notification_emails=["{{ params.who }}@contoso.com"],
    )
    params = {"offer": "next", "publisher": "contoso", "connection": "default", "who": "ops"}
    task.render_template_fields({"params": params})
    assert task.execute(context) == the_one(emulator, "next")
    assert task.subject == "contoso/next"
    (published,) = operations(emulator, "next", "publish")
    assert published["definition"]["metadata"]["emails"] == "ops@contoso.com"
    assert task.map_index_template == "{{ task.subject }}"


def test_a_publish_that_fails_validation_says_of_which_offer_and_why(
    emulator: Emulator, context: Context
) -> None:
    with pytest.raises(ValidationError, match=r"contoso/invalid .*The offer has no logo") as raised:
        publish("invalid").execute(context)
    assert raised.value.status == 422
    assert len(posts(emulator)) == 1


@pytest.mark.parametrize(("offer", "publisher"), [("nowhere", None), ("next", "nobody")])
def test_a_refusal_is_raised_at_once(
    emulator: Emulator, context: Context, offer: str, publisher: str | None
) -> None:
    with pytest.raises(NotFoundError, match=offer):
        publish(offer, publisher_id=publisher).execute(context)
    assert len(emulator.requests(path="^/api/")) == 1


# --- what runs already ---


@pytest.mark.parametrize("offer", ["publishing", "publishing-classic", "slow", "slow-classic"])
def test_a_publish_of_the_same_draft_that_runs_or_awaits_the_signoff_is_adopted(
    emulator: Emulator, context: Context, offer: str, log: Log
) -> None:
    assert publish(offer).execute(context) == the_one(emulator, offer)
    assert posts(emulator) == []
    assert log.containing("adopting it")


def test_a_preview_that_awaits_the_signoff_is_adopted_by_a_later_run(
    emulator: Emulator, context: Context
) -> None:
    context["dag_run"].start_date = datetime.now(UTC) + timedelta(minutes=1)
    assert publish("slow").execute(context) == the_one(emulator, "slow")
    assert posts(emulator) == []
    publish("slow", if_running="fail").execute(context)
    assert len(posts(emulator)) == 1


@whatever_runs
def test_a_preview_of_an_older_draft_does_not_block_if_migrated(
    emulator: Emulator, context: Context, if_running: str
) -> None:
    revise("slow")
    location = publish("slow", if_running=if_running).execute(context)
    assert location == operations(emulator, "slow", "publish")[0]["location"]
    assert [post["status"] for post in posts(emulator)] == [202]


@pytest.mark.parametrize("offer", ["publishing", "publishing-classic", "slow-classic"])
def test_a_publish_that_runs_is_a_conflict_if_it_is_to_fail(
    emulator: Emulator, context: Context, offer: str
) -> None:
    with pytest.raises(ConflictError, match=rf"contoso/{offer} .*a publish runs on it .*since 20\d\d-"):
        publish(offer, if_running="fail").execute(context)
    assert posts(emulator) == []


@whatever_runs
@pytest.mark.parametrize("offer", ["going-live", "going-live-classic"])
def test_a_go_live_that_runs_is_always_a_conflict(
    emulator: Emulator, context: Context, offer: str, if_running: str
) -> None:
    with pytest.raises(ConflictError, match=rf"contoso/{offer} .*a goLive runs on it .*since 20\d\d-"):
        publish(offer, if_running=if_running).execute(context)
    assert posts(emulator) == []


@whatever_runs
@pytest.mark.parametrize("offer", ["publishing", "publishing-classic", "slow-classic"])
def test_a_publish_of_what_the_draft_was_before_is_a_conflict(
    emulator: Emulator, context: Context, offer: str, if_running: str
) -> None:
    revise(offer)
    advice = r"Go live with it, .*cancel it" if if_running == "adopt" else "cancel it"
    with pytest.raises(ConflictError, match=rf"contoso/{offer} .*a publish runs on it .*{advice}"):
        publish(offer, if_running=if_running).execute(context)
    assert posts(emulator) == []


@at_signoff
def test_a_draft_that_was_changed_and_changed_back_is_the_same(
    emulator: Emulator, context: Context, offer: str
) -> None:
    text = CloudPartnerHook().get_offer(offer).definition["displayText"]
    revise(offer)
    revise(offer, text)
    assert publish(offer).execute(context) == the_one(emulator, offer)


def uncertified(emulator: Emulator, offer: str) -> None:
    CloudPartnerHook().publish(offer)
    eventually(lambda: state_of(emulator, offer, "publish") == "failed")


def canceled(emulator: Emulator, offer: str) -> None:
    CloudPartnerHook().publish(offer)
    CloudPartnerHook().cancel(offer)
    eventually(lambda: state_of(emulator, offer, "publish") == "canceled")


def canceled_at_signoff(emulator: Emulator, offer: str) -> None:
    CloudPartnerHook().publish(offer)
    await_signoff(offer)
    CloudPartnerHook().cancel(offer)


@pytest.mark.parametrize("kind", ["", "-classic"])
@pytest.mark.parametrize(
    ("offer", "end"),
    [("uncertified", uncertified), ("next-slow", canceled), ("next", canceled_at_signoff)],
    ids=["failed", "canceled", "canceled at signoff"],
)
def test_one_that_ended_badly_is_not_adopted(
    emulator: Emulator, context: Context, offer: str, end: Callable[[Emulator, str], None], kind: str
) -> None:
    end(emulator, offer + kind)
    location = publish(offer + kind).execute(context)
    latest, before = operations(emulator, offer + kind, "publish")
    assert location == latest["location"] != before["location"]
    assert effects(emulator) == 2


@never_published
def test_one_that_was_canceled_is_not_adopted_though_the_list_lags_behind(
    emulator: Emulator, context: Context, offer: str
) -> None:
    hook = CloudPartnerHook()
    hook.publish(offer)
    stale = json.dumps([one.raw for one in hook.list_operations(offer)])
    hook.cancel(offer)
    eventually(lambda: state_of(emulator, offer, "publish") == "canceled")
    emulator.inject(path="submissions/$", replace={"body": stale})
    assert publish(offer).execute(context) == operations(emulator, offer, "publish")[0]["location"]
    assert effects(emulator) == 2


# --- a run that was cleared ---


@quick_and_classic
@pytest.mark.parametrize("name", ["run_after", "data_interval_end", "start_date"])
def test_one_that_succeeded_since_the_run_began_is_adopted(
    emulator: Emulator, context: Context, offer: str, name: str
) -> None:
    release(emulator, offer)
    context["dag_run"] = SimpleNamespace(**{name: datetime.now(UTC) - timedelta(minutes=1)})
    assert publish(offer).execute(context) == the_one(emulator, offer)
    assert posts(emulator) == []


@quick_and_classic
def test_one_that_succeeded_before_the_run_began_is_not_adopted(
    emulator: Emulator, context: Context, offer: str
) -> None:
    release(emulator, offer)
    context["dag_run"] = SimpleNamespace(run_after=datetime.now(UTC) + timedelta(minutes=1))
    publish(offer).execute(context)
    assert effects(emulator) == 1


@quick_and_classic
def test_one_that_succeeded_is_not_adopted_when_the_draft_was_changed_since(
    emulator: Emulator, context: Context, offer: str
) -> None:
    release(emulator, offer)
    revise(offer)
    publish(offer).execute(context)
    assert effects(emulator) == 1


# --- what is in preview already ---

later = {"run_after": datetime.now(UTC) + timedelta(days=1)}


@pytest.mark.parametrize("offer", ["live", "live-classic"])
def test_what_is_in_preview_already_is_skipped_if_asked_for(
    emulator: Emulator, context: Context, offer: str
) -> None:
    context["dag_run"] = SimpleNamespace(**later)
    with pytest.raises(
        AirflowSkipException, match=f"contoso/{offer}: the preview has the draft's definition"
    ):
        publish(offer, if_published="skip").execute(context)
    assert posts(emulator) == []


def test_what_is_in_preview_already_is_a_success_if_asked_for(emulator: Emulator, context: Context) -> None:
    context["dag_run"] = SimpleNamespace(**later)
    assert waiting("live", if_published="succeed").execute(context) is None
    assert posts(emulator) == []


def test_what_is_in_preview_already_is_submitted_by_default(emulator: Emulator, context: Context) -> None:
    context["dag_run"] = SimpleNamespace(**later)
    assert publish("live").execute(context) == operations(emulator, "live", "publish")[0]["location"]
    assert effects(emulator) == 1


@pytest.mark.parametrize("if_published", ["skip", "succeed"])
@pytest.mark.parametrize("offer", ["next-slow", "live"])
def test_what_is_not_in_preview_yet_is_submitted(
    emulator: Emulator, context: Context, offer: str, if_published: str
) -> None:
    revise(offer)
    assert publish(offer, if_published=if_published).execute(context)
    assert effects(emulator) == 1


# --- exactly once, whatever fails ---

WITHOUT_LOCATION = {"202 without a location": {"replace": {"headers": {"Location": None}}}}


@never_published
@pytest.mark.parametrize(
    "fault",
    [*UNKNOWN_OUTCOMES.values(), *WITHOUT_LOCATION.values()],
    ids=[*UNKNOWN_OUTCOMES, *WITHOUT_LOCATION],
)
def test_an_unknown_outcome_is_looked_up_and_one_publish_comes_of_it(
    emulator: Emulator, context: Context, offer: str, fault: dict[str, Any]
) -> None:
    emulator.inject(path="publish$", **fault)
    assert publish(offer).execute(context) == the_one(emulator, offer)
    assert effects(emulator) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_request_that_is_put_off_is_repeated_after_the_wait_asked_for(
    emulator: Emulator, context: Context, status: int
) -> None:
    emulator.inject(path="publish$", status=status, headers={"Retry-After": "1"})
    publish().execute(context)
    first, second = (datetime.fromisoformat(post["time"]) for post in posts(emulator))
    assert second - first >= timedelta(seconds=1)
    assert effects(emulator) == 1


@pytest.mark.parametrize("looks", [3, 7], ids=["shortly", "too long"])
def test_a_list_that_lags_behind_brings_no_second_publish(
    emulator: Emulator, context: Context, looks: int
) -> None:
    emulator.inject(path="publish$", close="after")
    emulator.inject(path="submissions/$", skip=1, count=looks, replace={"body": "[]"})
    assert publish().execute(context) == the_one(emulator, "next-slow")
    assert effects(emulator) == 1


@never_published
def test_a_worker_that_is_killed_after_its_request_leaves_what_the_next_adopts(
    emulator: Emulator, context: Context, monkeypatch: pytest.MonkeyPatch, offer: str
) -> None:
    send = CloudPartnerHook.publish

    class KilledError(BaseException):
        pass

    def killed(*args: Any, **kwargs: Any) -> None:
        send(*args, **kwargs)
        raise KilledError

    with monkeypatch.context() as until_killed:
        until_killed.setattr(CloudPartnerHook, "publish", killed)
        with pytest.raises(KilledError):
            publish(offer).execute(context)
    assert publish(offer).execute(context) == the_one(emulator, offer)
    assert len(posts(emulator)) == 1


def overtaken(
    emulator: Emulator, connect: Connect, directory: Path, task: PublishOperator, by: Callable[[], Any]
) -> Any:
    """Execute a task; before its request arrives, somebody else does something."""

    def overtake(sent: Sent) -> None:
        if sent.method == "POST":
            relay.before = lambda _: None
            connect(emulator)
            by()

    with running_relay(emulator, directory) as relay:
        connect(emulator, host=relay.url, extra={"verify": relay.verify})
        relay.before = overtake
        return task.execute({})


@never_published
def test_what_somebody_else_began_in_between_is_adopted(
    emulator: Emulator, connect: Connect, tmp_path: Path, offer: str
) -> None:
    location = overtaken(
        emulator, connect, tmp_path, publish(offer), lambda: CloudPartnerHook().publish(offer)
    )
    assert location == the_one(emulator, offer)
    assert [post["status"] for post in posts(emulator)] == [202, 409]


def test_what_somebody_else_began_in_between_is_a_conflict_if_asked_for(
    emulator: Emulator, connect: Connect, tmp_path: Path
) -> None:
    task = publish(if_running="fail")
    with pytest.raises(ConflictError, match="a publish runs on it"):
        overtaken(emulator, connect, tmp_path, task, lambda: CloudPartnerHook().publish("next-slow"))
    assert effects(emulator) == 1


def test_a_draft_that_was_changed_after_what_began_in_between_is_a_conflict(
    emulator: Emulator, connect: Connect, tmp_path: Path
) -> None:
    def begin_and_change() -> None:
        CloudPartnerHook().publish("next-slow")
        revise("next-slow")

    with pytest.raises(ConflictError, match="before the offer was last changed"):
        overtaken(emulator, connect, tmp_path, publish(), begin_and_change)
    assert effects(emulator) == 1


@never_published
def test_a_refusal_since_something_runs_that_is_not_shown_is_that_refusal(
    emulator: Emulator, context: Context, offer: str
) -> None:
    emulator.inject(path="publish$", status=409, body='{"error": {"message": "Another one is running."}}')
    with pytest.raises(ConflictError, match=rf"contoso/{offer} .*Another one is running"):
        publish(offer).execute(context)
    assert len(posts(emulator)) == 1


# --- waiting for the preview ---


@both_ways
@pytest.mark.parametrize("offer", ["next", "next-classic"])
def test_the_wait_ends_when_the_signoff_is_awaited(
    emulator: Emulator, context: Context, offer: str, deferrable: bool
) -> None:
    location = finish(waiting(offer, deferrable=deferrable), context)
    assert location == the_one(emulator, offer)
    assert CloudPartnerHook().get_offer_status(offer).awaiting_publisher
    assert CloudPartnerHook().get_offer(offer, slot="preview").version == 2
    assert len(posts(emulator)) == 1


@at_signoff
def test_a_preview_that_is_ready_is_not_deferred(emulator: Emulator, context: Context, offer: str) -> None:
    assert waiting(offer).execute(context) == the_one(emulator, offer)


def test_the_location_can_be_read_while_the_task_waits(emulator: Emulator, context: Context) -> None:
    deferral(waiting("next-slow"), context)
    assert context["ti"].xcoms == {"return_value": the_one(emulator, "next-slow")}


@both_ways
@pytest.mark.parametrize("offer", ["uncertified", "uncertified-classic"])
def test_a_certification_that_fails_says_in_which_step_and_why(
    emulator: Emulator, context: Context, offer: str, deferrable: bool
) -> None:
    said = rf"contoso/{offer} failed in step Certification: No SSH key & no password"
    with pytest.raises(OperationFailedError, match=said) as raised:
        finish(waiting(offer, deferrable=deferrable), context)
    assert raised.value.step == "Certification"
    assert raised.value.messages[0] == "No SSH key & no password."


@both_ways
def test_a_publish_that_is_canceled_meanwhile_says_so(
    emulator: Emulator, context: Context, deferrable: bool, log: Log
) -> None:
    log.react("Validate Pre-Requisites inProgress", lambda: CloudPartnerHook().cancel("next-slow"))
    with pytest.raises(OperationCanceledError, match="canceled at the service"):
        finish(waiting("next-slow", deferrable=deferrable), context)


@both_ways
@pytest.mark.parametrize("cancel", [True, False])
def test_the_execution_timeout_cancels_the_publish_only_if_asked_for(
    emulator: Emulator, context: Context, deferrable: bool, cancel: bool
) -> None:
    limit = timedelta(seconds=0.3)
    task = waiting("next-slow", deferrable=deferrable, cancel_on_kill=cancel, execution_timeout=limit)
    with pytest.raises(AirflowTaskTimeout, match="Gave up waiting for contoso/next-slow"):
        finish(task, context)
    end = "canceled" if cancel else "running"
    assert eventually(lambda: state_of(emulator, "next-slow", "publish") == end)
    assert len(emulator.requests(method="POST", path="/cancel$")) == cancel


# --- going live with one version only ---


def go_live(offer: str, **arguments: Any) -> GoLiveOperator:
    return GoLiveOperator(task_id="go_live", offer_id=offer, **arguments)


@at_signoff
@pytest.mark.parametrize("version", [2, "2"])
def test_the_version_that_is_in_preview_goes_live(
    emulator: Emulator, context: Context, offer: str, version: int | str
) -> None:
    assert go_live(offer, version=version).execute(context) == operations(emulator, offer)[0]["location"]


@at_signoff
@pytest.mark.parametrize("version", [1, 3, "3"])
def test_another_version_than_that_in_preview_does_not_go_live(
    emulator: Emulator, context: Context, offer: str, version: int | str
) -> None:
    said = rf"contoso/{offer} .*version {version} was to go live, but version 2 is in preview"
    with pytest.raises(ConflictError, match=said):
        go_live(offer, version=version).execute(context)
    assert emulator.requests(method="POST", path="^/api/") == []


def test_an_outage_while_the_preview_is_looked_at_is_waited_out(emulator: Emulator, context: Context) -> None:
    emulator.inject(path="slot/preview$", status=503, count=2)
    assert go_live("slow", version=2).execute(context)


@pytest.mark.parametrize("offer", ["next", "next-classic"])
def test_going_live_without_a_preview_says_to_publish_first(
    emulator: Emulator, context: Context, offer: str
) -> None:
    with pytest.raises(ValidationError, match=rf"contoso/{offer} .*Publish the offer first"):
        go_live(offer).execute(context)


@pytest.mark.parametrize("offer", ["next", "nowhere"])
def test_where_nothing_is_in_preview_no_other_version_is_said_to_be(
    emulator: Emulator, context: Context, offer: str
) -> None:
    with pytest.raises(NotFoundError, match=f"contoso/{offer}") as raised:
        go_live(offer, version=2).execute(context)
    assert "version None" not in str(raised.value)
