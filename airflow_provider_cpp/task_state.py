"""State of a task that survives retries and reschedules: Airflow's task state store (3.3 and later)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)


def load(context: Mapping[str, Any], key: str) -> Any:
    """Return a stored JSON value; None if there is no value, no store, or the store does not respond."""
    store = context.get("task_state_store")
    if store is None:
        return None
    try:
        return store.get(key)
    except Exception as error:
        log.warning("Could not read %r from Airflow's task state store: %s", key, error)
        return None


def save(context: Mapping[str, Any], key: str, value: Any) -> None:
    """Store a JSON value, if this Airflow has a store. A failure is logged: the task can do without."""
    store = context.get("task_state_store")
    if store is None:
        return
    try:
        store.set(key, value)
    except Exception as error:
        log.warning("Could not write %r to Airflow's task state store: %s", key, error)
