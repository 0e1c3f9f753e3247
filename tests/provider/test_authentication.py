"""Ways to authenticate, refusals, unavailable credentials, and the identity that errors name."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from harness import STRANGER, TaskInstance, deferral, eventually, operations, resume
from imds import running_imds

from airflow_provider_cpp.exceptions import AuthenticationError, CloudPartnerError, PermissionDeniedError
from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
from airflow_provider_cpp.operators.cloud_partner import GoLiveOperator
from airflow_provider_cpp.sensors.cloud_partner import OperationSensor
from airflow_provider_cpp.transport.identity import describe_identity
from airflow_provider_cpp.transport.identity_errors import REFUSALS
from dev.emulator_process import running_emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from harness import Connect, Log, Principal
    from imds import Imds

    from dev.emulator_process import Emulator

#: A connection without credentials.
NO_LOGIN: dict[str, Any] = {"login": None, "password": None, "extra": {"tenantId": None}}
TOKEN = "oauth2/v2.0/token"
polling = {"poke_interval": 0.01, "max_wait": 0.05, "timeout": 60}


@pytest.fixture(params=["sync", "async"])
def list_operations(request: pytest.FixtureRequest) -> Callable[[], list[Any]]:
    def in_worker() -> list[Any]:
        return CloudPartnerHook().list_operations("slow")

    def in_event_loop() -> list[Any]:
        return asyncio.run(CloudPartnerHook().alist_operations("slow"))

    return in_worker if request.param == "sync" else in_event_loop


def authenticated_client(emulator: Emulator) -> str:
    """Return the client id of the one request to the API."""
    (request,) = emulator.requests(path="/submissions/")
    return str(request["clientId"])


# --- ways to authenticate ---


def test_client_secret_authenticates(
    emulator: Emulator, principal: Principal, list_operations: Callable[[], list[Any]]
) -> None:
    assert list_operations()
    assert authenticated_client(emulator) == principal.client


@pytest.mark.parametrize("pasted", ["{}\n", " {}\r\n", "\t{} "], ids=repr)
def test_whitespace_around_a_client_secret_is_removed(
    emulator: Emulator,
    connect: Connect,
    principal: Principal,
    list_operations: Callable[[], list[Any]],
    pasted: str,
) -> None:
    connect(emulator, password=pasted.format(principal.secret))
    assert list_operations()


@pytest.mark.parametrize("passphrase", [None, "passphrase", "passphrase\n"], ids=repr)
def test_certificate_authenticates(
    emulator: Emulator,
    connect: Connect,
    principal: Principal,
    list_operations: Callable[[], list[Any]],
    passphrase: str | None,
) -> None:
    path = principal.locked_path if passphrase else principal.certificate_path
    connect(emulator, password=passphrase, extra={"certificate_path": path})
    assert list_operations()
    assert authenticated_client(emulator) == principal.client


@pytest.mark.parametrize("named", [False, True])
def test_managed_identity_authenticates(
    emulator: Emulator,
    connect: Connect,
    principal: Principal,
    monkeypatch: pytest.MonkeyPatch,
    list_operations: Callable[[], list[Any]],
    named: bool,
) -> None:
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{emulator.url}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", principal.identity_header)
    name = {"managed_identity_client_id": principal.client} if named else {}
    connect(emulator, **NO_LOGIN | {"extra": {"tenantId": None, **name}})
    assert list_operations()
    assert authenticated_client(emulator) == principal.client
    (token,) = emulator.requests(path="/msi/token")
    assert ("client_id=" in token["query"]) == named


@pytest.fixture
def workload(principal: Principal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment of a pod with a workload identity."""
    claims = {
        "iss": principal.issuer,
        "sub": principal.subject,
        "aud": "api://AzureADTokenExchange",
        "exp": int(time.time()) + 3600,
    }
    assertion = tmp_path / "token"
    assertion.write_text(jwt.encode(claims, principal.federated_key, "RS256"))
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(assertion))
    monkeypatch.setenv("AZURE_CLIENT_ID", principal.client)
    monkeypatch.setenv("AZURE_TENANT_ID", principal.tenant)


