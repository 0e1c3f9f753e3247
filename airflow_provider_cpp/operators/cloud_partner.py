"""Operators that release offers on the Microsoft commercial marketplace."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, get_args

from airflow_provider_cpp.core.errors import NotFoundError
from airflow_provider_cpp.core.polling import SUCCESS_STATUSES
from airflow_provider_cpp.links.cloud_partner import LIVE, PREVIEW
from airflow_provider_cpp.links.cloud_partner import LiveLink as LiveLink
from airflow_provider_cpp.links.cloud_partner import PartnerCenterLink as PartnerCenterLink
from airflow_provider_cpp.links.cloud_partner import PreviewLink as PreviewLink
from airflow_provider_cpp.operators.base import (
    IfDone,
    OfferOperator,
    OperationOperator,
    check_choice,
    to_version,
)
from airflow_provider_cpp.operators.offers import GetOfferOperator as GetOfferOperator
from airflow_provider_cpp.operators.offers import UpdateOfferOperator as UpdateOfferOperator
from airflow_provider_cpp.portal import requests as portal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
    from airflow_provider_cpp.release.submission import IfRunning


class PublishOperator(OperationOperator):
    """Publish an offer's draft to its preview, exactly once per task instance. Reference: Publish.

    Returns the Location path of the operation, for `OperationSensor(until="preview")`.

    Before it sends anything it looks at the offer's operations: a publish of this draft that runs or awaits
    the signoff is adopted, and so is one that succeeded since this Dag run began, as long as the preview has
    the draft's definition. One that failed or was canceled is never adopted; nor is one that began before the
    draft was last changed, since it publishes something else.

    :param offer_id: id of the offer (templated)
    :param publisher_id: id of the publisher; by default the connection's (templated)
    :param cloud_partner_conn_id: id of the connection (templated)
    :param notification_emails: whom the service tells; ignored for migrated offers (templated)
    :param if_running: `adopt` a publish of this draft that already runs, or `fail`
    :param if_published: what to do when the preview has the draft's definition already, and no publish runs
        that could be adopted: `skip` the task, `succeed` and return None, or `submit` without looking
    :param wait_for_completion: wait, in the same task, until the preview is ready
    :param deferrable: wait in the triggerer; otherwise in the worker
    :param poke_interval: the shortest time between two polls, in seconds or as a timedelta
    :param max_wait: the longest time between two polls, in seconds or as a timedelta
    :param timeout: when to give up the wait, in seconds or as a timedelta
    :param cancel_on_kill: cancel the operation, an adopted one too, when a user fails or clears the waiting
        task (deferred: Airflow 3.3 and later), or when its `execution_timeout` runs out
    :raises ValueError: an id, an address or the connection can't be used; nothing was sent
    :raises ConflictError: a go-live runs, or a publish of something else, or with `if_running="fail"` any
    :raises ValidationError: the offer failed validation
    :raises CloudPartnerError: or one below it: the service refused, or can't be reached
    :raises OperationFailedError: it was waited for and failed; fails without retries
    :raises OperationCanceledError: it was waited for and canceled; fails without retries
    """

    template_fields: Sequence[str] = (*OfferOperator.template_fields, "notification_emails")

    _until = SUCCESS_STATUSES["preview"]
    _pages_done = (PREVIEW,)

    def __init__(
        self,
        *,
        notification_emails: Sequence[str] = (),
        if_running: IfRunning = "adopt",
        if_published: IfDone = "submit",
        **kwargs: Any,
    ) -> None:
        check_choice("if_running", if_running, ("adopt", "fail"))
        check_choice("if_published", if_published, get_args(IfDone))
        super().__init__(**kwargs)
        self.notification_emails = notification_emails
        self.if_running = if_running
        self.if_published = if_published

    def _begin(self, hook: CloudPartnerHook, publisher_id: str, context: Context) -> str | None:
        from airflow_provider_cpp.release.lookup import OfferOperations
        from airflow_provider_cpp.release.publish import Publish

        # Raises an error for an invalid address before any request.
        portal.publish(publisher_id, self.offer_id, notification_emails=self.notification_emails)
        publish = Publish(
            OfferOperations(hook, publisher_id, self.offer_id), notification_emails=self.notification_emails
        )
        return self._submit(publish, context, if_running=self.if_running, if_applied=self.if_published)


class GoLiveOperator(OperationOperator):
    """Take an offer from preview to production, exactly once per task instance. Reference: Go live.

    Returns the Location path of the operation, for `OperationSensor`.

    Before it sends anything it looks at the offer's operations: a go-live that runs is adopted, and so is one
    that succeeded since this Dag run began, as long as production has the preview's version. So a task that
    was killed after its request, or whose request's answer was lost, doesn't go live twice. One that failed
    or was canceled is never adopted.

    :param offer_id: id of the offer (templated)
    :param publisher_id: id of the publisher; by default the connection's (templated)
    :param cloud_partner_conn_id: id of the connection (templated)
    :param version: the version that must be in preview, for example because somebody approved it; by default
        any (templated)
    :param if_running: `adopt` a go-live that already runs, or `fail`
    :param if_live: what to do when production has the preview's version already: `skip` the task, `succeed`
        and return None, or `submit` without looking
    :param wait_for_completion: do what `OperationSensor` does, in the same task
    :param deferrable: wait in the triggerer; otherwise in the worker
    :param poke_interval: the shortest time between two polls, in seconds or as a timedelta
    :param max_wait: the longest time between two polls, in seconds or as a timedelta
    :param timeout: when to give up the wait, in seconds or as a timedelta
    :param cancel_on_kill: cancel the operation, an adopted one too, when a user fails or clears the waiting
        task (deferred: Airflow 3.3 and later), or when its `execution_timeout` runs out
    :raises ValueError: an id or the connection can't be used; nothing was sent
    :raises ConflictError: a publish runs, or with `if_running="fail"` a go-live; or another `version` is in
        preview
    :raises CloudPartnerError: or one below it: the service refused, or can't be reached
    :raises OperationFailedError: it was waited for and failed; fails without retries
    :raises OperationCanceledError: it was waited for and canceled; fails without retries
    """

    template_fields: Sequence[str] = (*OfferOperator.template_fields, "version")

    _pages_begun = (PREVIEW,)
    _pages_done = (PREVIEW, LIVE)

    def __init__(
        self,
        *,
        version: int | str | None = None,
        if_running: IfRunning = "adopt",
        if_live: IfDone = "submit",
        **kwargs: Any,
    ) -> None:
        check_choice("if_running", if_running, ("adopt", "fail"))
        check_choice("if_live", if_live, get_args(IfDone))
        super().__init__(**kwargs)
        self.version = version
        self.if_running = if_running
        self.if_live = if_live

    def _begin(self, hook: CloudPartnerHook, publisher_id: str, context: Context) -> str | None:
        from airflow_provider_cpp.release.go_live import GoLive
        from airflow_provider_cpp.release.lookup import OfferOperations

        offer = OfferOperations(hook, publisher_id, self.offer_id)
        go_live = GoLive(offer, version=to_version(self.version))
        return self._submit(go_live, context, if_running=self.if_running, if_applied=self.if_live)


class CancelOperator(OperationOperator):
    """Cancel the publish or go-live that runs on an offer. Reference: Cancel.

    The service takes one to three minutes for it, and says 202 whether or not anything runs. So the operator
    looks for what runs first, and waits until that itself is shown as canceled.

    Returns the Location path of the operation that was canceled; None if nothing ran.

    :param offer_id: id of the offer (templated)
    :param publisher_id: id of the publisher; by default the connection's (templated)
    :param cloud_partner_conn_id: id of the connection (templated)
    :param notification_emails: whom the service tells; ignored for migrated offers (templated)
    :param missing_ok: succeed when nothing runs
    :param wait_for_completion: wait, in the same task, until the operation is canceled
    :param deferrable: wait in the triggerer; otherwise in the worker
    :param poke_interval: the shortest time between two polls, in seconds or as a timedelta
    :param max_wait: the longest time between two polls, in seconds or as a timedelta
    :param timeout: when to give up the wait, in seconds or as a timedelta
    :raises ValueError: an id, an address or the connection can't be used; nothing was sent
    :raises NotFoundError: nothing runs, with `missing_ok=False`
    :raises CloudPartnerError: or one below it: the service refused, or can't be reached
    :raises OperationFailedError: the operation completed before it could be canceled; fails without retries
    """

    template_fields: Sequence[str] = (*OfferOperator.template_fields, "notification_emails")

    # One that failed in the meantime doesn't run either.
    _until = ("canceled", "failed")
    _fail_on = ("succeeded",)

    def __init__(
        self,
        *,
        notification_emails: Sequence[str] = (),
        missing_ok: bool = True,
        wait_for_completion: bool = True,
        timeout: timedelta | float = timedelta(hours=1),
        **kwargs: Any,
    ) -> None:
        super().__init__(wait_for_completion=wait_for_completion, timeout=timeout, **kwargs)
        self.notification_emails = notification_emails
        self.missing_ok = missing_ok

    def _begin(self, hook: CloudPartnerHook, publisher_id: str, context: Context) -> str | None:
        from airflow_provider_cpp.release.cancellation import cancel
        from airflow_provider_cpp.release.lookup import OfferOperations

        # Refuses a bad address, before anything is sent.
        portal.cancel(publisher_id, self.offer_id, notification_emails=self.notification_emails)
        location = cancel(
            OfferOperations(hook, publisher_id, self.offer_id),
            lambda: hook.cancel(self.offer_id, publisher_id, notification_emails=self.notification_emails),
        )
        if location is None:
            message = f"{self.subject}: nothing runs on the offer, so there is nothing to cancel."
            if not self.missing_ok:
                raise NotFoundError(f"{message} (missing_ok=True takes that for a success.)")
            self.log.info(message)
        return location
