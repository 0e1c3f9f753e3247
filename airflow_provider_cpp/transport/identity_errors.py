"""Classify the errors of azure-identity, and name cause and cure of a refusal.

Microsoft Entra documents its codes at https://learn.microsoft.com/entra/identity-platform/reference-error-codes
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from azure.core.exceptions import AzureError, ClientAuthenticationError

if TYPE_CHECKING:
    from airflow_provider_cpp.transport.settings import Settings


class TokenFailure(Enum):
    """Why a credential returned no token."""

    #: The identity host could not be reached, or reported an error of its own.
    OUTAGE = auto()
    #: No credential of this process could be used, for example because the managed identity endpoint did not
    #: answer within the one second that `DefaultAzureCredential` gives it.
    UNAVAILABLE = auto()
    #: The identity host refused the credential. The same request gets the same response.
    REFUSED = auto()


@dataclass(frozen=True)
class Refusal:
    """Cause and cure of a refusal.

    :param cause: clause without a period
    :param cure: instruction; `{client}`, `{secret}`, `{tenant}`, `{certificate}` and `{authority}` stand for
        the fields that hold them
    """

    cause: str
    cure: str


#: Fields that the cures name, for a connection with a login and for one without.
_CONNECTION_FIELDS = {
    "client": "the connection's login",
    "secret": "the connection's password",
    "tenant": "the extra 'tenantId'",
    "certificate": "the extra 'certificate_path'",
    "authority": "the extra 'authority'",
}
_ENVIRONMENT_FIELDS = {
    "client": "the environment variable AZURE_CLIENT_ID",
    "secret": "the environment variable AZURE_CLIENT_SECRET",
    "tenant": "the environment variable AZURE_TENANT_ID",
    "certificate": "the environment variable AZURE_CLIENT_CERTIFICATE_PATH",
    "authority": "the extra 'authority'",
}

_WRONG_TENANT = Refusal(
    "the tenant is wrong", "Set {tenant} to the directory (tenant) id of the service principal."
)
_OTHER_CLOUD = Refusal(
    "the tenant belongs to another cloud",
    "Check {tenant}, and set {authority} to the identity host of the tenant's cloud.",
)
_NO_SERVICE_PRINCIPAL = Refusal(
    "the app registration has no service principal in this tenant",
    "Check {tenant}. If the tenant is right, create the service principal: az ad sp create --id CLIENT_ID",
)
_CERTIFICATE_NOT_REGISTERED = Refusal(
    "the certificate is not registered for this client",
    "Upload the certificate of {certificate} to the app registration, or use the certificate that is "
    "registered there.",
)
_NO_FEDERATED_CREDENTIAL = Refusal(
    "no federated credential of the application matches this workload",
    "Compare issuer, subject and audience in the message with the federated credentials of the app "
    "registration or managed identity.",
)
_CONDITIONAL_ACCESS = Refusal(
    "a Conditional Access policy of the tenant blocks this client",
    "Ask an administrator of the tenant to find the policy in the sign-in logs and to allow the service "
    "principal from this network.",
)

REFUSALS: dict[str, Refusal] = {
    "7000215": Refusal("the client secret is wrong", "Set {secret} to the secret's value, not to its id."),
    "7000222": Refusal("the client secret has expired", "Create a new secret and set {secret} to its value."),
    "700016": Refusal("the client id is unknown in this tenant", "Check {client} and {tenant}."),
    "7000229": _NO_SERVICE_PRINCIPAL,
    "7000112": Refusal(
        "the application is disabled",
        "Ask an administrator of the tenant to enable it: Enterprise applications, Properties, 'Enabled for "
        "users to sign in'.",
    ),
    "90002": _WRONG_TENANT,
    "900023": _WRONG_TENANT,
    "90038": _OTHER_CLOUD,
    "900382": _OTHER_CLOUD,
    "500011": Refusal(
        "the tenant has no service principal for the Cloud Partner Portal API",
        "Check {tenant}: it must be the tenant that is linked to the Partner Center account. If the tenant "
        "is right, an administrator must add the API to it.",
    ),
    "500014": Refusal(
        "the service principal of the Cloud Partner Portal API is disabled in this tenant",
        "Ask an administrator of the tenant to enable it, and check {tenant}.",
    ),
    "53003": _CONDITIONAL_ACCESS,
    "530032": _CONDITIONAL_ACCESS,
    "50012": _CERTIFICATE_NOT_REGISTERED,
    "700027": _CERTIFICATE_NOT_REGISTERED,
    "700024": Refusal(
        "the client assertion is not within its valid time range",
        "Check the clock of this host. With a workload identity, check that its token file is renewed.",
    ),
    "70021": _NO_FEDERATED_CREDENTIAL,
    "700211": _NO_FEDERATED_CREDENTIAL,
    "700212": _NO_FEDERATED_CREDENTIAL,
    "700213": _NO_FEDERATED_CREDENTIAL,
}
#: Errors of Microsoft Entra itself, regardless of their HTTP status: TokenIssuanceError, RetryableError,
#: ExternalServerRetryableError, RequestTimeout, RequestBudgetExceededError, MsodsServiceUnavailable,
#: TenantThrottlingError, GraphRetryableError, GraphServiceUnreachable.
_OUTAGES = frozenset(("50000", "50033", "90006", "90012", "90024", "90033", "90055", "90090", "90091"))
#: MSAL reports a failed lookup of the tenant in these words, before it requests a token.
_NO_TENANT_CONFIGURATION = "Unable to get authority configuration"


def classify_token_error(settings: Settings, error: Exception, text: str) -> TokenFailure:
    """Return why a credential returned no token.

    A chain of credentials reports only a text. There, a code of Microsoft Entra is the one sign of a refusal.

    :param text: full message of the error
    """
    cause = error.__cause__
    status = getattr(getattr(error, "response", None), "status_code", None) or 0
    codes = _codes(text)
    # MSAL reports an outage in these words, without the response.
    texts = f"{text} {cause} {getattr(cause, '__context__', None)}"
    is_outage = re.search(r"\bHTTP (Error|status): (429|5\d\d)\b|\btemporarily_unavailable\b", texts)
    if is_outage or status == 429 or status >= 500 or _OUTAGES.intersection(codes):
        return TokenFailure.OUTAGE
    # A response that is not JSON comes from a host in between, for example a proxy.
    if not isinstance(error, ClientAuthenticationError) or isinstance(
        cause, AzureError | OSError | json.JSONDecodeError
    ):
        is_unavailable = isinstance(error, ClientAuthenticationError) and not settings.client_id
        return TokenFailure.UNAVAILABLE if is_unavailable else TokenFailure.OUTAGE
    return TokenFailure.REFUSED if codes or settings.client_id else TokenFailure.UNAVAILABLE


def explain_refusal(settings: Settings, text: str) -> Refusal:
    """Return cause and cure of a refusal, with the fields that this connection uses.

    :param text: full message of the error
    """
    fields = _CONNECTION_FIELDS if settings.client_id else _ENVIRONMENT_FIELDS
    codes = _codes(text)
    refusal = next((REFUSALS[code] for code in codes if code in REFUSALS), None)
    if refusal is None and _NO_TENANT_CONFIGURATION in text:
        refusal = Refusal("the tenant is wrong, or the authority", "Check {tenant} and {authority}.")
    if refusal is None and codes:
        refusal = Refusal(
            "the identity host refused the client",
            f"Look up the code {codes[0]} in Microsoft's list of AADSTS error codes "
            "(https://login.microsoftonline.com/error).",
        )
    if refusal is None:
        refusal = Refusal("the identity host refused the client", "Check {client}, {tenant} and {authority}.")
    return Refusal(refusal.cause, refusal.cure.format_map(fields))


def _codes(text: str) -> list[str]:
    return re.findall(r"\bAADSTS([0-9]{4,9})\b", text)