@pytest.mark.usefixtures("workload")
@pytest.mark.parametrize("authority_from", ["environment", "connection"])
@pytest.mark.parametrize("client_from", ["environment", "connection"])
def test_workload_identity_authenticates(
    emulator: Emulator,
    connect: Connect,
    principal: Principal,
    monkeypatch: pytest.MonkeyPatch,
    list_operations: Callable[[], list[Any]],
    authority_from: str,
    client_from: str,
) -> None:
    if authority_from == "environment":
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", emulator.url)
    extra = {"tenantId": None, "workload_identity_tenant_id": principal.tenant}
    if client_from == "connection":
        monkeypatch.setenv("AZURE_CLIENT_ID", STRANGER["clientId"])
        extra["managed_identity_client_id"] = principal.client
    connect(emulator, **NO_LOGIN | {"extra": extra})
    assert list_operations()
    assert authenticated_client(emulator) == principal.client


def test_short_lived_tokens_are_renewed_while_polling(connect: Connect, seed_file: str) -> None:
    with running_emulator("--seed", seed_file, "--token-lifetime", "2") as emulator:
        connect(emulator)

        async def poll_until_renewed() -> None:
            async with CloudPartnerHook() as hook:
                while len(emulator.requests(path=TOKEN)) < 3:
                    await hook.alist_operations("slow")

        asyncio.run(asyncio.wait_for(poll_until_renewed(), 30))
        responses = emulator.requests(path="/submissions/")
        assert responses[-1]["status"] == 200


# --- refusals ---


def refuse(emulator: Emulator, code: str, status: int = 401) -> None:
    """Let the identity host refuse each token request with a code of Microsoft Entra."""
    body = {"error": "invalid_client", "error_description": f"AADSTS{code}: Words of Microsoft. Trace ID: 1"}
    headers = {"Content-Type": "application/json"}
    emulator.inject(path=TOKEN, status=status, headers=headers, body=json.dumps(body), count=5)


@pytest.mark.parametrize("code", [*REFUSALS, "50105", "7999999"])
def test_refusal_names_its_cause_and_is_permanent(
    emulator: Emulator, list_operations: Callable[[], list[Any]], code: str
) -> None:
    refuse(emulator, code)
    with pytest.raises(AuthenticationError) as raised:
        list_operations()
    message = str(raised.value)
    cause = REFUSALS[code].cause if code in REFUSALS else "the identity host refused the client"
    assert message.startswith(f"Authentication failed: {cause}. ")
    assert f"AADSTS{code}: Words of Microsoft" in message
    assert ("expired" in message) == (code == "7000222")
    assert (f"Look up the code {code}" in message) == (code not in REFUSALS)
    assert not raised.value.is_transient
    assert not raised.value.is_unprocessed
    assert emulator.requests(path="/api/") == []


@pytest.mark.parametrize("status", [400, 401, 503])
def test_outage_of_the_identity_host_is_transient(
    emulator: Emulator, list_operations: Callable[[], list[Any]], status: int
) -> None:
    refuse(emulator, "90033", status)
    with pytest.raises(CloudPartnerError, match="Could not get a token from") as raised:
        list_operations()
    assert raised.value.is_transient
    assert not isinstance(raised.value, AuthenticationError)


