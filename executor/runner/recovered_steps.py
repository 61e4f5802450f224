"""What is known of the steps of an execution that broke off: from its durable events, and from the journal."""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from executor.domain.events import (
    CheckpointCreated,
    FailureDetected,
    Payload,
    RollbackCompleted,
    StepCompleted,
    StepStarted,
)
from executor.domain.receipt import StepReceipt
from executor.domain.report import (
    FetchEvidence,
    ListEvidence,
    LiveEvidence,
    ReadEvidence,
    Report,
    SearchEvidence,
    SqlEvidence,
    StepReport,
    TestEvidence,
    ToolEvidence,
)
from executor.runner.letting_go import attempt_of, execution_of
from executor.runner.ports import Claim, Event
from executor.workspace.commit import Applied, Undone

REASON = "INTERNAL"
CUT_OFF = "the execution broke off in the middle of it"
LOST = "it was begun, and nothing tells how it ended"
# What leaves nothing on the disk by which it could be told that it was done.
_LIVE = (LiveEvidence, ToolEvidence, SqlEvidence)
_READ = (ReadEvidence, ListEvidence, SearchEvidence, FetchEvidence)
_PROVEN_BY_EVENT = (*_READ, TestEvidence, LiveEvidence, ToolEvidence, SqlEvidence)
_MILLISECONDS = 1000


@dataclass(slots=True, kw_only=True)
class KnownStep:
    """One step, as far as anybody knows."""

    number: int
    """Counted from 1 through the steps of all segments."""
    report: StepReport
    target: str
    segment: int = 0
    commit: Applied | None = None
    """Of the last attempt that made one."""
    earlier: tuple[Applied, ...] = ()
    """Of the attempts before, which were undone."""
    events: dict[type[Payload], Event] = field(default_factory=dict)
    """The last of each kind, of the last attempt."""
    attempts: int = 0
    undone: Undone | None = None

    @property
    def step_id(self) -> str:
        return self.report.step_id

    @property
    def begun(self) -> bool:
        return self.commit is not None or bool(self.attempts)

    @property
    def is_cut_off(self) -> bool:
        """Whether it is in the middle of it that the execution broke off."""
        return self.begun and self._worked is None and not (self.commit and self.commit.made_whole)

    @property
    def done(self) -> bool:
        """Whether it is proven that the step was done."""
        if self._worked is False:
            return False
        if self.report.changes:
            return self.commit is not None and self.commit.complete
        return self._worked is True or not isinstance(self.report.evidence, _PROVEN_BY_EVENT)

    @property
    def _worked(self) -> bool | None:
        event = self.events.get(StepCompleted)
        if event is not None and isinstance(event.payload, StepCompleted):
            return event.payload.success
        return False if FailureDetected in self.events else None

    @property
    def failed(self) -> bool:
        """Whether it is known that it did not work."""
        return self._worked is False

    @property
    def failure(self) -> FailureDetected | None:
        """What was told of its failure."""
        event = self.events.get(FailureDetected)
        return event.payload if event is not None and isinstance(event.payload, FailureDetected) else None

    def take_note(self, event: Event) -> None:
        """Take one more event of it; what an attempt said that was not the last says nothing any more."""
        if isinstance(event.payload, StepStarted):
            self.events.clear()
            self.attempts += 1
        if self.attempts:  # what was told before, such as what it would change, does not mean that it was begun
            self.events[type(event.payload)] = event

    def take_commit(self) -> None:
        """Find the last attempt's own commit among all that were made; the events may say less than the journal."""
        if not self.earlier:
            return
        last = self.earlier[-1]
        self.begun_again(attempt_of(last.slot))
        if attempt_of(last.slot) == self.attempts:
            self.commit, self.earlier = last, self.earlier[:-1]

    def begun_again(self, attempt: int) -> None:
        """Take note of an attempt of which no event tells: what the events say is about the one before it."""
        if attempt > self.attempts:
            self.attempts = attempt
            self.events.clear()

    def was_rolled_back(self) -> bool:
        """Tell whether an event already says that it was undone."""
        event = self.events.get(RollbackCompleted)
        return event is not None and isinstance(event.payload, RollbackCompleted) and event.payload.success

    def missing_events(self) -> Iterator[Payload]:
        """Yield what happened to it and was lost with the process."""
        report, commit = self.report, self.commit
        if commit is None:
            return
        if StepStarted not in self.events:
            yield StepStarted(step_id=report.step_id, kind=report.kind, stage=report.stage, target=self.target)
        if CheckpointCreated not in self.events:
            yield CheckpointCreated(step_id=report.step_id, checkpoint_id=commit.slot, path_count=len(commit.changes))
        if commit.made_whole and self._worked is None:
            yield self.completed(success=True)

    @property
    def is_silent(self) -> bool:
        """Whether it leaves nothing in the journal, and nobody was told how it ended."""
        if isinstance(self.report.evidence, _LIVE):
            return False  # of an effect the ledger tells; where it does not, nobody knows
        return not self.report.changes and self.commit is None and self._worked is None

    def missing_of_silent(self, *, done: bool) -> Iterator[Payload]:
        """Yield what was lost with the process of a step without a trace; of one that is not done nobody knows."""
        report = self.report
        if StepStarted not in self.events:
            yield StepStarted(step_id=report.step_id, kind=report.kind, stage=report.stage, target=self.target)
        if not done:
            yield FailureDetected(step_id=report.step_id, reason=REASON, message=LOST, kind=report.kind)
        yield self.completed(success=done)

    def completed(self, *, success: bool) -> StepCompleted:
        """Return the event of its end."""
        report = self.report
        return StepCompleted(
            step_id=report.step_id,
            kind=report.kind,
            stage=report.stage,
            success=success,
            duration_ms=0,
            change_count=len(report.changes) if success else 0,
        )

    def receipt(self, claimed_at: datetime, now: datetime) -> StepReceipt:
        """Return what the receipt says of it."""
        started = self._time(StepStarted) or claimed_at
        completed = self._time(StepCompleted) or now
        success = self._worked is not False and (self.done or bool(self.commit and self.commit.made_whole))
        error = "" if success else self._error()
        evidence = self.report.evidence
        return StepReceipt(
            step_id=self.step_id,
            operation=self.report.kind,
            target=self.target,
            action_type=self._action_type(),
            stage=self.report.stage,
            started_at=started,
            completed_at=max(started, completed),
            duration_ms=max(0, round((completed - started).total_seconds() * _MILLISECONDS)),
            precondition_met=True,
            precondition_detail=error or "told by the journal and the events",
            expected_vs_actual_match=success,
            actual_state_change=self.report.changes if success else (),
            success=success,
            rollback_invoked=self.undone is not None,
            rollback_succeeded=self.undone is not None and self.undone.success,
            error_message=error,
            test_verdict=evidence.verdict if success and isinstance(evidence, TestEvidence) else None,
            segment=self.segment,
            attempts=max(1, self.attempts),
        )

    def _error(self) -> str:
        return CUT_OFF if self.failure is None else self.failure.message

    def _time(self, kind: type[Payload]) -> datetime | None:
        event = self.events.get(kind)
        return None if event is None else event.time

    def _action_type(self) -> str:
        if isinstance(self.report.evidence, _READ):
            return "read"
        return "verify" if isinstance(self.report.evidence, TestEvidence) else "commit"


