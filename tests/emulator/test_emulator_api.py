"""The API as a client sees it."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import requests
    from emulator_client import Client

    from dev.emulator_process import Emulator

EMAILS = {"metadata": {"notification-emails": "a@contoso.com"}}
GUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def error(answer: requests.Response, status: int) -> dict[str, str]:
    assert answer.status_code == status, answer.text
    found: dict[str, str] = answer.json()["error"]
    assert set(found) == {"code", "message"}
    return found


def test_publishers_and_offers_are_listed(client: Client) -> None:
    assert [one["id"] for one in client.api("GET", "publishers").json()] == ["contoso"]
    offers = client.api("GET", "publishers/contoso/offers").json()
    assert [one["id"] for one in offers] == [
        "contoso-linux",
        "contoso-database",
        "contoso-classic",
        "contoso-next",
        "contoso-web",
        "contoso-mail",
        "contoso-shop",
        "contoso-wiki",
    ]
    assert [one["pcMigrationStatus"] for one in offers].count("none") == 2
    assert [one["pcMigrationStatus"] for one in offers].count("migrated") == 6
    assert {one["publisherId"] for one in offers} == {"contoso"}
    assert offers[0]["definition"] == {"displayText": "Contoso Linux"}


def test_a_publisher_has_its_name_version_and_seller(client: Client) -> None:
    (publisher,) = client.api("GET", "publishers").json()
    assert publisher["definition"]["displayText"] == "Contoso"
    assert (publisher["version"], type(publisher["sellerId"])) == (1, int)


def test_each_response_has_a_correlation_id_of_its_own(emulator: Emulator, client: Client) -> None:
    emulator.inject(skip=1, status=500)
    answers = [client.api("GET", path) for path in ("publishers", "publishers", "nowhere")]
    ids = [answer.headers["X-Ms-Correlation-Request-Id"] for answer in answers]
    assert all(re.fullmatch(GUID, one) for one in ids)
    assert len(set(ids)) == 3


@pytest.mark.parametrize(("offer_type", "count"), [("microsoft-azure-virtualmachines", 8), ("other", 0)])
def test_offers_are_filtered_by_type(client: Client, offer_type: str, count: int) -> None:
    answer = client.api(
        "GET", "publishers/contoso/offers", params={"$filter": f"offerTypeId eq '{offer_type}'"}
    )
    assert len(answer.json()) == count


def test_another_filter_is_refused(client: Client) -> None:
    error(client.api("GET", "publishers/contoso/offers", params={"$filter": "id eq 'a'"}), 400)


@pytest.mark.parametrize("params", [{"api-version": "2099-01-01"}, {"api-version": ""}])
def test_the_api_version_must_be_known(client: Client, params: dict[str, str]) -> None:
    problem = error(client.api("GET", "publishers", params=params), 400)
    assert problem["code"] == "InvalidAPIVersion"
    assert "Allowed values are ['2017-10-31']" in problem["message"]


@pytest.mark.parametrize("authorization", [None, "Bearer", "Bearer unknown", "Basic YTpi"])
def test_a_request_needs_a_good_token(client: Client, authorization: str | None) -> None:
    answer = client.api("GET", "publishers", headers={"Authorization": authorization})
    error(answer, 401)
    assert answer.headers["WWW-Authenticate"].startswith("Bearer ")


@pytest.mark.parametrize(
    "path",
    [
        "publishers/nobody/offers",
        "publishers/contoso/offers/nothing",
        "publishers/contoso/offers/nothing/status",
        "publishers/contoso/offers/contoso-linux/slot/production",
        "publishers/contoso/offers/contoso-next/slot/preview",
        "publishers/contoso/offers/contoso-linux/versions/9",
        "publishers/contoso/offers/contoso-linux/operations/56615b67-2185-49fe-80d2-c4ddf77bb2e8",
        "operations/contoso$contoso-classic$9$preview",
        "operations/contoso$contoso-linux$2$preview",
        "operations/contoso",
        "elsewhere",
    ],
)
def test_unknown_objects_are_not_found(client: Client, path: str) -> None:
    error(client.api("GET", path), 404)


def test_a_wrong_method_is_refused(client: Client) -> None:
    error(client.offer("DELETE", "contoso-linux"), 405)


def test_slots_and_versions(client: Client) -> None:
    assert client.offer("GET", "contoso-database/slot/preview").json()["version"] == 4
    assert client.offer("GET", "contoso-database/slot/Preview").json()["version"] == 4
    assert client.offer("GET", "contoso-database/slot/production/").json()["version"] == 3
    assert client.offer("GET", "contoso-database/versions/3/").json()["version"] == 3
    draft = client.offer("GET", "contoso-classic/slot/Draft")
    assert draft.headers["ETag"] == client.offer("GET", "contoso-classic").headers["ETag"]


@pytest.mark.parametrize(
    ("offer", "slot", "name"),
    [("contoso-next", "preview", "Staging"), ("contoso-linux", "Production", "Production")],
)
def test_an_empty_slot_is_reported_in_the_recorded_words(
    client: Client, offer: str, slot: str, name: str
) -> None:
    message = error(client.offer("GET", f"{offer}/slot/{slot}"), 404)["message"]
    assert message == f"There is no {name} slot deployed for Offer ID '{offer}', Publisher ID 'contoso'"


@pytest.mark.parametrize("path", ["contoso-linux", "contoso-linux/slot/draft"])
def test_get_of_a_migrated_offer_has_no_etag_but_put_has(client: Client, path: str) -> None:
    read = client.offer("GET", path)
    assert "ETag" not in read.headers
    written = client.offer("PUT", "contoso-linux", json=read.json(), headers={"If-Match": "*"})
    assert re.fullmatch(r"""W/"datetime'\d{4}-\d\d-\d\dT\d\d%3A\d\d%3A[\d.]+Z'\"""", written.headers["ETag"])


