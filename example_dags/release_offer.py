"""A whole release of one offer: change it, publish it, have the preview approved, go live, announce.

Trigger it with the image that is to be released. It waits for days without a worker, for the approval too.
What the announcement is for others in Airflow: see `announce.py`. It needs Airflow 3.1 or later; on an older
one leave out `approve=True`.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import Asset, Param, chain, dag, task

from airflow_provider_cpp.operators.cloud_partner import UpdateOfferOperator
from airflow_provider_cpp.task_groups import release_offer

OFFER = "contoso-web"
LIVE = Asset(f"https://azuremarketplace.microsoft.com/marketplace/apps/contoso.{OFFER}")


def add_image(offer: dict[str, Any], params: dict[str, Any]) -> None:
    """Add the run's image to the offer's first plan; adding it twice changes nothing."""
    images = offer["definition"]["plans"][0].setdefault("microsoft-azure-virtualmachines.vmImages", {})
    images[params["version"]] = {"osVhdUrl": params["url"], "lunVhdDetails": []}


@task(outlets=[LIVE])
def announce(version: str) -> None:
    """Tell the world, and the Dags that are scheduled on the asset."""
    print(f"{OFFER} {version} is live: {LIVE.uri}")


@dag(
    schedule=None,
    params={
        "version": Param("1.0.0", type="string", pattern=r"^\d+\.\d+\.\d+$"),
        "url": Param("https://contoso.blob.core.windows.net/images/web.vhd", type="string", format="uri"),
    },
    # Safe: a retry looks for what an earlier try began before it sends anything.
    default_args={"retries": 3},
    # One release of an offer at a time.
    max_active_runs=1,
    tags=["marketplace"],
    # `release_offer` is this Dag and the task group as well.
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
