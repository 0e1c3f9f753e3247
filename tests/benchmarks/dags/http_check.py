"""Response check for the HTTP provider's trigger, which imports this module again at each poll."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import requests


def is_completed(response: requests.Response) -> bool:
    """Whether the response reports a completed operation."""
    return bool(response.json()["status"] == "completed")


async def ais_completed(response: requests.Response) -> bool:
    """Whether the response reports a completed operation; the trigger requires a coroutine."""
    return is_completed(response)
