import shlex
from collections.abc import Sequence

from client.documents import Documents, EarlierSegment, Word
from client.json_form import short_name
from client.render.layout import fields, indented, table, when
from client.render.pauses import pause_text
from client.render.plans import plan_text
from client.render.receipts import receipt_text
from client.render.reports import report_text
from gonogo.safe_text import safe_line, shown_argv
from gonogo.v1 import evidence_pb2, orchestrator_pb2


def mission_text(mission: orchestrator_pb2.Mission, present: str = "") -> str:
    """Return a mission in short.

    Args:
        mission: the mission; its objective is the one that it was proposed with.
        present: the objective of its present plan, where that is known; a repair plan has one of its own.
    """
    head = fields(
        [
            ("mission", mission.mission_id),
            ("status", short_name(mission, "status")),
            ("objective", mission.objective),
            ("repair", present if present != mission.objective else ""),
            ("proposer", mission.proposer),
            ("workspace", mission.workspace_id),
            ("plan", f"{mission.plan_id}  {mission.plan_digest}"),
            ("report", f"{mission.report_id}  {mission.report_digest}".strip()),
            ("dry run", short_name(mission, "report_status")),
            ("confidence", confidence_text(mission)),
            ("queue", f"place {mission.queue_position}" if mission.queue_position else ""),
            ("priority", str(mission.priority) if mission.priority else ""),
            ("segment", str(mission.segment) if mission.segment else ""),
            ("execution", mission.execution_id),
            ("receipt", mission.receipt_id),
            ("outcome", short_name(mission, "outcome")),
            ("repeats", mission.cloned_from),
            ("proposed", when(mission.created_at)),
        ]
    )
    return f"{head}\n\n{pause_text(mission.pause, mission.mission_id)}" if mission.HasField("pause") else head


def confidence_text(mission: orchestrator_pb2.Mission) -> str:
    """Return how likely a success is, as executions of the mission's kind have gone; empty where nothing was said."""
    if not mission.confidence_samples:
        return ""
    if not mission.confidence:
        return f"too few outcomes to say ({mission.confidence_samples})"
    return f"{mission.confidence / 100:.1f} % as {mission.confidence_samples} outcomes have gone"


def missions_text(missions: Sequence[orchestrator_pb2.Mission]) -> str:
    """Return missions as a table; nothing at all where there is none. Who is queued has a place in its workspace."""
    rows = [
        (
            mission.mission_id,
            short_name(mission, "status") + (f" ({mission.queue_position})" if mission.queue_position else ""),
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


def _repair_waiting(mission: orchestrator_pb2.Mission, documents: Documents) -> list[str]:
    """Say what goes on with a repair plan, where the last one was made for this very pause."""
    made_for = documents.plan.journal_digest
    if not mission.HasField("pause") or not made_for or made_for != mission.pause.results_digest:
        return []
    found = shlex.quote(safe_line(mission.mission_id))
    return [f"a repair plan waits: gonogo approve {found} signs it, gonogo execute {found} goes on with it"]


def documents_text(mission: orchestrator_pb2.Mission, documents: Documents) -> str:
    """Return a mission with everything that is sealed about it."""
    parts = [
        mission_text(mission, documents.plan.objective),
        *_repair_waiting(mission, documents),
        *(text for one in documents.earlier for text in _earlier(one)),
    ]
    number = f" OF SEGMENT {documents.plan.segment}" if documents.plan.segment else ""
    parts.append(f"PLAN{number}\n" + indented(plan_text(documents.plan, documents.plan_digest)))
    if documents.report is not None:
        parts.append("REPORT\n" + indented(report_text(documents.report, documents.report_digest)))
    parts += ["APPROVAL\n" + indented(_approval(approval)) for approval in documents.approvals]
    parts += [_word(word) for word in documents.words]
    if documents.receipt is not None:
        parts.append("RECEIPT\n" + indented(receipt_text(documents.receipt, documents.receipt_digest)))
    if documents.refusal is not None:
        parts.append("LAST REFUSAL\n" + indented(_refusal(documents.refusal)))
    return "\n\n".join(parts)


def _earlier(one: EarlierSegment) -> list[str]:
    """Return what an earlier segment of the execution stood on."""
    number = f" OF SEGMENT {one.segment}"
    parts = [f"PLAN{number}\n" + indented(plan_text(one.plan, one.plan_digest))] if one.plan else []
    if one.report is not None:
        parts.append(f"REPORT{number}\n" + indented(report_text(one.report, one.report_digest)))
    return [*parts, *(f"APPROVAL{number}\n" + indented(_approval(approval)) for approval in one.approvals)]


def _word(word: Word) -> str:
    """Return what a person signed about one step."""
    if isinstance(word, evidence_pb2.StepApproval):
        said = fields(
            [
                ("approval", word.approval_id),
                ("step", word.step_id),
                ("by", word.approver),
                ("decision", short_name(word, "decision")),
                ("signed", when(word.approved_at)),
                ("until", when(word.expires_at)),
                ("after", word.results_digest),
                ("comment", word.comment),
            ]
        )
        return f"STEP APPROVAL\n{indented(said)}"
    said = fields(
        [
            ("document", word.reconciliation_id),
            ("step", word.step_id),
            ("by", word.person),
            ("said", "it happened" if word.happened else "it did not happen"),
            ("signed", when(word.decided_at)),
            ("why", word.reason),
        ]
    )
    return f"RECONCILIATION\n{indented(said)}"


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
