"""The whiteboard: a mission as its events tell it, and nothing that they do not tell."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from orchestrator.domain import events as ev
from orchestrator.domain.control import Pause
from orchestrator.domain.evidence import Outcome
from orchestrator.domain.mission import ENDED, REPAIR, Mission, MissionStatus, evolve
from orchestrator.domain.plan import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardStep:
    step_id: str
    kind: str
    stage: Stage
    description: str
    target: str
    status: str = "planned"
    """planned, running, succeeded, failed or rolled_back."""
    start_time: datetime | None = None
    end_time: datetime | None = None
    duration_ms: int = 0
    segment: int = 0
    """The segment of the execution whose plan it stands in."""
    attempts: int = 0
    """How often it was begun."""
    error: str = ""
    """Why it failed, as long as it stands as failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardStage:
    stage: Stage
    start_time: datetime | None
    end_time: datetime | None
    steps: int
    succeeded: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardApproval:
    approval_id: str
    approver: str
    time: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardResult:
    final_answer: str
    tools_used: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Whiteboard:
    mission_id: str
    objective: str
    status: MissionStatus
    outcome: Outcome | None
    start_time: datetime
    end_time: datetime | None
    result: BoardResult
    stages: tuple[BoardStage, ...]
    steps: tuple[BoardStep, ...]
    approvals: tuple[BoardApproval, ...]
    last_sequence: int
    reason: str
    pause: Pause | None = None


class _Steps(dict[str, BoardStep]):
    """The steps by their ids, in the order of their plans; it never leaves this module."""

    opened: int = 0
    """The segment that the execution is in."""

    def forget_planned(self, after: int) -> None:
        """Take off what was planned for a later segment and never begun."""
        for step_id in [name for name, step in self.items() if step.segment > after and not step.attempts]:
            del self[step_id]


@dataclass(slots=True)
class _Board:
    """The fold's working state; it never leaves this module."""

    mission: Mission | None = None
    steps: _Steps = field(default_factory=_Steps)
    end_time: datetime | None = None


def whiteboard(events: Iterable[ev.Event]) -> Whiteboard | None:
    """Fold a mission's events, in the order of their sequence; None where there are none."""
    board = _Board()
    for event in events:
        _take(board, event)
    return _drawn(board)


def steps_of(events: Iterable[ev.Event]) -> tuple[BoardStep, ...]:
    """Fold only the steps; events that say nothing of a step may be left out."""
    steps = _Steps()
    for event in events:
        _take_step(steps, event)
    return tuple(steps.values())


def _take(board: _Board, event: ev.Event) -> None:
    ended_before = board.mission is not None and board.mission.status in ENDED
    board.mission = evolve(board.mission, event)
    if board.mission.status in ENDED and not ended_before:
        board.end_time = event.time
    _take_step(board.steps, event)


def _take_step(steps: _Steps, event: ev.Event) -> None:
    fold = _STEP_FOLDS.get(type(event.payload))
    if fold is not None:
        fold(steps, event.payload, event.time)


def _planned(steps: _Steps, payload: ev.PlanSealed, _time: datetime) -> None:
    """Put a plan's steps on the board, instead of those of the plan that it replaces and that was never begun."""
    steps.forget_planned(payload.segment - 1)
    for step in payload.steps:
        steps[step.step_id] = BoardStep(
            step_id=step.step_id,
            kind=step.kind,
            stage=step.stage,
            description=step.description,
            target=step.target,
            segment=payload.segment,
        )


def _started(steps: _Steps, payload: ev.StepStarted, time: datetime) -> None:
    step = steps.get(payload.step_id)
    if step is not None:
        again = replace(step, status="running", start_time=time, end_time=None, duration_ms=0, error="")
        steps[payload.step_id] = replace(again, attempts=step.attempts + 1)


def _completed(steps: _Steps, payload: ev.StepCompleted, time: datetime) -> None:
    if payload.step_id in steps:
        steps[payload.step_id] = replace(
            steps[payload.step_id],
            status="succeeded" if payload.success else "failed",
            end_time=time,
            duration_ms=payload.duration_ms,
        )


