"""Names of the instances of mapped tasks in the grid: `publisher/offer`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import DAG
from harness import TaskInstance

from airflow_provider_cpp.offer_task import MAP_INDEX_TEMPLATE
from airflow_provider_cpp.operators.cloud_partner import (
    CancelOperator,
    GetOfferOperator,
    GoLiveOperator,
    PublishOperator,
    UpdateOfferOperator,
)
from airflow_provider_cpp.sensors.cloud_partner import OfferStatusSensor, OperationSensor

if TYPE_CHECKING:
    from dev.emulator_process import Emulator

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
def test_instances_have_the_name_of_their_offer_or_of_the_dag(
    operator: type[Any], same: dict[str, Any], each: dict[str, list[str]]
) -> None:
    with DAG("mapping", schedule=None):
        ours = operator.partial(task_id="ours", **same).expand(**each)
        own = operator.partial(task_id="own", map_index_template="{{ task.task_id }}", **same).expand(**each)
    assert ours.map_index_template == MAP_INDEX_TEMPLATE
    assert own.map_index_template == "{{ task.task_id }}"


def test_the_name_of_an_instance_has_the_rendered_ids(context: dict[str, Any]) -> None:
    task = GetOfferOperator(task_id="task", publisher_id="contoso", offer_id="{{ params.offer }}")
    rendered = task.prepare_for_execution()
    rendered.render_template_fields({"params": {"offer": "web"}})
    # The context of Airflow 3.0 has the task from before its templates were rendered.
    context["task"] = task
    rendered.pre_execute(context)
    name = rendered.get_template_env().from_string(rendered.map_index_template).render(context)
    assert name == "contoso/web"


@pytest.mark.parametrize("kind", [kind for kind, _, each in MAPPED if each is OFFERS])
def test_the_name_has_the_publisher_of_the_connection_early(emulator: Emulator, kind: type[Any]) -> None:
    same = next(same for one, same, _ in MAPPED if one is kind)
    task = kind(task_id="task", offer_id="web", **same).prepare_for_execution()
    # Airflow 3 renders the name right after the templates, before the execution.
    task.render_template_fields({"ti": TaskInstance()}, task.get_template_env())
    assert task.get_template_env().from_string(MAP_INDEX_TEMPLATE).render(task=task) == "contoso/web"
