"""Find the error code and the explanation in an error body, in each form that Azure services use.

Known forms: `{"error": {"code", "message", "details", "innererror"}}`, `{"error", "error_description"}`,
`{"Message"}`, `{"errors": [...]}`, `{"value": [...]}`, `{"Variant": {"error"}}`, `odata.error`, RFC 7807 with
its `errors`, `ModelState`, an array, a JSON text, plain text and HTML. Other texts follow their key.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow_provider_cpp.core.redaction import redact
from airflow_provider_cpp.core.text import html_to_text

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Characters of an explanation.
LIMIT = 1000
# More of a body is not searched.
_MOST_PHRASES = 50
_MOST_BYTES = 20_000

# Keys whose text explains the error, in the order in which it is shown. Keys compare in lower case.
_EXPLANATIONS = ("title", "message", "errormessage", "error_description", "detail", "exceptionmessage")
# Keys that only structure the body.
_STRUCTURE = frozenset(
    ("error", "errors", "details", "innererror", "value", "variant", "odata.error", "modelstate")
)
_CODES = ("code", "errorcode")


def read_error_body(body: bytes) -> tuple[str | None, str]:
    """Return the service's error code, or None, and its explanation.

    The explanation is empty only if the body is empty or contains nothing but the code.
    """
    try:
        answer = redact(parse_json(body))
    except ValueError:
        answer = body[:_MOST_BYTES].decode("utf-8", "replace")
    code = _find_code(answer)
    phrases = [phrase for phrase in dict.fromkeys(_phrases(answer, code)) if phrase != code]
    words = "; ".join([*(phrase.removesuffix(".") for phrase in phrases[:-1]), *phrases[-1:]])
    if not words and code is None:
        # No text: show numbers and brackets.
        words = html_to_text(answer if isinstance(answer, str) else json.dumps(answer), LIMIT)
    if not words and code is None and body.strip():
        words = f"a body of {len(body)} bytes without text"
    return code, words if len(words) <= LIMIT else f"{words[: LIMIT - 1]}…"


def parse_json(body: bytes) -> Any:
    """Return the body's JSON.

    :raises ValueError: it is not JSON, or nested deeper or with longer numbers than Python reads
    """
    try:
        return json.loads(body)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _find_code(answer: Any) -> str | None:
    """Return the outermost error code."""
    # OAuth: {"error": "invalid_grant", "error_description": "..."}
    if isinstance(answer, dict) and "error_description" in answer and (code := _text(answer.get("error"))):
        return code
    level = answer if isinstance(answer, list) else [answer]
    while level:
        objects = [item for item in level if isinstance(item, dict)]
        if code := next(filter(None, map(_code, objects)), ""):
            return code
        level = [
            inner
            for item in objects
            for key, value in item.items()
            if key.lower() in _STRUCTURE
            for inner in (value if isinstance(value, list) else [value])
        ]
    return None


def _code(item: dict[str, Any]) -> str:
    return next((_text(value) for key, value in item.items() if key.lower() in _CODES and _text(value)), "")


def _text(value: Any) -> str:
    return html_to_text(value, 100)


def _phrases(answer: Any, outer_code: str | None) -> Iterator[str]:
    """Yield the texts of a JSON value, explanations first. A text under an unknown key follows that key."""
    stack: list[tuple[str, Any]] = [("", answer)]
    found = 0
    while stack and found < _MOST_PHRASES:
        label, value = stack.pop()
        if isinstance(value, dict):
            stack += reversed(_labeled(value, outer_code))
        elif isinstance(value, list):
            stack += [(label, inner) for inner in reversed(value)]
        elif text := html_to_text(value, LIMIT):
            found += 1
            yield f"{label}: {text}" if label else text


def _labeled(item: dict[str, Any], outer_code: str | None) -> list[tuple[str, Any]]:
    """Return the values of an object with their labels: code, explanations, structure, other keys.

    The code of an inner error is the label of its explanation.
    """
    code = _code(item)
    ranked: list[tuple[int, str, Any]] = []
    for key, value in item.items():
        known = key.lower()
        if known in _EXPLANATIONS:
            ranked.append((_EXPLANATIONS.index(known), "", value))
        elif known in _STRUCTURE:
            ranked.append((len(_EXPLANATIONS), "", value))
        elif known not in _CODES:
            ranked.append((len(_EXPLANATIONS) + 1, _text(key), value))
        elif not code or _text(value) != code:
            ranked.append((-1, "", value))
    ranked.sort(key=lambda entry: entry[0])
    values = [(label, value) for _, label, value in ranked]
    if code and code != outer_code:
        if values and not values[0][0] and _text(values[0][1]):
            values[0] = (code, values[0][1])
        else:
            values.insert(0, ("", code))
    return values
