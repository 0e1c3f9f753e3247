"""Where an operation is found, and where a token must never go."""

from __future__ import annotations

from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_cpp.core.http import origin, quote_segment
from airflow_provider_cpp.core.models import OperationStatus, Submission
from airflow_provider_cpp.portal import requests as portal
from airflow_provider_cpp.portal.locations import candidate_locations, normalize_location, offer_in_location

HOST = "https://cloudpartner.azure.com"
VERSION = "?api-version=2017-10-31"
GUID = "56615b67-2185-49fe-80d2-c4ddf77bb2e8"
MIGRATED = f"/api/publishers/contoso/offers/web/operations/{GUID}"
NOT_MIGRATED = "/api/operations/contoso$web$2$preview"
FORMS = [MIGRATED, NOT_MIGRATED]


@pytest.mark.parametrize("query", ["", VERSION, f"{VERSION}&x=%24a$b+c%20d&y=http://x/../y"])
@pytest.mark.parametrize(
    "path",
    [
        *FORMS,
        f"{MIGRATED}/",
        "/api/operations/contoso%24web%242%24preview",
        "/api/publishers/a%20b/offers/%C3%BC/operations/1",
    ],
)
def test_relative_location_is_unchanged(path: str, query: str) -> None:
    assert normalize_location(path + query, HOST) == path + query


@pytest.mark.parametrize(
    ("prefix", "base_url"),
    [
        (HOST, HOST),
        ("HTTPS://CloudPartner.Azure.com", HOST),
        (f"{HOST}:443", HOST),
        (HOST, f"{HOST}:443"),
        ("http://localhost", "http://LOCALHOST:80"),
        ("https://localhost:8443", "https://localhost:8443"),
        ("https://[::1]:8443", "https://[::1]:8443"),
    ],
)
@pytest.mark.parametrize("path", FORMS)
def test_absolute_location_on_the_same_host_becomes_its_path(path: str, prefix: str, base_url: str) -> None:
    assert normalize_location(f"{prefix}{path}{VERSION}", base_url) == path + VERSION


@pytest.mark.parametrize(
    "prefix",
    [
        "https://evil.example",
        "//evil.example",
        "//cloudpartner.azure.com",
        "http://cloudpartner.azure.com",
        "ftp://cloudpartner.azure.com",
        "https:",
        "https://",
        f"{HOST}:8443",
        f"{HOST}:80",
        f"{HOST}:0",
        f"{HOST}:99999",
        f"{HOST}:x",
        f"{HOST}.",
        f"{HOST}.evil.example",
        "https://cloudpartner-azure.com",
        "https://evil.example@cloudpartner.azure.com",
        "https://cloudpartner.azure.com@evil.example",
        "https://u:p@cloudpartner.azure.com",
        "https://[::1",
        "javascript:",
    ],
)
@pytest.mark.parametrize("path", FORMS)
def test_a_location_on_any_other_host_is_refused(prefix: str, path: str) -> None:
    with pytest.raises(ValueError, match="not on the connection's host"):
        normalize_location(prefix + path, HOST)


