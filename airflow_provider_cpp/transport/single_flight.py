"""Run a coroutine once for all callers in an event loop that want its result at the same time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable

K = TypeVar("K")
V = TypeVar("V")

_running: dict[asyncio.AbstractEventLoop, dict[Hashable, asyncio.Task[Any]]] = {}


def for_running_loop(by_loop: dict[asyncio.AbstractEventLoop, dict[K, V]]) -> dict[K, V]:
    """Return the entries of the running event loop, and remove the entries of closed event loops."""
    for loop in [loop for loop in list(by_loop) if loop.is_closed()]:
        by_loop.pop(loop, None)
    return by_loop.setdefault(asyncio.get_running_loop(), {})


async def single_flight(key: Hashable, start: Callable[[], Coroutine[Any, Any, V]]) -> V:
    """Return the result of `start()`, or raise its exception.

    Callers with the same key in the same event loop share one call while it runs. The result is not kept: the
    next caller starts a new call.
    """
    tasks = for_running_loop(_running)
    if key not in tasks:

        def remove(task: asyncio.Task[V]) -> None:
            del tasks[key]
            # Retrieve the exception: asyncio logs an error if all callers were canceled before they got it.
            task.cancelled() or task.exception()

        tasks[key] = asyncio.create_task(start())
        tasks[key].add_done_callback(remove)
    # If the first caller is canceled, the others still need the result.
    task: asyncio.Task[V] = tasks[key]
    return await asyncio.shield(task)
