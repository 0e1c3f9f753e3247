"""Run a complete release on a real Airflow against the emulator, and show its progress: `make demo`.

The exit code is 0 only if the offer was published once, went live once, and was announced afterwards.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dev.emulator_process import SUCCESS, Emulator, running_emulator
from dev.local_airflow import LocalAirflow, wait_for

if TYPE_CHECKING:
    from rich.console import RenderableType

ROOT = Path(__file__).parent.parent
HOME = ROOT / ".demo"
DAG_ID = "release_offer"
OFFER = "contoso/contoso-web"
TIME_SCALE = 12_000  # the three days of a go-live pass in 22 seconds
MAX_SECONDS = 300
TASKS = ("change", "publish", "review", "approve", "go_live", "announce")
COLOURS = {
    "success": "green",
    "failed": "red",
    "deferred": "medium_purple",
    "awaiting_input": "yellow",
    "running": "bright_green",
}

console = Console(highlight=False)


def main() -> int:
    """Run the demo and return its exit code."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), _interrupt)
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir()
    try:
        with running_emulator("--time-scale", str(TIME_SCALE)) as emulator:
            return _demonstrate(emulator)
    except KeyboardInterrupt:
        console.print("\nStopped. All processes of the demo were stopped.")
        return 130


def _demonstrate(emulator: Emulator) -> int:
    console.print(f"The emulator runs at {emulator.url}; a day passes in {86400 / TIME_SCALE:.0f} s.")
    airflow = LocalAirflow(
        HOME / "airflow",
        ROOT / "example_dags",
        {"AIRFLOW_CONN_CLOUD_PARTNER_DEFAULT": json.dumps(emulator.connection)},
    )
    try:
        started = time.monotonic()
        airflow.start(lambda line: console.print(f"Airflow: {line} …"))
        console.print(f"Airflow runs at {airflow.url}, started in {time.monotonic() - started:.0f} s.")
        run_id = airflow.trigger(DAG_ID)
        console.print(
            f"Started {DAG_ID} for {OFFER}: change → publish → review → approve → go live → announce.\n"
        )
        state = _watch(emulator, airflow, run_id)
        passed = _report(emulator, airflow, run_id, state)
        if os.environ.get("KEEP"):
            console.print(
                f"\nAirflow's UI keeps running and needs no login. To stop it, press Ctrl-C.\n"
                f"{airflow.url}/dags/{DAG_ID}/runs/{run_id}",
                soft_wrap=True,
            )
            signal.pause()
        return 0 if passed else 1
    finally:
        console.print("Stopping Airflow and the emulator …")
        airflow.stop()


def _watch(emulator: Emulator, airflow: LocalAirflow, run_id: str) -> str:
    """Show the offer's steps and the run's tasks, approve, and return the final state of the run."""
    deadline = time.monotonic() + MAX_SECONDS
    with Live(console=console, refresh_per_second=8, transient=False) as live:
        printed: set[str] = set()
        approved = False
        while time.monotonic() < deadline:
            state = airflow.run_state(DAG_ID, run_id)
            tasks = _tasks(airflow, run_id)
            step = _current(emulator.offers()[OFFER])
            if console.is_terminal:
                live.update(_picture(step, tasks))
            else:
                for line in _lines(step, tasks):
                    if line not in printed:
                        printed.add(line)
                        console.print(f"{datetime.now():%H:%M:%S}  {line}")
            if not approved and (approve := tasks.get("approve")) and approve["state"] == "awaiting_input":
                request = airflow.question(approve)
                console.print(Panel(Markdown(request["body"]), title=request["subject"], title_align="left"))
                console.print(
                    "The demo approved the release through Airflow's API, like a click in the UI.\n"
                )
                airflow.answer(approve, "Approve")
                approved = True
            if state in ("success", "failed"):
                return state
            time.sleep(0.4)
    return f"not finished after {MAX_SECONDS} s"


def _picture(step: dict[str, Any], tasks: dict[str, dict[str, Any]]) -> RenderableType:
    table = Table(box=None, padding=(0, 2), expand=False)
    for heading in ("step at the service", "", *TASKS):
        table.add_column(heading, no_wrap=True)
    bar = ProgressBar(total=100, completed=step["progressPercentage"], width=24)
    states = [str(tasks[name]["state"] or "…") if name in tasks else "…" for name in TASKS]
    cells = [Text(state, COLOURS.get(state, "dim")) for state in states]
    table.add_row(f"{step['stepName']} {step['status']}", bar, *cells)
    return table


