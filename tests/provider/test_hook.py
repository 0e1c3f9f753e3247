from __future__ import annotations

import asyncio
import base64
import gc
import json
import os
import socket
import ssl
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import requests
import trustme
from airflow.providers.http.hooks.http import HttpHook
from azure.identity import ClientSecretCredential
from harness import ODD, STRANGER, Connect, Log, Principal, eventually, operations
from relay import running_relay

from airflow_provider_cpp.exceptions import (
    AuthenticationError,
    CloudPartnerError,
    ConflictError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    ValidationError,
)
from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
from airflow_provider_cpp.release.lookup import OfferOperations
from airflow_provider_cpp.transport import aio

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from relay import Relay

    from dev.emulator_process import Emulator

TOKEN = "oauth2/v2.0/token"


def call(hook: CloudPartnerHook, variant: str, name: str, *args: Any, **kwargs: Any) -> Any:
    """Call a method of the hook, or its async variant in a new event loop."""
    if variant == "sync":
        return getattr(hook, name)(*args, **kwargs)

    async def run() -> Any:
        async with hook:
            return await getattr(hook, f"a{name}")(*args, **kwargs)

    return asyncio.run(run())


both = pytest.mark.parametrize("variant", ["sync", "async"])


@pytest.fixture
def foreign_host() -> Iterator[socket.socket]:
    """A host that must get no connection: `accept` raises an error unless it got one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


@pytest.fixture
def relay(emulator: Emulator, connect: Connect, tmp_path: Path) -> Iterator[Relay]:
    """A relay in front of the emulator, which the connection names as host."""
    with running_relay(emulator, tmp_path) as relay:
        connect(emulator, host=relay.url, extra={"verify": relay.verify})
        yield relay


def location_of(emulator: Emulator, offer: str) -> str:
    return str(operations(emulator, offer)[0]["location"])


# --- the requests of the API ---


@both
@pytest.mark.parametrize("offer", ["slow", "slow-classic"])
def test_go_live_returns_the_services_own_location(
    hook: CloudPartnerHook, emulator: Emulator, offer: str, variant: str
) -> None:
    location = call(hook, variant, "go_live", offer)
    assert location == location_of(emulator, offer)
    assert hook.get_operation(location).steps[0].id == "live"


@both
def test_publish_sends_the_notification_addresses(
    hook: CloudPartnerHook, emulator: Emulator, variant: str
) -> None:
    location = call(hook, variant, "publish", "next", notification_emails=["a@contoso.com", "b@contoso.com"])
    (published,) = operations(emulator, "next", "publish")
    assert location == published["location"]
    assert published["definition"]["metadata"]["emails"] == "a@contoso.com,b@contoso.com"


@both
def test_cancel_returns_the_location_of_the_operation(
    hook: CloudPartnerHook, emulator: Emulator, variant: str
) -> None:
    location = call(hook, variant, "cancel", "going-live")
    assert location == location_of(emulator, "going-live")
    assert eventually(lambda: hook.get_operation(location).status == "canceled")


@both
def test_cancel_returns_none_if_canceled_at_once(hook: CloudPartnerHook, variant: str) -> None:
    assert call(hook, variant, "cancel", "slow") is None


READS = [
    ("list_operations", ("update",), {}),
    ("list_operations", ("going-live",), {"status": "running"}),
    ("get_offer", ("update",), {}),
    ("get_offer", ("update",), {"slot": "preview"}),
    ("get_offer", ("update",), {"slot": "production"}),
    ("get_offer", ("update",), {"version": 3}),
    ("get_offer_status", ("slow",), {}),
    ("get_offer_status", ("slow-classic",), {}),
]


@pytest.mark.parametrize(("name", "args", "kwargs"), READS)
def test_sync_and_async_return_equal_values(
    hook: CloudPartnerHook, name: str, args: tuple[str], kwargs: dict[str, Any]
) -> None:
    assert call(hook, "sync", name, *args, **kwargs) == call(hook, "async", name, *args, **kwargs)


@pytest.mark.parametrize("offer", ["live", "live-classic"])
def test_sync_and_async_return_equal_operations(
    hook: CloudPartnerHook, emulator: Emulator, offer: str
) -> None:
    location = location_of(emulator, offer)
    operation = call(hook, "sync", "get_operation", location)
    assert operation.status == "succeeded"
    assert operation.progress_percentage == 100
    assert operation == call(hook, "async", "get_operation", location)


@both
def test_an_absolute_location_on_the_connections_host_is_read(
    hook: CloudPartnerHook, emulator: Emulator, variant: str
) -> None:
    url = emulator.url + location_of(emulator, "live-classic")
    assert call(hook, variant, "get_operation", url).is_terminal


def test_each_slot_returns_its_own_version(hook: CloudPartnerHook) -> None:
    slots = {slot: hook.get_offer("update", slot=slot).version for slot in ("draft", "preview", "production")}
    assert slots == {"draft": 4, "preview": 4, "production": 3}
    assert hook.get_offer("update", version=3).version == 3


def test_a_ready_preview_awaits_the_publisher(hook: CloudPartnerHook) -> None:
    assert hook.get_offer_status("slow").awaiting_publisher
    assert not hook.get_offer_status("live").awaiting_publisher
    assert hook.get_offer_status("next").status == "neverPublished"


def test_a_status_filter_lists_only_matching_operations(hook: CloudPartnerHook) -> None:
    assert [one.submission_type for one in hook.list_operations("going-live", status="running")] == ["goLive"]
    assert hook.list_operations("going-live", status="canceled") == []


@both
def test_the_publisher_argument_overrides_the_connection(hook: CloudPartnerHook, variant: str) -> None:
    assert call(hook, variant, "get_offer", "slow").version == 2
    assert call(hook, variant, "get_offer", "slow", "fabrikam").version == 7


@both
def test_an_offer_id_is_sent_percent_encoded(
    hook: CloudPartnerHook, emulator: Emulator, variant: str
) -> None:
    assert call(hook, variant, "get_offer", ODD).id == ODD
    (asked,) = emulator.requests(path="/api/")
    assert asked["path"].endswith("/offers/Gr%C3%B6%C3%9Fe%20100%25%20%245%20%26%20%E2%98%83")


@both
def test_an_offer_id_with_special_characters_goes_live(hook: CloudPartnerHook, variant: str) -> None:
    location = call(hook, variant, "go_live", ODD)
    assert call(hook, variant, "get_operation", location).status == "running"


@both
def test_a_classic_offer_id_with_special_characters_goes_live(hook: CloudPartnerHook, variant: str) -> None:
    location = call(hook, variant, "go_live", f"{ODD} classic".replace("$", ""))
    assert call(hook, variant, "get_operation", location).status == "running"


@both
@pytest.mark.parametrize("offer", ["", ".", "..", "a/b", "a\\b", "a?b", "a#b", "a\nb", "\x7f", None, 5])
def test_an_invalid_offer_id_is_rejected_before_any_request(
    hook: CloudPartnerHook, emulator: Emulator, offer: Any, variant: str
) -> None:
    with pytest.raises(ValueError, match="offer_id"):
        call(hook, variant, "go_live", offer)
    assert emulator.requests() == []


@both
@pytest.mark.parametrize(
    ("method", "offer", "error"),
    [
        ("go_live", "publishing", ConflictError),
        ("go_live", "live", ValidationError),
        ("get_offer_status", "nowhere", NotFoundError),
    ],
)
def test_a_refusal_raises_the_error_of_its_status(
    hook: CloudPartnerHook, variant: str, method: str, offer: str, error: type[CloudPartnerError]
) -> None:
    with pytest.raises(error, match=f"contoso/{offer}") as raised:
        call(hook, variant, method, offer)
    assert not raised.value.is_transient
    assert raised.value.code


@both
@pytest.mark.parametrize("status", [502, 200])
def test_an_html_page_is_a_transient_error(
    hook: CloudPartnerHook, emulator: Emulator, variant: str, status: int
) -> None:
    emulator.inject(path="status$", status=status, body="<html><h1>Bad gateway</h1></html>")
    with pytest.raises(CloudPartnerError, match=r"Bad gateway|not with JSON") as raised:
        call(hook, variant, "get_offer_status", "slow")
    assert raised.value.is_transient
    assert "<h1>" not in str(raised.value)


# --- content and destination of a request ---


@both
def test_a_request_carries_the_token_and_no_extra(
    relay: Relay, emulator: Emulator, connect: Connect, principal: Principal, variant: str
) -> None:
    extra = {"verify": relay.verify, "X-Extra": "an extra", "headers": {"X-More": "an extra"}}
    connect(emulator, host=relay.url, extra=extra)
    call(CloudPartnerHook(), variant, "get_offer_status", "slow")
    (sent,) = relay.requests
    assert sent.headers["Authorization"].startswith("Bearer ")
    names = {name.lower() for name in sent.headers}
    assert names <= {"host", "user-agent", "accept", "accept-encoding", "authorization", "connection"}
    basic = base64.b64encode(f"{principal.client}:{principal.secret}".encode()).decode()
    everything = f"{sent.target} {sent.headers} {sent.body!r}"
    for secret in ("an extra", principal.secret, basic, principal.tenant):
        assert secret not in everything


@both
def test_netrc_does_not_replace_the_token(
    relay: Relay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    call(CloudPartnerHook(), variant, "get_offer_status", "slow")
    (sent,) = relay.requests
    assert sent.headers["Authorization"].startswith("Bearer ")


@both
def test_a_request_body_is_json(relay: Relay, variant: str) -> None:
    call(CloudPartnerHook(), variant, "publish", "next", notification_emails=["a@contoso.com"])
    (sent,) = relay.requests
    assert sent.method == "POST"
    assert sent.headers["Content-Type"] == "application/json"
    assert json.loads(sent.body) == {"metadata": {"notification-emails": "a@contoso.com"}}


@both
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(
    hook: CloudPartnerHook, emulator: Emulator, foreign_host: socket.socket, variant: str, status: int
) -> None:
    elsewhere = f"https://localhost:{foreign_host.getsockname()[1]}/api/publishers"
    emulator.inject(path="status$", status=status, headers={"Location": elsewhere})
    with pytest.raises(CloudPartnerError, match="redirect, which is never followed"):
        call(hook, variant, "get_offer_status", "slow")
    with pytest.raises(BlockingIOError):
        foreign_host.accept()


@both
@pytest.mark.parametrize("location", ["https://[", "https://localhost:none/", "//"])
def test_a_malformed_redirect_is_not_read(
    hook: CloudPartnerHook, emulator: Emulator, variant: str, location: str
) -> None:
    emulator.inject(path="status$", status=302, headers={"Location": location})
    with pytest.raises(CloudPartnerError, match="redirect, which is never followed"):
        call(hook, variant, "get_offer_status", "slow")


@both
def test_cookies_of_the_service_are_not_returned(
    relay: Relay, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    pass_on = relay.pass_on

    def set_cookie(sent: Any) -> Any:
        status, headers, body = pass_on(sent)
        headers["Set-Cookie"] = "a=b; Path=/"
        return status, headers, body

    monkeypatch.setattr(relay, "pass_on", set_cookie)
    hook = CloudPartnerHook()

    async def read_twice() -> None:
        async with hook:
            await hook.aget_offer_status("slow")
            await hook.aget_offer_status("slow")

    if variant == "async":
        asyncio.run(read_twice())
    else:
        hook.get_offer_status("slow")
        hook.get_offer_status("slow")
    assert [sent.headers["Cookie"] for sent in relay.requests] == [None, None]


@both
def test_a_location_on_another_host_is_rejected(
    hook: CloudPartnerHook, emulator: Emulator, foreign_host: socket.socket, variant: str
) -> None:
    elsewhere = f"https://localhost:{foreign_host.getsockname()[1]}/api/operations/contoso$slow$2$preview"
    emulator.inject(path="golive$", replace={"headers": {"Location": elsewhere}})
    with pytest.raises(CloudPartnerError, match="not on the connection's host") as raised:
        call(hook, variant, "go_live", "slow")
    assert raised.value.accepted
    with pytest.raises(ValueError, match="not on the connection's host"):
        call(hook, variant, "get_operation", elsewhere)
    with pytest.raises(BlockingIOError):
        foreign_host.accept()


@both
@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_ca_bundle_of_the_connection_overrides_the_environment(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str, variable: str
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    monkeypatch.setenv(variable, str(other))
    assert call(CloudPartnerHook(), variant, "get_offer_status", "slow").awaiting_publisher


@both
def test_the_ca_bundle_of_the_environment_is_the_default(
    emulator: Emulator, connect: Connect, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    connect(emulator, extra={"verify": None})
    with pytest.raises(CloudPartnerError, match=r"(?i)certificate"):
        call(CloudPartnerHook(), variant, "get_offer_status", "slow")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", emulator.ca)
    assert call(CloudPartnerHook(), variant, "get_offer_status", "slow").awaiting_publisher


@both
def test_a_connection_without_verification_logs_a_warning(
    emulator: Emulator, connect: Connect, variant: str, log: Log
) -> None:
    connect(emulator, extra={"verify": False})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert call(CloudPartnerHook(), variant, "get_offer_status", "slow").awaiting_publisher
    assert len(log.containing("an attacker on the network path")) == 1


# --- network faults ---


@both
def test_a_request_without_a_response_times_out(emulator: Emulator, connect: Connect, variant: str) -> None:
    connect(emulator, extra={"timeout": 0.5})
    emulator.inject(path="status$", delay=1)
    with pytest.raises(CloudPartnerError, match=r"no answer within 0\.5 s") as raised:
        call(CloudPartnerHook(), variant, "get_offer_status", "slow")
    assert raised.value.has_unknown_outcome
    assert eventually(lambda: emulator.requests(path="status$"))


@both
def test_a_connect_timeout_is_an_unsent_request(emulator: Emulator, connect: Connect, variant: str) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        waiting = [socket.socket() for _ in range(3)]
        try:
            for one in waiting:  # with a full backlog, the kernel does not answer further connections
                one.setblocking(False)
                one.connect_ex(listener.getsockname())
            host = f"https://127.0.0.1:{listener.getsockname()[1]}"
            connect(emulator, host=host, extra={"timeout": 2})
            with pytest.raises(CloudPartnerError) as raised:
                call(CloudPartnerHook(), variant, "get_offer_status", "slow")
        finally:
            for one in waiting:
                one.close()
    assert raised.value.is_unprocessed


@both
@pytest.mark.parametrize("close", ["before", "after"])
def test_a_lost_connection_leaves_the_outcome_unknown(
    hook: CloudPartnerHook, emulator: Emulator, variant: str, close: str
) -> None:
    emulator.inject(path="golive$", close=close)
    with pytest.raises(CloudPartnerError, match="not known whether it had its effect") as raised:
        call(hook, variant, "go_live", "slow")
    assert raised.value.has_unknown_outcome
    assert len(emulator.requests(method="POST", path="golive$")) == 1
    assert len(operations(emulator, "slow")) == (close == "after")


@both
def test_a_truncated_response_is_a_transient_error(
    hook: CloudPartnerHook, emulator: Emulator, variant: str
) -> None:
    emulator.inject(path="status$", truncate=10)
    with pytest.raises(CloudPartnerError) as raised:
        call(hook, variant, "get_offer_status", "slow")
    assert raised.value.is_transient


@both
def test_a_refused_connection_is_an_unsent_request(
    emulator: Emulator, connect: Connect, variant: str
) -> None:
    with socket.socket() as closed:  # bound, but not listening
        closed.bind(("127.0.0.1", 0))
        connect(emulator, host=f"https://localhost:{closed.getsockname()[1]}")
        with pytest.raises(CloudPartnerError, match=r"was not sent.*Check host") as raised:
            call(CloudPartnerHook(), variant, "go_live", "slow")
    assert raised.value.is_unprocessed
    assert raised.value.is_transient


@both
def test_an_untrusted_certificate_is_an_unsent_request(
    relay: Relay, emulator: Emulator, connect: Connect, variant: str
) -> None:
    connect(emulator, host=relay.url)
    with pytest.raises(CloudPartnerError, match=r"(?i)was not sent.*certificate") as raised:
        call(CloudPartnerHook(), variant, "go_live", "slow")
    assert raised.value.is_unprocessed
    assert relay.requests == []


@both
def test_an_error_has_the_retry_after_of_the_response(
    hook: CloudPartnerHook, emulator: Emulator, variant: str
) -> None:
    emulator.inject(path="status$", status=429, headers={"Retry-After": "17"})
    with pytest.raises(CloudPartnerError) as raised:
        call(hook, variant, "get_offer_status", "slow")
    assert raised.value.retry_after == 17
    assert raised.value.is_unprocessed


# --- failed authentication ---


def test_a_credential_is_closed_when_it_is_replaced(
    hook: CloudPartnerHook, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Any] = []
    close = ClientSecretCredential.close
    monkeypatch.setattr(
        ClientSecretCredential, "close", lambda credential: (closed.append(credential), close(credential))
    )
    hook.get_offer_status("slow")
    assert closed == []
    emulator.revoke_tokens()
    hook.get_offer_status("slow")
    assert len(closed) == 1


@both
def test_a_revoked_token_is_replaced_once(hook: CloudPartnerHook, emulator: Emulator, variant: str) -> None:
    async def read_twice() -> None:
        async with hook:
            await hook.aget_offer_status("slow")
            emulator.revoke_tokens()
            await hook.aget_offer_status("slow")

    if variant == "async":
        asyncio.run(read_twice())
    else:
        hook.get_offer_status("slow")
        emulator.revoke_tokens()
        hook.get_offer_status("slow")
    assert [asked["status"] for asked in emulator.requests(path="status$")] == [200, 401, 200]
    assert len(emulator.requests(path=TOKEN)) == 2


async def test_concurrent_requests_renew_a_revoked_token_once(
    hook: CloudPartnerHook, emulator: Emulator
) -> None:
    async with hook:
        await hook.aget_offer_status("slow")
        emulator.revoke_tokens()
        await asyncio.gather(*(hook.aget_offer_status("slow") for _ in range(20)))
    assert len(emulator.requests(path=TOKEN)) == 2


@both
def test_a_lasting_401_is_an_authentication_error(
    hook: CloudPartnerHook, emulator: Emulator, variant: str
) -> None:
    emulator.inject(path="status$", status=401, count=5)
    with pytest.raises(AuthenticationError, match="did not accept a token") as raised:
        call(hook, variant, "get_offer_status", "slow")
    assert not raised.value.is_transient
    assert len(emulator.requests(path="status$")) == 2


@both
def test_a_403_explains_the_two_object_ids(emulator: Emulator, connect: Connect, variant: str) -> None:
    connect(emulator, login=STRANGER["clientId"], password=STRANGER["secret"])
    with pytest.raises(PermissionDeniedError, match="managed application in local directory"):
        call(CloudPartnerHook(), variant, "get_offer_status", "slow")


@both
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"password": "a wrong secret"}, "client secret is wrong"),
        ({"extra": {"tenantId": "5c2fa1e6-3b0d-4c52-9f6e-000000000000"}}, "tenant is wrong"),
        ({"login": "0f7e6c1d-7a55-4f0b-8f0e-000000000000"}, "client id is unknown"),
    ],
)
def test_a_refused_principal_raises_an_error_with_the_cause(
    emulator: Emulator, connect: Connect, changes: dict[str, Any], words: str, variant: str
) -> None:
    connect(emulator, **changes)
    with pytest.raises(AuthenticationError, match=words) as raised:
        call(CloudPartnerHook(), variant, "get_offer_status", "slow")
    assert not raised.value.is_transient
    assert "a wrong secret" not in str(raised.value)
    assert emulator.requests(path="/api/") == []


@both
def test_an_unreachable_identity_host_is_a_transient_error(
    emulator: Emulator, connect: Connect, variant: str
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        authority = f"https://localhost:{closed.getsockname()[1]}"
        connect(emulator, extra={"authority": authority})
        with pytest.raises(CloudPartnerError, match=f"Could not get a token from {authority}") as raised:
            call(CloudPartnerHook(), variant, "go_live", "slow")
    assert raised.value.is_unprocessed
    assert emulator.requests() == []


@both
def test_an_outage_of_the_identity_host_is_a_transient_error(emulator: Emulator, variant: str) -> None:
    body = {"error": "temporarily_unavailable", "error_description": "AADSTS90033: A transient error."}
    headers = {"Retry-After": "0", "Content-Type": "application/json"}
    emulator.inject(path=TOKEN, status=503, headers=headers, body=json.dumps(body), count=20)
    with pytest.raises(CloudPartnerError, match="Could not get a token") as raised:
        call(CloudPartnerHook(), variant, "get_offer_status", "slow")
    assert raised.value.is_transient
    assert not isinstance(raised.value, AuthenticationError)
    assert emulator.requests(path="/api/") == []


@both
def test_the_attributes_of_a_hook_show_no_secret(
    hook: CloudPartnerHook, principal: Principal, variant: str
) -> None:
    call(hook, variant, "get_offer_status", "slow")
    shown = f"{hook!r} {hook.settings!r} {vars(hook)!r}"
    assert principal.secret not in shown
    assert "Bearer" not in shown


# --- shared sessions in an event loop ---


def shared_sessions() -> list[Any]:
    return [shared for in_loop in aio._sessions_by_loop.values() for shared in in_loop.values()]


async def test_hooks_of_a_connection_share_one_token_and_one_session(emulator: Emulator) -> None:
    location = location_of(emulator, "going-live")
    hooks = [CloudPartnerHook() for _ in range(5)]

    async def ask(hook: CloudPartnerHook) -> Any:
        async with hook:
            return await asyncio.gather(*(hook.aget_operation(location) for _ in range(10)))

    async with CloudPartnerHook() as first:
        await first.aget_operation(location)
        answers = await asyncio.gather(*map(ask, hooks))
        assert len(shared_sessions()) == 1
    assert sum(map(len, answers)) == 50
    assert len(emulator.requests(path="operations/")) == 51
    assert len(emulator.requests(path=TOKEN)) == 1
    assert shared_sessions() == []


async def test_different_connections_share_no_session(emulator: Emulator, connect: Connect) -> None:
    async with CloudPartnerHook() as one:
        assert await one.aget_offer_status("slow")
        connect(emulator, login=STRANGER["clientId"], password=STRANGER["secret"])
        async with CloudPartnerHook() as other:
            with pytest.raises(PermissionDeniedError):
                await other.aget_offer_status("slow")
            assert len(shared_sessions()) == 2


async def test_a_hook_works_without_being_entered(emulator: Emulator) -> None:
    hook = CloudPartnerHook()
    await asyncio.gather(*(hook.aget_offer_status("slow") for _ in range(5)))
    assert shared_sessions() == []


async def test_a_hook_can_be_entered_twice(hook: CloudPartnerHook) -> None:
    async with hook:
        async with hook:
            await hook.aget_offer_status("slow")
        (shared,) = shared_sessions()
        await hook.aget_offer_status("slow")
        assert shared_sessions() == [shared]
    assert shared_sessions() == []


async def test_an_error_leaves_no_session_open(hook: CloudPartnerHook, emulator: Emulator) -> None:
    emulator.inject(path="status$", status=500)
    with pytest.raises(CloudPartnerError):
        async with hook:
            await hook.aget_offer_status("slow")
    assert shared_sessions() == []


async def test_an_invalid_credential_leaves_no_session_open(
    emulator: Emulator, connect: Connect, tmp_path: Path
) -> None:
    garbage = tmp_path / "certificate.pem"
    garbage.write_text("no certificate")
    connect(emulator, password=None, extra={"certificate_path": str(garbage)})
    with pytest.raises((ValueError, CloudPartnerError)):
        await CloudPartnerHook().aget_offer_status("slow")
    assert shared_sessions() == []


@pytest.mark.parametrize("path", [TOKEN, "status$"])
async def test_a_cancellation_leaves_no_session_open(emulator: Emulator, path: str) -> None:
    emulator.inject(path=path, delay=1)
    task = asyncio.create_task(CloudPartnerHook().aget_offer_status("slow"))
    await asyncio.to_thread(eventually, lambda: not emulator.faults())  # the request is on its way
    assert len(shared_sessions()) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert shared_sessions() == []
    await asyncio.to_thread(eventually, lambda: emulator.requests(path=path))


def test_a_hook_works_in_consecutive_event_loops(hook: CloudPartnerHook, emulator: Emulator) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            assert call(hook, "async", "get_offer_status", "slow").awaiting_publisher
        assert shared_sessions() == []


@pytest.mark.filterwarnings("error")
def test_every_session_is_closed(hook: CloudPartnerHook, log: Log) -> None:
    call(hook, "async", "get_offer_status", "slow")
    gc.collect()
    assert log.containing("Unclosed") == []


async def test_connection_and_ca_bundle_are_read_outside_the_event_loop(
    hook: CloudPartnerHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both may block: one calls the supervisor, the other parses a hundred certificates."""
    loops_thread = threading.get_ident()
    called: list[str] = []

    def off_the_loop(what: str, function: Any) -> Any:
        def checked(*args: Any, **kwargs: Any) -> Any:
            called.append(what)
            assert threading.get_ident() != loops_thread, f"{what} ran in the event loop"
            return function(*args, **kwargs)

        return checked

    def no_settings(_: Any) -> Any:
        raise AssertionError("the connection was read by the sync path")

    get_connection = off_the_loop("get_connection", CloudPartnerHook.get_connection)
    monkeypatch.setattr(CloudPartnerHook, "get_connection", staticmethod(get_connection))
    monkeypatch.setattr(CloudPartnerHook, "settings", property(no_settings))
    monkeypatch.setattr(
        ssl, "create_default_context", off_the_loop("a CA bundle", ssl.create_default_context)
    )
    async with hook:
        assert (await hook.aget_offer_status("slow")).awaiting_publisher
    assert "a CA bundle" in called


