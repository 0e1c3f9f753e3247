"""Polling in a worker, and the handover to the triggerer: shared by sensors and operators."""

from __future__ import annotations

import random
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowNotFoundException,
    AirflowSensorTimeout,
    AirflowTaskTimeout,
)

from airflow_provider_cpp.core.errors import AuthenticationError, CloudPartnerError, NotFoundError
from airflow_provider_cpp.core.polling import Poller, PollSpec, PollState
from airflow_provider_cpp.core.progress import summarize
from airflow_provider_cpp.events import read_event
from airflow_provider_cpp.links.cloud_partner import LIVE, PARTNER_CENTER, PREVIEW, LinksMixin

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from airflow.providers.common.compat.sdk import BaseOperatorLink

    from airflow_provider_cpp.core.http import Request
    from airflow_provider_cpp.core.polling import Decision
    from airflow_provider_cpp.core.progress import Progress
    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
    from airflow_provider_cpp.triggers.cloud_partner import PollTrigger

#: The trigger ends polling at the deadline. Airflow's own timeout is later by this time, for the case that no
#: triggerer runs.
TRIGGERER_GRACE = timedelta(minutes=5)


class PollingMixin(LinksMixin):
    """Poll once in the worker, then hand over to the triggerer, or keep polling in the worker."""

    operator_extra_links: Collection[BaseOperatorLink] = (PREVIEW, LIVE, PARTNER_CENTER)

    poke_interval: float
    timeout: float
    execution_timeout: timedelta | None
    deferrable: bool
    #: Whether earlier polls of this try ran in another process.
    _is_resumed: bool = False
    if TYPE_CHECKING:
        defer: Callable[..., NoReturn]

        @property
        def log(self) -> Any: ...  # noqa: D102  every operator has it

    def _make_trigger(self, poller: Poller, first_poll_at: float) -> PollTrigger:
        """Return the trigger that continues the polling.

        :param first_poll_at: when the trigger polls first, in seconds since the epoch
        """
        raise NotImplementedError

    @property
    def _execution_limit(self) -> timedelta | None:
        # Airflow does not count deferred time for `execution_timeout`; the trigger's deadline does. In
        # reschedule mode, each poll has the whole `execution_timeout`.
        rescheduled = not self.deferrable and getattr(self, "reschedule", False)
        return None if rescheduled else self.execution_timeout

    def _make_spec(
        self,
        subject: str,
        *,
        until: tuple[str, ...],
        fail_on: tuple[str, ...],
        max_wait: float,
        exponential_backoff: bool = True,
        started_at: float | None = None,
    ) -> PollSpec:
        started_at = time.time() if started_at is None else started_at
        limits = [timedelta(seconds=self.timeout), self._execution_limit]
        return PollSpec(
            subject=subject,
            until=until,
            fail_on=fail_on,
            started_at=started_at,
            deadline=started_at + min(limit for limit in limits if limit is not None).total_seconds(),
            poke_interval=self.poke_interval,
            max_wait=max_wait,
            exponential_backoff=exponential_backoff,
        )

    def _poll(self, hook: CloudPartnerHook, poller: Poller) -> Decision:
        """Poll once and log what changed."""
        result: Progress | CloudPartnerError
        is_first = poller.state == PollState() and not self._is_resumed
        try:
            result = self._send(hook, poller.request(hook.settings.base_url))
            self._show_pages(summarize(poller.target, result))
        except CloudPartnerError as error:
            # A host without an identity must fail its task at the first poll, not poll until the timeout.
            if is_first and isinstance(error, AuthenticationError) and error.unavailable:
                raise
            result = error
        except AirflowNotFoundException as error:
            # Airflow raises it also during an outage: like a 404, it is final only after several polls.
            if is_first:
                raise
            result = NotFoundError(str(error))
        decision = poller.feed(result, now=time.time(), jitter=random.random())  # noqa: S311
        for level, line in decision.log:
            self.log.log(level, line)
        return decision

    def _send(self, hook: CloudPartnerHook, request: Request[Progress]) -> Progress:
        try:
            return hook.ask(request)
        except AuthenticationError as error:
            raise hook.reload_after(error) from None

    def _poll_to_end(self, hook: CloudPartnerHook, poller: Poller) -> dict[str, Any]:
        """Return the event that ends polling; if the first poll brings none, defer or keep polling."""
        while True:
            decision = self._poll(hook, poller)
            if decision.event is not None:
                return decision.event
            now = time.time()
            if self.deferrable:
                remaining = timedelta(seconds=max(0.0, poller.spec.deadline - now))
                self.defer(
                    trigger=self._make_trigger(poller, now + decision.seconds),
                    method_name="execute_complete",
                    timeout=remaining + TRIGGERER_GRACE,
                )
            time.sleep(decision.seconds)

    def _read_event(self, event: Any) -> dict[str, Any]:
        """Return the result in an event, or raise the event's error.

        :raises AirflowSensorTimeout: `timeout` expired; fails without retries
        :raises AirflowTaskTimeout: the shorter `execution_timeout` expired
        """
        try:
            result = read_event(event)
        except TimeoutError as error:
            limit = self._execution_limit
            if limit is not None and limit.total_seconds() < self.timeout:
                raise AirflowTaskTimeout(str(error)) from None
            raise AirflowSensorTimeout(str(error)) from None
        self._show_pages(result)
        return result
