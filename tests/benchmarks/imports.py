"""The cost of importing a provider's operators and sensors in a fresh interpreter, in addition to the SDK.

Each task and each parsing of a Dag file has this cost.
"""

from __future__ import annotations

import importlib
import json
import sys
import time

#: The part of Airflow that every Dag file imports.
SDK = "airflow.sdk"
_USED = ("DAG", "BaseOperator", "BaseSensorOperator", "task")
MODULES = {
    "airflow-provider-cpp": (
        "airflow_provider_cpp.operators.cloud_partner",
        "airflow_provider_cpp.sensors.cloud_partner",
    ),
    "apache-airflow-providers-http": (
        "airflow.providers.http.operators.http",
        "airflow.providers.http.sensors.http",
    ),
    "apache-airflow-providers-dbt-cloud": (
        "airflow.providers.dbt.cloud.operators.dbt",
        "airflow.providers.dbt.cloud.sensors.dbt",
    ),
    "airflow-provider-fivetran-async": (
        "fivetran_provider_async.operators",
        "fivetran_provider_async.sensors",
    ),
}


def main(distribution: str) -> None:
    """Import the SDK and the modules of a distribution, and print wall and CPU seconds."""
    began = _now()
    for name in _USED:
        getattr(importlib.import_module(SDK), name)
    had_sdk = _now()
    for module in MODULES[distribution]:
        importlib.import_module(module)
    ended = _now()
    sdk, beyond = (
        {"wall": until[0] - since[0], "cpu": until[1] - since[1]}
        for since, until in ((began, had_sdk), (had_sdk, ended))
    )
    sys.stdout.write(json.dumps({"sdk": sdk, "beyond": beyond}) + "\n")


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


if __name__ == "__main__":
    main(sys.argv[1])
