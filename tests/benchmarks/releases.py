"""Many releases from end to end on a real Airflow: with this provider, and with Airflow's HTTP provider.

    python -m tests.benchmarks.releases [--offers 200] [--seconds S] [--order http ours]

PostgreSQL, the emulator and Airflow with the LocalExecutor. A Dag run takes each offer live, waits for
the operation in the triggerer, and announces it; the poll interval is 10 s. Operations take long enough for
all tasks to start their go-live and to defer. The Dags run one after the other in the same Airflow, each with
its own offers. Before the measurement, each Dag releases one offer, so that all modules are imported. The
cost of a component of Airflow is its CPU time during the run.

The comparison favors the HTTP provider: it has a token from the start, in the headers of its connection, and
never renews it; it does not handle the 404 of a new operation, Retry-After or failed operations; and its
trigger reads the responses, which the trigger of `HttpSensor` does not (see `dags/releases_http.py`).
"""

from __future__ import annotations

import argparse
import json
import signal
import ssl
import statistics
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from dev.emulator_process import ROOT
from dev.local_airflow import LocalAirflow
from tests.benchmarks.triggerer import (
    BLOCKED,
    DAGS,
    PRINCIPAL,
    Blocked,
    Core,
    own_cpu,
    print_holds,
    print_load,
    print_table,
    running_database,
    running_service,
    say,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from dev.emulator_process import Emulator
    from dev.services import PostgreSQL

OURS, HTTP = "ours", "http"
#: Duration of operations: a constant, and an amount for each offer.
OPERATION_SECONDS = (60, 3)
#: Time limit of a run in seconds, in addition to its operations: a constant, and an amount for each offer.
PATIENCE = (300, 15)
#: Share by which other load on the machine can change a wall time.
NOISE = 0.05


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.releases", description=__doc__)
    parser.add_argument("--offers", type=int, default=200, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--seconds", type=float, metavar="S", help="that operations take (default: 60, and 3 for each offer)"
    )
    parser.add_argument(
        "--order", nargs=2, choices=(OURS, HTTP), default=(HTTP, OURS), help="default: %(default)s"
    )
    options = parser.parse_args()
    if set(options.order) != {OURS, HTTP}:
        parser.error("--order needs both")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing is left running
    seconds = options.seconds or OPERATION_SECONDS[0] + OPERATION_SECONDS[1] * options.offers
    offers_of = {kind: [f"{kind}-{number:04}" for number in range(options.offers)] for kind in options.order}
    print_load("at the beginning")
    offers = [_offer(offer, seconds) for kind in options.order for offer in offers_of[kind]]
    offers += [_offer(f"{kind}-first", 1) for kind in options.order]
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-") as folder,
        running_database(Path(folder)) as database,
        running_service(Path(folder), offers) as service,
        _airflow(Path(folder), database, service, options.offers) as airflow,
    ):
        bench = Bench(airflow, service, Path(folder, "postgresql"), seconds)
        say("one release of each, first")
        for kind in options.order:
            bench.run(kind, [f"{kind}-first"])
        measured = {kind: bench.measure(kind, offers_of[kind]) for kind in options.order}
    print_load("at the end")
    print_figures(measured)
    print_verdict(measured)


def _offer(offer_id: str, seconds: float) -> dict[str, Any]:
    return {"id": offer_id, "state": "preview", "stepSeconds": {"live": seconds}}


def _airflow(folder: Path, database: PostgreSQL, service: Emulator, offers: int) -> LocalAirflow:
    http = {"Authorization": f"Bearer {_token(service)}"}  # the other extras are headers
    return LocalAirflow(
        folder / "airflow",
        DAGS,
        {
            "AIRFLOW__CORE__MAX_MAP_LENGTH": str(max(1024, offers)),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.url,
            "AIRFLOW_CONN_CLOUD_PARTNER_DEFAULT": json.dumps(service.connection),
            "AIRFLOW_CONN_HTTP_DEFAULT": json.dumps(
                {"conn_type": "http", "host": service.url, "extra": http}
            ),
            "PYTHONPATH": str(ROOT),
            # For the HTTP provider, whose connection can't name a CA in the triggerer.
            "REQUESTS_CA_BUNDLE": service.ca,
            "SSL_CERT_FILE": service.ca,
        },
    )


