r"""Faults: what is to go wrong with which requests, and how.

A rule, as it is posted to ``/_emulator/faults``, or stands in the JSON array of ``--faults FILE``::

    {
      "method": "POST",       optional, else any
      "path": "golive$",      optional, else any: a regular expression, searched in the path as it was sent
      "skip": 0,              optional: how many that match it lets pass first
      "probability": 0.1,     optional: to which share of the others it applies
      "count": 1,             optional: to how many it applies at most, null: for ever; without it 1, with a
                              probability null
      "delay": 2.5            seconds before the request is handled
      "hold": 2.5             seconds after it was, for which the answer is kept back; it is in the journal
                              already
      "lag": 180              a GET is answered as things stood so many seconds of the real service ago, which
                              --time-scale divides, but not before the seed: operations begun since are
                              unknown, others where they were, and so are an offer's status, slots and
                              version; what is in its draft is as it is now
                              these three, together or alone, alone or with one of those that follow:
      "status": 503, "headers": {"Retry-After": "2"}, "body": "..."
                              answered instead of handling; the last two are optional
      "close": "before"       the connection is closed without an answer, before the request is handled
      "close": "after"        or after it was
      "replace": {"status": 200, "headers": {"Location": null}, "body": "<html>"}
                              handled, then the answer has these parts instead; of the headers only those
                              named, null removes one
      "replace": {"json": {"status": "paused"}}
                              instead of the body, members of its JSON object, or of each object in its array;
                              null removes one; what isn't JSON stays
      "truncate": 20          handled, then the connection is closed after so many bytes of the body
    }

In the value of a header ``{host}`` stands for the emulator's address as the client knows it, without a path,
and ``{location}`` for the Location that would have been answered: without one, that header isn't either.

One rule applies to a request: the first that matches and, if it has a probability, is drawn. Each rule draws
on its own, in the order of the requests that it matches, the same at every start and after every reset with
the same ``--random-seed``. The journal has the rule with every request to which it was applied.

Recipes::

    token refused       {"path": "^/api/", "status": 401}
    throttled           {"status": 429, "headers": {"Retry-After": "2"}}
    one in ten          {"probability": 0.1, "status": 503}
    answer lost         {"method": "POST", "close": "after"}
    answer late         {"method": "POST", "hold": 20}
    HTML page           {"status": 502, "headers": {"Content-Type": "text/html"}, "body": "<p>"}
    bare JSON string    {"status": 500, "body": "\"Something failed.\""}
    empty body          {"status": 500}
    invalid JSON        {"replace": {"body": "{\"status\":"}}
    array, not object   {"replace": {"body": "[]"}}
    unknown status      {"path": "/status$", "replace": {"json": {"status": "paused"}}}
    member missing      {"replace": {"json": {"status": null}}}
    older Location      {"replace": {"headers": {"Operation-Location": "{host}{location}", "Location": null}}}
    Location elsewhere  {"replace": {"headers": {"Location": "https://evil.example{location}"}}}
    news come late      {"path": "/(submissions|operations)", "lag": 180, "count": null}

Tokens end early by ``--token-valid`` or ``/_emulator/tokens/revoke``; a clock is wrong by ``--clock-offset``.
"""

from __future__ import annotations

import random
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAIN_KEYS = ("status", "close", "replace", "truncate")
_SIDE_KEYS = ("delay", "hold", "lag")
_KEYS = ("method", "path", "skip", "probability", "count", "headers", "body", *_SIDE_KEYS, *_MAIN_KEYS)
_MOST = sys.float_info.max  # neither what JSON calls Infinity nor NaN
_NUMBERS: dict[str, tuple[Any, int, float]] = {
    "skip": (int, 0, _MOST),
    "probability": ((int, float), 0, 1),
    "count": (int, 1, _MOST),
    "delay": ((int, float), 0, _MOST),
    "hold": ((int, float), 0, _MOST),
    "lag": ((int, float), 0, _MOST),
    "truncate": (int, 0, _MOST),
}
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class FaultError(ValueError):
    """A rule that makes no sense; the message says why."""


@dataclass
class Fault:
    """A checked rule; ``action`` is what was posted without ``count`` and ``skip``."""

    method: str | None
    path: re.Pattern[str]
    skip: int
    probability: float
    count: int | None
    action: dict[str, Any]
    draws: random.Random

    @property
    def document(self) -> dict[str, Any]:
        """The rule as JSON, with what remains of it."""
        return {**self.action, "count": self.count, "skip": self.skip}


