"""A claim as the text in which the ledger keeps it."""

import json
from datetime import datetime

from executor.domain.plan import FailurePolicy
from executor.domain.receipt import ApprovalRecord
from executor.domain.report import SelfApproval
from executor.runner.ports import Claim


def claim_to_json(claim: Claim) -> str:
    """Write a claim."""
    value = {
        "mission_id": claim.mission_id,
        "segment": claim.segment,
        "execution_id": claim.execution_id,
        "intent_id": claim.intent_id,
        "message_id": claim.message_id,
        "transcription_id": claim.transcription_id,
        "plan_id": claim.plan_id,
        "plan_digest": claim.plan_digest,
        "report_digest": claim.report_digest,
        "workspace_id": claim.workspace_id,
        "approvals": [_record_to_value(record) for record in claim.approvals],
        "nonces": claim.nonces,
        "self_approval": claim.self_approval.value,
        "policy_digest": claim.policy_digest,
        "claimed_at": claim.claimed_at.isoformat(),
        "failure_policy": claim.failure_policy.value,
        "targets": claim.targets,
    }
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def claim_from_json(text: str) -> Claim:
    """Read what `claim_to_json` wrote."""
    value = json.loads(text)
    return Claim(
        mission_id=value["mission_id"],
        segment=value["segment"],
        execution_id=value["execution_id"],
        intent_id=value["intent_id"],
        message_id=value["message_id"],
        transcription_id=value["transcription_id"],
        plan_id=value["plan_id"],
        plan_digest=value["plan_digest"],
        report_digest=value["report_digest"],
        workspace_id=value["workspace_id"],
        approvals=tuple(_record_from_value(record) for record in value["approvals"]),
        nonces=tuple(value["nonces"]),
        self_approval=SelfApproval(value["self_approval"]),
        policy_digest=value["policy_digest"],
        claimed_at=datetime.fromisoformat(value["claimed_at"]),
        # Claims of the first release carry neither; its plans rolled back unless they said otherwise.
        failure_policy=FailurePolicy(value.get("failure_policy", FailurePolicy.ROLL_BACK.value)),
        targets=tuple(value.get("targets", ())),
    )


def _record_to_value(record: ApprovalRecord) -> dict[str, str]:
    return {
        "approval_id": record.approval_id,
        "approval_digest": record.approval_digest,
        "approver": record.approver,
        "key_id": record.key_id,
        "approved_at": record.approved_at.isoformat(),
    }


def _record_from_value(value: dict[str, str]) -> ApprovalRecord:
    return ApprovalRecord(
        approval_id=value["approval_id"],
        approval_digest=value["approval_digest"],
        approver=value["approver"],
        key_id=value["key_id"],
        approved_at=datetime.fromisoformat(value["approved_at"]),
    )
