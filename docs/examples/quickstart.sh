#!/usr/bin/env bash
# The first release, as docs/quickstart.md prints it; tests/core/test_documentation.py runs it.
set -euo pipefail

# [START emulator]
mkdir -p first-release/dags
cd first-release
python -m airflow_provider_cpp.emulator --time-scale 12000 \
    --state rehearsal.json > connection.json &
while kill -0 $! && ! test -s connection.json; do sleep 1; done
# [END emulator]
trap 'kill $(jobs -p); wait' EXIT

# [START settings]
export AIRFLOW_HOME="$PWD/airflow"
export AIRFLOW__CORE__DAGS_FOLDER="$PWD/dags"
export AIRFLOW__CORE__LOAD_EXAMPLES=False
AIRFLOW_CONN_CLOUD_PARTNER_DEFAULT="$(cat connection.json)"
export AIRFLOW_CONN_CLOUD_PARTNER_DEFAULT
airflow db migrate
# [END settings]

# [START release]
cp "$EXAMPLE_DAGS/go_live.py" dags/
airflow dags test go_live
# [END release]

# [START evidence]
curl --silent --cacert rehearsal.json.tls/ca.pem \
    'https://localhost:8443/_emulator/requests?method=POST&path=golive$' | python -m json.tool
# [END evidence]
