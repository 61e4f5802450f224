"""The policy's decision, made once more from the sealed documents, and compared with what the executor wrote down.

The policy's text is the one that the executor signed and that report, approvals and receipt name by digest. The facts
are taken from plan and report. What the policy demands is computed for the end of the dry run and again for the moment
of the claim; then the approvals that the receipt stands on are counted as the executor had to count them.
"""

from collections.abc import Iterator
from datetime import timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from client.bundle import Bundle
from client.proving.checks import Check, absent, bounded, check, guarded, labelled, same
from client.proving.facts import facts_of, moment
from client.proving.opened import OpenApproval, Opened
from client.proving.seals import proven_proposer, vote_of
from client.proving.segments import segments
from gonogo.policy import Policy, Proposer, ProposerKind, decide, demand_of
from gonogo.policy_document import demand_from_proto, demand_to_proto, proposer_from_proto
from gonogo.v1 import evidence_pb2, plan_pb2

PROPOSER = "proposer"
REPORT_DEMAND = "report's demand"
RECEIPT_DEMAND = "receipt's demand"
DECISION = "policy decision"
NONCES = "approvals are single"
CLOCK_SKEW = timedelta(seconds=60)
"""As much as clients allow for in what they sign."""

Evidence = tuple[plan_pb2.Plan, evidence_pb2.Report, Policy]


def decision_checks(bundle: Bundle, opened: Opened) -> Iterator[Check]:
    """Replay the decision of each segment as far as the mission has come."""
    found = segments(bundle, opened)
    if len(found) > 1 and opened.policy is not None:
        named = {one.report.policy_digest for one in opened.every if one.report is not None}
        yield check("policy is named by a report", opened.policy_digest in named, opened.policy_digest)
    for one in found:
        if one.opened.report is None and len(found) > 1 and not one.bundle.approvals:
            yield absent(f"{one.label}{DECISION}", "its report")
            continue
        yield from labelled(one.label, _segment_checks(one.bundle, one.opened))


def _segment_checks(bundle: Bundle, opened: Opened) -> Iterator[Check]:
    plan, report, policy = opened.plan, opened.report, opened.policy
    if plan is None or report is None:
        yield from _left_over(bundle)
        return
    if policy is None:
        if bundle.policy is None:
            yield absent(DECISION, "the executor's sealed policy")
        else:
            yield check(DECISION, False, "the policy can not be read")
        return
    yield from _policy_checks(opened, report, policy)
    yield from _report_checks(bundle, (plan, report, policy))
    yield from _approval_checks(opened)
    if opened.receipt is not None:
        yield from _receipt_checks(bundle, opened, (plan, report, policy), opened.receipt)
    elif bundle.receipt is None:
        yield absent(RECEIPT_DEMAND, "the receipt")
        yield absent(DECISION, "the receipt")


def is_recorded(one: OpenApproval, receipt: evidence_pb2.Receipt) -> bool:
    """Tell whether a receipt stands on an approval."""
    return _record_of(one, receipt) is not None


def may_be_left_out(one: OpenApproval, opened: Opened, receipt: evidence_pb2.Receipt) -> bool:
    """Tell whether the executor had to leave an approval out: a second one, or one that was not valid at the claim.

    Who hands approvals over leaves those out that have run out by its own clock, which may be a little ahead.
    """
    recorded = {(record.approval_id, record.approval_digest) for record in receipt.approvals}
    if any(
        (other.approval.approval_id, other.digest) in recorded
        for other in opened.approvals
        if other.approval.approver == one.approval.approver
    ):
        return True
    if not _window(one, receipt).ok or one.approval.approved_at.ToNanoseconds() >= receipt.started_at.ToNanoseconds():
        return True
    return moment(one.approval.expires_at) - moment(receipt.started_at) <= CLOCK_SKEW


def _left_over(bundle: Bundle) -> Iterator[Check]:
    """Without a report there is nothing that a policy or an approval could be about."""
    left_over = [name for name, there in (("policy", bundle.policy), ("approvals", bundle.approvals)) if there]
    if left_over:
        yield check("policy and approvals are of a report", False, f"no report, and left over: {', '.join(left_over)}")


def _policy_checks(opened: Opened, report: evidence_pb2.Report, policy: Policy) -> Iterator[Check]:
    yield same("policy is named by report.policy_digest", opened.policy_digest, report.policy_digest)
    yield same("policy is this executor's", policy.executor_id, report.executor_id, policy.executor_id)
    allowed = evidence_pb2.SELF_APPROVAL_ALLOWED if policy.self_approval else evidence_pb2.SELF_APPROVAL_REFUSED
    said = {report.self_approval, opened.receipt.self_approval} if opened.receipt else {report.self_approval}
    shown = "allowed" if policy.self_approval else "refused"
    yield check("self-approval is the policy's", said == {allowed}, shown)


def _report_checks(bundle: Bundle, evidence: Evidence) -> Iterator[Check]:
    _, report, policy = evidence
    proven = proven_proposer(bundle.plan, policy)
    said = _proposer_of(report)
    # The proposer may sign after the dry run: the report then knows nobody yet.
    yield check(f"{PROPOSER} in the report", said in {proven, Proposer()}, _shown(said))
    yield guarded(REPORT_DEMAND, lambda: _demands(evidence, report.demand, said or Proposer(), report.completed_at))


