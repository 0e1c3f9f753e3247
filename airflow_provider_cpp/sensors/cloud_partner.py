"""Sensors that wait for an operation or for an offer's status, by default without a worker."""

from __future__ import annotations

import time
from contextlib import contextmanager
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

from airflow_provider_cpp import task_state
from airflow_provider_cpp.constants import DEFAULT_CONN_ID
from airflow_provider_cpp.core import polling
from airflow_provider_cpp.core.errors import NotFoundError
from airflow_provider_cpp.core.http import quote_segment
from airflow_provider_cpp.core.models import OFFER_STATES
from airflow_provider_cpp.core.polling import FAILURE_STATUSES, SIGNOFF, SUCCESS_STATUSES, Until
from airflow_provider_cpp.core.text import normalize_status
from airflow_provider_cpp.mixins import NAME, NameMixin
from airflow_provider_cpp.polling import PollingMixin
from airflow_provider_cpp.portal.locations import normalize_location, offer_in_location
from airflow_provider_cpp.portal.targets import OfferStatusTarget, OperationTarget
from airflow_provider_cpp.templates import TemplateMixin
from airflow_provider_cpp.triggers.cloud_partner import OfferStatusTrigger, OperationTrigger
from airflow_provider_cpp.version_compat import get_first_reschedule_date

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from airflow.providers.common.compat.sdk import Context

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


class _PollingSensor(TemplateMixin, NameMixin, PollingMixin, BaseSensorOperator):
    """Poll once in a worker, then in the triggerer; with `deferrable=False`, in workers, as `mode` sets."""

    ui_color = "#d5e8f7"

    def __init__(
        self,
        *,
        cloud_partner_conn_id: str = DEFAULT_CONN_ID,
        deferrable: bool = True,
        poke_interval: timedelta | float = 30,
        exponential_backoff: bool = True,
        max_wait: timedelta | float = 600,
        timeout: timedelta | float = timedelta(days=7),
        map_index_template: str | None = NAME,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            map_index_template=map_index_template,
            poke_interval=poke_interval,
            exponential_backoff=exponential_backoff,
            max_wait=max_wait,
            timeout=timeout,
            **kwargs,
        )
        self.cloud_partner_conn_id = cloud_partner_conn_id
        self.deferrable = deferrable
        self._hook: CloudPartnerHook | None = None
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
            return self._read_event(self._poll_to_end(self._get_hook(), self._make_poller()))

    def execute_complete(self, context: Context, event: Any) -> dict[str, Any]:
        """Return the result in the trigger's event, or raise its error."""
        with self._apply_soft_fail():
            return self._read_event(event)

    def poke(self, context: Context) -> PokeReturnValue | bool:
        """Poll once in a worker."""
        self._seconds = self.poke_interval
        poller = self._poller = self._poller or self._resume_polling(context)
        before = poller.state
        decision = self._poll(self._get_hook(), poller)
        self._seconds = decision.seconds
        if self.reschedule and (decision.event is not None or poller.state != before):
            # Later polls run in other processes. A retry must not inherit the faults of this try.
            state = poller.state if decision.event is None else polling.PollState()
            stored = {"started_at": poller.spec.started_at, "state": state.to_json()}
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
            poller.state = polling.PollState.from_json(stored["state"]) if is_current else poller.state
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
            max_wait=self.poke_interval if self.max_wait is None else self.max_wait.total_seconds(),
            exponential_backoff=self.exponential_backoff,
            started_at=started_at,
        )

    def _get_hook(self) -> CloudPartnerHook:
        if self._hook is None:
            from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook

            self._hook = CloudPartnerHook(self.cloud_partner_conn_id)
        return self._hook

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


