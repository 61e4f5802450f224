"""What a commit knows of itself: enough to tell, long after and by another process, what was made and what was there.

It is written into the journal before the first rename, and kept in the ledger as long as the step's checkpoint is.
The operations are written out and not worked out again: a later version may plan a change set in another order, and
the entries of the slot stay as they are.
"""

import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from executor.domain.changes import Change, ChangeKind, Node, NodeType
from executor.domain.errors import StoreError
from executor.workspace.operations import Operation, OperationKind

VERSION = 2

_STATUS = ("st_mode", "st_ino", "st_dev", "st_nlink", "st_uid", "st_gid", "st_size")
_TIMES = ("st_atime_ns", "st_mtime_ns", "st_ctime_ns")
_KEPT = frozenset({ChangeKind.MODIFY, ChangeKind.DELETE, ChangeKind.TYPE_CHANGE})
_OUT = frozenset({OperationKind.TAKE, OperationKind.EXCHANGE})
_TEXT = json.JSONEncoder(separators=(",", ":")).encode
_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a path was when it was looked at."""

    node: Node
    status: os.stat_result
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryTimes:
    """When a directory was last read and changed, before a commit and after it.

    `mtime_after_ns` is None where the commit itself took the directory from its place, and where the commit was cut
    off: then nobody knows it.
    """

    inode: int
    atime_ns: int
    mtime_ns: int
    mtime_after_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """A commit that was made, or that a process which died has left, and all that undoing it needs."""

    slot: str
    changes: tuple[Change, ...]
    operations: tuple[Operation, ...]
    seen: Mapping[bytes, Seen]
    """What every path that goes, moves or is replaced was."""
    made: Mapping[int, int]
    """Inode numbers of the slot's new objects, by entry."""
    times: Mapping[bytes, DirectoryTimes]
    """The directories in which names come or go, by the path that they had before."""
    complete: bool = True
    """Every operation is made. Of a commit that a process has left: as the journal or the disk tells."""
    made_whole: bool = True
    """Every operation had been made before any was unmade; where nobody knows it, they had not."""

    @property
    def kept_bytes(self) -> int:
        """How many bytes the old objects have."""
        return sum(change.old.size for change in self.changes if change.old and change.kind in _KEPT)

    def place_of(self, path: bytes) -> tuple[int, bytes] | None:
        """Return in which of the slot's entries the former object of a path is, and where beneath it.

        None where there is none: nothing was there, or what was there stayed in the workspace.
        """
        for operation in self.operations:
            if operation.kind in _OUT and (path == operation.path or path.startswith(operation.path + b"/")):
                return operation.entry, path[len(operation.path) + 1 :]
        return None

    def encode(self) -> bytes:
        """Return it as one line of JSON, without how far it came; else what `decode` gives back is equal to it."""
        places = {change.path: number for number, change in enumerate(self.changes)}
        sources = {one.moved_from or one.path: number for number, one in enumerate(self.changes) if one.old}
        value = {
            "version": VERSION,
            "slot": self.slot,
            "changes": [_change_value(change) for change in self.changes],
            "operations": [
                _operation_value(one, _number(one, places, sources), self.changes) for one in self.operations
            ],
            "seen": [[sources[path], *_seen_value(seen)] for path, seen in self.seen.items()],
            "made": list(self.made.items()),
            "times": [
                [_text(path), one.inode, one.atime_ns, one.mtime_ns, one.mtime_after_ns]
                for path, one in self.times.items()
            ],
        }
        return _TEXT(value).encode()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read what `encode` wrote.

        Raises:
            StoreError: it is anything else.
        """
        try:
            value = json.loads(data)
            return cls._read(value)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            message = f"the record of a commit can not be read: {error!r}"
            raise StoreError("INTERNAL", message, "restore it from a copy of the executor's state") from error

    @classmethod
    def _read(cls, value: Mapping[str, Any]) -> Self:
        if value["version"] != VERSION:
            message = f"version {value['version']!r}"
            raise ValueError(message)
        changes = tuple(_change(*one) for one in value["changes"])
        return cls(
            slot=value["slot"],
            changes=changes,
            operations=tuple(_operation(changes, *one) for one in value["operations"]),
            seen=dict(_seen(changes[number], rest) for number, *rest in value["seen"]),
            made=dict(value["made"]),
            times={_bytes(path): _directory_times(rest) for path, *rest in value["times"]},
        )


def changed_paths(changes: Sequence[Change]) -> frozenset[bytes]:
    """Return every path that a change set says something of, and those that something moves from."""
    return frozenset(path for change in changes for path in (change.path, change.moved_from) if path)


def _change_value(change: Change) -> list[object]:
    return [
        _text(change.path),
        change.kind.value,
        _node_value(change.old),
        _node_value(change.new),
        _text(change.moved_from),
        change.mtime_ns,
    ]


def _change(path: str, kind: str, old: Sequence[Any] | None, new: Sequence[Any] | None, *rest: Any) -> Change:
    moved_from, mtime_ns = rest
    return Change(
        path=_bytes(path),
        kind=ChangeKind(kind),
        old=_node(old),
        new=_node(new),
        moved_from=_bytes(moved_from),
        mtime_ns=mtime_ns,
    )


def _node_value(node: Node | None) -> list[object] | None:
    if node is None:
        return None
    attributes = [[name, value.decode("latin-1")] for name, value in node.xattrs]
    return [node.type.value, node.mode, node.digest, node.size, _text(node.link_target), attributes]


def _node(value: Sequence[Any] | None) -> Node | None:
    if value is None:
        return None
    kind, mode, digest, size, link_target, attributes = value
    return Node(
        type=NodeType(kind),
        mode=mode,
        digest=digest,
        size=size,
        link_target=_bytes(link_target),
        xattrs=tuple((name, text.encode("latin-1")) for name, text in attributes),
    )


def _number(operation: Operation, places: Mapping[bytes, int], sources: Mapping[bytes, int]) -> int:
    """Return which change an operation belongs to; only what is taken is known by the path that it had."""
    return (sources if operation.kind is OperationKind.TAKE else places)[operation.path]


def _operation_value(operation: Operation, number: int, changes: Sequence[Change]) -> list[object]:
    """Return an operation by the change that it belongs to; only its permission bits can be other than the change's."""
    change = changes[number]
    value: list[object] = [operation.kind.value, number, operation.entry]
    modes = [_mode(operation.old), _mode(operation.new)]
    if (operation.old, operation.new) != (change.old, change.new):
        value += modes
    return value