@pytest.fixture
def environment(emulator: Emulator, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials of another application in the environment, and a connection that names an identity."""
    monkeypatch.setenv("AZURE_TENANT_ID", STRANGER["tenantId"])
    monkeypatch.setenv("AZURE_CLIENT_ID", STRANGER["clientId"])
    monkeypatch.setenv("AZURE_CLIENT_SECRET", STRANGER["secret"])
    named = {"managed_identity_client_id": "0f7e6c1d-7a55-4f0b-8f0e-111111111111"}
    connect(emulator, **NO_LOGIN | {"extra": {"tenantId": None, **named}})


@pytest.mark.usefixtures("environment")
def test_refused_environment_credential_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, list_operations: Callable[[], list[Any]]
) -> None:
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "mistyped-secret")
    with pytest.raises(AuthenticationError, match="client secret is wrong") as raised:
        list_operations()
    assert not raised.value.is_transient
    assert "AZURE_CLIENT_SECRET" in str(raised.value)
    assert "mistyped" not in str(raised.value)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("variable", ["AZURE_TENANT_ID", "AZURE_CLIENT_CERTIFICATE_PATH"])
def test_unusable_environment_is_a_value_error(
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    list_operations: Callable[[], list[Any]],
    variable: str,
) -> None:
    if variable == "AZURE_CLIENT_CERTIFICATE_PATH":
        monkeypatch.delenv("AZURE_CLIENT_SECRET")
    monkeypatch.setenv(variable, "/no/such file")
    with pytest.raises(ValueError, match=r"'cloud_partner_default': DefaultAzureCredential cannot be set up"):
        list_operations()
    assert emulator.requests() == []


# --- the identity that an error names ---


@pytest.mark.usefixtures("environment")
def test_403_names_the_environment_application_that_won(list_operations: Callable[[], list[Any]]) -> None:
    with pytest.raises(PermissionDeniedError, match=f"application {STRANGER['clientId']}") as raised:
        list_operations()
    message = str(raised.value)
    assert "not the managed identity 0f7e6c1d-7a55-4f0b-8f0e-111111111111 that the connection" in message
    assert "AZURE_CLIENT_ID" in message


def test_403_names_the_client_of_the_connection(
    emulator: Emulator, connect: Connect, list_operations: Callable[[], list[Any]]
) -> None:
    connect(emulator, login=STRANGER["clientId"], password=STRANGER["secret"])
    with pytest.raises(PermissionDeniedError, match=f"Authenticated as client {STRANGER['clientId']}"):
        list_operations()


@pytest.mark.parametrize(
    ("claims", "named", "expected"),
    [
        ({"appid": "A", "oid": "B"}, "A", "as application A, object id B."),
        ({"azp": "A", "oid": "B"}, None, "as application A, object id B."),
        (
            {"appid": "A", "oid": "B"},
            "B",
            "as application A, object id B. This is not the managed identity B",
        ),
        ({"appid": "<b>no id</b>", "upn": "user"}, "A", "as an identity of this host."),
        (["A"], "A", "as an identity of this host."),
        (None, "A", "as an identity of this host."),
    ],
    ids=str,
)
def test_identity_is_read_from_the_claims_of_a_token(
    emulator: Emulator, connect: Connect, claims: Any, named: str | None, expected: str
) -> None:
    ids = {"A": "0f7e6c1d-7a55-4f0b-8f0e-aaaaaaaaaaaa", "B": "0f7e6c1d-7a55-4f0b-8f0e-bbbbbbbbbbbb"}
    extra = {"managed_identity_client_id": ids[named]} if named else {}
    connect(emulator, **NO_LOGIN | {"extra": {"tenantId": None, **extra}})
    if isinstance(claims, dict):
        claims = {name: ids.get(value, value) for name, value in claims.items()}
    parts = jwt.encode({}, "key" * 20, "HS256").split(".")
    parts[1] = jwt.utils.base64url_encode(json.dumps(claims).encode()).decode()
    token = "opaque" if claims is None else ".".join(parts)
    for letter, one in ids.items():
        expected = expected.replace(f" {letter}", f" {one}")
    text = describe_identity(CloudPartnerHook().settings, token)
    assert text.startswith(f"Authenticated by DefaultAzureCredential {expected}")
    assert token not in text


# --- unavailable credentials ---


@pytest.fixture
def imds(emulator: Emulator, principal: Principal, monkeypatch: pytest.MonkeyPatch) -> Iterator[Imds]:
    """The managed identity endpoint of this host, which does not answer yet."""
    with running_imds(emulator, principal) as endpoint:
        monkeypatch.setattr("azure.identity._credentials.imds.IMDS_AUTHORITY", endpoint.url)
        yield endpoint


@pytest.fixture
def unassigned(emulator: Emulator, principal: Principal, monkeypatch: pytest.MonkeyPatch) -> Iterator[Imds]:
    """The managed identity endpoint of this host, to which no identity is assigned."""
    with running_imds(emulator, principal, assigned=False) as endpoint:
        endpoint.answer()
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", endpoint.url)
        yield endpoint


def test_restarted_triggerer_polls_until_imds_answers(
    emulator: Emulator, connect: Connect, context: dict[str, Any], log: Log, imds: Imds
) -> None:
    location = CloudPartnerHook().go_live("brief")
    sensor = OperationSensor(task_id="wait", operation_location=location, **polling)
    deferred = deferral(sensor, context)
    connect(emulator, **NO_LOGIN)
    with ThreadPoolExecutor() as pool:
        result = pool.submit(resume, sensor, context, deferred)
        eventually(lambda: len(log.containing("no credential is available")) > 1 or result.done())
        imds.answer()
        assert result.result(60)["status"] == "succeeded"
    assert imds.requests


def test_wrong_secret_ends_polling_at_once(
    emulator: Emulator, connect: Connect, context: dict[str, Any]
) -> None:
    location = operations(emulator, "going-live")[0]["location"]
    sensor = OperationSensor(task_id="wait", operation_location=location, **polling)
    deferred = deferral(sensor, context)
    requests = len(emulator.requests(path=TOKEN))
    connect(emulator, password="a wrong secret")
    with pytest.raises(AuthenticationError, match="client secret is wrong"):
        resume(sensor, context, deferred)
    assert len(emulator.requests(path=TOKEN)) == requests + 1


@pytest.mark.parametrize("task", ["deferrable sensor", "sensor", "operator"])
def test_worker_reports_an_unavailable_credential_at_once(
    emulator: Emulator, connect: Connect, context: dict[str, Any], unassigned: Imds, task: str
) -> None:
    location = operations(emulator, "going-live")[0]["location"]
    connect(emulator, **NO_LOGIN)
    one = (
        GoLiveOperator(task_id="go_live", offer_id="slow")
        if task == "operator"
        else OperationSensor(
            task_id="wait", operation_location=location, deferrable=task != "sensor", **polling
        )
    )
    with pytest.raises(AuthenticationError, match=r"no credential is available\. Set login and password"):
        one.execute(context)
    assert unassigned.requests == 1


@pytest.mark.usefixtures("unassigned")
def test_rescheduled_poll_survives_an_unavailable_credential(emulator: Emulator, connect: Connect) -> None:
    location = operations(emulator, "going-live")[0]["location"]
    ti = TaskInstance()
    ti.first_reschedule_date = datetime.now(UTC) - timedelta(seconds=5)
    ti.get_first_reschedule_date = lambda _: ti.first_reschedule_date  # type: ignore[method-assign]
    sensor = OperationSensor(
        task_id="wait", operation_location=location, deferrable=False, mode="reschedule", **polling
    )
    connect(emulator, **NO_LOGIN)
    assert sensor.poke({"ti": ti}) is False  # type: ignore[typeddict-item]


def test_connection_test_reports_an_unavailable_credential(
    emulator: Emulator, connect: Connect, unassigned: Imds
) -> None:
    connect(emulator, **NO_LOGIN)
    works, message = CloudPartnerHook().test_connection()
    assert not works
    assert message.startswith("Authentication failed: no credential is available. Set login and password, or")
    assert "ManagedIdentityCredential" in message
    assert "https://aka.ms" not in message
    assert unassigned.requests == 1


def test_unavailable_credential_is_transient_and_unsent(
    emulator: Emulator, connect: Connect, list_operations: Callable[[], list[Any]], unassigned: Imds
) -> None:
    connect(emulator, **NO_LOGIN)
    with pytest.raises(AuthenticationError) as raised:
        list_operations()
    assert raised.value.is_transient
    assert raised.value.is_unprocessed
    assert emulator.requests(path="/api/") == []
