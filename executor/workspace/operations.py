"""From a change set to the renames that make it real, in an order in which every one of them can be made.

The order is: directories become writable, what goes is taken out (children before parents), what comes is put in
(parents before children), modification times are set that the last of the renames would else have moved, and then the
other permission bits, which may close a directory. One rename is enough for a whole subtree that goes or moves, since
the change set names everything beneath it. Undone backwards, the same list restores the old tree.
"""

import enum
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from executor.domain.changes import Change, ChangeKind, Node, NodeType
from executor.domain.errors import StepUnsafeError
from executor.workspace.paths import name_of, parent_of, shown

_OWNER_MAY_CHANGE = stat.S_IWUSR | stat.S_IXUSR


class OperationKind(enum.Enum):
    """What one operation does; each but the last two is one rename."""

    PLACE = "place"
    """From the slot to a free name."""
    EXCHANGE = "exchange"
    """The slot's new object and the old one change places."""
    TAKE = "take"
    """From its name into the slot."""
    MOVE = "move"
    """From one name to a free name."""
    METADATA = "metadata"
    """Permission bits or extended attributes of an object that stays where it is."""
    TIMES = "times"
    """The modification time of an object that is in its place, and in which no name changes any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of a commit."""

    kind: OperationKind
    path: bytes
    entry: int
    """The slot's entry that it takes from or puts into; unused by a move, and where what was there stays there."""
    old: Node | None
    new: Node | None
    origin: bytes = b""
    """For a move, and for a place of something that was taken before: the path that it had."""
    mtime_ns: int | None = None
    """The modification time that the change asks for."""


def plan_operations(changes: Sequence[Change]) -> tuple[Operation, ...]:
    """Return the operations of one change set. Every path beneath what goes or moves must be in the set.

    Raises:
        StepUnsafeError: two changes name the same path, so that no order of renames makes both of them.
    """
    _check_names(changes)
    return _Planner(changes).operations()


def _check_names(changes: Sequence[Change]) -> None:
    """Refuse a set that could neither be made in full nor, cut off, be told apart from what was there before."""
    names = [path for change in changes for path in (change.path, change.moved_from) if path]
    if len(set(names)) == len(names):
        return
    repeated = tuple(sorted(path for path, count in Counter(names).items() if count > 1))
    message = f"{shown(repeated[0])!r} comes, goes or changes more than once in one step"
    raise StepUnsafeError("UNSUPPORTED", message, "divide the step into several ones", paths=repeated)


def staged_operations(operations: Iterable[Operation]) -> Iterator[Operation]:
    """Yield the operations whose new object must be made in the slot first."""
    for operation in operations:
        fresh = operation.kind is OperationKind.PLACE and not operation.origin
        if fresh or operation.kind is OperationKind.EXCHANGE:
            yield operation


