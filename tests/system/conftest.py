"""A real Airflow and the emulator, for the tests of whole Dags."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dev.emulator_process import Emulator, running_emulator
from dev.local_airflow import LocalAirflow

if TYPE_CHECKING:
    from collections.abc import Iterator

    RunOf = dict[str, tuple[str, str]]

ROOT = Path(__file__).parents[2]
TIME_SCALE = 20
GO_LIVE_SECONDS = 15 * TIME_SCALE
TOKEN_SECONDS = 3


def _offer(offer_id: str, **more: Any) -> dict[str, Any]:
    return {"id": offer_id, "state": "preview", "stepSeconds": {"live": GO_LIVE_SECONDS}, **more}


OFFERS = [
    *(_offer(f"contoso-{name}") for name in ("linux", "database")),
    _offer("contoso-classic", migrated=False),
    *(_offer(f"offer-{number}", migrated=number % 2 == 0) for number in range(12)),
    _offer(
        "offer-failing",
        fail={"step": "live", "messages": ["<p>The image <b>has no</b> SSH key.</p>"]},
    ),
    _offer("offer-lasting", stepSeconds={"live": 3600 * TIME_SCALE}),
]


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator whose go-lives take seconds, and whose tokens live for seconds only."""
    seed = tmp_path_factory.mktemp("emulator") / "seed.json"
    principal = {
        "tenantId": "11111111-2222-3333-4444-555555555555",
        "clientId": "66666666-7777-8888-9999-000000000000",
        "secret": "the-secret-of-the-principal",
        "publishers": ["contoso"],
    }
    seed.write_text(
        json.dumps({"publishers": [{"id": "contoso", "offers": OFFERS}], "principals": [principal]})
    )
    options = ["--time-scale", str(TIME_SCALE), "--token-lifetime", str(TOKEN_SECONDS)]
    with running_emulator("--seed", str(seed), *options) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def airflow(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    """A real Airflow with the example Dags and those of these tests."""
    home = tmp_path_factory.mktemp("airflow")
    dags = home / "dags"
    dags.mkdir()
    for folder in (ROOT / "example_dags", Path(__file__).parent / "dags"):
        for file in folder.glob("*.py"):
            shutil.copy(file, dags)
    environment = {
        "AIRFLOW_CONN_CLOUD_PARTNER_DEFAULT": json.dumps(emulator.connection),
        "PYTHONPATH": str(ROOT),
    }
    with LocalAirflow(home, dags, environment) as airflow:
        yield airflow


#: Dag and conf of the runs that need nobody to act on them.
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "example": ("go_live", {}),
    "deferred": ("go_live_then_wait", {"offer": "offer-0"}),
    "deferred, not migrated": ("go_live_then_wait", {"offer": "offer-1"}),
    "in a worker": ("wait_in_a_worker", {"offer": "offer-2"}),
    "in a worker, not migrated": ("wait_in_a_worker", {"offer": "offer-3"}),
    "in the same task": ("wait_in_the_same_task", {"offer": "offer-4"}),
    "in the same task, not migrated": ("wait_in_the_same_task", {"offer": "offer-5"}),
    "mapped": ("mapped", {"offers": ["offer-6", "offer-7"]}),
    "failing": ("go_live_then_wait", {"offer": "offer-failing"}),
}


@pytest.fixture(scope="session")
def runs(airflow: LocalAirflow) -> RunOf:
    """Start all those runs at once, since each of them mostly waits; Dag id and run id by name."""
    return {name: (dag_id, airflow.trigger(dag_id, conf)) for name, (dag_id, conf) in RUNS.items()}
