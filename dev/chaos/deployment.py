"""A production-like deployment on one machine; each component can be killed and started again."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psutil
import psycopg2

from dev.chaos.plan import COMPONENTS, SERVICES
from dev.emulator_process import ROOT, Emulator
from dev.local_airflow import LocalAirflow
from dev.services import PostgreSQL, Redis, lasting_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from dev.chaos.plan import Plan

#: Settings with which Airflow notices a killed process within seconds instead of minutes.
SHORT_TIMEOUTS = {
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "3",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "20",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "3",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "25",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "45",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
    "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "5",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "3",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "3",
}


class Deployment:
    """PostgreSQL, Redis, the emulator, and Airflow with two workers and two triggerers.

    :param home: folder of all files of the deployment
    :param task_state: whether the provider uses Airflow's task state store
    """

    def __init__(self, home: Path, plan: Plan, *, task_state: bool = True) -> None:
        self.home = home
        self.task_state = task_state
        self.announcements = home / "announcements"
        self.journal = home / "emulator" / "state.requests"
        self.postgresql = PostgreSQL(home / "postgresql")
        self.redis = Redis(home / "redis")
        self._emulator_arguments = self._write_emulator_files(plan)
        self._emulator: Emulator | None = None
        self._airflow: LocalAirflow | None = None

    @property
    def airflow(self) -> LocalAirflow:
        assert self._airflow is not None
        return self._airflow

    @property
    def emulator(self) -> Emulator:
        """The running emulator.

        :raises ConnectionError: the emulator is down
        """
        if self._emulator is None:
            raise ConnectionError("The emulator is down.")
        return self._emulator

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self, progress: Callable[[str], None]) -> None:
        """Start all components and wait until they are healthy."""
        progress("starting PostgreSQL, Redis and the emulator")
        self.postgresql.start()
        self.postgresql.make_database()
        self.redis.start()
        self._emulator = Emulator(*self._emulator_arguments)
        self._airflow = self._make_airflow(self._emulator.connection)
        self._airflow.start(lambda line: progress(f"Airflow: {line}"))

    def stop(self) -> None:
        """Stop all components, in any state."""
        with ExitStack() as each:
            each.callback(self.redis.stop)
            each.callback(self.postgresql.stop)
            each.callback(self.sweep)
            if self._emulator:
                each.callback(self._emulator.close)
            if self._airflow:
                each.callback(self._airflow.stop)

    def is_up(self, target: str) -> bool:
        """Return whether a component runs."""
        if target in COMPONENTS:
            return self.airflow.pid(target) is not None
        if target == "emulator":
            return self._emulator is not None
        return self._service(target).is_running

    def end(self, target: str, *, graceful: bool = False) -> None:
        """Stop a component with all its processes, by default with SIGKILL."""
        if target in COMPONENTS:
            self.airflow.stop_component(target, kill=not graceful)
            self.sweep()
        elif target == "emulator":
            emulator, self._emulator = self.emulator, None
            if not graceful:
                emulator.kill()
            emulator.close()
        else:
            self._service(target).stop(kill=not graceful)

    def start_again(self, target: str) -> None:
        """Start a component that was killed or that stopped by itself."""
        if target in COMPONENTS:
            with suppress(KeyError):  # it was killed before
                self.airflow.stop_component(target, kill=True)
            self.sweep()
            self.airflow.start_component(target)
        elif target == "emulator":
            self._emulator = Emulator(*self._emulator_arguments)
        else:
            self._service(target).start()

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Query Airflow's database.

        :raises psycopg2.Error: the database is down
        """
        return self.postgresql.query(sql, *values)

    def has_database(self) -> bool:
        """Return whether Airflow's database answers."""
        try:
            return bool(self.query("SELECT 1"))
        except psycopg2.Error:
            return False

    def worker_of(self, task_instance_id: str) -> str | None:
        """Return the name of the worker that runs a task instance."""
        workers = {self.airflow.pid(name): name for name in COMPONENTS if name.startswith("worker")}
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.cmdline()[:1] == [f"airflow worker -- {task_instance_id}"]:
                    return next((workers[one.pid] for one in process.parents() if one.pid in workers), None)
        return None

    def sweep(self) -> None:
        """Kill processes of this Airflow whose component has stopped."""
        if self._airflow is None:
            return
        leaders = {self._airflow.pid(name) for name in COMPONENTS} - {None}
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("AIRFLOW_HOME") != str(self._airflow.home):
                    continue
                family = {process.pid, *(parent.pid for parent in process.parents())}
                if not family & leaders:
                    process.kill()

    def _service(self, target: str) -> PostgreSQL | Redis:
        assert target in SERVICES
        return self.postgresql if target == "postgresql" else self.redis

    def _write_emulator_files(self, plan: Plan) -> list[str]:
        home = self.home / "emulator"
        home.mkdir()
        seed, faults = home / "seed.json", home / "faults.json"
        seed.write_text(json.dumps(plan.emulator_seed))
        faults.write_text(json.dumps(plan.faults))
        options = {
            "--port": lasting_port(),
            "--seed": seed,
            "--faults": faults,
            "--random-seed": plan.seed,
            "--state": home / "state",
            "--token-lifetime": 20,
            "--token-valid": 15,
        }
        return [str(part) for option in options.items() for part in option]

    def _make_airflow(self, connection: dict[str, Any]) -> LocalAirflow:
        port = lasting_port()
        url = f"http://localhost:{port}"
        environment = {
            "AIRFLOW__API__BASE_URL": url,
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__CELERY__BROKER_URL": self.redis.url,
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{self.postgresql.url}",
            "AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER": "1",
            "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "90",
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CORE__PARALLELISM": "32",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self.postgresql.url,
            "AIRFLOW_CONN_CLOUD_PARTNER_DEFAULT": json.dumps(connection),
            "CHAOS_ANNOUNCEMENTS": str(self.announcements),
            "CHAOS_TASK_STATE": str(int(self.task_state)),
            "PYTHONPATH": str(ROOT),
            **SHORT_TIMEOUTS,
        }
        dags = Path(__file__).parent / "dags"
        airflow = LocalAirflow(self.home / "airflow", dags, environment, COMPONENTS)
        airflow.url = url
        return airflow


def moment() -> str:
    """Return the time of day for printed lines."""
    return time.strftime("%H:%M:%S")
