"""Read the event with which a trigger ended polling."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_cpp.core.progress import Outcome
from airflow_provider_cpp.exceptions import (
    AuthenticationError,
    CloudPartnerError,
    ConflictError,
    NotFoundError,
    OperationCanceledError,
    OperationFailedError,
    PermissionDeniedError,
    PreconditionFailedError,
    ValidationError,
)
from airflow_provider_cpp.portal.targets import OperationTarget

_ERRORS: dict[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (
        AirflowNotFoundException,
        AuthenticationError,
        ConflictError,
        NotFoundError,
        PermissionDeniedError,
        PreconditionFailedError,
        ValidationError,
        ValueError,
    )
}


def read_event(event: Any) -> dict[str, Any]:
    """Return the result from an event with status `succeeded`; raise the error of any other event.

    The event crossed the metadata database, so this function checks it. The trigger may have run in an
    earlier release of this provider, whose events have the key `end` instead of `status`.

    :raises OperationFailedError: the operation failed
    :raises OperationCanceledError: the operation was canceled
    :raises TimeoutError: polling timed out
    :raises CloudPartnerError: or a subclass, `ValueError` or `AirflowNotFoundException`: a later poll cannot
        succeed; or the event is invalid
    """
    try:
        outcome = event["status"] if "status" in event else event["end"]
        if outcome == Outcome.SUCCEEDED:
            return _read_result(event)
        message = str(event["message"])
        error: Exception
        if outcome == Outcome.ERROR:
            error = _ERRORS.get(event["error"], CloudPartnerError)(message)
        elif outcome == Outcome.TIMEOUT:
            error = TimeoutError(message)
        else:
            kind = {Outcome.FAILED: OperationFailedError, Outcome.CANCELED: OperationCanceledError}[outcome]
            error = kind(message, step=event["step"], messages=event["result"]["messages"])
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise CloudPartnerError(
            f"The trigger sent an invalid event: {event!r:.500}. Check that worker and triggerer run the "
            "same version of airflow-provider-cpp."
        ) from problem
    raise error


def _read_result(event: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = event["result"]
    if not isinstance(result["status"], str):
        raise ValueError("the result has no status")
    location = result.get("location")
    if location != event.get("location"):
        raise ValueError("result and event have different locations")
    if location is None or "offer_id" in result:
        return result
    # Earlier releases reported the Location only.
    return {**OperationTarget(location).identity, "version": None, **result}
