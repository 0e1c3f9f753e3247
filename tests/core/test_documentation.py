"""The examples, options and messages in the documentation match the code."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import Connection

from airflow_provider_cpp.emulator.__main__ import main as emulator_main
from airflow_provider_cpp.hooks.cloud_partner import Settings
from dev.emulator_process import running_emulator
from dev.services import lasting_port
from tests.provider.harness import TaskInstance, finish

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("**/*.md"))]
EXAMPLES = [file.read_text() for file in sorted((ROOT / "example_dags").glob("*.py"))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def lines(code: str) -> str:
    """Code without what depends on where it is shown: its indentation and its blank lines."""
    return "\n".join(filter(None, (line.strip() for line in code.splitlines())))


def fences(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{re.escape(language)}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def test_every_piece_of_python_in_the_readme_is_in_an_example_dag() -> None:
    shown = fences(ROOT / "README.md", "python")
    assert shown
    for code in shown:
        assert any(lines(code) in lines(example) for example in EXAMPLES), code


@pytest.mark.parametrize("page", [page for page in PAGES if page.is_relative_to(DOCS)], ids=name_of)
def test_python_is_included_from_a_file_that_has_it(page: Path) -> None:
    assert fences(page, "python") == []
    for path, options in re.findall(
        r"^```\{literalinclude\} (\S+)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE
    ):
        file = (page.parent / path).resolve()
        # Only what tests run is shown.
        assert file.parent in (ROOT / "example_dags", DOCS / "examples")
        text = file.read_text()
        for option, value in re.findall(
            r"^:(start-after|start-at|end-before|pyobject): (.+)$", options, re.MULTILINE
        ):
            wanted = f"def {value}(" if option == "pyobject" else value.strip('"')
            assert wanted in text, f"{option} {value}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]*)(?:#[^)]*)?\)", page.read_text())
    assert [target for target in targets if target and not (page.parent / target).exists()] == []


def test_every_page_is_in_the_index() -> None:
    linked = set(re.findall(r"\]\(([^)#]+\.md)\)", (DOCS / "index.md").read_text()))
    pages = {str(page.relative_to(DOCS)) for page in PAGES if page.is_relative_to(DOCS)}
    api = {page for page in pages if page.startswith("api/")}
    assert linked == (pages - api - {"index.md"}) | {"api/index.md"}


def test_the_connections_that_are_shown_can_be_used(tmp_path: Path) -> None:
    certificate = tmp_path / "release.pem"
    certificate.touch()
    shown = fences(DOCS / "authentication.md", "json")
    assert len(shown) == 5
    for document in shown:
        fields = json.loads(document.replace("/etc/airflow/release.pem", str(certificate)))
        extra = fields.pop("extra")
        connection = Connection(conn_id="shown", **fields, extra=json.dumps(extra))
        assert Settings.from_connection(connection, extra).publisher(None) == "contoso"


def test_documented_emulator_options_match_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        emulator_main(["--help"])
    option = re.compile(r"--[a-z-]+")
    documented = re.search(r"## Options\n(.*?)\n## ", (DOCS / "emulator.md").read_text(), re.DOTALL)
    assert documented
    shown = {
        name
        for row in re.findall(r"^\| (`--.*?) \|", documented[1], re.MULTILINE)
        for name in option.findall(row)
    }
    assert shown == set(option.findall(capsys.readouterr().out)) - {"--help"}


def package_texts() -> Iterator[str]:
    """Every string in the package that is not a docstring, with … for each placeholder."""
    for file in (ROOT / "airflow_provider_cpp").glob("**/*.py"):
        nodes = list(ast.walk(ast.parse(file.read_text())))
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                yield "".join(map(str, parts))


def test_every_message_in_troubleshooting_exists_in_the_package() -> None:
    said = list(package_texts())
    rows = re.findall(r"^\| (`.*?`) \| ", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(rows) > 40
    for row in rows:
        for message in re.findall(r"`(.+?)`(?: or |$)", row):
            assert any(message in text for text in said), message


def test_the_examples_of_the_how_to_guides_work(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("howto", DOCS / "examples" / "howto.py")
    assert spec
    assert spec.loader
    howto = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(howto)
    results: dict[str, Any] = {}
    # A publish and a go-live take a few seconds.
    with running_emulator("--time-scale", "200000") as emulator:
        monkeypatch.setenv("AIRFLOW_CONN_CLOUD_PARTNER_DEFAULT", json.dumps(emulator.connection))
        for task in howto.live.dag.tasks:
            task.poke_interval = 0.1
            for name in task.template_fields:
                # The result of an earlier task.
                if before := getattr(getattr(task, name), "operator", None):
                    setattr(task, name, results[before.task_id])
            context = {
                "ti": TaskInstance(),
                "ds": "2026-03-01",
                "dag_run": SimpleNamespace(start_date=datetime.now(UTC) - timedelta(minutes=1)),
            }
            task.render_template_fields(context)
            results[task.task_id] = finish(task, context)
        posts = [
            request["path"].rpartition("/")[2] for request in emulator.requests(method="POST", path="/api/")
        ]
    assert posts == ["publish", "golive", "publish", "golive", "cancel"]
    assert results["read_what_is_live"]["id"] == "contoso-web"
    assert results["change"]["changed"]
    assert results["completed"]["status"] == "succeeded"
    assert results["previewed_by_the_design_team"]["status"] == "waitingForPublisherReview"


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_example_test_of_a_dag_passes(tmp_path: Path) -> None:
    (tmp_path / "dags").mkdir()
    shutil.copy(ROOT / "example_dags" / "go_live.py", tmp_path / "dags")
    shutil.copy(DOCS / "examples" / "test_go_live.py", tmp_path)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")} | {
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": str(ROOT),
    }
    for command in (["airflow", "db", "migrate"], ["pytest", "--numprocesses", "0"]):
        result = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.long
@pytest.mark.timeout(600)
def test_quickstart_and_lost_response_example_run_as_printed(tmp_path: Path) -> None:
    install, *steps, clean_up = fences(DOCS / "quickstart.md", "sh")
    assert ("pip install" in install, "kill" in clean_up) == (True, True)
    broken = fences(DOCS / "faults.md", "bash")
    script = "\n".join(["set -euo pipefail", "trap 'kill $(jobs -p); wait' EXIT", *steps, "echo", *broken])
    # The default port may be in use on the test machine.
    port = lasting_port()
    script = script.replace("cpp.emulator", f"cpp.emulator --port {port}").replace(":8443", f":{port}")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")} | {
        "EXAMPLE_DAGS": str(ROOT / "example_dags"),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
    }
    bash = shutil.which("bash")
    assert bash
    with (tmp_path / "said.txt").open("w+") as said:
        process = subprocess.Popen(
            [bash, "-c", script],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        code = None
        try:
            with suppress(subprocess.TimeoutExpired):  # the output below explains more than the exception
                code = process.wait(540)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        said.seek(0)
        output = said.read()
    assert code == 0, output
    live = re.findall(r"^Live: .*contoso-(linux|database|classic)", output, re.MULTILINE)
    assert sorted(live) == sorted(["classic", "database", "linux"] * 2), output
    assert output.count('"effect": true') == 3 * 2, output
    assert "looking up whether the request started" in output
