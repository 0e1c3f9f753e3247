"""The distributions contain exactly the intended files, and builds are reproducible."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import HeaderParser
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_cpp import __version__
from dev.emulator_process import running_emulator

if TYPE_CHECKING:
    from email.message import Message

ROOT = Path(__file__).parents[2]
PACKAGE = "airflow_provider_cpp"
NAME = f"{PACKAGE}-{__version__}"
#: Files of a used checkout that no release may contain.
LITTER = (
    f"{PACKAGE}/__pycache__/api.pyc",
    f"{PACKAGE}/emulator/notes.txt~",
    "tests/__pycache__/conftest.pyc",
    "docs/_build/html/index.html",
    "dist/old.whl",
    ".demo/airflow/airflow.db",
    ".venv/bin/python",
    ".coverage",
    "connection.json",
    "rehearsal.json.tls/ca.key",
)
TOP = {
    ".ci",
    ".gitignore",
    ".pre-commit-config.yaml",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "PKG-INFO",
    "README.md",
    "SECURITY.md",
    PACKAGE,
    "constraints",
    "dev",
    "docs",
    "example_dags",
    "noxfile.py",
    "pyproject.toml",
    "tests",
}


def copy(source: Path, target: Path) -> Path:
    """Copy a checkout without generated files, and return the path of the copy."""
    ignored = shutil.ignore_patterns(
        ".git", ".*_cache", ".demo", ".hypothesis", ".nox", ".venv", "__pycache__", "_build", "dist"
    )
    shutil.copytree(source, target, ignore=ignored)
    return target


def build(checkout: Path) -> Path:
    """Build sdist and wheel, and return where they are."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build"],
        cwd=checkout,
        check=True,
        capture_output=True,
        timeout=60,
        env={key: value for key, value in os.environ.items() if key != "SOURCE_DATE_EPOCH"},
    )
    return checkout / "dist"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sdist and wheel, built in a clean checkout."""
    return build(copy(ROOT, tmp_path_factory.mktemp("clean") / "checkout"))


@pytest.fixture(scope="module")
def wheel(dist: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(dist / f"{NAME}-py3-none-any.whl")


@pytest.fixture(scope="module")
def sdist(dist: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(dist / f"{NAME}.tar.gz") as archive:
        return {member.name.removeprefix(f"{NAME}/"): member for member in archive.getmembers()}


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    return HeaderParser().parsestr(wheel.read(f"{NAME}.dist-info/METADATA").decode())


@pytest.fixture(scope="module")
def installed(wheel: zipfile.ZipFile, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that has the wheel, and nothing of the repository."""
    site = tmp_path_factory.mktemp("site")
    wheel.extractall(site)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
    return kept | {"PYTHONPATH": str(site), "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow"))}


def run(installed: dict[str, str], *command: str) -> str:
    """Run Python outside the repository, and return its output."""
    result = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=installed,
        cwd=installed["AIRFLOW_HOME"],
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_another_folder_brings_the_same_bytes_and_no_litter(dist: Path, tmp_path: Path) -> None:
    checkout = copy(dist.parent, tmp_path / "elsewhere")
    for name in LITTER:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("litter")
    for file in checkout.glob("**/*.py"):
        file.chmod(0o600)
        os.utime(file, (0, 0))
    again = build(checkout)
    for first in sorted(dist.iterdir()):
        second = again / first.name
        assert sha256(first.read_bytes()).digest() == sha256(second.read_bytes()).digest(), first.name


def test_the_sdist_builds_the_same_wheel(dist: Path, tmp_path: Path) -> None:
    with tarfile.open(dist / f"{NAME}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    wheel = f"{NAME}-py3-none-any.whl"
    assert (build(tmp_path / NAME) / wheel).read_bytes() == (dist / wheel).read_bytes()


def test_the_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile, dist: Path) -> None:
    package = {str(file.relative_to(dist.parent)) for file in (dist.parent / PACKAGE).glob("**/*.py")}
    names = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
    about = {f"{NAME}.dist-info/{name}" for name in names}
    assert set(wheel.namelist()) == package | {f"{PACKAGE}/py.typed"} | about


