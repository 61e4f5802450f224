"""Who must approve a mission, who has, who still may, and why: the executor's policy applied to the sealed documents.

What counts is the executor's own decision at the time of the execution. This is the same computation, from the same
signed policy, made now; what an orchestrator says about any of it is not asked.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from client.proving.facts import facts_of, moment
from client.proving.opened import OpenApproval
from client.proving.seals import vote_of
from client.taken_back import TakenBack
from client.verification import VerifiedMission
from gonogo.policy import (
    Demand,
    KeyUse,
    Person,
    PersonKind,
    Policy,
    Proposer,
    ProposerKind,
    Requirement,
    Verdict,
    Vote,
    decide,
    demand_of,
    excluded_by,
    unfilled,
)
from gonogo.policy_document import demand_to_proto
from gonogo.policy_words import demand_words, requirements_words, rule_words
from gonogo.v1 import evidence_pb2

NOBODY_LEFT = "nobody is left who may still approve: the trust file needs more persons, or another rule"
UNKNOWN_REVOCATIONS = "whether anything was taken back is not known now: the executor's log is not to be had"
CHANGED = "the trust file changed since the dry run: make it again, and have the new report approved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How one person or agent stands to a mission."""

    person: str
    state: str
    """"counts", "does not count", "denied", "taken back", "may approve" or "may not approve"."""
    why: str

    def as_json(self) -> dict[str, object]:
        """Return it as scripts read it."""
        return {"person": self.person, "state": self.state, "why": self.why}


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What a mission needs, and what of it is there."""

    mission: VerifiedMission
    policy: Policy
    policy_digest: str
    proposer: Proposer
    demand: Demand
    """Now: rules may look at the time."""
    verdict: Verdict
    standings: tuple[Standing, ...]
    remarks: tuple[str, ...]

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules that hold, in words."""
        return tuple(rule_words(rule) for rule in self.policy.rules if rule.rule_id in self.demand.rules)

    def as_json(self) -> dict[str, object]:
        """Return it as scripts read it."""
        return {
            "mission_id": self.mission.plan.mission_id,
            "policy_digest": self.policy_digest,
            "report_policy_digest": self.mission.report.policy_digest,
            "trust_version": self.policy.trust_version,
            "trust_expires_at": _shown_time(self.policy.expires_at),
            "proposer": {
                "kind": self.proposer.kind.value,
                "person": self.proposer.person or None,
                "sponsor": self.proposer.sponsor or None,
            },
            "demand": {
                "requirements": requirements_json(self.demand.requirements),
                "rules": list(self.demand.rules),
                "hardware_key": self.demand.hardware_key,
                "min_ladder_level": self.demand.min_ladder_level,
                "max_approval_seconds": self.demand.max_approval_seconds,
                "approve_steps": list(self.demand.approve_steps),
                "refused": self.demand.refused or None,
                "says": list(demand_words(self.demand)),
            },
            "rules": list(self.rules),
            "met": self.verdict.met,
            "reason": self.verdict.reason or None,
            "message": self.verdict.message or None,
            "missing": requirements_json(self.verdict.missing),
            "persons": [one.as_json() for one in self.standings],
            "remarks": list(self.remarks),
        }


