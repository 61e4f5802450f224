"""A mission's life: one table, one fold, and the decisions that lead from one event to the next.

Two rules of this file. Everything that says which status follows which is in `TRANSITIONS`; a pair that is not there
is an error that names both, never a guess. And nothing here acts: a decision returns events or raises, `evolve` folds
an event into the state, and whoever calls decides what is written and sent, in which order.

How a mission goes. It is **proposed** together with its sealed plan. A dry run leaves it proposed, and so does the
approval of one person where several are needed; a new dry run replaces the report, and with it every approval that was
given for the old one. When enough persons have signed, it is **approved**. From there it is either handed to the
executor at once or **queued** until the dispatcher's turn comes.

It becomes **active** only when the executor says that it has claimed the mission. Until then nothing has been touched,
so a refusal at a gate can still send it back: to proposed, with report and approvals void, when the workspace has
drifted or the evidence no longer convinces the executor. A crash of ours between handing over and hearing of the claim
leaves an approved or queued mission that the executor may hold already. That is safe, because the executor's ledger
answers a second request with what became of the first.

An execution ends with a receipt. A success is **completed**; partial, rolled back and aborted are **failed**; an
unknown outcome is **paused**, because to call it either would be a guess. Approvals run out: an approved or queued
mission that nobody executed in time is **expired**, decided when somebody acts on it or by the sweep over the rows,
never by a timer of its own. A person's no is final: a denial rejects what is proposed and cancels what is approved.
"""

from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from operator import attrgetter
from typing import Any, Final, TypeAlias

from orchestrator.domain import events as ev
from orchestrator.domain.errors import Reason, TransitionError
from orchestrator.domain.evidence import Outcome, ReportStatus, RiskLevel


class MissionStatus(StrEnum):
    PROPOSED = "proposed"
    APPROVED = "approved"
    QUEUED = "queued"
    ACTIVE = "active"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    EXPIRED = "expired"


S = MissionStatus

ENDED: Final = frozenset({S.COMPLETED, S.FAILED, S.CANCELLED, S.REJECTED, S.EXPIRED})
"""Nothing leads out of these."""
WAITING: Final = frozenset({S.APPROVED, S.QUEUED})
"""Approved by the persons, not claimed by the executor."""

# Events that say something about a mission without moving it, by the statuses in which they can happen.
_STAYING: Final[Mapping[str, frozenset[MissionStatus]]] = {
    "plan_sealed": frozenset({S.PROPOSED}),
    "dry_run_started": frozenset({S.PROPOSED}),
    "dry_run_completed": frozenset({S.PROPOSED}),
    "plan_signed": frozenset({S.PROPOSED}),
    "approval_granted": frozenset({S.PROPOSED, S.APPROVED, S.QUEUED}),
    "approval_refused": frozenset({S.PROPOSED, S.APPROVED, S.QUEUED}),
    "gate_refused": frozenset({S.APPROVED, S.QUEUED}),
    "feedback_recorded": frozenset(S),
    **{ev.TYPES[payload]: frozenset({S.ACTIVE, S.PAUSED}) for payload in ev.EXECUTION_PAYLOADS - {ev.ExecutionPaused}},
}

