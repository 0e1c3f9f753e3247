"""Approving a release: what somebody is shown, and what a rejection does. It needs Airflow 3.1 or later."""

from __future__ import annotations

import re
from difflib import unified_diff
from typing import TYPE_CHECKING, Any

import yaml
from airflow.providers.common.compat.sdk import AirflowSkipException, task

from airflow_provider_cpp.api import NotFoundError, preview_url

try:
    from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator
except Exception as error:  # what is missing on an older Airflow says so in an error of its own
    raise RuntimeError(
        "release_offer(approve=True) needs Airflow 3.1 or later with apache-airflow-providers-standard, "
        f"whose ApprovalOperator asks for the approval: {error}"
    ) from error

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cpp.api import Offer

#: More is for the preview itself to show.
MOST_LINES = 200
LONGEST_LINE = 200

# Text that looks like other text: an approval must not be had by turning a line around.
_DECEPTIVE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")


class LaneApprovalOperator(ApprovalOperator):
    """Airflow's approval, which when rejected is skipped itself, and so is all that is downstream of it.

    Airflow's own skips what is downstream by name, which does nothing in a mapped task group: the rejected
    offer would go live.
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs["map_index_template"] = kwargs.get("map_index_template") or "{{ task.subject }}"
        super().__init__(**kwargs)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Return who approved, and when; skip if it was rejected."""
        answer = HITLOperator.execute_complete(self, context, event)
        if answer["chosen_options"] == [self.APPROVE]:
            return answer
        # Who rejected is worth to be kept, and a skipped task returns nothing.
        context["ti"].xcom_push(key="return_value", value=answer)
        raise AirflowSkipException(f"{self.subject} {' '.join(answer['chosen_options'])}: nothing goes live.")


@task(multiple_outputs=True, map_index_template="{{ task.op_kwargs['offer_id'] }}")
def review(
    offer_id: str, publisher_id: str | None = None, cloud_partner_conn_id: str = "cloud_partner_default"
) -> dict[str, Any]:
    """Sum up what is to be approved: `version`, `subject` and `body`.

    :raises AirflowSkipException: the preview's version is live already
    """
    from airflow_provider_cpp.asking import patiently
    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook

    hook = CloudPartnerHook(cloud_partner_conn_id)
    publisher = hook.settings.publisher(publisher_id)
    preview = patiently(lambda: hook.get_offer(offer_id, publisher, slot="preview"))
    try:
        production = patiently(lambda: hook.get_offer(offer_id, publisher, slot="production"))
    except NotFoundError:
        production = None
    if production and production.version == preview.version:
        raise AirflowSkipException(f"{publisher}/{offer_id}: version {preview.version} is live already.")
    return {
        "version": preview.version,
        "subject": f"Go live with version {preview.version} of {publisher}/{offer_id}?",
        "body": describe_changes(publisher, offer_id, preview, production),
    }


def describe_changes(publisher_id: str, offer_id: str, preview: Offer, production: Offer | None) -> str:
    """Return what a go-live changes, as Markdown: the versions, a link to the preview, and a diff.

    Nothing of the offer is taken for Markdown or HTML.

    :param production: what is live now; None if nothing is
    """
    before = [] if production is None else _lines(production.definition)
    diff = list(unified_diff(before, _lines(preview.definition), n=2, lineterm=""))[2:]
    shown = diff[:MOST_LINES]
    if not diff:
        changes = "The definition of the two is the same."
    else:
        # No text can close a fence that is longer than any in it.
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
    """Return a definition as lines that people can compare."""
    text = yaml.safe_dump(definition, allow_unicode=True, sort_keys=True, width=10_000)
    text = _DECEPTIVE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    return [
        line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 1]}…" for line in text.splitlines()
    ]
