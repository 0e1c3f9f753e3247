"""A gateway's error page may repeat the request, and so the token. It goes no further."""

from __future__ import annotations

import asyncio
import json
import traceback
from email.message import Message
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout
from harness import deferral, event_of
from relay import running_relay

from airflow_provider_cpp.exceptions import CloudPartnerError, PermissionDeniedError
from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
from airflow_provider_cpp.operators.cloud_partner import GoLiveOperator
from airflow_provider_cpp.sensors.cloud_partner import OperationSensor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness import Connect, Log
    from relay import Relay, Sent

    from dev.emulator_process import Emulator

LOCATION = "/api/publishers/contoso/offers/slow/operations/1"
both = pytest.mark.parametrize("variant", ["sync", "async"])
patience = {"poke_interval": 0.01, "max_wait": 0.05, "timeout": 0.5}


def page(kind: str, sent: Sent) -> tuple[str, str]:
    """Content type and body of a page that shows the request."""
    token = sent.headers["Authorization"].partition(" ")[2]
    request = "".join(f"{name}: {value}\n" for name, value in sent.headers.items())
    return {
        "text": ("text/plain", f"Your request was:\n{request}"),
        "html": ("text/html", f"<html><pre>{request}</pre></html>"),
        "json": ("application/json", json.dumps({"error": {"code": token, "message": request}})),
        # Without the word that tells a token, in the middle of others, and where texts are cut.
        "bare": ("text/plain", f"seen:{token}:end"),
        "late": ("text/plain", "x" * 250 + token),
    }[kind]


pages = pytest.mark.parametrize("kind", ["text", "html", "json", "bare", "late"])


@pytest.fixture
def gateway(emulator: Emulator, connect: Connect, tmp_path: Path) -> Iterator[Relay]:
    with running_relay(emulator, tmp_path) as relay:
        connect(emulator, host=relay.url, extra={"verify": relay.verify})
        yield relay


def show_requests(gateway: Relay, kind: str, status: int) -> None:
    """Answer every request with an error that shows it."""

    def answer(sent: Sent) -> tuple[int, Message, bytes]:
        headers = Message()
        headers["Content-Type"], body = page(kind, sent)
        headers["X-Seen"] = headers["Retry-After"] = sent.headers["Authorization"]
        return status, headers, body.encode()

    gateway.pass_on = answer  # type: ignore[method-assign]


def pieces(gateway: Relay) -> list[str]:
    """Parts of the sent tokens, each long enough to be distinct from other text."""
    tokens = {sent.headers["Authorization"].partition(" ")[2] for sent in gateway.requests}
    return [token[start : start + 10] for token in tokens for start in range(0, len(token) - 9, 5)]


def assert_unseen(gateway: Relay, *texts: str) -> None:
    assert pieces(gateway)
    for piece in pieces(gateway):
        for text in texts:
            assert piece not in text


@both
@pages
@pytest.mark.parametrize("status", [400, 403, 500, 502])
def test_the_error_of_a_page_that_shows_the_request_has_no_token(
    gateway: Relay, variant: str, kind: str, status: int, log: Log
) -> None:
    show_requests(gateway, kind, status)
    hook = CloudPartnerHook()
    with pytest.raises(CloudPartnerError, match=str(status)) as raised:
        hook.get_operation(LOCATION) if variant == "sync" else asyncio.run(hook.aget_operation(LOCATION))
    error = raised.value
    assert_unseen(
        gateway, str(error), repr(vars(error)), "".join(traceback.format_exception(error)), *log.lines
    )


@pages
def test_neither_trigger_nor_event_has_a_token_that_was_shown(gateway: Relay, kind: str, log: Log) -> None:
    show_requests(gateway, kind, 502)
    deferred = deferral(OperationSensor(task_id="wait", operation_location=LOCATION, **patience), {})
    show_requests(gateway, kind, 403)
    event = event_of(deferred)
    assert event["error"] == "PermissionDeniedError"
    assert_unseen(gateway, json.dumps([deferred.trigger.serialize(), deferred.kwargs, event]), *log.lines)


@pages
@pytest.mark.parametrize("deferrable", [True, False])
def test_the_log_of_a_wait_has_no_token_that_was_shown(
    gateway: Relay, kind: str, deferrable: bool, log: Log
) -> None:
    show_requests(gateway, kind, 502)
    task = OperationSensor(task_id="wait", operation_location=LOCATION, deferrable=deferrable, **patience)
    if deferrable:
        deferred = deferral(task, {})
        assert_unseen(gateway, json.dumps(event_of(deferred)))
    else:
        with pytest.raises(AirflowSensorTimeout) as raised:
            task.execute({})
        assert_unseen(gateway, str(raised.value))
    assert log.containing("polling continues")
    assert_unseen(gateway, *log.lines)


@pages
def test_a_go_live_that_is_refused_so_tells_no_token(
    gateway: Relay, context: dict[str, Any], kind: str, log: Log
) -> None:
    show_requests(gateway, kind, 403)
    with pytest.raises(PermissionDeniedError) as raised:
        GoLiveOperator(task_id="go_live", offer_id="slow").execute(context)
    assert_unseen(gateway, str(raised.value), *log.lines)
