"""Measure the waits of each client and number, in fresh processes and in turn."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from tests.benchmarks.clients import BARE, OURS, PEERS, SLEEPING, Task
from tests.benchmarks.processes import MeasurementError, measure
from tests.benchmarks.server import TOKEN_IN_USE
from tests.benchmarks.waits import Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.benchmarks.server import Target

FEW, SOME, MANY = 50, 1_000, 10_000
#: Seconds between two polls of one wait: 250 polls a second, 333 and 625, the same for every client.
INTERVALS = {FEW: 0.2, SOME: 3.0, MANY: 16.0}
#: Of one measurement in the steady state; whole intervals for the peers, which poll in bursts.
SECONDS = {FEW: 2.0, SOME: 3.0, MANY: 8.0}


@dataclass(frozen=True)
class Waited:
    """The result of some rounds of one client with one number of waits.

    Times are seconds: CPU time for one poll (`cpu`, `start_cpu`), the longest block of the event loop
    (`blocked`, `start_blocked`), and the time until all waits had polled once (`started_in`).

    :param starved: waits that had not polled before the time limit, in the worst round
    :param rate: polls a second
    :param memory: bytes for each additional wait, beyond a task that sleeps; excludes the fixed cost of the
        process, such as libraries
    :param most: connections at the same time, in the worst round
    :param total: connections altogether, in the worst round
    :param tokens: requests for a token, in the worst round
    :param lives: number of tokens that are enough for this round
    :param lost: waits whose one event was missing, wrong or early, in all rounds
    :param waiting: lost waits that had not ended before the time limit
    :param problem: error that prevented the measurement
    """

    cpu: float = 0.0
    start_cpu: float = 0.0
    blocked: float = 0.0
    start_blocked: float = 0.0
    started_in: float = 0.0
    starved: int = 0
    rate: float = 0.0
    memory: float | None = None
    most: int = 0
    total: int = 0
    tokens: int = 0
    lives: int = 0
    lost: int = 0
    waiting: int = 0
    problem: str = ""


Results = dict[tuple[str, int], Waited]


def run(
    target: Target,
    trigger: tuple[str, dict[str, Any]],
    environment: Mapping[str, str],
    *,
    rounds: int,
    tell: Callable[[str], None],
) -> Results:
    """Measure all clients, and return the results by client and number of waits.

    :param trigger: class path and arguments of the trigger that this provider's sensor defers with
    :param tell: function that shows the name of the current measurement
    """
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    problems: dict[tuple[str, int], str] = {}
    for number in range(rounds):
        for client, waits in _measurements():
            if (client, waits) in problems:
                continue
            tell(f"round {number + 1} of {rounds}: {client}, {waits:,} waits")
            task = Task(target, waits, INTERVALS[waits], trigger)
            plan = Plan(client, task, SECONDS[waits])
            try:
                one = measure("waits", json.dumps(asdict(plan)), environment=environment)
            except MeasurementError as error:
                if client not in PEERS:
                    raise
                problems[client, waits] = str(error).splitlines()[-1]
            else:
                found.setdefault((client, waits), []).append(one)
    resident = {
        key: statistics.median(one["resident"] for one in all_rounds) for key, all_rounds in found.items()
    }
    del found[SLEEPING, MANY]
    results = {key: _waited(all_rounds) for key, all_rounds in found.items()}
    for client in (OURS, BARE):
        each = (resident[client, MANY] - resident[client, FEW]) / (MANY - FEW)
        memory = each - resident[SLEEPING, MANY] / MANY
        results[client, MANY] = replace(results[client, MANY], memory=memory)
    return results | {key: Waited(problem=problem) for key, problem in problems.items()}


def _measurements() -> Iterator[tuple[str, int]]:
    for waits in (FEW, SOME):
        for client in (OURS, BARE, *PEERS):
            yield client, waits
    for client in (OURS, BARE, SLEEPING):
        yield client, MANY


def _waited(rounds: list[dict[str, Any]]) -> Waited:
    def median(phase: str, name: str) -> float:
        return statistics.median(one[phase][name] for one in rounds)

    def most(name: str) -> int:
        return max(one["counts"][name] for one in rounds)

    extra = max(rounds, key=lambda one: one["counts"]["tokens"] - _lives(one["seconds"]))
    error = next((one["error"] for one in rounds if one["error"]), None)
    if error:
        return Waited(problem=error)
    return Waited(
        cpu=median("steady", "cpu"),
        start_cpu=median("start", "cpu"),
        blocked=median("steady", "blocked"),
        start_blocked=median("start", "blocked"),
        started_in=median("start", "seconds"),
        starved=max(one["start"]["starved"] for one in rounds),
        rate=median("steady", "rate"),
        most=most("most"),
        total=most("total"),
        tokens=extra["counts"]["tokens"],
        lives=_lives(extra["seconds"]),
        lost=sum(one["lost"] for one in rounds),
        waiting=sum(one["waiting"] for one in rounds),
    )


def _lives(seconds: float) -> int:
    return 1 + int(seconds // TOKEN_IN_USE)
