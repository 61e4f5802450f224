"""The segments of an execution, each as if it were a mission of its own.

A repair plan is dry-run, decided about, claimed and carried out like a first plan. So what is checked of the first is
checked of each: against the receipt as it tells of that segment.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from client.bundle import Bundle, SegmentTexts
from client.proving.opened import Opened
from gonogo.v1 import evidence_pb2

OF_A_SEGMENT: Sequence[
    Literal[
        "approvals", "demand", "gates", "plan_digest", "plan_id", "proposer", "report_digest", "report_id", "started_at"
    ]
] = ("approvals", "demand", "gates", "plan_digest", "plan_id", "proposer", "report_digest", "report_id", "started_at")
"""What a receipt says of the first segment itself; of the later ones its `segments` do."""
OF_THE_WHOLE = ("after", "before", "controls", "divergence_details", "errors", "segments", "steps")
"""What grows with the execution: it is not copied for every segment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One segment: its own plan, report and approvals, and of the receipt what is about it."""

    bundle: Bundle
    opened: Opened

    @property
    def number(self) -> int:
        """Which segment."""
        return self.opened.number

    @property
    def label(self) -> str:
        """What the names of its checks begin with."""
        return self.opened.label


def segments(bundle: Bundle, opened: Opened) -> list[Segment]:
    """Return a mission's segments, the first first; of most missions there is one."""
    if not opened.earlier:
        return [Segment(bundle=bundle, opened=opened)]
    texts = (*bundle.segments, _present(bundle, opened.number))
    told = _told(opened)
    return [
        # Of segments that say they are the same, the receipt tells of the first: it is gone through once.
        _segment(bundle, one, text, told.pop(one.number, None))
        for one, text in zip(opened.every, texts, strict=True)
    ]


def _told(opened: Opened) -> dict[int, evidence_pb2.Receipt]:
    """Return the receipt as it tells of each segment, by number; only of those that it tells of."""
    receipt = opened.receipt
    if receipt is None:
        return {}
    steps: dict[int, list[evidence_pb2.StepReceipt]] = {}
    for step in receipt.steps:
        steps.setdefault(step.segment, []).append(step)
    wanted = {one.number for one in opened.every}
    records = {one.segment: one for one in reversed(receipt.segments) if one.segment in wanted}
    shared = evidence_pb2.Receipt(
        **{
            field.name: value
            for field, value in receipt.ListFields()
            if field.name not in {*OF_A_SEGMENT, *OF_THE_WHOLE}
        }
    )
    later = {number: _as_told(shared, record, steps.get(number, ())) for number, record in records.items() if number}
    return {**later, 0: receipt}


def _as_told(
    shared: evidence_pb2.Receipt, record: evidence_pb2.SegmentRecord, steps: Iterable[evidence_pb2.StepReceipt]
) -> evidence_pb2.Receipt:
    """Return a receipt as it tells of one later segment."""
    about = evidence_pb2.Receipt(
        plan_id=record.plan_id,
        plan_digest=record.plan_digest,
        report_id=record.report_id,
        report_digest=record.report_digest,
        approvals=record.approvals,
        gates=record.gates,
        started_at=record.started_at,
        proposer=record.proposer if record.HasField("proposer") else None,
        demand=record.demand if record.HasField("demand") else None,
        segments=[record],
        steps=steps,
    )
    about.MergeFrom(shared)
    return about


def _present(bundle: Bundle, number: int) -> SegmentTexts:
    return SegmentTexts(segment=number, plan=bundle.plan, report=bundle.report, approvals=bundle.approvals)


def _segment(bundle: Bundle, opened: Opened, texts: SegmentTexts, told: evidence_pb2.Receipt | None) -> Segment:
    report = opened.report
    if told is not None and report is not None and opened.number:
        # What the trust file says is in the receipt once, for the first claim; a segment's gates tell its own.
        told.policy_digest, told.self_approval = report.policy_digest, report.self_approval
    its = report is not None and opened.policy_digest == report.policy_digest
    return Segment(
        bundle=replace(
            bundle,
            plan=texts.plan,
            report=texts.report,
            approvals=texts.approvals,
            policy=bundle.policy if its else None,
            receipt=bundle.receipt if told is not None else None,
        ),
        opened=replace(
            opened,
            receipt=told,
            policy=opened.policy if its else None,
            policy_digest=opened.policy_digest if its else "",
            earlier=(),
        ),
    )
