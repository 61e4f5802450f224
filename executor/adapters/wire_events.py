"""Events into the contract, and as the JSON text in which the ledger keeps them, and back.

An event's class has the fields of its message, by the same names; `PAYLOADS` names the message's place in the `Event`
and `ENUMS` the fields that hold an enum. The contract test compares both with the descriptors.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from executor.adapters.wire_changes import time_to_proto
from executor.adapters.wire_enums import OUTCOMES, RISKS, STAGES, STREAMS, EnumTable
from executor.domain import events
from executor.domain.events import Payload
from executor.domain.receipt import Refusal
from executor.runner.ports import Event
from gonogo.safe_text import shown_path
from gonogo.v1 import events_pb2

ACTOR: Final = "executor"

PAYLOADS: Final[Mapping[type[Payload], str]] = {
    events.DryRunStarted: "dry_run_started",
    events.ExecutionStarted: "execution_started",
    events.StageChanged: "stage_changed",
    events.StepStarted: "step_started",
    events.RetrievalStarted: "retrieval_started",
    events.RetrievalCompleted: "retrieval_completed",
    events.CheckpointCreated: "checkpoint_created",
    events.DiffProposed: "diff_proposed",
    events.StepOutput: "step_output",
    events.StepCompleted: "step_completed",
    events.FailureDetected: "failure_detected",
    events.DivergenceDetected: "divergence_detected",
    events.ApprovalRevoked: "approval_revoked",
    events.ExecutionPaused: "execution_paused",
    events.RollbackStarted: "rollback_started",
    events.RollbackCompleted: "rollback_completed",
    events.ExecutionCompleted: "execution_completed",
    events.ReceiptIssued: "receipt_issued",
}
ENUMS: Final[Mapping[str, EnumTable[Any, Any]]] = {
    "stage": STAGES,
    "risk": RISKS,
    "outcome": OUTCOMES,
    "stream": STREAMS,
}

_CLASSES: Final = {name: payload for payload, name in PAYLOADS.items()}
_FIELDS: Final = {payload: tuple(field.name for field in dataclasses.fields(payload)) for payload in PAYLOADS}
_MESSAGES: Final = {payload: getattr(events_pb2, payload.__name__) for payload in PAYLOADS}

_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def event_to_proto(event: Event) -> events_pb2.Event:
    """Map one event."""
    payload = event.payload
    kind = type(payload)
    message = events_pb2.Event(
        event_id=event.event_id,
        mission_id=event.mission_id,
        sequence=event.sequence,
        time=time_to_proto(event.time),
        actor=ACTOR,
    )
    getattr(message, PAYLOADS[kind]).CopyFrom(_MESSAGES[kind](**_values(payload)))
    return message


def _event_value(event: Event) -> dict[str, Any]:
    """Return one event's ProtoJSON value, which costs a tenth here of what the message's own printer takes."""
    payload = event.payload
    fields = _FIELDS[type(payload)]
    return {
        "event_id": event.event_id,
        "mission_id": event.mission_id,
        "sequence": event.sequence,
        "time": _time(event.time),
        "actor": ACTOR,
        PAYLOADS[type(payload)]: {name: _text(name, getattr(payload, name)) for name in fields},
    }


def events_to_json(events: Iterable[Event]) -> str:
    """Write events as one JSON array."""
    return _encode([_event_value(event) for event in events])


def events_from_json(text: str) -> tuple[Event, ...]:
    """Read an array that `events_to_json` wrote."""
    return tuple(_event(value) for value in json.loads(text))


def _event(value: Mapping[str, Any]) -> Event:
    [name] = value.keys() & _CLASSES.keys()
    return Event(
        event_id=value["event_id"],
        mission_id=value["mission_id"],
        sequence=value["sequence"],
        time=datetime.fromisoformat(value["time"]),
        payload=_payload(_CLASSES[name], value[name]),
    )


def _values(payload: Payload) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in _FIELDS[type(payload)]:
        value = getattr(payload, name)
        table = ENUMS.get(name)
        values[name] = value if table is None else table.to_wire(value)
    return values


def _text(name: str, value: Any) -> Any:
    table = ENUMS.get(name)
    return value if table is None else table.to_name(value)


def _payload(kind: type[Payload], values: Mapping[str, Any]) -> Payload:
    read: dict[str, Any] = {}
    for name in _FIELDS[kind]:
        table = ENUMS.get(name)
        value = values[name] if table is None else table.from_name(values[name])
        read[name] = tuple(value) if isinstance(value, list) else value
    return kind(**read)


def refusal_event(refusal: Refusal) -> str:
    """Write the event that a gate refused; it belongs to no execution, so the refusal's own record keeps it."""
    value = {
        "event_id": refusal.refusal_id,
        "mission_id": refusal.mission_id,
        "time": _time(refusal.refused_at),
        "actor": ACTOR,
        "gate_refused": {
            "refusal_id": refusal.refusal_id,
            "gate": refusal.gate,
            "reason": refusal.abort_reason,
            "message": refusal.message,
            "remedy": refusal.remedy,
            "paths": [shown_path(path) for path in refusal.paths],
        },
    }
    return _encode(value)


def _time(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
