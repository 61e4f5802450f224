"""Where an execution stands that broke off and was not brought to an end by that: folded from what is durable.

    the events        which steps were begun, how they ended, whether it waited, and for what
    the journal       what was committed, as far as it was made
    the ledger        which plans were claimed, what people had it do, which effects were claimed and settled

A commit that was cut off is undone. An effect that was claimed and never settled is unknown: a person must say whether
it happened. Nothing is done again; where it waited it waits on, until the same moment, and otherwise, where its policy
asks people, it begins to wait now.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TypeVar

from executor.domain.changes import Node, net_states, states_before
from executor.domain.control import PauseKind
from executor.domain.events import (
    DivergenceDetected,
    EffectClaimed,
    ExecutionPaused,
    ExecutionResumed,
    ExecutionStarted,
    ExecutionStopped,
    FailureDetected,
    Payload,
    RollbackCompleted,
    RollbackStarted,
    SegmentOpened,
    StepCompleted,
    StepReconciled,
    StepStarted,
)
from executor.domain.plan import FailurePolicy, Live, Step
from executor.domain.receipt import EffectState, ReconciliationRecord, StepReceipt
from executor.runner.control_records import stop_of
from executor.runner.desk import Stop
from executor.runner.disk import states_on_disk
from executor.runner.ids import new_id
from executor.runner.letting_go import Commits
from executor.runner.live_steps import EFFECT_FAILED, NOT_AGAIN, NOT_WELL
from executor.runner.orders import Left
from executor.runner.paused import new_pause, told_pause
from executor.runner.ports import Emit, Event
from executor.runner.position import Failure, Position, Restored
from executor.runner.recovered_steps import CUT_OFF, REASON, KnownStep, known_steps, silent_ends
from executor.runner.restored_effects import KnownEffect, known_effects
from executor.runner.results import results_digest
from executor.runner.segments import Segment
from executor.workspace.commit import Committer
from executor.workspace.paths import Directory
from gonogo.safe_text import safe_line

SHOWN_DETAILS = 50
STOPPED = "STOPPED"
P = TypeVar("P", bound=Payload)
_GOING = (ExecutionResumed, ExecutionStopped, SegmentOpened, StepReconciled, StepStarted)


@dataclass(slots=True, kw_only=True)
class Restoring:
    """Finds one execution's place again; `restored` is called once."""

    left: Left
    segments: Sequence[Segment]
    emit: Emit
    root: Directory
    committer: Committer | None
    commits: Commits
    steps: list[KnownStep] = field(default_factory=list)
    effects: dict[str, KnownEffect] = field(default_factory=dict)
    opened: bool = False
    """Whether the last plan is one that was claimed, and that nobody was told of."""

    def restored(self) -> Restored:
        """Undo what was half made, tell what nobody was told, and return where it goes on."""
        self._open_segments()
        self._take_stock()
        self._tell_what_is_missing()
        for step in sorted(self.steps, key=lambda step: step.number, reverse=True):
            self._undo_half_made(step)
        position = self._position()
        return replace(self._entry(position), completed=self.left.completed)

    def _open_segments(self) -> None:
        """Open a repair plan that was claimed just before the crash; leave out any that never was opened."""
        if not self._has(ExecutionStarted):
            self.emit(ExecutionStarted(execution_id=self.left.claim.execution_id))
        opened = {one.payload.segment for one in self.left.events if isinstance(one.payload, SegmentOpened)}
        *_, last = self.segments
        self.segments = [one for one in self.segments if one.number in {0, last.number} or one.number in opened]
        self.opened = bool(last.number) and last.number not in opened
        if self.opened:
            claim = last.claim
            self.emit(
                SegmentOpened(
                    segment=last.number,
                    plan_id=claim.plan_id,
                    plan_digest=claim.plan_digest,
                    report_digest=claim.report_digest,
                )
            )

    def _take_stock(self) -> None:
        pending = () if self.committer is None else self.committer.pending()
        mine = [applied for applied in pending if self.commits.has(applied)]
        for segment in self.segments:
            before = len(self.steps)
            self.steps += known_steps(segment.claim, segment.report, self.left.events, mine, before=before)
        self.effects = known_effects(self.left.effects, asked=self._asked())
        for step in self.steps:
            effect = self.effects.get(step.step_id)
            if effect is not None:
                step.begun_again(effect.attempt)

    def _asked(self) -> str:
        """Return the step of whose effect a person is being asked, and whose answer nothing has been done upon."""
        standing = self._standing_pause()
        if standing is None or standing.kind is not PauseKind.UNKNOWN_EFFECT:
            return ""
        after = itertools.dropwhile(lambda step: step.step_id != standing.step_id, self.steps)
        effects = {entry.claim.step_id for entry in self.left.effects}
        touched = any(step.commit is not None or step.step_id in effects for step in itertools.islice(after, 1, None))
        return "" if touched else standing.step_id

    def _silent(self) -> dict[str, bool]:
        """Return the steps that left nothing behind before a later one was begun, and whether they were done."""
        found: dict[str, bool] = {}
        for segment in self.segments:
            goes_on = segment.plan.failure_policy is FailurePolicy.CONTINUE
            mine = [step for step in self.steps if step.segment == segment.number]
            found.update(silent_ends(mine, self.effects, goes_on=goes_on))
        return found

    def _tell_what_is_missing(self) -> None:
        silent = self._silent()
        for step in self.steps:
            if step.step_id in silent:
                step.begun_again(1)
                for payload in tuple(step.missing_of_silent(done=silent[step.step_id])):
                    self._tell(step, payload)
                continue
            effect = self.effects.get(step.step_id)
            if effect is not None and effect.attempt < step.attempts:
                effect = None  # of an attempt that was told to its end
            missing = step.missing_events() if effect is None else _missing_of_effect(step, effect)
            for payload in tuple(missing):
                self._tell(step, payload)
            if effect is None and step.is_cut_off:
                kind = step.report.kind
                self._tell(step, FailureDetected(step_id=step.step_id, reason=REASON, message=CUT_OFF, kind=kind))
                self._tell(step, step.completed(success=False))

    def _tell(self, step: KnownStep, payload: Payload) -> None:
        self.emit(payload)
        step.events[type(payload)] = Event(
            event_id=new_id("e"), mission_id="", sequence=0, time=datetime.now(UTC), payload=payload
        )

    def _undo_half_made(self, step: KnownStep) -> None:
        """Undo what a step has left that did not work, or was cut off; what worked stands."""
        if self.committer is None:
            return
        for former in step.earlier:
            self.commits.took_back(step.step_id, former, self.committer.undo(former))
        applied = step.commit
        if applied is None:
            return
        if applied.complete and not step.failed:
            return
        told = step.was_rolled_back()
        if not told:
            self.emit(RollbackStarted(step_id=step.step_id))
        step.undone = undone = self.committer.undo(applied)
        self.commits.took_back(step.step_id, applied, undone)
        if not told or not undone.success:
            message = safe_line("; ".join(undone.differences[:SHOWN_DETAILS]))
            self.emit(RollbackCompleted(step_id=step.step_id, success=undone.success, message=message))

    def _position(self) -> Position:
        position = Position(commits=self.commits, segments=list(self.segments))
        for step in self.steps:
            if step.undone is None and step.commit is not None:
                self.commits.standing[step.step_id] = step.commit
        position.before, position.after = self._states()
        now = datetime.now(UTC)
        for step in self.steps:
            if step.begun:
                position.receipts[step.step_id] = self._receipt(step, now)
                position.attempts[step.step_id] = max(1, step.attempts)
        position.approvals = {one: self.left.approvals.get(one, ()) for one in self._approved()}
        position.divergence = [detail for one in self._payloads(DivergenceDetected) for detail in one.details]
        position.doubtful = any(effect.doubtful for effect in self.effects.values()) or self._is_journal_lost()
        last = [step for step in self.steps if step.segment == position.segment.number]
        position.failures = {step.step_id: _failure(step) for step in last if step.failed}
        skips = position.segment.plan.failure_policy is FailurePolicy.CONTINUE
        passed = (step.begun and (step.done or (skips and step.failed and not self._is_denied(step))) for step in last)
        position.next = next((place for place, is_passed in enumerate(passed) if not is_passed), len(last))
        return position

    def _is_denied(self, step: KnownStep) -> bool:
        """Tell whether a person said that its effect did not happen: then it is a person who decides about it."""
        effect = self.effects.get(step.step_id)
        word = None if effect is None or effect.attempt < step.attempts else effect.record.reconciliation
        return word is not None and not word.happened

    def _receipt(self, step: KnownStep, now: datetime) -> StepReceipt:
        receipt = step.receipt(self.left.claim.claimed_at, now)
        approvals = self.left.approvals.get(step.step_id, ())
        effect = self.effects.get(step.step_id)
        if effect is None:
            return replace(receipt, step_approvals=approvals)
        record = effect.record
        undone = record.state is EffectState.COMPENSATED
        return replace(
            receipt,
            step_approvals=approvals,
            effect=record,
            success=receipt.success and record.state is not EffectState.UNKNOWN,
            rollback_invoked=bool(record.compensation),
            rollback_succeeded=undone,
        )

    def _states(self) -> tuple[dict[bytes, Node | None], dict[bytes, Node | None]]:
        standing = [applied.changes for applied in self.commits.standing.values()]
        before, after = net_states(standing)
        undone = [path for one in self.commits.undone for path in states_before(one.changes)]
        for applied in self.commits.undone:
            before = {**states_before(applied.changes), **before}
        found = states_on_disk(self.root, [path for path in undone if path not in after])
        return before, {**found, **after}

    def _is_journal_lost(self) -> bool:
        """Tell whether a step that was told as done has left no record: then nobody knows what is whose."""
        return any(
            step.begun
            and step.report.changes
            and step.commit is None
            and not step.failed
            and not step.was_rolled_back()
            for step in self.steps
        )

    def _entry(self, position: Position) -> Restored:
        """Return what it does first, from here on."""
        stopped = next(iter(self._payloads(ExecutionStopped)), None)
        if self.left.doubted and (stopped is None or self.left.may_have_reached_outside):
            return self._doubted(position)
        return self._asks(position) if stopped is None else self._stops(position, stopped)

    def _stops(self, position: Position, stopped: ExecutionStopped) -> Restored:
        """It was told that somebody had it end."""
        position.stop = Stop(actor=stopped.actor, reason=stopped.reason, roll_back=stopped.roll_back)
        position.reason = STOPPED
        position.notes.append(f"{'rolled back' if stopped.roll_back else 'stopped'} by {stopped.actor}")
        return Restored(position=position)

    def _asks(self, position: Position) -> Restored:
        """Nobody was told that it ended: it waits where somebody has to decide, and is ended otherwise."""
        standing = self._standing_pause()
        if standing is not None and results_digest(position) != standing.results_digest:
            standing = None  # it had gone on, and what told that was lost
        unknown = next((one for one in position.receipts.values() if _is_unknown(one)), None)
        if unknown is not None and (standing is None or standing.kind is not PauseKind.UNKNOWN_EFFECT):
            reason = "EFFECT_UNKNOWN: the executor ended before it was known whether the effect happened"
            return self._waits(position, PauseKind.UNKNOWN_EFFECT, reason, unknown.step_id)
        stop = stop_of(self.left.controls)
        if unknown is None and stop is not None:
            return Restored(position=position, stop=stop)
        if position.commits.conflicts or position.doubtful:
            return self._ends(position)
        if standing is not None:
            return Restored(position=position, pause=told_pause(standing, position), told=True)
        return self._interrupted(position)

    def _interrupted(self, position: Position) -> Restored:
        """It ran: where its policy, or a repair plan that was claimed just before, asks people, they are asked now."""
        following = position.current
        if following is None and not position.failures:
            return Restored(position=position)
        repaired = position.segment.number and not any(
            step.segment == position.segment.number for step in self._begun()
        )
        if position.segment.plan.failure_policy is not FailurePolicy.PAUSE and not repaired:
            return self._ends(position)
        step_id = following[0].step_id if following else ""
        failure = position.failures.get(step_id)
        if failure is None or failure.message == CUT_OFF:
            reason = f"the executor ended before {step_id or 'the end'} was done"
            return self._waits(position, PauseKind.INTERRUPTED, reason, step_id)
        return self._waits(position, PauseKind.FAILURE, f"{step_id}: {failure.reason}: {failure.message}", step_id)

    def _doubted(self, position: Position) -> Restored:
        """End it: of what was done, and of what was taken back, a ledger of the past does not tell.

        The workspace's journal tells all of its commits. Nothing does of effects outside: to go on, or to make up for
        one, might do it twice.
        """
        told = all(self._is_told(position, step) for segment in self.segments for step in segment.plan.steps)
        if position.current is None and not position.failures and told:
            return Restored(position=position)
        position.left_alone = position.doubtful = position.doubtful or self.left.may_have_reached_outside
        position.notes.append("the ledger began anew since; it may not know all that was done, or was taken back")
        return self._ends(position)

    def _is_told(self, position: Position, step: Step) -> bool:
        """Tell whether the ledger has what came of a step's effect, where it reached outside at all."""
        receipt = position.receipts.get(step.step_id)
        if receipt is None or not isinstance(step.action, Live):
            return True
        return receipt.effect is not None and not _is_unknown(receipt)

    def _ends(self, position: Position) -> Restored:
        position.reason = position.abort_reason or REASON
        position.notes.append(f"execution {position.commits.execution_id} broke off; it was not run again")
        return Restored(position=position)

    def _waits(self, position: Position, kind: PauseKind, reason: str, step_id: str) -> Restored:
        return Restored(position=position, pause=new_pause(position, kind, reason, step_id, self.left.now()))

    def _standing_pause(self) -> ExecutionPaused | None:
        """Return the pause that the durable events end with, unless a plan that was claimed since ends it."""
        if self.opened:
            return None
        for event in reversed(self.left.events):
            if isinstance(event.payload, ExecutionPaused):
                return event.payload
            if isinstance(event.payload, _GOING):
                return None
        return None

    def _approved(self) -> Iterator[str]:
        """Yield the steps that had enough signatures of their own, and were gone on with."""
        for resumed in self._payloads(ExecutionResumed):
            if resumed.action == "approve_step":
                yield resumed.step_id

    def _begun(self) -> Iterator[KnownStep]:
        return (step for step in self.steps if step.begun)

    def _has(self, kind: type[Payload]) -> bool:
        return any(isinstance(one.payload, kind) for one in self.left.events)

    def _payloads(self, kind: type[P]) -> Iterator[P]:
        return (one.payload for one in self.left.events if isinstance(one.payload, kind))


