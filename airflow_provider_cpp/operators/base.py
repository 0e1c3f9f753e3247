"""Base classes of the operators."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowSkipException, AirflowTaskTimeout, BaseOperator

from airflow_provider_cpp.arguments import DEFAULT_CONN_ID, IfDone, IfRunning, check_argument, check_literal
from airflow_provider_cpp.core.errors import CloudPartnerError, NotFoundError
from airflow_provider_cpp.core.http import quote_segment
from airflow_provider_cpp.core.polling import FAILURE_STATUSES, SUCCESS_STATUSES
from airflow_provider_cpp.links.cloud_partner import LinksMixin
from airflow_provider_cpp.mixins import WaitMixin
from airflow_provider_cpp.offer_task import MAP_INDEX_TEMPLATE, OfferTask
from airflow_provider_cpp.portal.locations import offer_in_location
from airflow_provider_cpp.triggers.cloud_partner import OperationTrigger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
    from airflow_provider_cpp.links.cloud_partner import OfferLink
    from airflow_provider_cpp.release.submission import Start


class OfferOperator(OfferTask, LinksMixin, BaseOperator):
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


class OperationOperator(WaitMixin, OfferOperator):
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
        if location is None or not self.wait_for_completion:
            return location
        # Before the polling, so that the UI shows the location and a kill can cancel the operation.
        self._location = location
        if self.do_xcom_push:
            context["ti"].xcom_push(key="return_value", value=location)
        wait = self._make_wait(self.subject, until=self._until, fail_on=self._fail_on, max_wait=self.max_wait)
        trigger = OperationTrigger(
            cloud_partner_conn_id=self.cloud_partner_conn_id,
            operation_location=location,
            wait=asdict(wait),
            cancel_on_kill=self.cancel_on_kill,
        )
        return self.execute_complete(context, self._wait(hook, trigger))

    def execute_complete(self, context: Context, event: Any) -> str:
        """Return the Location path of the operation, or raise the error with which it ended."""
        self._location = event.get("location") if isinstance(event, dict) else None
        with suppress(ValueError, TypeError):
            # For the name in the grid, if the connection could not be read.
            self.publisher_id = self.publisher_id or offer_in_location(self._location or "")[0]
        try:
            location = str(self._result(event)["location"])
        except AirflowTaskTimeout:
            self.on_kill()
            raise
        self._show(self._pages_done, *offer_in_location(location))
        return location

    def on_kill(self) -> None:
        """Cancel the operation, with `cancel_on_kill`, when the task is killed while it polls in a worker."""
        location, self._location = self._location, None
        if not self.cancel_on_kill or location is None:
            return
        from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook

        try:
            CloudPartnerHook(self.cloud_partner_conn_id).cancel_operation(location)
        except CloudPartnerError:
            self.log.exception("%s: could not be canceled, as cancel_on_kill asks.", self.subject)

    def _start(
        self, start: Start, context: Context, *, if_running: IfRunning, if_done: IfDone, done: str
    ) -> str | None:
        """Start an operation exactly once."""
        start.may_be_killed = self.cancel_on_kill and getattr(context["ti"], "try_number", 1) > 1
        if location := start.adopt(if_running=if_running, since=run_started_at(context.get("dag_run"))):
            return location
        if if_done != "submit" and start.check_achieved():
            self._show(self._pages_done, self.publisher_id or "", self.offer_id)
            # Said for a skip as well: Airflow folds up its own line, in which the reason is.
            self.log.info("%s: %s Nothing to do.", self.subject, done)
            if if_done == "skip":
                raise AirflowSkipException(f"{self.subject}: {done}")
            return None
        return start.submit(if_running=if_running)


def to_version(value: Any) -> int | None:
    """Return the number of a version; templates render it as text.

    :raises ValueError: the value is not a whole number from 1
    """
    version: int | None = check_argument("version", value)
    return version


def run_started_at(dag_run: Any) -> datetime | None:
    """Return the time when a Dag run started.

    Clearing a run resets its `start_date`, but not the time when it was due. In a backfill, that time is long
    before the start.
    """
    is_cleared = getattr(dag_run, "clear_number", None) != 0
    due = ("run_after", "data_interval_end") if is_cleared else ()
    for name in (*due, "start_date", "run_after"):
        if isinstance(moment := getattr(dag_run, name, None), datetime):
            return moment
    return None
