from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
from dev.emulator_process import running_emulator

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness import Connect, Principal

    from dev.emulator_process import Emulator

#: The connection without anything to sign in with.
NOBODY: dict[str, Any] = {"login": None, "password": None, "extra": {"tenantId": None}}


@pytest.fixture(params=["sync", "async"])
def list_operations(request: pytest.FixtureRequest) -> Callable[[], list[Any]]:
    def sync() -> list[Any]:
        return CloudPartnerHook().list_operations("slow")

    def in_event_loop() -> list[Any]:
        return asyncio.run(CloudPartnerHook().alist_operations("slow"))

    return sync if request.param == "sync" else in_event_loop


def signed_in(emulator: Emulator) -> str:
    """Who asked the API."""
    (asked,) = emulator.requests(path="/submissions/")
    return str(asked["clientId"])


def test_a_client_secret_signs_in(
    emulator: Emulator, principal: Principal, list_operations: Callable[[], list[Any]]
) -> None:
    assert list_operations()
    assert signed_in(emulator) == principal.client


def test_a_certificate_signs_in(
    emulator: Emulator, connect: Connect, principal: Principal, list_operations: Callable[[], list[Any]]
) -> None:
    connect(emulator, password=None, extra={"certificate_path": principal.certificate_path})
    assert list_operations()
    assert signed_in(emulator) == principal.client


def test_a_certificate_with_a_passphrase_signs_in(
    emulator: Emulator, connect: Connect, principal: Principal, list_operations: Callable[[], list[Any]]
) -> None:
    connect(emulator, password="passphrase", extra={"certificate_path": principal.locked_path})
    assert list_operations()
    assert signed_in(emulator) == principal.client


def test_a_certificate_whose_passphrase_is_wrong_says_so_before_anything_is_sent(
    emulator: Emulator, connect: Connect, principal: Principal, list_operations: Callable[[], list[Any]]
) -> None:
    connect(emulator, password="another passphrase", extra={"certificate_path": principal.locked_path})
    with pytest.raises(ValueError, match="cloud_partner_default") as raised:
        list_operations()
    assert "another passphrase" not in str(raised.value)
    assert emulator.requests() == []


@pytest.mark.parametrize("named", [False, True])
def test_a_managed_identity_signs_in(
    emulator: Emulator,
    connect: Connect,
    principal: Principal,
    monkeypatch: pytest.MonkeyPatch,
    list_operations: Callable[[], list[Any]],
    named: bool,
) -> None:
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{emulator.url}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", principal.identity_header)
    name = {"managed_identity_client_id": principal.client} if named else {}
    connect(emulator, **NOBODY | {"extra": {"tenantId": None, **name}})
    assert list_operations()
    assert signed_in(emulator) == principal.client
    (token,) = emulator.requests(path="/msi/token")
    assert ("client_id=" in token["query"]) == named


