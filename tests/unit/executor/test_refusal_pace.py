"""How many refusals one caller can have recorded."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest

from executor.domain.errors import ExecutorError
from executor.runner.executions import RefusedError
from executor.runner.refusal_pace import AT_ONCE, CALLERS, PER_SECOND, RefusalPace
from executor.runner.requests import ExecuteInput
from tests.unit.executor.house import House

ONE = "spiffe://gonogo.local/orchestrator"
OTHER = "spiffe://gonogo.local/orchestrator/other"


class Seconds:
    """A clock that a test turns."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def refuse(pace: RefusalPace, caller: str, times: int) -> int:
    """Be refused again and again; return how often the caller got as far as that."""
    for done in range(times):
        try:
            pace.check(caller)
        except ExecutorError:
            return done
        pace.refused(caller)
    return times


def test_so_many_at_once_and_then_so_many_a_second() -> None:
    """The bucket is generous, empties with each refusal, and fills again up to its brim and no further."""
    clock = Seconds()
    pace = RefusalPace(clock)
    assert refuse(pace, ONE, AT_ONCE + 5) == AT_ONCE
    clock.now += 1
    assert refuse(pace, ONE, AT_ONCE) == PER_SECOND
    clock.now += 3600
    assert refuse(pace, ONE, AT_ONCE + 5) == AT_ONCE


def test_nobody_waits_for_another_nor_who_is_not_refused() -> None:
    """One caller's empty bucket is its own, and calls that are not refused cost nothing of it."""
    pace = RefusalPace(Seconds(), at_once=2)
    for _ in range(100):
        pace.check(OTHER)
    assert refuse(pace, ONE, 5) == 2
    assert refuse(pace, OTHER, 5) == 2


def test_what_is_remembered_is_bounded() -> None:
    """However many names there are, only those that were refused last are kept."""
    pace = RefusalPace(Seconds(), at_once=1)
    for number in range(2 * CALLERS):
        pace.refused(f"caller-{number}")
    assert len(pace._left) == CALLERS
    pace.check("caller-0")
    with pytest.raises(ExecutorError):
        pace.check(f"caller-{2 * CALLERS - 1}")


def test_the_service_log_says_how_many_went_unrecorded(caplog: pytest.LogCaptureFixture) -> None:
    """One line in ten seconds at most, with the number of calls since the last one."""
    clock = Seconds()
    pace = RefusalPace(clock, at_once=1, per_second=0.001)
    with caplog.at_level(logging.WARNING):
        refuse(pace, ONE, 1)
        for _ in range(50):
            refuse(pace, ONE, 1)
        clock.now = 10.0
        refuse(pace, ONE, 1)
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == [
        "1 calls were turned away unrecorded",
        "50 calls were turned away unrecorded",
    ]


class PacedHouse(House):
    """An executor that records two refusals at once for each caller."""

    def more_parts(self) -> dict[str, Any]:
        self.clock = Seconds()
        return {"pace": RefusalPace(self.clock, at_once=2, per_second=1.0)}


def test_executions_beyond_it_leave_no_trace(tmp_path: Path) -> None:
    """They are answered OVERLOADED without a refusal; another caller's mission is carried out meanwhile."""
    house = PacedHouse(tmp_path)
    good = dataclasses.replace(house.ready(), caller=OTHER)
    bad = dataclasses.replace(good, approvals=(), caller=ONE)

    def answer(number: int, request: ExecuteInput = bad) -> str:
        with pytest.raises(ExecutorError) as caught:
            house.core.execute(dataclasses.replace(request, request_id=f"r-{number}"), lambda _run: None)
        assert isinstance(caught.value, RefusedError) is (caught.value.fault.reason != "OVERLOADED")
        return caught.value.fault.reason

    entries = house.ledger.audit_size
    assert [answer(number) for number in range(5)] == ["NOT_APPROVED"] * 2 + ["OVERLOADED"] * 3
    assert house.ledger.audit_size == entries + 2
    assert house.execute(good).receipt is not None
    house.clock.now = 1.0
    assert [answer(number) for number in range(5, 7)] == ["ALREADY_EXECUTED", "OVERLOADED"]
    house.close()
