"""Any input from outside results in a value or in the provider's own error, both with clean text."""

from __future__ import annotations

import json
import re
import time
import unicodedata
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_cpp.core.errors import CloudPartnerError
from airflow_provider_cpp.core.http import Request, Response
from airflow_provider_cpp.core.polling import Outcome, PollSpec, PollState, decide, make_event
from airflow_provider_cpp.core.progress import summarize
from airflow_provider_cpp.core.text import html_to_text
from airflow_provider_cpp.portal import requests as portal
from airflow_provider_cpp.portal.targets import OperationTarget

HOST = "https://cloudpartner.azure.com"
LOCATION = "/api/operations/contoso$web$2$preview"
IDS = ("contoso", "web")
OPERATION = portal.get_operation(LOCATION, HOST)
CALLS: dict[str, Request[Any]] = {
    "list_publishers": portal.list_publishers(),
    "list_offers": portal.list_offers("contoso"),
    "get_offer": portal.get_offer(*IDS),
    "put_offer": portal.put_offer(*IDS, {}),
    "publish": portal.publish(*IDS),
    "go_live": portal.go_live(*IDS),
    "cancel": portal.cancel(*IDS),
    "get_offer_status": portal.get_offer_status(*IDS),
    "list_operations": portal.list_operations(*IDS),
    "get_operation": OPERATION,
}

LONG_REFERENCE = f"&#{'9' * 5000};"
PIECES = ["<", ">", "</", "script", "style", "b", "&lt;", "&lt", "&gt;", "&amp;", "amp;lt;", "&#60;"]
PIECES += ["&#0;", "&#10;", "&#27;", "\x00", "\x1b[31m", "\n", "\u2028", "\x85", "\ud800", "<!--", "<?", "é"]
PIECES += [LONG_REFERENCE, " ", "x" * 600]
markup = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
texts = st.text(st.characters(), max_size=20) | markup

WORDS = ["running", "Completed", "failed", "waitingForPublisherReview", "inProgress", "error"]
words = st.sampled_from(WORDS)
MOMENTS = ["2017-03-28T19:50:36.5000521Z", "0001-01-01T00:00:00+23:59", "9999-12-31", "24:00"]
numbers = st.integers() | st.just(10**4000) | st.floats()
scalars = st.none() | st.booleans() | numbers | texts | words | st.sampled_from(MOMENTS)
KEYS = ["status", "steps", "messages", "messageHtml", "level", "timestamp", "id", "stepName", "name"]
KEYS += ["progressPercentage", "estimatedTimeFrame", "error", "code", "message", "details", "changedTime"]
KEYS += ["submissionState", "submissionType", "publishingVersion", "slot", "publisherId", "version"]
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | texts, inner, max_size=8)
    ),
    max_leaves=20,
)

messages = st.fixed_dictionaries(
    {}, optional={"messageHtml": texts, "level": texts | words, "timestamp": scalars}
)
message_lists = st.lists(messages, max_size=30) | values
steps = st.fixed_dictionaries(
    {"status": texts | words},
    optional={"id": scalars, "stepName": texts, "progressPercentage": scalars, "messages": message_lists},
)
operations = st.fixed_dictionaries(
    {"status": texts | words},
    optional={"steps": st.lists(steps, max_size=4) | values, "messages": message_lists},
)

documents = values | operations | st.lists(operations, max_size=2)
BODIES = [b"[" * 200_000, b'{"status":' * 100_000, b"9" * 5000, b"NaN", b"[-Infinity]", b"\xff\xfe"]
bodies = (
    documents.map(lambda value: json.dumps(value).encode())
    | texts.map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.binary()
    | st.sampled_from(BODIES)
)
HEADERS = ["Tue, 02 Jan 2018 12:00:30 GMT", "Mon, 01 Jan 0001 00:00:00 +2359", "1 Jan 99999 0:0", "120"]
HEADERS += [LOCATION, HOST + LOCATION, "https://[", "9" * 400, "\u00b2"]
header_values = texts | st.sampled_from(HEADERS)
headers = st.dictionaries(
    st.sampled_from(["Location", "operation-location", "Retry-After", "date", "ETag"]), header_values
)
statuses = st.sampled_from([200, 201, 202, 204, 302, 400, 401, 403, 404, 409, 412, 422, 429, 500, 503])


