"""What the Airflow that the tests run on can't do, and so isn't tested there."""

from __future__ import annotations

import pytest

from dev.local_airflow import AIRFLOW

needs_airflow_3 = pytest.mark.skipif(AIRFLOW < (3, 0), reason="Airflow 2 has nothing of this kind")
needs_form = pytest.mark.skipif(
    AIRFLOW < (3, 1), reason="Airflow 3.0 asks the FAB provider what a form has, and 2.11 has another UI"
)
needs_approval = pytest.mark.skipif(AIRFLOW < (3, 1), reason="no Airflow before 3.1 asks for approval")
