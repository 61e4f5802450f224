"""What people had an execution do, as the receipt and a restart read it from the ledger's entries."""

from collections.abc import Sequence
from typing import Final

from executor.domain.control import ControlAction
from executor.domain.receipt import ControlRecord
from executor.runner.control_ports import DEADLINE, ControlEntry
from executor.runner.desk import Stop
from executor.runner.ports import Claim

ROLL_BACK: Final = "roll_back"
REPAIR: Final = "repair"


def records_of(entries: Sequence[ControlEntry], claims: Sequence[Claim]) -> tuple[ControlRecord, ...]:
    """Return what people had an execution do, in the order of it.

    Args:
        entries: what the ledger has recorded.
        claims: what it claimed, segment by segment; each after the first is a repair.
    """
    return tuple(sorted((*map(record_of, entries), *map(repaired, claims[1:])), key=lambda one: one.time))


def stop_of(entries: Sequence[ControlEntry]) -> Stop | None:
    """Return what ended an execution for good, where anything that was recorded did: the last such entry.

    Args:
        entries: the ledger's, in the order in which they were recorded; two may have the same time.
    """
    ending = [one for one in entries if one.action in {ControlAction.STOP, DEADLINE}]
    return stop_by(ending[-1]) if ending else None


def stop_by(entry: ControlEntry) -> Stop:
    """Return the stop that an entry asks for."""
    return Stop(actor=entry.actor, reason=entry.reason, roll_back=entry.roll_back)


def record_of(entry: ControlEntry) -> ControlRecord:
    """Return what the receipt says of an entry."""
    rolls_back = entry.action is ControlAction.STOP and entry.roll_back
    return ControlRecord(
        action=ROLL_BACK if rolls_back else entry.action_name,
        actor=entry.actor,
        reason=entry.reason,
        time=entry.recorded_at,
        step_id=entry.step_id,
    )


def repaired(claim: Claim) -> ControlRecord:
    """Return what the receipt says of a repair plan that was claimed."""
    approvers = ", ".join(one.approver for one in claim.approvals)
    return ControlRecord(action=REPAIR, actor=approvers, reason="", time=claim.claimed_at)
