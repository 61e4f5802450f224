"""What the orchestrator takes from the executor's and the approvers' sealed documents."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from gonogo.policy import Demand
from orchestrator.domain.plan import LadderLevel


class ReportStatus(StrEnum):
    SUCCESS = "success"
    UNSAFE = "unsafe"
    BLOCKED = "blocked"
    FAILED = "failed"


class RiskLevel(StrEnum):
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Decision(StrEnum):
    APPROVE = "approve"
    DENY = "deny"


class Outcome(StrEnum):
    SUCCESS = "success"
    PARTIAL = "partial"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"
    UNKNOWN = "unknown"


class SelfApproval(StrEnum):
    REFUSED = "refused"
    ALLOWED = "allowed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One signature over a sealed document."""

    key_id: str
    scheme: str
    signature: bytes
    extra: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A document that was written once; `digest` names its bytes, computed by whoever made this value from them."""

    media_type: str
    body: bytes
    signatures: tuple[Signature, ...]
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFacts:
    """What the orchestrator needs to know of a report; the rest is for the person who reads its bytes."""

    report_id: str
    mission_id: str
    plan_id: str
    plan_digest: str
    executor_id: str
    status: ReportStatus
    risk: RiskLevel | None
    change_count: int
    reason: str
    message: str
    policy_digest: str = ""
    demand: Demand | None = None
    """What the policy demands of the approvals; None in a report that does not say."""
    proposer: str = ""
    """Who proposed, as far as the plan's signatures proved it to the executor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalFacts:
    """One person's decision, as its strictly read bytes say it."""

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
    not_before: datetime | None
    expires_at: datetime
    nonce: str
    policy_digest: str
    comment: str
    audit_checkpoint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptFacts:
    """What the orchestrator needs to know of a receipt."""

    receipt_id: str
    execution_id: str
    mission_id: str
    plan_digest: str
    executor_id: str
    outcome: Outcome
    steps_succeeded: int
    steps_failed: int
    paths_changed: int
    abort_reason: str
    errors: tuple[str, ...]
    segment_plan_digests: tuple[str, ...] = ()
    """The plans of the later segments, in their order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepApprovalFacts:
    """One person's decision about one step, as its strictly read bytes say it."""

    approval_id: str
    executor_id: str
    workspace_id: str
    mission_id: str
    execution_id: str
    segment: int
    step_id: str
    change_set_digest: str
    results_digest: str
    approver: str
    decision: Decision
    approved_at: datetime
    expires_at: datetime
    nonce: str
    comment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconciliationFacts:
    """One person's word on whether a live step's effect happened, as its strictly read bytes say it."""

    reconciliation_id: str
    executor_id: str
    mission_id: str
    execution_id: str
    step_id: str
    happened: bool
    person: str
    reason: str
    decided_at: datetime
    nonce: str
    results_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalFacts:
    """What the orchestrator needs to know of a refusal."""

    refusal_id: str
    gate: int
    reason: str
    message: str
    remedy: str
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One capability that the executor's self-test tried."""

    name: str
    ok: bool
    detail: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedKey:
    key_id: str
    scheme: str
    public_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedPerson:
    person: str
    keys: tuple[TrustedKey, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceInfo:
    workspace_id: str
    ladder_level: LadderLevel | None
    limitation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FarSide:
    """Something outside that live steps may use, as the executor's trust file names it."""

    kind: str
    name: str
    workspaces: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorInfo:
    """Who the executor is, as it says itself."""

    executor_id: str
    public_key: str
    ledger_epoch: str
    ladder_level: LadderLevel | None
    findings: tuple[Finding, ...]
    workspaces: tuple[WorkspaceInfo, ...]
    persons: tuple[TrustedPerson, ...]
    approvals_required: int
    self_approval: SelfApproval | None
    max_approval_seconds: int
    policy_digest: str
    version: str
    max_content_bytes: int
    report_seconds: int
    checkpoint_seconds: int
    log_origin: str = ""
    policy: Sealed | None = None
    """The sealed policy in force."""
    far_sides: tuple[FarSide, ...] = ()
