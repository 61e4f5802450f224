"""Whether a plan fits what its mission has done so far: its first plan, or a repair of an execution that waits.

An execution takes a repair plan only while it waits for one. The plan names the execution, and what that had done when
the plan was sealed; where any of it is not so any more, the plan is about a state that nobody would find.
"""

from collections.abc import Sequence
from typing import Final

from executor.domain.errors import ExecutorError, GateRefusedError
from executor.domain.gates import MISSION, ONCE, PLAN
from executor.domain.plan import Plan
from executor.runner.control_ports import Paused, PausedState
from executor.runner.ports import Claim, Ledger, Standing

FIRST_READ: Final = 0
STANDING: Final = {
    Standing.CLAIMED: ("ALREADY_CLAIMED", "Mission is being executed", "watch the execution that runs"),
    Standing.EXECUTED: ("ALREADY_EXECUTED", "Mission has already been executed", "propose a new mission"),
}
ANEW: Final = "have a new repair plan made from how the execution stands now, dry run and approved"


class Repairs:
    """Decides whether a mission can be claimed, or goes on with the next segment of its execution."""

    def __init__(self, ledger: Ledger, paused: Paused) -> None:
        self._ledger = ledger
        self._paused = paused

    def check_open(self, mission_id: str, plan_digest: str, *, gate: int = FIRST_READ) -> None:
        """Refuse a mission that the ledger holds, unless its execution waits and takes another plan than it had.

        Raises:
            GateRefusedError: reason ALREADY_CLAIMED or ALREADY_EXECUTED.
        """
        standing = self._ledger.standing(mission_id)
        if standing is Standing.FREE:
            return
        paused = self._paused.of(mission_id) if standing is Standing.CLAIMED else None
        if paused is None or not paused.repairable or self._had(paused, plan_digest):
            raise GateRefusedError(gate, *STANDING[standing])

    def check_fits(self, plan: Plan) -> None:
        """Refuse a plan that is not for how its mission stands now; `check_open` comes before it.

        Raises:
            GateRefusedError: what of it does not fit.
        """
        paused = self._paused.of(plan.mission_id)
        claims = () if paused is None else self._ledger.claims_of(paused.execution_id)
        if paused is None or not paused.repairable or not claims:
            self._check_first(plan)
            return
        _check_place(plan, claims[0])
        _check_number(plan, paused, claims)
        if plan.journal_digest != paused.results_digest:
            raise GateRefusedError(
                PLAN, "PLAN_MISMATCH", "the repair plan is for another state of the execution than it is in", ANEW
            )
        again = sorted(step.step_id for step in plan.steps if step.step_id in paused.step_ids)
        if again:
            raise GateRefusedError(
                PLAN,
                "PLAN_INVALID",
                f"the repair plan has a step {again[0][:100]!r}, as the execution had before",
                "name the steps of a repair plan as no step of the mission was named",
            )

    def check_dry_run(self, plan: Plan) -> None:
        """Refuse the dry run of a repair plan that nothing waits for.

        Raises:
            ExecutorError: reason STATE_FORBIDS, or PLAN_INVALID for step ids that the execution had before.
        """
        if not plan.segment:
            return
        try:
            self.check_fits(plan)
        except GateRefusedError as error:
            fault = error.fault
            reason = "PLAN_INVALID" if fault.reason == "PLAN_INVALID" else "STATE_FORBIDS"
            raise ExecutorError(reason, fault.message, fault.remedy) from None

    def _had(self, paused: PausedState, plan_digest: str) -> bool:
        return any(claim.plan_digest == plan_digest for claim in self._ledger.claims_of(paused.execution_id))

    def _check_first(self, plan: Plan) -> None:
        """Refuse a repair plan where nothing waits for one. Whether a first plan is the first the ledger decides."""
        if not (plan.segment or plan.execution_id or plan.journal_digest):
            return
        self.check_open(plan.mission_id, "")
        raise GateRefusedError(
            MISSION,
            "STATE_FORBIDS",
            "no execution of this mission waits for a repair plan",
            "a repair plan goes on with a paused execution; seal one while it waits, or propose a new mission",
        )


def _check_place(plan: Plan, first: Claim) -> None:
    """Refuse a plan for another execution, or one that would move the mission."""
    for what, reason, wanted, named in (
        ("execution", "MISSION_MISMATCH", first.execution_id, plan.execution_id or first.execution_id),
        ("intent", "MISSION_MISMATCH", first.intent_id, plan.intent_id),
        ("workspace", "WORKSPACE_MISMATCH", first.workspace_id, plan.workspace_id),
    ):
        if named != wanted:
            raise GateRefusedError(
                MISSION, reason, f"the plan is for {what} {named[:100]!r}; the mission's is {wanted!r}", ANEW
            )


def _check_number(plan: Plan, paused: PausedState, claims: Sequence[Claim]) -> None:
    """Refuse a segment that was claimed before, and one that would leave a gap."""
    last = max(paused.segment, *(claim.segment for claim in claims))
    if plan.segment <= last:
        raise GateRefusedError(
            ONCE, "ALREADY_CLAIMED", f"segment {plan.segment} of the mission has been claimed already", ANEW
        )
    if plan.segment != last + 1:
        raise GateRefusedError(
            MISSION, "STATE_FORBIDS", f"the plan is for segment {plan.segment}; segment {last + 1} is next", ANEW
        )
