"""Rules that go-live and publish share: which operations are adopted, conflicts, and the log of lookups."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout
from harness import Connect, Log, deferral, eventually, operations, resume, state_of
from relay import running_relay

from airflow_provider_cpp.exceptions import CloudPartnerError, ConflictError
from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
from airflow_provider_cpp.operators.cloud_partner import (
    CancelOperator,
    GetOfferOperator,
    GoLiveOperator,
    PublishOperator,
)

if TYPE_CHECKING:
    from pathlib import Path

    from dev.emulator_process import Emulator

Context = dict[str, Any]

SUBMISSIONS = "submissions/$"
OPERATORS = {"golive": GoLiveOperator, "publish": PublishOperator, "cancel": CancelOperator}
KINDS = {"golive": "goLive", "publish": "publish"}
migrated_or_not = pytest.mark.parametrize("kind", ["", "-classic"])
adopt_or_fail = pytest.mark.parametrize("if_running", ["adopt", "fail"])


def task(verb: str, offer: str, **arguments: Any) -> Any:
    return OPERATORS[verb](task_id="task", offer_id=offer, **{"poke_interval": 0.01, **arguments})


def posts(emulator: Emulator, verb: str) -> list[int | None]:
    """Status of the response to each request."""
    return [post["status"] for post in emulator.requests(method="POST", path=f"/{verb}$")]


# --- an outdated list shows an operation as running, and its Location as succeeded ---


@migrated_or_not
@adopt_or_fail
@pytest.mark.parametrize("lookups", [1, 1000], ids=["for a while", "always"])
def test_outdated_entry_of_an_earlier_success_is_not_adopted(
    emulator: Emulator, context: Context, kind: str, if_running: str, lookups: int
) -> None:
    list_success_as_running(emulator, f"quick{kind}", lookups)
    context["dag_run"] = SimpleNamespace(start_date=datetime.now(UTC) + timedelta(minutes=1))
    with pytest.raises(CloudPartnerError, match="live already"):
        task("golive", f"quick{kind}", if_running=if_running).execute(context)
    assert posts(emulator, "golive") == [202, 400]


@migrated_or_not
@adopt_or_fail
@pytest.mark.parametrize("lookups", [1, 1000], ids=["for a while", "always"])
def test_outdated_entry_of_a_success_in_this_run_is_adopted(
    emulator: Emulator, context: Context, kind: str, if_running: str, lookups: int
) -> None:
    location = list_success_as_running(emulator, f"quick{kind}", lookups)
    assert task("golive", f"quick{kind}", if_running=if_running).execute(context) == location
    assert posts(emulator, "golive") == [202]


@migrated_or_not
def test_outdated_entry_whose_effect_is_gone_is_not_adopted(
    emulator: Emulator, context: Context, kind: str
) -> None:
    offer = f"quick{kind}"
    list_success_as_running(emulator, offer, 1)
    hook = CloudPartnerHook()
    hook.publish(offer)
    eventually(lambda: hook.get_offer(offer, slot="preview").version == 3)
    assert task("golive", offer).execute(context) == operations(emulator, offer)[0]["location"]
    assert posts(emulator, "golive") == [202, 202]


def list_success_as_running(emulator: Emulator, offer: str, lookups: int) -> str:
    """Let a go-live succeed that the list keeps showing as running; return its Location."""
    location = CloudPartnerHook().go_live(offer)
    outdated = json.dumps([one.raw for one in CloudPartnerHook().list_operations(offer)])
    eventually(lambda: state_of(emulator, offer) == "completed")
    emulator.inject(path=SUBMISSIONS, count=lookups, replace={"body": outdated})
    return location


@pytest.mark.parametrize("state", ["running", "completed"])
def test_go_live_of_another_version_is_not_adopted(emulator: Emulator, context: Context, state: str) -> None:
    CloudPartnerHook().go_live("quick" if state == "completed" else "slow")
    offer = {"running": "slow", "completed": "quick"}[state]
    eventually(lambda: state_of(emulator, offer) == state)
    with pytest.raises(
        ConflictError,
        match="takes another version live" if state == "running" else "version 1 was to go live",
    ):
        task("golive", offer, version=1).execute(context)
    assert len(posts(emulator, "golive")) == 1


# --- 409 because of another kind of operation ---


@adopt_or_fail
@pytest.mark.parametrize(
    ("verb", "offer", "running"),
    [
        ("golive", "publishing", "publish"),
        ("golive", "publishing-classic", "publish"),
        ("publish", "going-live", "goLive"),
        ("publish", "going-live-classic", "goLive"),
    ],
)
def test_conflict_with_another_kind_is_raised_after_one_lookup(
    emulator: Emulator, context: Context, verb: str, offer: str, running: str, if_running: str
) -> None:
    emulator.inject(path=SUBMISSIONS, count=1, replace={"body": "[]"})
    emulator.inject(path=f"{verb}$", status=409)
    with pytest.raises(ConflictError, match=rf"contoso/{offer} .*a {running} runs on it .*since 20\d\d-"):
        task(verb, offer, if_running=if_running).execute(context)
    assert len(emulator.requests(path=SUBMISSIONS)) == 2
    assert posts(emulator, verb) == [409]


def test_conflict_after_a_lost_response_is_raised_after_one_lookup(
    emulator: Emulator, context: Context
) -> None:
    emulator.inject(path=SUBMISSIONS, count=1 + 5, replace={"body": "[]"})
    emulator.inject(path="publish$", close="before")
    with pytest.raises(ConflictError, match="a goLive runs on it"):
        task("publish", "going-live").execute(context)
    assert len(emulator.requests(path=SUBMISSIONS)) == 1 + 5 + 1


@migrated_or_not
def test_publish_that_awaits_the_signoff_does_not_explain_a_conflict(
    emulator: Emulator, context: Context, kind: str
) -> None:
    emulator.inject(path="golive$", status=409, body='{"error": {"message": "Something else is running."}}')
    with pytest.raises(ConflictError, match="Something else is running"):
        task("golive", f"slow{kind}").execute(context)
    assert len(emulator.requests(path=SUBMISSIONS)) == 1 + 8


# --- the log ---


@pytest.mark.parametrize(
    ("verb", "offer", "path", "description"),
    [
        ("golive", "slow", SUBMISSIONS, "Reading the operations of contoso/slow"),
        ("golive", "slow", "slot/preview$", "Reading the preview slot of contoso/slow"),
        ("golive", "slow", "golive$", "Starting the go-live of contoso/slow"),
        ("publish", "next-slow", "publish$", "Starting the publish of contoso/next-slow"),
        ("cancel", "going-live", "cancel$", "Canceling the operation of contoso/going-live"),
        ("cancel", "live", "status$", "Reading the status of contoso/live"),
    ],
)
def test_log_names_request_attempt_and_pause(
    emulator: Emulator, context: Context, verb: str, offer: str, path: str, description: str, log: Log
) -> None:
    emulator.inject(path=path, count=2, status=429)
    options = {"version": 2} if verb == "golive" else {"wait_for_completion": False}
    task(verb, offer, **options).execute(context)
    first, second = log.containing("retrying in")
    assert first.startswith(f"{description} failed (attempt 1 of 8); retrying in 0.")
    assert second.startswith(f"{description} failed (attempt 2 of 8); retrying in ")
    assert "was answered 429" in second
    assert log.containing("<lambda>") == []


def test_log_names_the_offer_that_could_not_be_read(emulator: Emulator, context: Context, log: Log) -> None:
    emulator.inject(path="offers/slow$", count=1, status=500)
    GetOfferOperator(task_id="task", offer_id="slow").execute(context)
    assert log.containing("Reading contoso/slow failed (attempt 1 of 8)")


@pytest.mark.parametrize(
    ("close", "result"),
    [
        ("after", "found a {kind} (id "),
        ("before", "found no {verb} that the request started; sending it again (attempt 2 of 3)."),
    ],
)
@pytest.mark.parametrize(("verb", "offer"), [("golive", "slow"), ("publish", "next-slow")])
def test_log_names_the_result_of_a_lookup(
    emulator: Emulator, context: Context, verb: str, offer: str, close: str, result: str, log: Log
) -> None:
    emulator.inject(path=f"{verb}$", close=close)
    task(verb, offer).execute(context)
    words = {"golive": "go-live"}.get(verb, verb)
    assert log.containing(f"contoso/{offer}: looking up whether the request started a {words}. ")
    (line,) = log.containing(result.format(kind=KINDS[verb], verb=words))
    assert line.endswith("; the request is not sent again.") == (close == "after")


# --- certificates ---


@pytest.mark.parametrize("host", ["service", "identity"])
@pytest.mark.parametrize("verb", ["golive", "publish", "cancel"])
def test_untrusted_certificate_is_reported_without_retries(
    emulator: Emulator, connect: Connect, context: Context, tmp_path: Path, log: Log, host: str, verb: str
) -> None:
    with running_relay(emulator, tmp_path) as relay:
        if host == "service":
            connect(emulator, host=relay.url)
        else:
            (tmp_path / "other.pem").write_bytes(relay.certificate_authority)
            connect(emulator, host=relay.url, extra={"verify": str(tmp_path / "other.pem")})
        with pytest.raises(CloudPartnerError, match=r"(?i)certificate.*\(extra 'verify'\)") as raised:
            task(verb, "slow").execute(context)
    assert raised.value.untrusted
    assert log.containing("retrying in") == []
    assert emulator.requests(path="^/api/") == []


def test_untrusted_certificate_does_not_end_a_wait(
    emulator: Emulator, connect: Connect, context: Context
) -> None:
    options = {"wait_for_completion": True, "execution_timeout": timedelta(seconds=1), "max_wait": 0.05}
    deferred = deferral(task("golive", "slow", **options), context)
    connect(emulator, extra={"verify": None})
    with pytest.raises(AirflowTaskTimeout, match="Gave up waiting for contoso/slow"):
        resume(task("golive", "slow", **options), context, deferred)