def _failed(steps: _Steps, payload: ev.FailureDetected, time: datetime) -> None:
    """A step that failed did not end by itself where its end was never told."""
    step = steps.get(payload.step_id)
    if step is not None:
        end = step.end_time or (time if step.attempts else None)
        steps[payload.step_id] = replace(step, status="failed", end_time=end, error=payload.message)


def _reconciled(steps: _Steps, payload: ev.StepReconciled, _time: datetime) -> None:
    step = steps.get(payload.step_id)
    if step is not None:
        status, error = ("succeeded", "") if payload.happened else ("failed", step.error)
        steps[payload.step_id] = replace(step, status=status, error=error)


def _rolled_back(steps: _Steps, payload: ev.RollbackCompleted, _time: datetime) -> None:
    """A step that succeeded and was undone later is rolled back; one that failed stays failed."""
    step = steps.get(payload.step_id)
    if step is not None and payload.success and step.status == "succeeded":
        steps[payload.step_id] = replace(step, status="rolled_back")


def _opened(steps: _Steps, payload: ev.SegmentOpened, _time: datetime) -> None:
    steps.opened = payload.segment


def _moved_on(steps: _Steps, payload: ev.ExecutionResumed | ev.ExecutionStopped, _time: datetime) -> None:
    """An execution that goes on by itself, or stops, leaves a repair plan that it has not taken without an aim."""
    if not isinstance(payload, ev.ExecutionResumed) or payload.action != REPAIR:
        steps.forget_planned(steps.opened)


def _returned(steps: _Steps, _payload: ev.MissionReturned, _time: datetime) -> None:
    """A mission that goes back to be dry-run keeps its plan; a repair plan is void with it."""
    steps.forget_planned(steps.opened)


_STEP_FOLDS: Final[Mapping[type[ev.Payload], Callable[[_Steps, Any, datetime], None]]] = {
    ev.PlanSealed: _planned,
    ev.StepStarted: _started,
    ev.StepCompleted: _completed,
    ev.FailureDetected: _failed,
    ev.StepReconciled: _reconciled,
    ev.SegmentOpened: _opened,
    ev.ExecutionResumed: _moved_on,
    ev.ExecutionStopped: _moved_on,
    ev.MissionReturned: _returned,
    ev.RollbackCompleted: _rolled_back,
}


def _drawn(board: _Board) -> Whiteboard | None:
    mission = board.mission
    if mission is None:
        return None
    steps = tuple(board.steps.values())
    return Whiteboard(
        mission_id=mission.mission_id,
        objective=mission.objective,
        status=mission.status,
        outcome=mission.outcome,
        start_time=mission.created_at,
        end_time=board.end_time,
        result=BoardResult(final_answer=mission.final_answer or mission.reason, tools_used=_tools(steps)),
        stages=_stages(steps),
        steps=steps,
        approvals=tuple(
            BoardApproval(
                approval_id=granted.approval_id,
                approver=granted.approver,
                time=granted.granted_at,
                expires_at=granted.expires_at,
            )
            for granted in mission.approvals
        ),
        last_sequence=mission.last_sequence,
        reason=mission.reason,
        pause=mission.pause,
    )


def _tools(steps: tuple[BoardStep, ...]) -> tuple[str, ...]:
    return tuple(sorted({step.kind for step in steps if step.start_time is not None}))


def _stages(steps: tuple[BoardStep, ...]) -> tuple[BoardStage, ...]:
    grouped: dict[Stage, list[BoardStep]] = {}
    for step in steps:
        grouped.setdefault(step.stage, []).append(step)
    return tuple(_stage(stage, members) for stage, members in grouped.items())


def _stage(stage: Stage, steps: list[BoardStep]) -> BoardStage:
    starts = [step.start_time for step in steps if step.start_time is not None]
    ends = [step.end_time for step in steps if step.end_time is not None]
    return BoardStage(
        stage=stage,
        start_time=min(starts, default=None),
        end_time=max(ends) if len(ends) == len(steps) else None,
        steps=len(steps),
        succeeded=sum(step.status == "succeeded" for step in steps),
    )
