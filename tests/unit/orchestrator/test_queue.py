"""Whose turn it is, and what a mission that waits is waiting for."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain import events as ev
from orchestrator.domain.errors import ExecutorRefusedError, OrchestratorError, Reason
from orchestrator.domain.events import ControlAction
from orchestrator.domain.mission import Mission, MissionStatus
from orchestrator.domain.queue import Line, QueueWish, Waiting
from orchestrator.service.controlling import Wish
from tests.fakes.executor_simulator import ExecutorSimulator
from tests.fakes.orchestrator_house import House, request

S = MissionStatus
NOW = datetime(2026, 3, 1, tzinfo=UTC)
PAUSE = ev.ExecutionPaused(reason="a step failed", kind=ev.PauseKind.FAILURE)


def waiting(name: str, tenant: str = "ann", priority: int = 0, after: int = 0, not_before: int = 0) -> Waiting:
    return Waiting(
        mission_id=name,
        objective="",
        workspace_id="site",
        tenant=tenant,
        priority=priority,
        queued_at=NOW + timedelta(seconds=after),
        not_before=NOW + timedelta(seconds=not_before) if not_before else None,
    )


def line(*members: Waiting) -> Line:
    made = Line()
    for one in members:
        made.put(one)
    return made


def drained(made: Line, now: datetime = NOW) -> list[str]:
    """Serve a line one by one, as the dispatcher does."""
    served = []
    while (first := made.first(now)) is not None:
        made.drop(first.mission_id)
        made.serve(first.tenant)
        served.append(first.mission_id)
    return served


def test_a_flood_of_one_tenant_is_one_turn_in_the_round() -> None:
    """Three callers take turns, however many missions the first has queued before the others came."""
    flood = [waiting(f"a{number}", after=number) for number in range(4)]
    others = [waiting("b0", "bob", after=10), waiting("b1", "bob", after=11), waiting("c0", "cid", after=12)]

    assert drained(line(*flood, *others)) == ["a0", "b0", "c0", "a1", "b1", "a2", "a3"]


def test_who_was_served_is_remembered_when_others_join() -> None:
    """A tenant whose turn it just was waits for a newcomer's."""
    made = line(waiting("a0"), waiting("a1", after=1))
    first = made.first(NOW)
    assert first is not None
    made.drop(first.mission_id)
    made.serve(first.tenant)
    made.put(waiting("b0", "bob", after=9))

    assert drained(made) == ["b0", "a1"]


def test_a_higher_priority_comes_first_and_a_later_beginning_last() -> None:
    """Priority is before fairness; what is not to begin yet has no turn, and its place is behind."""
    made = line(
        waiting("low", priority=-5), waiting("b", "bob"), waiting("high", priority=7), waiting("x", not_before=60)
    )

    assert [one.mission_id for one in made.order(NOW)] == ["high", "b", "low", "x"]
    assert drained(made) == ["high", "b", "low"]
    assert drained(made, NOW + timedelta(seconds=60)) == ["x"]


members = st.builds(
    lambda number, tenant, priority, not_before: waiting(f"m{number}", tenant, priority, number, not_before),
    st.integers(0, 40),
    st.sampled_from(["ann", "bob", "cid", "dan"]),
    st.integers(-2, 2),
    st.sampled_from([0, 0, 0, 100]),
)


@given(st.lists(members, unique_by=lambda one: one.mission_id))
def test_the_order_that_is_shown_is_the_order_in_which_they_go(some: list[Waiting]) -> None:
    """Showing and serving agree; priorities never rise, and of equal ones no tenant has two turns more than another."""
    shown = [one for one in line(*some).order(NOW) if one.ready(NOW)]

    assert drained(line(*some)) == [one.mission_id for one in shown]
    assert [line(*some).position(one.mission_id, NOW) for one in line(*some).order(NOW)] == [*range(1, len(some) + 1)]
    positions = line(*some).positions(["nobody", *(one.mission_id for one in some)], NOW)
    assert positions == {one.mission_id: at for at, one in enumerate(line(*some).order(NOW), 1)}
    assert [one.priority for one in shown] == sorted((one.priority for one in shown), reverse=True)
    for priority in {one.priority for one in shown}:
        turns = [one.tenant for one in shown if one.priority == priority]
        for tenant in set(turns):
            places = [place for place, one in enumerate(turns) if one == tenant]
            for before, after in pairwise(places):
                between = turns[before + 1 : after]
                assert len(between) == len(set(between))


def test_who_can_not_be_handed_over_is_behind_the_others_until_one_was() -> None:
    """One mission that fails each time costs the others a moment, and not their turn."""
    made = line(waiting("stuck"), waiting("a", after=1), waiting("b", after=2), waiting("later", not_before=60))
    made.set_back("stuck")
    assert [one.mission_id for one in made.order(NOW)] == ["a", "b", "stuck", "later"]
    assert [made.position(one, NOW) for one in ("a", "stuck", "later")] == [1, 3, 4]

    made.drop("a")
    made.serve("ann")
    assert [one.mission_id for one in made.order(NOW)] == ["stuck", "b", "later"]
    made.set_back("stuck")
    assert drained(made) == ["b", "stuck"]


