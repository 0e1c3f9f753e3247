"""Checks of the arguments that operators and sensors accept.

Each argument name has the same meaning in every operator and sensor, so `CHECKS` has one check per name.
The checks run when the Dag is parsed, for values that are known then, and again before a task's first
request, for values that templates and other tasks supply.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from airflow_provider_cpp.constants import IfRunning
from airflow_provider_cpp.core.http import quote_segment
from airflow_provider_cpp.core.models import OFFER_STATES
from airflow_provider_cpp.core.polling import SUCCESS_STATUSES
from airflow_provider_cpp.core.text import normalize_status
from airflow_provider_cpp.exceptions import fail_at_once
from airflow_provider_cpp.portal.locations import DEFAULT_HOST, normalize_location

#: What to do if the operation would change nothing.
IfDone = Literal["submit", "skip", "succeed"]
Slot = Literal["draft", "preview", "production"]

#: Longest time that an argument may name; later times are outside the range of Python's dates.
LONGEST = timedelta(days=36500)

_TEMPLATE = re.compile(r"\{[{%#]")
DOTTED_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_ADDRESS = re.compile(r"[^\s,;@\x00-\x1f]+@[^\s,;@\x00-\x1f]+")


def is_reference(value: object) -> bool:
    """Return whether Airflow replaces a value with the result of another task when the task runs."""
    return callable(getattr(value, "resolve", None))


def is_computed(value: object) -> bool:
    """Return whether a value is known only when the task runs: a template, or the result of a task."""
    if isinstance(value, str):
        return bool(_TEMPLATE.search(value))
    if isinstance(value, Mapping):
        return any(map(is_computed, value.values()))
    if isinstance(value, list | tuple | set):
        return any(map(is_computed, value))
    return is_reference(value)


def is_empty(value: object) -> bool:
    """Return whether a value is blank text or None."""
    return value is None or (isinstance(value, str) and not value.strip())


def check_argument(name: str, value: Any) -> Any:
    """Return an argument in the form that the operators use; raise a `ValueError` that names the cure.

    Return arguments without a check as they are, and None for an argument that has a default.

    :raises ValueError: the value is not possible for this argument
    """
    check = CHECKS.get(name)
    if check is None or (value is None and name in _OPTIONAL):
        return value
    try:
        if is_empty(value) and name not in _NOT_TEMPLATED and check is not to_definition:
            raise ValueError(f"{name} must not be empty, but it is {value!r}.{_CURES.get(name, '')}")
        return check(name, value)
    except ValueError as error:
        raise fail_at_once(error) from None


def check_literal(name: str, value: Any) -> Any:
    """Check an argument when the Dag is parsed, unless it is known only when the task runs."""
    return value if is_computed(value) and name not in _NOT_TEMPLATED else check_argument(name, value)


def to_id(name: str, value: Any) -> str:
    """Return the id of an offer or a publisher, or of a connection."""
    text = _to_text(name, value)
    if name != "cloud_partner_conn_id":
        quote_segment(text, name)
    return text


def to_version(name: str, value: Any) -> int:
    """Return the number of a version; templates render it as text."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    _refuse_list(name, value)
    raise ValueError(f"{name} must be a whole number from 1, not {value!r}.")


def to_location(name: str, value: Any) -> str:
    """Return the Location of an operation, on any host; the hook checks the host."""
    text = _to_text(name, value)
    try:
        parts = urlsplit(text)
        host = f"{parts.scheme}://{parts.netloc}" if parts.scheme else DEFAULT_HOST
        normalize_location(text, host)
    except ValueError as error:
        raise ValueError(
            f"{name}: {error} Pass the result of the task that starts the operation, for example "
            "operation_location=go_live.output."
        ) from None
    return text


def to_addresses(name: str, value: Any) -> tuple[str, ...]:
    """Return e-mail addresses from a list, or from text that separates them with commas."""
    if isinstance(value, str):
        value = _list_in_text(value)
    if not isinstance(value, Iterable) or isinstance(value, Mapping | bytes):
        raise ValueError(
            f"{name} must be a list of e-mail addresses, or one text with commas between them, "
            f"not {type(value).__name__}."
        )
    addresses = tuple(address.strip() if isinstance(address, str) else address for address in value)
    for address in addresses:
        if is_computed(address):
            continue
        if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
            raise ValueError(f"{name} must be e-mail addresses; {address!r} is not one.")
    return addresses


def to_etag(name: str, value: Any) -> str:
    """Return `etag`, `*` or an ETag."""
    return _to_text(name, value)


