"""Operators that read and change offers."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import determine_kwargs

from airflow_provider_cpp.arguments import DOTTED_PATH, Slot, check_literal
from airflow_provider_cpp.constants import DEFAULT_CONN_ID
from airflow_provider_cpp.core.errors import PreconditionFailedError
from airflow_provider_cpp.core.redaction import redact
from airflow_provider_cpp.exceptions import fail_at_once
from airflow_provider_cpp.operators.base import OfferOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context, XComArg


Change = Mapping[str, Any] | Callable[..., Any] | str


class GetOfferOperator(OfferOperator):
    """Read an offer. Reference: Retrieve a specific offer.

    Returns the service's JSON. Credentials in it, such as the signature of a SAS URL or an account key, are
    redacted, so this JSON cannot be written back; to write the offer, read it with
    `CloudPartnerHook.get_offer`. The ETag, if the service sends one, is the XCom `etag`.

    :param offer_id: id of the offer (templated)
    :param publisher_id: id of the publisher; by default the connection's publisher (templated)
    :param cloud_partner_conn_id: id of the connection (templated)
    :param slot: `draft`, `preview` or `production`; by default the draft (templated)
    :param version: number of a version; not together with `slot` (templated)
    :raises ValueError: an argument or the connection is not usable; no request was sent; without retries
    :raises NotFoundError: the offer or the version does not exist, or the slot is empty; without retries
    :raises CloudPartnerError: or a subclass: the service refused the request or is not reachable
    """

    template_fields: Sequence[str] = (*OfferOperator.template_fields, "slot", "version")

    def __init__(
        self,
        *,
        offer_id: str | XComArg,
        publisher_id: str | XComArg | None = None,
        cloud_partner_conn_id: str | XComArg | None = DEFAULT_CONN_ID,
        slot: Slot | str | XComArg | None = None,
        version: int | str | XComArg | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            offer_id=offer_id,
            publisher_id=publisher_id,
            cloud_partner_conn_id=cloud_partner_conn_id,
            **kwargs,
        )
        # Any: until `execute`, it can be a template.
        self.slot: Any = check_literal("slot", slot)
        self.version: Any = check_literal("version", version)
        if slot is not None and version is not None:
            raise fail_at_once(ValueError("Set slot or version, not both."))

    def execute(self, context: Context) -> Any:
        """Read the offer."""
        from airflow_provider_cpp.release.lookup import OfferOperations

        hook, publisher_id = self._open()
        offer = OfferOperations(hook, publisher_id, self.offer_id).get_offer(
            slot=self.slot, version=self.version
        )
        if offer.etag:
            context["ti"].xcom_push(key="etag", value=offer.etag)
        return redact(offer.raw)


class UpdateOfferOperator(OfferOperator):
    """Change an offer's draft. Reference: Create or modify an offer; Concurrency control.

    It reads the offer, applies the change, and writes the offer only if the change has an effect. It never
    overwrites a change that another user made after the read: that fails the task, and a retry applies the
    change to the new content. Without an ETag, as with migrated offers, the operator reads the offer again
    immediately before it writes, and compares version, time of the last change, and definition.

    Returns `changed`, and the offer's `version` and `etag` after the change.

    A text without a template reaches the service exactly as it is in the Dag. If the Dag renders templates as
    native objects, the text `1.10` from a template stays text, too.

    :param offer_id: id of the offer (templated)
    :param publisher_id: id of the publisher; by default the connection's publisher (templated)
    :param cloud_partner_conn_id: id of the connection (templated)
    :param definition: the change (templated). A dict is merged into the offer if it has the key `definition`,
        else into the offer's definition, key by key (RFC 7396: null removes a key, a list is replaced). A
        function, or a function's dotted path, receives the offer as the service returned it, with the
        signatures of SAS URLs, and the variables of the task's context that its parameters name. It returns
        the changed offer or changes it in place. It must be idempotent, because a task can be retried. A
        `ValueError` in it fails the task without retries.
    :param if_match: `etag` to refuse the write if the offer changed after the read; `*` to overwrite any
        change; or an ETag that was read before (templated)
    :raises ValueError: an argument, the change or the connection is not valid, or the change contains a
        redaction marker; the offer was not written; without retries
    :raises NotFoundError: the offer or the publisher does not exist; without retries
    :raises PreconditionFailedError: the offer was changed since it was read; without retries unless
        `if_match` is `etag`
    :raises CloudPartnerError: or a subclass: the service refused the request, or could not be reached
    """

    template_fields: Sequence[str] = (*OfferOperator.template_fields, "definition", "if_match")
    template_fields_renderers: ClassVar[dict[str, str]] = {"definition": "json"}

    def __init__(
        self,
        *,
        offer_id: str | XComArg,
        publisher_id: str | XComArg | None = None,
        cloud_partner_conn_id: str | XComArg | None = DEFAULT_CONN_ID,
        definition: Change | XComArg,
        if_match: str | XComArg | None = "etag",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            offer_id=offer_id,
            publisher_id=publisher_id,
            cloud_partner_conn_id=cloud_partner_conn_id,
            **kwargs,
        )
        definition = check_literal("definition", definition)
        # Airflow would call a function in a template field; the field shows the function's name instead.
        self._function = definition if callable(definition) else None
        self.definition = definition if self._function is None else _name_of(self._function)
        self._rendered: Any = None
        self.if_match = check_literal("if_match", if_match)

    def _do_render_template_fields(self, parent: Any, *args: Any, **kwargs: Any) -> None:
        super()._do_render_template_fields(parent, *args, **kwargs)
        if parent is self and self._function is None:
            # Airflow stores and shows the field, but masks credentials only in its first five levels.
            self._rendered = self.definition
            self.definition = redact(self.definition)

    def _check_rendered_arguments(self) -> None:
        if self._function is not None:
            self.definition = self._function
        elif self._rendered is not None:
            self.definition = self._rendered
        super()._check_rendered_arguments()

    def _is_permanent(self, error: Exception) -> bool:
        # With if_match="etag", another try reads the offer again.
        is_outdated = isinstance(error, PreconditionFailedError) and self.if_match != "etag"
        return is_outdated or super()._is_permanent(error)

    def execute(self, context: Context) -> dict[str, Any]:
        """Read the offer, change it, and write it back."""
        from airflow_provider_cpp.portal.requests import refuse_redacted
        from airflow_provider_cpp.release.update import OfferUpdate

        hook, publisher_id = self._open()
        refuse_redacted(self.subject, self.definition)
        update = OfferUpdate(hook, publisher_id, self.offer_id, self.if_match)
        offer = update.read()
        changed_offer = self._change(offer.raw, context)
        changed = not _is_same(changed_offer, offer.raw)
        if changed:
            refuse_redacted(self.subject, changed_offer)
            offer = update.write(offer, changed_offer)
            self.log.info("%s: the offer was changed.", self.subject)
        else:
            self.log.info("%s: the offer already has this content; nothing was written.", self.subject)
        return {"changed": changed, "version": offer.version, "etag": offer.etag}

    def _change(self, offer: dict[str, Any], context: Context) -> Any:
        """Return the changed offer, without changing the given one."""
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
            # The message shows no value, which could be a secret.
            left = (
                f"keys {', '.join(map(str, wanted))}" if isinstance(wanted, dict) else type(wanted).__name__
            )
            raise ValueError(
                f"{self.subject}: nothing was written, since the change returned no offer with a definition "
                f"({left}). A function receives the whole offer, and returns it or changes it in place."
            )
        return wanted


def _name_of(function: Callable[..., Any]) -> str:
    """Return the name of a function without the name of the Dag's module.

    Airflow names the module of a Dag file after a hash of the file's path, which changes with each
    deployment. With that name in the serialized Dag, each deployment would make a new Dag version.
    """
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__qualname__", type(function).__qualname__)


def _imported(dotted_path: str) -> Any:
    if not DOTTED_PATH.fullmatch(dotted_path):
        # The message does not show the text, which could be a definition with secrets.
        raise ValueError("definition is text, but not the dotted path of a function")
    module, _, name = dotted_path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"definition names no function: {dotted_path!r} can't be imported: {error}"
        ) from error


def _is_same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal. In Python, 1 also equals True."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return type(one) is type(other) and bool(one == other)


def _merged(target: Any, patch: Any) -> Any:
    """Return a JSON value with a merge patch (RFC 7396) applied."""
    if not isinstance(patch, Mapping):
        return patch
    kept = target if isinstance(target, Mapping) else {}
    return {key: value for key, value in kept.items() if key not in patch} | {
        key: _merged(kept.get(key), value) for key, value in patch.items() if value is not None
    }
