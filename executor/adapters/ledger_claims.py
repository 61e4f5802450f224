"""A claim as the text in which the ledger keeps it."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from executor.domain.plan import FailurePolicy
from executor.domain.receipt import ApprovalRecord, GateRecord
from executor.domain.report import SelfApproval
from executor.runner.ports import Claim
from gonogo.policy import Demand, Proposer, ProposerKind, Requirement

_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


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
        "gates": [[gate.gate, gate.name, gate.detail] for gate in claim.gates],
        "proposer": None if claim.proposer is None else _proposer_to_value(claim.proposer),
        "demand": None if claim.demand is None else _demand_to_value(claim.demand),
        "journal_digest": claim.journal_digest,
    }
    return _encode(value)


def claim_from_json(text: str) -> Claim:
    """Read what `claim_to_json` wrote, now or in an older release."""
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
        # Claims before there were rules carry none of these.
        gates=tuple(GateRecord(gate=gate, name=name, detail=detail) for gate, name, detail in value.get("gates", ())),
        proposer=_proposer_from_value(value.get("proposer")),
        demand=_demand_from_value(value.get("demand")),
        journal_digest=value.get("journal_digest", ""),
    )


def _record_to_value(record: ApprovalRecord) -> dict[str, object]:
    return {
        "approval_id": record.approval_id,
        "approval_digest": record.approval_digest,
        "approver": record.approver,
        "key_id": record.key_id,
        "approved_at": record.approved_at.isoformat(),
        "scheme": record.scheme,
        "expires_at": None if record.expires_at is None else record.expires_at.isoformat(),
        "hardware_key": record.hardware_key,
    }


def _record_from_value(value: Mapping[str, Any]) -> ApprovalRecord:
    expires_at = value.get("expires_at")
    return ApprovalRecord(
        approval_id=value["approval_id"],
        approval_digest=value["approval_digest"],
        approver=value["approver"],
        key_id=value["key_id"],
        approved_at=datetime.fromisoformat(value["approved_at"]),
        scheme=value.get("scheme", ""),
        expires_at=None if expires_at is None else datetime.fromisoformat(expires_at),
        hardware_key=value.get("hardware_key", False),
    )


def _proposer_to_value(proposer: Proposer) -> dict[str, str]:
    return {"kind": proposer.kind.value, "person": proposer.person, "sponsor": proposer.sponsor}


def _proposer_from_value(value: Mapping[str, str] | None) -> Proposer | None:
    if value is None:
        return None
    return Proposer(kind=ProposerKind(value["kind"]), person=value["person"], sponsor=value["sponsor"])


def _demand_to_value(demand: Demand) -> dict[str, object]:
    return {
        "requirements": [[one.count, one.group] for one in demand.requirements],
        "rules": demand.rules,
        "max_approval_seconds": demand.max_approval_seconds,
        "hardware_key": demand.hardware_key,
        "min_ladder_level": demand.min_ladder_level,
        "approve_steps": demand.approve_steps,
    }


def _demand_from_value(value: Mapping[str, Any] | None) -> Demand | None:
    """Read a demand; one that was claimed under refused nothing."""
    if value is None:
        return None
    return Demand(
        requirements=tuple(Requirement(count=count, group=group) for count, group in value["requirements"]),
        rules=tuple(value["rules"]),
        max_approval_seconds=value["max_approval_seconds"],
        hardware_key=value["hardware_key"],
        min_ladder_level=value["min_ladder_level"],
        approve_steps=tuple(value.get("approve_steps", ())),
    )
