"""Base classes of the operators."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import (
    AirflowNotFoundException,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseOperator,
)

from airflow_provider_cpp import version_compat
from airflow_provider_cpp.arguments import IfDone, check_literal
from airflow_provider_cpp.constants import DEFAULT_CONN_ID, IfRunning
from airflow_provider_cpp.core.errors import CloudPartnerError, NotFoundError
from airflow_provider_cpp.core.http import quote_segment
from airflow_provider_cpp.core.polling import FAILURE_STATUSES, SUCCESS_STATUSES, Poller
from airflow_provider_cpp.links.cloud_partner import LinksMixin
from airflow_provider_cpp.offer_task import MAP_INDEX_TEMPLATE, OfferTask
from airflow_provider_cpp.polling import PollingMixin
from airflow_provider_cpp.portal.locations import offer_in_location
from airflow_provider_cpp.portal.targets import OperationTarget
from airflow_provider_cpp.task_termination import describe_user_action
from airflow_provider_cpp.templates import TemplateMixin
from airflow_provider_cpp.triggers.cloud_partner import OperationTrigger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
    from airflow_provider_cpp.links.cloud_partner import OfferLink
    from airflow_provider_cpp.release.submission import Submitter


class OfferOperator(TemplateMixin, OfferTask, LinksMixin, BaseOperator):
    """Base class of the operators on one offer.

    :param offer_id: id of the offer (templated)
    :param publisher_id: id of the publisher; by default the connection's publisher (templated)
    :param cloud_partner_conn_id: id of the connection (templated)
    """

    template_fields: Sequence[str] = ("cloud_partner_conn_id", "offer_id", "publisher_id")
    ui_color = "#b3d7f2"

    def __init__(
        self,
        *,
        offer_id: str | XComArg,
        publisher_id: str | XComArg | None = None,
        cloud_partner_conn_id: str | XComArg | None = DEFAULT_CONN_ID,
        map_index_template: str | None = MAP_INDEX_TEMPLATE,
        **kwargs: Any,
    ) -> None:
        super().__init__(map_index_template=map_index_template, **kwargs)
        self.offer_id = check_literal("offer_id", offer_id)
        self.publisher_id = check_literal("publisher_id", publisher_id)
        self.cloud_partner_conn_id = check_literal("cloud_partner_conn_id", cloud_partner_conn_id)

    def _open(self) -> tuple[CloudPartnerHook, str]:
        """Return the hook and the id of the publisher, after both ids were checked.

        :raises ValueError: an id or the connection is not usable
        """
        publisher_id: str = self.hook.settings.publisher(self.publisher_id)
        self.publisher_id = publisher_id
        quote_segment(publisher_id, "publisher_id")
        quote_segment(self.offer_id, "offer_id")
        return self.hook, publisher_id


class OperationOperator(PollingMixin, OfferOperator):
    """Base class of the operators that start an operation at the service, and can wait for its end."""

    # Statuses of the operation with which the task succeeds and fails.
    _until: ClassVar[tuple[str, ...]] = SUCCESS_STATUSES["completed"]
    _fail_on: ClassVar[tuple[str, ...]] = FAILURE_STATUSES
    # Pages of the offer that exist when the operation starts, and after it succeeded.
    _pages_begun: ClassVar[tuple[OfferLink, ...]] = ()
    _pages_done: ClassVar[tuple[OfferLink, ...]] = ()

    def __init__(
        self,
        *,
        wait_for_completion: bool,
        deferrable: bool,
        poke_interval: timedelta | float,
        max_wait: timedelta | float,
        timeout: timedelta | float,
        cancel_on_kill: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.wait_for_completion = check_literal("wait_for_completion", wait_for_completion)
        self.deferrable = check_literal("deferrable", deferrable)
        self.poke_interval = check_literal("poke_interval", poke_interval)
        self.max_wait = check_literal("max_wait", max_wait)
        self.timeout = check_literal("timeout", timeout)
        self.cancel_on_kill = check_literal("cancel_on_kill", cancel_on_kill)
        self._location: str | None = None
        self._task_instance: Any = None
        # Whether the operation completed in `_begin`, so that it need not be polled.
        self._is_complete = False

    def _is_permanent(self, error: Exception) -> bool:
        # A 404 of the operation, unlike one of the offer, may be cured by another try.
        is_operations = isinstance(error, NotFoundError) and self._location is not None
        return super()._is_permanent(error) and not is_operations

    def _begin(self, hook: CloudPartnerHook, publisher_id: str, context: Context) -> str | None:
        """Start the operation and return its Location; None if there is no operation to wait for."""
        raise NotImplementedError

    def execute(self, context: Context) -> str | None:
        """Start the operation, and wait for its end if `wait_for_completion` is set."""
        hook, publisher_id = self._open()
        location = self._begin(hook, publisher_id, context)
        if location is not None:
            self._show(self._pages_begun, publisher_id, self.offer_id)
        if location is None or self._is_complete or not self.wait_for_completion:
            return location
        # Before the polling, so that the UI shows the location and a kill can cancel the operation.
        self._location = location
        self._task_instance = context["ti"]
        if self.do_xcom_push:
            context["ti"].xcom_push(key="return_value", value=location)
        spec = self._make_spec(self.subject, until=self._until, fail_on=self._fail_on, max_wait=self.max_wait)
        try:
            event = self._poll_to_end(hook, Poller(spec, OperationTarget(location)))
        except AirflowTaskTimeout:
            self._cancel_operation()
            raise
        return self.execute_complete(context, event)

    def _make_trigger(self, poller: Poller, first_poll_at: float) -> OperationTrigger:
        return OperationTrigger(
            cloud_partner_conn_id=self.cloud_partner_conn_id,
            operation_location=poller.target.identity["location"],
            spec=poller.spec.to_json(),
            state=poller.state.to_json(),
            first_poll_at=first_poll_at,
            cancel_on_kill=self.cancel_on_kill,
        )

    def execute_complete(self, context: Context, event: Any) -> str:
        """Return the Location path of the operation, or raise the error with which it ended."""
        self._location = event.get("location") if isinstance(event, dict) else None
        with suppress(ValueError, TypeError):
            # For the name in the grid, if the connection could not be read.
            self.publisher_id = self.publisher_id or offer_in_location(self._location or "")[0]
        try:
            location = str(self._read_event(event)["location"])
        except AirflowTaskTimeout:
            self._cancel_operation()
            raise
        self._show(self._pages_done, *offer_in_location(location))
        return location

    def on_kill(self) -> None:
        """Cancel the operation, if `cancel_on_kill` is set and a user failed or cleared the waiting task."""
        if not self.cancel_on_kill or self._location is None:
            return
        dag = self.dag if self.has_dag() else None  # type: ignore[no-untyped-call]
        # The name before Airflow 3.0.
        fail_fast = getattr(dag, "fail_fast", getattr(dag, "fail_stop", False))
        try:
            action = describe_user_action(self._task_instance, fail_fast=bool(fail_fast))
        except Exception:
            self.log.exception(
                "%s: operation %s continues: Airflow did not report the state of the task, so it is unknown "
                "whether a user ended the task. Cancel the operation yourself if you do not need it.",
                self.subject,
                self._location,
            )
            return
        if action is None:
            self.log.info(
                "%s: operation %s continues: no user failed or cleared the task.",
                self.subject,
                self._location,
            )
            return
        self._cancel_operation()

    def _cancel_operation(self) -> None:
        """Cancel the operation once, if `cancel_on_kill` is set."""
        location, self._location = self._location, None
        if not self.cancel_on_kill or location is None:
            return
        from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook

        try:
            CloudPartnerHook(self.cloud_partner_conn_id).cancel_operation(location)
        except (CloudPartnerError, ValueError, AirflowNotFoundException):
            self.log.exception("%s: could not cancel operation %s (cancel_on_kill).", self.subject, location)

    def _submit(
        self, submitter: Submitter, context: Context, *, if_running: IfRunning, if_applied: IfDone
    ) -> str | None:
        """Start the operation exactly once, and return its Location; None if there is nothing to do."""
        from airflow_provider_cpp.release.journal import Journal
        from airflow_provider_cpp.release.submission import Policy

        ti = context["ti"]
        attempt = getattr(ti, "try_number", None)
        submitter.journal = Journal(
            context.get("task_state_store") if version_compat.HAS_TASK_STATE_STORE else None,
            attempt=attempt,
            # A clear raises `max_tries`; a retry does not.
            generation=getattr(ti, "max_tries", None),
        )
        submitter.policy = Policy(
            if_running=if_running,
            run_started_at=run_started_at(context.get("dag_run")),
            may_be_canceling=self.cancel_on_kill and (attempt or 1) > 1,
        )
        if location := submitter.adopt():
            return location
        if if_applied == "submit" or not submitter.is_applied():
            return submitter.submit()
        self._show(self._pages_done, submitter.offer.publisher_id, self.offer_id)
        reason = f"{submitter.offer}: {submitter.applied_state}."
        # The UI folds up Airflow's own line about the skip, so the reason has a line of its own.
        self.log.info("%s Nothing to do.", reason)
        if if_applied == "skip":
            raise AirflowSkipException(reason)
        return None


def run_started_at(dag_run: Any) -> datetime | None:
    """Return the time when a Dag run started.

    Clearing a run resets its `start_date`, but not the time when it was due. In a backfill, that time is long
    before the start.
    """
    if getattr(dag_run, "clear_number", None) != 0:
        due = _moments(dag_run, "run_after")
        # Airflow 2 has no `run_after`. The data interval of a manual run ends before its creation; that
        # of a scheduled run ends after its `logical_date`.
        due = due or _moments(dag_run, "data_interval_end", "logical_date")
        if due:
            return max(due)
    return next(iter(_moments(dag_run, "start_date", "run_after")), None)


def _moments(dag_run: Any, *names: str) -> list[datetime]:
    return [moment for name in names if isinstance(moment := getattr(dag_run, name, None), datetime)]
