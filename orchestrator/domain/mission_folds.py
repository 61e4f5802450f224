"""What each event changes of a mission's state.

A fold gets the state before the event, or one that is older where the event does not look at what has changed since;
`reads` says for which events that is.
"""

from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import fields
from operator import attrgetter
from typing import Any, Final, TypeAlias

from orchestrator.domain import events as ev
from orchestrator.domain.control import pause_of
from orchestrator.domain.evidence import Outcome
from orchestrator.domain.standing import GrantedApproval, Mission, MissionStatus, PlanSignature, Segment

S = MissionStatus

REPAIR: Final = "repair"
"""The action by which an execution goes on with a repair plan."""

Changes: TypeAlias = Mapping[str, Any]

NO_EVIDENCE: Final[Changes] = {
    "report_id": "",
    "report_digest": "",
    "report_status": None,
    "report_risk": None,
    "approvals": (),
    "approved_until": None,
    "queued_at": None,
    "priority": 0,
    "tenant": "",
    "not_before": None,
    "queue_expires_at": None,
    "confidence": 0,
    "confidence_samples": 0,
}
"""What a mission that needs a fresh dry run is left with."""


def _unchanged(_mission: Mission, _payload: Any, _event: ev.Event) -> Changes:
    return {}


def _plan_sealed(mission: Mission, payload: ev.PlanSealed, _event: ev.Event) -> Changes:
    """Take a plan; one of the next segment leaves what the present one stands on among the earlier ones."""
    kept = (*mission.earlier, _present(mission)) if payload.segment > mission.segment else mission.earlier
    return {
        **NO_EVIDENCE,
        "plan_id": payload.plan_id,
        "plan_digest": payload.plan_digest,
        "plan_signatures": (),
        "steps_count": len(payload.steps),
        "segment": payload.segment,
        "earlier": kept,
        "reason": _waits_because(mission),
    }


_SEGMENT: Final = tuple(field.name for field in fields(Segment))
_segment_values = attrgetter(*_SEGMENT)


def _present(mission: Mission) -> Segment:
    return Segment(**dict(zip(_SEGMENT, _segment_values(mission), strict=True)))


def _without_repair(mission: Mission) -> Changes:
    """Give up a repair plan that the executor has not taken, if there is one."""
    if mission.segment == mission.opened_segment or not mission.earlier:
        return {}
    *earlier, present = mission.earlier
    return {**dict(zip(_SEGMENT, _segment_values(present), strict=True)), "earlier": tuple(earlier)}


def _waits_because(mission: Mission) -> str:
    return mission.pause.reason if mission.pause is not None else ""


def _plan_signed(mission: Mission, payload: ev.PlanSigned, _event: ev.Event) -> Changes:
    signature = PlanSignature(
        person=payload.person,
        key_id=payload.key_id,
        scheme=payload.scheme,
        signature=b64encode(payload.signature).decode(),
    )
    return {"plan_signatures": (*mission.plan_signatures, signature)}


def _dry_run_completed(mission: Mission, payload: ev.DryRunCompleted, _event: ev.Event) -> Changes:
    return {
        **NO_EVIDENCE,
        "report_id": payload.report_id,
        "report_digest": payload.report_digest,
        "report_status": payload.status,
        "report_risk": payload.risk,
        "reason": payload.message or _waits_because(mission),
        "confidence": payload.confidence,
        "confidence_samples": payload.confidence_samples,
    }


def _approval_granted(mission: Mission, payload: ev.ApprovalGranted, event: ev.Event) -> Changes:
    granted = GrantedApproval(
        approval_id=payload.approval_id,
        approval_digest=payload.approval_digest,
        approver=payload.approver,
        key_id=payload.key_id,
        expires_at=payload.expires_at,
        granted_at=event.time,
    )
    return {"approvals": (*mission.approvals, granted)}


def _mission_approved(mission: Mission, payload: ev.MissionApproved, _event: ev.Event) -> Changes:
    return {"approved_until": payload.expires_at, "reason": _waits_because(mission)}


def _ended_with_reason(
    mission: Mission, payload: ev.MissionRejected | ev.MissionExpired | ev.MissionCancelled, _event: ev.Event
) -> Changes:
    return {**_without_repair(mission), "reason": payload.reason, "pause": None}


def _mission_returned(mission: Mission, payload: ev.MissionReturned, _event: ev.Event) -> Changes:
    void = _without_repair(mission) if mission.status is S.PAUSED else NO_EVIDENCE
    return {**void, "reason": payload.message}


def _mission_queued(_mission: Mission, payload: ev.MissionQueued, event: ev.Event) -> Changes:
    return {
        "queued_at": event.time,
        "priority": payload.priority,
        "tenant": payload.tenant,
        "not_before": payload.not_before,
        "queue_expires_at": payload.expires_at,
    }


def _mission_started(_mission: Mission, _payload: ev.MissionStarted, _event: ev.Event) -> Changes:
    return {"reason": ""}


def _execution_started(_mission: Mission, payload: ev.ExecutionStarted, _event: ev.Event) -> Changes:
    return {"execution_id": payload.execution_id}


