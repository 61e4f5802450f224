"""Receipts and refusals into the contract."""

from executor.adapters.wire_changes import change_to_proto, snapshot_to_proto, time_to_proto
from executor.adapters.wire_enums import EFFECT_STATES, LADDER, OUTCOMES, SELF_APPROVALS, STAGES, VERDICTS
from executor.adapters.wire_excerpts import cases_to_proto, excerpt_to_proto
from executor.domain.receipt import (
    ApprovalRecord,
    ControlRecord,
    EffectRecord,
    GateRecord,
    Receipt,
    ReconciliationRecord,
    Refusal,
    SegmentRecord,
    StepReceipt,
)
from gonogo.policy_document import demand_to_proto, proposer_to_proto
from gonogo.safe_text import shown_path
from gonogo.v1 import evidence_pb2


def refusal_to_proto(refusal: Refusal) -> evidence_pb2.Refusal:
    """Map a refusal; its paths are for reading, bytes that are not UTF-8 spelt out."""
    return evidence_pb2.Refusal(
        refusal_id=refusal.refusal_id,
        mission_id=refusal.mission_id,
        plan_digest=refusal.plan_digest,
        report_digest=refusal.report_digest,
        executor_id=refusal.executor_id,
        gate=refusal.gate,
        abort_reason=refusal.abort_reason,
        message=refusal.message,
        remedy=refusal.remedy,
        paths=[shown_path(path) for path in refusal.paths],
        path_count=refusal.path_count,
        refused_at=time_to_proto(refusal.refused_at),
    )


def receipt_to_proto(receipt: Receipt) -> evidence_pb2.Receipt:
    """Map a receipt."""
    result = receipt.result
    succeeded = sum(step.success for step in result.steps)
    return evidence_pb2.Receipt(
        receipt_id=receipt.receipt_id,
        execution_id=receipt.execution_id,
        mission_id=receipt.mission_id,
        intent_id=receipt.intent_id,
        message_id=receipt.message_id,
        transcription_id=receipt.transcription_id,
        plan_id=receipt.plan_id,
        plan_digest=receipt.plan_digest,
        report_id=receipt.report_id,
        report_digest=receipt.report_digest,
        approvals=[_approval_record(record) for record in receipt.approvals],
        executor_id=receipt.executor_id,
        workspace_id=receipt.workspace_id,
        ledger_epoch=receipt.ledger_epoch,
        ladder_level=LADDER.to_wire(receipt.ladder_level),
        self_approval=SELF_APPROVALS.to_wire(receipt.self_approval),
        policy_digest=receipt.policy_digest,
        execution_status=OUTCOMES.to_wire(result.outcome),
        started_at=time_to_proto(receipt.started_at),
        completed_at=time_to_proto(receipt.completed_at),
        execution_duration_ms=receipt.execution_duration_ms,
        steps_succeeded=succeeded,
        steps_failed=len(result.steps) - succeeded,
        base_fingerprint=receipt.base_fingerprint,
        after_fingerprint=result.after_fingerprint,
        expected_after_fingerprint=receipt.expected_after_fingerprint,
        before=[snapshot_to_proto(path, node) for path, node in result.before],
        after=[snapshot_to_proto(path, node) for path, node in result.after],
        divergence_detected=bool(result.divergence_details),
        divergence_details=result.divergence_details,
        abort_reason=result.abort_reason,
        errors=result.errors,
        steps=[_step(step) for step in result.steps],
        gates=[_gate(gate) for gate in receipt.gates],
        proposer=None if receipt.proposer is None else proposer_to_proto(receipt.proposer),
        demand=None if receipt.demand is None else demand_to_proto(receipt.demand),
        segments=[_segment(segment) for segment in receipt.segments],
        controls=[_control(control) for control in result.controls],
    )


def _segment(segment: SegmentRecord) -> evidence_pb2.SegmentRecord:
    return evidence_pb2.SegmentRecord(
        segment=segment.segment,
        plan_id=segment.plan_id,
        plan_digest=segment.plan_digest,
        report_id=segment.report_id,
        report_digest=segment.report_digest,
        approvals=[_approval_record(record) for record in segment.approvals],
        started_at=time_to_proto(segment.started_at),
        gates=[_gate(gate) for gate in segment.gates],
        proposer=None if segment.proposer is None else proposer_to_proto(segment.proposer),
        demand=None if segment.demand is None else demand_to_proto(segment.demand),
        journal_digest=segment.journal_digest,
    )


def _control(control: ControlRecord) -> evidence_pb2.ControlRecord:
    return evidence_pb2.ControlRecord(
        action=control.action,
        actor=control.actor,
        reason=control.reason,
        time=time_to_proto(control.time),
        step_id=control.step_id,
    )


def _gate(gate: GateRecord) -> evidence_pb2.GateRecord:
    return evidence_pb2.GateRecord(gate=gate.gate, name=gate.name, detail=gate.detail)


def _approval_record(record: ApprovalRecord) -> evidence_pb2.ApprovalRecord:
    return evidence_pb2.ApprovalRecord(
        approval_id=record.approval_id,
        approval_digest=record.approval_digest,
        approver=record.approver,
        key_id=record.key_id,
        approved_at=time_to_proto(record.approved_at),
        scheme=record.scheme,
        expires_at=None if record.expires_at is None else time_to_proto(record.expires_at),
        hardware_key=record.hardware_key,
    )


def _step(step: StepReceipt) -> evidence_pb2.StepReceipt:
    return evidence_pb2.StepReceipt(
        step_id=step.step_id,
        operation=step.operation,
        target=step.target,
        action_type=step.action_type,
        stage=STAGES.to_wire(step.stage),
        started_at=time_to_proto(step.started_at),
        completed_at=time_to_proto(step.completed_at),
        duration_ms=step.duration_ms,
        precondition_met=step.precondition_met,
        precondition_detail=step.precondition_detail,
        expected_vs_actual_match=step.expected_vs_actual_match,
        actual_state_change=[change_to_proto(change) for change in step.actual_state_change],
        success=step.success,
        rollback_invoked=step.rollback_invoked,
        rollback_succeeded=step.rollback_succeeded,
        error_message=step.error_message,
        test_verdict=(
            evidence_pb2.TEST_VERDICT_UNSPECIFIED if step.test_verdict is None else VERDICTS.to_wire(step.test_verdict)
        ),
        segment=step.segment,
        attempts=step.attempts,
        effect=None if step.effect is None else _effect(step.effect),
        step_approvals=[_approval_record(record) for record in step.step_approvals],
        test_cases=cases_to_proto(step.test_cases),
    )


def _effect(effect: EffectRecord) -> evidence_pb2.EffectRecord:
    return evidence_pb2.EffectRecord(
        state=EFFECT_STATES.to_wire(effect.state),
        idempotency_key=effect.idempotency_key,
        summary=effect.summary,
        answer_digest=effect.answer_digest,
        answer=None if effect.answer is None else excerpt_to_proto(effect.answer),
        reconciliation=None if effect.reconciliation is None else _reconciliation(effect.reconciliation),
        compensation=effect.compensation,
    )


def _reconciliation(record: ReconciliationRecord) -> evidence_pb2.ReconciliationRecord:
    return evidence_pb2.ReconciliationRecord(
        reconciliation_id=record.reconciliation_id,
        reconciliation_digest=record.reconciliation_digest,
        person=record.person,
        key_id=record.key_id,
        happened=record.happened,
    )