def to_definition(name: str, value: Any) -> Any:
    """Return a change of an offer: a dict, a function, or the dotted path of a function."""
    if isinstance(value, Mapping) or callable(value):
        return value
    if not isinstance(value, str):
        raise ValueError(
            f"{name} must be a dict, a function, or the dotted path of a function, "
            f"not {type(value).__name__}. To start a task for each value of a list, expand the operator: "
            f".partial(...).expand({name}=...)."
        )
    if not DOTTED_PATH.fullmatch(value):
        # The text is not shown, because it may be a definition with secrets.
        raise ValueError(
            f"{name} is text that is not the dotted path of a function. To pass a definition that another "
            "task returns, pass its XCom (task.output) instead of a template such as "
            "'{{ ... | tojson }}', or use templates as values inside a dict."
        )
    return value


def to_flag(name: str, value: Any) -> bool:
    """Return a flag; text, as YAML and `expand_kwargs` supply it, must be `true` or `false`."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    raise ValueError(f"{name} must be True or False, not {value!r}. It cannot be a template.")


def to_choice(name: str, value: Any) -> str:
    """Return one of the values that an argument allows."""
    if isinstance(value, str) and value in _CHOICES[name]:
        return value
    raise ValueError(f"{name} must be one of {', '.join(map(repr, _CHOICES[name]))}; not {value!r}.")


def to_statuses(name: str, value: Any) -> tuple[str, ...]:
    """Return statuses of an offer in this provider's spelling; the service's spellings are accepted."""
    if isinstance(value, str) or not isinstance(value, Iterable) or is_reference(value):
        raise ValueError(f"{name} must be a list of statuses, not {value!r}. It cannot be a template.")
    words = list(value)
    if unknown := [word for word in words if normalize_status(word) not in OFFER_STATES]:
        known = ", ".join(dict.fromkeys(state.value for state in OFFER_STATES.values()))
        raise ValueError(f"{name}: {unknown[0]!r} is not a status of an offer. The statuses are {known}.")
    return tuple(OFFER_STATES[normalize_status(word)].value for word in words)


def to_seconds(name: str, value: Any) -> float:
    """Return a timedelta or a number of seconds as seconds, 0 or more."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not (is_number and 0 <= seconds <= LONGEST.total_seconds()):
        raise ValueError(
            f"{name} must be a timedelta or a number of seconds, from 0 to {LONGEST.days} days; "
            f"not {value!r}."
        )
    return float(seconds)


CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "offer_id": to_id,
    "publisher_id": to_id,
    "cloud_partner_conn_id": to_id,
    "version": to_version,
    "slot": to_choice,
    "operation_location": to_location,
    "notification_emails": to_addresses,
    "if_match": to_etag,
    "definition": to_definition,
    "if_running": to_choice,
    "if_live": to_choice,
    "if_published": to_choice,
    "until": to_choice,
    "statuses": to_statuses,
    "fail_on": to_statuses,
    "wait_for_completion": to_flag,
    "deferrable": to_flag,
    "cancel_on_kill": to_flag,
    "missing_ok": to_flag,
    "exponential_backoff": to_flag,
    "soft_fail": to_flag,
    "poke_interval": to_seconds,
    "max_wait": to_seconds,
    "timeout": to_seconds,
}

_CHOICES: dict[str, tuple[str, ...]] = {
    "slot": get_args(Slot),
    "if_running": get_args(IfRunning),
    "if_live": get_args(IfDone),
    "if_published": get_args(IfDone),
    "until": tuple(SUCCESS_STATUSES),
}
#: Arguments for which None means the default.
_OPTIONAL = ("publisher_id", "cloud_partner_conn_id", "version", "slot", "notification_emails", "if_match")
_CURES = {
    "operation_location": " Pass the result of the task that starts the operation, for example "
    "operation_location=go_live.output. A task that was skipped, or that found the offer live, returns no "
    "location.",
    "if_match": " Use 'etag', '*' or an ETag.",
}
#: Arguments that Airflow does not render.
_NOT_TEMPLATED = frozenset(
    name
    for name, check in CHECKS.items()
    if check in (to_flag, to_seconds, to_statuses) or (name in _CHOICES and name != "slot")
)


def _to_text(name: str, value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(
            f"{name} must be text, but it is the number {value!r}. In the Dag, put it in quotes. In a Dag "
            "with render_template_as_native_obj=True, put quotes around the template: \"'{{ ... }}'\"."
        )
    _refuse_list(name, value)
    if not isinstance(value, str):
        # The value is not shown, because an object may have secrets.
        raise ValueError(f"{name} must be text, not {type(value).__name__}.")
    return value


def _refuse_list(name: str, value: Any) -> None:
    # The results of a mapped task arrive as a lazy sequence.
    if isinstance(value, Sequence | set) and not isinstance(value, str | bytes):
        raise ValueError(
            f"{name} is a list of {len(value)} values, but a task takes one. To start a task for each, "
            f"expand it: .partial(...).expand({name}=...)."
        )


def _list_in_text(text: str) -> list[Any]:
    """Return the items of text: separated by commas, or the list that a template rendered as text."""
    if text.strip().startswith("["):
        try:
            return list(ast.literal_eval(text.strip()))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            pass
    return [part for part in map(str.strip, text.split(",")) if part]
