"""Effective time: never backwards, still for a little while, and no decision when the clock is far behind."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from executor.domain.errors import ExecutorError
from executor.runner.clock import EffectiveClock
from executor.runner.executions import RefusedError
from tests.unit.executor.house import House

START = datetime(2026, 11, 20, 12, tzinfo=UTC)


class Wall:
    """A clock on the wall that somebody sets."""

    def __init__(self) -> None:
        self.offset = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.offset


class ClockHouse(House):
    """A house whose wall clock somebody sets."""

    def __init__(self, root: Path) -> None:
        self.wall = Wall()
        super().__init__(root)

    def more_parts(self) -> dict[str, Any]:
        """The clock is part of the core."""
        return {"clock": EffectiveClock(self.ledger.clock_high_water(), self.wall)}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[ClockHouse]:
    """An executor whose clock can be set."""
    house = ClockHouse(tmp_path)
    yield house
    house.close()


def clock_at(*walls: datetime) -> EffectiveClock:
    """A clock that begins at noon and whose wall shows these times."""
    shown = iter(walls)
    return EffectiveClock(START, lambda: next(shown))


def test_it_goes_with_the_wall_clock() -> None:
    """While the wall clock goes forward, effective time is its time."""
    later = START + timedelta(seconds=5)
    assert clock_at(later).now() == later
    assert clock_at(later).checked() == later


def test_it_stands_still_where_the_wall_clock_is_a_little_behind() -> None:
    """Up to thirty seconds behind, which is how clocks are corrected, effective time waits for the wall clock."""
    clock = clock_at(START - timedelta(seconds=30), START - timedelta(seconds=1), START + timedelta(seconds=1))
    assert [clock.checked(), clock.checked(), clock.checked()] == [START, START, START + timedelta(seconds=1)]


def test_far_behind_decides_nothing_and_still_tells_the_time() -> None:
    """More than thirty seconds behind no decision is made; what is told goes on with the latest time seen."""
    clock = clock_at(*[START - timedelta(seconds=31)] * 2)
    with pytest.raises(ExecutorError) as caught:
        clock.checked()
    assert caught.value.fault.reason == "CLOCK_BEHIND"
    assert "31 seconds behind" in caught.value.fault.message
    assert clock.now() == START


def test_a_jump_forward_is_remembered() -> None:
    """A clock that was ahead and is set right again is behind what was seen."""
    clock = clock_at(START + timedelta(days=1), START)
    clock.checked()
    with pytest.raises(ExecutorError):
        clock.checked()


def test_a_clock_that_was_set_back_refuses_dry_runs_and_executions(house: ClockHouse) -> None:
    """Neither is begun, nothing is touched, and both go on once the clock is right."""
    request = house.ready()
    house.wall.offset = -timedelta(minutes=5)
    with pytest.raises(RefusedError) as refused:
        house.execute(request)
    with pytest.raises(ExecutorError) as caught:
        house.dry_run(house.sealed_plan(house.plan(mission="m-2")))
    assert refused.value.fault.reason == caught.value.fault.reason == "CLOCK_BEHIND"
    assert house.files() == {}
    house.wall.offset = timedelta(0)
    assert house.execute(request).ended


def test_the_high_water_outlives_a_restart(house: ClockHouse) -> None:
    """Whoever restarts the executor after setting the clock back finds it as wary as before."""
    request = house.ready()
    house.wall.offset = -timedelta(minutes=5)
    house.use(house.trust)
    with pytest.raises(RefusedError) as refused:
        house.execute(request)
    assert refused.value.fault.reason == "CLOCK_BEHIND"


def test_a_clock_that_is_set_back_before_the_claim(house: ClockHouse) -> None:
    """Time is looked at again when the workspace is ours, after whatever wait that took."""
    request = house.ready()
    checked = house.core._executions._gates.check(request)
    house.wall.offset = -timedelta(minutes=5)
    with house.workspace.lock(), pytest.raises(ExecutorError) as caught:
        house.core._executions._gates.claim(checked, house.workspace)
    assert caught.value.fault.reason == "CLOCK_BEHIND"
    house.wall.offset = timedelta(0)
