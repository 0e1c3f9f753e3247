"""A real Airflow at DEBUG: its logs and its database after successful and failed releases.

The connection comes from the environment, and for one run from the database, which encrypts it. Every request
goes through a gateway that notes tokens; every file of the logs and every value of every table is searched.
"""

from __future__ import annotations

import json
import pickle
import sqlite3
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.fernet import Fernet

from dev.emulator_process import running_emulator
from dev.local_airflow import LocalAirflow, wait_for
from tests.provider.harness import SAS_URL, SIGNATURE, UNREADABLE
from tests.security.listening import Listener, make_ground
from tests.security.searching import Secrets

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
SCALE = 20
SECRET = "S3cret~of.the_principal-8Q~xYz0123456789"
OFFERS = ("deferred", "worker", "stored", "failing")
DAGS = """
from airflow.providers.common.compat.sdk import dag
from airflow_provider_cpp.operators.cloud_partner import GetOfferOperator, GoLiveOperator, UpdateOfferOperator
from airflow_provider_cpp.sensors.cloud_partner import OfferStatusSensor, OperationSensor

@dag(schedule=None, params={"offer": "", "conn": "cloud_partner_default", "deferrable": True},
     render_template_as_native_obj=True)
def secretive():
    common = {"offer_id": "{{ params.offer }}", "cloud_partner_conn_id": "{{ params.conn }}"}
    definition = {"displayText": "{{ run_id }}", "plans": [{"osVhdUrl": "{{ var.value.sas_url }}"}]}
    change = UpdateOfferOperator(task_id="change", definition=definition, **common)
    live = GoLiveOperator(task_id="go_live", **common)
    deferred = OperationSensor(task_id="deferred", operation_location=live.output, poke_interval=3,
        cloud_partner_conn_id="{{ params.conn }}")
    worker = OperationSensor(task_id="worker", operation_location=live.output, poke_interval=3,
        deferrable=False, cloud_partner_conn_id="{{ params.conn }}")
    read = GetOfferOperator(task_id="read", trigger_rule="all_done", **common)
    change >> live >> [deferred, worker] >> read

secretive()
"""


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalAirflow, Listener, Secrets]]:
    """An Airflow after all runs, and every secret that was in use."""
    directory = tmp_path_factory.mktemp("security")
    home = directory / "airflow"
    dags = home / "dags"
    dags.mkdir(parents=True)
    (dags / "secretive.py").write_text(DAGS)
    offers: list[dict[str, Any]] = [
        {"id": offer, "state": "preview", "stepSeconds": {"live": 12 * SCALE}} for offer in OFFERS
    ]
    offers[-1]["fail"] = {"step": "live", "messages": [UNREADABLE]}
    principal = {
        "tenantId": "11111111-2222-3333-4444-555555555555",
        "clientId": "66666666-7777-8888-9999-000000000000",
        "secret": SECRET,
        "publishers": ["contoso"],
    }
    seed = directory / "seed.json"
    seed.write_text(
        json.dumps({"publishers": [{"id": "contoso", "offers": offers}], "principals": [principal]})
    )
    fernet = Fernet.generate_key().decode()
    options = ("--seed", str(seed), "--time-scale", str(SCALE), "--token-lifetime", "5")
    with running_emulator(*options) as emulator:
        ground = make_ground(directory, Path(emulator.ca))
        with ground.listener(emulator) as gateway:
            connection = emulator.connection | {"host": gateway.url}
            connection["extra"] |= {"authority": gateway.url, "verify": ground.verify}
            environment = {
                "AIRFLOW_CONN_CLOUD_PARTNER_DEFAULT": json.dumps(connection),
                "AIRFLOW__CORE__FERNET_KEY": fernet,
                "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
                "AIRFLOW__LOGGING__FAB_LOGGING_LEVEL": "DEBUG",
                "AIRFLOW__LOGGING__CELERY_LOGGING_LEVEL": "DEBUG",
                "AIRFLOW_VAR_SAS_URL": SAS_URL,
                "PYTHONASYNCIODEBUG": "1",
                "PYTHONPATH": str(ROOT),
            }
            with LocalAirflow(home, dags, environment) as airflow:
                airflow.run("connections", "add", "stored", "--conn-json", json.dumps(connection))
                runs = {
                    offer: airflow.trigger(
                        "secretive",
                        {"offer": offer, "conn": "stored" if offer == "stored" else "cloud_partner_default"},
                    )
                    for offer in OFFERS
                }
                # Triggers are deleted when all runs ended; a copy in the log folder is searched, too.
                wait_for(lambda: _keep_triggers(home), "a wait to be in the triggerer", seconds=120)
                for offer, run_id in runs.items():
                    state = airflow.wait_for_run("secretive", run_id, seconds=400)
                    tasks = airflow.task_instances("secretive", run_id)
                    assert state in ("success", "failed"), tasks
                    waits = {t["task_id"]: t["state"] for t in tasks}
                    wanted = "failed" if offer == "failing" else "success"
                    assert (waits["deferred"], waits["worker"]) == (wanted, wanted), waits
                # Each user who may read the Dag sees these fields.
                shown = {
                    f"{offer} {task['task_id']}": task
                    for offer, run_id in runs.items()
                    for task in airflow.task_instances("secretive", run_id)
                }
                (home / "shown.json").write_text(json.dumps(shown))
            secrets = Secrets()
            secrets.add("client secret", SECRET)
            secrets.add("SAS signature", SIGNATURE)
            for sent in gateway.requests:
                secrets.learn(sent.headers, sent.body)
            for passed in gateway.passed:
                secrets.learn({}, passed.body)
            (home / "emulator.log").write_text(emulator.stderr)
            yield airflow, gateway, secrets


