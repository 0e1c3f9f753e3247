"""What somebody who approves is shown."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_cpp.core.http import Response
from airflow_provider_cpp.exceptions import CloudPartnerError
from airflow_provider_cpp.portal import requests as portal

if TYPE_CHECKING:
    from airflow_provider_cpp.core.models import Offer
    from dev.emulator_process import Emulator

approving = pytest.importorskip("airflow_provider_cpp.release.approval", exc_type=RuntimeError)
LONGEST_LINE, MOST_LINES = approving.LONGEST_LINE, approving.MOST_LINES

CALL = portal.get_offer("contoso", "web")


def offer(version: int, definition: Any) -> Offer:
    body = json.dumps({"id": "web", "version": version, "definition": definition}).encode()
    return CALL.read(Response(200, {}, body))


def shown(before: Any, after: Any) -> str:
    return approving.describe_changes("contoso", "web", offer(4, after), offer(3, before))


def fenced(text: str) -> str:
    match = re.search(r"^(`{3,})diff\n(.*?)^\1$", text, re.DOTALL | re.MULTILINE)
    assert match
    return match[2]


def test_both_versions_the_preview_and_what_changes_are_shown() -> None:
    text = shown(
        {"displayText": "Web", "plans": [{"planId": "a"}]},
        {"displayText": "Web 2", "plans": [{"planId": "a"}]},
    )
    assert "- to go live: version 4\n- live now: version 3\n" in text
    assert "(https://azuremarketplace.microsoft.com/marketplace/apps/contoso.web-preview)" in text
    assert "-displayText: Web\n+displayText: Web 2\n plans:\n" in fenced(text)


def test_a_first_release_says_so_and_shows_all_of_it() -> None:
    text = approving.describe_changes("contoso", "web", offer(1, {"displayText": "Web"}), None)
    assert "live now: nothing; this is the first release" in text
    assert "+displayText: Web" in fenced(text)


def test_what_is_the_same_is_said_to_be_so() -> None:
    assert "The definition of the two is the same." in shown({"b": 1, "a": 2}, {"a": 2, "b": 1})


def test_a_long_difference_is_cut_and_says_that_it_was() -> None:
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


def test_the_signature_of_a_url_is_not_shown_but_that_it_changed_is() -> None:
    url = "https://contoso.blob.core.windows.net/web.vhd?sv=1&sig="
    text = shown({"osVhdUrl": f"{url}first%3D&se=2"}, {"osVhdUrl": f"{url}second&se=2"})
    marker = r"^[-+]osVhdUrl: .*[?&]sig=\*{3}redacted:[0-9a-f]{8}\*{3}"
    assert len(re.findall(marker, fenced(text), re.MULTILINE)) == 2
    assert "first" not in text
    assert "second" not in text


def test_letters_that_turn_a_line_around_are_spelled_out() -> None:
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
def test_no_text_of_an_offer_leaves_its_block(hostile: str) -> None:
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
def test_any_definition_can_be_shown_in_a_block_of_bounded_size(definition: Any) -> None:
    text = shown({"one": "thing"}, {"another": definition})
    assert len(text) < (MOST_LINES + 10) * (LONGEST_LINE + 60)
    assert "+another:" in fenced(text)


def test_what_has_no_version_can_not_be_approved(emulator: Emulator) -> None:
    emulator.inject(path="/slot/preview$", replace={"json": {"version": None}})
    with pytest.raises(CloudPartnerError, match="contoso/slow is in preview, so none can be approved"):
        approving.review.function("slow")


def test_what_is_live_is_not_asked_about(emulator: Emulator) -> None:
    with pytest.raises(AirflowSkipException, match="live already"):
        approving.review.function("live")