def assert_clean(text: str) -> None:
    """Check that a text is one line, without control characters, halves of characters and tags."""
    assert not [char for char in text if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")]
    assert not re.search(r"</?[a-zA-Z!?]", text)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@example(200, {}, json.dumps({"status": "x", "messages": [{"messageHtml": LONG_REFERENCE}]}).encode())
@example(500, {}, json.dumps(LONG_REFERENCE).encode())
@example(202, {"Location": "/<script>alert(1)</script>"}, b"")
@given(statuses | st.integers(-1, 1000), headers, bodies)
def test_any_response_is_a_value_or_the_providers_own_error(
    call: Request[Any], status: int, headers: dict[str, str], body: bytes
) -> None:
    error = None
    try:
        call.read(Response(status, headers, body, HOST))
    except CloudPartnerError as raised:
        error = raised
    if error:
        assert_clean(str(error))
        assert_clean(error.code or "")
        assert error.retry_after is None or error.retry_after >= 0
        assert error.status == status


@given(operations, st.booleans())
def test_summary_of_any_operation_is_small_clean_json(document: Any, in_array: bool) -> None:
    body = json.dumps([document] if in_array else document).encode()
    found = OPERATION.read(Response(200, {}, body, HOST))
    summary = summarize(OperationTarget(LOCATION), found)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert len(summary["messages"]) <= 20
    assert 0 <= summary["progress_percentage"] <= 100
    for text in [
        *summary["messages"],
        *(step[key] for step in summary["steps"] for key in ("id", "name", "status")),
    ]:
        assert_clean(text)


@given(operations, st.sampled_from([Outcome.FAILED, Outcome.CANCELED, Outcome.TIMEOUT]))
def test_messages_about_any_operation_are_clean(document: Any, end: Outcome) -> None:
    wait = PollSpec(
        "contoso/web", ("succeeded",), (), started_at=0, deadline=100, poke_interval=30, max_wait=600
    )
    found = OPERATION.read(Response(200, {}, json.dumps(document).encode(), HOST))
    assert_clean(make_event(wait, OperationTarget(LOCATION), end, progress=found)["message"])
    for _, line in decide(wait, PollState(), found, now=1, jitter=0).log:
        assert_clean(line)


# --- text -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("Step completed.", "Step completed."),
        ("<p class='x'>Step\n  completed.</p>", "Step completed."),
        ("one<br/>two", "one two"),
        ("1 < 2 &amp; 3 &gt; 2", "1 < 2 & 3 > 2"),
        ("estimated < 5 day", "estimated < 5 day"),
        ("&lt;b&gt;escaped&lt;/b&gt;", "escaped"),
        ("&amp;lt;b&amp;gt;twice", "twice"),
        ("&amp;amp;lt;b&amp;amp;gt;thrice", "thrice"),
        ("a<script>alert(1)</script>b<STYLE>p{}</STYLE>c", "a b c"),
        ("a<scr<script>ipt>b", "a ipt>b"),
        ("cut <a href='x", "cut"),
        ("<!-- x -->a<?php x ?>b", "a b"),
        ("a\x00b\x1b[0mc\u2028d\x85e\ud800f", "a b [0mc d e f"),
        ("a&#10;b&#27;c", "a bc"),
        (None, ""),
        ({"html": "x"}, ""),
    ],
)
def test_the_text_of_html_is_one_line_without_markup(html: object, text: str) -> None:
    assert html_to_text(html) == text


def test_a_long_text_is_cut_visibly() -> None:
    assert html_to_text("x" * 10, 10) == "x" * 10
    assert html_to_text("x" * 11, 10) == "x" * 9 + "…"


@example("&#" + "9" * 5000 + ";")
@given(texts)
def test_repeatedly_escaped_text_keeps_no_tag_or_control_character(text: str) -> None:
    for _ in range(3):
        assert_clean(html_to_text(text))
        text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


@pytest.mark.parametrize(
    "unit",
    [
        "<script",
        "<script>",
        "<",
        "<a",
        "&amp;",
        "amp;",
        "&lt;",
        "&lt;b&gt;",
        "<!--",
        "&#60;",
        "&am&p;",
        "&#9",
    ],
)
@pytest.mark.parametrize("start", ["", "&", "<"])
def test_hostile_text_is_read_quickly(start: str, unit: str) -> None:
    text = start + unit * (100_000 // len(unit))
    began = time.process_time()
    assert_clean(html_to_text(text))
    assert time.process_time() - began < 1