@pytest.mark.parametrize(
    "location",
    [
        "",
        f"{MIGRATED}#x",
        f"{MIGRATED}\\x",
        f"{MIGRATED}\n",
        f" {MIGRATED}",
        f"{MIGRATED}?a b",
        f"{MIGRATED}?\x00",
        f"{MIGRATED}?\x7f",
        f"{MIGRATED}?é",
        f"{MIGRATED}?<script>",
        '/api/operations/contoso$web$2$preview?"',
    ],
    ids=repr,
)
def test_a_location_has_no_characters_that_a_url_can_not_have(location: str) -> None:
    with pytest.raises(ValueError, match="characters that are not allowed in a location"):
        normalize_location(location, HOST)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api/publishers",
        "/api/publishers/contoso/offers/web/golive",
        "/api/publishers/contoso/offers/web/operations/",
        "/api/publishers/contoso/offers/web/operations/1/2",
        "/api/publishers/contoso//offers/web/operations/1",
        "/api/publishers/../offers/web/operations/1",
        "/api/publishers/contoso/offers/web/operations/..",
        "/api/publishers/contoso/offers/%2e%2E/operations/1",
        "/api/publishers/contoso/offers/web/operations/%2e",
        "/api/publishers/contoso/offers/a%2fb/operations/1",
        "/api/publishers/contoso/offers/a%2Fb/operations/1",
        "/api/publishers/contoso/offers/a%5cb/operations/1",
        "/api/publishers/contoso/offers/a%3fb/operations/1",
        "/api/publishers/contoso/offers/a%23b/operations/1",
        "/api/publishers/contoso/offers/a%0ab/operations/1",
        "/api/publishers/contoso/offers/a%7fb/operations/1",
        "/api/operations/contoso$web$2",
        "/api/operations/contoso$web$two$preview",
        "/api/operations/contoso$web$2$preview$x",
        "/api/operations/contoso$..$2$preview/..",
        "/api/operations/..%2fpublishers$web$2$preview",
        "/x/api/operations/contoso$web$2$preview",
        "api/operations/contoso$web$2$preview",
    ],
)
@pytest.mark.parametrize("prefix", ["", HOST], ids=["relative", "absolute"])
def test_a_path_that_is_not_an_operations_is_refused(path: str, prefix: str) -> None:
    with pytest.raises(ValueError, match=r"not the path of an operation|not on the connection's host"):
        normalize_location(prefix + path, HOST)


@pytest.mark.parametrize("location", [None, b"/api", 1, ["/api"]])
def test_a_location_that_is_no_text_is_refused_with_the_likely_cause(location: Any) -> None:
    with pytest.raises(ValueError, match="or found the offer live, returns none"):
        normalize_location(location, HOST)


def test_operation_is_requested_only_at_its_location() -> None:
    with pytest.raises(ValueError, match="not on the connection's host"):
        portal.get_operation(f"https://evil.example{MIGRATED}", HOST)


FRAGMENTS = [*FORMS, HOST, VERSION, "https:", "/api", "/api/", "publishers/", "offers/", "operations/"]
FRAGMENTS += [
    "contoso",
    "1",
    "/",
    "//",
    "$",
    "%24",
    "..",
    "%2e",
    "%2F",
    "%",
    "@",
    ":",
    ":443",
    ":0",
    "?",
    "#",
]
FRAGMENTS += ["\\", "\r\n", "é", "&", ";"]


@example("//" + NOT_MIGRATED)
@example(HOST + "//" + NOT_MIGRATED)
@given(st.text(st.characters()) | st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join))
def test_any_text_is_refused_or_becomes_a_path_on_the_same_host(text: str) -> None:
    try:
        found = normalize_location(text, HOST)
    except ValueError:
        return
    assert found.lower().startswith("/api/")
    assert urlsplit(urljoin(HOST, found)).netloc == urlsplit(HOST).netloc
    assert urljoin(HOST, found).removesuffix("?") == HOST + found
    assert normalize_location(found, HOST) == found
    assert all(offer_in_location(found))


IDS = st.text(st.characters(codec="utf-8")).filter(lambda text: "$" not in text)


@given(IDS, IDS)
def test_an_operation_of_any_offer_is_found_and_names_its_offer(publisher: str, offer: str) -> None:
    try:
        encoded = [quote_segment(publisher, "publisher_id"), quote_segment(offer, "offer_id")]
    except ValueError:
        return
    for location in (
        "/api/publishers/{}/offers/{}/operations/1".format(*encoded),
        "/api/operations/{}${}$2$production".format(*encoded),
    ):
        assert normalize_location(location, HOST) == location
        assert offer_in_location(location) == (publisher, offer)


