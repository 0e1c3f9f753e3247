"""How Sphinx builds this documentation: `make docs`. It needs no network."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

# Import the package from this repository, and Airflow with its default configuration.
sys.path.insert(0, str(Path(__file__).parent.parent))
_home = tempfile.TemporaryDirectory(prefix="airflow-home-")
os.environ["AIRFLOW_HOME"] = _home.name

# ruff: noqa: E402 - Airflow reads its settings when it is imported
from airflow_provider_cpp import __version__

project = "airflow-provider-cpp"
author = "the contributors of airflow-provider-cpp"
project_copyright = "the contributors of airflow-provider-cpp, Apache License 2.0"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "docs.index_messages"]
exclude_patterns = ["_build", "examples"]
# In docstrings, `single backticks` mark code.
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

# Sphinx cannot resolve these names: names of Airflow and of the standard library, names that only type
# checkers import, and names that are not public.
nitpick_ignore_regex = [
    ("py:.*", r"(airflow|aiohttp|requests|datetime|collections|typing|types|enum)\..*"),
    (
        "py:.*",
        r"airflow_provider_cpp\.(core|portal|transport|release|triggers|hooks)\.(.*\.)?(_.*|Request|Response|T|Settings)",
    ),
    (
        "py:.*",
        r"(AirflowOptionalProviderFeatureException|Any|Callable|Change|Connection|Context|IfDone|IfRunning|Iterable|Json|Mapping|Sequence|Slot|TaskGroup|Until|XComArg)",
    ),
    (
        "py:.*",
        r"(T|date|datetime|timedelta|requests\.Session|AsyncIterator|TriggerEvent|ClassVar|PollSpec|Progress)",
    ),
]