def known_steps(
    claim: Claim, report: Report, events: Sequence[Event], commits: Sequence[Applied], *, before: int = 0
) -> tuple[KnownStep, ...]:
    """Return all steps of a report, in its order, with what is known of each.

    Args:
        claim: says what each step is about.
        report: names the steps.
        events: the execution's, as far as they are durable.
        commits: the execution's, as far as the journal holds them, the oldest first.
        before: how many steps the segments before have.
    """
    by_number: dict[int, list[Applied]] = {}
    for applied in commits:
        by_number.setdefault(execution_of(applied.slot)[1], []).append(applied)
    targets = (*claim.targets, *("" for _ in report.steps))
    steps: dict[str, KnownStep] = {}
    for number, one in enumerate(report.steps, before + 1):
        steps[one.step_id] = KnownStep(
            number=number,
            report=one,
            target=targets[number - before - 1],
            segment=claim.segment,
            earlier=tuple(by_number.get(number, ())),
        )
    for event in events:
        step = steps.get(getattr(event.payload, "step_id", ""))
        if step is not None:
            step.take_note(event)
    for step in steps.values():
        step.take_commit()
    return tuple(steps.values())


def silent_ends(steps: Sequence[KnownStep], effects: Container[str], *, goes_on: bool) -> Mapping[str, bool]:
    """Return the steps without a trace before one that was begun, and whether it is certain that they were done.

    Args:
        steps: those of one segment.
        effects: the steps of which the ledger holds an effect.
        goes_on: the policy goes on from a step that failed, so that nothing is certain.
    """
    if not goes_on:
        return dict.fromkeys(passed_silently(steps, effects), True)
    last = max((at for at, step in enumerate(steps) if step.begun), default=0)
    return {step.step_id: False for step in steps[:last] if not step.begun and step.step_id not in effects}


def passed_silently(steps: Sequence[KnownStep], effects: Container[str]) -> frozenset[str]:
    """Return the steps that left nothing behind and were done all the same: a later one was begun after them.

    Not to be asked under the policy `continue`, which goes on from a step that failed, too.

    Args:
        steps: those of one segment.
        effects: the steps of which the ledger holds an effect.
    """
    last = max((at for at, step in enumerate(steps) if step.begun), default=0)
    return frozenset(step.step_id for step in steps[:last] if step.is_silent and step.step_id not in effects)
