"""The state file: the seed and the service's data, replaced as a whole at every change."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


class StoreError(ValueError):
    """A state file that can't be read; the message is one line."""


def read(file: Path) -> dict[str, Any] | None:
    """Return what `write` wrote, None if there is no such file yet.

    :raises StoreError: if it is something else.
    """
    if not file.exists():
        return None
    try:
        document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return {"seed": document["seed"], "service": document["service"]}
    except (ValueError, KeyError, TypeError):
        raise StoreError(f"{file} is not a state file of the emulator") from None


def write(file: Path, document: dict[str, Any]) -> None:
    """Keep a document."""
    replace(file, json.dumps(document))


def replace(file: Path, text: str) -> None:
    """Replace the file's content; whatever happens, the old or the new one is there as a whole.

    It is readable by its owner only, for the seed's secrets.
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
        os.fsync(directory)  # the renaming itself
    finally:
        os.close(directory)
