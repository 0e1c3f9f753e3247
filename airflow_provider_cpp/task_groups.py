"""A whole release of an offer as one task group."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import chain, task_group

from airflow_provider_cpp.arguments import is_reference, to_flag
from airflow_provider_cpp.offer_task import UNSET
from airflow_provider_cpp.operators.cloud_partner import GoLiveOperator, PublishOperator

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.providers.common.compat.sdk import TaskGroup, XComArg

#: Arguments that can differ between the offers that the group is expanded over.
MAPPABLE = ("offer_id", "publisher_id", "cloud_partner_conn_id", "notification_emails")


class ReleaseOffer:
    """Publish an offer, wait for its preview, request an approval, go live, and wait until the offer is live.

    Tasks downstream of the group run only when the offer is live. An offer whose draft has no changes and
    that was live before the Dag run started is skipped, with the tasks downstream. A release is therefore
    safe to run again, for example in a backfill: no request is sent twice. A run that is cleared after the
    offer went live continues from there, and the tasks downstream run again.

    The tasks are `publish` and `go_live`, which also wait for the end of their operation. With `approve=True`
    two tasks run between them: `review` summarizes what changes for customers, and `approve` is Airflow's own
    `ApprovalOperator`. A rejection skips the rest. Only the version that was approved goes live.

    Call it, or expand it over offers, like a function with the decorator `@task_group`::

        release_offer("contoso-linux", approve=True) >> announce()
        release_offer.partial(approve=True).expand(offer_id=["contoso-linux", "contoso-database"])
        release_offer.expand_kwargs([{"offer_id": "web"}, {"offer_id": "mail", "publisher_id": "fabrikam"}])
        release_offer.override(group_id="web", tooltip="Release the web offer")("contoso-web")

    An argument with the value None, or missing in a dict of `expand_kwargs`, gets its value from the
    `default_args` of the Dag or the task group, or else the default of `PublishOperator` and
    `GoLiveOperator`.

    :param offer_id: id of the offer (templated)
    :param publisher_id: id of the publisher; by default the connection's publisher (templated)
    :param approve: request an approval before the offer goes live; Airflow 3.1 and later
    :param group_id: id of the task group; `release_offer` by default
    :param cloud_partner_conn_id: id of the connection (templated)
    :param notification_emails: addresses that the service notifies; ignored for migrated offers (templated)
    :param deferrable: wait in the triggerer; otherwise in the worker
    :param poke_interval: shortest time between two polls, in seconds or as a timedelta
    :param max_wait: longest time between two polls, in seconds or as a timedelta
    :param timeout: time limit for the preview, and again for the completion, in seconds or as a timedelta
    :param cancel_on_kill: cancel the operation at the service when a user fails or clears the waiting task
        (deferred: Airflow 3.3 and later), or when its `execution_timeout` expires
    :raises ValueError: an argument is not possible
    :raises AirflowOptionalProviderFeatureException: `approve=True` on an Airflow without approvals
    """

    def __init__(
        self, group: Mapping[str, Any] | None = None, fixed: Mapping[str, Any] | None = None
    ) -> None:
        self._group = {"group_id": "release_offer", "tooltip": "Release an offer", **(group or {})}
        self._fixed = dict(fixed or {})

    def __call__(
        self,
        offer_id: str | XComArg,
        publisher_id: str | XComArg | None = None,
        *,
        approve: bool = False,
        group_id: str | None = None,
        cloud_partner_conn_id: str | XComArg | None = None,
        notification_emails: Sequence[str | XComArg] | str | XComArg | None = None,
        deferrable: bool | None = None,
        poke_interval: timedelta | float | None = None,
        max_wait: timedelta | float | None = None,
        timeout: timedelta | float | None = None,
        cancel_on_kill: bool | None = None,
    ) -> TaskGroup:
        """Add the task group to the current Dag, and return it."""
        group: TaskGroup = self.override(**_group_id(group_id))._factory()(
            offer_id,
            publisher_id,
            approve=approve,
            cloud_partner_conn_id=cloud_partner_conn_id,
            notification_emails=notification_emails,
            deferrable=deferrable,
            poke_interval=poke_interval,
            max_wait=max_wait,
            timeout=timeout,
            cancel_on_kill=cancel_on_kill,
        )
        return group

    def override(self, **group: Any) -> ReleaseOffer:
        """Set arguments of the `TaskGroup`, for example `group_id` or `default_args`."""
        return ReleaseOffer(self._group | group, self._fixed)

    def partial(self, *, group_id: str | None = None, **arguments: Any) -> ReleaseOffer:
        """Set arguments that are the same for all offers, before `expand` or `expand_kwargs`."""
        return ReleaseOffer(self._group | _group_id(group_id), self._fixed | arguments)

    def expand(self, **mapped: Any) -> TaskGroup:
        """Add the task group once for each offer."""
        _check_mappable(mapped, self._fixed)
        group: TaskGroup = self._factory(**self._fixed).expand(**mapped)
        return group

    def expand_kwargs(self, arguments: Sequence[Mapping[str, Any]] | XComArg) -> TaskGroup:
        """Add the task group once for each dict of arguments.

        :param arguments: dicts, or a task that returns them. Arguments that are missing in a dict have their
            defaults.
        """
        fixed = self._fixed
        names = [name for name in MAPPABLE if name not in fixed]

        def complete(given: Mapping[str, Any]) -> dict[str, Any]:
            _check_mappable(given, fixed)
            return dict.fromkeys(names, UNSET) | dict(given)

        if is_reference(arguments):
            dicts = arguments.map(complete)  # type: ignore[union-attr]
        else:
            items = list(arguments)  # type: ignore[arg-type]
            for item in items:
                _check_mappable(item, fixed)
            names = [name for name in names if any(name in item for item in items)]
            dicts = [{name: item.get(name) for name in names} for item in items]
        # Airflow maps all arguments of the function that partial() does not set.
        unmapped = {
            name: parameter.default
            for name, parameter in inspect.signature(_release).parameters.items()
            if name not in names and name not in fixed and parameter.default is not parameter.empty
        }
        group: TaskGroup = self._factory(**fixed, **unmapped).expand_kwargs(dicts)
        return group

    def _factory(self, **fixed: Any) -> Any:
        """Return Airflow's factory of the task group, with some arguments fixed."""
        factory = task_group(**self._group)(_release)
        return factory.partial(**fixed) if fixed else factory


