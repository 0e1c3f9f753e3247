from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from harness import STRANGER, TIME_SCALE, Connect, Log, Principal, TaskInstance, offers

from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
from airflow_provider_cpp.release import lookup, submission
from dev.emulator_process import Emulator, running_emulator
from dev.local_airflow import AIRFLOW

try:
    import structlog
except ModuleNotFoundError:  # Airflow 2
    structlog = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def principal(tmp_path_factory: pytest.TempPathFactory) -> Principal:
    return Principal(tmp_path_factory.mktemp("principal"))


@pytest.fixture(scope="session")
def seed_file(tmp_path_factory: pytest.TempPathFactory, principal: Principal) -> str:
    other = [{"id": "slow", "state": "preview", "version": 7}]
    seed = {
        "publishers": [{"id": "contoso", "offers": offers()}, {"id": "fabrikam", "offers": other}],
        "principals": [principal.seed, STRANGER],
    }
    path = tmp_path_factory.mktemp("seed") / "seed.json"
    path.write_text(json.dumps(seed))
    return str(path)


@pytest.fixture(scope="session")
def shared_emulator(seed_file: str) -> Iterator[Emulator]:
    with running_emulator("--seed", seed_file, "--time-scale", str(TIME_SCALE)) as emulator:
        yield emulator


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove environment variables that would authenticate or redirect requests."""
    for name in (
        "AIRFLOW_CONN_CLOUD_PARTNER_DEFAULT",
        "AZURE_CLIENT_ID",
        "AZURE_CLIENT_SECRET",
        "AZURE_TENANT_ID",
        "AZURE_FEDERATED_TOKEN_FILE",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "ALL_PROXY",
        "https_proxy",
        "http_proxy",
        "all_proxy",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "SSL_CERT_FILE",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    return Connect(monkeypatch)


@pytest.fixture
def emulator(shared_emulator: Emulator, connect: Connect) -> Emulator:
    """An emulator as its seed says, to which the default connection leads."""
    shared_emulator.reset()
    connect(shared_emulator)
    return shared_emulator


@pytest.fixture
def hook(emulator: Emulator) -> CloudPartnerHook:
    return CloudPartnerHook()


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The context of a task of a Dag run that began a minute ago."""
    ti = TaskInstance()
    if AIRFLOW < (3, 0):
        monkeypatch.setattr("airflow.sensors.base._orig_start_date", lambda **_: ti.first_reschedule_date)
    dag_run = SimpleNamespace(start_date=datetime.now(UTC) - timedelta(minutes=1))
    return {"ti": ti, "dag_run": dag_run}


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[Log]:
    log = Log()
    caplog.set_level(logging.INFO)
    logging.getLogger().addHandler(log)
    processors = structlog.get_config()["processors"] if structlog else []
    processors.insert(0, log.process)
    yield log
    processors.remove(log.process)
    logging.getLogger().removeHandler(log)


@pytest.fixture(autouse=True)
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the delays of lookups from seconds to hundredths of a second."""
    for module, name in ((lookup, "SHORT_DELAYS"), (lookup, "LONG_DELAYS"), (submission, "CANCELING_DELAYS")):
        quick = tuple(0.05 if seconds else 0.0 for seconds in getattr(module, name))
        monkeypatch.setattr(module, name, quick)
    monkeypatch.setattr(lookup, "LONGEST_PAUSE", 0.05)
