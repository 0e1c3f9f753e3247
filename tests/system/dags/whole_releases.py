"""A whole release without approval; each run's conf names the offer."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import dag, task

from airflow_provider_cpp.task_groups import release_offer

# Longer than a busy scheduler needs to record a deferral: a task that resumes earlier fails.
POKE_INTERVAL = 10


@task
def announce() -> None:
    """Announce the release."""


@dag(schedule=None, params={"offer": ""})
def release() -> None:
    """Release an offer, and announce it."""
    release_offer("{{ params.offer }}", poke_interval=POKE_INTERVAL) >> announce()


release()
