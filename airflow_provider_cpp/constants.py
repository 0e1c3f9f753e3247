"""Names that Dag files, the release logic and Airflow's provider manager share; imports no other module."""

from typing import Literal

#: Connection type of `CloudPartnerHook`.
CONN_TYPE = "cloud_partner"
#: Connection id that operators, sensors and hook use by default.
DEFAULT_CONN_ID = "cloud_partner_default"

#: What a task does if a matching operation of another client is running.
IfRunning = Literal["adopt", "fail"]