@pytest.fixture
def workload(principal: Principal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment of a pod with a workload identity."""
    claims = {
        "iss": principal.issuer,
        "sub": principal.subject,
        "aud": "api://AzureADTokenExchange",
        "exp": int(time.time()) + 3600,
    }
    assertion = tmp_path / "token"
    assertion.write_text(jwt.encode(claims, principal.federated_key, "RS256"))
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(assertion))
    monkeypatch.setenv("AZURE_CLIENT_ID", principal.client)
    monkeypatch.setenv("AZURE_TENANT_ID", principal.tenant)


@pytest.mark.usefixtures("workload")
@pytest.mark.parametrize("authority_by", ["environment", "connection"])
def test_a_workload_identity_signs_in(
    emulator: Emulator,
    connect: Connect,
    principal: Principal,
    monkeypatch: pytest.MonkeyPatch,
    list_operations: Callable[[], list[Any]],
    authority_by: str,
) -> None:
    if authority_by == "environment":
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", emulator.url)
    connect(
        emulator, **NOBODY | {"extra": {"tenantId": None, "workload_identity_tenant_id": principal.tenant}}
    )
    assert list_operations()
    assert signed_in(emulator) == principal.client


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"extra": {"tenantId": None}}, "tenantId"),
        ({"password": None}, "certificate_path"),
        ({"login": None}, "login"),
        ({"extra": {"publisherId": None}}, "publisherId"),
        ({"extra": {"certificate_path": "/nowhere.pem"}}, "certificate_path"),
        ({"host": "https://localhost/api"}, "host"),
        ({"host": "https://localhost?x=1"}, "host"),
        ({"host": "https://somebody@localhost"}, "host"),
        ({"host": "https://some body"}, "host"),
        ({"host": "ftp://localhost"}, "host"),
        ({"host": "https://localhost:none"}, "host"),
        ({"host": "http://cloudpartner.azure.com"}, "https://"),
        ({"extra": {"authority": "http://login.microsoftonline.com"}}, "https://"),
        ({"extra": {"authority": "https://login.microsoftonline.com/tenant"}}, "authority"),
        ({"extra": {"verify": "/nowhere.pem"}}, "verify"),
        ({"extra": {"verify": 5}}, "verify"),
        ({"extra": {"timeout": "soon"}}, "timeout"),
        ({"extra": {"timeout": 0}}, "timeout"),
        ({"extra": {"timeout": -1}}, "timeout"),
        ({"extra": {"timeout": "nan"}}, "timeout"),
        ({"extra": {"timeout": []}}, "timeout"),
        ({"extra": {"publisherId": 5}}, "publisherId"),
        ({"extra": {"tenantId": ["a"]}}, "tenantId"),
        ({"extra": {"authority": {}}}, "authority"),
        ({"extra": {"api_version": 20171031}}, "api_version"),
        ({"extra": {"proxies": ["http://proxy"]}}, "proxies"),
        ({"extra": {"proxies": {"https": 5}}}, "proxies"),
    ],
    ids=str,
)
def test_a_connection_that_can_not_be_used_is_named_and_nothing_is_sent(
    emulator: Emulator,
    connect: Connect,
    list_operations: Callable[[], list[Any]],
    changes: dict[str, Any],
    words: str,
) -> None:
    connect(emulator, **changes)
    with pytest.raises(ValueError, match="cloud_partner_default") as raised:
        list_operations()
    assert words in str(raised.value)
    assert emulator.requests() == []


@pytest.mark.parametrize(
    "changes",
    [
        {"extra": {"verify": ""}},
        {"extra": {"publisherId": 5, "timeout": ""}},
    ],
    ids=str,
)
def test_no_secret_is_in_the_error_for_a_connection(
    emulator: Emulator, connect: Connect, principal: Principal, changes: dict[str, Any]
) -> None:
    connect(emulator, **changes | {"host": "https://localhost/path"})
    with pytest.raises(ValueError, match="cloud_partner_default") as raised:
        CloudPartnerHook().list_operations("slow")
    assert principal.secret not in str(raised.value)


@pytest.mark.parametrize("spelling", ["host", "bare", "port"])
def test_the_host_is_understood_however_it_is_written(
    emulator: Emulator, connect: Connect, list_operations: Callable[[], list[Any]], spelling: str
) -> None:
    bare = f"localhost:{emulator.port}"
    fields: dict[str, dict[str, Any]] = {
        "host": {"host": f"https://{bare}/"},
        "bare": {"host": bare},
        "port": {"host": "localhost", "schema": "https", "port": emulator.port},
    }
    connect(emulator, **fields[spelling])
    assert list_operations()


def test_tokens_that_live_for_seconds_are_renewed_in_a_wait(connect: Connect, seed_file: str) -> None:
    with running_emulator("--seed", seed_file, "--token-lifetime", "2") as emulator:
        connect(emulator)

        async def ask_until_renewed() -> None:
            async with CloudPartnerHook() as hook:
                while len(emulator.requests(path="oauth2/v2.0/token")) < 3:
                    await hook.alist_operations("slow")

        asyncio.run(asyncio.wait_for(ask_until_renewed(), 30))
        answers = emulator.requests(path="/submissions/")
        assert answers[-1]["status"] == 200