class _Planner:
    def __init__(self, changes: Sequence[Change]) -> None:
        self._changes = changes
        self._entry = 0
        self._moves = {change.moved_from: change.path for change in changes if change.moved_from}
        # Directories that go as a whole, with everything that is still beneath them by then.
        self._going = {change.path for change in changes if _goes_as_directory(change)}
        self._coming = {change.path for change in changes if change.kind in _COMING}
        self._filled = {parent_of(path) for path in self._coming}

    def operations(self) -> tuple[Operation, ...]:
        touched = [self._operation(OperationKind.METADATA, c) for c in self._changes if c.kind is ChangeKind.METADATA]
        metadata = [operation for operation in touched if operation.old != operation.new]
        opening = [operation for operation in metadata if _opens(operation.new)]
        closing = [operation for operation in metadata if not _opens(operation.new)]
        taken, waiting = self._departures()
        placed, tightened = self._arrivals(waiting)
        along = [self._operation(OperationKind.MOVE, c) for c in self._changes if c.moved_from and self._moves_along(c)]
        set_last = _timed((*touched, *taken, *placed, *along))
        timed = [replace(operation, kind=OperationKind.TIMES) for operation in set_last]
        return (*opening, *taken, *placed, *timed, *tightened, *closing)

    def _departures(self) -> tuple[list[Operation], list[Operation]]:
        """Return what goes, children first, and the moves that must wait in the slot for their directory."""
        going: list[Operation] = []
        waiting: list[Operation] = []
        leaving = [change for change in self._changes if change.kind in {ChangeKind.DELETE, ChangeKind.MOVE}]
        for change in sorted(leaving, key=_source, reverse=True):
            if change.kind is ChangeKind.DELETE:
                if parent_of(change.path) not in self._going:
                    going.append(self._operation(OperationKind.TAKE, change))
            elif not self._moves_along(change):
                going.append(self._departure(change, waiting))
        return going, waiting

    def _departure(self, change: Change, waiting: list[Operation]) -> Operation:
        if parent_of(change.path) not in self._coming:
            return self._operation(OperationKind.MOVE, change)
        place = self._operation(OperationKind.PLACE, change)
        waiting.append(place)
        return replace(place, kind=OperationKind.TAKE, path=change.moved_from, new=None, origin=b"")

    def _arrivals(self, waiting: list[Operation]) -> tuple[list[Operation], list[Operation]]:
        """Return what comes, parents first, and the bits of new directories that had to stay open until filled."""
        arriving = list(waiting)
        tightened: list[Operation] = []
        for change in self._changes:
            if change.kind is ChangeKind.CREATE:
                arriving.append(self._operation(OperationKind.PLACE, change))
            elif change.kind in {ChangeKind.MODIFY, ChangeKind.TYPE_CHANGE}:
                arriving.append(self._operation(OperationKind.EXCHANGE, change))
        arriving.sort(key=lambda operation: operation.path)
        for position, operation in enumerate(arriving):
            new = operation.new
            if new is None or operation.origin or operation.path not in self._filled:
                continue
            if new.type is NodeType.DIRECTORY and not _opens(new):
                open_node = replace(new, mode=new.mode | stat.S_IRWXU)
                arriving[position] = replace(operation, new=open_node)
                tightened.append(replace(operation, kind=OperationKind.METADATA, old=open_node))
        return arriving, tightened

    def _moves_along(self, change: Change) -> bool:
        """Tell whether a path comes along with the directory above it."""
        above = self._moves.get(parent_of(change.moved_from))
        return above == parent_of(change.path) and name_of(change.moved_from) == name_of(change.path)

    def _operation(self, kind: OperationKind, change: Change) -> Operation:
        entry = self._entry
        self._entry += 1
        return Operation(
            kind=kind,
            path=change.path,
            entry=entry,
            old=change.old,
            new=change.new,
            origin=change.moved_from,
            mtime_ns=change.mtime_ns,
        )


def _timed(operations: Iterable[Operation]) -> Iterator[Operation]:
    """Yield the operations whose object gets its modification time in its place; staging gave it to the others."""
    for operation in operations:
        if operation.mtime_ns is None or operation.new is None:
            continue
        stays = operation.origin or operation.kind is OperationKind.METADATA
        if stays or operation.new.type is NodeType.DIRECTORY:
            yield operation


_COMING = frozenset({ChangeKind.CREATE, ChangeKind.MOVE, ChangeKind.TYPE_CHANGE})


def _source(change: Change) -> bytes:
    return change.moved_from or change.path


def _goes_as_directory(change: Change) -> bool:
    return change.kind in {ChangeKind.DELETE, ChangeKind.TYPE_CHANGE} and _is_directory(change.old)


def _is_directory(node: Node | None) -> bool:
    return node is not None and node.type is NodeType.DIRECTORY


def _opens(node: Node | None) -> bool:
    """Tell whether names in a directory of these bits can be changed by its owner."""
    return node is not None and node.type is NodeType.DIRECTORY and node.mode & _OWNER_MAY_CHANGE == _OWNER_MAY_CHANGE
