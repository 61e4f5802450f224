"""Steps with an effect outside of the workspace: a row in the ledger, then the effect, once, then what came of it.

    claimed                     durable in the ledger and in its anchor, before anything can happen
    performed                   by the far sides, which never raise: what is not certain is UNKNOWN
    settled                     durable; until then, a crash makes it UNKNOWN

Nothing here is ever done again by itself. A person who has a step done once more, after it is certain that its effect
did not happen, makes another attempt with a row of its own; the far side gets the same key as before, so that it can
recognise a repetition.
"""

import logging
import time
from typing import Final

from executor.domain.cancel import NEVER
from executor.domain.errors import ExecutorError, StoreError
from executor.domain.events import EffectClaimed
from executor.domain.plan import Compensation, Live, RunSql, Step
from executor.domain.plan_paths import target_of
from executor.domain.receipt import EffectRecord, EffectState, StepReceipt
from executor.domain.report import LiveEvidence, SqlEvidence, StepReport, ToolEvidence
from executor.runner.control_ports import EffectClaim, effect_id_of
from executor.runner.orders import Order
from executor.runner.outside import Declared, Performed, Setting
from executor.runner.segments import Segment
from executor.runner.step_work import Done, Means, StepFault
from gonogo.digests import step_digest

SETTLE_ATTEMPTS: Final = 3
SETTLE_PAUSE_SECONDS: Final = 0.1
EFFECT_UNKNOWN: Final = "EFFECT_UNKNOWN"
EFFECT_FAILED: Final = "EFFECT_FAILED"
NOT_WELL: Final = "failed: "
"""Begins the summary of an effect that happened, and of which the far side says that it is not well."""
NEVER_AGAIN: Final = frozenset({EffectState.DONE, EffectState.UNKNOWN})
"""Whoever begins such an effect once more would do it twice."""
NOT_AGAIN: Final = "its effect has happened and is not begun again, so no retry; a repair plan can go on without it"

log = logging.getLogger(__name__)


class LiveSteps:
    """Does the live steps of one execution, and makes up for them."""

    def __init__(self, means: Means, order: Order) -> None:
        self._means = means
        self._order = order

    def perform(self, step: Step, expected: StepReport, segment: Segment, attempt: int, setting: Setting) -> Done:
        """Have a step's effect happen, once.

        Raises:
            StepFault: it did not happen, it happened and the far side says that it is not well, or nobody knows.
        """
        action = step.action
        if not isinstance(action, Live):
            raise TypeError(action)
        declared = declared_of(expected, segment)
        claim = self._claim(step, action, segment, attempt, declared.digest)
        record, performed = self._once(claim, action, declared, setting)
        if record.state is EffectState.DONE and performed.fault is None:
            return Done(action_type="commit", detail=performed.summary, effect=record)
        raise _fault(record, performed)

    def compensate(self, step: Step, compensation: Compensation, segment: Segment, receipt: StepReceipt) -> Performed:
        """Make up for a step's effect, once; it raises nothing for what goes wrong."""
        setting = Setting(
            plan=segment.plan,
            step_id=step.step_id,
            workspace=self._order.workspace,
            execution_id=self._order.execution_id,
            redactor=self._means.redactor,
            cancel=NEVER,  # whoever stops the execution wants this
        )
        try:
            declared = self._means.far_sides.declare(compensation.action, setting)
            _check_as_reported(compensation, segment, step.step_id, declared)
            claim = self._claim(
                step, compensation.action, segment, receipt.attempts, declared.digest, kind=compensation.kind, back=True
            )
            return self._once(claim, compensation.action, declared, setting)[1]
        except (ExecutorError, StepFault) as error:
            return Performed(state=EffectState.NOT_DONE, summary=str(error))

    def reconcile(self, receipt: StepReceipt, record: EffectRecord) -> None:
        """Record a person's word on an effect, which is durable in the ledger already as that person's control.

        Raises:
            StoreError: it can not be stored beside the effect. Nothing may be done upon it then: a restart would know
                of what was done, and not of the word.
        """
        effect_id = effect_id_of(self._order.execution_id, receipt.step_id, receipt.attempts)
        self._store(effect_id, record)

    def _claim(
        self,
        step: Step,
        action: Live,
        segment: Segment,
        attempt: int,
        digest: str,
        *,
        kind: str = "",
        back: bool = False,
    ) -> EffectClaim:
        execution_id = self._order.execution_id
        key = f"{execution_id}-{step.step_id}"
        return EffectClaim(
            effect_id=effect_id_of(execution_id, step.step_id, attempt, compensates=back),
            execution_id=execution_id,
            mission_id=segment.plan.mission_id,
            segment=segment.number,
            step_id=step.step_id,
            attempt=attempt,
            compensates=back,
            kind=kind or step.kind,
            target=target_of(action),
            digest=digest,
            idempotency_key=f"{key}-c" if back else key,
            claimed_at=self._order.now(),
        )

    def _once(
        self, claim: EffectClaim, action: Live, declared: Declared, setting: Setting
    ) -> tuple[EffectRecord, Performed]:
        self._order.effects.claim_effect(claim)
        try:
            if self._means.before_effects is not None:
                self._means.before_effects()
        except ExecutorError as error:
            said = f"it was not begun: {error}"
            record = self._settled(claim, Performed(state=EffectState.NOT_DONE, summary=said))
            raise StepFault(error.fault.reason, said, met=False, effect=record) from error
        self._order.emit(EffectClaimed(step_id=claim.step_id, idempotency_key=claim.idempotency_key))
        try:
            performed = self._means.far_sides.perform(action, declared, setting, claim.idempotency_key)
        except Exception as error:  # against its contract; whatever it was, the effect may have happened
            log.exception("effect %s broke off", claim.effect_id)
            performed = Performed(state=EffectState.UNKNOWN, summary=f"it broke off: {error}")
        return self._settled(claim, performed), performed

    def _settled(self, claim: EffectClaim, performed: Performed) -> EffectRecord:
        not_well = performed.state is EffectState.DONE and performed.fault is not None
        record = EffectRecord(
            state=performed.state,
            idempotency_key=claim.idempotency_key,
            summary=NOT_WELL + performed.summary if not_well else performed.summary,
            answer_digest=performed.answer_digest,
            answer=performed.answer,
        )
        try:
            self._store(claim.effect_id, record)
        except StoreError:
            # After a restart nobody would know any more; so nobody goes on from here as if it were known.
            unknown = EffectState.UNKNOWN
            return EffectRecord(state=unknown, idempotency_key=claim.idempotency_key, summary=record.summary)
        return record

    def _store(self, effect_id: str, record: EffectRecord) -> None:
        """Store what is known of an effect; a disk that fails once may work the next moment."""
        for number in range(1, SETTLE_ATTEMPTS + 1):
            try:
                self._order.effects.settle_effect(effect_id, record, self._order.now())
            except StoreError:
                log.exception("what came of effect %s could not be stored", effect_id)
                if number == SETTLE_ATTEMPTS:
                    raise
                time.sleep(SETTLE_PAUSE_SECONDS * number)
            else:
                return


