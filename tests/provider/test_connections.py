"""What a connection says: whether it works, and what of it can't be used."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from harness import STRANGER

from airflow_provider_cpp.exceptions import CloudPartnerError
from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook

if TYPE_CHECKING:
    from pathlib import Path

    from harness import Connect, Principal

    from dev.emulator_process import Emulator

both = pytest.mark.parametrize("twin", ["sync", "async"])


def ask(twin: str) -> Any:
    hook = CloudPartnerHook()
    return hook.get_offer_status("slow") if twin == "sync" else asyncio.run(hook.aget_offer_status("slow"))


# --- the test of a connection, as the UI has it ---


def test_a_connection_that_works_says_how_many_offers_there_are(emulator: Emulator) -> None:
    offers = sum(name.startswith("contoso/") for name in emulator.offers())
    assert CloudPartnerHook().test_connection() == (
        True,
        f"Signed in; publisher contoso has {offers} offers.",
    )


def test_a_connection_without_a_publisher_says_how_many_there_are(
    emulator: Emulator, connect: Connect
) -> None:
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
        ({"extra": {"publisherId": "nobody"}}, "nobody"),
        ({"extra": {"tenantId": None}}, "set the extra 'tenantId'"),
        ({"password": None}, "set the password to the client secret"),
        ({"host": "http://cloudpartner.example"}, "must begin with https://"),
        ({"extra": {"timeout": "long"}}, "extra 'timeout' must be seconds"),
        ({"extra": {"verify": "/no/such/bundle.pem"}}, "extra 'verify' must be"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_connection_that_does_not_work_says_why(
    emulator: Emulator, connect: Connect, principal: Principal, changes: dict[str, Any], words: str
) -> None:
    connect(emulator, **changes)
    works, message = CloudPartnerHook().test_connection()
    assert not works
    assert words in message
    for secret in (principal.secret, STRANGER["secret"], "a wrong secret"):
        assert secret not in message


@pytest.mark.parametrize("what", ["host", "authority"])
def test_a_host_that_can_not_be_reached_is_told(emulator: Emulator, connect: Connect, what: str) -> None:
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


def test_a_certificate_that_is_not_trusted_is_told(emulator: Emulator, connect: Connect) -> None:
    connect(emulator, extra={"verify": None})
    works, message = CloudPartnerHook().test_connection()
    assert not works
    assert "certificate (extra 'verify')" in message


# --- extra `verify` ---


@both
@pytest.mark.parametrize("content", ["no certificate", ""])
def test_a_file_that_is_no_ca_bundle_is_told(
    emulator: Emulator, connect: Connect, tmp_path: Path, twin: str, content: str
) -> None:
    file = tmp_path / "bundle.pem"
    file.write_text(content)
    connect(emulator, extra={"verify": str(file)})
    with pytest.raises(ValueError, match=r"'cloud_partner_default'.*can't be used as a CA bundle"):
        ask(twin)
    assert emulator.requests() == []


@pytest.fixture
def certificates(emulator: Emulator, tmp_path: Path) -> Path:
    """A directory with the emulator's certificate authority and another one."""
    if not (openssl := shutil.which("openssl")):
        pytest.skip("there is no openssl to name the files of the directory")
    shutil.copy(emulator.ca, tmp_path / "emulator.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    subprocess.run([openssl, "rehash", str(tmp_path)], check=True, timeout=30)
    return tmp_path


@both
def test_a_directory_of_certificates_is_trusted(
    emulator: Emulator, connect: Connect, certificates: Path, twin: str
) -> None:
    connect(emulator, extra={"verify": str(certificates)})
    assert ask(twin).awaiting_publisher


@both
def test_a_directory_without_the_services_certificate_trusts_it_not(
    emulator: Emulator, connect: Connect, tmp_path: Path, twin: str
) -> None:
    connect(emulator, extra={"verify": str(tmp_path)})
    with pytest.raises(CloudPartnerError, match=r"(?i)certificate") as raised:
        ask(twin)
    assert raised.value.is_unprocessed
    assert emulator.requests() == []


# --- a password where none belongs ---


@both
@pytest.mark.parametrize(
    "url",
    [
        "https://somebody:topsecret@localhost",
        "somebody:topsecret@localhost",
        "https://topsecret@localhost",
        "https://somebody:top@secret@localhost",
    ],
)
@pytest.mark.parametrize("what", ["host", "authority"])
def test_a_url_with_a_password_is_refused_without_saying_it(
    emulator: Emulator, connect: Connect, twin: str, url: str, what: str
) -> None:
    if what == "host":
        connect(emulator, host=url)
    else:
        connect(emulator, extra={"authority": url})
    with pytest.raises(
        ValueError, match=re.escape("must be like 'https://cloudpartner.azure.com'")
    ) as raised:
        ask(twin)
    assert "secret" not in str(raised.value)
    assert emulator.requests() == []
