"""Send requests in a worker."""

from __future__ import annotations

from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

import requests

from airflow_provider_cpp.core.errors import CloudPartnerError
from airflow_provider_cpp.core.http import Request, Response, origin
from airflow_provider_cpp.core.redaction import redact
from airflow_provider_cpp.portal.locations import TOKEN_SCOPE
from airflow_provider_cpp.transport.credentials import make_credential, token_error
from airflow_provider_cpp.transport.failures import T, is_unsent, no_response_error, read_response
from airflow_provider_cpp.transport.library_logs import suppress_library_logs
from airflow_provider_cpp.transport.settings import Settings, ssl_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from requests.adapters import BaseAdapter


class GuardedSession(requests.Session):
    """A session that sends requests with a token to the connection's host only, and follows no redirect.

    The connection decides about proxy, certificates and timeout of every request.

    :param auth: adds the token to a request
    :param adapter: opens the connections
    """

    def __init__(
        self,
        settings: Settings,
        auth: Callable[[requests.PreparedRequest], requests.PreparedRequest],
        adapter: BaseAdapter,
    ) -> None:
        super().__init__()
        self._settings = settings
        self.auth = auth
        self.verify = settings.verify
        # Without proxies, CA bundles and netrc entries of the environment: the settings decide.
        self.trust_env = False
        # The triggerer keeps no cookies either.
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        for scheme in ("https://", "http://"):
            self.mount(scheme, adapter)

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """Prepare a request.

        :raises ValueError: the URL is not on the connection's host
        """
        self._check(request.url)
        return super().prepare_request(request)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a prepared request.

        :raises ValueError: the URL is not on the connection's host
        """
        self._check(request.url)
        kwargs["allow_redirects"] = False
        kwargs["verify"] = self._settings.verify
        kwargs["proxies"] = self._settings.proxies.for_requests(self._settings.base_url)
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = self._settings.timeout
        return super().send(request, **kwargs)

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return no target: requests would read a redirect's URL, and fail if it is malformed."""

    def _check(self, url: str | None) -> None:
        if origin(url or "") != origin(self._settings.base_url):
            raise ValueError(
                f"{self._settings.name}: {redact(url)!r} is not on the connection's host "
                f"{self._settings.base_url}: nothing was sent, since a token goes to that host only. "
                "Use a URL on that host."
            )


class SyncTransport:
    """Sends the requests of one hook, with a session and a token of its own.

    :param make_adapter: returns a new adapter, which opens the connections of a session
    :raises ValueError: the CA bundle of the connection cannot be used
    """

    def __init__(self, settings: Settings, make_adapter: Callable[[], BaseAdapter]) -> None:
        ssl_context(settings)  # its error is clearer than that of requests
        self._settings = settings
        self._make_adapter = make_adapter
        self._credential: Any = None
        self._token_provider: Callable[[], str] | None = None
        self._sent_token = ""
        self._session = self.new_session()

    def new_session(self) -> GuardedSession:
        """Return a new session, which uses the same token."""
        return GuardedSession(self._settings, self._authorize, self._make_adapter())

    def send(self, call: Request[T]) -> T:
        """Send a request, and once more with a new token after a 401. Return the value of the response."""
        response = self._send_once(call)
        if response.status == 401:
            self._discard_credential()  # the token may be revoked
            response = self._send_once(call)
        return read_response(call, response, self._sent_token, self._settings)

    def _discard_credential(self) -> None:
        if self._credential is not None:
            self._credential.close()
        self._credential = self._token_provider = None

    def _get_token_provider(self) -> Callable[[], str]:
        if self._token_provider is None:
            import azure.identity

            from airflow_provider_cpp.transport.identity_transports import SyncIdentityTransport

            self._credential = make_credential(
                self._settings, azure.identity, transport=SyncIdentityTransport(self._settings)
            )
            self._token_provider = azure.identity.get_bearer_token_provider(self._credential, TOKEN_SCOPE)
        return self._token_provider

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        get_token = self._get_token_provider()
        try:
            with suppress_library_logs():
                self._sent_token = get_token()
        except Exception as error:  # azure-identity also raises other classes for a malformed response
            raise token_error(self._settings, error) from None
        request.headers["Authorization"] = f"Bearer {self._sent_token}"
        return request

    def _send_once(self, call: Request[Any]) -> Response:
        """Send a request once.

        :raises CloudPartnerError: there is no response
        """
        settings = self._settings
        self._get_token_provider()  # raises the errors of the connection
        try:
            with suppress_library_logs():
                answer = self._session.request(
                    call.method,
                    settings.base_url + call.target(settings.api_version),
                    json=call.json_body,
                    headers=dict(call.headers),
                )
        except CloudPartnerError:
            raise
        except Exception as error:  # the libraries raise many classes for a malformed response
            raise no_response_error(
                call, settings, error, self._sent_token, unsent=is_unsent(error)
            ) from None
        return Response(answer.status_code, answer.headers, answer.content, settings.base_url)
