"""What persons signed while an execution waited: approvals of single steps, and words on effects that nobody knew of.

A word counts where its person signed it, and where it is about just what the execution waited for. The receipt names
the words that it stands on; those the bundle has to have, and the executor's log the control that brought each of them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from client.bundle import Bundle
from client.proving.anchors import Anchors
from client.proving.checks import Check, absent, check, same
from client.proving.controlled import CONTROL
from client.proving.opened import Opened, OpenWord
from client.proving.seals import signed_in_name, vote_in_name
from client.proving.segments import Segment, segments
from gonogo.digests import framed_digest, step_digest
from gonogo.policy import decide
from gonogo.policy_document import demand_from_proto, proposer_from_proto
from gonogo.v1 import evidence_pb2

Value = Mapping[str, Any]
Words = Sequence[OpenWord]
AHEAD_US = 60_000_000
"""How far a signer's clock may be ahead of the executor's."""


def word_checks(bundle: Bundle, opened: Opened, anchors: Anchors) -> Iterator[Check]:
    """Check every signed word by itself, and those that the receipt stands on."""
    found = segments(bundle, opened)
    of_steps = _by_step(found)
    for word in opened.words:
        its = _segment_of(word, of_steps.get(word.word.step_id, ()))
        policy = its.opened.policy if its else None
        yield signed_in_name(word.name, word.document.sealed, word.person, policy, anchors)
        yield _about(word, its, bundle.mission.execution_id)
    if opened.words:
        yield _single(opened.words)
    if opened.receipt is not None:
        yield from _recorded(opened.receipt, opened.words)
        for segment in found:
            yield from _enough(segment, opened.words)


def carried_checks(words: Words, leaves: Iterable[Value], receipt: evidence_pb2.Receipt | None) -> Iterator[Check]:
    """Compare the words with the executor's leaves of the controls that brought them."""
    stood_on = set(stood_on_by(receipt)) if receipt else set()
    brought = {leaf["document_digest"]: leaf for leaf in leaves if leaf["type"] == CONTROL and leaf["document_digest"]}
    for word in words:
        leaf = brought.pop(word.digest, None)
        title = f"{word.name} is in the executor's log"
        if leaf is None and word.digest in stood_on:
            yield check(title, False, "the receipt stands on it, and no leaf tells of it")
        elif leaf is None:
            yield absent(title, "the executor did not take it", optional=True)
        else:
            yield _brought(title, word, leaf)
    for leaf in brought.values():
        yield absent(
            f"word {leaf['document_id']}", f"{leaf['action']} by {leaf['actor']}, of which only the leaf is here"
        )


def word_events(opened: Opened, events: Sequence[Any]) -> Iterator[Check]:
    """Compare the words with what the orchestrator's events tell of them, and of the pauses that they ended."""
    told = {one.payload.approval_id: one.payload for one in events if one.type == "step_approved"}
    told |= {one.payload.reconciliation_id: one.payload for one in events if one.type == "step_reconciled"}
    if not told and not opened.words:
        return
    there = {word.word_id: word for word in opened.words}
    lost = sorted(set(told) - set(there))
    different = [word.name for name, word in there.items() if name in told and not _as_told(word, told[name])]
    shown = (different or lost or [f"{len(told)} of {len(there)}"])[0]
    yield check("events tell of the words", not lost and not different, shown)
    waits = {
        (pause.step_id, pause.results_digest, digest)
        for pause in (one.payload for one in events if one.type == "execution_paused")
        for digest in (pause.change_set_digest, None)
    }
    for word in opened.words:
        waited = _waited_for(word) in waits
        yield check(f"{word.name} is about a pause that the events tell of", waited, word.word.step_id)


def stood_on_by(receipt: evidence_pb2.Receipt) -> Mapping[str, str]:
    """Return the digests of the words that a receipt stands on, and where it names them."""
    found: dict[str, str] = {}
    for step in receipt.steps:
        found |= {one.approval_digest: "receipt.step_approvals" for one in step.step_approvals}
        if step.effect.HasField("reconciliation"):
            found[step.effect.reconciliation.reconciliation_digest] = "receipt.reconciliation"
    return found


