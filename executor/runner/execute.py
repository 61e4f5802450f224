"""The execution: commits what the report found, step by step, and never runs a command again.

Before each step, in this order: was anything taken back? does somebody want it to pause, or to end? does the step wait
for a signature of its own? Then the step: check what it starts from, take a checkpoint, commit, look at the real
result and compare it with the report. A step that fails is undone by itself; then the plan's failure policy decides
about the rest: a person is asked, or all of it is undone, kept, or gone on with.

Whenever it has waited, whatever for, it looks again before it goes on: nothing was taken back meanwhile, and what it
has committed so far is still there. Where that does not hold it waits on.
"""

import enum
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from executor.domain.control import Pause, PauseKind
from executor.domain.errors import ExecutorError
from executor.domain.events import (
    DivergenceDetected,
    ExecutionCompleted,
    ExecutionResumed,
    ExecutionStopped,
    FailureDetected,
    SegmentOpened,
    StageChanged,
    StepCompleted,
    StepReconciled,
    StepStarted,
)
from executor.domain.plan import FailurePolicy, FetchUrl, Live, Retrieval, RunTests, SearchBodies, Stage, Step
from executor.domain.plan_paths import target_of
from executor.domain.receipt import EffectState, StepReceipt
from executor.domain.report import StepReport
from executor.domain.revocation import SHOWN_REASON
from executor.runner.desk import Approved, GoOn, PauseWish, Reconciled, Repair, Stop
from executor.runner.letting_go import Commits
from executor.runner.live_steps import EFFECT_FAILED, NEVER_AGAIN, LiveSteps
from executor.runner.orders import Order
from executor.runner.outcomes import compare_result, result_of
from executor.runner.paused import Pauses
from executor.runner.ports import Ended
from executor.runner.position import Failure, Position
from executor.runner.rolling_back import RollBack
from executor.runner.segments import Segment
from executor.runner.step_receipts import Begun, reconciled, step_receipt
from executor.runner.step_work import Done, Means, StepFault, StepWork
from executor.workspace.commit import CommitConflictError
from gonogo.safe_text import excerpt, safe_line, shown_path

SHOWN_DETAILS = 50
STOPPED = "STOPPED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Executioner(Means):
    """Executes approved plans; the port `executor.runner.orders.Executioner`."""

    def run(self, order: Order) -> Ended:
        """Run it, from its beginning or from where it was left."""
        execution = _Execution(self, order)
        execution.all_steps()
        ended = execution.ended()
        if order.restored is None or not order.restored.completed:
            order.emit(ExecutionCompleted(execution_id=order.execution_id, outcome=ended.result.outcome))
        return ended


class Turn(enum.Enum):
    """What comes next."""

    GO = "go"
    """The step."""
    AGAIN = "again"
    """Look which step is next, and before it."""
    END = "end"


