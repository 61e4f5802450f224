"""A repair plan on its way to the person who decides about it: asked for, verified, shown."""

from dataclasses import dataclass

from client.api import GonogoClient
from client.documents import dry_run_json
from client.errors import ClientError, EvidenceError
from client.json_form import Json, to_json
from client.render.plans import plan_text
from client.render.reports import report_text
from client.verification import (
    VerifiedMission,
    check_media_type,
    open_document,
    require_about,
    require_asked_for,
    require_success,
    verify_mission,
)
from gonogo import sealing
from gonogo.safe_text import safe_block
from gonogo.v1 import orchestrator_pb2, plan_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """A repair plan that was sealed, and what its dry run found."""

    mission: orchestrator_pb2.Mission
    plan: plan_pb2.Plan
    plan_digest: str
    explanation: str
    tried: VerifiedMission | None
    """None where it was not dry-run."""

    def as_json(self) -> Json:
        """Return it as scripts read it."""
        report = dry_run_json(self.tried.report, self.tried.report_digest) if self.tried else None
        return {
            **to_json(self.mission),
            "explanation": self.explanation,
            "plan": {"digest": self.plan_digest, **to_json(self.plan)},
            "report": report,
        }

    def text(self) -> str:
        """Return it as a person reads it; the diff is shown beside it."""
        parts = [safe_block(self.explanation), "PLAN", plan_text(self.plan, self.plan_digest)]
        if self.tried is not None:
            parts.append(f"REPORT (signed by the executor, {self.tried.report_key_id})")
            parts.append(report_text(self.tried.report, self.tried.report_digest))
        return "\n\n".join(parts)


async def fetch_repair(
    client: GonogoClient, mission: str, draft: plan_pb2.PlanDraft | None, *, dry_run: bool
) -> Repair:
    """Have a mission given a repair plan, the one that is asked for or one that is proposed.

    Raises:
        ClientError: the mission takes none, or none can be proposed.
        EvidenceError: what was handed out is not such a plan, or its report is not the executor's.
    """
    answer = await client.repair(mission, draft, dry_run=dry_run)
    mission_id = answer.mission.mission_id
    require_asked_for(mission, mission_id)
    check_media_type(answer.plan, sealing.PLAN)
    plan = open_document(answer.plan, plan_pb2.Plan, what="plan")
    require_about(mission_id, plan.mission_id, what="plan")
    if plan.execution_id not in {"", answer.mission.execution_id}:
        message = f"the repair plan is for execution {plan.execution_id!r}"
        raise EvidenceError("MISSION_MISMATCH", message, "do not approve it; ask the orchestrator's operator")
    tried = None
    if answer.report.body:
        key = client.executor_key
        tried = verify_mission(mission_id=mission_id, plan=answer.plan, report=answer.report, executor_key=key)
    return Repair(
        mission=answer.mission,
        plan=plan,
        plan_digest=sealing.sealed_digest(answer.plan.body),
        explanation=answer.explanation,
        tried=tried,
    )


def require_tried(repair: Repair) -> VerifiedMission:
    """Return what was verified of a repair plan that can be approved.

    Raises:
        ClientError: it was not dry-run, or that was no success.
    """
    if repair.tried is None:
        remedy = f"gonogo dry-run {repair.mission.mission_id} tells why, and makes a report"
        raise ClientError("REPORT_MISSING", "the repair plan could not be dry-run", remedy)
    require_success(repair.tried)
    return repair.tried
