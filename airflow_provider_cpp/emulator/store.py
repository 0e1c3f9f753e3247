"""The state file: the seed and the service's data. Each change replaces the whole file."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


class StoreError(ValueError):
    """An unreadable state file; the message is one line."""


def read(file: Path) -> dict[str, Any] | None:
    """Return the document that `write` stored; None if there is no file.

    :raises StoreError: the file is no state file
    """
    if not file.exists():
        return None
    try:
        document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return {"seed": document["seed"], "service": document["service"]}
    except (ValueError, KeyError, TypeError):
        raise StoreError(f"{file} is not a state file of the emulator") from None


def write(file: Path, document: dict[str, Any]) -> None:
    """Store a document."""
    replace(file, json.dumps(document))


def replace(file: Path, text: str) -> None:
    """Replace the file's content atomically.

    The file is readable by its owner only, because the seed has secrets.
    """
    temporary = file.with_name(f"{file.name}.tmp")
    temporary.unlink(missing_ok=True)
    with os.fdopen(
        os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
    ) as content:
        content.write(text)
        content.flush()
        os.fsync(content.fileno())
    temporary.replace(file)
    directory = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # makes the renaming durable
    finally:
        os.close(directory)
