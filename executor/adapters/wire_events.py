"""Events into the contract, and as the JSON text in which the ledger keeps them, and back.

An event's class has the fields of its message, by the same names; `PAYLOADS` names the message's place in the `Event`
and `ENUMS` the fields that hold an enum. The contract test compares both with the descriptors. A field of None is left
out of the text; a field that an event of an older release lacks is what its class says.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from executor.adapters.wire_changes import time_to_proto
from executor.adapters.wire_enums import (
    CONTROL_ACTIONS,
    OUTCOMES,
    PAUSE_DEFAULTS,
    PAUSE_KINDS,
    RISKS,
    STAGES,
    STREAMS,
    EnumTable,
)
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
    events.ExecutionResumed: "execution_resumed",
    events.ExecutionStopped: "execution_stopped",
    events.SegmentOpened: "segment_opened",
    events.StepApproved: "step_approved",
    events.EffectClaimed: "effect_claimed",
    events.StepReconciled: "step_reconciled",
    events.RollbackStarted: "rollback_started",
    events.RollbackCompleted: "rollback_completed",
    events.ExecutionCompleted: "execution_completed",
    events.ReceiptIssued: "receipt_issued",
}
_EVERYWHERE: Final[Mapping[str, EnumTable[Any, Any]]] = {
    "stage": STAGES,
    "risk": RISKS,
    "outcome": OUTCOMES,
    "stream": STREAMS,
}
_OF_ONE: Final[Mapping[type[Payload], Mapping[str, EnumTable[Any, Any]]]] = {
    events.ExecutionPaused: {"kind": PAUSE_KINDS, "default_action": PAUSE_DEFAULTS, "actions": CONTROL_ACTIONS},
}


def _enums(payload: type[Payload]) -> dict[str, EnumTable[Any, Any]]:
    names = {field.name for field in dataclasses.fields(payload)}
    everywhere = {name: table for name, table in _EVERYWHERE.items() if name in names}
    return {**everywhere, **_OF_ONE.get(payload, {})}


ENUMS: Final = {payload: _enums(payload) for payload in PAYLOADS}
TIMES: Final = frozenset({"deadline"})
"""The fields that hold a time."""

_CLASSES: Final = {name: payload for payload, name in PAYLOADS.items()}
_FIELDS: Final = {payload: tuple(field.name for field in dataclasses.fields(payload)) for payload in PAYLOADS}
_TIMES_OF: Final = {payload: TIMES.intersection(names) for payload, names in _FIELDS.items()}
_MESSAGES: Final = {payload: getattr(events_pb2, payload.__name__) for payload in PAYLOADS}

_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def event_to_proto(event: Event) -> events_pb2.Event:
    """Map one event."""
    payload = event.payload
    kind = type(payload)
    told: dict[str, Any] = {PAYLOADS[kind]: _MESSAGES[kind](**_values(payload))}
    return events_pb2.Event(
        event_id=event.event_id,
        mission_id=event.mission_id,
        sequence=event.sequence,
        time=time_to_proto(event.time),
        actor=ACTOR,
        **told,
    )


def _event_value(event: Event) -> dict[str, Any]:
    """Return one event's ProtoJSON value, which costs a tenth here of what the message's own printer takes."""
    payload = event.payload
    return {
        "event_id": event.event_id,
        "mission_id": event.mission_id,
        "sequence": event.sequence,
        "time": _time(event.time),
        "actor": ACTOR,
        PAYLOADS[type(payload)]: _texts(payload),
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
    kind = type(payload)
    values = {name: getattr(payload, name) for name in _FIELDS[kind]}
    for name, table in ENUMS[kind].items():
        value = values[name]
        if isinstance(value, tuple):
            values[name] = [table.to_wire(one) for one in value]
        else:
            values[name] = 0 if value is None else table.to_wire(value)
    for name in _TIMES_OF[kind]:
        value = values[name]
        values[name] = None if value is None else time_to_proto(value)
    return values


def _texts(payload: Payload) -> dict[str, Any]:
    kind = type(payload)
    texts = {name: value for name in _FIELDS[kind] if (value := getattr(payload, name)) is not None}
    for name, table in ENUMS[kind].items():
        value = texts.get(name)
        if isinstance(value, tuple):
            texts[name] = [table.to_name(one) for one in value]
        elif value is not None:
            texts[name] = table.to_name(value)
    for name in _TIMES_OF[kind] & texts.keys():
        texts[name] = _time(texts[name])
    return texts


def _payload(kind: type[Payload], values: Mapping[str, Any]) -> Payload:
    tables = ENUMS[kind]
    read: dict[str, Any] = {}
    for name in _FIELDS[kind]:
        if name not in values:
            continue
        value = values[name]
        if isinstance(value, list):
            table = tables.get(name)
            value = tuple(value) if table is None else tuple(map(table.from_name, value))
        elif name in tables:
            value = tables[name].from_name(value)
        elif name in TIMES:
            value = datetime.fromisoformat(value)
        read[name] = value
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
