"""When a wait ends, how long it rests, and what it says."""

from __future__ import annotations

import json
import logging
import random
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_cpp.core.errors import CloudPartnerError, NotFoundError
from airflow_provider_cpp.core.http import Response
from airflow_provider_cpp.core.polling import (
    FAILURE_STATUSES,
    NOT_FOUND_LIMIT,
    SUCCESS_STATUSES,
    Outcome,
    PollSpec,
    PollState,
    Unchanged,
    decide,
    explain,
    summarize,
)
from airflow_provider_cpp.portal import requests as portal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_cpp.core.models import Operation
    from airflow_provider_cpp.core.polling import Decision

MINUTE, HOUR, DAY = 60, 3600, 86400
HOST = "https://cloudpartner.azure.com"
LOCATION = "/api/operations/contoso$web$2$preview?api-version=2017-10-31"
CALL = portal.get_operation(LOCATION, HOST)
#: With the defaults of the sensor.
WAIT = PollSpec(
    "contoso/web",
    SUCCESS_STATUSES["completed"],
    FAILURE_STATUSES,
    started_at=1000.0,
    deadline=1000.0 + 7 * DAY,
    poke_interval=30,
    max_wait=600,
)
TO_PREVIEW = replace(WAIT, until=SUCCESS_STATUSES["preview"])
IDENTITY = {"location": LOCATION}
SIGNOFF = {"id": "publisher-signoff", "stepName": "Publisher signoff", "status": "waitingForPublisherReview"}


def operation(status: str = "running", *steps: dict[str, Any], **headers: str) -> Operation:
    body = json.dumps({"status": status, "steps": steps}).encode()
    return CALL.read(Response(200, headers, body, HOST))


def error(status: int, **headers: str) -> CloudPartnerError:
    with pytest.raises(CloudPartnerError) as caught:
        CALL.read(Response(status, headers, b"<html>", HOST))
    return caught.value


def poll(
    answer: Operation | Unchanged | CloudPartnerError,
    *,
    wait: PollSpec = WAIT,
    seen: PollState | None = None,
    age: float = 1,
) -> Decision:
    return decide(wait, seen or PollState(), answer, now=wait.started_at + age, jitter=0)


def polls(wait: PollSpec, *answers: Operation | CloudPartnerError) -> Iterator[Decision]:
    seen = PollState()
    for number, answer in enumerate(answers):
        decision = poll(answer, wait=wait, seen=seen, age=number)
        seen = decision.seen
        yield decision


def lines(decision: Decision) -> str:
    return "\n".join(line for _, line in decision.log)


# --- ends -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True], ids=["in time", "after the deadline"])
@pytest.mark.parametrize("wait", [WAIT, TO_PREVIEW], ids=["completed", "preview"])
@pytest.mark.parametrize(
    ("status", "end"),
    [
        ("completed", Outcome.SUCCEEDED),
        ("succeeded", Outcome.SUCCEEDED),
        ("failed", Outcome.FAILED),
        ("canceled", Outcome.CANCELED),
    ],
)
def test_an_operation_that_ended_ends_the_wait(status: str, end: Outcome, wait: PollSpec, late: bool) -> None:
    assert poll(operation(status), wait=wait, age=8 * DAY if late else 1).end is end


@pytest.mark.parametrize("status", ["running", "notStarted", "paused"])
def test_an_operation_that_goes_on_ends_the_wait_at_its_deadline_only(status: str) -> None:
    assert poll(operation(status), age=7 * DAY - 0.1).end is None
    assert poll(operation(status), age=7 * DAY).end is Outcome.TIMEOUT


@pytest.mark.parametrize("answer", [operation("running", SIGNOFF), operation("waitingForPublisherReview")])
def test_a_signoff_that_is_awaited_ends_a_wait_for_the_preview_only(answer: Operation) -> None:
    assert poll(answer, wait=TO_PREVIEW).end is Outcome.SUCCEEDED
    assert poll(answer, wait=WAIT).end is None


@pytest.mark.parametrize("status", [400, 401, 403, 409, 412, 422])
def test_an_error_of_the_callers_ends_the_wait_at_once(status: int) -> None:
    assert poll(error(status)).end is Outcome.ERROR


PASSING = {
    "lost": CloudPartnerError("lost"),
    "refused": CloudPartnerError("refused", unsent=True),
    "no JSON": error(200),
    "redirect": error(302),
    **{str(status): error(status) for status in (404, 408, 429, 500, 502, 503, 504)},
}


@pytest.mark.parametrize("problem", PASSING.values(), ids=PASSING)
def test_a_fault_that_may_pass_ends_the_wait_at_its_deadline_only(problem: CloudPartnerError) -> None:
    in_time, late = poll(problem), poll(problem, age=7 * DAY)
    assert (in_time.end, late.end) == (None, Outcome.TIMEOUT)
    for decision, words in ((in_time, "next poll in"), (late, str(problem))):
        assert [level for level, _ in decision.log] == [logging.WARNING]
        assert words in lines(decision)


