"""The gates that need nothing but the documents: 2 (simulation), 4 (plan) and 5 (mission), and the decision of gate 3.

Each check is a function that returns what holds, or nothing, and raises GateRefusedError where it does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from executor.domain.approval import Approval, check_window
from executor.domain.errors import GateRefusedError
from executor.domain.ladder import LadderLevel
from executor.domain.plan import Plan
from executor.domain.report import Report, ReportStatus
from gonogo.policy import Demand, Policy, Proposer, Verdict, Vote, decide

REPORT, SIMULATION, APPROVED, PLAN, MISSION, DRIFT, ONCE = range(1, 8)

NOT_A_SUCCESS: Final = {
    ReportStatus.UNSAFE: "SIMULATION_UNSAFE",
    ReportStatus.BLOCKED: "SIMULATION_BLOCKED",
    ReportStatus.FAILED: "SIMULATION_FAILED",
}

ID_REASONS: Final = (
    ("mission_id", "MISSION_MISMATCH"),
    ("intent_id", "MISSION_MISMATCH"),
    ("workspace_id", "WORKSPACE_MISMATCH"),
    ("executor_id", "EXECUTOR_MISMATCH"),
)

REMEDIES: Final = {
    "POLICY_REFUSES": "change the plan so that no rule refuses it, or have the executor's operator change the policy",
    "SELF_APPROVAL": (
        "let another person approve, and let the proposer sign the plan with a key of the trust file, "
        'or have the operator write self_approval = "allowed" into it'
    ),
    "HARDWARE_KEY_NEEDED": "approve with a hardware key (sk-ssh-ed25519@openssh.com) of the trust file, and touch it",
    "QUORUM_NOT_MET": "let them approve; gonogo policy explain MISSION says who may",
}


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
    scheme: str
    hardware: bool

    @property
    def vote(self) -> Vote:
        """What counts of it in a decision."""
        return Vote(person=self.person, key_id=self.key_id, hardware=self.hardware)


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


def check_distinct(given: Sequence[GivenApproval]) -> None:
    """Gate 3, single use: two persons' approvals that share their id or nonce can not both be used up."""
    for names in ([one.approval.approval_id for one in given], [one.approval.nonce for one in given]):
        if len(set(names)) != len(names):
            raise GateRefusedError(
                APPROVED,
                "NOT_APPROVED",
                "two approvals carry the same id or the same nonce",
                "have one of the two persons approve again; a client makes both anew each time",
            )


def first_in_time(given: Sequence[GivenApproval], *, now: datetime, max_seconds: int) -> tuple[GivenApproval, ...]:
    """Gate 3, the windows: return one approval of each person, the first of theirs that holds now.

    One that was signed with a hardware key goes before one that was not: a rule may take only the former, and none
    takes only the latter.

    Raises:
        GateRefusedError: somebody's approvals are all too early or too late; none of them is passed over silently.
    """
    held: dict[str, GivenApproval] = {}
    faults: dict[str, GateRefusedError] = {}
    for one in sorted(given, key=lambda one: not one.hardware):
        if one.person in held:
            continue
        try:
            check_window(one.approval, now=now, max_seconds=max_seconds)
        except GateRefusedError as error:
            faults.setdefault(one.person, error)
        else:
            held[one.person] = one
    for person, fault in faults.items():
        if person not in held:
            raise fault
    return tuple(held.values())


def check_demand(
    policy: Policy, demand: Demand, proposer: Proposer, given: Sequence[GivenApproval], level: LadderLevel
) -> Verdict:
    """Gate 3, the decision: the approvals are what the policy demands, and so was the dry run.

    Args:
        policy: the one in force.
        demand: what it demands now.
        proposer: who asked, as far as it is proven.
        given: one valid approval of each person.
        level: the isolation that the report states.
    """
    verdict = decide(policy, demand, proposer, [one.vote for one in given])
    if not verdict.met:
        raise GateRefusedError(APPROVED, verdict.reason, verdict.message, REMEDIES[verdict.reason])
    if demand.min_ladder_level is not None and level.value < demand.min_ladder_level:
        raise GateRefusedError(
            APPROVED,
            "LADDER_TOO_LOW",
            f"the dry run had ladder level {level.name}; the policy demands L{demand.min_ladder_level}",
            "make the dry run again on an executor with that level; gonogo doctor says what keeps this one from it",
        )
    return verdict


def check_policy_unchanged(report: Report, policy_digest: str) -> None:
    """Gate 3, at last: the policy is still the one that the report showed to those who approved it."""
    if report.policy_digest != policy_digest:
        raise GateRefusedError(
            APPROVED,
            "NOT_APPROVED",
            "the trust file changed since the dry run",
            "make the dry run again, and have the new report approved",
        )


def check_as_much(told: Demand, demand: Demand) -> None:
    """Gate 3, a plan that was signed after its dry run: what the report said to those who approved it still holds.

    Args:
        told: what is demanded where nobody has proven to be the proposer, as it was at the dry run.
        demand: what is demanded now.
    """
    if told.rules != demand.rules:
        less = sorted(frozenset(told.rules) - frozenset(demand.rules))
        raise GateRefusedError(
            APPROVED,
            "NOT_APPROVED",
            f"the plan was signed after its dry run, whose report asks for what {', '.join(less)} says, too",
            "make the dry run again with the signed plan, and have the new report approved",
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
        f"{document} is about another plan, {named[:100]!r}",
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
