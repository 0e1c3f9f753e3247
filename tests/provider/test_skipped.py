"""The log names the reason of a skip, because Airflow collapses its own line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException
from harness import Log, finish

from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
from airflow_provider_cpp.operators.cloud_partner import GoLiveOperator
from airflow_provider_cpp.sensors.cloud_partner import OperationSensor

if TYPE_CHECKING:
    from dev.emulator_process import Emulator


def test_the_log_says_that_the_offer_is_live(emulator: Emulator, context: dict[str, Any], log: Log) -> None:
    context["dag_run"].start_date = datetime.now(UTC) + timedelta(minutes=1)
    with pytest.raises(AirflowSkipException):
        GoLiveOperator(task_id="go_live", offer_id="live", if_live="skip").execute(context)
    assert log.containing("contoso/live: production has the preview's version already. Nothing to do.")


def test_the_log_names_the_failure_behind_a_soft_fail(
    emulator: Emulator, context: dict[str, Any], log: Log
) -> None:
    location = CloudPartnerHook().go_live("failing")
    task = OperationSensor(task_id="w", operation_location=location, soft_fail=True, poke_interval=0.05)
    with pytest.raises(AirflowSkipException):
        finish(task, context)
    assert log.containing("Skipped instead of failed: The operation on contoso/failing failed in step Live")
