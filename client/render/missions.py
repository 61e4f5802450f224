from collections.abc import Sequence

from client.documents import Documents
from client.json_form import short_name
from client.render.layout import fields, indented, table, when
from client.render.plans import plan_text
from client.render.reports import proposer_text, report_text
from gonogo.safe_text import shown_argv
from gonogo.v1 import evidence_pb2, orchestrator_pb2


def mission_text(mission: orchestrator_pb2.Mission) -> str:
    """Return a mission in short."""
    return fields(
        [
            ("mission", mission.mission_id),
            ("status", short_name(mission, "status")),
            ("objective", mission.objective),
            ("proposer", mission.proposer),
            ("workspace", mission.workspace_id),
            ("plan", f"{mission.plan_id}  {mission.plan_digest}"),
            ("report", f"{mission.report_id}  {mission.report_digest}".strip()),
            ("dry run", short_name(mission, "report_status")),
            ("execution", mission.execution_id),
            ("receipt", mission.receipt_id),
            ("outcome", short_name(mission, "outcome")),
            ("repeats", mission.cloned_from),
            ("proposed", when(mission.created_at)),
        ]
    )


def missions_text(missions: Sequence[orchestrator_pb2.Mission]) -> str:
    """Return missions as a table; nothing at all where there is none."""
    rows = [
        (
            mission.mission_id,
            short_name(mission, "status"),
            short_name(mission, "report_status") or "-",
            short_name(mission, "outcome") or "-",
            mission.workspace_id,
            when(mission.created_at),
            mission.objective,
        )
        for mission in missions
    ]
    return (
        table(("mission", "status", "dry run", "outcome", "workspace", "proposed", "objective"), rows) if rows else ""
    )


def documents_text(mission: orchestrator_pb2.Mission, documents: Documents) -> str:
    """Return a mission with everything that is sealed about it."""
    parts = [mission_text(mission), "PLAN\n" + indented(plan_text(documents.plan, documents.plan_digest))]
    if documents.report is not None:
        parts.append("REPORT\n" + indented(report_text(documents.report, documents.report_digest)))
    parts += ["APPROVAL\n" + indented(_approval(approval)) for approval in documents.approvals]
    if documents.receipt is not None:
        parts.append("RECEIPT\n" + indented(receipt_text(documents.receipt, documents.receipt_digest)))
    if documents.refusal is not None:
        parts.append("LAST REFUSAL\n" + indented(_refusal(documents.refusal)))
    return "\n\n".join(parts)


def _approval(approval: evidence_pb2.Approval) -> str:
    return fields(
        [
            ("approval", approval.approval_id),
            ("by", approval.approver),
            ("from", when(approval.not_before)),
            ("until", when(approval.expires_at)),
            ("comment", approval.comment),
        ]
    )


def _refusal(refusal: evidence_pb2.Refusal) -> str:
    return fields(
        [
            ("refusal", refusal.refusal_id),
            ("gate", str(refusal.gate)),
            ("reason", refusal.abort_reason),
            ("message", refusal.message),
            ("remedy", refusal.remedy),
            ("paths", shown_argv(refusal.paths) if refusal.paths else ""),
        ]
    )


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
            ("approved by", ", ".join(record.approver for record in receipt.approvals)),
            ("after", receipt.after_fingerprint),
            ("promised", receipt.expected_after_fingerprint),
            ("divergence", "; ".join(receipt.divergence_details)),
            ("ended early", receipt.abort_reason),
            ("errors", "; ".join(receipt.errors)),
        ]
    )
    rows = [
        (
            step.step_id,
            step.operation,
            short_name(step, "stage"),
            "ok" if step.success else "FAILED",
            f"{step.duration_ms} ms",
            step.error_message or step.target,
        )
        for step in receipt.steps
    ]
    return f"{head}\n\n{table(('step', 'kind', 'stage', '', 'took', 'target'), rows)}"
