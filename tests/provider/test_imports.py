from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("azure.identity", "aiohttp", "requests", "airflow.providers.http")
#: Modules that Airflow imports for any operators and task groups.
BASELINE = """
from airflow.providers.common.compat.sdk import BaseOperator, BaseSensorOperator, task_group
"""


def imported(*codes: str) -> list[set[str]]:
    """The modules that a fresh interpreter has after each of some pieces of code."""
    report = "import json, sys; print(json.dumps(sorted(sys.modules)))"
    script = "\n".join(f"{code}\n{report}" for code in codes)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return [set(json.loads(line)) for line in done.stdout.splitlines() if line.startswith('["')]


def of_package(modules: set[str], package: str) -> set[str]:
    return {name for name in modules if name == package or name.startswith(f"{package}.")}


def test_dag_file_does_not_import_modules_needed_only_at_run_time() -> None:
    names = ("operators", "sensors")
    code = "\n".join(f"import airflow_provider_cpp.{name}.cloud_partner" for name in names)
    before, after = imported(BASELINE, f"{code}\nimport airflow_provider_cpp.task_groups")
    more = after - before
    assert of_package(more, "airflow_provider_cpp.sensors")
    assert {package: of_package(more, package) for package in HEAVY} == {package: set() for package in HEAVY}
    assert not of_package(more, "airflow_provider_cpp.hooks")


@pytest.mark.parametrize("module", ["core.polling", "core.models", "portal.requests", "portal.responses"])
def test_the_core_knows_neither_airflow_nor_a_way_to_send(module: str) -> None:
    (modules,) = imported(f"import airflow_provider_cpp.{module}")
    for package in ("airflow", *HEAVY):
        assert not of_package(modules, package)


def test_emulator_shares_no_code_with_the_provider() -> None:
    names = ("app", "documents", "faults", "identity", "journal", "operations", "seed", "server", "service")
    code = "\n".join(f"import airflow_provider_cpp.emulator.{name}" for name in names)
    (modules,) = imported(f"{code}\nimport airflow_provider_cpp.emulator.__main__")
    own = of_package(modules, "airflow_provider_cpp")
    assert own == {"airflow_provider_cpp"} | of_package(own, "airflow_provider_cpp.emulator")
    assert not of_package(modules, "airflow")


def test_the_provider_does_not_import_the_emulator() -> None:
    kinds = ("hooks", "operators", "sensors", "triggers")
    code = "\n".join(f"import airflow_provider_cpp.{kind}.cloud_partner" for kind in kinds)
    (modules,) = imported(f"{code}\nimport airflow_provider_cpp.get_provider_info")
    assert not of_package(modules, "airflow_provider_cpp.emulator")
    assert of_package(modules, "airflow_provider_cpp.hooks")
