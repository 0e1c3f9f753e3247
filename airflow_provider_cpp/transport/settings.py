"""Settings of a connection of type `cloud_partner`."""

from __future__ import annotations

import logging
import os
import re
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from requests import certs

from airflow_provider_cpp.constants import CONN_TYPE
from airflow_provider_cpp.core.http import DEFAULT_PORTS, origin
from airflow_provider_cpp.core.redaction import redact
from airflow_provider_cpp.portal.locations import API_VERSION, DEFAULT_HOST
from airflow_provider_cpp.transport.proxies import Proxies

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection


log = logging.getLogger(__name__)

DEFAULT_AUTHORITY = "https://login.microsoftonline.com"
# The first one that is set names the CA bundle if the connection names none.
_CA_BUNDLE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
_HOST_URL = re.compile(r"[a-z]+://([a-z0-9][a-z0-9._-]*|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", re.IGNORECASE)


@dataclass(frozen=True)
class Settings:
    """The validated settings of a connection of type `cloud_partner`.

    Hooks with equal settings share a session and a token. The name is part of the comparison, since errors
    name the connection.

    :param name: the connection in error messages
    """

    name: str
    base_url: str
    publisher_id: str | None
    client_id: str | None
    client_secret: str | None = field(repr=False)
    tenant_id: str | None
    authority: str
    certificate_path: str | None
    managed_identity_client_id: str | None
    workload_identity_tenant_id: str | None
    verify: bool | str
    timeout: float
    proxies: Proxies = field(repr=False)
    api_version: str

    @classmethod
    def from_connection(cls, connection: Connection, extra: dict[str, Any]) -> Settings:
        """Read and check a connection.

        :raises ValueError: a setting is missing or invalid, also a proxy in the environment
        """
        name = f"Connection {connection.conn_id!r}"
        extra = _without_prefixes(extra)

        if extra.get("api") not in (None, "cloud-partner"):
            raise ValueError(
                f"{name}: extra 'api' must be 'cloud-partner', the only supported service, or be removed."
            )

        def text(key: str) -> str | None:
            value = extra.get(key)
            if value is not None and not isinstance(value, str):
                raise ValueError(f"{name}: extra {key!r} must be text, not {type(value).__name__}.")
            return (value or "").strip() or None

        settings = cls(
            name=name,
            base_url=_base_url(name, connection),
            publisher_id=text("publisherId"),
            client_id=(connection.login or "").strip() or None,
            # Whitespace may be part of a certificate's passphrase, but not of a client secret.
            client_secret=(connection.password or "").strip("\r\n" if text("certificate_path") else None)
            or None,
            tenant_id=text("tenantId"),
            authority=_authority(name, text("authority")),
            certificate_path=text("certificate_path"),
            managed_identity_client_id=text("managed_identity_client_id"),
            workload_identity_tenant_id=text("workload_identity_tenant_id"),
            verify=_verify(name, extra.get("verify")),
            timeout=_timeout(name, extra.get("timeout")),
            proxies=Proxies.from_extra(name, extra.get("proxies") or extra.get("proxy")),
            api_version=text("api_version") or API_VERSION,
        )
        if settings.client_id and not settings.tenant_id:
            raise ValueError(
                f"{name} has a client id (login) but no tenant: set the extra 'tenantId' to the directory "
                "(tenant) id of the service principal."
            )
        if settings.client_id and not (settings.client_secret or settings.certificate_path):
            raise ValueError(
                f"{name} has a client id (login) but nothing to sign in with: set the password to the "
                "client secret, or the extra 'certificate_path' to a certificate. To sign in as a managed "
                "or workload identity, leave the login empty."
            )
        if settings.client_secret and not settings.client_id:
            raise ValueError(f"{name} has a password but no client id: set the login to the client id.")
        if settings.certificate_path and not Path(settings.certificate_path).is_file():
            raise ValueError(f"{name}: there is no file at certificate_path {settings.certificate_path!r}.")
        for url in (settings.base_url, settings.authority):
            settings.proxies.for_url(url)  # raises an error for an invalid proxy before any request
        if settings.verify is False:
            log.warning(
                "%s has verify=false: an attacker on the network path to %s can read the token. Set the path "
                "of a CA bundle instead.",
                name,
                settings.base_url,
            )
        return settings

    def publisher(self, publisher_id: str | None) -> str:
        """Return the given publisher id, else the one of the connection.

        :raises ValueError: both are missing
        """
        if publisher_id is None and self.publisher_id is None:
            raise ValueError(
                f"{self.name} names no publisher: set its extra 'publisherId', or the task's publisher_id."
            )
        return self.publisher_id or "" if publisher_id is None else publisher_id


