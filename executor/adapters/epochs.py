"""The start of a ledger under its anchor: it goes on where it was, or begins an epoch, or may not start at all."""

import logging
import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from executor.adapters.anchor import Anchor, ledger_file
from executor.adapters.audit_check import AuditFaultError
from executor.adapters.ledger_sqlite import SqliteLedger
from executor.domain.anchoring import Anchored, why_other
from gonogo.merkle import stored_root

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

log = logging.getLogger(__name__)


def begin(ledger: SqliteLedger, anchor: Anchor, *, path: Path, executor_id: str, now: datetime) -> str:
    """Compare a ledger with its anchor, begin an epoch where it is not the one it was, and tie the two together.

    Whether the tree is sound has been checked before. From here on every claim moves the anchor.

    Args:
        ledger: the ledger.
        anchor: its anchor, which nothing has moved yet.
        path: the ledger's file.
        executor_id: whose they are.
        now: the wall clock's time; what ledger or anchor know of a later one counts.

    Returns:
        Why an epoch began, in words; empty where none did.

    Raises:
        AuditFaultError: the anchor has seen another history of this very ledger.
        StoreError: ledger or anchor can not be written.
    """
    last = anchor.last
    here = _standing(ledger, path, executor_id)
    why = _why(ledger, last, here)
    if why:
        latest = max(now, ledger.clock_high_water(), _time(last.clock_us if last else 0))
        is_first = ledger.is_new
        ledger.start_epoch(ledger.epoch if is_first else secrets.token_hex(16), why, latest)
        level = logging.INFO if is_first and last is None else logging.WARNING
        log.log(level, "epoch %s of the ledger begins: %s", ledger.epoch, why)
        here = _standing(ledger, path, executor_id)
    if last is not None:
        trust = (last.trust_version, last.trust_digest)
        here = replace(here, trust_version=trust[0], trust_digest=trust[1])
    anchor.start(here)
    ledger.anchor_to(anchor)
    return why


def _why(ledger: SqliteLedger, last: Anchored | None, here: Anchored) -> str:
    if ledger.is_new:
        if last is None:
            return "the ledger is new"
        return f"the ledger is new and its anchor has seen {last.claims} claims: the ledger was lost"
    if last is None:
        return "there is no anchor that could be read: the ledger may have been restored or copied"
    why = why_other(last, here)
    if not why and stored_root(last.audit_size, ledger.audit_hashes).hex() != last.audit_root:
        raise AuditFaultError(f"the first {last.audit_size} entries are not those that the anchor has seen")
    return why


def _standing(ledger: SqliteLedger, path: Path, executor_id: str) -> Anchored:
    state = ledger.audited_state()
    return Anchored(
        executor_id=executor_id,
        ledger_file=ledger_file(path),
        epoch=state.epoch,
        claims=state.claims,
        clock_us=state.clock_us,
        audit_size=state.audit_size,
        audit_root=state.audit_root.hex(),
    )


def _time(micros: int) -> datetime:
    return _EPOCH + micros * _MICROSECOND