def test_not_found_is_waited_out_with_growing_rests_until_it_lasts() -> None:
    *passing, last = polls(WAIT, *[error(404)] * NOT_FOUND_LIMIT)
    assert [decision.end for decision in passing] == [None] * (NOT_FOUND_LIMIT - 1)
    assert [decision.seconds for decision in passing[:3]] == [30, 60, 120]
    assert last.end is Outcome.ERROR


@pytest.mark.parametrize("other", [operation(), error(500)], ids=["answer", "fault"])
def test_not_found_now_and_then_does_not_add_up(other: Operation | CloudPartnerError) -> None:
    answers: list[Operation | CloudPartnerError] = [*[error(404)] * (NOT_FOUND_LIMIT - 1), other]
    assert all(decision.end is None for decision in polls(WAIT, *answers * 3))


# --- rests ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age", "seconds"),
    [(0, 30), (10 * MINUTE, 30), (20 * MINUTE, 60), (2 * HOUR, 360), (DAY, 600), (6 * DAY, 600), (-HOUR, 30)],
)
def test_the_rest_grows_with_the_age_of_the_wait_whatever_a_restart_forgot(
    age: float, seconds: float
) -> None:
    assert poll(operation(), age=age).seconds == pytest.approx(seconds)
    known = PollState(steps=(("s", "inProgress", 1),), told=frozenset({"x"}))
    assert poll(operation(), seen=known, age=age).seconds == poll(operation(), age=age).seconds


def test_without_backoff_the_rest_stays_the_same() -> None:
    assert poll(operation(), wait=replace(WAIT, exponential_backoff=False), age=DAY).seconds == 30


def test_faults_in_a_row_double_the_rest_up_to_the_longest_and_an_answer_ends_that() -> None:
    answers: list[Operation | CloudPartnerError] = [*[error(500)] * 7, operation(), error(500)]
    rests = [round(decision.seconds) for decision in polls(WAIT, *answers)]
    assert rests == [60, 120, 240, 480, 600, 600, 600, 30, 60]


@pytest.mark.parametrize("fault", [True, False], ids=["fault", "answer"])
@pytest.mark.parametrize(
    ("asked", "seconds"),
    [("300", 300), ("1", 30), ("7200", HOUR), ("999999999", HOUR)],
)
def test_a_longer_rest_that_the_service_asks_for_is_obeyed_within_reason(
    asked: str, seconds: float, fault: bool
) -> None:
    headers = {"Retry-After": asked}
    answer = error(503, **headers) if fault else operation(**headers)
    assert poll(answer).seconds == (max(60, seconds) if fault else seconds)


def test_the_last_rest_ends_at_the_deadline() -> None:
    for answer in (operation(), operation(**{"Retry-After": "3000"}), error(500), error(404)):
        assert poll(answer, age=7 * DAY - 10).seconds == pytest.approx(10)


def test_jitter_takes_up_to_15_percent_off() -> None:
    assert [
        decide(WAIT, PollState(), operation(), now=1000, jitter=j).seconds for j in (0, 0.5, 1)
    ] == pytest.approx([30, 27.75, 25.5])


def test_an_interval_of_zero_still_rests() -> None:
    assert poll(operation(), wait=replace(WAIT, poke_interval=0, max_wait=0)).seconds > 0


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
    poke_interval=seconds,
    max_wait=seconds,
    timeout=st.floats(1, 1e6),
    backoff=st.booleans(),
    jitter=st.floats(0, 1),
)
def test_any_rest_is_within_its_bounds_and_only_a_lasting_fault_or_the_deadline_ends_the_wait(
    answers: list[Operation | CloudPartnerError],
    poke_interval: float,
    max_wait: float,
    timeout: float,
    backoff: bool,
    jitter: float,
) -> None:
    wait = PollSpec(
        "contoso/web",
        ("succeeded",),
        FAILURE_STATUSES,
        1000.0,
        1000.0 + timeout,
        poke_interval,
        max_wait,
        backoff,
    )
    now, seen, missing = wait.started_at, PollState(), 0
    for answer in answers:
        decision = decide(wait, seen, answer, now=now, jitter=jitter)
        missing = missing + 1 if isinstance(answer, NotFoundError) else 0
        if missing == NOT_FOUND_LIMIT:
            assert decision.end is Outcome.ERROR
            return
        assert decision.end is (Outcome.TIMEOUT if now >= wait.deadline else None)
        if decision.end:
            return
        asked = min(answer.retry_after or 0, HOUR)
        assert 0 < decision.seconds <= max(poke_interval, max_wait, asked)
        assert decision.seconds >= min(max(asked, 0.85 * poke_interval), wait.deadline - now)
        assert now + decision.seconds <= wait.deadline + 1e-6
        now, seen = now + decision.seconds, decision.seen


