"""One operation of a commit made, checked against what was looked at before, and unmade.

Between the look at a path and the rename that changes it, an editor may save the file. The rename itself tells: what
comes out of the workspace is compared with what was looked at, and if it is anything else, it goes back.
"""

import contextlib
import errno
import functools
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from executor.domain.changes import Node, NodeType
from executor.domain.errors import DriftError
from executor.workspace.beneath import exchange, rename_new
from executor.workspace.operations import Operation, OperationKind
from executor.workspace.paths import Directory, join, same_stamp, shown
from executor.workspace.staging import Slot

# A write soon after the look may leave the modification time as it was: file systems take it from a clock that only
# ticks every few milliseconds. Within this time the content itself is compared again.
_TICK_NS = 50_000_000


class UndoConflictError(Exception):
    """An operation can not be unmade, because somebody changed its path since; both versions are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a path was when it was looked at."""

    node: Node
    status: os.stat_result
    at_ns: int


def look(root: Directory, path: bytes) -> Seen | None:
    """Look at a path, content included."""
    at_ns = time.time_ns()
    found = root.examine(path)
    return found and Seen(node=found[0], status=found[1], at_ns=at_ns)


class Switch:
    """Makes and unmakes the operations of one commit.

    Args:
        root: the workspace.
        slot: where new objects come from and old ones go to.
        seen: what every path that goes, moves or is replaced was when it was looked at.
        made: inode numbers of the slot's new objects, by entry.
    """

    def __init__(self, root: Directory, slot: Slot, seen: Mapping[bytes, Seen], made: Mapping[int, int]) -> None:
        self._root = root
        self._slot = slot
        self._seen = seen
        self._made = made
        self._staging = slot.staging.directory

    def forward(self, operation: Operation) -> None:
        """Make one operation, or leave everything as it was.

        Raises:
            DriftError: what it took out of the workspace is not what was looked at.
            OSError: the name is taken, missing or not to be written.
        """
        entry = self._slot.entry(operation.entry)
        match operation.kind:
            case OperationKind.PLACE:
                self._rename(self._staging, entry, self._root, operation.path)
            case OperationKind.EXCHANGE:
                self._swap(operation.path, entry)
                self._check_or(operation, operation.path, self._staging, entry)
            case OperationKind.TAKE:
                self._rename(self._root, operation.path, self._staging, entry)
                self._check_or(operation, operation.path, self._staging, entry)
            case OperationKind.MOVE:
                self._rename(self._root, operation.origin, self._root, operation.path)
                self._check_or(operation, operation.origin, self._root, operation.path)
            case OperationKind.METADATA:
                self._set_metadata(operation, operation.old, operation.new)

    def backward(self, operation: Operation) -> None:
        """Unmake one operation.

        Raises:
            UndoConflictError: somebody changed its path since.
            OSError: the file system does not let us.
        """
        entry = self._slot.entry(operation.entry)
        match operation.kind:
            case OperationKind.PLACE:
                status = self._still_ours(operation)
                if status is not None:
                    self._rename(self._root, operation.path, self._staging, entry)
                    self._confirm(operation, status)
            case OperationKind.EXCHANGE:
                status = self._still_ours(operation)
                if status is None:
                    raise self._conflict(operation, "was removed by somebody else")
                self._swap(operation.path, entry)
                self._confirm(operation, status)
            case OperationKind.TAKE:
                self._return(operation, self._staging, entry, operation.path)
            case OperationKind.MOVE:
                status = self._root.lstat(operation.path)
                if status is None or not same_stamp(status, self._seen[operation.origin].status):
                    raise self._conflict(operation, "is not what was moved there any more")
                self._return(operation, self._root, operation.path, operation.origin)
            case OperationKind.METADATA:
                self._unset_metadata(operation)

    def _check_or(self, operation: Operation, path: bytes, where: Directory, name: bytes) -> None:
        """Compare what left its place, with all beneath it, and put it back where it is not what was looked at."""
        different = tuple(self._differences(path, where, name))
        if different:
            self._put_back(operation)
            raise drifted(different, "changed while it was committed")

    def _put_back(self, operation: Operation) -> None:
        entry = self._slot.entry(operation.entry)
        match operation.kind:
            case OperationKind.EXCHANGE:
                self._swap(operation.path, entry)
            case OperationKind.MOVE:
                self._rename(self._root, operation.path, self._root, operation.origin)
            case _:
                self._rename(self._staging, entry, self._root, operation.path)

    def _differences(self, path: bytes, where: Directory, name: bytes) -> Iterator[bytes]:
        expected = self._seen[path]
        status = where.lstat(name)
        if status is None or not same_stamp(status, expected.status):
            yield path
        elif expected.node.type is NodeType.DIRECTORY:
            yield from self._differences_beneath(path, where, name)
        elif _is_fresh(expected) and where.node(name) != expected.node:
            yield path

    def _differences_beneath(self, path: bytes, where: Directory, name: bytes) -> Iterator[bytes]:
        for child in where.names(name):
            beneath = join(path, child)
            if beneath in self._seen:
                yield from self._differences(beneath, where, join(name, child))
            else:
                yield beneath

    def _still_ours(self, operation: Operation) -> os.stat_result | None:
        """Return the status of what was put at a path, or None where it is gone.

        Raises:
            UndoConflictError: it is something else by now.
        """
        found = self._root.examine(operation.path, digest=not operation.origin)
        if found is None:
            return None
        node, status = found
        if operation.origin:
            ours = same_stamp(status, self._seen[operation.origin].status)
        else:
            ours = status.st_ino == self._made[operation.entry] and node == operation.new
        if not ours:
            raise self._conflict(operation, "was changed by somebody else")
        if node.type is NodeType.DIRECTORY and not operation.origin and self._root.names(operation.path):
            raise self._conflict(operation, "holds names that somebody else made")
        return status

    def _confirm(self, operation: Operation, status: os.stat_result) -> None:
        """Compare what came back into the slot with what was looked at; an edit in between goes back to its place."""
        came = self._staging.lstat(self._slot.entry(operation.entry))
        if operation.origin or (came is not None and same_stamp(came, status)):
            return
        self._put_back(operation)
        raise self._conflict(operation, "was changed by somebody else at this very moment")

    def _return(self, operation: Operation, source: Directory, old: bytes, new: bytes) -> None:
        try:
            self._rename(source, old, self._root, new)
        except OSError as error:
            if error.errno in {errno.EEXIST, errno.ENOENT, errno.ENOTDIR}:
                raise self._conflict(operation, "was made again, or lost its directory, by somebody else") from None
            raise

    def _set_metadata(self, operation: Operation, old: Node | None, new: Node | None) -> None:
        fd = self._root.open_look(operation.path)
        try:
            if os.fstat(fd).st_ino != self._expected_inode(operation):
                raise drifted((operation.path,), "was replaced while it was committed")
            if old is not None and new is not None:
                _change_metadata(fd, old, new)
        finally:
            os.close(fd)

    def _expected_inode(self, operation: Operation) -> int:
        """Return whose bits are to change: a new object's where this commit made it, else what was looked at."""
        made = self._made.get(operation.entry)
        return self._seen[operation.path].status.st_ino if made is None else made

    def _unset_metadata(self, operation: Operation) -> None:
        node = self._root.node(operation.path, digest=False)
        new = operation.new
        if node is None or new is None or (node.type, node.mode, node.xattrs) != (new.type, new.mode, new.xattrs):
            raise self._conflict(operation, "was changed by somebody else")
        try:
            self._set_metadata(operation, new, operation.old)
        except DriftError:
            raise self._conflict(operation, "was replaced by somebody else") from None

    def _rename(self, source: Directory, old: bytes, target: Directory, new: bytes) -> None:
        old_parent, old_name = source.open_parent(old)
        try:
            new_parent, new_name = target.open_parent(new)
            try:
                _despite_bits(lambda: rename_new(old_parent, old_name, new_parent, new_name), (source, old))
            finally:
                os.close(new_parent)
        finally:
            os.close(old_parent)

    def _swap(self, path: bytes, entry: bytes) -> None:
        parent, name = self._root.open_parent(path)
        try:
            swap = functools.partial(exchange, self._staging.fd, entry, parent, name)
            _despite_bits(swap, (self._root, path), (self._staging, entry))
        finally:
            os.close(parent)

    def _conflict(self, operation: Operation, what: str) -> UndoConflictError:
        kept = ""
        if operation.kind in {OperationKind.EXCHANGE, OperationKind.TAKE}:
            kept = f"; the former version is kept at {self._slot.where(operation.entry)}"
        return UndoConflictError(f"{shown(operation.path)} {what} and stays as it is{kept}")


