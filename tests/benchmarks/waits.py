"""One measurement: a process in which one client waits for many operations at once, from start to end."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import psutil

from tests.benchmarks.clients import CLIENTS, SLEEPING, Task
from tests.benchmarks.processes import open_files
from tests.benchmarks.server import Control, Target

#: How long all may take to ask for the first time, and to see the end beyond the interval, in seconds.
PATIENCE = 60
PATIENCE_AT_END = 120
#: As many polls tell what one costs.
ENOUGH = 1_000
#: How often the event loop is looked at, in seconds.
TICK = 0.005


class Watch:
    """Sees how long the event loop is blocked: how much later than asked for it comes to a callback.

    By a callback and not a task, since this is the cheaper.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._longest = 0.0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._longest = 0.0
        self._wait()

    def stop(self) -> float:
        """Return the longest block since the start, in seconds."""
        assert self._timer is not None
        self._timer.cancel()
        return max(self._longest, self._loop.time() - self._due)

    def _tick(self) -> None:
        self._longest = max(self._longest, self._loop.time() - self._due)
        self._wait()

    def _wait(self) -> None:
        self._due = self._loop.time() + TICK
        self._timer = self._loop.call_at(self._due, self._tick)


@dataclass(frozen=True)
class Plan:
    """A measurement.

    :param client: one of `CLIENTS`
    :param seconds: how long to measure in the steady state
    """

    client: str
    task: Task
    seconds: float

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Plan:
        """Return it from what `dataclasses.asdict` returned."""
        task = {**raw["task"], "target": Target(**raw["task"]["target"])}
        return cls(**{**raw, "task": Task(**task)})


async def measure(plan: Plan) -> dict[str, Any]:
    """Wait, and return what that cost."""
    control = await Control.connect(plan.task.target)
    await _warm_up(plan, control)
    await control("reset")
    waits = CLIENTS[plan.client].make(plan.task)
    resident = _resident()
    watch = Watch()
    began, cpu = time.perf_counter(), time.process_time()

    watch.start()
    tasks = [asyncio.create_task(wait) for wait in waits]
    del waits
    if plan.client == SLEEPING:
        await asyncio.sleep(1)
        return {"resident": _resident() - resident}
    while (counts := await control("counts"))["waits"] < plan.task.waits:
        if time.perf_counter() - began > PATIENCE:
            break  # report the starved waits instead of failing
        await asyncio.sleep(0.02)
    start = {
        "seconds": time.perf_counter() - began,
        "cpu": (time.process_time() - cpu) / counts["polls"],
        "blocked": watch.stop(),
        "starved": plan.task.waits - counts["waits"],
    }

    watch.start()
    await asyncio.sleep(plan.seconds)
    blocked = watch.stop()
    # And now without the watch, which is not free.
    before, cpu, then = (await control("counts"))["polls"], time.process_time(), time.perf_counter()
    polls, passed = 0, 0.0
    # Some poll in bursts: longer, if there were too few to tell what one costs.
    while passed < plan.seconds or (polls < min(plan.task.waits, ENOUGH) and passed < PATIENCE):
        await asyncio.sleep(plan.seconds)
        polls, passed = (await control("counts"))["polls"] - before, time.perf_counter() - then
    cpu = time.process_time() - cpu
    steady = {"cpu": cpu / max(polls, 1), "rate": polls / passed, "blocked": blocked}
    resident = _resident() - resident

    early = sum(task.done() for task in tasks)
    await control("finish")
    done, waiting = await asyncio.wait(tasks, timeout=plan.task.interval + PATIENCE_AT_END)
    good = sum(task.exception() is None and task.result() for task in done)
    seconds = time.perf_counter() - began
    counts = await control("counts")
    control.close()
    return {
        "start": start,
        "steady": steady,
        "resident": resident,
        "lost": plan.task.waits - good + early,
        "waiting": len(waiting),
        "seconds": seconds,
        "counts": counts,
        "error": next((repr(error) for task in done if (error := task.exception())), None),
    }


async def _warm_up(plan: Plan, control: Control) -> None:
    """Load all modules that a running triggerer has already loaded, and run a first wait."""
    import airflow.triggers.base  # noqa: F401
    from airflow.providers.common.compat.connection import get_async_connection

    await get_async_connection("http_default")
    if plan.client == SLEEPING:
        return
    await control("reset")
    (wait,) = CLIENTS[plan.client].make(replace(plan.task, waits=1))
    first = asyncio.create_task(wait)
    while not (await control("counts"))["waits"]:  # noqa: ASYNC110  the server says it only when it is asked
        await asyncio.sleep(0.02)
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first


def _resident() -> int:
    """The resident memory of this process in bytes, after free memory is returned to the system.

    Resident memory includes OpenSSL and the allocators, which tracemalloc does not see.
    """
    gc.collect()
    with suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
    resident: int = psutil.Process().memory_info().rss
    return resident


if __name__ == "__main__":
    open_files()
    sys.stdout.write(json.dumps(asyncio.run(measure(Plan.from_json(json.loads(sys.argv[1]))))) + "\n")