def test_artifacts_are_read_back_from_the_service_s_storage(client: Client) -> None:
    offer = client.offer("GET", "contoso-next").json()
    logo = "https://contoso.example/logo.png?sig=secret"
    disk = "https://contoso.example/disk.vhd?sig=secret"
    offer["definition"]["offer"] |= {
        "smallLogo": logo,
        "images": [{"osVhdUrl": disk}],
        "text": "See logo.png",
    }
    client.offer("PUT", "contoso-next", json=offer, headers={"If-Match": "*"}).raise_for_status()
    read = client.offer("GET", "contoso-next").json()
    stored = read["definition"]["offer"]
    assert re.fullmatch(
        rf"https://[^/]*azureedge.net/publicartifacts/contoso.*{GUID}/logo.png", stored["smallLogo"]
    )
    assert (stored["images"], stored["text"]) == ([{"osVhdUrl": disk}], "See logo.png")
    client.offer("PUT", "contoso-next", json=read, headers={"If-Match": "*"}).raise_for_status()
    assert client.offer("GET", "contoso-next").json()["definition"] == read["definition"]


def test_put_creates_then_modifies_under_an_etag(client: Client) -> None:
    body: dict[str, Any] = {
        "offerTypeId": "microsoft-azure-virtualmachines",
        "definition": {"displayText": "1"},
    }
    created = client.offer("PUT", "fresh", json=body)
    assert created.status_code == 201
    exists = error(client.offer("PUT", "fresh", json=body), 409)
    assert exists["code"] == "InvalidResourceId"
    assert exists["message"].startswith("Offer ID already exists.")
    body = client.offer("GET", "fresh").json()
    body["definition"]["displayText"] = "2"
    modified = client.offer("PUT", "fresh", json=body, headers={"If-Match": created.headers["ETag"]})
    assert (modified.status_code, modified.json()["definition"]["displayText"]) == (200, "2")
    assert modified.headers["ETag"] != created.headers["ETag"]
    error(client.offer("PUT", "fresh", json=body, headers={"If-Match": created.headers["ETag"]}), 412)
    assert client.offer("PUT", "fresh", json=body, headers={"If-Match": "*"}).status_code == 200
    error(client.offer("POST", "fresh/publish", json=EMAILS), 422)


