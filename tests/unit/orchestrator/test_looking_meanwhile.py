"""Looking at a mission while what happened to it is being written down."""

import asyncio

import pytest

from orchestrator.domain import events as ev
from orchestrator.service.event_log import Append, Appended
from tests.fakes.orchestrator_house import House


async def test_a_mission_whose_end_is_being_written_can_be_looked_at(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow or full disk of ours keeps nobody from seeing the mission; the receipt is there once it is written."""
    mission = await house.approved()
    writing, go_on, append = asyncio.Event(), asyncio.Event(), house.log.append

    async def slow(wanted: Append) -> Appended:
        if any(event.type == ev.TYPES[ev.ReceiptIssued] for event in wanted.events):
            writing.set()
            await go_on.wait()
        return await append(wanted)

    monkeypatch.setattr(house.log, "append", slow)
    running = asyncio.ensure_future(house.execute(mission))
    async with asyncio.timeout(10):
        await writing.wait()
    assert house.use.missions.file(mission.mission_id).receipt is None
    assert (await house.use.exports.export(mission.mission_id)).file.receipt is None
    go_on.set()
    await running
    assert house.use.missions.file(mission.mission_id).receipt is not None
