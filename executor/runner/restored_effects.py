"""What is known of the effects of an execution that broke off, from the ledger alone."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from executor.domain.receipt import EffectRecord, EffectState
from executor.runner.control_ports import EffectEntry
from executor.runner.live_steps import NOT_WELL


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownEffect:
    """The effect of one step's last attempt."""

    attempt: int
    record: EffectRecord
    doubtful: bool = False
    """Whether it was made up for nobody knows."""


def known_effects(entries: Iterable[EffectEntry], *, asked: str) -> dict[str, KnownEffect]:
    """Return the effects by step. What was claimed and never settled is unknown.

    Args:
        entries: the ledger's.
        asked: the step of which a person is being asked; a word that was settled and not gone on with is taken anew.
    """
    found: dict[str, KnownEffect] = {}
    for entry in entries:
        step_id = entry.claim.step_id
        if entry.claim.compensates:
            found[step_id] = _compensated(found[step_id], entry)
        else:
            record = _record(entry)
            if step_id == asked:
                record = replace(record, state=EffectState.UNKNOWN, reconciliation=None)
            found[step_id] = KnownEffect(attempt=entry.claim.attempt, record=record)
    return found


def _record(entry: EffectEntry) -> EffectRecord:
    if entry.record is not None:
        return entry.record
    return EffectRecord(state=EffectState.UNKNOWN, idempotency_key=entry.claim.idempotency_key)


def _compensated(effect: KnownEffect, entry: EffectEntry) -> KnownEffect:
    """Add how making up for it went, where that was not settled beside it already."""
    came = _record(entry).state
    if came is EffectState.UNKNOWN:
        told = effect.record.compensation or "nobody knows whether it was made up for"
        return replace(effect, record=replace(effect.record, compensation=told), doubtful=True)
    if effect.record.compensation:
        return effect
    made_up = came is EffectState.DONE and not _record(entry).summary.startswith(NOT_WELL)
    state = EffectState.COMPENSATED if made_up else effect.record.state
    told = f"{'made up for' if made_up else 'could not be made up for'}: {_record(entry).summary}"
    return replace(effect, record=replace(effect.record, state=state, compensation=told))
