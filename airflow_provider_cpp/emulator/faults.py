"""Faults: what is to go wrong with which requests, and how.

A rule, as it is posted to ``/_emulator/faults``::

    {
      "method": "POST",       optional, else any
      "path": "golive$",      optional, else any: a regular expression, searched in the path as it was sent
      "count": 1,             optional: to how many requests it applies
      "skip": 0,              optional: how many that match it lets pass first
      "delay": 2.5            seconds before the request is handled; alone or with one of these:
      "status": 503, "headers": {"Retry-After": "2"}, "body": "..."
                              answered instead of handling; the last two are optional
      "close": "before"       the connection is closed without an answer, before the request is handled
      "close": "after"        or after it was
      "replace": {"status": 200, "headers": {"Location": null}, "body": "<html>"}
                              handled, then the answer has these parts instead; of the headers only those
                              named, null removes one
      "truncate": 20          handled, then the connection is closed after so many bytes of the body
    }

One rule applies to a request: the first that matches.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_MAIN_KEYS = ("status", "close", "replace", "truncate")
_KEYS = ("method", "path", "count", "skip", "delay", "headers", "body", *_MAIN_KEYS)


class FaultError(ValueError):
    """A rule that makes no sense; the message says why."""


@dataclass
class Fault:
    """A checked rule; ``action`` is what was posted without ``count`` and ``skip``."""

    method: str | None
    path: re.Pattern[str]
    count: int
    skip: int
    action: dict[str, Any]

    @property
    def document(self) -> dict[str, Any]:
        """The rule as JSON, with what remains of it."""
        return {**self.action, "count": self.count, "skip": self.skip}


class Faults:
    """The rules that were injected and haven't been used up."""

    def __init__(self) -> None:
        self._rules: list[Fault] = []

    @property
    def documents(self) -> list[dict[str, Any]]:
        """The remaining rules as JSON, in the order in which they are tried."""
        return [rule.document for rule in self._rules]

    def inject(self, rule: Any) -> None:
        """Add a rule.

        :raises FaultError: if it makes no sense.
        """
        self._rules.append(_parse(rule))

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
            rule.count -= 1
            if not rule.count:
                self._rules.remove(rule)
            return rule.action
        return None


def _parse(rule: Any) -> Fault:
    if not isinstance(rule, dict):
        raise FaultError("A fault is a JSON object.")
    for key in rule:
        if key not in _KEYS:
            raise FaultError(f"'{key}' is not a key of a fault; these are: {', '.join(_KEYS)}.")
    main = [key for key in _MAIN_KEYS if key in rule]
    if len(main) > 1 or not (main or "delay" in rule):
        raise FaultError(f"A fault has a 'delay', or one of {', '.join(_MAIN_KEYS)}, or the two together.")
    if "status" not in rule and ("headers" in rule or "body" in rule):
        raise FaultError("'headers' and 'body' belong to 'status', or into 'replace'.")
    _check_number(rule, "count", int, 1)
    _check_number(rule, "skip", int, 0)
    _check_number(rule, "truncate", int, 0)
    _check_number(rule, "delay", (int, float), 0)
    if rule.get("close", "before") not in ("before", "after"):
        raise FaultError("'close' must be 'before' or 'after'.")
    _check_answer(rule)
    _check_replace(rule.get("replace", {}))
    method = rule.get("method")
    if not isinstance(method, str | None):
        raise FaultError("'method' must be a string.")
    try:
        path = re.compile(rule.get("path", ""))
    except (re.error, TypeError) as error:
        raise FaultError(f"'path' must be a regular expression: {error}.") from None
    action = {key: value for key, value in rule.items() if key not in ("count", "skip")}
    return Fault(method, path, rule.get("count", 1), rule.get("skip", 0), action)


def _check_number(rule: dict[str, Any], key: str, kind: Any, least: int) -> None:
    value = rule.get(key, least)
    if isinstance(value, bool) or not isinstance(value, kind) or value < least:
        raise FaultError(f"'{key}' must be a number, {least} or more.")


def _check_replace(parts: Any) -> None:
    if not isinstance(parts, dict) or not set(parts) <= {"status", "headers", "body"}:
        raise FaultError("'replace' is an object with 'status', 'headers' or 'body'.")
    _check_answer(parts)


def _check_answer(parts: dict[str, Any]) -> None:
    status = parts.get("status", 200)
    if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
        raise FaultError("'status' must be an HTTP status from 200 to 599.")
    headers = parts.get("headers", {})
    if not isinstance(headers, dict) or not all(isinstance(value, str | None) for value in headers.values()):
        raise FaultError("'headers' must be an object of strings, or null.")
    if not isinstance(parts.get("body", ""), str):
        raise FaultError("'body' must be a string.")
