"""What the executor asks of the approvals of one report, as far as that can be known here.

The executor's verdict alone counts. This one is a courtesy: it tells a person at once that their approval would not
count, and the dispatcher when enough have approved. It is sure only while three things hold: the executor shows its
policy, the report was made under that very policy, and the plan's proposer is the one whom the report names. Where it
is not sure it counts heads, and leaves the rest to the executor.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gonogo.policy import (
    Demand,
    Key,
    KeyUse,
    Person,
    PersonKind,
    Policy,
    Proposer,
    ProposerKind,
    Vote,
    decide,
    excluded_by,
)
from orchestrator.domain.errors import Reason, StateForbidsError
from orchestrator.domain.evidence import ExecutorInfo, ReportFacts, SelfApproval
from orchestrator.domain.mission import Mission

_KINDS = {PersonKind.PERSON: ProposerKind.PERSON, PersonKind.AGENT: ProposerKind.AGENT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked for one mission's present report."""

    mission: Mission
    info: ExecutorInfo
    report: ReportFacts | None
    policy: Policy | None
    """The one in force; None where the executor does not show it."""

    def fault(self, person: str, key_id: str) -> StateForbidsError | None:
        """Return why the approval that a person gives with a key would not count, None where it may."""
        demand, sure = self._demand, self._sure
        if demand.refused:
            return _fault(Reason.POLICY_REFUSES, f"the executor's policy refuses it: {demand.refused}")
        why = self._excluded(person)
        if why:
            return _fault(Reason.SELF_APPROVAL, f"the approval of {person!r} does not count: {person} {why}")
        if sure is None:
            return None
        if self._unproven(sure):
            return _fault(
                Reason.SELF_APPROVAL,
                "nobody has proven to be the plan's proposer, so that an approver may be the proposer",
                "Have the plan signed by its proposer with gonogo sign, dry-run it again, and approve that report.",
            )
        if demand.hardware_key and not _in_hardware(sure, person, key_id):
            return _fault(Reason.HARDWARE_KEY_NEEDED, "a rule of the executor takes only signatures of hardware keys")
        return None

    def enough(self, signed: Mapping[str, str]) -> bool:
        """Tell whether approvals are as many as are asked for, and by whom.

        Args:
            signed: the key that each person approved with, by person.
        """
        if self.report is None or self.report.demand is None:
            return len(signed) >= self.info.approvals_required > 0
        sure = self._sure
        if sure is None:
            return len(signed) >= sum(one.count for one in self._demand.requirements)
        votes = [
            Vote(person=person, key_id=key_id, hardware=_in_hardware(sure, person, key_id))
            for person, key_id in signed.items()
        ]
        return decide(sure, self._demand, self._proven, votes).met

    def _unproven(self, policy: Policy) -> bool:
        """Tell whether nobody's approval can count, because any approver may be the proposer."""
        if self.mission.plan_signatures or policy.self_approval:
            return False
        return decide(policy, self._demand, self._proven, ()).reason == Reason.SELF_APPROVAL

    @property
    def _demand(self) -> Demand:
        return (self.report.demand if self.report else None) or Demand()

    @property
    def _sure(self) -> Policy | None:
        """The policy, where what the report says is what the executor would say now."""
        report, shown = self.report, self.info.policy
        if self.policy is None or shown is None or report is None or report.demand is None:
            return None
        same = report.policy_digest == shown.digest and report.proposer == self._proven.person
        return self.policy if same else None

    @property
    def _proven(self) -> Proposer:
        """Who proposed, as far as a signature on the plan proves it."""
        signed = self.mission.plan_signatures
        return _proposer(self.policy, signed[0].person) if signed else Proposer()

    def _excluded(self, person: str) -> str:
        """Return why a person does not count because of who proposed; whoever called as the proposer is believed."""
        if self.policy is not None:
            return excluded_by(self.policy, _proposer(self.policy, self.mission.proposer)).get(person, "")
        allowed = self.info.self_approval is SelfApproval.ALLOWED
        return "" if allowed or person != self.mission.proposer else "proposed the plan"


def key_in(policy: Policy, key_id: str, scheme: str) -> tuple[Person, Key] | None:
    """Return a key of a policy, and whose it is."""
    for person in policy.persons:
        for key in person.keys:
            if key.key_id == key_id and key.scheme == scheme:
                return person, key
    return None


def can_not_approve(policy: Policy | None, key_id: str, scheme: str) -> StateForbidsError | None:
    """Return the refusal of a key that the policy lists, and not for approving."""
    found = key_in(policy, key_id, scheme) if policy else None
    if found is None:
        return None
    person, key = found
    if person.kind is PersonKind.PERSON and key.use is KeyUse.APPROVE:
        return None
    return _fault(
        Reason.APPROVER_UNKNOWN,
        f"the key {key_id} of {person.person_id} can propose and not approve",
        "Approve with a key that the executor's trust file lists for approving.",
    )


def _proposer(policy: Policy | None, person_id: str) -> Proposer:
    person = policy.person(person_id) if policy else None
    if person is None:
        return Proposer(kind=ProposerKind.PERSON, person=person_id)
    return Proposer(kind=_KINDS[person.kind], person=person.person_id, sponsor=person.sponsor)


def _in_hardware(policy: Policy, person_id: str, key_id: str) -> bool:
    person = policy.person(person_id)
    return person is not None and any(key.hardware for key in person.keys if key.key_id == key_id)


_REMEDIES = {
    Reason.SELF_APPROVAL: "Have another person approve.",
    Reason.HARDWARE_KEY_NEEDED: "Approve with a security key that the executor's trust file lists.",
    Reason.POLICY_REFUSES: "See `gonogo policy explain`; propose something else, or have the policy changed.",
}


def _fault(reason: Reason, message: str, remedy: str = "") -> StateForbidsError:
    return StateForbidsError(reason, message, remedy or _REMEDIES[reason])
