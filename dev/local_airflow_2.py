"""A real Airflow 2 on this machine, for the tests of whole Dags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from dev.local_airflow import LocalAirflow

if TYPE_CHECKING:
    from pathlib import Path

COMPONENTS = {
    # By the name that it has in Airflow 3.
    "api-server": ["webserver", "--workers", "1"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}


class LocalAirflow2(LocalAirflow):
    """Airflow 2, whose API and settings have other names; as a :class:`LocalAirflow` otherwise."""

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
        # Airflow 2 runs several tasks at once on a database with a server only.
        if self.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].startswith("sqlite"):
            self.environment["AIRFLOW__CORE__EXECUTOR"] = "SequentialExecutor"
        # Whoever asks is an administrator, as in the Airflow 3 of these tests.
        (home / "webserver_config.py").write_text('AUTH_ROLE_PUBLIC = "Admin"\n')

    def _authorization(self) -> dict[str, str]:
        return {}

    def _health(self) -> dict[str, Any] | None:
        # Its scheduler processes the Dag files, and the Dag processor that isn't there has no status.
        health = super()._health()
        return health and {name: part for name, part in health.items() if name != "dag_processor"}
