"""What an answer that is none means, and what may be done after it."""

from __future__ import annotations

import json
from typing import Any

import pytest

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
        (401, AuthenticationError, "secret has not expired"),
        (403, PermissionDeniedError, "Object ID"),
        (404, NotFoundError, "Check the publisher id and the offer id"),
        (409, ConflictError, "wait until it ended, or cancel it"),
        (412, PreconditionFailedError, "read it again"),
        (422, ValidationError, "Correct what the message names"),
        (405, CloudPartnerError, ""),
        (429, CloudPartnerError, ""),
        (500, CloudPartnerError, ""),
        (503, CloudPartnerError, ""),
    ],
)
def test_an_error_says_what_was_tried_what_came_and_what_cures_it(
    status: int, kind: type[CloudPartnerError], hint: str
) -> None:
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


def test_a_403_names_the_trap_of_the_two_object_ids() -> None:
    for words in (
        "managed application in local directory",
        "not the one of the app registration",
        "publisher id",
    ):
        assert words in str(error(403))


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (b'{"error": {"code": "E", "message": "broke"}}', "E", "500, E: broke."),
        (b'{"error": {"message": "broke"}}', None, "500, broke."),
        (b'{"error": {"code": "E"}}', "E", "500, E:."),
        (
            b'{"error": {"code": "E", "message": "a", "details": [{"message": "b"}, 1, {"message": "c"}]}}',
            "E",
            "500, E: a; b; c.",
        ),
        (b'{"code": "E", "message": "broke"}', "E", "500, E: broke."),
        (b'{"error": "broke"}', None, "500, broke."),
        (b'"broke"', None, "500, broke."),
        (b"<html><body><h1>broke</h1></body></html>", None, "500, broke."),
        (b"\xffbroke", None, "500, \ufffdbroke."),
        (b"", None, "500, without an explanation."),
        (b"{}", None, "500, without an explanation."),
        (b"[1]", None, "500, without an explanation."),
        (b'{"error": {"code": 7, "message": 7}}', None, "500, without an explanation."),
    ],
)
def test_the_services_words_are_found_in_every_form_of_an_error(
    body: bytes, code: str | None, words: str
) -> None:
    found = error(500, body)
    assert found.code == code
    assert str(found).endswith(words)


def test_a_redirect_is_an_error_because_a_token_goes_to_one_host_only() -> None:
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
def test_a_success_without_the_apis_answer_is_an_error_that_may_pass(
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
def test_what_may_be_asked_again_and_what_may_be_sent_again(
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


def test_no_answer_leaves_the_outcome_unknown_unless_nothing_was_sent() -> None:
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
def test_retry_after_comes_as_seconds_or_as_a_date_on_the_services_clock(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert error(503, headers=headers).retry_after == seconds


def test_a_page_of_an_error_is_cut() -> None:
    assert len(str(error(502, json.dumps("x" * 100_000).encode()))) < 1500


def test_an_existing_offer_written_without_if_match_has_a_hint_about_it() -> None:
    body = b'{"error": {"code": "InvalidResourceId", "message": "Offer ID already exists."}}'
    with pytest.raises(ConflictError, match=r"Offer ID already exists.*set if_match") as caught:
        portal.put_offer(*IDS, {}).read(Response(409, {}, body))
    assert "or cancel it" not in str(caught.value)
