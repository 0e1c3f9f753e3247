"""Tokens: the token endpoints of Microsoft Entra and of App Service's managed identity.

Responses and errors have the form that azure-identity and MSAL expect. Tokens are opaque random strings.
Section "Authentication" of the API reference.
"""

from __future__ import annotations

import secrets
import time
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import jwt
from cryptography import x509
from starlette.responses import JSONResponse
from starlette.routing import Route

from airflow_provider_cpp.emulator.journal import annotate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.requests import Request

    from airflow_provider_cpp.emulator.seed import Principal

RESOURCE = "https://cloudpartner.azure.com"
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_FEDERATED_AUDIENCE = "api://AzureADTokenExchange"


@dataclass(frozen=True)
class _Issued:
    principal: Principal
    accepted_until: float
    expires: float


class Tokens:
    """The access tokens issued since the start.

    :param lifetime: seconds until a token expires, as its response says
    :param valid: seconds for which the API accepts a token, if shorter
    """

    def __init__(self, lifetime: int, valid: float | None = None) -> None:
        self.lifetime = lifetime
        self._valid = lifetime if valid is None else min(valid, lifetime)
        self._issued: dict[str, _Issued] = {}

    def issue(self, principal: Principal) -> str:
        """Return a new token."""
        now = time.time()
        self._issued = {token: issued for token, issued in self._issued.items() if issued.expires > now}
        token = secrets.token_urlsafe(48)
        self._issued[token] = _Issued(principal, now + self._valid, now + self.lifetime)
        return token

    def principal(self, token: str) -> Principal | None:
        """Return the principal of a token; None if the token is unknown, expired or revoked."""
        issued = self._issued.get(token)
        return issued.principal if issued is not None and issued.accepted_until > time.time() else None

    def is_invalid_early(self, token: str) -> bool:
        """Return whether a token is refused although it has not expired."""
        issued = self._issued.get(token)
        return issued is not None and issued.accepted_until <= time.time() < issued.expires

    def revoke_all(self) -> int:
        """Revoke all tokens issued so far, and return their number."""
        now = time.time()
        count = sum(issued.accepted_until > now for issued in self._issued.values())
        self._issued = {token: replace(issued, accepted_until=0) for token, issued in self._issued.items()}
        return count


