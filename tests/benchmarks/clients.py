"""The compared clients: this provider, three others, and a bare aiohttp session.

Each client creates its waits as the triggerer does, from the stored arguments of a trigger.
"""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tests.benchmarks.server import TENANT, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

LOCATION = "/api/publishers/contoso/offers/offer-{}/operations/{}?api-version=2017-10-31"


@dataclass(frozen=True)
class Task:
    """The work of a client.

    :param target: the server to poll
    :param waits: number of operations to wait for
    :param interval: seconds between two polls of one wait
    :param trigger: class path and arguments of this provider's trigger, as the sensor hands it over
    """

    target: Target
    waits: int
    interval: float
    trigger: tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Client:
    """A client that waits for operations.

    :param title: name in the tables
    :param distribution: package that contains the client
    :param make: function that returns the waits
    """

    title: str
    distribution: str
    make: Callable[[Task], list[Coroutine[Any, Any, bool]]]


def connections(target: Target) -> dict[str, str]:
    """The connections of all clients, for the environment."""
    host = target.url.removeprefix("https://")
    cloud_partner = {
        "conn_type": "cloud_partner",
        "host": target.url,
        "login": "0f7e6c1d-7a55-4f0b-8f0e-5d3c2b1a9e01",
        "password": "a-client-secret",
        "extra": {
            "tenantId": TENANT,
            "authority": target.url,
            "publisherId": "contoso",
            "verify": target.ca,
        },
    }
    dbt_cloud = {"conn_type": "dbt_cloud", "host": host, "login": "1", "password": "a-token-of-dbt-cloud"}
    http = {"conn_type": "http", "host": target.url}
    fivetran = {"conn_type": "fivetran", "login": "a-key", "password": "a-secret-of-fivetran"}
    return {
        "AIRFLOW_CONN_CLOUD_PARTNER_DEFAULT": json.dumps(cloud_partner),
        "AIRFLOW_CONN_DBT_CLOUD_DEFAULT": json.dumps(dbt_cloud),
        "AIRFLOW_CONN_HTTP_DEFAULT": json.dumps(http),
        "AIRFLOW_CONN_FIVETRAN_DEFAULT": json.dumps(fivetran),
        "SSL_CERT_FILE": target.ca,
    }


def _ours(task: Task) -> list[Coroutine[Any, Any, bool]]:
    path, arguments = task.trigger
    # As constant as the others' are. All are due at once, as after an outage of the triggerer.
    pace = {"poke_interval": task.interval, "exponential_backoff": False}
    arguments = {**arguments, "spec": {**arguments["spec"], **pace}, "first_poll_at": 0.0}
    trigger = _load(path)
    return [
        _until_event(
            trigger(**{**arguments, "operation_location": location}),
            lambda event: event["status"] == "succeeded",
        )
        for location in _locations(task)
    ]


def _bare(task: Task) -> list[Coroutine[Any, Any, bool]]:
    import aiohttp
    from yarl import URL

    session: aiohttp.ClientSession | None = None
    under_way = task.waits
    headers = {"Authorization": "Bearer an-opaque-token-" + "0123456789" * 120}

    async def wait(url: URL) -> bool:
        nonlocal session, under_way
        if session is None:
            session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        try:
            while True:
                async with session.get(url, headers=headers) as answer:
                    operation = json.loads(await answer.read())
                if operation["status"] == "succeeded":
                    return True
                # As random as this provider's.
                await asyncio.sleep(task.interval * (1 - 0.15 * random.random()))
        finally:
            under_way -= 1
            if not under_way:
                await session.close()

    return [wait(URL(task.target.url + location, encoded=True)) for location in _locations(task)]


def _dbt_cloud(task: Task) -> list[Coroutine[Any, Any, bool]]:
    trigger = _load("airflow.providers.dbt.cloud.triggers.dbt.DbtCloudRunJobTrigger")
    common = {
        "conn_id": "dbt_cloud_default",
        "account_id": 1,
        "end_time": task.trigger[1]["spec"]["deadline"],
        "poll_interval": task.interval,
        "hook_params": {},
    }
    return [
        _until_event(trigger(run_id=number, **common), lambda event: event["status"] == "success")
        for number in range(task.waits)
    ]


def _http(task: Task) -> list[Coroutine[Any, Any, bool]]:
    trigger = _load("airflow.providers.http.triggers.http.HttpSensorTrigger")
    return [
        _until_event(
            trigger(endpoint=f"sensed/{number}", poke_interval=task.interval), lambda event: event is True
        )
        for number in range(task.waits)
    ]


def _fivetran(task: Task) -> list[Coroutine[Any, Any, bool]]:
    import pendulum

    # The only way to another host than Fivetran's.
    hook = _load("fivetran_provider_async.hooks.FivetranHook")
    hook.api_host = task.target.url.removeprefix("https://")
    trigger = _load("fivetran_provider_async.triggers.FivetranTrigger")
    common = {
        "task_id": "wait",
        "fivetran_conn_id": "fivetran_default",
        "previous_completed_at": pendulum.datetime(2026, 3, 28, 20),
        "poke_interval": task.interval,
    }
    return [
        _until_event(
            trigger(connector_id=f"connector_{number}", **common), lambda event: event["status"] == "success"
        )
        for number in range(task.waits)
    ]


def _sleeping(task: Task) -> list[Coroutine[Any, Any, bool]]:
    async def sleep() -> bool:
        await asyncio.sleep(3600)
        return True

    return [sleep() for _ in range(task.waits)]


OURS, BARE, SLEEPING = "ours", "bare", "sleeping"
CLIENTS = {
    OURS: Client("this provider", "airflow-provider-cpp", _ours),
    BARE: Client("bare aiohttp", "aiohttp", _bare),
    "dbt_cloud": Client("dbt Cloud", "apache-airflow-providers-dbt-cloud", _dbt_cloud),
    "http": Client("HTTP sensor", "apache-airflow-providers-http", _http),
    "fivetran": Client("Fivetran", "airflow-provider-fivetran-async", _fivetran),
    SLEEPING: Client("asyncio task that sleeps", "", _sleeping),
}
PEERS = ("dbt_cloud", "http", "fivetran")


async def _until_event(trigger: Any, is_good: Callable[[Any], bool]) -> bool:
    """Run a trigger as the triggerer does, and say whether its one event is a good one."""
    events = [event.payload async for event in trigger.run()]
    return len(events) == 1 and is_good(events[0])


def _locations(task: Task) -> Iterator[str]:
    for number in range(task.waits):
        yield LOCATION.format(number, f"56615b67-2185-49fe-80d2-{number:012}")


def _load(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)
