"""The emulator over HTTP: the API, the token endpoints, and the control of the emulator itself.

Requests of the first two kinds pass through `JournalMiddleware`. Control is under ``/_emulator``, without a
token:

- ``GET /_emulator/requests[?method=…&path=regex]``: the journal; ``DELETE`` clears it;
- ``GET /_emulator/offers``: the state of each offer;
- ``GET``, ``POST``, ``DELETE /_emulator/faults``: see `airflow_provider_cpp.emulator.faults`;
- ``POST /_emulator/tokens/revoke``: all tokens issued so far become invalid;
- ``POST /_emulator/reset``: restore the seed's offers and the faults of the start, and clear the journal.
  Tokens stay valid. Requests in progress get no response and have no effect.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from airflow_provider_cpp.emulator.documents import (
    API_VERSION,
    location,
    offer_document,
    offer_summary,
    operation_document,
    overview_document,
    publisher_document,
    status_document,
    submission_document,
)
from airflow_provider_cpp.emulator.faults import FaultError
from airflow_provider_cpp.emulator.identity import TokenError
from airflow_provider_cpp.emulator.journal import annotate
from airflow_provider_cpp.emulator.middleware import JournalMiddleware
from airflow_provider_cpp.emulator.offers import ServiceError, bad_request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from airflow_provider_cpp.emulator.faults import Faults
    from airflow_provider_cpp.emulator.identity import Identity, Tokens
    from airflow_provider_cpp.emulator.journal import Entry, Journal
    from airflow_provider_cpp.emulator.offers import Offer, OfferVersion
    from airflow_provider_cpp.emulator.operations import Operation
    from airflow_provider_cpp.emulator.seed import Principal
    from airflow_provider_cpp.emulator.service import Service

_Endpoint: TypeAlias = "Callable[[Request, Service], Awaitable[Response]]"

_OFFER_TYPE_FILTER = re.compile(r"\s*offerTypeId\s+eq\s+'([^']*)'\s*")


def create_app(
    service: Service,
    identity: Identity,
    tokens: Tokens,
    journal: Journal,
    faults: Faults,
    *,
    clock_offset: float,
    save: Callable[[], None],
    reset: Callable[[], None],
    report: Callable[[Entry], None],
) -> ASGIApp:
    """Build the emulator's application.

    :param clock_offset: seconds by which the date of responses is wrong
    :param save: called after each change of the service's data, before the response
    :param reset: restores the seed
    :param report: called with each completed request
    """
    app = Starlette(
        routes=[
            Mount("/_emulator", routes=Control(service, tokens, journal, faults, reset).routes),
            Mount("/api", routes=Api(service, tokens, save).routes),
            *identity.routes,
        ],
        exception_handlers={
            ServiceError: _service_error,
            TokenError: identity.error,
            HTTPException: _http_error,
            Exception: _internal_error,
        },
    )
    app.router.redirect_slashes = False
    return JournalMiddleware(app, journal, faults, report, clock_offset)


class Api:
    """The endpoints under ``/api``. Section "Endpoints" of the API reference."""

    def __init__(self, service: Service, tokens: Tokens, save: Callable[[], None]) -> None:
        self._service = service
        self._tokens = tokens
        self._save = save

    @property
    def routes(self) -> list[Route]:
        """The routes, relative to ``/api``."""
        offers = "/publishers/{publisher}/offers"
        offer = f"{offers}/{{offer}}"
        return [
            self._route("GET", "/publishers", self._list_publishers),
            self._route("GET", offers, self._list_offers),
            Route(offer, self._checked(self._get_or_put_offer), methods=["GET", "PUT"]),
            self._route("GET", f"{offer}/versions/{{version}}", self._get_version),
            self._route("GET", f"{offer}/slot/{{slot}}", self._get_slot),
            self._route("POST", f"{offer}/publish", self._publish),
            self._route("POST", f"{offer}/golive", self._go_live),
            self._route("POST", f"{offer}/cancel", self._cancel),
            self._route("GET", f"{offer}/status", self._get_status),
            self._route("GET", f"{offer}/submissions", self._list_submissions),
            self._route("GET", f"{offer}/operations/{{operation}}", self._get_operation),
            self._route("GET", "/operations/{key}", self._get_operation_of_version),
        ]

    def _route(self, method: str, path: str, endpoint: _Endpoint) -> Route:
        return Route(path, self._checked(endpoint), methods=[method])

    def _checked(self, endpoint: _Endpoint) -> Callable[[Request], Awaitable[Response]]:
        """Call an endpoint only for requests with a valid token, the api-version and a permitted publisher.

        The endpoint gets the service in its current state, or in the past one that a fault asks for.
        """

        async def checked(request: Request) -> Response:
            principal = self._authenticated(request)
            version = request.query_params.get("api-version")
            if version != API_VERSION:
                problem = f"The api-version '{version}' is not supported." if version else "No api-version."
                message = f"{problem} Allowed values are ['{API_VERSION}']."
                raise ServiceError(400, "InvalidAPIVersion", message)
            request.state.principal = principal
            lag = request.state.lag
            service = self._service.lagging(lag) if lag else self._service.frozen()
            if "publisher" in request.path_params:
                service.check_publisher(request.path_params["publisher"], principal.publishers)
            return await endpoint(request, service)

        return checked

    def _authenticated(self, request: Request) -> Principal:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise ServiceError(401, "Unauthorized", "The request has no bearer token.")
        principal = self._tokens.principal(token.strip())
        if principal is None:
            if self._tokens.is_invalid_early(token.strip()):
                annotate(request, fault={**(request.state.entry.fault or {}), "token": "refused"})
            raise ServiceError(401, "Unauthorized", "The access token is unknown, expired or revoked.")
        annotate(request, client_id=principal.client_id)
        return principal

    def _changed(self, request: Request) -> None:
        self._save()
        annotate(request, effect=True)

    def _offer(self, request: Request, service: Service) -> Offer:
        return service.offer(request.path_params["publisher"], request.path_params["offer"])

    async def _list_publishers(self, request: Request, service: Service) -> Response:
        permitted = request.state.principal.publishers
        return JSONResponse(
            [publisher_document(one, name) for one, name in service.publishers.items() if one in permitted]
        )

    async def _list_offers(self, request: Request, service: Service) -> Response:
        wanted = request.query_params.get("$filter")
        match = None
        if wanted is not None:
            match = _OFFER_TYPE_FILTER.fullmatch(wanted)
            if match is None:
                raise bad_request("The only supported $filter is offerTypeId eq '…'.")
        offers = service.offers(request.path_params["publisher"], match and match[1])
        return JSONResponse([offer_summary(service, offer) for offer in offers])

    async def _get_or_put_offer(self, request: Request, service: Service) -> Response:
        if request.method != "PUT":
            return _offer_response(service, service.draft(self._offer(request, service)))
        body = await _json(request)
        offer, created = service.put_offer(
            request.path_params["publisher"],
            request.path_params["offer"],
            body,
            request.headers.get("if-match"),
        )
        self._changed(request)
        document = offer_document(service, service.draft(offer))
        return JSONResponse(document, 201 if created else 200, headers={"ETag": offer.etag})

    async def _get_version(self, request: Request, service: Service) -> Response:
        version = service.at_version(self._offer(request, service), request.path_params["version"])
        return JSONResponse(offer_document(service, version))

    async def _get_slot(self, request: Request, service: Service) -> Response:
        version = service.in_slot(self._offer(request, service), request.path_params["slot"])
        if request.path_params["slot"].lower() == "draft":
            return _offer_response(service, version)
        return JSONResponse(offer_document(service, version))

    async def _publish(self, request: Request, service: Service) -> Response:
        offer, body = self._offer(request, service), await _json(request)
        operation = service.publish(offer, body)
        self._changed(request)
        return _accepted(offer, operation)

    async def _go_live(self, request: Request, service: Service) -> Response:
        offer = self._offer(request, service)
        operation = service.go_live(offer)
        self._changed(request)
        return _accepted(offer, operation)

    async def _cancel(self, request: Request, service: Service) -> Response:
        offer, body = self._offer(request, service), await _json(request, optional=True)
        cancellation = service.cancel(offer, body)
        if cancellation.accepted:
            self._changed(request)
        if cancellation.at_once:
            return Response(status_code=200)
        return _accepted(offer, cancellation.operation)

    async def _get_status(self, request: Request, service: Service) -> Response:
        return JSONResponse(status_document(service, self._offer(request, service)))

    async def _list_submissions(self, request: Request, service: Service) -> Response:
        offer = self._offer(request, service)
        query = request.query_params
        state = (query.get("status") or query.get("submissionState") or "").lower()
        documents = [submission_document(service, offer, one) for one in reversed(offer.operations)]
        return JSONResponse([one for one in documents if state in ("", one["submissionState"].lower())])

    async def _get_operation(self, request: Request, service: Service) -> Response:
        offer = self._offer(request, service)
        operation = service.operation(offer, request.path_params["operation"])
        return JSONResponse(operation_document(service, offer, operation))

    async def _get_operation_of_version(self, request: Request, service: Service) -> Response:
        # The `$` are literal. The path is split as the client sent it: an encoded `$` separates nothing.
        key = request.state.entry.path.removesuffix("/").rpartition("/")[2]
        parts = [unquote(part) for part in key.split("$")]
        if len(parts) != 4:
            raise ServiceError(404, "ResourceNotFound", f"Operation '{key}' was not found.")
        publisher_id, offer_id, version, slot = parts
        service.check_publisher(publisher_id, request.state.principal.publishers)
        offer = service.offer(publisher_id, offer_id)
        operation = service.operation_of_version(offer, version, slot)
        return JSONResponse(operation_document(service, offer, operation))


class Control:
    """The endpoints under ``/_emulator``."""

    def __init__(
        self, service: Service, tokens: Tokens, journal: Journal, faults: Faults, reset: Callable[[], None]
    ) -> None:
        self._service = service
        self._tokens = tokens
        self._journal = journal
        self._faults = faults
        self._reset = reset

    @property
    def routes(self) -> list[Route]:
        """The routes, relative to ``/_emulator``."""
        return [
            Route("/requests", self._get_requests, methods=["GET"]),
            Route("/requests", self._clear_requests, methods=["DELETE"]),
            Route("/offers", self._get_offers, methods=["GET"]),
            Route("/faults", self._get_faults, methods=["GET"]),
            Route("/faults", self._inject, methods=["POST"]),
            Route("/faults", self._clear_faults, methods=["DELETE"]),
            Route("/tokens/revoke", self._revoke, methods=["POST"]),
            Route("/reset", self._reset_all, methods=["POST"]),
        ]

    async def _get_requests(self, request: Request) -> Response:
        query = request.query_params
        try:
            return JSONResponse(self._journal.find(query.get("method"), query.get("path")))
        except re.error as error:
            raise bad_request(f"'path' must be a regular expression: {error}.") from None

    async def _clear_requests(self, _: Request) -> Response:
        return JSONResponse({"cleared": self._journal.clear()})

    async def _get_offers(self, _: Request) -> Response:
        service = self._service.frozen()
        return JSONResponse([overview_document(service, offer) for offer in service.offers()])

    async def _get_faults(self, _: Request) -> Response:
        return JSONResponse(self._faults.documents)

    async def _inject(self, request: Request) -> Response:
        try:
            self._faults.inject(await _json(request))
        except FaultError as error:
            raise bad_request(str(error)) from None
        return JSONResponse(self._faults.documents, 201)

    async def _clear_faults(self, _: Request) -> Response:
        return JSONResponse({"cleared": self._faults.clear()})

    async def _revoke(self, _: Request) -> Response:
        return JSONResponse({"revoked": self._tokens.revoke_all()})

    async def _reset_all(self, _: Request) -> Response:
        self._reset()
        self._faults.reset()
        self._journal.reset()
        return JSONResponse({"offers": len(self._service.offers())})


async def _json(request: Request, *, optional: bool = False) -> Any:
    content = await request.body()
    if optional and not content:
        return None
    try:
        document = json.loads(content)
        # Python reads values that JSON or UTF-8 cannot represent, such as NaN and lone surrogates.
        json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
        return document
    except ValueError:
        raise bad_request("The body must be JSON.") from None


def _offer_response(service: Service, draft: OfferVersion) -> Response:
    """Return the draft of an offer; that of a migrated offer has no ETag."""
    headers = {} if draft.offer.migrated else {"ETag": draft.offer.etag}
    return JSONResponse(offer_document(service, draft), headers=headers)


def _accepted(offer: Offer, operation: Operation | None) -> Response:
    if operation is None:
        return Response(status_code=202)
    headers = {"Location": location(offer, operation)}
    if not offer.migrated:
        headers["Operation-Location"] = headers["Location"]
    return Response(status_code=202, headers=headers)


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": {"code": code, "message": message}}, status, headers=headers)


async def _service_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)  # noqa: S101 - Starlette declares a wider type than it passes
    headers = None
    if error.status == 401:
        description = error.message.replace('"', "'")
        headers = {
            "WWW-Authenticate": f'Bearer realm="", error="invalid_token", error_description="{description}"'
        }
    return _error(error.status, error.code, error.message, headers)


async def _http_error(request: Request, error: Exception) -> Response:
    """Respond to paths and methods that the router does not know."""
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    code = "ResourceNotFound" if error.status_code == 404 else "MethodNotAllowed"
    return _error(
        error.status_code,
        code,
        f"{request.method} {request.url.path}: {error.detail}.",
        dict(error.headers or {}),
    )


async def _internal_error(_: Request, __: Exception) -> Response:
    message = "We cannot complete the request now, please try again later."
    return _error(500, "InternalServerError", message)
