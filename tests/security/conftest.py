from __future__ import annotations

import json
import os
import time
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from airflow_provider_cpp.release import lookup, submission
from airflow_provider_cpp.transport import credentials
from dev.emulator_process import Emulator, running_emulator
from tests.provider.harness import SIGNATURE, STRANGER, TIME_SCALE, Connect, Principal, TaskInstance, offers
from tests.security.listening import Ground, Listener, Names, make_ground
from tests.security.recording import Recording, recording

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Prefixes of variables that supply an identity or redirect requests.
BARE = ("AIRFLOW_CONN_", "AZURE_", "IDENTITY_", "MSI_", "REQUESTS_CA_", "CURL_CA_", "SSL_CERT_")
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy")


@pytest.fixture(scope="session")
def principal(tmp_path_factory: pytest.TempPathFactory) -> Principal:
    # Letters that look different in a URL, in JSON, in HTML and in base64.
    return Principal(
        tmp_path_factory.mktemp("principal"),
        secret='S3cret~of+the/seed&"quoted"=ä?8Q',
        identity_header="identity-header/of+the=seed&x",
    )


@pytest.fixture(scope="session")
def shared_emulator(tmp_path_factory: pytest.TempPathFactory, principal: Principal) -> Iterator[Emulator]:
    seed = {
        "publishers": [{"id": "contoso", "offers": offers()}, {"id": "fabrikam", "offers": []}],
        "principals": [principal.seed, STRANGER],
    }
    path = tmp_path_factory.mktemp("seed") / "seed.json"
    path.write_text(json.dumps(seed))
    with running_emulator("--seed", str(path), "--time-scale", str(TIME_SCALE)) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def ground(shared_emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return make_ground(tmp_path_factory.mktemp("tls"), Path(shared_emulator.ca))


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(BARE) or name in PROXIES:
            monkeypatch.delenv(name)


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    return Connect(monkeypatch)


@pytest.fixture
def emulator(shared_emulator: Emulator) -> Emulator:
    """The emulator in the state of its seed."""
    shared_emulator.reset()
    return shared_emulator


@pytest.fixture
def gateway(emulator: Emulator, ground: Ground, connect: Connect) -> Iterator[Listener]:
    """A gateway in front of the service and the identity host; the default connection uses it."""
    with ground.listener(emulator) as listener:
        connect(emulator, host=listener.url, extra={"authority": listener.url, "verify": ground.verify})
        yield listener


@pytest.fixture
def elsewhere(ground: Ground) -> Iterator[Listener]:
    """A server of an attacker, which must not receive a token."""
    with ground.listener() as listener:
        yield listener


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    names = Names()
    monkeypatch.setattr("socket.getaddrinfo", names.getaddrinfo)
    return names


@pytest.fixture
def unverified(gateway: Listener, connect: Connect, emulator: Emulator) -> Iterator[Listener]:
    """The gateway, and a connection without certificate checks, which could send a token anywhere."""
    connect(emulator, host=gateway.url, extra={"verify": False})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield gateway


@pytest.fixture
def context() -> dict[str, Any]:
    """The context of a task of a Dag run that started a minute ago."""
    dag_run = SimpleNamespace(start_date=datetime.now(UTC) - timedelta(minutes=1))
    return {"ti": TaskInstance(), "dag_run": dag_run}


@pytest.fixture(autouse=True)
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((lookup, "SHORT_DELAYS"), (lookup, "LONG_DELAYS"), (submission, "CANCELING_DELAYS")):
        quick = tuple(0.05 if seconds else 0.0 for seconds in getattr(module, name))
        monkeypatch.setattr(module, name, quick)
    monkeypatch.setattr(lookup, "LONGEST_PAUSE", 0.05)


@pytest.fixture
def recorded(principal: Principal, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recording]:
    """Record all loggers at DEBUG, all errors, and all stored triggers."""
    monkeypatch.setattr(credentials, "_IDENTITY_RETRIES", 0)
    with recording() as kept:
        kept.secrets.add("client secret", principal.secret)
        kept.secrets.add("identity header", principal.identity_header)
        kept.secrets.add("SAS signature", SIGNATURE)
        for path in (principal.certificate_path, principal.locked_path):
            kept.secrets.add_key("private key", Path(path).read_text())
        yield kept


@pytest.fixture(params=["secret", "certificate", "locked certificate", "workload", "managed"])
def sign_in(
    request: pytest.FixtureRequest,
    gateway: Listener,
    ground: Ground,
    emulator: Emulator,
    connect: Connect,
    principal: Principal,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> str:
    """Each way to authenticate, through the gateway."""
    way: str = request.param
    base = {"authority": gateway.url, "verify": ground.verify}
    nobody: dict[str, Any] = {"login": None, "password": None}
    if way == "certificate":
        extra = base | {"certificate_path": principal.certificate_path}
        connect(emulator, host=gateway.url, password=None, extra=extra)
    elif way == "locked certificate":
        extra = base | {"certificate_path": principal.locked_path}
        connect(emulator, host=gateway.url, password="passphrase", extra=extra)
    elif way == "workload":
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
        connect(emulator, host=gateway.url, **nobody, extra=base | {"tenantId": None})
    elif way == "managed":
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{gateway.url}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", principal.identity_header)
        connect(emulator, host=gateway.url, **nobody, extra=base | {"tenantId": None})
    return way
