"""Values that the readers return for successful responses."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_cpp.core.errors import CloudPartnerError
from airflow_provider_cpp.core.http import Request, Response
from airflow_provider_cpp.core.models import (
    Message,
    Offer,
    OfferState,
    Operation,
    OperationStatus,
    Publisher,
    Step,
    Submission,
)
from airflow_provider_cpp.portal import requests as portal

HOST = "https://cloudpartner.azure.com"
LOCATION = "/api/operations/contoso$web$2$preview?api-version=2017-10-31"
OPERATION = portal.get_operation(LOCATION, HOST)
IDS = ("contoso", "web")

#: As the reference prints it.
PRINTED: dict[str, Any] = {
    "status": "running",
    "messages": [],
    "publishingVersion": 2,
    "offerVersion": 1,
    "cancellationRequestState": "canCancel",
    "steps": [
        {
            "id": "displaydummycertify",
            "stepName": "Validate Pre-Requisites",
            "estimatedTimeFrame": "< 15 min",
            "description": "...",
            "status": "complete",
            "progressPercentage": 100,
            "messages": [
                {
                    "messageHtml": "Step completed.",
                    "level": "information",
                    "timestamp": "2017-03-28T19:50:36.500052Z",
                }
            ],
        },
        {
            "id": "displaycertify",
            "stepName": "Certification",
            "estimatedTimeFrame": "< 5 day",
            "status": "inProgress",
            "progressPercentage": 0,
            "messages": [],
        },
    ],
    "previewLinks": [],
    "liveLinks": [],
}


def answer(value: object, **headers: str) -> Response:
    return Response(200, headers, json.dumps(value).encode(), HOST)


def operation(**fields: Any) -> Operation:
    return OPERATION.read(answer({"status": "running", **fields}))


def stepped(*states: tuple[str, int]) -> Operation:
    steps = [
        {"id": f"s{number}", "status": status, "progressPercentage": percentage}
        for number, (status, percentage) in enumerate(states)
    ]
    return operation(steps=steps)


@pytest.mark.parametrize("printed", [PRINTED, [PRINTED]], ids=["object", "array of one"])
def test_an_operation_is_read_in_both_of_its_printed_forms(printed: object) -> None:
    found = OPERATION.read(answer(printed))
    assert (found.status, found.is_terminal, found.retry_after) == (OperationStatus.RUNNING, False, None)
    assert (found.messages, found.progress_percentage) == ((), 50)
    assert found.steps == (
        Step(
            id="displaydummycertify",
            name="Validate Pre-Requisites",
            status="complete",
            progress_percentage=100,
            estimated_time="< 15 min",
            messages=(
                Message(
                    "Step completed.", "information", datetime(2017, 3, 28, 19, 50, 36, 500052, tzinfo=UTC)
                ),
            ),
        ),
        Step("displaycertify", "Certification", "inProgress", 0, "< 5 day"),
    )
    assert found.raw == PRINTED


def test_returned_values_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        operation().status = OperationStatus.FAILED  # type: ignore[misc]


@pytest.mark.parametrize(
    ("words", "status", "is_terminal"),
    [
        (
            ("notStarted", "not started", "NotStarted", "not-started", "NOT_STARTED"),
            OperationStatus.NOT_STARTED,
            False,
        ),
        (("running", "Running", " RUNNING "), OperationStatus.RUNNING, False),
        (("completed", "Completed", "complete", "succeeded", "Succeeded"), OperationStatus.SUCCEEDED, True),
        (("failed", "Failed"), OperationStatus.FAILED, True),
        (("canceled", "Canceled"), OperationStatus.CANCELED, True),
        (("unknown", "complete d?", "paused", ""), OperationStatus.UNKNOWN, False),
    ],
)
def test_a_status_is_normalized_and_an_unknown_one_is_not_final(
    words: tuple[str, ...], status: OperationStatus, is_terminal: bool
) -> None:
    for word in words:
        found = operation(status=word)
        assert (found.status, found.is_terminal, found.raw["status"]) == (status, is_terminal, word)
        listed = portal.list_operations(*IDS).read(answer([{"submissionState": word}]))
        assert (listed[0].status, listed[0].is_running) == (status, not is_terminal)


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("NotStarted", "notStarted"),
        ("InProgress", "inProgress"),
        ("running", "inProgress"),
        ("WaitingForPublisherReview", "waitingForPublisherReview"),
        ("WaitingForApproval", "waitingForApproval"),
        ("Blocked", "blocked"),
        ("Rejected", "rejected"),
        ("Complete", "complete"),
        ("completed", "complete"),
        ("Canceled", "canceled"),
        ("failed", "failed"),
        ("Paused", "Paused"),
        (None, ""),
    ],
)
def test_a_steps_status_is_a_documented_word_or_the_services_own(word: str | None, status: str) -> None:
    assert operation(steps=[{"status": word}]).steps[0].status == status


@pytest.mark.parametrize(
    ("percentage", "read"), [(40, 40), ("40", 40), (40.0, 40), (140, 100), (-1, 0), (None, 0), (True, 0)]
)
def test_a_steps_progress_is_between_0_and_100(percentage: object, read: int) -> None:
    found = operation(steps=[{"status": "inProgress", "progressPercentage": percentage}])
    assert found.steps[0].progress_percentage == read
    assert (
        operation(steps=[{"status": "complete", "progressPercentage": percentage}]).progress_percentage == 100
    )


def test_the_progress_of_an_operation_is_the_mean_of_its_steps() -> None:
    assert stepped(("complete", 100), ("inProgress", 50), ("notStarted", 0)).progress_percentage == 50
    assert operation().progress_percentage == 0
    assert operation(status="completed").progress_percentage == 100


@pytest.mark.parametrize(
    ("states", "current"),
    [
        ((("complete", 100), ("inProgress", 50), ("notStarted", 0)), "s1"),
        ((("complete", 100), ("notStarted", 0)), "s1"),
        ((("inProgress", 50), ("failed", 0)), "s1"),
        ((("inProgress", 50), ("rejected", 0)), "s1"),
        ((("inProgress", 50), ("blocked", 0)), "s1"),
        ((("inProgress", 50), ("canceled", 0)), "s1"),
        ((("complete", 100), ("notStarted", 0), ("inProgress", 0)), "s2"),
        ((("complete", 100), ("complete", 100)), "s1"),
        ((("complete", 100), ("waitingForPublisherReview", 0), ("notStarted", 0)), "s1"),
    ],
)
def test_the_current_step_stopped_or_is_in_progress(
    states: tuple[tuple[str, int], ...], current: str
) -> None:
    found = stepped(*states).current_step
    assert found
    assert found.id == current


def test_an_operation_without_steps_has_no_current_one() -> None:
    assert operation(steps=None).current_step is None


@pytest.mark.parametrize(
    ("fields", "awaited"),
    [
        ({"id": "publisher-signoff", "stepName": "Publisher signoff"}, True),
        ({"id": "x", "stepName": "publisher-signoff"}, True),
        ({"id": "PublisherSignoff"}, True),
        ({"id": "displaycertify", "stepName": "Certification"}, False),
    ],
)
@pytest.mark.parametrize("word", ["waitingForPublisherReview", "WaitingForPublisherReview"])
def test_the_signoff_is_found_in_either_field(fields: dict[str, str], word: str, awaited: bool) -> None:
    body = {"status": "running", "steps": [{**fields, "status": word}]}
    assert OPERATION.read(answer(body)).awaiting_publisher is awaited
    # SUSE saw the offer's status stay at `running` meanwhile.
    assert portal.get_offer_status(*IDS).read(answer(body)).awaiting_publisher is awaited


def test_a_signoff_that_was_given_is_awaited_no_more() -> None:
    assert not operation(steps=[{"id": "publisher-signoff", "status": "complete"}]).awaiting_publisher


def test_a_whole_operation_can_await_the_publisher() -> None:
    assert operation(status="waitingForPublisherReview").awaiting_publisher


def test_messages_come_as_text_errors_first() -> None:
    found = operation(
        messages=[
            {"messageHtml": "<p>all is <a href='x'>well</a></p>", "level": "Information"},
            {"messageHtml": "no level"},
            "not a message",
        ],
        steps=[
            {
                "messages": [
                    {"messageHtml": "careful", "level": "warning"},
                    {"messageHtml": "size &lt; 30 GB<script>alert(1)</script>", "level": "Error"},
                ]
            }
        ],
    )
    assert [(message.level, message.text) for message in found.all_messages] == [
        ("error", "size < 30 GB"),
        ("warning", "careful"),
        ("information", "all is well"),
        ("information", "no level"),
    ]


@pytest.mark.parametrize(
    ("printed", "moment"),
    [
        ("2017-03-28T19:50:36.5000521Z", datetime(2017, 3, 28, 19, 50, 36, 500052, tzinfo=UTC)),
        ("2017-03-28T19:50:36Z", datetime(2017, 3, 28, 19, 50, 36, tzinfo=UTC)),
        ("2017-03-28T19:50:36.5", datetime(2017, 3, 28, 19, 50, 36, 500000, tzinfo=UTC)),
        (
            "2017-03-28T19:50:36.1234567+02:00",
            datetime(2017, 3, 28, 19, 50, 36, 123456, tzinfo=timezone(timedelta(hours=2))),
        ),
        ("yesterday", None),
        (1490730636, None),
    ],
)
def test_timestamps_have_a_zone_and_up_to_seven_digits(printed: object, moment: datetime | None) -> None:
    assert operation(messages=[{"timestamp": printed}]).messages[0].timestamp == moment


def test_operation_keeps_the_retry_after_of_the_service() -> None:
    assert OPERATION.read(answer(PRINTED, **{"retry-after": "90"})).retry_after == 90


# --- the status of an offer -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "word",
    [
        "neverPublished",
        "notStarted",
        "waitingForPublisherReview",
        "running",
        "succeeded",
        "canceled",
        "failed",
    ],
)
def test_an_offers_status_comes_in_camel_case_or_pascal_case(word: str) -> None:
    for printed in (word, word[0].upper() + word[1:]):
        found = portal.get_offer_status(*IDS).read(answer({"status": printed}))
        assert found.status == word
        assert found.awaiting_publisher is (word == "waitingForPublisherReview")


def test_an_undocumented_offer_status_is_unknown() -> None:
    found = portal.get_offer_status(*IDS).read(answer({"status": "Resting"}, **{"Retry-After": "5"}))
    assert (found.status, found.raw, found.retry_after) == (OfferState.UNKNOWN, {"status": "Resting"}, 5)


# --- offers, publishers, submissions ----------------------------------------------------------------------

OFFER = {
    "id": "web",
    "publisherId": "contoso",
    "offerTypeId": "microsoft-azure-virtualmachines",
    "status": "succeeded",
    "version": 9223372036854775807,
    "definition": {"displayText": "Web", "offer": {}, "plans": []},
    "changedTime": "2018-01-02T03:04:05.1234567Z",
    "pcMigrationStatus": "migrated",
}


def test_an_offer_comes_with_its_etag() -> None:
    for call in (portal.get_offer(*IDS), portal.put_offer(*IDS, OFFER, if_match="*")):
        assert call.read(answer(OFFER, etag='"7"')) == Offer(
            id="web",
            publisher_id="contoso",
            offer_type_id="microsoft-azure-virtualmachines",
            status="succeeded",
            version=9223372036854775807,
            definition={"displayText": "Web", "offer": {}, "plans": []},
            etag='"7"',
            changed=datetime(2018, 1, 2, 3, 4, 5, 123456, tzinfo=UTC),
            pc_migration_status="migrated",
            raw=OFFER,
        )


def test_offers_of_a_list_have_no_etag() -> None:
    found = portal.list_offers("contoso").read(answer([OFFER, {"id": "os"}], ETag='"7"'))
    assert [(offer.id, offer.etag, offer.version) for offer in found] == [
        ("web", None, 9223372036854775807),
        ("os", None, None),
    ]


@pytest.mark.parametrize(
    ("printed", "version"),
    [(3, 3), ("3", 3), (3.0, 3), (3.5, None), ("three", None), (True, None), ([], None)],
)
def test_a_version_is_read_from_any_whole_number(printed: object, version: int | None) -> None:
    assert portal.get_offer(*IDS).read(answer({"version": printed})).version == version


@pytest.mark.parametrize(
    "raw",
    [
        {"id": "c", "name": "C"},
        {"publisherId": "c", "displayName": "<b>C"},
        {"id": "c", "definition": {"displayText": "C"}, "version": 9, "sellerId": 7},
        {"id": "c", "definition": [], "name": "C"},
    ],
)
def test_publishers_have_an_id_and_a_name(raw: dict[str, Any]) -> None:
    assert portal.list_publishers().read(answer([raw])) == [Publisher("c", "C", raw)]


def test_a_listed_operation_has_names_of_its_own_for_the_same_things() -> None:
    raw = {
        "id": "56615b67",
        "offerId": "web",
        "publisherId": "contoso",
        "submissionType": "goLive",
        "submissionState": "running",
        "publishingVersion": 2,
        "offerVersion": "1",
        "slot": "production",
        "version": 9223372036854775807,
        "changedTime": "2018-01-02T03:04:05Z",
        "createdDateTime": "2018-01-01T00:00:00Z",
    }
    [found] = portal.list_operations(*IDS).read(answer([raw]))
    assert found == Submission(
        id="56615b67",
        offer_id="web",
        publisher_id="contoso",
        submission_type="goLive",
        status=OperationStatus.RUNNING,
        slot="production",
        offer_version=1,
        publishing_version=2,
        changed=datetime(2018, 1, 2, 3, 4, 5, tzinfo=UTC),
        created=datetime(2018, 1, 1, tzinfo=UTC),
        raw=raw,
    )


def test_the_last_action_is_the_end_of_an_operation() -> None:
    raw = {"changedTime": "2018-01-01T00:00:00Z", "lastActionDateTime": "2018-01-02T00:00:00Z"}
    [found] = portal.list_operations(*IDS).read(answer([raw]))
    assert found.changed == datetime(2018, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("word", "is_publish", "is_go_live"),
    [
        ("publish", True, False),
        ("Publish", True, False),
        ("goLive", False, True),
        ("GoLive", False, True),
        ("golive", False, True),
        ("cancel", False, False),
        (None, False, False),
    ],
)
def test_publishes_and_go_lives_are_distinguished(
    word: str | None, is_publish: bool, is_go_live: bool
) -> None:
    [found] = portal.list_operations(*IDS).read(answer([{"submissionType": word}]))
    assert (found.is_publish, found.is_go_live) == (is_publish, is_go_live)


# --- answers to actions -----------------------------------------------------------------------------------

ACTIONS = {"publish": portal.publish(*IDS), "go live": portal.go_live(*IDS), "cancel": portal.cancel(*IDS)}


@pytest.mark.parametrize("header", ["Location", "location", "Operation-Location", "operation-LOCATION"])
@pytest.mark.parametrize("prefix", ["", HOST], ids=["relative", "absolute"])
@pytest.mark.parametrize("call", ACTIONS.values(), ids=ACTIONS)
def test_accepted_action_returns_the_path_of_its_operation(
    call: Request[str | None], prefix: str, header: str
) -> None:
    assert call.read(Response(202, {header: prefix + LOCATION}, b"", HOST)) == LOCATION


def test_location_comes_before_its_older_name() -> None:
    headers = {"Operation-Location": "/api/operations/contoso$web$1$preview", "Location": LOCATION}
    assert portal.go_live(*IDS).read(Response(202, headers, b"", HOST)) == LOCATION


def test_a_cancel_that_is_done_at_once_has_no_operation() -> None:
    assert portal.cancel(*IDS).read(Response(200, {}, b"", HOST)) is None


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(LOCATION),
        json.dumps({"message": "Accepted.", "links": [{"href": HOST + LOCATION}]}),
    ],
)
def test_the_location_of_a_cancel_can_be_in_the_body_only(body: str) -> None:
    call = portal.cancel(*IDS)
    assert call.read(Response(202, {}, body.encode(), HOST)) == LOCATION
    header = {"Location": "/api/operations/contoso$web$1$preview"}
    assert call.read(Response(202, header, body.encode(), HOST)) == header["Location"]
    foreign = body.replace(HOST, "").replace(LOCATION, f"https://evil.example{LOCATION}")
    with pytest.raises(CloudPartnerError) as caught:
        call.read(Response(202, {}, foreign.encode(), HOST))
    assert caught.value.accepted


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Location": ""},
        {"Location": f"https://evil.example{LOCATION}"},
        {"Location": "/api/publishers"},
        {"Location": "/<script>alert(1)</script>"},
    ],
    ids=["missing", "empty", "foreign host", "other path", "markup"],
)
@pytest.mark.parametrize("call", ACTIONS.values(), ids=ACTIONS)
def test_an_accepted_request_without_a_location_is_marked(
    call: Request[str | None], headers: dict[str, str]
) -> None:
    with pytest.raises(CloudPartnerError, match="accepted, but where the operation is found") as caught:
        call.read(Response(202, headers, b"", HOST))
    assert (caught.value.status, caught.value.accepted) == (202, True)
    assert caught.value.has_unknown_outcome
    assert "<script" not in str(caught.value)
