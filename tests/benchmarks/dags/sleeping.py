"""A trigger that does nothing, to measure the cost of a triggerer that only holds its triggers.

Airflow's own `DateTimeTrigger` is no such measure: it logs a line every ten seconds, and at last each second.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class SleepTrigger(BaseTrigger):
    """Sleep until a moment, then fire.

    :param until: seconds since the epoch
    """

    def __init__(self, until: float) -> None:
        super().__init__()
        self.until = until

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments, for the metadata database."""
        return f"{__name__}.{type(self).__name__}", {"until": self.until}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Sleep once."""
        await asyncio.sleep(self.until - time.time())
        yield TriggerEvent({"status": "succeeded"})
