from __future__ import annotations

import asyncio
import gc

import pytest

from airflow_provider_cpp.transport.single_flight import for_running_loop, single_flight


class SharedRequest:
    """A request that counts its calls and returns when the test sets `answered`."""

    def __init__(self) -> None:
        self.asked = 0
        self.answered = asyncio.Event()

    async def __call__(self) -> int:
        self.asked += 1
        number = self.asked
        await self.answered.wait()
        return number


async def wait_until_started(*tasks: asyncio.Task[int]) -> None:
    """Let each come to its first await."""
    for _ in range(3):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)


async def test_concurrent_callers_get_the_same_result() -> None:
    request = SharedRequest()
    tasks = [asyncio.create_task(single_flight("key", request)) for _ in range(1000)]
    await wait_until_started(*tasks)
    request.answered.set()
    assert await asyncio.gather(*tasks) == [1] * 1000


async def test_nothing_is_kept() -> None:
    request = SharedRequest()
    request.answered.set()
    assert [await single_flight("key", request) for _ in range(3)] == [1, 2, 3]


async def test_another_key_is_another_request() -> None:
    one, other = SharedRequest(), SharedRequest()
    tasks = [asyncio.create_task(single_flight(key, ask)) for key, ask in (("one", one), ("other", other))]
    await wait_until_started(*tasks)
    assert (one.asked, other.asked) == (1, 1)
    for request in (one, other):
        request.answered.set()
    await asyncio.gather(*tasks)


async def test_all_get_the_same_error() -> None:
    async def ask() -> int:
        await asyncio.sleep(0)
        raise LookupError("nobody knows")

    results = await asyncio.gather(*(single_flight("key", ask) for _ in range(3)), return_exceptions=True)
    assert [str(result) for result in results] == ["nobody knows"] * 3


async def test_other_callers_get_the_result_if_the_first_is_canceled() -> None:
    request = SharedRequest()
    first, second = (asyncio.create_task(single_flight("key", request)) for _ in range(2))
    await wait_until_started(first, second)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    request.answered.set()
    assert await second == 1


async def test_error_without_a_waiting_caller_is_not_logged(
    event_loop_complaints: list[str],
) -> None:
    asked, answered = asyncio.Event(), asyncio.Event()

    async def ask() -> int:
        asked.set()
        await answered.wait()
        raise LookupError("nobody knows")

    task = asyncio.create_task(single_flight("key", ask))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task
    answered.set()
    for _ in range(3):
        await asyncio.sleep(0)
    gc.collect()
    assert event_loop_complaints == []


@pytest.fixture
async def event_loop_complaints() -> list[str]:
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
    return complaints


def test_each_event_loop_asks_for_itself() -> None:
    async def ask() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async def want() -> bool:
        return await single_flight("key", ask) is asyncio.get_running_loop()

    assert [asyncio.run(want()) for _ in range(2)] == [True, True]


def test_state_of_a_closed_event_loop_is_removed() -> None:
    by_loop: dict[asyncio.AbstractEventLoop, dict[str, int]] = {}

    async def keep() -> None:
        for_running_loop(by_loop)["kept"] = 1

    for _ in range(3):
        asyncio.run(keep())
    assert len(by_loop) == 1
