"""Errors for failed requests, without the secrets that a response or a library may repeat."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, TypeVar

import requests
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ProxyError

from airflow_provider_cpp.core.errors import AuthenticationError, CloudPartnerError, PermissionDeniedError
from airflow_provider_cpp.core.redaction import mask
from airflow_provider_cpp.core.text import html_to_text
from airflow_provider_cpp.transport.identity import describe_identity
from airflow_provider_cpp.transport.proxies import without_credentials

if TYPE_CHECKING:
    from airflow_provider_cpp.core.http import Request, Response
    from airflow_provider_cpp.transport.settings import Settings

T = TypeVar("T")


def read_response(call: Request[T], response: Response, token: str, settings: Settings) -> T:
    """Return the result of a request, or raise the error that its response reports.

    The error does not contain the token, even if the response repeats it. For a 401 or 403 it names the
    application that the token belongs to.
    """
    try:
        return call.read(response)
    except CloudPartnerError as error:
        message = mask(str(error), [token])
        if isinstance(error, AuthenticationError | PermissionDeniedError):
            message = f"{message} {describe_identity(settings, token)}"
        error.args = (message,)
        error.code = error.code and mask(error.code, [token])
        raise


def no_response_error(
    call: Request[Any], settings: Settings, error: Exception, token: str, *, unsent: bool
) -> CloudPartnerError:
    """Return the error for a request without a response.

    :param unsent: whether the request was certainly not sent
    """
    what = "was not sent" if unsent else "was sent, and it is not known whether it had its effect"
    secrets = [token, *settings.proxies.secrets(settings.base_url)]
    reason = mask(html_to_text(str(error), 300), secrets) or "no reason given"
    if isinstance(error, TimeoutError | requests.Timeout) and not unsent:
        reason = f"no answer within {settings.timeout:g} s"
    proxy = without_credentials(settings.proxies.for_url(settings.base_url) or "")
    return CloudPartnerError(
        f"{call.action} failed: {call.method} {call.path} {what}. {settings.base_url} could not be reached "
        f"or gave no answer ({type(error).__name__}: {reason}). Check host, network, "
        f"{f'proxy {proxy}' if proxy else 'proxy'} and certificate (extra 'verify').",
        unsent=unsent,
        untrusted=is_untrusted(error),
    )


def is_unsent(error: Exception) -> bool:
    """Whether requests failed before it sent the request to the service.

    Its `ProxyError` alone does not say so: urllib3 also uses it for a connection that is lost later.
    """
    if isinstance(error, requests.ConnectTimeout):
        return True
    reason: Any = getattr(error.args[0], "reason", None) if error.args else None
    if isinstance(reason, ProxyError):
        # The proxy could not be reached, or refused to connect to the service.
        cause: object = reason.original_error
        return isinstance(cause, NewConnectionError | ConnectTimeoutError) or (
            isinstance(cause, OSError) and str(cause).startswith("Tunnel connection failed")
        )
    cause = (
        reason.args[0] if isinstance(error, requests.exceptions.SSLError) and reason and reason.args else None
    )
    return isinstance(reason, NewConnectionError) or isinstance(cause, ssl.SSLCertVerificationError)


def is_untrusted(error: BaseException) -> bool:
    """Return whether an untrusted TLS certificate caused an error of requests, aiohttp or azure-core."""
    pending: list[object] = [error]
    seen: set[int] = set()
    while pending:
        cause = pending.pop()
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        if isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            pending += [*cause.args, cause.__cause__, cause.__context__]
            pending += [getattr(cause, name, None) for name in ("reason", "inner_exception")]
    return False
