"""What the documentation shows is what the tests run."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = [file.read_text() for file in sorted((ROOT / "example_dags").glob("*.py"))]


def lines(code: str) -> str:
    return "\n".join(line.rstrip() for line in dedent(code).strip("\n").splitlines())


def test_every_piece_of_python_is_in_an_example_dag() -> None:
    shown = [
        code for page in PAGES for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    ]
    # An example's own indentation is lost by where it is shown.
    known = [re.sub(r"^ +", "", example, flags=re.MULTILINE) for example in EXAMPLES]
    assert shown
    for code in shown:
        wanted = re.sub(r"^ +", "", lines(code), flags=re.MULTILINE)
        assert any(wanted in example for example in known), code


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]*)(?:#[^)]*)?\)", page.read_text())
    assert [target for target in targets if target and not (page.parent / target).exists()] == []
