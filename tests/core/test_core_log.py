"""The log of a wait, as those read it who want to know what became of their release."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from airflow_provider_cpp.core.http import Response
from airflow_provider_cpp.core.polling import Decision, PollSpec, PollState, decide
from airflow_provider_cpp.portal import requests as portal

LOCATION = "/api/publishers/contoso/offers/web/operations/1?api-version=2017-10-31"


def poll(status: str, *messages: tuple[str, str], retry_after: str = "", **changes: Any) -> Decision:
    """What follows when an operation in its one step is seen for the first time."""
    step = {
        "id": "displaycertify",
        "stepName": "Certification",
        "estimatedTimeFrame": "< 5 day",
        "status": {"running": "inProgress"}.get(status, status),
        "progressPercentage": 40,
        "messages": [{"messageHtml": text, "level": level} for level, text in messages],
    }
    body = json.dumps({"status": status, "steps": [step]}).encode()
    answer = portal.get_operation(LOCATION, "https://host.example").read(
        Response(200, {"Retry-After": retry_after}, body, "https://host.example")
    )
    wait = PollSpec(
        **{
            "subject": "contoso/web",
            "until": ("succeeded",),
            "fail_on": ("failed", "canceled"),
            "started_at": 0.0,
            "deadline": 7 * 86400.0,
            "poke_interval": 30.0,
            "max_wait": 600.0,
        }
        | changes
    )
    return decide(wait, PollState(), answer, now=0.0, jitter=0.0)


def test_all_errors_of_a_step_that_failed_are_told_as_errors_without_an_estimate() -> None:
    failed = poll("failed", ("information", "Began."), ("error", "No <b>logo</b>."), ("error", "No SSH key."))
    assert failed.log == (
        (logging.ERROR, "contoso/web: Certification failed 40 %: No logo; No SSH key"),
        (logging.ERROR, "contoso/web: operation failed"),
    )


def test_a_bad_end_that_was_wanted_is_no_error() -> None:
    canceled = poll("canceled", until=("canceled",), fail_on=())
    assert {level for level, _ in canceled.log} == {logging.INFO}


@pytest.mark.parametrize(
    ("retry_after", "said"),
    [("", "next poll in 30 s"), ("31.25", "next poll in 31.2 s"), ("3600", "next poll in 3600 s")],
)
def test_when_the_next_poll_is_due_is_told_in_seconds(retry_after: str, said: str) -> None:
    assert said in poll("running", retry_after=retry_after).log[-1][1]
