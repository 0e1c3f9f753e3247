"""Triggers that poll an operation or an offer's status in the triggerer."""

from __future__ import annotations

import asyncio
import random
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_cpp.core.errors import AuthenticationError, CloudPartnerError, NotFoundError
from airflow_provider_cpp.core.polling import Decision, Poller, PollSpec, PollState, Unchanged
from airflow_provider_cpp.core.progress import effective_status
from airflow_provider_cpp.portal.targets import OfferStatusTarget, OperationTarget
from airflow_provider_cpp.task_termination import describe_user_action
from airflow_provider_cpp.transport.single_flight import single_flight

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from airflow_provider_cpp.core.progress import PollTarget, Progress
    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook

_HOOK_MODULE = "airflow_provider_cpp.hooks.cloud_partner"
# The event loop keeps weak references only; these tasks outlive `on_kill`.
_cancel_tasks: set[asyncio.Task[None]] = set()


class PollTrigger(BaseTrigger):
    """Poll until the outcome is known. Faults of the service, the network and this process do not end it.

    The arguments are JSON and contain no secret. The one event is documented in
    `airflow_provider_cpp.core.polling.make_event`.

    :param cloud_partner_conn_id: id of the connection
    :param target: what to poll
    :param spec: when polling ends and how often it polls, from `PollSpec.to_json`
    :param state: what earlier polls found, from `PollState.to_json`
    :param first_poll_at: time of the first poll, in seconds since the epoch
    """

    def __init__(
        self,
        *,
        cloud_partner_conn_id: str,
        target: PollTarget,
        spec: Mapping[str, Any] | None,
        state: Mapping[str, Any] | None,
        first_poll_at: float,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if spec is None:
            raise ValueError("A trigger needs the argument `spec`.")
        self.cloud_partner_conn_id = cloud_partner_conn_id
        self.target = target
        self.spec = PollSpec.from_json(spec)
        self.state = PollState() if state is None else PollState.from_json(state)
        self.first_poll_at = first_poll_at

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments, for the metadata database."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "cloud_partner_conn_id": self.cloud_partner_conn_id,
            "spec": self.spec.to_json(),
            "state": self.state.to_json(),
            "first_poll_at": self.first_poll_at,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until the outcome is known, then yield its event."""
        poller = Poller(self.spec, self.target, self.state)
        try:
            async with await self._hook() as hook:
                event = await self._poll_to_end(hook, poller)
        except (ValueError, AirflowNotFoundException) as error:
            # Only a change of the connection or the task can cure this.
            event = poller.fail(error)
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def _hook(self) -> CloudPartnerHook:
        # The import of the HTTP libraries would block the event loop.
        module = await single_flight(_HOOK_MODULE, lambda: asyncio.to_thread(import_module, _HOOK_MODULE))
        hook: CloudPartnerHook = module.CloudPartnerHook(self.cloud_partner_conn_id)
        return hook

    async def _poll_to_end(self, hook: CloudPartnerHook, poller: Poller) -> dict[str, Any]:
        await asyncio.sleep(self.first_poll_at - time.time())
        while True:
            decision = await self._poll(hook, poller)
            if decision.event is not None:
                return decision.event
            await asyncio.sleep(decision.seconds)

    async def _poll(self, hook: CloudPartnerHook, poller: Poller) -> Decision:
        """Poll once and log what changed."""
        result: Progress | Unchanged | CloudPartnerError
        body: bytes | None = None
        try:
            request = poller.request((await hook.asettings()).base_url)
            try:
                response, progress = await hook.apoll(
                    request, before=poller.known_body, until=poller.spec.deadline
                )
            except AuthenticationError as error:
                raise await hook.areload_after(error) from None
            result, body = progress or Unchanged(response.retry_after), response.body
        except CloudPartnerError as error:
            result = error
        except AirflowNotFoundException as error:
            # Airflow raises it also while its API server or a secrets backend does not answer: like a 404, it
            # is final only after several polls.
            result = NotFoundError(str(error))
        decision = poller.feed(result, now=time.time(), jitter=random.random(), body=body)  # noqa: S311
        for level, line in decision.log:
            self.log.log(level, line)
        return decision


class OperationTrigger(PollTrigger):
    """Poll an operation. `OperationSensor` and the operators create this trigger.

    :param cloud_partner_conn_id: id of the connection
    :param operation_location: Location path of the operation
    :param spec: when polling ends and how often it polls, from `PollSpec.to_json`
    :param state: what earlier polls found, from `PollState.to_json`
    :param first_poll_at: time of the first poll, in seconds since the epoch
    :param cancel_on_kill: whether to cancel the operation when a user fails or clears the task (Airflow 3.3
        and later)
    :param wait: `spec` in a trigger that an earlier release stored
    :param seen: `state` in a trigger that an earlier release stored
    """

    def __init__(
        self,
        *,
        cloud_partner_conn_id: str,
        operation_location: str,
        spec: Mapping[str, Any] | None = None,
        state: Mapping[str, Any] | None = None,
        first_poll_at: float = 0.0,
        cancel_on_kill: bool = False,
        wait: Mapping[str, Any] | None = None,
        seen: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            cloud_partner_conn_id=cloud_partner_conn_id,
            target=OperationTarget(operation_location),
            spec=wait if spec is None else spec,
            state=seen if state is None else state,
            first_poll_at=first_poll_at,
        )
        self.operation_location = operation_location
        self.cancel_on_kill = cancel_on_kill

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments, for the metadata database."""
        path, arguments = super().serialize()
        own = {"operation_location": self.operation_location, "cancel_on_kill": self.cancel_on_kill}
        return path, own | arguments

    async def on_kill(self) -> None:
        """Cancel the operation, if `cancel_on_kill` is set and a user failed or cleared the task.

        Airflow also calls this method when a user marks the task as success, when the next try has started,
        when another triggerer took over, when the Dag run timed out, and when another task of a Dag with
        `fail_fast` failed. The operation then continues. It also continues if its status already ends the
        polling with success: another trigger may have sent that event.
        """
        if not self.cancel_on_kill:
            return
        # After a second, Airflow cancels this coroutine once more.
        task = asyncio.create_task(self._cancel_after_user_action())
        _cancel_tasks.add(task)
        task.add_done_callback(_cancel_tasks.discard)
        await asyncio.shield(task)

    async def _cancel_after_user_action(self) -> None:
        name = f"{self.spec.subject}: operation {self.operation_location}"
        try:
            if self.task_instance is None:
                raise RuntimeError("the trigger has no task instance")
            action = await asyncio.to_thread(describe_user_action, self.task_instance)
        except Exception:
            self.log.exception(
                "%s continues: Airflow did not report the state of the task, so it is unknown whether a user "
                "ended the task. Cancel the operation yourself if you do not need it.",
                name,
            )
            return
        if action is None:
            self.log.info("%s continues: no user failed or cleared the task.", name)
            return
        async with await self._hook() as hook:
            # A task whose other trigger sent the event of success is scheduled or queued like a cleared one.
            status = effective_status(await hook.aget_operation_with_retries(self.operation_location))
            if status in self.spec.until:
                self.log.info("%s is not canceled: it reached the status %s.", name, status)
                return
            self.log.warning("%s will be canceled (cancel_on_kill): a user %s the task.", name, action)
            await hook.acancel_operation(self.operation_location)


class OfferStatusTrigger(PollTrigger):
    """Poll the status of an offer. `OfferStatusSensor` creates this trigger.

    :param cloud_partner_conn_id: id of the connection
    :param publisher_id: id of the offer's publisher
    :param offer_id: id of the offer
    :param spec: when polling ends and how often it polls, from `PollSpec.to_json`
    :param state: what earlier polls found, from `PollState.to_json`
    :param first_poll_at: time of the first poll, in seconds since the epoch
    :param wait: `spec` in a trigger that an earlier release stored
    :param seen: `state` in a trigger that an earlier release stored
    """

    def __init__(
        self,
        *,
        cloud_partner_conn_id: str,
        publisher_id: str,
        offer_id: str,
        spec: Mapping[str, Any] | None = None,
        state: Mapping[str, Any] | None = None,
        first_poll_at: float = 0.0,
        wait: Mapping[str, Any] | None = None,
        seen: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            cloud_partner_conn_id=cloud_partner_conn_id,
            target=OfferStatusTarget(publisher_id, offer_id),
            spec=wait if spec is None else spec,
            state=seen if state is None else state,
            first_poll_at=first_poll_at,
        )
        self.publisher_id = publisher_id
        self.offer_id = offer_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments, for the metadata database."""
        path, arguments = super().serialize()
        return path, {"publisher_id": self.publisher_id, "offer_id": self.offer_id} | arguments
