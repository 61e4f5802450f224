"""What an approval says, and the rules about one approval that need nothing but the approval and the time.

Whether the person really signed it is settled before any of this is read (`executor.runner.gates`).
"""

import enum
from dataclasses import dataclass
from datetime import datetime

from executor.domain.errors import GateRefusedError
from executor.domain.report import Report

GATE = 3


class Decision(enum.Enum):
    """Whether an approver agrees."""

    APPROVE = "approve"
    DENY = "deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """One person's signed decision about one plan and one report."""

    approval_id: str
    mission_id: str
    intent_id: str
    plan_id: str
    plan_digest: str
    report_id: str
    report_digest: str
    executor_id: str
    workspace_id: str
    approver: str
    decision: Decision
    approved_at: datetime
    not_before: datetime
    expires_at: datetime
    nonce: str
    policy_digest: str
    comment: str
    audit_checkpoint: str = ""
    """The executor's last checkpoint that the approver's client checked, as a signed note."""


def check_decision(approval: Approval) -> None:
    """Refuse a denial: one valid denial by a person of the trust file is enough.

    Raises:
        GateRefusedError: the person denied.
    """
    if approval.decision is Decision.DENY:
        raise GateRefusedError(
            GATE,
            "NOT_APPROVED",
            f"{approval.approver} denied the plan (approval {approval.approval_id})",
            "propose a changed plan; a denial is final for this one",
        )


def check_window(approval: Approval, *, now: datetime, max_seconds: int) -> None:
    """Refuse an approval outside its time, or beyond the longest lifetime that the executor grants.

    Args:
        approval: the approval.
        now: the executor's effective time, which never runs backwards.
        max_seconds: the policy's cap, counted from the earlier of the decision and the start.

    Raises:
        GateRefusedError: too early or too late.
    """
    start = min(approval.approved_at, approval.not_before)
    if now < approval.not_before:
        raise GateRefusedError(
            GATE,
            "NOT_APPROVED",
            f"approval {approval.approval_id} is not valid before {approval.not_before.isoformat()}",
            "wait until then, or check the clocks of the approver and of the executor",
        )
    if now >= approval.expires_at or (now - start).total_seconds() >= max_seconds:
        raise GateRefusedError(
            GATE,
            "APPROVAL_EXPIRED",
            f"approval {approval.approval_id} of {approval.approver} has expired",
            f"approve again; this executor takes an approval for at most {max_seconds} seconds",
        )


def check_report_named(approval: Approval, report: Report, report_digest: str) -> None:
    """Refuse an approval of the right plan that was given to another report, or under another policy.

    Raises:
        GateRefusedError: the approver saw something else.
    """
    named = (approval.report_digest, approval.report_id, approval.policy_digest)
    if named != (report_digest, report.report_id, report.policy_digest):
        raise GateRefusedError(
            GATE,
            "NOT_APPROVED",
            f"approval {approval.approval_id} is not for report {report.report_id}",
            "show this report to the approver and let them approve it",
        )
