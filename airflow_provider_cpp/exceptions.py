"""The errors of this provider: the service's own, and the two ways in which an operation ends badly."""

from __future__ import annotations

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


class _OperationEndedBadlyError(CloudPartnerError, AirflowFailException):
    """An operation ended without success. It stays so: the task fails at once, whatever its `retries`.

    :param message: which operation, in which step, with the service's messages
    :param step: name of the step in which it ended; None if the service named none
    :param messages: the service's messages, errors first, without markup
    """

    def __init__(self, message: str, *, step: str | None = None, messages: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.step = step
        self.messages = tuple(messages)


class OperationFailedError(_OperationEndedBadlyError):
    """The operation failed."""


class OperationCanceledError(_OperationEndedBadlyError):
    """The operation was canceled."""
