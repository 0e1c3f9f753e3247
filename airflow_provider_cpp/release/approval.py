"""Approving a release: what somebody is shown, and what a rejection does. It needs Airflow 3.1 or later."""

from __future__ import annotations

import re
from difflib import unified_diff
from typing import TYPE_CHECKING, Any
from unicodedata import category

import yaml
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, task

from airflow_provider_cpp.constants import DEFAULT_CONN_ID
from airflow_provider_cpp.core.errors import CloudPartnerError, NotFoundError
from airflow_provider_cpp.core.redaction import redact
from airflow_provider_cpp.portal.locations import preview_url

try:
    from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator
except Exception as error:  # what is missing on an older Airflow says so in an error of its own
    raise RuntimeError(
        "release_offer(approve=True) needs Airflow 3.1 or later with apache-airflow-providers-standard, "
        f"whose ApprovalOperator asks for the approval: {error}"
    ) from error

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cpp.core.models import Offer

#: More is for the preview itself to show.
MOST_LINES = 200
LONGEST_LINE = 120


class MappedApprovalOperator(ApprovalOperator):
    """Airflow's approval of one version, which when rejected is skipped itself, with all that is downstream.

    Airflow's own skips what is downstream by name, which does nothing in a mapped task group: the rejected
    offer would go live.

    :param version: what is asked about; the XCom `version`, for those who do what was approved (templated)
    """

    template_fields = (*ApprovalOperator.template_fields, "version")

    def __init__(self, *, version: Any, **kwargs: Any) -> None:
        kwargs["map_index_template"] = kwargs.get("map_index_template") or "{{ task.subject }}"
        super().__init__(**kwargs)
        self.version = version

    def execute(self, context: Context) -> Any:
        """Ask, if what is asked is what will be shown."""
        kept = _keep_question(context["ti"].id, self)
        if (kept.subject, kept.body) != (self.subject, self.body):
            raise AirflowFailException(
                f"What is to be approved has changed ({self.subject}), but Airflow goes on to show what this "
                f"task asked before it was cleared ({kept.subject}). Start a new run: it adopts what is "
                "published already, and asks anew."
            )
        # Now, since whoever answers answers this, whatever becomes of the task before.
        context["ti"].xcom_push(key="version", value=self.version)
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Return who approved, and when; skip if it was rejected."""
        answer = HITLOperator.execute_complete(self, context, event)
        chosen = " ".join(answer["chosen_options"])
        if chosen == self.APPROVE:
            return answer
        # Who rejected is worth to be kept, and a skipped task returns nothing.
        context["ti"].xcom_push(key="return_value", value=answer)
        who = (answer.get("responded_by_user") or {}).get("name") or "nobody"
        raise AirflowSkipException(f"{self.subject} Answered by {who}: {chosen}. Nothing goes live.")


def _keep_question(ti_id: Any, task: ApprovalOperator) -> Any:
    """Let Airflow keep the question, and return what it keeps: an earlier one, if the task was cleared."""
    from airflow.sdk.execution_time.comms import CreateHITLDetailPayload
    from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

    question = CreateHITLDetailPayload(
        ti_id=ti_id,
        options=task.options,
        subject=task.subject,
        body=task.body,
        multiple=False,
        params={},
        assigned_users=[],
    )
    return SUPERVISOR_COMMS.send(msg=question)


@task(
    multiple_outputs=True,
    map_index_template="{{ [task.op_kwargs.publisher_id, task.op_kwargs.offer_id] | select | join('/') }}",
)
def review(
    offer_id: str, publisher_id: str | None = None, cloud_partner_conn_id: str = DEFAULT_CONN_ID
) -> dict[str, Any]:
    """Sum up what is to be approved: `version`, `subject` and `body`.

    :raises AirflowSkipException: the preview's version is live already
    :raises CloudPartnerError: the service doesn't say which version is in preview
    """
    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
    from airflow_provider_cpp.release.lookup import retry_transient

    hook = CloudPartnerHook(cloud_partner_conn_id)
    publisher = hook.settings.publisher(publisher_id)
    preview = retry_transient(
        lambda: hook.get_offer(offer_id, publisher, slot="preview"),
        description=f"Reading the preview of {publisher}/{offer_id}",
    )
    if preview.version is None:
        raise CloudPartnerError(
            f"The service doesn't say which version of {publisher}/{offer_id} is in preview, so none can be "
            "approved."
        )
    try:
        production = retry_transient(
            lambda: hook.get_offer(offer_id, publisher, slot="production"),
            description=f"Reading the live version of {publisher}/{offer_id}",
        )
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

    Nothing of the offer is taken for Markdown or HTML, and credentials are redacted.

    :param production: what is live now; None if nothing is
    """
    before = _lines(production.definition) if production else []
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
    """Return a definition as lines that people can compare; long ones are broken, so none hides a change."""
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
