"""A local Cloud Partner Portal, for tests and rehearsals: run ``python -m airflow_provider_cpp.emulator``.

It is a second, independent reading of the service's API: nothing here is shared with the provider, so that
each checks the other. Needs the extra ``emulator``.
"""
