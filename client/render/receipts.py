"""A receipt as a person reads it: what an execution did, under which plans, and what persons had it do."""

from collections.abc import Iterable

from client.json_form import short_name
from client.render.evidence import case_lines, excerpt_lines
from client.render.layout import fields, indented, shortened, table, when
from client.render.reports import proposer_text
from gonogo.safe_text import safe_line
from gonogo.v1 import evidence_pb2


def receipt_text(receipt: evidence_pb2.Receipt, digest: str) -> str:
    """Return what an execution did."""
    head = fields(
        [
            ("receipt", f"{receipt.receipt_id}  {digest}"),
            ("execution", receipt.execution_id),
            ("outcome", short_name(receipt, "execution_status")),
            ("steps", f"{receipt.steps_succeeded} succeeded, {receipt.steps_failed} failed"),
            ("took", f"{receipt.execution_duration_ms} ms"),
            ("proposed by", proposer_text(receipt.proposer)),
            ("approved by", _approvers(receipt.approvals)),
            ("after", receipt.after_fingerprint),
            ("promised", "" if receipt.segments else receipt.expected_after_fingerprint),  # the first plan's alone
            ("divergence", "; ".join(receipt.divergence_details)),
            ("ended early", receipt.abort_reason),
            ("errors", "; ".join(receipt.errors)),
        ]
    )
    rows = [_row(step) for step in receipt.steps]
    parts = [head, table(("step", "kind", "stage", "", "took", "target"), rows)]
    parts += [text for text in map(_details, receipt.steps) if text]
    parts += [_segment(segment) for segment in receipt.segments]
    if receipt.controls:
        parts.append("what persons had it do\n" + indented(_controls(receipt)))
    return "\n\n".join(parts)


def _row(step: evidence_pb2.StepReceipt) -> tuple[str, ...]:
    return (
        step.step_id,
        step.operation,
        short_name(step, "stage"),
        _ended(step),
        f"{step.duration_ms} ms",
        step.error_message or step.target,
    )


def _ended(step: evidence_pb2.StepReceipt) -> str:
    if step.rollback_invoked:
        return "undone" if step.rollback_succeeded else "NOT UNDONE"
    return "ok" if step.success else "FAILED"


def _details(step: evidence_pb2.StepReceipt) -> str:
    """Return what does not fit in the table; empty for most steps."""
    lines = [
        *([f"segment {step.segment}"] if step.segment else []),
        *([f"begun {step.attempts} times"] if step.attempts > 1 else []),
        *([safe_line(f"signed for by {_approvers(step.step_approvals)}")] if step.step_approvals else []),
        *(_effect(step.effect) if step.HasField("effect") else []),
        *case_lines(step.test_cases),
    ]
    return f"{safe_line(step.step_id)}\n{indented(chr(10).join(lines))}" if lines else ""


def _effect(effect: evidence_pb2.EffectRecord) -> list[str]:
    state = short_name(effect, "state").replace("_", " ") or "not said"
    lines = [safe_line(f"effect {state}: {effect.summary}" if effect.summary else f"effect {state}")]
    lines += [safe_line(f"idempotency key {effect.idempotency_key}")] if effect.idempotency_key else []
    if effect.HasField("reconciliation"):
        word = effect.reconciliation
        happened = "happened" if word.happened else "did not happen"
        lines.append(safe_line(f"{word.person} signed that it {happened} ({word.reconciliation_id}, {word.key_id})"))
    lines += [safe_line(f"compensation: {effect.compensation}")] if effect.compensation else []
    lines += [safe_line(f"answer {effect.answer_digest}")] if effect.answer_digest else []
    return [*lines, *(excerpt_lines("answer", effect.answer) if effect.HasField("answer") else [])]


def _segment(segment: evidence_pb2.SegmentRecord) -> str:
    head = fields(
        [
            ("plan", f"{segment.plan_id}  {segment.plan_digest}"),
            ("report", f"{segment.report_id}  {segment.report_digest}"),
            ("began", when(segment.started_at)),
            ("after", segment.journal_digest),
            ("proposed by", proposer_text(segment.proposer)),
            ("approved by", _approvers(segment.approvals)),
        ]
    )
    return f"segment {segment.segment}\n{indented(head)}"


def _controls(receipt: evidence_pb2.Receipt) -> str:
    rows = [
        (when(control.time), control.action, control.actor, control.step_id, shortened(control.reason))
        for control in receipt.controls
    ]
    return table(("time", "what", "by", "step", "why"), rows)


def _approvers(records: Iterable[evidence_pb2.ApprovalRecord]) -> str:
    return ", ".join(record.approver for record in records)
