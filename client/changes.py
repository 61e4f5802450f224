"""What a report's steps come to together, computed from its sealed bytes.

The rules are those of the contract: a path that several steps touch counts once, from what it was before the first to
what it is after the last; the old name of a move has no change of its own while the move is the whole story.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gonogo.digests import fingerprint, node_record
from gonogo.safe_text import path_bytes, path_fields
from gonogo.v1 import evidence_pb2

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
        }


def size_of(node: evidence_pb2.NodeState | None) -> int | None:
    """Return a file's length, None where there is no file."""
    return int(node.size) if node is not None and node.size.isdecimal() else None


def net_changes(steps: Iterable[Sequence[evidence_pb2.Change]]) -> tuple[NetChange, ...]:
    """Return what a sequence of change sets comes to, sorted by raw path bytes.

    Raises:
        ValueError: a path's text and bytes do not agree.
    """
    kept = [list(changes) for changes in steps]
    before, after = net_states(kept)
    moves = _whole_moves(kept, before, after)
    gone = set(moves.values())
    found: list[NetChange] = []
    for path in sorted(after):
        if path in gone:
            continue
        origin = moves.get(path, b"")
        change = _net(path, before[origin or path], after[path], origin)
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
    """Return new name → old name of the moves that no other step adds to or takes from."""
    origins: dict[bytes, bytes] = {}
    for change in (change for changes in steps for change in changes):
        if change.moved_from:
            path = path_bytes(change.path, change.raw_path)
            origin = path_bytes(change.moved_from, change.raw_moved_from)
            origins[path] = origins.pop(origin, origin)
    return {
        path: origin
        for path, origin in origins.items()
        if path != origin
        and before.get(path) is None
        and after.get(path) is not None
        and before.get(origin) is not None
        and after.get(origin) is None
    }


def _net(
    path: bytes, old: evidence_pb2.NodeState | None, new: evidence_pb2.NodeState | None, origin: bytes
) -> NetChange | None:
    if old == new and not origin:
        return None
    kind = "move" if origin else _kind(old, new)
    return NetChange(path=path, kind=kind, old=old, new=new, moved_from=origin)


def _kind(old: evidence_pb2.NodeState | None, new: evidence_pb2.NodeState | None) -> str:
    if old is None:
        return "create"
    if new is None:
        return "delete"
    if old.type != new.type:
        return "type_change"
    same = (old.digest, old.link_target, old.raw_link_target) == (new.digest, new.link_target, new.raw_link_target)
    return "metadata" if same else "modify"
