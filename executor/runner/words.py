"""What persons sign while an execution waits: a step's own approval, and whether an effect happened.

For each, in this order, and the first that does not hold answers:

    signature    one, by a key of the trust file that is for approving, and of a person, in that person's own name
    names        it is about just what the execution waits for now
    time         signed not too long ago, and within the policy's cap
    revocation   an approval: the person took nothing back, and nobody denied the mission
    person       neither the plan's proposer, nor whoever stands behind its agent; for an approval, with a hardware key
                 where one is demanded
    once         neither its id nor its nonce was used up

A denial needs nobody's leave: whoever may approve may deny a step, which stops the execution. A word on an effect is a
statement of what is; that the mission was denied since does not keep anybody from making it. Neither makes anything
happen that was not approved.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from executor.domain.approval import Decision
from executor.domain.control import ControlAction, StepApproval
from executor.domain.errors import GateRefusedError, RequestMalformedError
from executor.domain.gates import APPROVED, REMEDIES
from executor.domain.plan_rules import is_identifier
from executor.domain.receipt import ApprovalRecord, ReconciliationRecord
from executor.domain.revocation import KEPT_REASON, binding, check_not_revoked
from executor.domain.sealed import SealedBytes
from executor.domain.step_words import (
    Awaited,
    check_approval_named,
    check_reconciliation_named,
    check_time,
    used_up,
)
from executor.runner.approvals import approver_of, bad_signature
from executor.runner.clock import EffectiveClock
from executor.runner.control_ports import DENY_STEP, ControlEntry
from executor.runner.documents import OpenDocuments
from executor.runner.keyring import Signer
from executor.runner.ports import Claim, Ledger
from executor.runner.requests import MAX_APPROVAL_BYTES, check_envelope, malformed
from executor.runner.trust import InForce
from gonogo import sealing
from gonogo.policy import Demand, Proposer, Vote, decide, excluded_by
from gonogo.safe_text import excerpt

UNDECIDED: Final = Demand(refused="the execution was claimed by an older release")


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingStep:
    """The step that an execution stands before, as the last `execution_paused` said."""

    claim: Claim
    """Of the segment that the step belongs to."""
    step_id: str
    change_set_digest: str
    results_digest: str

    @property
    def demand(self) -> Demand:
        """What the policy demanded at the moment of the claim."""
        return self.claim.demand or UNDECIDED

    @property
    def proposer(self) -> Proposer:
        """Who proposed the plan, as far as it is proven."""
        return self.claim.proposer or Proposer()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepVote:
    """One person's signed decision about a step, of which everything holds."""

    record: ApprovalRecord
    nonce: str
    denied: bool
    comment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStanding:
    """What the votes for a step come to."""

    approved: bool
    denied_by: str
    """Who denied it, which stops the execution; empty where nobody did."""
    missing: str
    """What is missing, in words; empty where it is approved."""
    votes: tuple[StepVote, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconciledEffect:
    """One person's signed word on an effect, of which everything holds."""

    record: ReconciliationRecord
    nonce: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """Verifies what persons sign while an execution waits. It records nothing; whoever asks does.

    Args:
        trust: the trust file in force.
        ledger: knows what was used up and what was taken back.
        documents: opens the documents.
        clock: effective time.
    """

    trust: Callable[[], InForce]
    ledger: Ledger
    documents: OpenDocuments
    clock: EffectiveClock

    def step_approval(self, sealed: SealedBytes, waiting: WaitingStep) -> StepVote:
        """Verify a step approval or denial for the step that waits.

        Raises:
            GateRefusedError: something does not hold.
            RequestMalformedError: it is not strictly a step approval.
            ExecutorError: reason CLOCK_BEHIND, TRUST_EXPIRED or STATE_FORBIDS; nothing can be decided now.
        """
        vote = self._vote(sealed, waiting)
        self._check_unused(vote.record.approval_id, vote.nonce)
        return vote

    def standing(self, waiting: WaitingStep, controls: Sequence[ControlEntry]) -> StepStanding:
        """Return what all recorded votes for the step that waits come to now, after a restart too.

        Args:
            waiting: the step.
            controls: what the ledger has recorded of the execution; what is about another wait, has expired since, or
                was taken back since does not count.

        Raises:
            ExecutorError: reason CLOCK_BEHIND, TRUST_EXPIRED or STATE_FORBIDS; nothing can be decided now.
        """
        policy = self.trust().trust.policy
        self.clock.checked()
        votes = tuple(self._recorded(waiting, controls))
        denied_by = next((vote.record.approver for vote in votes if vote.denied), "")
        given = [vote.record for vote in votes if not vote.denied]
        verdict = decide(
            policy,
            waiting.demand,
            waiting.proposer,
            [_vote_of(one) for one in given],
        )
        return StepStanding(
            approved=verdict.met and not denied_by, denied_by=denied_by, missing=verdict.message, votes=votes
        )

    def hold(self, claim: Claim, approvals: Sequence[ApprovalRecord]) -> bool:
        """Tell whether what was enough for a step is so still: in time, not taken back, and by keys that are in force.

        Raises:
            ExecutorError: reason CLOCK_BEHIND, TRUST_EXPIRED or STATE_FORBIDS; nothing can be decided now.
        """
        policy, now = self.trust().trust.policy, self.clock.checked()
        demand = claim.demand or UNDECIDED
        cap = min(policy.max_approval_seconds, demand.max_approval_seconds)
        if any(_has_expired(one, now, cap) for one in approvals):
            return False
        if binding(self.ledger.revocations(claim.mission_id), [one.approver for one in approvals]) is not None:
            return False
        return decide(policy, demand, claim.proposer or Proposer(), [_vote_of(one) for one in approvals]).met

    def reconciliation(self, sealed: SealedBytes, waiting: WaitingStep) -> ReconciledEffect:
        """Verify a person's word on whether the effect of the step happened; `change_set_digest` is not looked at.

        Raises:
            GateRefusedError: something does not hold.
            RequestMalformedError: it is not strictly a reconciliation.
            ExecutorError: reason CLOCK_BEHIND, TRUST_EXPIRED or STATE_FORBIDS; nothing can be decided now.
        """
        in_force, now = self.trust(), self.clock.checked()
        check_envelope(sealed, sealing.RECONCILIATION, MAX_APPROVAL_BYTES)
        signer = approver_of(in_force.keyring, sealed, "a reconciliation")
        word = self.documents.reconciliation(sealed)
        _check_whole(reconciliation_id=word.reconciliation_id, nonce=word.nonce)
        _check_own_name(signer, word.person, "a reconciliation")
        check_reconciliation_named(word, _awaited(waiting, in_force))
        cap = in_force.trust.policy.max_approval_seconds
        check_time(
            f"reconciliation {word.reconciliation_id}",
            signed_at=word.decided_at,
            expires_at=None,
            now=now,
            max_seconds=cap,
        )
        _check_counts(excluded_by(in_force.trust.policy, waiting.proposer), word.person)
        self._check_unused(word.reconciliation_id, word.nonce)
        record = ReconciliationRecord(
            reconciliation_id=word.reconciliation_id,
            reconciliation_digest=sealed.digest,
            person=word.person,
            key_id=signer.key.key_id,
            happened=word.happened,
        )
        return ReconciledEffect(record=record, nonce=word.nonce, reason=excerpt(word.reason, KEPT_REASON))

    def _recorded(self, waiting: WaitingStep, controls: Sequence[ControlEntry]) -> Iterator[StepVote]:
        """Yield what holds of the recorded votes: each was verified once, and is verified anew."""
        for entry in controls:
            if entry.action not in {ControlAction.APPROVE_STEP, DENY_STEP} or entry.document is None:
                continue
            if entry.step_id != waiting.step_id:
                continue  # told by the entry: hundreds of signatures for other steps need no second look
            try:
                yield self._vote(entry.document, waiting, recorded=True)
            except (GateRefusedError, RequestMalformedError):
                continue

    def _vote(self, sealed: SealedBytes, waiting: WaitingStep, *, recorded: bool = False) -> StepVote:
        """Verify one vote; a denial that was recorded in its time holds for ever."""
        in_force, now = self.trust(), self.clock.checked()
        check_envelope(sealed, sealing.STEP_APPROVAL, MAX_APPROVAL_BYTES)
        signer = approver_of(in_force.keyring, sealed, "a step approval")
        approval = self.documents.step_approval(sealed)
        _check_whole(approval_id=approval.approval_id, nonce=approval.nonce)
        _check_own_name(signer, approval.approver, "a step approval")
        check_approval_named(approval, _awaited(waiting, in_force))
        denied = approval.decision is Decision.DENY
        if not (denied and recorded):
            check_time(
                f"step approval {approval.approval_id}",
                signed_at=approval.approved_at,
                expires_at=approval.expires_at,
                now=now,
                max_seconds=min(in_force.trust.policy.max_approval_seconds, _lifetime(waiting)),
            )
        if not denied:
            self._check_may_approve(signer, waiting, in_force)
        return StepVote(
            record=_record(approval, sealed, signer),
            nonce=approval.nonce,
            denied=denied,
            comment=excerpt(approval.comment, KEPT_REASON),
        )

    def _check_may_approve(self, signer: Signer, waiting: WaitingStep, in_force: InForce) -> None:
        person = signer.person.person_id
        check_not_revoked(self.ledger.revocations(waiting.claim.mission_id), [person])
        _check_counts(excluded_by(in_force.trust.policy, waiting.proposer), person)
        if waiting.demand.hardware_key and not signer.key.hardware:
            raise _refused("HARDWARE_KEY_NEEDED", "a rule takes only signatures of hardware keys, made with a touch")

    def _check_unused(self, document_id: str, nonce: str) -> None:
        if self.ledger.word_used(document_id, nonce):
            raise used_up(document_id)


def steps_to_approve(claim: Claim, report_steps: Sequence[str]) -> frozenset[str]:
    """Return the ids of the steps that the policy wants approved one by one.

    Args:
        claim: whose demand is that of the moment of the claim.
        report_steps: those that the report's demand names, which the approvers saw.
    """
    demanded = () if claim.demand is None else claim.demand.approve_steps
    return frozenset(report_steps) | frozenset(demanded)


def _awaited(waiting: WaitingStep, in_force: InForce) -> Awaited:
    claim = waiting.claim
    return Awaited(
        executor_id=in_force.trust.executor_id,
        mission_id=claim.mission_id,
        workspace_id=claim.workspace_id,
        execution_id=claim.execution_id,
        segment=claim.segment,
        step_id=waiting.step_id,
        change_set_digest=waiting.change_set_digest,
        results_digest=waiting.results_digest,
    )


def _lifetime(waiting: WaitingStep) -> int:
    """Return the cap of the demand; one that was never set caps nothing, and refuses already."""
    demand = waiting.demand
    return demand.max_approval_seconds if waiting.claim.demand is not None else 0


def _record(approval: StepApproval, sealed: SealedBytes, signer: Signer) -> ApprovalRecord:
    return ApprovalRecord(
        approval_id=approval.approval_id,
        approval_digest=sealed.digest,
        approver=approval.approver,
        key_id=signer.key.key_id,
        approved_at=approval.approved_at,
        scheme=signer.key.scheme,
        expires_at=approval.expires_at,
        hardware_key=signer.key.hardware,
    )


def _vote_of(record: ApprovalRecord) -> Vote:
    return Vote(person=record.approver, key_id=record.key_id, hardware=record.hardware_key)


def _has_expired(record: ApprovalRecord, now: datetime, cap: int) -> bool:
    ended = record.expires_at is not None and now >= record.expires_at
    return ended or (now - record.approved_at).total_seconds() >= cap


def _check_whole(**ids: str) -> None:
    for name, value in ids.items():
        if not is_identifier(value):
            raise malformed(f"a signed word has no {name}", "make it with a client of this release")


def _check_own_name(signer: Signer, named: str, what: str) -> None:
    person = signer.person.person_id
    if named != person:
        raise bad_signature(f"{person} signed {what} in the name of {named[:100]!r}")


def _check_counts(excluded: Mapping[str, str], person: str) -> None:
    if person in excluded:
        raise _refused("SELF_APPROVAL", f"{person} {excluded[person]}, and can not decide about it")


def _refused(reason: str, message: str) -> GateRefusedError:
    return GateRefusedError(APPROVED, reason, message, REMEDIES[reason])
