"""What a mission's events teach: its signals, and the numbers that they add to what was counted before.

A `Tale` is a fold of one mission's events. When the mission ends, it gives one `signal_recorded` for each step kind and
tool, which is written just before the end; folding the end then gives `Lesson`s, whole numbers to be added to counters.
Adding whole numbers does not depend on the order in which missions end, and so the counters of a log that is folded
again are the same. A mission that an older release brought to its end has no signals, and so it counts nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TypeAlias

from orchestrator.domain import events as ev
from orchestrator.domain.errors import Reason
from orchestrator.domain.plan import Stage
from orchestrator.domain.signals import NO_BUCKET, WHOLE, Stated, bin_of, bucket_of, normalised_path, tool_of

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_MESSAGE: Final = 300
MAX_FAILURES: Final = 32
"""Failures that one mission adds; one that retries for ever teaches no more than that."""

_SUCCEEDED: Final = "succeeded"
_FAILED: Final = "failed"
_UNDONE: Final = "undone"
_STOPPED: Final = "stopped"
_COUNTED: Final = frozenset({_SUCCEEDED, _FAILED, _UNDONE})


# Lessons are tuples, as the rows are that they are added to: an end is told while its caller waits.
class StepLesson(NamedTuple):
    """Adds to what is counted of a step kind and tool in a workspace on one day; the order is that of the row."""

    kind: str
    tool: str
    workspace_id: str
    day: int
    bucket: int = NO_BUCKET
    """Where the mean duration of these steps is counted."""
    succeeded: int = 0
    failed: int = 0
    censored: int = 0
    drifts: int = 0
    divergences: int = 0
    rollbacks: int = 0
    rated_good: int = 0
    rated_bad: int = 0


class FailureLesson(NamedTuple):
    """One more failure of its kind."""

    kind: str
    reason: str
    path: str
    mission_id: str
    time: datetime
    message: str


class StageLesson(NamedTuple):
    """One more mission that spent so long in a stage."""

    stage: Stage
    bucket: int


Lesson: TypeAlias = StepLesson | FailureLesson | StageLesson | Stated


class TaleStep(NamedTuple):
    """One step as far as it was told. A tuple, because an end is told while its caller waits."""

    kind: str
    tool: str
    stage: Stage
    state: str = ""
    """Empty until it is done: then succeeded, failed, undone, or stopped by a person."""
    milliseconds: int = 0
    diverged: bool = False


class _Given(NamedTuple):
    """A rating that counts, and what it counts for."""

    uses: tuple[tuple[str, str], ...]
    day: int
    good: bool


@dataclass(slots=True, kw_only=True)
class Tale:
    """One mission's events, folded."""

    workspace_id: str = ""
    steps: dict[str, TaleStep] = field(default_factory=dict)
    planned: tuple[tuple[str, str], ...] = ()
    """Kind and tool of each step of the present plan."""
    confidence: int = 0
    begun: bool = False
    stopped: bool = False
    drifts: int = 0
    failures: tuple[FailureLesson, ...] = ()
    signals: tuple[ev.SignalRecorded, ...] = ()
    ratings: dict[str, _Given] = field(default_factory=dict)
    """By person: whoever says the same twice counts once, and a second opinion replaces the first."""

    def copy(self) -> "Tale":
        """Return a tale that goes its own way from here on."""
        return Tale(
            workspace_id=self.workspace_id,
            steps=dict(self.steps),
            planned=self.planned,
            confidence=self.confidence,
            begun=self.begun,
            stopped=self.stopped,
            drifts=self.drifts,
            failures=self.failures,
            signals=self.signals,
            ratings=dict(self.ratings),
        )

    def take(self, event: ev.Event) -> Sequence[Lesson]:
        """Fold an event; return what it adds to the counters."""
        fold = _FOLDS.get(type(event.payload))
        return () if fold is None else fold(self, event.payload, event) or ()

    def recorded(self) -> tuple[ev.SignalRecorded, ...]:
        """Return the signals of a mission that ends now, one for each step kind and tool."""
        groups: dict[tuple[str, str], list[TaleStep]] = {}
        for step in self.steps.values():
            groups.setdefault((step.kind, step.tool), []).append(step)
        return tuple([_signal(kind, tool, self.workspace_id, steps) for (kind, tool), steps in groups.items()])


