"""Version of the Airflow that runs, for behavior that depends on it."""

from __future__ import annotations

from airflow import __version__

_RELEASE = tuple(map(int, __version__.split(".")[:2]))

AIRFLOW_V_3_1_PLUS: bool = _RELEASE >= (3, 1)
AIRFLOW_V_3_3_PLUS: bool = _RELEASE >= (3, 3)
