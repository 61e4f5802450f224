"""Events as lines: for a person, and for a program."""

import json
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from client.json_form import rfc3339, short_enum, to_json
from gonogo.safe_text import excerpt, safe_line, shown_argv
from gonogo.v1 import events_pb2

VALUE_CHARACTERS = 160


def event_json(event: events_pb2.Event) -> dict[str, object]:
    """Return an event as scripts read it: its type by name, its payload below ``data``."""
    name = event.WhichOneof("payload")
    return {
        "event_id": event.event_id,
        "mission_id": event.mission_id,
        "sequence": event.sequence,
        "time": rfc3339(event.time),
        "actor": event.actor,
        "type": name,
        "data": to_json(getattr(event, name)) if name else {},
    }


def event_line(event: events_pb2.Event) -> str:
    """Return an event on one line."""
    name = event.WhichOneof("payload") or "unknown"
    payload: Message = getattr(event, name) if name != "unknown" else events_pb2.Event()
    shown = [field for field in payload.DESCRIPTOR.fields if _worth_showing(payload, field)]
    values = " ".join(f"{field.name}={_value(field, getattr(payload, field.name))}" for field in shown)
    moment = f"{event.time.ToDatetime():%H:%M:%S.%f}"[:-3]
    return f"{event.sequence:>4}  {moment}  {name:<20}  {values}".rstrip()


def _worth_showing(payload: Message, field: Any) -> bool:
    """A no is an answer; other unset fields only fill the line."""
    value = getattr(payload, field.name)
    return isinstance(value, bool) or (payload.HasField(field.name) if field.has_presence else bool(value))


def _value(field: Any, value: Any) -> str:
    if field.is_repeated:
        return _values(field, value)
    if field.enum_type is not None:
        return short_enum(field.enum_type, value) or "-"
    if isinstance(value, Timestamp):
        return rfc3339(value)
    if isinstance(value, Message):
        return "{…}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = safe_line(excerpt(str(value), VALUE_CHARACTERS))
    return json.dumps(text, ensure_ascii=False) if set(text) & set(' "') else text


def _values(field: Any, values: Any) -> str:
    if field.message_type is not None:
        return f"{len(values)} items"
    if field.enum_type is not None:
        return ",".join(short_enum(field.enum_type, one) or "-" for one in values)
    return shown_argv([str(one) for one in values])
