"""Sealed documents are read strictly: one text stands for a message, every other text is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gonogo import sealing
from gonogo.v1 import evidence_pb2, plan_pb2

pytestmark = pytest.mark.quick

SEALED_TYPES = [
    plan_pb2.Plan,
    evidence_pb2.Report,
    evidence_pb2.Approval,
    evidence_pb2.Receipt,
    evidence_pb2.Refusal,
]


def a_plan() -> plan_pb2.Plan:
    plan = plan_pb2.Plan(plan_id="p-1", mission_id="m-1", failure_policy=plan_pb2.FAILURE_POLICY_ROLL_BACK)
    plan.created_at.FromSeconds(1_790_000_000)
    plan.scope.max_pages = 1
    step = plan.steps.add(step_id="s1", stage=plan_pb2.STAGE_EDIT)
    step.write_file.path = "a.txt"
    step.write_file.content = ""
    return plan


def changed(**fields: Any) -> bytes:
    """Return the plan's text with some of its top-level values replaced."""
    value = json.loads(sealing.seal(a_plan()))
    return json.dumps({**value, **fields}).encode()


def test_a_sealed_document_reads_back_as_the_same_message() -> None:
    """What was sealed is what is read."""
    assert sealing.open_sealed(sealing.seal(a_plan()), plan_pb2.Plan) == a_plan()


@pytest.mark.parametrize("message_type", SEALED_TYPES, ids=lambda kind: kind.DESCRIPTOR.name)
def test_sealed_messages_hold_only_types_with_one_text(message_type: Any) -> None:
    """No float, double or 64-bit integer is reachable from a sealed message."""
    assert sealing.check_sealable(message_type.DESCRIPTOR) == []


REFUSED = {
    "unknown field": changed(surprise=1),
    "camelCase name": sealing.seal(a_plan()).replace(b'"plan_id"', b'"planId"'),
    "null": changed(objective=None),
    "explicit default": changed(objective=""),
    "exponent for an integer": sealing.seal(a_plan()).replace(b'"max_pages":1', b'"max_pages":1e0'),
    "fraction for an integer": sealing.seal(a_plan()).replace(b'"max_pages":1', b'"max_pages":1.0'),
    "text for an integer": sealing.seal(a_plan()).replace(b'"max_pages":1', b'"max_pages":"1"'),
    "unknown enum name": changed(failure_policy="FAILURE_POLICY_SHRUG"),
    "unknown enum number": changed(failure_policy=77),
    "known enum as a number": changed(failure_policy=2),
    "odd timestamp": changed(created_at="2026-09-21T18:13:20.000+02:00"),
    "duplicate key": sealing.seal(a_plan()).replace(b'{"plan_id"', b'{"plan_id":"evil","plan_id"', 1),
    "step without an action": changed(steps=[{"step_id": "s1"}]),
    "two actions": sealing.seal(a_plan()).replace(b'"write_file"', b'"read_file":{"path":"b"},"write_file"'),
    "a list": b"[]",
    "nothing": b"",
    "not UTF-8": b'{"plan_id":"\xff"}',
    "a byte order mark": b"\xef\xbb\xbf" + sealing.seal(a_plan()),
    "a second document": sealing.seal(a_plan()) * 2,
    "deep nesting": b'{"steps":' * 4000 + b"1" + b"}" * 4000,
    "not a number": b'{"plan_id":NaN}',
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED.keys())
def test_every_other_text_is_refused(body: bytes) -> None:
    """A text that a lenient reader would take for the same or a similar plan is refused."""
    with pytest.raises(sealing.SealingError):
        sealing.open_sealed(body, plan_pb2.Plan)


def test_a_document_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The size is checked before anything is parsed."""
    monkeypatch.setattr(sealing, "MAX_BODY_BYTES", 10)
    with pytest.raises(sealing.SealingError, match="the limit is 10"):
        sealing.open_sealed(sealing.seal(a_plan()), plan_pb2.Plan)


def test_a_message_that_no_reader_would_take_is_not_sealed() -> None:
    """A step without an action, or an enum number without a name, is an error of the writer's."""
    plan = a_plan()
    plan.steps.add(step_id="s2")
    with pytest.raises(sealing.SealingError, match="none of its fields"):
        sealing.seal(plan)
    plan = a_plan()
    plan.failure_policy = 77  # type: ignore[assignment]  # no such policy
    with pytest.raises(sealing.SealingError):
        sealing.seal(plan)


@given(position=st.integers(min_value=0), byte=st.integers(0, 255))
def test_a_changed_byte_gives_another_document_or_a_refusal(position: int, byte: int) -> None:
    """No two texts stand for one message."""
    body = bytearray(sealing.seal(a_plan()))
    position %= len(body)
    if body[position] == byte:
        return
    body[position] = byte
    try:
        read = sealing.open_sealed(bytes(body), plan_pb2.Plan)
    except sealing.SealingError:
        return
    assert read != a_plan()
