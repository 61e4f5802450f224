"""What paths are and how they changed, between the contract and the domain."""

import re
from datetime import UTC, datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from executor.adapters.wire_enums import CHANGE_KINDS, NODE_TYPES
from executor.adapters.wire_texts import mode_from_text, number_from_text
from executor.domain.changes import Change, Node, NodeType
from executor.domain.errors import RequestMalformedError
from gonogo.safe_text import path_bytes, path_fields
from gonogo.v1 import evidence_pb2

_NANOSECONDS: Final = re.compile(r"0|-?[1-9][0-9]{0,19}", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_SECONDS: Final = 24 * 60 * 60


def time_to_proto(time: datetime) -> Timestamp:
    """Map a time."""
    since = time - _EPOCH
    return Timestamp(seconds=since.days * _DAY_SECONDS + since.seconds, nanos=since.microseconds * 1000)


def path_from_proto(text: str, raw: bytes) -> bytes:
    """Return a path's bytes; a shown name that is not how the bytes are shown would hide what is meant."""
    try:
        return path_bytes(text, raw)
    except ValueError as error:
        raise RequestMalformedError("MALFORMED", str(error), "send the document as it was made") from None


def node_to_proto(node: Node) -> evidence_pb2.NodeState:
    """Map what a path is; only files have a size."""
    target, raw_target = path_fields(node.link_target)
    return evidence_pb2.NodeState(
        type=NODE_TYPES.to_wire(node.type),
        mode=f"{node.mode:04o}",
        digest=node.digest,
        size=str(node.size) if node.type is NodeType.FILE else "",
        link_target="" if raw_target else target,
        raw_link_target=raw_target,
        xattrs=[evidence_pb2.Xattr(name=name, value=value) for name, value in node.xattrs],
    )


def node_from_proto(message: evidence_pb2.NodeState) -> Node:
    """Map what a path is."""
    return Node(
        type=NODE_TYPES.from_wire(message.type),
        mode=mode_from_text(message.mode),
        digest=message.digest,
        size=number_from_text(message.size, "size") if message.size else 0,
        link_target=message.raw_link_target or message.link_target.encode(),
        xattrs=tuple((xattr.name, xattr.value) for xattr in message.xattrs),
    )


def change_to_proto(change: Change) -> evidence_pb2.Change:
    """Map one path's change."""
    path, raw_path = path_fields(change.path)
    moved_from, raw_moved_from = path_fields(change.moved_from)
    return evidence_pb2.Change(
        path=path,
        raw_path=raw_path,
        kind=CHANGE_KINDS.to_wire(change.kind),
        old=None if change.old is None else node_to_proto(change.old),
        new=None if change.new is None else node_to_proto(change.new),
        moved_from=moved_from,
        raw_moved_from=raw_moved_from,
        modified_at_ns="" if change.mtime_ns is None else str(change.mtime_ns),
    )


def change_from_proto(message: evidence_pb2.Change) -> Change:
    """Map one path's change."""
    return Change(
        path=path_from_proto(message.path, message.raw_path),
        kind=CHANGE_KINDS.from_wire(message.kind),
        old=node_from_proto(message.old) if message.HasField("old") else None,
        new=node_from_proto(message.new) if message.HasField("new") else None,
        moved_from=path_from_proto(message.moved_from, message.raw_moved_from),
        mtime_ns=_time_ns(message.modified_at_ns),
    )


def _time_ns(text: str) -> int | None:
    if text and not _NANOSECONDS.fullmatch(text):
        raise RequestMalformedError("MALFORMED", f"not a time: {text[:40]!r}", "send the document as it was made")
    return int(text) if text else None


def snapshot_to_proto(path: bytes, node: Node | None) -> evidence_pb2.Snapshot:
    """Map what a path is, or that it is not there."""
    text, raw = path_fields(path)
    return evidence_pb2.Snapshot(path=text, raw_path=raw, node=None if node is None else node_to_proto(node))
