"""What a mapped task's instances are named by in the grid."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_cpp.operators.cloud_partner import (
    CancelOperator,
    GetOfferOperator,
    GoLiveOperator,
    PublishOperator,
    UpdateOfferOperator,
)
from airflow_provider_cpp.sensors.cloud_partner import OfferStatusSensor, OperationSensor

OFFERS = {"offer_id": ["web", "slow"]}
MAPPED: list[tuple[type[Any], dict[str, Any], dict[str, Any]]] = [
    (PublishOperator, {}, OFFERS),
    (GoLiveOperator, {}, OFFERS),
    (CancelOperator, {}, OFFERS),
    (GetOfferOperator, {}, OFFERS),
    (UpdateOfferOperator, {"definition": {"displayText": "New"}}, OFFERS),
    (OfferStatusSensor, {}, OFFERS),
    (OperationSensor, {}, {"operation_location": ["/api/publishers/contoso/offers/web/operations/1"]}),
]


@pytest.mark.parametrize(
    ("operator", "same", "each"), MAPPED, ids=lambda value: getattr(value, "__name__", "")
)
def test_instances_are_named_by_their_offers_or_as_the_dag_says(
    operator: type[Any], same: dict[str, Any], each: dict[str, list[str]]
) -> None:
    with DAG("mapping", schedule=None):
        ours = operator.partial(task_id="ours", **same).expand(**each)
        own = operator.partial(task_id="own", map_index_template="{{ task.task_id }}", **same).expand(**each)
    assert ours.map_index_template == "{{ task.subject }}"
    assert own.map_index_template == "{{ task.task_id }}"


def test_an_instance_is_named_by_what_its_templates_were_rendered_to(context: dict[str, Any]) -> None:
    task = GetOfferOperator(task_id="task", publisher_id="contoso", offer_id="{{ params.offer }}")
    rendered = task.prepare_for_execution()
    rendered.render_template_fields({"params": {"offer": "web"}})
    # As Airflow 3.0 has it.
    context["task"] = task
    rendered.pre_execute(context)
    name = rendered.get_template_env().from_string(rendered.map_index_template).render(context)
    assert name == "contoso/web"
