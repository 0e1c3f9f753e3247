"""A real Airflow on this machine, for the demo and the tests of complete Dags.

Scheduler, workers, triggerer, Dag processor and API server run as processes with their files in one folder.
They listen on free ports of the loopback interface only.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar, Self
from urllib.parse import quote

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: Airflow's minor version. Importing Airflow instead would make it read its settings.
AIRFLOW = tuple(map(int, version("apache-airflow").split(".")[:2]))

COMPONENTS = {
    "api-server": ["api-server"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}


class LocalAirflow:
    """Airflow's components as processes, with database and logs in one folder.

    :param home: the folder, used as AIRFLOW_HOME
    :param dags_folder: folder of the Dag files
    :param environment: additional environment variables, for example connections
    :param components: arguments of `airflow` by the name of the component
    """

    API = "/api/v2"
    HEALTH = "/monitor/health"
    #: Fields of every request that triggers a run.
    RUN: ClassVar[dict[str, Any]] = {"logical_date": None}

    def __init__(
        self,
        home: Path,
        dags_folder: Path,
        environment: Mapping[str, str],
        components: Mapping[str, Sequence[str]] = COMPONENTS,
    ) -> None:
        self.home = home
        self.components = components
        self.url = f"http://localhost:{free_port()}"
        self._token: str | None = None
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {
            # Without the settings of another Airflow on this machine.
            **{key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")},
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__API__BASE_URL": self.url,
            # Before Airflow 3.1, the API returns XCom values only with this setting.
            "AIRFLOW__API__ENABLE_XCOM_DESERIALIZE_SUPPORT": "True",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": self.url.rpartition(":")[2],
            "AIRFLOW__API__SECRET_KEY": secrets.token_urlsafe(),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(48),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags_folder),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "NO_PROXY": "localhost,127.0.0.1",
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONUNBUFFERED": "1",
            **environment,
        }

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self, progress: Callable[[str], None] = lambda line: None) -> None:
        """Create the database, start all components, and wait until they are healthy."""
        (self.home / "logs").mkdir(parents=True, exist_ok=True)
        progress("creating the database")
        self.run("db", "migrate")
        progress(f"starting {', '.join(self.components)}")
        for component in self.components:
            self.start_component(component)
            if component == "api-server":
                # Tasks that start before the API server answers fail, for example those of a Dag that is due.
                wait_for(self._answers, "Airflow's API server to answer", seconds=180)
        wait_for(self._is_healthy, "Airflow to be healthy", seconds=180)

    def start_component(self, component: str) -> None:
        """Start one component."""
        with self._log(component) as log:
            self._processes[component] = subprocess.Popen(
                [sys.executable, "-m", "airflow", *self.components[component]],
                env=self.environment,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C reaches only the parent process, which then stops the components.
                start_new_session=True,
            )

    def pid(self, component: str) -> int | None:
        """Return the process id of a component; None if it does not run."""
        process = self._processes.get(component)
        return process.pid if process and process.poll() is None else None

    def stop(self) -> None:
        """Stop all components and their child processes."""
        self._end(list(self._processes), kill=False)

    def stop_component(self, component: str, *, kill: bool = False) -> None:
        """Stop one component, with SIGTERM or SIGKILL."""
        self._end([component], kill=kill)

    def _end(self, components: list[str], *, kill: bool) -> None:
        processes = [self._processes.pop(component) for component in components]
        family: list[psutil.Process] = []
        for process in processes:
            with suppress(psutil.NoSuchProcess):  # the process may have exited
                leader = psutil.Process(process.pid)
                family += [leader, *leader.children(recursive=True)]
                if not kill:
                    process.terminate()
        _, alive = psutil.wait_procs(family, timeout=0 if kill else 10)
        for member in alive:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(alive, timeout=10)
        for process in processes:
            process.wait(timeout=10)

    def run(self, *arguments: str) -> str:
        """Run an Airflow command and return its output."""
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *arguments],
            env=self.environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"airflow {' '.join(arguments)} failed:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def connection(self, conn_id: str) -> dict[str, Any]:
        """Return a connection as Airflow stores it, including secrets."""
        output = self.run("connections", "get", conn_id, "--output", "json")
        # Airflow 3.2 writes log lines to the same stream first.
        (connection,) = json.loads(output.splitlines()[-1])
        return dict(connection)

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Call Airflow's API; `path` is relative to the version."""
        return self._request(method, f"{self.API}{path}", body, self._authorization())

    def _authorization(self) -> dict[str, str]:
        if self._token is None:
            self._token = self._request("GET", "/auth/token")["access_token"]
        return {"Authorization": f"Bearer {self._token}"}

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Wait until the Dag is known, start a run, and return its id."""
        wait_for(lambda: self.has_dag(dag_id), f"the Dag {dag_id} to be known", seconds=120)
        run_id = f"manual__{uuid.uuid4()}"
        body = {"dag_run_id": run_id, "conf": dict(conf or {}), **self.RUN}
        wait_for(lambda: self._has_begun(dag_id, body), f"a run of {dag_id} to start", seconds=60)
        return run_id

    def _has_begun(self, dag_id: str, body: Any) -> bool:
        try:
            self.api("POST", f"/dags/{dag_id}/dagRuns", body)
        except urllib.error.HTTPError as error:
            # 500: the SQLite database is locked for a while. 409: an earlier request created the run.
            if error.code not in (409, 500):
                raise
            return error.code == 409
        return True

    def has_dag(self, dag_id: str) -> bool:
        """Return whether the Dag is known; raise if a Dag file has an import error."""
        errors = self.api("GET", "/importErrors")["import_errors"]
        if errors:
            raise RuntimeError("\n".join(error["stack_trace"] for error in errors))
        try:
            return not self.api("GET", f"/dags/{dag_id}")["is_paused"]
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return False
            raise

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a run."""
        return str(self.api("GET", f"/dags/{dag_id}/dagRuns/{quote(run_id)}")["state"])

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return a run's task instances."""
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances?limit=100"
        found: list[dict[str, Any]] = []
        while True:
            page = self.api("GET", f"{path}&offset={len(found)}")
            found += page["task_instances"]
            if len(found) >= page["total_entries"] or not page["task_instances"]:
                return found

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """Return the latest runs of a Dag, at most 100."""
        found: list[dict[str, Any]] = self.api("GET", f"/dags/{dag_id}/dagRuns?limit=100")["dag_runs"]
        return found

    def question(self, ti: Mapping[str, Any]) -> dict[str, Any]:
        """Return the approval request of a task: subject, body, options and response."""
        found: dict[str, Any] = self.api("GET", f"{_path(ti)}/{ti['map_index']}/hitlDetails")
        return found

    def answer(self, ti: Mapping[str, Any], option: str) -> None:
        """Answer the approval request of a task, like a click in the UI."""
        self.wait_until_handed_over(ti)
        self.api("PATCH", f"{_path(ti)}/{ti['map_index']}/hitlDetails", {"chosen_options": [option]})

    def wait_until_handed_over(self, ti: Mapping[str, Any]) -> None:
        """Wait until the scheduler knows that the worker has finished the first part of an approval task.

        An earlier answer makes the task fail ("finished with state success, but the task instance's state
        attribute is queued"). Only a program answers that fast.
        """
        task = f"dag_id='{ti['dag_id']}', task_id='{ti['task_id']}', run_id='{ti['dag_run_id']}'"
        message = f"Received executor event with state success for task instance TaskInstanceKey({task}"
        line = re.compile(rf"{re.escape(message)}, try_number=\d+, map_index={ti['map_index']}\)")
        wait_for(
            lambda: bool(line.search(self.tail("scheduler", lines=0))),
            f"the scheduler to see the end of {ti['task_id']} in the worker",
            seconds=60,
        )

    def wait_for_question(
        self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1, seconds: float = 300
    ) -> dict[str, Any]:
        """Wait until a task requests an approval, and return its instance; `task_id` is without groups."""
        found: list[dict[str, Any]] = []

        def is_asked() -> bool:
            found[:] = [
                ti
                for ti in self.task_instances(dag_id, run_id)
                if ti["task_id"].rpartition(".")[2] == task_id
                and ti["map_index"] == map_index
                # Before Airflow 3.3, a task that requests an approval is deferred.
                and ti["state"] in ("awaiting_input", "deferred")
            ]
            if not found and (state := self.run_state(dag_id, run_id)) in ("success", "failed"):
                raise RuntimeError(
                    f"Run {run_id} of {dag_id}: {state}, and {task_id} did not request an approval."
                )
            return bool(found)

        wait_for(is_asked, f"{task_id} of {dag_id} to request an approval", seconds=seconds)
        return found[0]

    def clear_failed(self, dag_id: str, run_id: str) -> None:
        """Clear the failed tasks of a run, and the tasks that failed because of them."""
        body = {"dry_run": False, "dag_run_id": run_id, "only_failed": True, "reset_dag_runs": True}
        self.api("POST", f"/dags/{dag_id}/clearTaskInstances", body)

    def backfill(self, dag_id: str, first: str, last: str, *options: str) -> None:
        """Create a backfill, after all other backfills of the Dag are complete."""
        wait_for(lambda: self.has_dag(dag_id), f"the Dag {dag_id} to be known", seconds=120)
        # Airflow refuses a second backfill, and checks for completed ones every 30 s.
        self.wait_for_backfills(dag_id)
        days = ("--dag-id", dag_id, "--from-date", first, "--to-date", last)
        # With SQLite it may fail ("database is locked"). Airflow then deletes the runs that it has created,
        # and the scheduler crashes if it has started one. A paused Dag starts none.
        self.api("PATCH", f"/dags/{dag_id}", {"is_paused": True})
        try:
            wait_for(lambda: self._backfilled(*days, *options), f"a backfill of {dag_id}", seconds=120)
        finally:
            self.api("PATCH", f"/dags/{dag_id}", {"is_paused": False})

    def _backfilled(self, *arguments: str) -> bool:
        try:
            self.run("backfill", "create", *arguments)
        except RuntimeError as error:
            if "database is locked" not in str(error):
                raise
            return False
        return True

    def wait_for_backfills(self, dag_id: str, *, seconds: float = 600) -> None:
        """Wait until all backfills of a Dag are complete."""
        path = f"/backfills?dag_id={dag_id}&limit=100"
        wait_for(
            lambda: all(one["completed_at"] for one in self.api("GET", path)["backfills"]),
            f"the backfills of {dag_id} to be complete",
            seconds=seconds,
        )

    def runs_of(self, dag_id: str) -> list[dict[str, Any]]:
        """Return the runs of a Dag, at most 100."""
        found: list[dict[str, Any]] = self.api("GET", f"/dags/{dag_id}/dagRuns?limit=100")["dag_runs"]
        return found

    def xcom(self, ti: Mapping[str, Any], key: str = "return_value") -> Any:
        """Return an XCom of a task instance, by default its return value."""
        query = f"map_index={ti['map_index']}&deserialize=true&stringify=false"
        return self.api("GET", f"{_path(ti)}/xcomEntries/{key}?{query}")["value"]

    def task_log(self, ti: Mapping[str, Any]) -> str:
        """Return the logs of all tries of a task instance."""
        path = self.home / "logs" / f"dag_id={ti['dag_id']}" / f"run_id={ti['dag_run_id']}"
        path /= f"task_id={ti['task_id']}"
        if ti["map_index"] >= 0:
            path /= f"map_index={ti['map_index']}"
        return "".join(file.read_text() for file in sorted(path.glob("*.log*")))

    def wait_for_run(self, dag_id: str, run_id: str, *, seconds: float = 300) -> str:
        """Wait until a run has finished, and return its state."""
        wait_for(
            lambda: self.run_state(dag_id, run_id) in ("success", "failed"),
            f"run {run_id} of {dag_id} to finish",
            seconds=seconds,
        )
        return self.run_state(dag_id, run_id)

    def tail(self, component: str, lines: int = 15) -> str:
        """Return the last lines of a component's output; 0: all lines."""
        return "\n".join((self.home / "logs" / f"{component}.log").read_text().splitlines()[-lines:])

    def _log(self, component: str) -> IO[bytes]:
        return (self.home / "logs" / f"{component}.log").open("ab")

    def _answers(self) -> bool:
        return self._health() is not None

    def _is_healthy(self) -> bool:
        health = self._health()
        return health is not None and all(part["status"] == "healthy" for part in health.values())

    def _health(self) -> dict[str, Any] | None:
        """Return the health of the components; None if the API server does not answer yet."""
        for component, process in self._processes.items():
            if process.poll() is not None:
                raise RuntimeError(
                    f"airflow {component} exited with code {process.returncode}:\n{self.tail(component)}"
                )
        try:
            health: dict[str, Any] = self._request("GET", f"{self.API}{self.HEALTH}")
        except OSError:
            return None
        return health

    def _request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        request = urllib.request.Request(
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **(headers or {})},
            method=method,
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as response:
            return json.loads(response.read() or b"null")


def _path(ti: Mapping[str, Any]) -> str:
    return f"/dags/{ti['dag_id']}/dagRuns/{quote(ti['dag_run_id'])}/taskInstances/{ti['task_id']}"


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(condition: Callable[[], bool], subject: str, *, seconds: float) -> None:
    """Wait until a condition is true.

    :param subject: the expected event, for the error message: "the Dag to be known"
    :raises TimeoutError: the condition is still false after so many seconds
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"Waited {seconds:g} s for {subject}.")
        time.sleep(0.25)
