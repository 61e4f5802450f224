"""Fixtures for the orchestrator's use cases."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.executor_simulator import Approver, ExecutorSimulator
from tests.fakes.orchestrator_house import House


@pytest.fixture
def approver() -> Approver:
    return Approver()


@pytest.fixture
def executor(approver: Approver) -> ExecutorSimulator:
    return ExecutorSimulator(approver)


@pytest.fixture
async def house(tmp_path: Path, executor: ExecutorSimulator, approver: Approver) -> AsyncIterator[House]:
    opened = House(tmp_path, executor, approver)
    yield opened
    await opened.close()