def watch(ends_after: float, draw: Callable[[], float]) -> tuple[int, float]:
    """Wait for an operation; return the number of polls and how late its end was seen."""
    age, seen, number = 0.0, PollState(), 0
    while True:
        number += 1
        answer = FINISHED if age >= ends_after else RUNNING
        decision = decide(WAIT, seen, answer, now=WAIT.started_at + age, jitter=draw())
        if decision.end:
            assert decision.end is Outcome.SUCCEEDED
            return number, age - ends_after
        age, seen = age + decision.seconds, decision.seen


RUNNING, FINISHED = operation(), operation("completed")


@pytest.mark.parametrize("seed", range(5))
def test_a_release_of_five_days_takes_an_eighth_of_the_polls_that_one_a_minute_takes(seed: int) -> None:
    number, late = watch(5 * DAY, random.Random(seed).random)
    assert number <= 5 * DAY / MINUTE / 8
    assert late <= 600


def test_the_end_of_an_operation_of_ten_minutes_is_seen_within_30_seconds_on_average() -> None:
    draw = random.Random(0).random
    late = [watch(10 * MINUTE + 60 * draw(), draw)[1] for _ in range(200)]
    assert sum(late) / len(late) <= 30


# --- what is said -----------------------------------------------------------------------------------------


def step(status: str, percentage: int = 0, name: str = "Certification", **fields: Any) -> dict[str, Any]:
    return {
        "id": name.lower(),
        "stepName": name,
        "status": status,
        "progressPercentage": percentage,
        **fields,
    }


def test_a_step_that_moves_on_is_told_with_its_estimate_and_last_message() -> None:
    said = [{"messageHtml": "old"}, {"messageHtml": "<b>30</b> images"}]
    first, second, third = polls(
        WAIT,
        operation("running", step("notStarted")),
        operation("running", step("inProgress", 40, estimatedTimeFrame="< 5 day", messages=said)),
        operation("running", step("complete", 100, estimatedTimeFrame="< 5 day", messages=[{}])),
    )
    assert lines(first) == "contoso/web: operation running (next poll in 30 s)"
    assert lines(second).startswith(
        "contoso/web: Certification inProgress 40 %, estimated < 5 day: 30 images"
    )
    assert lines(third).startswith("contoso/web: Certification complete 100 %")
    assert "estimated" not in lines(third)
    assert all("(next poll in 30 s)" in lines(decision) for decision in (first, second, third))


def test_a_slow_step_is_told_of_at_each_tenth_of_its_way() -> None:
    answers = [operation("running", step("inProgress", percentage)) for percentage in range(100)]
    told = [number for number, decision in enumerate(polls(WAIT, *answers)) if decision.log]
    assert told == list(range(0, 100, 10))


PROGRESS = [("notStarted", 0), ("inProgress", 0), ("inProgress", 50), ("complete", 100)]


@given(
    st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=12),
    st.sampled_from(["id", "stepName"]),
)
def test_a_line_is_logged_exactly_when_a_step_moved_on(states: list[tuple[int, ...]], field: str) -> None:
    # Steps only move forward, and may be named in either field.
    history = [[max(so_far) for so_far in zip(*states[: end + 1], strict=True)] for end in range(len(states))]
    answers = [
        operation(
            "running",
            *(
                {field: f"Step {number}", "status": PROGRESS[one][0], "progressPercentage": PROGRESS[one][1]}
                for number, one in enumerate(state)
            ),
        )
        for state in history
    ]
    first, *rest = polls(WAIT, *answers)
    assert first.log
    for decision, (before, after) in zip(rest, pairwise(history), strict=True):
        moved = [f"Step {number}" for number in range(3) if before[number] != after[number]]
        assert [line.split(": ")[1][:6] for _, line in decision.log] == moved


def test_a_change_of_the_operations_own_status_is_news_too() -> None:
    first, second, third = polls(WAIT, operation("notStarted"), operation("running"), operation("running"))
    assert "operation notStarted" in lines(first)
    assert "operation running" in lines(second)
    assert third.log == ()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (operation("paused"), "unknown operation status 'paused'"),
        (operation("running", SIGNOFF), "somebody has to go live"),
    ],
    ids=["unknown status", "signoff awaited"],
)
def test_what_somebody_should_know_is_said_once_as_a_warning(answer: Operation, words: str) -> None:
    first, *rest = polls(WAIT, answer, answer, answer)
    assert [words in line for level, line in first.log if level == logging.WARNING] == [True]
    assert [decision.log for decision in rest] == [(), ()]


