"""The sealed documents of a mission, opened strictly, and as scripts read them."""

from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from google.protobuf.message import Message

from client.changes import net_changes
from client.errors import ClientError
from client.json_form import Json, to_json
from client.verification import check_media_type, open_document
from gonogo import sealing
from gonogo.v1 import evidence_pb2, orchestrator_pb2, plan_pb2, sealed_pb2

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """What is sealed about one mission; digests are computed here, not taken over."""

    plan: plan_pb2.Plan
    plan_digest: str
    report: evidence_pb2.Report | None
    report_digest: str
    approvals: tuple[evidence_pb2.Approval, ...]
    approval_digests: tuple[str, ...]
    receipt: evidence_pb2.Receipt | None
    receipt_digest: str
    refusal: evidence_pb2.Refusal | None
    earlier: tuple["EarlierSegment", ...] = ()
    """What the segments before the present plan's stood on."""
    words: tuple["Word", ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierSegment:
    """What one segment of an execution stood on."""

    segment: int
    plan: plan_pb2.Plan | None
    plan_digest: str
    report: evidence_pb2.Report | None
    report_digest: str
    approvals: tuple[evidence_pb2.Approval, ...]


Word: TypeAlias = evidence_pb2.StepApproval | evidence_pb2.Reconciliation


def open_documents(response: orchestrator_pb2.GetMissionResponse) -> Documents:
    """Open what the orchestrator hands out about a mission.

    Raises:
        EvidenceError: one of the documents is not what its media type says.
    """
    plan = _opened(response.plan, sealing.PLAN, plan_pb2.Plan, "plan")
    if plan is None:
        raise ClientError("MALFORMED", "the mission was handed out without its plan", "ask the orchestrator's operator")
    approvals = [_opened(one, sealing.APPROVAL, evidence_pb2.Approval, "approval") for one in response.approvals]
    return Documents(
        plan=plan,
        plan_digest=digest_of(response.plan),
        report=_opened(response.report, sealing.REPORT, evidence_pb2.Report, "report"),
        report_digest=digest_of(response.report),
        approvals=tuple(one for one in approvals if one is not None),
        approval_digests=tuple(digest_of(one) for one in response.approvals if one.body),
        receipt=_opened(response.receipt, sealing.RECEIPT, evidence_pb2.Receipt, "receipt"),
        receipt_digest=digest_of(response.receipt),
        refusal=_opened(response.refusal, sealing.REFUSAL, evidence_pb2.Refusal, "refusal"),
        earlier=tuple(_earlier(one) for one in response.segments),
        words=tuple(_word(one) for one in response.words),
    )


def digest_of(sealed: sealed_pb2.Sealed) -> str:
    """Return a document's digest, empty where there is none."""
    return sealing.sealed_digest(sealed.body) if sealed.body else ""


def dry_run_json(report: evidence_pb2.Report, digest: str) -> Json:
    """Return a report as scripts read it: the net changes first, the steps as they are."""
    full = to_json(report)
    net = net_changes(step.changes for step in report.steps)
    first = ("mission_id", "report_id", "plan_id", "plan_digest", "status")
    return {
        **{name: full[name] for name in first},
        "report_digest": digest,
        "changes": [change.as_json() for change in net],
        **{name: value for name, value in full.items() if name not in first},
    }


def receipt_json(receipt: evidence_pb2.Receipt, digest: str, mission: orchestrator_pb2.Mission) -> Json:
    """Return a receipt as scripts read it."""
    full = to_json(receipt)
    steps = [{"kind": step["operation"], **step} for step in full["steps"]]
    return {
        "mission_id": mission.mission_id,
        "status": to_json(mission)["status"],
        "execution_id": receipt.execution_id,
        "outcome": full["execution_status"],
        "receipt_id": receipt.receipt_id,
        "receipt_digest": digest,
        "duration_ms": receipt.execution_duration_ms,
        **{name: value for name, value in full.items() if name not in {"mission_id", "steps"}},
        "steps": steps,
    }


def show_json(response: orchestrator_pb2.GetMissionResponse, documents: Documents) -> Json:
    """Return a mission with its documents, opened and sealed; the sealed ones can be verified elsewhere."""
    report, receipt, refusal = documents.report, documents.receipt, documents.refusal
    return {
        **to_json(response.mission),
        "plan": {"digest": documents.plan_digest, **to_json(documents.plan)},
        "report": dry_run_json(report, documents.report_digest) if report else None,
        "approvals": [to_json(approval) for approval in documents.approvals],
        "receipt": receipt_json(receipt, documents.receipt_digest, response.mission) if receipt else None,
        "refusal": to_json(refusal) if refusal else None,
        "segments": [_earlier_json(one) for one in documents.earlier],
        "words": [{"kind": word_kind(word), **to_json(word)} for word in documents.words],
        "documents": {
            "plan": _sealed_json(response.plan),
            "report": _sealed_json(response.report),
            "approvals": [_sealed_json(one) for one in response.approvals],
            "segments": [_segment_json(one) for one in response.segments],
            "words": [_sealed_json(one) for one in response.words],
            "receipt": _sealed_json(response.receipt),
            "refusal": _sealed_json(response.refusal),
        },
    }


def _opened(sealed: sealed_pb2.Sealed, media_type: str, message_type: type[M], what: str) -> M | None:
    if not sealed.body:
        return None
    check_media_type(sealed, media_type)
    return open_document(sealed, message_type, what=what)


def word_kind(word: Word) -> str:
    """Return what a signed word is."""
    return "step_approval" if isinstance(word, evidence_pb2.StepApproval) else "reconciliation"


def _earlier(segment: orchestrator_pb2.SegmentDocuments) -> EarlierSegment:
    approvals = [_opened(one, sealing.APPROVAL, evidence_pb2.Approval, "approval") for one in segment.approvals]
    return EarlierSegment(
        segment=segment.segment,
        plan=_opened(segment.plan, sealing.PLAN, plan_pb2.Plan, "plan"),
        plan_digest=digest_of(segment.plan),
        report=_opened(segment.report, sealing.REPORT, evidence_pb2.Report, "report"),
        report_digest=digest_of(segment.report),
        approvals=tuple(one for one in approvals if one is not None),
    )


def _word(sealed: sealed_pb2.Sealed) -> Word:
    if sealed.media_type == sealing.STEP_APPROVAL:
        return open_document(sealed, evidence_pb2.StepApproval, what="step approval")
    check_media_type(sealed, sealing.RECONCILIATION)
    return open_document(sealed, evidence_pb2.Reconciliation, what="reconciliation")


def _earlier_json(one: EarlierSegment) -> Json:
    return {
        "segment": one.segment,
        "plan": {"digest": one.plan_digest, **to_json(one.plan)} if one.plan else None,
        "report": dry_run_json(one.report, one.report_digest) if one.report else None,
        "approvals": [to_json(approval) for approval in one.approvals],
    }


def _segment_json(one: orchestrator_pb2.SegmentDocuments) -> Json:
    return {
        "segment": one.segment,
        "plan": _sealed_json(one.plan),
        "report": _sealed_json(one.report),
        "approvals": [_sealed_json(approval) for approval in one.approvals],
    }


def _sealed_json(sealed: sealed_pb2.Sealed) -> Json | None:
    if not sealed.body:
        return None
    return {
        "media_type": sealed.media_type,
        "body": sealed.body.decode("utf-8"),
        "digest": digest_of(sealed),
        "signatures": [to_json(signature) for signature in sealed.signatures],
    }
