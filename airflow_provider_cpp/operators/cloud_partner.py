"""Operators that release offers through the Cloud Partner Portal."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime, timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from airflow.providers.common.compat.sdk import (
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseOperator,
    determine_kwargs,
)

from airflow_provider_cpp import api
from airflow_provider_cpp.api import (
    CloudPartnerError,
    ConflictError,
    NotFoundError,
    Offer,
    PreconditionFailedError,
    Submission,
    offer_of,
    segment,
)
from airflow_provider_cpp.links import LIVE, PREVIEW, LinksMixin
from airflow_provider_cpp.links import LiveLink as LiveLink
from airflow_provider_cpp.links import PartnerCenterLink as PartnerCenterLink
from airflow_provider_cpp.links import PreviewLink as PreviewLink
from airflow_provider_cpp.mixins import NAME, NameMixin, WaitMixin
from airflow_provider_cpp.triggers.cloud_partner import OperationTrigger
from airflow_provider_cpp.waiting import BAD_ENDS, OPERATION_ENDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
    from airflow_provider_cpp.links import OfferLink
    from airflow_provider_cpp.starting import IfRunning, Start

#: What to do when there is nothing to do.
IfDone = Literal["submit", "skip", "succeed"]
Change = Mapping[str, Any] | Callable[..., Any] | str


class _OfferOperator(NameMixin, LinksMixin, BaseOperator):
    """Do something with one offer.

    :param offer_id: id of the offer (templated)
    :param publisher_id: id of the publisher; by default the connection's (templated)
    :param cloud_partner_conn_id: id of the connection (templated)
    """

    template_fields: Sequence[str] = ("cloud_partner_conn_id", "offer_id", "publisher_id")
    ui_color = "#b3d7f2"

    def __init__(
        self,
        *,
        offer_id: str,
        publisher_id: str | None = None,
        cloud_partner_conn_id: str = "cloud_partner_default",
        map_index_template: str | None = NAME,
        **kwargs: Any,
    ) -> None:
        super().__init__(map_index_template=map_index_template, **kwargs)
        self.offer_id = offer_id
        self.publisher_id = publisher_id
        self.cloud_partner_conn_id = cloud_partner_conn_id

    def _open(self) -> tuple[CloudPartnerHook, str]:
        """Return the hook, and the publisher's id; both ids are checked.

        :raises ValueError: an id or the connection can't be used
        """
        from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook

        hook = CloudPartnerHook(self.cloud_partner_conn_id)
        self.publisher_id = hook.settings.publisher(self.publisher_id)
        segment(self.publisher_id, "publisher_id")
        segment(self.offer_id, "offer_id")
        return hook, self.publisher_id


class _OperationOperator(WaitMixin, _OfferOperator):
    """Begin something that takes the service hours or days, and wait for it if asked for."""

    # The states of the operation in which the wait ends well, and badly.
    _until: ClassVar[tuple[str, ...]] = OPERATION_ENDS["completed"]
    _fail_on: ClassVar[tuple[str, ...]] = BAD_ENDS
    # The pages that the offer has from the beginning of the operation, and after its good end.
    _pages_begun: ClassVar[tuple[OfferLink, ...]] = ()
    _pages_done: ClassVar[tuple[OfferLink, ...]] = ()

    def __init__(
        self,
        *,
        wait_for_completion: bool = False,
        deferrable: bool = True,
        poke_interval: timedelta | float = 30,
        max_wait: timedelta | float = 600,
        timeout: timedelta | float = timedelta(days=7),
        cancel_on_kill: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poke_interval = _seconds("poke_interval", poke_interval)
        self.max_wait = _seconds("max_wait", max_wait)
        self.timeout = _seconds("timeout", timeout)
        self.cancel_on_kill = cancel_on_kill
        self._location: str | None = None

    def _begin(self, hook: CloudPartnerHook, publisher_id: str, context: Context) -> str | None:
        """Begin the operation and return its Location; None if there is none to wait for."""
        raise NotImplementedError

    def execute(self, context: Context) -> str | None:
        """Begin the operation, and wait for it if asked for."""
        hook, publisher_id = self._open()
        location = self._begin(hook, publisher_id, context)
        if location is not None:
            self._show(self._pages_begun, publisher_id, self.offer_id)
        if location is None or not self.wait_for_completion:
            return location
        # Said before the wait, so that it can be seen in the UI, and that a kill can cancel it.
        self._location = location
        context["ti"].xcom_push(key="return_value", value=location)
        wait = self._make_wait(self.subject, until=self._until, fail_on=self._fail_on, max_wait=self.max_wait)
        trigger = OperationTrigger(
            cloud_partner_conn_id=self.cloud_partner_conn_id,
            operation_location=location,
            wait=asdict(wait),
            cancel_on_kill=self.cancel_on_kill,
        )
        return self.execute_complete(context, self._wait(hook, trigger))

    def execute_complete(self, context: Context, event: Any) -> str:
        """Return the Location path of the operation that ended, or raise how it ended."""
        self._location = event.get("location") if isinstance(event, dict) else None
        with suppress(ValueError, TypeError):
            # For the name in the grid: the connection's publisher is not known in this process.
            self.publisher_id = self.publisher_id or offer_of(self._location or "")[0]
        try:
            location = str(self._result(event)["location"])
        except AirflowTaskTimeout:
            self.on_kill()
            raise
        self._show(self._pages_done, *offer_of(location))
        return location

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

    def _start(
        self, start: Start, context: Context, *, if_running: IfRunning, if_done: IfDone, done: str
    ) -> str | None:
        """Start an operation exactly once."""
        start.may_be_killed = self.cancel_on_kill and getattr(context["ti"], "try_number", 1) > 1
        if location := start.adopt(if_running=if_running, since=_began(context.get("dag_run"))):
            return location
        if if_done != "submit" and start.check_achieved():
            self._show(self._pages_done, self.publisher_id or "", self.offer_id)
            # Said for a skip as well: Airflow folds up its own line, in which the reason is.
            self.log.info("%s: %s Nothing to do.", self.subject, done)
            if if_done == "skip":
                raise AirflowSkipException(f"{self.subject}: {done}")
            return None
        return start.submit(if_running=if_running)


class PublishOperator(_OperationOperator):
    """Publish an offer's draft to its preview, exactly once per task instance. Reference: Publish.

    Returns the Location path of the operation, for `OperationSensor(until="preview")`.

    Before it sends anything it looks at the offer's operations: a publish of this draft that runs or awaits
    the signoff is adopted, and so is one that succeeded since this Dag run began, as long as the preview has
    the draft's definition. One that failed or was canceled is never adopted; nor is one that began before the
    draft was last changed, since it publishes something else.

    :param offer_id: id of the offer (templated)
    :param publisher_id: id of the publisher; by default the connection's (templated)
    :param cloud_partner_conn_id: id of the connection (templated)
    :param notification_emails: whom the service tells; ignored for migrated offers (templated)
    :param if_running: `adopt` a publish of this draft that already runs, or `fail`
    :param if_published: what to do when the preview has the draft's definition already, and no publish runs
        that could be adopted: `skip` the task, `succeed` and return None, or `submit` without looking
    :param wait_for_completion: wait, in the same task, until the preview is ready
    :param deferrable: wait in the triggerer; otherwise in the worker
    :param poke_interval: the shortest time between two polls, in seconds or as a timedelta
    :param max_wait: the longest time between two polls, in seconds or as a timedelta
    :param timeout: when to give up the wait, in seconds or as a timedelta
    :param cancel_on_kill: cancel the operation, an adopted one too, when a user fails or clears the waiting
        task (deferred: Airflow 3.3 and later), or when its `execution_timeout` runs out
    :raises ValueError: an id, an address or the connection can't be used; nothing was sent
    :raises ConflictError: a go-live runs, or a publish of something else, or with `if_running="fail"` any
    :raises ValidationError: the offer failed validation
    :raises CloudPartnerError: or one below it: the service refused, or can't be reached
    :raises OperationFailedError: it was waited for and failed; fails without retries
    :raises OperationCanceledError: it was waited for and canceled; fails without retries
    """

    template_fields: Sequence[str] = (*_OfferOperator.template_fields, "notification_emails")

    _until = OPERATION_ENDS["preview"]
    _pages_done = (PREVIEW,)

    def __init__(
        self,
        *,
        notification_emails: Sequence[str] = (),
        if_running: IfRunning = "adopt",
        if_published: IfDone = "submit",
        **kwargs: Any,
    ) -> None:
        _check_choice("if_running", if_running, ("adopt", "fail"))
        _check_choice("if_published", if_published, get_args(IfDone))
        super().__init__(**kwargs)
        self.notification_emails = notification_emails
        self.if_running = if_running
        self.if_published = if_published

    def _begin(self, hook: CloudPartnerHook, publisher_id: str, context: Context) -> str | None:
        from airflow_provider_cpp.asking import OfferOperations
        from airflow_provider_cpp.starting import PUBLISH, Start

        # Refuses a bad address, before anything is sent.
        api.publish(publisher_id, self.offer_id, notification_emails=self.notification_emails)

        def read(**where: Any) -> Offer | None:
            try:
                return hook.get_offer(self.offer_id, publisher_id, **where)
            except NotFoundError:
                return None

        def has_the_drafts_definition(other: Offer | None) -> bool:
            draft = read()
            return draft is not None and other is not None and other.definition == draft.definition

        def is_stale(running: Submission) -> bool:
            version = running.publishing_version or 0
            published = read(version=version) if version > 0 else None
            # What the service doesn't show can't be told apart.
            return published is not None and not has_the_drafts_definition(published)

        start = Start(
            OfferOperations(hook, publisher_id, self.offer_id),
            verb=PUBLISH,
            request=lambda: hook.publish(
                self.offer_id, publisher_id, notification_emails=self.notification_emails
            ),
            is_mine=lambda submission: submission.is_publish,
            is_achieved=lambda: has_the_drafts_definition(read(slot="preview")),
            is_stale=is_stale,
        )
        return self._start(
            start,
            context,
            if_running=self.if_running,
            if_done=self.if_published,
            done="the preview has the draft's definition already.",
        )


class GoLiveOperator(_OperationOperator):
    """Take an offer from preview to production, exactly once per task instance. Reference: Go live.

    Returns the Location path of the operation, for `OperationSensor`.

    Before it sends anything it looks at the offer's operations: a go-live that runs is adopted, and so is one
    that succeeded since this Dag run began, as long as production has the preview's version. So a task that
    was killed after its request, or whose request's answer was lost, doesn't go live twice. One that failed
    or was canceled is never adopted.

    :param offer_id: id of the offer (templated)
    :param publisher_id: id of the publisher; by default the connection's (templated)
    :param cloud_partner_conn_id: id of the connection (templated)
    :param version: the version that must be in preview, for example because somebody approved it; by default
        any (templated)
    :param if_running: `adopt` a go-live that already runs, or `fail`
    :param if_live: what to do when production has the preview's version already: `skip` the task, `succeed`
        and return None, or `submit` without looking
    :param wait_for_completion: do what `OperationSensor` does, in the same task
    :param deferrable: wait in the triggerer; otherwise in the worker
    :param poke_interval: the shortest time between two polls, in seconds or as a timedelta
    :param max_wait: the longest time between two polls, in seconds or as a timedelta
    :param timeout: when to give up the wait, in seconds or as a timedelta
    :param cancel_on_kill: cancel the operation, an adopted one too, when a user fails or clears the waiting
        task (deferred: Airflow 3.3 and later), or when its `execution_timeout` runs out
    :raises ValueError: an id or the connection can't be used; nothing was sent
    :raises ConflictError: a publish runs, or with `if_running="fail"` a go-live; or another `version` is in
        preview
    :raises CloudPartnerError: or one below it: the service refused, or can't be reached
    :raises OperationFailedError: it was waited for and failed; fails without retries
    :raises OperationCanceledError: it was waited for and canceled; fails without retries
    """

    template_fields: Sequence[str] = (*_OfferOperator.template_fields, "version")

    _pages_begun = (PREVIEW,)
    _pages_done = (PREVIEW, LIVE)

    def __init__(
        self,
        *,
        version: int | str | None = None,
        if_running: IfRunning = "adopt",
        if_live: IfDone = "submit",
        **kwargs: Any,
    ) -> None:
        _check_choice("if_running", if_running, ("adopt", "fail"))
        _check_choice("if_live", if_live, get_args(IfDone))
        super().__init__(**kwargs)
        self.version = version
        self.if_running = if_running
        self.if_live = if_live

    def _begin(self, hook: CloudPartnerHook, publisher_id: str, context: Context) -> str | None:
        from airflow_provider_cpp.asking import OfferOperations, patiently
        from airflow_provider_cpp.starting import GO_LIVE, Start

        def version_in(slot: str) -> int | None:
            try:
                return hook.get_offer(self.offer_id, publisher_id, slot=slot).version
            except NotFoundError:  # nothing was ever put there
                return None

        version = _version(self.version)

        what = "the preview's version" if version is None else f"version {version}"

        def is_live() -> bool:
            wanted = version_in("preview") if version is None else version
            return wanted is not None and wanted == version_in("production")

        def check() -> None:
            if version is None:
                return
            preview = patiently(lambda: hook.get_offer(self.offer_id, publisher_id, slot="preview"))
            if preview.version != version:
                raise ConflictError(
                    f"No go-live of {self.subject} was sent: version {version} was to go live, but version "
                    f"{preview.version} is in preview. Somebody published the offer since: look at the "
                    "preview again."
                )

        start = Start(
            OfferOperations(hook, publisher_id, self.offer_id),
            verb=GO_LIVE,
            request=lambda: hook.go_live(self.offer_id, publisher_id),
            is_mine=lambda submission: submission.is_go_live,
            is_achieved=is_live,
            check=check,
        )
        return self._start(
            start,
            context,
            if_running=self.if_running,
            if_done=self.if_live,
            done=f"production has {what} already.",
        )


class CancelOperator(_OperationOperator):
    """Cancel the publish or go-live that runs on an offer. Reference: Cancel.

    The service takes one to three minutes for it, and says 202 whether or not anything runs. So the operator
    looks for what runs first, and waits until that itself is shown as canceled.

    Returns the Location path of the operation that was canceled; None if nothing ran.

    :param offer_id: id of the offer (templated)
    :param publisher_id: id of the publisher; by default the connection's (templated)
    :param cloud_partner_conn_id: id of the connection (templated)
    :param notification_emails: whom the service tells; ignored for migrated offers (templated)
    :param missing_ok: succeed when nothing runs
    :param wait_for_completion: wait, in the same task, until the operation is canceled
    :param deferrable: wait in the triggerer; otherwise in the worker
    :param poke_interval: the shortest time between two polls, in seconds or as a timedelta
    :param max_wait: the longest time between two polls, in seconds or as a timedelta
    :param timeout: when to give up the wait, in seconds or as a timedelta
    :raises ValueError: an id, an address or the connection can't be used; nothing was sent
    :raises NotFoundError: nothing runs, with `missing_ok=False`
    :raises CloudPartnerError: or one below it: the service refused, or can't be reached
    :raises OperationFailedError: the operation completed before it could be canceled; fails without retries
    """

    template_fields: Sequence[str] = (*_OfferOperator.template_fields, "notification_emails")

    # One that failed in the meantime doesn't run either.
    _until = ("canceled", "failed")
    _fail_on = ("succeeded",)

    def __init__(
        self,
        *,
        notification_emails: Sequence[str] = (),
        missing_ok: bool = True,
        wait_for_completion: bool = True,
        timeout: timedelta | float = timedelta(hours=1),
        **kwargs: Any,
    ) -> None:
        super().__init__(wait_for_completion=wait_for_completion, timeout=timeout, **kwargs)
        self.notification_emails = notification_emails
        self.missing_ok = missing_ok

    def _begin(self, hook: CloudPartnerHook, publisher_id: str, context: Context) -> str | None:
        from airflow_provider_cpp.asking import OfferOperations
        from airflow_provider_cpp.canceling import cancel

        # Refuses a bad address, before anything is sent.
        api.cancel(publisher_id, self.offer_id, notification_emails=self.notification_emails)
        location = cancel(
            OfferOperations(hook, publisher_id, self.offer_id),
            lambda: hook.cancel(self.offer_id, publisher_id, notification_emails=self.notification_emails),
        )
        if location is None:
            message = f"{self.subject}: nothing runs on the offer, so there is nothing to cancel."
            if not self.missing_ok:
                raise NotFoundError(f"{message} (missing_ok=True takes that for a success.)")
            self.log.info(message)
        return location


class GetOfferOperator(_OfferOperator):
    """Read an offer. Reference: Retrieve a specific offer.

    Returns the service's own JSON, without secret values; its ETag, if it has one, is the XCom `etag`.

    :param offer_id: id of the offer (templated)
    :param publisher_id: id of the publisher; by default the connection's (templated)
    :param cloud_partner_conn_id: id of the connection (templated)
    :param slot: `draft`, `preview` or `production`; by default the draft (templated)
    :param version: a version's number; not together with `slot` (templated)
    :raises ValueError: an id, the slot, the version or the connection can't be used; nothing was sent
    :raises NotFoundError: there is no such offer or version, or nothing was ever put into the slot
    :raises CloudPartnerError: or one below it: the service refused, or can't be reached
    """

    template_fields: Sequence[str] = (*_OfferOperator.template_fields, "slot", "version")

    def __init__(self, *, slot: str | None = None, version: int | str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.slot = slot
        self.version = version

    def execute(self, context: Context) -> Any:
        """Read the offer."""
        from airflow_provider_cpp.asking import patiently

        version = _version(self.version)
        hook, publisher_id = self._open()
        offer = patiently(
            lambda: hook.get_offer(self.offer_id, publisher_id, slot=self.slot, version=version)
        )
        if offer.etag:
            context["ti"].xcom_push(key="etag", value=offer.etag)
        return offer.raw


class UpdateOfferOperator(_OfferOperator):
    """Change an offer's draft. Reference: Create or modify an offer; Concurrency control.

    It reads the offer, applies the change, and writes it back only if that changed something. Nobody else's
    change is overwritten: the service refuses the write when the offer was changed since it was read.

    Returns `changed`, and the offer's `version` and `etag` after it.

    :param offer_id: id of the offer (templated)
    :param publisher_id: id of the publisher; by default the connection's (templated)
    :param cloud_partner_conn_id: id of the connection (templated)
    :param definition: the change (templated). A dict is merged into the offer if it has the key `definition`,
        else into the offer's definition, key by key (RFC 7396: a null removes a key, a list is replaced). A
        function, or a function's dotted path, gets the offer as `GetOfferOperator` returns it, and what it
        names of the task's context; it returns the changed offer, or changes it in place. It must bear to be
        applied twice, since a task may be retried.
    :param if_match: `etag` for the ETag that was read with the offer; `*` to overwrite whatever is there; or
        an ETag that was read before (templated)
    :raises ValueError: an id, the change or the connection can't be used; nothing was written
    :raises PreconditionFailedError: the offer was changed meanwhile
    :raises CloudPartnerError: or one below it: the service refused, or can't be reached
    """

    template_fields: Sequence[str] = (*_OfferOperator.template_fields, "definition", "if_match")
    template_fields_renderers: ClassVar[dict[str, str]] = {"definition": "json"}

    def __init__(self, *, definition: Change, if_match: str = "etag", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Airflow would call a function in a template field itself; its name is shown there.
        self._function = definition if callable(definition) else None
        self.definition = (
            f"{definition.__module__}.{getattr(definition, '__qualname__', type(definition).__name__)}"
            if callable(definition)
            else definition
        )
        self.if_match = if_match

    def execute(self, context: Context) -> dict[str, Any]:
        """Read the offer, change it, and write it back."""
        from airflow_provider_cpp.asking import patiently

        hook, publisher_id = self._open()

        def read() -> Offer:
            return patiently(lambda: hook.get_offer(self.offer_id, publisher_id))

        if not self.if_match:
            raise ValueError(f"{self.subject}: if_match must be 'etag', '*' or an ETag; it is empty")
        offer = read()
        wanted = self._change(offer.raw, context)
        changed = wanted != offer.raw
        if not changed:
            self.log.info("%s: the offer is as wanted already; nothing was written.", self.subject)
        else:
            if_match = offer.etag if self.if_match == "etag" else self.if_match
            if not if_match:
                raise CloudPartnerError(
                    f"{self.subject}: nothing was written, since the service sent no ETag with the offer, "
                    "and without it somebody else's change could be lost. if_match='*' overwrites."
                )
            offer = self._write(hook, publisher_id, offer, wanted, if_match, read)
            self.log.info("%s: the offer was changed.", self.subject)
        return {"changed": changed, "version": offer.version, "etag": offer.etag}

    def _write(
        self,
        hook: CloudPartnerHook,
        publisher_id: str,
        before: Offer,
        wanted: dict[str, Any],
        if_match: str,
        read: Callable[[], Offer],
    ) -> Offer:
        """Write the offer once, and find out what became of it when the answer doesn't say."""
        from airflow_provider_cpp.asking import patiently

        in_doubt = False
        while True:
            try:
                return patiently(
                    lambda: hook.put_offer(self.offer_id, wanted, publisher_id, if_match=if_match),
                    lambda error: error.is_unprocessed,
                )
            except CloudPartnerError as error:
                # A stale ETag, too, may come of the request before.
                if not (
                    error.has_unknown_outcome or (in_doubt and isinstance(error, PreconditionFailedError))
                ):
                    raise
                self.log.warning("%s: looking whether the offer was written. %s", self.subject, error)
                found = read()
                is_touched = before.etag is None or found.etag != before.etag
                if is_touched and _is_shown(found.definition, wanted["definition"]):
                    return found
                if in_doubt or (is_touched and if_match != "*"):
                    raise
                in_doubt = True

    def _change(self, offer: dict[str, Any], context: Context) -> Any:
        """Return the changed offer; the given one is left as it is."""
        change: Any = self._function or self.definition
        if isinstance(change, Mapping):
            wanted = _merged(offer, change if "definition" in change else {"definition": change})
        else:
            if isinstance(change, str):
                change = _imported(change)
            if not callable(change):
                raise ValueError(
                    "definition must be a dict, a function, or a function's dotted path, not "
                    f"{type(change).__name__}"
                )
            wanted = copy.deepcopy(offer)
            returned = change(wanted, **determine_kwargs(change, (wanted,), context))
            wanted = wanted if returned is None else returned
        if not isinstance(wanted, dict) or not isinstance(wanted.get("definition"), dict):
            # No value is shown, since there may be secrets in it.
            left = (
                f"keys {', '.join(map(str, wanted))}" if isinstance(wanted, dict) else type(wanted).__name__
            )
            raise ValueError(
                f"{self.subject}: nothing was written, since the change returned no offer with a definition "
                f"({left}). A function gets the whole offer, and returns it or changes it in place."
            )
        return wanted


