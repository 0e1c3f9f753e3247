"""Names that Dag files and Airflow's provider manager need; imports nothing."""

#: Connection type of `CloudPartnerHook`.
CONN_TYPE = "cloud_partner"
#: Connection id that operators, sensors and hook use by default.
DEFAULT_CONN_ID = "cloud_partner_default"
