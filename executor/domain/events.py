"""What the executor reports while it works: a closed union, one class per event, named as in the contract."""

from dataclasses import dataclass
from datetime import datetime

from executor.domain.control import ControlAction, PauseKind
from executor.domain.plan import PauseDefault, Stage
from executor.domain.receipt import Outcome
from executor.domain.report import RiskLevel


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRunStarted:
    plan_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionStarted:
    execution_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageChanged:
    stage: Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted:
    step_id: str
    kind: str
    stage: Stage
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalStarted:
    step_id: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalCompleted:
    step_id: str
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointCreated:
    step_id: str
    checkpoint_id: str
    path_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffProposed:
    step_id: str
    change_count: int
    risk: RiskLevel


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutput:
    step_id: str
    stream: str
    """"stdout" or "stderr"."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCompleted:
    step_id: str
    kind: str
    stage: Stage
    success: bool
    duration_ms: int
    change_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureDetected:
    step_id: str
    reason: str
    message: str
    kind: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DivergenceDetected:
    step_id: str
    details: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRevoked:
    revocation_id: str
    approver: str
    denied: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionPaused:
    reason: str
    kind: PauseKind = PauseKind.REQUESTED
    step_id: str = ""
    deadline: datetime | None = None
    """None waits for ever."""
    default_action: PauseDefault | None = None
    results_digest: str = ""
    change_set_digest: str = ""
    actions: tuple[ControlAction, ...] = ()
    """What can be asked of it then."""
    repairable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionResumed:
    action: str
    """"resume", "retry", "repair", "approve_step", or "reconcile"."""
    actor: str
    step_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionStopped:
    actor: str
    reason: str
    roll_back: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentOpened:
    segment: int
    plan_id: str
    plan_digest: str
    report_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepApproved:
    step_id: str
    approval_id: str
    approver: str
    key_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectClaimed:
    step_id: str
    idempotency_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReconciled:
    step_id: str
    happened: bool
    person: str
    reconciliation_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackStarted:
    step_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackCompleted:
    step_id: str
    success: bool
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionCompleted:
    execution_id: str
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptIssued:
    receipt_id: str
    receipt_digest: str
    execution_id: str


Payload = (
    DryRunStarted
    | ExecutionStarted
    | StageChanged
    | StepStarted
    | RetrievalStarted
    | RetrievalCompleted
    | CheckpointCreated
    | DiffProposed
    | StepOutput
    | StepCompleted
    | FailureDetected
    | DivergenceDetected
    | ApprovalRevoked
    | ExecutionPaused
    | ExecutionResumed
    | ExecutionStopped
    | SegmentOpened
    | StepApproved
    | EffectClaimed
    | StepReconciled
    | RollbackStarted
    | RollbackCompleted
    | ExecutionCompleted
    | ReceiptIssued
)
