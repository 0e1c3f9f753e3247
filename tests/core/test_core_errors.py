"""Exceptions for error responses: class, message, hint, and whether a request may be sent again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_cpp.core.errors import (
    AuthenticationError,
    CloudPartnerError,
    ConflictError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    ValidationError,
)
from airflow_provider_cpp.core.http import Request, Response
from airflow_provider_cpp.portal import requests as portal

HOST = "https://cloudpartner.azure.com"
IDS = ("contoso", "web")
GO_LIVE = portal.go_live(*IDS)
PUBLISH = portal.publish(*IDS)
KEY = "wD7cQx0fP3vKz9LmN2bRtY5uHsJ8aGe4iOqW1XZk8"


def error(
    status: int, body: bytes = b"", headers: dict[str, str] | None = None, call: Request[Any] = GO_LIVE
) -> CloudPartnerError:
    with pytest.raises(CloudPartnerError) as caught:
        call.read(Response(status, headers or {}, body, HOST))
    return caught.value


@pytest.mark.parametrize(
    ("status", "kind", "hint"),
    [
        (400, ValidationError, "Publish the offer first"),
        (401, AuthenticationError, "did not accept a token that the identity host had just issued"),
        (403, PermissionDeniedError, "Object ID"),
        (404, NotFoundError, "Check the publisher id and the offer id"),
        (409, ConflictError, "wait until it ended, or cancel it"),
        (412, PreconditionFailedError, "read it again"),
        (422, ValidationError, "Correct the problem that the message names"),
        (405, CloudPartnerError, ""),
        (429, CloudPartnerError, ""),
        (500, CloudPartnerError, ""),
        (503, CloudPartnerError, ""),
    ],
)
def test_an_error_has_action_response_and_hint(status: int, kind: type[CloudPartnerError], hint: str) -> None:
    found = error(status, b'{"error": {"code": "Oops", "message": "It <b>broke</b>"}}')
    assert type(found) is kind
    assert (found.status, found.code, found.accepted) == (status, "Oops", False)
    assert str(found).startswith(
        "Go live of contoso/web failed: POST /api/publishers/contoso/offers/web/golive "
        f"was answered {status}, Oops: It broke."
    )
    assert hint in str(found)


@pytest.mark.parametrize(
    ("call", "action"),
    [
        (portal.list_publishers(), "List publishers"),
        (portal.list_offers("contoso"), "List offers of contoso"),
        (portal.get_offer(*IDS), "Read contoso/web"),
        (portal.get_offer(*IDS, slot="preview"), "Read the preview slot of contoso/web"),
        (portal.get_offer(*IDS, version=2), "Read version 2 of contoso/web"),
        (portal.put_offer(*IDS, {}), "Write contoso/web"),
        (portal.publish(*IDS), "Publish of contoso/web"),
        (portal.go_live(*IDS), "Go live of contoso/web"),
        (portal.cancel(*IDS), "Cancel of contoso/web"),
        (portal.get_offer_status(*IDS), "Read the status of contoso/web"),
        (portal.list_operations(*IDS), "List operations of contoso/web"),
        (portal.get_operation("/api/operations/a$b$2$c", HOST), "Read operation /api/operations/a$b$2$c"),
    ],
)
def test_an_error_names_the_action_and_the_offer(call: Request[Any], action: str) -> None:
    assert str(error(500, call=call)).startswith(
        f"{action} failed: {call.method} {call.path} was answered 500"
    )


def test_a_403_explains_which_object_id_to_register() -> None:
    for words in (
        "managed application in local directory",
        "not the one of the app registration",
        "publisher id",
    ):
        assert words in str(error(403))


SHAPES: list[tuple[object, str | None, str]] = [
    ({"error": {"code": "E", "message": "broke"}}, "E", "E: broke."),
    ({"error": {"message": "broke"}}, None, "broke."),
    ({"error": {"code": "E"}}, "E", "E."),
    (
        {"error": {"code": "E", "message": "a", "details": [{"message": "b"}, 1, {"message": "c"}]}},
        "E",
        "E: a; b; c.",
    ),
    ({"error": {"code": "E", "message": "a", "target": "plans"}}, "E", "E: a; target: plans."),
    (
        {"error": {"code": "E", "message": "a.", "innererror": {"code": "F", "message": "b."}}},
        "E",
        "E: a; F: b.",
    ),
    ({"error": {"innererror": {"message": "broke"}}}, None, "broke."),
    ({"code": "E", "message": "broke"}, "E", "E: broke."),
    ({"Code": "E", "Message": "broke"}, "E", "E: broke."),
    ({"message": "broke"}, None, "broke."),
    ({"error": "broke"}, None, "broke."),
    ({"error": "invalid_client", "error_description": "broke"}, "invalid_client", "invalid_client: broke."),
    ({"errors": [{"message": "a"}, {"message": "b"}]}, None, "a; b."),
    ({"errors": ["a", "b"]}, None, "a; b."),
    ({"value": [{"message": "a"}, {"message": "a"}, {"message": "b"}]}, None, "a; b."),
    ({"Variant": {"error": {"code": "E", "message": "broke"}}}, "E", "E: broke."),
    ({"odata.error": {"code": "E", "message": {"lang": "en", "value": "broke"}}}, "E", "E: broke; lang: en."),
    ([{"message": "a"}, {"code": "E", "message": "b"}], "E", "E: a; b."),
    (
        {"type": "t", "title": "a.", "status": 400, "detail": "b", "errors": {"plans[0]": ["c"]}},
        None,
        "a; b; plans[0]: c; type: t.",
    ),
    (
        {"Message": "a.", "ModelState": {"offer.plans": ["b", "c"]}},
        None,
        "a; offer.plans: b; offer.plans: c.",
    ),
    (
        {"title": "a", "message": "b", "password": "c", "sasToken": 5},
        None,
        "a; b; password: ***redacted***; sasToken: ***redacted***.",
    ),
    ("broke", None, "broke."),
    ({"unknown": {"words": "broke"}}, None, "words: broke."),
    ({"message": "It <b>broke</b> &amp; fell"}, None, "It broke & fell."),
    ({}, None, "{}."),
    ([1], None, "[1]."),
    ({"error": {"code": 7, "message": 7}}, None, '{"error": {"code": 7, "message": 7}}.'),
    (None, None, "null."),
]


@pytest.mark.parametrize(("answer", "code", "words"), SHAPES, ids=lambda value: str(value)[:60])
def test_the_words_of_each_error_shape_are_shown(answer: object, code: str | None, words: str) -> None:
    found = error(500, json.dumps(answer).encode())
    assert found.code == code
    assert str(found).endswith(f" was answered 500, {words}")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"broke", "broke."),
        (b"<html><body><h1>broke</h1></body></html>", "broke."),
        (b"\xffbroke", "\ufffdbroke."),
        (b'{"message": "bro', '{"message": "bro.'),
        (b"<html></html>", "a body of 13 bytes without text."),
        (b"", "without an explanation."),
        (b" \r\n", "without an explanation."),
    ],
)
def test_the_words_of_other_bodies_are_shown(body: bytes, words: str) -> None:
    assert str(error(500, body)).endswith(f" was answered 500, {words}")


WORDS = st.text("abcdefghijklmnopqrstuvwxyz", min_size=3, max_size=12)


@given(
    st.recursive(
        WORDS | st.integers() | st.booleans() | st.none(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["error", "message", "details", "x", "Value", "code"]), inner, max_size=3
            )
        ),
        max_leaves=12,
    )
)
def test_the_words_of_any_json_are_shown(answer: object) -> None:
    def words(value: object) -> list[str]:
        if isinstance(value, str):
            return [value]
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return [word for one in inner for word in words(one)]

    shown = str(error(400, json.dumps(answer).encode(), call=PUBLISH))
    assert "without an explanation" not in shown
    assert all(word in shown for word in words(answer))


@given(
    st.binary(max_size=300) | st.recursive(st.text(), st.lists).map(lambda value: json.dumps(value).encode())
)
def test_any_body_is_explained_in_a_bounded_message(body: bytes) -> None:
    shown = str(error(400, body))
    assert len(shown) < 1600
    assert ("without an explanation" in shown) <= (not body.decode("utf-8", "replace").strip())


@pytest.mark.parametrize("status", [400, 422])
def test_without_words_no_hint_refers_to_a_message(status: int) -> None:
    for call in (PUBLISH, portal.put_offer(*IDS, {}), portal.put_offer(*IDS, {}, if_match="*"), GO_LIVE):
        for body in (b"", b'{"error": {"code": "E"}}'):
            assert "message names" not in str(error(status, body, call=call))
    assert "The service did not explain the problem." in str(error(422))


@pytest.mark.parametrize(
    "body", [{"password": KEY}, {"message": f"?sig={KEY}"}, f"AccountKey={KEY}"], ids=str
)
def test_an_error_shows_no_credential_that_the_service_repeats(body: object) -> None:
    for text in (json.dumps(body), json.dumps(body)[:-1], f"<p>{json.dumps(body)}</p>"):
        assert KEY[:12] not in str(error(400, text.encode()))


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"X-Ms-Correlation-Request-Id": "a-1"}, "For Microsoft support: correlation id a-1."),
        (
            {"x-ms-request-id": "westeurope:2", "x-ms-correlation-request-id": " a-1 "},
            "For Microsoft support: correlation id a-1, request id westeurope:2.",
        ),
        ({"X-Ms-Request-Id": "a b"}, ""),
        ({"X-Ms-Request-Id": "x" * 200}, ""),
        ({}, ""),
    ],
    ids=str,
)
@pytest.mark.parametrize(("status", "body"), [(409, b'"broke"'), (500, b""), (200, b"<html>")])
def test_an_error_ends_with_the_ids_for_support(
    status: int, body: bytes, headers: dict[str, str], words: str
) -> None:
    shown = str(error(status, body, headers, portal.get_offer(*IDS)))
    assert shown.endswith(words)
    assert ("support" in shown) == bool(words)


EXISTS = (
    b'{"error": {"code": "InvalidResourceId", "message": "Offer ID already exists. If you wanted to update '
    b'an existing offer, please ensure If-Match header is specified"}}'
)


@pytest.mark.parametrize("status", [400, 409])
def test_creating_an_offer_that_exists_advises_if_match(status: int) -> None:
    found = error(status, EXISTS, call=portal.put_offer(*IDS, {}))
    assert type(found) is {400: ValidationError, 409: ConflictError}[status]
    assert "Offer ID already exists" in str(found)
    assert "If the offer exists already, pass if_match to modify it" in str(found)
    assert "wait until" not in str(found)


def test_another_409_of_a_write_advises_to_wait() -> None:
    for if_match in (None, "*"):
        call = portal.put_offer(*IDS, {}, if_match=if_match)
        assert "wait until it ended" in str(error(409, b'{"error": {"code": "Conflict"}}', call=call))


def test_a_redirect_is_an_error() -> None:
    assert "redirect, which is never followed" in str(
        error(302, headers={"Location": "https://evil.example"})
    )


@pytest.mark.parametrize(
    ("call", "body", "problem"),
    [
        (portal.get_offer(*IDS), b"<html>Sign in</html>", "not with JSON"),
        (portal.get_offer(*IDS), b"", "not with JSON"),
        (portal.get_offer(*IDS), b"[" * 100_000, "not with JSON"),
        (portal.get_offer(*IDS), b'{"version": ' + b"9" * 5000 + b"}", "not with JSON"),
        (portal.get_offer(*IDS), b"[]", "not with a JSON object"),
        (portal.list_offers("contoso"), b"{}", "not with a JSON array"),
        (portal.list_publishers(), b'["contoso"]', "not with a list of objects"),
        (portal.list_operations(*IDS), b"[null]", "not with a list of objects"),
        (portal.get_offer_status(*IDS), b"{}", "not with an object that has a status"),
        (portal.get_offer_status(*IDS), b'{"status": 1}', "not with an object that has a status"),
        (portal.get_offer_status(*IDS), b"[]", "not with an object that has a status"),
        (portal.get_offer_status(*IDS), b'[{"status": "a"}, {"status": "b"}]', "has a status"),
    ],
)
def test_a_success_with_another_body_is_a_transient_error(
    call: Request[Any], body: bytes, problem: str
) -> None:
    found = error(200, body, call=call)
    assert problem in str(found)
    assert found.is_transient


@pytest.mark.parametrize(
    ("status", "headers", "is_transient", "is_unprocessed", "has_unknown_outcome"),
    [
        (302, {}, True, False, True),
        (400, {}, False, False, False),
        (401, {}, False, False, False),
        (403, {}, False, False, False),
        (404, {}, False, False, False),
        (408, {}, True, False, True),
        (409, {}, False, False, False),
        (412, {}, False, False, False),
        (422, {}, False, False, False),
        (429, {}, True, True, False),
        (429, {"Retry-After": "1"}, True, True, False),
        (500, {}, True, False, True),
        (500, {"Retry-After": "1"}, True, False, True),
        (502, {}, True, False, True),
        (503, {}, True, False, True),
        (503, {"Retry-After": "0"}, True, True, False),
        (504, {}, True, False, True),
    ],
)
def test_status_decides_whether_a_request_may_be_repeated(
    status: int,
    headers: dict[str, str],
    is_transient: bool,
    is_unprocessed: bool,
    has_unknown_outcome: bool,
) -> None:
    found = error(status, headers=headers)
    assert (found.is_transient, found.is_unprocessed, found.has_unknown_outcome) == (
        is_transient,
        is_unprocessed,
        has_unknown_outcome,
    )


def test_the_outcome_is_unknown_unless_nothing_was_sent() -> None:
    lost, refused = CloudPartnerError("lost"), CloudPartnerError("refused", unsent=True)
    assert lost.is_transient
    assert refused.is_transient
    assert (lost.is_unprocessed, lost.has_unknown_outcome) == (False, True)
    assert (refused.is_unprocessed, refused.has_unknown_outcome) == (True, False)


NOON = "Tue, 02 Jan 2018 12:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "120"}, 120),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"Retry-After": "0"}, 0),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "soon", "Date": NOON}, None),
        ({"Retry-After": "Tue, 02 Jan 2018 12:00:30 GMT", "Date": NOON}, 30),
        ({"Retry-After": "Tue, 02 Jan 2018 12:00:30 -0000", "date": NOON}, 30),
        ({"Retry-After": "Tue, 02 Jan 2018 11:00:00 GMT", "Date": NOON}, 0),
        ({"Retry-After": "Tue, 02 Jan 2018 12:00:30 GMT"}, None),
        ({"Retry-After": "Tue, 02 Jan 2018 12:00:30 GMT", "Date": "today"}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_of_the_service(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert error(503, headers=headers).retry_after == seconds


def test_a_long_explanation_is_cut() -> None:
    assert len(str(error(502, json.dumps("x" * 100_000).encode()))) < 1500


def test_conflict_of_a_write_without_if_match_has_a_hint() -> None:
    body = b'{"error": {"code": "InvalidResourceId", "message": "Offer ID already exists."}}'
    with pytest.raises(ConflictError, match=r"Offer ID already exists.*pass if_match") as caught:
        portal.put_offer(*IDS, {}).read(Response(409, {}, body))
    assert "or cancel it" not in str(caught.value)
