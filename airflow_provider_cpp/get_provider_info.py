"""What Airflow asks a provider about itself; every Airflow process reads it, so it imports nothing."""

from __future__ import annotations

from typing import Any

from airflow_provider_cpp import __version__

_INTEGRATION = "Microsoft Cloud Partner Portal"


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata, valid against Airflow's schema of the provider info."""
    return {
        "package-name": "airflow-provider-cpp",
        "name": _INTEGRATION,
        "description": "Release offers on the Microsoft commercial marketplace.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://learn.microsoft.com/azure/marketplace/cloud-partner-portal-api-overview",
                "tags": ["azure"],
            }
        ],
        "hooks": [_modules("hooks")],
        "operators": [_modules("operators")],
        "sensors": [_modules("sensors")],
        "triggers": [_modules("triggers")],
        "connection-types": [
            {
                "connection-type": "cloud_partner",
                "hook-class-name": "airflow_provider_cpp.hooks.cloud_partner.CloudPartnerHook",
                "hook-name": _INTEGRATION,
                "conn-fields": {
                    "tenantId": _field("Tenant id", "Directory (tenant) id of the service principal"),
                    "publisherId": _field("Publisher id", "Used wherever a task names no publisher"),
                    "certificate_path": _field(
                        "Certificate path", "PEM or PKCS12 file to sign in with instead of a secret"
                    ),
                    "managed_identity_client_id": _field(
                        "Managed identity client id",
                        "To sign in as this managed identity; leave Client id empty",
                    ),
                    "workload_identity_tenant_id": _field(
                        "Workload identity tenant id",
                        "To sign in with workload identity; leave Client id empty",
                    ),
                    "authority": _field("Authority", "Identity host of a sovereign cloud or of the emulator"),
                    "verify": _field("Verify TLS", "true, false, or the path of a CA bundle"),
                    "timeout": _field(
                        "Timeout", "Seconds that one request may take; 30 by default", "number"
                    ),
                    "api_version": _field("API version", "2017-10-31 by default"),
                },
                "ui-field-behaviour": {
                    "hidden-fields": ["schema"],
                    "relabeling": {"login": "Client id", "password": "Client secret"},
                    "placeholders": {"host": "https://cloudpartner.azure.com"},
                },
            }
        ],
    }


def _modules(kind: str) -> dict[str, Any]:
    return {
        "integration-name": _INTEGRATION,
        "python-modules": [f"airflow_provider_cpp.{kind}.cloud_partner"],
    }


def _field(label: str, description: str, kind: str = "string") -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": [kind, "null"]}}
