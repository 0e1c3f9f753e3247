"""A token is sent only to the host of the connection, regardless of responses and user input.

No certificate stands in the way here: the connections have `verify=false`, and every name is this machine's.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest
from airflow.models import Connection
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from urllib3.util import parse_url
from yarl import URL

from airflow_provider_cpp.exceptions import CloudPartnerError
from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook, Settings
from airflow_provider_cpp.portal import requests as portal
from airflow_provider_cpp.portal.locations import API_VERSION, normalize_location
from tests.security.listening import as_http

if TYPE_CHECKING:
    from collections.abc import Callable

    from dev.emulator_process import Emulator
    from tests.provider.harness import Connect
    from tests.security.listening import Listener, Names, Sent

both = pytest.mark.parametrize("variant", ["sync", "async"])
LOCATION = "/api/publishers/contoso/offers/slow/operations/1"
CALLS: dict[str, tuple[Any, ...]] = {
    "go_live": ("slow",),
    "publish": ("slow",),
    "cancel": ("slow",),
    "get_operation": (LOCATION,),
    "list_operations": ("slow",),
    "get_offer_status": ("slow",),
    "get_offer": ("slow",),
    "put_offer": ("slow", {"displayText": "x"}),
    "list_offers": (),
    "list_publishers": (),
    "cancel_operation": (LOCATION,),
}
REDIRECTS = (300, 301, 302, 303, 304, 305, 307, 308)


def run(variant: str, asks: list[tuple[str, tuple[Any, ...]]]) -> list[Any]:
    """Make calls with one hook; return their results or exceptions."""
    if variant == "sync":
        hook = CloudPartnerHook()
        return [_outcome(lambda: getattr(hook, name)(*args)) for name, args in asks]  # noqa: B023

    async def ask() -> list[Any]:
        found: list[Any] = []
        async with CloudPartnerHook() as hook:
            for name, args in asks:
                try:
                    found.append(await getattr(hook, f"a{name}")(*args))
                except (CloudPartnerError, ValueError) as error:
                    found.append(error)
        return found

    return asyncio.run(ask())


def _outcome(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except (CloudPartnerError, ValueError) as error:
        return error


def assert_at_home(gateway: Listener, elsewhere: Listener, names: Names) -> None:
    """Check that no other host got a request, and that each signed request was for the connection's host."""
    assert gateway.signed
    assert {sent.host for sent in gateway.signed} == {gateway.netloc}
    assert elsewhere.requests == []
    assert names.asked <= {"localhost", "127.0.0.1"}


# --- redirects ----------------------------------------------------------------------------------------------


def targets(gateway: Listener, elsewhere: Listener) -> list[str]:
    here, there = gateway.port, elsewhere.port
    return [
        f"https://localhost:{there}{LOCATION}",
        f"http://localhost:{there}{LOCATION}",
        f"http://localhost:{here}{LOCATION}",
        f"//localhost:{there}{LOCATION}",
        f"https://evil.example:{there}/",
        f"https://localhost:{here}@evil.example:{there}/",
        f"/\\localhost:{there}/",
        LOCATION,
    ]


@both
@pytest.mark.parametrize("status", REDIRECTS)
def test_no_call_follows_a_redirect(
    unverified: Listener, elsewhere: Listener, names: Names, variant: str, status: int
) -> None:
    goals = targets(unverified, elsewhere)
    asked: list[str] = []

    def answer(sent: Sent) -> bytes | None:
        if sent.is_for_identity or "Authorization" not in sent.headers:
            return None
        asked.append(sent.target)
        return as_http(status, {"Location": goals[len(asked) % len(goals)]}, b"")

    unverified.answer = answer
    # `cancel_operation` treats a redirect as an outage and retries.
    calls = [(name, args) for name, args in CALLS.items() if name != "cancel_operation"]
    outcomes = run(variant, calls)
    assert all(isinstance(outcome, CloudPartnerError) for outcome in outcomes)
    assert all(str(status) in str(outcome) for outcome in outcomes)
    assert len(asked) == len(calls)
    assert_at_home(unverified, elsewhere, names)


