"""Description of a release for the approver."""

from __future__ import annotations

import re
from difflib import unified_diff
from typing import TYPE_CHECKING, Any
from unicodedata import category

import yaml

from airflow_provider_cpp.core.redaction import redact
from airflow_provider_cpp.portal.locations import preview_url

if TYPE_CHECKING:
    from airflow_provider_cpp.core.models import Offer

#: Size limits of the diff. The preview page shows the rest.
MOST_LINES = 200
LONGEST_LINE = 120


def describe_changes(publisher_id: str, offer_id: str, preview: Offer, production: Offer | None) -> str:
    """Return the changes of a go-live as Markdown: the versions, a link to the preview, and a diff.

    Text of the offer is never interpreted as Markdown or HTML, and credentials are redacted.

    :param production: the live offer; None if the offer is not live
    """
    before = _lines(production.definition) if production else []
    diff = list(unified_diff(before, _lines(preview.definition), n=2, lineterm=""))[2:]
    shown = diff[:MOST_LINES]
    if not diff:
        changes = "The definition of the two is the same."
    else:
        # Text cannot close a fence that is longer than any fence in it.
        fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", "".join(shown)))])
        changes = "\n".join([f"{fence}diff", *shown, fence])
    if len(diff) > len(shown):
        changes += f"\n\n… and {len(diff) - len(shown)} more lines, not shown."
    live = f"version {production.version}" if production else "nothing; this is the first release"
    name = f"{publisher_id}/{offer_id}".replace("`", "")
    return (
        f"[Look at the preview]({preview_url(publisher_id, offer_id)}) of `{name}` before you approve.\n\n"
        f"- to go live: version {preview.version}\n"
        f"- live now: {live}\n\n"
        f"What changes for customers:\n\n{changes}\n"
    )


def _lines(definition: Any) -> list[str]:
    """Return a definition as lines to compare; long lines are split, so that no change is hidden."""
    # The digest of a signature shows that it changed.
    shown = _spell_out(redact(definition, digest=True))
    text = yaml.safe_dump(shown, allow_unicode=True, sort_keys=True, width=LONGEST_LINE)
    return [
        line[at : at + LONGEST_LINE]
        for line in text.splitlines()
        for at in range(0, max(1, len(line)), LONGEST_LINE)
    ]


def _spell_out(value: Any) -> Any:
    """Return a definition with its format characters spelled out: they make text look like other text."""
    if isinstance(value, dict):
        return {_spell_out(key): _spell_out(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_spell_out(inner) for inner in value]
    if not isinstance(value, str):
        return value
    return "".join(f"\\u{ord(letter):04x}" if category(letter) == "Cf" else letter for letter in value)