@both
def test_an_etag_is_the_precondition_of_a_write(
    emulator: Emulator, hook: CloudPartnerHook, variant: str
) -> None:
    # GET of an offer that was not migrated has an ETag.
    offer = "slow-classic"
    read = call(hook, variant, "get_offer", offer)
    changed = {**read.raw, "definition": {**read.definition, "displayText": f"Changed by {variant}"}}
    written = call(hook, variant, "put_offer", offer, changed, if_match=read.etag)
    assert written.definition["displayText"] == f"Changed by {variant}"
    with pytest.raises(PreconditionFailedError, match="read it again"):
        call(hook, variant, "put_offer", offer, changed, if_match=read.etag)
    with pytest.raises(ValueError, match="was read from the service"):
        call(hook, variant, "put_offer", offer, changed)
    assert call(hook, variant, "put_offer", offer, changed, if_match="*").etag


@both
def test_offers_and_publishers_are_listed(emulator: Emulator, hook: CloudPartnerHook, variant: str) -> None:
    assert "contoso" in [publisher.id for publisher in call(hook, variant, "list_publishers")]
    listed = {f"{offer.publisher_id}/{offer.id}" for offer in call(hook, variant, "list_offers")}
    assert listed == {name for name in emulator.offers() if name.startswith("contoso/")}


