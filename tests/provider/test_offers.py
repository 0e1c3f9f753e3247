"""`GetOfferOperator` and `UpdateOfferOperator`."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import DAG
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
from airflow_provider_cpp.release import lookup
from airflow_provider_cpp.sensors.cloud_partner import OfferStatusSensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness import Log

    from dev.emulator_process import Emulator

Context = Any

OFFER = "offers/slow$"


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


def hide_etags(emulator: Emulator) -> None:
    """Let GET send no ETag, as the service does for migrated offers."""
    emulator.inject(method="GET", path="offers/[a-z-]+$", count=None, replace={"headers": {"ETag": None}})


#: An offer whose GET sends an ETag, and one without.
@pytest.fixture(params=["etag", "no etag"])
def offer(request: pytest.FixtureRequest, emulator: Emulator) -> str:
    if request.param == "etag":
        return "slow-classic"
    hide_etags(emulator)
    return "slow"


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
def test_get_returns_the_json_of_a_slot_or_version(
    emulator: Emulator, context: Context, where: dict[str, Any], version: int
) -> None:
    offer = get(**where).execute(context)
    assert (offer["id"], offer["publisherId"], offer["version"]) == ("update", "contoso", version)
    assert offer["definition"]["displayText"] == "Update"
    assert json.loads(json.dumps(offer)) == offer


def test_an_etag_becomes_an_xcom(emulator: Emulator, context: Context) -> None:
    get("slow-classic").execute(context)
    etag = CloudPartnerHook().get_offer("slow-classic").etag
    assert etag
    assert context["ti"].xcoms == {"etag": etag}


def test_without_an_etag_there_is_no_xcom(emulator: Emulator, context: Context) -> None:
    hide_etags(emulator)
    get("slow").execute(context)
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
def test_a_missing_offer_slot_or_version_is_named(
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
def test_an_invalid_slot_or_version_is_refused_before_a_request(
    emulator: Emulator, context: Context, where: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"slot|version"):
        get(**where).execute(context)
    assert emulator.requests() == []


def test_get_returns_no_secret_values(emulator: Emulator, context: Context) -> None:
    everything = json.dumps([get("secretive").execute(context), context["ti"].xcoms])
    assert "Secretive" in everything
    for secret in ("a key of the seed", "a signature of the seed"):
        assert secret in json.dumps(SECRETS)
        assert secret not in everything


@pytest.mark.parametrize("where", [{}, {"slot": "preview"}, {"version": 3}], ids=str)
@pytest.mark.parametrize(
    "fault", [{"status": 503}, {"status": 200, "body": HTML}, {"close": "after"}], ids=str
)
def test_get_retries_after_a_transient_fault(
    emulator: Emulator, context: Context, where: dict[str, Any], fault: dict[str, Any]
) -> None:
    emulator.inject(path="offers/update", count=2, **fault)
    assert get(**where).execute(context)["id"] == "update"
    assert emulator.faults() == []


def test_get_does_not_retry_after_a_refusal(emulator: Emulator, context: Context) -> None:
    emulator.inject(path="offers/update", status=403)
    with pytest.raises(PermissionDeniedError):
        get().execute(context)
    assert len(emulator.requests(path="^/api/")) == 1


def test_get_renders_its_template_fields(emulator: Emulator, context: Context) -> None:
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
    assert (result["changed"], result["version"]) == (True, 2)
    assert result["etag"], "PUT sends an ETag for each offer"
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
def test_a_change_without_an_effect_is_not_written(
    emulator: Emulator, context: Context, change: Any, log: Log
) -> None:
    etag = CloudPartnerHook().get_offer("slow").etag
    assert update(change).execute(context) == {"changed": False, "version": 2, "etag": etag}
    assert puts(emulator) == []
    assert log.containing("contoso/slow: the offer already has this content; nothing was written.")


@pytest.mark.parametrize(("before", "after"), [(1, True), (True, 1), (0, False), ([1], [True])], ids=str)
def test_a_change_of_the_json_type_is_written(
    emulator: Emulator, context: Context, before: Any, after: Any
) -> None:
    update({"flag": before}).execute(context)
    assert update({"flag": after}).execute(context)["changed"]
    assert repr(definition()["flag"]) == repr(after)
    assert not update({"flag": after}).execute(context)["changed"]


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


def test_a_function_receives_the_offer_and_the_named_context(emulator: Emulator, context: Context) -> None:
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
def test_an_invalid_dotted_path_is_refused(emulator: Emulator, context: Context, path: str) -> None:
    with pytest.raises(ValueError, match="definition"):
        update(path).execute(context)
    assert puts(emulator) == []


@pytest.mark.parametrize("whole", [None, "text", []], ids=str)
def test_a_dict_that_leaves_no_definition_is_refused(
    emulator: Emulator, context: Context, whole: Any
) -> None:
    before = definition()
    with pytest.raises((ValueError, ValidationError), match=r"(?i)definition"):
        update({"definition": whole}).execute(context)
    assert definition() == before


@pytest.mark.parametrize("change", [5, None, ["displayText"]], ids=str)
def test_a_definition_of_another_type_is_refused(emulator: Emulator, context: Context, change: Any) -> None:
    with pytest.raises(ValueError, match="definition must be a dict, a function"):
        update(change).execute(context)
    assert puts(emulator) == []


@pytest.mark.parametrize(
    "change",
    [lambda offer: offer["definition"], lambda offer: "done", lambda offer: [offer], lambda offer: {}],
    ids=["definition alone", "text", "list", "nothing"],
)
def test_a_function_that_returns_no_offer_is_refused(
    emulator: Emulator, context: Context, change: Any
) -> None:
    with pytest.raises(ValueError, match=r"contoso/slow: nothing was written, .*returned no offer"):
        update(change).execute(context)
    assert puts(emulator) == []


def test_an_error_of_the_function_is_raised(emulator: Emulator, context: Context) -> None:
    def fail(offer: dict[str, Any]) -> None:
        offer["definition"].clear()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        update(fail).execute(context)
    assert puts(emulator) == []


def test_update_renders_its_template_fields(emulator: Emulator, context: Context) -> None:
    change = {"offer": {"summary": "{{ params.text }}"}}
    task = update(change, "{{ params.offer }}", if_match="{{ params.match }}")
    task.render_template_fields({"params": {"text": "Short", "offer": "slow", "match": "*"}})
    task.execute(context)
    assert definition()["offer"]["summary"] == "Short"
    assert task.subject == "contoso/slow"
    assert {"definition", "if_match", "publisher_id", "cloud_partner_conn_id"} <= set(task.template_fields)


# --- values under native rendering ---


def rendered(task: Any, native: bool, **params: Any) -> Any:
    """Return the task with rendered templates, in a Dag with or without native rendering."""
    with DAG("release", schedule=None, render_template_as_native_obj=native) as dag:
        dag.add_task(task)
    task.render_template_fields({"params": params})
    return task


both_renderings = pytest.mark.parametrize("native", [False, True], ids=["text", "native"])
LITERALS = [
    "1.10",
    "1e3",
    "007",
    "0x10",
    "1_000",
    "1, 2",
    "(1)",
    "None",
    "True",
    "...",
    "[1]",
    "{}",
    "'a'",
    "a\n",
    "a\r\nb",
]


@both_renderings
@pytest.mark.parametrize("text", LITERALS, ids=repr)
def test_text_without_a_template_is_written_unchanged(
    emulator: Emulator, context: Context, native: bool, text: str
) -> None:
    task = rendered(update({"plans": [{"planId": text}], "displayText": text}), native)
    task.execute(context)
    written = definition()
    assert (written["plans"], written["displayText"]) == ([{"planId": text}], text)


@pytest.mark.parametrize("text", ["1.10", "1e3", "007", "0x10", "1_000", "1, 2", "(1)", "...", "b'x'"])
@pytest.mark.parametrize("template", ["{{ params.value }}", "{% if true %}{{ params.value }}{% endif %}"])
def test_text_from_a_template_stays_text(emulator: Emulator, template: str, text: str) -> None:
    task = rendered(update({"plans": [{"planId": template}]}, template, if_match=template), True, value=text)
    assert task.definition == {"plans": [{"planId": text}]}
    assert (task.offer_id, task.if_match) == (text, text)


@pytest.mark.parametrize("value", [3, 1.5, True, None, ["1.10"], {"planId": "1.10"}], ids=repr)
def test_an_object_from_a_template_keeps_its_type(emulator: Emulator, value: Any) -> None:
    change = {"a": "{{ params.value }}", "b": ["{{ params.value }}"]}
    found = rendered(update(change), True, value=value).definition
    assert found == {"a": value, "b": [value]}
    assert type(found["a"]) is type(value)
    assert rendered(update("{{ params.value }}"), True, value=value).definition == value


def test_a_mapped_task_keeps_text_under_native_rendering() -> None:
    change = {"plans": [{"planId": "1.10", "sku": "{{ params.value }}"}]}
    with DAG("release", schedule=None, render_template_as_native_obj=True):
        same = UpdateOfferOperator.partial(task_id="update", if_match="{{ params.value }}")
        mapped = same.expand(definition=[change], offer_id=["007"])
    # Airflow renders the fields of a mapped instance in these steps.
    task = mapped.unmap({"definition": change, "offer_id": "007"})
    context: Any = {"params": {"value": "1.20"}}
    task._do_render_template_fields(
        parent=task,
        template_fields=mapped.template_fields,
        context=context,
        jinja_env=mapped.get_template_env(),
        seen_oids=set(),
    )
    assert task.definition == {"plans": [{"planId": "1.10", "sku": "1.20"}]}
    assert (task.offer_id, task.if_match) == ("007", "1.20")


@pytest.mark.parametrize("field", ["offer_id", "publisher_id", "cloud_partner_conn_id"])
@pytest.mark.parametrize("text", ["123", "1e3", "1.10"])
def test_ids_of_each_task_stay_text_under_native_rendering(field: str, text: str) -> None:
    sensor = OfferStatusSensor(task_id="wait", **({"offer_id": "web"} | {field: text}))
    assert getattr(rendered(sensor, True), field) == text
    assert (
        getattr(rendered(get(**({"offer": text} if field == "offer_id" else {field: text})), True), field)
        == text
    )


def test_the_delimiters_of_the_dag_are_used() -> None:
    options = {"variable_start_string": "<<", "variable_end_string": ">>"}
    with DAG("release", schedule=None, render_template_as_native_obj=True, jinja_environment_kwargs=options):
        task = update({"a": "<< params.value >>", "b": "{{ 1.10 }}"})
    task.render_template_fields({"params": {"value": "1.10"}})
    assert task.definition == {"a": "1.10", "b": "{{ 1.10 }}"}


# --- redacted offers ---

SIGNED = "https://contoso.blob.core.windows.net/images/web.vhd?sv=1&sig=wD7cQx0fP3vKz9LmN2bRtY5uHsJ8aGe4iOqW%3D&se=2"
REDACTED = SIGNED.replace("wD7cQx0fP3vKz9LmN2bRtY5uHsJ8aGe4iOqW%3D", "***redacted***")


def sign(offer: str = "slow") -> None:
    """Let the offer contain a SAS URL."""
    hook = CloudPartnerHook()
    hook.put_offer(offer, {**hook.get_offer(offer).definition, "plans": [{"url": SIGNED}]}, if_match="*")


def test_get_redacts_signatures_and_the_hook_does_not(emulator: Emulator, context: Context) -> None:
    sign()
    assert get("slow").execute(context)["definition"]["plans"] == [{"url": REDACTED}]
    offer = CloudPartnerHook().get_offer("slow")
    assert offer.raw["definition"]["plans"] == offer.definition["plans"] == [{"url": SIGNED}]
    assert "sig=" not in repr(offer)


@pytest.mark.parametrize("if_match", ["etag", "*"])
@pytest.mark.parametrize("kind", ["dict", "whole", "function"])
def test_update_refuses_a_redacted_offer(
    emulator: Emulator, context: Context, kind: str, if_match: str
) -> None:
    sign()
    read = get("slow").execute(context)
    before = emulator.requests()
    change: Any = {"dict": {"plans": [{"url": REDACTED}]}, "whole": read, "function": lambda offer: read}[
        kind
    ]
    with pytest.raises(
        ValueError, match=r"contoso/slow: nothing was written.* at .*url\. .*get_offer\("
    ) as error:
        update(change, if_match=if_match).execute(context)
    assert len(puts(emulator)) == 1, "only the request of sign()"
    assert kind == "function" or emulator.requests() == before
    assert "sig=" not in str(error.value)


@pytest.mark.parametrize("variant", ["put_offer", "aput_offer"])
@pytest.mark.parametrize("marker", [REDACTED, "***redacted***", "***redacted:0a1b2c3d***", "***"])
def test_the_hook_refuses_a_redacted_offer(emulator: Emulator, variant: str, marker: str) -> None:
    call = getattr(CloudPartnerHook(), variant)
    with pytest.raises(ValueError, match=r"contoso/slow: nothing was written.* at definition\.plans\[0\]"):
        asyncio.run(call("slow", {"plans": [marker]}, if_match="*"))
    assert emulator.requests() == []


def test_a_function_receives_the_signatures(emulator: Emulator, context: Context) -> None:
    sign()
    update(lambda offer: offer["definition"]["plans"].append({"url": "x"})).execute(context)
    assert definition()["plans"] == [{"url": SIGNED}, {"url": "x"}]


def deep(url: str) -> dict[str, Any]:
    return {"definition": {"plans": [{"vm": {"1.0.0": {"osVhdUrl": url}}}]}}


@pytest.mark.parametrize("mapped", [False, True], ids=["task", "mapped"])
def test_rendered_template_shows_no_signature_at_any_depth(
    emulator: Emulator, context: Context, mapped: bool
) -> None:
    change, url, key = deep("{{ params.url }}"), SIGNED, "abcdefghijkl"
    change["definition"]["accountKey"] = "{{ params.key }}"
    if mapped:
        with DAG("release", schedule=None):
            group = UpdateOfferOperator.partial(task_id="update", offer_id="slow").expand(definition=[change])
        task: Any = group.unmap({"definition": change})
        task._do_render_template_fields(
            parent=task,
            template_fields=group.template_fields,
            context={"params": {"url": url, "key": key}},
            jinja_env=group.get_template_env(),
            seen_oids=set(),
        )
    else:
        task = rendered(update(change), False, url=url, key=key)
    assert task.definition["definition"]["plans"] == deep(REDACTED)["definition"]["plans"]
    shown = json.dumps(task.definition)
    assert "wD7cQx0fP3" not in shown
    assert key not in shown
    task.execute(context)
    assert definition()["plans"] == deep(SIGNED)["definition"]["plans"]


def test_rendered_definition_with_a_marker_is_refused(emulator: Emulator, context: Context) -> None:
    task = rendered(update(deep("{{ params.url }}")), False, url=REDACTED)
    with pytest.raises(ValueError, match=r"contoso/slow: nothing was written.* at .*osVhdUrl\."):
        task.execute(context)
    assert puts(emulator) == []


@pytest.mark.parametrize("variant", ["put_offer", "aput_offer"])
@pytest.mark.parametrize("key", ["version", "changedTime"])
def test_an_offer_that_was_read_is_not_created(emulator: Emulator, variant: str, key: str) -> None:
    raw = CloudPartnerHook().get_offer("slow").raw
    for offer in (raw, {"definition": {}, key: raw[key]}):
        with pytest.raises(ValueError, match=rf"contoso/slow: nothing was written.*{key}.*if_match='\*'"):
            asyncio.run(getattr(CloudPartnerHook(), variant)("slow", offer, if_match=None))
    assert puts(emulator) == []


# --- no change of another user is overwritten ---


@pytest.mark.parametrize("other", [True, False], ids=["changed", "reverted"])
def test_a_concurrent_change_is_not_overwritten(
    emulator: Emulator, context: Context, offer: str, other: bool
) -> None:
    def overtaken(read: dict[str, Any]) -> None:
        revise(offer, "By another user" if other else read["definition"]["displayText"])
        rename(read)

    before = definition(offer)
    with pytest.raises(PreconditionFailedError, match=rf"contoso/{offer}.* read(s the offer| it) again"):
        update(overtaken, offer).execute(context)
    assert definition(offer) == (before | {"displayText": "By another user"} if other else before)
    assert effects(emulator) == 1, "only the change of the other user"
    assert update(rename, offer).execute(context)["changed"], "a retry succeeds"


@pytest.mark.parametrize("part", [{"version": 9}, {"changedTime": "2030-01-01T00:00:00Z"}], ids=str)
def test_without_an_etag_version_and_time_are_compared(
    emulator: Emulator, context: Context, part: dict[str, Any]
) -> None:
    no_etag = {"ETag": None}
    emulator.inject(method="GET", path=OFFER, replace={"headers": no_etag})
    emulator.inject(method="GET", path=OFFER, replace={"json": part, "headers": no_etag})
    with pytest.raises(
        PreconditionFailedError, match=r"version 2, changed .*; now version (9|2, changed 2030)"
    ):
        update(rename).execute(context)
    assert puts(emulator) == []


def test_a_concurrent_change_is_overwritten_on_request(
    emulator: Emulator, context: Context, offer: str
) -> None:
    def overtaken(read: dict[str, Any]) -> None:
        revise(offer, "By another user")
        rename(read)

    assert update(overtaken, offer, if_match="*").execute(context)["etag"]
    assert definition(offer)["displayText"] == "Renamed"


def test_without_an_etag_an_unchanged_offer_is_overwritten(emulator: Emulator, context: Context) -> None:
    hide_etags(emulator)
    result = update(rename).execute(context)
    assert (result["changed"], result["version"]) == (True, 2)
    assert result["etag"]
    assert definition()["displayText"] == "Renamed"
    methods = [request["method"] for request in emulator.requests(path=OFFER)]
    assert methods == ["GET", "GET", "PUT", "GET"], "read, compare, write, and the read of this test"


def test_an_etag_from_an_earlier_task_is_the_precondition(emulator: Emulator, context: Context) -> None:
    get("slow-classic").execute(context)
    known = context["ti"].xcoms["etag"]
    written = update(rename, "slow-classic", if_match=known).execute(context)["etag"]
    assert written not in (None, known)
    with pytest.raises(PreconditionFailedError, match="contoso/slow-classic"):
        update({"displayText": "Again"}, "slow-classic", if_match=known).execute(context)
    assert definition("slow-classic")["displayText"] == "Renamed"
    assert effects(emulator) == 1


@pytest.mark.parametrize("if_match", ["None", "a b", '"\r\nX: 1"', "ä"])
def test_an_invalid_etag_is_refused(emulator: Emulator, context: Context, if_match: str) -> None:
    with pytest.raises(ValueError, match="if_match must be an ETag"):
        update(rename, if_match=if_match).execute(context)
    assert puts(emulator) == []


# --- written once, regardless of failures ---

UNUSABLE = {"200 with HTML": {"replace": {"body": HTML}}, "cut off": {"truncate": 20}}


@pytest.mark.parametrize("if_match", ["etag", "*"])
@pytest.mark.parametrize(
    "fault", [*UNKNOWN_OUTCOMES.values(), *UNUSABLE.values()], ids=[*UNKNOWN_OUTCOMES, *UNUSABLE]
)
def test_after_an_unknown_outcome_the_offer_is_written_once(
    emulator: Emulator, context: Context, offer: str, if_match: str, fault: dict[str, Any]
) -> None:
    emulator.inject(method="PUT", **fault)
    result = update(rename, offer, if_match=if_match).execute(context)
    assert (result["changed"], result["version"]) == (True, 2)
    assert definition(offer)["displayText"] == "Renamed"
    assert effects(emulator) == 1


def test_a_stale_read_after_an_unknown_outcome_is_repeated(
    emulator: Emulator, context: Context, offer: str
) -> None:
    before = CloudPartnerHook().get_offer(offer)
    clear_faults(emulator)
    headers = {"ETag": before.etag}
    emulator.inject(method="PUT", close="after")
    emulator.inject(
        method="GET", path=f"{offer}$", count=3, replace={"body": json.dumps(before.raw), "headers": headers}
    )
    if before.etag is None:
        hide_etags(emulator)
    assert update(rename, offer).execute(context)["changed"]
    assert effects(emulator) == 1
    assert definition(offer)["displayText"] == "Renamed"


@pytest.mark.parametrize("if_match", ["etag", "*"])
def test_a_hidden_secret_is_written_once(
    emulator: Emulator, context: Context, offer: str, if_match: str
) -> None:
    emulator.inject(method="PUT", close="after")
    assert update({"storageAccountKey": "new"}, offer, if_match=if_match).execute(context)["changed"]
    assert effects(emulator) == 1


def test_a_change_after_a_lost_request_is_not_overwritten(
    emulator: Emulator, context: Context, offer: str, log: Log
) -> None:
    emulator.inject(method="PUT", close="before")
    log.react("checking whether the offer was written", lambda: revise(offer, "By another user"))
    with pytest.raises(CloudPartnerError, match=f"contoso/{offer}"):
        update(rename, offer).execute(context)
    assert definition(offer)["displayText"] == "By another user"


def test_an_unknown_outcome_is_retried_with_growing_pauses(
    emulator: Emulator, context: Context, offer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(lookup.time, "sleep", pauses.append)
    monkeypatch.setattr(lookup, "SHORT_DELAYS", (0.0, 1.0, 2.0, 4.0, 8.0))
    emulator.inject(method="PUT", status=500, count=4)
    assert update(rename, offer).execute(context)["changed"]
    assert pauses == [0.0, 1.0, 2.0, 4.0, 8.0]
    assert [put["status"] for put in puts(emulator)] == [500] * 4 + [200]


def test_a_lasting_unknown_outcome_is_raised(emulator: Emulator, context: Context, offer: str) -> None:
    emulator.inject(method="PUT", status=500, count=100)
    with pytest.raises(CloudPartnerError, match=rf"contoso/{offer} .*500"):
        update(rename, offer).execute(context)
    assert len(puts(emulator)) == 5
    clear_faults(emulator)
    assert update(rename, offer).execute(context)["changed"]


@pytest.mark.parametrize("status", [429, 503])
def test_a_throttled_request_is_repeated(
    emulator: Emulator, context: Context, offer: str, status: int
) -> None:
    emulator.inject(method="PUT", status=status, headers={"Retry-After": "0"}, count=2)
    update(rename, offer).execute(context)
    assert [put["status"] for put in puts(emulator)] == [status, status, 200]


def test_without_an_etag_each_repetition_compares_again(emulator: Emulator, context: Context) -> None:
    hide_etags(emulator)
    emulator.inject(method="PUT", status=429, headers={"Retry-After": "0"})
    emulator.inject(method="PUT", status=429, headers={"Retry-After": "0"})
    update(rename).execute(context)
    methods = [request["method"] for request in emulator.requests(path=OFFER)]
    assert methods == ["GET", *["GET", "PUT"] * 3]


def test_update_retries_a_read_after_an_outage(emulator: Emulator, context: Context) -> None:
    emulator.inject(method="GET", path=OFFER, status=503, count=2)
    assert update(rename).execute(context)["changed"]


def test_a_refused_write_is_not_repeated(emulator: Emulator, context: Context, offer: str) -> None:
    emulator.inject(method="PUT", status=403)
    with pytest.raises(PermissionDeniedError, match=f"contoso/{offer}"):
        update(rename, offer).execute(context)
    assert len(puts(emulator)) == 1
