"""Responses and polls for the tests of `core.polling` and `core.progress`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_cpp.core.errors import CloudPartnerError
from airflow_provider_cpp.core.http import Response
from airflow_provider_cpp.core.polling import (
    FAILURE_STATUSES,
    SIGNOFF,
    SUCCESS_STATUSES,
    Decision,
    PollSpec,
    PollState,
    Unchanged,
    decide,
)
from airflow_provider_cpp.portal.targets import OfferStatusTarget, OperationTarget

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_cpp.core.progress import Progress

MINUTE, HOUR, DAY = 60, 3600, 86400
HOST = "https://cloudpartner.azure.com"
LOCATION = "/api/operations/contoso$web$2$preview?api-version=2017-10-31"
OPERATION, OFFER = OperationTarget(LOCATION), OfferStatusTarget("contoso", "web")
#: The defaults of `OperationSensor`.
SPEC = PollSpec(
    "contoso/web",
    SUCCESS_STATUSES["completed"],
    FAILURE_STATUSES,
    started_at=1000.0,
    deadline=1000.0 + 7 * DAY,
    poke_interval=30,
    max_wait=600,
)


def document(status: str, *steps: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps({"status": status, "steps": steps, **fields}).encode()


def operation(status: str = "running", *steps: dict[str, Any], **headers: str) -> Any:
    return OPERATION.request(HOST).read(Response(200, headers, document(status, *steps), HOST))


def offer(status: str = "running", *steps: dict[str, Any], **fields: Any) -> Any:
    return OFFER.request(HOST).read(Response(200, {}, document(status, *steps, **fields), HOST))


def step(status: str, percentage: int = 0, name: str = "Certification", **fields: Any) -> dict[str, Any]:
    return {
        "id": name.lower(),
        "stepName": name,
        "status": status,
        "progressPercentage": percentage,
        **fields,
    }


def signoff(status: str = SIGNOFF, field: str = "id") -> dict[str, Any]:
    return {"id": "one", "stepName": "two", field: "publisher-signoff", "status": status}


def messages(*texts: str, level: str = "information") -> list[dict[str, str]]:
    return [{"messageHtml": text, "level": level} for text in texts]


def error(status: int, **headers: str) -> CloudPartnerError:
    with pytest.raises(CloudPartnerError) as caught:
        OPERATION.request(HOST).read(Response(status, headers, b"<html>", HOST))
    return caught.value


def poll(
    result: Progress | Unchanged | CloudPartnerError,
    spec: PollSpec = SPEC,
    state: PollState | None = None,
    age: float = 1,
) -> Decision:
    return decide(spec, state or PollState(), result, now=spec.started_at + age, jitter=0)


def polls(
    *results: Progress | CloudPartnerError, spec: PollSpec = SPEC, seconds: float = 1
) -> Iterator[Decision]:
    """Poll with a number of seconds between two polls."""
    state = PollState()
    for number, result in enumerate(results):
        decision = poll(result, spec, state, age=number * seconds)
        state = decision.state
        yield decision
