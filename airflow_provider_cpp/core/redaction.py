"""Keep secrets out of what others say: an answer may repeat the request that it answers, in any encoding."""

from __future__ import annotations

import base64
import html
import json
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable

#: As many letters in a row tell a secret from all else, and less than that is of no use to anybody.
PIECE = 16
#: Shorter words are no secrets that could be told from what is said anyway.
_SHORTEST = 8
_MASK = "***"


def mask(text: str, secrets: Iterable[str | None]) -> str:
    """Return a text in which each word with a piece of a secret is `***`.

    :param secrets: what must not be seen: as it is, as JSON, HTML, or hexadecimal has it, URL-encoded, or
        base64-encoded alone or in the middle of something else
    """
    pieces = frozenset().union(*(_pieces(secret) for secret in secrets if secret))
    found = [
        (at, at + length)
        for length in {len(piece) for piece in pieces}
        for at in range(len(text) - length + 1)
        if text[at : at + length] in pieces
    ]
    for start, end in reversed(
        _merged((_word_start(text, start), _word_end(text, end)) for start, end in found)
    ):
        text = text[:start] + _MASK + text[end:]
    return text


def mask_long_words(text: str, length: int = 40) -> str:
    """Return a text in which each word of so many characters is `***`; of a URL, each part counts.

    So no secret that isn't known here, such as an assertion that a library signed, is in it. GUIDs are
    shorter.
    """

    def is_long(word: str) -> bool:
        parts = word.split("/") if word.startswith("https://") else [word]
        return any(len(part) >= length for part in parts)

    return " ".join(_MASK if is_long(word) else word for word in text.split(" "))


# Tokens come and go; what was made of the latest is kept, since in an outage each answer is masked.
@lru_cache(maxsize=8)
def _pieces(secret: str) -> frozenset[str]:
    if len(secret) < _SHORTEST:
        return frozenset()
    length = min(PIECE, len(secret))
    return frozenset(
        form[at : at + length] for form in _forms(secret) for at in range(len(form) - length + 1)
    )


def _forms(secret: str) -> Iterable[str]:
    raw = secret.encode("utf-8", "surrogatepass")
    yield from (secret, quote(raw, safe=""), quote(raw), quote_plus(raw), html.escape(secret), raw.hex())
    yield from (json.dumps(secret)[1:-1], repr(secret)[1:-1], repr(raw)[2:-1])
    for skipped in range(3):
        # What comes before and after it changes the first and the last letters.
        middle = raw[skipped : skipped + (len(raw) - skipped) // 3 * 3]
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(middle).decode()


def _word_start(text: str, at: int) -> int:
    return next((before + 1 for before in range(at - 1, -1, -1) if text[before].isspace()), 0)


def _word_end(text: str, at: int) -> int:
    return next((after for after in range(at, len(text)) if text[after].isspace()), len(text))


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(set(spans)):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
