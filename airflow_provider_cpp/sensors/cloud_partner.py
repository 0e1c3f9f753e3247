"""Sensors of the Cloud Partner Portal; by default they defer and occupy no worker."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseSensorOperator,
    PokeReturnValue,
)

from airflow_provider_cpp.arguments import DEFAULT_CONN_ID, check_literal
from airflow_provider_cpp.core.errors import NotFoundError
from airflow_provider_cpp.core.http import quote_segment
from airflow_provider_cpp.core.polling import FAILURE_STATUSES, SIGNOFF, SUCCESS_STATUSES, Until
from airflow_provider_cpp.exceptions import fail_at_once
from airflow_provider_cpp.mixins import WaitMixin
from airflow_provider_cpp.offer_task import MAP_INDEX_TEMPLATE, OfferTask
from airflow_provider_cpp.portal.locations import normalize_location, offer_in_location
from airflow_provider_cpp.triggers.cloud_partner import OfferStatusTrigger, OperationTrigger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
    from airflow_provider_cpp.triggers.cloud_partner import WaitTrigger


class _WaitSensor(OfferTask, WaitMixin, BaseSensorOperator):
    """Poll once in a worker, then in the triggerer; or only in a worker, as `mode` says."""

    ui_color = "#d5e8f7"

    def __init__(
        self,
        *,
        cloud_partner_conn_id: str | XComArg | None,
        deferrable: bool,
        poke_interval: timedelta | float,
        exponential_backoff: bool,
        max_wait: timedelta | float,
        timeout: timedelta | float,
        soft_fail: bool,
        map_index_template: str | None = MAP_INDEX_TEMPLATE,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            map_index_template=map_index_template,
            poke_interval=check_literal("poke_interval", poke_interval),
            exponential_backoff=check_literal("exponential_backoff", exponential_backoff),
            max_wait=check_literal("max_wait", max_wait),
            timeout=check_literal("timeout", timeout),
            soft_fail=check_literal("soft_fail", soft_fail),
            **kwargs,
        )
        self.cloud_partner_conn_id = check_literal("cloud_partner_conn_id", cloud_partner_conn_id)
        self.deferrable = check_literal("deferrable", deferrable)
        self._trigger: WaitTrigger | None = None
        self._seconds = 0.0

    def _make_trigger(self, started_at: float | None = None) -> WaitTrigger:
        """Return what is waited on, for what, and how patiently, all checked.

        :raises ValueError: it can't be waited on; nothing was sent
        """
        raise NotImplementedError

    def execute(self, context: Context) -> Any:
        """Poll once, and wait in the triggerer if that brought no end."""
        if not self.deferrable:
            return super().execute(context)
        with self._softly():
            return self._result(self._wait(self._get_hook(), self._make_trigger()))

    def execute_complete(self, context: Context, event: Any) -> dict[str, Any]:
        """Return what the wait ended with, or raise it."""
        with self._softly():
            return self._result(event)

    def poke(self, context: Context) -> PokeReturnValue | bool:
        """Poll once, in a worker."""
        if self._trigger is None:
            # Airflow 2 says only afterwards when the first poll was.
            ask = getattr(context["ti"], "get_first_reschedule_date", None) if self.reschedule else None
            began = ask(context) if ask else None
            self._trigger = self._make_trigger(began.timestamp() if began else None)
        while True:
            decision, event = self._poll(self._get_hook(), self._trigger)
            self._seconds = decision.seconds
            if event:
                return PokeReturnValue(is_done=True, xcom_value=self._result(event))
            if not (self.reschedule and decision.seen.not_found):
                return False
            # Nothing is remembered between two rescheduled polls: whether a 404 lasts, one has to find out.
            time.sleep(min(decision.seconds, self.poke_interval))

    def _get_next_poke_interval(
        self, started_at: datetime | float, run_duration: Callable[[], float], poke_count: int
    ) -> float:
        """Wait as long as the triggerer would; Airflow's own growth knows no Retry-After."""
        age = run_duration()
        wait = self._trigger.wait if self._trigger else None
        if wait is not None and age > time.time() - wait.started_at + 1:
            self._seconds = max(self._seconds, wait.interval(wait.started_at + age))
        return max(0.0, min(self._seconds, self.timeout - age))

    def _trigger_arguments(
        self, started_at: float | None, *, until: tuple[str, ...], fail_on: tuple[str, ...]
    ) -> dict[str, Any]:
        wait = self._make_wait(
            self.subject,
            until=until,
            fail_on=fail_on,
            max_wait=self.poke_interval if self.max_wait is None else self.max_wait.total_seconds(),
            exponential_backoff=self.exponential_backoff,
            started_at=started_at,
        )
        return {"cloud_partner_conn_id": self.cloud_partner_conn_id, "wait": asdict(wait)}

    def _get_hook(self) -> CloudPartnerHook:
        return self.hook

    @contextmanager
    def _softly(self) -> Iterator[None]:
        """Do what `soft_fail` and `never_fail` do in a worker."""
        try:
            yield
        except AirflowSkipException:
            raise
        except (Exception, AirflowTaskTimeout) as error:  # that one is no Exception
            is_final = isinstance(error, AirflowSensorTimeout | AirflowTaskTimeout | AirflowFailException)
            if not (self.never_fail or (self.soft_fail and is_final)):
                raise
            reason = f"Skipped instead of failed: {error}"
            # Airflow folds up its own line, in which the reason is.
            self.log.warning(reason)
            raise AirflowSkipException(reason) from error


