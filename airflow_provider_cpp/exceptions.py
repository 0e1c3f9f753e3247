"""The exceptions of this provider."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_cpp.core.errors import (
    AuthenticationError,
    CloudPartnerError,
    ConflictError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    ValidationError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "AuthenticationError",
    "CloudPartnerError",
    "ConflictError",
    "NotFoundError",
    "OperationCanceledError",
    "OperationFailedError",
    "PermissionDeniedError",
    "PreconditionFailedError",
    "ValidationError",
]

#: Errors that only a change of the Dag, the offer or the connection can cure. Tasks that raise them fail at
#: once, without retries.
PERMANENT_ERRORS = (ValueError, ValidationError, NotFoundError, AuthenticationError)


class _OperationEndedError(CloudPartnerError, AirflowFailException):
    """An operation ended without success. The task fails at once, without retries.

    :param message: name of the operation, the step in which it ended, and the service's messages
    :param step: name of the step in which it ended; None if the service named none
    :param messages: the service's messages, errors first, without markup
    """

    def __init__(self, message: str, *, step: str | None = None, messages: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.step = step
        self.messages = tuple(messages)


class OperationFailedError(_OperationEndedError):
    """The operation failed."""


class OperationCanceledError(_OperationEndedError):
    """The operation was canceled."""


def fail_at_once(error: ValueError | CloudPartnerError) -> Exception:
    """Return an equal error that Airflow does not retry.

    `except ValueError` and `except ValidationError` still catch it, because the returned class inherits from
    the error's class and from Airflow's `AirflowFailException`.
    """
    if isinstance(error, AirflowFailException):
        return error
    if isinstance(error, CloudPartnerError):
        kind: type[Exception] = _without_retries(type(error))  # type: ignore[arg-type]
        final = kind.__new__(kind, *error.args)
        final.__dict__.update(error.__dict__)
    else:
        prefix = "" if type(error) is ValueError else f"{type(error).__name__}: "
        final = _without_retries(ValueError)(f"{prefix}{error}")
    return final.with_traceback(error.__traceback__)


@cache
def _without_retries(kind: type[Exception]) -> type[Exception]:
    body = {"__module__": kind.__module__, "__doc__": kind.__doc__}
    return type(kind.__name__, (kind, AirflowFailException), body)


# Tracebacks and logs name the public module.
for _name in __all__:
    globals()[_name].__module__ = __name__
