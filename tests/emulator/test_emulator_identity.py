"""Tokens, requested by the real azure-identity."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import jwt
import pytest
import requests
import trustme
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import (
    CertificateCredential,
    ClientSecretCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
    aio,
)
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from emulator_client import SCOPE

from dev.emulator_process import Emulator, running_emulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TENANT = "tenant-1"
ISSUER, SUBJECT, AUDIENCE = (
    "https://issuer.example",
    "system:serviceaccount:a:b",
    "api://AzureADTokenExchange",
)

ASSERTION_TYPE = {"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}


class Keys:
    """The credentials of the principals in the seed."""

    def __init__(self) -> None:
        leaf = trustme.CA().issue_cert("client", key_type=trustme.KeyType.RSA)
        self.certificate = leaf.cert_chain_pems[0].bytes()
        self.certificate_key = leaf.private_key_pem.bytes()
        self.federation = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    @property
    def federation_public(self) -> str:
        public = self.federation.public_key()
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return public.public_bytes(serialization.Encoding.PEM, form).decode()

    def assertion(self, **changes: Any) -> str:
        """A token of the federated issuer."""
        claims = {"iss": ISSUER, "sub": SUBJECT, "aud": AUDIENCE, "exp": time.time() + 60, **changes}
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(claims, self.federation, algorithm="RS256")


@pytest.fixture(scope="session")
def keys() -> Keys:
    return Keys()


@pytest.fixture(scope="session")
def directory(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator with a principal of every kind."""
    principal = {"tenantId": TENANT, "publishers": ["contoso"]}
    seed = {
        "publishers": [{"id": "contoso", "offers": []}],
        "principals": [
            {**principal, "clientId": "secret", "secret": "s3cret/+&=", "publishers": ["contoso"]},
            {**principal, "clientId": "certificate", "certificate": keys.certificate.decode()},
            {
                **principal,
                "clientId": "workload",
                "federation": {"issuer": ISSUER, "subject": SUBJECT, "publicKey": keys.federation_public},
            },
            {**principal, "clientId": "managed-1", "identityHeader": "header"},
            {**principal, "clientId": "managed-2", "identityHeader": "header"},
            {"tenantId": TENANT, "clientId": "stranger", "secret": "a-strangers-secret", "publishers": []},
        ],
    }
    file = tmp_path_factory.mktemp("seed") / "seed.json"
    file.write_text(json.dumps(seed))
    with running_emulator("--seed", str(file)) as emulator:
        yield emulator


def options(emulator: Emulator) -> dict[str, Any]:
    return {
        "authority": emulator.url,
        "disable_instance_discovery": True,
        "connection_verify": emulator.ca,
        "retry_total": 0,
    }


def call(emulator: Emulator, token: str, path: str = "publishers") -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.get(
            f"{emulator.url}/api/{path}",
            params={"api-version": "2017-10-31"},
            headers={"Authorization": f"Bearer {token}"},
            verify=emulator.ca,
            timeout=10,
        )


def accepted(emulator: Emulator, token: str) -> bool:
    return call(emulator, token).status_code == 200


def post(emulator: Emulator, path: str, **form: str) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.post(f"{emulator.url}/{path}", data=form, verify=emulator.ca, timeout=10)


def test_a_client_secret(directory: Emulator) -> None:
    with ClientSecretCredential(TENANT, "secret", "s3cret/+&=", **options(directory)) as credential:
        token = credential.get_token(SCOPE)
    assert accepted(directory, token.token)
    assert 3590 <= token.expires_on - time.time() <= 3600


def test_a_certificate(directory: Emulator, keys: Keys) -> None:
    data = keys.certificate_key + keys.certificate
    credential = CertificateCredential(TENANT, "certificate", certificate_data=data, **options(directory))
    with credential:
        assert accepted(directory, credential.get_token(SCOPE).token)


def test_another_certificate(directory: Emulator) -> None:
    other = Keys()
    data = other.certificate_key + other.certificate
    credential = CertificateCredential(TENANT, "certificate", certificate_data=data, **options(directory))
    with credential, pytest.raises(ClientAuthenticationError, match="AADSTS700027"):
        credential.get_token(SCOPE)


def workload(emulator: Emulator, file: Path, assertion: str) -> WorkloadIdentityCredential:
    file.write_text(assertion)
    return WorkloadIdentityCredential(
        tenant_id=TENANT, client_id="workload", token_file_path=str(file), **options(emulator)
    )


def test_a_workload_identity(directory: Emulator, keys: Keys, tmp_path: Path) -> None:
    with workload(directory, tmp_path / "token", keys.assertion()) as credential:
        assert accepted(directory, credential.get_token(SCOPE).token)