class OperationSensor(_WaitSensor):
    """Wait until a long-running operation of the Cloud Partner Portal completed.

    Operations take hours to days. With `deferrable`, the triggerer polls and no worker is occupied. Polling
    survives lost connections, outages, throttling, expired tokens, a 404 in the operation's first minutes,
    and restarts of the triggerer. Reference: Retrieve operations.

    Returns the operation as a small JSON object: `location`, `status`, `progress_percentage`, `steps` (id,
    name, status, progress_percentage) and `messages` (texts, at most 20).

    :param operation_location: result of `GoLiveOperator` or `PublishOperator`: either form of the Location
        path, or an absolute URL on the connection's host (templated)
    :param until: `completed`, or `preview` to succeed also when the publisher's signoff is awaited
    :param cloud_partner_conn_id: id of the connection (templated)
    :param deferrable: poll in the triggerer; otherwise in a worker, as `mode` says
    :param poke_interval: shortest time between two polls, in seconds or as a timedelta
    :param exponential_backoff: let that time grow with the age of the task, up to `max_wait`
    :param max_wait: longest time between two polls, in seconds or as a timedelta
    :param timeout: time limit, in seconds or as a timedelta; without retries. A shorter `execution_timeout`
        applies to deferred tasks as well; with retries
    :param soft_fail: skip the task instead of failing it if the operation failed, was canceled, or did not
        end in time
    :raises ValueError: the location or the connection is not usable; no request was sent; without retries
    :raises OperationFailedError: the operation failed; without retries
    :raises OperationCanceledError: the operation was canceled; without retries
    :raises CloudPartnerError: or a subclass: a 401 that a fresh token did not cure (without retries), a 403,
        or a lasting 404
    """

    template_fields: Sequence[str] = ("cloud_partner_conn_id", "operation_location")

    def __init__(
        self,
        *,
        operation_location: str | XComArg,
        until: Until = "completed",
        cloud_partner_conn_id: str | XComArg | None = DEFAULT_CONN_ID,
        deferrable: bool = True,
        poke_interval: timedelta | float = 30,
        exponential_backoff: bool = True,
        max_wait: timedelta | float = 600,
        timeout: timedelta | float = timedelta(days=7),
        soft_fail: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            cloud_partner_conn_id=cloud_partner_conn_id,
            deferrable=deferrable,
            poke_interval=poke_interval,
            exponential_backoff=exponential_backoff,
            max_wait=max_wait,
            timeout=timeout,
            soft_fail=soft_fail,
            **kwargs,
        )
        self.operation_location = check_literal("operation_location", operation_location)
        self.until: Until = check_literal("until", until)

    def _is_permanent(self, error: Exception) -> bool:
        # A 404 of the operation, unlike one of the offer, may be cured by another try.
        return super()._is_permanent(error) and not isinstance(error, NotFoundError)

    @property
    def subject(self) -> str:
        """The operation's offer as `publisher/offer`, or the location if it names no offer."""
        try:
            return "/".join(offer_in_location(self.operation_location))
        except (ValueError, TypeError, AttributeError):
            return str(self.operation_location)

    def _make_trigger(self, started_at: float | None = None) -> OperationTrigger:
        location = normalize_location(self.operation_location, self._get_hook().settings.base_url)
        arguments = self._trigger_arguments(
            started_at, until=SUCCESS_STATUSES[self.until], fail_on=FAILURE_STATUSES
        )
        return OperationTrigger(operation_location=location, **arguments)