def _about(word: OpenWord, its: Segment | None, execution_id: str) -> Check:
    """Check that a word is about a step of this execution, and for an approval: about what that step does."""
    title, said = f"{word.name} is about a step of this execution", word.word
    plan = its.opened.plan if its else None
    if its is None or plan is None:
        return check(title, False, f"no plan has the step {said.step_id!r}")
    agree = (said.executor_id, said.mission_id, said.execution_id) == (plan.executor_id, plan.mission_id, execution_id)
    if isinstance(said, evidence_pb2.StepApproval):
        agree = agree and said.workspace_id == plan.workspace_id
        agree = agree and said.change_set_digest == step_digest(its.opened.report_digest, said.step_id)
    return check(title, agree, f"{said.step_id} of {said.execution_id}")


def _single(words: Words) -> Check:
    """A word counts once: by its id, its nonce and its bytes."""
    for values in (
        [word.word_id for word in words],
        [(word.person, word.word.nonce) for word in words],
        [word.digest for word in words],
    ):
        if len(set(values)) != len(values):
            return check("words are single", False, "an id, a nonce or a document stands twice")
    return check("words are single", True, f"{len(words)} words")


def _recorded(receipt: evidence_pb2.Receipt, words: Words) -> Iterator[Check]:
    """Look for the words that the receipt stands on, each as the receipt has it."""
    known = {(word.word_id, word.digest): word for word in words}
    for step in receipt.steps:
        for record in step.step_approvals:
            title = f"step approval {record.approval_id} is here, as it is recorded"
            word = known.get((record.approval_id, record.approval_digest))
            fine = word is not None and _is_approval_as(word, record, step)
            yield check(title, fine, record.approver if word else "it is not here")
        if step.effect.HasField("reconciliation"):
            said = step.effect.reconciliation
            title = f"reconciliation {said.reconciliation_id} is here, as it is recorded"
            word = known.get((said.reconciliation_id, said.reconciliation_digest))
            yield check(title, word is not None and _is_word_as(word, said, step), said.person if word else "not here")


def _is_approval_as(word: OpenWord, record: evidence_pb2.ApprovalRecord, step: evidence_pb2.StepReceipt) -> bool:
    said, signatures = word.word, word.document.sealed.signatures
    if not isinstance(said, evidence_pb2.StepApproval) or len(signatures) != 1:
        return False
    # Whether the key is in hardware is the policy's to say: after a restart the executor writes that of none.
    is_so = (said.approver, signatures[0].key_id, signatures[0].scheme, said.approved_at, said.expires_at)
    told = (record.approver, record.key_id, record.scheme, record.approved_at, record.expires_at)
    approves = said.decision == evidence_pb2.DECISION_APPROVE
    return approves and is_so == told and (said.step_id, said.segment) == (step.step_id, step.segment)


def _is_word_as(word: OpenWord, record: evidence_pb2.ReconciliationRecord, step: evidence_pb2.StepReceipt) -> bool:
    said, signatures = word.word, word.document.sealed.signatures
    if not isinstance(said, evidence_pb2.Reconciliation) or len(signatures) != 1:
        return False
    told = (record.person, record.key_id, record.happened)
    return (said.person, signatures[0].key_id, said.happened) == told and said.step_id == step.step_id


