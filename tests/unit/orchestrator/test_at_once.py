"""Two callers at once: what one of them decided is not overtaken by what the other begins meanwhile."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from gonogo.v1 import evidence_pb2
from orchestrator.domain import events as ev
from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.mission import Mission, MissionStatus
from orchestrator.service import recorder
from orchestrator.service.event_log import Append, Appended
from orchestrator.service.ports import ExecutionUpdate
from tests.fakes.executor_simulator import ExecutorSimulator
from tests.fakes.orchestrator_house import House, request

S = MissionStatus
OUTPUT = ev.StepOutput(step_id="s1", stream=ev.OutputStream.STDOUT, text="line\n")


@asynccontextmanager
async def slow_disk(house: House, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[asyncio.Event]:
    """Hold back every write of the log for as long as the block takes; what is yielded tells that one waits."""
    written, waits, write = asyncio.Event(), asyncio.Event(), house.log.append

    async def held_back(append: Append) -> Appended:
        waits.set()
        await written.wait()
        return await write(append)

    monkeypatch.setattr(house.log, "append", held_back)
    try:
        yield waits
    finally:
        written.set()


async def cancelled(house: House, mission: Mission) -> None:
    await house.use.executions.cancel(request(), mission.mission_id, "never mind")


async def denied(house: House, mission: Mission) -> None:
    report = house.use.dry_runs.report_of(mission)
    denial = house.approver.approve(report, decision=evidence_pb2.DECISION_DENY)
    await house.use.approvals.approve(request(), mission.mission_id, denial)


@pytest.mark.parametrize("end", [cancelled, denied])
async def test_what_is_being_given_up_is_not_handed_over(
    house: House, executor: ExecutorSimulator, monkeypatch: pytest.MonkeyPatch, end: Callable[[House, Mission], Any]
) -> None:
    """While a cancellation or a denial is on its way to the disk, an execution that is asked for does not begin."""
    mission = await house.approved()
    async with slow_disk(house, monkeypatch) as waits:
        ending = asyncio.ensure_future(end(house, mission))
        await waits.wait()
        executing = asyncio.ensure_future(house.execute(mission))
        await asyncio.sleep(0.02)
    await ending
    with pytest.raises(OrchestratorError):
        await executing

    assert house.mission(mission.mission_id).status in {S.CANCELLED, S.REJECTED}
    assert "execute" not in executor.calls
    assert not house.use.executions.runs


async def test_what_is_being_handed_over_is_not_given_up(
    house: House, executor: ExecutorSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other way round: what has begun first goes on, and who cancels is told so."""
    mission = await house.approved()
    executor.gate_open.clear()
    executing = asyncio.ensure_future(house.execute(mission))
    await asyncio.sleep(0)
    with pytest.raises(OrchestratorError):
        await cancelled(house, mission)
    executor.gate_open.set()
    await executing

    assert house.mission(mission.mission_id).status is S.COMPLETED


def poison(mission: Mission, sequence: int, payload: ev.Payload) -> ExecutionUpdate:
    event = ev.Event(
        event_id="e-poison",
        mission_id=mission.mission_id,
        sequence=sequence,
        time=datetime.now(UTC),
        actor=mission.executor_id,
        payload=payload,
    )
    return ExecutionUpdate(events=(event,), resume_token=str(sequence))


async def test_an_event_that_can_not_be_written_leaves_no_mission_without_a_way_on(
    house: House, executor: ExecutorSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is paused and says why; when the executor tells something that can be written, it goes on from there."""
    mission, watch = await house.approved(), executor._stream
    large = ev.DivergenceDetected(step_id="s1", details=("x" * (2 << 20),))

    async def poisoned(held: Any, after: int) -> AsyncGenerator[ExecutionUpdate, None]:
        yield ExecutionUpdate(events=tuple(held.events[:1]), resume_token="1")
        yield poison(mission, 2, large)
        await asyncio.sleep(0.1)
        yield ExecutionUpdate(receipt=held.receipt, events=(), resume_token="2")

    monkeypatch.setattr(executor, "_stream", poisoned)
    with pytest.raises(ValueError, match="data must be"):
        await house.execute(mission)

    stands = house.mission(mission.mission_id)
    assert (stands.status, stands.executor_events) == (S.PAUSED, 0)
    assert "can not be followed" in stands.reason
    monkeypatch.setattr(executor, "_stream", watch)
    house.use.executions.take_up(stands)
    async with asyncio.timeout(5):
        while not house.mission(mission.mission_id).has_ended:  # noqa: ASYNC110 - a state is polled, not waited for
            await asyncio.sleep(0.001)
    assert house.mission(mission.mission_id).status is S.COMPLETED


async def test_a_long_execution_is_not_held_in_memory(
    house: House, executor: ExecutorSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who follows from the beginning reads what is behind from the log, and misses and doubles nothing."""
    mission, asked, stream = await house.approved(), request(), executor._stream

    async def long(held: Any, after: int) -> AsyncGenerator[ExecutionUpdate, None]:
        if not after:
            first, *rest = held.events
            said = [replace(first, sequence=at, payload=OUTPUT) for at in range(2, 5_002)]
            moved = [replace(event, sequence=event.sequence + 5_000) for event in rest]
            held.events = [first, *said, *moved]
        async for update in stream(held, after):
            yield update

    monkeypatch.setattr(executor, "_stream", long)
    monkeypatch.setattr(recorder, "MAX_WAITING", 1_000)
    updates = [update async for update in house.use.executions.execute(asked, mission.mission_id)]
    again = [update async for update in house.use.executions.execute(asked, mission.mission_id)]

    told = [event for update in updates for event in update.events]
    assert [event.sequence for event in told] == list(range(7, 7 + len(told)))
    assert told == house.events(mission.mission_id)[6:]
    assert [event for update in again for event in update.events] == told
    assert len(again) > 5
    assert [update.mission is None for update in again] == [True] * (len(again) - 1) + [False]
