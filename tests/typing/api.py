"""The public API as a Dag author uses it. mypy checks this file; nothing imports it.

A line with `type: ignore` must not type-check: mypy reports the comment if it does.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, XComArg, chain, task, task_group

from airflow_provider_cpp.operators.cloud_partner import (
    CancelOperator,
    GetOfferOperator,
    GoLiveOperator,
    PublishOperator,
    UpdateOfferOperator,
)
from airflow_provider_cpp.sensors.cloud_partner import OfferStatusSensor, OperationSensor
from airflow_provider_cpp.task_groups import release_offer


@task
def choose() -> str:
    return "web"


def add_image(offer: dict[str, Any], params: dict[str, Any]) -> None:
    offer["definition"]["image"] = params["image"]


with DAG("typed", schedule=None) as dag:
    chosen = choose()
    publish = PublishOperator(task_id="publish", offer_id="web", notification_emails=["a@contoso.com"])
    go_live = GoLiveOperator(
        task_id="go_live",
        offer_id="{{ params.offer }}",
        publisher_id="contoso",
        version=publish.output,
        if_running="fail",
        if_live="skip",
        wait_for_completion=True,
        poke_interval=timedelta(seconds=10),
        timeout=3600,
        cancel_on_kill=True,
        retries=3,
    )
    wait = OperationSensor(task_id="wait", operation_location=go_live.output, until="preview", soft_fail=True)
    status = OfferStatusSensor(task_id="status", offer_id=go_live.output, statuses=["succeeded"])
    cancel = CancelOperator(task_id="cancel", offer_id="web", notification_emails=go_live.output)
    read = GetOfferOperator(task_id="read", offer_id="web", slot="draft")
    change = UpdateOfferOperator(task_id="change", offer_id="web", definition=add_image)
    copy = UpdateOfferOperator(task_id="copy", offer_id="mail", definition=read.output, if_match="*")
    chain(change, publish, go_live, wait, release_offer("mail", approve=True, timeout=60) >> status)
    release_offer.partial(approve=True).expand(offer_id=["web", "mail"])
    release_offer.expand_kwargs([{"offer_id": "web", "publisher_id": "contoso"}])
    release_offer.override(group_id="web")("web", cloud_partner_conn_id="eu")
    GoLiveOperator.partial(task_id="each", if_live="skip").expand(offer_id=["web", "mail"])

    @task_group
    def lane(offer_id: str) -> None:
        release_offer(offer_id, notification_emails="a@contoso.com,b@contoso.com")

    output: XComArg = release_offer("web").output  # type: ignore[attr-defined]

    GoLiveOperator(task_id="t", offerid="a")  # type: ignore[call-arg]
    GoLiveOperator(task_id="t", offer_id=["a"])  # type: ignore[arg-type]
    GoLiveOperator(task_id="t", offer_id=1)  # type: ignore[arg-type]
    GoLiveOperator(task_id="t", offer_id="a", if_running="ignore")  # type: ignore[arg-type]
    GoLiveOperator(task_id="t", offer_id="a", version=1.5)  # type: ignore[arg-type]
    GoLiveOperator(task_id="t", offer_id="a", cancel_on_kill="false")  # type: ignore[arg-type]
    PublishOperator(task_id="t", offer_id="a", poke_interval="30")  # type: ignore[arg-type]
    PublishOperator("a", task_id="t")  # type: ignore[call-arg]
    UpdateOfferOperator(task_id="t", offer_id="a")  # type: ignore[call-arg]
    OperationSensor(task_id="t", location="/x")  # type: ignore[call-arg]
    OperationSensor(task_id="t", operation_location=go_live)  # type: ignore[arg-type]
    OperationSensor(task_id="t", operation_location=go_live.output, until="live")  # type: ignore[arg-type]
    OfferStatusSensor(task_id="t", offer_id="a", statuses=1)  # type: ignore[arg-type]
    release_offer("a", aprove=True)  # type: ignore[call-arg]
    release_offer(["a"])  # type: ignore[arg-type]
    release_offer("a", approve="yes")  # type: ignore[arg-type]
