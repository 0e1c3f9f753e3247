"""Arguments: checked when the Dag is parsed, and again after Airflow rendered the templates."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, BaseOperator
from harness import TaskInstance, finish

from airflow_provider_cpp.exceptions import (
    AuthenticationError,
    CloudPartnerError,
    ConflictError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    ValidationError,
    fail_at_once,
)
from airflow_provider_cpp.operators.cloud_partner import (
    CancelOperator,
    GetOfferOperator,
    GoLiveOperator,
    PublishOperator,
    UpdateOfferOperator,
)
from airflow_provider_cpp.sensors.cloud_partner import OfferStatusSensor, OperationSensor
from airflow_provider_cpp.task_groups import release_offer
from tests.versions import needs_airflow_3

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness import Connect

    from dev.emulator_process import Emulator

LOCATION = "/api/publishers/contoso/offers/slow/operations/1?api-version=2017-10-31"
#: Each operator and sensor with arguments that are possible.
POSSIBLE: dict[type[Any], dict[str, Any]] = {
    PublishOperator: {"offer_id": "slow"},
    GoLiveOperator: {"offer_id": "slow"},
    CancelOperator: {"offer_id": "slow"},
    GetOfferOperator: {"offer_id": "slow"},
    UpdateOfferOperator: {"offer_id": "slow", "definition": {"displayText": "New"}},
    OfferStatusSensor: {"offer_id": "slow"},
    OperationSensor: {"operation_location": LOCATION},
}
#: Every templated argument of every operator and sensor.
TEMPLATED = [(kind, name) for kind in POSSIBLE for name in kind.template_fields]


class Source(BaseOperator):
    """A task whose result the others get."""


class Results(TaskInstance):
    """A task instance that finds a result of `Source`."""

    def __init__(self, result: Any, map_index: int = -1) -> None:
        super().__init__()
        self.result, self.map_index, self.task = result, map_index, None

    def xcom_pull(self, **_: Any) -> Any:
        return self.result

    def get_relevant_upstream_map_indexes(self, *_: Any, **__: Any) -> None:
        """Airflow 2 asks for the instances of a mapped task."""


def rendered(
    dag: DAG, result: Any = None, *, task_id: str = "task", map_index: int = -1, **context: Any
) -> Any:
    """Return a task of a Dag as it is just before its execution."""
    ti = Results(result, map_index)
    found = dag.get_task(task_id).prepare_for_execution()
    run = SimpleNamespace(start_date=None, conf={})
    context |= {
        "ti": ti,
        "task": found,
        "dag": dag,
        "dag_run": run,
        "run_id": "manual",
        "expanded_ti_count": None,
        "params": dict(context),
    }
    found.render_template_fields(context, dag.get_template_env())
    task = context["task"] if map_index >= 0 else found
    context["ti"].task = task
    return task, context


def execute(*args: Any, **kwargs: Any) -> Any:
    """Render a task and execute it."""
    task, context = rendered(*args, **kwargs)
    return task.execute(context)


# --- when the Dag is parsed ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "wrong", "words"),
    [
        (GoLiveOperator, {"offer_id": ["a", "b"]}, r"offer_id is a list of 2 .*\.expand\(offer_id=\.\.\.\)"),
        (GoLiveOperator, {"offer_id": 7}, "offer_id must be text, but it is the number 7.* put it in quotes"),
        (GoLiveOperator, {"offer_id": ""}, "offer_id must not be empty"),
        (GoLiveOperator, {"offer_id": "a/b"}, "offer_id 'a/b'"),
        (GoLiveOperator, {"offer_id": None}, "offer_id must not be empty"),
        (GoLiveOperator, {"publisher_id": " "}, "publisher_id must not be empty"),
        (GoLiveOperator, {"publisher_id": ".."}, "publisher_id '..'"),
        (GoLiveOperator, {"cloud_partner_conn_id": ""}, "cloud_partner_conn_id must not be empty"),
        (GoLiveOperator, {"version": "two"}, "version must be a whole number from 1"),
        (GoLiveOperator, {"version": 1.5}, "version must be a whole number from 1"),
        (GoLiveOperator, {"version": True}, "version must be a whole number from 1"),
        (GoLiveOperator, {"if_running": "ignore"}, "if_running must be one of 'adopt', 'fail'"),
        (GoLiveOperator, {"if_live": ["skip"]}, "if_live must be one of"),
        (GoLiveOperator, {"cancel_on_kill": "no"}, "cancel_on_kill must be True or False, not 'no'"),
        (GoLiveOperator, {"wait_for_completion": 1}, "wait_for_completion must be True or False"),
        (GoLiveOperator, {"deferrable": "{{ x }}"}, "deferrable must be True or False.*cannot be a template"),
        (PublishOperator, {"if_published": None}, "if_published must be one of"),
        (PublishOperator, {"notification_emails": ["contoso.com"]}, "'contoso.com' is not one"),
        (
            PublishOperator,
            {"notification_emails": 5},
            "must be a list of e-mail addresses",
        ),
        (CancelOperator, {"missing_ok": "maybe"}, "missing_ok must be True or False"),
        (GetOfferOperator, {"slot": "live"}, "slot must be one of 'draft', 'preview', 'production'"),
        (GetOfferOperator, {"slot": "draft", "version": 1}, "Set slot or version, not both"),
        (UpdateOfferOperator, {"definition": ["a"]}, "definition must be a dict"),
        (
            UpdateOfferOperator,
            {"definition": '{"a": 1}'},
            r"not the dotted .*pass its XCom \(task.output\)",
        ),
        (UpdateOfferOperator, {"if_match": ""}, "if_match must not be empty.*'etag'"),
        (OperationSensor, {"operation_location": "web"}, r"not the path of an operation.*go_live\.output"),
        (
            OperationSensor,
            {"operation_location": ""},
            r"must not be empty.*go_live\.output",
        ),
        (OperationSensor, {"operation_location": [LOCATION]}, r"is a list of 1 .*\.expand\("),
        (
            OperationSensor,
            {"operation_location": "//evil.example" + LOCATION},
            "not on the conn",
        ),
        (OperationSensor, {"soft_fail": "yes"}, "soft_fail must be True or False"),
        (OperationSensor, {"until": "live"}, "until must be one of"),
        (OfferStatusSensor, {"statuses": "failed"}, "statuses must be a list of statuses"),
    ],
)
def test_an_impossible_literal_fails_when_the_dag_is_parsed(
    kind: type[Any], wrong: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        kind(task_id="task", **POSSIBLE[kind] | wrong)
    if len(wrong) == 1:
        with pytest.raises(ValueError, match=words):
            kind.partial(task_id="task", **wrong)


@pytest.mark.parametrize(("kind", "name"), TEMPLATED)
def test_templates_and_results_of_tasks_are_not_checked_when_parsed(kind: type[Any], name: str) -> None:
    with DAG("parsed", schedule=None):
        result: Any = Source(task_id="source").output
        for number, value in enumerate(("{{ params.x }}", "{% if x %}a{% endif %}", result)):
            kind(task_id=f"task{number}", **POSSIBLE[kind] | {name: value})


@pytest.mark.parametrize(
    ("text", "flag"), [("false", False), ("True", True), (" FALSE ", False), (True, True)]
)
def test_a_flag_may_be_the_text_true_or_false(text: Any, flag: bool) -> None:
    for name in ("cancel_on_kill", "wait_for_completion", "deferrable"):
        assert getattr(GoLiveOperator(task_id="t", offer_id="o", **{name: text}), name) is flag
    sensor = OfferStatusSensor(task_id="t", offer_id="o", soft_fail=text, exponential_backoff=text)
    assert (sensor.soft_fail, sensor.exponential_backoff) == (flag, flag)
    assert CancelOperator(task_id="t", offer_id="o", missing_ok=text).missing_ok is flag


@pytest.mark.parametrize(
    ("given", "addresses"),
    [
        ("a@x.com", ("a@x.com",)),
        ("a@x.com, b@x.com", ("a@x.com", "b@x.com")),
        (["a@x.com "], ("a@x.com",)),
        ("['a@x.com', 'b@x.com']", ("a@x.com", "b@x.com")),
    ],
)
def test_addresses_may_be_a_list_or_text_with_commas(given: Any, addresses: tuple[str, ...]) -> None:
    for kind in (PublishOperator, CancelOperator):
        assert kind(task_id="t", offer_id="o", notification_emails=given).notification_emails == addresses


# --- after the templates were rendered ----------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name"), TEMPLATED)
@pytest.mark.parametrize("empty", [None, "", "  "])
@pytest.mark.parametrize("source", ["result", pytest.param("mapped", marks=needs_airflow_3), "template"])
def test_an_argument_that_is_computed_as_empty_is_an_error(
    emulator: Emulator, kind: type[Any], name: str, empty: Any, source: str
) -> None:
    arguments = {key: value for key, value in POSSIBLE[kind].items() if key != name}
    with DAG("empty", schedule=None, render_template_as_native_obj=True) as dag:
        result: Any = Source(task_id="source").output
        if source == "mapped":
            kind.partial(task_id="task", **arguments).expand(**{name: result})
        else:
            kind(task_id="task", **arguments, **{name: result if source == "result" else "{{ params.x }}"})
    before = len(emulator.requests())
    index, value = (0, [empty]) if source == "mapped" else (-1, empty)
    with pytest.raises(
        AirflowFailException, match=f"{name} .*must not be empty|definition (must|is)"
    ) as raised:
        execute(dag, value, map_index=index, x=empty)
    assert isinstance(raised.value, ValueError)
    assert len(emulator.requests()) == before


@pytest.mark.parametrize(("kind", "name"), TEMPLATED)
def test_none_in_a_text_template_is_an_error(emulator: Emulator, kind: type[Any], name: str) -> None:
    with DAG("none", schedule=None) as dag:
        kind(task_id="task", **POSSIBLE[kind] | {name: "{{ none }}"})
    before = len(emulator.requests())
    with pytest.raises(AirflowFailException, match=f"{name} of task must not be empty.*'None'"):
        execute(dag)
    assert len(emulator.requests()) == before


@pytest.mark.parametrize("how", ["task", "mapped task", "mapped group"])
@pytest.mark.parametrize("publisher", ["fabrikam", "", None])
def test_template_in_default_args_is_rendered(emulator: Emulator, how: str, publisher: str | None) -> None:
    with DAG("defaults", schedule=None, default_args={"publisher_id": "{{ x }}"}) as dag:
        if how == "task":
            GoLiveOperator(task_id="task", offer_id="slow", publisher_id=None)
        elif how == "mapped task":
            GoLiveOperator.partial(task_id="task", publisher_id=None).expand(offer_id=["slow"])
        else:
            release_offer.override(group_id="web").expand_kwargs([{"offer_id": "slow"}])
    task_id = "web.go_live" if how == "mapped group" else "task"
    task, _ = rendered(dag, task_id=task_id, map_index=-1 if how == "task" else 0, x=publisher)
    if publisher:
        task._check_rendered_arguments()
        assert task.publisher_id == publisher
    else:
        with pytest.raises(AirflowFailException, match=f"publisher_id of {task_id} must not be empty"):
            task._check_rendered_arguments()


OPTIONAL = [
    (kind, name)
    for kind, name in TEMPLATED
    if name in ("cloud_partner_conn_id", "publisher_id", "version", "slot", "notification_emails", "if_match")
]


@pytest.mark.parametrize(("kind", "name"), OPTIONAL)
@pytest.mark.parametrize("how", ["plain", "partial", "expand", "expand_kwargs"])
def test_a_literal_none_means_the_default(emulator: Emulator, kind: type[Any], name: str, how: str) -> None:
    arguments = POSSIBLE[kind]
    (key, value), *_ = arguments.items()
    rest = {
        key: value for key, value in arguments.items() if key not in POSSIBLE[kind] or key == "definition"
    }
    with DAG("none", schedule=None) as dag:
        if how == "plain":
            kind(task_id="task", **arguments, **{name: None})
        elif how == "partial":
            kind.partial(task_id="task", **rest, **{name: None}).expand(**{key: [value]})
        elif how == "expand":
            kind.partial(task_id="task", **arguments).expand(**{name: [None]})
        else:
            kind.partial(task_id="task", **rest).expand_kwargs([{key: value, name: None}])
    task, _ = rendered(dag, map_index=-1 if how == "plain" else 0)
    task._check_rendered_arguments()
    defaults = {
        "cloud_partner_conn_id": "cloud_partner_default",
        "publisher_id": "contoso",
        "notification_emails": (),
        "if_match": "etag",
    }
    assert getattr(task, name) == defaults.get(name)


@needs_airflow_3
def test_none_in_a_dict_that_a_task_returns_is_an_error(emulator: Emulator) -> None:
    with DAG("none", schedule=None) as dag:
        result: Any = Source(task_id="source").output
        GoLiveOperator.partial(task_id="task").expand_kwargs(result)
    with pytest.raises(ValueError, match="version of task must not be empty"):
        execute(dag, [{"offer_id": "slow", "version": None}], map_index=0)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("offer_id", 42, "offer_id must be text, but it is the number 42.* put quotes around the template"),
        ("publisher_id", 1.5, "publisher_id must be text, but it is the number 1.5"),
        ("version", 1.5, "version must be a whole number from 1, not 1.5"),
        ("offer_id", ["a", "b"], r"offer_id is a list of 2 values.*\.expand\("),
    ],
)
def test_a_native_number_or_list_names_the_cure(
    emulator: Emulator, name: str, value: Any, words: str
) -> None:
    with DAG("native", schedule=None, render_template_as_native_obj=True) as dag:
        GoLiveOperator(task_id="task", **{"offer_id": "slow"} | {name: "{{ params.x }}"})
    task, context = rendered(dag, x=value)
    with pytest.raises(AirflowFailException, match=words):
        task.execute(context)


def test_a_quoted_template_keeps_an_id_of_digits_as_text(emulator: Emulator) -> None:
    with DAG("native", schedule=None, render_template_as_native_obj=True) as dag:
        GoLiveOperator(task_id="task", offer_id="'{{ params.x }}'", version="{{ params.version }}")
    task, _ = rendered(dag, x=42, version=3)
    task._check_rendered_arguments()
    assert (task.offer_id, task.version) == ("42", 3)


@pytest.mark.parametrize(
    "emails", ["{{ params.x }}", ["{{ params.x[0] }}", "b@x.com"], "{{ params.x | join(',') }}", "xcom"]
)
@pytest.mark.parametrize("native", [True, False])
def test_addresses_may_be_templates_or_the_result_of_a_task(
    emulator: Emulator, emails: Any, native: bool
) -> None:
    with DAG("emails", schedule=None, render_template_as_native_obj=native) as dag:
        result: Any = Source(task_id="source").output
        given = result if emails == "xcom" else emails
        PublishOperator(task_id="task", offer_id="slow", notification_emails=given)
    task, _ = rendered(dag, ["a@x.com", "b@x.com"], x=["a@x.com", "b@x.com"])
    task._check_rendered_arguments()
    assert task.notification_emails == ("a@x.com", "b@x.com")


def test_json_text_as_definition_is_refused_with_the_cure(emulator: Emulator) -> None:
    with DAG("json", schedule=None) as dag:
        UpdateOfferOperator(task_id="task", offer_id="slow", definition="{{ params.x | tojson }}")
    task, context = rendered(dag, x={"storageAccountKey": "secret"})
    with pytest.raises(ValueError, match=r"pass its XCom \(task\.output\)") as raised:
        task.execute(context)
    assert "secret" not in str(raised.value)


# --- flags of the execution ---------------------------------------------------------------------------------


@pytest.mark.parametrize("push", [True, False])
def test_waiting_task_pushes_its_result_only_if_configured(
    emulator: Emulator, context: dict[str, Any], push: bool
) -> None:
    task = GoLiveOperator(
        task_id="t", offer_id="quick", wait_for_completion=True, do_xcom_push=push, poke_interval=0.05
    )
    assert finish(task, context).startswith("/api/")
    assert ("return_value" in context["ti"].xcoms) is push


def change(offer: Any) -> None:
    offer["definition"]["displayText"] = "Changed"


def test_the_name_of_a_function_does_not_depend_on_the_deployment() -> None:
    names = set()
    for module in ("unusual_prefix_1a2b_release", "unusual_prefix_3c4d_release"):
        change.__module__ = module
        names.add(UpdateOfferOperator(task_id="t", offer_id="o", definition=change).definition)
    change.__module__ = __name__
    assert names == {"change"}


@needs_airflow_3
def test_a_serialized_dag_does_not_depend_on_the_deployment() -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    texts = set()
    for module in ("unusual_prefix_1a2b_release", "unusual_prefix_3c4d_release"):
        change.__module__ = module
        with DAG("release", schedule=None) as dag:
            UpdateOfferOperator(task_id="one", offer_id="o", definition=change)
            UpdateOfferOperator.partial(task_id="each", definition=change).expand(offer_id=["a"])
        texts.add(json.dumps(DagSerialization.to_dict(dag), sort_keys=True, default=str))
    change.__module__ = __name__
    assert len(texts) == 1


# --- errors without retries ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offer", "kind", "error"),
    [
        ("invalid", PublishOperator, ValidationError),
        ("absent", PublishOperator, NotFoundError),
        ("absent", GoLiveOperator, NotFoundError),
        ("absent", GetOfferOperator, NotFoundError),
        ("absent", UpdateOfferOperator, NotFoundError),
        ("next", GoLiveOperator, ValidationError),
    ],
)
def test_an_error_that_no_retry_cures_fails_the_task_at_once(
    emulator: Emulator, context: dict[str, Any], offer: str, kind: type[Any], error: type[Exception]
) -> None:
    task = kind(task_id="t", **POSSIBLE[kind] | {"offer_id": offer})
    with pytest.raises(AirflowFailException) as raised:
        task.execute(context)
    assert isinstance(raised.value, error)
    assert raised.value.status in (400, 404, 422)  # type: ignore[attr-defined]


def test_a_wrong_secret_fails_the_task_at_once(
    emulator: Emulator, connect: Connect, context: dict[str, Any]
) -> None:
    connect(emulator, password="wrong")
    for kind in (GoLiveOperator, OfferStatusSensor, OperationSensor):
        with pytest.raises(AirflowFailException) as raised:
            kind(task_id="t", **POSSIBLE[kind]).execute(context)
        assert isinstance(raised.value, AuthenticationError)


@pytest.mark.parametrize(
    ("kind", "offer", "fault", "error"),
    [
        (GoLiveOperator, "publishing", None, ConflictError),
        (GetOfferOperator, "slow", {"path": "/offers/", "status": 403}, PermissionDeniedError),
        (UpdateOfferOperator, "slow", {"method": "PUT", "status": 412}, PreconditionFailedError),
    ],
)
def test_conflicts_and_permissions_follow_the_retries(
    emulator: Emulator,
    context: dict[str, Any],
    kind: type[Any],
    offer: str,
    fault: dict[str, Any] | None,
    error: type[Exception],
) -> None:
    if fault:
        emulator.inject(**fault, count=20)
    with pytest.raises(error) as raised:
        kind(task_id="t", **POSSIBLE[kind] | {"offer_id": offer}).execute(context)
    assert not isinstance(raised.value, AirflowFailException)


def test_an_outdated_etag_of_the_dag_fails_the_task_at_once(
    emulator: Emulator, context: dict[str, Any]
) -> None:
    task = UpdateOfferOperator(task_id="t", **POSSIBLE[UpdateOfferOperator], if_match='"outdated"')
    with pytest.raises(PreconditionFailedError) as raised:
        task.execute(context)
    assert isinstance(raised.value, AirflowFailException)


@pytest.mark.parametrize("kind", [OperationSensor, GoLiveOperator])
def test_a_lasting_404_of_an_operation_follows_the_retries(
    emulator: Emulator, context: dict[str, Any], kind: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_cpp.core.polling.NOT_FOUND_SECONDS", 0.1)
    polling = {"task_id": "t", "deferrable": False, "poke_interval": 0.01, "max_wait": 0.01}
    if kind is GoLiveOperator:
        polling["wait_for_completion"] = True
        emulator.inject(path="/operations/", status=404, count=1000)
    task = kind(**POSSIBLE[kind], **polling)
    with pytest.raises(NotFoundError) as raised:
        task.execute(context)
    assert not isinstance(raised.value, AirflowFailException)


def test_soft_fail_does_not_skip_for_a_permanent_error(emulator: Emulator, connect: Connect) -> None:
    connect(emulator, password="wrong")
    event = {"end": "error", "error": "AuthenticationError", "message": "refused", "location": LOCATION}
    task = OperationSensor(task_id="t", operation_location=LOCATION, soft_fail=True)
    with pytest.raises(AuthenticationError) as raised:
        task.resume_execution("execute_complete", {"event": event}, {"ti": TaskInstance()})  # type: ignore[arg-type,typeddict-item]
    assert isinstance(raised.value, AirflowFailException)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ValidationError("refused", status=422, code="Logo"),
        lambda: PermissionDeniedError("refused", status=403),
        lambda: ValueError("wrong"),
    ],
)
def test_an_error_without_retries_equals_the_error(make: Callable[[], Exception]) -> None:
    error = make()
    final: Any = fail_at_once(error)  # type: ignore[arg-type]
    assert isinstance(final, AirflowFailException)
    assert isinstance(final, type(error))
    assert (str(final), type(final).__name__) == (str(error), type(error).__name__)
    assert vars(final) == vars(error)
    assert fail_at_once(final) is final


def test_exceptions_report_their_public_module() -> None:
    assert {kind.__module__ for kind in (NotFoundError, CloudPartnerError)} == {
        "airflow_provider_cpp.exceptions"
    }


def test_operators_and_sensors_have_a_cached_hook(emulator: Emulator) -> None:
    for kind, arguments in POSSIBLE.items():
        task = kind(task_id="t", **arguments)
        assert task.hook is task.hook
        assert task.hook.cloud_partner_conn_id == "cloud_partner_default"


def test_unavailable_credential_follows_the_retries(
    emulator: Emulator, connect: Connect, context: dict[str, Any]
) -> None:
    connect(emulator, login=None, password=None)
    with pytest.raises(AuthenticationError, match="no credential is available") as raised:
        GoLiveOperator(task_id="t", **POSSIBLE[GoLiveOperator]).execute(context)
    assert not isinstance(raised.value, AirflowFailException)
