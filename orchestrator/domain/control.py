"""What persons can have an execution do, and what a paused one waits for."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from orchestrator.domain.events import ControlAction, ExecutionPaused, PauseKind
from orchestrator.domain.evidence import Outcome
from orchestrator.domain.plan import PauseDefault


class ExecutionPhase(StrEnum):
    """Whether an execution goes on."""

    RUNNING = "running"
    PAUSED = "paused"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """What a paused execution waits for."""

    kind: PauseKind | None
    """None in an event of an older release, which paused for an outcome that nobody knew."""
    reason: str
    step_id: str = ""
    deadline: datetime | None = None
    default_action: PauseDefault | None = None
    results_digest: str = ""
    change_set_digest: str = ""
    actions: tuple[ControlAction, ...] = ()
    """What can be asked of it; the executor judges again."""
    repairable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionState:
    """How an execution stands on the executor."""

    execution_id: str
    mission_id: str
    ended: bool
    outcome: Outcome | None
    started_at: datetime | None
    completed_at: datetime | None
    last_sequence: int
    state: ExecutionPhase | None = None
    """None from an executor of an older release."""
    pause: Pause | None = None
    segment: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveProcess:
    """A program that a live step started and that keeps running."""

    process_id: str
    mission_id: str
    step_id: str
    workspace_id: str
    command: str
    started_at: datetime | None
    running: bool
    ended: str


_ACTIONS: Final[Mapping[PauseKind, tuple[ControlAction, ...]]] = {
    PauseKind.REQUESTED: (ControlAction.RESUME, ControlAction.STOP),
    PauseKind.FAILURE: (ControlAction.RETRY, ControlAction.STOP),
    PauseKind.STEP_APPROVAL: (ControlAction.APPROVE_STEP, ControlAction.STOP),
    PauseKind.UNKNOWN_EFFECT: (ControlAction.RECONCILE, ControlAction.STOP),
    PauseKind.REVOKED: (ControlAction.RESUME, ControlAction.STOP),
    PauseKind.INTERRUPTED: (ControlAction.RESUME, ControlAction.RETRY, ControlAction.STOP),
    PauseKind.UNKNOWN_OUTCOME: (),
}
_REPAIRABLE: Final = frozenset({PauseKind.REQUESTED, PauseKind.FAILURE, PauseKind.REVOKED, PauseKind.INTERRUPTED})


def pause_of(paused: ExecutionPaused) -> Pause | None:
    """Return what an execution waits for, as the event of its pause tells it; one of an older release does not."""
    kind = paused.kind
    if kind is None:
        return None
    return Pause(
        kind=kind,
        reason=paused.reason,
        step_id=paused.step_id,
        deadline=paused.deadline,
        default_action=paused.default_action,
        results_digest=paused.results_digest,
        change_set_digest=paused.change_set_digest,
        actions=paused.actions or _ACTIONS[kind],
        repairable=paused.repairable if paused.actions else kind in _REPAIRABLE,
    )