def tale_of(events: Iterable[ev.Event]) -> Tale:
    """Fold a mission's events from the first on."""
    tale = Tale()
    for event in events:
        tale.take(event)
    return tale


def day_of(time: datetime) -> int:
    """Return the day, in UTC, that something is counted on."""
    return (time - _EPOCH).days


def _signal(kind: str, tool: str, workspace_id: str, steps: Sequence[TaleStep]) -> ev.SignalRecorded:
    states = [step.state for step in steps]
    succeeded, undone = states.count(_SUCCEEDED), states.count(_UNDONE)
    failed = states.count(_FAILED) + undone
    return ev.SignalRecorded(
        kind=kind,
        tool=tool,
        workspace_id=workspace_id,
        succeeded=succeeded,
        failed=failed,
        censored=len(steps) - succeeded - failed,
        duration_ms=min(sum([step.milliseconds for step in steps if step.state in _COUNTED]), (1 << 32) - 1),
        divergences=sum([step.diverged for step in steps]),
        rollbacks=undone,
    )


def _proposed(tale: Tale, payload: ev.MissionProposed, _event: ev.Event) -> None:
    tale.workspace_id = payload.workspace_id


def _planned(tale: Tale, payload: ev.PlanSealed, _event: ev.Event) -> None:
    """A first plan replaces the one before it, of which nothing was begun; a repair plan comes beside it."""
    steps = {step.step_id: TaleStep(step.kind, tool_of(step.kind, step.target), step.stage) for step in payload.steps}
    tale.steps = {**tale.steps, **steps} if payload.segment else steps
    tale.planned = tuple([(step.kind, step.tool) for step in steps.values()])


def _dry_run(tale: Tale, payload: ev.DryRunCompleted, _event: ev.Event) -> None:
    """The mission's own plan states the confidence; a repair's comes when things have gone wrong already."""
    if not tale.begun:
        tale.confidence = payload.confidence


def _started(tale: Tale, payload: ev.StepStarted, _event: ev.Event) -> None:
    tale.begun = True
    step = tale.steps.get(payload.step_id)
    if step is not None and step.state:
        tale.steps[payload.step_id] = step._replace(state="")


def _completed(tale: Tale, payload: ev.StepCompleted, _event: ev.Event) -> None:
    step = tale.steps.get(payload.step_id)
    if step is None:
        return
    failed = _STOPPED if tale.stopped or step.state == _STOPPED else _FAILED
    state = _SUCCEEDED if payload.success else failed
    spent = step.milliseconds + payload.duration_ms
    tale.steps[payload.step_id] = step._replace(state=state, milliseconds=spent)


def _undone(tale: Tale, payload: ev.RollbackCompleted, _event: ev.Event) -> None:
    step = tale.steps.get(payload.step_id)
    if step is not None and payload.success and step.state == _SUCCEEDED:
        tale.steps[payload.step_id] = step._replace(state=_UNDONE)


def _diverged(tale: Tale, payload: ev.DivergenceDetected, _event: ev.Event) -> None:
    step = tale.steps.get(payload.step_id)
    if step is not None:
        tale.steps[payload.step_id] = step._replace(diverged=True)


def _stopped(tale: Tale, _payload: ev.ExecutionStopped, _event: ev.Event) -> None:
    tale.stopped = True


def _returned(tale: Tale, payload: ev.MissionReturned, _event: ev.Event) -> None:
    tale.drifts += payload.reason == Reason.BASE_DRIFTED


def _failed(tale: Tale, payload: ev.FailureDetected, event: ev.Event) -> None:
    """A step that a stop cut short is no failure, though it is told as one, before the stop is told."""
    step = tale.steps.get(payload.step_id)
    if payload.reason == Reason.STOPPED:
        if step is not None:
            tale.steps[payload.step_id] = step._replace(state=_STOPPED)
        return
    tale.drifts += payload.reason == Reason.BASE_DRIFTED
    if len(tale.failures) < MAX_FAILURES:
        failure = FailureLesson(
            kind=payload.kind or (step.kind if step else ""),
            reason=payload.reason,
            path=normalised_path(payload.path),
            mission_id=event.mission_id,
            time=event.time,
            message=payload.message[:_MAX_MESSAGE],
        )
        tale.failures = (*tale.failures, failure)


def _recorded(tale: Tale, payload: ev.SignalRecorded, _event: ev.Event) -> None:
    tale.signals = (*tale.signals, payload)


