"""Release the offers that a calendar lists for the day of the run.

To release the offers of missed days, create a backfill:

    airflow backfill create --dag-id release_calendar --from-date 2026-03-01 --to-date 2026-03-10

The days of a backfill run in parallel. An offer that is due twice goes live in the order of its days, because
each release waits until the previous version is live. If you backfill the same days again with
`--reprocess-behavior completed`, no live version goes live again. Clear a failed day to continue it; only
later releases of the same offer wait for it. Needs Airflow 3.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import chain, dag, task, task_group

from airflow_provider_cpp.task_groups import release_offer

#: Day, offer and image version of each release. In your Dag, read them from a file, a table or an API.
CALENDAR = [
    (date(2026, 3, 2), "contoso-mail", "4.0.0"),
    (date(2026, 3, 5), "contoso-shop", "2.5.0"),
    (date(2026, 3, 5), "contoso-wiki", "1.1.0"),
    (date(2026, 3, 7), "contoso-mail", "4.0.1"),
    (date(2026, 3, 9), "contoso-shop", "2.5.1"),
]
IMAGES = "microsoft-azure-virtualmachines.vmImages"


def images(offer: Any) -> dict[str, Any]:
    """Return the images of the offer's first plan by version."""
    found: dict[str, Any] = offer.definition["plans"][0].setdefault(IMAGES, {})
    return found


@task
def due(data_interval_end: Any = None) -> list[dict[str, str]]:
    """Return the releases that are due on the day of the run."""
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
def previous_version_is_live(offer_id: str, version: str) -> bool:
    """Wait until the previous version of the same offer is in production."""
    from airflow_provider_cpp.exceptions import NotFoundError
    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook

    versions = [image for _, offer, image in sorted(CALENDAR) if offer == offer_id]
    earlier = versions[: versions.index(version)]
    if not earlier:
        return True
    try:
        return earlier[-1] in images(CloudPartnerHook().get_offer(offer_id, slot="production"))
    except NotFoundError:  # the offer was never live
        return False


@task
def add_image(offer_id: str, version: str) -> None:
    """Add an image to the offer's draft. The ETag protects changes of other users."""
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
    """Release the offers that are due today."""

    @task_group
    def release(offer_id: str, version: str) -> None:
        chain(
            previous_version_is_live(offer_id, version),
            add_image(offer_id, version),
            release_offer(offer_id),
        )

    release.expand_kwargs(due())


release_calendar()
