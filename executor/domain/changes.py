"""What a path is, how it changed, and what a set of changes comes to. Names are bytes."""

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gonogo.digests import fingerprint, node_record


class NodeType(enum.Enum):
    """What a path is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    OTHER = "other"


class ChangeKind(enum.Enum):
    """How a path changed."""

    CREATE = "create"
    MODIFY = "modify"
    DELETE = "delete"
    MOVE = "move"
    TYPE_CHANGE = "type_change"
    METADATA = "metadata"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What a path is at one moment."""

    type: NodeType
    mode: int
    """Permission bits, 0 to 0o7777."""
    digest: str = ""
    """Digest of a file's bytes."""
    size: int = 0
    """Length of a file in bytes."""
    link_target: bytes = b""
    xattrs: tuple[tuple[str, bytes], ...] = ()
    """Extended attributes of the `user.` name space, sorted by name."""

    @property
    def record(self) -> bytes:
        """The bytes that stand for it in a fingerprint."""
        return node_record(
            node_type=self.type.value,
            mode=f"{self.mode:04o}",
            content=self.digest,
            link_target=self.link_target,
            xattrs=self.xattrs,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One path's change. `old` is None for a create or the new name of a move, `new` for a delete."""

    path: bytes
    kind: ChangeKind
    old: Node | None
    new: Node | None
    moved_from: bytes = b""
    """Only for a move. The old name has no change of its own then; `old` is what it was under that name."""
    mtime_ns: int | None = None
    """The modification time that the step set itself, in nanoseconds since 1970; None leaves it to the commit."""


States = Mapping[bytes, Node | None]


def change_between(path: bytes, old: Node | None, new: Node | None) -> Change | None:
    """Return the change from one state to another, or None where there is none."""
    if old == new:
        return None
    return Change(path=path, kind=_kind(old, new), old=old, new=new)


def changes_between(before: States, after: States) -> tuple[Change, ...]:
    """Return the changes between two sets of states, sorted by path; a path missing from `after` is as before."""
    found = (change_between(path, before.get(path), new) for path, new in sorted(after.items()))
    return tuple(change for change in found if change is not None)


def touched(changes: Iterable[Change]) -> tuple[bytes, ...]:
    """Return every path that the changes touch, sorted."""
    return tuple(sorted({path for change in changes for path in (change.path, change.moved_from) if path}))


def states_before(changes: Iterable[Change]) -> dict[bytes, Node | None]:
    """Return what the touched paths were before one change set."""
    states: dict[bytes, Node | None] = {}
    for change in changes:
        if change.moved_from:
            states[change.moved_from] = change.old
            states.setdefault(change.path, None)
        else:
            states[change.path] = change.old
    return states


def states_after(changes: Iterable[Change]) -> dict[bytes, Node | None]:
    """Return what the touched paths are after one change set."""
    states: dict[bytes, Node | None] = {}
    for change in changes:
        if change.moved_from:
            states.setdefault(change.moved_from, None)
        states[change.path] = change.new
    return states


def net_states(change_sets: Sequence[Iterable[Change]]) -> tuple[dict[bytes, Node | None], dict[bytes, Node | None]]:
    """Return (before, after) of every path that a sequence of change sets touches."""
    before: dict[bytes, Node | None] = {}
    after: dict[bytes, Node | None] = {}
    for changes in change_sets:
        kept = tuple(changes)
        before = {**states_before(kept), **before}
        after.update(states_after(kept))
    return before, after


def states_fingerprint(states: States) -> str:
    """Return the fingerprint of a set of states."""
    return fingerprint((path, None if node is None else node.record) for path, node in states.items())


def _kind(old: Node | None, new: Node | None) -> ChangeKind:
    if old is None:
        return ChangeKind.CREATE
    if new is None:
        return ChangeKind.DELETE
    if old.type is not new.type:
        return ChangeKind.TYPE_CHANGE
    same_content = (old.digest, old.link_target) == (new.digest, new.link_target)
    return ChangeKind.METADATA if same_content else ChangeKind.MODIFY