def _token(service: Emulator) -> str:
    """Return a token that lasts for an hour."""
    form = {
        "grant_type": "client_credentials",
        "client_id": PRINCIPAL["clientId"],
        "client_secret": PRINCIPAL["secret"],
        "scope": "https://cloudpartner.azure.com/.default",
    }
    url = f"{service.url}/{PRINCIPAL['tenantId']}/oauth2/v2.0/token"
    context = ssl.create_default_context(cafile=service.ca)
    with urllib.request.urlopen(url, urllib.parse.urlencode(form).encode(), context=context) as answer:
        return str(json.load(answer)["access_token"])


@dataclass(frozen=True)
class Measured:
    """The measurements of one Dag run.

    :param state: of the run
    :param seconds: from its start to its end
    :param cpu: CPU seconds by part of the deployment
    :param memory: MiB of the triggerer's runner at the end, resident
    :param announced: offers that were announced when they were live, and not before
    :param lags: seconds from an offer's being live to its announcement
    :param go_lives: operations that the service began
    :param polls: requests for an operation, of workers and triggerer
    :param requests: that the service had, in all
    :param blocked: warnings that the triggerer's event loop was blocked
    """

    offers: int
    state: str
    seconds: float
    cpu: dict[str, float]
    memory: float
    announced: int
    lags: list[float]
    go_lives: int
    polls: int
    requests: int
    blocked: list[Blocked]

    @property
    def triggerer(self) -> float:
        """CPU seconds of the triggerer, in both processes."""
        return self.cpu["triggerer: runner"] + self.cpu["triggerer: supervisor"]


class Bench:
    """Runs Dags and measures their cost.

    :param postgresql: its folder
    :param seconds: how long operations take
    """

    def __init__(self, airflow: LocalAirflow, service: Emulator, postgresql: Path, seconds: float) -> None:
        self._airflow = airflow
        self._service = service
        self._seconds = seconds
        self._processes = {name: psutil.Process(airflow.pid(name)) for name in airflow.components}
        leader = (postgresql / "data" / "postmaster.pid").read_text().split()[0]
        self._postgresql = psutil.Process(int(leader))
        [self._runner] = self._processes["triggerer"].children()
        self._core = Core(self._runner.pid)
        self._core.start()

    def run(self, kind: str, offers: list[str]) -> tuple[str, str]:
        """Run a Dag to its end; return the ids of Dag and run."""
        dag_id = f"releases_{kind}"
        run_id = self._airflow.trigger(dag_id, {"offers": offers})
        seconds = self._seconds + PATIENCE[0] + PATIENCE[1] * len(offers)
        with suppress(TimeoutError):  # the result counts unfinished tasks
            self._airflow.wait_for_run(dag_id, run_id, seconds=seconds)
        return dag_id, run_id

    def measure(self, kind: str, offers: list[str]) -> Measured:
        """Run a Dag to its end, and measure it."""
        say(f"{kind}: {len(offers)} releases")
        before, requests = self._cpu(), len(self._service.requests())
        began = time.time()
        dag_id, run_id = self.run(kind, offers)
        ended = time.time()
        used = {part: seconds - before[part] for part, seconds in self._cpu().items()}
        asked = self._service.requests()[requests:]
        run = next(one for one in self._airflow.runs(dag_id) if one["dag_run_id"] == run_id)
        took = _epoch(run["end_date"]) - _epoch(run["start_date"]) if run["end_date"] else ended - began
        lags = self._lags(dag_id, run_id, offers)
        go_lives = [one for one in asked if one["path"].endswith("/golive")]
        warnings = BLOCKED.findall(self._airflow.tail("triggerer", lines=0))
        return Measured(
            offers=len(offers),
            state=run["state"],
            seconds=took,
            cpu=used,
            memory=self._runner.memory_info().rss / 2**20,
            announced=sum(lag >= 0 for lag in lags),
            lags=lags,
            go_lives=sum(post["effect"] for post in go_lives),
            polls=sum("/operations/" in one["path"] for one in asked),
            requests=len(asked),
            blocked=[
                self._core.meanwhile(_epoch(at), float(seconds))
                for at, seconds in warnings
                if began <= _epoch(at) <= ended
            ],
        )

    def _lags(self, dag_id: str, run_id: str, offers: list[str]) -> list[float]:
        """Return the seconds from each offer's being live to the beginning of its announcement."""
        standing = self._service.offers()
        lags = []
        for ti in self._airflow.task_instances(dag_id, run_id):
            if ti["task_id"] == "release.announce" and ti["state"] == "success":
                operation = standing[f"contoso/{offers[ti['map_index']]}"]["operations"][0]
                if operation["submissionState"] == "completed":
                    lags.append(_epoch(ti["start_date"]) - _epoch(operation["lastActionDateTime"]))
        return lags

    def _cpu(self) -> dict[str, float]:
        """Return the CPU seconds that each part has used so far."""
        scheduler, triggerer = self._processes["scheduler"], self._processes["triggerer"]
        return {
            "workers and tasks": _family_cpu(scheduler) - own_cpu(scheduler),
            "scheduler": own_cpu(scheduler),
            "triggerer: runner": own_cpu(self._runner),
            "triggerer: supervisor": own_cpu(triggerer),
            "API server": _family_cpu(self._processes["api-server"]),
            "Dag processor": _family_cpu(self._processes["dag-processor"]),
            "PostgreSQL": _family_cpu(self._postgresql),
            "emulator": own_cpu(psutil.Process(self._service.pid)),
        }