def test_nobody_begins_too_early_when_the_clock_is_set_back() -> None:
    """What might have begun a moment ago waits again for its time."""
    made = line(waiting("x", not_before=60))
    assert made.first(NOW + timedelta(seconds=61)) is not None

    assert made.first(NOW) is None
    assert drained(made, NOW + timedelta(seconds=60)) == ["x"]


def test_a_long_line_is_looked_at_in_little_time() -> None:
    """Ten thousand missions of one workspace: each joins, is told its place and is served."""
    began = time.monotonic()
    made = Line()
    for number in range(10_000):
        mission = waiting(f"m{number:05}", f"t{number % 50}", after=number)
        made.put(mission)
        assert made.position(mission.mission_id, NOW) > 0
    assert len(drained(made)) == 10_000

    assert time.monotonic() - began < 5


async def until(ready: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not ready():  # noqa: ASYNC110 - a state is polled, not waited for
            await asyncio.sleep(0.001)


def stands(house: House, mission: Mission, status: MissionStatus) -> Callable[[], bool]:
    return lambda: house.mission(mission.mission_id).status is status


async def queued(house: House, mission: Mission, person: str = "owner", **wish: Any) -> Mission:
    asked = request(person=person)
    updates = house.use.dispatcher.enqueue(asked, mission.mission_id, (), QueueWish(**wish))
    last = [update async for update in updates][-1].mission
    assert last is not None
    return last


def shown(house: House) -> list[tuple[str, int, str]]:
    return [(one.mission_id, one.position, one.waiting_for) for one in house.use.dispatcher.queue().missions]


def begun(house: House) -> list[str]:
    return [one.stream_id.partition("/")[2] for one in house.log.read_all() if one.type == "mission_started"]


async def test_a_paused_mission_holds_its_workspace(house: House, executor: ExecutorSimulator) -> None:
    """Others wait and are told for whom; when it is stopped they go, and what waits is sent to no executor before."""
    executor.pauses = (PAUSE,)
    first, second, third = [await house.approved() for _ in range(3)]
    await queued(house, first)
    await until(lambda: house.types(first.mission_id)[-1] == "execution_paused")
    executor.pauses = ()
    await queued(house, second)
    await queued(house, third, priority=5)
    held = f"workspace held by paused mission {first.mission_id}"
    before = executor.calls.count("execute")

    assert shown(house) == [(third.mission_id, 1, held), (second.mission_id, 2, held)]
    assert house.use.dispatcher.queue().depth == 2
    assert house.use.dispatcher.queue("another").depth == 0
    assert house.use.dispatcher.position(house.mission(second.mission_id)) == 2
    assert before == 1
    await house.use.controls.control(request(), first.mission_id, Wish(action=ControlAction.STOP))
    await until(lambda: not house.use.dispatcher.queue().depth)
    await until(stands(house, third, S.COMPLETED))
    assert begun(house)[:2] == [first.mission_id, third.mission_id]


async def test_nothing_begins_before_its_time(house: House) -> None:
    """It waits and says so; when the moment has come it goes without anybody asking."""
    mission = await house.approved()
    moment = house.clock.now() + timedelta(seconds=0.3)
    last = await queued(house, mission, not_before=moment)

    assert (last.not_before, last.tenant) == (moment, "owner")
    assert shown(house)[0][2].startswith("not before ")
    await until(stands(house, mission, S.COMPLETED))
    assert house.clock.now() >= moment


async def test_a_mission_that_waits_too_long_expires(house: House, executor: ExecutorSimulator) -> None:
    """At the moment its caller gave, by itself, while another mission holds the workspace."""
    executor.pauses = (PAUSE,)
    first, second = await house.approved(), await house.approved()
    await queued(house, first)
    await until(lambda: house.types(first.mission_id)[-1] == "execution_paused")
    await queued(house, second, expires_at=house.clock.now() + timedelta(seconds=0.2))

    await until(stands(house, second, S.EXPIRED))
    assert house.mission(second.mission_id).reason == "it still waited in the queue when it was to expire"
    assert house.use.dispatcher.queue().depth == 0


@pytest.mark.parametrize(
    "wish", [{"priority": 101}, {"priority": -101}, {"expires_at": NOW}, {"not_before": NOW, "expires_at": NOW}]
)
async def test_a_wish_that_can_not_be_is_refused(house: House, wish: dict[str, Any]) -> None:
    """Priorities have bounds, and nothing is queued that would expire before its turn."""
    mission = await house.approved()

    with pytest.raises(OrchestratorError) as caught:
        await queued(house, mission, **wish)

    assert caught.value.reason is Reason.MALFORMED
    assert house.mission(mission.mission_id).status is S.APPROVED


async def test_the_queue_is_the_same_after_a_restart(house: House, executor: ExecutorSimulator) -> None:
    """Priority, tenant and times are in the log; who held the workspace holds it still."""
    executor.pauses = (PAUSE,)
    first = await house.approved()
    await queued(house, first)
    await until(lambda: house.types(first.mission_id)[-1] == "execution_paused")
    others = [await house.approved() for _ in range(3)]
    later = house.clock.now() + timedelta(minutes=30)
    await queued(house, others[0])
    await queued(house, others[1], "bob", priority=9, expires_at=later)
    await queued(house, others[2], not_before=later)
    before = house.use.dispatcher.queue()
    following = await house.reopen()

    assert following.use.dispatcher.queue() == before
    assert [one.mission_id for one in before.missions] == [others[place].mission_id for place in (1, 0, 2)]
    await following.close()


async def test_what_is_sent_again_is_the_same_request(house: House, executor: ExecutorSimulator) -> None:
    """An order has one id however often it is sent, and by whichever process; another plan has another."""
    mission, other = await house.approved(), await house.approved()
    order = house.use.executions._order(mission.mission_id)
    following = await house.reopen()

    assert following.use.executions._order(mission.mission_id) == order
    assert following.use.executions._order(other.mission_id).request_id != order.request_id
    await following.close()


async def test_an_executor_that_is_away_keeps_nobody_from_a_place(house: House, executor: ExecutorSimulator) -> None:
    """What waits says that the executor is away, keeps its place, and goes when it is back."""
    mission = await house.approved()
    executor.away = True
    await queued(house, mission)
    await until(lambda: bool(shown(house)) and "can not be reached" in shown(house)[0][2])
    executor.away = False

    await until(stands(house, mission, S.COMPLETED))
    assert executor.calls.count("execute") > 1
    assert len(executor.ledger) == 1


async def test_a_workspace_that_is_held_elsewhere_is_tried_again(
    house: House, executor: ExecutorSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The executor's word that another mission is paused there says nothing of this one: it waits on."""
    mission = await house.approved()
    check, refusals = executor._check, [1, 2]

    def held(order: object) -> None:
        if refusals:
            refusals.pop()
            raise ExecutorRefusedError(Reason.EXECUTION_PAUSED, "mission m-x is paused there", "Wait.")
        check(order)  # type: ignore[arg-type]  # the simulator's own

    monkeypatch.setattr(executor, "_check", held)
    await queued(house, mission)

    await until(stands(house, mission, S.COMPLETED))
    assert "gate_refused" not in house.types(mission.mission_id)
    assert not refusals


async def test_one_mission_that_fails_each_time_does_not_block_the_others(
    house: House, executor: ExecutorSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits on behind them and is tried again; the others of its workspace have their turns."""
    first, second = await house.approved(), await house.approved()
    check = executor._check

    def failing(order: Any) -> None:
        if order.mission_id == first.mission_id:
            raise ExecutorRefusedError(Reason.INTERNAL, "the executor failed", "Look at its log.")
        check(order)

    monkeypatch.setattr(executor, "_check", failing)
    await queued(house, first, priority=9)
    await queued(house, second)

    await until(stands(house, second, S.COMPLETED))
    assert [(name, place) for name, place, _ in shown(house)] == [(first.mission_id, 1)]
    monkeypatch.setattr(executor, "_check", check)
    await until(
        lambda: house.mission(first.mission_id).has_ended or house.mission(first.mission_id).status is S.PROPOSED
    )


async def test_a_clock_that_is_set_back_keeps_nobody_waiting(house: House, executor: ExecutorSimulator) -> None:
    """A line that is to be tried again in a moment is tried again, though that moment is far off by now."""
    mission = await house.approved()
    house.clock.ahead = timedelta(minutes=30)
    executor.away = True
    await queued(house, mission)
    await until(lambda: bool(shown(house)) and "can not be reached" in shown(house)[0][2])
    house.clock.ahead = timedelta()
    executor.away = False
    house.use.dispatcher._look()

    await until(stands(house, mission, S.COMPLETED))


async def test_nothing_is_queued_for_a_time_when_its_approvals_have_ended(house: House) -> None:
    """It could only expire."""
    mission = await house.approved()

    with pytest.raises(OrchestratorError) as caught:
        await queued(house, mission, not_before=house.clock.now() + timedelta(days=2))

    assert caught.value.reason is Reason.MALFORMED
    assert house.mission(mission.mission_id).status is S.APPROVED


async def test_the_sweep_lets_others_work(house: House) -> None:
    """It looks through all that waits, a few at a time."""
    for _ in range(3):
        await house.approved()
    house.use.dispatcher.sweep_size = 1
    turns, sweeping = 0, asyncio.ensure_future(house.use.dispatcher.sweep())
    while not sweeping.done():
        turns += 1
        await asyncio.sleep(0)

    assert turns > 2