# --- filtered lists, and writes ---


@both
def test_offers_of_one_type_are_listed(hook: CloudPartnerHook, variant: str) -> None:
    found = call(hook, variant, "list_offers", offer_type_id="microsoft-azure-container")
    assert [offer.id for offer in found] == ["container"]
    assert call(hook, variant, "list_offers", offer_type_id="microsoft-azure-applications") == []


@both
def test_offers_of_another_type_are_left_out(
    hook: CloudPartnerHook, emulator: Emulator, variant: str
) -> None:
    everything = json.dumps([offer.raw for offer in hook.list_offers()])
    emulator.inject(path="/offers$", replace={"body": everything})
    found = call(hook, variant, "list_offers", offer_type_id="microsoft-azure-container")
    assert [offer.id for offer in found] == ["container"]


@both
@pytest.mark.parametrize("status", ["running", "Running", "completed", "succeeded", "canceled"])
def test_operations_with_another_status_are_left_out(
    hook: CloudPartnerHook, emulator: Emulator, variant: str, status: str
) -> None:
    everything = json.dumps([submission.raw for submission in hook.list_operations("going-live")])
    emulator.inject(path="/submissions/$", replace={"body": everything})
    found = call(hook, variant, "list_operations", "going-live", status=status)
    kinds = {"running": ["goLive"], "completed": ["publish"], "succeeded": ["publish"], "canceled": []}
    assert [submission.submission_type for submission in found] == kinds[status.lower()]


