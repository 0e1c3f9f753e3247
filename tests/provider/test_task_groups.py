"""The tasks that `release_offer` adds to a Dag. tests/system runs them."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator, TaskGroup, task_group

from airflow_provider_cpp.task_groups import release_offer
from dev.local_airflow import AIRFLOW
from tests.versions import needs_approval

if TYPE_CHECKING:
    from collections.abc import Callable


def tasks(dag: Any) -> dict[str, set[str]]:
    """The tasks of a Dag, each with the tasks directly downstream."""
    return {task.task_id: set(task.downstream_task_ids) for task in dag.tasks}


def test_a_release_publishes_and_goes_live() -> None:
    with DAG("release", schedule=None) as dag:
        release_offer("web", "contoso")
    assert tasks(dag) == {"release_offer.publish": {"release_offer.go_live"}, "release_offer.go_live": set()}
    live = dag.get_task("release_offer.go_live")
    assert (live.offer_id, live.publisher_id, live.wait_for_completion) == ("web", "contoso", True)


@needs_approval
def test_go_live_is_downstream_of_the_approval() -> None:
    with DAG("release", schedule=None) as dag:
        release_offer("web", approve=True, group_id="web")
    assert tasks(dag) == {
        "web.publish": {"web.review"},
        "web.review": {"web.approve"},
        "web.approve": {"web.go_live"},
        "web.go_live": set(),
    }


def test_two_releases_in_a_dag_get_different_names() -> None:
    with DAG("release", schedule=None) as dag:
        release_offer("web")
        release_offer("mail")
    assert {"release_offer.publish", "release_offer__1.publish"} <= set(tasks(dag))


def test_a_task_downstream_waits_for_the_whole_release() -> None:
    with DAG("release", schedule=None) as dag:
        release_offer("web") >> release_offer("mail", group_id="next")
    assert tasks(dag)["release_offer.go_live"] == {"next.publish"}


@needs_approval
@pytest.mark.parametrize("group_id", [None, "lanes"])
def test_a_release_is_expanded_over_offers(group_id: str | None) -> None:
    with DAG("release", schedule=None) as dag:
        release_offer.partial(approve=True, group_id=group_id, poke_interval=5).expand(
            offer_id=["web", "mail"]
        )
    live = dag.get_task(f"{group_id or 'release_offer'}.go_live")
    assert live.get_closest_mapped_task_group() is not None
    assert live.poke_interval == 5


def test_a_mapped_task_group_can_call_release_offer() -> None:
    with DAG("release", schedule=None) as dag:

        @task_group
        def lane(offer_id: str, publisher_id: str) -> None:
            release_offer(offer_id, publisher_id)

        lane.expand_kwargs([{"offer_id": "web", "publisher_id": "contoso"}])
    assert set(tasks(dag)) == {"lane.release_offer.publish", "lane.release_offer.go_live"}


@pytest.mark.parametrize(
    "add",
    [
        lambda: release_offer.partial(offer_id="web").expand(approve=[True, False]),
        lambda: release_offer.expand_kwargs([{"offer_id": "web"}, {"offer_id": "mail", "approve": True}]),
        lambda: release_offer.expand(offer_id=["web"], timeout=[1]),
    ],
)
def test_only_arguments_of_one_offer_can_be_mapped(add: Callable[[], Any]) -> None:
    with DAG("release", schedule=None), pytest.raises(ValueError, match=r"Pass an .* to partial\("):
        add()


def test_an_argument_in_partial_and_in_a_dict_is_an_error() -> None:
    with DAG("release", schedule=None), pytest.raises(ValueError, match="'publisher_id' is given twice"):
        release_offer.partial(publisher_id="a").expand_kwargs([{"offer_id": "web", "publisher_id": "b"}])


def test_misspelled_arguments_are_errors() -> None:
    with DAG("release", schedule=None):
        with pytest.raises(TypeError, match="aprove"):
            release_offer("web", aprove=True)  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="aprove"):
            release_offer.partial(aprove=True).expand(offer_id=["web"])


def test_override_sets_arguments_of_the_task_group() -> None:
    with DAG("release", schedule=None) as dag:
        release_offer.override(group_id="web", default_args={"retries": 7})("web")
        release_offer.override(group_id="many").partial(deferrable=False).expand(offer_id=["a", "b"])
    assert set(tasks(dag)) == {"web.publish", "web.go_live", "many.publish", "many.go_live"}
    assert dag.get_task("web.go_live").retries == 7
    assert dag.get_task("many.go_live").deferrable is False


DEFAULTS: dict[str, Any] = {
    "cloud_partner_conn_id": "eu",
    "publisher_id": "fabrikam",
    "notification_emails": ["a@contoso.com"],
    "deferrable": False,
    "poke_interval": 5.0,
    "max_wait": 50.0,
    "timeout": 500.0,
    "cancel_on_kill": True,
}


def add_plain() -> None:
    release_offer("web", approve=AIRFLOW >= (3, 1))


def add_in_a_group() -> None:
    with TaskGroup("outer", default_args=DEFAULTS):
        add_plain()


def add_mapped() -> None:
    release_offer.partial(approve=AIRFLOW >= (3, 1)).expand(offer_id=["web"])


def add_overridden() -> None:
    release_offer.override(default_args=DEFAULTS).partial(approve=AIRFLOW >= (3, 1)).expand(offer_id=["web"])


@pytest.mark.parametrize("add", [add_plain, add_in_a_group, add_mapped, add_overridden])
def test_default_args_apply_to_all_tasks_of_a_release(add: Callable[[], None]) -> None:
    in_dag = add in (add_plain, add_mapped)
    with DAG("release", schedule=None, default_args=DEFAULTS if in_dag else {}) as dag:
        add()
    found = {task.task_id.rpartition(".")[2]: task for task in dag.tasks}
    expected = DEFAULTS | {"notification_emails": ("a@contoso.com",)}
    for name in ("publish", "review", "go_live"):
        if task := found.get(name):
            values = {key: getattr(task, key) for key in expected if hasattr(task, key)}
            assert values == {key: expected[key] for key in values}
            assert {"cloud_partner_conn_id", "publisher_id"} <= set(values)
    assert ("review" in found) == (AIRFLOW >= (3, 1))


def test_given_arguments_have_precedence_over_default_args() -> None:
    with DAG("release", schedule=None, default_args=DEFAULTS) as dag:
        release_offer("web", "contoso", cloud_partner_conn_id="us", deferrable=True, timeout=60)
    for task in dag.tasks:
        assert (task.cloud_partner_conn_id, task.publisher_id) == ("us", "contoso")
        assert (task.deferrable, task.timeout, task.poke_interval) == (True, 60, 5)


@pytest.mark.parametrize("from_task", [False, True])
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"offer_id": "a"}, ("eu", "fabrikam", "a")),
        ({"offer_id": "b", "publisher_id": "x", "cloud_partner_conn_id": "us"}, ("us", "x", "b")),
    ],
)
def test_a_dict_of_expand_kwargs_is_completed_from_default_args(
    given: dict[str, Any], expected: tuple[str, ...], from_task: bool
) -> None:
    dicts = [given, {"offer_id": "z", "publisher_id": "y", "cloud_partner_conn_id": "us"}]
    with DAG("release", schedule=None, default_args=DEFAULTS) as dag:
        result: Any = BaseOperator(task_id="source").output
        release_offer.expand_kwargs(result if from_task else dicts)
    for name in ("publish", "go_live"):
        task = render(dag, f"release_offer.{name}", dicts)
        assert (task.cloud_partner_conn_id, task.publisher_id, task.offer_id) == expected
        task._check_rendered_arguments()


def test_a_literal_none_in_a_dict_means_the_default() -> None:
    with DAG("release", schedule=None, default_args={"publisher_id": "fabrikam"}) as dag:
        release_offer.expand_kwargs([{"offer_id": "a", "publisher_id": None, "notification_emails": None}])
    task = render(dag, "release_offer.publish", None)
    assert (task.publisher_id, task.notification_emails) == ("fabrikam", ())
    task._check_rendered_arguments()


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ({"offer_id": "a", "publisher_id": None}, "publisher_id of .* must not be empty"),
        ({"offer_id": "a", "approve": True}, "cannot be expanded over 'approve'"),
    ],
)
def test_a_wrong_dict_that_a_task_returns_is_an_error(returned: dict[str, Any], words: str) -> None:
    with DAG("release", schedule=None) as dag:
        result: Any = BaseOperator(task_id="source").output
        release_offer.expand_kwargs(result)
    with pytest.raises(ValueError, match=words):
        render(dag, "release_offer.go_live", [returned])._check_rendered_arguments()


def render(dag: Any, task_id: str, result: Any) -> Any:
    """Return the first instance of a task in a mapped task group after its templates were rendered."""
    task = dag.get_task(task_id).prepare_for_execution()
    ti = SimpleNamespace(
        map_index=0,
        task=task,
        xcom_pull=lambda **_: result,
        get_relevant_upstream_map_indexes=lambda *_, **__: None,
    )
    context = {"ti": ti, "dag": dag, "task": task, "run_id": "manual", "expanded_ti_count": None}
    task.render_template_fields(context, dag.get_template_env())
    return task


def test_approve_on_an_old_airflow_fails_when_the_dag_is_parsed() -> None:
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
    error = "AirflowOptionalProviderFeatureException: release_offer(approve=True) needs Airflow 3.1 or later"
    assert error in done.stderr
