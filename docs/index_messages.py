"""Sphinx extension: add error messages and error codes to the index, so that the search finds them.

Sphinx's search ignores numbers such as 403 in the text, but not in the index.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx import addnodes

if TYPE_CHECKING:
    from sphinx.application import Sphinx

PAGES = ("troubleshooting", "errors")
CODE = re.compile(r"\b(?:[45]\d\d|AADSTS\d+)\b")


def add_entries(app: Sphinx, document: nodes.document) -> None:
    """Add the code of the first column of each table, and all error codes of the row."""
    if app.env.docname not in PAGES:
        return
    for row in document.findall(nodes.row):
        cell = row[0]
        names = [literal.astext() for literal in cell.findall(nodes.literal)] + CODE.findall(row.astext())
        if names and isinstance(row.parent, nodes.tbody):
            anchor = f"index-{app.env.new_serialno('index')}"
            entries = [("single", name.replace(";", ","), anchor, "", None) for name in dict.fromkeys(names)]
            cell.insert(0, [addnodes.index(entries=entries), nodes.target("", "", ids=[anchor])])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("doctree-read", add_entries)
    return {"parallel_read_safe": True}
