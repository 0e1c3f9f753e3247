"""Operators that release offers on the Microsoft commercial marketplace."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_cpp.arguments import IfDone, check_literal
from airflow_provider_cpp.constants import DEFAULT_CONN_ID, IfRunning
from airflow_provider_cpp.core.errors import NotFoundError
from airflow_provider_cpp.core.polling import SUCCESS_STATUSES
from airflow_provider_cpp.links.cloud_partner import LIVE, PREVIEW
from airflow_provider_cpp.links.cloud_partner import LiveLink as LiveLink
from airflow_provider_cpp.links.cloud_partner import PartnerCenterLink as PartnerCenterLink
from airflow_provider_cpp.links.cloud_partner import PreviewLink as PreviewLink
from airflow_provider_cpp.operators.base import OfferOperator, OperationOperator
from airflow_provider_cpp.operators.offers import GetOfferOperator as GetOfferOperator
from airflow_provider_cpp.operators.offers import UpdateOfferOperator as UpdateOfferOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook


class PublishOperator(OperationOperator):
    """Publish an offer's draft to its preview, exactly once per task instance. Reference: Publish.

    Returns the Location path of the operation, for `OperationSensor(until="preview")`.

    Before it sends a request, the operator reads the offer's operations. It adopts a publish of this draft
    that is running or awaits the signoff. It also adopts a publish that succeeded since this Dag run started,
    if the preview still has the draft's definition. It never adopts an operation that failed or was canceled,
    or that started before the last change of the draft, because that one publishes another definition.

    :param offer_id: id of the offer (templated)
    :param publisher_id: id of the publisher; by default the connection's publisher (templated)
    :param cloud_partner_conn_id: id of the connection (templated)
    :param notification_emails: addresses that the service notifies, as a list or as text with commas; ignored
        for migrated offers (templated)
    :param if_running: `adopt` a publish of this draft that is running, or `fail`
    :param if_published: action if the preview already has the draft's definition and no publish can be
        adopted: `skip` the task, `succeed` and return None, or `submit` without this check
    :param wait_for_completion: wait in the same task until the preview is ready
    :param deferrable: poll in the triggerer; otherwise in the worker
    :param poke_interval: shortest time between two polls, in seconds or as a timedelta
    :param max_wait: longest time between two polls, in seconds or as a timedelta
    :param timeout: time limit of the polling, in seconds or as a timedelta
    :param cancel_on_kill: cancel the operation, also an adopted one, when a user fails or clears the waiting
        task (deferred: Airflow 3.3 and later), or when its `execution_timeout` expires
    :raises ValueError: an argument or the connection is not usable; no request was sent; without retries
    :raises ValidationError: the offer failed validation; without retries
    :raises NotFoundError: the offer or the publisher does not exist; without retries
    :raises ConflictError: a go-live or a publish of another definition is running, or with
        `if_running="fail"` any publish
    :raises CloudPartnerError: or a subclass: the service refused the request or is not reachable
    :raises OperationFailedError: the awaited operation failed; without retries
    :raises OperationCanceledError: the awaited operation was canceled; without retries
    """

    template_fields: Sequence[str] = (*OfferOperator.template_fields, "notification_emails")

    _until = SUCCESS_STATUSES["preview"]
    _pages_done = (PREVIEW,)

    def __init__(
        self,
        *,
        offer_id: str | XComArg,
        publisher_id: str | XComArg | None = None,
        cloud_partner_conn_id: str | XComArg | None = DEFAULT_CONN_ID,
        notification_emails: Sequence[str | XComArg] | str | XComArg | None = (),
        if_running: IfRunning = "adopt",
        if_published: IfDone = "submit",
        wait_for_completion: bool = False,
        deferrable: bool = True,
        poke_interval: timedelta | float = 30,
        max_wait: timedelta | float = 600,
        timeout: timedelta | float = timedelta(days=7),
        cancel_on_kill: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            offer_id=offer_id,
            publisher_id=publisher_id,
            cloud_partner_conn_id=cloud_partner_conn_id,
            wait_for_completion=wait_for_completion,
            deferrable=deferrable,
            poke_interval=poke_interval,
            max_wait=max_wait,
            timeout=timeout,
            cancel_on_kill=cancel_on_kill,
            **kwargs,
        )
        self.notification_emails = check_literal("notification_emails", notification_emails)
        self.if_running: IfRunning = check_literal("if_running", if_running)
        self.if_published: IfDone = check_literal("if_published", if_published)

    def _begin(self, hook: CloudPartnerHook, publisher_id: str, context: Context) -> str | None:
        from airflow_provider_cpp.release.lookup import OfferOperations
        from airflow_provider_cpp.release.publish import Publish

        publish = Publish(
            OfferOperations(hook, publisher_id, self.offer_id), notification_emails=self.notification_emails
        )
        return self._submit(publish, context, if_running=self.if_running, if_applied=self.if_published)


class GoLiveOperator(OperationOperator):
    """Take an offer from preview to production, exactly once per task instance. Reference: Go live.

    Returns the Location path of the operation, for `OperationSensor`.

    Before it sends a request, the operator reads the offer's operations. It adopts a go-live that is running.
    It also adopts a go-live that succeeded since this Dag run started, if production has the preview's
    version. A task that was killed after its request, or that lost the response, therefore does not go live
    twice. It never adopts an operation that failed or was canceled.

    :param offer_id: id of the offer (templated)
    :param publisher_id: id of the publisher; by default the connection's publisher (templated)
    :param cloud_partner_conn_id: id of the connection (templated)
    :param version: version that must be in preview, for example the approved one; any version by default
        (templated)
    :param if_running: `adopt` a go-live that is running, or `fail`
    :param if_live: action if production already has the preview's version: `skip` the task, `succeed` and
        return None, or `submit` without this check
    :param wait_for_completion: wait in the same task, as `OperationSensor` does
    :param deferrable: poll in the triggerer; otherwise in the worker
    :param poke_interval: shortest time between two polls, in seconds or as a timedelta
    :param max_wait: longest time between two polls, in seconds or as a timedelta
    :param timeout: time limit of the polling, in seconds or as a timedelta
    :param cancel_on_kill: cancel the operation, also an adopted one, when a user fails or clears the waiting
        task (deferred: Airflow 3.3 and later), or when its `execution_timeout` expires
    :raises ValueError: an argument or the connection is not usable; no request was sent; without retries
    :raises ValidationError: the service rejected the request; without retries
    :raises NotFoundError: the offer or the publisher does not exist; without retries
    :raises ConflictError: a publish is running, with `if_running="fail"` a go-live is running, or another
        `version` is in preview
    :raises CloudPartnerError: or a subclass: the service refused the request or is not reachable
    :raises OperationFailedError: the awaited operation failed; without retries
    :raises OperationCanceledError: the awaited operation was canceled; without retries
    """

    template_fields: Sequence[str] = (*OfferOperator.template_fields, "version")

    _pages_begun = (PREVIEW,)
    _pages_done = (PREVIEW, LIVE)

    def __init__(
        self,
        *,
        offer_id: str | XComArg,
        publisher_id: str | XComArg | None = None,
        cloud_partner_conn_id: str | XComArg | None = DEFAULT_CONN_ID,
        version: int | str | XComArg | None = None,
        if_running: IfRunning = "adopt",
        if_live: IfDone = "submit",
        wait_for_completion: bool = False,
        deferrable: bool = True,
        poke_interval: timedelta | float = 30,
        max_wait: timedelta | float = 600,
        timeout: timedelta | float = timedelta(days=7),
        cancel_on_kill: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            offer_id=offer_id,
            publisher_id=publisher_id,
            cloud_partner_conn_id=cloud_partner_conn_id,
            wait_for_completion=wait_for_completion,
            deferrable=deferrable,
            poke_interval=poke_interval,
            max_wait=max_wait,
            timeout=timeout,
            cancel_on_kill=cancel_on_kill,
            **kwargs,
        )
        # Any: until `execute`, it can be a template.
        self.version: Any = check_literal("version", version)
        self.if_running: IfRunning = check_literal("if_running", if_running)
        self.if_live: IfDone = check_literal("if_live", if_live)

    def _begin(self, hook: CloudPartnerHook, publisher_id: str, context: Context) -> str | None:
        from airflow_provider_cpp.release.go_live import GoLive
        from airflow_provider_cpp.release.lookup import OfferOperations

        offer = OfferOperations(hook, publisher_id, self.offer_id)
        go_live = GoLive(offer, version=self.version)
        return self._submit(go_live, context, if_running=self.if_running, if_applied=self.if_live)


class CancelOperator(OperationOperator):
    """Cancel the running publish or go-live of an offer, or its preview. Reference: Cancel.

    A cancel takes the service one to three minutes, and its response is 202 whether or not an operation is
    running. The operator therefore looks up the running operation first, and waits until that operation
    reports that it is canceled.

    The publish of a migrated offer ends when the preview is ready. If the preview awaits the publisher's
    signoff, the operator withdraws it, and waits until the offer no longer awaits the signoff.

    Returns the Location path of the canceled operation, for a preview that of its publish; None if there was
    nothing to cancel.

    :param offer_id: id of the offer (templated)
    :param publisher_id: id of the publisher; by default the connection's publisher (templated)
    :param cloud_partner_conn_id: id of the connection (templated)
    :param notification_emails: addresses that the service notifies, as a list or as text with commas; ignored
        for migrated offers (templated)
    :param missing_ok: succeed if no operation is running
    :param wait_for_completion: wait in the same task until the operation is canceled
    :param deferrable: poll in the triggerer; otherwise in the worker
    :param poke_interval: shortest time between two polls, in seconds or as a timedelta
    :param max_wait: longest time between two polls, in seconds or as a timedelta
    :param timeout: time limit of the polling, in seconds or as a timedelta
    :raises ValueError: an argument or the connection is not usable; no request was sent; without retries
    :raises NotFoundError: no operation is running, with `missing_ok=False`; without retries
    :raises CloudPartnerError: or a subclass: the service refused the request or is not reachable
    :raises OperationFailedError: the operation completed before the cancel took effect; without retries
    """

    template_fields: Sequence[str] = (*OfferOperator.template_fields, "notification_emails")

    # One that failed in the meantime doesn't run either.
    _until = ("canceled", "failed")
    _fail_on = ("succeeded",)

    def __init__(
        self,
        *,
        offer_id: str | XComArg,
        publisher_id: str | XComArg | None = None,
        cloud_partner_conn_id: str | XComArg | None = DEFAULT_CONN_ID,
        notification_emails: Sequence[str | XComArg] | str | XComArg | None = (),
        missing_ok: bool = True,
        wait_for_completion: bool = True,
        deferrable: bool = True,
        poke_interval: timedelta | float = 30,
        max_wait: timedelta | float = 600,
        timeout: timedelta | float = timedelta(hours=1),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            offer_id=offer_id,
            publisher_id=publisher_id,
            cloud_partner_conn_id=cloud_partner_conn_id,
            wait_for_completion=wait_for_completion,
            deferrable=deferrable,
            poke_interval=poke_interval,
            max_wait=max_wait,
            timeout=timeout,
            **kwargs,
        )
        self.notification_emails = check_literal("notification_emails", notification_emails)
        self.missing_ok = check_literal("missing_ok", missing_ok)

    def _begin(self, hook: CloudPartnerHook, publisher_id: str, context: Context) -> str | None:
        from airflow_provider_cpp.release.cancellation import cancel
        from airflow_provider_cpp.release.lookup import OfferOperations

        canceled = cancel(
            OfferOperations(hook, publisher_id, self.offer_id),
            lambda: hook.cancel(self.offer_id, publisher_id, notification_emails=self.notification_emails),
            wait=self.wait_for_completion,
        )
        if canceled is None:
            message = f"{self.subject}: no operation is running on the offer, so there is nothing to cancel."
            if not self.missing_ok:
                raise NotFoundError(f"{message} To accept that, set missing_ok=True.")
            self.log.info(message)
            return None
        self._is_complete = canceled.is_complete
        return canceled.location