def test_a_body_that_is_not_json_is_refused(client: Client) -> None:
    for nothing in ("<html>", "", '{"definition": {"a": NaN}}', '{"definition": {"a": "\\ud800"}}'):
        error(client.offer("PUT", "contoso-next", data=nothing, headers={"If-Match": "*"}), 400)
    assert client.offer("GET", "contoso-next").status_code == 200
    error(client.offer("POST", "contoso-next/publish"), 400)


def test_publish_returns_the_location_of_its_operation(client: Client) -> None:
    accepted = client.offer("POST", "contoso-next/publish", json=EMAILS)
    location = accepted.headers["Location"]
    expected = rf"/api/publishers/contoso/offers/contoso-next/operations/{GUID}\?api-version=2017-10-31"
    assert re.fullmatch(expected, location)
    operation = client.follow(accepted)
    assert operation["status"] == "running"
    assert (operation["publishingVersion"], operation["offerVersion"]) == (2, 1)
    assert operation["cancellationRequestState"] == "canCancel"
    assert [step["id"] for step in operation["steps"]] == [
        "displaydummycertify",
        "displaycertify",
        "displayprovision",
        "displaypackage",
        "publisher-signoff",
        "live",
    ]
    assert operation["steps"][0]["stepName"] == "Validate Pre-Requisites"
    slashed = location.replace("?", "/?")
    assert client.get(client.base + slashed, timeout=10).json()["status"] == "running"
    running = error(client.offer("POST", "contoso-next/publish", json=EMAILS), 409)
    assert re.search(GUID, running["message"])


def test_go_live_of_an_offer_that_is_not_migrated(client: Client) -> None:
    accepted = client.offer("POST", "contoso-classic/golive")
    location = accepted.headers["Location"]
    assert location == "/api/operations/contoso$contoso-classic$2$production?api-version=2017-10-31"
    assert accepted.headers["Operation-Location"] == location
    assert [step["id"] for step in client.follow(accepted)["steps"]] == ["live"]
    # An encoded `$` does not separate.
    assert client.get(client.base + location.replace("$", "%24"), timeout=10).status_code == 404


def test_a_list_item_is_enough_to_find_its_operation(client: Client) -> None:
    client.offer("POST", "contoso-linux/golive")
    newest, publish = client.offer("GET", "contoso-linux/submissions/").json()
    assert (newest["submissionType"], newest["slot"]) == ("goLive", "production")
    assert (publish["submissionType"], publish["slot"], publish["submissionState"]) == (
        "publish",
        "staging",
        "succeeded",
    )
    assert client.offer("GET", f"contoso-linux/operations/{newest['id']}").json()["status"] == "running"
    client.offer("POST", "contoso-classic/golive")
    newest = client.offer("GET", "contoso-classic/submissions/").json()[0]
    assert re.fullmatch(GUID, newest["id"])
    key = f"contoso$contoso-classic${newest['publishingVersion']}${newest['slot']}"
    for path in (f"operations/{key}", f"operations/{key.replace('production', 'Production')}"):
        assert client.api("GET", path).json()["status"] == "running"
    assert client.offer("GET", f"contoso-classic/operations/{newest['id']}").json()["status"] == "running"


