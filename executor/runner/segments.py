"""One segment of an execution: segment 0 is the mission's plan, each approved repair plan opens the next."""

from dataclasses import dataclass

from executor.domain.plan import Plan, Step
from executor.domain.report import Report, StepReport
from executor.runner.ports import Claim
from executor.runner.words import steps_to_approve


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One segment of an execution: an approved plan, its report, and that both were claimed."""

    claim: Claim
    plan: Plan
    report: Report

    @property
    def number(self) -> int:
        return self.claim.segment

    @property
    def approvers(self) -> tuple[str, ...]:
        """The persons it stands on."""
        return tuple(one.approver for one in self.claim.approvals)

    @property
    def pairs(self) -> tuple[tuple[Step, StepReport], ...]:
        """The steps, each with what its dry run found."""
        return tuple(zip(self.plan.steps, self.report.steps, strict=True))

    def to_approve(self) -> frozenset[str]:
        """Return the steps that wait for a signature of their own."""
        demand = self.report.demand
        demanded = steps_to_approve(self.claim, () if demand is None else demand.approve_steps)
        return demanded | {step.step_id for step in self.plan.steps if step.needs_approval}
