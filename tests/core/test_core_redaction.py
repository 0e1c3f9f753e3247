"""Redaction of credentials in text and JSON, and of the secrets that this process sent."""

from __future__ import annotations

import base64
import html
import json
import time
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_cpp.core.redaction import (
    MARKER,
    PIECE,
    find_markers,
    find_secrets,
    mask,
    mask_long_words,
    redact,
)
from airflow_provider_cpp.core.text import html_to_text

if TYPE_CHECKING:
    from collections.abc import Callable

# --- credentials by their form ---

#: A signature or key, as Azure writes it: 44 characters of base64.
KEY = "wD7/+cQx0fP3vKz9LmN2bRtY5uHsJ8aGe4iOqW1XZk8="
QUERY = f"sv=2021-08-06&sr=b&sig={quote(KEY, safe='')}&se=2027-01-01"
URL = f"https://contoso.blob.core.windows.net/images/web.vhd?{QUERY}"
CONNECTION = f"DefaultEndpointsProtocol=https;AccountName=contoso;AccountKey={KEY};EndpointSuffix=x"
#: Each text with the words that must remain.
TEXTS = {
    "URL": (URL, "https://contoso.blob.core.windows.net/images/web.vhd?sv=2021-08-06", "&se=2027-01-01"),
    "URL in a sentence": (f"No access to '{URL}'. Renew it.", "No access to", "Renew it."),
    "raw signature": (f"sig={KEY} is wrong", "sig=", "is wrong"),
    "first parameter": (f"https://contoso.example/web.vhd?SIG={quote_plus(KEY)}&sp=r", "web.vhd", "&sp=r"),
    "HTML": (html.escape(URL), "&amp;sr=b&amp;", "se=2027-01-01"),
    "numeric HTML": (URL.replace("&", "&#38;").replace("=", "&#61;"), "contoso", "2027-01-01"),
    "URL-encoded": (f"https://x.example/?url={quote(URL, safe='')}&next=1", "x.example", "&next=1"),
    "twice URL-encoded": (quote(quote(URL, safe=""), safe=""), "web.vhd", "2027-01-01"),
    "JSON of .NET": (json.dumps({"url": URL}).replace("&", r"\u0026"), "web.vhd", "2027-01-01"),
    "Service Bus": (f"SharedAccessSignature sr=x&sig={quote(KEY, safe='')}&se=1&skn=all", "sr=x", "skn=all"),
    "connection string": (CONNECTION, "AccountName=contoso;", ";EndpointSuffix=x"),
    "URL-encoded connection": (quote(CONNECTION), "AccountName%3Dcontoso", "EndpointSuffix%3Dx"),
    "SAS in connection": (f"BlobEndpoint=https://x;SharedAccessSignature={QUERY};A=b", "https://x", ";A=b"),
    "JSON": (json.dumps({"accountKey": KEY, "plan": "standard"}), "accountKey", "standard"),
    "JSON in JSON": (
        json.dumps(json.dumps({"storageKey": KEY, "plan": "standard"})),
        "storageKey",
        "standard",
    ),
    "Python": (repr({"sasToken": KEY, "plan": "standard"}), "sasToken", "standard"),
    "HTML of JSON": (html.escape(json.dumps({"clientSecret": KEY, "plan": "a"})), "clientSecret", "plan"),
    "password": (f"user=web; password={KEY}; ssl=true", "user=web;", "; ssl=true"),
    "quoted password": (f"pwd='{KEY} {KEY}' ok", "pwd=", " ok"),
    "function URL": (f"https://x.example/api/a?x=1&code={KEY}&y=2", "?x=1&code=", "&y=2"),
    "function header": (f"x-functions-key: {KEY} is wrong", "x-functions-key:", "is wrong"),
    "function JSON": (json.dumps({"x-functions-key": KEY, "plan": "a"}), "x-functions-key", "plan"),
    "host key": (json.dumps({"hostKey": KEY, "plan": "a"}), "hostKey", "plan"),
    "JSON thrice": (json.dumps(json.dumps(json.dumps({"apiKey": KEY, "b": "c"}))), "apiKey", "b"),
    "bearer": (f"Authorization: Bearer {KEY}", "Authorization: Bearer", ""),
    "shared key": (f"Authorization: SharedKey contoso:{KEY}", "SharedKey contoso:", ""),
    "user of a URL": (
        f"https://web:{quote(KEY, safe='')}@contoso.example/a",
        "https://web:",
        "@contoso.example/a",
    ),
    "private key": (f"-----BEGIN RSA PRIVATE KEY-----\n{KEY}\n-----END RSA PRIVATE KEY-----", "BEGIN", "END"),
}


def has_key(text: str) -> bool:
    """Whether a text contains a part of the key that no encoding changes."""
    return KEY[5:17] in text or KEY[-18:-6] in text


@pytest.mark.parametrize(("text", "start", "end"), TEXTS.values(), ids=TEXTS)
def test_a_credential_in_text_is_redacted_and_the_rest_kept(text: str, start: str, end: str) -> None:
    assert has_key(text)
    for found in (redact(text), redact(text, digest=True), redact({"a": [text]})["a"][0]):
        assert not has_key(found)
        assert start in found
        assert end in found
        assert redact(found) == found
        assert list(find_markers({"a": [found]})) == ["a[0]"]
    assert find_secrets(text)
    assert not has_key(html_to_text(text))
    for at in range(len(text)):
        assert not has_key(html_to_text(text, at + 1)), "a cut text shows the key"


