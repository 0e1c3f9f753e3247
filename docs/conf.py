"""How Sphinx builds this documentation: `make docs`. It needs no network."""

from __future__ import annotations

import inspect
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from sphinx.util.inspect import stringify_signature

# The package as it is here, whatever is installed; and Airflow as it is when nobody has set it up.
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

extensions = ["myst_parser", "sphinx.ext.autodoc", "docs.index_messages"]
exclude_patterns = ["_build", "examples"]
# In docstrings, `what stands in single backticks` is code.
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

# Sphinx asks nobody else what these are: names of Airflow and of the standard library, names that are only
# there for type checkers, and what isn't part of the public surface.
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


# The source has names for these; users write what they stand for.
_ALIASES = {
    name: f"Literal[{', '.join(map(repr, get_args(choices)))}]"
    for name, choices in {"IfDone": IfDone, "IfRunning": IfRunning, "Until": Until}.items()
} | {"Change": "Mapping[str, Any] | Callable[..., Any] | str"}


def _as_function() -> object:
    """Return `release_offer` as the function that users take it for: an instance has no signature to show."""

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
    """Return the signature of an operator or sensor with what it hands on to those that it builds on."""
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


def setup(app: Sphinx) -> None:
    """Let autodoc show what users give."""
    app.connect("autodoc-process-signature", _with_inherited)