@both
@pytest.mark.parametrize("status", ["completed", "succeeded"])
def test_both_words_for_success_list_the_same_operations(
    hook: CloudPartnerHook, variant: str, status: str
) -> None:
    found = call(hook, variant, "list_operations", "live", status=status)
    assert [submission.submission_type for submission in found] == ["goLive", "publish"]


@both
def test_bare_definition_is_written_as_the_offers_definition(hook: CloudPartnerHook, variant: str) -> None:
    read = hook.get_offer("slow-classic")
    changed = {**read.definition, "displayText": f"Changed by {variant}"}
    written = call(hook, variant, "put_offer", "slow-classic", changed, if_match=read.etag)
    assert written.definition == changed == hook.get_offer("slow-classic").definition
    assert written.etag == hook.get_offer("slow-classic").etag != read.etag


@both
def test_a_new_offer_is_created_without_an_etag(hook: CloudPartnerHook, variant: str) -> None:
    offer = {"offerTypeId": "microsoft-azure-virtualmachines", "definition": {"displayText": "New"}}
    assert call(hook, variant, "put_offer", "new", offer).definition == {"displayText": "New"}
    assert hook.get_offer("new").offer_type_id == "microsoft-azure-virtualmachines"


@both
@pytest.mark.parametrize(
    ("if_match", "error", "advice"),
    [
        (
            None,
            (ValidationError, ConflictError),
            r"contoso/slow .*pass if_match to modify it: the ETag .*, or '\*'",
        ),
        ('"stale"', PreconditionFailedError, "contoso/slow .*read it again and apply the change"),
    ],
    ids=["without", "stale"],
)
def test_error_of_a_write_without_a_valid_etag_has_advice(
    hook: CloudPartnerHook,
    emulator: Emulator,
    variant: str,
    if_match: str | None,
    error: Any,
    advice: str,
) -> None:
    with pytest.raises(error, match=advice) as raised:
        call(hook, variant, "put_offer", "slow", {"displayText": "Changed"}, if_match=if_match)
    assert not raised.value.is_transient
    assert [put["effect"] for put in emulator.requests(method="PUT")] == [False]


