"""What this provider's sensor hands to the triggerer, so that its defaults needn't be repeated here."""

from __future__ import annotations

import json
import sys

from tests.benchmarks.clients import LOCATION


def main() -> None:
    """Execute a sensor with its defaults up to its deferral, and print class path and arguments."""
    from airflow.providers.common.compat.sdk import TaskDeferred

    from airflow_provider_cpp.sensors.cloud_partner import OperationSensor

    location = LOCATION.format("first", "56615b67-2185-49fe-80d2-c4ddf77bb2e8")
    sensor = OperationSensor(task_id="wait", operation_location=location)
    try:
        sensor.execute({})
    except TaskDeferred as deferred:
        sys.stdout.write(json.dumps(deferred.trigger.serialize()) + "\n")


if __name__ == "__main__":
    main()
