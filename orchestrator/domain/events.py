"""Everything that can happen to a mission or in a chat: a closed union of frozen values.

The classes have the names and fields of the contract's payload messages; `TYPES` gives each its name in the log and
on the wire. A value of an event that was recorded is never changed; a new meaning is a new event.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, TypeAlias, get_args

from orchestrator.domain.evidence import Outcome, ReportStatus, RiskLevel
from orchestrator.domain.intent import IntentKind
from orchestrator.domain.plan import PauseDefault, Scope, Stage


class OutputStream(StrEnum):
    STDOUT = "stdout"
    STDERR = "stderr"


class ControlAction(StrEnum):
    """What persons can have an execution do."""

    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"
    RETRY = "retry"
    APPROVE_STEP = "approve_step"
    RECONCILE = "reconcile"


class PauseKind(StrEnum):
    """Why an execution waits."""

    REQUESTED = "requested"
    FAILURE = "failure"
    STEP_APPROVAL = "step_approval"
    UNKNOWN_EFFECT = "unknown_effect"
    REVOKED = "revoked"
    INTERRUPTED = "interrupted"
    UNKNOWN_OUTCOME = "unknown_outcome"


class Rating(StrEnum):
    """How good a person finds a result."""

    GOOD = "good"
    BAD = "bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcription:
    transcription_id: str
    text: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageReceived:
    session_id: str
    message_id: str
    text: str
    transcription: Transcription | None = None
    mission_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntentClassified:
    intent_id: str
    message_id: str
    kind: IntentKind
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MissionProposed:
    intent_id: str
    objective: str
    workspace_id: str
    executor_id: str
    proposer: str
    session_id: str = ""
    message_id: str = ""
    transcription_id: str = ""
    cloned_from: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    step_id: str
    kind: str
    stage: Stage
    description: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSealed:
    plan_id: str
    plan_digest: str
    steps: tuple[PlannedStep, ...]
    segment: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRunStarted:
    plan_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRunCompleted:
    report_id: str
    report_digest: str
    status: ReportStatus
    risk: RiskLevel | None
    change_count: int
    reason: str
    message: str
    confidence: int = 0
    """In hundredths of a percent; 0 where too few outcomes were seen."""
    confidence_samples: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalGranted:
    approval_id: str
    approval_digest: str
    approver: str
    key_id: str
    expires_at: datetime
    report_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRefused:
    approver: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRevoked:
    revocation_id: str
    approver: str
    denied: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSigned:
    plan_digest: str
    person: str
    key_id: str
    scheme: str
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class MissionApproved:
    approval_id: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class MissionRejected:
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MissionExpired:
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MissionReturned:
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MissionQueued:
    request_id: str
    tenant: str = ""
    priority: int = 0
    not_before: datetime | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MissionStarted:
    goal: str
    steps_count: int
    scope_contract: Scope | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionStarted:
    execution_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRefused:
    refusal_id: str
    gate: int
    reason: str
    message: str
    remedy: str
    paths: tuple[str, ...]


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
    risk: RiskLevel | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutput:
    step_id: str
    stream: OutputStream
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
class ExecutionPaused:
    reason: str
    kind: PauseKind | None = None
    step_id: str = ""
    deadline: datetime | None = None
    default_action: PauseDefault | None = None
    results_digest: str = ""
    change_set_digest: str = ""
    actions: tuple[ControlAction, ...] = ()
    repairable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionResumed:
    action: str
    actor: str
    step_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionStopped:
    actor: str
    reason: str
    roll_back: bool = False


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
    idempotency_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReconciled:
    step_id: str
    happened: bool
    person: str
    reconciliation_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DivergenceDetected:
    step_id: str
    details: tuple[str, ...]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class MissionCompleted:
    final_answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MissionFailed:
    outcome: Outcome | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MissionCancelled:
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackRecorded:
    text: str
    rating: Rating | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalRecorded:
    """What one step kind of a mission that ended adds to what is known of it."""

    kind: str
    tool: str = ""
    workspace_id: str
    succeeded: int = 0
    failed: int = 0
    censored: int = 0
    duration_ms: int = 0
    divergences: int = 0
    rollbacks: int = 0


ExecutionPayload: TypeAlias = (
    ExecutionStarted
    | StageChanged
    | StepStarted
    | RetrievalStarted
    | RetrievalCompleted
    | CheckpointCreated
    | DiffProposed
    | StepOutput
    | StepCompleted
    | FailureDetected
    | ExecutionPaused
    | ExecutionResumed
    | ExecutionStopped
    | SegmentOpened
    | StepApproved
    | EffectClaimed
    | StepReconciled
    | ApprovalRevoked
    | DivergenceDetected
    | RollbackStarted
    | RollbackCompleted
    | ExecutionCompleted
    | ReceiptIssued
)
"""What an executor may report of an execution. Nothing else is taken from it."""

Payload: TypeAlias = (
    MessageReceived
    | IntentClassified
    | MissionProposed
    | PlanSealed
    | DryRunStarted
    | DryRunCompleted
    | ApprovalGranted
    | ApprovalRefused
    | PlanSigned
    | MissionApproved
    | MissionRejected
    | MissionExpired
    | MissionReturned
    | MissionQueued
    | MissionStarted
    | GateRefused
    | MissionCompleted
    | MissionFailed
    | MissionCancelled
    | FeedbackRecorded
    | SignalRecorded
    | ExecutionPayload
)

EXECUTION_PAYLOADS: Final[frozenset[type[Payload]]] = frozenset(get_args(ExecutionPayload))
TYPES: Final[Mapping[type[Payload], str]] = {
    payload: re.sub(r"(?<=[a-z])(?=[A-Z])", "_", payload.__name__).lower() for payload in get_args(Payload)
}
PAYLOADS: Final[Mapping[str, type[Payload]]] = {name: payload for payload, name in TYPES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened, with its place in its stream (a mission's, or a chat session's)."""

    event_id: str
    mission_id: str
    sequence: int
    time: datetime
    actor: str
    payload: Payload


def event_id(stream_key: str, sequence: int) -> str:
    """Return the id of an event, made of its stream's id and its place, so that whoever reads it finds the same."""
    return f"e-{stream_key.partition('-')[2] or stream_key}-{sequence:06d}"