def explain(
    mission: VerifiedMission,
    *,
    approvals: Sequence[OpenApproval],
    policy: Policy,
    policy_digest: str,
    proposer: Proposer,
    now: datetime,
    taken_back: Sequence[TakenBack] | None = (),
) -> Explanation:
    """Apply a policy to a mission.

    Args:
        mission: plan and report, proven.
        approvals: as they were handed in; each is checked here.
        policy: the executor's, proven.
        policy_digest: of its sealed form.
        proposer: who asked, as far as the plan's signatures prove it.
        now: the moment to decide for.
        taken_back: what the executor's log has of it, proven; None where nobody can say now.

    Raises:
        ValueError: the report holds what no honest report does.
    """
    facts = facts_of(mission.plan, mission.report, proposer=proposer, at=now)
    demand = demand_of(policy, facts)
    given = [_judged(one, mission, policy, demand, now) for one in approvals]
    withdrawn = {one.person: one for one in sorted(taken_back or (), key=lambda one: one.denied)}
    votes = [one.vote for one in given if one.vote is not None and one.vote.person not in withdrawn]
    verdict = _denied(given, withdrawn) or decide(policy, demand, proposer, votes)
    standings = tuple(
        _withdrawn(withdrawn[one.person_id])
        if one.person_id in withdrawn
        else _standing(one, given, policy, demand, proposer, verdict)
        for one in policy.persons
    )
    return Explanation(
        mission=mission,
        policy=policy,
        policy_digest=policy_digest,
        proposer=proposer,
        demand=demand,
        verdict=verdict,
        standings=standings,
        remarks=(
            *_remarks(mission, policy, policy_digest, demand, given, now),
            *((UNKNOWN_REVOCATIONS,) if taken_back is None else ()),
            *((NOBODY_LEFT,) if _nobody_left(verdict, standings) else ()),
        ),
    )


def _nobody_left(verdict: Verdict, standings: Sequence[Standing]) -> bool:
    return verdict.reason == "QUORUM_NOT_MET" and all(one.state != "may approve" for one in standings)


def requirements_json(requirements: Iterable[Requirement]) -> list[Mapping[str, object]]:
    """Return requirements as scripts read them; a group of null is everybody who may approve."""
    return [{"count": one.count, "group": one.group or None} for one in requirements]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """One approval that was handed in: the vote that it is, or why it is none."""

    approval: evidence_pb2.Approval
    vote: Vote | None = None
    denies: bool = False
    fault: str = ""


def _judged(one: OpenApproval, mission: VerifiedMission, policy: Policy, demand: Demand, now: datetime) -> _Given:
    given = _Given(approval=one.approval)
    vote = vote_of(one, policy)
    if vote is None:
        return replace(given, fault=_no_vote(one, policy))
    named = (one.approval.plan_digest, one.approval.report_digest, one.approval.policy_digest)
    if named != (mission.plan_digest, mission.report_digest, mission.report.policy_digest):
        return replace(given, fault="it is for another plan or report")
    if one.approval.decision == evidence_pb2.DECISION_DENY:
        return replace(given, denies=True)
    fault = _out_of_time(one.approval, demand, now)
    return replace(given, fault=fault) if fault else replace(given, vote=vote)


def _no_vote(one: OpenApproval, policy: Policy) -> str:
    """Say why a signature is not its person's: the trust file may have lost the key since."""
    listed = {key.key_id for person in policy.persons for key in person.keys}
    lost = [signature.key_id for signature in one.document.sealed.signatures if signature.key_id not in listed]
    if lost:
        return f"its key {lost[0]} is not in the trust file, or not any more: revoked keys are taken out of it"
    return "its signature is not one that this person approves with"


def _out_of_time(approval: evidence_pb2.Approval, demand: Demand, now: datetime) -> str:
    begins, ends = moment(approval.not_before), moment(approval.expires_at)
    start = min(begins, moment(approval.approved_at))
    if now < begins:
        return f"it holds from {_shown_time(begins)} on"
    if now >= ends:
        return f"it has expired, at {_shown_time(ends)}"
    if (now - start).total_seconds() >= demand.max_approval_seconds:
        return f"it was given more than {demand.max_approval_seconds} seconds ago"
    return ""


def _withdrawn(taken: TakenBack) -> Standing:
    return Standing(person=taken.person, state="denied" if taken.denied else "taken back", why=taken.why)


def _denied(given: Sequence[_Given], withdrawn: Mapping[str, TakenBack]) -> Verdict | None:
    deniers = [one.approval.approver for one in given if one.denies]
    denier = next(iter([*deniers, *(one.person for one in withdrawn.values() if one.denied)]), None)
    if denier is None:
        return None
    message = f"{denier} denied it, and one denial is final"
    return Verdict(reason="NOT_APPROVED", message=message, counted=(), missing=(), excluded={})