class OfferStatusSensor(_WaitSensor):
    """Wait until an offer has one of several statuses, regardless of who started the operation.

    Reference: Retrieve offer status.

    To wait for an operation that a task started, use `OperationSensor`: an offer's status does not name the
    operation that led to it. Polling survives the same faults as that of `OperationSensor`.

    Returns the status of the offer as a small JSON object: `publisher_id`, `offer_id`, `status`, `steps` (id,
    name, status, progress_percentage) and `messages` (texts, at most 20).

    :param offer_id: id of the offer (templated)
    :param publisher_id: id of the publisher; by default the connection's publisher (templated)
    :param statuses: statuses with which the task succeeds. `waitingForPublisherReview` includes the time when
        the signoff is awaited while the service's status is still `running`
    :param fail_on: statuses with which the task fails, without retries
    :param cloud_partner_conn_id: id of the connection (templated)
    :param deferrable: poll in the triggerer; otherwise in a worker, as `mode` says
    :param poke_interval: shortest time between two polls, in seconds or as a timedelta
    :param exponential_backoff: let that time grow with the age of the task, up to `max_wait`
    :param max_wait: longest time between two polls, in seconds or as a timedelta
    :param timeout: time limit, in seconds or as a timedelta; without retries. A shorter `execution_timeout`
        applies to deferred tasks as well; with retries
    :param soft_fail: skip the task instead of failing it on a status of `fail_on`, or at the time limit
    :raises ValueError: a status or another argument is not usable; no request was sent; without retries
    :raises OperationFailedError: a status of `fail_on`; without retries
    :raises OperationCanceledError: the status `canceled`, if `fail_on` contains it; without retries
    :raises CloudPartnerError: or a subclass: a 401 that a fresh token did not cure or a lasting 404 (without
        retries), or a 403
    """

    template_fields: Sequence[str] = ("cloud_partner_conn_id", "offer_id", "publisher_id")

    def __init__(
        self,
        *,
        offer_id: str | XComArg,
        publisher_id: str | XComArg | None = None,
        statuses: Sequence[str] = (SIGNOFF, "succeeded"),
        fail_on: Sequence[str] = FAILURE_STATUSES,
        cloud_partner_conn_id: str | XComArg | None = DEFAULT_CONN_ID,
        deferrable: bool = True,
        poke_interval: timedelta | float = 30,
        exponential_backoff: bool = True,
        max_wait: timedelta | float = 600,
        timeout: timedelta | float = timedelta(days=7),
        soft_fail: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            cloud_partner_conn_id=cloud_partner_conn_id,
            deferrable=deferrable,
            poke_interval=poke_interval,
            exponential_backoff=exponential_backoff,
            max_wait=max_wait,
            timeout=timeout,
            soft_fail=soft_fail,
            **kwargs,
        )
        self.offer_id = check_literal("offer_id", offer_id)
        self.publisher_id = check_literal("publisher_id", publisher_id)
        self.statuses = check_literal("statuses", statuses)
        self.fail_on = check_literal("fail_on", fail_on)
        if not self.statuses:
            problem = "statuses must name at least one status, or the sensor could never succeed."
            raise fail_at_once(ValueError(problem))
        if both := set(self.statuses) & set(self.fail_on):
            problem = f"{', '.join(sorted(both))} can't be both in statuses and in fail_on."
            raise fail_at_once(ValueError(problem))

    def execute_complete(self, context: Context, event: Any) -> dict[str, Any]:
        """Return what the wait ended with, or raise it."""
        if self.publisher_id is None and isinstance(event, dict):
            # For the name in the grid: the connection's publisher is not known in this process.
            self.publisher_id = event.get("publisher_id")
        return super().execute_complete(context, event)

    def _make_trigger(self, started_at: float | None = None) -> OfferStatusTrigger:
        self.publisher_id = self._get_hook().settings.publisher(self.publisher_id)
        quote_segment(self.publisher_id, "publisher_id")
        quote_segment(self.offer_id, "offer_id")
        arguments = self._trigger_arguments(started_at, until=self.statuses, fail_on=self.fail_on)
        return OfferStatusTrigger(publisher_id=self.publisher_id, offer_id=self.offer_id, **arguments)