class Faults:
    """The rules that hold and haven't been used up.

    :param initial: those that hold from the start, as JSON.
    :param random_seed: on which all that is drawn depends.
    :raises FaultError: if one of them makes no sense.
    """

    def __init__(self, initial: Sequence[Any] = (), random_seed: int = 0) -> None:
        self._initial = initial
        self._random_seed = random_seed
        self.reset()

    @property
    def documents(self) -> list[dict[str, Any]]:
        """The remaining rules as JSON, in the order in which they are tried."""
        return [rule.document for rule in self._rules]

    def reset(self) -> None:
        """Begin anew, with the initial rules."""
        self._random = random.Random(self._random_seed)  # noqa: S311 - chance, not secrets
        self._rules: list[Fault] = []
        for rule in self._initial:
            self.inject(rule)

    def inject(self, rule: Any) -> None:
        """Add a rule.

        :raises FaultError: if it makes no sense.
        """
        draws = random.Random(self._random.getrandbits(64))  # noqa: S311 - as above
        self._rules.append(_parse(rule, draws))

    def clear(self) -> int:
        """Drop all rules, and return how many there were."""
        count = len(self._rules)
        self._rules.clear()
        return count

    def take(self, method: str, path: str) -> dict[str, Any] | None:
        """Use up one count of the rule that applies to a request, and return its action."""
        for rule in self._rules:
            if rule.method not in (None, method) or not rule.path.search(path):
                continue
            if rule.skip:
                rule.skip -= 1
                continue
            if rule.draws.random() >= rule.probability:
                continue
            if rule.count is not None:
                rule.count -= 1
                if not rule.count:
                    self._rules.remove(rule)
            return rule.action
        return None


def _parse(rule: Any, draws: random.Random) -> Fault:
    if not isinstance(rule, dict):
        raise FaultError("A fault is a JSON object.")
    for key in rule:
        if key not in _KEYS:
            raise FaultError(f"'{key}' is not a key of a fault; these are: {', '.join(_KEYS)}.")
    main = [key for key in _MAIN_KEYS if key in rule]
    if len(main) > 1 or not (main or set(_SIDE_KEYS) & set(rule)):
        raise FaultError(
            f"A fault has some of {', '.join(_SIDE_KEYS)}, alone or with one of {', '.join(_MAIN_KEYS)}."
        )
    if "status" not in rule and ("headers" in rule or "body" in rule):
        raise FaultError("'headers' and 'body' belong to 'status', or into 'replace'.")
    _check_numbers(rule)
    if rule.get("close", "before") not in ("before", "after"):
        raise FaultError("'close' must be 'before' or 'after'.")
    _check_answer(rule)
    _check_replace(rule.get("replace", {}))
    try:
        path = re.compile(rule.get("path", ""))
    except (re.error, TypeError) as error:
        raise FaultError(f"'path' must be a regular expression: {error}.") from None
    return Fault(
        _method(rule),
        path,
        rule.get("skip", 0),
        rule.get("probability", 1),
        rule.get("count", None if "probability" in rule else 1),
        {key: value for key, value in rule.items() if key not in ("count", "skip")},
        draws,
    )


def _method(rule: dict[str, Any]) -> str | None:
    method = rule.get("method")
    if not isinstance(method, str | None):
        raise FaultError("'method' must be a string.")
    if "lag" not in rule:
        return method
    if method not in (None, "GET") or "status" in rule or rule.get("close") == "before":
        raise FaultError("'lag' is for a GET that is handled.")
    return "GET"


def _check_numbers(rule: dict[str, Any]) -> None:
    for key, (kind, least, most) in _NUMBERS.items():
        value = rule.get(key, least)
        if key == "count" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, kind) or not least <= value <= most:
            limits = f"{least} or more" if most == _MOST else f"from {least} to {most}"
            raise FaultError(f"'{key}' must be a number, {limits}.")


def _check_replace(parts: Any) -> None:
    if not isinstance(parts, dict) or not set(parts) <= {"status", "headers", "body", "json"}:
        raise FaultError("'replace' is an object with 'status', 'headers', and 'body' or 'json'.")
    if not isinstance(parts.get("json", {}), dict) or {"body", "json"} <= set(parts):
        raise FaultError("'json' must be an object, and is there instead of 'body'.")
    _check_answer(parts)


def _check_answer(parts: dict[str, Any]) -> None:
    status = parts.get("status", 200)
    if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
        raise FaultError("'status' must be an HTTP status from 200 to 599.")
    headers = parts.get("headers", {})
    if not isinstance(headers, dict) or not all(isinstance(value, str | None) for value in headers.values()):
        raise FaultError("'headers' must be an object of strings, or null.")
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value or ""):
            raise FaultError(f"'{name}' can't be a header with that name and value.")
        if name.lower() in ("content-length", "transfer-encoding"):
            raise FaultError(f"'{name}' follows from the body; 'truncate' breaks it off.")
    if not isinstance(parts.get("body", ""), str):
        raise FaultError("'body' must be a string.")
