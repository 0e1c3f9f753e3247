"""Release one offer: change it, publish it, wait for approval of the preview, go live, and announce it.

Trigger the Dag with the image to release. It waits for days, and for the approval, without a worker.
`announce.py` is a separate Dag that starts when this one has updated the offer's asset. Needs Airflow 3.1 or
later; on an older version, remove `approve=True`.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import Asset, Param, chain, dag, task

from airflow_provider_cpp.operators.cloud_partner import UpdateOfferOperator
from airflow_provider_cpp.task_groups import release_offer

OFFER = "contoso-web"
LIVE = Asset(f"https://azuremarketplace.microsoft.com/marketplace/apps/contoso.{OFFER}")


def add_image(offer: dict[str, Any], params: dict[str, Any]) -> None:
    """Add the run's image to the offer's first plan. This function is idempotent."""
    images = offer["definition"]["plans"][0].setdefault("microsoft-azure-virtualmachines.vmImages", {})
    images[params["version"]] = {"osVhdUrl": params["url"], "lunVhdDetails": []}


@task(outlets=[LIVE])
def announce(version: str) -> None:
    """Announce the release, and update the asset on which other Dags are scheduled."""
    print(f"{OFFER} {version} is live: {LIVE.uri}")


@dag(
    schedule=None,
    params={
        "version": Param("1.0.0", type="string", pattern=r"^\d+\.\d+\.\d+$"),
        "url": Param("https://contoso.blob.core.windows.net/images/web.vhd", type="string", format="uri"),
    },
    # A retry is safe: it looks for the operation of an earlier try before it sends a request.
    default_args={"retries": 3},
    # One release of an offer at a time.
    max_active_runs=1,
    tags=["marketplace"],
    # The name of the function would hide the imported task group.
    dag_id="release_offer",
)
def release() -> None:
    """Change, publish, approve, go live, announce."""
    chain(
        UpdateOfferOperator(task_id="change", offer_id=OFFER, definition=add_image),
        release_offer(OFFER, approve=True),
        announce("{{ params.version }}"),
    )


release()
