"""One operation of a commit made, and checked against what was looked at before.

Between the look at a path and the rename that changes it, an editor may save the file. The rename itself tells: what
comes out of the workspace is compared with what was looked at, and if it is anything else, it goes back.
"""

import contextlib
import functools
import os
import stat
import time
from collections.abc import Callable, Container, Iterator, Mapping

from executor.domain.changes import Node, NodeType
from executor.domain.errors import DriftError
from executor.workspace.beneath import exchange, rename_new
from executor.workspace.operations import Operation, OperationKind
from executor.workspace.paths import ROOT, Directory, join, parent_of, same_stamp, shown
from executor.workspace.record import Seen
from executor.workspace.staging import Slot

# A write soon after the look may leave the modification time as it was: file systems take it from a clock that only
# ticks every few milliseconds. Within this time the content itself is compared again.
_TICK_NS = 50_000_000


def look(root: Directory, path: bytes) -> Seen | None:
    """Look at a path, content included."""
    at_ns = time.time_ns()
    found = root.examine(path)
    return found and Seen(node=found[0], status=found[1], at_ns=at_ns)


class Renames:
    """The renames between a workspace and a slot, each one atomic.

    Args:
        root: the workspace.
        slot: the commit's slot.
        changed: the paths that the commit changes; bits that forbid a rename may be lifted for it in these directories
            only.
    """

    def __init__(self, root: Directory, slot: Slot, changed: Container[bytes]) -> None:
        self._root = root
        self._slot = slot
        self._changed = changed
        self._staging = slot.staging.directory

    def swap(self, operation: Operation) -> None:
        """Let the slot's entry and what is at the path change places; no name comes or goes, so no time moves."""
        entry = self._slot.entry(operation.entry)
        parent, name = self._root.open_parent(operation.path)
        try:
            before = os.fstat(parent)
            swap = functools.partial(exchange, self._staging.fd, entry, parent, name)
            _despite_bits(swap, *self._places(self._root, operation.path), (self._staging, entry))
            keep_times(parent, before)
        finally:
            os.close(parent)

    def place(self, operation: Operation) -> None:
        """Move the slot's entry to the path, which must be free."""
        self._rename(self._staging, self._slot.entry(operation.entry), self._root, operation.path)

    def take(self, operation: Operation) -> None:
        """Move what is at the path into the slot."""
        self._rename(self._root, operation.path, self._staging, self._slot.entry(operation.entry))

    def move(self, old: bytes, new: bytes) -> None:
        """Move what is at one path to another, which must be free."""
        self._rename(self._root, old, self._root, new)

    def _rename(self, source: Directory, old: bytes, target: Directory, new: bytes) -> None:
        old_parent, old_name = source.open_parent(old)
        try:
            new_parent, new_name = target.open_parent(new)
            try:
                _despite_bits(
                    lambda: rename_new(old_parent, old_name, new_parent, new_name),
                    *self._places(source, old),
                    *self._places(target, new)[1:],
                )
            finally:
                os.close(new_parent)
        finally:
            os.close(old_parent)

    def _places(self, where: Directory, path: bytes) -> list[tuple[Directory, bytes]]:
        """Return what a rename of a path writes to: what is there and, where the commit changes it, its directory."""
        above = parent_of(path)
        own = where is self._root and above in self._changed
        return [(where, path), *([(where, above)] if own else [])]


class Switch:
    """Makes the operations of one commit.

    Args:
        root: the workspace.
        slot: where new objects come from and old ones go to.
        seen: what every path that goes, moves or is replaced was when it was looked at.
        made: inode numbers of the slot's new objects, by entry.
        renames: between the two.
    """

    def __init__(
        self, root: Directory, slot: Slot, seen: Mapping[bytes, Seen], made: Mapping[int, int], renames: Renames
    ) -> None:
        self._root = root
        self._slot = slot
        self._seen = seen
        self._made = made
        self._staging = slot.staging.directory
        self._renames = renames

    def forward(self, operation: Operation) -> None:
        """Make one operation, or leave everything as it was.

        Raises:
            DriftError: what it took out of the workspace is not what was looked at.
            OSError: the name is taken, missing or not to be written; or what was taken out could not be put back,
                which `Unmaking` finds.
        """
        entry = self._slot.entry(operation.entry)
        match operation.kind:
            case OperationKind.PLACE:
                self._renames.place(operation)
            case OperationKind.EXCHANGE:
                self._renames.swap(operation)
                self._check_or(operation, operation.path, self._staging, entry)
            case OperationKind.TAKE:
                self._renames.take(operation)
                self._check_or(operation, operation.path, self._staging, entry)
            case OperationKind.MOVE:
                self._renames.move(operation.origin, operation.path)
                self._check_or(operation, operation.origin, self._root, operation.path)
            case OperationKind.METADATA | OperationKind.TIMES:
                self._change_in_place(operation)

    def _check_or(self, operation: Operation, path: bytes, where: Directory, name: bytes) -> None:
        """Compare what left its place, with all beneath it, and put it back where it is not what was looked at."""
        different = tuple(self._differences(path, where, name))
        if different:
            self._put_back(operation)
            raise drifted(different, "changed while it was committed")

    def _put_back(self, operation: Operation) -> None:
        match operation.kind:
            case OperationKind.EXCHANGE:
                self._renames.swap(operation)
            case OperationKind.MOVE:
                self._renames.move(operation.path, operation.origin)
            case _:
                self._renames.place(operation)

    def _differences(self, path: bytes, where: Directory, name: bytes) -> Iterator[bytes]:
        if self._differs(path, where, name):
            yield path
        elif self._seen[path].node.type is NodeType.DIRECTORY:
            # Seen from the directory itself: in the slot a path beneath it might be longer than a path may be.
            moved = Directory(where.open_directory(name))
            try:
                yield from self._differences_beneath(path, moved)
            finally:
                moved.close()

    def _differences_beneath(self, top: bytes, moved: Directory) -> Iterator[bytes]:
        waiting = [ROOT]
        while waiting:
            directory = waiting.pop()
            for child in moved.names(directory):
                name = join(directory, child)
                path = join(top, name)
                if path not in self._seen or self._differs(path, moved, name):
                    yield path
                elif self._seen[path].node.type is NodeType.DIRECTORY:
                    waiting.append(name)

    def _differs(self, path: bytes, where: Directory, name: bytes) -> bool:
        expected = self._seen[path]
        status = where.lstat(name)
        if status is None or not same_stamp(status, expected.status):
            return True
        return _is_fresh(expected) and where.node(name) != expected.node

    def _change_in_place(self, operation: Operation) -> None:
        fd = self._root.open_look(operation.path)
        try:
            if os.fstat(fd).st_ino != inode_of(operation, self._seen, self._made):
                raise drifted((operation.path,), "was replaced while it was committed")
            if operation.kind is OperationKind.TIMES:
                set_mtime(fd, operation.mtime_ns or 0)
            elif operation.old is not None and operation.new is not None:
                change_metadata(fd, operation.old, operation.new)
        finally:
            os.close(fd)