@both
def test_a_redirect_to_nowhere_is_the_providers_own_error(unverified: Listener, variant: str) -> None:
    unverified.answer = lambda sent: (
        None
        if sent.is_for_identity
        else as_http(302, {"Location": "https://localhost:1.evil.example:2/"}, b"")
    )
    (outcome,) = run(variant, [("go_live", ("slow",))])
    assert isinstance(outcome, CloudPartnerError)


@both
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("sign_in", ["secret", "certificate", "workload", "managed"], indirect=True)
def test_a_redirect_of_the_identity_host_gets_no_credential(
    gateway: Listener, elsewhere: Listener, sign_in: str, variant: str, status: int
) -> None:
    def answer(sent: Sent) -> bytes | None:
        if not sent.is_for_identity:
            return None
        return as_http(status, {"Location": f"{elsewhere.url}{sent.target}"}, b"")

    gateway.answer = answer
    (outcome,) = run(variant, [("list_publishers", ())])
    assert isinstance(outcome, CloudPartnerError)
    assert [sent for sent in gateway.requests if sent.is_for_identity]
    assert elsewhere.signed == []


# --- locations ----------------------------------------------------------------------------------------------


def hostile_locations(here: int, there: int) -> list[str]:
    path = LOCATION
    return [
        f"https://localhost:{there}{path}",
        f"http://localhost:{here}{path}",
        f"HTTPS://LOCALHOST:{there}{path}",
        f"//localhost:{there}{path}",
        f"///localhost:{there}{path}",
        f"/\\localhost:{there}{path}",
        f"\\\\localhost:{there}{path}",
        f"https:\\\\localhost:{there}{path}",
        f"https:/localhost:{there}{path}",
        f"https:localhost:{there}{path}",
        f"https://localhost:{here}@localhost:{there}{path}",
        f"https://user:password@localhost:{here}{path}",
        f"https://localhost:{here}\\@localhost:{there}{path}",
        f"https://localhost:{there}#@localhost:{here}{path}",
        f"https://localhost:{there}?@localhost:{here}{path}",
        f"https://localhost:{there}%2f@localhost:{here}{path}",
        f"https://localhost.:{here}{path}",
        f"https://localhost.evil.example:{there}{path}",
        f"https://localhost:{here}.evil.example{path}",
        f"https://loc\u0430lhost:{there}{path}",
        f"https://localhost\u3002evil:{there}{path}",
        f"https://\uff4c\uff4f\uff43\uff41\uff4c\uff48\uff4f\uff53\uff54:{there}{path}",
        f"https://xn--lclhost-2ve:{there}{path}",
        f"https://127.0.0.1:{here}{path}",
        f"https://[::1]:{here}{path}",
        f"https://2130706433:{there}{path}",
        f"https://localhost:{here}\r\nHost: evil.example{path}",
        f"{path}\r\nX: y",
        f" https://localhost:{there}{path}",
        f"\thttps://localhost:{there}{path}",
        f"ftp://localhost:{there}{path}",
        f"javascript://localhost:{there}{path}",
        f"@localhost:{there}{path}",
        f":{there}{path}",
        f".evil.example:{there}{path}",
        "/api/publishers/contoso/offers/slow/operations/..",
        "/api/publishers/contoso/offers/%2e%2e/operations/1",
        "/api/publishers/contoso/offers/..%2f..%2fevil/operations/1",
        "/api/publishers/contoso/offers/slow%5c..%5cevil/operations/1",
        "/api/publishers/contoso/offers/slow/operations/1/../../../golive",
        "/api/publishers/contoso/offers/slow%23/operations/1",
        "/api/publishers/contoso/offers/slow%3fx/operations/1",
        "/api/publishers/contoso/offers/slow%00/operations/1",
        "/api/publishers/contoso/offers/slow/operations/1#fragment",
        "/api/publishers/contoso/offers/slow/golive",
        "/_emulator/reset",
        "/api/operations/contoso$slow$2$preview/../../publishers",
    ]


