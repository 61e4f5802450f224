"""What the executor reports while it works: a closed union, one class per event, named as in the contract."""

from dataclasses import dataclass

from executor.domain.plan import Stage
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
    | RollbackStarted
    | RollbackCompleted
    | ExecutionCompleted
    | ReceiptIssued
)
