"""What a person signs while an execution waits: that one step may be committed, or whether an effect happened.

The orchestrator says that an execution waits and at which step. What that step would do is read from a plan and a
report that the executor signed, and the digest that the pause names is computed from them: another step, or a step of
another report, is not signed. What the execution has done so far is the executor's word, passed on by the orchestrator;
the signature names it, and an executor that stands elsewhere refuses it.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from client.errors import ClientError, EvidenceError
from client.json_form import short_name
from client.signing import DEFAULT_LIFETIME, Signer, new_id
from client.verification import VerifiedMission, require_asked_for, verify_mission
from gonogo import sealing
from gonogo.digests import step_digest
from gonogo.signatures import PublicKey
from gonogo.v1 import events_pb2, evidence_pb2, executor_pb2, orchestrator_pb2, plan_pb2, sealed_pb2

WORDS = {
    events_pb2.PAUSE_KIND_STEP_APPROVAL: "an approval of step",
    events_pb2.PAUSE_KIND_UNKNOWN_EFFECT: "a word about the effect of step",
}
_TAMPERED = "do not sign; the orchestrator does not hand out what the executor signed: ask its operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedStep:
    """A step that an execution waits at, with the plan and report that it is in. Made by `verify_step` only."""

    mission: VerifiedMission
    """The segment of the execution that the step belongs to."""
    step: plan_pb2.Step
    report: evidence_pb2.StepReport
    execution_id: str
    pause: executor_pb2.Pause

    @property
    def digest(self) -> str:
        """What an approval of the step names."""
        return step_digest(self.mission.report_digest, self.step.step_id)


def verify_step(
    asked: str,
    step_id: str,
    response: orchestrator_pb2.GetMissionResponse,
    executor_key: PublicKey,
    kind: events_pb2.PauseKind.ValueType,
) -> VerifiedStep:
    """Check that a mission waits for a word about a step, and what that step is.

    Args:
        asked: the mission's id, or its beginning.
        step_id: the step that the person means.
        response: as the orchestrator handed it out.
        executor_key: the pinned key.
        kind: what the execution has to wait for.

    Raises:
        ClientError: the mission does not wait for that.
        EvidenceError: what was handed out does not hold.
    """
    mission = response.mission
    require_asked_for(asked, mission.mission_id)
    if not mission.HasField("pause") or (mission.pause.kind, mission.pause.step_id) != (kind, step_id):
        raise _not_waiting(mission, step_id, kind)
    verified = _segment_of(response, step_id, executor_key)
    _check_execution(verified, mission)
    found = VerifiedStep(
        mission=verified,
        step=next(step for step in verified.plan.steps if step.step_id == step_id),
        report=_reported(verified, step_id),
        execution_id=mission.execution_id,
        pause=mission.pause,
    )
    if mission.pause.change_set_digest != found.digest:
        message = f"the execution is said to wait with another step {step_id} than the executor's report holds"
        raise EvidenceError("PLAN_MISMATCH", message, _TAMPERED)
    return found


def sign_step_approval(
    found: VerifiedStep,
    signer: Signer,
    *,
    deny: bool = False,
    comment: str = "",
    lifetime: timedelta = DEFAULT_LIFETIME,
) -> sealed_pb2.Sealed:
    """Seal and sign that exactly this step may be committed now, or that it may not."""
    now, plan = datetime.now(UTC), found.mission.plan
    approval = evidence_pb2.StepApproval(
        approval_id=new_id("sa"),
        executor_id=plan.executor_id,
        workspace_id=plan.workspace_id,
        mission_id=plan.mission_id,
        execution_id=found.execution_id,
        segment=plan.segment,
        step_id=found.step.step_id,
        change_set_digest=found.digest,
        results_digest=found.pause.results_digest,
        approver=signer.person,
        decision=evidence_pb2.DECISION_DENY if deny else evidence_pb2.DECISION_APPROVE,
        nonce=secrets.token_hex(16),
        comment=comment,
    )
    approval.approved_at.FromDatetime(now)
    approval.expires_at.FromDatetime(now + lifetime)
    return _signed(sealing.STEP_APPROVAL, sealing.seal(approval), signer)


def sign_reconciliation(found: VerifiedStep, signer: Signer, *, happened: bool, reason: str = "") -> sealed_pb2.Sealed:
    """Seal and sign whether the effect of a step happened of which nobody could tell."""
    plan = found.mission.plan
    word = evidence_pb2.Reconciliation(
        reconciliation_id=new_id("rn"),
        executor_id=plan.executor_id,
        mission_id=plan.mission_id,
        execution_id=found.execution_id,
        step_id=found.step.step_id,
        happened=happened,
        person=signer.person,
        reason=reason,
        nonce=secrets.token_hex(16),
        results_digest=found.pause.results_digest,
    )
    word.decided_at.FromDatetime(datetime.now(UTC))
    return _signed(sealing.RECONCILIATION, sealing.seal(word), signer)


def _signed(media_type: str, body: bytes, signer: Signer) -> sealed_pb2.Sealed:
    blob = signer.key.sign(signer.scheme, media_type, body)
    signature = sealed_pb2.Signature(key_id=signer.key.public.key_id, scheme=signer.scheme, signature=blob)
    return sealed_pb2.Sealed(media_type=media_type, body=body, signatures=[signature])


def _not_waiting(mission: orchestrator_pb2.Mission, step_id: str, kind: events_pb2.PauseKind.ValueType) -> ClientError:
    waits = mission.pause.step_id if mission.HasField("pause") else ""
    where = f"it waits at {waits!r}" if waits else "it does not wait at a step"
    if waits and mission.pause.kind != kind:
        where += f" for another reason, {short_name(mission.pause, 'kind') or 'which it does not name'}"
    message = f"mission {mission.mission_id} does not wait for {WORDS[kind]} {step_id!r}: {where}"
    return ClientError("STEP_NOT_WAITING", message, f"gonogo show {mission.mission_id} tells what it waits for")


def _segment_of(
    response: orchestrator_pb2.GetMissionResponse, step_id: str, executor_key: PublicKey
) -> VerifiedMission:
    """Return the segment whose plan has the step: the last one that does."""
    for plan, report in _segments(response):
        if not report.body:
            continue
        mission_id = response.mission.mission_id
        found = verify_mission(mission_id=mission_id, plan=plan, report=report, executor_key=executor_key)
        if any(step.step_id == step_id for step in found.plan.steps):
            return found
    raise EvidenceError("PLAN_MISMATCH", f"no plan of the mission has a step {step_id!r}", _TAMPERED)


def _segments(
    response: orchestrator_pb2.GetMissionResponse,
) -> Iterator[tuple[sealed_pb2.Sealed, sealed_pb2.Sealed]]:
    yield response.plan, response.report
    yield from ((one.plan, one.report) for one in reversed(response.segments))


def _check_execution(found: VerifiedMission, mission: orchestrator_pb2.Mission) -> None:
    """A repair plan names its execution; of the first plan only the executor knows which it is."""
    if found.plan.execution_id not in {"", mission.execution_id}:
        message = f"the plan is for execution {found.plan.execution_id!r}, the mission has {mission.execution_id!r}"
        raise EvidenceError("MISSION_MISMATCH", message, _TAMPERED)


def _reported(found: VerifiedMission, step_id: str) -> evidence_pb2.StepReport:
    for step in found.report.steps:
        if step.step_id == step_id:
            return step
    raise EvidenceError("REPORT_UNKNOWN", f"the report does not tell of step {step_id!r}", _TAMPERED)
