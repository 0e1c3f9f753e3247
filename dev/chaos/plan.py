"""The plan of a chaos test: releases, kills and faults, drawn from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

COMPONENTS = {
    "api-server": ["api-server"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer-1": ["triggerer", "--skip-serve-logs"],
    "triggerer-2": ["triggerer", "--skip-serve-logs"],
    "worker-1": ["celery", "worker", "--celery-hostname", "one", "--concurrency", "4", "--skip-serve-logs"],
    "worker-2": ["celery", "worker", "--celery-hostname", "two", "--concurrency", "4", "--skip-serve-logs"],
}
SERVICES = ("emulator", "postgresql", "redis")
#: Dags and their weights.
SHAPES = {
    "wait_in_the_triggerer": 4,
    "wait_in_the_same_task": 3,
    "publish_and_go_live": 3,
    "wait_in_a_worker": 2,
}
PUBLISH_STEPS = ("displaydummycertify", "displaycertify", "displayprovision", "displaypackage")
#: Seconds for which the emulator holds back the response to a targeted go-live. Clients wait for 30 s.
HOLD_SECONDS = 25
PRINCIPAL = {
    "tenantId": "11111111-2222-3333-4444-555555555555",
    "clientId": "66666666-7777-8888-9999-000000000000",
    "secret": "the-secret-of-the-principal",
    "publishers": ["contoso"],
}


@dataclass(frozen=True)
class Release:
    """One release: a Dag run for one offer.

    :param at: start, in seconds from the start of the chaos test
    :param seconds: duration of the go-live
    :param fails_once: whether the service fails the first go-live, so that the simulated user clears the task
    :param is_targeted: whether the worker is killed between the go-live request and the XCom
    """

    offer_id: str
    dag_id: str
    at: float
    seconds: float
    migrated: bool
    fails_once: bool
    is_targeted: bool

    @property
    def run_id(self) -> str:
        return f"release-of-{self.offer_id}"

    @property
    def go_live(self) -> str:
        """Id of the task that goes live."""
        return "release_offer.go_live" if self.dag_id == "publish_and_go_live" else "go_live"

    @property
    def go_lives(self) -> int:
        """Expected number of go-lives."""
        return 2 if self.fails_once else 1

    @property
    def offer(self) -> dict[str, Any]:
        """The offer in the emulator's seed."""
        is_published = self.dag_id != "publish_and_go_live"
        offer: dict[str, Any] = {
            "id": self.offer_id,
            "migrated": self.migrated,
            "state": "preview" if is_published else "never-published",
            "stepSeconds": {**dict.fromkeys(PUBLISH_STEPS, 4), "live": round(self.seconds, 1)},
        }
        if self.fails_once:
            offer["fail"] = {"step": "live", "messages": ["<p>No <b>logo</b>.</p>"], "times": 1}
        return offer


@dataclass(frozen=True)
class Kill:
    """Stop one component and start it again after a pause, as a supervisor would.

    :param at: seconds from the start of the chaos test
    :param pause: seconds until the component is started again
    :param graceful: whether a service is stopped normally; always false for Airflow's components
    """

    at: float
    target: str
    pause: float
    graceful: bool


@dataclass(frozen=True)
class Plan:
    """Everything that the seed decides."""

    seed: int
    releases: tuple[Release, ...]
    kills: tuple[Kill, ...]
    seconds: float

    @property
    def emulator_seed(self) -> dict[str, Any]:
        publisher = {"id": "contoso", "offers": [release.offer for release in self.releases]}
        return {"publishers": [publisher], "principals": [PRINCIPAL]}

    @property
    def faults(self) -> list[dict[str, Any]]:
        """The fault rules of the emulator, targeted releases first, because the first match applies."""
        held = [
            {"method": "POST", "path": f"/{release.offer_id}/golive$", "hold": HOLD_SECONDS}
            for release in self.releases
            if release.is_targeted
        ]
        return [*held, *FAULTS]


