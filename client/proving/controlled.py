"""The executor's leaves of an execution that people controlled, compared with its receipt.

Nothing that somebody had it do may be missing from the receipt, and the receipt may tell of nothing besides; an effect
outside is in the log before it happens, and the receipt says of it what the log says last.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from client.json_form import short_name
from client.proving.checks import Check, check
from gonogo.v1 import evidence_pb2

CONTROL = "control"
EFFECT_CLAIMED = "effect_claimed"
EFFECT_SETTLED = "effect_settled"

CONTROL_FIELDS: Mapping[str, tuple[str, ...]] = {
    CONTROL: (
        *("request_id", "request_digest", "execution_id", "action", "actor", "reason", "roll_back", "step_id"),
        *("document_id", "document_digest", "signature"),
    ),
    EFFECT_CLAIMED: (
        *("effect_id", "execution_id", "segment", "step_id", "attempt", "compensates", "kind", "target", "digest"),
        "idempotency_key",
    ),
    EFFECT_SETTLED: ("effect_id", "execution_id", "step_id", "settlement", "state", "record_digest"),
}
"""What each kind of leaf says besides what all do."""
CONTROL_NUMBERS = frozenset({"roll_back", "attempt", "compensates", "settlement"})

STOP, ROLL_BACK = "stop", "roll_back"
REPAIR = "repair"
"""What the receipt tells as a control, and the log as a claim."""

Value = Mapping[str, Any]


def controlled_checks(receipt: evidence_pb2.Receipt, leaves: Sequence[Value]) -> Iterator[Check]:
    """Compare the leaves of what people did, and of what was done outside, with the receipt.

    Args:
        receipt: the receipt.
        leaves: the mission's leaves in their order.
    """
    controls = [leaf for leaf in leaves if leaf["type"] == CONTROL]
    if controls or receipt.controls:
        yield _controls(receipt, controls)
    if receipt.segments or any(one.action == REPAIR for one in receipt.controls):
        yield _repairs(receipt)
    effects = [leaf for leaf in leaves if leaf["type"] in {EFFECT_CLAIMED, EFFECT_SETTLED}]
    if effects or any(step.HasField("effect") for step in receipt.steps):
        yield _effects(receipt, effects)


def _controls(receipt: evidence_pb2.Receipt, leaves: Sequence[Value]) -> Check:
    logged = sorted(_control_of(leaf) for leaf in leaves)
    told = sorted(
        (one.time.ToMicroseconds(), one.action, one.actor, one.step_id)
        for one in receipt.controls
        if one.action != REPAIR
    )
    foreign = [leaf["request_id"] for leaf in leaves if leaf["execution_id"] != receipt.execution_id]
    shown = (
        f"of another execution: {foreign[0]}" if foreign else f"{len(logged)} in the log, {len(told)} in the receipt"
    )
    return check("receipt tells what people had it do", logged == told and not foreign, shown)


def _control_of(leaf: Value) -> tuple[int, str, str, str]:
    """Return a control as the receipt tells of it."""
    action = ROLL_BACK if leaf["action"] == STOP and leaf["roll_back"] else leaf["action"]
    return leaf["at_us"], action, leaf["actor"], leaf["step_id"]


def _repairs(receipt: evidence_pb2.Receipt) -> Check:
    """Each later segment was begun by a repair, at the moment of its claim, by those who approved it."""
    told = [(one.time.ToMicroseconds(), one.actor) for one in receipt.controls if one.action == REPAIR]
    claimed = [
        (one.started_at.ToMicroseconds(), ", ".join(record.approver for record in one.approvals))
        for one in receipt.segments
    ]
    return check("receipt tells of every repair", sorted(told) == sorted(claimed), f"{len(claimed)} segments")


def _effects(receipt: evidence_pb2.Receipt, leaves: Sequence[Value]) -> Check:
    wrong = next(_wrong_effects(receipt, leaves), "")
    return check("receipt tells what was done outside", not wrong, wrong or f"{len(leaves)} leaves")


def _wrong_effects(receipt: evidence_pb2.Receipt, leaves: Sequence[Value]) -> Iterator[str]:
    states: dict[str, str] = {}
    steps: dict[str, str] = {}
    made_up: set[str] = set()
    settlements: dict[str, int] = {}
    for leaf in leaves:
        effect_id = leaf["effect_id"]
        if leaf["execution_id"] != receipt.execution_id:
            yield f"{effect_id} is of another execution"
        if leaf["type"] == EFFECT_SETTLED:
            if effect_id not in states:
                yield f"{effect_id} was settled and never claimed"
            settlements[effect_id] = settlements.get(effect_id, 0) + 1
            if leaf["settlement"] != settlements[effect_id]:
                yield f"what came of {effect_id} is not told in full"
            states[effect_id] = leaf["state"]
            continue
        if effect_id in states:
            yield f"{effect_id} was claimed twice"
        states[effect_id] = "unknown"
        if leaf["compensates"]:
            made_up.add(leaf["step_id"])
        else:
            steps[leaf["step_id"]] = effect_id
    told = {step.step_id: short_name(step.effect, "state") for step in receipt.steps if step.HasField("effect")}
    yield from (f"{step_id} had an effect that the receipt does not tell" for step_id in steps if step_id not in told)
    for step_id, state in told.items():
        last = states[steps[step_id]] if step_id in steps else "not_done"
        if state not in _tellable(last, made_up=step_id in made_up):
            yield f"{step_id} is {state} in the receipt and {last} in the log"


def _tellable(last: str, *, made_up: bool) -> frozenset[str]:
    """Return what a receipt may say of an effect that was settled last in some way."""
    return frozenset({"done", "compensated"} if last in {"done", "compensated"} and made_up else {last})
