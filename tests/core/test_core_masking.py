from __future__ import annotations

import base64
import html
import json
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_cpp.core.redaction import PIECE, mask, mask_long_words

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = 'S3cret~of+the/seed&"quoted"=ä?8Q'
ENCODINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "URL": lambda text: quote(text, safe=""),
    "form": quote_plus,
    "JSON": lambda text: json.dumps(text)[1:-1],
    "HTML": html.escape,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 of URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "hexadecimal": lambda text: text.encode().hex(),
}


def has_a_piece_of(secret: str, encode: Callable[[str], str], text: str) -> bool:
    form = encode(secret)
    return any(form[at : at + 2 * PIECE] in text for at in range(max(1, len(form) - 2 * PIECE + 1)))


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(before=st.text("ab: ", max_size=5), after=st.text("yz&= ", max_size=5), secret=st.just(SECRET))
def test_a_secret_is_masked_in_each_encoding_whatever_is_around_it(
    encoding: str, before: str, after: str, secret: str
) -> None:
    encode = ENCODINGS[encoding]
    masked = mask(f"It said {encode(before + secret + after)} there.", [secret])
    assert not has_a_piece_of(secret, encode, masked)
    assert masked.startswith("It said ")
    assert masked.endswith(" there.")


@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789-_.~", min_size=2 * PIECE, max_size=90), st.data())
def test_of_what_is_cut_less_than_a_piece_is_left(secret: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(secret)))
    end = data.draw(st.integers(start, len(secret)))
    masked = mask(f"x {secret[start:end]}", [secret])
    assert masked == ("x ***" if end - start >= PIECE else f"x {secret[start:end]}")


def test_a_secret_of_several_words_is_masked_as_a_whole() -> None:
    assert mask("I got correct horse battery staple!", ["correct horse battery staple"]) == "I got ***"


def test_several_secrets_and_none() -> None:
    text = "client_secret=abcdefghijkl token=0123456789abcdefghij"
    assert mask(text, ["abcdefghijkl", None, "", "0123456789abcdefghij"]) == "*** ***"
    assert mask(text, []) == text


def test_a_short_word_is_no_secret() -> None:
    assert mask("The pass word", ["pass"]) == "The pass word"


@given(st.text(), st.lists(st.text(), max_size=3))
def test_any_text_can_be_masked(text: str, secrets: list[str]) -> None:
    masked = mask(text, secrets)
    assert all(len(secret) < 8 or secret not in masked or secret in "***" for secret in secrets)


def test_long_words_are_masked_and_guids_are_not() -> None:
    guid = "11111111-2222-3333-4444-555555555555"
    assert mask_long_words(f"Trace ID: {guid} {'a' * 40}.") == f"Trace ID: {guid} ***"
    url = f"https://login.microsoftonline.com/{guid}/oauth2/v2.0/token"
    assert mask_long_words(f"{url} {url}?seen={'a' * 40}") == f"{url} ***"