def _faults() -> list[dict[str, Any]]:
    html = {"headers": {"Content-Type": "text/html"}, "body": "<h1>Bad gateway</h1>"}
    busy = {"headers": {"Retry-After": "2"}}
    begin = {"method": "POST", "path": "/(golive|publish)$"}
    lists = {"method": "GET", "path": "/submissions"}
    api, tokens = {"path": "^/api/"}, {"path": "/token$"}
    return [
        # Requests that start an operation: lost before and after the effect, refused, answered by a proxy.
        {**begin, "probability": 0.06, "close": "after"},
        {**begin, "probability": 0.04, "close": "before"},
        {**begin, "probability": 0.04, "truncate": 0},
        {**begin, "probability": 0.04, "replace": {"status": 502, **html}},
        {**begin, "probability": 0.03, "replace": {"headers": {"Location": None}}},
        {**begin, "probability": 0.03, "status": 500},
        {**begin, "probability": 0.03, "status": 502, **html},
        {**begin, "probability": 0.03, "status": 503},
        {**begin, "probability": 0.04, "status": 503, **busy},
        {**begin, "probability": 0.04, "status": 429, **busy},
        {**begin, "probability": 0.03, "delay": 3},
        # Looking: the list lags behind.
        {**lists, "probability": 0.12, "lag": 6},
        # Anything.
        {**api, "probability": 0.01, "status": 500, "body": '"Something failed."'},
        {**api, "probability": 0.01, "status": 502, **html},
        {**api, "probability": 0.01, "status": 503},
        {**api, "probability": 0.01, "status": 503, **busy},
        {**api, "probability": 0.01, "status": 429, **busy},
        {"method": "GET", "path": "^/api/", "probability": 0.01, "replace": {"body": "<html>"}},
        {"method": "GET", "path": "^/api/", "probability": 0.01, "truncate": 20},
        {**api, "probability": 0.01, "close": "before"},
        {**api, "probability": 0.01, "close": "after"},
        {**api, "probability": 0.02, "delay": 3},
        {**tokens, "probability": 0.03, "status": 503},
        {**tokens, "probability": 0.02, "close": "before"},
    ]


FAULTS = _faults()


def make_plan(seed: int, count: int, max_seconds: float) -> Plan:
    """Draw the plan.

    :param max_seconds: longest time in which components are killed; with few releases it is shorter
    """
    draws = random.Random(seed)
    seconds = min(max_seconds, max(150.0, 7.0 * count))
    return Plan(seed, _releases(draws, count, seconds), _kills(draws, seconds), seconds)


def _releases(draws: random.Random, count: int, seconds: float) -> tuple[Release, ...]:
    numbers = range(count)
    failing = set(draws.sample(numbers, max(1, count // 10)))
    targeted = set(draws.sample(numbers, max(2, count // 10)))
    # Each kind of Dag at least once.
    shapes = [*SHAPES, *draws.choices(list(SHAPES), list(SHAPES.values()), k=count)][:count]
    draws.shuffle(shapes)
    return tuple(
        Release(
            offer_id=f"offer-{number:03}",
            dag_id=shapes[number],
            at=draws.uniform(0, 0.8 * seconds),
            seconds=draws.uniform(20, 60),
            migrated=draws.random() < 0.6,
            fails_once=number in failing,
            is_targeted=number in targeted,
        )
        for number in numbers
    )


def _kills(draws: random.Random, seconds: float) -> tuple[Kill, ...]:
    """Draw the kills in rounds, in which each target is hit once at a random time."""
    targets = [*COMPONENTS, *SERVICES]
    count = max(len(targets), round(seconds / 18))
    turns: list[str] = []
    while len(turns) < count:
        turns += draws.sample(targets, len(targets))
    gap = seconds / count
    return tuple(
        Kill(
            at=gap * (number + draws.random()),
            target=target,
            pause=draws.uniform(1, 8),
            graceful=target in ("postgresql", "redis") and draws.random() < 0.5,
        )
        for number, target in enumerate(turns[:count])
    )
