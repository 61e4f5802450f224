"""What an event log says of itself: whether its events are as they were written, its export, its digests."""

import base64
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator

from orchestrator.service.event_leaf import is_as_written
from orchestrator.service.event_log import (
    CountedReader,
    Document,
    EventReader,
    ProjectionRow,
    StoredDocument,
    StoredEvent,
)
from orchestrator.service.streams import MISSIONS

_DOCUMENT_PAGE = 8  # bodies may be large


def first_bad_event(log: EventReader) -> int | None:
    """Returns the first `pos` that is missing, altered or out of order, or None when every event is as it was written.

    This finds what was changed by someone who did not recompute the hashes, and a lost tail of a stream. Whether hashes
    were written anew is told by the checkpoints, `service.audit_check`, and by those that others keep.
    """
    versions: dict[str, int] = {}
    pos = 0
    for event in all_events(log):
        pos += 1
        version = versions.get(event.stream_id, 0) + 1
        if (event.pos, event.version) != (pos, version) or not is_as_written(event):
            return pos
        versions[event.stream_id] = version
    if log.head() == pos and any(log.stream_version(stream) > version for stream, version in versions.items()):
        return pos + 1
    return None


def export_lines(log: EventReader) -> Iterator[str]:
    """Yields every event and document as one line of JSON each, in the order of `pos`.

    A document comes before the events of the append that brought it. An event's `data` is last in its line and is
    exactly the stored text, so that each leaf of the tree can be made from the export; `body_base64` is a document's
    exact bytes and `body` the same as JSON, where it is JSON. What is appended while the export runs is not in it.
    """
    head = log.head()
    documents = _documents(log)
    waiting = next(documents, None)
    for event in itertools.takewhile(lambda event: event.pos <= head, all_events(log)):
        while waiting is not None and waiting.pos <= event.pos:
            yield _document_line(waiting)
            waiting = next(documents, None)
        yield _event_line(event)


def projection_digest(log: EventReader, name: str) -> str:
    """Returns the digest of a projection's rows; two logs with the same digest hold the same state."""
    return digest_rows(_rows(log, name))


def state_digest(log: CountedReader) -> str:
    """Returns the digest of all that is folded from a log: where the missions stand, and what outcomes taught."""
    digest = hashlib.sha256(projection_digest(log, MISSIONS).encode())
    for query in ("steps", "stated", "failure_rows", "stages"):
        for row in log.counted(query):
            digest.update(json.dumps(list(row)).encode() + b"\n")
    return "sha256:" + digest.hexdigest()


def digest_rows(rows: Iterable[ProjectionRow]) -> str:
    """Returns SHA-256 over rows that are in the order of their keys' UTF-8 bytes.

    Each row is key, status, sort_key and data, each written as `<length>:<bytes>`.
    """
    digest = hashlib.sha256()
    for row in rows:
        for text in (row.key, row.status, row.sort_key, row.data):
            part = text.encode()
            digest.update(b"%d:%b" % (len(part), part))
    return "sha256:" + digest.hexdigest()


def _event_line(event: StoredEvent) -> str:
    fields = {
        "kind": "event",
        "pos": event.pos,
        "stream_id": event.stream_id,
        "version": event.version,
        "type": event.type,
        "schema_version": event.schema_version,
        "occurred_at_us": event.occurred_at_us,
        "recorded_at_us": event.recorded_at_us,
        "command_id": event.command_id,
        "actor": event.actor,
        "leaf_hash": event.leaf_hash.hex(),
    }
    return f'{json.dumps(fields)[:-1]}, "data": {event.data}}}'


def _document_line(stored: StoredDocument) -> str:
    document = stored.document
    return json.dumps(
        {
            "kind": "document",
            "pos": stored.pos,
            "digest": document.digest,
            "media_type": document.media_type,
            "signatures": json.loads(document.signatures),
            "body_base64": base64.b64encode(document.body).decode("ascii"),
            "body": _as_json(document),
        }
    )


def _as_json(document: Document) -> object:
    try:
        return json.loads(document.body)
    except ValueError:  # UnicodeDecodeError is one
        return None


def all_events(log: EventReader) -> Iterator[StoredEvent]:
    """Yields every event in the order of `pos`, page by page."""
    pos = 0
    while page := log.read_all(pos):
        yield from page
        pos = page[-1].pos


def _documents(log: EventReader) -> Iterator[StoredDocument]:
    sequence = 0
    while page := log.documents(sequence, _DOCUMENT_PAGE):
        yield from page
        sequence = page[-1].sequence


def _rows(log: EventReader, name: str) -> Iterator[ProjectionRow]:
    key = ""
    while page := log.projection_keys(name, after_key=key):
        yield from page
        key = page[-1].key
