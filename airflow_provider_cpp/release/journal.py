"""Keep a record of a task's request, so that a retry finds the operation that an earlier attempt started.

Airflow 3.3 has a task state store that survives retries and clears. The record closes the gap between the
request and the XCom: a retry reconnects by the operation's Location, without comparing clocks. The lookup at
the service remains for the moment between the request and the record, and for Airflow without the store.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

log = logging.getLogger(__name__)


class StateStore(Protocol):
    """The part of Airflow's task state store that is used here."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return a stored JSON value."""

    def set(self, key: str, value: Any) -> None:
        """Store a JSON value."""

    def delete(self, key: str) -> None:
        """Delete a value."""


@dataclass(frozen=True)
class Entry:
    """The latest request of a task.

    :param location: Location of the operation; None if the outcome of the request is unknown
    :param known_ids: ids of the operations that the service listed before the request
    :param is_retry: whether an earlier attempt of the same run of the task wrote it; False if the task was
        cleared since
    """

    location: str | None
    known_ids: frozenset[str]
    is_retry: bool


@dataclass(frozen=True)
class Journal:
    """Record in the task state store that a request is about to be sent, and which operation it started.

    A store that fails never fails the task: without a record, the lookup at the service applies.

    :param store: Airflow's task state store for this task instance; None if this Airflow has no store
    :param key: key of the record in the store
    :param attempt: number of this attempt of the task
    :param generation: a number that differs after each clear of the task, and is the same in its retries
    """

    store: StateStore | None = None
    key: str = "cloud_partner_operation"
    attempt: int | None = None
    generation: int | None = None

    def read(self) -> Entry | None:
        """Return the latest record; None if there is no record."""
        if self.store is None:
            return None
        try:
            record = self.store.get(self.key)
        except Exception as error:
            log.warning("Could not read the task state store; looking up the operations instead. %s", error)
            return None
        if not isinstance(record, dict):
            return None
        location, known = record.get("location"), record.get("known_ids")
        return Entry(
            location=location if isinstance(location, str) else None,
            known_ids=frozenset(known) if isinstance(known, list) else frozenset(),
            is_retry=record.get("generation") == self.generation,
        )

    def sending(self, known_ids: Iterable[str]) -> None:
        """Record that a request is about to be sent."""
        self._write({"state": "sending", "known_ids": sorted(known_ids)})

    def accepted(self, location: str) -> None:
        """Record the operation of this task: the operation that the request started, or the adopted one."""
        self._write({"state": "accepted", "location": location})

    def refused(self) -> None:
        """Record that the request certainly had no effect."""
        if self.store is None:
            return
        try:
            self.store.delete(self.key)
        except Exception as error:
            log.warning("Could not delete the record in the task state store. %s", error)

    def _write(self, record: dict[str, Any]) -> None:
        if self.store is None:
            return
        details = {
            "attempt": self.attempt,
            "generation": self.generation,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        try:
            self.store.set(self.key, record | details)
        except Exception as error:
            log.warning(
                "Could not write to the task state store; a retry looks up the operations instead. %s", error
            )
