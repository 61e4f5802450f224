"""Undoing what an execution did, newest first: commits restored exactly, effects outside made up for where declared."""

import logging
from dataclasses import replace

from executor.domain.changes import states_before
from executor.domain.errors import StoreError
from executor.domain.events import RollbackCompleted, RollbackStarted
from executor.domain.plan import Step
from executor.domain.receipt import EffectRecord, EffectState, StepReceipt
from executor.runner.control_ports import effect_id_of
from executor.runner.disk import states_on_disk
from executor.runner.live_steps import LiveSteps
from executor.runner.orders import Order
from executor.runner.position import Position
from executor.runner.segments import Segment
from executor.workspace.commit import Applied, Committer

SHOWN_DETAILS = 50

log = logging.getLogger(__name__)
WORDS = {
    EffectState.DONE: "made up for",
    EffectState.NOT_DONE: "could not be made up for",
    EffectState.UNKNOWN: "nobody knows whether it was made up for",
}


class RollBack:
    """Undoes steps of one execution."""

    def __init__(self, order: Order, position: Position, live: LiveSteps, committer: Committer) -> None:
        self._order = order
        self._position = position
        self._live = live
        self._committer = committer

    def everything(self) -> None:
        """Undo every step that was done, of all segments, the newest first."""
        for receipt in reversed(list(self._position.receipts.values())):
            applied = self._position.commits.standing.get(receipt.step_id)
            if applied is not None:
                self.commit(receipt.step_id, applied)
            elif receipt.effect is not None and receipt.effect.state is EffectState.DONE:
                self._effect(receipt, receipt.effect)

    def commit(self, step_id: str, applied: Applied) -> None:
        """Undo one step's commit, and say so in its receipt."""
        position, emit = self._position, self._order.emit
        emit(RollbackStarted(step_id=step_id))
        undone = self._committer.undo(applied)
        position.commits.took_back(step_id, applied, undone)
        position.after.update(states_on_disk(self._order.workspace.open(), states_before(applied.changes)))
        position.divergence += undone.differences
        message = "; ".join(undone.differences[:SHOWN_DETAILS])
        emit(RollbackCompleted(step_id=step_id, success=undone.success, message=message))
        receipt = position.receipts[step_id]
        position.receipts[step_id] = replace(receipt, rollback_invoked=True, rollback_succeeded=undone.success)

    def _effect(self, receipt: StepReceipt, effect: EffectRecord) -> None:
        """Make up for one effect. What has no compensation stays as it is: its approvers were told."""
        step, segment = self._step(receipt.step_id)
        if effect.compensation or step.compensation is None:  # begun before a restart, it is not begun again
            return
        self._order.emit(RollbackStarted(step_id=receipt.step_id))
        performed = self._live.compensate(step, step.compensation, segment, receipt)
        worked = performed.state is EffectState.DONE and performed.fault is None
        message = f"{WORDS[performed.state]}: {performed.summary}"
        state = EffectState.COMPENSATED if worked else effect.state
        record = replace(effect, state=state, compensation=message)
        self._settle(receipt, record)
        self._position.doubtful |= performed.state is EffectState.UNKNOWN
        self._order.emit(RollbackCompleted(step_id=receipt.step_id, success=worked, message="" if worked else message))
        self._position.receipts[receipt.step_id] = replace(
            receipt, effect=record, rollback_invoked=True, rollback_succeeded=worked
        )

    def _settle(self, receipt: StepReceipt, record: EffectRecord) -> None:
        effect_id = effect_id_of(self._order.execution_id, receipt.step_id, receipt.attempts)
        try:
            self._order.effects.settle_effect(effect_id, record, self._order.now())
        except StoreError:  # the compensation's own row says it
            log.exception("how making up for effect %s went could not be stored", effect_id)

    def _step(self, step_id: str) -> tuple[Step, Segment]:
        for segment in self._position.segments:
            for step in segment.plan.steps:
                if step.step_id == step_id:
                    return step, segment
        raise LookupError(step_id)
