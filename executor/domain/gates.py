"""The gates that need nothing but the documents: 2 (simulation), 4 (plan) and 5 (mission), and the count of gate 3.

Each is a function that returns nothing where it holds and raises GateRefusedError where it does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from executor.domain.approval import Approval
from executor.domain.errors import GateRefusedError
from executor.domain.plan import Plan
from executor.domain.report import Report, ReportStatus

REPORT, SIMULATION, APPROVED, PLAN, MISSION, DRIFT, ONCE = range(1, 8)

NOT_A_SUCCESS = {
    ReportStatus.UNSAFE: "SIMULATION_UNSAFE",
    ReportStatus.BLOCKED: "SIMULATION_BLOCKED",
    ReportStatus.FAILED: "SIMULATION_FAILED",
}


ID_REASONS = (
    ("mission_id", "MISSION_MISMATCH"),
    ("intent_id", "MISSION_MISMATCH"),
    ("workspace_id", "WORKSPACE_MISMATCH"),
    ("executor_id", "EXECUTOR_MISMATCH"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedIds:
    """What a request says that it is about."""

    mission_id: str
    intent_id: str
    workspace_id: str
    executor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenApproval:
    """An approval whose signature holds, and whose it is."""

    approval: Approval
    digest: str
    person: str
    key_id: str


def check_simulation(report: Report) -> None:
    """Gate 2: the dry run was a success."""
    if report.status is ReportStatus.SUCCESS:
        return
    first = report.problems[0].message if report.problems else "the report names no problem"
    raise GateRefusedError(
        SIMULATION,
        NOT_A_SUCCESS[report.status],
        f"the dry run was {report.status.value}: {first}",
        "change the plan so that its dry run succeeds, and have that report approved",
    )


def check_quorum(given: Sequence[GivenApproval], *, required: int, excluded: frozenset[str]) -> None:
    """Gate 3, the count: enough distinct persons with distinct keys, those who proposed not among them."""
    counted = [one for one in given if one.person not in excluded]
    if _distinct(counted) >= required:
        return
    if _distinct(given) >= required:
        raise GateRefusedError(
            APPROVED,
            "SELF_APPROVAL",
            f"{', '.join(sorted(excluded))} proposed the plan, and a proposer's own approval does not count here",
            'let another person approve, or have the operator write self_approval = "allowed" into the trust file',
        )
    raise GateRefusedError(
        APPROVED,
        "QUORUM_NOT_MET",
        f"{_distinct(counted)} of {required} persons have approved",
        f"{required - _distinct(counted)} more must approve",
    )


def check_plan_matches(plan: Plan, report: Report, given: Sequence[GivenApproval]) -> None:
    """Gate 4, the ids: report and approvals name the plan's id. The digests are compared before the plan is read."""
    if report.plan_id != plan.plan_id:
        raise plan_mismatch("the report", report.plan_id)
    for one in given:
        if one.approval.plan_id != plan.plan_id:
            raise plan_mismatch(f"approval {one.approval.approval_id}", one.approval.plan_id)


def check_plan_digests(plan_digest: str, report: Report, given: Sequence[GivenApproval]) -> None:
    """Gate 4, the digests: report and approvals are about exactly these plan bytes."""
    if report.plan_digest != plan_digest:
        raise plan_mismatch("the report", report.plan_digest)
    for one in given:
        if one.approval.plan_digest != plan_digest:
            raise plan_mismatch(f"approval {one.approval.approval_id}", one.approval.plan_digest)


def plan_mismatch(document: str, named: str) -> GateRefusedError:
    """Say which document names which other plan."""
    return GateRefusedError(
        PLAN,
        "PLAN_MISMATCH",
        f"{document} is about another plan, {named[:100]}",
        "send the plan that was dry run and approved, byte for byte",
    )


def check_mission_matches(named: NamedIds, plan: Plan, report: Report, given: Sequence[GivenApproval]) -> None:
    """Gate 5: request, plan, report and every approval name the same mission, intent, workspace and executor."""
    documents = [("the plan", ids_of(plan)), ("the report", ids_of(report))]
    documents += [(f"approval {one.approval.approval_id}", ids_of(one.approval)) for one in given]
    for document, ids in documents:
        if ids != named:
            raise _ids_mismatch(document, ids, named)


def ids_of(document: Plan | Report | Approval) -> NamedIds:
    """Return the four ids of a document."""
    return NamedIds(
        mission_id=document.mission_id,
        intent_id=document.intent_id,
        workspace_id=document.workspace_id,
        executor_id=document.executor_id,
    )


def _ids_mismatch(document: str, ids: NamedIds, named: NamedIds) -> GateRefusedError:
    what, reason = next(rule for rule in ID_REASONS if getattr(ids, rule[0]) != getattr(named, rule[0]))
    return GateRefusedError(
        MISSION,
        reason,
        f"{document} names {what} {getattr(ids, what)[:100]!r}, the request {getattr(named, what)[:100]!r}",
        "send documents of one and the same mission; a mission never moves to another workspace or executor",
    )


def _distinct(given: Sequence[GivenApproval]) -> int:
    return min(len({one.person for one in given}), len({one.key_id for one in given}))