TRANSITIONS: Final[Mapping[tuple[MissionStatus | None, str], MissionStatus]] = {
    (None, "mission_proposed"): S.PROPOSED,
    (S.PROPOSED, "mission_approved"): S.APPROVED,
    (S.PROPOSED, "mission_rejected"): S.REJECTED,
    (S.PROPOSED, "mission_expired"): S.EXPIRED,
    (S.PROPOSED, "mission_cancelled"): S.CANCELLED,
    (S.APPROVED, "mission_queued"): S.QUEUED,
    (S.APPROVED, "mission_started"): S.ACTIVE,
    (S.APPROVED, "mission_returned"): S.PROPOSED,
    (S.APPROVED, "mission_expired"): S.EXPIRED,
    (S.APPROVED, "mission_cancelled"): S.CANCELLED,
    (S.QUEUED, "mission_started"): S.ACTIVE,
    (S.QUEUED, "mission_returned"): S.PROPOSED,
    (S.QUEUED, "mission_expired"): S.EXPIRED,
    (S.QUEUED, "mission_cancelled"): S.CANCELLED,
    (S.ACTIVE, "execution_paused"): S.PAUSED,
    (S.PAUSED, "execution_paused"): S.PAUSED,
    (S.ACTIVE, "mission_completed"): S.COMPLETED,
    (S.ACTIVE, "mission_failed"): S.FAILED,
    (S.ACTIVE, "mission_cancelled"): S.CANCELLED,
    (S.PAUSED, "mission_completed"): S.COMPLETED,
    (S.PAUSED, "mission_failed"): S.FAILED,
    (S.PAUSED, "mission_cancelled"): S.CANCELLED,
    **{(status, name): status for name, statuses in _STAYING.items() for status in sorted(statuses)},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantedApproval:
    """An approval that counts for the mission's present report."""

    approval_id: str
    approval_digest: str
    approver: str
    key_id: str
    expires_at: datetime
    granted_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSignature:
    """A proposer's signature over the mission's sealed plan."""

    person: str
    key_id: str
    scheme: str
    signature: str
    """In base64, as the mission's row keeps it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mission:
    """Where a mission stands; nothing but a fold of its events."""

    mission_id: str
    status: MissionStatus
    created_at: datetime
    updated_at: datetime
    last_sequence: int
    objective: str
    workspace_id: str
    executor_id: str
    intent_id: str
    proposer: str
    session_id: str = ""
    message_id: str = ""
    transcription_id: str = ""
    cloned_from: str = ""
    plan_id: str = ""
    plan_digest: str = ""
    plan_signatures: tuple[PlanSignature, ...] = ()
    steps_count: int = 0
    report_id: str = ""
    report_digest: str = ""
    report_status: ReportStatus | None = None
    report_risk: RiskLevel | None = None
    approvals: tuple[GrantedApproval, ...] = ()
    approved_until: datetime | None = None
    """When the first of the approvals it stands on ends."""
    queued_at: datetime | None = None
    executor_events: int = 0
    """How many events of the executor's own are recorded: where to go on after a break."""
    execution_id: str = ""
    receipt_id: str = ""
    receipt_digest: str = ""
    outcome: Outcome | None = None
    refusal_id: str = ""
    """The last refusal, where there was one."""
    reason: str = ""
    """Why it is not where its proposer wanted it, in words; empty otherwise."""
    final_answer: str = ""

    @property
    def has_ended(self) -> bool:
        """Nothing will happen to it any more, feedback apart."""
        return self.status in ENDED


def next_status(status: MissionStatus | None, event_type: str) -> MissionStatus:
    """Look a transition up.

    Raises:
        TransitionError: the table has no such pair.
    """
    try:
        return TRANSITIONS[status, event_type]
    except KeyError:
        raise TransitionError(status or "not proposed yet", event_type) from None


def evolve(mission: Mission | None, event: ev.Event) -> Mission:
    """Fold one event into the state.

    Raises:
        TransitionError: the event can not follow.
    """
    folded = fold((event,), mission)
    assert folded is not None  # noqa: S101 - one event was folded
    return folded


def fold(events: Iterable[ev.Event], mission: Mission | None = None) -> Mission | None:
    """Fold events, in the order of their sequence, into a mission.

    What the events change is gathered and becomes one new state at the end: an execution has many events, and each of
    them changes little.

    Raises:
        TransitionError: an event can not follow.
    """
    changes: dict[str, Any] = {}
    for event in events:
        payload = event.payload
        kind = type(payload)
        if mission is None:
            mission = _proposed(event, next_status(None, ev.TYPES[kind]))
            continue
        if kind in _READING and changes:
            mission, changes = _changed(mission, changes), {}
        status = next_status(changes.get("status", mission.status), ev.TYPES[kind])
        changes |= _FOLDS[kind](mission, payload, event)
        changes |= {"status": status, "updated_at": event.time, "last_sequence": event.sequence}
        if event.actor == mission.executor_id and kind in ev.EXECUTION_PAYLOADS:
            changes["executor_events"] = changes.get("executor_events", mission.executor_events) + 1
    return _changed(mission, changes) if mission is not None and changes else mission


_NAMES: Final = tuple(field.name for field in fields(Mission))
_values = attrgetter(*_NAMES)


def _changed(mission: Mission, changes: dict[str, Any]) -> Mission:
    """Do what `dataclasses.replace` does, in half the time: every append folds at least once."""
    return Mission(**(dict(zip(_NAMES, _values(mission), strict=True)) | changes))


def _proposed(event: ev.Event, status: MissionStatus) -> Mission:
    payload = event.payload
    if not isinstance(payload, ev.MissionProposed):  # the table lets nothing else through
        raise TransitionError("not proposed yet", ev.TYPES[type(payload)])
    return Mission(
        mission_id=event.mission_id,
        status=status,
        created_at=event.time,
        updated_at=event.time,
        last_sequence=event.sequence,
        objective=payload.objective,
        workspace_id=payload.workspace_id,
        executor_id=payload.executor_id,
        intent_id=payload.intent_id,
        proposer=payload.proposer,
        session_id=payload.session_id,
        message_id=payload.message_id,
        transcription_id=payload.transcription_id,
        cloned_from=payload.cloned_from,
    )


Changes: TypeAlias = Mapping[str, Any]

NO_EVIDENCE: Final[Changes] = {
    "report_id": "",
    "report_digest": "",
    "report_status": None,
    "report_risk": None,
    "approvals": (),
    "approved_until": None,
    "queued_at": None,
}
"""What a mission that needs a fresh dry run is left with."""


def _unchanged(_mission: Mission, _payload: Any, _event: ev.Event) -> Changes:
    return {}


def _plan_sealed(_mission: Mission, payload: ev.PlanSealed, _event: ev.Event) -> Changes:
    return {"plan_id": payload.plan_id, "plan_digest": payload.plan_digest, "steps_count": len(payload.steps)}


def _plan_signed(mission: Mission, payload: ev.PlanSigned, _event: ev.Event) -> Changes:
    signature = PlanSignature(
        person=payload.person,
        key_id=payload.key_id,
        scheme=payload.scheme,
        signature=b64encode(payload.signature).decode(),
    )
    return {"plan_signatures": (*mission.plan_signatures, signature)}


def _dry_run_completed(_mission: Mission, payload: ev.DryRunCompleted, _event: ev.Event) -> Changes:
    return {
        **NO_EVIDENCE,
        "report_id": payload.report_id,
        "report_digest": payload.report_digest,
        "report_status": payload.status,
        "report_risk": payload.risk,
        "reason": payload.message,
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


def _mission_approved(_mission: Mission, payload: ev.MissionApproved, _event: ev.Event) -> Changes:
    return {"approved_until": payload.expires_at, "reason": ""}


def _ended_with_reason(
    _mission: Mission, payload: ev.MissionRejected | ev.MissionExpired | ev.MissionCancelled, _event: ev.Event
) -> Changes:
    return {"reason": payload.reason}


def _mission_returned(_mission: Mission, payload: ev.MissionReturned, _event: ev.Event) -> Changes:
    return {**NO_EVIDENCE, "reason": payload.message}


def _mission_queued(_mission: Mission, _payload: ev.MissionQueued, event: ev.Event) -> Changes:
    return {"queued_at": event.time}


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


def _execution_paused(_mission: Mission, payload: ev.ExecutionPaused, _event: ev.Event) -> Changes:
    return {"reason": payload.reason}


def _mission_completed(_mission: Mission, payload: ev.MissionCompleted, _event: ev.Event) -> Changes:
    return {"outcome": Outcome.SUCCESS, "reason": "", "final_answer": payload.final_answer}


def _mission_failed(mission: Mission, payload: ev.MissionFailed, _event: ev.Event) -> Changes:
    return {"outcome": payload.outcome or mission.outcome, "reason": payload.reason}


_FOLDS: Final[Mapping[type[ev.Payload], Callable[[Mission, Any, ev.Event], Changes]]] = {
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
    ev.ExecutionCompleted: _execution_completed,
    ev.ReceiptIssued: _receipt_issued,
    ev.MissionCompleted: _mission_completed,
    ev.MissionFailed: _mission_failed,
}


_READING: Final[frozenset[type[ev.Payload]]] = frozenset({ev.PlanSigned, ev.ApprovalGranted, ev.MissionFailed})
"""Events whose fold looks at the state that the events before them led to."""


def reason_of_report(status: ReportStatus) -> Reason:
    """Return the gate's reason for a report that is no success."""
    return {
        ReportStatus.UNSAFE: Reason.SIMULATION_UNSAFE,
        ReportStatus.BLOCKED: Reason.SIMULATION_BLOCKED,
        ReportStatus.FAILED: Reason.SIMULATION_FAILED,
    }[status]