def _approval_checks(opened: Opened) -> Iterator[Check]:
    """An approval counts once: by its id, its nonce and its bytes."""
    if not opened.approvals:
        return
    for name, values in (
        ("ids", [one.approval.approval_id for one in opened.approvals]),
        ("nonces", [(one.approval.approver, one.approval.nonce) for one in opened.approvals]),
        ("documents", [one.digest for one in opened.approvals]),
    ):
        yield check(f"{NONCES}: {name}", len(set(values)) == len(values), f"{len(values)} approvals")


def _receipt_checks(
    bundle: Bundle, opened: Opened, evidence: Evidence, receipt: evidence_pb2.Receipt
) -> Iterator[Check]:
    _, report, policy = evidence
    proven = proven_proposer(bundle.plan, policy)
    yield same("receipt names the report's policy", receipt.policy_digest, report.policy_digest, receipt.policy_digest)
    yield same(f"{PROPOSER} in the receipt", _proposer_of(receipt), proven, _shown(proven))
    yield guarded(RECEIPT_DEMAND, lambda: _demands(evidence, receipt.demand, proven, receipt.started_at))
    yield _decided(opened, evidence, receipt, proven)
    yield from _condition_checks(report, receipt)
    for one in opened.approvals:
        if is_recorded(one, receipt):
            yield _window(one, receipt)
            yield _recorded_as_it_is(one, receipt, policy)
    try:
        in_force = moment(receipt.started_at) < policy.expires_at
    except ValueError:
        in_force = False
    yield check("policy was in force at the claim", in_force, f"until {policy.expires_at.isoformat()}")


def _demands(evidence: Evidence, said: evidence_pb2.Demand, proposer: Proposer, at: Timestamp) -> tuple[object, object]:
    plan, report, policy = evidence
    computed = demand_of(policy, facts_of(plan, report, proposer=proposer, at=moment(at)))
    return demand_to_proto(computed), said


def _decided(opened: Opened, evidence: Evidence, receipt: evidence_pb2.Receipt, proposer: Proposer) -> Check:
    """Count the approvals that the receipt stands on, and no others."""
    policy = evidence[2]
    stood_on = [one for one in opened.approvals if is_recorded(one, receipt)]
    denied = [one.name for one in opened.approvals if one.approval.decision != evidence_pb2.DECISION_APPROVE]
    if denied:
        return check(DECISION, False, f"{denied[0]} is no approval, and one denial is final")
    votes = [vote for one in stood_on if (vote := vote_of(one, policy)) is not None]
    if len(votes) != len(stood_on):
        return check(DECISION, False, "the receipt stands on an approval whose signature does not count")
    try:
        demand = demand_from_proto(receipt.demand)
    except ValueError as error:
        return check(DECISION, False, str(error))
    verdict = decide(policy, demand, proposer, votes)
    counted = ", ".join(vote.person for vote in verdict.counted)
    return check(DECISION, verdict.met, f"approved by {counted}" if verdict.met else verdict.message)


def _condition_checks(report: evidence_pb2.Report, receipt: evidence_pb2.Receipt) -> Iterator[Check]:
    needed = receipt.demand.min_ladder_level
    yield check("dry run was isolated enough", report.ladder_level >= needed, f"level L{report.ladder_level - 1}")


def _window(one: OpenApproval, receipt: evidence_pb2.Receipt) -> Check:
    title = f"{one.name} was valid at the claim"
    approval = one.approval
    try:
        at, begins, ends = (moment(time) for time in (receipt.started_at, approval.not_before, approval.expires_at))
        start = min(moment(approval.approved_at), begins)
    except ValueError as error:
        return check(title, False, str(error))
    if not begins <= at < ends:
        return check(title, False, f"valid from {begins.isoformat()} to {ends.isoformat()}, claimed {at.isoformat()}")
    seconds = (at - start).total_seconds()
    limit = receipt.demand.max_approval_seconds
    return check(title, seconds < limit, f"{seconds:.0f} of at most {limit} seconds after it was given")


def _recorded_as_it_is(one: OpenApproval, receipt: evidence_pb2.Receipt, policy: Policy) -> Check:
    """The receipt's record of an approval says what the approval says."""
    title = f"{one.name} is recorded as it is"
    record, signature = _record_of(one, receipt), one.document.sealed.signatures
    if record is None or len(signature) != 1:
        return check(title, False, "not one record, or not one signature")
    vote = vote_of(one, policy)
    said = (record.approver, record.key_id, record.scheme, record.approved_at, record.expires_at, record.hardware_key)
    is_so = (
        one.approval.approver,
        signature[0].key_id,
        signature[0].scheme,
        one.approval.approved_at,
        one.approval.expires_at,
        vote is not None and vote.hardware,
    )
    return check(title, said == is_so, f"{record.approver} {record.key_id}")


def _record_of(one: OpenApproval, receipt: evidence_pb2.Receipt) -> evidence_pb2.ApprovalRecord | None:
    named = (one.approval.approval_id, one.digest)
    return next((record for record in receipt.approvals if (record.approval_id, record.approval_digest) == named), None)


def _proposer_of(document: evidence_pb2.Report | evidence_pb2.Receipt) -> Proposer | None:
    """Return whom a document names; None where it names nobody, not even somebody unknown."""
    try:
        return proposer_from_proto(document.proposer)
    except ValueError:
        return None


def _shown(proposer: Proposer | None) -> str:
    if proposer is None:
        return "not said"
    if proposer.kind is ProposerKind.UNKNOWN:
        return "unknown: nobody has proven to be"
    behind = f", for {proposer.sponsor}" if proposer.sponsor else ""
    return bounded(f"{proposer.kind.value} {proposer.person}{behind}")