def _standing(
    person: Person,
    given: Sequence[_Given],
    policy: Policy,
    demand: Demand,
    proposer: Proposer,
    verdict: Verdict,
) -> Standing:
    own = [one for one in given if one.approval.approver == person.person_id]
    if any(one.denies for one in own):
        return Standing(person=person.person_id, state="denied", why="and one denial is final")
    if any(vote.person == person.person_id for vote in verdict.counted):
        return Standing(person=person.person_id, state="counts", why="has approved")
    barred = _barred(person, policy, demand, proposer)
    if own:
        why = barred or next((one.fault for one in own if one.fault), "") or _file_key(own, demand) or verdict.message
        return Standing(person=person.person_id, state="does not count", why=why)
    why = barred or _useless(person, policy, demand, verdict)
    if why:
        return Standing(person=person.person_id, state="may not approve", why=why)
    return Standing(person=person.person_id, state="may approve", why=f"still missing: {_shown(verdict.missing)}")


def _barred(person: Person, policy: Policy, demand: Demand, proposer: Proposer) -> str:
    """Say why somebody's approval can not count whatever the others do; empty where it can."""
    if person.kind is PersonKind.AGENT:
        return "an agent never approves"
    if not person.approves:
        return "has no key to approve with"
    excluded = excluded_by(policy, proposer)
    if person.person_id in excluded:
        return f"{excluded[person.person_id]}, and self-approval is refused"
    hardware = any(key.hardware for key in person.keys if key.use is KeyUse.APPROVE)
    if demand.hardware_key and not hardware:
        return "has no hardware key"
    return ""


def _useless(person: Person, policy: Policy, demand: Demand, verdict: Verdict) -> str:
    """Say why somebody's approval would change nothing; empty where it would."""
    if verdict.met:
        return "enough have approved"
    if verdict.reason in {"POLICY_REFUSES", "NOT_APPROVED"} or not verdict.missing:
        return verdict.message
    counted = [vote.person for vote in verdict.counted]
    left = unfilled(policy, demand.requirements, [*counted, person.person_id])
    if sum(one.count for one in left) == sum(one.count for one in verdict.missing):
        return f"is in no group of which somebody is missing: {_shown(verdict.missing)}"
    about_nobody = verdict.reason == "SELF_APPROVAL" and not verdict.excluded
    return verdict.message if about_nobody else ""


def _file_key(own: Sequence[_Given], demand: Demand) -> str:
    used = any(one.vote is not None and not one.vote.hardware for one in own)
    return "was not signed with a hardware key" if demand.hardware_key and used else ""


def _remarks(
    mission: VerifiedMission,
    policy: Policy,
    policy_digest: str,
    demand: Demand,
    given: Sequence[_Given],
    now: datetime,
) -> Iterator[str]:
    if policy_digest != mission.report.policy_digest:
        yield CHANGED
    elif demand_to_proto(demand) != mission.report.demand:
        yield "at the time of the dry run other rules held than now; those at the time of the execution decide"
    if now >= policy.expires_at:
        yield f"the trust file has expired, at {_shown_time(policy.expires_at)}: nothing is executed"
    if mission.report.status != evidence_pb2.REPORT_STATUS_SUCCESS:
        yield "the dry run was no success, so that nothing is executed whoever approves"
    level = mission.report.ladder_level - 1
    if demand.min_ladder_level is not None and level < demand.min_ladder_level:
        yield f"the dry run had ladder level L{level}, and L{demand.min_ladder_level} is demanded: make it again"
    known = {person.person_id for person in policy.persons}
    for one in given:
        if one.approval.approver not in known:
            yield f"{one.approval.approver} has approved and is not in the trust file: that does not count"


def proposer_words(proposer: Proposer) -> str:
    """Return who proposed."""
    if proposer.kind is ProposerKind.UNKNOWN:
        return "unknown: the plan carries no signature of anybody in the trust file"
    return f"agent {proposer.person} of {proposer.sponsor}" if proposer.sponsor else proposer.person


def _shown_time(at: datetime) -> str:
    """Write a time as the trust file and the documents do."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _shown(requirements: Sequence[Requirement]) -> str:
    return requirements_words(requirements)
