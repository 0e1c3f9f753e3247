"""Whether a user ended a waiting task, or Airflow did so on its own.

`cancel_on_kill` cancels an operation only if a user failed or cleared the task. Airflow also ends tasks when
a worker or triggerer shuts down, when the Dag run times out, and when another task of a Dag with `fail_fast`
fails. In case of doubt, the operation continues.
"""

from __future__ import annotations

from typing import Any

FAILED = "failed"
#: States of a task after a user cleared it and before its next try runs.
_CLEARED = (None, "scheduled", "queued", "restarting")


def describe_user_action(ti: Any, *, fail_fast: bool = False) -> str | None:
    """Return `failed` or `cleared` if a user did that to a task; None if the task ended for another reason.

    :param ti: the task instance
    :param fail_fast: whether the Dag ends running tasks when another task fails
    :raises Exception: Airflow cannot report the state
    """
    state = _state_of(ti)
    if state in _CLEARED:
        return "cleared"
    if state != FAILED or (fail_fast and _has_other_failed_task(ti)):
        return None
    return FAILED


def _state_of(ti: Any) -> str | None:
    if hasattr(ti, "current_state"):  # Airflow 2
        state: str | None = ti.current_state()
        return state
    states = _get_task_states(ti, task_ids=[ti.task_id], map_index=ti.map_index)
    # A deleted task instance is not a cleared one.
    return states.get(_key_of(ti), "removed")


def _has_other_failed_task(ti: Any) -> bool:
    if hasattr(ti, "current_state"):  # Airflow 2
        failed = ti.get_dagrun().get_task_instances(state=[FAILED])
        return any((other.task_id, other.map_index) != (ti.task_id, ti.map_index) for other in failed)
    return any(state == FAILED for key, state in _get_task_states(ti).items() if key != _key_of(ti))


def _get_task_states(ti: Any, **which: Any) -> dict[str, str | None]:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    states = RuntimeTaskInstance.get_task_states(dag_id=ti.dag_id, run_ids=[ti.run_id], **which)
    run: dict[str, str | None] = states.get(ti.run_id, {})
    return run


def _key_of(ti: Any) -> str:
    is_mapped = ti.map_index is not None and ti.map_index >= 0
    return f"{ti.task_id}_{ti.map_index}" if is_mapped else str(ti.task_id)
