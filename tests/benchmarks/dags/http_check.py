"""What the HTTP provider's trigger asks of each answer; it imports this module anew at each poll."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import requests


def is_completed(response: requests.Response) -> bool:
    """Whether an operation, as it was answered, completed."""
    return bool(response.json()["status"] == "completed")


async def ais_completed(response: requests.Response) -> bool:
    """Whether an operation, as it was answered, completed; the trigger wants a coroutine."""
    return is_completed(response)
