"""One triggerer of a real Airflow with thousands of waits: their cost, and blocks of its event loop.

    python -m tests.benchmarks.triggerer [--waits 2000] [--minutes 4] [--baseline]

PostgreSQL, the emulator and `airflow triggerer`; no scheduler and no worker. The triggerer starts
idle. Then all waits appear at once, as after the crash of another triggerer: each is a mapped
`OperationSensor` that polled once and deferred, written to the database like a worker's report. The waits
poll once a minute. The operations make no progress, like operations that take days, until all of them
complete at a fixed time; then every wait must end.

Airflow warns when the triggerer's event loop was blocked. Two other causes produce the same warning: the
machine has no free core, or the supervisor process is busy with the database and does not read the log. So
for each warning, the benchmark reads the state of the loop's thread from the kernel. `--baseline` first runs
the same load with triggers that only sleep: warnings that also occur there are due to Airflow.
With PYTHONASYNCIODEBUG=1 in the environment, the benchmark also prints the lines in which asyncio names the
callbacks that blocked the event loop.
"""

from __future__ import annotations

import argparse
import bisect
import json
import math
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from rich.console import Console
from rich.table import Table

from dev.emulator_process import ROOT, Emulator, running_emulator
from dev.local_airflow import LocalAirflow, wait_for
from dev.services import PostgreSQL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

DAGS = Path(__file__).parent / "dags"
SLEEPING, WAITING = "sleeping triggers", "waits"
#: Seconds in which the triggerer has nothing to do.
IDLE_SECONDS = 15
POKE_SECONDS = 60
#: Seconds allowed for the first polls and the start of all triggers: a constant, and an amount for each wait.
START_SECONDS = (60, 0.045)
#: The response for every operation until the fixed time: a go-live in progress, on day 2 of about 5.
STANDING_STILL: dict[str, Any] = {
    "method": "GET",
    "path": "/operations/",
    "count": None,
    "replace": {
        "json": {
            "status": "running",
            "steps": [
                {
                    "id": "live",
                    "stepName": "Live",
                    "description": "Offer is publicly visible and available for purchase.",
                    "estimatedTimeFrame": "~2-5 days",
                    "status": "inProgress",
                    "progressPercentage": 40,
                    "messages": [],
                }
            ],
        }
    },
}
#: Seconds after which waits that did not end are given up.
END_SECONDS = 600
#: From which on Airflow warns; the watchdog's own pause of 0.1 s included.
BLOCKED_SECONDS = 0.2
#: Where the kernel lets a process sleep whose socket's other end is not read.
SENDING = ("sock_alloc_send_pskb", "unix_wait_for_peer")
BLOCKED = re.compile(r"^(\S+) .*async thread was blocked for ([\d.]+) seconds", re.MULTILINE)
#: With PYTHONASYNCIODEBUG=1: the task that held up the event loop, and for how long.
HELD_UP = re.compile(r"Executing <(?:Task|Handle|TimerHandle).* took [\d.]+ seconds")
PRINCIPAL = {
    "tenantId": "11111111-2222-3333-4444-555555555555",
    "clientId": "66666666-7777-8888-9999-000000000000",
    "secret": "the-secret-of-the-principal",
    "publishers": ["contoso"],
}

# A file has no width; 80 would fold the tables.
console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 110)


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.triggerer", description=__doc__)
    parser.add_argument("--waits", type=int, default=2000, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--minutes", type=float, default=4, help="of the steady state, at least (default: %(default)s)"
    )
    parser.add_argument("--baseline", action="store_true", help="triggers that only sleep, before")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing is left running
    # The triggerer opens a log for each trigger.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    started = START_SECONDS[0] + START_SECONDS[1] * options.waits
    seconds = started + 60 * options.minutes
    print_load("at the beginning")
    offers = [{"id": f"offer-{number:05}", "state": "live"} for number in range(options.waits)]
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-") as folder,
        running_database(Path(folder)) as database,
        running_service(Path(folder), offers) as service,
    ):
        bench = Bench(Path(folder), database, service, options.waits, seconds)
        kinds = [SLEEPING, WAITING] if options.baseline else [WAITING]
        measured = [bench.measure(kind) for kind in kinds]
    print_load("at the end")
    print_figures(measured)
    print_blocked(measured)
    print_verdict(measured)


