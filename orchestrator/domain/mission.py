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

While it is under way it may be **paused**: a person asked for it, a step failed, a step or an effect waits for a
signed word. Then the executor waits, durably, and goes on when it is told to (the mission is active again), or stops.
What stops is active until its receipt is there, since it may have much to undo. A paused mission can take a repair
plan: the plan of the next *segment* of the same execution, with a dry run and approvals of its own, all of them while
it stays paused. What the segment before stood on is kept in `earlier`. The executor opens the segment, or refuses it,
and then the plan is void and the mission stands where it stood; and so it is void when the execution moves by itself.

An execution ends with a receipt. A success is **completed**; partial, rolled back and aborted are **failed**, or
**cancelled** where a person stopped it; an unknown outcome is **paused**, because to call it either would be a guess.
Approvals run out: an approved or queued mission that nobody executed in time is **expired**, decided when somebody
acts on it or by the sweep over the rows, never by a timer of its own. A person's no is final: a denial rejects what is
proposed and cancels what is approved.
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from operator import attrgetter
from typing import Any, Final

from orchestrator.domain import events as ev
from orchestrator.domain.errors import Reason, TransitionError
from orchestrator.domain.evidence import ReportStatus
from orchestrator.domain.mission_folds import FOLDS, REPAIR, reads
from orchestrator.domain.standing import ENDED, GrantedApproval, Mission, MissionStatus, PlanSignature, Segment

__all__ = [
    "ENDED",
    "REPAIR",
    "TRANSITIONS",
    "WAITING",
    "GrantedApproval",
    "Mission",
    "MissionStatus",
    "PlanSignature",
    "Segment",
    "evolve",
    "fold",
    "next_status",
    "reason_of_report",
]

S = MissionStatus

WAITING: Final = frozenset({S.APPROVED, S.QUEUED})
"""Approved by the persons, not claimed by the executor."""

# Events that say something about a mission without moving it, by the statuses in which they can happen.
_STAYING: Final[Mapping[str, frozenset[MissionStatus]]] = {
    "plan_sealed": frozenset({S.PROPOSED, S.PAUSED}),
    "dry_run_started": frozenset({S.PROPOSED, S.PAUSED}),
    "dry_run_completed": frozenset({S.PROPOSED, S.PAUSED}),
    "plan_signed": frozenset({S.PROPOSED, S.PAUSED}),
    "approval_granted": frozenset({S.PROPOSED, S.APPROVED, S.QUEUED, S.PAUSED}),
    "approval_refused": frozenset({S.PROPOSED, S.APPROVED, S.QUEUED, S.PAUSED}),
    "mission_approved": frozenset({S.PAUSED}),
    "mission_returned": frozenset({S.PAUSED}),
    "gate_refused": frozenset({S.APPROVED, S.QUEUED, S.PAUSED}),
    "feedback_recorded": frozenset(S),
    "signal_recorded": frozenset(S),
    **{
        ev.TYPES[payload]: frozenset({S.ACTIVE, S.PAUSED})
        for payload in ev.EXECUTION_PAYLOADS - {ev.ExecutionPaused, ev.ExecutionResumed, ev.ExecutionStopped}
    },
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
    (S.PAUSED, "execution_resumed"): S.ACTIVE,
    (S.ACTIVE, "execution_resumed"): S.ACTIVE,
    (S.PAUSED, "execution_stopped"): S.ACTIVE,
    (S.ACTIVE, "execution_stopped"): S.ACTIVE,
    (S.ACTIVE, "mission_completed"): S.COMPLETED,
    (S.ACTIVE, "mission_failed"): S.FAILED,
    (S.ACTIVE, "mission_cancelled"): S.CANCELLED,
    (S.PAUSED, "mission_completed"): S.COMPLETED,
    (S.PAUSED, "mission_failed"): S.FAILED,
    (S.PAUSED, "mission_cancelled"): S.CANCELLED,
    **{(status, name): status for name, statuses in _STAYING.items() for status in sorted(statuses)},
}


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
        before = changes.get("status", mission.status)
        if changes and reads(kind, before, changes):
            mission, changes = _changed(mission, changes), {}
        status = next_status(before, ev.TYPES[kind])
        changes |= FOLDS[kind](mission, payload, event)
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


def reason_of_report(status: ReportStatus) -> Reason:
    """Return the gate's reason for a report that is no success."""
    return {
        ReportStatus.UNSAFE: Reason.SIMULATION_UNSAFE,
        ReportStatus.BLOCKED: Reason.SIMULATION_BLOCKED,
        ReportStatus.FAILED: Reason.SIMULATION_FAILED,
    }[status]
