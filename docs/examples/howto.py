"""The examples of the how-to guides. `tests/core/test_documentation.py` runs them."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_cpp.operators.cloud_partner import (
    CancelOperator,
    GetOfferOperator,
    GoLiveOperator,
    PublishOperator,
    UpdateOfferOperator,
)
from airflow_provider_cpp.sensors.cloud_partner import OfferStatusSensor, OperationSensor

with DAG(dag_id="howto", schedule=None, tags=["marketplace"]):
    # [START get_offer]
    live = GetOfferOperator(task_id="read_what_is_live", offer_id="contoso-web", slot="production")
    # [END get_offer]

    # [START update_offer]
    change = UpdateOfferOperator(
        task_id="change",
        offer_id="contoso-web",
        definition={"offer": {"microsoft-azure-marketplace.title": "Contoso Web {{ ds }}"}},
    )
    # [END update_offer]

    # [START publish]
    publish = PublishOperator(task_id="publish", offer_id="contoso-web")
    preview = OperationSensor(task_id="preview", operation_location=publish.output, until="preview")
    # [END publish]

    # [START go_live]
    go_live = GoLiveOperator(task_id="go_live", offer_id="contoso-web")
    completed = OperationSensor(task_id="completed", operation_location=go_live.output)
    # [END go_live]

    # [START in_one_task]
    publish_next = PublishOperator(
        task_id="publish_next",
        offer_id="contoso-next",
        notification_emails=["release@contoso.com"],
        wait_for_completion=True,
        timeout=timedelta(days=10),
    )
    next_is_live = GoLiveOperator(
        task_id="next_is_live",
        offer_id="contoso-next",
        if_live="skip",
        wait_for_completion=True,
        retries=3,
    )
    # [END in_one_task]

    # [START offer_status]
    status = OfferStatusSensor(
        task_id="previewed_by_the_design_team",
        offer_id="contoso-linux",
        statuses=["waitingForPublisherReview"],
    )
    # [END offer_status]

    # [START cancel]
    cancel = CancelOperator(task_id="cancel", offer_id="contoso-linux")
    # [END cancel]

    live >> change >> publish >> preview >> go_live >> completed
    publish_next >> next_is_live
    status >> cancel
