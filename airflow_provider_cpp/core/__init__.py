"""Models, errors and polling: no Airflow, no I/O, no service."""
