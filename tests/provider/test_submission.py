"""Rules that go-live and publish share: exactly one operation, whichever part fails."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout
from harness import Connect, Log, clear_faults, deferral, eventually, finish, resume, state_of
from relay import running_relay
from submitting import (
    KINDS,
    SUBMISSIONS,
    WORDS,
    KilledError,
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
    start_directly,
    states,
    statuses,
)

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
from airflow_provider_cpp.operators.cloud_partner import GetOfferOperator

if TYPE_CHECKING:
    from pathlib import Path

    from relay import Sent

    from dev.emulator_process import Emulator

Context = dict[str, Any]
slow_migrated = pytest.mark.parametrize(("verb", "offer"), [("golive", "slow"), ("publish", "next-slow")])

HTML = "<html><h1>502 Bad Gateway</h1></html>"
FOREIGN = "https://elsewhere.example/api/publishers/contoso/offers/slow/operations/1"
#: Faults after which it is unknown whether the request had its effect.
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
    "202 without a Location": {"replace": {"headers": {"Location": None}}},
    "202 with a Location on another host": {"replace": {"headers": {"Location": FOREIGN}}},
    "202 with another Location": {"replace": {"headers": {"Location": "/api/publishers"}}},
}


# --- start ---


@each_slow
def test_location_of_the_new_operation_is_returned(
    emulator: Emulator, context: Context, verb: str, offer: str
) -> None:
    assert operator(verb, offer).execute(context) == location_of(emulator, offer, verb)
    assert effects(emulator, verb) == 1


@slow_migrated
def test_list_is_read_before_the_request(emulator: Emulator, context: Context, verb: str, offer: str) -> None:
    operator(verb, offer).execute(context)
    sent = [request["path"].rpartition(f"{offer}/")[2] for request in emulator.requests(path="^/api/")]
    assert (sent[0], sent[-1]) == ("submissions/", verb)
    assert len(posts(emulator, verb)) == 1


@each_slow
def test_second_attempt_adopts_the_running_operation(
    emulator: Emulator, context: Context, verb: str, offer: str, log: Log
) -> None:
    first = operator(verb, offer).execute(context)
    assert operator(verb, offer).execute(context) == first
    assert len(posts(emulator, verb)) == 1
    assert log.containing("which the list shows as running")


@pytest.mark.parametrize("field", ["offer_id", "publisher_id"])
@pytest.mark.parametrize("value", ["", " ", ".", "..", "a/b", "a\\b", "a?b", "a#b", "a\nb", 5])
@pytest.mark.parametrize("verb", ["golive", "publish"])
def test_invalid_id_is_rejected_before_any_request(
    emulator: Emulator, context: Context, verb: str, field: str, value: Any
) -> None:
    arguments = {"offer_id": "slow", field: value}
    with pytest.raises(ValueError, match=field):
        operator(verb, arguments.pop("offer_id"), **arguments).execute(context)
    assert emulator.requests() == []


# --- exactly one operation ---


@each_slow
@pytest.mark.parametrize("fault", UNKNOWN_OUTCOMES.values(), ids=UNKNOWN_OUTCOMES)
def test_unknown_outcome_leads_to_one_operation(
    emulator: Emulator, context: Context, verb: str, offer: str, fault: dict[str, Any]
) -> None:
    emulator.inject(path=f"{verb}$", **fault)
    assert operator(verb, offer).execute(context) == location_of(emulator, offer, verb)
    assert effects(emulator, verb) == len(states(emulator, offer, verb)) == 1


@slow_migrated
@pytest.mark.parametrize("status", [429, 503])
def test_postponed_request_is_repeated_after_retry_after(
    emulator: Emulator, context: Context, verb: str, offer: str, status: int
) -> None:
    emulator.inject(path=f"{verb}$", status=status, headers={"Retry-After": "1"})
    operator(verb, offer).execute(context)
    first, second = (datetime.fromisoformat(post["time"]) for post in posts(emulator, verb))
    assert second - first >= timedelta(seconds=1)
    assert effects(emulator, verb) == 1


@each_slow
@pytest.mark.parametrize(
    ("lookups", "responses"), [(3, [None]), (7, [None, 409]), (5 + 3, [None, 409])], ids=["3", "7", "8"]
)
def test_outdated_list_leads_to_one_operation(
    emulator: Emulator, context: Context, verb: str, offer: str, lookups: int, responses: list[int | None]
) -> None:
    emulator.inject(path=f"{verb}$", close="after")
    freeze_list(emulator, listed(offer), skip=0, count=1 + lookups)
    assert operator(verb, offer).execute(context) == location_of(emulator, offer, verb)
    assert statuses(emulator, verb) == responses
    assert effects(emulator, verb) == 1


def test_old_success_that_is_listed_late_is_not_adopted(emulator: Emulator, context: Context) -> None:
    CloudPartnerHook().go_live("quick")
    eventually(lambda: state_of(emulator, "quick") == "completed")
    context["dag_run"] = SimpleNamespace(start_date=datetime.now(UTC) + timedelta(minutes=1))
    freeze_list(emulator, count=1)
    emulator.inject(path="golive$", close="before")
    with pytest.raises(ValidationError, match="live already"):
        operator("golive", "quick").execute(context)


@migrated_or_not
def test_success_of_an_older_version_is_not_the_lost_request(
    emulator: Emulator, context: Context, kind: str
) -> None:
    offer, hook = f"quick{kind}", CloudPartnerHook()
    hook.go_live(offer)
    eventually(lambda: state_of(emulator, offer) == "completed")
    hook.publish(offer)
    eventually(lambda: hook.get_offer(offer, slot="preview").version == 3)
    freeze_list(emulator, count=1)
    emulator.inject(path="golive$", status=500)
    with pytest.raises(CloudPartnerError, match="500"):
        operator("golive", offer, version=3).execute(context)
    assert statuses(emulator) == [202, 500]
    assert operator("golive", offer, version=3).execute(context) == location_of(emulator, offer)
    assert statuses(emulator) == [202, 500, 202]


@slow_migrated
def test_accepted_request_is_not_repeated_if_it_is_not_listed(
    emulator: Emulator, context: Context, verb: str, offer: str
) -> None:
    emulator.inject(path=f"{verb}$", replace={"headers": {"Location": None}})
    freeze_list(emulator, skip=1)
    with pytest.raises(CloudPartnerError, match="there is no Location header") as raised:
        operator(verb, offer).execute(context)
    assert raised.value.accepted
    assert len(posts(emulator, verb)) == 1


@slow_migrated
def test_attempt_after_a_lasting_unknown_outcome_adopts(
    emulator: Emulator, context: Context, verb: str, offer: str
) -> None:
    emulator.inject(path=f"{verb}$", close="after")
    emulator.inject(path=SUBMISSIONS, skip=1, count=100, status=500)
    with pytest.raises(CloudPartnerError, match="500"):
        operator(verb, offer).execute(context)
    started = location_of(emulator, offer, verb)
    clear_faults(emulator)
    assert operator(verb, offer).execute(context) == started
    assert len(posts(emulator, verb)) == 1


@slow_migrated
def test_outages_before_the_request_are_retried(
    emulator: Emulator, context: Context, verb: str, offer: str
) -> None:
    for path in (SUBMISSIONS, "status$", "oauth2/v2.0/token"):
        emulator.inject(path=path, status=500, count=2)
    operator(verb, offer).execute(context)
    assert len(posts(emulator, verb)) == 1


@slow_migrated
def test_request_that_did_not_reach_the_service_is_repeated(
    emulator: Emulator, connect: Connect, context: Context, tmp_path: Path, log: Log, verb: str, offer: str
) -> None:
    with running_relay(emulator, tmp_path) as relay:
        connect(emulator, host=relay.url, extra={"verify": relay.verify})

        def hang_up(sent: Sent) -> None:
            # The last read before the request.
            if "/submissions/" in sent.target:
                relay.stop()

        relay.after = hang_up
        log.react("was not sent", relay.start)
        location = operator(verb, offer).execute(context)
    assert location == location_of(emulator, offer, verb)
    assert log.containing("was not sent")
    assert len(posts(emulator, verb)) == 1


@each_slow
@pytest.mark.parametrize("lookups", [0, 3])
def test_operation_of_another_client_is_adopted_after_a_conflict(
    emulator: Emulator, connect: Connect, tmp_path: Path, verb: str, offer: str, lookups: int
) -> None:
    outdated = listed(offer)

    def act() -> None:
        start_directly(verb, offer)
        if lookups:
            freeze_list(emulator, outdated, count=lookups)

    assert overtaken(emulator, connect, tmp_path, operator(verb, offer), act) == location_of(
        emulator, offer, verb
    )
    assert statuses(emulator, verb) == [202, 409]


@each_slow
def test_operation_of_another_client_is_a_conflict_with_fail(
    emulator: Emulator, connect: Connect, tmp_path: Path, verb: str, offer: str
) -> None:
    task = operator(verb, offer, if_running="fail")
    with pytest.raises(ConflictError, match=f"a {KINDS[verb]} runs on it"):
        overtaken(emulator, connect, tmp_path, task, lambda: start_directly(verb, offer))
    assert effects(emulator, verb) == 1


@each_slow
def test_attempt_after_a_killed_worker_adopts_without_a_store(
    emulator: Emulator, context: Context, monkeypatch: pytest.MonkeyPatch, verb: str, offer: str
) -> None:
    name = {"golive": "go_live"}.get(verb, verb)
    send = getattr(CloudPartnerHook, name)

    def killed(*arguments: Any, **options: Any) -> None:
        send(*arguments, **options)
        raise KilledError

    with monkeypatch.context() as first_attempt:
        first_attempt.setattr(CloudPartnerHook, name, killed)
        with pytest.raises(KilledError):
            operator(verb, offer).execute(context)
    assert operator(verb, offer).execute(context) == location_of(emulator, offer, verb)
    assert len(posts(emulator, verb)) == 1


# --- refusals ---


@pytest.mark.parametrize(
    ("verb", "offer", "publisher", "error"),
    [
        ("golive", "nowhere", None, NotFoundError),
        ("golive", "next", None, ValidationError),
        ("golive", "slow", "unknown", NotFoundError),
        ("publish", "nowhere", None, NotFoundError),
        ("publish", "next", "unknown", NotFoundError),
        ("publish", "invalid", None, ValidationError),
    ],
)
def test_refusal_is_raised_at_once(
    emulator: Emulator, context: Context, verb: str, offer: str, publisher: str | None, error: type[Exception]
) -> None:
    with pytest.raises(error, match=offer):
        operator(verb, offer, publisher_id=publisher).execute(context)
    assert len(emulator.requests(path="^/api/")) <= 3


@slow_migrated
def test_unregistered_principal_is_rejected_at_once(
    emulator: Emulator, context: Context, verb: str, offer: str
) -> None:
    emulator.inject(path=SUBMISSIONS, status=403)
    with pytest.raises(PermissionDeniedError, match="managed application in local directory"):
        operator(verb, offer).execute(context)
    assert posts(emulator, verb) == []


# --- wait ---


@slow_migrated
def test_location_is_readable_during_the_wait(
    emulator: Emulator, context: Context, verb: str, offer: str
) -> None:
    deferral(operator(verb, offer, wait_for_completion=True), context)
    assert context["ti"].xcoms["return_value"] == location_of(emulator, offer, verb)


@deferred_or_not
@migrated_or_not
@pytest.mark.parametrize(
    ("verb", "offer", "step"), [("golive", "failing", "Live"), ("publish", "uncertified", "Certification")]
)
def test_failure_names_step_and_message(
    emulator: Emulator, context: Context, verb: str, offer: str, step: str, kind: str, deferrable: bool
) -> None:
    task = operator(verb, f"{offer}{kind}", wait_for_completion=True, deferrable=deferrable)
    reason = rf"contoso/{offer}{kind} failed in step {step}: No SSH key & no password"
    with pytest.raises(OperationFailedError, match=reason) as raised:
        finish(task, context)
    assert raised.value.step == step
    assert raised.value.messages[0] == "No SSH key & no password."


@deferred_or_not
@slow_migrated
def test_cancel_by_another_client_ends_the_wait(
    emulator: Emulator, context: Context, verb: str, offer: str, deferrable: bool
) -> None:
    context["ti"].xcom_push = lambda key, value: CloudPartnerHook().cancel(offer)
    with pytest.raises(OperationCanceledError, match="canceled at the service"):
        finish(operator(verb, offer, wait_for_completion=True, deferrable=deferrable), context)


@deferred_or_not
@slow_migrated
@pytest.mark.parametrize("cancel", [True, False])
def test_execution_timeout_cancels_only_with_cancel_on_kill(
    emulator: Emulator, context: Context, verb: str, offer: str, deferrable: bool, cancel: bool
) -> None:
    limit = timedelta(seconds=0.3)
    options = {"deferrable": deferrable, "cancel_on_kill": cancel, "execution_timeout": limit}
    with pytest.raises(AirflowTaskTimeout, match=f"contoso/{offer}"):
        finish(operator(verb, offer, wait_for_completion=True, **options), context)
    state = "canceled" if cancel else "running"
    assert eventually(lambda: state_of(emulator, offer, KINDS[verb]) == state)
    assert len(posts(emulator, "cancel")) == cancel


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
        operator("golive", f"quick{kind}", if_running=if_running).execute(context)
    assert statuses(emulator) == [202, 400]


@migrated_or_not
@adopt_or_fail
@pytest.mark.parametrize("lookups", [1, 1000], ids=["for a while", "always"])
def test_outdated_entry_of_a_success_in_this_run_is_adopted(
    emulator: Emulator, context: Context, kind: str, if_running: str, lookups: int
) -> None:
    location = list_success_as_running(emulator, f"quick{kind}", lookups)
    assert operator("golive", f"quick{kind}", if_running=if_running).execute(context) == location
    assert statuses(emulator) == [202]


@migrated_or_not
def test_outdated_entry_whose_effect_is_gone_is_not_adopted(
    emulator: Emulator, context: Context, kind: str
) -> None:
    offer = f"quick{kind}"
    list_success_as_running(emulator, offer, 1)
    hook = CloudPartnerHook()
    hook.publish(offer)
    eventually(lambda: hook.get_offer(offer, slot="preview").version == 3)
    assert operator("golive", offer).execute(context) == location_of(emulator, offer)
    assert statuses(emulator) == [202, 202]


def list_success_as_running(emulator: Emulator, offer: str, lookups: int) -> str:
    """Let a go-live succeed that the list keeps showing as running; return its Location."""
    location = CloudPartnerHook().go_live(offer)
    outdated = listed(offer)
    eventually(lambda: state_of(emulator, offer) == "completed")
    freeze_list(emulator, outdated, count=lookups)
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
        operator("golive", offer, version=1).execute(context)
    assert len(posts(emulator)) == 1


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
    freeze_list(emulator, count=1)
    emulator.inject(path=f"{verb}$", status=409)
    with pytest.raises(ConflictError, match=rf"contoso/{offer} .*a {running} runs on it .*since 20\d\d-"):
        operator(verb, offer, if_running=if_running).execute(context)
    assert len(emulator.requests(path=SUBMISSIONS)) == 2
    assert statuses(emulator, verb) == [409]


def test_conflict_after_a_lost_response_is_raised_after_one_lookup(
    emulator: Emulator, context: Context
) -> None:
    freeze_list(emulator, count=1 + 5)
    emulator.inject(path="publish$", close="before")
    with pytest.raises(ConflictError, match="a goLive runs on it"):
        operator("publish", "going-live").execute(context)
    assert len(emulator.requests(path=SUBMISSIONS)) == 1 + 5 + 1


@migrated_or_not
def test_publish_that_awaits_the_signoff_does_not_explain_a_conflict(
    emulator: Emulator, context: Context, kind: str
) -> None:
    emulator.inject(path="golive$", status=409, body='{"error": {"message": "Something else is running."}}')
    with pytest.raises(ConflictError, match="Something else is running"):
        operator("golive", f"slow{kind}").execute(context)
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
    operator(verb, offer, **options).execute(context)
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
    operator(verb, offer).execute(context)
    assert log.containing(f"contoso/{offer}: looking up whether the request started a {WORDS[verb]}. ")
    (line,) = log.containing(result.format(kind=KINDS[verb], verb=WORDS[verb]))
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
            operator(verb, "slow").execute(context)
    assert raised.value.untrusted
    assert log.containing("retrying in") == []
    assert emulator.requests(path="^/api/") == []


def test_untrusted_certificate_does_not_end_a_wait(
    emulator: Emulator, connect: Connect, context: Context
) -> None:
    options = {"wait_for_completion": True, "execution_timeout": timedelta(seconds=1), "max_wait": 0.05}
    deferred = deferral(operator("golive", "slow", **options), context)
    connect(emulator, extra={"verify": None})
    with pytest.raises(AirflowTaskTimeout, match="contoso/slow"):
        resume(operator("golive", "slow", **options), context, deferred)
