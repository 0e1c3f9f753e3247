"""What `make chaos` does to which release at which moment: drawn from one seed, the same at every run."""

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
#: Dags and how often each is drawn.
SHAPES = {
    "wait_in_the_triggerer": 4,
    "wait_in_the_same_task": 3,
    "publish_and_go_live": 3,
    "wait_in_a_worker": 2,
}
PUBLISH_STEPS = ("displaydummycertify", "displaycertify", "displayprovision", "displaypackage")
#: Seconds for which the answer to the go-live of an aimed kill is kept back; clients wait for 30.
HOLD_SECONDS = 25
PRINCIPAL = {
    "tenantId": "11111111-2222-3333-4444-555555555555",
    "clientId": "66666666-7777-8888-9999-000000000000",
    "secret": "the-secret-of-the-principal",
    "publishers": ["contoso"],
}


@dataclass(frozen=True)
class Release:
    """One release: a Dag run on an offer of its own.

    :param at: when it is started, in seconds from the beginning of the chaos
    :param seconds: how long its go-live takes
    :param fails_once: the service fails its first go-live; somebody clears the task then
    :param is_aimed_at: its worker is killed between the request to go live and the XCom
    """

    offer_id: str
    dag_id: str
    at: float
    seconds: float
    migrated: bool
    fails_once: bool
    is_aimed_at: bool

    @property
    def run_id(self) -> str:
        return f"release-of-{self.offer_id}"

    @property
    def go_live(self) -> str:
        """The id of the task that goes live."""
        return "release_offer.go_live" if self.dag_id == "publish_and_go_live" else "go_live"

    @property
    def go_lives(self) -> int:
        """How many go-lives the service is to begin."""
        return 2 if self.fails_once else 1

    @property
    def offer(self) -> dict[str, Any]:
        """The offer as the emulator's seed has it."""
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
class Blow:
    """One component is ended, and started again after a pause, as a supervisor would.

    :param at: seconds from the beginning of the chaos
    :param pause: seconds until it is started again
    :param in_order: a service is restarted in order; else, and any component of Airflow, it gets SIGKILL
    """

    at: float
    target: str
    pause: float
    in_order: bool


@dataclass(frozen=True)
class Plan:
    """All that a seed decides."""

    seed: int
    releases: tuple[Release, ...]
    blows: tuple[Blow, ...]
    seconds: float

    @property
    def emulator_seed(self) -> dict[str, Any]:
        publisher = {"id": "contoso", "offers": [release.offer for release in self.releases]}
        return {"publishers": [publisher], "principals": [PRINCIPAL]}

    @property
    def faults(self) -> list[dict[str, Any]]:
        """The rules of the emulator; those of the aimed kills come first, so that they apply."""
        held = [
            {"method": "POST", "path": f"/{release.offer_id}/golive$", "hold": HOLD_SECONDS}
            for release in self.releases
            if release.is_aimed_at
        ]
        return [*held, *FAULTS]


def _faults() -> list[dict[str, Any]]:
    html = {"headers": {"Content-Type": "text/html"}, "body": "<h1>Bad gateway</h1>"}
    busy = {"headers": {"Retry-After": "2"}}
    begin = {"method": "POST", "path": "/(golive|publish)$"}
    lists = {"method": "GET", "path": "/submissions"}
    api, tokens = {"path": "^/api/"}, {"path": "/token$"}
    return [
        # Beginning: lost before and after the effect, refused, answered by somebody in between.
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


def make_plan(seed: int, count: int, most_seconds: float) -> Plan:
    """Draw everything.

    :param most_seconds: how long the chaos may last; with few releases it is shorter
    """
    draws = random.Random(seed)
    seconds = min(most_seconds, max(150.0, 7.0 * count))
    return Plan(seed, _releases(draws, count, seconds), _blows(draws, seconds), seconds)


def _releases(draws: random.Random, count: int, seconds: float) -> tuple[Release, ...]:
    numbers = range(count)
    failing = set(draws.sample(numbers, max(1, count // 10)))
    aimed = set(draws.sample(numbers, max(2, count // 10)))
    # Each shape at least once.
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
            is_aimed_at=number in aimed,
        )
        for number in numbers
    )


def _blows(draws: random.Random, seconds: float) -> tuple[Blow, ...]:
    """Draw the kills: rounds in which each target has its turn, at random moments."""
    targets = [*COMPONENTS, *SERVICES]
    count = max(len(targets), round(seconds / 18))
    turns: list[str] = []
    while len(turns) < count:
        turns += draws.sample(targets, len(targets))
    gap = seconds / count
    return tuple(
        Blow(
            at=gap * (number + draws.random()),
            target=target,
            pause=draws.uniform(1, 8),
            in_order=target in ("postgresql", "redis") and draws.random() < 0.5,
        )
        for number, target in enumerate(turns[:count])
    )