@pytest.mark.parametrize(
    ("number", "changes"),
    [
        (700024, {"exp": 1}),
        (700023, {"aud": "https://elsewhere.example"}),
        (700213, {"iss": "https://elsewhere.example"}),
        (700213, {"sub": "system:serviceaccount:a:c"}),
        (700027, {"exp": None}),
    ],
)
def test_a_wrong_workload_identity(
    directory: Emulator, keys: Keys, tmp_path: Path, number: int, changes: dict[str, Any]
) -> None:
    with (
        workload(directory, tmp_path / "token", keys.assertion(**changes)) as credential,
        pytest.raises(ClientAuthenticationError, match=f"AADSTS{number}"),
    ):
        credential.get_token(SCOPE)


@pytest.fixture
def app_service(directory: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{directory.url}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", "header")
    return directory


@pytest.mark.parametrize(("wanted", "client_id"), [(None, "managed-1"), ("managed-2", "managed-2")])
def test_a_managed_identity(app_service: Emulator, wanted: str | None, client_id: str) -> None:
    credential = ManagedIdentityCredential(client_id=wanted, connection_verify=app_service.ca)
    with credential:
        assert accepted(app_service, credential.get_token(SCOPE).token)
    assert app_service.requests(path="^/msi/token$")[-1]["clientId"] == client_id


@pytest.mark.parametrize(("header", "wanted"), [("wrong", None), ("header", "unknown")])
def test_a_wrong_managed_identity(
    app_service: Emulator, monkeypatch: pytest.MonkeyPatch, header: str, wanted: str | None
) -> None:
    monkeypatch.setenv("IDENTITY_HEADER", header)
    credential = ManagedIdentityCredential(client_id=wanted, connection_verify=app_service.ca, retry_total=0)
    with credential, pytest.raises(ClientAuthenticationError):
        credential.get_token(SCOPE)


@pytest.mark.parametrize(
    ("status", "changes"),
    [
        (400, {"api-version": "2017-09-01"}),
        (500, {"resource": "https://elsewhere.example"}),
    ],
)
def test_managed_identity_checks_its_parameters(
    directory: Emulator, status: int, changes: dict[str, str]
) -> None:
    params = {"api-version": "2019-08-01", "resource": "https://cloudpartner.azure.com", **changes}
    with requests.Session() as session:
        session.trust_env = False
        session.headers["X-IDENTITY-HEADER"] = "header"
        answer = session.get(f"{directory.url}/msi/token", params=params, verify=directory.ca, timeout=10)
    assert (answer.status_code, answer.json()["statusCode"]) == (status, status)


def test_msal_discovers_the_hosts_of_the_authority(directory: Emulator) -> None:
    host = "login.microsoftonline.com"
    endpoint = f"https://{host}/{TENANT}/oauth2/v2.0/authorize"
    url = f"{directory.url}/common/discovery/instance"
    query = {"api-version": "1.1", "authorization_endpoint": endpoint}
    found = requests.get(url, params=query, verify=directory.ca, timeout=10).json()
    assert found["tenant_discovery_endpoint"] == (
        f"https://{host}/{TENANT}/v2.0/.well-known/openid-configuration"
    )
    assert [one["aliases"] for one in found["metadata"]] == [[host]]
    refused = requests.get(url, verify=directory.ca, timeout=10)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_request")


def test_discovery_of_both_versions(directory: Emulator) -> None:
    for version in ("", "/v2.0"):
        url = f"{directory.url}/{TENANT}{version}/.well-known/openid-configuration"
        with requests.Session() as session:
            session.trust_env = False
            document = session.get(url, verify=directory.ca, timeout=10).json()
        assert document["token_endpoint"] == f"{directory.url}/{TENANT}/oauth2{version}/token"


async def test_the_async_credentials(app_service: Emulator, keys: Keys, tmp_path: Path) -> None:
    trusted = options(app_service)
    file = tmp_path / "token"
    file.write_text(keys.assertion())
    data = keys.certificate_key + keys.certificate
    credentials: list[Any] = [
        aio.ClientSecretCredential(TENANT, "secret", "s3cret/+&=", **trusted),
        aio.CertificateCredential(TENANT, "certificate", certificate_data=data, **trusted),
        aio.WorkloadIdentityCredential(
            tenant_id=TENANT, client_id="workload", token_file_path=str(file), **trusted
        ),
        aio.ManagedIdentityCredential(connection_verify=app_service.ca),
    ]
    for credential in credentials:
        async with credential:
            assert accepted(app_service, (await credential.get_token(SCOPE)).token)


def test_the_first_token_endpoint(directory: Emulator) -> None:
    form = {"grant_type": "client_credentials", "client_id": "secret", "client_secret": "s3cret/+&="}
    resource = "https://cloudpartner.azure.com"
    answer = post(directory, f"{TENANT}/oauth2/token", **form, resource=resource).json()
    assert accepted(directory, answer["access_token"])
    assert (answer["token_type"], answer["expires_in"], answer["resource"]) == ("Bearer", "3599", resource)
    assert abs(int(answer["expires_on"]) - time.time() - 3599) < 10
    refused = post(directory, f"{TENANT}/oauth2/token", **form, resource="https://elsewhere.example")
    assert (refused.status_code, refused.json()["error_codes"]) == (400, [500011])


@pytest.mark.parametrize(
    ("status", "error", "number", "changes"),
    [
        (401, "invalid_client", 7000215, {"client_secret": "wrong"}),
        (401, "invalid_client", 7000218, {"client_secret": None}),
        (400, "unauthorized_client", 700016, {"client_id": "nobody"}),
        (400, "invalid_request", 900144, {"client_id": None}),
        (400, "invalid_request", 900144, {"scope": None}),
        (400, "unsupported_grant_type", 70003, {"grant_type": "password"}),
        (400, "invalid_resource", 500011, {"scope": "https://elsewhere.example/.default"}),
        (400, "invalid_scope", 1002012, {"scope": "openid"}),
        (400, "invalid_request", 90002, {"tenant": "nowhere"}),
        (400, "invalid_request", 900144, {"client_assertion": "x"}),
        (401, "invalid_client", 7000216, {"client_assertion": jwt.encode({}, "k" * 32), **ASSERTION_TYPE}),
        (401, "invalid_client", 700027, {"client_assertion": "x", **ASSERTION_TYPE}),
    ],
)
def test_errors_are_as_entra_gives_them(
    directory: Emulator, status: int, error: str, number: int, changes: dict[str, str | None]
) -> None:
    form = {
        "tenant": TENANT,
        "grant_type": "client_credentials",
        "client_id": "secret",
        "client_secret": "s3cret/+&=",
        "scope": SCOPE,
        **changes,
    }
    given = {name: value for name, value in form.items() if value is not None}
    answer = post(directory, f"{given.pop('tenant')}/oauth2/v2.0/token", **given)
    document = answer.json()
    assert (answer.status_code, document["error"], document["error_codes"]) == (status, error, [number])
    assert document["error_description"].startswith(f"AADSTS{number}: ")
    assert {"timestamp", "trace_id", "correlation_id"} <= set(document)


async def test_azure_identity_reports_an_unknown_tenant(directory: Emulator) -> None:
    unknown = aio.ClientSecretCredential("nowhere", "secret", "s3cret/+&=", **options(directory))
    async with unknown:
        with pytest.raises(ClientAuthenticationError, match="AADSTS90002"):
            await unknown.get_token(SCOPE)
    # This credential requests the configuration of the tenant first, and has an own message if that fails.
    with (
        ClientSecretCredential("nowhere", "secret", "s3cret/+&=", **options(directory)) as credential,
        pytest.raises(ClientAuthenticationError, match="tenant name or GUID"),
    ):
        credential.get_token(SCOPE)


def test_an_unregistered_principal_gets_a_token_and_then_403(directory: Emulator) -> None:
    with ClientSecretCredential(TENANT, "stranger", "a-strangers-secret", **options(directory)) as credential:
        token = credential.get_token(SCOPE).token
    assert call(directory, token).json() == []
    answer = call(directory, token, "publishers/contoso/offers")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "Forbidden")


def test_tokens_expire() -> None:
    with running_emulator("--token-lifetime", "0") as emulator:
        form = {
            "grant_type": "client_credentials",
            "client_id": emulator.connection["login"],
            "client_secret": emulator.connection["password"],
            "scope": SCOPE,
        }
        token_path = f"{emulator.connection['extra']['tenantId']}/oauth2/v2.0/token"
        token = post(emulator, token_path, **form).json()["access_token"]
        assert call(emulator, token).status_code == 401


def test_tokens_can_be_revoked(directory: Emulator) -> None:
    with ClientSecretCredential(TENANT, "secret", "s3cret/+&=", **options(directory)) as credential:
        token = credential.get_token(SCOPE).token
    assert accepted(directory, token)
    directory.revoke_tokens()
    assert call(directory, token).status_code == 401
    with ClientSecretCredential(TENANT, "secret", "s3cret/+&=", **options(directory)) as credential:
        assert accepted(directory, credential.get_token(SCOPE).token)