@both
def test_no_hostile_location_from_a_user_gets_a_request(
    unverified: Listener, elsewhere: Listener, names: Names, variant: str
) -> None:
    locations = hostile_locations(unverified.port, elsewhere.port)
    names_of_calls = ("get_operation", "cancel_operation")
    outcomes = run(
        variant,
        [("list_publishers", ())] + [(n, (location,)) for n in names_of_calls for location in locations],
    )
    assert not isinstance(outcomes[0], Exception)
    refused = dict(zip(locations * 2, outcomes[1:], strict=True))
    assert [location for location, outcome in refused.items() if not isinstance(outcome, ValueError)] == []
    assert len([sent for sent in unverified.signed if not sent.is_for_identity]) == 1
    assert_at_home(unverified, elsewhere, names)


@both
def test_no_hostile_location_in_a_response_is_returned(
    unverified: Listener, elsewhere: Listener, names: Names, variant: str
) -> None:
    # Use only locations that can be a header value.
    locations = [
        location
        for location in hostile_locations(unverified.port, elsewhere.port)
        if location.isascii() and location.isprintable() and location == location.strip()
    ]
    left = list(locations)

    def answer(sent: Sent) -> bytes | None:
        return (
            as_http(202, {"Location": left.pop()}, b"")
            if sent.target.partition("?")[0].endswith("golive")
            else None
        )

    unverified.answer = answer
    outcomes = run(variant, [("go_live", ("slow",))] * len(locations))
    assert left == []
    assert all(isinstance(outcome, CloudPartnerError) and outcome.accepted for outcome in outcomes)
    assert_at_home(unverified, elsewhere, names)


PIECES = [
    "https:",
    "http:",
    "HTTPS:",
    "/",
    "//",
    "\\",
    "@",
    ":",
    "?",
    "#",
    ".",
    "..",
    "%2e",
    "%2f",
    "%5c",
    "%00",
]
PIECES += [
    "localhost",
    "evil.example",
    "cloudpartner.azure.com",
    "443",
    "8443",
    "user",
    "[::1]",
    "xn--",
    "\u3002",
]
PIECES += ["\uff0f", "\u2044", "\u2100", "\r\n", "\t", " ", "$", "%24", ";", "&", "api-version=2017-10-31"]
PIECES += [
    "/api/publishers/contoso/offers/slow/operations/1",
    "/api/operations/a$b$2$preview",
    "api",
    "operations",
]
HOST = "https://cloudpartner.azure.com"
odd_locations = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=9).map("".join)


def same_place(url: str, base: str) -> bool:
    """Whether requests, urllib3 and aiohttp read the host of `base` from `url`, and no user name."""
    wanted = urlsplit(base)
    found = urlsplit(url), parse_url(url), URL(url, encoded=True)
    hosts = {parts.hostname for parts in found[:1]} | {found[1].host, found[2].host}
    ports = {
        port or {"https": 443, "http": 80}[wanted.scheme]
        for port in (found[0].port, found[1].port, found[2].explicit_port)
    }
    users = {found[0].username, found[1].auth, found[2].user}
    # One of these libraries keeps the brackets of an IPv6 address.
    return (
        {(host or "").strip("[]") for host in hosts} == {wanted.hostname}
        and ports == {wanted.port or {"https": 443, "http": 80}[wanted.scheme]}
        and users == {None}
    )


@example("https://cloudpartner.azure.com/api/operations/a$b$2$preview", HOST)
@example("HTTPS://cloudpartner.azure.com:443/api/operations/a$b$2$preview", HOST)
@given(
    odd_locations,
    st.sampled_from([HOST, "https://localhost:8443", "http://localhost:8080", "https://[::1]:1"]),
)
def test_an_accepted_location_is_on_the_host_for_each_url_library(location: str, base: str) -> None:
    try:
        path = normalize_location(location, base)
    except ValueError:
        return
    assert path.startswith("/")
    assert not path.startswith("//")
    assert "#" not in path
    assert path.isascii()
    assert path.isprintable()
    url = base + portal.get_operation(path, base).target(API_VERSION)
    assert same_place(url, base)
    # No URL library changes the path.
    assert unquote(parse_url(url).path or "") == unquote(urlsplit(path).path)


