"""Search texts for secrets in all their encodings."""

from __future__ import annotations

import base64
import html
import json
import re
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: Length of the parts to search for: long enough to be unique. Because texts may be cut, longer secrets are
#: also searched in parts; any 31 consecutive letters contain a whole part.
PART = 16
#: Fields of requests and responses whose values are secrets.
_FIELDS = ("client_secret", "client_assertion", "assertion", "access_token", "refresh_token")


def forms(secret: str) -> set[bytes]:
    """A secret in plain text, in base64 at each of the three alignments, URL-encoded, in JSON and in HTML."""
    raw = secret.encode()
    found = {raw, quote(secret, safe="").encode(), quote_plus(secret).encode()}
    found |= {quote(secret).encode(), html.escape(secret).encode(), raw.hex().encode()}
    found |= {json.dumps(secret)[1:-1].encode(), repr(secret)[1:-1].encode(), repr(raw)[2:-1].encode()}
    for skipped in range(3):
        # The data before and after the secret changes its first and last characters.
        middle = raw[skipped : skipped + (len(raw) - skipped) // 3 * 3]
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            found.add(encode(middle))
    return found


def parts(form: bytes) -> set[bytes]:
    """The form itself if it is short, else pieces that lie next to each other."""
    if len(form) < 2 * PART:
        return {form}
    return {form[start : start + PART] for start in range(0, len(form) - PART + 1, PART)}


@cache
def needles_of(secret: str) -> frozenset[bytes]:
    """Return the byte strings whose presence shows a secret, or most of a secret, in any form."""
    return frozenset(part for form in forms(secret) for part in parts(form))


@dataclass
class Secrets:
    """Secrets in use: known from the start, or seen in a request or response."""

    #: Names for messages, by secret.
    known: dict[str, str] = field(default_factory=dict)
    #: Parts that are public, such as the header of a JWT.
    public: set[bytes] = field(default_factory=set)

    def add(self, name: str, secret: str | None) -> None:
        # A shorter value is an ordinary word.
        if secret and len(secret) >= 8:
            self.known.setdefault(secret, name)

    def add_key(self, name: str, pem: str) -> None:
        """Add the lines of a private key."""
        inside = re.findall(r"-----BEGIN [A-Z ]*PRIVATE KEY-----(.*?)-----END", pem, re.DOTALL)
        for lines in inside:
            for line in lines.split()[1:]:
                self.add(name, line)

    def learn(self, headers: Mapping[Any, Any], body: object) -> None:
        """Add the secrets in a request or a response."""
        for key, value in headers.items():
            scheme, _, credential = str(value).partition(" ")
            if str(key).lower() == "authorization" and scheme.lower() == "bearer":
                self.add("access token", credential)
            if str(key).lower() == "x-identity-header":
                self.add("identity header", str(value))
        if isinstance(body, bytes):
            body = body.decode("utf-8", "replace")
        if isinstance(body, str):
            try:
                document = json.loads(body)
            except ValueError:
                document = {key: values[0] for key, values in parse_qs(body).items()}
            body = document
        if isinstance(body, dict):
            for key in _FIELDS:
                if isinstance(value := body.get(key), str):
                    self.add(key, value)

    def needles(self) -> dict[bytes, str]:
        """Return the byte strings to search for, with the names of their secrets."""
        found: dict[bytes, str] = {}
        for secret, name in self.known.items():
            for part in needles_of(secret):
                found.setdefault(part, name)
        return {part: name for part, name in found.items() if part not in self.public}

    def find(
        self, where: str, haystack: str | bytes, needles: Mapping[bytes, str] | None = None
    ) -> list[str]:
        """Return a message for each secret in a text, with the text around it."""
        data = _as_bytes(haystack)
        hits: dict[str, str] = {}
        for needle, name in (self.needles() if needles is None else needles).items():
            if (at := data.find(needle)) >= 0 and name not in hits:
                around = data[max(0, at - 120) : at + len(needle) + 40]
                hits[name] = f"{name} in {where}: …{around.decode('utf-8', 'replace')}…"
        return list(hits.values())

    def find_all(self, places: Iterable[tuple[str, str | bytes]]) -> list[str]:
        """Search many texts."""
        texts = [(where, _as_bytes(text)) for where, text in places]
        # Search the joined texts first, because most contain no secret.
        whole = b"\0".join(text for _, text in texts)
        needles = {needle: name for needle, name in self.needles().items() if needle in whole}
        return [hit for where, text in texts for hit in self.find(where, text, needles)] if needles else []


def _as_bytes(text: str | bytes) -> bytes:
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
