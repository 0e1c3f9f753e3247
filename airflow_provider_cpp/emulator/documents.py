"""What offers and operations look like on the wire, and where they are found. No rules in here.

Sections "Where an accepted operation is found" and "What an operation looks like" of the API reference.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_cpp.emulator.operations import SIGNOFF, SIGNOFF_KIND, STEPS, Step

if TYPE_CHECKING:
    from airflow_provider_cpp.emulator.operations import Message, Operation
    from airflow_provider_cpp.emulator.service import Edition, Offer, Service

API_VERSION = "2017-10-31"

_SECRET_KEYS = ("password", "secret", "accountkey", "connectionstring")
# 0001-01-01 to 1970-01-01 in units of 100 ns: a submission's version counts from the former.
_TICKS_AT_EPOCH = 621_355_968_000_000_000


def timestamp(seconds: float) -> str:
    """Write a time as the service does: UTC, with up to seven digits after the point.

    >>> timestamp(1490730636.5)
    '2017-03-28T19:50:36.5Z'
    """
    whole, ticks = divmod(round(seconds * 10_000_000), 10_000_000)
    fraction = f".{ticks:07d}".rstrip("0").rstrip(".")
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}{fraction}Z"


def location(offer: Offer, operation: Operation) -> str:
    """Return the relative path of an operation, in the form that the offer has."""
    publisher_id, offer_id = quote(offer.publisher_id, safe=""), quote(offer.id, safe="")
    if offer.migrated:
        path = f"publishers/{publisher_id}/offers/{offer_id}/operations/{operation.id}"
    else:
        slot = "preview" if operation.kind == "publish" else "production"
        path = f"operations/{publisher_id}${offer_id}${operation.version}${slot}"
    return f"/api/{path}?api-version={API_VERSION}"


def publisher_document(publisher_id: str, display_text: str) -> dict[str, Any]:
    """Return a publisher."""
    return {"id": publisher_id, "definition": {"displayText": display_text}}


def offer_document(service: Service, edition: Edition) -> dict[str, Any]:
    """Return an offer as it is in a slot or at a version, without its secret values."""
    offer = edition.offer
    return {
        "id": offer.id,
        "publisherId": offer.publisher_id,
        "offerTypeId": offer.type_id,
        "status": service.status(offer),
        "pcMigrationStatus": "completed" if offer.migrated else "none",
        "version": edition.version,
        "definition": _without_secrets(edition.definition),
        "changedTime": timestamp(service.told(edition.changed)),
    }


def status_document(service: Service, offer: Offer) -> dict[str, Any]:
    """Return the status of an offer, with the steps of its latest publish and of the go-live after it."""
    steps: list[Step] = []
    for operation in offer.operations:
        if operation.kind == "publish":
            steps = []
        # A go-live that was repeated replaces the one before it.
        steps = [step for step in steps if step.id not in operation.durations]
        steps += service.progress(operation).steps
    if steps and steps[-1].id == SIGNOFF:
        steps.append(Step("live", "notStarted"))
    casing = str if offer.migrated else _pascal_case
    latest = offer.operations[-1] if offer.operations else None
    return {
        "status": casing(service.status(offer)),
        "messages": [],
        "steps": [
            {
                "id": step.id,
                "stepName": step.id,
                "status": casing(step.status),
                "messages": [_message(service, message) for message in step.messages],
            }
            for step in steps
        ],
        "previewLinks": [],
        "liveLinks": [],
        "notificationEmails": "" if latest is None else latest.emails,
    }


def operation_document(service: Service, operation: Operation) -> dict[str, Any]:
    """Return an operation as its own path answers it."""
    state = service.progress(operation)
    if state.status == "running":
        cancellation = "canCancel" if operation.cancel_requested is None else "canceling"
    else:
        cancellation = "canceled" if state.status == "canceled" else "cannotCancel"
    errors = [message for step in state.steps for message in step.messages if message.level == "error"]
    return {
        "status": state.status,
        "messages": [_message(service, message) for message in errors],
        "publishingVersion": operation.version,
        "offerVersion": operation.offer_version,
        "cancellationRequestState": cancellation,
        "steps": [_step(service, step) for step in state.steps],
        "previewLinks": [],
        "liveLinks": [],
    }


def submission_document(service: Service, offer: Offer, operation: Operation) -> dict[str, Any]:
    """Return an operation as the list of operations has it."""
    state = service.progress(operation)
    return {
        "id": operation.id,
        "offerId": offer.id,
        "offerVersion": operation.offer_version,
        "offerTypeId": offer.type_id,
        "publisherId": offer.publisher_id,
        "submissionType": operation.kind,
        "submissionState": state.status,
        "publishingVersion": operation.version,
        "slot": "staging" if operation.kind == "publish" else "production",
        "version": _TICKS_AT_EPOCH + round(service.told(state.changed) * 10_000_000),
        "definition": {"metadata": {"emails": operation.emails}},
        "changedTime": timestamp(service.told(state.changed)),
        "createdDateTime": timestamp(service.told(operation.started)),
        "lastActionDateTime": timestamp(service.told(state.changed)),
    }


def overview_document(service: Service, offer: Offer) -> dict[str, Any]:
    """Return all there is to know of an offer, for people and dashboards; not a document of the API."""
    return {
        "publisherId": offer.publisher_id,
        "offerId": offer.id,
        "offerTypeId": offer.type_id,
        "migrated": offer.migrated,
        "version": offer.version,
        "status": service.status(offer),
        "slots": service.slots(offer),
        "operations": [
            {
                "location": location(offer, operation),
                **submission_document(service, offer, operation),
                "steps": [_step(service, step) for step in service.progress(operation).steps],
            }
            for operation in reversed(offer.operations)
        ],
    }


def _step(service: Service, step: Step) -> dict[str, Any]:
    kind = STEPS.get(step.id, SIGNOFF_KIND)
    return {
        "id": step.id,
        "stepName": kind.title,
        "description": kind.description,
        "estimatedTimeFrame": kind.estimate,
        "status": step.status,
        "progressPercentage": step.percent,
        "messages": [_message(service, message) for message in step.messages],
    }


def _message(service: Service, message: Message) -> dict[str, str]:
    at = timestamp(service.told(message.at))
    return {"messageHtml": message.html, "level": message.level, "timestamp": at}


def _pascal_case(word: str) -> str:
    return word[0].upper() + word[1:]


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _without_secrets(item)
            for key, item in value.items()
            if not key.lower().endswith(_SECRET_KEYS)
        }
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
    return value