def _imported(dotted_path: str) -> Any:
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", dotted_path):
        # It is not shown, since it may be a definition with secrets in it.
        raise ValueError("definition is text that is no dotted path of a function")
    module, _, name = dotted_path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"definition names no function: {dotted_path!r} can't be imported: {error}"
        ) from error


def _is_shown(shown: Any, written: Any) -> bool:
    """Whether what the service shows is what was written, but for secret values, which it doesn't show."""
    if isinstance(shown, dict) and isinstance(written, dict):
        return all(key in written and _is_shown(value, written[key]) for key, value in shown.items())
    if isinstance(shown, list) and isinstance(written, list):
        return len(shown) == len(written) and all(map(_is_shown, shown, written))
    return bool(shown == written)


def _merged(target: Any, patch: Any) -> Any:
    """Return a JSON value with a merge patch (RFC 7396) applied."""
    if not isinstance(patch, Mapping):
        return patch
    kept = target if isinstance(target, Mapping) else {}
    return {key: value for key, value in kept.items() if key not in patch} | {
        key: _merged(kept.get(key), value) for key, value in patch.items() if value is not None
    }


def _version(value: Any) -> int | None:
    """Return a version's number, which is text when it comes from a template.

    :raises ValueError: it is none
    """
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and int(value) > 0:
        return int(value)
    raise ValueError(f"version must be a whole number from 1, not {value!r}")


def _began(dag_run: Any) -> datetime | None:
    """Return when a Dag run began.

    Clearing sets its `start_date` anew, but not when it was due. That is long before a backfill began.
    """
    is_cleared = getattr(dag_run, "clear_number", None) != 0
    due = ("run_after", "data_interval_end") if is_cleared else ()
    for name in (*due, "start_date", "run_after"):
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
