"""Where a mission stands, computed from its events: a table and a fold, as the orchestrator's own are.

The client imports nothing of the orchestrator, so that this is a second opinion; a test holds the two tables together.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from client.json_form import rfc3339, short_name
from client.mission_state import NAMES, MissionState
from client.proving.events import STREAM, LeafError, RecordedEvent

WAITING = frozenset({"approved", "queued"})
RUNNING = frozenset({"active", "paused"})
EVERY = frozenset(
    {
        *("proposed", "approved", "queued", "active", "paused"),
        *("completed", "failed", "cancelled", "rejected", "expired"),
    }
)

MOVES: Mapping[tuple[str, str], str] = {
    ("", "mission_proposed"): "proposed",
    ("proposed", "mission_approved"): "approved",
    ("proposed", "mission_rejected"): "rejected",
    **{(status, "mission_expired"): "expired" for status in ("proposed", "approved", "queued")},
    **{(status, "mission_cancelled"): "cancelled" for status in ("proposed", "approved", "queued", "active", "paused")},
    ("approved", "mission_queued"): "queued",
    **{(status, "mission_started"): "active" for status in ("approved", "queued")},
    **{(status, "mission_returned"): "proposed" for status in ("approved", "queued")},
    **{(status, "execution_paused"): "paused" for status in ("active", "paused")},
    **{(status, "execution_resumed"): "active" for status in ("active", "paused")},
    **{(status, "execution_stopped"): "active" for status in ("active", "paused")},
    **{(status, "mission_completed"): "completed" for status in ("active", "paused")},
    **{(status, "mission_failed"): "failed" for status in ("active", "paused")},
}
"""What moves a mission."""

STAYS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(
        ("plan_sealed", "plan_signed", "dry_run_started", "dry_run_completed"), frozenset({"proposed", "paused"})
    ),
    **dict.fromkeys(("approval_granted", "approval_refused"), WAITING | {"proposed", "paused"}),
    **dict.fromkeys(("mission_approved", "mission_returned"), frozenset({"paused"})),
    "gate_refused": WAITING | {"paused"},
    **dict.fromkeys(("feedback_recorded", "signal_recorded"), EVERY),
    **dict.fromkeys(
        (
            *("execution_started", "stage_changed", "step_started", "retrieval_started", "retrieval_completed"),
            *("checkpoint_created", "diff_proposed", "step_output", "step_completed", "failure_detected"),
            *("divergence_detected", "approval_revoked", "rollback_started", "rollback_completed"),
            *("execution_completed", "receipt_issued", "segment_opened", "step_approved", "effect_claimed"),
            "step_reconciled",
        ),
        RUNNING,
    ),
}
"""What says something of a mission and leaves it where it is, by where that can be."""

PLAN = ("segment", "plan_id", "plan_digest", "report_id", "report_digest", "report_status")
"""What a mission has of each segment of its execution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing(MissionState):
    """A mission's state with what its fold needs besides."""

    opened: int = 0
    """The segment that the execution is in."""
    waits_at: str | None = None
    """Digest of what a paused execution has done; None while it does not wait, or does not say for what."""
    earlier: tuple[Mapping[str, Any], ...] = ()
    """What the segments before the present plan's stood on."""


Fold = Callable[[Standing, Any], Standing]


def replayed(mission_id: str, events: Iterable[RecordedEvent]) -> MissionState:
    """Return where a mission stands after its events.

    Raises:
        LeafError: an event is missing, stands twice, is of another stream, or can not follow.
    """
    state = Standing(mission_id=mission_id)
    for number, event in enumerate(events, 1):
        if event.stream_id != STREAM + mission_id:
            raise LeafError(f"entry {event.pos} belongs to {event.stream_id}")
        if event.version != number:
            raise LeafError(f"entry {event.pos} is number {event.version} of the mission's events, not {number}")
        status = _next(state.status, event)
        folded = FOLDS.get(event.type, _unchanged)(state, event.payload)
        at = _time(event.occurred_at_us)
        created = folded.created_at or at
        state = replace(folded, status=status, created_at=created, updated_at=at, last_sequence=number)
    return MissionState(**{name: getattr(state, name) for name in NAMES})


