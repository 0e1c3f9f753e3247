"""A whole release of an offer as one task group."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import chain, task_group

from airflow_provider_cpp.constants import DEFAULT_CONN_ID
from airflow_provider_cpp.operators.cloud_partner import GoLiveOperator, PublishOperator

if TYPE_CHECKING:
    from collections.abc import Sequence


class _ReleaseOffer:
    """Publish an offer, wait for its preview, have it approved, go live, and wait until it is live.

    What is downstream of the group runs only when the offer is live. An offer whose draft has nothing new and
    that was live before the Dag run began is skipped, and what is downstream with it. So a release can be run
    again, as backfills do: nothing is sent twice. (A run that is cleared after it took the offer live goes on
    from there, and what is downstream runs again.)

    The tasks are `publish` and `go_live`, which also wait, and with `approve` between them `review`, which
    sums up what changes for customers, and `approve`, Airflow's own `ApprovalOperator`. Rejected means that
    the rest is skipped. Only the version that was approved goes live.

    It is called, or expanded over offers, like a function that is decorated with `@task_group`::

        release_offer("contoso-linux", approve=True) >> announce()
        release_offer.partial(approve=True).expand(offer_id=["contoso-linux", "contoso-database"])

    :param offer_id: id of the offer (templated)
    :param publisher_id: id of the publisher; by default the connection's (templated)
    :param approve: ask somebody before going live; Airflow 3.1 and later
    :param group_id: id of the task group; `release_offer` by default
    :param cloud_partner_conn_id: id of the connection (templated)
    :param notification_emails: whom the service tells; ignored for migrated offers (templated)
    :param deferrable: wait in the triggerer; otherwise in the worker
    :param poke_interval: the shortest time between two polls, in seconds or as a timedelta
    :param max_wait: the longest time between two polls, in seconds or as a timedelta
    :param timeout: when to give up the wait for the preview, and that for the completion, in seconds or as a
        timedelta
    :param cancel_on_kill: cancel the operation at the service when a user fails or clears the waiting task
        (deferred: Airflow 3.3 and later), or when its `execution_timeout` runs out
    :raises RuntimeError: `approve` on an Airflow that has no approvals
    """

    def __call__(
        self,
        offer_id: Any,
        publisher_id: Any = None,
        *,
        approve: bool = False,
        group_id: str | None = None,
        **options: Any,
    ) -> Any:
        """Add the group to the Dag that is being made, and return it."""
        return _group(group_id)(offer_id, publisher_id, approve=approve, **options)

    def partial(self, *, group_id: str | None = None, **kwargs: Any) -> Any:
        """Fix arguments before `expand`."""
        return _group(group_id).partial(**kwargs)

    def expand(self, **mapped: Any) -> Any:
        """Add the group once for each offer."""
        return _group(None).expand(**mapped)


release_offer = _ReleaseOffer()


def _group(group_id: str | None) -> Any:
    return task_group(group_id=group_id or "release_offer", tooltip="Release an offer")(_release)


def _release(
    offer_id: Any,
    publisher_id: Any = None,
    *,
    approve: bool = False,
    cloud_partner_conn_id: str = DEFAULT_CONN_ID,
    notification_emails: Sequence[str] = (),
    deferrable: bool = True,
    poke_interval: timedelta | float = 30,
    max_wait: timedelta | float = 600,
    timeout: timedelta | float = timedelta(days=7),
    cancel_on_kill: bool = False,
) -> None:
    if not isinstance(approve, bool):
        raise TypeError(
            "release_offer: whether to approve is decided when the Dag is parsed, so it can't be mapped: "
            "give it as partial(approve=...). To map dicts, expand a task group of yours that calls "
            f"release_offer. Not {approve!r}"
        )
    offer: dict[str, Any] = {
        "offer_id": offer_id,
        "publisher_id": publisher_id,
        "cloud_partner_conn_id": cloud_partner_conn_id,
    }
    waiting: dict[str, Any] = {
        "wait_for_completion": True,
        "deferrable": deferrable,
        "poke_interval": poke_interval,
        "max_wait": max_wait,
        "timeout": timeout,
        "cancel_on_kill": cancel_on_kill,
    }
    published = PublishOperator(
        task_id="publish",
        notification_emails=notification_emails,
        if_published="succeed",
        **offer,
        **waiting,
    )
    if not approve:
        published >> GoLiveOperator(task_id="go_live", if_live="skip", **offer, **waiting)
        return
    # Approvals are not in every Airflow, and not in every Dag.
    from airflow_provider_cpp.release.approval import MappedApprovalOperator, review

    asked: Any = review(**offer)
    approved: Any = MappedApprovalOperator(
        task_id="approve", subject=asked["subject"], body=asked["body"], version=asked["version"]
    )
    live = GoLiveOperator(
        task_id="go_live", version=approved.output["version"], if_live="skip", **offer, **waiting
    )
    chain(published, asked, approved, live)