@pytest.mark.parametrize("path", ["submissions", "submissions/"])
@pytest.mark.parametrize("name", ["status", "submissionState"])
def test_operations_are_filtered_by_their_state(client: Client, path: str, name: str) -> None:
    client.offer("POST", "contoso-linux/golive")

    def found(state: str) -> list[str]:
        answer = client.offer("GET", f"contoso-linux/{path}", params={name: state})
        return [one["submissionType"] for one in answer.json()]

    assert found("running") == ["goLive"]
    assert found("Succeeded") == ["publish"]
    assert found("unheard-of") == []
    assert found("") == ["goLive", "publish"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "publishers", 200),
        ("GET", "publishers/contoso/offers", 200),
        ("GET", "publishers/contoso/offers/contoso-linux", 200),
        ("GET", "publishers/contoso/offers/contoso-linux/versions/2", 200),
        ("GET", "publishers/contoso/offers/contoso-linux/slot/preview", 200),
        ("GET", "publishers/contoso/offers/contoso-linux/status", 200),
        ("GET", "operations/contoso$contoso-classic$2$preview", 200),
        ("POST", "publishers/contoso/offers/contoso-next/publish", 202),
        ("POST", "publishers/contoso/offers/contoso-linux/golive", 202),
        ("POST", "publishers/contoso/offers/contoso-web/cancel", 202),
        ("PUT", "publishers/contoso/offers/contoso-next", 200),
    ],
)
def test_a_slash_at_the_end_changes_nothing(
    emulator: Emulator, client: Client, method: str, path: str, status: int
) -> None:
    body: dict[str, Any] = {**EMAILS, "definition": {}}
    answers = []
    for slash in ("", "/"):
        emulator.reset()
        content = {} if method == "GET" else {"json": body, "headers": {"If-Match": "*"}}
        answers.append(client.api(method, path + slash, **content))
    assert [one.status_code for one in answers] == [status] * 2


@pytest.mark.parametrize(
    ("method", "path", "headers", "once", "else_"),
    [
        ("PUT", "fresh", {}, 201, 409),
        ("PUT", "contoso-classic", {"If-Match": "?"}, 200, 412),
        ("POST", "contoso-next/publish", {}, 202, 409),
        ("POST", "contoso-linux/golive", {}, 202, 409),
    ],
)
def test_of_many_at_once_one_succeeds(
    client: Client, method: str, path: str, headers: dict[str, str], once: int, else_: int
) -> None:
    if headers:
        headers = {"If-Match": client.offer("GET", path).headers["ETag"]}

    def send(number: int) -> int:
        body = {**EMAILS, "offerTypeId": "microsoft-azure-virtualmachines", "definition": {"n": number}}
        return client.offer(method, path, json=body, headers=headers).status_code

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(send, range(8))) == sorted([once, *[else_] * 7])


def test_the_status_of_an_offer(client: Client) -> None:
    assert client.offer("GET", "contoso-linux/status").json()["status"] == "waitingForPublisherReview"
    assert client.offer("GET", "contoso-classic/status").json()["status"] == "waitingForPublisherReview"
    assert client.offer("GET", "contoso-next/status").json()["status"] == "neverPublished"


@pytest.mark.parametrize("offer", ["contoso-linux", "contoso-classic"])
def test_status_steps_have_all_their_fields(client: Client, offer: str) -> None:
    document = client.offer("GET", f"{offer}/status").json()
    assert len(document["steps"]) == 6
    assert [step["stepName"] for step in document["steps"]][-2:] == ["publisher-signoff", "live"]
    for step in document["steps"]:
        assert {"id", "description", "estimatedTimeFrame", "progressPercentage", "messages"} < set(step)
    app = f"https://azuremarketplace.microsoft.com/marketplace/apps/contoso.{offer}-preview"
    assert [link["URI"] for link in document["previewLinks"]] == [app]


def test_a_live_offer_has_a_link_to_its_page(client: Client) -> None:
    (link,) = client.offer("GET", "contoso-web/status").json()["liveLinks"]
    uri = "https://azuremarketplace.microsoft.com/marketplace/apps/contoso.contoso-web"
    assert link == {"DisplayText": "Contoso Web", "URI": uri}


