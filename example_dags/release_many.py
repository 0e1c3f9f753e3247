"""Release many offers in one run, each in a lane of its own, and say at the end how each of them stands.

An offer that fails stops none of the others. The run fails if an offer isn't live at its end; correct what
the summary names, clear `publish` of those lanes with what is downstream, and the run goes on with them.

The tasks' calls share a pool. Make it first, else they are never scheduled:

    airflow pools set marketplace 8 "Calls of the Cloud Partner Portal at a time"
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException, Param, dag, task

from airflow_provider_cpp.task_groups import release_offer


@task
def offers(params: Any = None) -> list[str]:
    """Return the offers of this run."""
    return list(params["offers"])


def standing(hook: Any, offer_id: str) -> str:
    """Return `live`, or why an offer is not."""
    status = hook.get_offer_status(offer_id)
    if status.status == "succeeded":
        # That may be the release before, if the service refused to publish the draft.
        offer, live = hook.get_offer(offer_id), hook.get_offer(offer_id, slot="production")
        return "live" if offer.definition == live.definition else "live, but without the draft's changes"
    step = status.current_step
    where = f"{status.status} in step {step.name}" if step else str(status.status)
    said = "; ".join(message.text for message in status.all_messages if message.level == "error")
    return f"{where}: {said}".rstrip(": ")


@task(trigger_rule="all_done")
def summary(offer_ids: Any, ti: Any = None) -> dict[str, str]:
    """Ask the service which offers are live, and why the others are not."""
    # Not at the top: the Dag processor reads this file all day.
    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook

    hook = CloudPartnerHook()
    lines = {offer_id: standing(hook, offer_id) for offer_id in offer_ids}
    print("\n".join(f"{offer_id}: {line}" for offer_id, line in lines.items()))
    ti.xcom_push(key="return_value", value=lines)
    if failed := [offer_id for offer_id, line in lines.items() if line != "live"]:
        raise AirflowFailException(f"{len(failed)} of {len(lines)} offers are not live: {', '.join(failed)}")
    return lines


@dag(
    schedule=None,
    params={"offers": Param(["contoso-web", "contoso-next"], type="array", items={"type": "string"})},
    # So many calls at a time; a wait in the triggerer takes no slot.
    default_args={"pool": "marketplace", "retries": 3},
    tags=["marketplace"],
)
def release_many() -> None:
    """Release the offers of the Param."""
    chosen = offers()
    release_offer.expand(offer_id=chosen) >> summary(chosen)


release_many()
