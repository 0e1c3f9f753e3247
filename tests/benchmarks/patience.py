"""How often an operation is asked about until its end is seen, and how late that is, by a simulated clock."""

from __future__ import annotations

import json
import math
import random
import statistics
import sys
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from airflow_provider_cpp.core.http import Response
from airflow_provider_cpp.core.polling import PollSpec, PollState, decide
from airflow_provider_cpp.portal.requests import get_operation
from tests.benchmarks.clients import LOCATION
from tests.benchmarks.server import operation

if TYPE_CHECKING:
    from airflow_provider_cpp.core.models import Operation

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
LENGTHS = {"10 minutes": 10 * MINUTE, "1 hour": HOUR, "1 day": DAY, "5 days": 5 * DAY}
#: The interval to compare with: the default poll interval of a sensor.
CONSTANT = 60.0
#: An operation is by up to this share longer or shorter, so that it ends anywhere between two polls.
SPREAD = 0.05
_HOST = "https://cloudpartner.azure.com"


@dataclass(frozen=True)
class Found:
    """What some waits for operations of about the same length came to: means, and the longest delay."""

    polls: float
    delay: float
    longest_delay: float


def simulate(wait: PollSpec, length: float, chance: random.Random) -> tuple[int, float]:
    """Wait for an operation of so many seconds as the trigger does; return the polls and the delay."""
    now, polls, state = 0.0, 0, PollState()
    while True:
        polls += 1
        answer = _answer(int(100 * min(1.0, now / length)), ended=now >= length)
        decision = decide(wait, state, answer, now=now, jitter=chance.random())
        if decision.outcome:
            return polls, now - length
        state = decision.state
        now += decision.seconds


def constantly(length: float) -> tuple[int, float]:
    """Ask once a minute; return the polls and the delay."""
    polls = math.ceil(length / CONSTANT)
    return polls + 1, polls * CONSTANT - length


def compare(wait: PollSpec, times: int) -> dict[str, dict[str, Any]]:
    """Return what `Found` says, of this provider and of one poll a minute, for each of the lengths."""
    # The wait begins when its clock does.
    wait = replace(wait, started_at=0.0, deadline=wait.deadline - wait.started_at)
    chance = random.Random(1)
    found = {}
    for name, about in LENGTHS.items():
        lengths = [about * chance.uniform(1 - SPREAD, 1 + SPREAD) for _ in range(times)]
        found[name] = {
            "ours": vars(_found([simulate(wait, length, chance) for length in lengths])),
            "constant": vars(_found([constantly(length) for length in lengths])),
        }
    return found


def _found(waits: list[tuple[int, float]]) -> Found:
    polls, delays = zip(*waits, strict=True)
    return Found(statistics.fmean(polls), statistics.fmean(delays), max(delays))


@cache
def _answer(percentage: int, *, ended: bool) -> Operation:
    location = LOCATION.format("first", "56615b67-2185-49fe-80d2-c4ddf77bb2e8")
    body = json.dumps(operation(percentage, ended=ended)).encode()
    return get_operation(location, _HOST).read(Response(200, {}, body, _HOST))


if __name__ == "__main__":
    wait = PollSpec.from_json(json.loads(sys.argv[1]))
    found = {"max_wait": wait.max_wait, "lengths": compare(wait, int(sys.argv[2]))}
    sys.stdout.write(json.dumps(found) + "\n")
