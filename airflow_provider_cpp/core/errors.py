"""Errors that both services report. `airflow_provider_cpp.exceptions` is their public module."""

from __future__ import annotations

from typing import ClassVar


class CloudPartnerError(Exception):
    """A request to the Cloud Partner Portal API did not bring what was asked for.

    :param message: what was tried, on which offer, what the service answered, the likely cause and its cure
    :param status: HTTP status of the answer; None if there was no answer
    :param code: the service's own error code, if it gave one
    :param retry_after: seconds that the service asked to wait, if it did
    :param unsent: the request surely never reached the service (connection refused, unknown host)
    :param accepted: the service accepted the request, but its answer can't be used
    """

    hint: ClassVar[str] = ""
    #: Instead of `hint` when the service gave no explanation.
    hint_without_explanation: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        unsent: bool = False,
        accepted: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after = retry_after
        self.unsent = unsent
        self.accepted = accepted

    @property
    def is_transient(self) -> bool:
        """Whether the same question may be answered later: no answer, an outage, or not the API's answer.

        An answer with an error of the caller's (4xx, but for 408 and 429) stays what it is: "do not retry
        before fixing the cause" (reference: Considerations).
        """
        status = self.status
        return status is None or status < 400 or status in (408, 429) or status >= 500

    @property
    def is_unprocessed(self) -> bool:
        """Whether the request surely had no effect, and may be sent again later.

        So it is when it never reached the service, and when the service said to come back later.
        """
        return self.unsent or self.status == 429 or (self.status == 503 and self.retry_after is not None)

    @property
    def has_unknown_outcome(self) -> bool:
        """Whether the request may or may not have had its effect."""
        return self.is_transient and not self.is_unprocessed


class ValidationError(CloudPartnerError):
    """400 or 422: the service refused the request, or the offer failed validation."""

    hint = "Correct the problem that the message names; the same request gets the same response."
    hint_without_explanation = (
        "The service did not explain the problem. Check the offer in Partner Center; the same request gets "
        "the same response."
    )


class AuthenticationError(CloudPartnerError):
    """401, or no token could be had: the service principal could not sign in."""

    hint = (
        "Check the connection's client id, secret or certificate and tenantId, and that the secret has not "
        "expired."
    )

    @property
    def is_transient(self) -> bool:
        """Never: a 401 gets here only after a fresh token did not cure it."""
        return False


class PermissionDeniedError(CloudPartnerError):
    """403: the service principal is not a user of the publisher."""

    hint = (
        "The service principal is not a user of this publisher. The usual cause is that the wrong one of "
        "its two Object IDs was registered: it must be the one of the 'managed application in local "
        "directory' (the enterprise application), not the one of the app registration. Or the publisher id "
        "is wrong."
    )


class NotFoundError(CloudPartnerError):
    """404: unknown publisher, offer, slot, version or operation."""

    hint = (
        "Check the publisher id and the offer id. A slot is not found until something was put into it, and a "
        "new operation may take minutes to show."
    )


class ConflictError(CloudPartnerError):
    """409: another operation is running on the offer, or the offer to create exists already."""

    hint = "Only one operation can run on an offer at a time: wait until it ended, or cancel it."


class PreconditionFailedError(CloudPartnerError):
    """412: the offer was changed since its ETag was read."""

    hint = "The offer was changed in the meantime: read it again and apply the change to its current version."


ERRORS_BY_STATUS: dict[int, type[CloudPartnerError]] = {
    400: ValidationError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    412: PreconditionFailedError,
    422: ValidationError,
}
