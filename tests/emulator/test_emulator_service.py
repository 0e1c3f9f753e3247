"""The rules of the service, with a clock that the test moves."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import httpx
import pytest

from airflow_provider_cpp.emulator import seed as seeds
from airflow_provider_cpp.emulator.app import create_app
from airflow_provider_cpp.emulator.documents import (
    location,
    offer_document,
    operation_document,
    overview_document,
    status_document,
    submission_document,
)
from airflow_provider_cpp.emulator.faults import Faults
from airflow_provider_cpp.emulator.identity import Identity, Tokens
from airflow_provider_cpp.emulator.journal import Journal
from airflow_provider_cpp.emulator.offers import Offer, ServiceError, timestamp
from airflow_provider_cpp.emulator.service import Service

MINUTE, HOUR, DAY = 60, 3600, 86400
UNTIL_PREVIEW = 10 * MINUTE + 2.5 * DAY + 18 * HOUR + 45 * MINUTE
EMAILS = {"metadata": {"notification-emails": "a@contoso.com,b@contoso.com"}}


both_variants = pytest.mark.parametrize("migrated", [True, False], ids=["migrated", "classic"])


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.seconds_per_reading = 0.0

    def __call__(self) -> float:
        self.now += self.seconds_per_reading
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def loaded(*, time_scale: float = 1, **offer: Any) -> tuple[Service, Offer, Clock]:
    clock = Clock()
    service = Service(clock, time_scale)
    document = {
        "publishers": [{"id": "contoso", "offers": [{"id": "one", "state": "preview", **offer}]}],
        "principals": [],
    }
    service.load_seed(seeds.parse(document))
    return service, service.offer("contoso", "one"), clock


def refused(status: int, call: Any, *args: Any) -> str:
    with pytest.raises(ServiceError) as caught:
        call(*args)
    assert caught.value.status == status, caught.value.message
    return caught.value.message


def step_states(service: Service, operation: Any) -> list[tuple[str, str, int]]:
    return [(step.id, step.status, step.percent) for step in service.progress(operation).steps]


@both_variants
def test_a_publish_moves_through_its_steps_to_the_signoff(migrated: bool) -> None:
    service, offer, clock = loaded(state="never-published", migrated=migrated)
    assert (service.status(offer), offer.version) == ("neverPublished", 1)
    publish = service.publish(offer, EMAILS)
    assert (publish.version, publish.offer_version, offer.version) == (2, 1, 2)
    assert step_states(service, publish)[0] == ("displaydummycertify", "inProgress", 0)
    clock.advance(5 * MINUTE)
    assert step_states(service, publish)[0] == ("displaydummycertify", "inProgress", 50)
    clock.advance(5 * MINUTE + 1.25 * DAY)
    assert step_states(service, publish) == [
        ("displaydummycertify", "complete", 100),
        ("displaycertify", "inProgress", 50),
        ("displayprovision", "notStarted", 0),
        ("displaypackage", "notStarted", 0),
        ("publisher-signoff", "notStarted", 0),
        ("live", "notStarted", 0),
    ]
    assert service.status(offer) == "running"
    assert service.slots(offer) == {"preview": None, "production": None}
    clock.advance(1.25 * DAY + 18 * HOUR + 45 * MINUTE)
    assert [status for _, status, _ in step_states(service, publish)] == [
        *["complete"] * 4,
        "waitingForPublisherReview",
        "notStarted",
    ]
    assert service.progress(publish).status == ("succeeded" if migrated else "running")
    assert service.status(offer) == "waitingForPublisherReview"
    assert service.slots(offer) == {"preview": 2, "production": None}


@both_variants
def test_go_live_completes_the_signoff_and_takes_days_of_its_own(migrated: bool) -> None:
    success = "succeeded" if migrated else "completed"
    service, offer, clock = loaded(migrated=migrated)
    before = service.progress(offer.operations[0])
    clock.advance(MINUTE)
    go_live = service.go_live(offer)
    publish = offer.operations[0]
    assert service.progress(publish).status == success
    # The publish of a migrated offer ended before.
    assert service.progress(publish).changed == (before.changed if migrated else clock.now)
    assert step_states(service, publish)[4:] == [
        ("publisher-signoff", "complete", 100),
        ("live", "notStarted", 0),
    ]
    live = operation_document(service, offer, publish)["steps"][-1]
    assert (live["id"], live["status"]) == ("live", "inProgress")
    assert step_states(service, go_live) == [("live", "inProgress", 0)]
    assert service.status(offer) == "running"
    clock.advance(3 * DAY - 1)
    assert service.slots(offer) == {"preview": 2, "production": None}
    assert service.progress(go_live).status == "running"
    clock.advance(1)
    assert service.progress(go_live).status == success
    assert service.slots(offer) == {"preview": 2, "production": 2}
    assert service.status(offer) == "succeeded"


def test_the_time_scale_divides_durations_and_stays_with_operations() -> None:
    service, offer, clock = loaded(time_scale=DAY)
    go_live = service.go_live(offer)
    clock.advance(1.5)
    assert step_states(service, go_live) == [("live", "inProgress", 50)]
    slower = Service(clock, 1)
    slower.load(service.dump())
    assert step_states(slower, slower.offer("contoso", "one").operations[-1]) == [("live", "inProgress", 50)]


def test_go_live_is_refused_while_the_publish_is_on_its_way() -> None:
    service, offer, clock = loaded(state="publishing")
    clock.advance(UNTIL_PREVIEW - 1)
    message = refused(409, service.go_live, offer)
    assert "publish" in message
    assert offer.operations[0].id in message
    assert "displaypackage" in message
    clock.advance(1)
    service.go_live(offer)


@pytest.mark.parametrize("state", ["never-published", "live"])
def test_go_live_needs_something_in_preview_beyond_production(state: str) -> None:
    service, offer, _ = loaded(state=state)
    refused(400, service.go_live, offer)


def test_nothing_else_starts_while_a_go_live_runs() -> None:
    service, offer, _ = loaded()
    go_live = service.go_live(offer)
    assert go_live.id in refused(409, service.go_live, offer)
    assert "go-live" in refused(409, service.publish, offer, EMAILS)


def test_a_preview_blocks_another_publish_only_if_not_migrated() -> None:
    service, offer, _ = loaded(liveVersion=1, migrated=False)
    assert "publisher-signoff" in refused(409, service.publish, offer, EMAILS)
    service, offer, clock = loaded(liveVersion=1)
    assert service.publish(offer, EMAILS).version == 3
    assert service.slots(offer) == {"preview": 2, "production": 1}
    refused(409, service.go_live, offer)
    clock.advance(UNTIL_PREVIEW)
    assert service.go_live(offer).version == 3


@both_variants
def test_cancel_in_preview_withdraws_the_preview_at_once(migrated: bool) -> None:
    service, offer, _ = loaded(liveVersion=1, migrated=migrated)
    assert service.slots(offer) == {"preview": 2, "production": 1}
    assert operation_document(service, offer, offer.operations[-1])["cancellationRequestState"] == "canCancel"
    cancellation = service.cancel(offer, None)
    assert (cancellation.accepted, cancellation.at_once) == (True, True)
    document = operation_document(service, offer, offer.operations[-1])
    assert document["status"] == ("succeeded" if migrated else "canceled")
    assert document["cancellationRequestState"] == "canceled"
    assert document["previewLinks"] == []
    assert service.status(offer) == "canceled"
    assert service.slots(offer) == {"preview": 1, "production": 1}
    assert not service.cancel(offer, None).accepted
    refused(400, service.go_live, offer)
    assert service.publish(offer, EMAILS).version == 3


def test_a_go_live_after_a_failed_publish_takes_the_older_preview() -> None:
    service, offer, clock = loaded(fail={"step": "displaycertify", "messages": [], "times": 1})
    service.publish(offer, EMAILS)
    clock.advance(UNTIL_PREVIEW)
    assert service.status(offer) == "failed"
    assert service.go_live(offer).version == 2
    assert step_states(service, offer.operations[0])[4] == ("publisher-signoff", "complete", 100)


def test_cancel_takes_minutes_while_a_step_runs() -> None:
    service, offer, clock = loaded(state="publishing")
    clock.advance(5 * MINUTE)
    first = service.cancel(offer, EMAILS)
    assert (first.accepted, first.at_once) == (True, False)
    clock.advance(2 * MINUTE - 1)
    publish = offer.operations[0]
    assert operation_document(service, offer, publish)["cancellationRequestState"] == "canceling"
    assert service.progress(publish).status == "running"
    assert step_states(service, publish)[0] == ("displaydummycertify", "inProgress", 50)
    again = service.cancel(offer, None)
    assert (again.operation, again.accepted) == (publish, False)
    assert "being canceled" in refused(409, service.publish, offer, EMAILS)
    clock.advance(1)
    assert service.progress(publish).status == "canceled"
    assert step_states(service, publish)[0] == ("displaydummycertify", "canceled", 50)
    assert service.status(offer) == "canceled"
    assert operation_document(service, offer, publish)["cancellationRequestState"] == "canceled"


def test_a_canceled_operation_stays_canceled_after_its_planned_end() -> None:
    service, offer, clock = loaded(state="going-live")
    clock.advance(3 * DAY - 1)
    service.cancel(offer, None)
    clock.advance(3 * DAY)
    assert service.status(offer) == "canceled"
    assert service.slots(offer) == {"preview": 2, "production": None}
    service.go_live(offer)


def test_cancel_without_anything_running_changes_nothing() -> None:
    service, offer, _ = loaded(state="live")
    before = service.dump()
    cancellation = service.cancel(offer, EMAILS)
    assert (cancellation.operation, cancellation.accepted) == (offer.operations[-1], False)
    assert service.dump() == before
    service, offer, _ = loaded(state="never-published")
    assert service.cancel(offer, None).operation is None


def test_a_step_fails_as_often_as_the_seed_says() -> None:
    messages = ["<p>The image has <b>no</b> agent.</p>"]
    failing = {"step": "displaycertify", "messages": messages, "times": 1}
    service, offer, clock = loaded(state="publishing", fail=failing)
    clock.advance(10 * DAY)
    publish = offer.operations[0]
    assert [status for _, status, _ in step_states(service, publish)] == [
        "complete",
        "failed",
        *["notStarted"] * 4,
    ]
    assert service.status(offer) == "failed"
    document = operation_document(service, offer, publish)
    assert document["status"] == "failed"
    assert [(one["messageHtml"], one["level"]) for one in document["messages"]] == [(messages[0], "error")]
    assert document["steps"][1]["messages"] == document["messages"]
    service.publish(offer, EMAILS)
    clock.advance(10 * DAY)
    assert service.status(offer) == "waitingForPublisherReview"


def test_a_failed_go_live_leaves_the_version_in_preview() -> None:
    service, offer, clock = loaded(fail={"step": "live", "messages": ["No."], "times": 1})
    service.go_live(offer)
    clock.advance(4 * DAY)
    assert service.status(offer) == "failed"
    assert service.slots(offer) == {"preview": 2, "production": None}
    second = service.go_live(offer)
    clock.advance(4 * DAY)
    assert service.slots(offer)["production"] == second.version == 2


def test_step_durations_come_from_the_seed() -> None:
    service, offer, clock = loaded(stepSeconds={"live": 7})
    service.go_live(offer)
    clock.advance(7)
    assert service.status(offer) == "succeeded"


@pytest.mark.parametrize("missing", ["displayText", "offer", "plans"])
def test_an_incomplete_definition_fails_validation(missing: str) -> None:
    definition = seeds.default_definition("one")
    del definition[missing]
    service, offer, _ = loaded(state="never-published", definition=definition)
    assert missing in refused(422, service.publish, offer, EMAILS)
    assert offer.version == 1


def test_the_seed_can_make_an_offer_invalid() -> None:
    service, offer, _ = loaded(state="never-published", invalid="No logo.")
    assert "No logo." in refused(422, service.publish, offer, EMAILS)


@pytest.mark.parametrize("body", [None, [], {}, {"metadata": {"notification-emails": 5}}, {"metadata": []}])
def test_publish_needs_its_body(body: Any) -> None:
    service, offer, _ = loaded(state="never-published")
    refused(400, service.publish, offer, body)


def test_an_address_without_an_at_sign_is_refused() -> None:
    service, offer, _ = loaded(state="never-published")
    refused(400, service.publish, offer, {"metadata": {"notification-emails": "a@x,nobody"}})


def test_the_draft_can_be_edited_while_its_older_self_is_published() -> None:
    service, offer, _ = loaded(state="publishing")
    definition = {**offer.definition, "displayText": "New"}
    service.put_offer("contoso", "one", {"definition": definition}, offer.etag)
    assert service.at_version(offer, "2").definition["displayText"] == "One"
    assert service.draft(offer).definition["displayText"] == "New"


def test_entity_tags_guard_the_draft() -> None:
    service, offer, _ = loaded(state="never-published")
    body = {"definition": offer.definition}
    etag = offer.etag
    refused(409, service.put_offer, "contoso", "one", body, None)
    refused(412, service.put_offer, "contoso", "one", body, '"other"')
    refused(412, service.put_offer, "contoso", "another", body, "*")
    service.publish(offer, EMAILS)
    refused(412, service.put_offer, "contoso", "one", body, etag)
    assert service.put_offer("contoso", "one", body, "*") == (offer, False)
    assert len({etag, offer.etag, service.put_offer("contoso", "one", body, offer.etag)[0].etag}) == 3


@pytest.mark.parametrize(
    "body",
    [None, {}, {"definition": []}, {"definition": {}, "id": "x"}, {"definition": {}, "offerTypeId": "x"}],
)
def test_put_refuses_the_body_of_another_offer(body: Any) -> None:
    service, _, _ = loaded()
    refused(400, service.put_offer, "contoso", "one", body, "*")


def test_a_new_offer_needs_its_type() -> None:
    service, _, _ = loaded()
    refused(400, service.put_offer, "contoso", "new", {"definition": {}}, None)
    body = {"definition": {}, "offerTypeId": "microsoft-azure-applications"}
    offer, created = service.put_offer("contoso", "new", body, None)
    assert created
    assert (offer.version, service.status(offer)) == (1, "neverPublished")


def test_other_offer_types_are_not_provisioned() -> None:
    service, offer, _ = loaded(state="publishing", offerTypeId="microsoft-azure-applications")
    assert "displayprovision" not in [step.id for step in service.progress(offer.operations[0]).steps]


def test_a_classic_operation_is_found_by_version_and_slot_and_by_id() -> None:
    service, offer, clock = loaded(migrated=False, fail={"step": "live", "messages": [], "times": 1})
    publish = offer.operations[0]
    assert location(offer, publish) == "/api/operations/contoso$one$2$preview?api-version=2017-10-31"
    first = service.go_live(offer)
    clock.advance(4 * DAY)
    second = service.go_live(offer)
    assert location(offer, first) == location(offer, second)
    assert service.operation_of_version(offer, "2", "production") is second
    assert service.operation_of_version(offer, "2", "preview") is publish
    refused(404, service.operation_of_version, offer, "2", "draft")
    refused(404, service.operation_of_version, offer, "3", "preview")
    assert service.operation_of_version(offer, "2", "Preview") is publish
    assert service.operation(offer, publish.id) is publish
    assert service.operation(offer, first.id) is first


def test_slots_and_versions_hold_the_published_definitions() -> None:
    service, offer, _ = loaded(liveVersion=1)
    assert service.in_slot(offer, "preview").version == 2
    assert service.in_slot(offer, "production").version == 1
    assert service.at_version(offer, "1").version == 1
    assert service.in_slot(offer, "draft").version == 2
    refused(404, service.at_version, offer, "7")
    refused(404, service.in_slot, offer, "elsewhere")
    service, fresh, _ = loaded(state="never-published")
    assert service.at_version(fresh, "1").definition == fresh.definition
    refused(404, service.in_slot, fresh, "preview")


def test_the_offer_status_shows_the_steps_of_publish_and_go_live() -> None:
    service, offer, clock = loaded()
    document = status_document(service, offer)
    assert [(step["stepName"], step["status"]) for step in document["steps"]][-2:] == [
        ("publisher-signoff", "waitingForPublisherReview"),
        ("live", "notStarted"),
    ]
    service.go_live(offer)
    clock.advance(3 * DAY)
    document = status_document(service, offer)
    assert [step["id"] for step in document["steps"]].count("live") == 1
    assert {step["status"] for step in document["steps"]} == {"complete"}
    _, fresh, _ = loaded(state="never-published")
    assert status_document(service, fresh)["steps"] == []


def test_a_list_item_has_its_own_names() -> None:
    service, offer, _ = loaded(state="never-published")
    publish = service.publish(offer, EMAILS)
    document = submission_document(service, offer, publish)
    assert document["submissionType"] == "publish"
    assert document["submissionState"] == "running"
    assert document["slot"] == "staging"
    assert document["definition"]["metadata"]["emails"] == "a@contoso.com,b@contoso.com"
    assert 2**62 > document["version"] > 2**53


def test_go_live_uses_the_addresses_of_the_publish() -> None:
    service, offer, clock = loaded(state="never-published")
    service.publish(offer, EMAILS)
    clock.advance(UNTIL_PREVIEW)
    assert service.go_live(offer).emails == "a@contoso.com,b@contoso.com"


def test_secret_values_are_not_returned() -> None:
    definition = {**seeds.default_definition("one"), "leads": [{"accountKey": "k", "name": "n"}]}
    service, offer, _ = loaded(definition=definition)
    document = offer_document(service, service.draft(offer))
    assert document["definition"]["leads"] == [{"name": "n"}]


def test_everything_survives_being_dumped_and_loaded_as_json() -> None:
    fail = {"step": "live", "messages": ["No."], "times": 2}
    service, offer, clock = loaded(liveVersion=1, migrated=False, fail=fail)
    service.go_live(offer)
    service.cancel(offer, None)
    restarted = Service(clock)
    restarted.load(json.loads(json.dumps(service.dump())))
    same = restarted.offer("contoso", "one")
    assert restarted.dump() == service.dump()
    assert overview_document(restarted, same) == overview_document(service, offer)
    assert same.etag == offer.etag
    assert restarted.in_slot(same, "production").version == 1


def test_a_past_state_lacks_later_operations() -> None:
    service, offer, clock = loaded(liveVersion=1, time_scale=2)
    before = status_document(service, offer)
    clock.advance(30)
    go_live = service.go_live(offer)
    clock.advance(30)
    past = service.lagging(61)  # half of it here
    then = past.offer("contoso", "one")
    assert status_document(past, then) == before
    assert [one.id for one in then.operations] == [one.id for one in offer.operations if one is not go_live]
    refused(404, past.operation, then, go_live.id)
    past = service.lagging(58)
    (*_, one) = past.offer("contoso", "one").operations
    assert (one.id, past.progress(one).steps[0].percent) == (go_live.id, 0)
    assert service.offer("contoso", "one").operations[-1] is go_live


def test_a_past_state_lacks_later_cancellations() -> None:
    service, offer, clock = loaded(state="publishing")
    clock.advance(MINUTE)
    document = operation_document(service, offer, offer.operations[0])
    clock.advance(MINUTE)
    service.cancel(offer, None)
    clock.advance(3 * MINUTE)
    past = service.lagging(4 * MINUTE)
    then = past.offer("contoso", "one")
    assert operation_document(past, then, then.operations[0]) == document
    past = service.lagging(2 * MINUTE)
    assert past.status(past.offer("contoso", "one")) == "running"
    past = service.lagging(MINUTE)
    assert past.status(past.offer("contoso", "one")) == "canceled"


def test_a_past_state_lacks_versions_of_later_publishes() -> None:
    service, offer, clock = loaded(state="live")
    etag = offer.etag
    clock.advance(1)
    service.put_offer("contoso", "one", {"definition": {**offer.definition, "displayText": "New"}}, "*")
    service.publish(offer, EMAILS)
    past = service.lagging(1)
    then = past.offer("contoso", "one")
    assert (then.version, past.status(then)) == (2, "succeeded")
    refused(404, past.at_version, then, "3")
    assert past.draft(then).definition["displayText"] == "New"
    assert then.etag not in (etag, offer.etag)


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("publishing", "running"),
        ("preview", "waitingForPublisherReview"),
        ("going-live", "running"),
        ("live", "succeeded"),
    ],
)
def test_a_past_state_is_never_older_than_the_seed(state: str, status: str) -> None:
    service, offer, clock = loaded(state=state)
    overview = overview_document(service, offer)
    clock.advance(MINUTE)
    restarted = Service(clock)
    restarted.load(json.loads(json.dumps(service.dump())))
    past = restarted.lagging(float("inf"))
    then = past.offer("contoso", "one")
    assert past.status(then) == status
    assert overview_document(past, then) == overview


def test_a_clock_offset_changes_times_in_responses_only() -> None:
    service, offer, clock = loaded(state="publishing")
    off = Service(clock, clock_offset=-HOUR)
    off.load(json.loads(json.dumps(service.dump())))
    clock.advance(UNTIL_PREVIEW)
    (same,) = off.offers()
    assert off.status(same) == service.status(offer) == "waitingForPublisherReview"

    def times(one: Service) -> list[str]:
        offer = one.offer("contoso", "one")
        submission = submission_document(one, offer, offer.operations[0])
        step = operation_document(one, offer, offer.operations[0])["steps"][0]
        return [
            offer_document(one, one.draft(offer))["changedTime"],
            submission["changedTime"],
            submission["createdDateTime"],
            step["messages"][0]["timestamp"],
        ]

    hours = [
        (datetime.fromisoformat(a) - datetime.fromisoformat(b)).total_seconds() / HOUR
        for a, b in zip(times(off), times(service), strict=True)
    ]
    assert hours == [-1] * 4


def test_a_clock_that_is_set_back_is_harmless() -> None:
    service, offer, clock = loaded(state="going-live", stepSeconds={"live": 0})
    clock.advance(-DAY)
    assert step_states(service, offer.operations[-1]) == [("live", "inProgress", 0)]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1_490_730_636.0, "2017-03-28T19:50:36Z"),
        (1_490_730_636.5, "2017-03-28T19:50:36.5Z"),
        (1_490_730_636.0625001, "2017-03-28T19:50:36.0625Z"),
    ],
)
def test_timestamps_have_up_to_seven_digits(seconds: float, text: str) -> None:
    assert timestamp(seconds)[: len(text) - 1] == text[:-1]
    assert len(timestamp(seconds)) <= len("2017-03-28T19:50:36.1234567Z")


@both_variants
@pytest.mark.parametrize(
    ("state", "status", "operations"),
    [
        ("publishing", "running", ["running"]),
        ("preview", "waitingForPublisherReview", ["preview"]),
        ("going-live", "running", ["success", "running"]),
        ("live", "succeeded", ["success", "success"]),
    ],
)
def test_seed_states_have_both_variants(
    state: str, status: str, operations: list[str], migrated: bool
) -> None:
    words = {
        "preview": "succeeded" if migrated else "running",
        "success": "succeeded" if migrated else "completed",
    }
    service, offer, _ = loaded(state=state, migrated=migrated)
    assert service.status(offer) == status
    states = [service.progress(one).status for one in offer.operations]
    assert states == [words.get(word, word) for word in operations]


SEED: dict[str, Any] = {"publishers": [{"id": "p", "offers": [{"id": "o"}]}], "principals": []}


@pytest.mark.parametrize(
    ("key", "document"),
    [
        ("the document", []),
        ("publishers", {"principals": []}),
        ("publishers", {"publishers": [], "principals": []}),
        ("extra", {**SEED, "extra": 1}),
        ("publishers[0].offers", {**SEED, "publishers": [{"id": "p"}]}),
        ("publishers[0].offers", {**SEED, "publishers": [{"id": "p", "offers": [{"id": "o"}, {"id": "o"}]}]}),
        *[
            (f"publishers[0].offers[0].{key}", {**SEED, "publishers": [{"id": "p", "offers": [offer]}]})
            for key, offer in [
                ("id", {}),
                ("id", {"id": ""}),
                ("state", {"id": "o", "state": "lost"}),
                ("version", {"id": "o", "version": True}),
                ("version", {"id": "o", "version": 0}),
                ("liveVersion", {"id": "o", "state": "preview", "version": 2, "liveVersion": 2}),
                ("migrated", {"id": "o", "migrated": "yes"}),
                ("stepSeconds.nap", {"id": "o", "stepSeconds": {"nap": 1}}),
                ("stepSeconds.live", {"id": "o", "stepSeconds": {"live": "1"}}),
                ("fail.step", {"id": "o", "fail": {"step": "nap", "messages": []}}),
                ("fail.messages[0]", {"id": "o", "fail": {"step": "live", "messages": [1]}}),
                ("stat", {"id": "o", "stat": "live"}),
            ]
        ],
        *[
            (f"principals[0].{key}", {**SEED, "principals": [principal]})
            for key, principal in [
                ("tenantId", {"publishers": []}),
                ("publishers", {"tenantId": "t", "clientId": "c", "publishers": ["q"]}),
                ("certificate", {"tenantId": "t", "clientId": "c", "publishers": [], "certificate": "x"}),
                (
                    "federation.publicKey",
                    {
                        "tenantId": "t",
                        "clientId": "c",
                        "publishers": [],
                        "federation": {"issuer": "i", "subject": "s", "publicKey": "x"},
                    },
                ),
            ]
        ],
    ],
)
def test_a_bad_seed_is_refused_in_one_line_that_names_the_key(key: str, document: Any) -> None:
    with pytest.raises(seeds.SeedError) as caught:
        seeds.parse(document)
    assert f"seed: {key}: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("offer", "message"),
    [
        ({"id": "o", "stat": "live"}, "offers[0].stat: is an unknown key; did you mean 'state'?"),
        ({"id": "o", "fail": {"stp": "live"}}, "offers[0].fail.stp: is an unknown key; did you mean 'step'?"),
        (
            {"id": "o", "stepSeconds": {"nap": 1}},
            "offers[0].stepSeconds.nap: is an unknown step; the steps are",
        ),
        ({"id": "o", "zzz": 1}, "offers[0].zzz: is an unknown key; the keys are id, offerTypeId, migrated"),
    ],
)
def test_an_unknown_key_of_a_seed_suggests_a_known_one(offer: dict[str, Any], message: str) -> None:
    with pytest.raises(seeds.SeedError) as caught:
        seeds.parse({"publishers": [{"id": "p", "offers": [offer]}]})
    assert message in str(caught.value)


def test_the_built_in_seed_is_as_documented() -> None:
    seed = seeds.parse(seeds.BUILT_IN)
    offers = seed.publishers[0].offers
    states = [offer.state for offer in offers]
    assert {state: states.count(state) for state in states} == {"preview": 3, "never-published": 2, "live": 3}
    assert [offer.migrated for offer in offers].count(False) == 2
    assert [bool(principal.publishers) for principal in seed.principals] == [True, False]


# The last step ends after about this number of clock readings. No number may let it end within a response.
@pytest.mark.parametrize("readings", range(5, 15))
async def test_all_parts_of_a_response_describe_one_moment(readings: int) -> None:
    seconds = {"displaycertify": readings / 10}
    service, _, clock = loaded(state="never-published", migrated=False, stepSeconds=seconds)
    principal = seeds.Principal.model_validate({"tenantId": "t", "clientId": "c", "publishers": ["contoso"]})
    tokens = Tokens(lifetime=3600)
    app = create_app(
        service,
        Identity([], tokens, clock_offset=0),
        tokens,
        Journal(None),
        Faults(),
        clock_offset=0,
        save=lambda: None,
        reset=lambda: None,
        report=lambda _: None,
    )
    service.publish(service.offer("contoso", "one"), EMAILS)
    clock.advance(UNTIL_PREVIEW - 2.5 * DAY)
    clock.seconds_per_reading = 0.1
    headers = {"Authorization": f"Bearer {tokens.issue(principal)}"}
    path = "/api/publishers/contoso/offers/one/status?api-version=2017-10-31"
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="https://emulator", headers=headers) as client:
        answers = [(await client.get(path)).json() for _ in range(30)]
    found = {(answer["status"], answer["steps"][-2]["status"]) for answer in answers}
    assert found == {
        ("running", "notStarted"),
        ("waitingForPublisherReview", "waitingForPublisherReview"),
    }