@pytest.mark.parametrize(
    "text",
    [
        "Step completed.",
        "Password: must have 12 characters",
        "The secret is missing. The token expired. Signature: required.",
        "design=modern&assign=5",
        "https://contoso.example/?code=404&zip=1",
        "The host key: see below. Error code=InvalidOperationException",
        "https://contoso.example/a?b=1&signed=true",
        "Basic tier, bearer of news",
        "key=value; primary=true",
        "Certification: 10% < 5 day",
    ],
)
def test_text_without_a_credential_is_unchanged(text: str) -> None:
    assert redact(text) == html_to_text(text) == text
    assert find_secrets(text) == []


@pytest.mark.parametrize(
    "key",
    [
        "accountKey",
        "storageAccountKey",
        "account_key",
        "Shared Access Key",
        "sasToken",
        "sasSecret",
        "sas",
        "sig",
        "password",
        "adminPassword",
        "connectionString",
        "ConnectionStrings",
        "clientSecret",
        "microsoft-azure-x.apiKey",
        "credentials",
    ],
)
def test_each_value_under_a_secret_key_is_redacted(key: str) -> None:
    value = {key: "x", "other": {key: [1, {"inner": "y"}]}, "kept": "z"}
    before = json.dumps(value)
    assert redact(value) == {key: MARKER, "other": {key: [MARKER, {"inner": MARKER}]}, "kept": "z"}
    assert json.dumps(value) == before
    unset = {key: None, "a": {key: ""}, "b": {key: True}}
    assert redact(unset) == unset


@pytest.mark.parametrize("key", ["publicKey", "keyVault", "secretName", "sasUrl", "passwordPolicy", "design"])
def test_other_keys_keep_their_values(key: str) -> None:
    assert redact({key: "x"}) == {key: "x"}


def test_the_digest_shows_that_a_signature_changed() -> None:
    first, again, other = (redact(f"?sig={word}", digest=True) for word in ("abcd", "abcd", "efgh"))
    assert first == again != other
    assert redact("?sig=abcd") == redact("?sig=efgh") == f"?sig={MARKER}"


def test_each_marker_is_found_with_its_path() -> None:
    offer = {
        "plans": [{"url": redact(URL)}, {"url": redact(URL, digest=True), "key": "***"}],
        "old": "https://x.example/?sv=1&sig=***",
        "encoded": quote(redact(URL), safe=""),
        MARKER: 1,
        "title": "*** New *** and redacted",
    }
    found = ["plans[0].url", "plans[1].url", "plans[1].key", "old", "encoded", "the offer"]
    assert list(find_markers(offer)) == found


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(JSON_VALUES, st.sampled_from([text for text, _, _ in TEXTS.values()]), st.text(max_size=9))
def test_any_json_is_redacted_to_json_without_the_credential(value: object, text: str, around: str) -> None:
    found = redact({"a": value, "b": f"{around} {text} {around}"})
    assert not has_key(json.dumps(found["b"]))
    assert redact(found) == found


def test_a_value_nested_too_deeply_is_redacted_as_a_whole() -> None:
    deep: object = URL
    for _ in range(10_000):
        deep = [deep]
    assert redact(deep) == MARKER


@pytest.mark.parametrize(
    "unit", ["sig=", '"password"', '"a', "&", "%26sig%3D", "eyJ", "://a:", "-----BEGIN PRIVATE KEY-----"]
)
def test_hostile_text_is_redacted_in_linear_time(unit: str) -> None:
    started = time.process_time()
    redact(unit * (100_000 // len(unit)))
    assert time.process_time() - started < 2


# --- secrets that this process sent ---

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
def test_a_secret_is_masked_in_each_encoding_and_context(
    encoding: str, before: str, after: str, secret: str
) -> None:
    encode = ENCODINGS[encoding]
    masked = mask(f"It said {encode(before + secret + after)} there.", [secret])
    assert not has_a_piece_of(secret, encode, masked)
    assert masked.startswith("It said ")
    assert masked.endswith(" there.")


@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789-_.~", min_size=2 * PIECE, max_size=90), st.data())
def test_less_than_a_piece_of_a_cut_secret_remains(secret: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(secret)))
    end = data.draw(st.integers(start, len(secret)))
    masked = mask(f"x {secret[start:end]}", [secret])
    assert masked == ("x ***" if end - start >= PIECE else f"x {secret[start:end]}")


def test_a_secret_of_several_words_is_masked_as_a_whole() -> None:
    assert mask("I got correct horse battery staple!", ["correct horse battery staple"]) == "I got ***"


def test_each_of_several_secrets_is_masked() -> None:
    text = "client_secret=abcdefghijkl token=0123456789abcdefghij"
    assert mask(text, ["abcdefghijkl", None, "", "0123456789abcdefghij"]) == "*** ***"
    assert mask(text, []) == text


def test_a_short_word_is_not_masked() -> None:
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
