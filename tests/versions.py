"""Markers for tests that the installed Airflow version does not support."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from dev.local_airflow import AIRFLOW

needs_airflow_2 = pytest.mark.skipif(AIRFLOW >= (3, 0), reason="Airflow 3 has another UI")
needs_airflow_3 = pytest.mark.skipif(AIRFLOW < (3, 0), reason="Airflow 2 has nothing of this kind")
needs_form = pytest.mark.skipif(
    AIRFLOW < (3, 0) or (AIRFLOW < (3, 1) and not find_spec("flask_appbuilder")),
    reason="Airflow 3.0 shows the form's fields only with the FAB provider, and 2.11 has another form",
)
needs_test_connection = pytest.mark.skipif(
    AIRFLOW < (3, 1), reason="the UI of Airflow 3.0 tests no connection, and hides no proxies"
)
needs_approval = pytest.mark.skipif(AIRFLOW < (3, 1), reason="no Airflow before 3.1 asks for approval")
