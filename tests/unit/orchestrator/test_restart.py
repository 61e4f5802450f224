"""The queue, and what a new process makes of what the last one left."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.adapters.event_codec import JsonEventCodec
from orchestrator.bootstrap import open_log
from orchestrator.domain.errors import OrchestratorError, Reason
from orchestrator.domain.mission import Mission, MissionStatus
from orchestrator.service.ports import ExecutionOrder
from orchestrator.service.replay import replay
from tests.fakes.executor_simulator import ExecutorSimulator
from tests.fakes.orchestrator_house import House, request

S = MissionStatus


async def until(house: House, mission: Mission, status: MissionStatus) -> None:
    """Wait until a mission stands so."""
    async with asyncio.timeout(10):
        while house.mission(mission.mission_id).status is not status:  # noqa: ASYNC110 - a state is polled, not waited for
            await asyncio.sleep(0.001)


def order_of(house: House, mission: Mission) -> ExecutionOrder:
    return house.use.executions._order(mission.mission_id)


async def test_a_queued_mission_is_executed_by_the_dispatcher(house: House) -> None:
    """Detaching answers at once with the queued mission; approved goes through queued and active to completed."""
    mission = await house.approved()

    updates = await house.queue(mission)

    assert updates[-1].mission is not None
    assert updates[-1].mission.status is S.QUEUED
    await until(house, mission, S.COMPLETED)
    types = house.types(mission.mission_id)
    assert types[6:9] == ["mission_queued", "mission_started", "execution_started"]


async def test_a_mission_is_never_queued_twice(house: House, executor: ExecutorSimulator) -> None:
    """Another request is told that it waits; the same request gets its first answer."""
    mission, asked = await house.approved(), request()
    executor.away = True
    first = await house.queue(mission, asked)

    assert await house.queue(mission, asked) == first
    for attempt in (house.queue(mission), house.execute(mission)):
        with pytest.raises(OrchestratorError) as caught:
            await attempt
        assert caught.value.reason is Reason.ALREADY_CLAIMED
    executor.away = False
    await until(house, mission, S.COMPLETED)
    assert executor.calls.count("execute") >= 1
    assert house.types(mission.mission_id).count("mission_queued") == 1


async def test_a_workspace_s_missions_go_in_the_order_in_which_they_were_queued(
    house: House, executor: ExecutorSimulator
) -> None:
    """One at a time, first come first served, also when the executor was away at first."""
    missions = [await house.approved() for _ in range(3)]
    executor.base = 1
    executor.away = True
    for mission in missions:
        await house.queue(mission)
    executor.away = False

    await until(house, missions[0], S.COMPLETED)
    for mission in missions[1:]:
        await until(house, mission, S.PROPOSED)  # the first one's change is drift for the others

    order = [event.stream_id for event in house.log.read_all() if event.type in {"mission_started", "gate_refused"}]
    assert order == [f"mission/{mission.mission_id}" for mission in missions]


async def test_a_queued_mission_survives_a_restart(house: House, executor: ExecutorSimulator) -> None:
    """The next process drains what the last one left."""
    mission = await house.approved()
    executor.away = True
    await house.queue(mission)
    following = await house.reopen()
    executor.away = False

    await until(following, mission, S.COMPLETED)
    await following.close()


async def test_an_active_mission_is_taken_up_after_a_restart(house: House, executor: ExecutorSimulator) -> None:
    """Events that were written are not written again, the others are fetched, and the first caller can attach."""
    executor.gate_open.clear()
    mission, asked = await house.approved(), request()
    caller = asyncio.ensure_future(house.execute(mission, asked))
    await until(house, mission, S.ACTIVE)
    await asyncio.sleep(0.1)
    assert house.types(mission.mission_id)[-1] == "execution_started"
    following = await house.reopen()
    with pytest.raises((asyncio.CancelledError, OrchestratorError)):
        await caller
    attached = asyncio.ensure_future(following.execute(mission, asked))
    await asyncio.sleep(0.01)
    executor.gate_open.set()

    await until(following, mission, S.COMPLETED)
    assert (await attached)[-1].receipt is not None
    types = following.types(mission.mission_id)
    assert types.count("execution_started") == types.count("mission_started") == types.count("receipt_issued") == 1
    assert executor.calls.count("execute") == 1
    await following.close()


async def test_a_claim_that_was_never_heard_of_is_adopted(house: House, executor: ExecutorSimulator) -> None:
    """The log says approved, the executor has executed it: executing again brings its events and its receipt."""
    mission = await house.approved()
    executor.claim(order_of(house, mission))
    following = await house.reopen()

    updates = await following.execute(mission)

    assert updates[-1].mission is not None
    assert updates[-1].mission.status is S.COMPLETED
    assert len(following.types(mission.mission_id)) == 17
    await following.close()


async def test_what_the_executor_holds_is_neither_cancelled_nor_expired(
    house: House, executor: ExecutorSimulator
) -> None:
    """Before a waiting mission is given up, the executor is asked, and what it has done is written down."""
    cancelled, expired = await house.approved(), await house.approved()
    executor.base = 1
    executor.claim(order_of(house, cancelled))
    executor.base = 1
    executor.claim(order_of(house, expired))

    with pytest.raises(OrchestratorError) as caught:
        await house.use.executions.cancel(request(), cancelled.mission_id, "")
    house.clock.ahead = timedelta(hours=2)
    await house.use.dispatcher.sweep()

    assert caught.value.reason is Reason.ALREADY_CLAIMED
    await until(house, cancelled, S.COMPLETED)
    await until(house, expired, S.COMPLETED)


async def test_a_cancel_that_nobody_can_confirm_is_refused(house: House, executor: ExecutorSimulator) -> None:
    """With the executor away nobody knows whether it claimed the mission; it stays approved."""
    mission = await house.approved()
    executor.away = True

    with pytest.raises(OrchestratorError) as caught:
        await house.use.executions.cancel(request(), mission.mission_id, "")

    assert caught.value.reason is Reason.EXECUTOR_UNAVAILABLE
    assert house.mission(mission.mission_id).status is S.APPROVED


async def test_a_restart_in_the_middle_of_the_approvals_carries_on(house: House) -> None:
    """A mission that was proposed by one process is approved and executed by the next."""
    mission = await house.proposed()
    following = await house.reopen()

    approved = await following.approve(mission)
    updates = await following.execute(approved)

    assert updates[-1].receipt is not None
    await following.close()


async def test_folding_the_log_again_gives_the_same_rows(
    house: House, executor: ExecutorSimulator, tmp_path: Path
) -> None:
    """Replaying into an empty database gives byte-equal state, drift, failure and chat included."""
    await house.execute(await house.approved())
    drifted = await house.approved()
    executor.base += 1
    with pytest.raises(OrchestratorError):
        await house.execute(drifted)
    await house.say("help")
    await house.use.missions.reject(request(), drifted.mission_id, "no more")
    empty = open_log(tmp_path / "again" / "events.db")

    found = await replay(house.log, empty, JsonEventCodec())
    empty.close()

    assert found.equal
    assert (found.missions, found.events) == (2, house.log.head())


async def test_an_execution_that_the_executor_no_longer_knows_is_paused(
    house: House, executor: ExecutorSimulator
) -> None:
    """A ledger that lost a claimed mission leaves its outcome unknown, not failed and not active for ever."""
    executor.gate_open.clear()
    mission = await house.approved()
    caller = asyncio.ensure_future(house.execute(mission))
    await until(house, mission, S.ACTIVE)
    await asyncio.sleep(0.1)
    following = await house.reopen()
    with pytest.raises((asyncio.CancelledError, OrchestratorError)):
        await caller
    await following.close()
    executor.ledger.clear()
    last = House(following.folder, executor, following.approver)
    last.orchestrator.start()

    await until(last, mission, S.PAUSED)
    assert "can not be followed" in last.mission(mission.mission_id).reason
    await last.close()


async def test_feedback_during_a_run_keeps_the_log_in_order(house: House, executor: ExecutorSimulator) -> None:
    """What others write about an active mission carries what has happened before it."""
    executor.gate_open.clear()
    mission, asked = await house.approved(), request()
    caller = asyncio.ensure_future(house.execute(mission, asked))
    await until(house, mission, S.ACTIVE)
    await house.use.feedbacks.record(request(), mission.mission_id, None, "going well")
    executor.gate_open.set()
    await caller

    types = house.types(mission.mission_id)
    assert types[6:9] == ["mission_started", "execution_started", "feedback_recorded"]
    assert types[-1] == "mission_completed"
    assert (await house.execute(mission, asked))[-1].receipt is not None
