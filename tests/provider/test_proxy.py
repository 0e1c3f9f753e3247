"""Proxies: worker and triggerer select the same one for each URL, and never show its password."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
import trustme
from harness import deferral, operations, resume
from proxy import Proxy, running_proxy

from airflow_provider_cpp.exceptions import CloudPartnerError
from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
from airflow_provider_cpp.sensors.cloud_partner import OperationSensor
from airflow_provider_cpp.transport.proxies import Proxies
from dev.emulator_process import Emulator, running_emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness import Connect, Log, Principal

API, IDENTITY, MANAGED = "api.service.example", "login.identity.example", "msi.managed.example"
NO_LOGIN: dict[str, Any] = {"login": None, "password": None}
#: `NO_PROXY` of a typical deployment.
LOCAL = "169.254.169.254,127.0.0.1,localhost"
both = pytest.mark.parametrize("variant", ["sync", "async"])
sources = pytest.mark.parametrize("source", ["environment", "extra"])


def get_status(variant: str) -> Any:
    hook = CloudPartnerHook()
    return hook.get_offer_status("slow") if variant == "sync" else asyncio.run(hook.aget_offer_status("slow"))


def go_live(variant: str) -> Any:
    hook = CloudPartnerHook()
    return hook.go_live("slow") if variant == "sync" else asyncio.run(hook.ago_live("slow"))


@pytest.fixture(scope="module")
def remote_emulator(seed_file: str) -> Iterator[Emulator]:
    with running_emulator("--seed", seed_file, "--hostname", API, IDENTITY, MANAGED) as emulator:
        yield emulator


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolve the host names, so that a request without a proxy arrives."""
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else str(host)
        return real("127.0.0.1" if name in (API, IDENTITY, MANAGED) else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", LOCAL)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(params=["http"])
def proxy(request: pytest.FixtureRequest, authority: trustme.CA) -> Iterator[Proxy]:
    tls = None
    if request.param == "https":
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(tls)
    with running_proxy(tls) as proxy:
        yield proxy


@pytest.fixture
def remote(
    remote_emulator: Emulator, connect: Connect, authority: trustme.CA, tmp_path: Path
) -> Callable[..., None]:
    """Set the connection to the host names above, with more fields and extras."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(Path(remote_emulator.ca).read_bytes() + authority.cert_pem.bytes())
    port = remote_emulator.port
    remote_emulator.reset()

    def connect_remote(*, fields: dict[str, Any] | None = None, **extra: Any) -> None:
        extra = {"authority": f"https://{IDENTITY}:{port}", "verify": str(bundle)} | extra
        connect(remote_emulator, host=f"https://{API}:{port}", extra=extra, **fields or {})

    return connect_remote


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as closed:  # bound, but not listening
        closed.bind(("127.0.0.1", 0))
        yield closed.getsockname()[1]


# --- the matrix ---

SETTINGS: dict[str, Callable[[Proxy], str]] = {
    "http": lambda proxy: proxy.url,
    "https": lambda proxy: proxy.url,
    "no scheme": lambda proxy: proxy.address,
    "socks5": lambda proxy: f"socks5://{proxy.address}",
    "NO_PROXY host": lambda proxy: proxy.url,
    "NO_PROXY suffix": lambda proxy: proxy.url,
    "user:password": lambda proxy: proxy.url.replace("//", "//us%40er:p%2Fass%25@"),
}


@both
@pytest.mark.parametrize("target", [API, IDENTITY, MANAGED])
@pytest.mark.parametrize(
    ("setting", "proxy"),
    [(name, "https" if name == "https" else "http") for name in SETTINGS],
    indirect=["proxy"],
)
@sources
def test_worker_and_triggerer_use_the_same_proxy(
    source: str,
    setting: str,
    proxy: Proxy,
    target: str,
    variant: str,
    remote: Callable[..., None],
    remote_emulator: Emulator,
    principal: Principal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    excluded = {"NO_PROXY host": target, "NO_PROXY suffix": f".{target.partition('.')[2]}"}.get(setting)
    monkeypatch.setenv("NO_PROXY", ",".join(filter(None, (LOCAL, excluded))))
    extra: dict[str, Any] = {}
    if source == "environment":
        monkeypatch.setenv("HTTPS_PROXY", SETTINGS[setting](proxy))
    else:
        extra["proxies"] = {"https": SETTINGS[setting](proxy)}
    if target == MANAGED:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"https://{MANAGED}:{remote_emulator.port}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", principal.identity_header)
        extra["tenantId"] = None
    remote(fields=NO_LOGIN if target == MANAGED else None, **extra)

    if setting == "socks5":
        where = "HTTPS_PROXY" if source == "environment" else "extra 'proxies'"
        with pytest.raises(
            ValueError, match=f"'cloud_partner_default'.*{where}.*only http and https proxies"
        ):
            get_status(variant)
        assert (proxy.connected, remote_emulator.requests()) == ([], [])
        return
    assert get_status(variant).awaiting_publisher
    # As in requests, NO_PROXY does not apply to an explicit proxy.
    is_direct = excluded is not None and source == "environment"
    assert (target in proxy.connected) != is_direct
    assert proxy.plain == []
    if setting == "user:password":
        assert set(proxy.authorizations) == {"Basic dXNAZXI6cC9hc3Ml"}


@both
@pytest.mark.parametrize("variable", ["https_proxy", "ALL_PROXY", "all_proxy"])
def test_every_variable_for_https_is_used(
    remote: Callable[..., None], proxy: Proxy, monkeypatch: pytest.MonkeyPatch, variant: str, variable: str
) -> None:
    remote()
    monkeypatch.setenv(variable, proxy.url)
    assert get_status(variant).awaiting_publisher
    assert set(proxy.connected) == {API, IDENTITY}


@both
def test_the_extra_overrides_the_environment(
    remote: Callable[..., None], proxy: Proxy, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    remote(proxies={"https": proxy.url, f"https://{IDENTITY}": ""})
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    assert get_status(variant).awaiting_publisher
    assert set(proxy.connected) == {API}


@both
def test_requests_of_a_hook_share_one_tunnel(remote: Callable[..., None], proxy: Proxy, variant: str) -> None:
    remote(proxies={"https": proxy.url.replace("//", "//user:password@")})

    async def run() -> None:
        async with CloudPartnerHook() as hook:
            for _ in range(3):
                await hook.aget_offer_status("slow")

    if variant == "async":
        asyncio.run(run())
    else:
        hook = CloudPartnerHook()
        for _ in range(3):
            hook.get_offer_status("slow")
    assert proxy.connected.count(API) == 1


# --- managed identity endpoints over plain http ---


class MetadataServer(ThreadingHTTPServer):
    """The endpoints of App Service and of a virtual machine over plain http, with tokens of the emulator."""

    def __init__(self, emulator: Emulator, identity_header: str) -> None:
        super().__init__(("127.0.0.1", 0), _MetadataHandler)
        self.emulator = emulator
        self.identity_header = identity_header
        self.paths: list[str] = []


class _MetadataHandler(BaseHTTPRequestHandler):
    server: MetadataServer

    def do_GET(self) -> None:
        self.server.paths.append(self.path.partition("?")[0])
        with requests.Session() as session:
            session.trust_env = False
            answer = session.get(
                f"{self.server.emulator.url}/msi/token",
                params={"api-version": "2019-08-01", "resource": "https://cloudpartner.azure.com"},
                headers={"X-IDENTITY-HEADER": self.server.identity_header},
                verify=self.server.emulator.ca,
                timeout=10,
            )
        body = json.dumps(answer.json() | {"expires_in": "3600"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def metadata(remote_emulator: Emulator, principal: Principal) -> Iterator[MetadataServer]:
    with MetadataServer(remote_emulator, principal.identity_header) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


@both
@pytest.mark.parametrize("host", ["127.0.0.1", MANAGED])
@pytest.mark.parametrize("kind", ["App Service", "virtual machine"])
@pytest.mark.parametrize("source", ["environment", "environment with NO_PROXY", "extra"])
def test_a_managed_identity_request_over_http_uses_no_proxy(
    source: str,
    kind: str,
    host: str,
    variant: str,
    proxy: Proxy,
    metadata: MetadataServer,
    remote: Callable[..., None],
    principal: Principal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = f"http://{host}:{metadata.server_address[1]}"
    if kind == "App Service":
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{url}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", principal.identity_header)
    else:
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", url)
    proxies = dict.fromkeys(("http", "https", "all"), proxy.url)
    for name in proxies if source != "extra" else ():
        monkeypatch.setenv(f"{name.upper()}_PROXY", proxy.url)
    if source != "environment with NO_PROXY":
        monkeypatch.setenv("NO_PROXY", "localhost")
    remote(fields=NO_LOGIN, tenantId=None, proxies=proxies if source == "extra" else None)
    assert get_status(variant).awaiting_publisher
    expected = "/msi/token" if kind == "App Service" else "/metadata/identity/oauth2/token"
    assert set(metadata.paths) == {expected}
    assert proxy.plain == []
    assert set(proxy.connected) == {API}


# --- a proxy that does not work ---


@both
@pytest.mark.parametrize("fault", ["refuses connections", "unknown host", "407", "502"])
def test_nothing_is_sent_if_the_proxy_opens_no_tunnel(
    remote: Callable[..., None],
    remote_emulator: Emulator,
    proxy: Proxy,
    closed_port: int,
    log: Log,
    variant: str,
    fault: str,
) -> None:
    address = {"refuses connections": f"127.0.0.1:{closed_port}", "unknown host": "proxy.invalid:8080"}
    if fault.isdigit():
        proxy.status = int(fault)
    url = f"http://user:a-proxy-password@{address.get(fault, proxy.address)}"
    remote(proxies={f"https://{API}": url})
    with pytest.raises(
        CloudPartnerError, match=r"was not sent\..*Check host, network, proxy http://\w"
    ) as raised:
        go_live(variant)
    assert raised.value.unsent
    assert raised.value.is_unprocessed
    assert remote_emulator.requests(path="golive") == []
    assert "a-proxy-password" not in "".join(traceback.format_exception(raised.value))
    assert log.containing("a-proxy-password") == []


@both
@pytest.mark.parametrize("close", ["before", "after"])
def test_a_connection_lost_in_the_tunnel_leaves_the_outcome_unknown(
    remote: Callable[..., None], remote_emulator: Emulator, proxy: Proxy, variant: str, close: str
) -> None:
    remote(proxies={"https": proxy.url})
    remote_emulator.inject(path="golive$", close=close)
    with pytest.raises(CloudPartnerError, match="not known whether it had its effect") as raised:
        go_live(variant)
    assert raised.value.has_unknown_outcome
    assert len(remote_emulator.requests(method="POST", path="golive$")) == 1


@both
@pytest.mark.parametrize("fault", ["refuses connections", "407"])
def test_no_token_without_the_proxy_is_an_outage_without_its_password(
    remote: Callable[..., None], proxy: Proxy, closed_port: int, variant: str, log: Log, fault: str
) -> None:
    proxy.status = 407
    address = f"127.0.0.1:{closed_port}" if fault != "407" else proxy.address
    remote(proxies={"https": f"http://user:a-proxy-password@{address}"})
    with pytest.raises(CloudPartnerError) as raised:
        get_status(variant)
    assert raised.value.is_transient
    assert raised.value.is_unprocessed
    assert "a-proxy-password" not in "".join(traceback.format_exception(raised.value))
    assert log.containing("a-proxy-password") == []


# --- settings that are refused ---

INVALID = [
    "socks5://proxy:1080",
    "socks4a://proxy:1080",
    "ftp://proxy",
    "http://",
    "http://proxy:99999",
    "http://proxy:port",
    "http://proxy:0",
    "http://proxy:8080/path",
    "http://proxy:8080?a=b",
    "http://pro xy",
    "http://user:a#topsecret@proxy:8080",
    "http://user:a/topsecret@proxy:8080",
    "user:topsecret@",
    "socks5://user:topsecret@proxy",
    "http://user:topsecret%E2%98%83\u2603@proxy",
]


@both
@sources
@pytest.mark.parametrize("url", INVALID)
def test_an_invalid_proxy_is_refused_before_any_request(
    emulator: Emulator,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    url: str,
    variant: str,
) -> None:
    if source == "environment":
        monkeypatch.setenv("ALL_PROXY", url)
        monkeypatch.delenv("NO_PROXY")
    else:
        connect(emulator, extra={"proxies": {"https": url}})
    where = "environment variable ALL_PROXY" if source == "environment" else "extra 'proxies', key 'https',"
    with pytest.raises(
        ValueError, match=f"'cloud_partner_default': .*{where} names the proxy .*http://"
    ) as raised:
        get_status(variant)
    assert "topsecret" not in str(raised.value)
    assert emulator.requests() == []


def test_an_invalid_proxy_ends_a_deferred_sensor_at_once(
    emulator: Emulator, context: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    location = operations(emulator, "going-live")[0]["location"]
    task = OperationSensor(task_id="wait", operation_location=location, poke_interval=0.1)
    deferred = deferral(task, context)
    monkeypatch.setenv("HTTPS_PROXY", "socks5://proxy:1080")
    monkeypatch.delenv("NO_PROXY")
    with pytest.raises(Exception, match="only http and https proxies are supported"):
        resume(task, context, deferred)


# --- the selection alone ---


@pytest.mark.parametrize(
    ("no_proxy", "url", "uses_proxy"),
    [
        ("service.example", f"https://{API}", False),
        (".service.example", f"https://{API}", False),
        (API, f"https://{API}:8443", False),
        (f"{API}:8443", f"https://{API}:8443", False),
        (f"{API}:8443", f"https://{API}", True),
        ("ice.example", f"https://{API}", True),
        ("*", f"https://{API}", False),
        ("10.0.0.0/8", "https://10.1.2.3", False),
        ("10.0.0.0/8", "https://11.1.2.3", True),
        ("", "http://169.254.169.254/metadata", False),
        ("", "http://127.0.0.1/msi/token", False),
        ("", "https://127.0.0.1", True),
    ],
)
def test_no_proxy_excludes_hosts_as_in_requests(
    monkeypatch: pytest.MonkeyPatch, no_proxy: str, url: str, uses_proxy: bool
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "proxy:8080")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert Proxies("Connection").for_url(url) == ("http://proxy:8080" if uses_proxy else None)
    by_extra = Proxies.from_extra("Connection", {"no_proxy": no_proxy})
    monkeypatch.delenv("NO_PROXY")
    assert by_extra.for_url(url) == ("http://proxy:8080" if uses_proxy else None)


@pytest.mark.parametrize(
    ("stored", "url"),
    [
        ("proxy", "http://proxy"),
        (" proxy:3128 ", "http://proxy:3128"),
        ("10.0.0.1:3128", "http://10.0.0.1:3128"),
        ("[::1]:3128", "http://[::1]:3128"),
        ("HTTP://proxy:3128/", "http://proxy:3128"),
        ("https://proxy", "https://proxy"),
        ("user@proxy", "http://user:@proxy"),
        ("user:p@ss@proxy", "http://user:p%40ss@proxy"),
        ("", None),
    ],
)
def test_a_proxy_is_normalized(stored: str, url: str | None) -> None:
    for value in (stored, {"https": stored}, {"all": stored}):
        assert Proxies.from_extra("Connection", value).for_url("https://host") == url
