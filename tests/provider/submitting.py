"""Helpers for the tests of go-live and publish; `verb` is the last part of the request's path."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from harness import Connect, operations
from relay import running_relay

from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
from airflow_provider_cpp.operators.cloud_partner import CancelOperator, GoLiveOperator, PublishOperator

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from relay import Sent

    from dev.emulator_process import Emulator

OPERATORS: dict[str, Any] = {"golive": GoLiveOperator, "publish": PublishOperator, "cancel": CancelOperator}
#: The name of the request in messages, and the kind of the operation in the service's list.
WORDS = {"golive": "go-live", "publish": "publish"}
KINDS = {"golive": "goLive", "publish": "publish"}

#: Offers whose operation does not end.
each_slow = pytest.mark.parametrize(
    ("verb", "offer"),
    [
        *(("golive", offer) for offer in ("slow", "slow-classic")),
        *(("publish", offer) for offer in ("next-slow", "next-slow-classic")),
    ],
)
migrated_or_not = pytest.mark.parametrize("kind", ["", "-classic"])
adopt_or_fail = pytest.mark.parametrize("if_running", ["adopt", "fail"])
deferred_or_not = pytest.mark.parametrize("deferrable", [True, False])

SUBMISSIONS = "submissions/$"


class KilledError(BaseException):
    """Ends an attempt as a SIGKILL does: no code of the task runs after it."""


def operator(verb: str, offer: str, **arguments: Any) -> Any:
    """The task; it pauses for hundredths of a second between polls."""
    short = {"poke_interval": 0.01, "max_wait": 0.05}
    return OPERATORS[verb](task_id=verb, offer_id=offer, **{**short, **arguments})


def start_directly(verb: str, offer: str) -> str:
    """Start an operation as another client does, from any thread; Airflow 2 runs operators in one only."""
    hook = CloudPartnerHook()
    return hook.go_live(offer) if verb == "golive" else hook.publish(offer)


def posts(emulator: Emulator, verb: str = "golive") -> list[dict[str, Any]]:
    return emulator.requests(method="POST", path=f"/{verb}$")


def statuses(emulator: Emulator, verb: str = "golive") -> list[int | None]:
    """Status of the response to each request; None if the connection was closed."""
    return [post["status"] for post in posts(emulator, verb)]


def effects(emulator: Emulator, verb: str = "golive") -> int:
    """How many requests the service carried out."""
    return sum(post["effect"] for post in posts(emulator, verb))


def location_of(emulator: Emulator, offer: str, verb: str = "golive") -> str:
    """Location of the latest operation of an offer."""
    return str(operations(emulator, offer, KINDS[verb])[0]["location"])


def states(emulator: Emulator, offer: str, verb: str = "golive") -> list[str]:
    """States of an offer's operations, the latest first."""
    return [one["submissionState"] for one in operations(emulator, offer, KINDS[verb])]


def listed(offer: str) -> str:
    """The current list of an offer's operations."""
    return json.dumps([submission.raw for submission in CloudPartnerHook().list_operations(offer)])


def freeze_list(emulator: Emulator, body: str = "[]", *, count: int = 1000, skip: int = 0) -> None:
    """Let the service answer lookups with an outdated list."""
    emulator.inject(path=SUBMISSIONS, skip=skip, count=count, replace={"body": body})


def overtaken(
    emulator: Emulator, connect: Connect, directory: Path, task: Any, act: Callable[[], Any]
) -> Any:
    """Execute a task; just before its request arrives, another client acts."""

    def overtake(sent: Sent) -> None:
        if sent.method == "POST":
            relay.before = lambda _: None
            connect(emulator)
            act()

    with running_relay(emulator, directory) as relay:
        connect(emulator, host=relay.url, extra={"verify": relay.verify})
        relay.before = overtake
        return task.execute({"ti": None})
