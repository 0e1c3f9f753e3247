"""Announce a release in a Dag of its own, which starts when `release_offer.py` has updated the offer's asset.

Those who announce need nothing of the release Dag but an asset: no shared file, no sensor. For Airflow 3.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import Asset, dag, task

OFFER = "contoso-web"
LIVE = Asset(f"https://azuremarketplace.microsoft.com/marketplace/apps/contoso.{OFFER}")


@task
def tell(triggering_asset_events: Any = None) -> list[str]:
    """Tell the world: mail, chat, a tag in the repository."""
    lines = [
        f"{asset.uri} is live, by run {event.source_run_id} of {event.source_dag_id}"
        for asset, events in triggering_asset_events.items()
        for event in events
    ]
    print("\n".join(lines))
    return lines


@dag(schedule=[LIVE], tags=["marketplace"])
def announce() -> None:
    """Announce what has gone live."""
    tell()


announce()
