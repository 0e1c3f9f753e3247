"""Requests of the Cloud Partner Portal API, version 2017-10-31.

"Reference" in a docstring means Microsoft's reference of this API; the section's name follows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from urllib.parse import urlencode

from airflow_provider_cpp.core.http import Json, Request, quote_segment
from airflow_provider_cpp.core.models import (
    Offer,
    OfferStatus,
    Operation,
    OperationStatus,
    Publisher,
    Submission,
)
from airflow_provider_cpp.core.redaction import find_markers
from airflow_provider_cpp.core.text import normalize_status
from airflow_provider_cpp.portal.locations import normalize_location, offer_path
from airflow_provider_cpp.portal.responses import (
    OPERATION_STATUSES,
    list_reader,
    parse_offer,
    parse_publisher,
    parse_submission,
    read_cancel,
    read_location,
    read_offer,
    read_offer_status,
    read_operation,
)

# The service sets these keys. An offer that has one of them was read from the service.
_SERVICE_KEYS = frozenset(("version", "changedTime"))


def list_publishers() -> Request[list[Publisher]]:
    """List the publishers of this service principal (seen in public clients; not in the reference)."""
    return Request("List publishers", "GET", "/api/publishers", list_reader(parse_publisher))


def list_offers(publisher_id: str, *, offer_type_id: str | None = None) -> Request[list[Offer]]:
    """List a publisher's offers (reference: Retrieve offers).

    :param offer_type_id: only offers of this type, e.g. `microsoft-azure-virtualmachines`; what else a
        service lists that doesn't know the filter is left out
    """
    path = f"/api/publishers/{quote_segment(publisher_id, 'publisher_id')}/offers"
    action, read_all = f"List offers of {publisher_id}", list_reader(parse_offer)
    if offer_type_id is None:
        return Request(action, "GET", path, read_all)
    literal = quote_segment(offer_type_id, "offer_type_id").replace("%27", "%27%27")
    return Request(
        action,
        "GET",
        f"{path}?$filter=offerTypeId%20eq%20%27{literal}%27",
        lambda call, response: [
            offer for offer in read_all(call, response) if offer.offer_type_id == offer_type_id
        ],
    )


def get_offer(
    publisher_id: str, offer_id: str, *, slot: str | None = None, version: int | None = None
) -> Request[Offer]:
    """Read an offer: its draft, what is in a slot, or a version (reference: Retrieve a specific offer).

    :param slot: `draft`, `preview` or `production`
    :param version: a version's number; not together with `slot`
    :raises ValueError: for another slot, a version below 1, or both
    """
    path, what = offer_path(publisher_id, offer_id), ""
    if slot is not None and version is not None:
        raise ValueError("Name a slot or a version, not both.")
    if slot is not None:
        if slot not in ("draft", "preview", "production"):
            raise ValueError(f"slot must be 'draft', 'preview' or 'production', not {slot!r}")
        path, what = f"{path}/slot/{slot}", f"the {slot} slot of "
    if version is not None:
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise ValueError(f"version must be a whole number from 1, not {version!r}")
        path, what = f"{path}/versions/{version}", f"version {version} of "
    return Request(f"Read {what}{publisher_id}/{offer_id}", "GET", path, read_offer)


def put_offer(
    publisher_id: str, offer_id: str, definition: Json, *, if_match: str | None = None
) -> Request[Offer]:
    """Create or modify an offer (reference: Create or modify an offer; Concurrency control).

    :param definition: the whole offer as the service's JSON, or only the content of its key `definition`
    :param if_match: the ETag that was read with the offer, or `*`; None creates an offer
    :raises ValueError: the definition is not a JSON object, contains a redaction marker, or was read from the
        service and `if_match` is None; or `if_match` is not a header value
    """
    path = offer_path(publisher_id, offer_id)
    subject = f"{publisher_id}/{offer_id}"
    if not isinstance(definition, Mapping):
        raise ValueError(f"An offer's definition must be a JSON object, not {type(definition).__name__}")
    body = dict(definition) if "definition" in definition else {"definition": dict(definition)}
    try:
        json.dumps(body, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"An offer's definition must be JSON values only: {error}") from None
    is_header = isinstance(if_match, str) and re.fullmatch(r"[\x21-\x7e]+", if_match)
    # A template renders a missing ETag to the text "None".
    if if_match == "None" or not (if_match is None or is_header):
        raise ValueError(
            f"{subject}: if_match must be an ETag or '*', not {if_match!r}. The service sends no ETag with a "
            "migrated offer; UpdateOfferOperator without if_match notices concurrent changes without it."
        )
    refuse_redacted(subject, body)
    if if_match is None and not _SERVICE_KEYS.isdisjoint(body):
        raise ValueError(
            f"{subject}: nothing was written. if_match is None, which creates an offer, but this offer was "
            f"read from the service: it has {' and '.join(sorted(_SERVICE_KEYS & set(body)))}. The service "
            "sends no ETag with a migrated offer. To modify the offer, use UpdateOfferOperator, which "
            "notices concurrent changes, or pass if_match='*', which overwrites them. To create an offer, "
            "remove these keys."
        )
    headers = {} if if_match is None else {"If-Match": if_match}
    hints: dict[int | str, str] = {}
    if if_match is None:
        hints["InvalidResourceId"] = hints[400] = (
            "If the offer exists already, pass if_match to modify it: the ETag that was read with it, or '*' "
            "to overwrite it."
        )
    return Request(f"Write {subject}", "PUT", path, read_offer, body, headers, hints)


def refuse_redacted(subject: str, offer: Json) -> None:
    """Raise an error for an offer that contains a redaction marker.

    :param subject: the offer as `publisher/offer`, for the error
    :raises ValueError: the offer contains one
    """
    found = list(islice(find_markers(offer), 5))
    if found:
        raise ValueError(
            f"{subject}: nothing was written, because credentials are redacted at {', '.join(found)}. An "
            "offer from GetOfferOperator, an XCom or a log cannot be written. To get the offer with its "
            "credentials, read it with CloudPartnerHook().get_offer(...) in the task that writes it, or give "
            "UpdateOfferOperator a function, which receives the offer."
        )


def publish(publisher_id: str, offer_id: str, *, notification_emails: Iterable[str] = ()) -> Request[str]:
    """Publish an offer to its preview; answers with the Location of the operation (reference: Publish)."""
    path = f"{offer_path(publisher_id, offer_id)}/publish"
    action = f"Publish of {publisher_id}/{offer_id}"
    return Request(action, "POST", path, read_location, _notification_body(notification_emails))


def go_live(publisher_id: str, offer_id: str) -> Request[str]:
    """Take an offer from preview to production; answers with the Location (reference: Go live)."""
    path = f"{offer_path(publisher_id, offer_id)}/golive"
    hints: dict[int | str, str] = {
        400: "Publish the offer first, and wait for its preview: go live takes what is in preview and not in "
        "production yet."
    }
    return Request(f"Go live of {publisher_id}/{offer_id}", "POST", path, read_location, hints=hints)


def cancel(
    publisher_id: str, offer_id: str, *, notification_emails: Iterable[str] = ()
) -> Request[str | None]:
    """Cancel what runs on an offer (reference: Cancel).

    Answers with the Location of the operation while it is being canceled, None if it was canceled at once.
    """
    path = f"{offer_path(publisher_id, offer_id)}/cancel"
    action = f"Cancel of {publisher_id}/{offer_id}"
    return Request(action, "POST", path, read_cancel, _notification_body(notification_emails))


def get_offer_status(publisher_id: str, offer_id: str) -> Request[OfferStatus]:
    """Read how an offer stands (reference: Retrieve offer status)."""
    path = f"{offer_path(publisher_id, offer_id)}/status"
    return Request(f"Read the status of {publisher_id}/{offer_id}", "GET", path, read_offer_status)


def list_operations(
    publisher_id: str, offer_id: str, *, status: str | None = None
) -> Request[list[Submission]]:
    """List an offer's operations (reference: Retrieve operations).

    :param status: only those in this state, e.g. `running`. What else a service lists that doesn't know the
        filter (clients have seen two spellings of its name) is left out.
    """
    path = f"{offer_path(publisher_id, offer_id)}/submissions/"
    action, read_all = f"List operations of {publisher_id}/{offer_id}", list_reader(parse_submission)
    if status is None:
        return Request(action, "GET", path, read_all)
    known = OPERATION_STATUSES.get(normalize_status(status))
    if known is not OperationStatus.SUCCEEDED:  # which the service has two words for
        path += f"?{urlencode({'status': status, 'submissionState': status})}"

    def is_wanted(submission: Submission) -> bool:
        return submission.status == known or normalize_status(
            submission.raw.get("submissionState")
        ) == normalize_status(status)

    return Request(
        action, "GET", path, lambda call, response: list(filter(is_wanted, read_all(call, response)))
    )


def get_operation(location: str, base_url: str) -> Request[Operation]:
    """Read an operation (reference: Retrieve operations).

    :param location: where it is found; see `normalize_location`
    :raises ValueError: it isn't an operation's location on this host
    """
    location = normalize_location(location, base_url)
    return Request(f"Read operation {location}", "GET", location, read_operation)


def _notification_body(notification_emails: Iterable[str]) -> Json:
    addresses = [notification_emails] if isinstance(notification_emails, str) else list(notification_emails)
    for address in addresses:
        if not isinstance(address, str) or not re.fullmatch(r"[^\s,@\x00-\x1f]+@[^\s,@\x00-\x1f]+", address):
            raise ValueError(f"notification_emails must be e-mail addresses; {address!r} is none")
    return {"metadata": {"notification-emails": ",".join(addresses)}}
