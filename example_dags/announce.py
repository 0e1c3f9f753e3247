"""Announce a release in a separate Dag that starts when `release_offer.py` has updated the offer's asset.

The two Dags share only the asset: no file, no sensor. Needs Airflow 3.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import Asset, dag, task

OFFER = "contoso-web"
LIVE = Asset(f"https://azuremarketplace.microsoft.com/marketplace/apps/contoso.{OFFER}")


@task
def tell(triggering_asset_events: Any = None) -> list[str]:
    """Announce the release. Replace this with your mail, chat message, or repository tag."""
    lines = [
        f"{asset.uri} is live, by run {event.source_run_id} of {event.source_dag_id}"
        for asset, events in triggering_asset_events.items()
        for event in events
    ]
    print("\n".join(lines))
    return lines


@dag(schedule=[LIVE], tags=["marketplace"])
def announce() -> None:
    """Announce the offers that went live."""
    tell()


announce()