@pytest.mark.parametrize("location", ["", "/api/publishers/contoso", "https://[", "/api/operations/a$b$2"])
def test_only_an_operations_location_names_an_offer(location: str) -> None:
    with pytest.raises(ValueError, match=r"not the path|Invalid"):
        offer_in_location(location)


@pytest.mark.parametrize(
    "location",
    [
        f"https://user:topsecret@cloudpartner.azure.com{MIGRATED}",
        "/api/offers?sig=topsecret",
        f"{MIGRATED}?sig=topsecret#x",
    ],
)
def test_the_error_for_a_location_shows_no_credential(location: str) -> None:
    with pytest.raises(ValueError, match="redacted") as raised:
        normalize_location(location, HOST)
    assert "topsecret" not in str(raised.value)


def test_the_error_for_an_offers_location_shows_no_credential() -> None:
    with pytest.raises(ValueError, match="redacted") as raised:
        offer_in_location("/api/offers?sig=topsecret")
    assert "topsecret" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        (HOST, ("https", "cloudpartner.azure.com", 443)),
        ("HTTP://Localhost/x", ("http", "localhost", 80)),
        ("https://[::1]:8443", ("https", "::1", 8443)),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, parts: tuple[str, str, int]) -> None:
    assert origin(url) == parts


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "ftp://localhost",
        "https:///x",
        "https://secret@localhost",
        "//x",
        "https://user:secret/x@localhost",
        "https://[secret@localhost",
    ],
)
def test_only_a_plain_http_url_has_an_origin(url: str) -> None:
    with pytest.raises(ValueError, match=r"(?i)not a plain") as raised:
        origin(url)
    assert "secret" not in str(raised.value)


# --- operations from the list, which names no Location ----------------------------------------------------


def listed(**fields: object) -> Submission:
    values = dict.fromkeys(("offer_version", "publishing_version", "changed", "created", "raw"))
    texts = dict.fromkeys(("id", "offer_id", "publisher_id", "submission_type", "slot"), "")
    status = OperationStatus.RUNNING
    return Submission(**{**values, **texts, "status": status, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "paths"),
    [
        ({"id": GUID}, [MIGRATED]),
        (
            {"id": GUID, "publishing_version": 2, "slot": "production"},
            [MIGRATED, "/api/operations/contoso$web$2$production"],
        ),
        (
            {"publishing_version": 2, "slot": "Staging"},
            [NOT_MIGRATED, "/api/operations/contoso$web$2$staging"],
        ),
        ({"id": "contoso$web$2$preview", "publishing_version": 2, "slot": "staging"}, [NOT_MIGRATED]),
        ({"publishing_version": 2}, []),
        ({}, []),
    ],
    ids=["migrated", "go-live", "publish", "id of the older form", "no slot", "nothing"],
)
def test_listed_operation_is_looked_up_at_its_possible_locations(
    fields: dict[str, object], paths: list[str]
) -> None:
    assert candidate_locations(listed(**fields), "contoso", "web") == [path + VERSION for path in paths]


def test_the_older_location_comes_first_if_the_offer_was_not_migrated() -> None:
    submission = listed(id=GUID, publishing_version=2, slot="production")
    found = candidate_locations(submission, "contoso", "web", is_migrated=False)
    assert found == [f"/api/operations/contoso$web$2$production{VERSION}", MIGRATED + VERSION]


WORDS = st.text(max_size=8) | st.sampled_from(["a/b", "..", "a$b", "a$b$2$preview", "é", "staging", "x?y"])


@given(id_=WORDS, slot=WORDS, number=st.none() | st.integers(-5, 5))
def test_any_list_entry_yields_only_usable_locations(id_: str, slot: str, number: int | None) -> None:
    submission = listed(id=id_, slot=slot, publishing_version=number)
    for location in candidate_locations(submission, "contoso", "web"):
        assert normalize_location(location, HOST) == location
