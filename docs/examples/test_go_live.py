"""A test of a Dag against the emulator, for `docs/testing.md`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.models.dagbag import DagBag

if TYPE_CHECKING:
    from airflow_provider_cpp.emulator.testing import Emulator

pytest_plugins = ["airflow_provider_cpp.emulator.testing"]


def test_each_offer_goes_live_once(cloud_partner_emulator: Emulator) -> None:
    dag = DagBag("dags").dags["go_live"]
    assert dag.test().state == "success"
    requests = cloud_partner_emulator.requests(method="POST", path="golive$")
    assert [request["effect"] for request in requests] == [True, True, True]
