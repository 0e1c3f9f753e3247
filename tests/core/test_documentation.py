"""What the documentation shows is what the tests run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = [file.read_text() for file in sorted((ROOT / "example_dags").glob("*.py"))]


def lines(code: str) -> str:
    """Code without what depends on where it is shown: its indentation and its blank lines."""
    return "\n".join(filter(None, (line.strip() for line in code.splitlines())))


def test_every_piece_of_python_is_in_an_example_dag() -> None:
    shown = [
        code for page in PAGES for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    ]
    assert shown
    for code in shown:
        assert any(lines(code) in lines(example) for example in EXAMPLES), code


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]*)(?:#[^)]*)?\)", page.read_text())
    assert [target for target in targets if target and not (page.parent / target).exists()] == []
