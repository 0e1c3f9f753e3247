"""Faults that are injected over HTTP."""

from __future__ import annotations

import socket
import ssl
import time
from typing import TYPE_CHECKING, Any

import pytest
import requests
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import ClientSecretCredential
from emulator_client import SCOPE

if TYPE_CHECKING:
    from emulator_client import Client

    from dev.emulator_process import Emulator

GO_LIVE = "contoso-linux/golive"


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
def test_not_one_byte_comes_through_a_lost_connection(
    emulator: Emulator, client: Client, moment: str
) -> None:
    emulator.inject(close=moment)
    assert raw(emulator, client, "/api/publishers") == b""
    assert "Traceback" not in emulator.stderr
    assert "ASGI" not in emulator.stderr


def test_a_request_that_never_came_whole_does_nothing(emulator: Emulator, client: Client) -> None:
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


def test_a_replaced_answer_keeps_the_effect(emulator: Emulator, client: Client) -> None:
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


def test_what_is_delayed_happens_although_the_client_has_gone(emulator: Emulator, client: Client) -> None:
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
        {"truncate": True},
        {"status": 503, "count": 0},
        {"status": 503, "skip": -1},
        {"status": 503, "path": "("},
        {"status": 503, "path": 5},
        {"status": 503, "method": 5},
        {"replace": {"reason": "x"}},
        {"replace": {"status": 1000}},
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(emulator: Emulator, client: Client, fault: Any) -> None:
    answer = client.post(f"{emulator.url}/_emulator/faults", json=fault, timeout=10)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]
    assert emulator.faults() == []
