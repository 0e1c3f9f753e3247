"""Credentials of azure-identity, the errors for tokens, and the identity that a token belongs to.

:raises ValueError: raised by `make_credential` and `make_async_credential` for a connection or an environment
    that azure-identity cannot use, before any request. Errors of `get_token` are converted by `token_error`.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from azure.core.exceptions import AzureError

from airflow_provider_cpp.core.errors import AuthenticationError, CloudPartnerError
from airflow_provider_cpp.core.redaction import mask, mask_long_words
from airflow_provider_cpp.core.text import html_to_text
from airflow_provider_cpp.portal.locations import TOKEN_SCOPE
from airflow_provider_cpp.transport.failures import is_untrusted
from airflow_provider_cpp.transport.identity_errors import (
    TokenFailure,
    classify_token_error,
    explain_refusal,
)
from airflow_provider_cpp.transport.library_logs import identity_log
from airflow_provider_cpp.transport.settings import DEFAULT_AUTHORITY, Settings

if TYPE_CHECKING:
    from types import ModuleType

    import aiohttp


# For other identity hosts, a lookup at the public cloud is useless and may be impossible.
_KNOWN_AUTHORITIES = (DEFAULT_AUTHORITY, "https://login.microsoftonline.us", "https://login.chinacloudapi.cn")
_IDENTITY_RETRIES = 2
#: Environment variables of azure-identity whose values are secret.
_SECRET_VARIABLES = (
    "AZURE_CLIENT_SECRET",
    "AZURE_CLIENT_CERTIFICATE_PASSWORD",
    "AZURE_PASSWORD",
    "MSI_SECRET",
)
#: Advice in messages of azure-identity that is longer than the cause.
_ADVICE = re.compile(
    r"\s*(Visit|See the troubleshooting guide for more information:|To mitigate this issue, please refer to "
    r"the troubleshooting guidelines here at) https://\S+?(?=\.?(\s|$))( to troubleshoot\s+this issue)?\.?"
)


def make_credential(settings: Settings, identity: ModuleType, **options: Any) -> Any:
    """Return the credential for a connection.

    :param identity: `azure.identity`, or `azure.identity.aio`, which has the same names
    :raises ValueError: the certificate, the tenant or the environment cannot be used
    """
    options |= {
        "authority": settings.authority,
        "disable_instance_discovery": settings.authority not in _KNOWN_AUTHORITIES,
        "connection_timeout": settings.timeout,
        "read_timeout": settings.timeout,
        "retry_total": _IDENTITY_RETRIES,
        "logger": identity_log,
    }
    try:
        if not settings.client_id:
            return _default_credential(settings, identity, options)
        if settings.certificate_path:
            return identity.CertificateCredential(
                settings.tenant_id,
                settings.client_id,
                settings.certificate_path,
                password=settings.client_secret,
                **options,
            )
        return identity.ClientSecretCredential(
            settings.tenant_id, settings.client_id, settings.client_secret, **options
        )
    # Not only ValueError: cryptography raises TypeError for a passphrase that is missing or superfluous, and
    # its own exceptions for some keys; the file may be unreadable.
    except Exception as error:
        raise ValueError(_unusable(settings, error)) from error


def _default_credential(settings: Settings, identity: ModuleType, options: dict[str, Any]) -> Any:
    named: dict[str, Any] = {
        name: value
        for name in ("managed_identity_client_id", "workload_identity_tenant_id")
        if (value := getattr(settings, name))
    }
    default = identity.DefaultAzureCredential(**options, **named)
    if settings.authority == DEFAULT_AUTHORITY or "AZURE_FEDERATED_TOKEN_FILE" not in os.environ:
        return default
    # The default credential passes its authority to each of its credentials except this one.
    workload = identity.WorkloadIdentityCredential(
        client_id=settings.managed_identity_client_id,
        tenant_id=settings.workload_identity_tenant_id,
        **options,
    )
    return identity.ChainedTokenCredential(workload, default)


def _unusable(settings: Settings, error: Exception) -> str:
    """Return the message for a credential that cannot be created."""
    # Secret values are not part of these messages, but a library may change.
    words = _redacted(settings, f"{error}", 300)
    if settings.certificate_path:
        what = f"the certificate at certificate_path {settings.certificate_path!r} cannot be used"
        if "password was not given" in words.lower():
            cure = "The private key is encrypted: set the connection's password to its passphrase."
        elif "password was given" in words.lower():
            cure = "The private key is not encrypted: remove the connection's password."
        else:
            cure = (
                "The file must hold a certificate and its RSA private key, as PEM or PKCS12. If the key is "
                "encrypted, the connection's password must be its passphrase."
            )
    elif settings.client_id:
        what = "the client id, the secret or the tenant cannot be used"
        cure = "Check the login, the password and the extra 'tenantId'."
    else:
        what = "DefaultAzureCredential cannot be set up"
        cure = "Correct the environment variables AZURE_* of this process, or set login and password."
    return f"{settings.name}: {what}: {words.removesuffix('.') or type(error).__name__}. {cure}"


def make_async_credential(settings: Settings, session: aiohttp.ClientSession) -> tuple[Any, Any]:
    """Return the async credential of a connection, and its token provider."""
    import azure.identity.aio

    from airflow_provider_cpp.transport.identity_transports import AsyncIdentityTransport

    # On the shared session, so that its TLS context serves for the identity host as well.
    transport = AsyncIdentityTransport(settings, session)
    credential = make_credential(settings, azure.identity.aio, transport=transport)
    return credential, azure.identity.aio.get_bearer_token_provider(credential, TOKEN_SCOPE)


def token_error(settings: Settings, error: Exception) -> CloudPartnerError:
    """Return the error for a token that could not be obtained.

    :return: an `AuthenticationError` if the identity host refused the credential (permanent), or if no
        credential is available (`unavailable`, transient); otherwise a transient `CloudPartnerError`
    """
    said = error.message if isinstance(error, AzureError) else f"{type(error).__name__}: {error}"
    words = _redacted(settings, _ADVICE.sub("", said), 1000 if not settings.client_id else 500)
    words = words.removesuffix(".")
    if settings.client_id:
        source = f"{settings.authority} for client {settings.client_id} of tenant {settings.tenant_id}"
    else:
        source = "DefaultAzureCredential, which authenticates this process since the connection has no login"
    failure = classify_token_error(settings, error, said)
    if failure is TokenFailure.OUTAGE:
        return CloudPartnerError(
            f"Could not get a token from {source}, so the request was not sent ({settings.name}): {words}. "
            "Check that this process can reach the identity host, and its certificate (extra 'verify').",
            unsent=True,
            untrusted=is_untrusted(error),
        )
    if failure is TokenFailure.UNAVAILABLE:
        named = settings.managed_identity_client_id
        assigned = f", and assign the managed identity {named} to it" if named else ""
        return AuthenticationError(
            "Authentication failed: no credential is available. Set login and password, or give this host a "
            f"managed or workload identity{assigned}. {settings.name} uses {source}. It reported: {words}.",
            unsent=True,
            unavailable=True,
        )
    refusal = explain_refusal(settings, said)
    return AuthenticationError(
        f"Authentication failed: {refusal.cause}. {refusal.cure.removesuffix('.')}. {settings.name} gets its "
        f"token from {source}. The answer was: {words}."
    )


def _redacted(settings: Settings, text: str, limit: int) -> str:
    proxy_secrets = settings.proxies.secrets(settings.authority)
    secrets = (settings.client_secret, os.environ.get("IDENTITY_HEADER"), *proxy_secrets)
    hidden = (*secrets, *map(os.environ.get, _SECRET_VARIABLES))
    return mask_long_words(mask(html_to_text(text, limit), hidden))
