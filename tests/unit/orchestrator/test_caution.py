"""What signals lead to: a notice and, where the operator wants it, one approval more; never one less."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.evidence import Outcome
from orchestrator.domain.mission import Mission, MissionStatus
from orchestrator.domain.signals import ENOUGH
from orchestrator.service.caution import one_more
from orchestrator.settings import read_settings
from tests.fakes.executor_simulator import Approver, ExecutorSimulator
from tests.fakes.orchestrator_house import House

S = MissionStatus
PEOPLE = ("ann", "bob", "cid")


@pytest.fixture
def team(executor: ExecutorSimulator) -> list[Approver]:
    people = [Approver(person=name) for name in PEOPLE]
    executor.persons = (*executor.persons, *(one.trusted() for one in people))
    return people


async def failed_often(house: House, executor: ExecutorSimulator) -> None:
    """Have the same kind of mission fail until its rate's upper end is below one half."""
    executor.outcome = Outcome.ROLLED_BACK
    for _ in range(2 * ENOUGH):
        await house.execute(await house.approved())
    executor.outcome = Outcome.SUCCESS
    house.clock.ahead += timedelta(seconds=2)  # a rate that was read is stated for a second


async def careful(house: House, caution: int) -> House:
    """End a life and begin one whose operator has set a limit."""
    await house.close()
    return House(house.folder, house.executor, house.approver, caution=caution)


async def dry_run(house: House) -> Mission:
    mission = await house.proposed()
    await house.dry_run(mission)
    return house.mission(mission.mission_id)


async def test_without_a_limit_there_is_a_notice_and_nothing_else(house: House, executor: ExecutorSimulator) -> None:
    """What fails more often than it works is told to whoever approves; one approval is enough as ever."""
    await failed_often(house, executor)
    mission = await dry_run(house)

    assert mission.reason.startswith("caution: something that it uses fails more often than it works")
    assert "approval" not in mission.reason
    assert 0 < mission.confidence < 3000
    assert (await house.approve(mission)).status is S.APPROVED


async def test_with_a_limit_one_approval_more_is_asked_for(
    house: House, executor: ExecutorSimulator, team: list[Approver]
) -> None:
    """The first approval is recorded and leaves the mission proposed; that of another person approves it."""
    await failed_often(house, executor)
    house = await careful(house, 8000)
    mission = await dry_run(house)
    first = await house.approve(mission)
    again = await house.approve(first)
    second = await house.approve(first, team[0])

    assert mission.reason.endswith("one approval more than the policy demands is asked for")
    assert (first.status, again.status, second.status) == (S.PROPOSED, S.PROPOSED, S.APPROVED)
    assert (await house.execute(second))[-1].receipt is not None
    await house.close()


async def test_a_limit_asks_nothing_of_what_works_or_is_unknown(house: House) -> None:
    """No outcomes are no reason to doubt; nor are good ones."""
    house = await careful(house, 8000)
    for _ in range(ENOUGH + 1):
        mission = await house.approved()
        assert (mission.status, mission.reason) == (S.APPROVED, "")
        await house.execute(mission)
    await house.close()


async def test_a_limit_adds_to_what_the_policy_demands(
    house: House, executor: ExecutorSimulator, team: list[Approver]
) -> None:
    """Where the executor wants two, three are asked for; and the executor itself goes on wanting two."""
    await failed_often(house, executor)
    house = await careful(house, 8000)
    executor.approvals_required = 2
    mission = await dry_run(house)
    stood = [
        (await house.approve(house.mission(mission.mission_id), one)).status for one in (house.approver, *team[:2])
    ]

    assert stood == [S.PROPOSED, S.PROPOSED, S.APPROVED]
    await house.close()


async def test_caution_does_not_lift_what_the_executor_demands(
    house: House, executor: ExecutorSimulator, team: list[Approver]
) -> None:
    """However well everything went, the demand of the policy stands, with and without a limit."""
    for _ in range(ENOUGH + 1):
        await house.execute(await house.approved())
    executor.approvals_required = 2
    for limit in (0, 1):
        house = await careful(house, limit)
        mission = await dry_run(house)
        assert mission.confidence > 0 or limit == 0
        assert (await house.approve(mission)).status is S.PROPOSED
        assert (await house.approve(mission, team[0])).status is S.APPROVED
    await house.close()


@given(
    needed=st.integers(0, 5),
    member=st.sampled_from(["", *PEOPLE]),
    signed=st.sets(st.sampled_from([*PEOPLE, "dan", "eve"])),
)
def test_one_more_never_holds_earlier(needed: int, member: str, signed: set[str]) -> None:
    """Whatever is demanded, the careful judgement holds only where the other holds, also without one of them."""

    def enough(votes: Mapping[str, str]) -> bool:
        return len(votes) >= needed and (not member or member in votes)

    votes = dict.fromkeys(signed, "key")
    if one_more(enough)(votes):
        assert enough(votes)
        assert len(votes) > needed


@pytest.mark.parametrize("wanted", ["101", "-1", "half", "1.5"])
def test_the_limit_is_a_whole_percentage(wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Anything else is refused at the start."""
    with pytest.raises(SystemExit):
        read_settings(["serve", "--executor", "x:1", "--caution", wanted], {})

    assert "from 0 to 100" in capsys.readouterr().err


def test_the_limit_is_off_unless_it_is_set(tmp_path: Path) -> None:
    """A flag or a variable sets it; without either, signals ask for nothing."""
    serve = ["serve", "--executor", "x:1", "--state", str(tmp_path)]

    assert read_settings(serve, {}).caution == 0
    assert read_settings(serve, {"GONOGO_CAUTION": "80"}).caution == 8000
