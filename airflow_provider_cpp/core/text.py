"""Plain text from text of the service."""

from __future__ import annotations

import re
from functools import lru_cache
from html import unescape
from typing import TYPE_CHECKING

from airflow_provider_cpp.core.redaction import redact

if TYPE_CHECKING:
    from airflow_provider_cpp.core.http import Json

# Characters that break a line, hide text, or can't be encoded.
CONTROL_CHARACTERS = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
# Each response repeats the same few short words, for thousands of operations.
_WORDS, _LONGEST_WORD = 1024, 100


def normalize_status(word: object) -> str:
    """Return a word of the service for comparison: without case, spaces, hyphens and underscores."""
    if not isinstance(word, str):
        return ""
    return _normalize(word) if len(word) <= _LONGEST_WORD else _normalize.__wrapped__(word)


@lru_cache(_WORDS)
def _normalize(word: str) -> str:
    return re.sub(r"[\s_-]+", "", word).lower()


_TAG = re.compile(r"<(script|style)\b[^>]*>[^<]*|</?[a-zA-Z!?][^>]*(>|$)", re.IGNORECASE)
# These tags do not separate words.
_INLINE = re.compile(r"</?(a|b|code|em|font|i|small|span|strong|sub|sup|u|wbr)\b", re.IGNORECASE)
# Python does not read longer numbers.
_LONG_REFERENCE = re.compile(r"&#[0-9]{9,};?")
# Most words of the service contain none of these.
_SPECIAL = re.compile(f"[<&{CONTROL_CHARACTERS}]")
# No real message is escaped more often.
_ESCAPES = 5


def html_to_text(markup: object, limit: int = 1000) -> str:
    """Return the text of the service's HTML, on one line, without credentials, cut at `limit` characters.

    The text contains no tag, not even one that was escaped twice, and no control character.
    """
    if not isinstance(markup, str):
        return ""
    text = markup[: 4 * limit]
    if _SPECIAL.search(text):
        text = _without_markup(text)
    # Tags and references can split a credential, so it is redacted after they are removed.
    text = redact(" ".join(text.split()))
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _without_markup(text: str) -> str:
    for _ in range(_ESCAPES):
        before = text
        text = _TAG.sub(lambda tag: "" if _INLINE.match(tag[0]) else " ", text)
        text = unescape(_LONG_REFERENCE.sub(" ", text))
        if text == before:
            break
    else:
        text = text.translate({ord("<"): " ", ord("&"): " "})
    return re.sub(f"[{CONTROL_CHARACTERS}]+", " ", text)


def short_text(value: Json) -> str:
    """Return an id, name or word as one short line without control characters, markup and credentials.

    An estimate such as `< 5 day` is kept, since no tag name follows the bracket.
    """
    return (
        _cached_short_text(value)
        if isinstance(value, str) and len(value) <= _LONGEST_WORD
        else html_to_text(value, 500)
    )


_cached_short_text = lru_cache(_WORDS)(html_to_text)