def _gate_refused(_mission: Mission, payload: ev.GateRefused, _event: ev.Event) -> Changes:
    return {"refusal_id": payload.refusal_id, "reason": payload.message}


def _execution_completed(_mission: Mission, payload: ev.ExecutionCompleted, _event: ev.Event) -> Changes:
    return {"execution_id": payload.execution_id, "outcome": payload.outcome}


def _receipt_issued(_mission: Mission, payload: ev.ReceiptIssued, _event: ev.Event) -> Changes:
    return {
        "receipt_id": payload.receipt_id,
        "receipt_digest": payload.receipt_digest,
        "execution_id": payload.execution_id,
    }


def _execution_paused(mission: Mission, payload: ev.ExecutionPaused, _event: ev.Event) -> Changes:
    """Wait; a repair plan stays only where the execution stands as it did when the plan was made."""
    stands = mission.pause is not None and mission.pause.results_digest == payload.results_digest
    void = {} if stands else _without_repair(mission)
    return {**void, "reason": payload.reason, "pause": pause_of(payload)}


def _execution_resumed(mission: Mission, payload: ev.ExecutionResumed, _event: ev.Event) -> Changes:
    void = {} if payload.action == REPAIR else _without_repair(mission)
    return {**void, "reason": "", "pause": None}


def _execution_stopped(mission: Mission, payload: ev.ExecutionStopped, _event: ev.Event) -> Changes:
    return {**_without_repair(mission), "reason": payload.reason, "pause": None, "stopped_by": payload.actor}


def _segment_opened(mission: Mission, payload: ev.SegmentOpened, _event: ev.Event) -> Changes:
    """The executor says which plan it goes on with; that is the present one, whatever was planned here meanwhile."""
    opened = {"segment": payload.segment, "opened_segment": payload.segment}
    if payload.plan_digest == mission.plan_digest:
        return opened
    kept = (*mission.earlier, _present(mission)) if payload.segment > mission.segment else mission.earlier
    named = {"plan_id": payload.plan_id, "plan_digest": payload.plan_digest, "report_digest": payload.report_digest}
    return {**NO_EVIDENCE, **named, **opened, "plan_signatures": (), "earlier": kept}


def _mission_completed(mission: Mission, payload: ev.MissionCompleted, _event: ev.Event) -> Changes:
    ended = {"outcome": Outcome.SUCCESS, "reason": "", "final_answer": payload.final_answer, "pause": None}
    return {**_without_repair(mission), **ended}


def _mission_failed(mission: Mission, payload: ev.MissionFailed, _event: ev.Event) -> Changes:
    ended = {"outcome": payload.outcome or mission.outcome, "reason": payload.reason, "pause": None}
    return {**_without_repair(mission), **ended}


FOLDS: Final[Mapping[type[ev.Payload], Callable[[Mission, Any, ev.Event], Changes]]] = {
    **dict.fromkeys(ev.TYPES, _unchanged),
    ev.PlanSealed: _plan_sealed,
    ev.PlanSigned: _plan_signed,
    ev.DryRunCompleted: _dry_run_completed,
    ev.ApprovalGranted: _approval_granted,
    ev.MissionApproved: _mission_approved,
    ev.MissionRejected: _ended_with_reason,
    ev.MissionExpired: _ended_with_reason,
    ev.MissionCancelled: _ended_with_reason,
    ev.MissionReturned: _mission_returned,
    ev.MissionQueued: _mission_queued,
    ev.MissionStarted: _mission_started,
    ev.ExecutionStarted: _execution_started,
    ev.GateRefused: _gate_refused,
    ev.ExecutionPaused: _execution_paused,
    ev.ExecutionResumed: _execution_resumed,
    ev.ExecutionStopped: _execution_stopped,
    ev.SegmentOpened: _segment_opened,
    ev.ExecutionCompleted: _execution_completed,
    ev.ReceiptIssued: _receipt_issued,
    ev.MissionCompleted: _mission_completed,
    ev.MissionFailed: _mission_failed,
}


_READING: Final[frozenset[type[ev.Payload]]] = frozenset(
    {
        ev.PlanSigned,
        ev.ApprovalGranted,
        ev.MissionFailed,
        ev.ExecutionPaused,
        ev.ExecutionResumed,
        ev.ExecutionStopped,
        ev.SegmentOpened,
    }
)
"""Events whose fold looks at the state that the events before them led to."""
_READING_PAUSED: Final[frozenset[type[ev.Payload]]] = frozenset(
    {ev.PlanSealed, ev.DryRunCompleted, ev.MissionApproved, ev.MissionReturned}
)
"""Events whose fold does so for a mission that is paused; before an execution there is nothing for them to see."""
_ENDS: Final[tuple[type[ev.Payload], ...]] = (ev.MissionCompleted, ev.MissionCancelled)
"""Events whose fold gives up a repair plan that was never taken, where there is one."""


def reads(kind: type[ev.Payload], before: MissionStatus, changes: Mapping[str, Any]) -> bool:
    """Whether the fold of an event looks at anything that the changes before it may have changed."""
    if kind in _READING:
        return True
    if kind in _READING_PAUSED:
        return before is S.PAUSED
    return kind in _ENDS and "segment" in changes
