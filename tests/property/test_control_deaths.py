"""The executor dies at each durable act of each way in which a wait ends, and the next one at each of what it finds.

The same people, judge and invariants as in `test_control_machine`, gone through one after the other instead of drawn.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from orchestrator.domain.plan import FailurePolicy
from tests.property.control_crowd import Recipe
from tests.property.test_control_machine import WAITS, WAYS, ControlMachine

pytestmark = pytest.mark.timeout(600)

FIRST: Recipe = (("append", "a.txt"), False)
SECOND: Recipe = (("append", "c.txt"), False)
EFFECT: Recipe = (("live", "D", "D"), False)
AFTER: Recipe = (("append", "b.txt"), False)
MOST_ACTS = 40
NEVER = {("repair", "step_approval"), ("repair", "unknown_effect"), ("deadline", "unknown_effect")}
NEVER |= {("deny", kind) for kind in WAITS if kind != "step_approval"}
"""What does not end such a wait."""


@contextmanager
def machine() -> Iterator[ControlMachine]:
    """Return both services, over files and without any mission; at the end everything comes to its own end."""
    made = ControlMachine()
    try:
        made.open()
        yield made
    finally:
        made.teardown()


def died(kind: str, way: str, dooms: list[tuple[int, bool]]) -> int:
    """Have a wait end, and lives; returns how many did."""
    with machine() as one:
        one.have_wait([FIRST, EFFECT, SECOND, AFTER], kind, FailurePolicy.PAUSE)
        before = one.pair.deaths
        one.end_wait(way, dooms)
        return one.pair.deaths - before


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "way"), [(kind, way) for kind in WAITS for way in WAYS if way != "die" and (way, kind) not in NEVER]
)
def test_death_at_each_act_of_what_ends_a_wait(kind: str, way: str) -> None:
    """No effect without a row, none twice, no step out of order, no event lost or doubled, and one receipt."""
    for late in (False, True):
        acts = 0
        while died(kind, way, [(acts + 1, late), (1, late)]):
            acts += 1
            assert acts < MOST_ACTS
        assert acts > 0, "nothing died of it"


def test_a_stop_is_told_before_anything_is_undone_in_whichever_life() -> None:
    """Recorded and not told when the process died: the next one tells of it, durably, and then begins to undo."""
    assert died("failure", "roll_back", [(1, True), (1, True)]) == 2
