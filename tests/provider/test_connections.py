"""Connections: Test Connection, and every kind of connection that cannot be used."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from airflow.providers.common.compat.sdk import AirflowException, AirflowNotFoundException, Connection
from cryptography import x509
from cryptography.fernet import InvalidToken
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from harness import STRANGER, deferral, operations, resume

from airflow_provider_cpp.core import polling
from airflow_provider_cpp.exceptions import CloudPartnerError, NotFoundError
from airflow_provider_cpp.hooks import cloud_partner
from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
from airflow_provider_cpp.sensors.cloud_partner import OperationSensor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness import Connect, Principal

    from dev.emulator_process import Emulator

both = pytest.mark.parametrize("variant", ["sync", "async"])


def get_status(variant: str) -> Any:
    hook = CloudPartnerHook()
    return hook.get_offer_status("slow") if variant == "sync" else asyncio.run(hook.aget_offer_status("slow"))


# --- Test Connection ---


def test_working_connection_reports_the_number_of_offers(emulator: Emulator) -> None:
    offers = sum(name.startswith("contoso/") for name in emulator.offers())
    assert CloudPartnerHook().test_connection() == (
        True,
        f"Signed in; publisher contoso has {offers} offers.",
    )


def test_connection_without_publisher_reports_their_number(emulator: Emulator, connect: Connect) -> None:
    connect(emulator, extra={"publisherId": None})
    works, message = CloudPartnerHook().test_connection()
    assert works
    assert "is a user of 2 publishers" in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"password": "a wrong secret"}, "client secret is wrong"),
        ({"extra": {"tenantId": "5c2fa1e6-3b0d-4c52-9f6e-000000000000"}}, "tenant is wrong"),
        ({"login": "0f7e6c1d-7a55-4f0b-8f0e-000000000000"}, "client id is unknown"),
        (
            {"login": STRANGER["clientId"], "password": STRANGER["secret"]},
            "Object IDs was registered: it must be the one of the 'managed application in local directory'",
        ),
        ({"extra": {"publisherId": "unknown"}}, "unknown"),
        ({"extra": {"tenantId": None}}, "set the extra 'tenantId'"),
        ({"password": None}, "set the password to the client secret"),
        ({"host": "http://cloudpartner.example"}, "must begin with https://"),
        ({"extra": {"timeout": "long"}}, "extra 'timeout' must be seconds"),
        ({"extra": {"verify": "/no/such/bundle.pem"}}, "extra 'verify' must be"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_connection_test_names_the_cause_without_secrets(
    emulator: Emulator, connect: Connect, principal: Principal, changes: dict[str, Any], words: str
) -> None:
    connect(emulator, **changes)
    works, message = CloudPartnerHook().test_connection()
    assert not works
    assert words in message
    for secret in (principal.secret, STRANGER["secret"], "a wrong secret"):
        assert secret not in message


@pytest.mark.parametrize("what", ["host", "authority"])
def test_connection_test_names_an_unreachable_host(emulator: Emulator, connect: Connect, what: str) -> None:
    with socket.socket() as closed:  # bound, but not listening
        closed.bind(("127.0.0.1", 0))
        url = f"https://localhost:{closed.getsockname()[1]}"
        if what == "host":
            connect(emulator, host=url)
        else:
            connect(emulator, extra={"authority": url})
        works, message = CloudPartnerHook().test_connection()
    assert not works
    assert url in message
    assert "Check" in message


def test_connection_test_reports_an_untrusted_certificate(emulator: Emulator, connect: Connect) -> None:
    connect(emulator, extra={"verify": None})
    works, message = CloudPartnerHook().test_connection()
    assert not works
    assert "certificate (extra 'verify')" in message


# --- extra `verify` ---


@both
@pytest.mark.parametrize("content", ["no certificate", ""])
def test_file_that_is_not_a_ca_bundle_is_a_value_error(
    emulator: Emulator, connect: Connect, tmp_path: Path, variant: str, content: str
) -> None:
    file = tmp_path / "bundle.pem"
    file.write_text(content)
    connect(emulator, extra={"verify": str(file)})
    with pytest.raises(ValueError, match=r"'cloud_partner_default'.*can't be used as a CA bundle"):
        get_status(variant)
    assert emulator.requests() == []


CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


@both
@pytest.mark.parametrize("source", ["certifi", "SSL_CERT_FILE"])
def test_worker_and_triggerer_trust_the_same_certificates(
    emulator: Emulator, connect: Connect, monkeypatch: pytest.MonkeyPatch, variant: str, source: str
) -> None:
    for name in CA_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    if source == "certifi":
        monkeypatch.setattr("requests.certs.where", lambda: emulator.ca)
        monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", emulator.ca)
    else:
        monkeypatch.setenv(source, str(emulator.ca))
    connect(emulator, extra={"verify": True})
    assert get_status(variant).awaiting_publisher


@pytest.fixture
def certificates(emulator: Emulator, tmp_path: Path) -> Path:
    """A directory with the emulator's certificate authority and another one."""
    if not (openssl := shutil.which("openssl")):
        pytest.skip("openssl, which names the files of the directory, is not installed")
    shutil.copy(emulator.ca, tmp_path / "emulator.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    subprocess.run([openssl, "rehash", str(tmp_path)], check=True, timeout=30)
    return tmp_path


@both
def test_directory_of_certificates_is_trusted(
    emulator: Emulator, connect: Connect, certificates: Path, variant: str
) -> None:
    connect(emulator, extra={"verify": str(certificates)})
    assert get_status(variant).awaiting_publisher


@both
def test_directory_without_the_certificate_does_not_trust_it(
    emulator: Emulator, connect: Connect, tmp_path: Path, variant: str
) -> None:
    connect(emulator, extra={"verify": str(tmp_path)})
    with pytest.raises(CloudPartnerError, match=r"(?i)certificate") as raised:
        get_status(variant)
    assert raised.value.is_unprocessed
    assert emulator.requests() == []


# --- passwords in URLs ---


@both
@pytest.mark.parametrize(
    "url",
    [
        "https://user:topsecret@localhost",
        "user:topsecret@localhost",
        "https://topsecret@localhost",
        "https://user:top@secret@localhost",
        "https://user:top/secret@localhost",
        "https://user:top\nsecret@localhost",
        "https://localhost?sig=topsecret",
        "user:topsecret@local://host",
    ],
)
@pytest.mark.parametrize("what", ["host", "authority"])
def test_url_with_a_password_is_refused_without_quoting_it(
    emulator: Emulator, connect: Connect, variant: str, url: str, what: str
) -> None:
    if what == "host":
        connect(emulator, host=url, port=443)
    else:
        connect(emulator, extra={"authority": url})
    with pytest.raises(
        ValueError, match=re.escape("must be like 'https://cloudpartner.azure.com'")
    ) as raised:
        get_status(variant)
    assert not re.search("top|secret", str(raised.value))
    assert emulator.requests() == []


# --- connections that cannot be used ---

DOUBLE = json.dumps(json.dumps({"tenantId": "a tenant"}))


def read_in_worker(_: OperationSensor) -> None:
    CloudPartnerHook().list_operations("slow")


def read_in_event_loop(_: OperationSensor) -> None:
    asyncio.run(CloudPartnerHook().alist_operations("slow"))


def run_test_connection(_: OperationSensor) -> None:
    works, message = CloudPartnerHook().test_connection()
    assert not works
    raise ValueError(message.replace("The connection", "Connection 'cloud_partner_default'"))


def poll_in_triggerer(sensor: OperationSensor) -> None:
    resume(sensor, {}, sensor.deferred)  # type: ignore[attr-defined]


CALLERS = [read_in_worker, read_in_event_loop, run_test_connection, poll_in_triggerer]


@pytest.fixture(params=CALLERS, ids=lambda caller: caller.__name__)
def use(request: pytest.FixtureRequest, emulator: Emulator) -> Callable[[], None]:
    """Use the connection as it is by then: in a worker, an event loop, the UI, or a restarted triggerer."""
    sensor = OperationSensor(
        task_id="wait",
        operation_location=operations(emulator, "going-live")[0]["location"],
        poke_interval=0.01,
        max_wait=0.05,
        timeout=30,
    )
    sensor.deferred = deferral(sensor, {})  # type: ignore[attr-defined]
    requests = len(emulator.requests())

    def call() -> None:
        try:
            request.param(sensor)
        finally:
            assert len(emulator.requests()) == requests

    return call


def write_certificates(directory: Path) -> None:
    """Write files that are not a certificate with an RSA key."""
    (directory / "text.pem").write_text("no certificate")
    (directory / "broken.pem").write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "release")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1)
    certificate = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1))
    (directory / "elliptic.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"extra": {"tenantId": None}}, "tenantId"),
        ({"extra": {"tenantId": "no tenant!"}}, "tenantId"),
        ({"password": None}, "certificate_path"),
        ({"password": " \n"}, "certificate_path"),
        ({"login": None}, "login"),
        ({"host": "https://localhost/api"}, "host"),
        ({"host": "https://localhost?x=1"}, "host"),
        ({"host": "https://user@localhost"}, "host"),
        ({"host": "https://two words"}, "host"),
        ({"host": "ftp://localhost"}, "host"),
        ({"host": "https://localhost:none"}, "host"),
        ({"host": "http://cloudpartner.azure.com"}, "https://"),
        ({"extra": {"authority": "http://login.microsoftonline.com"}}, "https://"),
        ({"extra": {"authority": "https://login.microsoftonline.com/tenant"}}, "authority"),
        ({"extra": {"verify": "/nowhere.pem"}}, "verify"),
        ({"extra": {"verify": 5}}, "verify"),
        ({"extra": {"timeout": "soon"}}, "timeout"),
        ({"extra": {"timeout": 0}}, "timeout"),
        ({"extra": {"timeout": -1}}, "timeout"),
        ({"extra": {"timeout": "nan"}}, "timeout"),
        ({"extra": {"timeout": []}}, "timeout"),
        ({"extra": {"timeout": True}}, "timeout"),
        ({"extra": {"api": "partner-center"}}, "'api' must be 'cloud-partner'"),
        ({"extra": {"api": 1}}, "'api' must be 'cloud-partner'"),
        ({"extra": {"publisherId": 5}}, "publisherId"),
        ({"extra": {"tenantId": ["a"]}}, "tenantId"),
        ({"extra": {"authority": {}}}, "authority"),
        ({"extra": {"api_version": 20171031}}, "api_version"),
        ({"extra": {"proxies": ["http://proxy"]}}, "proxies"),
        ({"extra": {"proxies": {"https": 5}}}, "proxies"),
        ({"certificate": "nowhere.pem", "password": None}, "certificate_path"),
        ({"certificate": "text.pem", "password": None}, "certificate_path"),
        ({"certificate": "broken.pem", "password": None}, "certificate_path"),
        ({"certificate": "elliptic.pem", "password": None}, "certificate_path"),
        ({"certificate": "locked.pem", "password": None}, "set the connection's password to its passphrase"),
        ({"certificate": "locked.pem", "password": "another passphrase"}, "certificate_path"),
        ({"certificate": "plain.pem", "password": "passphrase"}, "remove the connection's password"),
    ],
    ids=str,
)
def test_unusable_connection_is_a_value_error(
    emulator: Emulator,
    connect: Connect,
    principal: Principal,
    use: Callable[[], None],
    changes: dict[str, Any],
    words: str,
) -> None:
    if certificate := changes.get("certificate"):
        write_certificates(principal.directory)
        changes = changes | {"extra": {"certificate_path": str(principal.directory / certificate)}}
    connect(emulator, **{key: value for key, value in changes.items() if key != "certificate"})
    with pytest.raises(ValueError, match="cloud_partner_default") as raised:
        use()
    assert words in str(raised.value)
    for secret in (principal.secret, "another passphrase"):
        assert secret not in str(raised.value)


