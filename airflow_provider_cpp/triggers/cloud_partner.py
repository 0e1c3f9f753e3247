"""Triggers that wait on the Cloud Partner Portal in the triggerer, and the event that they end with."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import asdict
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_cpp.core.http import Response
from airflow_provider_cpp.core.polling import (
    Decision,
    Outcome,
    PollSpec,
    PollState,
    Progress,
    Unchanged,
    decide,
    explain,
    summarize,
)
from airflow_provider_cpp.exceptions import (
    AuthenticationError,
    CloudPartnerError,
    ConflictError,
    NotFoundError,
    OperationCanceledError,
    OperationFailedError,
    PermissionDeniedError,
    PreconditionFailedError,
    ValidationError,
)
from airflow_provider_cpp.portal.requests import get_offer_status, get_operation
from airflow_provider_cpp.transport.single_flight import single_flight

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from airflow_provider_cpp.core.http import Request
    from airflow_provider_cpp.core.models import OfferStatus, Operation
    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook

_ERRORS: dict[str, type[CloudPartnerError]] = {
    kind.__name__: kind
    for kind in (
        AuthenticationError,
        ConflictError,
        NotFoundError,
        PermissionDeniedError,
        PreconditionFailedError,
        ValidationError,
    )
}


_HOOKS = "airflow_provider_cpp.hooks.cloud_partner"

#: How a task stands that still wants its operation: somebody said that it is done, another triggerer or the
#: next try waits for it, or is about to.
_WANTED = ("success", "deferred", "running")
# Tasks that nobody holds on to may be garbage collected.
_canceling: set[asyncio.Task[None]] = set()


class WaitTrigger(BaseTrigger):
    """Ask until the wait ends, whatever happens to the service, the network or this process.

    It describes a wait as well: who waits in a worker asks through it, and hands it to the triggerer. Its
    arguments are JSON values and hold no secret. Its one event is described by `make_event`.

    :param cloud_partner_conn_id: id of the connection
    :param wait: what is waited for and how patiently, the fields of `airflow_provider_cpp.core.polling.Wait`
    :param seen: what the polls before brought, from `airflow_provider_cpp.core.polling.Seen.to_json`
    :param first_poll_at: when to ask first, in seconds since the epoch
    """

    def __init__(
        self,
        *,
        cloud_partner_conn_id: str,
        wait: Mapping[str, Any],
        seen: Mapping[str, Any] | None = None,
        first_poll_at: float = 0.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.cloud_partner_conn_id = cloud_partner_conn_id
        self.wait = PollSpec.from_json(wait)
        self.seen = PollState() if seen is None else PollState.from_json(seen)
        self.first_poll_at = first_poll_at
        self._call: Request[Any] | None = None
        # Of what was seen last only the bytes are kept: thousands of waits share a process.
        self._last: bytes | None = None

    @property
    def identity(self) -> dict[str, str]:
        """What is waited on, as the event and the result name it."""
        raise NotImplementedError

    def call(self, base_url: str) -> Request[Any]:
        """Return what is asked at each poll.

        :param base_url: the connection's host
        """
        raise NotImplementedError

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments, for the metadata database."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "cloud_partner_conn_id": self.cloud_partner_conn_id,
            "wait": asdict(self.wait),
            "seen": self.seen.to_json(),
            "first_poll_at": self.first_poll_at,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until the wait ends, then yield its event."""
        try:
            async with await self._hook() as hook:
                event = await self._poll(hook)
        except ValueError as error:
            event = make_event(self.wait, self.identity, Outcome.ERROR, None, error)
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def _hook(self) -> CloudPartnerHook:
        # Importing the HTTP libraries takes a while: not in the event loop.
        module = await single_flight(_HOOKS, lambda: asyncio.to_thread(import_module, _HOOKS))
        hook: CloudPartnerHook = module.CloudPartnerHook(self.cloud_partner_conn_id)
        return hook

    async def _poll(self, hook: CloudPartnerHook) -> dict[str, Any]:
        self._call = self._last = None
        await asyncio.sleep(self.first_poll_at - time.time())
        while True:
            decision, event = await self._poll_once(hook)
            if event:
                return event
            self.seen = decision.seen
            await asyncio.sleep(decision.seconds)

    async def _poll_once(self, hook: CloudPartnerHook) -> tuple[Decision, dict[str, Any] | None]:
        """Ask once. Return what follows, and the event if the wait ended."""
        news: Progress | None
        answer: Progress | Unchanged | CloudPartnerError
        try:
            if self._call is None:
                self._call = self.call((await hook.asettings()).base_url)
            # After an error the next answer is worth a line, even if it is what it was before.
            is_news = self.seen.faults or self.seen.not_found
            response, news = await hook.apoll(
                self._call, before=None if is_news else self._last, until=self.wait.deadline
            )
            answer, self._last = news or Unchanged(response.retry_after), response.body
        except CloudPartnerError as problem:
            answer = problem
        except AirflowNotFoundException as problem:
            # Airflow raises it also while its API server or a secrets backend does not answer: like a 404, it
            # is final only after several polls.
            answer = NotFoundError(str(problem))
        decision = decide(self.wait, self.seen, answer, now=time.time(), jitter=random.random())  # noqa: S311
        for level, line in decision.log:
            self.log.log(level, line)
        if decision.end is None:
            return decision, None
        last = None
        if self._call is not None and self._last is not None:
            last = self._call.read(Response(200, {}, self._last))
        error = answer if isinstance(answer, CloudPartnerError) else None
        return decision, make_event(self.wait, self.identity, decision.end, last, error)


