"""The journal: what was asked and how it was answered, never with a token, secret or assertion."""

from __future__ import annotations

import json
import os
import re
from collections import deque
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_cpp.emulator import store

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.requests import Request

# Days of polling by dozens of clients; what is older is forgotten.
_CAPACITY = 100_000


@dataclass
class Entry:
    """One request of the API or of a token endpoint.

    :param path: as it was sent, percent-encoding included.
    :param client_id: of the principal that asked, None while it is not known.
    :param status: that was answered, None when the connection was closed without an answer.
    :param effect: whether the service's data changed.
    :param fault: the rule that was applied, without its counts; with ``"token": "refused"``, or just that,
        when the token was refused before its announced end.
    """

    sequence: int
    time: str
    method: str
    path: str
    query: str
    client_id: str | None = None
    status: int | None = None
    effect: bool = False
    fault: dict[str, Any] | None = None

    @property
    def document(self) -> dict[str, Any]:
        """The entry as JSON."""
        document = asdict(self)
        document["clientId"] = document.pop("client_id")
        return document


def note(request: Request, **what: Any) -> None:
    """Set fields of the request's journal entry."""
    for name, value in what.items():
        setattr(request.state.entry, name, value)


class Journal:
    """The entries so far, the oldest first.

    :param file: where they are kept as lines of JSON, one appended per request; None: in memory only.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._entries: deque[dict[str, Any]] = deque(_stored(file), maxlen=_CAPACITY)
        self._sequence = self._entries[-1]["sequence"] if self._entries else 0
        self._reset_at = 0
        # Without what a kill cut off, and what is forgotten.
        self._rewrite()

    def next_sequence(self) -> int:
        """Return the number of the next entry; they only grow."""
        self._sequence += 1
        return self._sequence

    def add(self, entry: Entry) -> None:
        """Append an entry that isn't over; one that had an effect is on the disk when this returns."""
        if self.is_over(entry):
            return
        document = entry.document
        self._entries.append(document)
        if self._file is None:
            return
        with self._file.open("a", encoding="utf-8") as lines:
            lines.write(f"{json.dumps(document)}\n")
            if entry.effect:
                lines.flush()
                os.fsync(lines.fileno())

    def find(self, method: str | None, path: str | None) -> list[dict[str, Any]]:
        """Return the entries of a method, with a regular expression found in the path; None: any.

        :raises re.error: if it isn't one.
        """
        pattern = re.compile(path or "")
        return [
            entry
            for entry in self._entries
            if method in (None, entry["method"]) and pattern.search(entry["path"])
        ]

    def clear(self) -> int:
        """Forget all entries, and return how many there were."""
        count = len(self._entries)
        self._entries.clear()
        self._rewrite()
        return count

    def reset(self) -> None:
        """Forget all entries, those to come of requests that are under way too."""
        self.clear()
        self._reset_at = self._sequence

    def is_over(self, entry: Entry) -> bool:
        """Return whether the request began before the last reset."""
        return entry.sequence <= self._reset_at

    def _rewrite(self) -> None:
        if self._file is not None:
            store.replace(self._file, "".join(f"{json.dumps(entry)}\n" for entry in self._entries))


def _stored(file: Path | None) -> list[dict[str, Any]]:
    if file is None or not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    # A line that a kill cut off has no end.
    return [json.loads(line) for line in lines if line.endswith("\n")]
