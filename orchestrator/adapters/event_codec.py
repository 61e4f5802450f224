"""Events ↔ rows of the log: type, schema version, and the payload's ProtoJSON, written once."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final

from google.protobuf.message_factory import GetMessageClass

from gonogo.v1 import events_pb2
from orchestrator.adapters.contract_errors import contract_error
from orchestrator.adapters.field_mapper import MessageMap, message_map
from orchestrator.domain.events import PAYLOADS, TYPES, Event, Payload, event_id
from orchestrator.service.event_log import NewEvent, StoredEvent
from orchestrator.service.streams import key_of, mission_of

SCHEMA_VERSION: Final = 1

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@cache
def payload_maps() -> Mapping[str, MessageMap[Any]]:
    """Return the table of every event type."""
    oneof = events_pb2.Event.DESCRIPTOR.oneofs_by_name["payload"]
    messages = {field.name: GetMessageClass(field.message_type) for field in oneof.fields if field.message_type}
    if messages.keys() != PAYLOADS.keys():
        raise contract_error(f"event types differ: {sorted(messages.keys() ^ PAYLOADS.keys())}")
    return {name: message_map(PAYLOADS[name], message) for name, message in messages.items()}


class JsonEventCodec:
    """`EventCodec` that writes ProtoJSON."""

    def __init__(self) -> None:
        self._maps = payload_maps()
        self._encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode

    def encode(self, payload: Payload, *, time: datetime, actor: str) -> NewEvent:
        name = TYPES[type(payload)]
        return NewEvent(
            type=name,
            schema_version=SCHEMA_VERSION,
            occurred_at_us=(time - _EPOCH) // _MICROSECOND,
            actor=actor,
            data=self._encode(self._maps[name].to_json(payload)),
            just_encoded=True,
        )

    def decode(self, stored: StoredEvent) -> Event:
        table = self._maps.get(stored.type)
        if table is None or stored.schema_version != SCHEMA_VERSION:
            raise contract_error(f"event {stored.pos}: {stored.type} version {stored.schema_version} is not known")
        return Event(
            event_id=event_id(key_of(stored.stream_id), stored.version),
            mission_id=mission_of(stored.stream_id),
            sequence=stored.version,
            time=_EPOCH + stored.occurred_at_us * _MICROSECOND,
            actor=stored.actor,
            payload=table.from_json(json.loads(stored.data)),
        )
