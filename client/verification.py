"""What the approver's own client checks before it signs anything.

The orchestrator that hands out plan and report is not trusted: it may swap either. So the report must carry a signature
of the executor whose key was pinned when the state was made, and it names the plan by digest; every id must agree; and
what a person is shown is read from exactly these bytes. Only `verify_mission` makes a `VerifiedMission`, and only a
`VerifiedMission` can be signed.
"""

from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import Message

from client.errors import EvidenceError
from client.json_form import short_name
from gonogo import sealing
from gonogo.signatures import PublicKey, SignatureError, verify
from gonogo.v1 import evidence_pb2, plan_pb2, sealed_pb2

M = TypeVar("M", bound=Message)

WHOLE_ID = len("m-") + 20
"""A mission's whole id: the prefix and twenty characters."""

_TAMPERED = "do not approve; the orchestrator does not hand out what the executor signed: ask its operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedMission:
    """A plan and the report about it, both proven by the executor's signature. Made by `verify_mission` only."""

    plan: plan_pb2.Plan
    plan_digest: str
    report: evidence_pb2.Report
    report_digest: str
    report_key_id: str


def verify_mission(
    *, mission_id: str, plan: sealed_pb2.Sealed, report: sealed_pb2.Sealed, executor_key: PublicKey
) -> VerifiedMission:
    """Check plan and report of a mission.

    Args:
        mission_id: the mission the person means.
        plan: as the orchestrator handed it out.
        report: likewise.
        executor_key: the pinned key.

    Raises:
        EvidenceError: any of it does not hold; the reason says which.
    """
    if not report.body:
        remedy = f"gonogo dry-run {mission_id} makes one"
        raise EvidenceError("REPORT_MISSING", f"mission {mission_id} has no report now", remedy)
    check_media_type(plan, sealing.PLAN)
    check_media_type(report, sealing.REPORT)
    check_signature(report, executor_key, what="report")
    opened_report = open_document(report, evidence_pb2.Report, what="report")
    opened_plan = open_document(plan, plan_pb2.Plan, what="plan")
    plan_digest = sealing.sealed_digest(plan.body)
    _check_ids(mission_id, opened_plan, opened_report, plan_digest)
    return VerifiedMission(
        plan=opened_plan,
        plan_digest=plan_digest,
        report=opened_report,
        report_digest=sealing.sealed_digest(report.body),
        report_key_id=executor_key.key_id,
    )


def require_asked_for(asked: str, found: str) -> None:
    """Refuse another mission than the one that was asked for, by its id or the beginning of it.

    Whoever names a whole id means that mission: an orchestrator must not segment it to another one.

    Raises:
        EvidenceError: it is another.
    """
    if found != asked and (len(asked) >= WHOLE_ID or not found.startswith(asked)):
        message = f"asked for {asked!r}, was handed mission {found!r}"
        raise EvidenceError("MISSION_MISMATCH", message, "do not approve; ask the orchestrator's operator")


def require_about(mission_id: str, named: str, *, what: str) -> None:
    """Refuse a document that is about another mission than the one meant, however well it is signed.

    Raises:
        EvidenceError: it is.
    """
    if named != mission_id:
        message = f"asked for mission {mission_id!r}, was handed a {what} of {named!r}"
        raise EvidenceError("MISSION_MISMATCH", message, _TAMPERED)


def require_success(mission: VerifiedMission) -> None:
    """Refuse to go on with a report that is not a success.

    Raises:
        EvidenceError: with the reason gate 2 would give.
    """
    if mission.report.status == evidence_pb2.REPORT_STATUS_SUCCESS:
        return
    status = short_name(mission.report, "status")
    problem = mission.report.problems[0] if mission.report.problems else evidence_pb2.Problem()
    message = f"the dry run is {status}: {problem.message}" if problem.message else f"the dry run is {status}"
    remedy = problem.remedy or "change the plan and propose it again"
    raise EvidenceError(f"SIMULATION_{status.upper() or 'FAILED'}", message, remedy)


def check_media_type(sealed: sealed_pb2.Sealed, media_type: str) -> None:
    """Refuse a document of another kind."""
    if sealed.media_type != media_type:
        raise EvidenceError("MALFORMED", f"expected {media_type}, got {sealed.media_type!r}", _TAMPERED)


def verify_signature(sealed: sealed_pb2.Sealed, signature: sealed_pb2.Signature, key: PublicKey) -> None:
    """Check one signature of a document.

    Raises:
        SignatureError: it is not this key's over these bytes.
    """
    verify(
        key,
        scheme=signature.scheme,
        signature=signature.signature,
        media_type=sealed.media_type,
        body=sealed.body,
        extra=signature.extra,
    )


def check_signature(sealed: sealed_pb2.Sealed, key: PublicKey, *, what: str) -> None:
    """Refuse a document without a good signature by this key."""
    named = [signature for signature in sealed.signatures if signature.key_id == key.key_id]
    if not named:
        found = ", ".join(signature.key_id for signature in sealed.signatures) or "nobody"
        message = f"the {what} is not signed by the pinned executor key {key.key_id}, but by {found}"
        remedy = "do not approve; where the executor's key was changed on purpose, pin the new one with --executor-key"
        raise EvidenceError("SIGNATURE_INVALID", message, remedy)
    try:
        for signature in named:
            verify_signature(sealed, signature, key)
    except SignatureError as error:
        raise EvidenceError("SIGNATURE_INVALID", f"the {what}: {error}", _TAMPERED) from None


def open_document(sealed: sealed_pb2.Sealed, message_type: type[M], *, what: str) -> M:
    """Read a document strictly."""
    try:
        return sealing.open_sealed(sealed.body, message_type)
    except sealing.SealingError as error:
        raise EvidenceError("MALFORMED", f"the {what}: {error}", _TAMPERED) from None


def _check_ids(mission_id: str, plan: plan_pb2.Plan, report: evidence_pb2.Report, plan_digest: str) -> None:
    pairs = (
        ("PLAN_MISMATCH", "plan digest", plan_digest, report.plan_digest),
        ("PLAN_MISMATCH", "plan id", plan.plan_id, report.plan_id),
        ("MISSION_MISMATCH", "mission id", mission_id, plan.mission_id),
        ("MISSION_MISMATCH", "mission id", plan.mission_id, report.mission_id),
        ("MISSION_MISMATCH", "intent id", plan.intent_id, report.intent_id),
        ("WORKSPACE_MISMATCH", "workspace id", plan.workspace_id, report.workspace_id),
        ("EXECUTOR_MISMATCH", "executor id", plan.executor_id, report.executor_id),
    )
    for reason, what, left, right in pairs:
        if left != right:
            raise EvidenceError(
                reason, f"plan and report do not belong together: {what} {left!r} ≠ {right!r}", _TAMPERED
            )
    steps = [step.step_id for step in plan.steps]
    reported = [step.step_id for step in report.steps]
    if report.status == evidence_pb2.REPORT_STATUS_SUCCESS and steps != reported:
        raise EvidenceError("PLAN_MISMATCH", "the report does not cover the plan's steps one by one", _TAMPERED)
