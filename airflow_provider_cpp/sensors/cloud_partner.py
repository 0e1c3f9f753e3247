"""Sensors of the Cloud Partner Portal; by default they defer and occupy no worker."""

from __future__ import annotations

import time
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseSensorOperator,
    PokeReturnValue,
)

from airflow_provider_cpp import task_state
from airflow_provider_cpp.arguments import check_literal
from airflow_provider_cpp.constants import DEFAULT_CONN_ID
from airflow_provider_cpp.core import polling
from airflow_provider_cpp.core.errors import CloudPartnerError, NotFoundError
from airflow_provider_cpp.core.http import quote_segment
from airflow_provider_cpp.core.polling import FAILURE_STATUSES, SIGNOFF, SUCCESS_STATUSES, Until
from airflow_provider_cpp.exceptions import fail_at_once
from airflow_provider_cpp.offer_task import MAP_INDEX_TEMPLATE, OfferTask
from airflow_provider_cpp.polling import PollingMixin
from airflow_provider_cpp.portal.locations import normalize_location, offer_in_location
from airflow_provider_cpp.portal.targets import OfferStatusTarget, OperationTarget
from airflow_provider_cpp.templates import TemplateMixin
from airflow_provider_cpp.triggers.cloud_partner import OfferStatusTrigger, OperationTrigger
from airflow_provider_cpp.version_compat import get_first_reschedule_date

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_cpp.core.http import Request
    from airflow_provider_cpp.core.progress import Progress
    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
    from airflow_provider_cpp.triggers.cloud_partner import PollTrigger

#: Key in Airflow's task state store, for the polls of a rescheduled sensor.
POLL_STATE_KEY = "cloud_partner_poll_state"
# By so many seconds the first poll of a rescheduled sensor may be before the start that Airflow reports.
_CLOCK_TOLERANCE = 60.0
# Without a task state store, so many more requests, with so many seconds in between, confirm a late 404.
_CONFIRMATIONS, _CONFIRMATION_SECONDS = 2, 5.0


class _PollingSensor(TemplateMixin, OfferTask, PollingMixin, BaseSensorOperator):
    """Poll once in a worker, then in the triggerer; with `deferrable=False`, in workers, as `mode` sets."""

    ui_color = "#d5e8f7"
    max_wait: timedelta  # never None, unlike in other sensors

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
        self._poller: polling.Poller | None = None
        self._seconds = 0.0
        self._must_confirm_not_found = False

    def _make_poller(self, started_at: float | None = None) -> polling.Poller:
        """Return the poller, after a check of the arguments and the connection.

        :param started_at: time of the first poll, in seconds since the epoch; by default now
        :raises ValueError: an argument or the connection is invalid; no request was sent
        """
        raise NotImplementedError

    def execute(self, context: Context) -> Any:
        """Poll once; defer if the outcome is not known yet. With `deferrable=False`, poll as `mode` sets."""
        if not self.deferrable:
            return super().execute(context)
        with self._apply_soft_fail():
            return self._read_event(self._poll_to_end(self.hook, self._make_poller()))

    def execute_complete(self, context: Context, event: Any) -> dict[str, Any]:
        """Return the result in the trigger's event, or raise its error."""
        with self._apply_soft_fail():
            return self._read_event(event)

    def poke(self, context: Context) -> PokeReturnValue | bool:
        """Poll once in a worker."""
        self._seconds = self.poke_interval
        try:
            poller = self._poller = self._poller or self._resume_polling(context)
        except (AirflowNotFoundException, CloudPartnerError) as error:
            if not self._is_resumed:
                raise
            self.log.warning("%s: the poll was not sent; polling continues. %s", self.subject, error)
            return False
        before = poller.state
        decision = self._poll(self.hook, poller)
        self._seconds = decision.seconds
        if self.reschedule and (decision.event is not None or poller.state != before):
            # Later polls run in other processes. A retry must not inherit the faults of this try.
            state = poller.state if decision.event is None else polling.PollState()
            stored = {
                "started_at": poller.spec.started_at,
                "try_number": _try_number(context),
                "state": state.to_json(),
            }
            task_state.save(context, POLL_STATE_KEY, stored)
        if decision.event is not None:
            return PokeReturnValue(is_done=True, xcom_value=self._read_event(decision.event))
        return False

    def _resume_polling(self, context: Context) -> polling.Poller:
        """Return a poller that knows what earlier polls of a rescheduled sensor found."""
        if not self.reschedule:
            return self._make_poller()
        first_date = get_first_reschedule_date(context, retries=self.retries)
        if first_date is None:
            return self._make_poller()
        self._is_resumed = True
        poller = self._make_poller(first_date.timestamp())
        stored = task_state.load(context, POLL_STATE_KEY)
        try:
            is_current = stored["started_at"] >= poller.spec.started_at - _CLOCK_TOLERANCE
            # A killed try could not clear its state.
            if is_current and stored.get("try_number") == _try_number(context):
                poller.state = polling.PollState.from_json(stored["state"])
        except (KeyError, TypeError, ValueError):
            is_current = False
        age = time.time() - poller.spec.started_at
        if not is_current and age >= polling.NOT_FOUND_SECONDS:
            # Before Airflow 3.3 nothing tells whether earlier polls got a 404, too.
            poller.state = polling.PollState(not_found_since=poller.spec.started_at)
            self._must_confirm_not_found = True
        return poller

    def _send(self, hook: CloudPartnerHook, request: Request[Progress]) -> Progress:
        if self._must_confirm_not_found:
            for _ in range(_CONFIRMATIONS):
                try:
                    return super()._send(hook, request)
                except NotFoundError:
                    time.sleep(min(self.poke_interval, _CONFIRMATION_SECONDS))
        return super()._send(hook, request)

    def _get_next_poke_interval(
        self, started_at: datetime | float, run_duration: Callable[[], float], poke_count: int
    ) -> float:
        """Return the time that the log announced, as in the triggerer, and not Airflow's own backoff."""
        return self._seconds

    def _make_sensor_spec(
        self, started_at: float | None, *, until: tuple[str, ...], fail_on: tuple[str, ...]
    ) -> polling.PollSpec:
        return self._make_spec(
            self.subject,
            until=until,
            fail_on=fail_on,
            max_wait=self.max_wait.total_seconds(),
            exponential_backoff=self.exponential_backoff,
            started_at=started_at,
        )

    @contextmanager
    def _apply_soft_fail(self) -> Iterator[None]:
        """Apply `soft_fail` and `never_fail`, as Airflow does for `poke`."""
        try:
            yield
        except AirflowSkipException:
            raise
        except (Exception, AirflowTaskTimeout) as error:  # a BaseException
            is_final = isinstance(error, AirflowSensorTimeout | AirflowTaskTimeout | AirflowFailException)
            if not (self.never_fail or (self.soft_fail and is_final)):
                raise
            reason = f"Skipped instead of failed: {error}"
            # Airflow's UI collapses its own line with the reason.
            self.log.warning(reason)
            raise AirflowSkipException(reason) from error


