"""`make bench`: what waiting costs, beside other providers and beside bare aiohttp; printed, not judged.

All figures are medians of several rounds in fresh processes, against one server on this machine. They are to
be compared within one run: how high they are says more about the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tests.benchmarks import polling, tables
from tests.benchmarks.clients import CLIENTS, OURS, SLEEPING, connections
from tests.benchmarks.imports import MODULES
from tests.benchmarks.processes import MeasurementError, airflow_environment, measure
from tests.benchmarks.server import running_server

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NAMES = ("patience", "imports", "polling")

console = Console(highlight=False, width=None if os.isatty(1) else 140)
#: For progress messages, which are not results.
progress = Console(stderr=True, highlight=False)


def main() -> None:
    """Run the benchmarks that the command line names, and print their tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"some of {', '.join(NAMES)}; default: all")
    parser.add_argument("--quick", action="store_true", help="one round of polling instead of three")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    names = options.names or NAMES

    began, load = time.monotonic(), os.getloadavg()
    console.print(f"Python {platform.python_version()}, {os.cpu_count()} processors; {_versions()}")
    claims: list[tables.Claim] = []
    with (
        tempfile.TemporaryDirectory(prefix="benchmarks-") as directory,
        running_server(Path(directory)) as target,
        progress.status("…") as status,
    ):
        environment = airflow_environment(Path(directory) / "airflow") | connections(target)
        tell: Callable[[str], None] = status.update if progress.is_terminal else progress.print
        tell("trigger of the deferred sensor")
        trigger = measure("deferring", environment=environment)
        if "patience" in names:
            tell("patience")
            patience = _patience(trigger[1]["spec"], environment, times=100 if options.quick else 300)
            console.print(tables.patience_table(patience))
            claims += tables.patience_claims(patience)
        if "imports" in names:
            imports = _imports(environment, rounds=3 if options.quick else 7, tell=tell)
            console.print(tables.imports_table(imports))
            claims += tables.imports_claims(imports)
        if "polling" in names:
            waited = polling.run(
                target,
                trigger,
                environment,
                rounds=1 if options.quick else 3,
                tell=tell,
            )
            console.print(tables.polling_table(waited))
            console.print(tables.resources_table(waited))
            claims += tables.polling_claims(waited)
    console.print(tables.claims_table(claims))
    before, after = (f"{one[0]:.1f}" for one in (load, os.getloadavg()))
    minutes = (time.monotonic() - began) / 60
    console.print(f"Took {minutes:.1f} minutes. Load of the machine: {before} before, {after} at the end.")


def _patience(wait: dict[str, Any], environment: Mapping[str, str], *, times: int) -> dict[str, Any]:
    found: dict[str, Any] = measure("patience", json.dumps(wait), str(times), environment=environment)
    return found


def _imports(environment: Mapping[str, str], *, rounds: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Import in fresh interpreters, in turn; the first time is not counted, it may compile."""
    found: dict[str, list[dict[str, Any]]] = {}
    beyond: dict[str, Any] = {}
    titles = {client.distribution: client.title for client in CLIENTS.values()}
    for number in range(rounds + 1):
        for distribution in MODULES:
            title = titles[distribution]
            if title in beyond:
                continue
            tell(f"round {number} of {rounds}: importing {title}")
            try:
                one = measure("imports", distribution, environment=environment)
            except MeasurementError as error:
                if title == CLIENTS[OURS].title:
                    raise
                beyond[title] = str(error).splitlines()[-1]
            else:
                found.setdefault(title, []).append(one)
    counted = {title: all_rounds[1:] for title, all_rounds in found.items()}
    return {
        "sdk": _medians([one["sdk"] for all_rounds in counted.values() for one in all_rounds]),
        "beyond": beyond
        | {title: _medians([one["beyond"] for one in all_rounds]) for title, all_rounds in counted.items()},
    }


def _medians(found: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


def _versions() -> str:
    names = ["apache-airflow", *(one.distribution for name, one in CLIENTS.items() if name != SLEEPING)]
    return ", ".join(f"{name} {_version(name)}" for name in names)


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    main()
