"""Run releases on a production-like deployment while every component is killed at random times: `make chaos`.

The exit code is 0 only if every offer went live exactly once, no offer was announced early, and every run
finished. A seed decides the kills and the injected faults: `python -m dev.chaos --seed 7`.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
import urllib.error
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import psycopg2
from rich.console import Console
from rich.table import Table

from dev.chaos.deployment import Deployment, moment
from dev.chaos.plan import COMPONENTS, make_plan
from dev.chaos.verdict import Evidence, judge
from dev.local_airflow import wait_for

if TYPE_CHECKING:
    from dev.chaos.plan import Kill, Plan, Release

#: The share of the total time in which components are killed; the rest is for the running releases to finish.
CHAOS_SHARE = 0.6
TICK_SECONDS = 0.3
#: How often the simulated user clears a failed release.
MAX_CLEARS = 8

console = Console(highlight=False, soft_wrap=True)


@dataclass
class Actions:
    """The actions of the chaos test on the deployment."""

    kills: Counter[str] = field(default_factory=Counter)
    restarts: Counter[str] = field(default_factory=Counter)
    #: Components that stopped by themselves, for example without their database.
    ended: Counter[str] = field(default_factory=Counter)
    #: By offer: the try number of the task whose worker was killed between request and XCom.
    hits: dict[str, int] = field(default_factory=dict)
    clears: Counter[str] = field(default_factory=Counter)


class Chaos:
    """Start releases, kill components as planned, and start the components again.

    :param deadline: time limit, by the monotonic clock
    """

    def __init__(self, plan: Plan, deployment: Deployment, deadline: float) -> None:
        self._plan = plan
        self._deployment = deployment
        self._deadline = deadline
        self._began = time.monotonic()
        self._releases = sorted(plan.releases, key=lambda release: release.at)
        self._kills = list(plan.kills)
        # When to start each stopped component again.
        self._due: dict[str, float] = {}
        self._by_run = {release.run_id: release for release in plan.releases}
        self._checked_at = 0.0
        self._states: Counter[str] = Counter()
        self.actions = Actions()

    def run(self) -> None:
        """Run until all releases have finished or the deadline has passed."""
        while time.monotonic() < self._deadline:
            self._kill_targeted_workers()
            self._start_again()
            self._kill_due()
            self._release()
            if time.monotonic() - self._checked_at > 3:
                self._checked_at = time.monotonic()
                if self._check_runs() and not self._kills and not self._due:
                    break
            time.sleep(TICK_SECONDS)
        self._start_all()

    @property
    def _now(self) -> float:
        return time.monotonic() - self._began

    def _release(self) -> None:
        """Start the runs that are due; if a start fails, the next call tries again."""
        while self._releases and self._releases[0].at <= self._now:
            release = self._releases[0]
            body = {"dag_run_id": release.run_id, "logical_date": None, "conf": {"offer": release.offer_id}}
            try:
                self._deployment.airflow.api("POST", f"/dags/{release.dag_id}/dagRuns", body)
            except urllib.error.HTTPError as error:
                if error.code != 409:  # started by a request whose response was lost
                    return
            except OSError:
                return
            del self._releases[0]

    def _kill_due(self) -> None:
        """Perform the planned kills and restarts that are due."""
        while self._kills and self._kills[0].at <= self._now:
            kill = self._kills.pop(0)
            if self._deployment.is_up(kill.target):
                self._stop(kill)

    def _stop(self, kill: Kill) -> None:
        self._deployment.end(kill.target, graceful=kill.graceful)
        (self.actions.restarts if kill.graceful else self.actions.kills)[kill.target] += 1
        self._due[kill.target] = self._now + kill.pause
        self._print(
            f"{kill.target} {'restarted' if kill.graceful else 'killed'}, down for {kill.pause:.0f} s"
        )

    def _kill_targeted_workers(self) -> None:
        """Kill each worker whose go-live request was accepted and whose response the emulator holds back."""
        with suppress(OSError):
            for post in self._deployment.emulator.requests(method="POST", path="/golive$"):
                offer_id = post["path"].split("/")[-2]
                is_held = post["effect"] and "hold" in (post["fault"] or {})
                if is_held and offer_id not in self.actions.hits:
                    with suppress(psycopg2.Error):
                        self._kill_worker_of(self._by_run[f"release-of-{offer_id}"])

    def _kill_worker_of(self, release: Release) -> None:
        task = (release.dag_id, release.run_id, release.go_live)
        running = self._deployment.query(
            "SELECT id, try_number FROM task_instance"
            " WHERE dag_id = %s AND run_id = %s AND task_id = %s AND state = 'running'",
            *task,
        )
        for task_instance_id, number in running:
            worker = self._deployment.worker_of(str(task_instance_id))
            if worker is None:
                continue
            self._deployment.end(worker)
            self.actions.kills[worker] += 1
            self._due[worker] = self._now + random.Random(release.offer_id).uniform(1, 8)
            pushed = self._deployment.query(
                "SELECT 1 FROM xcom"
                " WHERE dag_id = %s AND run_id = %s AND task_id = %s AND key = 'return_value'",
                *task,
            )
            if not pushed:
                self.actions.hits[release.offer_id] = number
                self._print(f"{worker} killed between the request for {release.offer_id} and its XCom")

    def _start_again(self) -> None:
        """Start due components again, and schedule those that stopped by themselves."""
        for target in COMPONENTS:
            if target not in self._due and not self._deployment.is_up(target):
                self.actions.ended[target] += 1
                self._due[target] = self._now + 2
                self._print(f"{target} stopped by itself")
        for target in [target for target, at in self._due.items() if at <= self._now]:
            del self._due[target]
            self._deployment.start_again(target)

    def _start_all(self) -> None:
        for target in self._due:
            self._deployment.start_again(target)
        self._due.clear()
        wait_for(self._deployment.has_database, "PostgreSQL to answer", seconds=60)

    def _check_runs(self) -> bool:
        """Clear failed runs, as a user would, and return whether every release has succeeded."""
        try:
            runs = self._deployment.query("SELECT run_id, state FROM dag_run")
        except psycopg2.Error:
            return False
        states = Counter(state for _, state in runs)
        if states != self._states:
            self._states = states
            self._print(", ".join(f"{count} {state}" for state, count in sorted(states.items())))
        for run_id, state in runs:
            if state == "failed" and self.actions.clears[run_id] < MAX_CLEARS:
                with suppress(OSError):
                    self._clear(self._by_run[run_id])
        return states["success"] == len(self._plan.releases)

    def _clear(self, release: Release) -> None:
        offer = self._deployment.emulator.offers()[f"contoso/{release.offer_id}"]
        latest = offer["operations"][0] if offer["operations"] else None
        body: dict[str, Any] = {"dry_run": False, "dag_run_id": release.run_id, "only_failed": True}
        if latest and (latest["submissionType"], latest["submissionState"]) == ("goLive", "failed"):
            body |= {"only_failed": False, "task_ids": [release.go_live], "include_downstream": True}
        self._deployment.airflow.api("POST", f"/dags/{release.dag_id}/clearTaskInstances", body)
        self.actions.clears[release.run_id] += 1
        self._print(f"{release.offer_id} failed, and was cleared")

    def _print(self, line: str) -> None:
        console.print(f"{moment()}  {self._now:4.0f} s  {line}")


def main() -> int:
    """Run the chaos test and return its exit code."""
    options = _options()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), _interrupt)
    home = Path(tempfile.mkdtemp(prefix="chaos-"))
    home.chmod(0o711)  # PostgreSQL runs as a separate user
    is_passed = False
    try:
        is_passed = _run(options, home)
    except KeyboardInterrupt:
        console.print("\nStopped. All processes of the chaos test were stopped.")
        return 130
    finally:
        if is_passed and not options.keep:
            shutil.rmtree(home)
        else:
            console.print(f"All logs are in {home}.")
    return 0 if is_passed else 1


def _run(options: argparse.Namespace, home: Path) -> bool:
    began = time.monotonic()
    deadline = began + 60 * options.minutes
    console.print(
        f"Chaos test with seed {options.seed}. To repeat it:"
        f" python -m dev.chaos --releases {options.releases} --minutes {options.minutes:g}"
        f" --seed {options.seed}{'' if options.task_state else ' --no-task-state'}"
    )
    plan = make_plan(options.seed, options.releases, CHAOS_SHARE * 60 * options.minutes)
    with Deployment(home, plan, task_state=options.task_state) as deployment:
        deployment.start(lambda line: console.print(f"{moment()}  {line} …"))
        console.print(
            f"{moment()}  everything is healthy after {time.monotonic() - began:.0f} s; {len(plan.releases)}"
            f" releases and {len(plan.kills)} kills and restarts in the next {plan.seconds:.0f} s"
        )
        chaos = Chaos(plan, deployment, deadline)
        chaos.run()
        evidence = Evidence.gather(plan, deployment, chaos.actions.hits)
    (home / "evidence.json").write_text(json.dumps(asdict(evidence), default=str))
    verdict = judge(evidence)
    _report(plan, chaos.actions, verdict.figures, time.monotonic() - began)
    for line in verdict.violations:
        console.print(f"VIOLATED: {line}", markup=False)
    return not verdict.violations


def _report(plan: Plan, actions: Actions, figures: dict[str, Any], seconds: float) -> None:
    def listed(counts: Counter[str]) -> str:
        return f"{counts.total()} ({', '.join(f'{name} {count}' for name, count in sorted(counts.items()))})"

    table = Table(title=f"\nSeed {plan.seed}, {seconds / 60:.0f} minutes", title_justify="left")
    table.add_column("figure")
    table.add_column("value", overflow="fold")
    table.add_row("killed with SIGKILL", listed(actions.kills))
    table.add_row("restarted gracefully", listed(actions.restarts))
    table.add_row("stopped by themselves, started again", listed(actions.ended))
    table.add_row("killed between request and XCom", str(len(actions.hits)))
    table.add_row("releases cleared by the user", str(actions.clears.total()))
    for name, value in figures.items():
        table.add_row(name, str(value))
    console.print(table)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dev.chaos", description=__doc__)
    parser.add_argument("--releases", type=int, default=100, help="number of releases (default: %(default)s)")
    parser.add_argument(
        "--minutes", type=float, default=25, help="time limit in minutes (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=random.randrange(10_000), help="seed of the plan (default: random)"
    )
    parser.add_argument(
        "--no-task-state",
        dest="task_state",
        action="store_false",
        help="recover without Airflow's task state store, as on Airflow before 3.3",
    )
    parser.add_argument("--keep", action="store_true", help="keep the logs even if all invariants hold")
    return parser.parse_args()


def _interrupt(signum: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