class OperationSensor(_PollingSensor):
    """Wait until a long-running operation completes (reference: Retrieve operations).

    Operations take hours to days. With `deferrable`, the triggerer polls and no worker is occupied. Polling
    survives lost connections, outages, throttling, expired tokens, 404 for less than 25 minutes, and restarts
    of the triggerer. The limits are the same in every mode.

    Returns the operation as a small JSON object: `location`, `publisher_id`, `offer_id`, `version` (None if
    the service does not report it), `status`, `progress_percentage`, `steps` (id, name, status,
    progress_percentage) and `messages` (texts, at most 20).

    :param operation_location: what `GoLiveOperator` or `PublishOperator` returned: either form of the
        Location path, or an absolute URL on the connection's host (templated)
    :param until: `completed`, or `preview` to succeed also when the publisher's signoff is awaited
    :param cloud_partner_conn_id: id of the connection (templated)
    :param deferrable: wait in the triggerer; otherwise in a worker, as `mode` says
    :param poke_interval: the shortest time between two polls, in seconds or as a timedelta
    :param exponential_backoff: let that time grow with the age of the wait, up to `max_wait`
    :param max_wait: the longest time between two polls, in seconds or as a timedelta
    :param timeout: when to give up, in seconds or as a timedelta. Fails without retries. A shorter
        `execution_timeout` holds while deferred, too, and fails with retries.
    :param soft_fail: skip instead of failing when the operation failed, was canceled, or did not end in time
    :raises ValueError: the location can't be used; nothing was sent
    :raises OperationFailedError: the operation failed; fails without retries
    :raises OperationCanceledError: the operation was canceled; fails without retries
    :raises CloudPartnerError: or one below it: a 401 that a fresh token did not cure, 403, or a lasting 404
    """

    template_fields: Sequence[str] = ("cloud_partner_conn_id", "operation_location")

    def __init__(self, *, operation_location: str, until: Until = "completed", **kwargs: Any) -> None:
        if until not in SUCCESS_STATUSES:
            raise ValueError(f"until must be one of {', '.join(SUCCESS_STATUSES)}; not {until!r}")
        super().__init__(**kwargs)
        self.operation_location = operation_location
        self.until = until

    @property
    def subject(self) -> str:
        """The operation's offer as `publisher/offer`, or the argument if it is no Location."""
        try:
            return "/".join(offer_in_location(self.operation_location))
        except (ValueError, TypeError, AttributeError):
            return str(self.operation_location)

    def _make_poller(self, started_at: float | None = None) -> polling.Poller:
        location = normalize_location(self.operation_location, self._get_hook().settings.base_url)
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
    """Wait until an offer has one of the given statuses (reference: Retrieve offer status).

    The status may be the result of a task, of a colleague or of the portal. To wait for an operation that a
    task started, use `OperationSensor`: an offer's status does not name its operation. Polling survives the
    same faults as in `OperationSensor`.

    Returns the status as a small JSON object: `publisher_id`, `offer_id`, `version` (None if the service does
    not report it), `status`, `progress_percentage`, `steps` (id, name, status, progress_percentage) and
    `messages` (texts, at most 20).

    :param offer_id: id of the offer (templated)
    :param publisher_id: id of the publisher; by default the connection's (templated)
    :param statuses: the statuses to wait for. `waitingForPublisherReview` is also when the signoff is
        awaited though the service's status is still `running`
    :param fail_on: the statuses that fail the task, without retries
    :param cloud_partner_conn_id: id of the connection (templated)
    :param deferrable: wait in the triggerer; otherwise in a worker, as `mode` says
    :param poke_interval: the shortest time between two polls, in seconds or as a timedelta
    :param exponential_backoff: let that time grow with the age of the wait, up to `max_wait`
    :param max_wait: the longest time between two polls, in seconds or as a timedelta
    :param timeout: when to give up, in seconds or as a timedelta. Fails without retries. A shorter
        `execution_timeout` holds while deferred, too, and fails with retries.
    :param soft_fail: skip instead of failing on a status of `fail_on`, or when the time is up
    :raises ValueError: a status that no offer has, or an id that can't be used; nothing was sent
    :raises OperationFailedError: a status of `fail_on`; fails without retries
    :raises OperationCanceledError: the status `canceled`, if it is in `fail_on`; fails without retries
    :raises CloudPartnerError: or one below it: a 401 that a fresh token did not cure, 403, or a lasting 404
    """

    template_fields: Sequence[str] = ("cloud_partner_conn_id", "offer_id", "publisher_id")

    def __init__(
        self,
        *,
        offer_id: str,
        publisher_id: str | None = None,
        statuses: Sequence[str] = (SIGNOFF, "succeeded"),
        fail_on: Sequence[str] = FAILURE_STATUSES,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.offer_id = offer_id
        self.publisher_id = publisher_id
        self.statuses = _statuses("statuses", statuses)
        self.fail_on = _statuses("fail_on", fail_on)
        if not self.statuses:
            raise ValueError("statuses must name at least one status, or the wait would have no good end")
        if both := set(self.statuses) & set(self.fail_on):
            raise ValueError(f"{', '.join(sorted(both))} can't be both in statuses and in fail_on")

    def execute_complete(self, context: Context, event: Any) -> dict[str, Any]:
        """Return the result in the trigger's event, or raise its error."""
        if self.publisher_id is None and isinstance(event, dict):
            # For the name in the grid: this process has not read the connection.
            self.publisher_id = event.get("publisher_id")
        return super().execute_complete(context, event)

    def _make_poller(self, started_at: float | None = None) -> polling.Poller:
        self.publisher_id = self._get_hook().settings.publisher(self.publisher_id)
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


def _statuses(name: str, words: Sequence[str]) -> tuple[str, ...]:
    """Return statuses in this provider's spelling; the service has several."""
    if isinstance(words, str):
        raise ValueError(f"{name} must be a list of statuses, not the text {words!r}")
    if unknown := [word for word in words if normalize_status(word) not in OFFER_STATES]:
        known = ", ".join(dict.fromkeys(state.value for state in OFFER_STATES.values()))
        raise ValueError(f"{name}: {unknown[0]!r} is no status of an offer; there are {known}")
    return tuple(OFFER_STATES[normalize_status(word)].value for word in words)
