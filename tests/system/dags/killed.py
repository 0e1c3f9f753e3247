"""Go-lives whose worker process is killed in its first attempt; the run's conf names the offer."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import dag, task

from airflow_provider_cpp.operators.cloud_partner import GoLiveOperator

OFFER = "{{ params.offer }}"
RETRIES = {"retries": 2, "retry_delay": timedelta(seconds=1)}


def die_once(context: Any, result: Any) -> None:
    """Kill this process after `execute` and before the XCom, in the first attempt."""
    if context["ti"].try_number == 1:
        os.kill(os.getpid(), signal.SIGKILL)


@task
def announce(what: Any) -> Any:
    """Return the Location from the previous task."""
    return what


@dag(schedule=None, params={"offer": ""}, default_args=RETRIES)
def killed_before_xcom() -> None:
    """Go live, and lose the process between the response and the XCom."""
    announce(GoLiveOperator(task_id="go_live", offer_id=OFFER, post_execute=die_once).output)


@dag(schedule=None, params={"offer": ""}, default_args=RETRIES)
def killed_in_request() -> None:
    """Go live; a test kills the process while it waits for the response."""
    announce(GoLiveOperator(task_id="go_live", offer_id=OFFER).output)


killed_before_xcom()
killed_in_request()
