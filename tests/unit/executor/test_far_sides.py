"""The table of what handles which kind of live step, and what it makes of errors."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from executor.domain.errors import ExecutorError, Fault, StepBlockedError
from executor.domain.plan import CallTool, FetchUrl, Live, RunSql, SearchBodies
from executor.domain.receipt import EffectState
from executor.domain.report import LiveEvidence
from executor.outside.far_sides import OutsideWorld
from executor.runner.outside import NOTHING_OUTSIDE, Declared, Performed, Setting
from tests.unit.executor.fetch_house import FetchHouse, fetch_house
from tests.unit.executor.outside_house import TOKEN

SQL = RunSql(database="d", statement="SELECT 1", parameters=())
DECLARED = Declared(evidence=LiveEvidence(target="", digest="", not_simulated=""), not_simulated="", digest="")


DONE = Performed(state=EffectState.DONE, summary="")


@dataclass(frozen=True, kw_only=True)
class Handler:
    """Raises, or answers."""

    raises: Exception | None = None
    answers: Performed = DONE

    def declare(self, _action: Live, _setting: Setting) -> Declared:
        if self.raises is not None:
            raise self.raises
        return DECLARED

    def perform(self, _action: Live, _expected: Declared, _setting: Setting, _key: str) -> Performed:
        if self.raises is not None:
            raise self.raises
        return self.answers


@pytest.fixture
def house(tmp_path: Path) -> Iterator[FetchHouse]:
    """Knows a secret."""
    with fetch_house(tmp_path) as found:
        yield found


def perform(house: FetchHouse, handler: Handler) -> Performed:
    """Have a handler do something."""
    world: OutsideWorld = replace(house.world, handlers={RunSql: handler})
    return world.perform(SQL, DECLARED, house.setting(SQL), "key")


def test_what_could_not_begin_is_not_done(house: FetchHouse) -> None:
    """A handler that refuses has sent nothing, and its reason is kept."""
    error = ExecutorError("FAR_SIDE_UNKNOWN", "there is none", "name another")
    performed = perform(house, Handler(raises=error))
    assert (performed.state, performed.fault) == (EffectState.NOT_DONE, error.fault)


@pytest.mark.parametrize("error", [RuntimeError(TOKEN), OSError("gone"), KeyError("x"), RecursionError()])
def test_what_nobody_foresaw_is_unknown(house: FetchHouse, error: Exception) -> None:
    """After any other error nobody can say how far it came, and a person has to."""
    performed = perform(house, Handler(raises=error))
    assert performed.state is EffectState.UNKNOWN
    assert performed.fault is not None
    assert performed.fault.reason == "EFFECT_UNKNOWN"
    assert "reconcile" in performed.fault.remedy
    assert TOKEN not in performed.summary


def test_nothing_is_told_with_a_secret(house: FetchHouse) -> None:
    """Whatever a handler says goes through the redactor once more."""
    fault = Fault(reason="EFFECT_FAILED", message=f"it said {TOKEN}", remedy=f"use {TOKEN}")
    answer = Performed(state=EffectState.DONE, summary=f"sent {TOKEN}", fault=fault)
    performed = perform(house, Handler(answers=answer))
    assert performed.fault is not None
    assert TOKEN not in performed.summary + performed.fault.message + performed.fault.remedy
    world = replace(house.world, handlers={RunSql: Handler(raises=StepBlockedError("UNSUPPORTED", TOKEN, TOKEN))})
    with pytest.raises(StepBlockedError) as caught:
        world.declare(SQL, house.setting(SQL))
    assert TOKEN not in caught.value.fault.message + caught.value.fault.remedy


def test_nothing_outside(house: FetchHouse) -> None:
    """An executor without far sides refuses each such step, and has done nothing."""
    setting = house.setting(SQL)
    fetch = FetchUrl(url="http://ok.test/", head=False, extract_text=False, max_bytes=None)
    tool = CallTool(server="s", tool="t", arguments="{}")
    for refused in (
        lambda: NOTHING_OUTSIDE.fetch(fetch, setting, house.batch),
        lambda: NOTHING_OUTSIDE.search(SearchBodies(query="x", limit=1), setting),
        lambda: NOTHING_OUTSIDE.declare(tool, setting),
    ):
        with pytest.raises(StepBlockedError) as caught:
            refused()
        assert caught.value.fault.reason == "UNSUPPORTED"
    assert NOTHING_OUTSIDE.perform(tool, DECLARED, setting, "key").state is EffectState.NOT_DONE
