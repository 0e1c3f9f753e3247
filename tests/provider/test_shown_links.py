"""Which links a task shows, and when: the values that it stores under the keys of the links."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat import sdk
from airflow.providers.common.compat.sdk import AirflowSkipException, TaskDeferred
from harness import deferral, resume

from airflow_provider_cpp.exceptions import CloudPartnerError
from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
from airflow_provider_cpp.links import cloud_partner as links
from airflow_provider_cpp.operators.cloud_partner import (
    CancelOperator,
    GetOfferOperator,
    GoLiveOperator,
    PublishOperator,
)
from airflow_provider_cpp.sensors.cloud_partner import OfferStatusSensor, OperationSensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from dev.emulator_process import Emulator

Context = dict[str, Any]

SHOP = "https://azuremarketplace.microsoft.com/marketplace/apps"
QUICKLY: dict[str, Any] = {"poke_interval": 0.05}
WAITING: dict[str, Any] = {"wait_for_completion": True, **QUICKLY}


def shown(context: Context) -> dict[str, str]:
    """The links that lead somewhere, by name."""
    xcoms = context["ti"].xcoms
    found = {link.name: xcoms.get(link.xcom_key) for link in (links.PREVIEW, links.LIVE)}
    assert xcoms[links.PARTNER_CENTER.xcom_key] == links.PARTNER_CENTER_URL
    return {name: url.removeprefix(f"{SHOP}/") for name, url in found.items() if url}


def run(task: Any, context: Context) -> Any:
    task.pre_execute(context)
    return task.execute(context)


def finish(make: Callable[[], Any], context: Context) -> None:
    """Run a task to its end: in a worker, and if it is deferred in the triggerer and in another worker."""
    try:
        run(make(), context)
    except TaskDeferred as deferred:
        task = make()
        task.pre_execute(context)
        resume(task, context, deferred)


BOTH = {"Preview listing": "contoso.quick-preview", "Live listing": "contoso.quick"}


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "worker"])
def test_a_publish_links_to_the_preview_once_it_is_ready(
    emulator: Emulator, context: Context, deferrable: bool
) -> None:
    how = WAITING | {"deferrable": deferrable}
    finish(lambda: PublishOperator(task_id="publish", offer_id="next", **how), context)
    assert shown(context) == {"Preview listing": "contoso.next-preview"}


def test_while_a_publish_runs_there_is_no_preview_to_link_to(emulator: Emulator, context: Context) -> None:
    task = PublishOperator(task_id="publish", offer_id="next-slow", **WAITING)
    task.pre_execute(context)
    deferral(task, context)
    assert shown(context) == {}


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "worker"])
def test_go_live_links_to_the_preview_and_then_to_the_live_listing(
    emulator: Emulator, context: Context, deferrable: bool
) -> None:
    how = WAITING | {"deferrable": deferrable}
    finish(lambda: GoLiveOperator(task_id="go_live", offer_id="quick", **how), context)
    assert shown(context) == BOTH


def test_a_go_live_that_is_not_waited_for_links_to_no_live_listing(
    emulator: Emulator, context: Context
) -> None:
    run(GoLiveOperator(task_id="go_live", offer_id="quick"), context)
    assert shown(context) == {"Preview listing": "contoso.quick-preview"}


def test_skipped_live_offer_links_to_its_live_listing(emulator: Emulator, context: Context) -> None:
    context["dag_run"].start_date = datetime.now(UTC) + timedelta(minutes=1)
    with pytest.raises(AirflowSkipException):
        run(GoLiveOperator(task_id="go_live", offer_id="live", if_live="skip"), context)
    assert shown(context) == {"Preview listing": "contoso.live-preview", "Live listing": "contoso.live"}


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "worker"])
def test_operation_sensor_links_to_the_listings_in_the_steps(
    emulator: Emulator, context: Context, deferrable: bool
) -> None:
    location = CloudPartnerHook().go_live("quick")
    how = QUICKLY | {"deferrable": deferrable}
    finish(lambda: OperationSensor(task_id="wait", operation_location=location, **how), context)
    assert shown(context) == BOTH


def test_sensor_waiting_for_a_go_live_links_to_the_preview(emulator: Emulator, context: Context) -> None:
    task = OperationSensor(task_id="wait", operation_location=CloudPartnerHook().go_live("slow"), **QUICKLY)
    task.pre_execute(context)
    deferral(task, context)
    assert shown(context) == {"Preview listing": "contoso.slow-preview"}


def test_a_sensor_of_an_offer_links_to_its_preview(emulator: Emulator, context: Context) -> None:
    run(OfferStatusSensor(task_id="wait", offer_id="slow"), context)
    assert shown(context) == {"Preview listing": "contoso.slow-preview"}


def test_a_task_that_fails_at_once_links_to_partner_center(emulator: Emulator, context: Context) -> None:
    with pytest.raises(CloudPartnerError):
        run(GetOfferOperator(task_id="get", offer_id="no-such-offer"), context)
    assert shown(context) == {}


def test_ids_are_quoted(emulator: Emulator) -> None:
    assert links.LIVE.url("a b", "c<>") == f"{SHOP}/a%20b.c%3C%3E"


@pytest.mark.parametrize(
    ("steps", "names"),
    [
        ([], []),
        ([("publisher-signoff", "notStarted"), ("live", "notStarted")], []),
        ([("publisher-signoff", "waitingForPublisherReview")], ["Preview listing"]),
        ([("publisher-signoff", "complete"), ("live", "notStarted")], ["Preview listing"]),
        ([("publisher-signoff", "canceled")], []),
        ([("live", "inProgress")], ["Preview listing"]),
        ([("live", "failed")], ["Preview listing"]),
        ([("live", "complete")], ["Preview listing", "Live listing"]),
    ],
)
@pytest.mark.parametrize("field", ["id", "name"])
def test_the_steps_tell_which_pages_there_are(
    steps: list[tuple[str, str]], names: list[str], field: str
) -> None:
    summary = {"steps": [{"id": "", "name": "", "status": status, field: step} for step, status in steps]}
    assert [link.name for link in links.pages_of(summary)] == names


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (PublishOperator, {"Preview listing", "Live listing", "Partner Center"}),
        (GoLiveOperator, {"Preview listing", "Live listing", "Partner Center"}),
        (CancelOperator, {"Preview listing", "Live listing", "Partner Center"}),
        (OperationSensor, {"Preview listing", "Live listing", "Partner Center"}),
        (OfferStatusSensor, {"Preview listing", "Live listing", "Partner Center"}),
        (GetOfferOperator, {"Partner Center"}),
    ],
)
def test_a_dag_declares_the_links_that_its_tasks_may_have(kind: Any, names: set[str]) -> None:
    assert {link.name for link in kind.operator_extra_links} == names


def test_running_task_leaves_airflow_no_link_to_store(emulator: Emulator, context: Context) -> None:
    """Airflow 3 stores each link of the operator when it ends, also the empty ones."""
    task = GetOfferOperator(task_id="get", offer_id="slow")
    run(task, context)
    assert not task.operator_extra_links


def test_link_has_the_address_that_the_task_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = {links.LIVE.xcom_key: f"{SHOP}/contoso.web"}
    monkeypatch.setattr(sdk.XCom, "get_value", lambda *, ti_key, key: stored.get(key))
    found = [link.get_link(None, ti_key=None) for link in (links.LIVE, links.PREVIEW)]  # type: ignore[arg-type]
    assert found == [f"{SHOP}/contoso.web", ""]


def test_a_release_does_not_fail_for_want_of_a_link(
    emulator: Emulator, context: Context, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("the API server is away")

    monkeypatch.setattr(context["ti"], "xcom_push", refuse)
    location = run(GoLiveOperator(task_id="go_live", offer_id="quick"), context)
    assert location.startswith("/api/")
    assert "A link can't be shown: ConnectionError: the API server is away" in caplog.text
