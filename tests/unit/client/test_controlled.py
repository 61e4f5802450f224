"""What a receipt says that people had an execution do, and what happened outside, against the executor's log."""

from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from client.proving.controlled import CONTROL, EFFECT_CLAIMED, EFFECT_SETTLED, controlled_checks
from gonogo.v1 import evidence_pb2

AT = Timestamp()
AT.FromDatetime(datetime(2027, 1, 4, 12, tzinfo=UTC))
DONE, NOT_DONE = evidence_pb2.EFFECT_STATE_DONE, evidence_pb2.EFFECT_STATE_NOT_DONE
UNKNOWN, COMPENSATED = evidence_pb2.EFFECT_STATE_UNKNOWN, evidence_pb2.EFFECT_STATE_COMPENSATED

Value = dict[str, Any]


def control(**changes: object) -> Value:
    said = {"action": "stop", "actor": "ada", "roll_back": 0, "step_id": ""}
    return {
        "type": CONTROL,
        "at_us": AT.ToMicroseconds(),
        "execution_id": "x-1",
        "request_id": "c-1",
        **said,
        **changes,
    }


def claimed(attempt: int = 1, *, step_id: str = "s1", compensates: int = 0, **changes: object) -> Value:
    effect_id = f"x-1-{step_id}-{attempt}{'-c' if compensates else ''}"
    said = {"type": EFFECT_CLAIMED, "execution_id": "x-1", "step_id": step_id, "compensates": compensates}
    return {**said, "effect_id": effect_id, **changes}


def settled(state: str, attempt: int = 1, *, step_id: str = "s1", compensates: int = 0, **changes: object) -> Value:
    said = claimed(attempt, step_id=step_id, compensates=compensates)
    return {**said, "type": EFFECT_SETTLED, "state": state, "settlement": 1, **changes}


def receipt(effect: "evidence_pb2.EffectState.ValueType | None" = None, controls: int = 0) -> evidence_pb2.Receipt:
    """A receipt of one step, perhaps live, and of some controls."""
    said = evidence_pb2.Receipt(execution_id="x-1")
    step = said.steps.add(step_id="s1")
    if effect is not None:
        step.effect.state = effect
    for _ in range(controls):
        said.controls.add(action="stop", actor="ada", time=AT)
    return said


def failed(said: evidence_pb2.Receipt, *leaves: Value) -> list[str]:
    return [one.name for one in controlled_checks(said, leaves) if not one.ok]


COMPENSATION = (claimed(compensates=1), settled("done", compensates=1))
AGREE: list[tuple[str, evidence_pb2.Receipt, list[Value]]] = [
    ("nothing", receipt(), []),
    ("a control", receipt(controls=1), [control()]),
    ("an effect", receipt(DONE), [claimed(), settled("done")]),
    ("one that did not happen", receipt(NOT_DONE), [claimed(), settled("not_done")]),
    ("one that never began", receipt(NOT_DONE), []),
    ("one that nobody knows", receipt(UNKNOWN), [claimed()]),
    ("one that a person knew", receipt(DONE), [claimed(), settled("unknown"), settled("done", settlement=2)]),
    ("a second attempt", receipt(DONE), [claimed(), settled("not_done"), claimed(2), settled("done", 2)]),
    ("made up for", receipt(COMPENSATED), [claimed(), settled("done"), *COMPENSATION]),
    ("not made up for", receipt(DONE), [claimed(), settled("done"), claimed(compensates=1)]),
]


@pytest.mark.parametrize(("name", "said", "leaves"), AGREE, ids=[one[0] for one in AGREE])
def test_what_agrees(name: str, said: evidence_pb2.Receipt, leaves: list[Value]) -> None:
    """A receipt that tells what the log tells is right."""
    assert failed(said, *leaves) == [], name


CONTROLS, EFFECTS = "receipt tells what people had it do", "receipt tells what was done outside"
DIFFER: list[tuple[str, evidence_pb2.Receipt, list[Value], str]] = [
    ("a control left out", receipt(), [control()], CONTROLS),
    ("a control made up", receipt(controls=1), [], CONTROLS),
    ("one control told twice", receipt(controls=2), [control()], CONTROLS),
    ("a control by another", receipt(controls=1), [control(actor="eve")], CONTROLS),
    ("another control", receipt(controls=1), [control(action="pause")], CONTROLS),
    ("a stop that undid all", receipt(controls=1), [control(roll_back=1)], CONTROLS),
    ("a control at another step", receipt(controls=1), [control(step_id="s2")], CONTROLS),
    ("a control of another time", receipt(controls=1), [control(at_us=1)], CONTROLS),
    ("a control of another execution", receipt(controls=1), [control(execution_id="x-2")], CONTROLS),
    ("an effect left out", receipt(), [claimed(), settled("done")], EFFECTS),
    ("an effect that was never claimed", receipt(DONE), [], EFFECTS),
    ("an unknown one called done", receipt(DONE), [claimed()], EFFECTS),
    ("an unknown one called not done", receipt(NOT_DONE), [claimed()], EFFECTS),
    ("a done one called not done", receipt(NOT_DONE), [claimed(), settled("done")], EFFECTS),
    ("made up for by nothing", receipt(COMPENSATED), [claimed(), settled("done")], EFFECTS),
    ("settled and not claimed", receipt(DONE), [settled("done")], EFFECTS),
    ("settled once more than is told", receipt(DONE), [claimed(), settled("done", settlement=2)], EFFECTS),
    ("claimed twice", receipt(DONE), [claimed(), claimed(), settled("done")], EFFECTS),
    ("of another execution", receipt(DONE), [claimed(execution_id="x-2"), settled("done")], EFFECTS),
]


@pytest.mark.parametrize(("name", "said", "leaves", "check"), DIFFER, ids=[one[0] for one in DIFFER])
def test_what_differs(name: str, said: evidence_pb2.Receipt, leaves: list[Value], check: str) -> None:
    """A receipt that leaves out, adds, or says something else than the log is found."""
    assert failed(said, *leaves) == [check], name
