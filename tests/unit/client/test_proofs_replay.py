"""The client's own fold of a mission's events: a second opinion that never contradicts the orchestrator's."""

from typing import Any

import pytest

from client.bundle import Leaf
from client.proving.events import LeafError, read_event
from client.proving.replay import FOLDS, MOVES, STAYS, replayed
from gonogo.v1 import events_pb2
from orchestrator.domain.mission import TRANSITIONS
from tests.unit.client.proof_house import MISSION, ProofHouse
from tests.unit.client.proof_parts import event_leaf


def test_the_table_is_the_orchestrators() -> None:
    """Both sides let the same events happen in the same states, and end in the same ones."""
    own = dict(MOVES) | {(status, name): status for name, statuses in STAYS.items() for status in statuses}
    theirs = {(before.value if before else "", name): after.value for (before, name), after in TRANSITIONS.items()}
    assert own == theirs
    assert {name for _, name in own} >= FOLDS.keys()


def leaf(text: str, place: int = 0) -> Leaf:
    return Leaf(index=place, text=text, path=())


def honest(place: int = 0, version: int = 1, **changes: Any) -> str:
    payload = events_pb2.MissionProposed(objective="o")
    return event_leaf(place, f"mission/{MISSION}", version, "mission_proposed", payload, 0, "x")


@pytest.mark.parametrize(
    "text",
    [
        "no JSON",
        "{}",
        "[1,2,3]",
        honest().replace('"mission_proposed"', '"mission_forgotten"'),
        honest().replace('"mission_proposed"', "7"),
        honest().replace("[1,", '["1",'),
        honest().replace("[1,", "[true,"),
        honest().replace("[1,", "[2,"),
        honest().replace('mission_proposed",1,', 'mission_proposed",2,'),
        honest().replace("null", "7"),
        honest().replace("objective", "0bjective"),
        honest().replace('{\\"objective\\":\\"o\\"}', "[]"),
        "[" * 100_000,
    ],
)
def test_a_leaf_that_the_log_does_not_write_is_none(text: str) -> None:
    """Other types, unknown kinds, unknown fields and another place are refused."""
    with pytest.raises(LeafError):
        read_event(leaf(text))


def test_events_of_the_future_are_not_folded() -> None:
    """A time beyond all calendars is an error and not a crash."""
    text = honest().replace("1795176000000000", str(2**62))
    with pytest.raises(LeafError, match="no time"):
        replayed(MISSION, [read_event(leaf(text))])


def test_events_of_another_mission_are_not_folded() -> None:
    """Each event names its stream."""
    with pytest.raises(LeafError, match="belongs to"):
        replayed("m-2", [read_event(leaf(honest()))])


def test_the_house_ends_completed() -> None:
    """The fold leads from the proposal over a refusal and a second dry run to the end."""
    state = ProofHouse().mission
    assert (state.status, state.outcome, state.report_id, state.receipt_id) == ("completed", "success", "r-1", "rc-1")
    assert state.last_sequence == 20
