"""An executor before whose gates a request stands, and what a refusal must be like."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.domain.errors import GateRefusedError
from executor.domain.sealed import SealedBytes
from executor.runner.executions import RefusedError
from executor.runner.ports import Standing
from executor.runner.requests import ExecuteInput
from gonogo import sealing
from gonogo.v1 import evidence_pb2
from tests.unit.executor.house import House


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """An executor with one workspace and two persons, where one approval is enough."""
    house = House(tmp_path)
    yield house
    house.close()


def refused(house: House, request: ExecuteInput) -> RefusedError:
    """Execute and see that nothing at all was done: the workspace, the ledger and the executioner are untouched."""
    before = house.files()
    with pytest.raises(RefusedError) as caught:
        house.execute(request)
    assert house.files() == before
    assert house.executioner.runs == []
    assert house.ledger.standing(request.named.mission_id) is Standing.FREE
    assert house.ledger.request(request.request_id) is None
    assert house.ledger.unfinished() == ()
    return caught.value


def reason(house: House, request: ExecuteInput) -> tuple[int, str]:
    """The gate and the reason of a refusal; gate 0 stands for a request that is not well formed."""
    error = refused(house, request)
    cause = error.cause
    told = sealing.open_sealed(error.refusal.body, evidence_pb2.Refusal)
    gate = cause.gate if isinstance(cause, GateRefusedError) else 0
    assert (told.gate, told.abort_reason, told.message, told.remedy) == (
        gate,
        error.fault.reason,
        error.fault.message,
        error.fault.remedy,
    )
    assert error.fault.remedy
    return gate, error.fault.reason


def approvals(request: ExecuteInput, *given: SealedBytes) -> ExecuteInput:
    return dataclasses.replace(request, approvals=given)