class _Execution:
    """The state of one execution."""

    def __init__(self, means: Means, order: Order) -> None:
        self._order = order
        self._desk = order.desk
        self._emit = order.emit
        self._position = order.restored.position if order.restored else _beginning(order)
        self._work = StepWork(means, order, self._position)
        self._live = LiveSteps(means, order)
        self._pauses = Pauses(order, self._position)
        self._stage: Stage | None = None
        self._proposed = ""
        self._enter(self._position.segment)

    def all_steps(self) -> None:
        """Run the steps in order, and wait for people wherever they have to decide."""
        turn = self._resumed()
        while turn is not Turn.END and (following := self._position.current) is not None:
            turn = self._before(*following)
            if turn is Turn.GO:
                turn = self._one_step(*following)
        stop = self._desk.closes()
        if stop is not None and self._position.stop is None:
            self._stop(stop)
        self._conclude()

    def ended(self) -> Ended:
        """Return what came of it."""
        result = result_of(self._position, self._desk.controls())
        checkpoints = self._position.commits.checkpoints()
        return Ended(result=result, checkpoints=checkpoints, let_go=self._let_go)

    def _let_go(self) -> None:
        commits = self._position.commits
        if commits.standing or commits.undone or commits.conflicts:
            commits.let_go(self._work.committer)

    def _enter(self, segment: Segment) -> None:
        self._segment = segment
        self._to_approve = segment.to_approve()

    def _resumed(self) -> Turn:
        """Wait once more for what a restart has found it waiting for, or end it where it stands."""
        restored = self._order.restored
        if restored is None:
            return Turn.AGAIN
        if restored.pause is None:
            if restored.stop is not None:
                self._stop(restored.stop)
                self._desk.goes_on()
            return Turn.END
        return self._wait(restored.pause, told=restored.told)

    def _before(self, step: Step, expected: StepReport) -> Turn:
        """Look whether the step may begin, and wait for people where not."""
        revoked = self._desk.revoked()
        if revoked is not None:
            return self._wait(self._pauses.taken_back(revoked))
        wish = self._desk.wish
        if wish is not None:
            return self._wished(wish, step)
        if step.step_id in self._to_approve and step.step_id not in self._position.approvals:
            return self._asked(step, expected)
        return Turn.GO

    def _wished(self, wish: PauseWish | Stop, step: Step) -> Turn:
        if isinstance(wish, Stop):
            return self._stop(wish)
        reason = f"{wish.actor} asked for it" + (f": {wish.reason}" if wish.reason else "")
        return self._wait(self._pauses.make(PauseKind.REQUESTED, reason, step.step_id))

    def _asked(self, step: Step, expected: StepReport) -> Turn:
        """Show what the step would do, and wait until enough people have signed just that."""
        if expected.changes and self._proposed != step.step_id:
            self._emit(self._work.proposal(expected))
        self._proposed = step.step_id
        pause = self._pauses.make(PauseKind.STEP_APPROVAL, "the step waits for an approval of its own", step.step_id)
        return self._wait(pause)

    def _wait(self, pause: Pause, *, told: bool = False) -> Turn:
        """Wait for whatever ends a pause, say durably that it is over, and say what comes then."""
        turn = self._waited(pause, told=told)
        self._desk.goes_on()
        return turn

    def _waited(self, pause: Pause, *, told: bool) -> Turn:
        """Wait; where something is wrong once that is over, wait on for that."""
        while True:
            decision = self._desk.wait(pause, told=told)
            told = False
            if isinstance(decision, Stop):
                return self._stop(decision, why=pause.reason if pause.kind is PauseKind.REVOKED else "")
            if isinstance(decision, Repair):
                return self._repair(decision.segment)
            again, resumed = self._going_on(decision, pause.step_id)
            again = again or self._pauses.after(pause)
            if again is None:
                self._emit(resumed)
                return Turn.AGAIN
            pause = again

    def _going_on(self, decision: GoOn | Approved | Reconciled, step_id: str) -> tuple[Pause | None, ExecutionResumed]:
        """Take what somebody decided; return what keeps it from going on all the same, and how to say that it does."""
        if isinstance(decision, Reconciled):
            again = self._reconciled(decision, step_id)
            return again, ExecutionResumed(action="reconcile", actor=decision.record.person, step_id=step_id)
        if isinstance(decision, Approved):
            self._position.approvals[decision.step_id] = decision.approvals
            return None, ExecutionResumed(action="approve_step", actor=decision.actor, step_id=decision.step_id)
        approvals = self._position.approvals
        if step_id in approvals and not self._desk.holds(approvals[step_id]):
            del approvals[step_id]  # they are asked for anew
        return None, ExecutionResumed(action=decision.action, actor=decision.actor, step_id=step_id)

    def _stop(self, stop: Stop, *, why: str = "") -> Turn:
        stop = self._desk.closes() or stop  # who had it stopped may have asked for more since
        position = self._position
        position.stop, position.reason = stop, STOPPED
        how = "rolled back" if stop.roll_back else "stopped"
        said = f"{how} by {stop.actor}" + (f": {stop.reason}" if stop.reason else "")
        position.notes += (*((why,) if why else ()), said)
        reason = safe_line(excerpt(stop.reason, SHOWN_REASON))
        self._emit(ExecutionStopped(actor=stop.actor, reason=reason, roll_back=stop.roll_back))
        return Turn.END

    def _repair(self, segment: Segment) -> Turn:
        """Go on with an approved repair plan in place of the rest."""
        self._position.open(segment)
        self._enter(segment)
        claim = segment.claim
        self._emit(
            SegmentOpened(
                segment=segment.number,
                plan_id=claim.plan_id,
                plan_digest=claim.plan_digest,
                report_digest=claim.report_digest,
            )
        )
        first = segment.plan.steps[0].step_id
        self._emit(ExecutionResumed(action="repair", actor=", ".join(segment.approvers), step_id=first))
        return Turn.AGAIN

    def _reconciled(self, decision: Reconciled, step_id: str) -> Pause | None:
        """Take a person's word on an effect: the step is done, or it is not, and may be done once more."""
        position, record = self._position, decision.record
        receipt = position.receipts[step_id] = reconciled(position.receipts[step_id], record)
        if receipt.effect is not None:
            self._live.reconcile(receipt, receipt.effect)
        self._emit(
            StepReconciled(
                step_id=step_id,
                happened=record.happened,
                person=record.person,
                reconciliation_id=record.reconciliation_id,
            )
        )
        step = position.step(step_id)
        if record.happened:
            position.next += position.current is not None and position.current[0] is step
        else:
            fault = StepFault(EFFECT_FAILED, f"it did not happen, {record.person} says")
            self._failed(step, fault)
        self._emit(_completed(step, receipt.duration_ms, 0, success=record.happened))
        if record.happened:
            return None
        return self._pauses.make(PauseKind.FAILURE, f"{step_id}: {EFFECT_FAILED}: it did not happen", step_id)

    def _one_step(self, step: Step, expected: StepReport) -> Turn:
        position = self._position
        begun = self._begun(step)
        started = time.monotonic()
        try:
            done, fault = self._act(step, expected, begun.attempt), None
        except StepFault as error:
            done, fault = None, error
        except CommitConflictError as error:  # both versions are kept; a person must choose
            position.commits.conflicts.append(error.applied)
            position.divergence.append(error.fault.message)
            done, fault = None, _fault_of(error)
        except ExecutorError as error:
            done, fault = None, _fault_of(error)
        took = round((time.monotonic() - started) * 1000)
        wish = self._desk.wish
        if fault is not None and isinstance(wish, Stop) and fault.effect is None:
            fault.reason = STOPPED
        position.receipts[step.step_id] = self._kept(step_receipt(begun, took, done, fault))
        if fault is None:
            position.next += 1
            self._emit(_completed(step, took, 0 if done is None else len(done.changes), success=True))
            return Turn.AGAIN
        return self._faulty(step, fault, took)

    def _kept(self, receipt: StepReceipt) -> StepReceipt:
        """Keep what is known of an effect where a later attempt did not come so far as to claim one of its own."""
        former = self._position.receipts.get(receipt.step_id)
        known = None if former is None else former.effect
        return receipt if receipt.effect is not None or known is None else replace(receipt, effect=known)

    def _begun(self, step: Step) -> Begun:
        position, step_id = self._position, step.step_id
        if step.stage is not self._stage:
            self._stage = step.stage
            self._emit(StageChanged(stage=step.stage))
        target = target_of(step.action)
        position.attempts[step_id] = attempt = position.attempts.get(step_id, 0) + 1
        position.failures.pop(step_id, None)
        self._emit(StepStarted(step_id=step_id, kind=step.kind, stage=step.stage, target=target))
        return Begun(
            step=step,
            target=target,
            segment=self._segment.number,
            attempt=attempt,
            started_at=datetime.now(UTC),
            approvals=position.approvals.get(step_id, ()),
        )

    def _act(self, step: Step, expected: StepReport, attempt: int) -> Done:
        action, work = step.action, self._work
        if isinstance(action, Retrieval):
            return work.read(step, action, expected)
        if isinstance(action, Live):
            return self._live_step(step, expected, attempt)
        match action:
            case FetchUrl():
                return work.fetch(step, action, expected)
            case SearchBodies():
                return work.search(step, action)
            case RunTests():
                return work.test(step, action, expected)
            case _:
                slot = self._position.commits.slot(self._position.number, attempt)
                return work.commit(slot, step, expected, proposed=self._proposed == step.step_id)

    def _live_step(self, step: Step, expected: StepReport, attempt: int) -> Done:
        former = self._position.receipts.get(step.step_id)
        if former is not None and former.effect is not None and former.effect.state in NEVER_AGAIN:
            message = "its effect may have happened before; it is not begun again"
            raise StepFault(EFFECT_FAILED, message, effect=former.effect)
        return self._live.perform(step, expected, self._segment, attempt, self._work.setting(step.step_id))

    def _faulty(self, step: Step, fault: StepFault, took: int) -> Turn:
        """Undo a step that did not work, and have the failure policy decide."""
        if fault.effect is not None and fault.effect.state is EffectState.UNKNOWN:
            return self._wait(self._pauses.make(PauseKind.UNKNOWN_EFFECT, f"EFFECT_UNKNOWN: {fault}", step.step_id))
        self._failed(step, fault)
        if fault.undo is not None:
            self._rolling_back.commit(step.step_id, fault.undo)
        self._emit(_completed(step, took, 0, success=False))
        if self._position.commits.conflicts:
            return Turn.END
        wish = self._desk.wish
        if isinstance(wish, Stop):
            return self._stop(wish)
        return POLICIES[self._segment.plan.failure_policy](self, step, fault)

    def _failed(self, step: Step, fault: StepFault) -> None:
        self._position.failures[step.step_id] = Failure(reason=fault.reason, message=str(fault))
        message = safe_line(str(fault))
        self._emit(
            FailureDetected(step_id=step.step_id, reason=fault.reason, message=message, kind=step.kind, path=fault.path)
        )
        if fault.details:
            self._position.divergence += fault.details
            self._emit(DivergenceDetected(step_id=step.step_id, details=fault.details[:SHOWN_DETAILS]))

    def ask(self, step: Step, fault: StepFault) -> Turn:
        """Have a person decide about a step that failed."""
        return self._wait(
            self._pauses.make(PauseKind.FAILURE, f"{step.step_id}: {fault.reason}: {fault}", step.step_id)
        )

    def skip(self, step: Step, fault: StepFault) -> Turn:
        """Leave a step that failed, and go on."""
        del step, fault
        self._position.next += 1
        return Turn.AGAIN

    def end(self, step: Step, fault: StepFault) -> Turn:
        """Begin no step any more."""
        del self, step, fault
        return Turn.END

    @property
    def _rolling_back(self) -> RollBack:
        return RollBack(self._order, self._position, self._live, self._work.committer)

    def _conclude(self) -> None:
        """Compare the whole result with the report, and undo everything where that is what is wanted."""
        compare_result(self._position)
        if self._position.rolls_back:
            self._rolling_back.everything()


POLICIES: dict[FailurePolicy, Callable[[_Execution, Step, StepFault], Turn]] = {
    FailurePolicy.PAUSE: _Execution.ask,
    FailurePolicy.CONTINUE: _Execution.skip,
    FailurePolicy.STOP: _Execution.end,
    FailurePolicy.ROLL_BACK: _Execution.end,
}
"""What follows a step that failed."""


def _beginning(order: Order) -> Position:
    plan = order.plan
    commits = Commits(execution_id=order.execution_id, mission_id=plan.mission_id, workspace_id=plan.workspace_id)
    return Position(commits=commits, segments=[order.segment])


def _completed(step: Step, took: int, changes: int, *, success: bool) -> StepCompleted:
    return StepCompleted(
        step_id=step.step_id, kind=step.kind, stage=step.stage, success=success, duration_ms=took, change_count=changes
    )


def _fault_of(error: ExecutorError) -> StepFault:
    fault = error.fault
    path = safe_line(shown_path(fault.paths[0])) if fault.paths else ""
    return StepFault(fault.reason, fault.message, met=False, path=path)
