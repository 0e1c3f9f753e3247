"""Operators that release offers on the Microsoft commercial marketplace."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, get_args

from airflow_provider_cpp.core.errors import ConflictError, NotFoundError
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

    from airflow_provider_cpp.core.models import Offer, Submission
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
        from airflow_provider_cpp.release.submission import PUBLISH, Start

        # Refuses a bad address, before anything is sent.
        portal.publish(publisher_id, self.offer_id, notification_emails=self.notification_emails)

        def read(**where: Any) -> Offer | None:
            try:
                return hook.get_offer(self.offer_id, publisher_id, **where)
            except NotFoundError:
                return None

        def has_the_drafts_definition(other: Offer | None) -> bool:
            draft = read()
            return draft is not None and other is not None and other.definition == draft.definition

        def is_stale(running: Submission) -> bool:
            version = running.publishing_version or 0
            published = read(version=version) if version > 0 else None
            # What the service doesn't show can't be told apart.
            return published is not None and not has_the_drafts_definition(published)

        start = Start(
            OfferOperations(hook, publisher_id, self.offer_id),
            verb=PUBLISH,
            request=lambda: hook.publish(
                self.offer_id, publisher_id, notification_emails=self.notification_emails
            ),
            is_mine=lambda submission: submission.is_publish,
            is_achieved=lambda: has_the_drafts_definition(read(slot="preview")),
            is_stale=is_stale,
        )
        return self._start(
            start,
            context,
            if_running=self.if_running,
            if_done=self.if_published,
            done="the preview has the draft's definition already.",
        )


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
        from airflow_provider_cpp.release.lookup import OfferOperations, retry_transient
        from airflow_provider_cpp.release.submission import GO_LIVE, Start

        def version_in(slot: str) -> int | None:
            try:
                return hook.get_offer(self.offer_id, publisher_id, slot=slot).version
            except NotFoundError:  # nothing was ever put there
                return None

        version = to_version(self.version)

        what = "the preview's version" if version is None else f"version {version}"

        def is_live() -> bool:
            wanted = version_in("preview") if version is None else version
            return wanted is not None and wanted == version_in("production")

        def check() -> None:
            if version is None:
                return
            preview = retry_transient(lambda: hook.get_offer(self.offer_id, publisher_id, slot="preview"))
            if preview.version != version:
                raise ConflictError(
                    f"No go-live of {self.subject} was sent: version {version} was to go live, but version "
                    f"{preview.version} is in preview. Somebody published the offer since: look at the "
                    "preview again."
                )

        start = Start(
            OfferOperations(hook, publisher_id, self.offer_id),
            verb=GO_LIVE,
            request=lambda: hook.go_live(self.offer_id, publisher_id),
            is_mine=lambda submission: submission.is_go_live,
            is_achieved=is_live,
            check=check,
        )
        return self._start(
            start,
            context,
            if_running=self.if_running,
            if_done=self.if_live,
            done=f"production has {what} already.",
        )


class CancelOperator(OperationOperator):
    """Cancel the running publish or go-live of an offer, or its preview. Reference: Cancel.

    The service takes one to three minutes, and answers 202 even if nothing runs. So the operator finds the
    running operation first, and waits until that operation is canceled.

    The publish of a migrated offer ends when the preview is ready. If the preview awaits the publisher's
    signoff, the operator withdraws it, and waits until the offer no longer awaits the signoff.

    Returns the Location path of the canceled operation, for a preview that of its publish; None if there was
    nothing to cancel.

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
        canceled = cancel(
            OfferOperations(hook, publisher_id, self.offer_id),
            lambda: hook.cancel(self.offer_id, publisher_id, notification_emails=self.notification_emails),
            wait=self.wait_for_completion,
        )
        if canceled is None:
            message = f"{self.subject}: nothing runs on the offer, so there is nothing to cancel."
            if not self.missing_ok:
                raise NotFoundError(f"{message} (missing_ok=True takes that for a success.)")
            self.log.info(message)
            return None
        self._is_complete = canceled.is_complete
        return canceled.location