def test_cancel_at_once_later_and_of_nothing(client: Client) -> None:
    at_signoff = client.offer("POST", "contoso-linux/cancel", json=EMAILS)
    assert (at_signoff.status_code, at_signoff.headers.get("Location")) == (200, None)
    accepted = client.offer("POST", "contoso-classic/golive")
    canceling = client.offer("POST", "contoso-classic/cancel", json=EMAILS)
    assert canceling.headers["Location"] == accepted.headers["Location"]
    assert client.follow(canceling)["cancellationRequestState"] == "canceling"
    idle = client.offer("POST", "contoso-linux/cancel")
    withdrawn = client.follow(idle)
    assert (withdrawn["status"], withdrawn["cancellationRequestState"]) == ("succeeded", "canceled")
    assert client.offer("GET", "contoso-linux/status").json()["status"] == "canceled"
    assert client.offer("GET", "contoso-linux/slot/preview").status_code == 404
    never = client.offer("POST", "contoso-next/cancel")
    assert (never.status_code, never.headers.get("Location")) == (202, None)


def test_go_live_without_anything_new_is_refused(client: Client) -> None:
    assert "publish" in error(client.offer("POST", "contoso-next/golive"), 400)["message"]


def test_the_journal_has_every_request_and_no_secret(emulator: Emulator, client: Client) -> None:
    client.credential.get_token_info("https://cloudpartner.azure.com/.default", options={"claims": "{}"})
    client.offer("POST", "contoso-linux/golive")
    client.offer("POST", "contoso-linux/golive")
    client.offer("GET", "contoso-classic/status", headers={"Authorization": "Bearer wrong"})
    token, first, second, status = emulator.requests()
    login = emulator.connection["login"]
    assert token["path"].endswith("/oauth2/v2.0/token")
    assert (token["clientId"], token["status"], token["effect"]) == (login, 200, False)
    assert (first["clientId"], first["status"], first["effect"]) == (login, 202, True)
    assert first["query"] == "api-version=2017-10-31"
    assert (second["status"], second["effect"]) == (409, False)
    assert (status["clientId"], status["status"]) == (None, 401)
    assert [one["sequence"] for one in (token, first, second)] == sorted(
        one["sequence"] for one in (token, first, second)
    )
    assert emulator.requests(method="POST", path="golive$") == [first, second]
    text = str(emulator.requests())
    assert emulator.connection["password"] not in text
    assert str(client.headers["Authorization"]).split()[1] not in text


def test_the_journal_can_be_cleared(emulator: Emulator, client: Client) -> None:
    client.api("GET", "publishers")
    assert client.delete(f"{emulator.url}/_emulator/requests", timeout=10).json() == {"cleared": 1}
    assert emulator.requests() == []


def test_a_bad_regular_expression_is_refused(emulator: Emulator, client: Client) -> None:
    answer = client.get(f"{emulator.url}/_emulator/requests", params={"path": "("}, timeout=10)
    assert answer.status_code == 400


def test_the_overview_shows_every_offer(emulator: Emulator, client: Client) -> None:
    location = client.offer("POST", "contoso-classic/golive").headers["Location"]
    overview = emulator.offers()
    classic = overview["contoso/contoso-classic"]
    assert classic["status"] == "running"
    assert classic["slots"] == {"preview": 2, "production": None}
    assert classic["operations"][0]["location"] == location
    assert classic["operations"][0]["steps"][0]["status"] == "inProgress"
    assert overview["contoso/contoso-next"]["operations"] == []


def test_reset_returns_to_the_seed(emulator: Emulator, client: Client) -> None:
    client.offer("POST", "contoso-linux/golive")
    emulator.inject(status=500)
    emulator.reset()
    assert emulator.requests() == emulator.faults() == []
    assert emulator.offers()["contoso/contoso-linux"]["status"] == "waitingForPublisherReview"