def ssl_context(settings: Settings) -> ssl.SSLContext | bool:
    """Return the TLS context for aiohttp.

    :raises ValueError: the extra `verify` is not the path of a CA bundle
    """
    if settings.verify is False:
        return False
    if settings.verify is True:
        # The bundle of requests, so that worker and triggerer trust the same certificates.
        return ssl.create_default_context(cafile=certs.where())  # type: ignore[attr-defined]
    try:
        if Path(settings.verify).is_dir():
            return ssl.create_default_context(capath=settings.verify)
        return ssl.create_default_context(cafile=settings.verify)
    except OSError as error:
        raise ValueError(
            f"{settings.name}: {settings.verify!r}, which 'verify' names, can't be used as a CA bundle: "
            f"{error}"
        ) from error


def _without_prefixes(extra: dict[str, Any]) -> dict[str, Any]:
    """Return a connection's extras without the prefix of Airflow 2's form; a key without prefix wins."""
    prefix = f"extra__{CONN_TYPE}__"
    prefixed = {
        key.removeprefix(prefix): value for key, value in extra.items() if key.startswith(prefix) and value
    }
    return prefixed | {key: value for key, value in extra.items() if value not in (None, "")}


def _base_url(name: str, connection: Connection) -> str:
    host = (connection.host or "").strip().rstrip("/")
    if not host:
        return DEFAULT_HOST
    url = host if "://" in host else f"{connection.schema or 'https'}://{host}"
    with suppress(ValueError):  # reported below, without the user name and password of the URL
        if connection.port and urlsplit(url).port is None:
            url = f"{url}:{connection.port}"
    return _checked_url(name, "host", url)


def _authority(name: str, authority: str | None) -> str:
    if authority is None:
        return DEFAULT_AUTHORITY
    url = authority.rstrip("/")
    return _checked_url(name, "extra 'authority'", url if "://" in url else f"https://{url}")


def _checked_url(name: str, what: str, url: str) -> str:
    """Return the URL of a host that may receive secrets: with https or on this machine, without a path."""
    try:
        scheme, host, port = origin(url)
        host.encode("ascii").decode("idna")
        is_plain = bool(_HOST_URL.fullmatch(url))
    except ValueError:
        is_plain = False
    # Users put passwords into URLs: do not show them.
    url = redact(re.sub(r"^([a-z]+://)?.*@", r"\1***@", url, flags=re.DOTALL | re.IGNORECASE))
    if not is_plain:
        raise ValueError(
            f"{name}: {what} must be like 'https://cloudpartner.azure.com', with no path; not {url!r}."
        )
    if scheme == "http" and host not in ("localhost", "127.0.0.1", "::1"):
        raise ValueError(
            f"{name}: {what} {url!r} must begin with https://, or everybody could read the token."
        )
    bracketed = f"[{host}]" if ":" in host else host
    return f"{scheme}://{bracketed}" + ("" if port == DEFAULT_PORTS[scheme] else f":{port}")


def _verify(name: str, value: Any) -> bool | str:
    if value is None or value is True or (isinstance(value, str) and value.strip().lower() in ("", "true")):
        # Read here, so that requests and aiohttp use the same bundle.
        bundle = next(filter(None, map(os.environ.get, _CA_BUNDLE_VARIABLES)), "")
        return bundle if bundle and Path(bundle).exists() else True
    if value is False or (isinstance(value, str) and value.strip().lower() == "false"):
        return False
    if isinstance(value, str) and Path(value).exists():
        return value
    raise ValueError(f"{name}: extra 'verify' must be true, false or the path of a CA bundle, not {value!r}.")


def _timeout(name: str, value: Any) -> float:
    if value is None or value == "":
        return 30.0
    try:
        seconds = -1.0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 < seconds < 3600:
        raise ValueError(f"{name}: extra 'timeout' must be seconds from 0 to 3600, not {value!r}.")
    return seconds
