"""What an execution did, and what a refusal says."""

import enum
from dataclasses import dataclass
from datetime import datetime

from executor.domain.changes import Change, Node
from executor.domain.ladder import LadderLevel
from executor.domain.plan import Stage
from executor.domain.report import Excerpt, SelfApproval, TestCase, TestVerdict
from gonogo.policy import Demand, Proposer


class Outcome(enum.Enum):
    """How an execution ended."""

    SUCCESS = "success"
    PARTIAL = "partial"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"
    """Claimed, but nothing committed."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRecord:
    """Which approval an execution stands on."""

    approval_id: str
    approval_digest: str
    approver: str
    key_id: str
    approved_at: datetime
    scheme: str = ""
    expires_at: datetime | None = None
    """None, as the scheme is empty, in what an older release claimed."""
    hardware_key: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRecord:
    """What one gate saw when it held."""

    gate: int
    name: str
    detail: str


class EffectState(enum.Enum):
    """Whether a live step's effect happened."""

    DONE = "done"
    NOT_DONE = "not_done"
    UNKNOWN = "unknown"
    COMPENSATED = "compensated"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconciliationRecord:
    """A person's word on an effect of which nobody could tell whether it happened."""

    reconciliation_id: str
    reconciliation_digest: str
    person: str
    key_id: str
    happened: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectRecord:
    """What came of a live step's effect."""

    state: EffectState
    idempotency_key: str = ""
    summary: str = ""
    answer_digest: str = ""
    answer: Excerpt | None = None
    reconciliation: ReconciliationRecord | None = None
    compensation: str = ""
    """How its compensation went; empty where none was begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlRecord:
    """One thing that somebody had the execution do."""

    action: str
    actor: str
    reason: str
    time: datetime
    step_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReceipt:
    step_id: str
    operation: str
    target: str
    action_type: str
    """"read", "commit" or "verify"."""
    stage: Stage
    started_at: datetime
    completed_at: datetime
    duration_ms: int
    precondition_met: bool
    precondition_detail: str
    expected_vs_actual_match: bool
    actual_state_change: tuple[Change, ...]
    success: bool
    rollback_invoked: bool
    rollback_succeeded: bool
    error_message: str
    test_verdict: TestVerdict | None
    segment: int = 0
    attempts: int = 1
    effect: EffectRecord | None = None
    step_approvals: tuple[ApprovalRecord, ...] = ()
    test_cases: tuple[TestCase, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionResult:
    """What the run itself found; the receipt adds who, when and under which rules."""

    outcome: Outcome
    steps: tuple[StepReceipt, ...]
    before: tuple[tuple[bytes, Node | None], ...]
    after: tuple[tuple[bytes, Node | None], ...]
    after_fingerprint: str
    divergence_details: tuple[str, ...]
    abort_reason: str
    errors: tuple[str, ...]
    controls: tuple[ControlRecord, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRecord:
    """What one later segment of an execution stood on."""

    segment: int
    plan_id: str
    plan_digest: str
    report_id: str
    report_digest: str
    approvals: tuple[ApprovalRecord, ...]
    started_at: datetime
    gates: tuple[GateRecord, ...]
    proposer: Proposer | None
    demand: Demand | None
    journal_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    receipt_id: str
    execution_id: str
    mission_id: str
    intent_id: str
    message_id: str
    transcription_id: str
    plan_id: str
    plan_digest: str
    report_id: str
    report_digest: str
    approvals: tuple[ApprovalRecord, ...]
    executor_id: str
    workspace_id: str
    ledger_epoch: str
    ladder_level: LadderLevel
    self_approval: SelfApproval
    policy_digest: str
    started_at: datetime
    completed_at: datetime
    execution_duration_ms: int
    base_fingerprint: str
    expected_after_fingerprint: str
    result: ExecutionResult
    gates: tuple[GateRecord, ...] = ()
    proposer: Proposer | None = None
    demand: Demand | None = None
    """What the policy demanded at the moment of the claim; None, as the proposer, for a claim of an older release."""
    segments: tuple[SegmentRecord, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """That nothing was done, and why."""

    refusal_id: str
    mission_id: str
    plan_digest: str
    report_digest: str
    executor_id: str
    gate: int
    abort_reason: str
    message: str
    remedy: str
    paths: tuple[bytes, ...]
    path_count: int
    refused_at: datetime
