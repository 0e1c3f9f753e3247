"""Release what a calendar says is due, day by day; days that were missed are backfilled.

    airflow backfill create --dag-id release_calendar --from-date 2026-03-01 --to-date 2026-03-10

Days of a backfill run side by side, and an offer that is due twice goes live in the order of its days, since
a lane waits for the image before its own. Run again, with `--reprocess-behavior completed`, nothing that is
live goes live again. A day that failed is cleared and goes on; only later releases of its offer wait for it.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import chain, dag, task, task_group

from airflow_provider_cpp.task_groups import release_offer

#: Which image of which offer is due when. In your Dag this may be a file, a table or a page.
CALENDAR = [
    (date(2026, 3, 2), "contoso-mail", "4.0.0"),
    (date(2026, 3, 5), "contoso-shop", "2.5.0"),
    (date(2026, 3, 5), "contoso-wiki", "1.1.0"),
    (date(2026, 3, 7), "contoso-mail", "4.0.1"),
    (date(2026, 3, 9), "contoso-shop", "2.5.1"),
]
IMAGES = "microsoft-azure-virtualmachines.vmImages"


def images(offer: Any) -> dict[str, Any]:
    """Return the images of an offer's first plan, by version."""
    found: dict[str, Any] = offer.definition["plans"][0].setdefault(IMAGES, {})
    return found


@task
def due(data_interval_end: Any = None) -> list[dict[str, str]]:
    """Return what is due on the run's day."""
    return [
        {"offer_id": offer_id, "version": version}
        for day, offer_id, version in CALENDAR
        if day == (data_interval_end or datetime.now(UTC)).date()
    ]


@task.sensor(
    mode="reschedule",
    poke_interval=30,
    exponential_backoff=True,
    max_wait=timedelta(minutes=10),
    timeout=30 * 86400,
    retries=10,
)
def the_one_before_is_live(offer_id: str, version: str) -> bool:
    """Wait until what was due before of the same offer is in production."""
    from airflow_provider_cpp.exceptions import NotFoundError
    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook

    versions = [its for _, offer, its in sorted(CALENDAR) if offer == offer_id]
    before = versions[: versions.index(version)]
    if not before:
        return True
    try:
        return before[-1] in images(CloudPartnerHook().get_offer(offer_id, slot="production"))
    except NotFoundError:  # it was never live
        return False


@task
def add_image(offer_id: str, version: str) -> None:
    """Add an image to an offer's draft, unless it is there; nobody else's change is overwritten."""
    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook

    hook = CloudPartnerHook()
    offer = hook.get_offer(offer_id)
    if version not in images(offer):
        url = f"https://contoso.blob.core.windows.net/images/{offer_id}-{version}.vhd"
        images(offer)[version] = {"osVhdUrl": url, "lunVhdDetails": []}
        # The service sends no ETag with a migrated offer.
        hook.put_offer(offer_id, offer.raw, if_match=offer.etag or "*")


@dag(
    schedule="@daily",
    start_date=datetime(2026, 3, 1, tzinfo=UTC),
    catchup=False,
    default_args={"retries": 3},
    tags=["marketplace"],
)
def release_calendar() -> None:
    """Release what is due today."""

    @task_group
    def release(offer_id: str, version: str) -> None:
        chain(
            the_one_before_is_live(offer_id, version),
            add_image(offer_id, version),
            release_offer(offer_id),
        )

    release.expand_kwargs(due())


release_calendar()