@pytest.mark.parametrize("wait", [TO_PREVIEW, WAIT], ids=["preview", "completed"])
def test_nobody_is_called_to_go_live_when_the_wait_is_over(wait: PollSpec) -> None:
    answer = operation("running" if wait is TO_PREVIEW else "completed", SIGNOFF)
    assert "go live" not in lines(poll(answer, wait=wait))


@pytest.mark.parametrize("problem", [error(500), error(404)], ids=["fault", "not found"])
def test_it_is_told_when_the_service_answers_again(problem: CloudPartnerError) -> None:
    *_, after, later = polls(WAIT, operation(), problem, operation(), operation())
    assert "the service answers again, operation running." in lines(after)
    assert later.log == ()


@pytest.mark.parametrize(
    "decision",
    [
        poll(operation("completed")),
        poll(operation("running", SIGNOFF), wait=TO_PREVIEW),
        poll(operation("running"), age=7 * DAY),
        poll(error(500), age=7 * DAY),
    ],
    ids=["completed", "preview", "timeout", "timeout in a fault"],
)
def test_a_wait_that_is_over_announces_no_next_poll(decision: Decision) -> None:
    assert decision.end
    assert decision.log
    assert "next poll" not in lines(decision).lower()


# --- summary and explanation ------------------------------------------------------------------------------


def with_messages(*texts: str, level: str = "information") -> dict[str, Any]:
    return step("inProgress", 50, messages=[{"messageHtml": text, "level": level} for text in texts])


def test_the_summary_is_what_goes_to_xcom() -> None:
    answer = operation("running", step("complete", 100, name="Packaging"), with_messages("<b>a</b>", "", "b"))
    assert summarize(IDENTITY, answer) == {
        "location": LOCATION,
        "status": "running",
        "progress_percentage": 75,
        "steps": [
            {"id": "packaging", "name": "Packaging", "status": "complete", "progress_percentage": 100},
            {
                "id": "certification",
                "name": "Certification",
                "status": "inProgress",
                "progress_percentage": 50,
            },
        ],
        "messages": ["a", "b"],
    }


def test_the_summary_has_twenty_messages_errors_first_and_says_how_many_it_left_out() -> None:
    for number in (19, 20):
        answer = operation("running", with_messages(*map(str, range(number))))
        assert summarize(IDENTITY, answer)["messages"] == [str(one) for one in range(number)]
    answer = operation("running", with_messages(*map(str, range(21))), with_messages("wrong", level="error"))
    assert summarize(IDENTITY, answer)["messages"] == [
        "wrong",
        *(str(one) for one in range(18)),
        "… and 3 more messages, not shown",
    ]


def test_a_message_of_the_summary_is_cut() -> None:
    [text] = summarize(IDENTITY, operation("running", with_messages("x" * 900)))["messages"]
    assert len(text) == 500


def test_a_bad_end_is_explained_with_its_step_its_messages_and_a_cure() -> None:
    failed = operation(
        "failed", step("failed", messages=[{"messageHtml": "No <i>SAS</i>", "level": "error"}])
    )
    assert explain(WAIT, IDENTITY, Outcome.FAILED, failed) == (
        "The operation on contoso/web failed in step Certification: No SAS. "
        f"Correct what the messages name, publish again, and go live. ({LOCATION})"
    )
    assert explain(WAIT, IDENTITY, Outcome.CANCELED, operation("canceled")) == (
        "The operation on contoso/web canceled: without a message. "
        f"It was canceled at the service; start it again if it is still wanted. ({LOCATION})"
    )


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (operation("running", step("inProgress")), "last seen running in step Certification."),
        (operation("running"), "last seen running."),
        (None, "never seen."),
    ],
)
def test_a_wait_given_up_says_how_long_it_was_and_what_was_seen(answer: Operation | None, state: str) -> None:
    text = explain(WAIT, IDENTITY, Outcome.TIMEOUT, answer)
    assert text.startswith(
        "Gave up waiting for contoso/web after 7 days, 0:00:00: "
        f"operation {LOCATION} did not become succeeded. It was {state}"
    )
    assert "raise the timeout" in text


# --- an answer that is the one before ---------------------------------------------------------------------


@pytest.mark.parametrize("retry_after", [None, 120.0])
@pytest.mark.parametrize("age", [1, HOUR, DAY])
def test_an_unchanged_answer_is_like_the_same_one_read_again(age: float, retry_after: float | None) -> None:
    headers = {} if retry_after is None else {"Retry-After": "120"}
    read = operation("running", SIGNOFF, **headers)
    before = poll(read, age=age)
    assert poll(Unchanged(retry_after), seen=before.seen, age=age) == poll(read, seen=before.seen, age=age)


def test_an_unchanged_answer_ends_the_wait_at_its_deadline() -> None:
    assert poll(Unchanged(), age=7 * DAY - 1).end is None
    assert poll(Unchanged(), age=7 * DAY).end is Outcome.TIMEOUT