def _next(status: str, event: RecordedEvent) -> str:
    if status in STAYS.get(event.type, ()):
        return status
    try:
        return MOVES[status, event.type]
    except KeyError:
        shown = status or "not proposed yet"
        raise LeafError(f"entry {event.pos}: {event.type} can not happen to a mission that is {shown}") from None


def _time(microseconds: int) -> str:
    time = Timestamp()
    try:
        time.FromMicroseconds(microseconds)
        return rfc3339(time)
    except (ValueError, OverflowError):
        raise LeafError(f"{microseconds} is no time") from None


def _unchanged(state: Standing, _payload: Any) -> Standing:
    return state


def _proposed(state: Standing, payload: Any) -> Standing:
    return replace(
        state,
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


def _plan_sealed(state: Standing, payload: Any) -> Standing:
    kept = (*state.earlier, _present(state)) if payload.segment > state.segment else state.earlier
    return replace(
        state,
        segment=payload.segment,
        plan_id=payload.plan_id,
        plan_digest=payload.plan_digest,
        report_id="",
        report_digest="",
        report_status="",
        earlier=kept,
    )


def _present(state: Standing) -> Mapping[str, Any]:
    return {name: getattr(state, name) for name in PLAN}


def _without_repair(state: Standing) -> Standing:
    """Give up a repair plan that the executor has not taken, if there is one."""
    if state.segment == state.opened or not state.earlier:
        return state
    *earlier, present = state.earlier
    return replace(state, **present, earlier=tuple(earlier))


def _tried(state: Standing, payload: Any) -> Standing:
    status = short_name(payload, "status")
    return replace(state, report_id=payload.report_id, report_digest=payload.report_digest, report_status=status)


def _returned(state: Standing, _payload: Any) -> Standing:
    if state.status == "paused":
        return _without_repair(state)
    return replace(state, report_id="", report_digest="", report_status="")


def _paused(state: Standing, payload: Any) -> Standing:
    stands = state.waits_at == payload.results_digest
    waits_at = payload.results_digest if payload.kind else None
    return replace(state if stands else _without_repair(state), waits_at=waits_at)


def _resumed(state: Standing, payload: Any) -> Standing:
    return replace(state if payload.action == "repair" else _without_repair(state), waits_at=None)


def _stopped(state: Standing, _payload: Any) -> Standing:
    return replace(_without_repair(state), waits_at=None)


def _opened(state: Standing, payload: Any) -> Standing:
    opened = replace(state, segment=payload.segment, opened=payload.segment)
    if payload.plan_digest == state.plan_digest:
        return opened
    kept = (*state.earlier, _present(state)) if payload.segment > state.segment else state.earlier
    return replace(
        opened,
        plan_id=payload.plan_id,
        plan_digest=payload.plan_digest,
        report_id="",
        report_digest=payload.report_digest,
        report_status="",
        earlier=kept,
    )


def _started(state: Standing, payload: Any) -> Standing:
    return replace(state, execution_id=payload.execution_id)


def _ended(state: Standing, payload: Any) -> Standing:
    return replace(state, execution_id=payload.execution_id, outcome=short_name(payload, "outcome"))


def _receipt(state: Standing, payload: Any) -> Standing:
    return replace(state, receipt_id=payload.receipt_id, execution_id=payload.execution_id)


def _completed(state: Standing, _payload: Any) -> Standing:
    return replace(_without_repair(state), outcome="success")


def _failed(state: Standing, payload: Any) -> Standing:
    return replace(_without_repair(state), outcome=short_name(payload, "outcome") or state.outcome)


def _cancelled(state: Standing, _payload: Any) -> Standing:
    return _without_repair(state)


FOLDS: Mapping[str, Fold] = {
    "mission_proposed": _proposed,
    "plan_sealed": _plan_sealed,
    "dry_run_completed": _tried,
    "mission_returned": _returned,
    "execution_started": _started,
    "execution_paused": _paused,
    "execution_resumed": _resumed,
    "execution_stopped": _stopped,
    "segment_opened": _opened,
    "execution_completed": _ended,
    "receipt_issued": _receipt,
    "mission_completed": _completed,
    "mission_failed": _failed,
    "mission_cancelled": _cancelled,
}
