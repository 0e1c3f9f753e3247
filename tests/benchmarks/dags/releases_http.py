"""The same releases with Airflow's HTTP provider, as a user would write them without this provider.

`HttpSensor(deferrable=True)` does not fit: its trigger treats any response except a 404 as completion, and
with a `response_check` it waits in a worker. `HttpEventTrigger` of the same provider reads the responses.
Therefore, the sensor polls once in the worker, as `HttpSensor` does, and defers to `HttpEventTrigger`.
"""

from __future__ import annotations

import logging
from typing import Any

from airflow.providers.http.operators.http import HttpOperator
from airflow.providers.http.sensors.http import HttpSensor
from airflow.providers.http.triggers.http import HttpEventTrigger
from airflow.sdk import Param, dag, task, task_group

from tests.benchmarks.dags.http_check import ais_completed, is_completed

log = logging.getLogger(__name__)


class CompletedSensor(HttpSensor):
    """Wait in the triggerer until an operation completed; return its location."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(response_check=is_completed, **kwargs)

    def execute(self, context: Any) -> str:
        """Poll once, and wait in the triggerer if that brought no end."""
        if not self.poke(context):
            trigger = HttpEventTrigger(
                response_check_path=f"{ais_completed.__module__}.{ais_completed.__name__}",
                http_conn_id=self.http_conn_id,
                method=self.method,
                endpoint=self.endpoint,
                poll_interval=self.poke_interval,
            )
            self.defer(trigger=trigger, method_name="execute_complete")
        return self.endpoint

    def execute_complete(self, context: Any, event: dict[str, Any] | None = None) -> str:
        """Return where the operation is."""
        assert event is not None
        if event["status"] != "success":
            raise RuntimeError(event["message"])
        return self.endpoint


@task
def go_lives(params: Any = None) -> list[str]:
    """Return the paths at which the offers of this run go live."""
    offers = "/api/publishers/contoso/offers"
    return [f"{offers}/{offer}/golive?api-version=2017-10-31" for offer in params["offers"]]


@task
def announce(location: str) -> None:
    """Tell the world."""
    log.info("Live: %s", location)


@dag(schedule=None, params={"offers": Param([], type="array")}, max_active_tasks=1000)
def releases_http() -> None:
    """Take each offer live."""

    @task_group
    def release(endpoint: str) -> None:
        started = HttpOperator(
            task_id="go_live",
            endpoint=endpoint,
            method="POST",
            response_filter=lambda response: response.headers["Location"],
        )
        completed = CompletedSensor(task_id="wait", endpoint=started.output, poke_interval=10)
        announce(completed.output)

    release.expand(endpoint=go_lives())


releases_http()
