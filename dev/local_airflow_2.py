"""A real Airflow 2 on this machine, for the tests of complete Dags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from dev.local_airflow import LocalAirflow

if TYPE_CHECKING:
    from pathlib import Path

COMPONENTS = {
    # The keys are the names of the components in Airflow 3.
    "api-server": ["webserver", "--workers", "1"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}


class LocalAirflow2(LocalAirflow):
    """A :class:`LocalAirflow` with the API and settings of Airflow 2."""

    API = "/api/v1"
    HEALTH = "/health"
    RUN: ClassVar[dict[str, Any]] = {}

    def __init__(self, home: Path, dags_folder: Path, environment: dict[str, str]) -> None:
        super().__init__(home, dags_folder, environment, COMPONENTS)
        _, _, port = self.url.rpartition(":")
        settings = {
            "AIRFLOW__API__AUTH_BACKENDS": "airflow.api.auth.backend.default",
            "AIRFLOW__SCHEDULER__DAG_DIR_LIST_INTERVAL": "5",
            "AIRFLOW__WEBSERVER__BASE_URL": self.url,
            "AIRFLOW__WEBSERVER__SECRET_KEY": self.environment["AIRFLOW__API__SECRET_KEY"],
            "AIRFLOW__WEBSERVER__WEB_SERVER_HOST": "127.0.0.1",
            "AIRFLOW__WEBSERVER__WEB_SERVER_PORT": port,
        }
        self.environment |= settings
        # With SQLite, Airflow 2 can only run one task at a time.
        if self.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].startswith("sqlite"):
            self.environment["AIRFLOW__CORE__EXECUTOR"] = "SequentialExecutor"
        # Every user is an administrator, as with Airflow 3 in these tests.
        (home / "webserver_config.py").write_text('AUTH_ROLE_PUBLIC = "Admin"\n')

    def _authorization(self) -> dict[str, str]:
        return {}

    def _health(self) -> dict[str, Any] | None:
        # The scheduler parses the Dag files, so there is no Dag processor and no status of one.
        health = super()._health()
        return health and {name: part for name, part in health.items() if name != "dag_processor"}
