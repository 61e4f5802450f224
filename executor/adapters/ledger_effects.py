"""What live steps do outside, as rows of the SQLite ledger: one before each effect, and one for what came of it.

The row is durable before anything is sent. An effect without a settlement may have happened, and nothing but a person
can say whether it did.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from executor.adapters.ledger_audit import AuditRows, append_entry, state_after
from executor.domain.errors import StoreError
from executor.domain.receipt import EffectRecord, EffectState, ReconciliationRecord
from executor.domain.report import Excerpt
from executor.runner.control_ports import EffectClaim, EffectEntry
from gonogo.digests import digest

EFFECT_CLAIMED: Final = "effect_claimed"
EFFECT_SETTLED: Final = "effect_settled"
"""The kinds of these entries in the audit log."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Effects(AuditRows):
    """The part of the SQLite ledger that knows what may have happened outside."""

    def claim_effect(self, claim: EffectClaim) -> None:
        if self._anchor is not None:
            self._anchor.check()
        with self._commit(_micros(claim.claimed_at)) as execute:
            execute("insert_effect", *_row(claim))
            append_entry(execute, EFFECT_CLAIMED, claim.mission_id, effect_value(claim))
            self._sign(execute)
            state = state_after(execute, self._epoch)
        if self._anchor is not None:
            self._anchor.move(state)

    def settle_effect(self, effect_id: str, record: EffectRecord, at: datetime) -> None:
        text = record_to_json(record)
        with self._commit(_micros(at)) as execute:
            rows = execute.rows("effect", effect_id)
            if not rows:
                raise _unfit(effect_id, "was never claimed")
            last = execute.rows("last_settlement", effect_id)
            number, before, stored = last[0] if last else (0, "", "")
            if stored == text:
                return  # said again after a restart that had lost what was done upon it
            if before and not _may_follow(EffectState(before), record):
                raise _unfit(effect_id, f"is {before}, and can not be {record.state.value} now")
            execute("insert_settlement", effect_id, number + 1, record.state.value, text, _micros(at))
            value = settlement_value(_claim(rows[0]), number + 1, record.state.value, text)
            append_entry(execute, EFFECT_SETTLED, rows[0][2], value)

    def effects(self, execution_id: str) -> tuple[EffectEntry, ...]:
        return tuple(_entry(row) for row in self._rows("effects_of", execution_id))


def _may_follow(before: EffectState, record: EffectRecord) -> bool:
    """Tell whether what was settled may be settled again: by a person's word, or by a compensation."""
    if record.compensation:
        return before is EffectState.DONE and record.state in {EffectState.DONE, EffectState.COMPENSATED}
    decided = record.state in {EffectState.DONE, EffectState.NOT_DONE}
    return before is EffectState.UNKNOWN and decided and record.reconciliation is not None


def effect_value(claim: EffectClaim) -> Mapping[str, object]:
    """Return what the audit log's entry of a claimed effect says."""
    return {
        "effect_id": claim.effect_id,
        "execution_id": claim.execution_id,
        "segment": claim.segment,
        "step_id": claim.step_id,
        "attempt": claim.attempt,
        "compensates": int(claim.compensates),
        "kind": claim.kind,
        "target": claim.target,
        "digest": claim.digest,
        "idempotency_key": claim.idempotency_key,
    }


def settlement_value(claim: EffectClaim, number: int, state: str, text: str) -> Mapping[str, object]:
    """Return what the audit log's entry of a settled effect says."""
    return {
        "effect_id": claim.effect_id,
        "execution_id": claim.execution_id,
        "step_id": claim.step_id,
        "settlement": number,
        "state": state,
        "record_digest": digest(text.encode()),
    }


def effect_said(row: tuple[Any, ...]) -> tuple[str, int, Mapping[str, object]]:
    """Return whose the audit log's entry of a stored effect must be, its time, and what it must say."""
    claim = _claim(row)
    return claim.mission_id, _micros(claim.claimed_at), effect_value(claim)


def settlement_said(
    row: tuple[Any, ...], number: int, settled: tuple[Any, ...]
) -> tuple[str, int, Mapping[str, object]]:
    """Return the same of a stored settlement."""
    claim = _claim(row)
    state, text, settled_at = settled
    return claim.mission_id, settled_at, settlement_value(claim, number, state, text)


def record_to_json(record: EffectRecord) -> str:
    """Write what came of an effect."""
    return json.dumps({**asdict(record), "state": record.state.value}, ensure_ascii=False, separators=(",", ":"))


def record_from_json(text: str) -> EffectRecord:
    """Read what `record_to_json` wrote."""
    value = json.loads(text)
    answer, reconciliation = value.pop("answer"), value.pop("reconciliation")
    state = EffectState(value.pop("state"))
    return EffectRecord(
        **value,
        state=state,
        answer=None if answer is None else Excerpt(**answer),
        reconciliation=None if reconciliation is None else ReconciliationRecord(**reconciliation),
    )


def _entry(row: tuple[Any, ...]) -> EffectEntry:
    *claimed, settled_at, record = row
    return EffectEntry(
        claim=_claim(tuple(claimed)),
        settled_at=None if settled_at is None else _EPOCH + settled_at * _MICROSECOND,
        record=None if record is None else record_from_json(record),
    )


def _claim(row: tuple[Any, ...]) -> EffectClaim:
    effect_id, execution_id, mission_id, segment, step_id, attempt, compensates, *rest = row
    kind, target, over, idempotency_key, claimed_at_us = rest
    return EffectClaim(
        effect_id=effect_id,
        execution_id=execution_id,
        mission_id=mission_id,
        segment=segment,
        step_id=step_id,
        attempt=attempt,
        compensates=bool(compensates),
        kind=kind,
        target=target,
        digest=over,
        idempotency_key=idempotency_key,
        claimed_at=_EPOCH + claimed_at_us * _MICROSECOND,
    )


def _row(claim: EffectClaim) -> tuple[object, ...]:
    return (
        claim.effect_id,
        claim.execution_id,
        claim.mission_id,
        claim.segment,
        claim.step_id,
        claim.attempt,
        int(claim.compensates),
        claim.kind,
        claim.target,
        claim.digest,
        claim.idempotency_key,
        _micros(claim.claimed_at),
    )


def _unfit(effect_id: str, why: str) -> StoreError:
    return StoreError(
        "INTERNAL", f"effect {effect_id} {why}", "this is a fault of the executor: look into its log and report it"
    )


def _micros(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND
