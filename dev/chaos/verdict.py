"""Check the invariants after the chaos test by comparing two independent sources.

The emulator knows which operations started and when they completed. Airflow's database, the logs of the tasks
and the announcements show what Airflow did.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from dev.emulator_process import SUCCESS

if TYPE_CHECKING:
    from pathlib import Path

    from dev.chaos.deployment import Deployment
    from dev.chaos.plan import Plan, Release

_LOCATIONS = "SELECT run_id, value FROM xcom WHERE key = 'return_value' AND task_id LIKE '%go_live'"
_TRIES = """
SELECT dag_id, run_id, task_id, try_number, state FROM task_instance
UNION
SELECT dag_id, run_id, task_id, try_number, state FROM task_instance_history
"""
#: Paths on which a task finds the go-live of an earlier try, and the message in its log.
RECOVERIES = {
    "recorded Location": "an earlier attempt started the go-live; adopting",
    "recorded request": "of an earlier attempt; adopting it",
    "list, running": "which the list shows as running",
    "list, succeeded": "which succeeded in this Dag run",
}
#: The paths that need the task state store.
RECORDED = ("recorded Location", "recorded request")
#: Seconds for which a stale list can explain a refused request: the time for which the operator looks for its
#: operation.
LOOKUP_SECONDS = 180


@dataclass(frozen=True)
class Try:
    """One try of a task."""

    dag_id: str
    run_id: str
    task_id: str
    number: int
    state: str

    def __str__(self) -> str:
        return f"{self.run_id}, {self.task_id}, try {self.number}: {self.state}"


@dataclass
class Evidence:
    """The data that the verdict is based on.

    :param offers: state of each offer at the emulator, by offer id
    :param journal: every request that the emulator received
    :param runs: state of each Dag run
    :param tries: every try of every task
    :param locations: return values of the tasks that go live, by run
    :param events: entries of Airflow's audit log, by run, task and try number
    :param announced: times of the announcements, by offer
    :param hits: number of the try whose worker was killed between request and XCom, by offer
    :param task_state: whether the provider used Airflow's task state store
    """

    plan: Plan
    offers: dict[str, dict[str, Any]]
    journal: list[dict[str, Any]]
    runs: dict[str, str]
    tries: list[Try]
    locations: dict[str, str]
    events: dict[str, list[str]]
    announced: dict[str, list[float]]
    hits: dict[str, int]
    logs: Path
    task_state: bool

    @classmethod
    def gather(cls, plan: Plan, deployment: Deployment, hits: dict[str, int]) -> Self:
        """Read all data while the deployment still runs."""
        query = deployment.query
        announced: dict[str, list[float]] = {}
        lines = deployment.announcements.read_text() if deployment.announcements.exists() else ""
        for line in map(json.loads, lines.splitlines()):
            announced.setdefault(line["offer"], []).append(line["time"])
        events: dict[str, list[str]] = {}
        for *one, event in query("SELECT run_id, task_id, try_number, event FROM log ORDER BY id"):
            events.setdefault(" ".join(map(str, one)), []).append(event)
        return cls(
            plan=plan,
            offers={offer["offerId"]: offer for offer in deployment.emulator.offers().values()},
            journal=[json.loads(line) for line in deployment.journal.read_text().splitlines()],
            runs=dict(query("SELECT run_id, state FROM dag_run")),
            tries=[Try(*row) for row in query(_TRIES)],
            locations=dict(query(_LOCATIONS)),
            events=events,
            announced=announced,
            hits=hits,
            logs=deployment.airflow.home / "logs",
            task_state=deployment.task_state,
        )


@dataclass
class Verdict:
    """Figures by name, and one line for each violation of an invariant."""

    figures: dict[str, Any] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def count(self, name: str, lines: list[str]) -> None:
        """Add a figure that must be 0."""
        self.figures[name] = len(lines)
        self.violations += [f"{name}: {line}" for line in lines]


def judge(evidence: Evidence) -> Verdict:
    """Compare the two sources."""
    verdict = Verdict()
    releases = evidence.plan.releases
    faulty = [entry for entry in evidence.journal if entry["fault"]]
    verdict.figures |= {
        "releases": len(releases),
        "requests to the service": len(evidence.journal),
        "injected faults": len(faulty),
        "started go-lives": sum(len(_go_lives(evidence, release)) for release in releases),
        "of these, repeated after a failed one": sum(release.fails_once for release in releases),
        "tries of tasks": len(evidence.tries),
    }
    for name, check in {
        "lost": _lost,
        "duplicated": _duplicated,
        "needlessly refused": _needlessly_refused,
        "early": _early,
        "unfinished": _unfinished,
        "wrong Location": _wrong_location,
    }.items():
        lines = [line for release in releases if (line := check(evidence, release))]
        verdict.count(name, lines)
    _judge_failures(evidence, verdict)
    _judge_hits(evidence, verdict)
    _judge_recoveries(evidence, verdict)
    return verdict


def _go_lives(evidence: Evidence, release: Release) -> list[dict[str, Any]]:
    """Return the go-lives of an offer, latest first."""
    operations = evidence.offers[release.offer_id]["operations"]
    return [one for one in operations if one["submissionType"] == "goLive"]


def _completed(evidence: Evidence, release: Release) -> dict[str, Any] | None:
    completed = (one for one in _go_lives(evidence, release) if one["submissionState"] in SUCCESS)
    return next(completed, None)


def _lost(evidence: Evidence, release: Release) -> str | None:
    """Report an offer that is not live or was not announced."""
    if not _completed(evidence, release):
        return f"{release.offer_id} is not live"
    return None if evidence.announced.get(release.offer_id) else f"{release.offer_id} was not announced"


def _duplicated(evidence: Evidence, release: Release) -> str | None:
    """Report more operations than expected, by the emulator's data and by its journal."""
    started = len(_go_lives(evidence, release))
    sent = sum(entry["effect"] for entry in _posts(evidence, release, "golive"))
    publishes = sum(entry["effect"] for entry in _posts(evidence, release, "publish"))
    if max(started, sent) > release.go_lives or publishes > 1:
        return (
            f"{release.offer_id}: {started} go-lives started, {sent} accepted, {publishes} publishes accepted"
        )
    return None