def _keep_triggers(home: Path) -> bool:
    rows = [row for row in tables(home / "airflow.db") if row[0] == "trigger"]
    (home / "triggers").write_text(json.dumps(rows, default=str))
    return any("OperationTrigger" in str(value) for _, _, value in rows)


def unpacked(value: Any) -> Iterator[bytes]:
    """Yield a value of a table as it is stored, and unpacked."""
    if value is None or isinstance(value, int | float):
        return
    data = value.encode() if isinstance(value, str) else bytes(value)
    yield data
    for unpack in (zlib.decompress, _unpickled, _from_json):
        try:
            yield unpack(data)
        except Exception:
            continue


def _unpickled(data: bytes) -> bytes:
    # The Airflow of this test wrote the data.
    return repr(pickle.loads(data)).encode()


def _from_json(data: bytes) -> bytes:
    document = json.loads(data)
    return json.dumps(document, ensure_ascii=False).encode() + (
        _from_json(document.encode()) if isinstance(document, str) else b""
    )


def tables(database: Path) -> Iterator[tuple[str, str, Any]]:
    """Every value of every table: table, column and value."""
    with sqlite3.connect(database) as connection:
        names = [
            name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")
        ]
        for name in names:
            cursor = connection.execute(f'select * from "{name}"')
            columns = [column[0] for column in cursor.description]
            for row in cursor:
                yield from zip([name] * len(row), columns, row, strict=True)


def test_no_log_has_a_secret(used: tuple[LocalAirflow, Listener, Secrets]) -> None:
    airflow, gateway, secrets = used
    assert len([name for name in secrets.known.values() if name.startswith("access")]) > 5
    files = [file for file in airflow.home.rglob("*") if file.is_file() and "dags" not in file.parts]
    logs = [(str(file.relative_to(airflow.home)), file.read_bytes()) for file in files]
    said = [text for name, text in logs if "task_id=" in name]
    assert any(b"debug" in text.lower() for text in said)
    assert {"triggerer.log", "scheduler.log", "triggers"} <= {Path(name).name for name, _ in logs}
    print(  # noqa: T201  for the figures of docs/security.md
        f"{len(secrets.known)} secrets, {len(secrets.needles())} forms; {len(logs)} files, "
        f"{sum(len(text) for _, text in logs)} bytes; {len(gateway.requests)} requests"
    )
    hits = secrets.find_all(logs)
    assert not hits, "\n".join(hits)


def test_no_table_has_a_secret_but_the_connections_encrypted_columns(
    used: tuple[LocalAirflow, Listener, Secrets],
) -> None:
    airflow, _, secrets = used
    places: list[tuple[str, str | bytes]] = []
    seen: set[str] = set()
    stored: dict[str, list[Any]] = {}
    for table, column, value in tables(airflow.home / "airflow.db"):
        seen.add(table)
        if table == "connection":
            stored.setdefault(column, []).append(value)
        places += [(f"{table}.{column}", data) for data in unpacked(value)]
    assert {"xcom", "rendered_task_instance_fields", "task_instance", "connection", "log"} <= seen
    print(f"{len(seen)} tables, {len(places)} values")  # noqa: T201
    hits = secrets.find_all(places)
    assert not hits, "\n".join(hits)
    # The connection in the database is encrypted with the Fernet key.
    assert stored["conn_id"] == ["stored"]
    key = Fernet(airflow.environment["AIRFLOW__CORE__FERNET_KEY"])
    assert key.decrypt(stored["password"][0].encode()).decode() == SECRET
    assert json.loads(key.decrypt(stored["extra"][0].encode()))["publisherId"] == "contoso"
