"""Paths of operations, and URLs of an offer's public pages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from airflow_provider_cpp.core.http import is_unsafe_in_path, origin, quote_segment
from airflow_provider_cpp.core.redaction import redact
from airflow_provider_cpp.core.text import normalize_status

if TYPE_CHECKING:
    from airflow_provider_cpp.core.models import Submission

API_VERSION = "2017-10-31"
DEFAULT_HOST = "https://cloudpartner.azure.com"
#: The scope of tokens, also for connections with another host (reference: Authentication).
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
    """Return an operation's Location as a path with its query, otherwise unchanged.

    Both relative forms are accepted, and an absolute URL on the connection's own host.

    :param location: from the service or from a user
    :param base_url: the connection's host with its scheme, e.g. `https://cloudpartner.azure.com`
    :raises ValueError: another host, a path that is not an operation's, control characters
    """
    if not isinstance(location, str):
        raise ValueError(
            f"An operation's location must be text, not {type(location).__name__}. Did the task that starts "
            "the operation return one? A task that was skipped, or found the offer live, returns none."
        )
    shown = repr(redact(location))
    usage = (
        "Use the Location that the service returned when it accepted the operation, such as "
        "'/api/publishers/{publisher}/offers/{offer}/operations/{id}?api-version=2017-10-31' or "
        "'/api/operations/{publisher}${offer}${number}${slot}?api-version=2017-10-31'."
    )
    if not re.fullmatch(r"[\x21-\x7e]+", location) or re.search(r"[\\#\"<>`]", location):
        raise ValueError(f"{shown} has characters that are not allowed in a location. {usage}")
    try:
        parts = urlsplit(location)
        foreign = location.startswith("//") or (parts.scheme and origin(location) != origin(base_url))
    except ValueError:
        foreign = True
    if foreign:
        raise ValueError(
            f"{shown} is not on the connection's host {base_url}. No request was sent, because the "
            f"token is for that host only. {usage}"
        )
    if _ids_in_path(parts.path) is None:
        raise ValueError(f"{shown} is not the path of an operation. {usage}")
    return urlunsplit(("", "", parts.path, parts.query, ""))


def offer_in_location(location: str) -> tuple[str, str]:
    """Return the ids of publisher and offer in a location.

    :raises ValueError: it is not the path of an operation
    """
    if named := _ids_in_path(urlsplit(location).path):
        return named
    raise ValueError(f"{redact(location)!r} is not the path of an operation")


def _ids_in_path(path: str) -> tuple[str, str] | None:
    # The older form may have encoded `$`. A segment with an encoded slash or `..` is refused.
    for pattern, spelled in zip(_LOCATION_PATHS, (path, path.replace("%24", "$")), strict=True):
        if match := pattern.fullmatch(spelled):
            if any(is_unsafe_in_path(unquote(part)) for part in path.split("/")):
                return None
            return unquote(match["publisher"]), unquote(match["offer"])
    return None


def candidate_locations(
    submission: Submission,
    publisher_id: str,
    offer_id: str,
    api_version: str = API_VERSION,
    *,
    is_migrated: bool = True,
) -> list[str]:
    """Return the possible Locations of a listed operation of an offer, the most likely first.

    The list of operations has no Locations. The path with the operation's id works for all offers. Location
    headers of offers that were not migrated have the older form, with the publishing version and the slot
    (`preview` where the list has `staging`); several operations can share that path.

    :param is_migrated: whether the offer was migrated to Partner Center; otherwise the older form comes first
    """
    identifier = quote(submission.id, safe="$")
    by_id = f"{offer_path(publisher_id, offer_id)}/operations/{identifier}"
    if "$" in submission.id:
        paths = [f"/api/operations/{identifier}"]
    else:
        slot = quote(submission.slot)
        slots = ("preview", "staging") if normalize_status(slot) == "staging" else (slot,)
        names = f"{quote_segment(publisher_id, 'publisher_id')}${quote_segment(offer_id, 'offer_id')}"
        older = [f"/api/operations/{names}${submission.publishing_version}${slot}" for slot in slots]
        paths = [by_id, *older] if is_migrated else [*older, by_id]
    return [f"{path}?api-version={quote(api_version, safe='')}" for path in paths if _ids_in_path(path)]


def preview_url(publisher_id: str, offer_id: str) -> str:
    """Return the URL of an offer's preview; only its preview audience can open it."""
    return f"{live_url(publisher_id, offer_id)}-preview"


def live_url(publisher_id: str, offer_id: str) -> str:
    """Return the URL of an offer's public page."""
    publisher, offer = quote_segment(publisher_id, "publisher_id"), quote_segment(offer_id, "offer_id")
    return f"https://azuremarketplace.microsoft.com/marketplace/apps/{publisher}.{offer}"
