r"""Faults: which requests go wrong, and how.

A rule is posted to ``/_emulator/faults``, or is an item of the JSON array of ``--faults FILE``::

    {
      "method": "POST",       optional: the rule applies to this method only
      "path": "golive$",      optional: a regular expression, searched in the path as the client sent it
      "skip": 0,              optional: number of matching requests that pass first
      "probability": 0.1,     optional: share of the other matching requests that the rule applies to
      "count": 1,             optional: number of requests that the rule applies to; null: no limit. The
                              default is 1, with a probability null
      "delay": 2.5            seconds before the request is handled
      "hold": 2.5             seconds between handling and response; the journal has the request at once
      "lag": 180              a GET returns the state of so many seconds ago, which --time-scale divides, but
                              not from before the seed: newer operations are unknown; an offer's status, slots
                              and version are the old ones; its draft is the current one.
                              delay, hold and lag can be combined, also with one of the following:
      "status": 503, "headers": {"Retry-After": "2"}, "body": "..."
                              the response; the request is not handled. Headers and body are optional
      "status": 500, "json": {"error": {...}}
                              likewise, with a JSON body
      "close": "before"       close the connection without a response, before the request is handled
      "close": "after"        the same, after the request is handled
      "replace": {"status": 200, "headers": {"Location": null}, "body": "<html>"}
                              handle the request, then replace these parts of the response; a null header is
                              removed
      "replace": {"json": {"status": "paused"}}
                              replace members of the JSON object in the body, or of each object in its array;
                              null removes one; a body that is not JSON stays
      "replace": {"words": {"succeeded": "complete"}}
                              replace status words anywhere in the JSON body; "PascalCase" instead of an
                              object capitalizes all of them
      "truncate": 20          handle the request, then close the connection after so many bytes of the body
    }

In header values, and in a body that replaces another, ``{location}`` is replaced by the Location of the
original response; without one, the header is omitted. In header values ``{host}`` is replaced by the
emulator's base URL as the client knows it.

One rule applies to a request: the first that matches and, if it has a probability, is drawn. Each rule draws
on its own, in the order of the requests that it matches, with the same results after each start and reset
with the same ``--random-seed``. The journal shows the rule with each request that it was applied to.

Recipes::

    token refused       {"path": "^/api/", "status": 401}
    throttled           {"status": 429, "headers": {"Retry-After": "2"}}
    one in ten          {"probability": 0.1, "status": 503}
    answer lost         {"method": "POST", "close": "after"}
    answer late         {"method": "POST", "hold": 20}
    service error       {"status": 500, "json": {"error": {"code": "InternalServerError",
                        "message": "We cannot complete the request now, please try again later."}}}
    HTML page           {"status": 502, "headers": {"Content-Type": "text/html"}, "body": "<p>"}
    bare JSON string    {"status": 500, "body": "\"Something failed.\""}
    empty body          {"status": 500}
    invalid JSON        {"replace": {"body": "{\"status\":"}}
    array, not object   {"replace": {"body": "[]"}}
    unknown status      {"path": "/status$", "replace": {"json": {"status": "paused"}}}
    member missing      {"replace": {"json": {"status": null}}}
    PascalCase status   {"path": "/status$", "count": null, "replace": {"words": "PascalCase"}}
    status complete     {"count": null, "replace":
                        {"words": {"succeeded": "complete", "completed": "complete"}}}
    older Location      {"replace": {"headers": {"Operation-Location": "{host}{location}", "Location": null}}}
    Location in body    {"path": "/cancel$", "replace": {"body": "{\"location\": \"{location}\"}",
                        "headers": {"Location": null, "Operation-Location": null}}}
    Location elsewhere  {"replace": {"headers": {"Location": "https://evil.example{location}"}}}
    news come late      {"path": "/(submissions|operations)", "lag": 180, "count": null}
    list comes late     {"path": "/submissions", "lag": 120, "count": null}

``--token-valid`` and ``/_emulator/tokens/revoke`` make tokens invalid before they expire; ``--clock-offset``
sets the clock wrong.
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from airflow_provider_cpp.emulator.validation import Document, describe

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAIN_KEYS = ("status", "close", "replace", "truncate")
_SIDE_KEYS = ("delay", "hold", "lag")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class FaultError(ValueError):
    """An invalid rule; the message is one line that names the key."""


def _check_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"must be a regular expression: {error}") from None
    return pattern


def _check_headers(headers: dict[str, str | None]) -> dict[str, str | None]:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value or ""):
            raise ValueError(f"'{name}' is no valid header with this value")
        if name.lower() in ("content-length", "transfer-encoding"):
            raise ValueError(f"'{name}' follows from the body; use 'truncate' to send only a part of it")
    return headers


Seconds = Annotated[float, Field(ge=0)]
Headers = Annotated[dict[str, str | None], AfterValidator(_check_headers)]
StatusCode = Annotated[int, Field(ge=200, le=599)]


class Replacement(Document):
    """The parts of a response that a rule replaces."""

    status: StatusCode = 200
    headers: Headers = Field(default_factory=dict)
    body: str = ""
    members: dict[str, Any] = Field(default_factory=dict, alias="json")
    words: dict[str, str] | Literal["PascalCase"] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_body(self) -> Self:
        if len(self.model_fields_set & {"body", "members", "words"}) > 1:
            raise ValueError("needs one of 'body', 'json' and 'words'")
        return self


class Rule(Document):
    """A rule as a user writes it."""

    method: str | None = None
    path: Annotated[str, AfterValidator(_check_pattern)] = ""
    skip: int = Field(0, ge=0)
    probability: float = Field(1, ge=0, le=1)
    count: Annotated[int, Field(ge=1)] | None = 1
    delay: Seconds = 0
    hold: Seconds = 0
    lag: Seconds = 0
    status: StatusCode = 200
    headers: Headers = Field(default_factory=dict)
    body: str = ""
    json_body: Any = Field(None, alias="json")
    close: Literal["before", "after"] = "before"
    replace: Replacement = Field(default_factory=Replacement)
    truncate: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _check_combination(self) -> Self:
        given = self.model_fields_set
        main = given & set(_MAIN_KEYS)
        if len(main) > 1 or not given & {*_MAIN_KEYS, *_SIDE_KEYS}:
            raise ValueError(
                f"needs one of {', '.join(_MAIN_KEYS)}, or some of {', '.join(_SIDE_KEYS)}, or both"
            )
        if "status" not in given and given & {"headers", "body", "json_body"}:
            raise ValueError("'headers', 'body' and 'json' need 'status', or belong in 'replace'")
        if {"body", "json_body"} <= given:
            raise ValueError("needs one of 'body' and 'json'")
        is_handled = "status" not in given and not ("close" in given and self.close == "before")
        if "lag" in given and not (self.method in (None, "GET") and is_handled):
            raise ValueError("'lag' needs a GET that is handled")
        return self


@dataclass
class Fault:
    """A rule in use; `action` is the rule without `count` and `skip`."""

    method: str | None
    path: re.Pattern[str]
    skip: int
    probability: float
    count: int | None
    action: dict[str, Any]
    draws: random.Random

    @property
    def document(self) -> dict[str, Any]:
        """The rule as JSON, with the remaining `count` and `skip`."""
        return {**self.action, "count": self.count, "skip": self.skip}


class Faults:
    """The rules that are not used up.

    :param initial: the rules that apply from the start, as JSON
    :param random_seed: seed of all draws
    :raises FaultError: a rule is invalid
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
        """Start again with the initial rules."""
        self._random = random.Random(self._random_seed)  # noqa: S311 - not for secrets
        self._rules: list[Fault] = []
        for number, rule in enumerate(self._initial):
            try:
                self.inject(rule)
            except FaultError as error:
                raise FaultError(f"[{number}].{error}") from None

    def inject(self, rule: Any) -> None:
        """Add a rule.

        :raises FaultError: the rule is invalid
        """
        draws = random.Random(self._random.getrandbits(64))  # noqa: S311 - not for secrets
        self._rules.append(_parse(rule, draws))

    def clear(self) -> int:
        """Remove all rules, and return their number."""
        count = len(self._rules)
        self._rules.clear()
        return count

    def take(self, method: str, path: str) -> dict[str, Any] | None:
        """Return the action of the rule that applies to a request, and count it."""
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


def _parse(document: Any, draws: random.Random) -> Fault:
    try:
        rule = Rule.model_validate(document)
    except ValidationError as error:
        raise FaultError(describe(error, Rule)) from None
    given = rule.model_fields_set
    action = {key: value for key, value in document.items() if key not in ("count", "skip")}
    if "json_body" in given:
        action["body"] = json.dumps(action.pop("json"))
    return Fault(
        "GET" if "lag" in given else rule.method,
        re.compile(rule.path),
        rule.skip,
        rule.probability,
        rule.count if "count" in given or "probability" not in given else None,
        action,
        draws,
    )
