"""Plain text from text of the service."""

from __future__ import annotations

import re
from functools import lru_cache
from html import unescape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_cpp.core.http import Json

# Characters that break a line, hide text, or can't be encoded.
CONTROL_CHARACTERS = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
# The same few short words are in each answer, of thousands of operations.
_WORDS, _LONGEST_WORD = 1024, 100


def normalize_status(word: object) -> str:
    """Return a word of the service's as it is compared: without case, spaces, hyphens and underscores."""
    if not isinstance(word, str):
        return ""
    return _normalize(word) if len(word) <= _LONGEST_WORD else _normalize.__wrapped__(word)


@lru_cache(_WORDS)
def _normalize(word: str) -> str:
    return re.sub(r"[\s_-]+", "", word).lower()


_TAG = re.compile(r"<(script|style)\b[^>]*>[^<]*|</?[a-zA-Z!?][^>]*(>|$)", re.IGNORECASE)
# Between these and the text around them there is no space.
_INLINE = re.compile(r"</?(a|b|code|em|font|i|small|span|strong|sub|sup|u)\b", re.IGNORECASE)
# What an error page may repeat of a request's headers. "Basic" alone is a tier's name as well.
_CREDENTIALS = re.compile(r"(\bbearer\s+|\bauthorization\W{1,8}basic\s+)[\w.~+/=-]+", re.IGNORECASE)
# Python doesn't read numbers as long as these may be.
_LONG_REFERENCE = re.compile(r"&#[0-9]{9,};?")
# Most words of the service's have none of these.
_SPECIAL = re.compile(f"[<&{CONTROL_CHARACTERS}]")
# So often escaped text is unfolded; what is escaped more often is nobody's honest message.
_ESCAPES = 5


def html_to_text(markup: object, limit: int = 1000) -> str:
    """Return the text of the service's HTML, on one line, cut at `limit` characters.

    What is left holds no tag, not even one that was escaped twice, and no control character.
    """
    if not isinstance(markup, str):
        return ""
    text = _CREDENTIALS.sub(r"\1***", markup[: 4 * limit])
    if _SPECIAL.search(text):
        text = _without_markup(text)
    text = " ".join(text.split())
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
    """Return an id, name or word as one short line without control characters; markup is kept out too.

    An estimate such as `< 5 day` is no markup, since no name follows its bracket.
    """
    return (
        _cached_short_text(value)
        if isinstance(value, str) and len(value) <= _LONGEST_WORD
        else html_to_text(value, 500)
    )


_cached_short_text = lru_cache(_WORDS)(html_to_text)
