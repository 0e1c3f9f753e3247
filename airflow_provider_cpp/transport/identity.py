"""Name the identity that a token belongs to."""

from __future__ import annotations

import base64
import json
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_cpp.transport.settings import Settings

_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def describe_identity(settings: Settings, token: str) -> str:
    """Return a sentence that names the application which a token belongs to.

    The claims of the token are read without a check of its signature, and only ids are returned. The token of
    another issuer may be opaque: then the application is known from the connection or the environment.
    """
    claims, in_environment = _claims(token), _environment_application()
    application = claims.get("appid") or claims.get("azp") or settings.client_id or in_environment
    object_id = f", object id {claims['oid']}" if "oid" in claims else ""
    if settings.client_id:
        return f"Authenticated as client {application}{object_id}."
    who = f"application {application}" if application else "an identity of this host"
    text = f"Authenticated by DefaultAzureCredential as {who}{object_id}."
    named = settings.managed_identity_client_id
    if not named or not application or application.lower() == named.lower():
        return text
    cure = "set the connection's login and password to choose an application."
    if application == in_environment:
        cure = (
            "the environment variables AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET (or a "
            "certificate) take precedence. Remove them from this process, or "
        ) + cure
    return f"{text} This is not the managed identity {named} that the connection names: {cure}"


def _claims(token: str) -> dict[str, str]:
    """Return the claims of a JWT that are ids; none for another token."""
    try:
        payload = token.split(".")[1]
        raw = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError):
        return {}
    found = raw.items() if isinstance(raw, dict) else ()
    # Nothing but an id may get from a token into a message.
    return {name: value for name, value in found if isinstance(value, str) and _ID.fullmatch(value)}


def _environment_application() -> str | None:
    """Return the application of `EnvironmentCredential`, the first credential of `DefaultAzureCredential`.

    If it is configured, it either returns a token or ends the chain.
    """
    credentials = ("AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH")
    if "AZURE_TENANT_ID" in os.environ and any(name in os.environ for name in credentials):
        return os.environ.get("AZURE_CLIENT_ID")
    return None