def declared_of(expected: StepReport, segment: Segment) -> Declared:
    """Return what the report holds of a live step.

    Raises:
        StepFault: it holds no such thing; nothing is done without it.
    """
    evidence = expected.evidence
    match evidence:
        case LiveEvidence():
            why, digest = evidence.not_simulated, evidence.digest
        case SqlEvidence():
            why, digest = evidence.not_simulated, ""
        case ToolEvidence():
            why, digest = "", ""
        case _:
            raise StepFault("REPORT_UNKNOWN", "the report does not say what the step does", met=False)
    named = digest or step_digest(segment.claim.report_digest, expected.step_id)
    return Declared(evidence=evidence, not_simulated=why, digest=named)


def _check_as_reported(compensation: Compensation, segment: Segment, step_id: str, declared: Declared) -> None:
    """Refuse to make up for an effect in another way than the approvers were told.

    What is said of it now must be what the report says: it names the tool, and what confines a program. Rows differ
    after the step; but a statement that was tried is not run blindly.

    Raises:
        StepFault: it would be another thing, and is not begun.
    """
    told = next((one.compensation for one in segment.report.steps if one.step_id == step_id), None)
    if told is not None and told.not_simulated == declared.not_simulated:
        return
    if told is not None and told.not_simulated and isinstance(compensation.action, RunSql):
        return  # nobody could try it then; why, may be another reason now
    said = f"it was not begun: {compensation.kind} would not be what the report describes"
    raise StepFault("PLAN_MISMATCH", said, met=False)


def _fault(record: EffectRecord, performed: Performed) -> StepFault:
    if record.state is EffectState.UNKNOWN:
        return StepFault(EFFECT_UNKNOWN, performed.summary, effect=record)
    fault = performed.fault
    reason = EFFECT_FAILED if fault is None else fault.reason
    message = performed.summary if fault is None else fault.message
    done = record.state is EffectState.DONE
    remedy = NOT_AGAIN if done else "" if fault is None else fault.remedy
    return StepFault(reason, f"{message} ({remedy})" if remedy else message, met=done, effect=record)
