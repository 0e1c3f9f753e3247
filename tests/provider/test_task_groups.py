"""The task group of a whole release, as a Dag has it; its runs are tests/system's."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, task_group

from airflow_provider_cpp.task_groups import release_offer
from tests.versions import needs_approval


def tasks(dag: Any) -> dict[str, set[str]]:
    """The tasks of a Dag, each with what is right downstream of it."""
    return {task.task_id: set(task.downstream_task_ids) for task in dag.tasks}


def test_without_approval_it_publishes_and_goes_live() -> None:
    with DAG("release", schedule=None) as dag:
        release_offer("web", "contoso")
    assert tasks(dag) == {"release_offer.publish": {"release_offer.go_live"}, "release_offer.go_live": set()}
    live = dag.get_task("release_offer.go_live")
    assert (live.offer_id, live.publisher_id, live.wait_for_completion) == ("web", "contoso", True)


@needs_approval
def test_with_approval_nothing_goes_live_before_it() -> None:
    with DAG("release", schedule=None) as dag:
        release_offer("web", approve=True, group_id="web")
    assert tasks(dag) == {
        "web.publish": {"web.review"},
        "web.review": {"web.approve"},
        "web.approve": {"web.go_live"},
        "web.go_live": set(),
    }


def test_two_of_them_have_names_of_their_own() -> None:
    with DAG("release", schedule=None) as dag:
        release_offer("web")
        release_offer("mail")
    assert {"release_offer.publish", "release_offer__1.publish"} <= set(tasks(dag))


def test_what_is_chained_to_it_comes_after_all_of_it() -> None:
    with DAG("release", schedule=None) as dag:
        release_offer("web") >> release_offer("mail", group_id="next")
    assert tasks(dag)["release_offer.go_live"] == {"next.publish"}


@needs_approval
@pytest.mark.parametrize("group_id", [None, "lanes"])
def test_it_is_expanded_over_offers(group_id: str | None) -> None:
    with DAG("release", schedule=None) as dag:
        release_offer.partial(approve=True, group_id=group_id, poke_interval=5).expand(
            offer_id=["web", "mail"]
        )
    live = dag.get_task(f"{group_id or 'release_offer'}.go_live")
    assert live.get_closest_mapped_task_group() is not None
    assert live.poke_interval == 5


def test_it_is_called_in_a_group_that_is_expanded_over_dicts() -> None:
    with DAG("release", schedule=None) as dag:

        @task_group
        def lane(offer_id: str, publisher_id: str) -> None:
            release_offer(offer_id, publisher_id)

        lane.expand_kwargs([{"offer_id": "web", "publisher_id": "contoso"}])
    assert set(tasks(dag)) == {"lane.release_offer.publish", "lane.release_offer.go_live"}


def test_whether_to_approve_can_not_be_mapped() -> None:
    with DAG("release", schedule=None), pytest.raises(TypeError, match=r"partial\(approve=\.\.\.\)"):
        release_offer.partial(offer_id="web").expand(approve=[True, False])


def test_an_airflow_without_approvals_says_so_when_the_dag_is_parsed() -> None:
    script = """
import sys
sys.modules["airflow.providers.standard.operators.hitl"] = None
from airflow.providers.common.compat.sdk import DAG
from airflow_provider_cpp.task_groups import release_offer
with DAG("release", schedule=None):
    release_offer("web")
    release_offer("mail", approve=True)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "RuntimeError: release_offer(approve=True) needs Airflow 3.1 or later" in done.stderr