def _rated(tale: Tale, payload: ev.FeedbackRecorded, event: ev.Event) -> Sequence[Lesson]:
    if payload.rating is None:
        return ()
    before = tale.ratings.get(event.actor)
    if before is not None and before.good == (payload.rating is ev.Rating.GOOD):
        return ()
    uses = tuple(dict.fromkeys((step.kind, step.tool) for step in tale.steps.values()))
    given = _Given(uses, day_of(event.time), payload.rating is ev.Rating.GOOD)
    tale.ratings[event.actor] = given
    taken_back = () if before is None else _ratings(tale, before, -1)
    return [*taken_back, *_ratings(tale, given, 1)]


def _ratings(tale: Tale, given: _Given, sign: int) -> Iterator[StepLesson]:
    for kind, tool in given.uses:
        yield StepLesson(
            kind=kind,
            tool=tool,
            workspace_id=tale.workspace_id,
            day=given.day,
            rated_good=sign * given.good,
            rated_bad=sign * (not given.good),
        )


def _completed_mission(tale: Tale, _payload: ev.MissionCompleted, event: ev.Event) -> Sequence[Lesson]:
    return _ended(tale, event, realised=1)


def _failed_mission(tale: Tale, _payload: ev.MissionFailed, event: ev.Event) -> Sequence[Lesson]:
    return _ended(tale, event, realised=0)


def _ended_by_a_person(tale: Tale, _payload: ev.Payload, event: ev.Event) -> Sequence[Lesson]:
    """Denied, cancelled or expired: that says nothing of what was stated."""
    return _ended(tale, event, realised=None)


def _ended(tale: Tale, event: ev.Event, *, realised: int | None) -> Sequence[Lesson]:
    if not tale.signals:
        return ()
    day = day_of(event.time)
    lessons: list[Lesson] = [_step_lesson(signal, day, tale.drifts) for signal in tale.signals]
    lessons += tale.failures
    lessons += _stage_lessons(tale)
    if tale.confidence and realised is not None:
        lessons.append(_stated(tale.confidence, realised))
    return lessons


def _step_lesson(signal: ev.SignalRecorded, day: int, drifts: int) -> StepLesson:
    counted = signal.succeeded + signal.failed
    return StepLesson(
        kind=signal.kind,
        tool=signal.tool,
        workspace_id=signal.workspace_id,
        day=day,
        bucket=bucket_of(signal.duration_ms // counted) if counted else NO_BUCKET,
        succeeded=signal.succeeded,
        failed=signal.failed,
        censored=signal.censored,
        drifts=drifts,
        divergences=signal.divergences,
        rollbacks=signal.rollbacks,
    )


def _stage_lessons(tale: Tale) -> list[StageLesson]:
    spent: dict[Stage, int] = {}
    for step in tale.steps.values():
        if step.state in _COUNTED:
            spent[step.stage] = spent.get(step.stage, 0) + step.milliseconds
    return [StageLesson(stage=stage, bucket=bucket_of(milliseconds)) for stage, milliseconds in spent.items()]


def _stated(confidence: int, realised: int) -> Stated:
    return Stated(
        bin=bin_of(min(confidence, WHOLE)),
        samples=1,
        stated=confidence,
        stated_squared=confidence * confidence,
        realised=realised,
        stated_realised=confidence * realised,
    )


_FOLDS: Final[Mapping[type[ev.Payload], Callable[[Tale, Any, ev.Event], Sequence[Lesson] | None]]] = {
    ev.MissionProposed: _proposed,
    ev.PlanSealed: _planned,
    ev.DryRunCompleted: _dry_run,
    ev.StepStarted: _started,
    ev.StepCompleted: _completed,
    ev.RollbackCompleted: _undone,
    ev.DivergenceDetected: _diverged,
    ev.ExecutionStopped: _stopped,
    ev.MissionReturned: _returned,
    ev.FailureDetected: _failed,
    ev.SignalRecorded: _recorded,
    ev.FeedbackRecorded: _rated,
    ev.MissionCompleted: _completed_mission,
    ev.MissionFailed: _failed_mission,
    ev.MissionCancelled: _ended_by_a_person,
    ev.MissionRejected: _ended_by_a_person,
    ev.MissionExpired: _ended_by_a_person,
}
TELLING: Final = frozenset(_FOLDS)
"""Events that a tale takes note of."""
