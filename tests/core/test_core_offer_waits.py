"""Waits on the status of an offer: when they end, and what they say."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_cpp.core.errors import CloudPartnerError
from airflow_provider_cpp.core.http import Response
from airflow_provider_cpp.core.models import OfferState, OfferStatus, Operation
from airflow_provider_cpp.core.polling import (
    FAILURE_STATUSES,
    SIGNOFF,
    Outcome,
    PollSpec,
    PollState,
    decide,
    explain,
    state_of,
    summarize,
)
from airflow_provider_cpp.portal import requests as portal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_cpp.core.polling import Decision

DAY = 86400
HOST = "https://cloudpartner.azure.com"
CALL = portal.get_offer_status("contoso", "web")
#: With the defaults of the sensor.
WAIT = PollSpec(
    "contoso/web",
    (SIGNOFF, "succeeded"),
    FAILURE_STATUSES,
    started_at=1000.0,
    deadline=1000.0 + 7 * DAY,
    poke_interval=30,
    max_wait=600,
)
IDENTITY = {"publisher_id": "contoso", "offer_id": "web"}
CANCELING = replace(WAIT, until=("canceled", "failed"), fail_on=("succeeded",))
LOCATION = "/api/operations/contoso$web$2$preview?api-version=2017-10-31"


def offer(status: str = "running", *steps: dict[str, Any], **fields: Any) -> OfferStatus:
    body = json.dumps({"status": status, "steps": steps, **fields}).encode()
    return CALL.read(Response(200, {}, body, HOST))


def operation(status: str) -> Operation:
    body = json.dumps({"status": status, "steps": []}).encode()
    return portal.get_operation(LOCATION, HOST).read(Response(200, {}, body, HOST))


def step(status: str, name: str = "displaycertify", **fields: Any) -> dict[str, Any]:
    return {"id": name, "stepName": name, "status": status, **fields}


def signoff(status: str = SIGNOFF, field: str = "id") -> dict[str, Any]:
    return {"id": "one", "stepName": "two", field: "publisher-signoff", "status": status}


def polls(*answers: OfferStatus | CloudPartnerError, wait: PollSpec = WAIT) -> Iterator[Decision]:
    seen = PollState()
    for number, answer in enumerate(answers, 1):
        decision = decide(wait, seen, answer, now=wait.started_at + number, jitter=0)
        seen = decision.seen
        yield decision


def end_of(answer: OfferStatus, *, age: float = 1, **changes: Any) -> Outcome | None:
    wait = replace(WAIT, **changes)
    return decide(wait, PollState(), answer, now=wait.started_at + age, jitter=0).end


def lines(decision: Decision) -> list[str]:
    return [line.partition(" (next poll")[0] for _, line in decision.log]


# --- the state that a wait goes by ------------------------------------------------------------------------

AWAITED = [
    offer(SIGNOFF),
    offer("WaitingForPublisherReview"),
    offer("waiting-for publisher_review"),
    *(
        offer(status, signoff(word, field))
        for status in ("running", "Running", "notStarted", "pondering")
        for word in (SIGNOFF, "WaitingForPublisherReview")
        for field in ("id", "stepName")
    ),
]


@pytest.mark.parametrize("answer", AWAITED, ids=lambda answer: json.dumps(answer.raw))
def test_the_signoff_that_is_awaited_comes_before_the_status(answer: OfferStatus) -> None:
    assert state_of(answer) == SIGNOFF
    assert answer.awaiting_publisher
    assert summarize(IDENTITY, answer)["status"] == SIGNOFF


@pytest.mark.parametrize("status", ["succeeded", "failed", "canceled", "neverPublished"])
def test_a_status_that_is_an_end_comes_before_a_signoff_that_is_still_shown_as_awaited(status: str) -> None:
    assert state_of(offer(status, signoff())) == status


@pytest.mark.parametrize("status", ["inProgress", "complete", "notStarted", "canceled", "waitingForApproval"])
def test_a_signoff_that_is_not_awaited_changes_nothing(status: str) -> None:
    assert state_of(offer("running", signoff(status))) == "running"


@pytest.mark.parametrize(
    ("word", "state"), [(state.value, state.value) for state in OfferState] + [("completed", "succeeded")]
)
@pytest.mark.parametrize("spell", [str, str.upper, lambda word: word[0].upper() + word[1:]])
def test_every_spelling_of_a_status_is_the_same_state(word: str, state: str, spell: Any) -> None:
    assert state_of(offer(spell(word))) == state


# --- ends -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("age", [1, 8 * DAY], ids=["in time", "after the deadline"])
@pytest.mark.parametrize(
    ("answer", "end"),
    [
        (offer("succeeded"), Outcome.SUCCEEDED),
        (offer("running", signoff()), Outcome.SUCCEEDED),
        (offer("failed"), Outcome.FAILED),
        (offer("canceled"), Outcome.CANCELED),
    ],
    ids=["succeeded", "signoff", "failed", "canceled"],
)
def test_a_status_that_is_waited_for_or_fails_ends_the_wait(
    answer: OfferStatus, end: Outcome, age: float
) -> None:
    assert end_of(answer, age=age) is end


@pytest.mark.parametrize("status", ["running", "notStarted", "neverPublished", "pondering", "unknown"])
def test_any_other_status_ends_the_wait_at_its_deadline_only(status: str) -> None:
    assert end_of(offer(status), age=7 * DAY - 0.1) is None
    assert end_of(offer(status), age=7 * DAY) is Outcome.TIMEOUT


@pytest.mark.parametrize("status", ["neverPublished", "running", SIGNOFF, "succeeded", "failed"])
def test_any_status_may_be_a_good_end_or_a_bad_one(status: str) -> None:
    assert end_of(offer(status), until=(status,), fail_on=()) is Outcome.SUCCEEDED
    assert end_of(offer(status), until=("canceled",), fail_on=(status,)) is Outcome.FAILED
    assert end_of(offer(status), until=("canceled",), fail_on=()) is None


def test_a_cancel_that_is_waited_for_is_a_good_end() -> None:
    assert end_of(offer("canceled"), until=("canceled",), fail_on=()) is Outcome.SUCCEEDED


@pytest.mark.parametrize(
    ("status", "end"),
    [
        ("canceled", Outcome.SUCCEEDED),
        ("failed", Outcome.SUCCEEDED),
        ("completed", Outcome.FAILED),
        ("running", None),
    ],
)
def test_a_wait_for_a_cancel_ends_well_unless_the_operation_completed(
    status: str, end: Outcome | None
) -> None:
    assert decide(CANCELING, PollState(), operation(status), now=1001, jitter=0).end is end


# --- what is said -----------------------------------------------------------------------------------------


def test_each_change_of_a_step_or_of_the_offer_is_said_once() -> None:
    said = [
        lines(decision)
        for decision in polls(
            offer("neverPublished"),
            offer("running", step("inProgress")),
            offer("running", step("inProgress")),
            offer("running", step("complete"), signoff("inProgress", "stepName")),
            offer("succeeded", step("complete"), signoff("complete", "stepName")),
            wait=replace(WAIT, until=("succeeded",)),
        )
    ]
    assert said == [
        ["contoso/web: offer neverPublished"],
        ["contoso/web: displaycertify inProgress 0 %", "contoso/web: offer running"],
        [],
        ["contoso/web: displaycertify complete 100 %", "contoso/web: publisher-signoff inProgress 0 %"],
        ["contoso/web: publisher-signoff complete 100 %", "contoso/web: offer succeeded"],
    ]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (offer("<b>Pondering</b>"), "unknown offer status 'pondering'; not taken for an end"),
        (offer("running", signoff()), "the publisher's signoff is awaited. This wait is for succeeded"),
    ],
    ids=["unknown status", "signoff awaited"],
)
def test_what_somebody_should_know_is_said_once_as_a_warning(answer: OfferStatus, words: str) -> None:
    first, *rest = polls(answer, answer, answer, wait=replace(WAIT, until=("succeeded",)))
    assert [words in line for level, line in first.log if level == logging.WARNING] == [True]
    assert [decision.log for decision in rest] == [(), ()]


def test_a_signoff_that_ends_the_wait_calls_nobody() -> None:
    [decision] = polls(offer("running", signoff()))
    assert decision.end is Outcome.SUCCEEDED
    assert all(level == logging.INFO for level, _ in decision.log)


def test_a_fault_and_its_end_are_said() -> None:
    _, fault, after = polls(offer(), CloudPartnerError("lost"), offer())
    assert "contoso/web: no usable answer; the wait goes on" in fault.log[0][1]
    assert lines(after) == ["contoso/web: the service answers again, offer running."]


def test_the_summary_is_what_goes_to_xcom() -> None:
    answer = offer("Running", step("Complete"), signoff(), messages=[{"messageHtml": "<b>a</b>"}])
    assert summarize(IDENTITY, answer) == {
        **IDENTITY,
        "status": SIGNOFF,
        "steps": [
            {
                "id": "displaycertify",
                "name": "displaycertify",
                "status": "complete",
                "progress_percentage": 100,
            },
            {"id": "publisher-signoff", "name": "two", "status": SIGNOFF, "progress_percentage": 0},
        ],
        "messages": ["a"],
    }


WITHOUT_SAS = step("failed", messages=[{"messageHtml": "No <i>SAS</i> URI.", "level": "error"}])
ANY_BAD_END = "That is a state that this wait fails on."
FAILED = "in step displaycertify: No SAS URI. Correct what the messages name, publish again, and go live."
CANCELED = "without a message. It was canceled at the service; start it again if it is still wanted."


@pytest.mark.parametrize(
    ("end", "answer", "text"),
    [
        (Outcome.FAILED, offer("Failed", WITHOUT_SAS), f"failed {FAILED}"),
        (Outcome.CANCELED, offer("Canceled"), f"canceled: {CANCELED}"),
        (Outcome.FAILED, offer("NeverPublished"), f"neverPublished: without a message. {ANY_BAD_END}"),
        (
            Outcome.FAILED,
            offer("running", signoff()),
            f"{SIGNOFF} in step two: without a message. {ANY_BAD_END}",
        ),
    ],
    ids=["failed", "canceled", "other", "signoff"],
)
def test_a_bad_end_is_explained(end: Outcome, answer: OfferStatus, text: str) -> None:
    assert explain(WAIT, IDENTITY, end, answer) == f"The offer contoso/web is {text}"


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (offer("running", signoff("inProgress")), "It was last seen running in step two."),
        (offer("running", signoff()), f"It was last seen {SIGNOFF} in step two."),
        (None, "It was never seen."),
    ],
    ids=["running", "signoff", "never seen"],
)
def test_a_wait_given_up_says_what_for_and_what_was_seen(answer: OfferStatus | None, state: str) -> None:
    assert explain(WAIT, IDENTITY, Outcome.TIMEOUT, answer) == (
        "Gave up waiting for contoso/web after 7 days, 0:00:00: the offer did not become "
        f"{SIGNOFF} or succeeded. {state} It goes on at the service: raise the timeout and clear this "
        "task to go on waiting."
    )


def test_an_offer_that_already_succeeded_is_not_said_to_have_escaped_a_cancel() -> None:
    wait = replace(WAIT, until=("running",), fail_on=("succeeded",))
    assert "cancel" not in explain(wait, IDENTITY, Outcome.FAILED, offer("succeeded"))


def test_an_operation_that_completed_before_it_could_be_canceled_is_explained() -> None:
    assert explain(CANCELING, {"location": LOCATION}, Outcome.FAILED, operation("completed")) == (
        "The operation on contoso/web succeeded: without a message. "
        f"It completed before it could be canceled: what it did stands. ({LOCATION})"
    )


# --- what is stored ---------------------------------------------------------------------------------------

states = st.lists(st.sampled_from([state.value for state in OfferState]), max_size=4).map(tuple)
seconds = st.floats(0, 1e10, allow_nan=False)
waits = st.builds(PollSpec, st.text(), states, states, seconds, seconds, seconds, seconds, st.booleans())


@given(waits)
def test_a_wait_is_the_same_after_it_was_stored(wait: PollSpec) -> None:
    assert PollSpec.from_json(json.loads(json.dumps(asdict(wait)))) == wait
    assert PollSpec.from_json(asdict(wait)) == wait


words = st.sampled_from(["running", "succeeded", "Canceled", "pondering", SIGNOFF]) | st.text(min_size=1)


@given(st.lists(st.tuples(words, words), min_size=1, max_size=5), waits, seconds)
def test_whatever_words_come_a_decision_is_made_and_what_is_known_can_be_stored(
    answers: list[tuple[str, str]], wait: PollSpec, now: float
) -> None:
    seen = PollState()
    for status, of_step in answers:
        answer = offer(status, signoff(of_step))
        decision = decide(wait, seen, answer, now=now, jitter=0.5)
        good, bad = (state_of(answer) in ends for ends in (wait.until, wait.fail_on))
        assert (decision.end is Outcome.SUCCEEDED) == good
        assert (decision.end in (Outcome.FAILED, Outcome.CANCELED)) == (bad and not good)
        seen = PollState.from_json(json.loads(json.dumps(decision.seen.to_json())))
        assert seen == decision.seen
