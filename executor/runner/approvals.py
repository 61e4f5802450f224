"""Gate 3: who approved, whether that still holds, and whether it is what the policy demands.

In this order, and the first that does not hold answers:

    signature    one, by a key of the trust file that is for approving, and of a person, in that person's own name
    decision     nobody denies; who does has ended the mission, and the ledger remembers it
    time         one approval of each person is within its time, and within the policy's cap
    checkpoint   what the approvers saw of the audit log is its past
    revocation   nothing was withdrawn, nothing denied
    proposer     whoever signed the plan is the one that it names
    demand       what the rules ask for, by facts that are the executor's own, is met
    policy       it is still the one that the report showed

A plan that is not the report's ends this before the proposer is looked at: its words say nothing, and that is what
gate 4 refuses.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from executor.domain import gates as rules
from executor.domain.approval import Approval, Decision, check_decision
from executor.domain.errors import ExecutorError, GateRefusedError
from executor.domain.facts import facts_of
from executor.domain.gates import APPROVED, GivenApproval
from executor.domain.plan import Plan
from executor.domain.plan_rules import is_identifier
from executor.domain.report import Report
from executor.domain.revocation import KEPT_REASON, RevocationKind, RevocationRecord, check_not_revoked
from executor.domain.sealed import SealedBytes
from executor.runner.documents import OpenDocuments
from executor.runner.keyring import Keyring, Signer, UnknownKeyError
from executor.runner.ports import Ledger
from executor.runner.requests import ExecuteInput, malformed
from executor.runner.trust import InForce
from gonogo.policy import Demand, Facts, KeyUse, PersonKind, Proposer, ProposerKind, demand_of
from gonogo.safe_text import excerpt
from gonogo.signatures import SignatureError

Deny = Callable[[RevocationRecord], object]
Continues = Callable[[str], bool]


def knows_no_checkpoint(note: str) -> bool:
    """Refuse every checkpoint: where there is no audit log, there is nothing that one could be of."""
    del note
    return False


PROPOSER_KINDS = {PersonKind.PERSON: ProposerKind.PERSON, PersonKind.AGENT: ProposerKind.AGENT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What gate 3 found to hold, for the moment of its facts."""

    in_force: InForce
    plan: Plan
    signed: tuple[GivenApproval, ...]
    """Every approval whose signature holds."""
    given: tuple[GivenApproval, ...]
    """One of each person: what counts, and what is used up."""
    facts: Facts
    demand: Demand


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalGate:
    """Decides over the approvals of one request.

    Args:
        ledger: knows what was revoked.
        documents: opens approvals and plans.
        deny: records a denial that arrived with a request.
        continues: tells whether a checkpoint is of the past of the own audit log.
    """

    ledger: Ledger
    documents: OpenDocuments
    deny: Deny
    continues: Continues

    def check(self, request: ExecuteInput, report: Report, in_force: InForce, now: datetime) -> Agreement:
        """Check all of it.

        Raises:
            GateRefusedError: something does not hold.
            RequestMalformedError: a document with a good signature is not strictly an approval.
        """
        if not request.approvals:
            raise _refused("NOT_APPROVED", "nobody has approved the plan", "have the plan and its report approved")
        signed = self._signed(request, in_force.keyring, in_force.trust.executor_id, now)
        for one in signed:
            check_decision(one.approval)
        cap = in_force.trust.policy.max_approval_seconds
        given = rules.first_in_time(signed, now=now, max_seconds=cap)
        self._check_checkpoints(signed)
        self.check_not_revoked(request.named.mission_id, given)
        if request.plan.digest != report.plan_digest:
            raise rules.plan_mismatch("the report", report.plan_digest)
        plan = self.documents.plan(request.plan)
        facts = facts_of(
            plan,
            steps=report.steps,
            risk_level=report.risk_level,
            risk_facts=report.risk_facts,
            proposer=_proposer(in_force.keyring, request.plan, plan, report),
            at=now,
        )
        agreement = Agreement(in_force=in_force, plan=plan, signed=signed, given=given, facts=facts, demand=Demand())
        return self.again(agreement, report, now)

    def again(self, agreement: Agreement, report: Report, now: datetime) -> Agreement:
        """Check what depends on the time, for another moment under the same trust file.

        Raises:
            GateRefusedError: it does not hold.
        """
        in_force, facts = agreement.in_force, replace(agreement.facts, at=now)
        policy = in_force.trust.policy
        demand = demand_of(policy, facts)
        given = rules.first_in_time(
            agreement.signed, now=now, max_seconds=min(policy.max_approval_seconds, demand.max_approval_seconds)
        )
        rules.check_distinct(given)
        rules.check_demand(policy, demand, facts.proposer, given, report.ladder_level)
        rules.check_policy_unchanged(report, in_force.policy_digest)
        if report.proposer is not None and report.proposer != facts.proposer:
            rules.check_as_much(demand_of(policy, replace(facts, proposer=report.proposer)), demand)
        return replace(agreement, given=given, facts=facts, demand=demand)

    def check_not_revoked(self, mission_id: str, given: tuple[GivenApproval, ...]) -> None:
        """Refuse what was withdrawn or denied.

        Raises:
            GateRefusedError: reason NOT_APPROVED or APPROVAL_REVOKED.
        """
        check_not_revoked(self.ledger.revocations(mission_id), [one.person for one in given])

    def _signed(
        self, request: ExecuteInput, keyring: Keyring, executor_id: str, now: datetime
    ) -> tuple[GivenApproval, ...]:
        """Open all approvals, take note of the denials among them, and only then refuse for the first that is not good.

        The same document counts once, however many envelopes it comes in.
        """
        once: dict[str, SealedBytes] = {}
        for sealed in request.approvals:
            once.setdefault(sealed.digest, sealed)
        signed: list[GivenApproval] = []
        faults: list[ExecutorError] = []
        for sealed in once.values():
            try:
                one = self._open(sealed, keyring)
            except ExecutorError as error:
                faults.append(error)
                continue
            signed.append(one)
            if one.approval.decision is Decision.DENY and one.approval.executor_id == executor_id:
                self.deny(_denial(one.approval, sealed, now))
        if faults:
            raise faults[0]
        return tuple(signed)

    def _open(self, sealed: SealedBytes, keyring: Keyring) -> GivenApproval:
        signer = approver_of(keyring, sealed, "an approval")
        approval = self.documents.approval(sealed)
        if not all(map(is_identifier, (approval.approval_id, approval.nonce, approval.mission_id))):
            raise malformed(
                "an approval has no approval_id, nonce or mission_id", "make the approval with a client of this release"
            )
        person = signer.person.person_id
        if approval.approver != person:
            raise bad_signature(f"{person} signed an approval in the name of {approval.approver[:100]!r}")
        return GivenApproval(
            approval=approval,
            digest=sealed.digest,
            person=person,
            key_id=signer.key.key_id,
            scheme=signer.key.scheme,
            hardware=signer.key.hardware,
        )

    def _check_checkpoints(self, signed: tuple[GivenApproval, ...]) -> None:
        for note in dict.fromkeys(one.approval.audit_checkpoint for one in signed):
            if note and not self.continues(note):
                raise _refused(
                    "AUDIT_FORKED",
                    "an approver's client has seen another history of this executor's audit log than the one here",
                    "have the operator look: gonogo doctor names it; the log was restored, rewritten or forked",
                )


