"""Programs that keep running, listed and stopped over the wire."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from executor.runner.live_processes import Processes
from gonogo.v1 import executor_pb2
from tests.contract.executor_server import Served, served
from tests.unit.executor.house import House
from tests.unit.executor.program_house import ProgramHouse, program_house, ready_when, shell

pytestmark = pytest.mark.sandbox


class WithProcesses(House):
    """A house whose executor keeps programs."""

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.processes = processes
        super().__init__(folder)

    def more_parts(self) -> dict[str, Any]:
        return {"processes": self.processes}


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[ProgramHouse]:
    (tmp_path / "programs").mkdir()
    with program_house(tmp_path / "programs") as found:
        yield found


@pytest_asyncio.fixture
async def server(programs: ProgramHouse, tmp_path: Path) -> AsyncIterator[Served]:
    (tmp_path / "house").mkdir()
    house = WithProcesses(tmp_path / "house", programs.processes)
    async with served(house.core, tmp_path / "house") as server:
        yield server
    house.close()


async def test_a_program_is_listed_and_stopped(server: Served, programs: ProgramHouse) -> None:
    """The list tells what runs and how it ended; stopping it again by the same request changes nothing."""
    programs.perform(shell("echo ready; sleep 60", keep=ready_when(output="ready")))
    async with server.stub() as stub:
        (one,) = (await stub.ListProcesses(executor_pb2.ListProcessesRequest(mission_id="m-1"))).processes
        assert (one.running, one.ended, one.step_id, one.workspace_id) == (True, "", "s1", "site")
        assert one.started_at.seconds > 0
        assert not (await stub.ListProcesses(executor_pb2.ListProcessesRequest(mission_id="m-2"))).processes
        request = executor_pb2.StopProcessRequest(request_id="r-1", process_id=one.process_id, actor="alice")
        stopped = (await stub.StopProcess(request)).process
        assert (stopped.running, stopped.ended) == (False, "ended by signal 15, stopped by alice")
        assert (await stub.StopProcess(request)).process == stopped
        assert list((await stub.ListProcesses(executor_pb2.ListProcessesRequest())).processes) == [stopped]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (executor_pb2.StopProcessRequest(request_id="r-1", process_id="none", actor="a"), grpc.StatusCode.NOT_FOUND),
        (executor_pb2.StopProcessRequest(process_id="none", actor="a"), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_what_can_not_be_stopped(
    server: Served, request_: executor_pb2.StopProcessRequest, code: grpc.StatusCode
) -> None:
    """An unknown program and a request without an id are refused."""
    async with server.stub() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.StopProcess(request_)
    assert caught.value.code() is code


async def test_only_orchestrators_ask(server: Served) -> None:
    """Who is not in the trust file neither sees nor stops anything."""
    async with server.stub("stranger") as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ListProcesses(executor_pb2.ListProcessesRequest())
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
