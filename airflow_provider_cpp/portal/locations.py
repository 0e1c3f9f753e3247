"""Paths of operations and addresses of public pages of the Cloud Partner Portal API."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from airflow_provider_cpp.core.http import is_unsafe_in_path, origin, quote_segment
from airflow_provider_cpp.core.text import normalize_status

if TYPE_CHECKING:
    from airflow_provider_cpp.core.models import Submission

API_VERSION = "2017-10-31"
DEFAULT_HOST = "https://cloudpartner.azure.com"
#: What a token is asked for, whatever host the connection names (reference: Authentication).
TOKEN_SCOPE = "https://cloudpartner.azure.com/.default"


def offer_path(publisher_id: str, offer_id: str) -> str:
    """Return the path of an offer, with both ids percent-encoded."""
    publisher, offer = quote_segment(publisher_id, "publisher_id"), quote_segment(offer_id, "offer_id")
    return f"/api/publishers/{publisher}/offers/{offer}"


_LOCATION_PATHS = (
    re.compile(
        r"/api/publishers/(?P<publisher>[^/]+)/offers/(?P<offer>[^/]+)/operations/[^/]+/?", re.IGNORECASE
    ),
    re.compile(r"/api/operations/(?P<publisher>[^/$]+)\$(?P<offer>[^/$]+)\$\d+\$[A-Za-z]+/?", re.IGNORECASE),
)


def normalize_location(location: object, base_url: str) -> str:
    """Return an operation's Location as the path that is asked for it, otherwise as it came.

    Both relative forms and the older absolute one are taken, the absolute only on the connection's own host.

    :param location: what the service or a user gave
    :param base_url: the connection's host with its scheme, e.g. `https://cloudpartner.azure.com`
    :raises ValueError: another host, a path that isn't an operation's, control characters
    """
    if not isinstance(location, str):
        raise ValueError(
            f"An operation's location must be text, not {type(location).__name__}. Did the task that starts "
            "the operation return one? A skipped or 'already live' go-live has none."
        )
    wanted = (
        "Wanted is what the service named when it accepted the operation, such as "
        "'/api/publishers/{publisher}/offers/{offer}/operations/{id}?api-version=2017-10-31' or "
        "'/api/operations/{publisher}${offer}${number}${slot}?api-version=2017-10-31'."
    )
    if not re.fullmatch(r"[\x21-\x7e]+", location) or re.search(r"[\\#\"<>`]", location):
        raise ValueError(f"{location!r} has characters that no operation's location has. {wanted}")
    try:
        parts = urlsplit(location)
        foreign = location.startswith("//") or (parts.scheme and origin(location) != origin(base_url))
    except ValueError:
        foreign = True
    if foreign:
        raise ValueError(
            f"{location!r} is not on the connection's host {base_url}: nothing was sent, since a token goes "
            f"to that host only. {wanted}"
        )
    if _ids_in_path(parts.path) is None:
        raise ValueError(f"{location!r} is not the path of an operation. {wanted}")
    return urlunsplit(("", "", parts.path, parts.query, ""))


def offer_in_location(location: str) -> tuple[str, str]:
    """Return the publisher's and the offer's id that a location names.

    :raises ValueError: it is not the path of an operation
    """
    if named := _ids_in_path(urlsplit(location).path):
        return named
    raise ValueError(f"{location!r} is not the path of an operation")


def _ids_in_path(path: str) -> tuple[str, str] | None:
    # The `$` of the older form may have come encoded; a segment that hides a slash or a step up may not.
    for pattern, spelled in zip(_LOCATION_PATHS, (path, path.replace("%24", "$")), strict=True):
        if match := pattern.fullmatch(spelled):
            if any(is_unsafe_in_path(unquote(part)) for part in path.split("/")):
                return None
            return unquote(match["publisher"]), unquote(match["offer"])
    return None


def candidate_locations(
    submission: Submission, publisher_id: str, offer_id: str, api_version: str = API_VERSION
) -> list[str]:
    """Return where a listed operation of an offer may be found, most likely first.

    The list of operations names no Location. An offer that was migrated has it under the publisher, with the
    id; one that was not, among all operations, with the number of its publishing and its slot (in the
    reference's example `preview` where the list says `staging`).
    """
    identifier = quote(submission.id, safe="$")
    if "$" in submission.id:
        paths = [f"/api/operations/{identifier}"]
    else:
        slots = (
            ("preview", "staging")
            if normalize_status(submission.slot) == "staging"
            else (quote(submission.slot),)
        )
        older = f"{quote_segment(publisher_id, 'publisher_id')}${quote_segment(offer_id, 'offer_id')}"
        paths = [
            f"{offer_path(publisher_id, offer_id)}/operations/{identifier}",
            *(f"/api/operations/{older}${submission.publishing_version}${slot}" for slot in slots),
        ]
    return [f"{path}?api-version={quote(api_version, safe='')}" for path in paths if _ids_in_path(path)]


def preview_url(publisher_id: str, offer_id: str) -> str:
    """Return the page on which an offer's preview can be looked at, by those who may."""
    return f"{live_url(publisher_id, offer_id)}-preview"


def live_url(publisher_id: str, offer_id: str) -> str:
    """Return an offer's page for its customers."""
    publisher, offer = quote_segment(publisher_id, "publisher_id"), quote_segment(offer_id, "offer_id")
    return f"https://azuremarketplace.microsoft.com/marketplace/apps/{publisher}.{offer}"