# --- connections ------------------------------------------------------------------------------------------

HOSTS = [
    "https://cloudpartner.azure.com/api",
    "https://cloudpartner.azure.com/%2e%2e",
    "https://cloudpartner.azure.com@evil.example",
    "https://cloudpartner.azure.com:443@evil.example",
    "https://user:password@cloudpartner.azure.com",
    "https://cloudpartner.azure.com?x",
    "https://cloudpartner.azure.com#x",
    "https://evil.example#@cloudpartner.azure.com",
    "https://evil.example\\@cloudpartner.azure.com",
    "https://cloudpartner.azure.com\\evil",
    "https:\\\\cloudpartner.azure.com",
    "https://cloudpartner.azure.com:99999",
    "https://cloudpartner.azure.com:-1",
    "https://cloudpartner.azure.com:x",
    "https://cloudp\u0430rtner.azure.com",
    "https://cloudpartner\u3002azure.com",
    "https://cloudpartner.azure.com\r\nX: y",
    "https://cloudpartner.azure.com\tevil",
    "https://cloud partner.azure.com",
    "http://cloudpartner.azure.com",
    "http://localhost.evil.example",
    "http://127.0.0.1.evil.example",
    "http://2130706433",
    "ftp://cloudpartner.azure.com",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "https://",
    "//cloudpartner.azure.com",
    "https:cloudpartner.azure.com",
]


@both
@pytest.mark.parametrize("what", ["host", "authority"])
def test_no_odd_host_of_a_connection_is_sent_anything(
    unverified: Listener,
    names: Names,
    emulator: Emulator,
    connect: Connect,
    variant: str,
    what: str,
) -> None:
    for host in HOSTS:
        if what == "host":
            connect(emulator, host=host, extra={"verify": False})
        else:
            connect(emulator, host=unverified.url, extra={"verify": False, "authority": host})
        (outcome,) = run(variant, [("list_publishers", ())])
        assert isinstance(outcome, ValueError), (host, outcome)
        assert "password@" not in str(outcome)
    assert unverified.requests == []
    assert names.asked <= {"localhost"}


hosts = st.lists(st.sampled_from(PIECES[:32]) | st.text(max_size=3), max_size=7).map("".join)
ports = st.none() | st.integers(0, 70000)
schemas = st.sampled_from([None, "", "https", "http", "HTTPS", "https://evil.example", "ftp", "x@y"])


@given(hosts, schemas, ports)
def test_the_host_is_the_same_for_each_url_library(host: str, schema: str | None, port: int | None) -> None:
    connection = Connection(conn_id="c", conn_type="cloud_partner", host=host, schema=schema, port=port)
    try:
        base = Settings.from_connection(connection, {}).base_url
    except ValueError:
        return
    scheme, _, netloc = base.partition("://")
    assert scheme in ("https", "http")
    assert not set(netloc) & set("/\\?#@ ")
    assert same_place(f"{base}/api/publishers?api-version=2017-10-31", base)
    if scheme == "http":
        assert urlsplit(base).hostname in ("localhost", "127.0.0.1", "::1")


# --- ids ----------------------------------------------------------------------------------------------------

ESCAPES = [
    "..",
    ".",
    "../..",
    "..\\..",
    "a/b",
    "a\\b",
    "a?b",
    "a#b",
    "a\0b",
    "a\nb",
    "a\r\nHost: x",
    "",
    " ",
    ".. ",
]
LITERAL = [
    "%2e%2e",
    "%2F",
    "%252e%252e%252f",
    "a%2Fb",
    "\uff0f..\uff0f",
    "a\u2044b",
    "\u2215",
    "...",
    "a;b",
    "a@b:1",
]
LITERAL += ["$", "a&b=c", "a b", "\u202eabc", "x" * 4000, "<script>", "%", "%zz", "\U0001f600"]


