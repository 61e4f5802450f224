"""The chain from message to audit leaf: each document names the one before it."""

from collections.abc import Iterator
from dataclasses import dataclass

from client.bundle import Bundle
from client.mission_state import MissionState
from client.proving.checks import Check, check
from client.proving.decision import is_recorded, may_be_left_out
from client.proving.leaves import receipt_leaf
from client.proving.opened import Opened
from client.proving.segments import Segment, segments
from client.proving.worded import stood_on_by
from gonogo.merkle import leaf_hash
from gonogo.v1 import evidence_pb2, plan_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One document or id of the chain, and where the next one names it."""

    kind: str
    id: str
    digest: str
    named_by: str
    ok: bool

    def as_json(self) -> dict[str, object]:
        """Return the link as scripts read it."""
        return {"kind": self.kind, "id": self.id, "digest": self.digest, "named_by": self.named_by, "ok": self.ok}


def chain(bundle: Bundle, opened: Opened) -> list[Link]:
    """Return the chain as far as the mission has come."""
    found = segments(bundle, opened)
    first, *later = found
    if first.opened.plan is None:
        return []
    mission = bundle.mission
    links = [*_origin_links(mission, first.opened.plan)]
    links += _evidence_links(mission, first, present=not later)
    receipt = opened.receipt
    if receipt is not None:
        agree = receipt.execution_id == mission.execution_id
        named = "receipt.execution_id"
        links.append(Link(kind="execution", id=receipt.execution_id, digest="", named_by=named, ok=agree))
    elif later:
        links.append(Link(kind="execution", id=mission.execution_id, digest="", named_by="plan.execution_id", ok=True))
    for number, one in enumerate(later, 1):
        links += _segment_links(mission, one, number, present=one is found[-1], ended=receipt is not None)
    links += _word_links(opened)
    if receipt is not None:
        links += [*_ending_links(mission, opened, receipt), *_leaf_link(bundle, opened)]
    return links


def link_checks(links: list[Link]) -> Iterator[Check]:
    """Return the chain as checks."""
    for link in links:
        detail = f"{link.id} {link.digest}".strip()
        yield check(f"{link.kind} is named by {link.named_by or 'nothing yet'}", link.ok, detail)


def _origin_links(mission: MissionState, plan: plan_pb2.Plan) -> Iterator[Link]:
    if plan.message_id or mission.message_id:
        agree = plan.message_id == mission.message_id
        yield Link(kind="message", id=plan.message_id, digest="", named_by="plan.message_id", ok=agree)
    if plan.transcription_id or mission.transcription_id:
        agree = plan.transcription_id == mission.transcription_id
        named = "plan.transcription_id"
        yield Link(kind="transcription", id=plan.transcription_id, digest="", named_by=named, ok=agree)
    agree = plan.intent_id == mission.intent_id
    yield Link(kind="intent", id=plan.intent_id, digest="", named_by="plan.intent_id", ok=agree)
    agree = plan.mission_id == mission.mission_id
    yield Link(kind="mission", id=plan.mission_id, digest="", named_by="plan.mission_id", ok=agree)


def _evidence_links(mission: MissionState, segment: Segment, *, present: bool) -> Iterator[Link]:
    """Yield plan, report and approvals of one segment; the mission names those of its present plan."""
    opened, label = segment.opened, segment.label
    plan, report, receipt = opened.plan, opened.report, opened.receipt
    if plan is None:
        return
    agree = mission.plan_id == plan.plan_id or not present
    digest = opened.plan_digest
    if report is None:
        yield Link(kind=f"{label}plan", id=plan.plan_id, digest=digest, named_by="", ok=agree)
        return
    agree = agree and (report.plan_id, report.plan_digest) == (plan.plan_id, digest)
    yield Link(kind=f"{label}plan", id=plan.plan_id, digest=digest, named_by="report.plan_digest", ok=agree)
    named = (report.report_id, opened.report_digest)
    agree = mission.report_id == report.report_id or not present
    agree = agree and all((one.approval.report_id, one.approval.report_digest) == named for one in opened.approvals)
    by = "approval.report_digest" if opened.approvals else ""
    yield Link(kind=f"{label}report", id=report.report_id, digest=opened.report_digest, named_by=by, ok=agree)
    for one in opened.approvals:
        by = "receipt.approvals" if receipt and is_recorded(one, receipt) else ""
        fine = receipt is None or bool(by) or may_be_left_out(one, opened, receipt)
        yield Link(kind=f"{label}approval", id=one.approval.approval_id, digest=one.digest, named_by=by, ok=fine)


def _segment_links(
    mission: MissionState, segment: Segment, number: int, *, present: bool, ended: bool
) -> Iterator[Link]:
    """Yield a later segment: its plan names the execution and what that had done, the receipt names it."""
    plan, receipt = segment.opened.plan, segment.opened.receipt
    if plan is None:
        return
    record = next((one for one in receipt.segments if one.segment == number), None) if receipt else None
    fits = (plan.segment, segment.number, plan.execution_id) == (number, number, mission.execution_id)
    fits = fits and (not ended or (record is not None and record.journal_digest == plan.journal_digest))
    by = "receipt.segments" if record else ""
    yield Link(kind=f"segment {number}", id=plan.execution_id, digest=plan.journal_digest, named_by=by, ok=fits)
    yield from _evidence_links(mission, segment, present=present)


def _word_links(opened: Opened) -> Iterator[Link]:
    """Yield the words of persons about single steps; each names its execution."""
    stood_on = stood_on_by(opened.receipt) if opened.receipt else {}
    for word in opened.words:
        kind, _, _ = word.name.rpartition(" ")
        by = stood_on.get(word.digest, "")
        yield Link(kind=kind, id=word.word_id, digest=word.digest, named_by=by, ok=True)


def _ending_links(mission: MissionState, opened: Opened, receipt: evidence_pb2.Receipt) -> Iterator[Link]:
    agree = receipt.receipt_id == mission.receipt_id
    digest = opened.receipt_digest
    yield Link(kind="receipt", id=receipt.receipt_id, digest=digest, named_by="mission.receipt_id", ok=agree)


def _leaf_link(bundle: Bundle, opened: Opened) -> Iterator[Link]:
    if bundle.executor_log is None:
        return
    found = receipt_leaf(bundle.executor_log, opened.receipt_digest)
    place = str(found.index) if found else ""
    digest = f"sha256:{leaf_hash(found.text.encode()).hex()}" if found else ""
    yield Link(kind="audit leaf", id=place, digest=digest, named_by="the executor's log", ok=found is not None)
