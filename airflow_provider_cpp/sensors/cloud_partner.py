"""Sensors that wait on the Cloud Partner Portal, by default without a worker."""

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

from airflow_provider_cpp.constants import DEFAULT_CONN_ID
from airflow_provider_cpp.core.http import quote_segment
from airflow_provider_cpp.core.models import OFFER_STATES
from airflow_provider_cpp.core.polling import FAILURE_STATUSES, SIGNOFF, SUCCESS_STATUSES, Until
from airflow_provider_cpp.core.text import normalize_status
from airflow_provider_cpp.mixins import NAME, NameMixin, WaitMixin
from airflow_provider_cpp.portal.locations import normalize_location, offer_in_location
from airflow_provider_cpp.templates import TemplateMixin
from airflow_provider_cpp.triggers.cloud_partner import OfferStatusTrigger, OperationTrigger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
    from airflow_provider_cpp.triggers.cloud_partner import WaitTrigger


class _WaitSensor(TemplateMixin, NameMixin, WaitMixin, BaseSensorOperator):
    """Poll once in a worker, then wait in the triggerer; or in a worker, as `mode` says."""

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
            self._trigger.first_poll_at = began.timestamp() if began else 0.0
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
        if self._hook is None:
            from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook

            self._hook = CloudPartnerHook(self.cloud_partner_conn_id)
        return self._hook

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

    Operations take hours to days. With `deferrable` the wait is the triggerer's, and takes no worker. It
    survives lost connections, outages, throttling, expired tokens, 404 in an operation's first minutes, and
    restarts of the triggerer. Reference: Retrieve operations.

    Returns the operation as a small JSON object: `location`, `status`, `progress_percentage`, `steps` (id,
    name, status, progress_percentage) and `messages` (texts, at most 20).

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
        """The operation's offer as `publisher/offer`, or whatever is waited on instead."""
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
    """Wait until an offer has one of some statuses, whoever brings it there.

    Reference: Retrieve offer status.

    To wait on an operation that a task of yours began, use `OperationSensor`: an offer's status doesn't say
    which operation it came of. Everything that `OperationSensor` survives, this one survives.

    Returns how the offer stands as a small JSON object: `publisher_id`, `offer_id`, `status`, `steps` (id,
    name, status, progress_percentage) and `messages` (texts, at most 20).

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


def _statuses(name: str, words: Sequence[str]) -> tuple[str, ...]:
    """Return statuses as this provider spells them, whichever of the service's spellings they have."""
    if isinstance(words, str):
        raise ValueError(f"{name} must be a list of statuses, not the text {words!r}")
    if unknown := [word for word in words if normalize_status(word) not in OFFER_STATES]:
        known = ", ".join(dict.fromkeys(state.value for state in OFFER_STATES.values()))
        raise ValueError(f"{name}: {unknown[0]!r} is no status of an offer; there are {known}")
    return tuple(OFFER_STATES[normalize_status(word)].value for word in words)
