from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from emulator_client import Client

from dev.emulator_process import Emulator, running_emulator

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def shared_emulator() -> Iterator[Emulator]:
    with running_emulator() as emulator:
        yield emulator


@pytest.fixture(scope="session")
def shared_client(shared_emulator: Emulator) -> Iterator[Client]:
    with Client(shared_emulator) as client:
        yield client


@pytest.fixture
def emulator(shared_emulator: Emulator, shared_client: Client) -> Emulator:
    """An emulator with the unchanged built-in seed, in real time, so that no operation makes progress."""
    shared_emulator.reset()
    return shared_emulator


@pytest.fixture
def client(emulator: Emulator, shared_client: Client) -> Client:
    return shared_client
