"""The journal: all requests and their responses, without tokens, secrets and assertions."""

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

# Enough for days of polling by dozens of clients; older entries are dropped.
_CAPACITY = 100_000


@dataclass
class Entry:
    """One request of the API or of a token endpoint.

    :param path: as the client sent it, with its percent-encoding
    :param client_id: client id of the principal; None if it is not known
    :param status: HTTP status of the response; None if the connection was closed without a response
    :param effect: whether the service's data changed
    :param fault: the rule that was applied, without its counts; it has ``"token": "refused"`` if the token
        became invalid before it expired
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


def annotate(request: Request, **fields: Any) -> None:
    """Set fields of the request's journal entry."""
    for name, value in fields.items():
        setattr(request.state.entry, name, value)


class Journal:
    """The entries, the oldest first.

    :param file: a file with one line of JSON per entry; None to keep the entries in memory only
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._entries: deque[dict[str, Any]] = deque(_stored(file), maxlen=_CAPACITY)
        self._sequence = self._entries[-1]["sequence"] if self._entries else 0
        self._reset_at = 0
        # Without an incomplete last line, and without dropped entries.
        self._rewrite()

    def next_sequence(self) -> int:
        """Return the number of the next entry; the numbers only increase."""
        self._sequence += 1
        return self._sequence

    def add(self, entry: Entry) -> None:
        """Append an entry, unless it is obsolete. One with an effect is on the disk when this returns."""
        if self.is_obsolete(entry):
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
        """Return the entries with a method and a path that matches a regular expression; None means any.

        :raises re.error: the path is no regular expression
        """
        pattern = re.compile(path or "")
        return [
            entry
            for entry in self._entries
            if method in (None, entry["method"]) and pattern.search(entry["path"])
        ]

    def clear(self) -> int:
        """Remove all entries, and return their number."""
        count = len(self._entries)
        self._entries.clear()
        self._rewrite()
        return count

    def reset(self) -> None:
        """Remove all entries, and add no entry for requests in progress."""
        self.clear()
        self._reset_at = self._sequence

    def is_obsolete(self, entry: Entry) -> bool:
        """Return whether the request arrived before the last reset."""
        return entry.sequence <= self._reset_at

    def _rewrite(self) -> None:
        if self._file is not None:
            store.replace(self._file, "".join(f"{json.dumps(entry)}\n" for entry in self._entries))


def _stored(file: Path | None) -> list[dict[str, Any]]:
    if file is None or not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    # The last line is incomplete if the process was killed while it wrote.
    return [json.loads(line) for line in lines if line.endswith("\n")]