@contextmanager
def running_database(folder: Path) -> Iterator[PostgreSQL]:
    """Run a PostgreSQL with an empty database for Airflow."""
    folder.chmod(0o755)  # it runs as a user of its own
    database = PostgreSQL(folder / "postgresql")
    database.start()
    try:
        database.make_database()
        yield database
    finally:
        database.stop()


@contextmanager
def running_service(folder: Path, offers: list[dict[str, Any]]) -> Iterator[Emulator]:
    """Run an emulator with such offers of one publisher."""
    seed = folder / "seed.json"
    publisher = {"id": "contoso", "offers": offers}
    seed.write_text(json.dumps({"publishers": [publisher], "principals": [PRINCIPAL]}))
    with running_emulator("--seed", str(seed)) as emulator:
        yield emulator


@dataclass(frozen=True)
class Phase:
    """A part of the time.

    :param began: in seconds since the epoch, as `ended`
    :param cpu: CPU seconds by process that it took
    """

    name: str
    began: float
    ended: float
    cpu: dict[str, float]

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    def share(self, process: str) -> float:
        """Return how much of a core a process had, in percent."""
        return 100 * self.cpu[process] / self.seconds


@dataclass(frozen=True)
class Blocked:
    """A warning that the event loop was blocked.

    :param at: when it ended, in seconds since the epoch
    :param seconds: for how long
    :param cpu: for how many of these the loop's thread computed
    :param waited: for how many of these it waited for a core
    :param stuck: for how many of these it could not send a line of the log to the supervisor
    """

    at: float
    seconds: float
    cpu: float
    waited: float
    stuck: float

    @property
    def is_of_the_loop(self) -> bool:
        """Whether the warning would occur with a free core and a supervisor that reads the log."""
        return self.seconds - self.waited - self.stuck > BLOCKED_SECONDS


@dataclass
class Measured:
    """The measurements of one load.

    :param kind: which load
    :param triggers: how many triggers it had
    :param started_after: seconds from when they appeared until all ran
    :param memory: MiB of the triggerer's runner by moment: resident, and unique (USS)
    :param polls: requests for an operation in the steady state
    :param tokens: requests for a token, in all
    :param connections: connections of the triggerer that the service had, seen once a second: the most at a
        time, and how many different ones
    :param ends: how many tasks stand how
    :param held_up: what asyncio says of blocked moments, in debug mode
    """

    kind: str
    triggers: int
    started_after: float = math.nan
    phases: list[Phase] = field(default_factory=list)
    memory: dict[str, tuple[float, float]] = field(default_factory=dict)
    polls: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    tokens: int = 0
    connections: tuple[int, int] = (0, 0)
    ends: Counter[str] = field(default_factory=Counter)
    blocked: list[Blocked] = field(default_factory=list)
    held_up: list[str] = field(default_factory=list)

    @property
    def steady(self) -> Phase:
        return next(phase for phase in self.phases if phase.name == "steady")

    def phase_at(self, moment: float) -> str:
        """Return the name of the phase of a moment, in seconds since the epoch."""
        return next((phase.name for phase in self.phases if phase.began <= moment < phase.ended), "else")