def _family_cpu(leader: psutil.Process) -> float:
    """Return the CPU seconds of a process and all its descendants, those included that have ended."""
    seconds = 0.0
    for process in (leader, *leader.children(recursive=True)):
        with suppress(psutil.Error):  # it has just ended, and is in its parent's figures next time
            times = process.cpu_times()
            seconds += times.user + times.system + times.children_user + times.children_system
    return seconds


def _epoch(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def print_figures(measured: dict[str, Measured]) -> None:
    """Print what each Dag took, and the quotient of ours and the HTTP provider's."""
    ours, http = measured[OURS], measured[HTTP]

    def row(name: str, of_ours: float, of_http: float) -> list[str]:
        return [name, f"{of_ours:.1f}", f"{of_http:.1f}", f"{of_ours / of_http:.2f}" if of_http else "-"]

    def median(one: Measured) -> float:
        return statistics.median(one.lags) if one.lags else 0.0

    def latest(one: Measured) -> float:
        return max(one.lags, default=0.0)

    rows = [
        row("wall time of the run, s", ours.seconds, http.seconds),
        *(row(f"CPU of {part}, s", ours.cpu[part], http.cpu[part]) for part in ours.cpu),
        row("CPU of all these, s", sum(ours.cpu.values()), sum(http.cpu.values())),
        row("runner's memory at the end, MiB", ours.memory, http.memory),
        row("from live to announced, median, s", median(ours), median(http)),
        row("from live to announced, latest, s", latest(ours), latest(http)),
        row("warnings that the event loop was blocked", len(ours.blocked), len(http.blocked)),
        row("polls", ours.polls, http.polls),
        row("requests to the service", ours.requests, http.requests),
    ]
    print_table(f"{ours.offers} releases", ["", "ours", "HTTP provider", "ours / HTTP"], rows)


def print_verdict(measured: dict[str, Measured]) -> None:
    """Print what must hold."""
    ours, http = measured[OURS], measured[HTTP]

    def ending(what: str, one: Measured) -> tuple[str, str, str, bool]:
        happened, wanted = (one.state, one.announced, one.go_lives), ("success", one.offers, one.offers)
        words = ["; ".join(str(part) for part in parts) for parts in (happened, wanted)]
        return (what, *words, happened == wanted)

    def blocked(one: Measured) -> int:
        return sum(blocked.is_of_the_loop for blocked in one.blocked)

    def no_more(
        what: str, figure: Callable[[Measured], float], noise: float = 0
    ) -> tuple[str, str, str, bool]:
        mine, its = figure(ours), figure(http)
        bound = f"{its:.4g} + {noise:.0%}" if noise else f"{its:.4g}"
        return what, f"{mine:.4g}", bound, mine <= its * (1 + noise)

    print_holds(
        [
            ending("ours: the run; announced once live; go-lives", ours),
            ending("HTTP provider: the same", http),
            # The HTTP provider's count is the bound: Airflow itself may be the cause of such blocks.
            no_more("blocked by the event loop itself", blocked),
            no_more("wall time, s", lambda one: one.seconds, NOISE),
            no_more("CPU of the triggerer, s", lambda one: one.triggerer),
            no_more("CPU of the triggerer's runner, s", lambda one: one.cpu["triggerer: runner"]),
        ]
    )


if __name__ == "__main__":
    main()
