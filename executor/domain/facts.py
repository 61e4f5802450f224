"""What the policy's rules look at, computed by the executor from its own plan and its own findings.

Nothing here is taken from what a caller says about a mission: the steps are the plan's, the changes and the risk those
that the executor's own dry run found, and the proposer is whoever a signature proves.
"""

from collections.abc import Sequence
from datetime import datetime

from executor.domain.changes import NodeType
from executor.domain.plan import Plan
from executor.domain.report import RiskFact, RiskLevel, StepReport
from gonogo.policy import Facts, Proposer


def facts_of(
    plan: Plan,
    *,
    steps: Sequence[StepReport],
    risk_level: RiskLevel,
    risk_facts: Sequence[RiskFact],
    proposer: Proposer,
    at: datetime,
) -> Facts:
    """Return the facts of a plan and of what its dry run found.

    Args:
        plan: the plan.
        steps: what its steps changed.
        risk_level: the highest level of risk among the facts.
        risk_facts: the facts of risk.
        proposer: who asked, as far as it is proven.
        at: the moment for which a demand is wanted.
    """
    return Facts(
        step_kinds=frozenset(step.kind for step in plan.steps),
        risk_facts=frozenset(fact.kind for fact in risk_facts),
        risk=risk_level.name.lower(),
        workspace_id=plan.workspace_id,
        changes=sum(len(step.changes) for step in steps),
        size=sum(size_after(step) for step in steps),
        at=at,
        proposer=proposer,
        steps=tuple((step.step_id, step.kind) for step in plan.steps),
    )


def size_after(step: StepReport) -> int:
    """Return the bytes of the files that a step changes, as they are afterwards."""
    return sum(
        change.new.size for change in step.changes if change.new is not None and change.new.type is NodeType.FILE
    )
