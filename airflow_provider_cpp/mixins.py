"""What the sensors and the operators that wait have in common."""

from __future__ import annotations

import random
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import AirflowSensorTimeout, AirflowTaskTimeout

from airflow_provider_cpp.core.errors import AuthenticationError, CloudPartnerError
from airflow_provider_cpp.core.polling import Decision, PollSpec, decide, summarize
from airflow_provider_cpp.links.cloud_partner import LIVE, PARTNER_CENTER, PREVIEW, LinksMixin
from airflow_provider_cpp.triggers.cloud_partner import make_event, read_event

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from airflow.providers.common.compat.sdk import BaseOperatorLink, Context

    from airflow_provider_cpp.core.polling import Progress
    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
    from airflow_provider_cpp.triggers.cloud_partner import WaitTrigger

#: The trigger ends the wait at its deadline. Airflow does, so much later, if there is no triggerer that
#: could.
TRIGGERER_GRACE = timedelta(minutes=5)

#: What names the instances of a mapped task in the grid, unless a Dag says otherwise.
NAME = "{{ task.subject }}"


class NameMixin:
    """Name the instances of a mapped task in the grid by their offers."""

    publisher_id: str | None
    offer_id: str

    @property
    def subject(self) -> str:
        """The offer as `publisher/offer`."""
        return "/".join(str(part) for part in (self.publisher_id, self.offer_id) if part)

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Map over what `expand` gives, as every operator can.

        Before 3.3, Airflow doesn't read the default name of what is mapped from the operator's signature.
        """
        return super().partial(**{"map_index_template": NAME} | kwargs)  # type: ignore[misc]

    def pre_execute(self, context: Context) -> None:
        """Let the name be that of this task."""
        # Airflow 3.0 has the task of before its templates were rendered there.
        context["task"] = self  # type: ignore[typeddict-item]
        super().pre_execute(context)  # type: ignore[misc]


class WaitMixin(LinksMixin):
    """Wait on what the service does: in the triggerer, or in this process."""

    operator_extra_links: Collection[BaseOperatorLink] = (PREVIEW, LIVE, PARTNER_CENTER)

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

    def _make_wait(
        self,
        subject: str,
        *,
        until: tuple[str, ...],
        fail_on: tuple[str, ...],
        max_wait: float,
        exponential_backoff: bool = True,
        started_at: float | None = None,
    ) -> PollSpec:
        limits = [timedelta(seconds=self.timeout), self._execution_limit]
        began = time.time() if started_at is None else started_at
        return PollSpec(
            subject=subject,
            until=until,
            fail_on=fail_on,
            started_at=began,
            deadline=began + min(limit for limit in limits if limit is not None).total_seconds(),
            poke_interval=self.poke_interval,
            max_wait=max_wait,
            exponential_backoff=exponential_backoff,
        )

    def _poll(self, hook: CloudPartnerHook, trigger: WaitTrigger) -> tuple[Decision, dict[str, Any] | None]:
        """Ask once, and let the trigger know. Return what follows, and the event if the wait ended."""
        answer: Progress | CloudPartnerError
        last: Progress | None = None
        error: CloudPartnerError | None = None
        try:
            answer = last = hook.ask(trigger.call(hook.settings.base_url))
            self._show_pages(summarize(trigger.identity, last))
        except CloudPartnerError as problem:
            # A host without any identity must fail its task, not poll until the timeout.
            if isinstance(problem, AuthenticationError) and problem.unavailable and not trigger.first_poll_at:
                raise
            answer = error = problem
        decision = decide(trigger.wait, trigger.seen, answer, now=time.time(), jitter=random.random())  # noqa: S311
        for level, line in decision.log:
            self.log.log(level, line)
        trigger.seen = decision.seen
        trigger.first_poll_at = time.time() + decision.seconds
        if decision.end is None:
            return decision, None
        return decision, make_event(trigger.wait, trigger.identity, decision.end, last, error)

    def _wait(self, hook: CloudPartnerHook, trigger: WaitTrigger) -> dict[str, Any]:
        """Return the event with which the wait ended, or hand it to the triggerer after the first poll."""
        while True:
            decision, event = self._poll(hook, trigger)
            if event:
                return event
            if self.deferrable:
                remaining = timedelta(seconds=max(0.0, trigger.wait.deadline - time.time()))
                self.defer(
                    trigger=trigger, method_name="execute_complete", timeout=remaining + TRIGGERER_GRACE
                )
            time.sleep(decision.seconds)

    def _result(self, event: Any) -> dict[str, Any]:
        """Return the summary from an event, or raise what it says.

        :raises AirflowSensorTimeout: it did not end within `timeout`; fails without retries
        :raises AirflowTaskTimeout: nor within the shorter `execution_timeout`
        """
        try:
            summary = read_event(event)
        except TimeoutError as error:
            limit = self._execution_limit
            if limit is not None and limit.total_seconds() < self.timeout:
                raise AirflowTaskTimeout(str(error)) from None
            raise AirflowSensorTimeout(str(error)) from None
        self._show_pages(summary)
        return summary
