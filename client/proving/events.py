"""The orchestrator's leaves as the events that they are: read strictly, each from its own bytes."""

from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from client.bundle import Leaf
from client.strict_json import strict_json
from gonogo.v1 import events_pb2

SCHEMA_VERSION = 1
STREAM = "mission/"
CHAT = "chat/"
LENGTH = 10


class LeafError(ValueError):
    """A leaf is not what its log writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEvent:
    """One event of the orchestrator's log."""

    pos: int
    stream_id: str
    version: int
    type: str
    occurred_at_us: int
    actor: str
    payload: Any
    """The message of the contract that belongs to the type."""


def read_event(leaf: Leaf) -> RecordedEvent:
    """Read a leaf of the orchestrator's log.

    Raises:
        LeafError: it is not one entry of that log in the form of this release.
    """
    value = _array(leaf)
    pos, stream_id, version, name, schema, occurred, recorded, command, actor, data = value
    numbers, texts = (pos, version, schema, occurred, recorded), (stream_id, name, actor, data)
    if not all(type(one) is int for one in numbers) or not all(isinstance(one, str) for one in texts):
        raise LeafError(f"leaf {leaf.index} has values of other types")
    if command is not None and not isinstance(command, str):
        raise LeafError(f"leaf {leaf.index} names no command")
    if pos != leaf.index + 1 or schema != SCHEMA_VERSION:
        raise LeafError(f"leaf {leaf.index} says that it is entry {pos} in form {schema}")
    return RecordedEvent(
        pos=pos,
        stream_id=stream_id,
        version=version,
        type=name,
        occurred_at_us=occurred,
        actor=actor,
        payload=_payload(leaf, name, data),
    )


def _array(leaf: Leaf) -> list[Any]:
    try:
        value = strict_json(leaf.text.encode())
    except ValueError as error:
        raise LeafError(f"leaf {leaf.index} is not JSON: {error}") from None
    if not isinstance(value, list) or len(value) != LENGTH:
        raise LeafError(f"leaf {leaf.index} is no entry of an orchestrator's log")
    return value


def _payload(leaf: Leaf, name: str, data: str) -> Message:
    oneof = events_pb2.Event.DESCRIPTOR.oneofs_by_name["payload"]
    if name not in {field.name for field in oneof.fields}:
        raise LeafError(f"leaf {leaf.index} is of an unknown kind {name!r}")
    event = events_pb2.Event()
    payload: Message = getattr(event, name)
    try:
        value = strict_json(data.encode())
        if not isinstance(value, dict):
            raise LeafError(f"leaf {leaf.index} does not hold an object")
        json_format.ParseDict(value, payload, max_recursion_depth=20)
    except (json_format.ParseError, ValueError, RecursionError) as error:
        raise LeafError(f"leaf {leaf.index}: {error}") from None
    if json_format.MessageToDict(payload, preserving_proto_field_name=True) != value:
        raise LeafError(f"leaf {leaf.index} does not say it in the one way of its log")
    return payload
