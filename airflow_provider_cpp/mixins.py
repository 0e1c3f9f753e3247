"""What the sensors and the operators that wait have in common."""

from __future__ import annotations

import random
import time
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import AirflowSensorTimeout, AirflowTaskTimeout

from airflow_provider_cpp.api import CloudPartnerError, Operation
from airflow_provider_cpp.triggers.cloud_partner import OperationTrigger, make_event, read_event
from airflow_provider_cpp.waiting import Decision, Seen, Until, Wait, decide

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook

#: The trigger ends the wait at its deadline. Airflow does, so much later, if there is no triggerer that
#: could.
TRIGGERER_GRACE = timedelta(minutes=5)


class OperationWaitMixin:
    """Wait on a long-running operation: in the triggerer, or in this process."""

    cloud_partner_conn_id: str
    poke_interval: float
    timeout: float
    execution_timeout: timedelta | None
    deferrable: bool
    if TYPE_CHECKING:
        defer: Callable[..., NoReturn]

        @property
        def log(self) -> Any: ...  # noqa: D102  every operator has it

    @property
    def _execution_limit(self) -> timedelta | None:
        # Airflow leaves deferred time out of `execution_timeout`; users don't. Rescheduled, each poll has it.
        rescheduled = not self.deferrable and getattr(self, "reschedule", False)
        return None if rescheduled else self.execution_timeout

    def _poll(
        self, hook: CloudPartnerHook, location: str, wait: Wait, seen: Seen
    ) -> tuple[Decision, dict[str, Any] | None]:
        """Ask once. Return what follows, and the event if the wait ended."""
        answer: Operation | CloudPartnerError
        try:
            answer = hook.get_operation(location)
        except CloudPartnerError as error:
            answer = error
        decision = decide(wait, seen, answer, now=time.time(), jitter=random.random())  # noqa: S311
        for level, line in decision.log:
            self.log.log(level, line)
        return decision, make_event(wait, location, decision.end, answer) if decision.end else None

    def _make_wait(
        self,
        subject: str,
        *,
        until: Until,
        max_wait: float,
        exponential_backoff: bool = True,
        started_at: float | None = None,
    ) -> Wait:
        limits = [timedelta(seconds=self.timeout), self._execution_limit]
        began = time.time() if started_at is None else started_at
        return Wait(
            subject=subject,
            until=until,
            started_at=began,
            deadline=began + min(limit for limit in limits if limit is not None).total_seconds(),
            poke_interval=self.poke_interval,
            max_wait=max_wait,
            exponential_backoff=exponential_backoff,
        )

    def _wait(
        self, hook: CloudPartnerHook, location: str, wait: Wait, *, cancel_on_kill: bool = False
    ) -> dict[str, Any]:
        """Return the event with which the wait ended, or hand it to the triggerer after the first poll."""
        seen = Seen()
        while True:
            decision, event = self._poll(hook, location, wait, seen)
            if event:
                return event
            if self.deferrable:
                self._defer(location, wait, decision, cancel_on_kill=cancel_on_kill)
            time.sleep(decision.seconds)
            seen = decision.seen

    def _defer(self, location: str, wait: Wait, decision: Decision, *, cancel_on_kill: bool) -> NoReturn:
        trigger = OperationTrigger(
            cloud_partner_conn_id=self.cloud_partner_conn_id,
            operation_location=location,
            wait=asdict(wait),
            seen=decision.seen.to_json(),
            first_poll_at=time.time() + decision.seconds,
            cancel_on_kill=cancel_on_kill,
        )
        remaining = timedelta(seconds=max(0.0, wait.deadline - time.time()))
        self.defer(trigger=trigger, method_name="execute_complete", timeout=remaining + TRIGGERER_GRACE)

    def _result(self, event: Any) -> dict[str, Any]:
        """Return the operation's summary from an event, or raise what it says.

        :raises AirflowSensorTimeout: the operation did not end within `timeout`; fails without retries
        :raises AirflowTaskTimeout: nor within the shorter `execution_timeout`
        """
        try:
            return read_event(event)
        except TimeoutError as error:
            limit = self._execution_limit
            if limit is not None and limit.total_seconds() < self.timeout:
                raise AirflowTaskTimeout(str(error)) from None
            raise AirflowSensorTimeout(str(error)) from None
