"""Base classes of the operators."""

from __future__ import annotations

import math
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.providers.common.compat.sdk import AirflowSkipException, AirflowTaskTimeout, BaseOperator

from airflow_provider_cpp import version_compat
from airflow_provider_cpp.constants import DEFAULT_CONN_ID
from airflow_provider_cpp.core.errors import CloudPartnerError
from airflow_provider_cpp.core.http import quote_segment
from airflow_provider_cpp.core.polling import FAILURE_STATUSES, SUCCESS_STATUSES, Poller
from airflow_provider_cpp.links.cloud_partner import LinksMixin
from airflow_provider_cpp.mixins import NAME, NameMixin
from airflow_provider_cpp.polling import PollingMixin
from airflow_provider_cpp.portal.locations import offer_in_location
from airflow_provider_cpp.portal.targets import OperationTarget
from airflow_provider_cpp.task_termination import describe_user_action
from airflow_provider_cpp.templates import TemplateMixin
from airflow_provider_cpp.triggers.cloud_partner import OperationTrigger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
    from airflow_provider_cpp.links.cloud_partner import OfferLink
    from airflow_provider_cpp.release.submission import IfRunning, Submitter


#: What to do when there is nothing to do.
IfDone = Literal["submit", "skip", "succeed"]


class OfferOperator(TemplateMixin, NameMixin, LinksMixin, BaseOperator):
    """Do something with one offer.

    :param offer_id: id of the offer (templated)
    :param publisher_id: id of the publisher; by default the connection's (templated)
    :param cloud_partner_conn_id: id of the connection (templated)
    """

    template_fields: Sequence[str] = ("cloud_partner_conn_id", "offer_id", "publisher_id")
    ui_color = "#b3d7f2"

    def __init__(
        self,
        *,
        offer_id: str,
        publisher_id: str | None = None,
        cloud_partner_conn_id: str = DEFAULT_CONN_ID,
        map_index_template: str | None = NAME,
        **kwargs: Any,
    ) -> None:
        super().__init__(map_index_template=map_index_template, **kwargs)
        self.offer_id = offer_id
        self.publisher_id = publisher_id
        self.cloud_partner_conn_id = cloud_partner_conn_id

    def _open(self) -> tuple[CloudPartnerHook, str]:
        """Return the hook, and the publisher's id; both ids are checked.

        :raises ValueError: an id or the connection can't be used
        """
        from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook

        hook = CloudPartnerHook(self.cloud_partner_conn_id)
        self.publisher_id = hook.settings.publisher(self.publisher_id)
        quote_segment(self.publisher_id, "publisher_id")
        quote_segment(self.offer_id, "offer_id")
        return hook, self.publisher_id


class OperationOperator(PollingMixin, OfferOperator):
    """Start an operation that takes hours or days, and wait for it with `wait_for_completion`."""

    # The states of the operation in which the wait ends well, and badly.
    _until: ClassVar[tuple[str, ...]] = SUCCESS_STATUSES["completed"]
    _fail_on: ClassVar[tuple[str, ...]] = FAILURE_STATUSES
    # The pages that the offer has from the beginning of the operation, and after its good end.
    _pages_begun: ClassVar[tuple[OfferLink, ...]] = ()
    _pages_done: ClassVar[tuple[OfferLink, ...]] = ()

    def __init__(
        self,
        *,
        wait_for_completion: bool = False,
        deferrable: bool = True,
        poke_interval: timedelta | float = 30,
        max_wait: timedelta | float = 600,
        timeout: timedelta | float = timedelta(days=7),
        cancel_on_kill: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poke_interval = to_seconds("poke_interval", poke_interval)
        self.max_wait = to_seconds("max_wait", max_wait)
        self.timeout = to_seconds("timeout", timeout)
        self.cancel_on_kill = cancel_on_kill
        self._location: str | None = None
        self._task_instance: Any = None

    def _begin(self, hook: CloudPartnerHook, publisher_id: str, context: Context) -> str | None:
        """Begin the operation and return its Location; None if there is none to wait for."""
        raise NotImplementedError

    def execute(self, context: Context) -> str | None:
        """Begin the operation, and wait for it if asked for."""
        hook, publisher_id = self._open()
        location = self._begin(hook, publisher_id, context)
        if location is not None:
            self._show(self._pages_begun, publisher_id, self.offer_id)
        if location is None or not self.wait_for_completion:
            return location
        # Pushed before polling starts: the UI shows it, and a kill can cancel the operation.
        self._location = location
        self._task_instance = context["ti"]
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
        """Return the Location path of the operation that ended, or raise how it ended."""
        self._location = event.get("location") if isinstance(event, dict) else None
        with suppress(ValueError, TypeError):
            # For the name in the grid: the connection's publisher is not known in this process.
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
        except CloudPartnerError:
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


def to_version(value: Any) -> int | None:
    """Return a version's number, which is text when it comes from a template.

    :raises ValueError: it is none
    """
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and int(value) > 0:
        return int(value)
    raise ValueError(f"version must be a whole number from 1, not {value!r}")


def run_started_at(dag_run: Any) -> datetime | None:
    """Return when a Dag run began.

    Clearing sets its `start_date` anew, but not when it was due. That is long before a backfill began.
    """
    is_cleared = getattr(dag_run, "clear_number", None) != 0
    due = ("run_after", "data_interval_end") if is_cleared else ()
    for name in (*due, "start_date", "run_after"):
        if isinstance(moment := getattr(dag_run, name, None), datetime):
            return moment
    return None


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise `ValueError` if an argument is none of the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; not {value!r}")


def to_seconds(name: str, value: timedelta | float) -> float:
    """Return an argument that is a timedelta or seconds as seconds, 0 or more."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not (is_number and math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"{name} must be a timedelta or a number of seconds from 0; not {value!r}")
    return float(seconds)