@both
@pytest.mark.parametrize(
    ("definition", "if_match", "words"),
    [("text", "*", "JSON object"), ([], "*", "JSON object"), ({}, "a b", "if_match"), ({}, 5, "if_match")],
)
def test_an_invalid_definition_is_rejected_before_any_request(
    hook: CloudPartnerHook, emulator: Emulator, variant: str, definition: Any, if_match: Any, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        call(hook, variant, "put_offer", "slow", definition, if_match=if_match)
    assert emulator.requests() == []


# --- the requests session, and the methods of the HTTP hook ---


def test_headers_of_a_session_are_not_in_other_requests(relay: Relay) -> None:
    hook = CloudPartnerHook()
    path = "/api/publishers/contoso/offers/slow/status?api-version=2017-10-31"
    assert hook.get_conn(headers={"X-Mine": "1"}).get(relay.url + path).status_code == 200
    hook.get_offer_status("slow")
    assert hook.get_conn().get(relay.url + path).status_code == 200
    assert [sent.headers["X-Mine"] for sent in relay.requests] == ["1", None, None]
    assert all(sent.headers["Authorization"] for sent in relay.requests)


def test_a_session_sends_nothing_to_another_host(
    hook: CloudPartnerHook, emulator: Emulator, foreign_host: socket.socket
) -> None:
    session = hook.get_conn()
    url = f"https://localhost:{foreign_host.getsockname()[1]}/api/publishers"
    with pytest.raises(ValueError, match="not on the connection's host"):
        session.get(url)
    with pytest.raises(ValueError, match="not on the connection's host"):
        session.send(requests.Request("GET", url).prepare())
    assert emulator.requests() == []
    emulator.inject(path="/api/", status=307, headers={"Location": url})
    answer = session.get(f"{emulator.url}/api/publishers", allow_redirects=True, verify=False)
    assert answer.status_code == 307
    with pytest.raises(BlockingIOError):
        foreign_host.accept()


@pytest.mark.parametrize("name", sorted(name for name, member in vars(HttpHook).items() if callable(member)))
def test_no_method_of_the_http_hook_is_inherited(name: str) -> None:
    own = {"__init__", "get_conn", "test_connection"}
    assert (name in own) == hasattr(CloudPartnerHook, name)
    assert getattr(CloudPartnerHook, name, None) is not getattr(HttpHook, name)


@both
def test_errors_name_the_connection_that_was_used(
    emulator: Emulator, connect: Connect, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    connect(emulator, password="a wrong secret")
    names = ["first", "second"]
    for name in names:
        stored = os.environ["AIRFLOW_CONN_CLOUD_PARTNER_DEFAULT"]
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", stored)

    async def run() -> list[Any]:
        hooks = [CloudPartnerHook(name) for name in names]
        return await asyncio.gather(*(hook.alist_offers() for hook in hooks), return_exceptions=True)

    def error_of(name: str) -> Exception:
        with pytest.raises(AuthenticationError) as raised:
            CloudPartnerHook(name).list_offers()
        return raised.value

    errors = asyncio.run(run()) if variant == "async" else [error_of(name) for name in names]
    for name, error in zip(names, errors, strict=True):
        assert f"Connection '{name}'" in str(error)


def test_the_api_version_of_the_connection_is_in_built_locations(
    emulator: Emulator, connect: Connect
) -> None:
    (submission,) = CloudPartnerHook().list_operations("going-live", status="running")
    offer = OfferOperations(CloudPartnerHook(), "contoso", "going-live")
    assert offer.is_migrated  # read now, since the emulator accepts one version only
    connect(emulator, extra={"api_version": "2018-01-01"})
    vars(offer)["hook"] = CloudPartnerHook()
    built = offer.locations(submission)
    assert built
    assert all(location.endswith("?api-version=2018-01-01") for location in built)