@both
def test_missing_publisher_is_a_value_error(emulator: Emulator, connect: Connect, variant: str) -> None:
    connect(emulator, extra={"publisherId": None})
    with pytest.raises(ValueError, match="'cloud_partner_default' names no publisher"):
        get_status(variant)
    assert emulator.requests() == []


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("{'tenantId': 'a tenant'}", "is not valid JSON"),
        ("tenantId=a", "is not valid JSON"),
        (DOUBLE, "encoded as JSON twice"),
        ('["a tenant"]', "type list"),
        ("5", "type int"),
        ("true", "type bool"),
    ],
)
def test_extra_that_is_not_a_json_object_is_a_value_error(
    emulator: Emulator, use: Callable[[], None], monkeypatch: pytest.MonkeyPatch, extra: str, words: str
) -> None:
    connection = Connection(
        conn_id="cloud_partner_default", conn_type="cloud_partner", host=emulator.url, extra=extra
    )
    let_airflow(monkeypatch, connection)
    with pytest.raises(ValueError, match=r"'cloud_partner_default': the extra .*JSON object") as raised:
        use()
    assert words in str(raised.value)
    assert "a tenant" not in str(raised.value)


@pytest.mark.parametrize(
    "error",
    [
        InvalidToken(),
        AirflowException("Can't decrypt encrypted password for login=a, FERNET_KEY configuration is missing"),
        AirflowException("Could not create Fernet object: Incorrect padding"),
        ValueError("Can't decrypt `extra` params, FERNET_KEY configuration is missing"),
        ValueError("Expected integer value for `port`, but got 'a' instead."),
        PermissionError("Access denied for connection"),
    ],
    ids=repr,
)
def test_connection_that_airflow_cannot_decrypt_is_a_value_error(
    use: Callable[[], None], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    let_airflow(monkeypatch, error)
    with pytest.raises(ValueError, match="'cloud_partner_default'") as raised:
        use()
    is_key = isinstance(error, InvalidToken) or "fernet" in str(error).lower()
    assert ("Set [core] fernet_key to the key that encrypted it" in str(raised.value)) == is_key


def test_missing_connection_is_reported(use: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_CLOUD_PARTNER_DEFAULT")
    monkeypatch.setattr(polling, "NOT_FOUND_SECONDS", 0.2)
    # Test Connection returns the message, which `use` raises; the triggerer reports it like a lasting 404.
    with pytest.raises(
        (AirflowNotFoundException, NotFoundError, ValueError), match="'cloud_partner_default' is not defined"
    ):
        use()


@both
@pytest.mark.parametrize(
    "error", [OSError("API_SERVER_ERROR"), RuntimeError("https://user:top-secret@host is away")], ids=str
)
def test_outage_of_the_connection_store_is_transient(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, error: Exception, variant: str
) -> None:
    let_airflow(monkeypatch, error)
    with pytest.raises(CloudPartnerError, match="'cloud_partner_default' cannot be read") as raised:
        get_status(variant)
    assert raised.value.is_transient
    assert raised.value.is_unprocessed
    assert "top-secret" not in str(raised.value)
    assert emulator.requests() == []


def test_triggerer_survives_an_outage_of_the_connection_store(
    emulator: Emulator, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = CloudPartnerHook().go_live("brief")
    sensor = OperationSensor(
        task_id="wait", operation_location=location, poke_interval=0.01, max_wait=0.05, timeout=60
    )
    deferred = deferral(sensor, {})
    read = cloud_partner.get_async_connection
    outages: list[Exception] = [AirflowNotFoundException("The conn_id isn't defined"), OSError("away")] * 3

    async def read_after_outages(*args: Any, **kwargs: Any) -> Any:
        if outages:
            raise outages.pop()
        return await read(*args, **kwargs)

    monkeypatch.setattr(cloud_partner, "get_async_connection", read_after_outages)
    assert resume(sensor, {}, deferred)["status"] == "succeeded"
    assert not outages


def let_airflow(monkeypatch: pytest.MonkeyPatch, result: Connection | Exception) -> None:
    """Let Airflow return or raise something for each connection."""

    def get(*_: Any, **__: Any) -> Connection:
        if isinstance(result, Exception):
            raise result
        return result

    async def aget(*_: Any, **__: Any) -> Connection:
        return get()

    monkeypatch.setattr(CloudPartnerHook, "get_connection", get)
    monkeypatch.setattr(cloud_partner, "get_async_connection", aget)


def test_the_supported_api_can_be_named(emulator: Emulator, connect: Connect) -> None:
    connect(emulator, extra={"api": "cloud-partner"})
    assert get_status("sync").awaiting_publisher


@both
@pytest.mark.parametrize("form", ["URL", "host with port", "fields"])
def test_host_is_accepted_in_every_form(
    emulator: Emulator, connect: Connect, form: str, variant: str
) -> None:
    bare = f"localhost:{emulator.port}"
    fields: dict[str, dict[str, Any]] = {
        "URL": {"host": f"https://{bare}/"},
        "host with port": {"host": bare},
        "fields": {"host": "localhost", "schema": "https", "port": emulator.port},
    }
    connect(emulator, **fields[form])
    assert get_status(variant).awaiting_publisher