def inode_of(operation: Operation, seen: Mapping[bytes, Seen], made: Mapping[int, int]) -> int:
    """Return whose bits or times are to change: a new object's where this commit makes it, else what was looked at."""
    inode = made.get(operation.entry)
    return seen[operation.origin or operation.path].status.st_ino if inode is None else inode


def drifted(paths: tuple[bytes, ...], what: str) -> DriftError:
    """Return the error for paths that are not what the report was made from."""
    names = ", ".join(shown(path) for path in paths[:3]) + (", …" if len(paths) > 3 else "")  # noqa: PLR2004 - a few
    return DriftError("BASE_DRIFTED", f"{names}: {what}", "make the dry run again", paths=paths)


def change_metadata(fd: int, old: Node, new: Node) -> None:
    """Change bits and attributes of whatever a descriptor stands for, an unreadable file too.

    Without privileges only what its owner may write takes attributes; what is not gets that bit until it has them.
    """
    mode = old.mode
    try:
        _change_attributes(fd, old, new)
    except PermissionError:
        if mode & stat.S_IWUSR:
            raise
        mode |= stat.S_IWUSR
        set_bits(fd, mode)
        _change_attributes(fd, old, new)
    if mode != new.mode:
        set_bits(fd, new.mode)


def is_lifted(status: os.stat_result, mode: int) -> bool:
    """Tell whether a directory still has the right to write that it only got for the moment of a rename."""
    given = not mode & stat.S_IWUSR and stat.S_IMODE(status.st_mode) == mode | stat.S_IWUSR
    return given and stat.S_ISDIR(status.st_mode)


def keep_times(fd: int, before: os.stat_result) -> None:
    """Set a directory's times back, where it is ours."""
    with contextlib.suppress(PermissionError):
        os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))


def set_mtime(fd: int, mtime_ns: int) -> None:
    """Set the modification time of whatever a descriptor stands for, a symbolic link too."""
    os.utime(f"/proc/self/fd/{fd}", ns=(os.fstat(fd).st_atime_ns, mtime_ns))


def set_bits(fd: int, mode: int) -> None:
    """Set the permission bits of whatever a descriptor stands for."""
    os.chmod(f"/proc/self/fd/{fd}", mode)  # noqa: PTH101 - a descriptor's own name, no path of the workspace


def _change_attributes(fd: int, old: Node, new: Node) -> None:
    place = f"/proc/self/fd/{fd}"
    former, wanted = dict(old.xattrs), dict(new.xattrs)
    for name in former.keys() - wanted.keys():
        os.removexattr(place, name)
    for name, value in wanted.items():
        if former.get(name) != value:
            os.setxattr(place, name, value)


def _despite_bits(rename: Callable[[], None], *places: tuple[Directory, bytes]) -> None:
    """Rename also directories that their owner may not write.

    A directory that gets another parent is itself written, so without privileges its bits forbid the rename. Where
    they do, they are lifted for the moment of it, through a descriptor that stays with the directory.
    """
    try:
        rename()
    except PermissionError:
        with contextlib.ExitStack() as lifted:
            were_locked = [lifted.enter_context(_writable(*place)) for place in places]
            if not any(were_locked):
                raise
            rename()


@contextlib.contextmanager
def _writable(where: Directory, path: bytes) -> Iterator[bool]:
    """Give a directory's owner the right to write it for a moment; False where that is not what is missing."""
    fd = where.open_look(path)
    try:
        mode = os.fstat(fd).st_mode
        locked = stat.S_ISDIR(mode) and not mode & stat.S_IWUSR
        if locked:
            set_bits(fd, stat.S_IMODE(mode) | stat.S_IWUSR)
        try:
            yield locked
        finally:
            if locked:
                set_bits(fd, stat.S_IMODE(mode))
    finally:
        os.close(fd)


def _is_fresh(seen: Seen) -> bool:
    return seen.node.type is NodeType.FILE and seen.status.st_mtime_ns > seen.at_ns - _TICK_NS
