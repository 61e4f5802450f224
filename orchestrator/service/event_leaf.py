"""What of an event is in the audit log's tree: one line of JSON that holds everything that is stored of it."""

from json.encoder import encode_basestring as quoted
from typing import Final

from gonogo.merkle import leaf_hash
from orchestrator.service.event_log import NewEvent, StoredEvent

_NULL: Final = "null"


def event_leaf(
    pos: int, stream_id: str, version: int, event: NewEvent | StoredEvent,
    *, recorded_at_us: int, command_id: str | None,
) -> bytes:  # fmt: skip
    """Return an event's leaf: a compact JSON array in UTF-8, which tells by itself what was recorded.

    [pos, stream id, version, type, schema version, occurred at, recorded at, command id, actor, data]: times in
    microseconds since 1970, the command's id null where there is none, and data as the text that is stored, so that
    whoever has an export can make the same bytes. Written out by hand because a JSON encoder takes three times as long,
    and every event pays for it.
    """
    command = _NULL if command_id is None else quoted(command_id)
    text = (
        f"[{pos},{quoted(stream_id)},{version},{quoted(event.type)},{event.schema_version},{event.occurred_at_us},"
        f"{recorded_at_us},{command},{quoted(event.actor)},{quoted(event.data)}]"
    )
    return text.encode()


def stored_leaf(event: StoredEvent) -> bytes:
    """Return the leaf of an event as the log holds it now."""
    return event_leaf(
        event.pos,
        event.stream_id,
        event.version,
        event,
        recorded_at_us=event.recorded_at_us,
        command_id=event.command_id,
    )


def is_as_written(event: StoredEvent) -> bool:
    """Tell whether an event still has the hash that it was written with."""
    return leaf_hash(stored_leaf(event)) == event.leaf_hash