class TokenError(Exception):
    """An error response of Entra: HTTP status, OAuth error, AADSTS number and message."""

    def __init__(self, status: int, error: str, number: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error = error
        self.number = number
        self.message = message


class Identity:
    """The identity service of the seed's principals.

    :param clock_offset: seconds by which times in responses differ from the clock
    """

    def __init__(self, principals: Sequence[Principal], tokens: Tokens, clock_offset: float = 0) -> None:
        self.principals = principals
        self._tokens = tokens
        self._clock_offset = clock_offset

    @property
    def routes(self) -> list[Route]:
        """The routes of the token endpoints, of discovery and of managed identity."""
        return [
            Route("/msi/token", self._managed_identity),
            Route("/common/discovery/instance", self._discover_instance),
            Route("/{tenant}/.well-known/openid-configuration", self._discovery),
            Route("/{tenant}/v2.0/.well-known/openid-configuration", self._discovery_v2),
            Route("/{tenant}/oauth2/token", self._token, methods=["POST"]),
            Route("/{tenant}/oauth2/v2.0/token", self._token_v2, methods=["POST"]),
        ]

    @property
    def _now(self) -> float:
        """The current time as responses show it."""
        return time.time() + self._clock_offset

    async def error(self, _: Request, error: Exception) -> JSONResponse:
        """Return the response for a `TokenError`, as Entra does."""
        assert isinstance(error, TokenError)  # noqa: S101 - Starlette declares a wider type than it passes
        trace, correlation = str(uuid.uuid4()), str(uuid.uuid4())
        at = f"{datetime.fromtimestamp(self._now, UTC):%Y-%m-%d %H:%M:%SZ}"
        return JSONResponse(
            {
                "error": error.error,
                "error_description": f"AADSTS{error.number}: {error.message} Trace ID: {trace} "
                f"Correlation ID: {correlation} Timestamp: {at}",
                "error_codes": [error.number],
                "timestamp": at,
                "trace_id": trace,
                "correlation_id": correlation,
            },
            status_code=error.status,
        )

    async def _discover_instance(self, request: Request) -> JSONResponse:
        """Return the hosts of the authority; MSAL requests them after a refused token of the public host."""
        endpoint = urlsplit(request.query_params.get("authorization_endpoint", ""))
        tenant = endpoint.path.strip("/").partition("/")[0]
        if request.query_params.get("api-version") != "1.1" or not endpoint.netloc or not tenant:
            message = "The request needs 'api-version=1.1' and an 'authorization_endpoint'."
            raise TokenError(400, "invalid_request", 900144, message)
        host = endpoint.netloc
        return JSONResponse(
            {
                "tenant_discovery_endpoint": f"https://{host}/{tenant}/v2.0/.well-known/openid-configuration",
                "api-version": "1.1",
                "metadata": [{"preferred_network": host, "preferred_cache": host, "aliases": [host]}],
            }
        )

    async def _discovery(self, request: Request) -> JSONResponse:
        return self._configuration(request, "")

    async def _discovery_v2(self, request: Request) -> JSONResponse:
        return self._configuration(request, "/v2.0")

    def _configuration(self, request: Request, version: str) -> JSONResponse:
        self._check_tenant(request.path_params["tenant"])
        tenant = _tenant_url(request)
        return JSONResponse(
            {
                "issuer": f"{tenant}{version}" if version else f"{tenant}/",
                "authorization_endpoint": f"{tenant}/oauth2{version}/authorize",
                "token_endpoint": f"{tenant}/oauth2{version}/token",
                "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
                "response_types_supported": ["token"],
                "subject_types_supported": ["pairwise"],
            }
        )

    async def _token(self, request: Request) -> JSONResponse:
        form = await _form(request)
        _required(form, "resource")
        principal = self._authenticated(request, form)
        if form["resource"] != RESOURCE:
            raise _unknown_resource(form["resource"])
        lifetime = self._tokens.lifetime
        now = int(self._now)
        return JSONResponse(
            {
                "token_type": "Bearer",
                "expires_in": str(lifetime),
                "ext_expires_in": str(lifetime),
                "expires_on": str(now + lifetime),
                "not_before": str(now),
                "resource": RESOURCE,
                "access_token": self._tokens.issue(principal),
            },
            headers={"Cache-Control": "no-store"},
        )

    async def _token_v2(self, request: Request) -> JSONResponse:
        form = await _form(request)
        _required(form, "scope")
        principal = self._authenticated(request, form)
        _check_scope(form["scope"])
        lifetime = self._tokens.lifetime
        return JSONResponse(
            {
                "token_type": "Bearer",
                "expires_in": lifetime,
                "ext_expires_in": lifetime,
                "access_token": self._tokens.issue(principal),
            },
            headers={"Cache-Control": "no-store"},
        )

    async def _managed_identity(self, request: Request) -> JSONResponse:
        """Respond as App Service does, API version 2019-08-01."""
        query = request.query_params
        header = request.headers.get("x-identity-header")
        if query.get("api-version") != "2019-08-01":
            return _managed_identity_refusal(400, "The api-version must be 2019-08-01.")
        if header is None or header not in [principal.identity_header for principal in self.principals]:
            return _managed_identity_refusal(401, "The header X-IDENTITY-HEADER is missing or wrong.")
        found = [one for one in self.principals if one.identity_header == header]
        if "client_id" in query:
            found = [one for one in found if one.client_id == query["client_id"]]
        if not found:
            return _managed_identity_refusal(
                400, "No User Assigned or Delegated Managed Identity found for specified ClientId."
            )
        if query.get("resource") != RESOURCE:
            return _managed_identity_refusal(500, "The resource is not known in this tenant.")
        principal = found[0]
        annotate(request, client_id=principal.client_id)
        return JSONResponse(
            {
                "access_token": self._tokens.issue(principal),
                "client_id": principal.client_id,
                "expires_on": str(int(self._now) + self._tokens.lifetime),
                "resource": RESOURCE,
                "token_type": "Bearer",
            }
        )

    def _check_tenant(self, tenant: str) -> None:
        if tenant not in [principal.tenant_id for principal in self.principals]:
            raise TokenError(
                400,
                "invalid_request",
                90002,
                f"Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID "
                "and are signing into the correct cloud.",
            )

    def _authenticated(self, request: Request, form: Mapping[str, str]) -> Principal:
        """Return the principal that a client secret or a client assertion belongs to."""
        tenant = request.path_params["tenant"]
        self._check_tenant(tenant)
        _required(form, "grant_type")
        if form["grant_type"] != "client_credentials":
            message = (
                f"The value '{form['grant_type']}' for the input parameter 'grant_type' is not supported."
            )
            raise TokenError(400, "unsupported_grant_type", 70003, message)
        _required(form, "client_id")
        principal = next(
            (p for p in self.principals if (p.tenant_id, p.client_id) == (tenant, form["client_id"])), None
        )
        if principal is None:
            raise TokenError(
                400,
                "unauthorized_client",
                700016,
                f"Application with identifier '{form['client_id']}' was not found in directory '{tenant}'.",
            )
        if "client_assertion" in form:
            if form.get("client_assertion_type") != _ASSERTION_TYPE:
                raise TokenError(
                    400, "invalid_request", 900144, f"'client_assertion_type' must be {_ASSERTION_TYPE}."
                )
            _check_assertion(principal, form["client_assertion"], _tenant_url(request))
        elif "client_secret" not in form:
            message = "The request body must contain 'client_assertion' or 'client_secret'."
            raise TokenError(401, "invalid_client", 7000218, message)
        elif principal.secret is None or not secrets.compare_digest(
            form["client_secret"].encode(), principal.secret.encode()
        ):
            raise TokenError(
                401,
                "invalid_client",
                7000215,
                "Invalid client secret provided. Ensure the secret being sent in the request is the client "
                f"secret value, not the client secret ID, for a secret added to app '{principal.client_id}'.",
            )
        return principal


def _check_assertion(principal: Principal, assertion: str, tenant_url: str) -> None:
    """Verify a JWT that was signed with a certificate's key, or issued by a federated issuer."""
    federation = principal.federation
    try:
        issuer = jwt.decode(assertion, options={"verify_signature": False}).get("iss")
        if principal.certificate is not None and issuer == principal.client_id:
            key = x509.load_pem_x509_certificate(principal.certificate.encode()).public_key()
            paths = ("/oauth2/v2.0/token", "/oauth2/token", "/v2.0", "/")
            _verify(assertion, key, [f"{tenant_url}{path}" for path in paths], issuer, principal.client_id)
        elif federation is not None:
            _verify(
                assertion, federation.public_key, [_FEDERATED_AUDIENCE], federation.issuer, federation.subject
            )
        else:
            raise TokenError(
                401, "invalid_client", 7000216, "No key is registered for this client assertion."
            )
    except jwt.ExpiredSignatureError:
        message = "Client assertion is not within its valid time range."
        raise TokenError(401, "invalid_client", 700024, message) from None
    except jwt.InvalidIssuerError:
        message = "No matching federated identity record found for the presented assertion."
        raise TokenError(401, "invalid_client", 700213, message) from None
    except jwt.InvalidAudienceError:
        message = "Client assertion audience claim does not match Realm issuer."
        raise TokenError(401, "invalid_client", 700023, message) from None
    except jwt.InvalidTokenError:
        message = "Client assertion failed signature validation, or lacks a claim."
        raise TokenError(401, "invalid_client", 700027, message) from None


def _verify(assertion: str, key: Any, audience: list[str], issuer: str, subject: str) -> None:
    claims = jwt.decode(
        assertion,
        key,
        algorithms=["RS256", "PS256", "ES256"],
        audience=audience,
        issuer=issuer,
        options={"require": ["aud", "exp", "iss", "sub"]},
    )
    if claims["sub"] != subject:
        raise jwt.InvalidIssuerError("another subject of the issuer")


def _check_scope(scope: str) -> None:
    if not scope.endswith("/.default"):
        message = f"The scope {scope} is not valid. Client credential flows must have one with /.default."
        raise TokenError(400, "invalid_scope", 1002012, message)
    if scope != f"{RESOURCE}/.default":
        raise _unknown_resource(scope.removesuffix("/.default"))


def _unknown_resource(resource: str) -> TokenError:
    message = f"The resource principal named {resource} was not found in the tenant."
    return TokenError(400, "invalid_resource", 500011, message)


async def _form(request: Request) -> dict[str, str]:
    # Starlette's form parser needs one more package.
    form = dict(parse_qsl((await request.body()).decode("utf-8", "replace")))
    annotate(request, client_id=form.get("client_id"))
    return form


def _required(form: Mapping[str, str], name: str) -> None:
    if not form.get(name):
        message = f"The request body must contain the following parameter: '{name}'."
        raise TokenError(400, "invalid_request", 900144, message)


def _tenant_url(request: Request) -> str:
    """Return the tenant's base URL, with the host that the client used."""
    return f"{request.url.scheme}://{request.url.netloc}/{request.path_params['tenant']}"


def _managed_identity_refusal(status: int, message: str) -> JSONResponse:
    return JSONResponse({"statusCode": status, "message": message}, status_code=status)
