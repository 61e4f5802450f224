"""What persons have an execution do while it is under way, and why it waits for them."""

import enum
from dataclasses import dataclass
from datetime import datetime

from executor.domain.approval import Decision
from executor.domain.plan import PauseDefault


class PauseKind(enum.Enum):
    """Why an execution waits."""

    REQUESTED = "requested"
    FAILURE = "failure"
    STEP_APPROVAL = "step_approval"
    UNKNOWN_EFFECT = "unknown_effect"
    REVOKED = "revoked"
    INTERRUPTED = "interrupted"
    UNKNOWN_OUTCOME = "unknown_outcome"


class ControlAction(enum.Enum):
    """What somebody wants of an execution."""

    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"
    RETRY = "retry"
    APPROVE_STEP = "approve_step"
    RECONCILE = "reconcile"


class ExecutionState(enum.Enum):
    """Whether an execution goes on."""

    RUNNING = "running"
    PAUSED = "paused"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """What a paused execution waits for."""

    kind: PauseKind
    reason: str
    step_id: str = ""
    deadline: datetime | None = None
    """None waits for ever."""
    default_action: PauseDefault | None = None
    results_digest: str = ""
    change_set_digest: str = ""
    actions: tuple[ControlAction, ...] = ()
    repairable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StepApproval:
    """One person's decision about one step that waits for it."""

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
class Reconciliation:
    """One person's word on whether a live step's effect happened."""

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
