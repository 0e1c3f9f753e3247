"""Sensors that wait on the Cloud Partner Portal, by default without a worker."""

from __future__ import annotations

import time
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, get_args

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseSensorOperator,
    PokeReturnValue,
)

from airflow_provider_cpp.api import normalize_location, offer_of
from airflow_provider_cpp.mixins import OperationWaitMixin
from airflow_provider_cpp.waiting import Seen, Until, Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook


class OperationSensor(OperationWaitMixin, BaseSensorOperator):
    """Wait until a long-running operation of the Cloud Partner Portal completed.

    Operations take hours to days. With `deferrable` the wait is the triggerer's, and takes no worker. It
    survives lost connections, outages, throttling, expired tokens, 404 in an operation's first minutes, and
    restarts of the triggerer. Reference: Retrieve operations.

    Returns the operation as a small JSON object: `location`, `status`, `progress_percentage`, `steps` (id,
    name, status, progress_percentage) and `messages` (texts, at most 20).

    :param operation_location: what `GoLiveOperator` or the hook's `publish` returned: either form of the
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
    ui_color = "#d5e8f7"

    def __init__(
        self,
        *,
        operation_location: str,
        until: Until = "completed",
        cloud_partner_conn_id: str = "cloud_partner_default",
        deferrable: bool = True,
        poke_interval: timedelta | float = 30,
        exponential_backoff: bool = True,
        max_wait: timedelta | float = 600,
        timeout: timedelta | float = timedelta(days=7),
        **kwargs: Any,
    ) -> None:
        if until not in get_args(Until):
            raise ValueError(f"until must be one of {', '.join(get_args(Until))}; not {until!r}")
        kwargs["map_index_template"] = kwargs.get("map_index_template") or "{{ task.subject }}"
        super().__init__(
            poke_interval=poke_interval,
            exponential_backoff=exponential_backoff,
            max_wait=max_wait,
            timeout=timeout,
            **kwargs,
        )
        self.operation_location = operation_location
        self.until = until
        self.cloud_partner_conn_id = cloud_partner_conn_id
        self.deferrable = deferrable
        self._hook: CloudPartnerHook | None = None
        self._poking: Wait | None = None
        self._seen = Seen()
        self._seconds = 0.0

    @property
    def subject(self) -> str:
        """`publisher/offer` of the operation, which names a mapped task in the grid."""
        try:
            return "/".join(offer_of(self.operation_location))
        except (ValueError, TypeError, AttributeError):
            return str(self.operation_location)

    def execute(self, context: Context) -> Any:
        """Poll once, and wait in the triggerer if the operation did not end."""
        if not self.deferrable:
            return super().execute(context)
        with self._softly():
            return self._result(self._wait(self._get_hook(), self._location(), self._new_wait()))

    def execute_complete(self, context: Context, event: Any) -> dict[str, Any]:
        """Return the operation, or raise how it ended."""
        with self._softly():
            return self._result(event)

    def poke(self, context: Context) -> PokeReturnValue | bool:
        """Poll once, in a worker."""
        hook, location = self._get_hook(), self._location()
        if self._poking is None:
            # Airflow 2 says only afterwards when the first poll was.
            ask = getattr(context["ti"], "get_first_reschedule_date", None) if self.reschedule else None
            began = ask(context) if ask else None
            self._poking = self._new_wait(began.timestamp() if began else None)
        while True:
            decision, event = self._poll(hook, location, self._poking, self._seen)
            self._seen, self._seconds = decision.seen, decision.seconds
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
        if self._poking is not None and age > time.time() - self._poking.started_at + 1:
            self._seconds = max(self._seconds, self._poking.interval(self._poking.started_at + age))
        return max(0.0, min(self._seconds, self.timeout - age))

    def _new_wait(self, started_at: float | None = None) -> Wait:
        return self._make_wait(
            self.subject,
            until=self.until,
            max_wait=self.poke_interval if self.max_wait is None else self.max_wait.total_seconds(),
            exponential_backoff=self.exponential_backoff,
            started_at=started_at,
        )

    def _get_hook(self) -> CloudPartnerHook:
        if self._hook is None:
            from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook

            self._hook = CloudPartnerHook(self.cloud_partner_conn_id)
        return self._hook

    def _location(self) -> str:
        return normalize_location(self.operation_location, self._get_hook().settings.base_url)

    @contextmanager
    def _softly(self) -> Iterator[None]:
        """Do what `soft_fail` and `never_fail` do in a worker."""
        try:
            yield
        except (AirflowSensorTimeout, AirflowTaskTimeout, AirflowFailException) as error:
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException(f"Skipped instead of failed: {error}") from error
            raise
        except AirflowSkipException:
            raise
        except Exception as error:
            if self.never_fail:
                raise AirflowSkipException(f"Skipped instead of failed: {error}") from error
            raise