def test_sdist_holds_only_the_files_that_make_needs(sdist: dict[str, tarfile.TarInfo]) -> None:
    assert {name.partition("/")[0] for name in sdist} == TOP
    kinds = {Path(name).suffix for name in sdist if not name.startswith(".") and "/" in name}
    assert kinds <= {".css", ".json", ".md", ".png", ".py", ".svg", ".txt", ".typed"}
    for wanted in (".ci/run", "docs/conf.py", "example_dags/go_live.py", "tests/conftest.py", "dev/demo.py"):
        assert wanted in sdist
    assert sdist[".ci/run"].mode & 0o100


def test_metadata_lists_the_requirements(metadata: Message) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (metadata["Name"], metadata["Version"]) == ("airflow-provider-cpp", __version__)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == project["requires-python"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "Framework :: Apache Airflow :: Provider" in metadata.get_all("Classifier", [])
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert {re.split(r"[<>=]", line)[0] for line in required} == {
        "apache-airflow",
        "apache-airflow-providers-common-compat",
        "apache-airflow-providers-http",
        "azure-identity",
        # Imported directly.
        "aiohttp",
        "azure-core",
        "packaging",
        "pyyaml",
        "requests",
        "requests-toolbelt",
        "tenacity",
        "urllib3",
        "yarl",
    }
    assert set(metadata.get_all("Provides-Extra", [])) == set(project["optional-dependencies"])


def test_changelog_has_the_current_or_an_unreleased_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$", text, re.MULTILINE)
    assert "## [Unreleased]" in text
    assert not released or released[0] == __version__
    kinds = set(re.findall(r"^### (.+)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_version_is_defined_in_one_place() -> None:
    said = [
        str(file.relative_to(ROOT))
        for file in (ROOT / "pyproject.toml", *(ROOT / PACKAGE).glob("**/*.py"))
        if re.search(rf"[\"']{re.escape(__version__)}[\"']", file.read_text())
    ]
    assert said == [f"{PACKAGE}/__init__.py"]


def test_airflow_and_the_shell_find_the_installed_package(installed: dict[str, str]) -> None:
    code = """
import json, sys
from importlib.metadata import distributions
import airflow_provider_cpp
here = [d for d in distributions(path=[sys.argv[1]]) if d.metadata["Name"] == "airflow-provider-cpp"]
points = {point.group: point for point in here[0].entry_points}
info = points["apache_airflow_provider"].load()()
print(json.dumps({
    "file": airflow_provider_cpp.__file__,
    "info": info,
    "script": [points["console_scripts"].name, points["console_scripts"].load().__module__],
}))
"""
    said = json.loads(run(installed, "-c", code, installed["PYTHONPATH"]))
    assert said["file"].startswith(installed["PYTHONPATH"])
    assert said["info"]["package-name"] == "airflow-provider-cpp"
    assert said["info"]["versions"] == [__version__]
    assert said["script"] == ["cloud-partner-emulator", "airflow_provider_cpp.emulator.__main__"]
    assert "--time-scale" in run(installed, "-m", "airflow_provider_cpp.emulator", "--help")


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_example_dags_run_with_the_wheel_alone(
    installed: dict[str, str], dist: Path, tmp_path: Path
) -> None:
    with tarfile.open(dist / f"{NAME}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    dags = tmp_path / NAME / "example_dags"
    for file in sorted(dags.iterdir()):
        run(installed, str(file))
    with running_emulator("--time-scale", "200000") as emulator:
        installed |= {
            "AIRFLOW_CONN_CLOUD_PARTNER_DEFAULT": json.dumps(emulator.connection),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        }
        run(installed, "-m", "airflow", "db", "migrate")
        said = run(installed, "-m", "airflow", "dags", "test", "go_live")
        assert len(re.findall(r"^Live: ", said, re.MULTILINE)) == 3
        effects = [request["effect"] for request in emulator.requests(method="POST", path="golive$")]
        assert effects == [True] * 3
