"""Errors for requests without a response."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, TypeVar

import requests
from urllib3.exceptions import NewConnectionError

from airflow_provider_cpp.core.errors import CloudPartnerError
from airflow_provider_cpp.core.redaction import mask
from airflow_provider_cpp.core.text import html_to_text

if TYPE_CHECKING:
    from airflow_provider_cpp.core.http import Request, Response
    from airflow_provider_cpp.transport.settings import Settings

T = TypeVar("T")


def read_response(call: Request[T], response: Response, token: str) -> T:
    """Return what an answer means; an error of it without the token, which a gateway's page may repeat."""
    try:
        return call.read(response)
    except CloudPartnerError as error:
        error.args = (mask(str(error), [token]),)
        error.code = error.code and mask(error.code, [token])
        raise


def no_response_error(
    call: Request[Any], settings: Settings, error: Exception, token: str, *, unsent: bool
) -> CloudPartnerError:
    """Return the error for a request without a response.

    :param unsent: whether the request was certainly not sent
    """
    what = "was not sent" if unsent else "was sent, and it is not known whether it had its effect"
    reason = mask(html_to_text(str(error), 300), [token]) or "no reason given"
    if isinstance(error, TimeoutError | requests.Timeout) and not unsent:
        reason = f"no answer within {settings.timeout:g} s"
    return CloudPartnerError(
        f"{call.action} failed: {call.method} {call.path} {what}. {settings.base_url} could not be reached "
        f"or gave no answer ({type(error).__name__}: {reason}). Check host, network, proxy and certificate "
        "(extra 'verify').",
        unsent=unsent,
        untrusted=is_untrusted(error),
    )


def is_unsent(error: Exception) -> bool:
    """Whether no connection came to be, so that surely nothing was sent."""
    if isinstance(error, requests.ConnectTimeout):
        return True
    reason = getattr(error.args[0], "reason", None) if error.args else None
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
