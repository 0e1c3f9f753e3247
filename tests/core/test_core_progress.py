"""Log lines, results and error texts of polling."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from polling_samples import (
    DAY,
    LOCATION,
    OFFER,
    OPERATION,
    SPEC,
    error,
    messages,
    offer,
    operation,
    poll,
    polls,
    signoff,
    step,
)

from airflow_provider_cpp.core.errors import CloudPartnerError
from airflow_provider_cpp.core.polling import SIGNOFF, SUCCESS_STATUSES, Outcome, PollSpec, make_event
from airflow_provider_cpp.core.progress import summarize

if TYPE_CHECKING:
    from airflow_provider_cpp.core.polling import Decision
    from airflow_provider_cpp.core.progress import Progress

TO_PREVIEW = replace(SPEC, until=SUCCESS_STATUSES["preview"])


def lines(decision: Decision) -> list[str]:
    """The log lines, without subject and next poll."""
    return [line.removeprefix("contoso/web: ").partition(" Next poll in")[0] for _, line in decision.log]


# --- log lines ---


FIVE_DAYS = "less than 5 days (until 1970-01-06)"


def test_step_lines_are_sentences_with_estimate_and_message() -> None:
    estimated = {"estimatedTimeFrame": "< 5 day"}
    found = [
        lines(decision)
        for decision in polls(
            operation("running", step("notStarted")),
            operation(
                "running", step("inProgress", 40, **estimated, messages=messages("old", "<b>3</b> images"))
            ),
            operation("running", step("inProgress", 57, **estimated)),
            operation("running", step("complete", 100, **estimated, messages=messages("Step completed."))),
            operation("running", step("complete", 100, messages=messages("Step completed."))),
        )
    ]
    assert found == [
        ["the operation is running."],
        [f"step Certification is in progress (40 %). The service expects it to take {FIVE_DAYS}. 3 images"],
        ["step Certification is in progress (57 %)."],
        ["step Certification is complete."],
        [],
    ]


@pytest.mark.parametrize(
    ("estimate", "sentence"),
    [
        ("< 15 min", "less than 15 min (until 00:31 UTC)"),
        ("< 1 hour", "less than 1 hour (until 01:16 UTC)"),
        ("~2-5 days", "about 2-5 days (until 1970-01-06)"),
        ("~2-3 day", "about 2-3 days (until 1970-01-04)"),
        ("soon", "soon"),
    ],
)
def test_estimate_becomes_a_date(estimate: str, sentence: str) -> None:
    [line, _] = lines(poll(operation("running", step("inProgress", estimatedTimeFrame=estimate))))
    assert line.endswith(f" The service expects it to take {sentence}.")


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (SIGNOFF, "is waiting for the publisher"),
        ("waitingForApproval", "is waiting for approval"),
        ("blocked", "is blocked"),
        ("rejected", "was rejected"),
        ("canceled", "was canceled"),
        ("pondering", "has the status 'pondering'"),
    ],
)
def test_every_step_status_has_a_sentence(status: str, sentence: str) -> None:
    assert lines(poll(operation("running", step(status))))[0] == f"step Certification {sentence}."


def test_errors_of_a_failed_step_are_error_lines() -> None:
    said = [*messages("Began."), *messages("No <b>logo</b>.", "No SSH key.", level="error")]
    failed = poll(operation("failed", step("failed", 40, estimatedTimeFrame="< 5 day", messages=said)))
    assert failed.log == (
        (logging.ERROR, "contoso/web: step Certification failed: No logo; No SSH key."),
        (logging.ERROR, "contoso/web: the operation failed."),
    )


def test_wanted_cancel_is_not_an_error_line() -> None:
    canceled = poll(operation("canceled"), replace(SPEC, until=("canceled",), fail_on=()))
    assert canceled.log == ((logging.INFO, "contoso/web: the operation was canceled."),)


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [("", "30"), ("31.25", "31.2"), ("3600", "3600")],
    ids=["none", "short", "long"],
)
def test_last_line_announces_the_next_poll(retry_after: str, seconds: str) -> None:
    decision = poll(operation("running", step("inProgress"), **{"Retry-After": retry_after}))
    assert decision.log[-1][1].endswith(f"the operation is running. Next poll in {seconds} s.")
    assert "Next poll" not in decision.log[0][1]


def test_slow_step_has_a_line_for_each_ten_percent() -> None:
    answers = [operation("running", step("inProgress", percentage)) for percentage in range(100)]
    logged = [number for number, decision in enumerate(polls(*answers)) if decision.log]
    assert logged == list(range(0, 100, 10))


PROGRESS = [("notStarted", 0), ("inProgress", 0), ("inProgress", 50), ("complete", 100)]


@given(
    st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=12),
    st.sampled_from(["id", "stepName"]),
)
def test_line_is_logged_exactly_when_a_step_changed(states: list[tuple[int, ...]], field: str) -> None:
    # Steps only move forward, and the name may be in either field.
    history = [[max(so_far) for so_far in zip(*states[: end + 1], strict=True)] for end in range(len(states))]
    answers = [
        operation(
            "running",
            *(
                {field: f"{number}", "status": PROGRESS[one][0], "progressPercentage": PROGRESS[one][1]}
                for number, one in enumerate(state)
            ),
        )
        for state in history
    ]
    first, *rest = polls(*answers)
    assert first.log
    for decision, (before, after) in zip(rest, pairwise(history), strict=True):
        changed = [f"step {number}" for number in range(3) if before[number] != after[number]]
        assert [line[:6] for line in lines(decision)] == changed


def test_change_of_the_status_itself_is_logged_once() -> None:
    answers = [operation("notStarted"), operation("running"), operation("running")]
    assert [lines(decision) for decision in polls(*answers)] == [
        ["the operation has not started."],
        ["the operation is running."],
        [],
    ]
    offers = [offer("neverPublished"), offer("running"), offer("running")]
    assert [lines(decision) for decision in polls(*offers)] == [
        ["the offer's status is neverPublished."],
        ["the offer's status is running."],
        [],
    ]


@pytest.mark.parametrize("progress", [operation, offer])
@pytest.mark.parametrize(
    ("status", "steps", "words"),
    [
        ("<b>Pondering</b>", [], "the unknown status 'pondering'; polling continues"),
        ("running", [signoff()], "the publisher's signoff is awaited. Go live to continue"),
    ],
    ids=["unknown status", "awaited signoff"],
)
def test_surprising_status_is_one_warning(progress: Any, status: str, steps: list[Any], words: str) -> None:
    answer = progress(status, *steps)
    first, *rest = polls(answer, answer, answer)
    assert [words in line for level, line in first.log if level == logging.WARNING] == [True]
    assert [decision.log for decision in rest] == [(), ()]


@pytest.mark.parametrize("answer", [operation("running", signoff()), offer("running", signoff())])
def test_signoff_that_ends_polling_is_no_warning(answer: Progress) -> None:
    decision = poll(answer, TO_PREVIEW)
    assert decision.outcome is Outcome.SUCCEEDED
    assert {level for level, _ in decision.log} == {logging.INFO}


def test_fault_and_recovery_are_logged() -> None:
    _, fault, after, later = polls(operation(), CloudPartnerError("It was lost."), operation(), operation())
    text = "contoso/web: the poll failed; polling continues. Next poll in 60 s. It was lost."
    assert fault.log == ((logging.WARNING, text),)
    assert lines(after) == ["the service responds again; the operation is running."]
    assert later.log == ()


def test_not_found_line_names_duration_and_limit() -> None:
    _, second, after = polls(error(404), error(404), operation(), seconds=60)
    assert (
        "404 Not Found (for 60 s; final after 1500 s); polling continues. Next poll in 60 s."
        in second.log[0][1]
    )
    assert "the service responds again" in lines(after)[-1]


@pytest.mark.parametrize(
    "decision",
    [
        poll(operation("completed")),
        poll(operation("running", signoff()), TO_PREVIEW),
        poll(operation("running"), age=7 * DAY),
        poll(error(500), age=7 * DAY),
    ],
    ids=["completed", "preview", "timeout", "timeout in a fault"],
)
def test_finished_polling_announces_no_next_poll(decision: Decision) -> None:
    assert decision.outcome
    assert decision.log
    assert "next poll" not in str(decision.log).lower()


# --- results ---


def test_operation_result_contains_the_offer() -> None:
    answer = operation(
        "running",
        step("complete", 100, "Packaging"),
        step("inProgress", 50, messages=messages("<b>a</b>", "", "b")),
    )
    answer.raw["publishingVersion"] = 3
    assert summarize(OPERATION, answer) == {
        "location": LOCATION,
        "publisher_id": "contoso",
        "offer_id": "web",
        "version": 3,
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


def test_offer_result_has_the_same_keys_without_a_location() -> None:
    answer = offer("Running", step("Complete"), signoff(), messages=messages("<b>a</b>"))
    result = summarize(OFFER, answer)
    assert {key: value for key, value in result.items() if key != "steps"} == {
        "publisher_id": "contoso",
        "offer_id": "web",
        "version": None,
        "status": SIGNOFF,
        "progress_percentage": 50,
        "messages": ["a"],
    }


def test_result_has_twenty_messages_with_errors_first() -> None:
    for number in (19, 20):
        texts = [str(one) for one in range(number)]
        answer = operation("running", step("inProgress", messages=messages(*texts)))
        assert summarize(OPERATION, answer)["messages"] == texts
    many = step("inProgress", messages=messages(*map(str, range(21))))
    wrong = step("inProgress", messages=messages("wrong", level="error"))
    assert summarize(OPERATION, operation("running", many, wrong))["messages"] == [
        "wrong",
        *(str(one) for one in range(18)),
        "… and 3 more messages, not shown",
    ]


def test_long_message_of_a_result_is_cut() -> None:
    answer = operation("running", step("inProgress", messages=messages("x" * 900)))
    assert [len(text) for text in summarize(OPERATION, answer)["messages"]] == [500]


# --- error texts ---

NO_SAS = messages("No <i>SAS</i> URI.", level="error")
CURE = "Correct the problems that the messages name, then publish again and go live."
FAILED = f"in step Certification: No SAS URI. {CURE}"
CANCELED = "the service gave no message. It was canceled at the service: start it again if you still need it."
COMPLETED = "It completed before it could be canceled: its changes stay in place."
LISTED = "The task's `fail_on` contains this status."


def message_of(target: Any, outcome: Outcome, answer: Progress | None, spec: PollSpec = SPEC) -> str:
    return str(make_event(spec, target, outcome, progress=answer)["message"])


@pytest.mark.parametrize(
    ("outcome", "answer", "text"),
    [
        (Outcome.FAILED, operation("failed", step("failed", messages=NO_SAS)), f"failed {FAILED}"),
        (Outcome.CANCELED, operation("canceled"), f"was canceled: {CANCELED}"),
        (
            Outcome.FAILED,
            operation("completed"),
            f"succeeded: the service gave no message. {COMPLETED}",
        ),
    ],
    ids=["failed", "canceled", "succeeded"],
)
def test_failed_operation_is_explained(outcome: Outcome, answer: Progress, text: str) -> None:
    assert message_of(OPERATION, outcome, answer) == f"The operation on contoso/web {text} ({LOCATION})"


@pytest.mark.parametrize(
    ("outcome", "answer", "text"),
    [
        (Outcome.FAILED, offer("Failed", step("failed", messages=NO_SAS)), f"failed {FAILED}"),
        (Outcome.CANCELED, offer("Canceled"), f"canceled: {CANCELED}"),
        (Outcome.FAILED, offer("NeverPublished"), f"neverPublished: the service gave no message. {LISTED}"),
        (Outcome.FAILED, offer("succeeded"), f"succeeded: the service gave no message. {LISTED}"),
        (
            Outcome.FAILED,
            offer("running", signoff()),
            f"{SIGNOFF} in step two: the service gave no message. {LISTED}",
        ),
    ],
    ids=["failed", "canceled", "other", "succeeded", "signoff"],
)
def test_unwanted_offer_status_is_explained(outcome: Outcome, answer: Progress, text: str) -> None:
    assert message_of(OFFER, outcome, answer) == f"The status of the offer contoso/web is {text}"


@pytest.mark.parametrize(
    ("target", "thing", "answer", "state"),
    [
        (
            OPERATION,
            f"operation {LOCATION}",
            operation("running", step("inProgress")),
            "running in step Certification",
        ),
        (OPERATION, f"operation {LOCATION}", operation("running"), "running"),
        (OFFER, "the offer", offer("running", signoff()), f"{SIGNOFF} in step two"),
        (OFFER, "the offer", None, None),
    ],
)
def test_timeout_names_duration_goal_and_last_status(
    target: Any, thing: str, answer: Progress | None, state: str | None
) -> None:
    last = f"Last status: {state}." if state else "No poll got a usable response."
    assert message_of(target, Outcome.TIMEOUT, answer, TO_PREVIEW) == (
        f"Polling of contoso/web timed out after 7 days, 0:00:00: {thing} did not reach the status "
        f"succeeded or {SIGNOFF}. {last} The operation continues at the service: to keep polling, raise "
        "`timeout` and clear this task."
    )
