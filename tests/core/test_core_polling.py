"""Outcomes, intervals and stored state of polling."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from polling_samples import (
    DAY,
    HOST,
    HOUR,
    LOCATION,
    MINUTE,
    OFFER,
    OPERATION,
    SPEC,
    document,
    error,
    offer,
    operation,
    poll,
    polls,
    signoff,
    step,
)

from airflow_provider_cpp.core.errors import CloudPartnerError, NotFoundError
from airflow_provider_cpp.core.http import Response
from airflow_provider_cpp.core.models import OfferState
from airflow_provider_cpp.core.polling import (
    FAILURE_STATUSES,
    NOT_FOUND_SECONDS,
    SIGNOFF,
    SUCCESS_STATUSES,
    Outcome,
    Poller,
    PollSpec,
    PollState,
    Unchanged,
    decide,
)
from airflow_provider_cpp.core.progress import effective_status

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_cpp.core.progress import Progress

TO_PREVIEW = replace(SPEC, until=SUCCESS_STATUSES["preview"])
CANCELING = replace(SPEC, until=("canceled", "failed"), fail_on=("succeeded",))
both = pytest.mark.parametrize("progress", [operation, offer])

# --- the status that polling uses ---


@pytest.mark.parametrize(
    "answer",
    [
        operation("waitingForPublisherReview"),
        *(offer(status) for status in (SIGNOFF, "WaitingForPublisherReview", "waiting-for publisher_review")),
        *(
            progress(status, signoff(word, field))
            for progress in (operation, offer)
            for status in ("running", "Running", "notStarted", "pondering")
            for word in (SIGNOFF, "WaitingForPublisherReview")
            for field in ("id", "stepName")
        ),
    ],
    ids=lambda answer: json.dumps(answer.raw),
)
def test_awaited_signoff_replaces_the_status(answer: Progress) -> None:
    assert effective_status(answer) == SIGNOFF
    assert poll(answer, TO_PREVIEW).outcome is Outcome.SUCCEEDED
    assert poll(answer).outcome is None


@both
@pytest.mark.parametrize("status", ["succeeded", "failed", "canceled"])
def test_final_status_outweighs_an_awaited_signoff(progress: Any, status: str) -> None:
    assert effective_status(progress(status, signoff())) == status


@both
@pytest.mark.parametrize("status", ["inProgress", "complete", "notStarted", "canceled", "waitingForApproval"])
def test_signoff_that_is_not_awaited_has_no_effect(progress: Any, status: str) -> None:
    assert effective_status(progress("running", signoff(status))) == "running"


@pytest.mark.parametrize(
    ("word", "status"), [(state.value, state.value) for state in OfferState] + [("completed", "succeeded")]
)
@pytest.mark.parametrize("spell", [str, str.upper, lambda word: word[0].upper() + word[1:]])
def test_every_spelling_of_a_status_is_understood(word: str, status: str, spell: Any) -> None:
    assert effective_status(offer(spell(word))) == status


# --- outcomes ---


@both
@pytest.mark.parametrize("age", [1, 8 * DAY], ids=["in time", "after the deadline"])
@pytest.mark.parametrize("spec", [SPEC, TO_PREVIEW], ids=["completed", "preview"])
@pytest.mark.parametrize("status", ["succeeded", "failed", "canceled"])
def test_final_status_ends_polling(progress: Any, age: float, spec: PollSpec, status: str) -> None:
    assert poll(progress(status), spec, age=age).outcome == Outcome(status)
    assert poll(operation("completed"), spec, age=age).outcome is Outcome.SUCCEEDED


@both
@pytest.mark.parametrize("status", ["running", "notStarted", "paused", "neverPublished"])
def test_any_other_status_ends_polling_at_the_deadline(progress: Any, status: str) -> None:
    assert poll(progress(status), age=7 * DAY - 0.1).outcome is None
    assert poll(progress(status), age=7 * DAY).outcome is Outcome.TIMEOUT


@pytest.mark.parametrize("status", ["neverPublished", "running", SIGNOFF, "succeeded", "failed"])
def test_any_status_can_mean_success_or_failure(status: str) -> None:
    spec = replace(SPEC, until=("canceled",), fail_on=())
    assert poll(offer(status), replace(spec, until=(status,))).outcome is Outcome.SUCCEEDED
    assert poll(offer(status), replace(spec, fail_on=(status,))).outcome is Outcome.FAILED
    assert poll(offer(status), spec).outcome is None


@pytest.mark.parametrize(
    ("status", "outcome"),
    [("canceled", "succeeded"), ("failed", "succeeded"), ("completed", "failed"), ("running", None)],
)
def test_polling_for_a_cancel_fails_only_on_completion(status: str, outcome: str | None) -> None:
    assert poll(operation(status), CANCELING).outcome == outcome


@pytest.mark.parametrize("status", [400, 401, 403, 409, 412, 422])
def test_error_that_no_poll_can_cure_ends_polling_at_once(status: int) -> None:
    assert poll(error(status)).outcome is Outcome.ERROR


PASSING = {
    "lost": CloudPartnerError("lost"),
    "refused": CloudPartnerError("refused", unsent=True),
    "no JSON": error(200),
    "redirect": error(302),
    **{str(status): error(status) for status in (404, 408, 429, 500, 502, 503, 504)},
}


@pytest.mark.parametrize("problem", PASSING.values(), ids=PASSING)
def test_transient_fault_ends_polling_only_at_the_deadline(problem: CloudPartnerError) -> None:
    assert poll(problem).outcome is None
    assert poll(problem, age=7 * DAY).outcome is Outcome.TIMEOUT


@pytest.mark.parametrize("seconds", [10, 60, 600])
def test_not_found_is_final_after_the_same_time_at_any_interval(seconds: float) -> None:
    *passing, last = polls(*[error(404)] * (int(NOT_FOUND_SECONDS / seconds + 0.99) + 1), seconds=seconds)
    assert {decision.outcome for decision in passing} == {None}
    assert last.outcome is Outcome.ERROR
    assert [decision.seconds for decision in passing[:2]] == [30, 60]


def test_late_not_found_is_not_final() -> None:
    state = PollState(steps=(("live", "inProgress", 5),))
    assert poll(error(404), state=state, age=6 * DAY).outcome is None


@pytest.mark.parametrize("other", [operation(), error(500)], ids=["response", "fault"])
def test_another_response_restarts_the_not_found_limit(other: Progress | CloudPartnerError) -> None:
    answers = [error(404), error(404), other] * 5
    assert {decision.outcome for decision in polls(*answers, seconds=NOT_FOUND_SECONDS * 0.9)} == {None}


# --- intervals ---


@pytest.mark.parametrize(
    ("age", "seconds"),
    [(0, 30), (10 * MINUTE, 30), (20 * MINUTE, 60), (2 * HOUR, 360), (DAY, 600), (6 * DAY, 600), (-HOUR, 30)],
)
def test_interval_grows_with_age_and_ignores_the_state(age: float, seconds: float) -> None:
    known = PollState(steps=(("s", "inProgress", 1),), reported=frozenset({"x"}))
    for state in (PollState(), known):
        assert poll(operation(), state=state, age=age).seconds == pytest.approx(seconds)


def test_interval_is_constant_without_exponential_backoff() -> None:
    assert poll(operation(), replace(SPEC, exponential_backoff=False), age=DAY).seconds == 30


def test_consecutive_faults_double_the_interval() -> None:
    answers = [*[error(500)] * 7, operation(), error(500)]
    intervals = [round(decision.seconds) for decision in polls(*answers)]
    assert intervals == [60, 120, 240, 480, 600, 600, 600, 30, 60]


@pytest.mark.parametrize("fault", [True, False], ids=["fault", "response"])
@pytest.mark.parametrize(
    ("requested", "seconds"), [("300", 300), ("1", 30), ("7200", HOUR), ("999999999", HOUR)]
)
def test_retry_after_is_honored_up_to_an_hour(requested: str, seconds: float, fault: bool) -> None:
    headers = {"Retry-After": requested}
    answer = error(503, **headers) if fault else operation(**headers)
    assert poll(answer).seconds == (max(60, seconds) if fault else seconds)


def test_last_poll_is_at_the_deadline() -> None:
    for answer in (operation(), operation(**{"Retry-After": "3000"}), error(500), error(404)):
        assert poll(answer, age=7 * DAY - 10).seconds == pytest.approx(10)


def test_jitter_shortens_the_interval_by_up_to_15_percent() -> None:
    intervals = [decide(SPEC, PollState(), operation(), now=1000, jitter=j).seconds for j in (0, 0.5, 1)]
    assert intervals == pytest.approx([30, 27.75, 25.5])


def test_interval_of_zero_still_pauses() -> None:
    assert poll(operation(), replace(SPEC, poke_interval=0, max_wait=0)).seconds > 0


operations = st.builds(
    lambda status, asked: operation(status, **({"Retry-After": str(asked)} if asked else {})),
    st.sampled_from(["running", "notStarted", "paused"]),
    st.integers(0, 100_000),
)
faults = st.builds(
    lambda status, asked: CloudPartnerError("fault", status=status, retry_after=asked),
    st.sampled_from([None, 200, 408, 429, 500, 503]),
    st.none() | st.floats(0, 1e9),
)
unfinished = operations | faults | st.just(NotFoundError("gone", status=404))
seconds = st.floats(0.1, 10_000)


@given(
    answers=st.lists(unfinished, max_size=40),
    spec=st.builds(
        lambda poke, longest, timeout, backoff: replace(
            SPEC,
            poke_interval=poke,
            max_wait=longest,
            deadline=SPEC.started_at + timeout,
            exponential_backoff=backoff,
        ),
        seconds,
        seconds,
        st.floats(1, 1e6),
        st.booleans(),
    ),
    jitter=st.floats(0, 1),
)
def test_every_interval_is_within_its_bounds(
    answers: list[Progress | CloudPartnerError], spec: PollSpec, jitter: float
) -> None:
    now, state = spec.started_at, PollState()
    missing_since: float | None = None
    for answer in answers:
        decision = decide(spec, state, answer, now=now, jitter=jitter)
        if not isinstance(answer, NotFoundError):
            missing_since = None
        elif missing_since is None:
            missing_since = now
        if missing_since is not None and now - missing_since >= NOT_FOUND_SECONDS:
            assert decision.outcome is Outcome.ERROR
            return
        assert decision.outcome is (Outcome.TIMEOUT if now >= spec.deadline else None)
        if decision.outcome:
            return
        requested = min(answer.retry_after or 0, HOUR)
        assert 0 < decision.seconds <= max(spec.poke_interval, spec.max_wait, requested)
        assert decision.seconds >= min(max(requested, 0.85 * spec.poke_interval), spec.deadline - now)
        assert now + decision.seconds <= spec.deadline + 1e-6
        now, state = now + decision.seconds, decision.state


RUNNING, FINISHED = operation(), operation("completed")


def simulate(length: float, draw: Callable[[], float]) -> tuple[int, float]:
    """Poll an operation of so many seconds; return the number of polls and the delay of the last one."""
    age, state, number = 0.0, PollState(), 0
    while True:
        number += 1
        answer = FINISHED if age >= length else RUNNING
        decision = decide(SPEC, state, answer, now=SPEC.started_at + age, jitter=draw())
        if decision.outcome:
            return number, age - length
        age, state = age + decision.seconds, decision.state


@pytest.mark.parametrize("seed", range(5))
def test_long_release_takes_few_polls(seed: int) -> None:
    number, delay = simulate(5 * DAY, random.Random(seed).random)
    assert number <= 5 * DAY / MINUTE / 8
    assert delay <= 600


def test_short_operation_is_noticed_within_30_seconds_on_average() -> None:
    draw = random.Random(0).random
    delays = [simulate(10 * MINUTE + 60 * draw(), draw)[1] for _ in range(200)]
    assert sum(delays) / len(delays) <= 30


# --- a response that is equal to the previous one ---


@pytest.mark.parametrize("retry_after", [None, 120.0])
@pytest.mark.parametrize("age", [1, HOUR, DAY])
def test_unchanged_response_counts_as_the_same_response(age: float, retry_after: float | None) -> None:
    answer = operation("running", signoff(), **({} if retry_after is None else {"Retry-After": "120"}))
    state = poll(answer, age=age).state
    assert poll(Unchanged(retry_after), state=state, age=age) == poll(answer, state=state, age=age)


def test_unchanged_response_ends_polling_at_the_deadline() -> None:
    assert poll(Unchanged(), age=7 * DAY - 1).outcome is None
    assert poll(Unchanged(), age=7 * DAY).outcome is Outcome.TIMEOUT


# --- the poller ---


def feed(poller: Poller, answer: Any, *, age: float = 1, body: bytes | None = None) -> Any:
    return poller.feed(answer, now=SPEC.started_at + age, jitter=0, body=body)


@pytest.mark.parametrize("keep_body", [True, False], ids=["body", "object"])
def test_poller_reports_the_last_response_in_its_event(keep_body: bool) -> None:
    poller = Poller(SPEC, OPERATION)
    body = document("running", step("inProgress", 40), publishingVersion=2)
    answer = poller.request(HOST).read(Response(200, {}, body, HOST))
    assert feed(poller, answer, body=body if keep_body else None).event is None
    assert poller.known_body == (body if keep_body else None)
    assert feed(poller, error(503)).event is None
    assert poller.known_body is None
    event = feed(poller, error(403)).event
    assert (event["status"], event["error"], event["step"]) == (
        "error",
        "PermissionDeniedError",
        "Certification",
    )
    assert (event["location"], event["publisher_id"], event["offer_id"]) == (LOCATION, "contoso", "web")
    assert (event["result"]["version"], event["result"]["progress_percentage"]) == (2, 40)


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        (operation("completed"), "succeeded", "contoso/web: the operation succeeded."),
        (operation("failed"), "failed", "The operation on contoso/web failed"),
        (operation("canceled"), "canceled", "The operation on contoso/web was canceled"),
        (error(401), "error", "was answered 401"),
    ],
    ids=["succeeded", "failed", "canceled", "error"],
)
def test_every_event_has_status_and_message(answer: Any, status: str, text: str) -> None:
    event = feed(Poller(SPEC, OPERATION), answer).event
    assert event["status"] == status
    assert text in event["message"]
    assert json.loads(json.dumps(event)) == event


def test_configuration_error_is_an_event_without_a_poll() -> None:
    event = Poller(SPEC, OFFER).fail(ValueError("The connection names no publisher."))
    assert (event["status"], event["error"], event["result"]) == ("error", "ValueError", None)
    assert event["message"] == "The connection names no publisher."
    assert (event["publisher_id"], event["offer_id"]) == ("contoso", "web")


# --- stored specs and states ---

states = st.lists(st.sampled_from([state.value for state in OfferState]), max_size=4).map(tuple)
times = st.floats(0, 1e10, allow_nan=False)
specs = st.builds(PollSpec, st.text(), states, states, times, times, times, times, st.booleans())


@given(specs)
def test_spec_survives_storage(spec: PollSpec) -> None:
    assert PollSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert PollSpec.from_json(spec.to_json()) == spec


words = st.sampled_from(["running", "succeeded", "Canceled", "pondering", SIGNOFF]) | st.text(min_size=1)
answers = st.one_of(
    st.builds(lambda status, word: offer(status, signoff(word)), words, words), st.just(error(404))
)


@given(st.lists(answers, min_size=1, max_size=5), specs, times)
def test_any_words_lead_to_a_decision_and_a_storable_state(
    found: list[Any], spec: PollSpec, now: float
) -> None:
    state = PollState()
    for answer in found:
        decision = decide(spec, state, answer, now=now, jitter=0.5)
        if not isinstance(answer, CloudPartnerError):
            good, bad = (effective_status(answer) in ends for ends in (spec.until, spec.fail_on))
            assert (decision.outcome is Outcome.SUCCEEDED) == good
            assert (decision.outcome in (Outcome.FAILED, Outcome.CANCELED)) == (bad and not good)
        state = PollState.from_json(json.loads(json.dumps(decision.state.to_json())))
        assert state == decision.state


def test_failure_statuses_are_failed_and_canceled() -> None:
    assert FAILURE_STATUSES == ("failed", "canceled")
