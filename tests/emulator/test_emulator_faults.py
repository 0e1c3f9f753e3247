"""Faults that are injected over HTTP."""

from __future__ import annotations

import json
import re
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import ClientSecretCredential
from emulator_client import SCOPE, Client

from airflow_provider_cpp.emulator import faults
from dev.emulator_process import Emulator, running_emulator
from dev.local_airflow import wait_for

if TYPE_CHECKING:
    from pathlib import Path

GO_LIVE = "contoso-linux/golive"
STATUS = "contoso-linux/status"
RECIPES = {
    name.strip(): json.loads(rule)
    for name, rule in re.findall(
        r"^ {4}(\w.{19})(\{.*?\})$(?=\n\n| *\n {4}\w)", faults.__doc__ or "", re.MULTILINE | re.DOTALL
    )
}


def raw(emulator: Emulator, client: Client, path: str) -> bytes:
    """Send a GET, and return every byte until the connection ends."""
    context = ssl.create_default_context(cafile=emulator.ca)
    # It may be closed without the goodbye of TLS.
    context.options |= getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    with (
        socket.create_connection(("127.0.0.1", emulator.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        lines = [
            f"GET {path}?api-version=2017-10-31 HTTP/1.1",
            "Host: localhost",
            f"Authorization: {client.headers['Authorization']!s}",
        ]
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        received = b""
        try:
            while more := connection.recv(65536):
                received += more
        except (ssl.SSLEOFError, ConnectionResetError):
            pass
        return received


def test_a_status_instead_of_handling(emulator: Emulator, client: Client) -> None:
    emulator.inject(
        method="POST", path="golive$", status=503, headers={"Retry-After": "2"}, body="<h1>Busy</h1>"
    )
    answer = client.offer("POST", GO_LIVE)
    assert (answer.status_code, answer.headers["Retry-After"], answer.text) == (503, "2", "<h1>Busy</h1>")
    assert emulator.offers()["contoso/contoso-linux"]["status"] == "waitingForPublisherReview"
    (entry,) = emulator.requests(path="golive")
    assert (entry["status"], entry["effect"], entry["fault"]["status"]) == (503, False, 503)
    assert client.offer("POST", GO_LIVE).status_code == 202


@pytest.mark.parametrize(
    ("moment", "status"), [("before", "waitingForPublisherReview"), ("after", "running")]
)
def test_a_lost_connection(emulator: Emulator, client: Client, moment: str, status: str) -> None:
    emulator.inject(method="POST", path="golive$", close=moment)
    with pytest.raises(requests.ConnectionError):
        client.offer("POST", GO_LIVE)
    assert emulator.offers()["contoso/contoso-linux"]["status"] == status
    (entry,) = emulator.requests(path="golive")
    assert (entry["status"], entry["effect"]) == (None, moment == "after")


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_closed_connection_sends_no_byte(emulator: Emulator, client: Client, moment: str) -> None:
    emulator.inject(close=moment)
    assert raw(emulator, client, "/api/publishers") == b""
    assert "Traceback" not in emulator.stderr
    assert "ASGI" not in emulator.stderr


def test_an_incomplete_request_has_no_effect(emulator: Emulator, client: Client) -> None:
    context = ssl.create_default_context(cafile=emulator.ca)
    head = (
        "PUT /api/publishers/contoso/offers/fresh HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
    )
    with (
        socket.create_connection(("127.0.0.1", emulator.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(head.encode())
    assert client.api("GET", "publishers").status_code == 200
    assert [one["method"] for one in emulator.requests()] == ["GET"]


def test_a_truncated_body(emulator: Emulator, client: Client) -> None:
    whole = client.api("GET", "publishers").content
    emulator.inject(truncate=5)
    head, _, body = raw(emulator, client, "/api/publishers").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert f"content-length: {len(whole)}".encode() in head
    assert body == whole[:5]


def test_replaced_response_keeps_the_effect(emulator: Emulator, client: Client) -> None:
    emulator.inject(
        path="golive", replace={"status": 200, "headers": {"location": None, "X-A": "b"}, "body": "<"}
    )
    answer = client.offer("POST", GO_LIVE)
    assert (answer.status_code, answer.headers["X-A"], answer.text) == (200, "b", "<")
    assert "Location" not in answer.headers
    assert emulator.offers()["contoso/contoso-linux"]["status"] == "running"
    assert emulator.requests(path="golive")[0]["status"] == 200


def test_only_the_named_parts_are_replaced(emulator: Emulator, client: Client) -> None:
    emulator.inject(path="golive", replace={"headers": {"Operation-Location": "x"}})
    answer = client.offer("POST", GO_LIVE)
    assert answer.status_code == 202
    assert "Location" in answer.headers
    assert answer.headers["Operation-Location"] == "x"


def test_a_delay_alone_and_with_another_fault(emulator: Emulator, client: Client) -> None:
    emulator.inject(delay=0.2)
    began = time.monotonic()
    assert client.api("GET", "publishers").status_code == 200
    assert time.monotonic() - began >= 0.2
    emulator.inject(delay=0.2, status=500)
    assert client.api("GET", "publishers").status_code == 500
    assert time.monotonic() - began >= 0.4


def test_a_held_response_has_its_effect_and_journal_entry_at_once(emulator: Emulator, client: Client) -> None:
    emulator.inject(path="golive", hold=30)
    with pytest.raises(requests.Timeout):
        client.post(
            f"{emulator.url}/api/publishers/contoso/offers/{GO_LIVE}",
            params={"api-version": "2017-10-31"},
            timeout=1,
        )
    assert emulator.offers()["contoso/contoso-linux"]["status"] == "running"
    (entry,) = emulator.requests(path="golive")
    assert (entry["status"], entry["effect"], entry["fault"]["hold"]) == (202, True, 30)


def test_a_held_response_is_complete(emulator: Emulator, client: Client) -> None:
    emulator.inject(path="golive", hold=0.5)
    began = time.monotonic()
    answer = client.offer("POST", GO_LIVE)
    assert time.monotonic() - began >= 0.5
    assert (answer.status_code, "Location" in answer.headers) == (202, True)


def test_a_delayed_request_is_handled_after_the_client_disconnected(
    emulator: Emulator, client: Client
) -> None:
    emulator.inject(path="golive", delay=2)
    with pytest.raises(requests.Timeout):
        client.post(
            f"{emulator.url}/api/publishers/contoso/offers/{GO_LIVE}",
            params={"api-version": "2017-10-31"},
            timeout=1,
        )
    deadline = time.monotonic() + 30
    while not emulator.requests(path="golive"):
        assert time.monotonic() < deadline
    assert emulator.offers()["contoso/contoso-linux"]["status"] == "running"


def test_counts_and_skips(emulator: Emulator, client: Client) -> None:
    emulator.inject(method="GET", skip=1, count=2, status=500)
    emulator.inject(method="POST", status=501)
    statuses = [client.api("GET", "publishers").status_code for _ in range(4)]
    assert statuses == [200, 500, 500, 200]
    assert emulator.faults() == [{"method": "POST", "status": 501, "count": 1, "skip": 0}]


def statuses(client: Client, count: int) -> list[int]:
    return [client.api("GET", "publishers").status_code for _ in range(count)]


def test_a_share_of_the_requests_is_hit_the_same_after_a_reset(emulator: Emulator, client: Client) -> None:
    emulator.inject(probability=0.5, status=500)
    before = statuses(client, 20)
    assert 4 <= before.count(500) <= 16
    assert [rule["count"] for rule in emulator.faults()] == [None]
    hit = [one["fault"] for one in emulator.requests()]
    assert hit == [{"probability": 0.5, "status": 500} if one == 500 else None for one in before]
    emulator.reset()
    emulator.inject(probability=0.5, status=500)
    emulator.inject(path="nothing", probability=0.5, status=500)
    assert statuses(client, 20) == before


def test_a_request_delayed_beyond_a_reset_has_no_effect_or_entry(emulator: Emulator, client: Client) -> None:
    emulator.inject(method="POST", path="golive$", delay=2)
    with ThreadPoolExecutor() as threads:
        delayed = threads.submit(client.offer, "POST", GO_LIVE)
        wait_for(lambda: emulator.faults() == [], "the request to arrive", seconds=10)
        emulator.reset()
        with pytest.raises(requests.ConnectionError):
            delayed.result()
    assert emulator.requests() == []
    assert client.offer("GET", STATUS).json()["status"] == "waitingForPublisherReview"


def test_a_share_has_its_limits(emulator: Emulator, client: Client) -> None:
    emulator.inject(probability=0, status=500)
    emulator.inject(probability=1, count=2, skip=1, status=501)
    assert statuses(client, 5) == [200, 501, 501, 200, 200]
    emulator.clear_faults()
    emulator.inject(status=503, count=None)
    assert statuses(client, 3) == [503] * 3


def test_the_share_is_as_said_and_depends_on_the_random_seed() -> None:
    def hits(random_seed: int) -> list[bool]:
        rules = faults.Faults([{"probability": 0.1, "delay": 0}], random_seed)
        return [rules.take("GET", "/") is not None for _ in range(2000)]

    assert 140 < sum(hits(1)) < 260
    assert hits(1) == hits(1) != hits(2)


def test_news_come_late(emulator: Emulator, client: Client) -> None:
    late = {name: value for name, value in RECIPES["news come late"].items() if name != "count"}
    before = client.offer("GET", "contoso-linux/submissions/").json()
    operation = client.offer("GET", f"contoso-linux/operations/{before[0]['id']}").json()
    emulator.inject(**late, count=None)
    accepted = client.offer("POST", GO_LIVE)
    assert accepted.status_code == 202
    assert client.get(client.base + accepted.headers["Location"], timeout=10).status_code == 404
    assert client.offer("GET", "contoso-linux/submissions").json() == before
    assert client.offer("GET", f"contoso-linux/operations/{before[0]['id']}").json() == operation
    assert client.offer("GET", STATUS).json()["status"] == "running"  # this path does not lag
    assert client.offer("POST", GO_LIVE).status_code == 409
    assert [one["fault"] for one in emulator.requests(method="POST", path="golive")] == [None, None]
    assert [one["fault"] for one in emulator.requests(path="submissions")] == [None, late]
    emulator.clear_faults()
    assert client.follow(accepted)["status"] == "running"


def test_slots_and_offers_lag_too_and_only_when_read(emulator: Emulator, client: Client) -> None:
    client.offer("POST", "contoso-web/publish", json={"metadata": {"notification-emails": ""}})
    emulator.inject(lag=60, count=None)
    old = client.offer("GET", "contoso-web")
    assert (old.json()["version"], old.json()["status"]) == (3, "succeeded")
    assert client.offer("GET", "contoso-web/versions/4").status_code == 404
    assert client.offer("GET", "contoso-web/slot/preview").json()["version"] == 3
    listed = {one["id"]: one["version"] for one in client.api("GET", "publishers/contoso/offers").json()}
    assert listed["contoso-web"] == 3
    client.offer("POST", "contoso-classic/golive")
    assert client.api("GET", "operations/contoso$contoso-classic$2$production").status_code == 404
    assert emulator.offers()["contoso/contoso-web"]["version"] == 4


def test_a_lag_with_another_fault(emulator: Emulator, client: Client) -> None:
    client.offer("POST", GO_LIVE)
    emulator.inject(lag=60, delay=0.1, replace={"json": {"extra": 1}})
    document = client.offer("GET", STATUS).json()
    assert (document["status"], document["extra"]) == ("waitingForPublisherReview", 1)


def test_the_lag_is_of_the_real_service() -> None:
    with running_emulator("--time-scale", "3600") as emulator, Client(emulator) as client:
        emulator.inject(lag=5400, count=None)
        client.offer("POST", GO_LIVE)
        seen = []
        deadline = time.monotonic() + 10
        while "running" not in seen and time.monotonic() < deadline:
            seen.append(client.offer("GET", STATUS).json()["status"])
        assert set(seen) == {"waitingForPublisherReview", "running"}


def test_members_of_the_response_are_replaced(emulator: Emulator, client: Client) -> None:
    whole = client.offer("GET", STATUS).json()
    emulator.inject(path="/status", replace={"json": {"status": "paused", "steps": None, "more": []}})
    document = client.offer("GET", STATUS).json()
    del whole["steps"]
    assert document == {**whole, "status": "paused", "more": []}
    emulator.inject(path="submissions", replace={"json": {"submissionState": "paused"}})
    answer = client.offer("GET", "contoso-database/submissions").json()
    assert [one["submissionState"] for one in answer] == ["paused"] * 3
    emulator.inject(path="golive", replace={"json": {"status": "paused"}})
    accepted = client.offer("POST", GO_LIVE)
    assert (accepted.status_code, accepted.content) == (202, b"")


def test_headers_refer_to_the_location_and_the_host(emulator: Emulator, client: Client) -> None:
    emulator.inject(path="golive", count=2, **RECIPES["older Location"])
    accepted = client.offer("POST", GO_LIVE)
    assert "Location" not in accepted.headers
    url = accepted.headers["Operation-Location"]
    assert re.match(
        rf"{emulator.url}/api/publishers/contoso/offers/contoso-linux/operations/.*\?api-version=", url
    )
    assert client.get(url, timeout=10).json()["status"] == "running"
    refused = client.offer("POST", GO_LIVE)
    assert (refused.status_code, refused.headers.get("Operation-Location")) == (409, None)
    emulator.inject(path="golive", **RECIPES["Location elsewhere"])
    accepted = client.offer("POST", "contoso-classic/golive")
    assert accepted.headers["Location"].startswith(
        "https://evil.example/api/operations/contoso$contoso-classic$"
    )
    emulator.inject(status=307, headers={"Location": "{host}/api/{x}"})
    answer = client.api("GET", "publishers", allow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (307, f"{emulator.url}/api/{{x}}")


@pytest.mark.parametrize(
    ("name", "status", "body"),
    [
        ("token refused", 401, b""),
        ("throttled", 429, b""),
        ("one in ten", 200, None),
        ("service error", 500, None),
        ("HTML page", 502, b"<p>"),
        ("bare JSON string", 500, b'"Something failed."'),
        ("empty body", 500, b""),
        ("invalid JSON", 200, b'{"status":'),
        ("array, not object", 200, b"[]"),
        ("unknown status", 200, None),
        ("member missing", 200, None),
    ],
)
def test_the_recipes(emulator: Emulator, client: Client, name: str, status: int, body: bytes | None) -> None:
    rule = RECIPES[name]
    emulator.inject(**{**rule, "probability": 1, "count": 1} if name == "one in ten" else rule)
    answer = client.offer("GET", STATUS)
    assert answer.status_code == (503 if name == "one in ten" else status)
    if body is not None:
        assert answer.content == body
    if name in ("unknown status", "member missing"):
        assert answer.json().get("status") == {"unknown status": "paused"}.get(name)
    if name == "service error":
        assert answer.json()["error"]["code"] == "InternalServerError"
    for header, value in rule.get("headers", {}).items():
        assert answer.headers[header] == value
    assert client.offer("GET", STATUS).json()["status"] == "waitingForPublisherReview"
    assert [one["fault"] is not None for one in emulator.requests()] == [True, False]


def test_status_words_are_replaced_in_all_members(emulator: Emulator, client: Client) -> None:
    emulator.inject(**RECIPES["PascalCase status"])
    document = client.offer("GET", STATUS).json()
    assert document["status"] == "WaitingForPublisherReview"
    assert {step["status"] for step in document["steps"]} == {
        "Complete",
        "WaitingForPublisherReview",
        "NotStarted",
    }
    emulator.clear_faults()
    emulator.inject(**RECIPES["status complete"])
    submissions = client.offer("GET", "contoso-database/submissions").json()
    assert {one["submissionState"] for one in submissions} == {"complete"}
    operation = client.offer("GET", f"contoso-database/operations/{submissions[0]['id']}").json()
    assert operation["status"] == "complete"


def test_the_place_of_a_cancel_is_in_the_body_only(emulator: Emulator, client: Client) -> None:
    location = client.offer("POST", "contoso-classic/golive").headers["Location"]
    emulator.inject(**RECIPES["Location in body"])
    answer = client.offer("POST", "contoso-classic/cancel")
    assert answer.status_code == 202
    assert not {"Location", "Operation-Location"} & set(answer.headers)
    assert answer.json() == {"location": location}


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ({"statsu": 503}, "statsu: is an unknown key; did you mean 'status'?"),
        ({"replace": {"josn": {}}}, "replace.josn: is an unknown key; did you mean 'json'?"),
        ({"status": "503"}, "status: "),
        ({"status": 503, "headers": {"a": 1}}, "headers.a: "),
    ],
)
def test_an_invalid_fault_is_refused_with_the_path_of_its_key(
    emulator: Emulator, client: Client, fault: Any, problem: str
) -> None:
    answer = client.post(f"{emulator.url}/_emulator/faults", json=fault, timeout=10)
    assert problem in answer.json()["error"]["message"]


def test_every_recipe_is_accepted(emulator: Emulator) -> None:
    assert len(RECIPES) == 20
    for rule in RECIPES.values():
        emulator.inject(**rule)
    assert len(emulator.faults()) == len(RECIPES)


def test_the_journal_distinguishes_effect_and_fault(emulator: Emulator, client: Client) -> None:
    emulator.inject(path="golive", replace={"status": 500, "body": ""})
    emulator.inject(path="golive", status=409)
    assert [client.offer("POST", GO_LIVE).status_code for _ in range(3)] == [500, 409, 409]
    entries = emulator.requests(path="golive")
    assert [(one["effect"], one["fault"] is not None) for one in entries] == [
        (True, True),
        (False, True),
        (False, False),
    ]


@pytest.mark.parametrize("fault", [{"status": 204, "body": "x"}, {"replace": {"status": 304}}])
def test_a_status_that_has_no_body(emulator: Emulator, client: Client, fault: Any) -> None:
    emulator.inject(**fault)
    answer = client.api("GET", "publishers")
    assert (answer.status_code, answer.content) == (fault.get("status", 304), b"")
    assert client.api("GET", "publishers").status_code == 200
    assert "Traceback" not in emulator.stderr


def test_a_date_can_be_replaced(emulator: Emulator, client: Client) -> None:
    emulator.inject(status=503, headers={"Date": "Thu, 01 Jan 1970 00:00:00 GMT"})
    assert client.api("GET", "publishers").headers["Date"] == "Thu, 01 Jan 1970 00:00:00 GMT"
    emulator.inject(replace={"headers": {"Date": None, "X-Unknown": None}})
    assert "Date" not in client.api("GET", "publishers").headers


def test_faults_of_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "faults.json"
    file.write_text(json.dumps([{"status": 503}, {"path": "publishers$", "status": 502, "count": None}]))
    options = ("--faults", str(file), "--state", str(tmp_path / "state.json"))
    with running_emulator(*options) as emulator:
        client = requests.Session()
        client.trust_env = False
        client.verify = emulator.ca
        url = f"{emulator.url}/api/publishers"
        assert [client.get(url, timeout=10).status_code for _ in range(3)] == [503, 502, 502]
        emulator.clear_faults()
        assert client.get(url, timeout=10).status_code == 401
        emulator.reset()
        assert [client.get(url, timeout=10).status_code for _ in range(2)] == [503, 502]
        client.close()
    with running_emulator(*options) as emulator:
        assert [rule["status"] for rule in emulator.faults()] == [503, 502]


def test_tokens_that_end_before_their_time() -> None:
    with running_emulator("--token-valid", "2") as short, Client(short) as client:
        deadline = time.monotonic() + 10
        while client.api("GET", "publishers").status_code == 200:
            assert time.monotonic() < deadline
        last = short.requests()[-1]
        assert (last["status"], last["fault"]) == (401, {"token": "refused"})
        short.inject(lag=5)
        client.api("GET", "publishers")
        assert short.requests()[-1]["fault"] == {"lag": 5, "token": "refused"}
        # The identity service still issues tokens with the full lifetime.
        assert client.credential.get_token(SCOPE).expires_on > time.time() + 3000
        with Client(short) as fresh:
            assert fresh.api("GET", "publishers").status_code == 200
            short.revoke_tokens()
            assert fresh.api("GET", "publishers").status_code == 401
            assert short.requests()[-1]["fault"] == {"token": "refused"}
            unknown = fresh.api("GET", "publishers", headers={"Authorization": "Bearer unknown"})
        assert unknown.status_code == 401
        assert short.requests()[-1]["fault"] is None


def test_faults_can_be_cleared(emulator: Emulator, client: Client) -> None:
    emulator.inject(status=500)
    assert client.delete(f"{emulator.url}/_emulator/faults", timeout=10).json() == {"cleared": 1}
    assert client.api("GET", "publishers").status_code == 200


def test_a_token_endpoint_can_fail_too(emulator: Emulator, client: Client) -> None:
    emulator.inject(path="/token$", status=400, body='{"error": "temporarily_unavailable"}')
    credential = ClientSecretCredential(
        emulator.connection["extra"]["tenantId"],
        emulator.connection["login"],
        emulator.connection["password"],
        authority=emulator.url,
        disable_instance_discovery=True,
        connection_verify=emulator.ca,
    )
    with credential, pytest.raises(ClientAuthenticationError):
        credential.get_token(SCOPE)


@pytest.mark.parametrize(
    "fault",
    [
        [],
        {},
        {"method": "GET"},
        {"status": 503, "surprise": 1},
        {"status": 503, "close": "before"},
        {"status": 99},
        {"status": "503"},
        {"status": 503, "headers": {"a": 1}},
        {"status": 503, "body": {}},
        {"body": "x", "delay": 1},
        {"close": "during"},
        {"delay": -1},
        {"hold": -1},
        {"truncate": True},
        {"status": 503, "count": 0},
        {"status": 503, "count": "1"},
        {"status": 503, "probability": 1.1},
        {"status": 503, "probability": -0.1},
        {"status": 503, "probability": None},
        {"probability": 0.5},
        {"delay": float("nan")},
        {"delay": float("inf")},
        {"status": 503, "body": "\ud800"},
        {"lag": -1},
        {"lag": 60, "method": "POST"},
        {"lag": 60, "status": 503},
        {"lag": 60, "close": "before"},
        {"replace": {"json": []}},
        {"replace": {"json": {}, "body": ""}},
        {"status": 503, "headers": {"a b": "c"}},
        {"replace": {"headers": {"content-length": "1"}}},
        {"status": 503, "headers": {"a": "b\r\nc: d"}},
        {"status": 503, "headers": {"a": "\u2026"}},
        {"status": 503, "skip": -1},
        {"status": 503, "path": "("},
        {"status": 503, "path": 5},
        {"status": 503, "method": 5},
        {"replace": {"reason": "x"}},
        {"replace": {"status": 1000}},
        {"replace": {"json": {}, "words": {}}},
        {"replace": {"words": "camelCase"}},
        {"json": {}, "delay": 1},
        {"status": 503, "body": "", "json": {}},
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(emulator: Emulator, client: Client, fault: Any) -> None:
    answer = client.post(f"{emulator.url}/_emulator/faults", data=json.dumps(fault), timeout=10)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]
    assert emulator.faults() == []
