"""Operators that release offers through the Cloud Partner Portal."""

from __future__ import annotations

import math
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, get_args

from airflow.providers.common.compat.sdk import AirflowSkipException, AirflowTaskTimeout, BaseOperator

from airflow_provider_cpp.api import CloudPartnerError, NotFoundError, offer_of, segment
from airflow_provider_cpp.mixins import OperationWaitMixin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
    from airflow_provider_cpp.starting import IfRunning

IfLive = Literal["submit", "skip", "succeed"]


class GoLiveOperator(OperationWaitMixin, BaseOperator):
    """Take an offer from preview to production, exactly once per task instance. Reference: Go live.

    Returns the Location path of the operation, for `OperationSensor`.

    Before it sends anything it looks at the offer's operations: a go-live that runs is adopted, and so is one
    that succeeded since this Dag run began, as long as production has the preview's version. So a task that
    was killed after its request, or whose request's answer was lost, doesn't go live twice. One that failed
    or was canceled is never adopted.

    :param offer_id: id of the offer (templated)
    :param publisher_id: id of the publisher; by default the connection's (templated)
    :param cloud_partner_conn_id: id of the connection (templated)
    :param if_running: `adopt` a go-live that already runs, or `fail`
    :param if_live: what to do when production has the preview's version already: `skip` the task, `succeed`
        and return None, or `submit` without looking
    :param wait_for_completion: do what `OperationSensor` does, in the same task
    :param deferrable: wait in the triggerer; otherwise in the worker
    :param poke_interval: the shortest time between two polls, in seconds or as a timedelta
    :param max_wait: the longest time between two polls, in seconds or as a timedelta
    :param timeout: when to give up the wait, in seconds or as a timedelta
    :param cancel_on_kill: cancel the operation when a user fails or clears the waiting task (deferred:
        Airflow 3.3 and later), or when its `execution_timeout` runs out
    :raises ValueError: an id or the connection can't be used; nothing was sent
    :raises ConflictError: a publish runs, or with `if_running="fail"` a go-live
    :raises CloudPartnerError: or one below it: the service refused, or can't be reached
    :raises OperationFailedError: it was waited for and failed; fails without retries
    :raises OperationCanceledError: it was waited for and canceled; fails without retries
    """

    template_fields: Sequence[str] = ("cloud_partner_conn_id", "offer_id", "publisher_id")
    ui_color = "#b3d7f2"

    def __init__(
        self,
        *,
        offer_id: str,
        publisher_id: str | None = None,
        cloud_partner_conn_id: str = "cloud_partner_default",
        if_running: IfRunning = "adopt",
        if_live: IfLive = "submit",
        wait_for_completion: bool = False,
        deferrable: bool = True,
        poke_interval: timedelta | float = 30,
        max_wait: timedelta | float = 600,
        timeout: timedelta | float = timedelta(days=7),
        cancel_on_kill: bool = False,
        **kwargs: Any,
    ) -> None:
        _check_choice("if_running", if_running, ("adopt", "fail"))
        _check_choice("if_live", if_live, get_args(IfLive))
        kwargs["map_index_template"] = kwargs.get("map_index_template") or "{{ task.subject }}"
        super().__init__(**kwargs)
        self.offer_id = offer_id
        self.publisher_id = publisher_id
        self.cloud_partner_conn_id = cloud_partner_conn_id
        self.if_running = if_running
        self.if_live = if_live
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poke_interval = _seconds("poke_interval", poke_interval)
        self.max_wait = _seconds("max_wait", max_wait)
        self.timeout = _seconds("timeout", timeout)
        self.cancel_on_kill = cancel_on_kill
        self._location: str | None = None

    @property
    def subject(self) -> str:
        """`publisher/offer`, which names a mapped task in the grid."""
        return "/".join(str(part) for part in (self.publisher_id, self.offer_id) if part)

    def execute(self, context: Context) -> str | None:
        """Start go live, and wait for it if asked for."""
        from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook

        hook = CloudPartnerHook(self.cloud_partner_conn_id)
        self.publisher_id = hook.settings.publisher(self.publisher_id)
        segment(self.publisher_id, "publisher_id")
        segment(self.offer_id, "offer_id")
        location = self._go_live(hook, self.publisher_id, context)
        if location is None or not self.wait_for_completion:
            return location
        # Said before the wait, so that it can be seen in the UI, and that a kill can cancel it.
        self._location = location
        context["ti"].xcom_push(key="return_value", value=location)
        wait = self._make_wait(self.subject, until="completed", max_wait=self.max_wait)
        return self.execute_complete(
            context, self._wait(hook, location, wait, cancel_on_kill=self.cancel_on_kill)
        )

    def execute_complete(self, context: Context, event: Any) -> str:
        """Return the Location path of the completed operation, or raise how it ended."""
        self._location = event.get("location") if isinstance(event, dict) else None
        with suppress(ValueError, TypeError):
            # For the name in the grid: the connection's publisher is not known in this process.
            self.publisher_id = self.publisher_id or offer_of(self._location or "")[0]
        try:
            return str(self._result(event)["location"])
        except AirflowTaskTimeout:
            self.on_kill()
            raise

    def on_kill(self) -> None:
        """Cancel the operation, if asked for, when the task is killed while it waits in a worker."""
        location, self._location = self._location, None
        if not self.cancel_on_kill or location is None:
            return
        from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook

        try:
            CloudPartnerHook(self.cloud_partner_conn_id).cancel_operation(location)
        except CloudPartnerError:
            self.log.exception("%s: could not be canceled, as cancel_on_kill asks.", self.subject)

    def _go_live(self, hook: CloudPartnerHook, publisher_id: str, context: Context) -> str | None:
        from airflow_provider_cpp.starting import Start

        def is_live() -> bool:
            try:
                preview = hook.get_offer(self.offer_id, publisher_id, slot="preview")
                production = hook.get_offer(self.offer_id, publisher_id, slot="production")
            except NotFoundError:  # nothing was ever put there
                return False
            return preview.version is not None and preview.version == production.version

        start = Start(
            hook,
            publisher_id,
            self.offer_id,
            verb="go-live",
            request=lambda: hook.go_live(self.offer_id, publisher_id),
            is_mine=lambda submission: submission.is_go_live,
            is_achieved=is_live,
        )
        since = _began(context.get("dag_run"))
        if location := start.adopt(if_running=self.if_running, since=since):
            return location
        if self.if_live != "submit" and start.check_achieved():
            message = f"{self.subject}: production has the preview's version already."
            if self.if_live == "skip":
                raise AirflowSkipException(message)
            self.log.info("%s Nothing to do.", message)
            return None
        return start.submit(if_running=self.if_running)


def _began(dag_run: Any) -> datetime | None:
    """Return when a Dag run began: clearing it sets its `start_date` anew, but not what comes first."""
    for name in ("run_after", "data_interval_end", "start_date"):
        if isinstance(moment := getattr(dag_run, name, None), datetime):
            return moment
    return None


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; not {value!r}")


def _seconds(name: str, value: timedelta | float) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not (is_number and math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"{name} must be a timedelta or a number of seconds from 0; not {value!r}")
    return float(seconds)
