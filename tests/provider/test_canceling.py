"""Canceling an operation on behalf of a task that was killed, which has little time and no second try."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import tenacity
from harness import eventually, operations, state_of
from relay import running_relay

from airflow_provider_cpp.exceptions import CloudPartnerError, PermissionDeniedError
from airflow_provider_cpp.hooks import cloud_partner
from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook

if TYPE_CHECKING:
    from pathlib import Path

    from harness import Connect
    from relay import Sent

    from dev.emulator_process import Emulator

both = pytest.mark.parametrize("twin", ["sync", "async"])
classic_too = pytest.mark.parametrize("offer", ["slow", "slow-classic"])
BUSY = {"status": 503, "headers": {"Retry-After": "1"}}


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cloud_partner._SHORT_RETRY, "wait", tenacity.wait_fixed(0.05))


def cancel(twin: str, location: str) -> None:
    hook = CloudPartnerHook()
    if twin == "sync":
        hook.cancel_operation(location)
    else:
        asyncio.run(hook.acancel_operation(location))


def cancels(emulator: Emulator) -> list[dict[str, Any]]:
    return emulator.requests(method="POST", path="/cancel$")


@both
@pytest.mark.parametrize("path", ["/operations/", "/cancel$"])
@pytest.mark.parametrize("fault", [BUSY, {"status": 500}, {"status": 429}, {"close": "before"}], ids=str)
def test_a_passing_fault_does_not_keep_it_running(
    emulator: Emulator, twin: str, path: str, fault: dict[str, Any]
) -> None:
    location = CloudPartnerHook().go_live("slow")
    emulator.inject(path=path, **fault)
    cancel(twin, location)
    assert emulator.faults() == []
    assert eventually(lambda: state_of(emulator, "slow") == "canceled")
    assert sum(one["effect"] for one in cancels(emulator)) == 1


@both
def test_an_outage_ends_in_its_error_soon(emulator: Emulator, twin: str) -> None:
    location = CloudPartnerHook().go_live("slow")
    emulator.inject(path="/cancel$", status=500, count=100)
    with pytest.raises(CloudPartnerError, match="500"):
        cancel(twin, location)
    assert 1 < len(cancels(emulator)) < 10


@both
def test_a_refusal_is_told_at_once(emulator: Emulator, twin: str) -> None:
    location = CloudPartnerHook().go_live("slow")
    emulator.inject(path="/cancel$", status=403)
    with pytest.raises(PermissionDeniedError):
        cancel(twin, location)
    assert len(cancels(emulator)) == 1


@both
@pytest.mark.parametrize("offer", ["quick", "quick-classic", "failing", "failing-classic"])
def test_an_operation_that_ended_is_left_alone(emulator: Emulator, twin: str, offer: str) -> None:
    location = CloudPartnerHook().go_live(offer)
    eventually(lambda: state_of(emulator, offer) in ("completed", "failed"))
    cancel(twin, location)
    assert cancels(emulator) == []


@both
def test_what_runs_after_it_ended_is_left_alone(emulator: Emulator, twin: str) -> None:
    hook = CloudPartnerHook()
    location = hook.go_live("slow")
    hook.cancel("slow")
    eventually(lambda: state_of(emulator, "slow") == "canceled")
    hook.go_live("slow")
    cancel(twin, location)
    assert len(cancels(emulator)) == 1
    assert [one["submissionState"] for one in operations(emulator, "slow")] == ["running", "canceled"]


@both
@classic_too
def test_one_that_ends_between_two_tries_is_not_canceled_again(
    emulator: Emulator, connect: Connect, tmp_path: Path, twin: str, offer: str
) -> None:
    location = CloudPartnerHook().go_live(offer)
    emulator.inject(path="/cancel$", close="after")
    with running_relay(emulator, tmp_path) as relay:
        connect(emulator, host=relay.url, extra={"verify": relay.verify})

        def wait_for_the_end(sent: Sent) -> None:
            if "/operations/" in sent.target and cancels(emulator):
                eventually(lambda: state_of(emulator, offer) == "canceled")

        relay.before = wait_for_the_end
        cancel(twin, location)
    assert len(cancels(emulator)) == 1
