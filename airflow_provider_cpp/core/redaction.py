"""Redact credentials in text and JSON of the service.

`redact` finds credentials by their form: SAS signatures, account keys, passwords, connection strings. All
text of the service that the provider logs, raises or stores in an XCom passes through it. `mask` finds the
credentials that this process sent, in any encoding, because an error page may repeat the request.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Replaces a credential. An offer that contains this marker is never written.
MARKER = "***redacted***"

# Airflow replaces a secret by three asterisks, and the digest of a signature stands inside the marker.
_ANY_MARKER = re.compile(
    r"(?:\*|%2a){3}redacted(?:(?::|%3a)[0-9a-f]{8})?(?:\*|%2a){3}|^\*{3}$|[?&;]sig=\*{3}", re.IGNORECASE
)

# Names of values that are credentials, at the end of a JSON key or before an equals sign.
_NAMES = (
    r"(?:account|access|shared|storage|api|private|primary|secondary|subscription|functions?|host)[ _-]?key"
    r"|pass(?:word|wd|phrase)|secret(?:[ _-]?value)?|signature|credential|token|client[ _-]?assertion"
    r"|connection[ _-]?string"
)
_SECRET_KEY = re.compile(rf"(?:{_NAMES})s?$|^(?:sig|sas|pwd)$", re.IGNORECASE)

# The ampersand and the equals sign of a URL, as they are or as URL encoding, JSON or HTML spells them.
_EQUALS = r"(?:=|%(?:25)*3d|\\u003d|&\#(?:x3d|61);)"
# No character of the marker is part of such a value, so that redacted text stays as it is.
_BASE64 = r"(?:[a-z0-9+/=_.~-]|%(?!(?:25)*26)|\\u00(?:2[bf]|3d)|&\#(?:x2[bf]|x3d|43|47|61);)+"

# Each pattern keeps its group `before` and redacts its group `secret`.
_SIGNATURE = re.compile(
    rf"(?P<before>(?:(?<![a-z0-9])|(?<=26)|(?<=3f)|(?<=3d))sig{_EQUALS})(?P<secret>{_BASE64})", re.IGNORECASE
)
_PATTERNS = (
    # AccountKey=...; and password='...'
    re.compile(
        rf"(?P<before>(?:{_NAMES}|\bpwd)\s?=\s?)(?P<secret>\"[^\"]*(?:\"|$)|'[^']*(?:'|$)|[^\s;&\"'<>]+)",
        re.IGNORECASE,
    ),
    # The same in a URL
    re.compile(
        rf"(?P<before>(?:{_NAMES}|\bpwd)%(?:25)*3d)(?P<secret>(?:[^\s;&\"'<>%]|%(?!(?:25)*(?:26|3b)))+)",
        re.IGNORECASE,
    ),
    # JSON in text: "accountKey": "..."
    re.compile(
        r"(?P<before>(?P<quote>\\{0,7}[\"']|&quot;|&\#(?:34|39);)"
        rf"(?:[\w .$-]{{0,60}}?(?:{_NAMES})s?|sig|sas|pwd)"
        r"(?P=quote)\s{0,9}[:=]\s{0,9}(?P=quote))(?P<secret>(?:(?!(?P=quote))(?:\\.|.))+)",
        re.IGNORECASE | re.DOTALL,
    ),
    # Headers. "Basic" alone is also the name of a tier.
    re.compile(
        r"(?P<before>\bbearer\s+(?=[\w.~+/=-]{8})|\bauthorization\W{1,8}basic\s+|\bsharedkey(?:lite)?\s+[\w.-]+:)"
        r"(?P<secret>[\w.~+/=-]+)",
        re.IGNORECASE,
    ),
    # The key of an Azure Function in a URL or a header
    re.compile(
        r"(?P<before>[?&;]code=|\bx-(?:functions|api)-key\s?:\s{0,9})(?P<secret>[\w.~+/=%-]{16,})",
        re.IGNORECASE,
    ),
    # JSON Web Tokens
    re.compile(r"(?P<before>\b)(?P<secret>eyJ[\w-]{16,}(?:\.[\w-]*){0,4})"),
    re.compile(
        r"(?P<before>-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----)(?P<secret>.+?)(?=-----END|$)", re.DOTALL
    ),
    # The user in a URL
    re.compile(r"(?P<before>://[^/\s:@\"'<>]{1,100}:)(?P<secret>[^/\s@\"'<>]{1,200})(?=@)"),
)
# Most texts contain none of these and need no further search.
_SUSPECT = re.compile(r"[=%:]|&#|\\u003d|bearer\s|eyJ|-----BEGIN", re.IGNORECASE)


def redact(value: Any, *, digest: bool = False) -> Any:
    """Return text or JSON in which each credential is replaced by a marker.

    A URL keeps all but its signature. Under a JSON key that names a credential, such as `accountKey` or
    `password`, each text and number is replaced.

    :param value: text, or a JSON value, which is not changed
    :param digest: whether the marker of a SAS signature contains a short hash, so that a change is visible
    """
    try:
        return _Redactor(digest).value(value)
    except RecursionError:
        return MARKER


def find_secrets(value: Any) -> list[str]:
    """Return the credentials in text or JSON that `redact` replaces."""
    redactor = _Redactor(digest=False)
    try:
        redactor.value(value)
    except RecursionError:
        return redactor.found
    return redactor.found


def find_markers(value: Any, path: str = "") -> Iterator[str]:
    """Yield the path of each text in a JSON value that contains a redaction marker, e.g. `plans[0].osVhdUrl`.

    The three asterisks that Airflow uses count if they replace a whole text or a signature.
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(key, str) and _ANY_MARKER.search(key):
                yield path or "the offer"
            yield from find_markers(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from find_markers(inner, f"{path}[{index}]")
    elif isinstance(value, str) and _ANY_MARKER.search(value):
        yield path or "the offer"


class _Redactor:
    """Replace credentials and keep a list of the replaced ones."""

    def __init__(self, digest: bool) -> None:
        self.digest = digest
        self.found: list[str] = []

    def value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {
                self.value(key): self.secret(inner)
                if isinstance(key, str) and _SECRET_KEY.search(key)
                else self.value(inner)
                for key, inner in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.value(inner) for inner in value]
        return value

    def text(self, text: str) -> str:
        if not _SUSPECT.search(text):
            return text
        text = _SIGNATURE.sub(self._signature, text)
        for pattern in _PATTERNS:
            text = pattern.sub(self._match, text)
        return text

    def secret(self, value: Any) -> Any:
        """Redact the value of a key that names a credential."""
        if isinstance(value, Mapping):
            return {self.value(key): self.secret(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.secret(inner) for inner in value]
        if value is None or value == "" or isinstance(value, bool):
            return value
        self.found.append(str(value))
        return MARKER

    def _signature(self, match: re.Match[str]) -> str:
        self.found.append(match["secret"])
        marker = MARKER
        if self.digest:
            marker = f"***redacted:{sha256(match['secret'].encode()).hexdigest()[:8]}***"
        return match["before"] + marker

    def _match(self, match: re.Match[str]) -> str:
        if _ANY_MARKER.search(match["secret"]):
            return match[0]
        self.found.append(match["secret"])
        return match["before"] + MARKER


#: This many characters in a row identify a secret; fewer are of no use to an attacker.
PIECE = 16
#: Shorter words are not secrets.
_SHORTEST = 8
_MASK = "***"


def mask(text: str, secrets: Iterable[str | None]) -> str:
    """Return a text in which each word that contains a piece of a secret is `***`.

    :param secrets: the secrets to hide: as they are, in JSON, HTML or hexadecimal, URL-encoded, or
        base64-encoded alone or in the middle of other data
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
    """Return a text in which each word of at least `length` characters is `***`; of a URL, each part counts.

    This hides secrets that this process does not know, such as an assertion that a library signed. GUIDs are
    shorter.
    """

    def is_long(word: str) -> bool:
        parts = word.split("/") if word.startswith("https://") else [word]
        return any(len(part) >= length for part in parts)

    return " ".join(_MASK if is_long(word) else word for word in text.split(" "))


# Tokens expire; the pieces of the latest tokens are cached, since each response of an outage is masked.
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
        # The data before and after the secret changes its first and last characters.
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
