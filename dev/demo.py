"""`make demo`: the example Dag on a real Airflow, against the emulator of the service, watched as it goes.

It exits with 0 only if each offer went live exactly once, and each announcement ran after its completion.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dev.emulator_process import Emulator, running_emulator
from dev.local_airflow import LocalAirflow

if TYPE_CHECKING:
    from rich.console import RenderableType

ROOT = Path(__file__).parent.parent
HOME = ROOT / ".demo"
DAG_ID = "go_live"
TIME_SCALE = 12_000  # the three days of a go-live pass in 22 seconds
MOST_SECONDS = 300
TASKS = ("go_live", "wait", "announce")
COLOURS = {"success": "green", "failed": "red", "deferred": "medium_purple", "running": "bright_green"}

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
        console.print("\nStopped; everything that the demo started is gone.")
        return 130


def _demonstrate(emulator: Emulator) -> int:
    console.print(f"The service's emulator is at {emulator.url}; a day passes in {86400 / TIME_SCALE:.0f} s.")
    airflow = LocalAirflow(
        HOME / "airflow",
        ROOT / "example_dags",
        {"AIRFLOW_CONN_CLOUD_PARTNER_DEFAULT": json.dumps(emulator.connection)},
    )
    try:
        began = time.monotonic()
        airflow.start(lambda line: console.print(f"Airflow: {line} …"))
        console.print(f"Airflow is up at {airflow.url} after {time.monotonic() - began:.0f} s.")
        run_id = airflow.trigger(DAG_ID)
        console.print(f"The Dag {DAG_ID} runs: go live → wait → announce, a lane for each offer.\n")
        state = _watch(emulator, airflow, run_id)
        good = _report(emulator, airflow, run_id, state)
        if os.environ.get("KEEP"):
            console.print(
                f"\nAirflow's UI stays up, and asks for no login. Ctrl-C ends it.\n"
                f"{airflow.url}/dags/{DAG_ID}/runs/{run_id}",
                soft_wrap=True,
            )
            signal.pause()
        return 0 if good else 1
    finally:
        console.print("Stopping what was started …")
        airflow.stop()


def _watch(emulator: Emulator, airflow: LocalAirflow, run_id: str) -> str:
    """Show the offers' steps and Airflow's tasks until the run ends, and return the run's state."""
    deadline = time.monotonic() + MOST_SECONDS
    with Live(console=console, refresh_per_second=8, transient=False) as live:
        said: set[str] = set()
        while time.monotonic() < deadline:
            state = airflow.run_state(DAG_ID, run_id)
            tasks = airflow.task_instances(DAG_ID, run_id)
            offers = {name: offer for name, offer in emulator.offers().items() if _lane(tasks, name)}
            if console.is_terminal:
                live.update(_picture(offers, tasks))
            else:
                for line in _lines(offers, tasks):
                    if line not in said:
                        said.add(line)
                        console.print(f"{datetime.now():%H:%M:%S}  {line}")
            if state in ("success", "failed"):
                return state
            time.sleep(0.4)
    return f"not ended after {MOST_SECONDS} s"


def _picture(offers: dict[str, Any], tasks: list[dict[str, Any]]) -> RenderableType:
    table = Table(box=None, padding=(0, 2), expand=False)
    for heading in ("offer", "step at the service", "", "go live", "wait", "announce"):
        table.add_column(heading, style="" if heading == "offer" else None, no_wrap=True)
    for name, offer in offers.items():
        step = _current(offer)
        bar = ProgressBar(total=100, completed=step["progressPercentage"], width=24)
        states = {task: ti["state"] or "…" for task, ti in _lane(tasks, name).items()}
        cells = [Text(states.get(task, "…"), COLOURS.get(states.get(task, ""), "dim")) for task in TASKS]
        label = f"{step['stepName']} {step['status']}"
        table.add_row(name, label, Group(bar), *cells)
    return table


def _lines(offers: dict[str, Any], tasks: list[dict[str, Any]]) -> list[str]:
    """Return the state as plain lines; only those that are new are printed."""
    lines = []
    for name, offer in offers.items():
        step = _current(offer)
        tens = step["progressPercentage"] // 20 * 20
        lines.append(f"{name}: {step['stepName']} {step['status']} {tens} %")
        lane = _lane(tasks, name).items()
        lines += [f"{name}: task {task} {ti['state']}" for task, ti in lane if ti["state"] in COLOURS]
    return lines


def _current(offer: dict[str, Any]) -> dict[str, Any]:
    """Return the step that an offer's newest operation is at."""
    steps: list[dict[str, Any]] = offer["operations"][0]["steps"]
    return next((step for step in steps if step["status"] != "complete"), steps[-1])


def _lane(tasks: list[dict[str, Any]], name: str) -> dict[str, dict[str, Any]]:
    """Return an offer's tasks; which lane is the offer's shows in the names of its instances."""
    indexes = {task["map_index"] for task in tasks if task["rendered_map_index"] == name}
    return {task["task_id"].rpartition(".")[2]: task for task in tasks if task["map_index"] in indexes}


def _report(emulator: Emulator, airflow: LocalAirflow, run_id: str, state: str) -> bool:
    """Print what happened, and return whether it is what should have."""
    tasks = airflow.task_instances(DAG_ID, run_id)
    posts = emulator.requests(method="POST", path="/golive$")
    accepted = Counter(post["path"].split("/")[5] for post in posts if post["effect"])
    table = Table(title=f"\nThe run ended: {state}", title_justify="left", show_header=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    good, lanes = state == "success", 0
    for name, offer in emulator.offers().items():
        lane = _lane(tasks, name)
        if not lane:
            continue
        lanes += 1
        live = next((one for one in offer["operations"] if one["submissionType"] == "goLive"), None)
        ended = live is not None and live["submissionState"] == "completed"
        completed = _moment(live["lastActionDateTime"]) if live and ended else None
        announced = _moment(lane["announce"]["start_date"])
        good &= accepted[offer["offerId"]] == 1 and bool(completed and announced and announced >= completed)
        # The publish that made the preview, and the go-live.
        steps = [step for one in reversed(offer["operations"][:2]) for step in one["steps"]]
        table.add_row(name, "Location", airflow.xcom(lane["go_live"]) if live else "none")
        table.add_row("", "steps", ", ".join(f"{step['stepName']} {step['status']}" for step in steps))
        table.add_row("", "completed", f"{completed:%H:%M:%S.%f}"[:-4] if completed else "no")
        table.add_row("", "announced", f"{announced:%H:%M:%S.%f}"[:-4] if announced else "no")
        table.add_row("", "go-lives", str(accepted[offer["offerId"]]), end_section=True)
    console.print(table)
    good &= lanes > 0
    verdict = "each exactly once, and announced after its completion" if good else "NOT as it should be"
    console.print(
        f"The service accepted {accepted.total()} go-lives for {lanes} offers: {verdict}.", soft_wrap=True
    )
    if not good:
        for ti in tasks:
            if ti["state"] != "success":
                console.print(f"\n{ti['task_id']}[{ti['map_index']}] {ti['state']}:")
                console.print(airflow.task_log(ti)[-3000:], markup=False)
        console.print(f"\nAll logs are in {airflow.home.relative_to(ROOT)}/logs.")
    return good


def _moment(text: str | None) -> datetime | None:
    """Return a point in time; the service's have seven digits of a second, Airflow's six."""
    return datetime.fromisoformat(text) if text else None


def _interrupt(signum: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