def _operation(changes: Sequence[Change], kind: str, number: int, entry: int, *modes: int | None) -> Operation:
    change = changes[number]
    old, new = change.old, change.new
    if modes:
        # A new directory that stayed open until it was filled gets its bits last: from open to what it shall be.
        fresh = OperationKind(kind) is OperationKind.METADATA and change.kind is not ChangeKind.METADATA
        old, new = _with_mode(new if fresh else old, modes[0]), _with_mode(new, modes[1])
    taken = OperationKind(kind) is OperationKind.TAKE
    return Operation(
        kind=OperationKind(kind),
        path=(change.moved_from or change.path) if taken else change.path,
        entry=entry,
        old=old,
        new=new,
        origin=b"" if taken else change.moved_from,
        mtime_ns=change.mtime_ns,
    )


def _with_mode(node: Node | None, mode: int | None) -> Node | None:
    return None if node is None or mode is None else replace(node, mode=mode)


def _mode(node: Node | None) -> int | None:
    return None if node is None else node.mode


def _seen_value(seen: Seen) -> list[int]:
    status = seen.status
    return [seen.at_ns, *(getattr(status, name) for name in (*_STATUS, *_TIMES))]


def _seen(change: Change, value: Sequence[int]) -> tuple[bytes, Seen]:
    at_ns, *numbers = value
    times = numbers[len(_STATUS) :]
    seconds = [time // _SECOND for time in times]
    status = os.stat_result((*numbers[: len(_STATUS)], *seconds), dict(zip(_TIMES, times, strict=True)))
    if change.old is None or stat.S_IMODE(status.st_mode) != change.old.mode:
        message = "what was seen is not what changed"
        raise ValueError(message)
    return change.moved_from or change.path, Seen(node=change.old, status=status, at_ns=at_ns)


def _directory_times(value: Sequence[Any]) -> DirectoryTimes:
    inode, atime_ns, mtime_ns, mtime_after_ns = value
    return DirectoryTimes(inode=inode, atime_ns=atime_ns, mtime_ns=mtime_ns, mtime_after_ns=mtime_after_ns)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