@both
def test_no_id_that_means_more_than_itself_is_sent(
    unverified: Listener, elsewhere: Listener, names: Names, variant: str
) -> None:
    calls: list[tuple[str, tuple[Any, ...]]] = [("list_publishers", ())]
    for odd in ESCAPES:
        for name, args in CALLS.items():
            if args[:1] == ("slow",):
                calls += [(name, (odd, *args[1:])), (name, ("slow", *args[1:], odd))]
        calls.append(("list_offers", (odd,)))
    outcomes = run(variant, calls)
    assert [
        call for call, was in zip(calls[1:], outcomes[1:], strict=True) if not isinstance(was, ValueError)
    ] == []
    assert len([sent for sent in unverified.signed if not sent.is_for_identity]) == 1
    assert_at_home(unverified, elsewhere, names)


@both
def test_an_odd_id_stays_in_its_place(
    unverified: Listener, elsewhere: Listener, names: Names, variant: str
) -> None:
    unverified.answer = lambda sent: (
        None if sent.is_for_identity or not sent.is_signed else as_http(404, {}, b"")
    )
    run(variant, [("get_offer_status", (odd, odd)) for odd in LITERAL])
    sent = [sent.target for sent in unverified.signed if not sent.is_for_identity]
    assert len(sent) == len(LITERAL)
    for odd, target in zip(LITERAL, sent, strict=True):
        path, _, query = target.partition("?")
        head = path.split("/")
        assert [*map(unquote, head)] == ["", "api", "publishers", odd, "offers", odd, "status"]
        assert query == "api-version=2017-10-31"
    assert_at_home(unverified, elsewhere, names)


odd_ids = st.text(st.characters(), min_size=1, max_size=30) | st.lists(
    st.sampled_from([*PIECES, *LITERAL[:10], "a"]), min_size=1, max_size=4
).map("".join)


@given(odd_ids)
def test_an_id_is_refused_or_one_segment_for_each_url_library(odd: str) -> None:
    try:
        call = portal.get_offer_status(odd, odd)
    except ValueError:
        return
    url = HOST + call.target(API_VERSION)
    assert same_place(url, HOST)
    for path in (urlsplit(url).path, parse_url(url).path or "", URL(url, encoded=True).raw_path):
        assert [*map(unquote, path.split("/"))] == ["", "api", "publishers", odd, "offers", odd, "status"]


@both
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(odd=odd_ids)
def test_an_id_arrives_as_one_segment_or_not_at_all(
    unverified: Listener, elsewhere: Listener, names: Names, variant: str, odd: str
) -> None:
    unverified.requests.clear()
    unverified.answer = lambda sent: (
        None if sent.is_for_identity or not sent.is_signed else as_http(404, {}, b"")
    )
    (outcome,) = run(variant, [("get_offer_status", (odd,))])
    sent = [sent.target for sent in unverified.signed if not sent.is_for_identity]
    if isinstance(outcome, ValueError):
        assert sent == []
        return
    (target,) = sent
    wanted = ["", "api", "publishers", "contoso", "offers", odd, "status"]
    assert [*map(unquote, target.partition("?")[0].split("/"))] == wanted
    assert_at_home(unverified, elsewhere, names)


# --- verification -------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("spelling", [False, "false", "False", " FALSE "])
def test_a_connection_without_verification_logs_a_warning(
    gateway: Listener,
    emulator: Emulator,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
    variant: str,
    spelling: Any,
) -> None:
    caplog.set_level(logging.WARNING, "airflow_provider_cpp")
    connect(emulator, host=gateway.url, extra={"verify": spelling})
    (outcome,) = run(variant, [("list_publishers", ())])
    assert not isinstance(outcome, Exception)
    (warned,) = [
        record for record in caplog.records if "an attacker on the network path" in record.getMessage()
    ]
    assert warned.levelno == logging.WARNING
    assert "cloud_partner_default" in warned.getMessage()


@both
@pytest.mark.parametrize("spelling", ["no", 0, "0", "off", [], {}, "nowhere.pem"])
def test_an_unclear_value_never_turns_verification_off(
    gateway: Listener, emulator: Emulator, connect: Connect, variant: str, spelling: Any
) -> None:
    connect(emulator, host=gateway.url, extra={"verify": spelling})
    (outcome,) = run(variant, [("list_publishers", ())])
    assert isinstance(outcome, ValueError)
    assert gateway.requests == []
