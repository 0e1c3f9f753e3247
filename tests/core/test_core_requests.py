"""The requests: one row for each row of the API's table of endpoints."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_cpp.portal import requests as portal

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_cpp.core.http import Request

HOST = "https://cloudpartner.azure.com"
OFFER = "/api/publishers/contoso/offers/web"
VERSION = "api-version=2017-10-31"
MIGRATED = f"{OFFER}/operations/56615b67-2185-49fe-80d2-c4ddf77bb2e8"
NOT_MIGRATED = "/api/operations/contoso$web$2$preview"
MAILS = ["a@contoso.com", "b@contoso.com"]
MAIL_BODY = {"metadata": {"notification-emails": "a@contoso.com,b@contoso.com"}}

IDS = ("contoso", "web")
GETS = {
    "publishers": (portal.list_publishers(), "/api/publishers?"),
    "offers": (portal.list_offers("contoso"), "/api/publishers/contoso/offers?"),
    "offers of a type": (
        portal.list_offers("contoso", offer_type_id="microsoft-azure-virtualmachines"),
        "/api/publishers/contoso/offers?$filter=offerTypeId%20eq%20%27microsoft-azure-virtualmachines%27&",
    ),
    "a quote in a filter": (
        portal.list_offers("contoso", offer_type_id="o'b"),
        "/api/publishers/contoso/offers?$filter=offerTypeId%20eq%20%27o%27%27b%27&",
    ),
    "offer": (portal.get_offer(*IDS), f"{OFFER}?"),
    "draft": (portal.get_offer(*IDS, slot="draft"), f"{OFFER}/slot/draft?"),
    "preview": (portal.get_offer(*IDS, slot="preview"), f"{OFFER}/slot/preview?"),
    "production": (portal.get_offer(*IDS, slot="production"), f"{OFFER}/slot/production?"),
    "version": (portal.get_offer(*IDS, version=1), f"{OFFER}/versions/1?"),
    "status": (portal.get_offer_status(*IDS), f"{OFFER}/status?"),
    "operations": (portal.list_operations(*IDS), f"{OFFER}/submissions/?"),
    "operations in a state": (
        portal.list_operations(*IDS, status="not started&x"),
        f"{OFFER}/submissions/?status=not+started%26x&submissionState=not+started%26x&",
    ),
    "operation": (portal.get_operation(MIGRATED, HOST), f"{MIGRATED}?"),
    "operation, not migrated": (portal.get_operation(NOT_MIGRATED, HOST), f"{NOT_MIGRATED}?"),
}


@pytest.mark.parametrize(("call", "target"), GETS.values(), ids=GETS)
def test_lookup_is_a_get_with_the_api_version_and_no_body(call: Request[Any], target: str) -> None:
    assert (call.method, call.target("2017-10-31"), call.json_body) == ("GET", target + VERSION, None)
    assert call.headers == {}


POSTS = {
    "publish": (portal.publish(*IDS, notification_emails=MAILS), "publish", MAIL_BODY),
    "publish, no recipients": (portal.publish(*IDS), "publish", {"metadata": {"notification-emails": ""}}),
    "go live": (portal.go_live(*IDS), "golive", None),
    "cancel": (portal.cancel(*IDS, notification_emails=iter(MAILS)), "cancel", MAIL_BODY),
    "one address as text": (
        portal.cancel(*IDS, notification_emails="a@contoso.com"),
        "cancel",
        {"metadata": {"notification-emails": "a@contoso.com"}},
    ),
}


@pytest.mark.parametrize(("call", "verb", "body"), POSTS.values(), ids=POSTS)
def test_an_action_is_a_post_to_the_offer(call: Request[Any], verb: str, body: object) -> None:
    assert (call.method, call.target("2017-10-31")) == ("POST", f"{OFFER}/{verb}?{VERSION}")
    assert call.json_body == body


@pytest.mark.parametrize(
    ("if_match", "headers"),
    [(None, {}), ("*", {"If-Match": "*"}), ('W/"abc"', {"If-Match": 'W/"abc"'})],
    ids=["create", "overwrite", "modify"],
)
def test_an_offer_is_written_with_the_etag_that_it_is_based_on(
    if_match: str | None, headers: dict[str, str]
) -> None:
    whole = {"id": "web", "definition": {"plans": []}}
    call = portal.put_offer(*IDS, whole, if_match=if_match)
    assert (call.method, call.target("2017-10-31")) == ("PUT", f"{OFFER}?{VERSION}")
    assert (call.json_body, call.headers) == (whole, headers)


def test_a_definition_alone_is_written_as_that_of_an_offer() -> None:
    assert portal.put_offer(*IDS, {"plans": []}, if_match="*").json_body == {"definition": {"plans": []}}


@pytest.mark.parametrize(
    ("location", "target"),
    [
        (f"{NOT_MIGRATED}?{VERSION}&x=%24a+b", f"{NOT_MIGRATED}?{VERSION}&x=%24a+b"),
        (f"{NOT_MIGRATED}?x=1", f"{NOT_MIGRATED}?x=1&api-version=2018%2F1"),
        (NOT_MIGRATED, f"{NOT_MIGRATED}?api-version=2018%2F1"),
    ],
)
def test_the_version_is_the_connections_unless_the_location_names_one(location: str, target: str) -> None:
    assert portal.get_operation(location, HOST).target("2018/1") == target


def test_ids_are_percent_encoded() -> None:
    assert portal.go_live("a b%2f", "ü&$+").path == "/api/publishers/a%20b%252f/offers/%C3%BC%26%24%2B/golive"


TAKE_IDS: dict[str, Callable[[Any, Any], Request[Any]]] = {
    "list_offers": lambda publisher, offer: portal.list_offers(publisher, offer_type_id=offer),
    "get_offer": portal.get_offer,
    "put_offer": lambda publisher, offer: portal.put_offer(publisher, offer, {}),
    "publish": portal.publish,
    "go_live": portal.go_live,
    "cancel": portal.cancel,
    "get_offer_status": portal.get_offer_status,
    "list_operations": portal.list_operations,
}
NO_ID = [
    "",
    " ",
    ".",
    "..",
    "a/b",
    "a\\b",
    "a?b",
    "a#b",
    "a\nb",
    "a\x00b",
    "a\x7fb",
    "a\x85b",
    "\ud800",
    7,
    b"x",
]


@pytest.mark.parametrize("bad", NO_ID, ids=repr)
@pytest.mark.parametrize("make", TAKE_IDS.values(), ids=TAKE_IDS)
def test_unusable_id_is_rejected_before_any_request(
    make: Callable[[Any, Any], Request[Any]], bad: object
) -> None:
    for ids in ((bad, "web"), ("contoso", bad)):
        with pytest.raises(ValueError, match=r"_id .*(must be text|can't be used)"):
            make(*ids)


@given(st.text(st.characters()))
def test_any_other_text_comes_back_from_its_segment_of_the_path(text: str) -> None:
    try:
        path = portal.get_offer_status("contoso", text).path
    except ValueError:
        return
    found = re.fullmatch(r"/api/publishers/contoso/offers/([\w.~%-]+)/status", path, re.ASCII)
    assert found
    assert unquote(found[1]) == text


@pytest.mark.parametrize("version", [0, -1, True, "2", 1.5])
def test_a_version_is_a_whole_number_from_1(version: Any) -> None:
    with pytest.raises(ValueError, match="whole number"):
        portal.get_offer(*IDS, version=version)


@pytest.mark.parametrize("slot", ["", "staging", "draft/../production", 1])
def test_a_slot_is_one_of_three(slot: Any) -> None:
    with pytest.raises(ValueError, match="'draft', 'preview' or 'production'"):
        portal.get_offer(*IDS, slot=slot)


def test_a_slot_is_compared_without_case() -> None:
    assert portal.get_offer(*IDS, slot="Preview").path.endswith("/slot/Preview")


def test_a_slot_and_a_version_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="not both"):
        portal.get_offer(*IDS, slot="draft", version=1)


@pytest.mark.parametrize("if_match", ["", "a b", "a\r\nX-Evil: 1", "é", 5, b"*"], ids=repr)
def test_an_etag_is_a_headers_value(if_match: Any) -> None:
    with pytest.raises(ValueError, match="if_match"):
        portal.put_offer(*IDS, {}, if_match=if_match)


@pytest.mark.parametrize("definition", [None, [], "{}", 1])
def test_an_offers_definition_is_an_object(definition: object) -> None:
    with pytest.raises(ValueError, match="JSON object"):
        portal.put_offer(*IDS, definition)


@pytest.mark.parametrize("address", ["", "a", "a@", "@b", "a@b,c@d", "a@b c", "a@b\r\nc", "a@b@c", None])
@pytest.mark.parametrize("call", [portal.publish, portal.cancel])
def test_a_notification_goes_to_addresses_only(call: Callable[..., object], address: Any) -> None:
    with pytest.raises(ValueError, match="e-mail"):
        call(*IDS, notification_emails=["a@contoso.com", address])


@pytest.mark.parametrize("value", [float("inf"), float("nan"), {1, 2}, b"x"], ids=repr)
def test_invalid_json_definition_is_rejected_before_any_request(value: object) -> None:
    with pytest.raises(ValueError, match="JSON values only"):
        portal.put_offer("contoso", "web", {"displayText": value})
