"""Release many offers in one run and return a summary with the status of each offer.

Each offer is a mapped instance of the task group, so an offer that fails does not stop the others. The run
fails if an offer is not live at the end. To repair the run, correct the errors in the summary, then clear
`publish` of the failed instances together with its downstream tasks.

The tasks share a pool. Create it before the first run, or the tasks are never scheduled:

    airflow pools set marketplace 8 "Calls to the Cloud Partner Portal"
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException, Param, dag, task

from airflow_provider_cpp.task_groups import release_offer


@task
def offers(params: Any = None) -> list[str]:
    """Return the offers of this run."""
    return list(params["offers"])


def describe_status(hook: Any, offer_id: str) -> str:
    """Return `live`, or the reason why the offer is not live."""
    status = hook.get_offer_status(offer_id)
    if status.status == "succeeded":
        # If the service refused to publish the draft, this is the status of the previous release.
        offer, live = hook.get_offer(offer_id), hook.get_offer(offer_id, slot="production")
        return "live" if offer.definition == live.definition else "live, but without the draft's changes"
    step = status.current_step
    where = f"{status.status} in step {step.name}" if step else str(status.status)
    reasons = "; ".join(message.text for message in status.all_messages if message.level == "error")
    return f"{where}: {reasons}".rstrip(": ")


@task(trigger_rule="all_done")
def summary(offer_ids: Any, ti: Any = None) -> dict[str, str]:
    """Read the status of each offer from the service, and fail if an offer is not live."""
    # Imported here, because the Dag processor runs the top-level imports again and again.
    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook

    hook = CloudPartnerHook()
    lines = {offer_id: describe_status(hook, offer_id) for offer_id in offer_ids}
    print("\n".join(f"{offer_id}: {line}" for offer_id, line in lines.items()))
    ti.xcom_push(key="return_value", value=lines)
    if failed := [offer_id for offer_id, line in lines.items() if line != "live"]:
        raise AirflowFailException(f"{len(failed)} of {len(lines)} offers are not live: {', '.join(failed)}")
    return lines


@dag(
    schedule=None,
    params={"offers": Param(["contoso-web", "contoso-next"], type="array", items={"type": "string"})},
    # The pool limits concurrent calls; a deferred task takes no slot.
    default_args={"pool": "marketplace", "retries": 3},
    tags=["marketplace"],
)
def release_many() -> None:
    """Release the offers of the Param `offers`."""
    chosen = offers()
    release_offer.expand(offer_id=chosen) >> summary(chosen)


release_many()
