"""Errors that both services report. `airflow_provider_cpp.exceptions` is their public module."""

from __future__ import annotations

from typing import ClassVar


class CloudPartnerError(Exception):
    """A request to the Cloud Partner Portal API failed.

    :param message: the failed request and its offer, the answer of the service, and the likely cure
    :param status: HTTP status of the response; None without a response
    :param code: error code of the service, if the response has one
    :param retry_after: delay in seconds that the service requested, if any
    :param unsent: the request certainly did not reach the service, for example because the connection was
        refused or no token was available
    :param accepted: the service accepted the request, but its response is unusable
    :param untrusted: the host's TLS certificate is not trusted. A first request is not retried, since only
        the connection's `verify` or the host can cure it. Polling continues, as after an outage.
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
        untrusted: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after = retry_after
        self.unsent = unsent
        self.accepted = accepted
        self.untrusted = untrusted

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed later: no response, an outage, or a response of another host.

        A client error (4xx except 408 and 429) is permanent: "do not retry before fixing the cause"
        (reference: Considerations).
        """
        status = self.status
        return status is None or status < 400 or status in (408, 429) or status >= 500

    @property
    def is_unprocessed(self) -> bool:
        """Whether the request certainly had no effect and may be sent again later.

        This is the case if the request was not sent, or if the service asked to repeat it later.
        """
        return self.unsent or self.status == 429 or (self.status == 503 and self.retry_after is not None)

    @property
    def has_unknown_outcome(self) -> bool:
        """Whether the request may or may not have had an effect."""
        return self.is_transient and not self.is_unprocessed


class ValidationError(CloudPartnerError):
    """400 or 422: the service refused the request, or the offer failed validation."""

    hint = "Correct the problem that the message names; the same request gets the same response."
    hint_without_explanation = (
        "The service did not explain the problem. Check the offer in Partner Center; the same request gets "
        "the same response."
    )


class AuthenticationError(CloudPartnerError):
    """401, or the identity host issued no token.

    A refusal is permanent: a wrong secret, an unknown client, or a 401 for a new token.

    :param unavailable: no credential was available, for example because the managed identity endpoint did not
        answer. Such an error is transient: polling continues. A worker that has not polled yet reports the
        error without retrying the request, since a host without any identity fails in the same way.
    """

    hint = (
        "The service did not accept a token that the identity host had just issued. Check that the extra "
        "'tenantId' is the tenant that is linked to the Partner Center account, and that host and extra "
        "'authority' belong to the same cloud."
    )

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        unsent: bool = False,
        accepted: bool = False,
        unavailable: bool = False,
    ) -> None:
        super().__init__(
            message, status=status, code=code, retry_after=retry_after, unsent=unsent, accepted=accepted
        )
        self.unavailable = unavailable

    @property
    def is_transient(self) -> bool:
        """Whether a credential may become available. A 401 is permanent: a new token did not cure it."""
        return self.unavailable


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
        "Check the publisher id and the offer id. A slot is not found while it is empty, and a new operation "
        "may be visible only after minutes."
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
