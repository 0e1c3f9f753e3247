"""The emulator's own certificate authority and the certificate of its server."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trustme
from cryptography import x509

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_ALWAYS = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class TlsFiles:
    """PEM files: the certificate authority, and the server's certificate and key."""

    ca: Path
    certificate: Path
    key: Path


def provide(directory: Path, names: Iterable[str]) -> TlsFiles:
    """Return the files in a directory; create the missing ones.

    The authority is created once. The server's certificate is reused if it covers the loopback names and
    ``names`` (host names and addresses); otherwise the same authority issues a new one. Keys are readable by
    their owner only.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = TlsFiles(directory / "ca.pem", directory / "server.pem", directory / "server.key")
    ca_key = directory / "ca.key"
    if files.ca.exists() and ca_key.exists():
        ca = trustme.CA.from_pem(files.ca.read_bytes(), ca_key.read_bytes())
    else:
        ca = trustme.CA(organization_name="Cloud Partner emulator")
        _write_private(ca_key, ca.private_key_pem.bytes())
        ca.cert_pem.write_to_path(files.ca)
        files.certificate.unlink(missing_ok=True)
    wanted = list(dict.fromkeys([*_ALWAYS, *names]))
    if not (files.key.exists() and _covers(files.certificate, wanted)):
        leaf = ca.issue_cert(*wanted)
        _write_private(files.key, leaf.private_key_pem.bytes())
        leaf.cert_chain_pems[0].write_to_path(files.certificate)
    return files


def _covers(certificate: Path, names: Iterable[str]) -> bool:
    if not certificate.exists():
        return False
    loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
    covered = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    known: set[object] = {
        *covered.get_values_for_type(x509.DNSName),
        *covered.get_values_for_type(x509.IPAddress),
    }
    return all(_identity(name) in known for name in names)


def _identity(name: str) -> object:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return name


def _write_private(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
