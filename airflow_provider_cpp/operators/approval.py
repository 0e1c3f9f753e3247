"""Operators of `release_offer(approve=True)`. They need Airflow 3.1 or later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowOptionalProviderFeatureException,
    AirflowSkipException,
)

from airflow_provider_cpp.core.errors import CloudPartnerError
from airflow_provider_cpp.operators.base import OfferOperator
from airflow_provider_cpp.version_compat import AIRFLOW_V_3_1_PLUS

try:
    if not AIRFLOW_V_3_1_PLUS:
        raise ImportError("this Airflow is older")
    from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator
except ImportError as error:
    raise AirflowOptionalProviderFeatureException(
        "release_offer(approve=True) needs Airflow 3.1 or later with apache-airflow-providers-standard, "
        f"which has the ApprovalOperator. Upgrade Airflow, or omit approve=True. ({error})"
    ) from error

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class ReviewOperator(OfferOperator):
    """Summarize the changes that an approver decides on.

    Returns `version`, `offer`, `subject` and `body`, each of them also as an XCom of its own.

    :param offer_id: id of the offer (templated)
    :param publisher_id: id of the publisher; by default the connection's publisher (templated)
    :param cloud_partner_conn_id: id of the connection (templated)
    :raises AirflowSkipException: the version in preview is live already
    :raises CloudPartnerError: the service does not name the version in preview
    """

    def execute(self, context: Context) -> dict[str, Any]:
        """Compare the preview with production."""
        from airflow_provider_cpp.release.approval import describe_changes
        from airflow_provider_cpp.release.lookup import OfferOperations

        hook, publisher_id = self._open()
        offer = OfferOperations(hook, publisher_id, self.offer_id)
        preview = offer.get_offer(slot="preview")
        if preview.version is None:
            raise CloudPartnerError(
                f"{self.subject}: the service does not name the version in preview, so no version can be "
                "approved. Clear this task to try again."
            )
        production = offer.find_offer(slot="production")
        if production and production.version == preview.version:
            raise AirflowSkipException(f"{self.subject}: version {preview.version} is live already.")
        summary = {
            "version": preview.version,
            "offer": self.subject,
            "subject": f"Go live with version {preview.version} of {self.subject}?",
            "body": describe_changes(publisher_id, self.offer_id, preview, production),
        }
        for key, value in summary.items():
            context["ti"].xcom_push(key=key, value=value)
        return summary


class OfferApprovalOperator(ApprovalOperator):
    """Airflow's approval, for one version of an offer. A rejection skips this task and all tasks downstream.

    Airflow's operator skips the tasks downstream by their names, which has no effect in a mapped task group:
    the rejected offer would go live.

    :param version: the version to approve; returned as the XCom `version` (templated)
    :param offer: name of the offer in the grid, as `publisher/offer` (templated)
    """

    template_fields = (*ApprovalOperator.template_fields, "version", "offer")

    def __init__(self, *, version: Any, offer: Any, **kwargs: Any) -> None:
        kwargs["map_index_template"] = kwargs.get("map_index_template") or "{{ task.offer }}"
        super().__init__(**kwargs)
        self.version = version
        self.offer = offer

    def execute(self, context: Context) -> Any:
        """Request the approval, unless Airflow would show an outdated request."""
        kept = _keep_question(context["ti"].id, self)
        if (kept.subject, kept.body) != (self.subject, self.body):
            raise AirflowFailException(
                f"The request for approval has changed ({self.subject}), but Airflow still shows the request "
                f"from before this task was cleared ({kept.subject}). Start a new Dag run: it adopts the "
                "published version and requests the approval again."
            )
        # Push the version now: the approver answers this request, even if the task before is cleared.
        context["ti"].xcom_push(key="version", value=self.version)
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Return the response with its user and time; skip the task if the user rejected the version."""
        response = HITLOperator.execute_complete(self, context, event)
        chosen = " ".join(response["chosen_options"])
        user = (response.get("responded_by_user") or {}).get("name") or "unknown user"
        self.log.info("%s Answered by %s: %s.", self.subject, user, chosen)
        if chosen == self.APPROVE:
            return response
        # Airflow stores no return value of a skipped task.
        context["ti"].xcom_push(key="return_value", value=response)
        raise AirflowSkipException(
            f"{self.subject} Response of {user}: {chosen}. The offer does not go live."
        )


def _keep_question(ti_id: Any, task: ApprovalOperator) -> Any:
    """Store the request in Airflow, and return the stored one: an earlier one if the task was cleared."""
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