def _needlessly_refused(evidence: Evidence, release: Release) -> str | None:
    """Report a request that the service had to refuse although no stale list explains it."""
    lags = [
        _seconds(entry["time"])
        for entry in evidence.journal
        if f"/{release.offer_id}/" in entry["path"] and "lag" in (entry["fault"] or {})
    ]
    for post in (*_posts(evidence, release, "golive"), *_posts(evidence, release, "publish")):
        at = _seconds(post["time"])
        is_refused = post["status"] in (400, 409) and not post["effect"]
        if is_refused and not any(at - LOOKUP_SECONDS <= lag <= at for lag in lags):
            return f"{post['path']} at {post['time']} was refused with {post['status']}"
    return None


def _early(evidence: Evidence, release: Release) -> str | None:
    """Report an announcement before the go-live completed."""
    completed = _completed(evidence, release)
    at = min(evidence.announced.get(release.offer_id, []), default=None)
    if at is None or (completed and at >= _seconds(completed["lastActionDateTime"])):
        return None
    return f"{release.offer_id} was announced at {datetime.fromtimestamp(at)}"


def _unfinished(evidence: Evidence, release: Release) -> str | None:
    """Report a run that has not finished."""
    state = evidence.runs.get(release.run_id, "never started")
    if state == "success":
        return None
    tasks = ", ".join(
        str(one) for one in evidence.tries if one.run_id == release.run_id and one.state != "success"
    )
    return f"{release.dag_id} {release.run_id} is {state}: {tasks}"


def _wrong_location(evidence: Evidence, release: Release) -> str | None:
    """Report a Location in Airflow that differs from the Location of the completed go-live."""
    completed = _completed(evidence, release)
    returned = evidence.locations.get(release.run_id)
    if completed is None or returned is None or returned == completed["location"]:
        return None
    return f"{release.offer_id}: {returned} in Airflow, {completed['location']} at the service"


def _judge_failures(evidence: Evidence, verdict: Verdict) -> None:
    """Check that the log of each failed try, or Airflow's audit log, states the reason."""
    failed = [one for one in evidence.tries if one.state in ("failed", "up_for_retry")]
    why: Counter[str] = Counter()
    unexplained = []
    for one in failed:
        path = _log_folder(evidence, one.dag_id, one.run_id, one.task_id)
        text = _read_log(path, one.number)
        events = evidence.events.get(f"{one.run_id} {one.task_id} {one.number}", [])
        if '"level":"error"' in text or '"level":"critical"' in text:
            why["its own log"] += 1
        elif reasons := [event for event in events if event not in ("running", "success", "failed")]:
            why[reasons[-1]] += 1
        else:
            unexplained.append(f"{one}; events {events}; log {path}")
    verdict.figures["failed tries, by source of the reason"] = (
        f"{len(failed)} ({', '.join(f'{name} {count}' for name, count in why.most_common())})"
    )
    verdict.count("unexplained", unexplained)


def _judge_hits(evidence: Evidence, verdict: Verdict) -> None:
    """Check that a worker was killed between request and XCom, and that its task was tried again."""
    releases = {release.offer_id: release for release in evidence.plan.releases}
    again = [
        offer_id
        for offer_id, number in evidence.hits.items()
        if any(
            one.run_id == releases[offer_id].run_id
            and one.task_id == releases[offer_id].go_live
            and one.number > number
            for one in evidence.tries
        )
    ]
    verdict.figures["tasks killed between request and XCom, tried again"] = len(again)
    if not again:
        verdict.violations.append("no worker was killed between the go-live request and the XCom")


def _judge_recoveries(evidence: Evidence, verdict: Verdict) -> None:
    """Count how the tasks that go live found the go-live of an earlier attempt."""
    found: Counter[str] = Counter()
    for release in evidence.plan.releases:
        folder = _log_folder(evidence, release.dag_id, release.run_id, release.go_live)
        for one in evidence.tries:
            if (one.run_id, one.task_id) == (release.run_id, release.go_live):
                text = _read_log(folder, one.number)
                found.update(path for path, message in RECOVERIES.items() if message in text)
    verdict.figures["go-lives of earlier attempts that were adopted, by path"] = (
        f"{found.total()} ({', '.join(f'{path} {count}' for path, count in found.most_common())})"
    )
    if evidence.task_state != any(path in found for path in RECORDED):
        verdict.violations.append(f"the task state store was {'not ' if evidence.task_state else ''}used")


def _log_folder(evidence: Evidence, dag_id: str, run_id: str, task_id: str) -> Path:
    return evidence.logs / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task_id}"


def _read_log(folder: Path, attempt: int) -> str:
    return "".join(file.read_text() for file in folder.glob(f"attempt={attempt}.log*"))


def _posts(evidence: Evidence, release: Release, verb: str) -> list[dict[str, Any]]:
    return [
        entry
        for entry in evidence.journal
        if entry["method"] == "POST" and entry["path"].endswith(f"/{release.offer_id}/{verb}")
    ]


def _seconds(text: str) -> float:
    """Return the service's time, with seven digits after the second, as seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp()
