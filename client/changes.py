"""What a report's steps come to together, computed from its sealed bytes.

The rules are those of the contract: a path that several steps touch counts once, from what it was before the first to
what it is after the last; the old name of a move has no change of its own while the move is the whole story.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from gonogo.digests import fingerprint, node_record
from gonogo.safe_text import path_bytes, path_fields, shown_path
from gonogo.v1 import evidence_pb2

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NODE_TYPES = {
    evidence_pb2.NODE_TYPE_FILE: "file",
    evidence_pb2.NODE_TYPE_DIRECTORY: "directory",
    evidence_pb2.NODE_TYPE_SYMLINK: "symlink",
    evidence_pb2.NODE_TYPE_OTHER: "other",
}

States = Mapping[bytes, evidence_pb2.NodeState | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetChange:
    """One path's change over all steps."""

    path: bytes
    kind: str
    old: evidence_pb2.NodeState | None
    new: evidence_pb2.NodeState | None
    moved_from: bytes = b""
    modified_at_ns: int | None = None
    """The modification time that a step set, where nothing later moves it again."""

    @property
    def shown_path(self) -> str:
        return path_fields(self.path)[0]

    def as_json(self) -> dict[str, object]:
        """Return the change as scripts read it."""
        return {
            "path": self.shown_path,
            "kind": self.kind,
            "old_digest": self.old.digest if self.old else "",
            "new_digest": self.new.digest if self.new else "",
            "old_mode": self.old.mode if self.old else "",
            "new_mode": self.new.mode if self.new else "",
            "old_size": size_of(self.old),
            "new_size": size_of(self.new),
            "moved_from": path_fields(self.moved_from)[0],
            "modified_at": time_text(self.modified_at_ns),
        }


def besides(change: NetChange) -> tuple[str, ...]:
    """Return in words what changes of a path besides its content, place and permission bits; the text is not safe."""
    found: list[str] = []
    old, new = change.old, change.new
    if new is not None:
        before = {} if old is None else {xattr.name: xattr.value for xattr in old.xattrs}
        after = {xattr.name: xattr.value for xattr in new.xattrs}
        found += [f"attribute {name} set" for name in sorted(after) if before.get(name) != after[name]]
        found += [f"attribute {name} removed" for name in sorted(before.keys() - after.keys())]
    if change.modified_at_ns is not None:
        found.append(f"modified {time_text(change.modified_at_ns)}")
    return tuple(found)


def metadata_kind(change: NetChange) -> str:
    """Return what a change of metadata alone is about: permissions, else attributes, else the modification time."""
    if change.old is None or change.new is None or change.old.mode != change.new.mode:
        return "permissions"
    return "attributes" if list(change.old.xattrs) != list(change.new.xattrs) else "modification time"


def target_text(node: evidence_pb2.NodeState) -> str:
    """Return a link's target as text; bytes that are not UTF-8 are spelt out."""
    return shown_path(node.raw_link_target) if node.raw_link_target else node.link_target


def size_of(node: evidence_pb2.NodeState | None) -> int | None:
    """Return a file's length, None where there is no file."""
    return int(node.size) if node is not None and node.size.isdecimal() else None


def time_text(nanoseconds: int | None) -> str:
    """Return a modification time to the last digit that is set, empty where there is none."""
    if nanoseconds is None:
        return ""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    digits = f".{fraction:09d}".rstrip("0") if fraction else ""
    try:
        return f"{EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}{digits}Z"
    except OverflowError:
        return f"{seconds}{digits} s after 1970"


def net_changes(steps: Iterable[Sequence[evidence_pb2.Change]]) -> tuple[NetChange, ...]:
    """Return what a sequence of change sets comes to, sorted by raw path bytes.

    Raises:
        ValueError: a path's text and bytes do not agree.
    """
    kept = [list(changes) for changes in steps]
    before, after = net_states(kept)
    moves = _whole_moves(kept, before, after)
    times = net_times(kept)
    gone = set(moves.values())
    found: list[NetChange] = []
    for path in sorted(after):
        if path in gone:
            continue
        origin = moves.get(path, b"")
        change = _net(path, before[origin or path], after[path], origin, times.get(path))
        if change is not None:
            found.append(change)
    return tuple(found)


def net_states(
    steps: Iterable[Sequence[evidence_pb2.Change]],
) -> tuple[dict[bytes, evidence_pb2.NodeState | None], dict[bytes, evidence_pb2.NodeState | None]]:
    """Return (before, after) of every path that a sequence of change sets touches."""
    before: dict[bytes, evidence_pb2.NodeState | None] = {}
    after: dict[bytes, evidence_pb2.NodeState | None] = {}
    for changes in steps:
        first, last = _states(changes)
        before = {**first, **before}
        after.update(last)
    return before, after


