"""Whether a ledger is the one that its anchor knows, or an older, other or copied one.

The anchor remembers, outside of the ledger's backup set, how far the ledger had come. It only ever learns what the
ledger holds durably already, so an honest ledger is where its anchor is, or ahead of it by the claims of the moment in
which the process died. Everything else is a ledger that was lost, restored or copied, or an anchor that was. Of those
nobody can tell which reports were executed since; a new epoch begins, and reports of the former one are unknown.
"""

from dataclasses import dataclass

MAX_IN_FLIGHT = 256
"""Claims that can be in the ledger and not in the anchor when a process dies: each waits for it before its first
effect, and no more executions than that run at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchored:
    """How far a ledger had come when that was remembered."""

    executor_id: str
    ledger_file: str
    """Names the very file: a copy of it has another name."""
    epoch: str
    claims: int
    clock_us: int
    audit_size: int
    audit_root: str
    """In hex."""
    trust_version: int = 0
    trust_digest: str = ""


def why_other(anchored: Anchored, ledger: Anchored) -> str:
    """Say why a ledger does not continue what its anchor remembers; empty where it does.

    That the audit log is of the same tree at the anchor's size is not looked at here: the ledger's root is of its own.
    """
    if ledger.executor_id != anchored.executor_id:
        return f"the anchor is that of executor {anchored.executor_id}"
    if ledger.epoch != anchored.epoch:
        return "the anchor belongs to another epoch: the ledger was lost or restored"
    if ledger.ledger_file != anchored.ledger_file:
        return "the ledger's file is not the one that the anchor knows: it was restored or copied"
    return _why_elsewhere(anchored, ledger)


def _why_elsewhere(anchored: Anchored, ledger: Anchored) -> str:
    if ledger.claims < anchored.claims:
        return f"the ledger holds {ledger.claims} claims where the anchor has seen {anchored.claims}: it was restored"
    if ledger.audit_size < anchored.audit_size:
        return (
            f"the audit log has {ledger.audit_size} entries where the anchor has seen {anchored.audit_size}:"
            " the ledger was restored"
        )
    if ledger.claims > anchored.claims + MAX_IN_FLIGHT:
        return (
            f"the anchor has seen {anchored.claims} claims where the ledger holds {ledger.claims}:"
            " the anchor was restored"
        )
    return ""
