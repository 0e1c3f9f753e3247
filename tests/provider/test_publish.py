"""`PublishOperator`: which publishes it adopts, `if_published`, addresses, and the wait for the preview."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException
from harness import Connect, Log, eventually, finish, operations, revise, state_of
from submitting import (
    adopt_or_fail,
    deferred_or_not,
    each_slow,
    effects,
    freeze_list,
    listed,
    location_of,
    migrated_or_not,
    operator,
    overtaken,
    posts,
    states,
)

from airflow_provider_cpp.exceptions import ConflictError, ValidationError
from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_cpp.operators.cloud_partner import PublishOperator
    from dev.emulator_process import Emulator

Context = dict[str, Any]

#: The publisher's signoff is awaited.
at_signoff = pytest.mark.parametrize("offer", ["slow", "slow-classic"])
published = pytest.mark.parametrize("offer", ["publishing", "publishing-classic", "slow-classic"])
quick = pytest.mark.parametrize("offer", ["quick", "quick-classic"])


def publish(offer: str = "next-slow", **arguments: Any) -> PublishOperator:
    task: PublishOperator = operator("publish", offer, **arguments)
    return task


def the_location(emulator: Emulator, offer: str) -> Any:
    """Location of the only publish of an offer."""
    (only,) = operations(emulator, offer, "publish")
    return only["location"]


def go_live(emulator: Emulator, offer: str) -> None:
    """Take the preview live, so that the publish completes."""
    CloudPartnerHook().go_live(offer)
    eventually(lambda: state_of(emulator, offer) == "completed")


def start_later(context: Context) -> None:
    """Let the Dag run start after all operations so far."""
    context["dag_run"] = SimpleNamespace(run_after=datetime.now(UTC) + timedelta(days=1))


# --- start ---


@pytest.mark.parametrize(
    ("addresses", "sent"),
    [((), ""), (["a@contoso.com", "b@contoso.com"], "a@contoso.com,b@contoso.com")],
    ids=["no address", "two addresses"],
)
def test_notification_addresses_reach_the_service(
    emulator: Emulator, context: Context, addresses: Any, sent: str
) -> None:
    publish(notification_emails=addresses).execute(context)
    (operation,) = operations(emulator, "next-slow", "publish")
    assert operation["definition"]["metadata"]["emails"] == sent


@pytest.mark.parametrize("address", ["contoso.com", "a@contoso.com,b@contoso.com", "a@b\r\nX: 1"])
@pytest.mark.parametrize("offer", ["next-slow", "publishing"])
def test_invalid_address_is_rejected_before_any_request(
    emulator: Emulator, context: Context, offer: str, address: Any
) -> None:
    with pytest.raises(ValueError, match="notification_emails must be e-mail addresses"):
        publish(offer, notification_emails=["a@contoso.com", address]).execute(context)
    assert emulator.requests(path="^/api/") == []


@pytest.mark.parametrize(
    "wrong", [{"if_running": "retry"}, {"if_published": "fail"}, {"timeout": -1}], ids=str
)
def test_invalid_argument_is_rejected_by_the_constructor(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        publish(**wrong)


def test_templated_arguments_are_rendered(emulator: Emulator, context: Context) -> None:
    task = publish(
        "{{ params.offer }}",
        publisher_id="{{ params.publisher }}",
        cloud_partner_conn_id="cloud_partner_{{ params.connection }}",
        notification_emails=["{{ params.user }}@contoso.com"],
    )
    params = {"offer": "next", "publisher": "contoso", "connection": "default", "user": "ops"}
    task.render_template_fields({"params": params})
    assert task.execute(context) == the_location(emulator, "next")
    assert task.subject == "contoso/next"
    (operation,) = operations(emulator, "next", "publish")
    assert operation["definition"]["metadata"]["emails"] == "ops@contoso.com"
    assert task.map_index_template == "{{ task.subject }}"


def test_failed_validation_names_offer_and_reason(emulator: Emulator, context: Context) -> None:
    with pytest.raises(ValidationError, match=r"contoso/invalid .*The offer has no logo") as raised:
        publish("invalid").execute(context)
    assert raised.value.status == 422
    assert len(posts(emulator, "publish")) == 1


# --- running operations ---


@published
def test_publish_of_the_same_draft_is_adopted(
    emulator: Emulator, context: Context, offer: str, log: Log
) -> None:
    assert publish(offer).execute(context) == the_location(emulator, offer)
    assert posts(emulator, "publish") == []
    assert log.containing("which the list shows as running")


def test_preview_that_awaits_the_signoff_is_adopted_by_a_later_run(
    emulator: Emulator, context: Context
) -> None:
    context["dag_run"].start_date = datetime.now(UTC) + timedelta(minutes=1)
    assert publish("slow").execute(context) == the_location(emulator, "slow")
    assert posts(emulator, "publish") == []
    publish("slow", if_running="fail").execute(context)
    assert len(posts(emulator, "publish")) == 1


@adopt_or_fail
def test_preview_of_an_older_draft_of_a_migrated_offer_is_replaced(
    emulator: Emulator, context: Context, if_running: str
) -> None:
    revise("slow")
    location = publish("slow", if_running=if_running).execute(context)
    assert location == operations(emulator, "slow", "publish")[0]["location"]
    assert [post["status"] for post in posts(emulator, "publish")] == [202]


@published
def test_running_publish_is_a_conflict_with_if_running_fail(
    emulator: Emulator, context: Context, offer: str
) -> None:
    with pytest.raises(ConflictError, match=rf"contoso/{offer} .*a publish runs on it .*since 20\d\d-"):
        publish(offer, if_running="fail").execute(context)
    assert posts(emulator, "publish") == []


@adopt_or_fail
@migrated_or_not
def test_running_go_live_is_a_conflict(
    emulator: Emulator, context: Context, kind: str, if_running: str
) -> None:
    reason = rf"contoso/going-live{kind} .*a goLive runs on it .*since 20\d\d-"
    with pytest.raises(ConflictError, match=reason):
        publish(f"going-live{kind}", if_running=if_running).execute(context)
    assert posts(emulator, "publish") == []


@adopt_or_fail
@published
def test_publish_of_an_older_draft_is_a_conflict(
    emulator: Emulator, context: Context, offer: str, if_running: str
) -> None:
    revise(offer)
    cure = r"Go live with it, .*cancel it" if if_running == "adopt" else "cancel it"
    with pytest.raises(ConflictError, match=rf"contoso/{offer} .*a publish runs on it .*{cure}"):
        publish(offer, if_running=if_running).execute(context)
    assert posts(emulator, "publish") == []


def test_publish_of_an_older_draft_is_a_conflict_after_a_409(
    emulator: Emulator, connect: Connect, tmp_path: Path
) -> None:
    def publish_and_revise() -> None:
        CloudPartnerHook().publish("next-slow")
        revise("next-slow")

    with pytest.raises(ConflictError, match="before the offer was last changed"):
        overtaken(emulator, connect, tmp_path, publish(), publish_and_revise)
    assert effects(emulator, "publish") == 1


def test_unlisted_publish_of_an_older_draft_is_a_conflict(emulator: Emulator, context: Context) -> None:
    revise("publishing")
    freeze_list(emulator, count=1)
    emulator.inject(method="POST", path="/publish$", close="before")
    with pytest.raises(ConflictError, match="started before the offer was last changed"):
        publish("publishing").execute(context)
    assert effects(emulator, "publish") == 0


@at_signoff
def test_draft_that_was_changed_back_is_the_same(emulator: Emulator, context: Context, offer: str) -> None:
    text = CloudPartnerHook().get_offer(offer).definition["displayText"]
    revise(offer)
    revise(offer, text)
    assert publish(offer).execute(context) == the_location(emulator, offer)


@each_slow
def test_conflict_with_an_unlisted_operation_quotes_the_service(
    emulator: Emulator, context: Context, verb: str, offer: str
) -> None:
    emulator.inject(path=f"{verb}$", status=409, body='{"error": {"message": "Another one is running."}}')
    with pytest.raises(ConflictError, match=rf"contoso/{offer} .*Another one is running"):
        operator(verb, offer).execute(context)
    assert len(posts(emulator, verb)) == 1


# --- operations without success ---


def fail(emulator: Emulator, offer: str) -> None:
    CloudPartnerHook().publish(offer)
    eventually(lambda: state_of(emulator, offer, "publish") == "failed")


def cancel(emulator: Emulator, offer: str) -> None:
    CloudPartnerHook().publish(offer)
    CloudPartnerHook().cancel(offer)
    eventually(lambda: state_of(emulator, offer, "publish") == "canceled")


def cancel_in_preview(emulator: Emulator, offer: str) -> None:
    CloudPartnerHook().publish(offer)
    eventually(lambda: CloudPartnerHook().get_offer_status(offer).awaiting_publisher)
    CloudPartnerHook().cancel(offer)


@migrated_or_not
@pytest.mark.parametrize(
    ("offer", "end"), [("uncertified", fail), ("next-slow", cancel), ("next", cancel_in_preview)]
)
def test_failed_or_canceled_publish_is_not_adopted(
    emulator: Emulator, context: Context, offer: str, end: Callable[[Emulator, str], None], kind: str
) -> None:
    end(emulator, offer + kind)
    location = publish(offer + kind).execute(context)
    latest, before = operations(emulator, offer + kind, "publish")
    assert location == latest["location"] != before["location"]
    assert effects(emulator, "publish") == 2


@migrated_or_not
def test_canceled_publish_in_an_outdated_list_is_not_adopted(
    emulator: Emulator, context: Context, kind: str
) -> None:
    offer = f"next-slow{kind}"
    CloudPartnerHook().publish(offer)
    outdated = listed(offer)
    CloudPartnerHook().cancel(offer)
    eventually(lambda: state_of(emulator, offer, "publish") == "canceled")
    freeze_list(emulator, outdated, count=1)
    assert publish(offer).execute(context) == location_of(emulator, offer, "publish")
    assert states(emulator, offer, "publish") == ["running", "canceled"]


# --- operations that succeeded ---


@quick
@pytest.mark.parametrize("name", ["run_after", "data_interval_end", "start_date"])
def test_success_since_the_dag_run_started_is_adopted(
    emulator: Emulator, context: Context, offer: str, name: str
) -> None:
    go_live(emulator, offer)
    context["dag_run"] = SimpleNamespace(**{name: datetime.now(UTC) - timedelta(minutes=1)})
    assert publish(offer).execute(context) == the_location(emulator, offer)
    assert posts(emulator, "publish") == []


@quick
def test_success_before_the_dag_run_started_is_not_adopted(
    emulator: Emulator, context: Context, offer: str
) -> None:
    go_live(emulator, offer)
    start_later(context)
    publish(offer).execute(context)
    assert effects(emulator, "publish") == 1


@quick
def test_success_of_an_older_draft_is_not_adopted(emulator: Emulator, context: Context, offer: str) -> None:
    go_live(emulator, offer)
    revise(offer)
    publish(offer).execute(context)
    assert effects(emulator, "publish") == 1


# --- if_published ---


@migrated_or_not
def test_published_draft_is_skipped_with_if_published_skip(
    emulator: Emulator, context: Context, kind: str
) -> None:
    start_later(context)
    reason = f"contoso/live{kind}: the preview has the draft's definition"
    with pytest.raises(AirflowSkipException, match=reason):
        publish(f"live{kind}", if_published="skip").execute(context)
    assert posts(emulator, "publish") == []


def test_published_draft_is_a_success_with_if_published_succeed(emulator: Emulator, context: Context) -> None:
    start_later(context)
    assert publish("live", if_published="succeed", wait_for_completion=True).execute(context) is None
    assert posts(emulator, "publish") == []


def test_published_draft_is_submitted_by_default(emulator: Emulator, context: Context) -> None:
    start_later(context)
    assert publish("live").execute(context) == location_of(emulator, "live", "publish")
    assert effects(emulator, "publish") == 1


@pytest.mark.parametrize("if_published", ["skip", "succeed"])
@pytest.mark.parametrize("offer", ["next-slow", "live"])
def test_changed_draft_is_submitted_with_if_published(
    emulator: Emulator, context: Context, offer: str, if_published: str
) -> None:
    revise(offer)
    assert publish(offer, if_published=if_published).execute(context)
    assert effects(emulator, "publish") == 1


# --- wait ---


@deferred_or_not
@migrated_or_not
def test_wait_ends_when_the_preview_is_ready(
    emulator: Emulator, context: Context, kind: str, deferrable: bool
) -> None:
    offer = f"next{kind}"
    location = finish(publish(offer, wait_for_completion=True, deferrable=deferrable), context)
    assert location == the_location(emulator, offer)
    assert state_of(emulator, offer, "publish") == ("running" if kind else "completed")
    assert CloudPartnerHook().get_offer_status(offer).awaiting_publisher
    assert CloudPartnerHook().get_offer(offer, slot="preview").version == 2
    assert len(posts(emulator, "publish")) == 1


@at_signoff
def test_ready_preview_is_not_deferred(emulator: Emulator, context: Context, offer: str) -> None:
    assert publish(offer, wait_for_completion=True).execute(context) == the_location(emulator, offer)