def drifted(paths: tuple[bytes, ...], what: str) -> DriftError:
    """Return the error for paths that are not what the report was made from."""
    names = ", ".join(shown(path) for path in paths[:3]) + (", …" if len(paths) > 3 else "")  # noqa: PLR2004 - a few
    return DriftError("BASE_DRIFTED", f"{names}: {what}", "make the dry run again", paths=paths)


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
            _set_bits(fd, stat.S_IMODE(mode) | stat.S_IWUSR)
        try:
            yield locked
        finally:
            if locked:
                _set_bits(fd, stat.S_IMODE(mode))
    finally:
        os.close(fd)


def _is_fresh(seen: Seen) -> bool:
    return seen.node.type is NodeType.FILE and seen.status.st_mtime_ns > seen.at_ns - _TICK_NS


def _change_metadata(fd: int, old: Node, new: Node) -> None:
    """Change bits and attributes of whatever a descriptor stands for, an unreadable file too."""
    place = f"/proc/self/fd/{fd}"
    former, wanted = dict(old.xattrs), dict(new.xattrs)
    for name in former.keys() - wanted.keys():
        os.removexattr(place, name)
    for name, value in wanted.items():
        if former.get(name) != value:
            os.setxattr(place, name, value)
    if old.mode != new.mode:
        _set_bits(fd, new.mode)


def _set_bits(fd: int, mode: int) -> None:
    os.chmod(f"/proc/self/fd/{fd}", mode)  # noqa: PTH101 - a descriptor's own name, no path of the workspace