def _group_id(group_id: str | None) -> dict[str, str]:
    return {"group_id": group_id} if group_id else {}


def _check_mappable(given: Any, fixed: Mapping[str, Any]) -> None:
    """Raise `ValueError` if an argument cannot differ between offers, or is also in `partial`."""
    if not isinstance(given, Mapping):
        raise ValueError(f"release_offer.expand_kwargs needs a list of dicts, not {type(given).__name__}.")
    if unknown := [name for name in given if name not in MAPPABLE]:
        raise ValueError(
            f"release_offer cannot be expanded over {unknown[0]!r}, only over {', '.join(MAPPABLE)}. Pass an "
            f"argument that is the same for all offers to partial({unknown[0]}=...)."
        )
    if both := [name for name in given if name in fixed]:
        raise ValueError(f"release_offer: {both[0]!r} is given twice, to partial and to expand.")


def _release(
    offer_id: Any,
    publisher_id: Any = None,
    approve: Any = False,
    cloud_partner_conn_id: Any = None,
    notification_emails: Any = None,
    deferrable: Any = None,
    poke_interval: Any = None,
    max_wait: Any = None,
    timeout: Any = None,
    cancel_on_kill: Any = None,
) -> None:
    offer = {
        "offer_id": offer_id,
        "publisher_id": publisher_id,
        "cloud_partner_conn_id": cloud_partner_conn_id,
    }
    waiting = {
        "deferrable": deferrable,
        "poke_interval": poke_interval,
        "max_wait": max_wait,
        "timeout": timeout,
        "cancel_on_kill": cancel_on_kill,
    }
    # An argument that is passed on has precedence over `default_args`.
    given: dict[str, Any] = {name: value for name, value in (offer | waiting).items() if value is not None}
    emails = {} if notification_emails is None else {"notification_emails": notification_emails}
    publish = PublishOperator(
        task_id="publish", if_published="succeed", wait_for_completion=True, **given, **emails
    )
    live: dict[str, Any] = {"task_id": "go_live", "if_live": "skip", "wait_for_completion": True, **given}
    if not to_flag("approve", approve):
        publish >> GoLiveOperator(**live)
        return
    # Not at the top: an Airflow before 3.1 has no approvals.
    from airflow_provider_cpp.operators.approval import OfferApprovalOperator, ReviewOperator

    review = ReviewOperator(
        task_id="review", **{name: value for name, value in given.items() if name in offer}
    )
    summary: Any = review.output
    approval = OfferApprovalOperator(
        task_id="approve", **{key: summary[key] for key in ("subject", "body", "version", "offer")}
    )
    approved: Any = approval.output
    chain(publish, review, approval, GoLiveOperator(version=approved["version"], **live))


#: `ReleaseOffer` documents the arguments.
release_offer = ReleaseOffer()
