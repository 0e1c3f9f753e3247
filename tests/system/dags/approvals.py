"""Whole releases that need an approval; each run's conf names the offers."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import dag, task

from airflow_provider_cpp.task_groups import release_offer

# Longer than a busy scheduler needs to record a deferral: a task that resumes earlier fails.
POKE_INTERVAL = 10


@task
def announce() -> None:
    """Announce the release."""


@dag(schedule=None, params={"offer": ""})
def release_with_approval() -> None:
    """Release an offer after an approval, and announce it."""
    release_offer("{{ params.offer }}", approve=True, poke_interval=POKE_INTERVAL) >> announce()


@dag(schedule=None, params={"offers": []})
def release_many_with_approval() -> None:
    """Release offers with one approval for each."""

    @task
    def offers(params: dict[str, Any]) -> list[str]:
        chosen: list[str] = params["offers"]
        return chosen

    @task(trigger_rule="none_failed_min_one_success")
    def announce_those_that_are_live() -> None:
        """Run if at least one offer is live."""

    lanes = release_offer.partial(approve=True, poke_interval=POKE_INTERVAL).expand(offer_id=offers())
    lanes >> [announce(), announce_those_that_are_live()]


release_with_approval()
release_many_with_approval()
