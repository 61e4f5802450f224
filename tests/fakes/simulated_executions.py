"""One execution of the executor simulator: its events, its pauses, what persons have it do, and its receipt.

It runs at once and to its end, unless it has been told to pause: then it stands before a step until a control or a
repair plan comes. Its steps are made up; what it signs is real.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime

from gonogo import sealing
from gonogo.digests import digest
from gonogo.signatures import SigningKey
from gonogo.v1 import evidence_pb2, plan_pb2
from orchestrator.domain import events as ev
from orchestrator.domain.control import ExecutionPhase, ExecutionState, pause_of
from orchestrator.domain.errors import ExecutorRefusedError, Reason
from orchestrator.domain.events import ControlAction
from orchestrator.domain.evidence import Outcome, RiskLevel, Sealed
from orchestrator.domain.plan import Stage
from orchestrator.service.ports import ControlOrder, ExecutionOrder
from tests.fakes.approvers import sealed, timestamp

GOES_ON = {
    ControlAction.RESUME: "resume",
    ControlAction.RETRY: "retry",
    ControlAction.APPROVE_STEP: "approve_step",
    ControlAction.RECONCILE: "reconcile",
}


class SimulatedExecution:
    """See the module.

    Args:
        order: what was claimed.
        execution_id: its id; its receipt's is made of it.
        outcome: how it ends when nobody stops it.
        pauses: what it waits for, one before each of its steps until none is left.
        executor_id: whose events these are.
        key: what signs the receipt.
        on_end: called once, with the receipt.
    """

    def __init__(
        self,
        order: ExecutionOrder,
        *,
        execution_id: str,
        outcome: Outcome,
        pauses: Iterable[ev.ExecutionPaused],
        executor_id: str,
        key: SigningKey,
        on_end: Callable[["SimulatedExecution"], None],
    ) -> None:
        self.execution_id = execution_id
        self.mission_id = order.mission_id
        self.outcome = outcome
        self.events: list[ev.Event] = []
        self.receipt: Sealed | None = None
        self.paused: ev.ExecutionPaused | None = None
        self.changed = asyncio.Event()
        """Replaced by another one whenever there is more to see."""
        self._orders = [order]
        self._plans = [sealing.open_sealed(order.plan.body, plan_pb2.Plan)]
        self._open = deque(self._plans[0].steps)
        self._done: list[tuple[int, plan_pb2.Step]] = []
        self._controls: list[ControlOrder] = []
        self._approvals: list[tuple[str, evidence_pb2.ApprovalRecord]] = []
        """The approvals of single steps, by step."""
        self._pauses = deque(pauses)
        self._executor_id, self._key, self._on_end = executor_id, key, on_end
        self._started = datetime.now(UTC)
        self._tell(ev.ExecutionStarted(execution_id=execution_id))
        self._run()

    @property
    def state(self) -> ExecutionState:
        """How it stands."""
        ended = self.receipt is not None
        phase = ExecutionPhase.RUNNING if self.paused is None else ExecutionPhase.PAUSED
        return ExecutionState(
            execution_id=self.execution_id,
            mission_id=self.mission_id,
            ended=ended,
            outcome=self.outcome if ended else None,
            started_at=self._started,
            completed_at=self.events[-1].time if ended else None,
            last_sequence=len(self.events),
            state=ExecutionPhase.ENDED if ended else phase,
            pause=None if self.paused is None else pause_of(self.paused),
            segment=len(self._plans) - 1,
        )

    def took(self, order: ExecutionOrder) -> bool:
        """Whether this very request began it, or its present segment or one before."""
        return any(taken.request_id == order.request_id for taken in self._orders)

    def pause_unseen(self, order: ControlOrder) -> None:
        """Pause after the first event: what nobody has been shown has not happened."""
        del self.events[1:]
        self.receipt, self._done = None, []
        self._open = deque(self._plans[-1].steps)
        self._controls.append(order)
        self._wait(ev.ExecutionPaused(reason=order.reason, kind=ev.PauseKind.REQUESTED))

    def control(self, order: ControlOrder) -> None:
        """Do what somebody wants of a paused execution."""
        pause = None if self.paused is None else pause_of(self.paused)
        if pause is None or order.action not in pause.actions:
            raise refused(Reason.STATE_FORBIDS, f"the execution can not {order.action.value} now")
        self._controls.append(order)
        if order.action is ControlAction.STOP:
            self._stop(order)
        else:
            self._go_on(GOES_ON[order.action], order.actor, order.document)

    def repair(self, order: ExecutionOrder) -> None:
        """Go on with a repair plan instead of the rest of the present one."""
        plan = sealing.open_sealed(order.plan.body, plan_pb2.Plan)
        pause = None if self.paused is None else pause_of(self.paused)
        if self.paused is None or pause is None or not pause.repairable:
            raise refused(Reason.STATE_FORBIDS, "the execution takes no repair plan now")
        said = (plan.segment, plan.execution_id, plan.journal_digest)
        if said != (len(self._plans), self.execution_id, self.paused.results_digest):
            raise refused(Reason.MISSION_MISMATCH, "the repair plan is for another moment")
        self._orders.append(order)
        self._plans.append(plan)
        self._open = deque(plan.steps)
        self._tell(
            ev.SegmentOpened(
                segment=plan.segment,
                plan_id=plan.plan_id,
                plan_digest=order.plan.digest,
                report_digest=order.report.digest,
            )
        )
        self._go_on("repair", plan.proposer, None)

    def _go_on(self, action: str, actor: str, document: Sealed | None) -> None:
        step_id = "" if self.paused is None else self.paused.step_id
        if document is not None:
            word = _word(document, step_id)
            self._tell(word)
            if isinstance(word, ev.StepApproved):
                record = evidence_pb2.ApprovalRecord(approval_id=word.approval_id, approval_digest=document.digest)
                self._approvals.append((step_id, record))
        self._tell(ev.ExecutionResumed(action=action, actor=actor, step_id=step_id))
        self.paused = None
        self._run(waited=action != "repair")

    def _stop(self, order: ControlOrder) -> None:
        self.paused = None
        self._tell(ev.ExecutionStopped(actor=order.actor, reason=order.reason, roll_back=order.roll_back))
        for _, step in reversed(self._done) if order.roll_back else ():
            self._tell(ev.RollbackStarted(step_id=step.step_id))
            self._tell(ev.RollbackCompleted(step_id=step.step_id, success=True, message=""))
        kept = Outcome.PARTIAL if self._done else Outcome.ABORTED
        self.outcome = Outcome.ROLLED_BACK if order.roll_back and self._done else kept
        self._end("STOPPED")

    def _run(self, *, waited: bool = False) -> None:
        while self._open:
            step = self._open[0]
            if self._pauses and not waited:
                self._wait(self._pauses.popleft(), step)
                return
            waited = False
            self._open.popleft()
            self._do(step)
        self._end("")

    def _do(self, step: plan_pb2.Step) -> None:
        kind, stage = step.WhichOneof("action") or "", Stage.EDIT
        self._tell(ev.StageChanged(stage=stage))
        self._tell(ev.StepStarted(step_id=step.step_id, kind=kind, stage=stage, target=kind))
        self._tell(ev.CheckpointCreated(step_id=step.step_id, checkpoint_id=f"k-{step.step_id}", path_count=1))
        self._tell(ev.DiffProposed(step_id=step.step_id, change_count=1, risk=RiskLevel.LOW))
        good = self.outcome is Outcome.SUCCESS
        self._tell(
            ev.StepCompleted(step_id=step.step_id, kind=kind, stage=stage, success=good, duration_ms=1, change_count=1)
        )
        self._done.append((len(self._plans) - 1, step))

    def _wait(self, pause: ev.ExecutionPaused, step: plan_pb2.Step | None = None) -> None:
        results = digest(b"results %d" % len(self.events))
        named = pause.step_id or ("" if step is None else step.step_id)
        self.paused = replace(pause, step_id=named, results_digest=pause.results_digest or results)
        if pause.kind is ev.PauseKind.FAILURE:
            kind = "" if step is None else step.WhichOneof("action") or ""
            self._tell(ev.StepStarted(step_id=named, kind=kind, stage=Stage.EDIT, target=kind))
            self._tell(ev.FailureDetected(step_id=named, reason="CONFLICT", message=pause.reason, kind=kind))
        self._tell(self.paused)

    def _end(self, abort_reason: str) -> None:
        self.receipt = self._sealed_receipt(abort_reason)
        self._tell(ev.ExecutionCompleted(execution_id=self.execution_id, outcome=self.outcome))
        self._tell(
            ev.ReceiptIssued(
                receipt_id=f"rc-{self.execution_id}",
                receipt_digest=self.receipt.digest,
                execution_id=self.execution_id,
            )
        )
        self._on_end(self)

    def _tell(self, payload: ev.Payload) -> None:
        number = len(self.events) + 1
        self.events.append(
            ev.Event(
                event_id=f"e-{self.execution_id}-{number}",
                mission_id=self.mission_id,
                sequence=number,
                time=datetime.now(UTC),
                actor=self._executor_id,
                payload=payload,
            )
        )
        before, self.changed = self.changed, asyncio.Event()
        before.set()

    def _sealed_receipt(self, abort_reason: str) -> Sealed:
        good, first = self.outcome is Outcome.SUCCESS, self._plans[0]
        receipt = evidence_pb2.Receipt(
            receipt_id=f"rc-{self.execution_id}",
            execution_id=self.execution_id,
            mission_id=first.mission_id,
            intent_id=first.intent_id,
            plan_id=first.plan_id,
            plan_digest=self._orders[0].plan.digest,
            report_digest=self._orders[0].report.digest,
            executor_id=self._executor_id,
            workspace_id=first.workspace_id,
            execution_status=evidence_pb2.Outcome.Value(f"OUTCOME_{self.outcome.name}"),
            started_at=timestamp(self._started),
            completed_at=timestamp(datetime.now(UTC)),
            steps_succeeded=len(self._done) if good else 0,
            steps_failed=0 if good else 1,
            errors=[] if good else ["a step did not do what the report says"],
            abort_reason=abort_reason,
            steps=[self._step(segment, step, good=good) for segment, step in self._done],
            segments=[self._segment(number) for number in range(1, len(self._plans))],
            controls=[_control(control) for control in self._controls],
        )
        return sealed(sealing.RECEIPT, sealing.seal(receipt), self._key)

    def _step(self, segment: int, step: plan_pb2.Step, *, good: bool) -> evidence_pb2.StepReceipt:
        return evidence_pb2.StepReceipt(
            step_id=step.step_id,
            operation=step.WhichOneof("action") or "",
            stage=step.stage,
            success=good,
            actual_state_change=[change(f"{step.step_id}.txt")] if good else [],
            segment=segment,
            attempts=1,
            step_approvals=[record for approved, record in self._approvals if approved == step.step_id],
        )

    def _segment(self, number: int) -> evidence_pb2.SegmentRecord:
        plan, order = self._plans[number], self._orders[number]
        return evidence_pb2.SegmentRecord(
            segment=number,
            plan_id=plan.plan_id,
            plan_digest=order.plan.digest,
            report_digest=order.report.digest,
            started_at=timestamp(self._started),
            journal_digest=plan.journal_digest,
        )


def change(path: str) -> evidence_pb2.Change:
    """Return a file that is made."""
    node = evidence_pb2.NodeState(type=evidence_pb2.NODE_TYPE_FILE, mode="0644", digest=digest(path.encode()), size="1")
    return evidence_pb2.Change(path=path, kind=evidence_pb2.CHANGE_KIND_CREATE, new=node)


def refused(reason: Reason, message: str) -> ExecutorRefusedError:
    """Return the answer to a control that does not fit."""
    return ExecutorRefusedError(reason, message, "Look at how the mission stands.")


def _word(document: Sealed, step_id: str) -> ev.Payload:
    """Return the event of a signed word about one step."""
    signer = document.signatures[0].key_id
    if document.media_type == sealing.STEP_APPROVAL:
        said = sealing.open_sealed(document.body, evidence_pb2.StepApproval)
        return ev.StepApproved(step_id=step_id, approval_id=said.approval_id, approver=said.approver, key_id=signer)
    word = sealing.open_sealed(document.body, evidence_pb2.Reconciliation)
    return ev.StepReconciled(
        step_id=step_id, happened=word.happened, person=word.person, reconciliation_id=word.reconciliation_id
    )


def _control(order: ControlOrder) -> evidence_pb2.ControlRecord:
    action = "roll_back" if order.roll_back else order.action.value
    return evidence_pb2.ControlRecord(
        action=action, actor=order.actor, reason=order.reason, time=timestamp(datetime.now(UTC))
    )