def _try_number(context: Context) -> int | None:
    number: int | None = getattr(context["ti"], "try_number", None)
    return number


class OperationSensor(_PollingSensor):
    """Wait until a long-running operation completes (reference: Retrieve operations).

    Operations take hours to days. With `deferrable`, the triggerer polls and no worker is occupied. Polling
    survives lost connections, outages, throttling, expired tokens, 404 for less than 25 minutes, and restarts
    of the triggerer. The limits are the same in every mode.

    Returns the operation as a small JSON object: `location`, `publisher_id`, `offer_id`, `version` (None if
    the service does not report it), `status`, `progress_percentage`, `steps` (id, name, status,
    progress_percentage) and `messages` (texts, at most 20).

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
        """The operation's offer as `publisher/offer`, or the argument if it is no Location."""
        try:
            return "/".join(offer_in_location(self.operation_location))
        except (ValueError, TypeError, AttributeError):
            return str(self.operation_location)

    def _make_poller(self, started_at: float | None = None) -> polling.Poller:
        location = normalize_location(self.operation_location, self.hook.settings.base_url)
        spec = self._make_sensor_spec(
            started_at, until=SUCCESS_STATUSES[self.until], fail_on=FAILURE_STATUSES
        )
        return polling.Poller(spec, OperationTarget(location))

    def _make_trigger(self, poller: polling.Poller, first_poll_at: float) -> PollTrigger:
        return OperationTrigger(
            cloud_partner_conn_id=self.cloud_partner_conn_id,
            operation_location=poller.target.identity["location"],
            spec=poller.spec.to_json(),
            state=poller.state.to_json(),
            first_poll_at=first_poll_at,
        )


class OfferStatusSensor(_PollingSensor):
    """Wait until an offer has one of several statuses, regardless of who started the operation.

    The status may be the result of a task, of a colleague or of the portal.

    To wait for an operation that a task started, use `OperationSensor`: an offer's status does not name the
    operation that led to it. Polling survives the same faults as that of `OperationSensor`.

    Returns the status as a small JSON object: `publisher_id`, `offer_id`, `version` (None if the service does
    not report it), `status`, `progress_percentage`, `steps` (id, name, status, progress_percentage) and
    `messages` (texts, at most 20).

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
        """Return the result in the trigger's event, or raise its error."""
        if self.publisher_id is None and isinstance(event, dict):
            # For the name in the grid: this process has not read the connection.
            self.publisher_id = event.get("publisher_id")
        return super().execute_complete(context, event)

    def _make_poller(self, started_at: float | None = None) -> polling.Poller:
        self.publisher_id = self.hook.settings.publisher(self.publisher_id)
        quote_segment(self.publisher_id, "publisher_id")
        quote_segment(self.offer_id, "offer_id")
        spec = self._make_sensor_spec(started_at, until=self.statuses, fail_on=self.fail_on)
        return polling.Poller(spec, OfferStatusTarget(self.publisher_id, self.offer_id))

    def _make_trigger(self, poller: polling.Poller, first_poll_at: float) -> PollTrigger:
        return OfferStatusTrigger(
            cloud_partner_conn_id=self.cloud_partner_conn_id,
            publisher_id=poller.target.identity["publisher_id"],
            offer_id=poller.target.identity["offer_id"],
            spec=poller.spec.to_json(),
            state=poller.state.to_json(),
            first_poll_at=first_poll_at,
        )
