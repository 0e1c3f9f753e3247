"""Configuration of Sphinx for `make docs`. Needs no network."""

from __future__ import annotations

import inspect
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from docutils import nodes
from sphinx import addnodes
from sphinx.util.inspect import stringify_signature

# Use the package of this checkout, and an Airflow without configuration.
sys.path.insert(0, str(Path(__file__).parent.parent))
_home = tempfile.TemporaryDirectory(prefix="airflow-home-")
os.environ["AIRFLOW_HOME"] = _home.name

# ruff: noqa: E402 - Airflow reads its settings when it is imported
from airflow_provider_cpp import __version__, task_groups
from airflow_provider_cpp.core.polling import Until
from airflow_provider_cpp.operators.base import IfDone
from airflow_provider_cpp.release.submission import IfRunning

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "airflow-provider-cpp"
author = "the contributors of airflow-provider-cpp"
project_copyright = "the contributors of airflow-provider-cpp, Apache License 2.0"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "examples"]
# In docstrings, text in single backticks is code.
default_role = "code"
highlight_language = "none"
myst_heading_anchors = 3
suppress_warnings = ["config.cache"]

html_theme = "furo"
html_title = f"airflow-provider-cpp {__version__}"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_copy_source = False
html_show_sourcelink = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100

# Names that Sphinx cannot resolve without a network, or that are not public: Airflow, the standard library,
# names for type checkers only.
nitpick_ignore_regex = [
    ("py:.*", r"(airflow|aiohttp|requests|datetime|collections|typing|types|enum)\..*"),
    (
        "py:.*",
        r"airflow_provider_cpp\.(core|portal|transport|release|triggers|hooks)\.(.*\.)?(_.*|Request|Response|T|Settings)",
    ),
    (
        "py:.*",
        r"(Any|Callable|Change|Connection|Context|IfDone|IfRunning|Iterable|Json|Mapping|Sequence|Until)",
    ),
    (
        "py:.*",
        r"(T|date|datetime|timedelta|requests\.Session|AsyncIterator|TriggerEvent|ClassVar|PollSpec|Progress)",
    ),
]


# The documentation shows these type aliases in full.
_ALIASES = {
    name: f"Literal[{', '.join(map(repr, get_args(choices)))}]"
    for name, choices in {"IfDone": IfDone, "IfRunning": IfRunning, "Until": Until}.items()
} | {"Change": "Mapping[str, Any] | Callable[..., Any] | str"}


def _as_function() -> object:
    """Return a function with the signature of the instance `release_offer`."""

    def release_offer() -> None: ...

    offer, publisher, *options = inspect.signature(task_groups._release).parameters.values()
    group_id = inspect.Parameter(
        "group_id", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="str | None"
    )
    options.insert(1, group_id)
    release_offer.__signature__ = inspect.Signature([offer, publisher, *options])  # type: ignore[attr-defined]
    release_offer.__doc__ = task_groups.release_offer.__doc__
    release_offer.__module__ = task_groups.__name__
    return release_offer


def _with_inherited(_: Sphinx, what: str, __: str, its: Any, *___: Any) -> tuple[str, None] | None:
    """Return the signature of an operator or sensor including the arguments of its base classes."""
    if what != "class" or not its.__module__.startswith(
        ("airflow_provider_cpp.op", "airflow_provider_cpp.se")
    ):
        return None
    found: dict[str, inspect.Parameter] = {}
    ours = [
        base
        for base in its.__mro__
        if base.__module__.startswith("airflow_provider_cpp.") and "__init__" in vars(base)
    ]
    for base in reversed(ours):
        found |= inspect.signature(base).parameters
    keywords = [
        parameter.replace(annotation=_ALIASES.get(parameter.annotation, parameter.annotation))
        for parameter in found.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    keywords.sort(key=lambda parameter: parameter.default is not inspect.Parameter.empty)
    return stringify_signature(inspect.Signature([*keywords, found["kwargs"]])), None


task_groups.release_offer = _as_function()  # type: ignore[assignment]


def _index_messages(app: Sphinx, document: nodes.document) -> None:
    """Add messages, error codes and exceptions in the first column of tables to the index.

    Sphinx's search ignores numbers in the text, but not in the index.
    """
    if app.env.docname not in ("troubleshooting", "errors"):
        return
    for row in document.findall(nodes.row):
        cell = row[0]
        names = [code.astext() for code in cell.findall(nodes.literal)]
        names += re.findall(r"\b(?:[45]\d\d|AADSTS\d+)\b", row.astext())
        if isinstance(row.parent, nodes.tbody) and names:
            anchor = f"index-{app.env.new_serialno('index')}"
            entries = [("single", name.replace(";", ","), anchor, "", None) for name in dict.fromkeys(names)]
            cell.insert(0, [addnodes.index(entries=entries), nodes.target("", "", ids=[anchor])])


def setup(app: Sphinx) -> None:
    """Register the handlers for signatures and the index."""
    app.connect("autodoc-process-signature", _with_inherited)
    app.connect("doctree-read", _index_messages)
