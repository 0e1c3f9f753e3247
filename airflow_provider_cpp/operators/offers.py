"""Operators that read and change offers."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import determine_kwargs

from airflow_provider_cpp.arguments import DEFAULT_CONN_ID, Slot, check_literal
from airflow_provider_cpp.core.errors import CloudPartnerError, PreconditionFailedError
from airflow_provider_cpp.exceptions import fail_at_once
from airflow_provider_cpp.operators.base import OfferOperator, to_version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_cpp.core.models import Offer
    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook


Change = Mapping[str, Any] | Callable[..., Any] | str


class GetOfferOperator(OfferOperator):
    """Read an offer. Reference: Retrieve a specific offer.

    Returns the service's JSON without secret values. The XCom `etag` has the offer's ETag, if it has one.

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
        self.slot = check_literal("slot", slot)
        self.version = check_literal("version", version)
        if slot is not None and version is not None:
            raise fail_at_once(ValueError("Set slot or version, not both."))

    def execute(self, context: Context) -> Any:
        """Read the offer."""
        from airflow_provider_cpp.release.lookup import retry_transient

        version = to_version(self.version)
        hook, publisher_id = self._open()
        offer = retry_transient(
            lambda: hook.get_offer(self.offer_id, publisher_id, slot=self.slot, version=version)
        )
        if offer.etag:
            context["ti"].xcom_push(key="etag", value=offer.etag)
        return offer.raw


class UpdateOfferOperator(OfferOperator):
    """Change an offer's draft. Reference: Create or modify an offer; Concurrency control.

    The operator reads the offer, applies the change, and writes the offer if the change made a difference. If
    the offer was changed by another client since it was read, the service rejects the write.

    Returns `changed`, and the offer's `version` and `etag` after the write.

    :param offer_id: id of the offer (templated)
    :param publisher_id: id of the publisher; by default the connection's publisher (templated)
    :param cloud_partner_conn_id: id of the connection (templated)
    :param definition: the change (templated). A dict is merged into the offer if it has the key `definition`,
        otherwise into the offer's definition, key by key (RFC 7396: null removes a key, a list is replaced).
        A function, or its dotted path, gets the offer as `GetOfferOperator` returns it, and the variables of
        the task's context that it names. It returns the changed offer, or changes it in place. It must be
        idempotent, because a task may be retried. A `ValueError` in it fails the task without retries.
    :param if_match: `etag` for the ETag that was read with the offer, `*` to overwrite any version, or an
        ETag from an earlier read (templated)
    :raises ValueError: an argument or the connection is not usable; the offer was not written; without
        retries
    :raises NotFoundError: the offer or the publisher does not exist; without retries
    :raises PreconditionFailedError: the offer was changed since it was read; without retries unless
        `if_match` is `etag`
    :raises CloudPartnerError: or a subclass: the service refused the request or is not reachable
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
        if_match: str | XComArg = "etag",
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
        self.if_match = check_literal("if_match", if_match)

    def _check_rendered_arguments(self) -> None:
        if self._function is not None:
            self.definition = self._function
        super()._check_rendered_arguments()

    def _is_permanent(self, error: Exception) -> bool:
        # With if_match="etag", another try reads the offer again.
        is_outdated = isinstance(error, PreconditionFailedError) and self.if_match != "etag"
        return is_outdated or super()._is_permanent(error)

    def execute(self, context: Context) -> dict[str, Any]:
        """Read the offer, change it, and write it back."""
        from airflow_provider_cpp.release.lookup import retry_transient

        hook, publisher_id = self._open()

        def read() -> Offer:
            return retry_transient(lambda: hook.get_offer(self.offer_id, publisher_id))

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
        from airflow_provider_cpp.release.lookup import retry_transient

        in_doubt = False
        while True:
            try:
                return retry_transient(
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


def _name_of(function: Callable[..., Any]) -> str:
    """Return the name of a function without the name of the Dag's module.

    Airflow names the module of a Dag file after a hash of the file's path, which changes with each
    deployment. With that name in the serialized Dag, each deployment would make a new Dag version.
    """
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__qualname__", type(function).__qualname__)


def _imported(dotted_path: str) -> Any:
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", dotted_path):
        # The text is not shown, because it may be a definition with secrets.
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
