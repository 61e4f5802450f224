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


def change_between(path: bytes, old: Node | None, new: Node | None, mtime_ns: int | None = None) -> Change | None:
    """Return the change from one state to another, or None where there is none.

    A modification time that a step set is a change by itself; what is not there has none.
    """
    kept_time = None if new is None else mtime_ns
    if old == new and kept_time is None:
        return None
    return Change(path=path, kind=_kind(old, new), old=old, new=new, mtime_ns=kept_time)


def changes_between(before: States, after: States, times: Mapping[bytes, int] | None = None) -> tuple[Change, ...]:
    """Return the changes between two sets of states, sorted by path; a path missing from `after` is as before.

    Args:
        before: what each path was.
        after: what each path is.
        times: modification times that were set; see `net_times`.
    """
    set_times = times or {}
    found = (change_between(path, before.get(path), new, set_times.get(path)) for path, new in sorted(after.items()))
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


def net_changes(change_sets: Sequence[Iterable[Change]]) -> tuple[Change, ...]:
    """Return what a sequence of change sets comes to, sorted by path: each path counts once.

    The old name of a move has no change of its own while the move is the whole story of both names.
    """
    kept = [tuple(changes) for changes in change_sets]
    before, after = net_states(kept)
    moves = _whole_moves(kept, before, after)
    gone = set(moves.values())
    left = {path: node for path, node in after.items() if path not in moves and path not in gone}
    times = net_times(kept)
    moved = (
        Change(
            path=path,
            kind=ChangeKind.MOVE,
            old=before[origin],
            new=after[path],
            moved_from=origin,
            mtime_ns=times.get(path),
        )
        for path, origin in moves.items()
    )
    return tuple(sorted((*changes_between(before, left, times), *moved), key=lambda change: change.path))


def net_times(change_sets: Iterable[Iterable[Change]]) -> dict[bytes, int]:
    """Return the modification times that a sequence of change sets sets, and that nothing later in it moves again.

    Writing a path, or deleting it, ends what an earlier set said of its time; so does a name that comes or goes in a
    directory. A move takes the time along.
    """
    sets = [tuple(changes) for changes in change_sets]
    if all(change.mtime_ns is None for changes in sets for change in changes):
        return {}
    times: dict[bytes, int] = {}
    for kept in sets:
        moved = {change.path: times[change.moved_from] for change in kept if change.moved_from in times}
        for path in _written(kept):
            times.pop(path, None)
        times.update(moved)
        times.update((change.path, change.mtime_ns) for change in kept if change.mtime_ns is not None)
    return times


def parents_of_names(changes: Iterable[Change]) -> set[bytes]:
    """Return the directories in which a name comes or goes; the workspace itself is `b"."`."""
    names = (
        path
        for change in changes
        if change.old is None or change.new is None or change.moved_from
        for path in (change.path, change.moved_from)
        if path
    )
    return {path.rpartition(b"/")[0] or b"." for path in names}


def states_fingerprint(states: States) -> str:
    """Return the fingerprint of a set of states."""
    return fingerprint((path, None if node is None else node.record) for path, node in states.items())


def _whole_moves(change_sets: Iterable[Iterable[Change]], before: States, after: States) -> dict[bytes, bytes]:
    """Return new name → old name of the moves that no other change adds a name to or takes one from.

    What came to a name after the first of the changes has that name only in between: it did not move from there.
    """
    origins: dict[bytes, bytes] = {}
    arrived: set[bytes] = set()
    for change in (change for changes in change_sets for change in changes):
        if change.moved_from:
            known = b"" if change.moved_from in arrived else change.moved_from
            origin = origins.pop(change.moved_from, known)
            if origin:
                origins[change.path] = origin
        elif change.new is None:
            origins.pop(change.path, None)
        if change.moved_from or change.old is None:
            arrived.add(change.path)
    return {
        path: origin
        for path, origin in origins.items()
        if path != origin
        and before.get(path) is None
        and after.get(path)
        and before.get(origin)
        and not after.get(origin)
    }


def _written(changes: Sequence[Change]) -> set[bytes]:
    """Return the paths whose modification time a change set moves by what it does to them or to the names in them."""
    own = {change.path for change in changes if change.kind is not ChangeKind.METADATA}
    return own | {change.moved_from for change in changes} | parents_of_names(changes)


def _kind(old: Node | None, new: Node | None) -> ChangeKind:
    if old is None:
        return ChangeKind.CREATE
    if new is None:
        return ChangeKind.DELETE
    if old.type is not new.type:
        return ChangeKind.TYPE_CHANGE
    same_content = (old.digest, old.link_target) == (new.digest, new.link_target)
    return ChangeKind.METADATA if same_content else ChangeKind.MODIFY