def _failure(step: KnownStep) -> Failure:
    failure = step.failure
    return (
        Failure(reason=REASON, message=CUT_OFF)
        if failure is None
        else Failure(reason=failure.reason, message=failure.message)
    )


def _is_unknown(receipt: StepReceipt) -> bool:
    return receipt.effect is not None and receipt.effect.state is EffectState.UNKNOWN


def _reconciled(step: KnownStep, word: ReconciliationRecord) -> StepReconciled:
    return StepReconciled(
        step_id=step.step_id,
        happened=word.happened,
        person=word.person,
        reconciliation_id=word.reconciliation_id,
    )


def _missing_of_effect(step: KnownStep, effect: KnownEffect) -> Iterator[Payload]:
    """Yield what happened to a live step and was lost with the process, as far as it is certain."""
    report, record = step.report, effect.record
    if StepStarted not in step.events:
        yield StepStarted(step_id=report.step_id, kind=report.kind, stage=report.stage, target=step.target)
    if EffectClaimed not in step.events:
        yield EffectClaimed(step_id=report.step_id, idempotency_key=record.idempotency_key)
    if StepCompleted in step.events or record.state is EffectState.UNKNOWN:
        return
    if record.reconciliation is not None:
        yield _reconciled(step, record.reconciliation)
    failed = record.state is EffectState.NOT_DONE or record.summary.startswith(NOT_WELL)
    if failed and step.failure is None:
        again = "" if record.state is EffectState.NOT_DONE else f" ({NOT_AGAIN})"
        message = safe_line(record.summary + again)
        yield FailureDetected(step_id=report.step_id, reason=EFFECT_FAILED, message=message, kind=report.kind)
    yield step.completed(success=not failed)