def _lines(step: dict[str, Any], tasks: dict[str, dict[str, Any]]) -> list[str]:
    """Return the state as lines; the caller prints only new lines."""
    tens = step["progressPercentage"] // 20 * 20
    lines = [f"service: {step['stepName']} {step['status']} {tens} %"]
    return lines + [f"task {name} {ti['state']}" for name, ti in tasks.items() if ti["state"] in COLOURS]


def _current(offer: dict[str, Any]) -> dict[str, Any]:
    """Return the current step of an offer's latest operation."""
    steps: list[dict[str, Any]] = offer["operations"][0]["steps"]
    return next((step for step in steps if step["status"] != "complete"), steps[-1])


def _tasks(airflow: LocalAirflow, run_id: str) -> dict[str, dict[str, Any]]:
    """Return the run's task instances by task id without the group."""
    return {ti["task_id"].rpartition(".")[2]: ti for ti in airflow.task_instances(DAG_ID, run_id)}


def _report(emulator: Emulator, airflow: LocalAirflow, run_id: str, state: str) -> bool:
    """Print the result, and return whether it is correct."""
    tasks = _tasks(airflow, run_id)
    sent = {
        verb: sum(post["effect"] for post in emulator.requests(method="POST", path=f"/{verb}$"))
        for verb in ("publish", "golive")
    }
    live, published, *_ = emulator.offers()[OFFER]["operations"]
    ended = live["submissionType"] == "goLive" and live["submissionState"] in SUCCESS
    completed = _moment(live["lastActionDateTime"]) if ended else None
    announced = _moment(tasks["announce"]["start_date"]) if state == "success" else None
    table = Table(title=f"\nState of the run: {state}", title_justify="left", show_header=False)
    for _ in range(2):
        table.add_column(overflow="fold")
    for name in ("publish", "go_live"):
        table.add_row(name, airflow.xcom(tasks[name]) if tasks[name]["state"] == "success" else "no Location")
    steps = {step["id"]: step for one in (published, live) for step in one["steps"]}.values()
    table.add_row("steps", ", ".join(f"{step['stepName']} {step['status']}" for step in steps))
    table.add_row("completed", f"{completed:%H:%M:%S.%f}"[:-4] if completed else "no")
    table.add_row("announced", f"{announced:%H:%M:%S.%f}"[:-4] if announced else "no")
    console.print(table)
    passed = state == "success" and sent == {"publish": 1, "golive": 1}
    passed = passed and bool(completed and announced and announced >= completed)
    passed = passed and _asset_started_dag(airflow, run_id)
    verdict = "exactly once each, announced after completion" if passed else "NOT the expected result"
    console.print(
        f"The service accepted {sent['publish']} publish and {sent['golive']} go-live: {verdict}.",
        soft_wrap=True,
    )
    if not passed:
        for ti in tasks.values():
            if ti["state"] != "success":
                console.print(f"\n{ti['task_id']} {ti['state']}:")
                console.print(airflow.task_log(ti)[-3000:], markup=False)
        console.print(f"\nAll logs are in {airflow.home.relative_to(ROOT)}/logs.")
    return passed


def _asset_started_dag(airflow: LocalAirflow, run_id: str) -> bool:
    """Wait for the Dag that the asset starts, and return whether it announced this run."""
    try:
        wait_for(lambda: bool(airflow.runs("announce")), "the asset to start the Dag announce", seconds=60)
        (run,) = airflow.runs("announce")
        airflow.wait_for_run("announce", run["dag_run_id"], seconds=60)
        (task,) = airflow.task_instances("announce", run["dag_run_id"])
        lines = airflow.xcom(task)
    except (TimeoutError, ValueError, OSError) as error:
        console.print(f"The Dag announce: {error}")
        return False
    console.print(
        f"The update of the offer's asset started the Dag announce: {'; '.join(lines)}.", soft_wrap=True
    )
    return run_id in lines[0]


def _moment(text: str | None) -> datetime | None:
    """Parse a time; the service sends seven digits after the second, Airflow six."""
    return datetime.fromisoformat(text) if text else None


def _interrupt(signum: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
