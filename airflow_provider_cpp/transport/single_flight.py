"""What those who wait in one event loop share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable

K = TypeVar("K")
V = TypeVar("V")

_under_way: dict[asyncio.AbstractEventLoop, dict[Hashable, asyncio.Task[Any]]] = {}


def for_running_loop(by_loop: dict[asyncio.AbstractEventLoop, dict[K, V]]) -> dict[K, V]:
    """Return what belongs to the running event loop, and forget what belonged to closed ones."""
    for loop in [loop for loop in list(by_loop) if loop.is_closed()]:
        by_loop.pop(loop, None)
    return by_loop.setdefault(asyncio.get_running_loop(), {})


async def single_flight(key: Hashable, ask: Callable[[], Coroutine[Any, Any, V]]) -> V:
    """Return what `ask` returns, or raise what it raises.

    Whoever comes with the same key while it is under way in this event loop gets the same result. Nothing is
    kept: whoever comes afterwards asks anew.
    """
    here = for_running_loop(_under_way)
    if key not in here:

        def forget(task: asyncio.Task[V]) -> None:
            del here[key]
            # Looked at, or asyncio complains of an error that all who wanted to know it no longer waited for.
            task.cancelled() or task.exception()

        here[key] = asyncio.create_task(ask())
        here[key].add_done_callback(forget)
    # Should the one who came first be canceled, the others still want it.
    task: asyncio.Task[V] = here[key]
    return await asyncio.shield(task)
