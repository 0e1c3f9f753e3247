from __future__ import annotations

import asyncio
import socket
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from proxy import Proxy, running_proxy

from airflow_provider_cpp.exceptions import CloudPartnerError
from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
from dev.emulator_process import Emulator, running_emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness import Connect, Log

# Only the proxy knows where these are.
API, IDENTITY = "cloudpartner.example", "identity.example"
both = pytest.mark.parametrize("twin", ["sync", "async"])


@pytest.fixture(scope="module")
def distant_emulator(seed_file: str) -> Iterator[Emulator]:
    with running_emulator("--seed", seed_file, "--hostname", API, IDENTITY) as emulator:
        yield emulator


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with running_proxy() as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def _no_exceptions(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def far(distant_emulator: Emulator, connect: Connect) -> Any:
    """Let the connection lead to the names, with some more extras."""

    def connect_far(**extra: Any) -> None:
        port = distant_emulator.port
        extra["authority"] = f"https://{IDENTITY}:{port}"
        connect(distant_emulator, host=f"https://{API}:{port}", extra=extra)

    return connect_far


def ask(twin: str) -> Any:
    hook = CloudPartnerHook()
    if twin == "sync":
        return hook.get_offer_status("slow")
    return asyncio.run(hook.aget_offer_status("slow"))


@both
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_the_environments_proxy_leads_to_the_api_and_the_identity_host(
    far: Any, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, twin: str, variable: str
) -> None:
    far()
    monkeypatch.setenv(variable, proxy.url)
    assert ask(twin).awaiting_publisher
    assert set(proxy.connected) == {API, IDENTITY}


@both
def test_the_connections_proxy_comes_before_the_environments(
    far: Any, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, twin: str
) -> None:
    far(proxies={"https": proxy.url})
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    assert ask(twin).awaiting_publisher
    assert set(proxy.connected) == {API, IDENTITY}


@both
def test_a_proxy_is_told_its_password(far: Any, proxy: Proxy, twin: str) -> None:
    far(proxies={"https": proxy.url.replace("//", "//user:pass@")})
    assert ask(twin).awaiting_publisher
    assert set(proxy.connected) == {API, IDENTITY}
    assert set(proxy.authorizations) == {"Basic dXNlcjpwYXNz"}


@both
def test_a_host_that_the_environment_excepts_is_not_asked_through_the_proxy(
    distant_emulator: Emulator, connect: Connect, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, twin: str
) -> None:
    connect(distant_emulator)
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", "localhost")
    assert ask(twin).awaiting_publisher
    assert proxy.connected == []


@both
def test_the_password_of_a_proxy_that_is_away_is_neither_told_nor_logged(
    far: Any, twin: str, log: Log
) -> None:
    with socket.socket() as closed:  # bound, but not listening
        closed.bind(("127.0.0.1", 0))
        far(proxies={"https": f"http://user:a-proxy-password@127.0.0.1:{closed.getsockname()[1]}"})
        with pytest.raises(CloudPartnerError, match="Could not get a token") as raised:
            ask(twin)
    assert raised.value.is_unprocessed
    assert "a-proxy-password" not in "".join(traceback.format_exception(raised.value))
    assert log.containing("a-proxy-password") == []