class OperationTrigger(WaitTrigger):
    """Wait on an operation; made by `OperationSensor` and by the operators that wait.

    :param operation_location: Location path of the operation
    :param cancel_on_kill: cancel the operation when a user fails or clears the task (Airflow 3.3 and later)
    """

    def __init__(self, *, operation_location: str, cancel_on_kill: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.operation_location = operation_location
        self.cancel_on_kill = cancel_on_kill

    @property
    def identity(self) -> dict[str, str]:
        """The operation's location."""
        return {"location": self.operation_location}

    def call(self, base_url: str) -> Request[Operation]:
        """Read the operation."""
        return get_operation(self.operation_location, base_url)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments, for the metadata database."""
        path, arguments = super().serialize()
        own = {"operation_location": self.operation_location, "cancel_on_kill": self.cancel_on_kill}
        return path, own | arguments

    async def on_kill(self) -> None:
        """Cancel the operation, if asked for, when a user failed or cleared the waiting task.

        Airflow calls this also when the task was marked as success, when its next try has begun, and when
        another triggerer took over from this one: then nothing is canceled.
        """
        if not self.cancel_on_kill:
            return
        # A second later Airflow says once more that the task was killed, which would interrupt this.
        canceling = asyncio.create_task(self._cancel_if_unwanted())
        _canceling.add(canceling)
        canceling.add_done_callback(_canceling.discard)
        await asyncio.shield(canceling)

    async def _cancel_if_unwanted(self) -> None:
        try:
            state = await asyncio.to_thread(self._task_state)
        except Exception:
            self.log.exception(
                "Operation %s goes on: Airflow can't say whether somebody failed its task, or only another "
                "triggerer waits for it now.",
                self.operation_location,
            )
            return
        if state in _WANTED:
            self.log.info("Operation %s goes on: its task is %s.", self.operation_location, state)
            return
        async with await self._hook() as hook:
            await hook.acancel_operation(self.operation_location)

    def _task_state(self) -> str | None:
        """Ask Airflow how the task stands; None if it was cleared or deleted, or this is no triggerer."""
        ti = self.task_instance
        if ti is None:
            return None
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        states = RuntimeTaskInstance.get_task_states(
            dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
        )
        name = ti.task_id if ti.map_index < 0 else f"{ti.task_id}_{ti.map_index}"
        state: str | None = states.get(ti.run_id, {}).get(name)
        return state


class OfferStatusTrigger(WaitTrigger):
    """Wait on the status of an offer; made by `OfferStatusSensor`.

    :param publisher_id: id of the offer's publisher
    :param offer_id: id of the offer
    """

    def __init__(self, *, publisher_id: str, offer_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.publisher_id = publisher_id
        self.offer_id = offer_id

    @property
    def identity(self) -> dict[str, str]:
        """The offer's ids."""
        return {"publisher_id": self.publisher_id, "offer_id": self.offer_id}

    def call(self, base_url: str) -> Request[OfferStatus]:
        """Read the offer's status."""
        return get_offer_status(self.publisher_id, self.offer_id)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments, for the metadata database."""
        path, arguments = super().serialize()
        return path, self.identity | arguments


def make_event(
    wait: PollSpec,
    identity: Mapping[str, str],
    end: Outcome,
    last: Progress | None,
    error: Exception | None = None,
) -> dict[str, Any]:
    """Return what a wait ended with, as JSON.

    :param identity: what was waited on
    :param last: how it stood when it was last seen, if it was
    :param error: what came instead of an answer, if that was last
    :return: `end`; what `identity` has; `result`, the summary, if it was seen; and unless it succeeded
        `message`, `step`, and for an error its class's name as `error`
    """
    event: dict[str, Any] = {
        "end": end.value,
        **identity,
        "result": summarize(identity, last) if last else None,
    }
    if end is Outcome.ERROR:
        return event | {"error": type(error).__name__, "message": str(error)}
    if end is not Outcome.SUCCEEDED:
        step = last.current_step if last else None
        event |= {"message": explain(wait, identity, end, last), "step": step.name if step else None}
    return event


def read_event(event: Any) -> dict[str, Any]:
    """Return the summary from an event of success; raise what any other event says.

    The event crossed the metadata database, so it is checked on arrival.

    :raises OperationFailedError: what was waited on failed
    :raises OperationCanceledError: it was canceled
    :raises TimeoutError: it did not end in time
    :raises CloudPartnerError: or one below it, or `ValueError`: an answer that waiting does not cure
    """
    try:
        end = event["end"]
        if end == Outcome.SUCCEEDED:
            result: dict[str, Any] = event["result"]
            if not isinstance(result["status"], str):
                raise ValueError("it has no status")
            if result.get("location") != event.get("location"):
                raise ValueError("it names two locations")
            return result
        message = str(event["message"])
        error: Exception
        if end == Outcome.ERROR:
            error = _error_class(event["error"])(message)
        elif end == Outcome.TIMEOUT:
            error = TimeoutError(message)
        else:
            kind = {Outcome.FAILED: OperationFailedError, Outcome.CANCELED: OperationCanceledError}[end]
            error = kind(message, step=event["step"], messages=event["result"]["messages"])
    except (KeyError, TypeError, ValueError) as problem:
        raise CloudPartnerError(
            f"The trigger sent an event that can't be read: {event!r:.500}. Do worker and triggerer have "
            "the same version of airflow-provider-cpp?"
        ) from problem
    raise error


def _error_class(name: Any) -> type[Exception]:
    return ValueError if name == "ValueError" else _ERRORS.get(name, CloudPartnerError)
