"""What persons sign, from the contract into the domain."""

from executor.adapters.wire_enums import DECISIONS, REVOCATION_KINDS
from executor.adapters.wire_texts import time_from_proto
from executor.domain.approval import Approval
from executor.domain.control import Reconciliation, StepApproval
from executor.domain.revocation import Revocation
from gonogo.v1 import evidence_pb2


def approval_from_proto(message: evidence_pb2.Approval) -> Approval:
    """Map an approval."""
    return Approval(
        approval_id=message.approval_id,
        mission_id=message.mission_id,
        intent_id=message.intent_id,
        plan_id=message.plan_id,
        plan_digest=message.plan_digest,
        report_id=message.report_id,
        report_digest=message.report_digest,
        executor_id=message.executor_id,
        workspace_id=message.workspace_id,
        approver=message.approver,
        decision=DECISIONS.from_wire(message.decision),
        approved_at=time_from_proto(message, "approved_at"),
        not_before=time_from_proto(message, "not_before"),
        expires_at=time_from_proto(message, "expires_at"),
        nonce=message.nonce,
        policy_digest=message.policy_digest,
        comment=message.comment,
        audit_checkpoint=message.audit_checkpoint,
    )


def revocation_from_proto(message: evidence_pb2.Revocation) -> Revocation:
    """Map a revocation."""
    return Revocation(
        revocation_id=message.revocation_id,
        executor_id=message.executor_id,
        mission_id=message.mission_id,
        kind=REVOCATION_KINDS.from_wire(message.kind),
        person=message.person,
        reason=message.reason,
        revoked_at=time_from_proto(message, "revoked_at"),
        nonce=message.nonce,
    )


def step_approval_from_proto(message: evidence_pb2.StepApproval) -> StepApproval:
    """Map a decision about one step."""
    return StepApproval(
        approval_id=message.approval_id,
        executor_id=message.executor_id,
        workspace_id=message.workspace_id,
        mission_id=message.mission_id,
        execution_id=message.execution_id,
        segment=message.segment,
        step_id=message.step_id,
        change_set_digest=message.change_set_digest,
        results_digest=message.results_digest,
        approver=message.approver,
        decision=DECISIONS.from_wire(message.decision),
        approved_at=time_from_proto(message, "approved_at"),
        expires_at=time_from_proto(message, "expires_at"),
        nonce=message.nonce,
        comment=message.comment,
    )


def reconciliation_from_proto(message: evidence_pb2.Reconciliation) -> Reconciliation:
    """Map a word on whether an effect happened."""
    return Reconciliation(
        reconciliation_id=message.reconciliation_id,
        executor_id=message.executor_id,
        mission_id=message.mission_id,
        execution_id=message.execution_id,
        step_id=message.step_id,
        happened=message.happened,
        person=message.person,
        reason=message.reason,
        decided_at=time_from_proto(message, "decided_at"),
        nonce=message.nonce,
        results_digest=message.results_digest,
    )
