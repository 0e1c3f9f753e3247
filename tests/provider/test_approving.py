"""The summary that an approver reads, and the tasks that request the approval."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_cpp.core.http import Response
from airflow_provider_cpp.exceptions import CloudPartnerError
from airflow_provider_cpp.portal import requests as portal
from airflow_provider_cpp.release.approval import LONGEST_LINE, MOST_LINES, describe_changes
from tests.versions import needs_approval

if TYPE_CHECKING:
    from harness import Log

    from airflow_provider_cpp.core.models import Offer
    from dev.emulator_process import Emulator

CALL = portal.get_offer("contoso", "web")


def offer(version: int, definition: Any) -> Offer:
    body = json.dumps({"id": "web", "version": version, "definition": definition}).encode()
    return CALL.read(Response(200, {}, body))


def shown(before: Any, after: Any) -> str:
    return describe_changes("contoso", "web", offer(4, after), offer(3, before))


def fenced(text: str) -> str:
    match = re.search(r"^(`{3,})diff\n(.*?)^\1$", text, re.DOTALL | re.MULTILINE)
    assert match
    return match[2]


def test_the_summary_has_both_versions_the_preview_and_a_diff() -> None:
    text = shown(
        {"displayText": "Web", "plans": [{"planId": "a"}]},
        {"displayText": "Web 2", "plans": [{"planId": "a"}]},
    )
    assert "- to go live: version 4\n- live now: version 3\n" in text
    assert "(https://azuremarketplace.microsoft.com/marketplace/apps/contoso.web-preview)" in text
    assert "-displayText: Web\n+displayText: Web 2\n plans:\n" in fenced(text)


def test_the_summary_of_a_first_release_shows_the_whole_offer() -> None:
    text = describe_changes("contoso", "web", offer(1, {"displayText": "Web"}), None)
    assert "live now: nothing; this is the first release" in text
    assert "+displayText: Web" in fenced(text)


def test_summary_reports_that_nothing_changes() -> None:
    assert "The definition of the two is the same." in shown({"b": 1, "a": 2}, {"a": 2, "b": 1})


def test_a_long_diff_is_shortened_with_a_note() -> None:
    text = shown({}, {f"key{number:04}": "x" * 1000 for number in range(MOST_LINES + 50)})
    kept = fenced(text).splitlines()
    assert len(kept) == MOST_LINES
    assert max(map(len, kept)) <= LONGEST_LINE + 1
    # The hunk's head and the "{}" that is gone come first.
    assert re.search(r"… and \d+ more lines, not shown\.", text)


def test_a_change_at_the_end_of_a_long_text_is_shown() -> None:
    for space in (" ", ""):
        long = space.join(["word"] * 500)
        text = shown({"description": f"{long} 9999 USD"}, {"description": f"{long} FREE"})
        assert "FREE" in fenced(text)
        assert "9999" in fenced(text)


def test_a_signature_is_redacted_but_its_change_is_visible() -> None:
    url = "https://contoso.blob.core.windows.net/web.vhd?sv=1&sig="
    text = shown({"osVhdUrl": f"{url}first%3D&se=2"}, {"osVhdUrl": f"{url}second&se=2"})
    marker = r"^[-+]osVhdUrl: .*[?&]sig=\*{3}redacted:[0-9a-f]{8}\*{3}"
    assert len(re.findall(marker, fenced(text), re.MULTILINE)) == 2
    assert "first" not in text
    assert "second" not in text


def test_characters_that_reverse_text_are_escaped() -> None:
    assert r"\u202e" in shown({}, {"name": "paid \u202e eerf"})


@pytest.mark.parametrize(
    "hostile",
    [
        "```\n# Approve!\n```",
        "````",
        "<script>alert(1)</script>",
        "![](https://evil.example/x.png)",
        "`" * 40,
    ],
)
def test_text_of_an_offer_stays_inside_the_code_block(hostile: str) -> None:
    text = shown({"description": "plain"}, {"description": hostile, "z": 1})
    inside = fenced(text)
    assert "+z: 1" in inside
    assert hostile.split("\n")[0][:20] in inside
    assert text.replace(inside, "").count("evil") == text.replace(inside, "").count("<script") == 0


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    )
)
def test_the_summary_of_any_definition_has_a_size_limit(definition: Any) -> None:
    text = shown({"one": "thing"}, {"another": definition})
    assert len(text) < (MOST_LINES + 10) * (LONGEST_LINE + 60)
    assert "+another:" in fenced(text)


@needs_approval
def test_review_pushes_the_version_the_offer_and_the_subject(
    emulator: Emulator, context: dict[str, Any]
) -> None:
    summary = review("update", context)
    assert (summary["version"], summary["offer"]) == (4, "contoso/update")
    assert summary["subject"] == "Go live with version 4 of contoso/update?"
    assert context["ti"].xcoms.items() >= summary.items()


@needs_approval
def test_a_preview_without_a_version_is_not_approved(emulator: Emulator, context: dict[str, Any]) -> None:
    emulator.inject(path="/slot/preview$", replace={"json": {"version": None}})
    with pytest.raises(CloudPartnerError, match=r"contoso/slow: .* no version can be approved"):
        review("slow", context)


@needs_approval
def test_a_live_version_is_not_reviewed(emulator: Emulator, context: dict[str, Any]) -> None:
    with pytest.raises(AirflowSkipException, match=r"contoso/live: version .* is live already"):
        review("live", context)


@needs_approval
@pytest.mark.parametrize("chosen", ["Approve", "Reject"])
def test_log_names_the_approver_and_the_choice(chosen: str, context: dict[str, Any], log: Log) -> None:
    from airflow_provider_cpp.operators.approval import OfferApprovalOperator

    task = OfferApprovalOperator(task_id="t", subject="Go live?", body="", version=4, offer="contoso/web")
    event = {
        "chosen_options": [chosen],
        "params_input": {},
        "responded_at": datetime.now(UTC),
        "responded_by_user": {"id": "1", "name": "ada"},
    }
    with pytest.raises(AirflowSkipException) if chosen == "Reject" else nullcontext():
        task.execute_complete(context, event)
    assert log.containing(f"Go live? Answered by ada: {chosen}.")
    assert task.get_template_env().from_string(task.map_index_template).render(task=task) == "contoso/web"


def review(offer_id: str, context: dict[str, Any]) -> Any:
    from airflow_provider_cpp.operators.approval import ReviewOperator

    return ReviewOperator(task_id="review", offer_id=offer_id).execute(context)
