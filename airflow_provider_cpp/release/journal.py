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


class Journal:
    """Record in the task state store that a request is about to be sent, and which operation it started.

    A store that fails never fails the task: without a record, the lookup at the service applies.

    :param store: Airflow's task state store for this task instance; None if this Airflow has no store
    :param verb: the request, `go-live` or `publish`
    :param attempt: number of this attempt of the task
    :param generation: a number that differs after each clear of the task, and is the same in its retries
    """

    def __init__(
        self,
        store: StateStore | None,
        verb: str,
        *,
        attempt: int | None = None,
        generation: int | None = None,
    ) -> None:
        self._store = store
        self._key = f"cloud_partner_{verb.replace('-', '_')}"
        self._attempt = attempt
        self._generation = generation

    def read(self) -> Entry | None:
        """Return the latest record; None if there is no record."""
        if self._store is None:
            return None
        try:
            record = self._store.get(self._key)
        except Exception as error:
            log.warning("Could not read the task state store; looking up the operations instead. %s", error)
            return None
        if not isinstance(record, dict):
            return None
        location, known = record.get("location"), record.get("known_ids")
        return Entry(
            location=location if isinstance(location, str) else None,
            known_ids=frozenset(known) if isinstance(known, list) else frozenset(),
            is_retry=record.get("generation") == self._generation,
        )

    def sending(self, known_ids: Iterable[str]) -> None:
        """Record that a request is about to be sent."""
        self._write({"state": "sending", "known_ids": sorted(known_ids)})

    def accepted(self, location: str) -> None:
        """Record the operation of this task: the operation that the request started, or the adopted one."""
        self._write({"state": "accepted", "location": location})

    def refused(self) -> None:
        """Record that the request certainly had no effect."""
        if self._store is None:
            return
        try:
            self._store.delete(self._key)
        except Exception as error:
            log.warning("Could not delete the record in the task state store. %s", error)

    def _write(self, record: dict[str, Any]) -> None:
        if self._store is None:
            return
        details = {
            "attempt": self._attempt,
            "generation": self._generation,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        try:
            self._store.set(self._key, record | details)
        except Exception as error:
            log.warning(
                "Could not write to the task state store; a retry looks up the operations instead. %s", error
            )
