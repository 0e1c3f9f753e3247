"""What Airflow asks a provider about itself; every Airflow process reads it, so it imports nothing."""

from __future__ import annotations

from typing import Any

from airflow_provider_cpp import __version__
from airflow_provider_cpp.constants import CONN_TYPE

_INTEGRATION = "Microsoft Cloud Partner Portal"
_GUIDES = (
    *("publish", "go-live", "cancel", "get-offer", "update-offer"),
    *("operation-sensor", "offer-status-sensor", "hook"),
)


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata, valid against every supported Airflow's schema of the provider info."""
    return {
        "package-name": "airflow-provider-cpp",
        "name": _INTEGRATION,
        "description": "Release offers on the Microsoft commercial marketplace.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://learn.microsoft.com/azure/marketplace/cloud-partner-portal-api-overview",
                "how-to-guide": [f"/docs/howto/{name}.md" for name in _GUIDES],
                "tags": ["azure"],
            }
        ],
        "hooks": [_modules("hooks")],
        "operators": [_modules("operators", "cloud_partner", "offers", "approval")],
        "sensors": [_modules("sensors")],
        "triggers": [_modules("triggers")],
        "extra-links": [
            f"airflow_provider_cpp.links.cloud_partner.{name}"
            for name in ("PreviewLink", "LiveLink", "PartnerCenterLink")
        ],
        "connection-types": [
            {
                "connection-type": CONN_TYPE,
                "hook-class-name": "airflow_provider_cpp.hooks.cloud_partner.CloudPartnerHook",
                "hook-name": _INTEGRATION,
                "conn-fields": CONNECTION_FIELDS,
                "ui-field-behaviour": FIELD_BEHAVIOUR,
            }
        ],
    }


def _modules(kind: str, *names: str) -> dict[str, Any]:
    return {
        "integration-name": _INTEGRATION,
        "python-modules": [f"airflow_provider_cpp.{kind}.{name}" for name in names or ("cloud_partner",)],
    }


def _field(label: str, description: str, kind: str = "string", **more: Any) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": [kind, "null"], **more}}


#: The connection's extras in the form. Airflow 3.2 and later reads them here, an older one asks the hook.
CONNECTION_FIELDS: dict[str, dict[str, Any]] = {
    "tenantId": _field(
        "Tenant id", "Directory (tenant) id of the service principal; needed with a client id."
    ),
    "publisherId": _field("Publisher id", "Used wherever a task names no publisher."),
    "certificate_path": _field(
        "Certificate path",
        "PEM or PKCS12 file to sign in with instead of a secret; where the workers and the triggerer see it.",
    ),
    "managed_identity_client_id": _field(
        "Managed identity client id", "To sign in as this managed identity. Leave the client id empty."
    ),
    "workload_identity_tenant_id": _field(
        "Workload identity tenant id",
        "To sign in with workload identity to this tenant. Leave the client id empty.",
    ),
    "authority": _field(
        "Authority",
        "Identity host of a sovereign cloud or of the emulator. The public one by default.",
        examples=["https://login.microsoftonline.us", "https://login.chinacloudapi.cn"],
    ),
    "verify": _field(
        "Verify TLS",
        "true (default), false, or the path of a CA bundle; for the API and the identity host.",
        examples=["true", "false"],
    ),
    "timeout": _field("Timeout", "Seconds that one request may take. 30 by default.", "number"),
    "proxies": _field("Proxies", 'As in the HTTP provider, e.g. {"https": "http://proxy:8080"}.', "object"),
    "api_version": _field("API version", "2017-10-31 by default."),
}

#: What the form makes of the fields that every connection has. The scheme belongs to the host, so `schema` is
#: hidden; the port may too, but one that an imported connection has must be seen, since it counts.
FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["schema"],
    "relabeling": {"host": "Host", "login": "Client id", "password": "Client secret", "port": "Port"},
    "placeholders": {
        "host": "https://cloudpartner.azure.com",
        "login": "application (client) id; empty for a managed or workload identity",
        "password": "the secret's value, or the certificate's passphrase",
        "port": "the host's, if it names one, else 443",
    },
}
