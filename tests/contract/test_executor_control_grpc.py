"""Controls over the wire: what a call says of an execution that waits, and how what does not fit is refused."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from executor.adapters.wire import sealed_to_proto
from executor.domain.control import PauseKind
from executor.entrypoints import grpc_service
from gonogo.v1 import events_pb2, evidence_pb2, executor_pb2, plan_pb2
from tests.contract.executor_server import Served, served
from tests.unit.executor.control_house import MISSION, ControlHouse

PAUSE, RESUME, RETRY, STOP = (
    events_pb2.CONTROL_ACTION_PAUSE,
    events_pb2.CONTROL_ACTION_RESUME,
    events_pb2.CONTROL_ACTION_RETRY,
    events_pb2.CONTROL_ACTION_STOP,
)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[ControlHouse]:
    """An executor on real files."""
    house = ControlHouse(tmp_path)
    yield house
    house.close()


@pytest.fixture
async def server(house: ControlHouse, tmp_path: Path) -> AsyncIterator[Served]:
    """The executor, served."""
    async with served(house.core, tmp_path / "state") as running:
        yield running


def asked(
    request_id: str, action: events_pb2.ControlAction.ValueType, **more: object
) -> executor_pb2.ControlExecutionRequest:
    """A control by the owner."""
    return executor_pb2.ControlExecutionRequest(
        request_id=request_id,
        mission_id=MISSION,
        action=action,
        actor="owner",
        **more,  # type: ignore[arg-type]  # fields of the message
    )


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The stable reason of a refused call."""
    status = rpc_status.from_call(error)
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return str(info.reason)


async def test_an_execution_that_waits_says_for_what(house: ControlHouse, server: Served) -> None:
    """State, pause and segment are in every answer about it, and in the stream as soon as it waits or goes on."""
    house.fails = {2: 1}
    house.begin(house.writing())
    pause = house.paused(PauseKind.FAILURE)
    async with server.stub() as stub:
        stream = stub.WatchExecution(executor_pb2.WatchExecutionRequest(mission_id=MISSION))
        first = await anext(aiter(stream))
        assert first.execution.state == executor_pb2.EXECUTION_STATE_PAUSED
        waits = first.execution.pause
        assert (waits.kind, waits.step_id, waits.reason) == (events_pb2.PAUSE_KIND_FAILURE, "s2", pause.reason)
        assert list(waits.actions) == [RETRY, STOP]
        assert waits.repairable
        assert waits.default_action == plan_pb2.PAUSE_DEFAULT_ROLL_BACK
        assert waits.deadline.ToDatetime(tzinfo=pause.deadline.tzinfo if pause.deadline else None) == pause.deadline
        assert waits.results_digest == pause.results_digest == first.events[-1].execution_paused.results_digest
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ControlExecution(asked("c-1", RESUME))
        assert (caught.value.code(), reason_of(caught.value)) == (grpc.StatusCode.FAILED_PRECONDITION, "STATE_FORBIDS")
        answer = await stub.ControlExecution(asked("c-2", RETRY, reason="once more"))
        assert answer.execution.state == executor_pb2.EXECUTION_STATE_RUNNING
        parts = [part async for part in stream]
        last = parts[-1]
        assert last.execution.state == executor_pb2.EXECUTION_STATE_ENDED
        assert last.execution.outcome == evidence_pb2.OUTCOME_SUCCESS
        again = await stub.ControlExecution(asked("c-2", RETRY, reason="once more"))
        assert again.execution.state == executor_pb2.EXECUTION_STATE_ENDED
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ControlExecution(asked("c-2", STOP))
        assert (caught.value.code(), reason_of(caught.value)) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_REUSED")


async def test_executions_that_wait_keep_nobody_from_ending_them(
    house: ControlHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All threads that execute are with missions that wait, for ever maybe; a control needs none of them."""
    monkeypatch.setattr(grpc_service, "RUNNERS", 1)
    house.fails = {2: 1}
    request = house.writing()
    async with served(house.core, tmp_path / "full") as running, running.stub() as stub:
        execute = executor_pb2.ExecuteRequest(
            request_id=request.request_id,
            mission_id=request.named.mission_id,
            intent_id=request.named.intent_id,
            workspace_id=request.named.workspace_id,
            executor_id=request.named.executor_id,
            plan=sealed_to_proto(request.plan),
            report=sealed_to_proto(request.report) if request.report else None,
            approvals=map(sealed_to_proto, request.approvals),
        )
        stream = stub.Execute(execute)
        async for part in stream:
            if part.execution.state == executor_pb2.EXECUTION_STATE_PAUSED:
                break
        await stub.ControlExecution(asked("c-1", STOP), timeout=5)
        parts = [part async for part in stream]
        assert parts[-1].execution.outcome == evidence_pb2.OUTCOME_PARTIAL


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"action": 0}, id="no action"),
        pytest.param({"action": 99}, id="an unknown action"),
        pytest.param({"mission_id": ""}, id="no mission"),
        pytest.param({"request_id": ""}, id="no request id"),
        pytest.param({"action": RESUME, "roll_back": True}, id="a resume that rolls back"),
        pytest.param({"action": events_pb2.CONTROL_ACTION_APPROVE_STEP}, id="no document"),
    ],
)
async def test_what_is_no_control_is_malformed(server: Served, changes: dict[str, Any]) -> None:
    """Before anything is looked up."""
    values = {"request_id": "c", "mission_id": MISSION, "action": STOP, **changes}
    async with server.stub() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ControlExecution(executor_pb2.ControlExecutionRequest(**values))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_nobody_but_the_orchestrator_controls(server: Served) -> None:
    """The caller is known by certificate."""
    async with server.stub("stranger") as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ControlExecution(asked("c-1", STOP))
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_mission_that_was_never_executed(server: Served) -> None:
    """There is nothing to control."""
    async with server.stub() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ControlExecution(asked("c-1", STOP))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
