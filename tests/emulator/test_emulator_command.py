"""The process: its command line, its certificates, its end, and what survives it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest
import requests
from emulator_client import Client

from airflow_provider_cpp.emulator import operations, seed, server
from airflow_provider_cpp.emulator.__main__ import main
from dev.emulator_process import ROOT, running_emulator

if TYPE_CHECKING:
    from dev.emulator_process import Emulator


def run(*args: str, code: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    start = [sys.executable, "-c", code] if code else [sys.executable, "-m", "airflow_provider_cpp.emulator"]
    return subprocess.run(
        [*start, *args],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def certificate_of(emulator: Emulator) -> str:
    return Path(emulator.ca).with_name("server.pem").read_text()


def test_emulator_prints_only_the_connection(emulator: Emulator) -> None:
    connection = emulator.connection
    assert set(connection) == {"conn_type", "host", "login", "password", "extra"}
    assert connection["conn_type"] == "cloud_partner"
    assert set(connection["extra"]) == {"tenantId", "publisherId", "authority", "verify"}
    assert connection["extra"]["publisherId"] == "contoso"
    assert connection["host"] == connection["extra"]["authority"] == f"https://localhost:{emulator.port}"
    assert Path(emulator.ca).is_absolute()
    for what in (
        emulator.url,
        emulator.ca,
        "contoso-classic (waitingForPublisherReview)",
        "/_emulator/requests",
    ):
        assert what in emulator.stderr
    assert emulator.connection["password"] not in emulator.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_the_emulator_cleanly(number: signal.Signals) -> None:
    with running_emulator() as emulator, Client(emulator) as client:
        client.api("GET", "publishers")  # keeps its connection
        os.kill(emulator.pid, number)
        assert emulator.wait() == 0
        assert "Traceback" not in emulator.stderr
        assert not Path(emulator.ca).exists()


def test_a_request_that_is_delayed_does_not_hold_up_the_end() -> None:
    with running_emulator("--verbose") as emulator, Client(emulator) as client:
        emulator.inject(path="publishers", delay=600)
        with pytest.raises(requests.Timeout):
            client.get(f"{emulator.url}/api/publishers", timeout=1)
        assert emulator.stop() == 0
        assert "Traceback" not in emulator.stderr
        assert "/api/publishers closed (fault)" in emulator.stderr


def test_keys_are_their_owners_only_and_certificates_are_reused(tmp_path: Path) -> None:
    tls = ("--tls-dir", str(tmp_path / "tls"))
    with running_emulator(*tls) as emulator:
        assert emulator.ca == str(tmp_path / "tls" / "ca.pem")
        authority, certificate = Path(emulator.ca).read_text(), certificate_of(emulator)
        for key in ("ca.key", "server.key"):
            assert stat.S_IMODE((tmp_path / "tls" / key).stat().st_mode) == 0o600
    with running_emulator(*tls) as emulator:
        assert certificate_of(emulator) == certificate
    with running_emulator(*tls, "--hostname", "emulator.example", "--hostname", "192.0.2.7") as emulator:
        assert certificate_of(emulator) != certificate
        certificate = certificate_of(emulator)
        assert Path(emulator.ca).read_text() == authority
        for name in ("localhost", "127.0.0.1", "::1", "emulator.example", "192.0.2.7"):
            emulator.handshake(name)
    with running_emulator(*tls, "--hostname", "192.0.2.7", "emulator.example") as emulator:
        assert certificate_of(emulator) == certificate


def test_a_go_live_survives_a_kill(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    with running_emulator("--state", str(state)) as emulator, Client(emulator) as client:
        location = client.offer("POST", "contoso-classic/golive").headers["Location"]
        emulator.kill()
        port, connection = emulator.port, emulator.connection
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    with running_emulator("--state", str(state), "--port", str(port)) as emulator:
        assert emulator.connection == connection
        with Client(emulator) as client:
            assert client.get(emulator.url + location, timeout=10).json()["status"] == "running"
            assert client.offer("POST", "contoso-classic/golive").status_code == 409
        first, second = emulator.requests(method="POST", path="golive")
        assert (first["effect"], second["effect"]) == (True, False)
        assert first["sequence"] < second["sequence"]


def test_effect_is_stored_although_the_response_was_lost(tmp_path: Path) -> None:
    state = ("--state", str(tmp_path / "state.json"))
    with running_emulator(*state) as emulator, Client(emulator) as client:
        emulator.inject(method="POST", close="after")
        with pytest.raises(requests.ConnectionError):
            client.offer("POST", "contoso-linux/golive")
        emulator.kill()
    with running_emulator(*state) as emulator:
        assert emulator.offers()["contoso/contoso-linux"]["status"] == "running"
        assert [one["effect"] for one in emulator.requests(method="POST", path="golive")] == [True]


def test_a_restart_keeps_the_seed_and_drops_an_incomplete_line(tmp_path: Path) -> None:
    seed = tmp_path / "seed.json"
    seed.write_text(
        json.dumps(
            {
                "publishers": [{"id": "fabrikam", "offers": [{"id": "one", "state": "live"}]}],
                "principals": [{"tenantId": "t", "clientId": "c", "secret": "s", "publishers": ["fabrikam"]}],
            }
        )
    )
    state = tmp_path / "state.json"
    with running_emulator("--state", str(state), "--seed", str(seed)) as emulator, Client(emulator) as client:
        client.api("GET", "publishers")
        assert emulator.stop() == 0
    with (tmp_path / "state.json.requests").open("a") as journal:
        journal.write('{"sequence": 9, "pa')
    with running_emulator("--state", str(state)) as emulator:
        assert emulator.connection["extra"]["publisherId"] == "fabrikam"
        assert emulator.offers()["fabrikam/one"]["slots"] == {"preview": 2, "production": 2}
        assert len(emulator.requests(path="^/api/publishers$")) == 1
        with Client(emulator) as client:
            client.api("GET", "publishers")
        assert len(emulator.requests(path="^/api/publishers$")) == 2


def test_a_release_runs_through_when_time_is_short(tmp_path: Path) -> None:
    with running_emulator("--time-scale", "10000000") as emulator, Client(emulator) as client:
        client.offer(
            "POST", "contoso-next/publish", json={"metadata": {"notification-emails": ""}}
        ).raise_for_status()
        while client.offer("GET", "contoso-next/status").json()["status"] != "waitingForPublisherReview":
            pass
        client.offer("POST", "contoso-next/golive").raise_for_status()
        while client.offer("GET", "contoso-next/status").json()["status"] != "succeeded":
            pass
        assert client.offer("GET", "contoso-next/slot/production").json()["version"] == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [("{", "is not JSON"), ("{}", "is not a JSON array"), ('[{"delay": 1}, {"status": 99}]', "[1].status: ")],
)
def test_bad_faults(tmp_path: Path, text: str, problem: str) -> None:
    faults, state = tmp_path / "faults.json", tmp_path / "state.json"
    faults.write_text(text)
    result = run("--port", "0", "--faults", str(faults), "--state", str(state))
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith(f"cloud-partner-emulator: faults: {faults}")
    assert problem in result.stderr
    assert not state.exists()
    assert run("--port", "0", "--faults", str(tmp_path / "none")).returncode == 1


def test_a_clock_that_is_off(tmp_path: Path) -> None:
    state = ("--state", str(tmp_path / "state.json"))
    ends = []
    for offset in ("-86400", "7200"):
        with (
            running_emulator(*state, "--clock-offset", offset) as emulator,
            Client(emulator) as client,
        ):
            if offset == "-86400":
                client.offer("POST", "contoso-linux/golive")
            answer = client.offer("GET", "contoso-linux/submissions/")
            now = datetime.now(UTC).timestamp() + float(offset)
            assert abs(parsedate_to_datetime(answer.headers["Date"]).timestamp() - now) < 10
            ends.append(datetime.fromisoformat(answer.json()[0]["createdDateTime"]).timestamp())
            document = client.offer("GET", "contoso-linux/status").json()
            assert (document["status"], document["steps"][-1]["status"]) == ("running", "inProgress")
            (entry,) = emulator.requests(path="/status$")[-1:]
            assert abs(datetime.fromisoformat(entry["time"]).timestamp() - now + float(offset)) < 10
            query = {"api-version": "2019-08-01", "resource": "https://cloudpartner.azure.com"}
            token = client.get(
                f"{emulator.url}/msi/token",
                params=query,
                headers={"X-IDENTITY-HEADER": "emulator-identity-header"},
                timeout=10,
            ).json()
            assert abs(int(token["expires_on"]) - 3599 - now) < 10
    assert ends[1] - ends[0] == pytest.approx(86400 + 7200)


def test_a_bad_seed(tmp_path: Path) -> None:
    seed = tmp_path / "seed.json"
    seed.write_text(
        '{"publishers": [{"id": "p", "offers": [{"id": "o", "state": "lost"}]}], "principals": []}'
    )
    result = run("--port", "0", "--seed", str(seed))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("cloud-partner-emulator: seed: publishers[0].offers[0].state: ")
    assert result.stderr.count("\n") == 1
    seed.write_text("{")
    assert run("--port", "0", "--seed", str(seed)).returncode == 2


def test_a_seed_beside_a_state_file_is_checked_and_ignored(tmp_path: Path) -> None:
    seed, state = tmp_path / "seed.json", tmp_path / "state.json"
    with running_emulator("--state", str(state)):
        pass
    seed.write_text(json.dumps({"publishers": [{"id": "fabrikam", "offers": []}]}))
    with running_emulator("--state", str(state), "--seed", str(seed)) as emulator:
        assert f"--seed {seed} is ignored: the state file {state}" in emulator.stderr
        assert "contoso/contoso-linux" in emulator.offers()
    seed.write_text(json.dumps({"publishers": []}))
    result = run("--port", "0", "--state", str(state), "--seed", str(seed))
    assert (result.returncode, result.stdout) == (2, "")
    assert "seed: publishers: " in result.stderr


def test_a_seed_without_principals_has_the_built_in_ones(tmp_path: Path) -> None:
    seed = tmp_path / "seed.json"
    seed.write_text(json.dumps({"publishers": [{"id": "fabrikam", "offers": [{"id": "one"}]}]}))
    with running_emulator("--seed", str(seed)) as emulator, Client(emulator) as client:
        assert [one["id"] for one in client.api("GET", "publishers").json()] == ["fabrikam"]


def test_help_names_the_steps_and_states_of_a_seed() -> None:
    text = "".join(run("--help").stdout.split())
    for word in (*operations.STEPS, *get_args(seed.State), "docs/emulator.md"):
        assert word in text


def test_a_state_file_of_the_previous_version_is_loaded(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    shutil.copy(ROOT / "tests/samples/emulator_state_of_previous_version.json", state)
    with running_emulator("--state", str(state)) as emulator:
        offers = {key.partition("/")[2]: offer for key, offer in emulator.offers().items()}
    assert {
        key: (offer["status"], offer["operations"][0]["submissionState"]) for key, offer in offers.items()
    } == {
        "preview": ("waitingForPublisherReview", "succeeded"),
        "preview-classic": ("waitingForPublisherReview", "running"),
        "canceled": ("canceled", "succeeded"),
        "canceled-classic": ("canceled", "canceled"),
        "failing": ("failed", "failed"),
        "failing-classic": ("failed", "failed"),
    }
    assert [offers[key]["slots"] for key in ("preview", "canceled", "preview-classic")] == [
        {"preview": 4, "production": 3},
        {"preview": None, "production": None},
        {"preview": 4, "production": 3},
    ]


def test_a_state_file_of_something_else(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    state.write_text("[]")
    result = run("--port", "0", "--state", str(state))
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert str(state) in result.stderr
    assert state.read_text() == "[]"


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run("--port", port)
    assert result.returncode == 1
    assert f"cannot listen at 127.0.0.1, port {port}" in result.stderr


def test_an_address_that_others_reach_is_warned_of() -> None:
    # Reserved for documentation: no machine has it, so nothing is opened.
    result = run("--host", "192.0.2.1", "--port", "0")
    assert result.stderr.startswith("WARNING: 192.0.2.1 is not a loopback address")
    assert result.returncode == 1
    assert "control this emulator without a token" in result.stderr


def test_a_host_that_does_not_exist() -> None:
    result = run("--host", "nowhere.invalid", "--port", "0")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "cannot listen at nowhere.invalid" in result.stderr


@pytest.mark.parametrize(
    ("addresses", "warned"),
    [
        (["127.0.0.1"], False),
        (["::1", "127.0.1.1"], False),
        (["192.0.2.1"], True),
        (["::1", "192.0.2.1"], True),
    ],
)
def test_a_name_is_warned_of_by_its_addresses(
    addresses: list[str],
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = [(None, None, None, "", (address, 0)) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(server, "run", lambda _: None)
    assert main(["--host", "emulator.example"]) == 0
    assert capsys.readouterr().err.startswith("WARNING: emulator.example is not") == warned


def test_emulator_listens_at_another_loopback_address_by_name() -> None:
    with running_emulator("--host", "127.0.0.2") as emulator:
        assert emulator.url == f"https://127.0.0.2:{emulator.port}"
        assert emulator.requests() == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("--time-scale", "0"),
        ("--time-scale", "nan"),
        ("--time-scale", "fast"),
        ("--token-valid", "0"),
        ("--clock-offset", "nan"),
        ("--clock-offset", "1e12"),
        ("--random-seed", "x"),
        ("--nonsense",),
    ],
)
def test_wrong_use(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).returncode == 2


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "trustme", "jwt", "pydantic"])
def test_a_missing_package_is_named_with_the_cure(package: str) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from airflow_provider_cpp.emulator.__main__ import main\n"
        "sys.exit(main(['--port', '0']))"
    )
    result = run(code=code)
    assert result.returncode == 1
    assert 'pip install "airflow-provider-cpp[emulator]"' in result.stderr
    assert "Traceback" not in result.stderr


def test_emulator_imports_neither_the_provider_nor_airflow() -> None:
    code = (
        "import sys, airflow_provider_cpp.emulator.server\n"
        "ours = [name for name in sys.modules if name.startswith('airflow_provider_cpp.')]\n"
        "print([name for name in ours if not name.startswith('airflow_provider_cpp.emulator')])\n"
        "print([name for name in sys.modules if name.partition('.')[0] in ('airflow', 'azure', 'msal')])"
    )
    assert run(code=code).stdout == "[]\n[]\n"