def net_times(steps: Iterable[Sequence[evidence_pb2.Change]]) -> dict[bytes, int]:
    """Return the modification times that a sequence of change sets sets, and that nothing later in it moves again.

    Writing a path, or deleting it, ends what was said of its time before; so does a name that comes or goes in a
    directory. A move takes the time along.

    Raises:
        ValueError: a path's text and bytes do not agree, or a time is no number.
    """
    times: dict[bytes, int] = {}
    for changes in steps:
        moved: dict[bytes, int] = {}
        written: set[bytes] = set()
        for change in changes:
            path = path_bytes(change.path, change.raw_path)
            origin = path_bytes(change.moved_from, change.raw_moved_from)
            if origin in times:
                moved[path] = times[origin]
            if change.kind != evidence_pb2.CHANGE_KIND_METADATA:
                written |= {path, origin}
            if origin or not (change.HasField("old") and change.HasField("new")):
                written |= {_parent(one) for one in (path, origin) if one}
        for path in written:
            times.pop(path, None)
        times.update(moved)
        for change in changes:
            if change.modified_at_ns:
                times[path_bytes(change.path, change.raw_path)] = int(change.modified_at_ns)
    return times


def states_fingerprint(states: States) -> str:
    """Return the fingerprint of a set of states."""
    return fingerprint((path, None if node is None else record(node)) for path, node in states.items())


def snapshot_states(snapshots: Iterable[evidence_pb2.Snapshot]) -> dict[bytes, evidence_pb2.NodeState | None]:
    """Return snapshots as states.

    Raises:
        ValueError: a path's text and bytes do not agree.
    """
    return {path_bytes(one.path, one.raw_path): one.node if one.HasField("node") else None for one in snapshots}


def record(node: evidence_pb2.NodeState) -> bytes:
    """Return the bytes that stand for what a path is in a fingerprint.

    Raises:
        ValueError: the node's type is not one of the contract's.
    """
    if node.type not in NODE_TYPES:
        message = f"unknown node type {node.type}"
        raise ValueError(message)
    return node_record(
        node_type=NODE_TYPES[node.type],
        mode=node.mode,
        content=node.digest,
        link_target=node.raw_link_target or node.link_target.encode(),
        xattrs=[(xattr.name, xattr.value) for xattr in node.xattrs],
    )


def _states(
    changes: Iterable[evidence_pb2.Change],
) -> tuple[dict[bytes, evidence_pb2.NodeState | None], dict[bytes, evidence_pb2.NodeState | None]]:
    before: dict[bytes, evidence_pb2.NodeState | None] = {}
    after: dict[bytes, evidence_pb2.NodeState | None] = {}
    for change in changes:
        path = path_bytes(change.path, change.raw_path)
        old = change.old if change.HasField("old") else None
        new = change.new if change.HasField("new") else None
        if change.moved_from:
            origin = path_bytes(change.moved_from, change.raw_moved_from)
            before[origin] = old
            before.setdefault(path, None)
            after.setdefault(origin, None)
        else:
            before[path] = old
        after[path] = new
    return before, after


def _whole_moves(steps: Sequence[Sequence[evidence_pb2.Change]], before: States, after: States) -> dict[bytes, bytes]:
    """Return new name → old name of the moves that no other step adds to or takes from.

    A name that something came to in one of the steps was its name only in between: it did not move from there.
    """
    origins: dict[bytes, bytes] = {}
    arrived: set[bytes] = set()
    for change in (change for changes in steps for change in changes):
        path = path_bytes(change.path, change.raw_path)
        source = path_bytes(change.moved_from, change.raw_moved_from)
        if source:
            origin = origins.pop(source, b"" if source in arrived else source)
            if origin:
                origins[path] = origin
        elif not change.HasField("new"):
            origins.pop(path, None)
        if source or not change.HasField("old"):
            arrived.add(path)
    return {
        path: origin
        for path, origin in origins.items()
        if path != origin
        and before.get(path) is None
        and after.get(path) is not None
        and before.get(origin) is not None
        and after.get(origin) is None
    }


def _parent(path: bytes) -> bytes:
    return path.rpartition(b"/")[0] or b"."


def _net(
    path: bytes,
    old: evidence_pb2.NodeState | None,
    new: evidence_pb2.NodeState | None,
    origin: bytes,
    time_ns: int | None,
) -> NetChange | None:
    if old == new and not origin and time_ns is None:
        return None
    kind = "move" if origin else _kind(old, new)
    return NetChange(path=path, kind=kind, old=old, new=new, moved_from=origin, modified_at_ns=time_ns)


def _kind(old: evidence_pb2.NodeState | None, new: evidence_pb2.NodeState | None) -> str:
    if old is None:
        return "create"
    if new is None:
        return "delete"
    if old.type != new.type:
        return "type_change"
    same = (old.digest, old.link_target, old.raw_link_target) == (new.digest, new.link_target, new.raw_link_target)
    return "metadata" if same else "modify"