class Bench:
    """Puts one load after the other on a triggerer of its own, with one database and one service.

    :param seconds: how long operations take, from when the making of the waits begins
    """

    def __init__(
        self, folder: Path, database: PostgreSQL, service: Emulator, waits: int, seconds: float
    ) -> None:
        self._database = database
        self._service = service
        self._waits = waits
        self._seconds = seconds
        self._operations = folder / "operations.json"
        self._airflow = airflow = LocalAirflow(
            folder / "airflow",
            DAGS,
            {
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.url,
                "AIRFLOW_CONN_CLOUD_PARTNER_DEFAULT": json.dumps(service.connection),
                "PYTHONPATH": str(ROOT),
            },
            # A triggerer at its capacity logs this at every loop.
            {"triggerer": ["triggerer", "--skip-serve-logs", "--capacity", str(waits + 1)]},
        )
        (airflow.home / "logs").mkdir(parents=True)
        say("making the database")
        airflow.run("db", "migrate")
        airflow.run("dags", "reserialize")

    def measure(self, kind: str) -> Measured:
        """Start a triggerer, load it, and watch it until all has ended."""
        airflow = self._airflow
        log = airflow.home / "logs" / "triggerer.log"
        log.unlink(missing_ok=True)
        measured = Measured(kind, self._waits)
        airflow.start_component("triggerer")
        try:
            core = self._watch(measured)
        except BaseException:
            console.print(airflow.tail("triggerer", lines=40), markup=False)
            raise
        finally:
            airflow.stop_component("triggerer")
        lines = log.read_text()
        measured.blocked = [
            core.meanwhile(_epoch(at), float(seconds)) for at, seconds in BLOCKED.findall(lines)
        ]
        assert len(measured.blocked) == lines.count("thread was blocked"), "a warning was not understood"
        measured.held_up = HELD_UP.findall(lines)
        return measured

    def _watch(self, measured: Measured) -> Core:
        run_id = measured.kind.replace(" ", "-")
        pid = self._airflow.pid("triggerer")
        assert pid is not None
        triggerer = psutil.Process(pid)
        wait_for(lambda: bool(triggerer.children()), "the triggerer's runner to start", seconds=120)
        [runner] = triggerer.children()
        watcher = _Watcher(measured, triggerer, runner, self._service)
        core = Core(runner.pid)
        core.start()

        say(f"{measured.kind}: a triggerer with nothing to do")
        # Wait also until the triggerer has imported its modules.
        wait_for(self._has_begun, "the triggerer to start", seconds=120)
        watcher.watch("idle", _after(IDLE_SECONDS), IDLE_SECONDS + 1)
        watcher.note_memory("idle")

        self._service.inject(**STANDING_STILL)
        completed_at = time.time() + self._seconds
        offers = self._service.offers().values()
        locations = [offer["operations"][0]["location"] for offer in offers]
        self._operations.write_text(json.dumps(locations))
        say(f"{measured.kind}: making {self._waits} of them")
        with self._deferring(measured.kind, run_id, completed_at) as is_done:
            watcher.watch("making", is_done, self._seconds)
        tokens_before = self._count("/token$")

        say(f"{measured.kind}: they are there, and start")
        logs = self._airflow.home / "logs" / "dag_id=waits" / f"run_id={run_id}" / "task_id=wait"
        # A trigger's log is there as soon as it said that it starts.
        watcher.watch("start", lambda: _count_files(logs) >= self._waits, self._seconds)
        measured.started_after = measured.phases[-1].seconds

        steady = max(10.0, completed_at - time.time())
        say(f"{measured.kind}: all run; steady for {steady:.0f} s")
        watcher.watch("steady", _after(steady), steady + 10)
        watcher.note_memory("all run")

        say(f"{measured.kind}: the operations complete")
        self._service.clear_faults()
        with suppress(TimeoutError):  # how many did not end is counted
            watcher.watch("end", self._is_ended, END_SECONDS)
        watcher.note_memory("all ended")
        measured.ends = self._ends(run_id)
        steady_phase = measured.steady
        polls = [
            entry
            for entry in self._service.requests(path="/operations/")
            if steady_phase.began <= _epoch(entry["time"]) < steady_phase.ended
        ]
        measured.polls = len(polls)
        measured.statuses = Counter(entry["status"] for entry in polls)
        measured.tokens = self._count("/token$") - tokens_before
        measured.connections = watcher.connections
        return core

    def _has_begun(self) -> bool:
        # The first heartbeat shows that the triggerer has started.
        jobs = "SELECT count(*) FROM job WHERE state = 'running' AND latest_heartbeat > start_date"
        return bool(self._database.query(jobs)[0][0])

    @contextmanager
    def _deferring(self, kind: str, run_id: str, completed_at: float) -> Iterator[Callable[[], bool]]:
        """Let another process defer the tasks; return what says whether it is done."""
        call = f"defer_all({kind == WAITING}, {run_id!r}, {str(self._operations)!r}, {completed_at})"
        with subprocess.Popen(
            [sys.executable, "-c", f"from {__spec__.name} import defer_all; {call}"],
            env=self._airflow.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:

            def is_done() -> bool:
                with suppress(subprocess.TimeoutExpired):
                    said, _ = process.communicate(timeout=0.1)
                    if process.returncode:
                        raise RuntimeError(f"The tasks could not be deferred:\n{said[-4000:]}")
                    return True
                return False

            try:
                yield is_done
            finally:
                process.kill()

    def _count(self, path: str) -> int:
        return len(self._service.requests(path=path))

    def _is_ended(self) -> bool:
        return not self._database.query("SELECT FROM task_instance WHERE state = 'deferred' LIMIT 1")

    def _ends(self, run_id: str) -> Counter[str]:
        """Return how many tasks are deferred, and how many ended with each status."""
        tasks = "SELECT state, next_kwargs FROM task_instance WHERE task_id = 'wait' AND run_id = %s"
        found = self._database.query(tasks, run_id)
        return Counter(
            # A failed trigger has no event.
            state if state == "deferred" else kwargs.get("event", {}).get("status", "failed")
            for state, kwargs in found
        )


class _Watcher:
    """Watches the processes of a triggerer, a second at a time."""

    def __init__(
        self, measured: Measured, triggerer: psutil.Process, runner: psutil.Process, service: Emulator
    ) -> None:
        self._measured = measured
        self._runner = runner
        self._processes = {
            "supervisor": triggerer,
            "runner": runner,
            "emulator": psutil.Process(service.pid),
        }
        self._port = service.port
        self._most_connections = 0
        self._connections: set[int] = set()

    @property
    def connections(self) -> tuple[int, int]:
        """The most at a time, and how many different ones."""
        return self._most_connections, len(self._connections)

    def watch(self, name: str, is_over: Callable[[], bool], most_seconds: float) -> None:
        """Watch a phase until it is over.

        :raises TimeoutError: it isn't, after so many seconds
        """
        began, before = time.time(), self._cpu()
        try:
            while not is_over():
                if time.time() > began + most_seconds:
                    raise TimeoutError(f"Phase {name!r} took more than {most_seconds:.0f} s.")
                self._look_at_connections()
                time.sleep(1)
        finally:
            used = {process: seconds - before[process] for process, seconds in self._cpu().items()}
            self._measured.phases.append(Phase(name, began, time.time(), used))

    def note_memory(self, moment: str) -> None:
        """Note the memory of the runner."""
        memory = self._runner.memory_full_info()
        self._measured.memory[moment] = (memory.rss / 2**20, memory.uss / 2**20)

    def _look_at_connections(self) -> None:
        ports = {
            connection.laddr.port
            for connection in self._runner.net_connections("tcp")
            if connection.raddr and connection.raddr.port == self._port
        }
        self._most_connections = max(self._most_connections, len(ports))
        self._connections |= ports

    def _cpu(self) -> dict[str, float]:
        return {name: own_cpu(process) for name, process in self._processes.items()}


class Core(threading.Thread):
    """Samples the kernel's counters for the event loop's thread until its process ends."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process = Path(f"/proc/{pid}")
        # Seconds since the epoch; of CPU; of waiting for a core; of being stuck in sending.
        self._notes: list[tuple[float, float, float, float]] = [(time.time(), 0.0, 0.0, 0.0)]

    def run(self) -> None:
        """Take about 30 samples per second."""
        with suppress(OSError):
            while self._process.exists():
                cpu, waited, _ = (self._process / "schedstat").read_text().split()
                sends = self._is_sending()
                before, *_, stuck = self._notes[-1]
                now = time.time()
                stuck += now - before if sends else 0.0
                self._notes.append((now, int(cpu) / 1e9, int(waited) / 1e9, stuck))
                time.sleep(0.03)

    def _is_sending(self) -> bool:
        """Whether the thread is stuck in sending, or waits for another one that is and has the log's lock."""
        sleeps_in = (self._process / "wchan").read_text()
        if not sleeps_in.startswith("futex"):
            return sleeps_in in SENDING
        others = (self._process / "task").glob("*/wchan")
        return any(other.read_text() in SENDING for other in others)

    def meanwhile(self, at: float, seconds: float) -> Blocked:
        """Return how the thread spent the time of a block."""
        ends = zip(self._counts_at(at), self._counts_at(at - seconds), strict=True)
        return Blocked(at, seconds, *(later - before for later, before in ends))

    def _counts_at(self, moment: float) -> list[float]:
        """Return the counters at a moment, interpolated between two samples."""
        after = bisect.bisect(self._notes, (moment,))
        if after in (0, len(self._notes)):
            return list(self._notes[min(after, len(self._notes) - 1)][1:])
        (began, *before), (ended, *later) = self._notes[after - 1], self._notes[after]
        share = (moment - began) / (ended - began)
        return [old + share * (new - old) for old, new in zip(before, later, strict=True)]


def defer_all(waiting: bool, run_id: str, operations: str, completed_at: float) -> None:
    """Create a Dag run with all tasks deferred, as workers leave them; runs in Airflow's environment.

    :param waiting: whether to use the triggers of the sensor instead of triggers that only sleep
    :param operations: file with the operations' locations
    :param completed_at: when the operations complete, in seconds since the epoch
    """
    from airflow._shared.timezones import timezone
    from airflow.models.dagbag import DBDagBag
    from airflow.models.taskmap import TaskMap
    from airflow.models.trigger import Trigger
    from airflow.sdk.serde import serialize
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState, TaskInstanceState
    from airflow.utils.types import DagRunTriggeredByType, DagRunType

    locations = json.loads(Path(operations).read_text())
    made = list(_deferrals(locations) if waiting else _sleeps(len(locations), completed_at))
    with create_session() as session:
        dag = DBDagBag().get_latest_version_of_dag("waits", session=session)
        assert dag is not None
        now = timezone.utcnow()
        run = dag.create_dagrun(
            run_id=run_id,
            run_after=now,
            start_date=now,
            run_type=DagRunType.MANUAL,
            triggered_by=DagRunTriggeredByType.TEST,
            state=DagRunState.RUNNING,
            session=session,
        )
        length = {"map_index": -1, "length": len(locations), "keys": None}
        session.add(TaskMap(dag_id="waits", task_id="operations", run_id=run_id, **length))
        upstream = run.get_task_instance("operations", session=session)
        upstream.state = TaskInstanceState.SUCCESS
        session.flush()
        tasks, _ = TaskMap.expand_mapped_task(dag.get_task("wait"), run_id, session=session)
        triggers = [Trigger(classpath, kwargs) for (classpath, kwargs), _ in made]
        session.add_all(triggers)
        session.flush()
        for task, trigger, (_, timeout) in zip(tasks, triggers, made, strict=True):
            task.state = TaskInstanceState.DEFERRED
            task.start_date = now
            task.try_number = 1
            task.trigger_id = trigger.id
            task.trigger_timeout = now + timeout if timeout else None
            task.next_method = "execute_complete"
            task.next_kwargs = serialize({})


def _deferrals(locations: list[str]) -> Iterator[tuple[tuple[str, dict[str, Any]], Any]]:
    """Let each sensor poll once and defer; yield its trigger and its timeout."""
    from airflow.sdk.exceptions import TaskDeferred

    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
    from airflow_provider_cpp.sensors.cloud_partner import OperationSensor

    hook = CloudPartnerHook()
    for location in locations:
        sensor = OperationSensor(task_id="wait", operation_location=location, poke_interval=POKE_SECONDS)
        sensor._hook = hook  # one for all, or each would ask for a token
        try:
            sensor.execute({})
        except TaskDeferred as deferred:
            yield deferred.trigger.serialize(), deferred.timeout
        else:
            raise RuntimeError(f"The sensor did not defer: {location} is at its end.")


def _sleeps(count: int, completed_at: float) -> Iterator[tuple[tuple[str, dict[str, Any]], Any]]:
    """Yield triggers that fire over the time in which waits notice that their operations completed."""
    from tests.benchmarks.dags.sleeping import SleepTrigger

    for number in range(count):
        yield SleepTrigger(completed_at + POKE_SECONDS * number / count).serialize(), None


def own_cpu(process: psutil.Process) -> float:
    """Return the CPU seconds that a process has used, without its children; 0 if it is gone."""
    with suppress(psutil.Error):
        times = process.cpu_times()
        return times.user + times.system
    return 0.0


def _after(seconds: float) -> Callable[[], bool]:
    until = time.monotonic() + seconds
    return lambda: time.monotonic() >= until


def _count_files(logs: Path) -> int:
    return sum(1 for _ in logs.glob("map_index=*/*.trigger.*"))


def _epoch(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def say(line: str) -> None:
    """Print the current step, with the time of day."""
    console.print(f"{time.strftime('%H:%M:%S')} {line}")


def print_load(when: str) -> None:
    """Print the load of the machine: the measurements depend on the load."""
    loads = ", ".join(f"{load:.2f}" for load in os.getloadavg())
    say(f"load {when}: {loads} (over 1, 5 and 15 min), {os.cpu_count()} cores")


def print_table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a table; every column but the first is of figures."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def print_holds(rows: Iterable[tuple[str, str, str, bool | None]]) -> None:
    """Print what must hold: what, measured, the bound, and whether it holds; None if nothing tells."""
    words = {True: "yes", False: "NO", None: "?"}
    table = [(what, measured, bound, words[holds]) for what, measured, bound, holds in rows]
    print_table("What must hold", ["what", "measured", "bound", "holds"], table)


def print_figures(measured: list[Measured]) -> None:
    """Print time and CPU by phase, and the other figures; a column for each load."""
    phases = [
        [
            f"{one.kind}: {phase.name}",
            f"{phase.seconds:.1f}",
            *(f"{phase.share(process):.1f}" for process in ("runner", "supervisor", "emulator")),
        ]
        for one in measured
        for phase in one.phases
    ]
    columns = ["phase", "seconds", "runner", "supervisor", "emulator"]
    print_table("CPU of one triggerer's processes and of the service, % of a core", columns, phases)

    def row(name: str, figure: Callable[[Measured], str]) -> list[str]:
        return [name, *(figure(one) for one in measured)]

    def for_a_poll(*processes: str) -> Callable[[Measured], str]:
        def figure(one: Measured) -> str:
            cpu = sum(one.steady.cpu[process] for process in processes)
            return f"{1000 * cpu / one.polls:.1f}" if one.polls else "-"

        return figure

    def answers(one: Measured) -> str:
        return ", ".join(f"{status}: {count}" for status, count in one.statuses.items()) or "-"

    def memory(moment: str) -> Callable[[Measured], str]:
        return lambda one: "{:.0f} ({:.0f})".format(*one.memory[moment])

    rows = [
        row("triggers", lambda one: f"{one.triggers}"),
        row("from their appearance until all ran, s", lambda one: f"{one.started_after:.1f}"),
        row("steady: polls", lambda one: f"{one.polls}"),
        row("steady: polls a second", lambda one: f"{one.polls / one.steady.seconds:.1f}"),
        row("steady: answers", answers),
        row("steady: CPU of the runner for a poll, ms", for_a_poll("runner")),
        row("steady: CPU of both processes for a poll, ms", for_a_poll("runner", "supervisor")),
        *(
            row(f"runner's memory, {moment}: resident (its own), MiB", memory(moment))
            for moment in measured[0].memory
        ),
        row("connections: most at a time, different ones", lambda one: "{}, {}".format(*one.connections)),
        row("requests for a token", lambda one: f"{one.tokens}"),
        row("ends", lambda one: ", ".join(f"{end}: {count}" for end, count in one.ends.items())),
    ]
    print_table("One triggerer", ["", *(one.kind for one in measured)], rows)


def print_blocked(measured: list[Measured]) -> None:
    """Print each warning about a blocked event loop, and the report of asyncio."""
    rows = [
        (
            one.kind,
            one.phase_at(blocked.at),
            f"{datetime.fromtimestamp(blocked.at):%H:%M:%S}",
            f"{blocked.seconds:.2f}",
            f"{blocked.waited:.2f}",
            f"{blocked.stuck:.2f}",
            f"{blocked.cpu:.2f}",
            "yes" if blocked.is_of_the_loop else "no",
        )
        for one in measured
        for blocked in one.blocked
    ]
    if not rows:
        say("The triggerer's event loop was never blocked.")
        return
    columns = ["load", "phase", "at", "s", "waited for a core", "stuck in logging", "computed", "of the loop"]
    print_table("Warnings: the async thread was blocked", columns, rows)
    for one in measured:
        for line in one.held_up:
            console.print(f"{one.kind}: {line}", markup=False)


def print_verdict(measured: list[Measured]) -> None:
    """Print what must hold of the waits."""
    waits = measured[-1]
    baseline = measured[0] if len(measured) > 1 else None

    def of_the_loop(one: Measured, name: str) -> list[float]:
        return [
            blocked.seconds
            for blocked in one.blocked
            if blocked.is_of_the_loop and one.phase_at(blocked.at) == name
        ]

    ended = waits.ends["succeeded"]
    rows: list[tuple[str, str, str, bool | None]] = [
        ("waits that succeeded", f"{ended}", f"{waits.triggers}", ended == waits.triggers),
    ]
    for name in ("start", "steady", "end"):
        found = of_the_loop(waits, name)
        bound = len(of_the_loop(baseline, name)) if baseline else 0
        # Airflow itself may cause blocks. Without the baseline, the result stays undecided.
        holds = len(found) <= bound or (False if baseline else None)
        longest = f", longest {max(found):.2f} s" if found else ""
        words = f"{bound} (sleeping triggers)" if baseline else "0"
        rows.append((f"blocked by the loop itself, {name}", f"{len(found)}{longest}", words, holds))
    print_holds(rows)


if __name__ == "__main__":
    main()