def approver_of(keyring: Keyring, sealed: SealedBytes, what: str) -> Signer:
    """Return the person who signed a document with a key that is for approving.

    Raises:
        GateRefusedError: reason APPROVER_UNKNOWN or SIGNATURE_INVALID.
    """
    if len(sealed.signatures) != 1:
        raise bad_signature(f"{what} carries {len(sealed.signatures)} signatures, not one")
    [signature] = sealed.signatures
    try:
        signer = keyring.signer(sealed, signature)
    except UnknownKeyError:
        raise _unknown(f"the trust file names nobody with the key {signature.key_id[:100]!r}") from None
    except SignatureError as error:
        raise bad_signature(str(error)) from None
    if signer.person.kind is not PersonKind.PERSON or signer.key.use is not KeyUse.APPROVE:
        raise _unknown(f"the key {signer.key.key_id} of {signer.person.person_id} can propose and not approve")
    return signer


def proven_proposer(keyring: Keyring, sealed: SealedBytes, plan: Plan) -> Proposer:
    """Return who proposed a plan, as far as the signatures on it prove it.

    Raises:
        GateRefusedError: reason SIGNATURE_INVALID; a signature of somebody of the trust file does not hold, or it is
            somebody else's than the one whom the plan names.
    """
    signers = {one.person.person_id: one.person for one in _signers(keyring, sealed)}
    if not signers:
        return Proposer()
    foreign = [person_id for person_id in signers if plan.proposer and person_id != plan.proposer]
    if foreign or len(signers) > 1:
        who = ", ".join(sorted(foreign or signers))
        raise bad_signature(f"the plan names {plan.proposer[:100]!r} as its proposer and is signed by {who}")
    [person] = signers.values()
    return Proposer(kind=PROPOSER_KINDS[person.kind], person=person.person_id, sponsor=person.sponsor)


def _proposer(keyring: Keyring, sealed: SealedBytes, plan: Plan, report: Report) -> Proposer:
    """Return who proposed: what was proven at the dry run stays proven when the signature is left out afterwards."""
    proven, told = proven_proposer(keyring, sealed, plan), report.proposer
    if told is None or told.kind is ProposerKind.UNKNOWN:
        return proven
    if proven.kind is not ProposerKind.UNKNOWN and proven != told:
        raise bad_signature(f"{told.person} had proposed the plan at its dry run; now {proven.person} has signed it")
    return told


def bad_signature(message: str) -> GateRefusedError:
    """Return the refusal of a signature that does not hold."""
    return _refused(
        "SIGNATURE_INVALID", message, "sign the document again with your own key; it changes with every byte"
    )


def _signers(keyring: Keyring, sealed: SealedBytes) -> list[Signer]:
    found: list[Signer] = []
    for signature in sealed.signatures:
        try:
            found.append(keyring.signer(sealed, signature))
        except UnknownKeyError:
            continue  # somebody's whom the executor does not know; it proves nobody
        except SignatureError as error:
            raise bad_signature(f"the plan's signature does not hold: {error}") from None
    return found


def _denial(approval: Approval, sealed: SealedBytes, now: datetime) -> RevocationRecord:
    return RevocationRecord(
        revocation_id=approval.approval_id,
        mission_id=approval.mission_id,
        person=approval.approver,
        kind=RevocationKind.DENY,
        reason=excerpt(approval.comment, KEPT_REASON),
        recorded_at=now,
        document=sealed,
    )


def _unknown(message: str) -> GateRefusedError:
    return _refused(
        "APPROVER_UNKNOWN",
        message,
        "use a key that approves in the executor's trust file, or have its operator add this one",
    )


def _refused(reason: str, message: str, remedy: str) -> GateRefusedError:
    return GateRefusedError(APPROVED, reason, message, remedy)
