"""Offers and operations as JSON, and the paths of operations. No rules in here.

See the sections on Locations and operations of the API reference.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_cpp.emulator.offers import timestamp
from airflow_provider_cpp.emulator.operations import LIVE, SIGNOFF_KIND, STEPS

if TYPE_CHECKING:
    from airflow_provider_cpp.emulator.offers import Offer, OfferVersion
    from airflow_provider_cpp.emulator.operations import Message, Operation, Step
    from airflow_provider_cpp.emulator.service import Service

API_VERSION = "2017-10-31"

_APPS = "https://azuremarketplace.microsoft.com/marketplace/apps"
_PARTNER_CENTER = "https://partner.microsoft.com/dashboard/commercial-marketplace/offers"
_SECRET_KEYS = ("password", "secret", "accountkey", "connectionstring")
# 0001-01-01 to 1970-01-01 in units of 100 ns: a submission's version counts from the former.
_TICKS_AT_EPOCH = 621_355_968_000_000_000


def location(offer: Offer, operation: Operation) -> str:
    """Return the relative path of an operation, in the form that depends on the offer's migration."""
    publisher_id, offer_id = quote(offer.publisher_id, safe=""), quote(offer.id, safe="")
    if offer.migrated:
        path = f"publishers/{publisher_id}/offers/{offer_id}/operations/{operation.id}"
    else:
        slot = "preview" if operation.kind == "publish" else "production"
        path = f"operations/{publisher_id}${offer_id}${operation.version}${slot}"
    return f"/api/{path}?api-version={API_VERSION}"


def publisher_document(publisher_id: str, display_text: str) -> dict[str, Any]:
    """Return a publisher."""
    return {
        "id": publisher_id,
        "version": 1,
        "sellerId": zlib.crc32(publisher_id.encode()),
        "definition": {"displayText": display_text},
    }


def offer_document(service: Service, version: OfferVersion) -> dict[str, Any]:
    """Return an offer as it is in a slot or at a version, without its secret values."""
    offer = version.offer
    document = {
        "id": offer.id,
        "publisherId": offer.publisher_id,
        "offerTypeId": offer.type_id,
        "status": service.status(offer),
        "pcMigrationStatus": "migrated" if offer.migrated else "none",
        "isvUpgradeRequest": False,
        "version": version.version,
        "definition": _without_secrets(version.definition),
        "changedTime": timestamp(service.client_time(version.changed)),
    }
    if offer.migrated:
        document["pcRedirectUri"] = f"{_PARTNER_CENTER}/{quote(offer.id, safe='')}/overview"
    return document


def offer_summary(service: Service, offer: Offer) -> dict[str, Any]:
    """Return an offer as the list of offers shows it: of the definition only the name."""
    document = offer_document(service, service.draft(offer))
    return {**document, "definition": {"displayText": offer.definition.get("displayText")}}


def status_document(service: Service, offer: Offer) -> dict[str, Any]:
    """Return the status of an offer, with the steps of its latest publish."""
    publishes = [operation for operation in offer.operations if operation.kind == "publish"]
    steps = [_step(service, step) for step in _steps(service, offer, publishes[-1])] if publishes else []
    slots = service.slots(offer)
    return {
        "status": service.status(offer),
        "messages": [],
        "steps": [{**step, "stepName": step["id"]} for step in steps],
        "previewLinks": _links(offer, "-preview") if slots["preview"] else [],
        "liveLinks": _links(offer) if slots["production"] else [],
        "notificationEmails": offer.operations[-1].emails if offer.operations else "",
    }


def operation_document(service: Service, offer: Offer, operation: Operation) -> dict[str, Any]:
    """Return an operation as its own path shows it."""
    state = service.progress(operation)
    if state.status == "canceled" or state.is_withdrawn:
        cancellation = "canceled"
    elif state.status == "running" or state.awaits_signoff:
        cancellation = "canCancel" if operation.cancel_requested is None else "canceling"
    else:
        cancellation = "cannotCancel"
    errors = [message for step in state.steps for message in step.messages if message.level == "error"]
    is_publish = operation.kind == "publish"
    has_preview = is_publish and not state.is_withdrawn and (state.awaits_signoff or state.is_success)
    return {
        "status": state.status,
        "messages": [_message(service, message) for message in errors],
        "publishingVersion": operation.version,
        "offerVersion": operation.offer_version,
        "cancellationRequestState": cancellation,
        "steps": [_step(service, step) for step in _steps(service, offer, operation)],
        "previewLinks": _links(offer, "-preview") if has_preview else [],
        "liveLinks": _links(offer) if state.is_success and not is_publish else [],
    }


def submission_document(service: Service, offer: Offer, operation: Operation) -> dict[str, Any]:
    """Return an operation as the list of operations shows it."""
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
        "version": _TICKS_AT_EPOCH + round(service.client_time(state.changed) * 10_000_000),
        "definition": {"metadata": {"emails": operation.emails}},
        "changedTime": timestamp(service.client_time(state.changed)),
        "createdDateTime": timestamp(service.client_time(operation.started)),
        "lastActionDateTime": timestamp(service.client_time(state.changed)),
    }


def overview_document(service: Service, offer: Offer) -> dict[str, Any]:
    """Return everything about an offer, for people and dashboards. The API has no such document."""
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
                "steps": [_step(service, step) for step in _steps(service, offer, operation)],
            }
            for operation in reversed(offer.operations)
        ],
    }


def _steps(service: Service, offer: Offer, operation: Operation) -> list[Step]:
    """Return the steps of an operation; the step `live` of a publish is that of its latest go-live."""
    steps = {step.id: step for step in service.progress(operation).steps}
    if operation.kind == "publish":
        for other in offer.operations:
            if other.kind == "goLive" and other.version == operation.version:
                steps[LIVE] = service.progress(other).steps[0]
    return list(steps.values())


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
    at = timestamp(service.client_time(message.at))
    return {"messageHtml": message.html, "level": message.level, "timestamp": at}


def _links(offer: Offer, suffix: str = "") -> list[dict[str, str]]:
    name = f"{quote(offer.publisher_id, safe='')}.{quote(offer.id, safe='')}{suffix}"
    text = offer.definition.get("displayText")
    return [{"DisplayText": text if isinstance(text, str) else offer.id, "URI": f"{_APPS}/{name}"}]


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
