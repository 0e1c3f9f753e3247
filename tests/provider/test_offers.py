"""`GetOfferOperator` and `UpdateOfferOperator`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from harness import HTML, SECRETS, UNKNOWN_OUTCOMES, clear_faults, revise

from airflow_provider_cpp.exceptions import (
    CloudPartnerError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    ValidationError,
)
from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
from airflow_provider_cpp.operators.cloud_partner import GetOfferOperator, UpdateOfferOperator

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness import Log

    from dev.emulator_process import Emulator

Context = Any

OFFER = "offers/slow$"
both_kinds = pytest.mark.parametrize("offer", ["slow", "slow-classic"])


def get(offer: str = "update", **arguments: Any) -> GetOfferOperator:
    return GetOfferOperator(task_id="get", offer_id=offer, **arguments)


def update(definition: Any, offer: str = "slow", **arguments: Any) -> UpdateOfferOperator:
    return UpdateOfferOperator(task_id="update", offer_id=offer, definition=definition, **arguments)


def puts(emulator: Emulator) -> list[dict[str, Any]]:
    return emulator.requests(method="PUT")


def effects(emulator: Emulator) -> int:
    """How many requests wrote an offer."""
    return sum(put["effect"] for put in puts(emulator))


def definition(offer: str = "slow") -> Any:
    return CloudPartnerHook().get_offer(offer).definition


def etag(offer: str = "slow") -> str | None:
    return CloudPartnerHook().get_offer(offer).etag


# --- reading ---


@pytest.mark.parametrize(
    ("where", "version"),
    [
        ({}, 4),
        ({"slot": "draft"}, 4),
        ({"slot": "preview"}, 4),
        ({"slot": "production"}, 3),
        ({"version": 3}, 3),
        ({"version": "3"}, 3),
    ],
    ids=str,
)
def test_what_is_asked_for_is_returned_as_the_services_own_json(
    emulator: Emulator, context: Context, where: dict[str, Any], version: int
) -> None:
    offer = get(**where).execute(context)
    assert (offer["id"], offer["publisherId"], offer["version"]) == ("update", "contoso", version)
    assert offer["definition"]["displayText"] == "Update"
    assert json.loads(json.dumps(offer)) == offer


@pytest.mark.parametrize("slot", [None, "draft"])
def test_the_etag_of_the_draft_is_an_xcom(emulator: Emulator, context: Context, slot: str | None) -> None:
    get(slot=slot).execute(context)
    assert context["ti"].xcoms == {"etag": etag("update")}


def test_where_the_service_sends_no_etag_there_is_no_xcom(emulator: Emulator, context: Context) -> None:
    get(slot="production").execute(context)
    assert context["ti"].xcoms == {}


@pytest.mark.parametrize(
    ("offer", "where", "words"),
    [
        ("next", {"slot": "preview"}, "preview slot of contoso/next"),
        ("slow", {"slot": "production"}, "production slot of contoso/slow"),
        ("slow", {"version": 9}, "version 9 of contoso/slow"),
        ("nowhere", {}, "contoso/nowhere"),
    ],
)
def test_what_is_not_there_is_an_error_that_names_it(
    emulator: Emulator, context: Context, offer: str, where: dict[str, Any], words: str
) -> None:
    with pytest.raises(NotFoundError, match=words):
        get(offer, **where).execute(context)
    assert len(emulator.requests(path="^/api/")) == 1


@pytest.mark.parametrize(
    "where",
    [
        {"slot": "staging"},
        {"slot": ""},
        {"slot": "preview", "version": 3},
        {"version": 0},
        {"version": "-1"},
        {"version": "latest"},
        {"version": ""},
        {"version": "²"},
        {"version": True},
        {"version": 3.0},
    ],
    ids=str,
)
def test_what_can_not_be_asked_for_is_refused_before_anything_is_sent(
    emulator: Emulator, context: Context, where: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"slot|version"):
        get(**where).execute(context)
    assert emulator.requests() == []


def test_secret_values_are_not_returned(emulator: Emulator, context: Context) -> None:
    everything = json.dumps([get("secretive").execute(context), context["ti"].xcoms])
    assert "Secretive" in everything
    for secret in ("a key of the seed", "a signature of the seed"):
        assert secret in json.dumps(SECRETS)
        assert secret not in everything


@pytest.mark.parametrize("where", [{}, {"slot": "preview"}, {"version": 3}], ids=str)
@pytest.mark.parametrize(
    "fault", [{"status": 503}, {"status": 200, "body": HTML}, {"close": "after"}], ids=str
)
def test_a_passing_fault_is_survived(
    emulator: Emulator, context: Context, where: dict[str, Any], fault: dict[str, Any]
) -> None:
    emulator.inject(path="offers/update", count=2, **fault)
    assert get(**where).execute(context)["id"] == "update"
    assert emulator.faults() == []


def test_a_refusal_is_raised_at_once(emulator: Emulator, context: Context) -> None:
    emulator.inject(path="offers/update", status=403)
    with pytest.raises(PermissionDeniedError):
        get().execute(context)
    assert len(emulator.requests(path="^/api/")) == 1


def test_what_a_template_may_stand_in_is_rendered(emulator: Emulator, context: Context) -> None:
    task = get("{{ params.offer }}", version="{{ params.version }}")
    task.render_template_fields({"params": {"offer": "update", "version": 3}})
    assert task.execute(context)["version"] == 3
    assert task.map_index_template == "{{ task.subject }}"
    assert task.subject == "contoso/update"
    assert {"slot", "version", "publisher_id", "cloud_partner_conn_id"} <= set(task.template_fields)


# --- merging ---

TITLE = "microsoft-azure-marketplace.title"
REST: dict[str, Any] = {
    "offer": {TITLE: "Slow"},
    "plans": [{"planId": "standard", "microsoft-azure-virtualmachines.skuTitle": "Standard"}],
}
BEFORE = {"displayText": "Slow", **REST}


@pytest.mark.parametrize(
    ("change", "after"),
    [
        ({"displayText": "New"}, BEFORE | {"displayText": "New"}),
        ({"definition": {"displayText": "New"}}, BEFORE | {"displayText": "New"}),
        ({"displayText": None}, REST),
        ({"displayText": {"en": "New"}}, BEFORE | {"displayText": {"en": "New"}}),
        ({"offer": {"summary": "Short"}}, BEFORE | {"offer": {TITLE: "Slow", "summary": "Short"}}),
        ({"offer": {TITLE: None}}, BEFORE | {"offer": {}}),
        ({"plans": [{"planId": "other"}]}, BEFORE | {"plans": [{"planId": "other"}]}),
        ({"a": {"b": {"c": 1, "d": None}}}, BEFORE | {"a": {"b": {"c": 1}}}),
    ],
)
def test_a_dict_is_merged_key_by_key(
    emulator: Emulator, context: Context, change: dict[str, Any], after: dict[str, Any]
) -> None:
    assert definition() == BEFORE
    result = update(change).execute(context)
    assert result == {"changed": True, "version": 2, "etag": etag()}
    assert definition() == after
    assert effects(emulator) == len(puts(emulator)) == 1


def test_a_dict_with_a_definition_is_merged_into_the_whole_offer(
    emulator: Emulator, context: Context
) -> None:
    with pytest.raises(ValidationError, match="'offerTypeId' must be"):
        update({"offerTypeId": "microsoft-azure-container", "definition": {}}).execute(context)
    assert effects(emulator) == 0


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"definition": {}},
        {"displayText": "Slow"},
        {"offer": {"unknown": None}},
        lambda offer: None,
        lambda offer: {**offer},
        "copy.deepcopy",
    ],
    ids=["{}", "whole", "same", "null", "in place", "returned", "dotted"],
)
def test_what_is_so_already_is_not_written(
    emulator: Emulator, context: Context, change: Any, log: Log
) -> None:
    result = update(change).execute(context)
    assert result == {"changed": False, "version": 2, "etag": etag()}
    assert puts(emulator) == []
    assert log.containing("contoso/slow: the offer is as wanted already")


# --- changing with a function ---


def rename(offer: dict[str, Any]) -> None:
    offer["definition"]["displayText"] = "Renamed"


def replaced(offer: dict[str, Any]) -> dict[str, Any]:
    return {**offer, "definition": {**offer["definition"], "displayText": "Renamed"}}


def with_context(offer: dict[str, Any], params: dict[str, Any], ti: Any) -> None:
    ti.xcom_push("seen", offer["version"])
    offer["definition"]["displayText"] = params["title"]


def with_all_of_the_context(offer: dict[str, Any], **context: Any) -> None:
    offer["definition"]["displayText"] = context["params"]["title"]


@pytest.mark.parametrize(
    "change", [rename, replaced, with_context, with_all_of_the_context], ids=lambda change: change.__name__
)
@pytest.mark.parametrize("is_path", [False, True], ids=["function", "dotted path"])
def test_a_function_changes_the_offer(
    emulator: Emulator, context: Context, change: Callable[..., Any], is_path: bool
) -> None:
    path = f"{__name__}.{change.__name__}"
    task = update(path if is_path else change)
    task.render_template_fields({"params": {}})
    assert task.execute(context | {"params": {"title": "Renamed"}})["changed"]
    assert definition()["displayText"] == "Renamed"
    assert effects(emulator) == 1


def test_a_function_gets_the_whole_offer_and_what_it_names(emulator: Emulator, context: Context) -> None:
    update(with_context).execute(context | {"params": {"title": "Renamed"}})
    assert context["ti"].xcoms["seen"] == 2


@pytest.mark.parametrize(
    "path",
    [
        "no.such.module",
        "json.no_such_function",
        "test_offers.",
        "nodots",
        "",
        ".relative.path",
        "json.decoder.NaN",
        "two words",
        '{"displayText": "New"}',
    ],
)
def test_a_path_that_names_no_function_is_refused_and_nothing_written(
    emulator: Emulator, context: Context, path: str
) -> None:
    with pytest.raises(ValueError, match="definition"):
        update(path).execute(context)
    assert puts(emulator) == []


@pytest.mark.parametrize("whole", [None, "text", []], ids=str)
def test_a_dict_that_leaves_no_definition_is_refused_and_nothing_written(
    emulator: Emulator, context: Context, whole: Any
) -> None:
    before = definition()
    with pytest.raises((ValueError, ValidationError), match=r"(?i)definition"):
        update({"definition": whole}).execute(context)
    assert definition() == before


@pytest.mark.parametrize("change", [5, None, ["displayText"]], ids=str)
def test_what_is_no_change_is_refused_and_nothing_written(
    emulator: Emulator, context: Context, change: Any
) -> None:
    with pytest.raises(ValueError, match="definition must be a dict, a function"):
        update(change).execute(context)
    assert puts(emulator) == []


@pytest.mark.parametrize(
    "change",
    [lambda offer: offer["definition"], lambda offer: "done", lambda offer: [offer], lambda offer: {}],
    ids=["definition alone", "text", "list", "nothing"],
)
def test_a_function_that_returns_no_offer_is_refused_and_nothing_written(
    emulator: Emulator, context: Context, change: Any
) -> None:
    with pytest.raises(ValueError, match=r"contoso/slow: nothing was written, .*returned no offer"):
        update(change).execute(context)
    assert puts(emulator) == []


def test_an_error_of_the_function_is_raised_and_nothing_written(emulator: Emulator, context: Context) -> None:
    def fail(offer: dict[str, Any]) -> None:
        offer["definition"].clear()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        update(fail).execute(context)
    assert puts(emulator) == []


def test_a_change_may_have_templates_in_it(emulator: Emulator, context: Context) -> None:
    change = {"offer": {"summary": "{{ params.text }}"}}
    task = update(change, "{{ params.offer }}", if_match="{{ params.match }}")
    task.render_template_fields({"params": {"text": "Short", "offer": "slow", "match": "*"}})
    task.execute(context)
    assert definition()["offer"]["summary"] == "Short"
    assert task.subject == "contoso/slow"
    assert {"definition", "if_match", "publisher_id", "cloud_partner_conn_id"} <= set(task.template_fields)


# --- nobody else's change is overwritten ---


def overtaken(offer: dict[str, Any]) -> None:
    """Somebody else changes the offer between read and write."""
    revise("slow", "Somebody else's")
    rename(offer)


def test_a_change_in_between_is_not_overwritten(emulator: Emulator, context: Context) -> None:
    with pytest.raises(PreconditionFailedError, match=r"contoso/slow .*read it again"):
        update(overtaken).execute(context)
    assert definition()["displayText"] == "Somebody else's"
    assert [put["status"] for put in puts(emulator)] == [200, 412]


def test_a_change_in_between_is_overwritten_if_asked_for(emulator: Emulator, context: Context) -> None:
    assert update(overtaken, if_match="*").execute(context)["etag"] == etag()
    assert definition()["displayText"] == "Renamed"


def test_an_etag_that_was_read_before_is_what_the_change_is_based_on(
    emulator: Emulator, context: Context
) -> None:
    get("slow").execute(context)
    known = context["ti"].xcoms["etag"]
    assert update(rename, if_match=known).execute(context)["etag"] == etag() != known
    with pytest.raises(PreconditionFailedError, match="contoso/slow"):
        update({"displayText": "Again"}, if_match=known).execute(context)
    assert definition()["displayText"] == "Renamed"
    assert effects(emulator) == 1


@pytest.mark.parametrize("if_match", ["a b", '"\r\nX: 1"', "ä"])
def test_an_etag_that_none_can_be_is_refused_and_nothing_written(
    emulator: Emulator, context: Context, if_match: str
) -> None:
    with pytest.raises(ValueError, match="if_match must be an ETag"):
        update(rename, if_match=if_match).execute(context)
    assert puts(emulator) == []


def test_without_an_etag_nothing_is_written(emulator: Emulator, context: Context) -> None:
    emulator.inject(path=OFFER, count=3, replace={"headers": {"ETag": None}})
    with pytest.raises(CloudPartnerError, match=r"contoso/slow: nothing was written, .*no ETag"):
        update(rename).execute(context)
    assert puts(emulator) == []
    assert update(rename, if_match="*").execute(context)["changed"]


# --- written once, whatever fails ---

UNUSABLE = {"200 with HTML": {"replace": {"body": HTML}}, "cut off": {"truncate": 20}}


@both_kinds
@pytest.mark.parametrize("if_match", ["etag", "*"])
@pytest.mark.parametrize(
    "fault", [*UNKNOWN_OUTCOMES.values(), *UNUSABLE.values()], ids=[*UNKNOWN_OUTCOMES, *UNUSABLE]
)
def test_after_an_unknown_outcome_the_offer_is_written_exactly_once(
    emulator: Emulator, context: Context, offer: str, if_match: str, fault: dict[str, Any]
) -> None:
    emulator.inject(method="PUT", **fault)
    result = update(rename, offer, if_match=if_match).execute(context)
    assert result == {"changed": True, "version": 2, "etag": etag(offer)}
    assert definition(offer)["displayText"] == "Renamed"
    assert effects(emulator) == 1


def test_a_stale_answer_after_an_unknown_outcome_makes_no_false_refusal(
    emulator: Emulator, context: Context
) -> None:
    before = CloudPartnerHook().get_offer("slow")
    emulator.inject(method="PUT", close="after")
    stale = {"body": json.dumps(before.raw), "headers": {"ETag": before.etag}}
    emulator.inject(method="GET", path=OFFER, skip=1, replace=stale)
    assert update(rename).execute(context)["etag"] == etag()
    assert [put["status"] for put in puts(emulator)] == [None, 412]
    assert effects(emulator) == 1


@pytest.mark.parametrize("if_match", ["etag", "*"])
def test_a_secret_that_the_service_does_not_show_is_written_once_as_well(
    emulator: Emulator, context: Context, if_match: str
) -> None:
    emulator.inject(method="PUT", close="after")
    assert update({"storageAccountKey": "new"}, if_match=if_match).execute(context)["changed"]
    assert effects(emulator) == 1


def test_somebody_elses_change_after_a_lost_request_is_not_overwritten(
    emulator: Emulator, context: Context, log: Log
) -> None:
    emulator.inject(method="PUT", close="before")
    log.react("looking whether the offer was written", lambda: revise("slow", "Somebody else's"))
    with pytest.raises(CloudPartnerError, match="contoso/slow"):
        update(rename).execute(context)
    assert definition()["displayText"] == "Somebody else's"


def test_an_outcome_that_stays_unknown_ends_in_the_error(emulator: Emulator, context: Context) -> None:
    emulator.inject(method="PUT", status=500, count=100)
    with pytest.raises(CloudPartnerError, match=r"contoso/slow .*500"):
        update(rename).execute(context)
    assert len(puts(emulator)) <= 3
    clear_faults(emulator)
    assert update(rename).execute(context)["changed"]


@pytest.mark.parametrize("status", [429, 503])
def test_a_request_that_is_put_off_is_repeated(emulator: Emulator, context: Context, status: int) -> None:
    emulator.inject(method="PUT", status=status, headers={"Retry-After": "0"}, count=2)
    update(rename).execute(context)
    assert [put["status"] for put in puts(emulator)] == [status, status, 200]


def test_outages_while_reading_are_waited_out(emulator: Emulator, context: Context) -> None:
    emulator.inject(method="GET", path=OFFER, status=503, count=2)
    assert update(rename).execute(context)["changed"]


def test_a_write_that_is_refused_is_not_repeated(emulator: Emulator, context: Context) -> None:
    emulator.inject(method="PUT", status=403)
    with pytest.raises(PermissionDeniedError, match="contoso/slow"):
        update(rename).execute(context)
    assert len(puts(emulator)) == 1