def _enough(segment: Segment, words: Words) -> Iterator[Check]:
    """Count the approvals of each step that was begun and had to wait for them, as the executor had to count them."""
    opened = segment.opened
    receipt, plan, report, policy = opened.receipt, opened.plan, opened.report, opened.policy
    if receipt is None or plan is None or report is None:
        return
    asked = {step.step_id for step in plan.steps if step.needs_approval}
    asked |= {*report.demand.approve_steps, *receipt.demand.approve_steps}
    for step in receipt.steps:
        if step.segment != segment.number or step.step_id not in asked:
            continue
        title = f"{segment.label}step {step.step_id} was approved by itself"
        if policy is None:
            yield absent(title, "the executor's sealed policy")
            continue
        stood_on = {record.approval_digest for record in step.step_approvals}
        votes = [
            vote
            for word in words
            if word.digest in stood_on and (vote := vote_in_name(word.document.sealed, word.person, policy)) is not None
        ]
        try:
            demand, proposer = demand_from_proto(receipt.demand), proposer_from_proto(receipt.proposer)
        except ValueError as error:
            yield check(title, False, str(error))
            continue
        verdict = decide(policy, demand, proposer, votes)
        counted = ", ".join(vote.person for vote in verdict.counted)
        yield check(title, verdict.met, f"by {counted}" if verdict.met else verdict.message)


def _brought(title: str, word: OpenWord, leaf: Value) -> Check:
    signatures = word.document.sealed.signatures
    signed = framed_digest((signatures[0].key_id.encode(), signatures[0].signature)) if len(signatures) == 1 else ""
    action = _action(word.word)
    said = (
        leaf["document_id"],
        leaf["signature"],
        leaf["action"],
        leaf["actor"],
        leaf["step_id"],
        leaf["execution_id"],
    )
    is_so = (word.word_id, signed, action, word.person, word.word.step_id, word.word.execution_id)
    if said == is_so and not _in_time(word, leaf["at_us"]):
        return check(title, False, "it was taken at a time for which it does not hold")
    return same(title, said, is_so, word.digest)


def _action(said: evidence_pb2.StepApproval | evidence_pb2.Reconciliation) -> str:
    if isinstance(said, evidence_pb2.Reconciliation):
        return "reconcile"
    return "deny_step" if said.decision == evidence_pb2.DECISION_DENY else "approve_step"


def _in_time(word: OpenWord, at_us: int) -> bool:
    """Tell whether a word held when it was taken; its signer's clock may have been a little ahead."""
    said = word.word
    if isinstance(said, evidence_pb2.Reconciliation):
        return said.decided_at.ToMicroseconds() - AHEAD_US <= at_us
    return said.approved_at.ToMicroseconds() - AHEAD_US <= at_us < said.expires_at.ToMicroseconds()


def _as_told(word: OpenWord, payload: Any) -> bool:
    said = word.word
    if isinstance(said, evidence_pb2.StepApproval):
        key_id = word.document.sealed.signatures[0].key_id if word.document.sealed.signatures else ""
        told = (getattr(payload, "approver", ""), getattr(payload, "key_id", ""), payload.step_id)
        return told == (said.approver, key_id, said.step_id)
    told_of = (getattr(payload, "person", ""), getattr(payload, "happened", None), payload.step_id)
    return told_of == (said.person, said.happened, said.step_id)


def _waited_for(word: OpenWord) -> tuple[str, str, str | None]:
    """Return what a pause says that a word is about; what the step would do is in an approval alone."""
    said = word.word
    change = None if isinstance(said, evidence_pb2.Reconciliation) else said.change_set_digest
    return said.step_id, said.results_digest, change


def _by_step(found: Iterable[Segment]) -> Mapping[str, Sequence[Segment]]:
    """Return the segments that have a step, by its id; of many that say they are the same the first."""
    steps: dict[str, dict[int, Segment]] = {}
    for segment in {one.number: one for one in reversed(list(found))}.values():
        for step in segment.opened.plan.steps if segment.opened.plan else ():
            steps.setdefault(step.step_id, {})[segment.number] = segment
    return {step_id: [its[number] for number in sorted(its)] for step_id, its in steps.items()}


def _segment_of(word: OpenWord, found: Iterable[Segment]) -> Segment | None:
    """Return the segment that a word is about: an approval says which, of a reconciliation it is the step's."""
    said = word.word
    for segment in found:
        if isinstance(said, evidence_pb2.Reconciliation) or said.segment == segment.number:
            return segment
    return None
