"""Credentials of azure-identity, and the errors for tokens that could not be obtained."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

from azure.core.exceptions import AzureError, ClientAuthenticationError
from requests.utils import get_environ_proxies, select_proxy

from airflow_provider_cpp.core.errors import AuthenticationError, CloudPartnerError
from airflow_provider_cpp.core.redaction import mask, mask_long_words
from airflow_provider_cpp.core.text import html_to_text
from airflow_provider_cpp.portal.locations import TOKEN_SCOPE
from airflow_provider_cpp.transport.failures import is_untrusted
from airflow_provider_cpp.transport.library_logs import identity_log
from airflow_provider_cpp.transport.settings import DEFAULT_AUTHORITY, Settings

if TYPE_CHECKING:
    from types import ModuleType

    import aiohttp


# For any other identity host, asking the public cloud whether it exists is pointless, and may be impossible.
_KNOWN_AUTHORITIES = (DEFAULT_AUTHORITY, "https://login.microsoftonline.us", "https://login.chinacloudapi.cn")
_IDENTITY_RETRIES = 2
_CURES = {
    "AADSTS7000215": "The client secret is wrong: the secret's value is wanted, not its id.",
    "AADSTS7000222": "The client secret has expired: make a new one and put it into the connection.",
    "AADSTS90002": "The tenant is wrong: extra 'tenantId' must be the directory (tenant) id of the "
    "principal.",
    "AADSTS900023": "The tenant is wrong: extra 'tenantId' must be the directory (tenant) id of the "
    "principal.",
    # In these words MSAL says it before it asks for a token.
    "Unable to get authority configuration": "The tenant is wrong, or the authority: check the extras "
    "'tenantId' and 'authority'.",
    "AADSTS700016": "The client id is unknown in this tenant: check the login and the extra 'tenantId'.",
}


def make_credential(settings: Settings, identity: ModuleType, **options: Any) -> Any:
    """Return the credential for a connection.

    :param identity: `azure.identity`, or its async twin `azure.identity.aio` with the same names
    """
    options |= {
        "authority": settings.authority,
        "disable_instance_discovery": settings.authority not in _KNOWN_AUTHORITIES,
        "connection_timeout": settings.timeout,
        "read_timeout": settings.timeout,
        "retry_total": _IDENTITY_RETRIES,
        "logger": identity_log,
    }
    if settings.proxies:
        options.setdefault("proxies", dict(settings.proxies))
    if not settings.client_id:
        transport = dict(options)
        for name in ("managed_identity_client_id", "workload_identity_tenant_id"):
            if value := getattr(settings, name):
                options[name] = value
        default = identity.DefaultAzureCredential(**options)
        if settings.authority == DEFAULT_AUTHORITY or "AZURE_FEDERATED_TOKEN_FILE" not in os.environ:
            return default
        # The default credential hands its authority on to all but this one.
        workload = identity.WorkloadIdentityCredential(
            tenant_id=settings.workload_identity_tenant_id, **transport
        )
        return identity.ChainedTokenCredential(workload, default)
    if settings.certificate_path:
        try:
            return identity.CertificateCredential(
                settings.tenant_id,
                settings.client_id,
                settings.certificate_path,
                password=settings.client_secret,
                **options,
            )
        except ValueError as error:
            raise ValueError(
                f"{settings.name}: the certificate at certificate_path {settings.certificate_path!r} can't "
                f"be used: {error} Its passphrase, if it has one, is the connection's password."
            ) from error
    return identity.ClientSecretCredential(
        settings.tenant_id, settings.client_id, settings.client_secret, **options
    )


def proxy_for(settings: Settings, url: str) -> dict[str, str]:
    """Return the proxy to a host, the connection's or else the environment's, as azure-core wants it."""
    proxy = select_proxy(url, dict(settings.proxies) or get_environ_proxies(url))
    return {"http": proxy, "https": proxy} if proxy else {}


def make_async_credential(settings: Settings, session: aiohttp.ClientSession) -> tuple[Any, Any]:
    """Return the async credential of a connection, and its token provider."""
    import azure.identity.aio
    from azure.core.pipeline.transport import AioHttpTransport

    # On the shared session, so that its TLS context serves for the identity host as well.
    transport = AioHttpTransport(
        session=session,
        session_owner=False,
        connection_timeout=settings.timeout,
        read_timeout=settings.timeout,
    )
    # A session that is handed in is taken as it is, without the environment's proxies.
    credential = make_credential(
        settings, azure.identity.aio, transport=transport, proxies=proxy_for(settings, settings.authority)
    )
    return credential, azure.identity.aio.get_bearer_token_provider(credential, TOKEN_SCOPE)


def token_error(settings: Settings, error: Exception) -> CloudPartnerError:
    """Return the error for a token that could not be had: an outage passes, a refusal stays."""
    said = error.message if isinstance(error, AzureError) else f"{type(error).__name__}: {error}"
    secrets = (settings.client_secret, os.environ.get("IDENTITY_HEADER"))
    words = mask_long_words(mask(html_to_text(said, 500), secrets))
    status = getattr(getattr(error, "response", None), "status_code", None)
    # What is no JSON is not the identity host's answer, but that of something in between.
    refused = isinstance(error, ClientAuthenticationError) and not isinstance(
        error.__cause__, AzureError | OSError | json.JSONDecodeError
    )
    # MSAL says an outage in these words, without the answer.
    causes = f"{words} {error.__cause__} {getattr(error.__cause__, '__context__', None)}"
    outage = re.search(r"\bHTTP (Error|status): (429|5\d\d)\b", causes)
    if not refused or outage or status == 429 or (status or 0) >= 500:
        return CloudPartnerError(
            f"No token could be had from {settings.authority}, so nothing was sent ({settings.name}): "
            f"{words.removesuffix('.')}. Check that the host can be reached from here, and its certificate "
            "(extra 'verify').",
            unsent=True,
            untrusted=is_untrusted(error),
        )
    if settings.client_id:
        who = f"client {settings.client_id} of tenant {settings.tenant_id}"
        cure = AuthenticationError.hint
    else:
        who = "this host, which DefaultAzureCredential was to sign in, since the connection has no login,"
        cure = "Set login and password, or give this host a managed or workload identity."
    cure = next((known for sign, known in _CURES.items() if re.search(rf"{sign}\b", words)), cure)
    return AuthenticationError(
        f"{settings.name}: {settings.authority} gave {who} no token: {words.removesuffix('.')}. {cure}"
    )
