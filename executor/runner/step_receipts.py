"""What the receipt says of one step, as the one who did it saw it."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from executor.domain.plan import Step
from executor.domain.receipt import ApprovalRecord, EffectState, ReconciliationRecord, StepReceipt
from executor.runner.step_work import Done, StepFault, action_type


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """One step as it was begun."""

    step: Step
    target: str
    segment: int
    attempt: int
    started_at: datetime
    approvals: tuple[ApprovalRecord, ...] = ()


def step_receipt(begun: Begun, took: int, done: Done | None, fault: StepFault | None) -> StepReceipt:
    """Write what a step came to: what it did, or what kept it from that."""
    step = begun.step
    tests = None if fault is None else fault.tests
    failed = "" if fault is None else str(fault)
    return StepReceipt(
        step_id=step.step_id,
        operation=step.kind,
        target=begun.target,
        action_type=action_type(step) if done is None else done.action_type,
        stage=step.stage,
        started_at=begun.started_at,
        completed_at=datetime.now(UTC),
        duration_ms=took,
        precondition_met=fault is None or fault.met,
        precondition_detail=failed if done is None else done.detail,
        expected_vs_actual_match=fault is None,
        actual_state_change=() if done is None else done.changes,
        success=fault is None,
        rollback_invoked=False,
        rollback_succeeded=False,
        error_message=failed,
        test_verdict=(tests.verdict if tests else None) if done is None else done.verdict,
        segment=begun.segment,
        attempts=begun.attempt,
        effect=(None if fault is None else fault.effect) if done is None else done.effect,
        step_approvals=begun.approvals,
        test_cases=(tests.cases if tests else ()) if done is None else done.cases,
    )


def reconciled(receipt: StepReceipt, word: ReconciliationRecord) -> StepReceipt:
    """Add a person's word on the step's effect."""
    if receipt.effect is None:
        return receipt
    state = EffectState.DONE if word.happened else EffectState.NOT_DONE
    said = f"{word.person} says that it {'happened' if word.happened else 'did not happen'}"
    return replace(
        receipt,
        effect=replace(receipt.effect, state=state, reconciliation=word),
        success=word.happened,
        expected_vs_actual_match=word.happened,
        precondition_detail=said,
        error_message="" if word.happened else said,
    )
