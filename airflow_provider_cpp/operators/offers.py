"""Operators that read and change offers."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import determine_kwargs

from airflow_provider_cpp.core.redaction import redact
from airflow_provider_cpp.operators.base import OfferOperator, to_version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context


Change = Mapping[str, Any] | Callable[..., Any] | str


class GetOfferOperator(OfferOperator):
    """Read an offer. Reference: Retrieve a specific offer.

    Returns the service's JSON. Credentials in it, such as the signature of a SAS URL or an account key, are
    redacted, so this JSON cannot be written back; to write the offer, read it with
    `CloudPartnerHook.get_offer`. The ETag, if the service sends one, is the XCom `etag`.

    :param offer_id: id of the offer (templated)
    :param publisher_id: id of the publisher; by default the connection's (templated)
    :param cloud_partner_conn_id: id of the connection (templated)
    :param slot: `draft`, `preview` or `production`; by default the draft (templated)
    :param version: number of a version; not together with `slot` (templated)
    :raises ValueError: an id, the slot, the version or the connection is not valid; nothing was sent
    :raises NotFoundError: the offer or version does not exist, or the slot is empty
    :raises CloudPartnerError: or a subclass: the service refused the request, or could not be reached
    """

    template_fields: Sequence[str] = (*OfferOperator.template_fields, "slot", "version")

    def __init__(self, *, slot: str | None = None, version: int | str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.slot = slot
        self.version = version

    def execute(self, context: Context) -> Any:
        """Read the offer."""
        from airflow_provider_cpp.release.lookup import retry_transient

        version = to_version(self.version)
        hook, publisher_id = self._open()
        offer = retry_transient(
            lambda: hook.get_offer(self.offer_id, publisher_id, slot=self.slot, version=version),
            description=f"Reading {self.subject}",
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
    :param publisher_id: id of the publisher; by default the connection's (templated)
    :param cloud_partner_conn_id: id of the connection (templated)
    :param definition: the change (templated). A dict is merged into the offer if it has the key `definition`,
        else into the offer's definition, key by key (RFC 7396: null removes a key, a list is replaced). A
        function, or a function's dotted path, receives the offer as the service returned it, with the
        signatures of SAS URLs, and the variables of the task's context that its parameters name. It returns
        the changed offer or changes it in place. It must be idempotent, because a task can be retried.
    :param if_match: `etag` to refuse the write if the offer changed after the read; `*` to overwrite any
        change; or an ETag that was read before (templated)
    :raises ValueError: an id, the change or the connection is not valid, or the change contains a redaction
        marker; nothing was written
    :raises PreconditionFailedError: the offer changed after it was read
    :raises CloudPartnerError: or a subclass: the service refused the request, or could not be reached
    """

    template_fields: Sequence[str] = (*OfferOperator.template_fields, "definition", "if_match")
    template_fields_renderers: ClassVar[dict[str, str]] = {"definition": "json"}

    def __init__(self, *, definition: Change, if_match: str = "etag", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Airflow calls a function in a template field; the field contains the name instead.
        self._function = definition if callable(definition) else None
        self.definition = (
            f"{definition.__module__}.{getattr(definition, '__qualname__', type(definition).__name__)}"
            if callable(definition)
            else definition
        )
        self.if_match = if_match

    def execute(self, context: Context) -> dict[str, Any]:
        """Read the offer, change it, and write it back."""
        from airflow_provider_cpp.portal.requests import refuse_redacted
        from airflow_provider_cpp.release.update import OfferUpdate

        hook, publisher_id = self._open()
        if not self.if_match:
            raise ValueError(f"{self.subject}: if_match must be 'etag', '*' or an ETag; it is empty")
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


def _imported(dotted_path: str) -> Any:
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", dotted_path):
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
