"""The way back: a commit unmade, whether it was made in full, cut off in the middle, or half unmade before.

What was made is not remembered but seen. The slot is nobody's but ours, so what it holds tells of each rename whether
it was made: of a new object, that it is still there or has left; of an old one, that it has come or is not yet here.
Where the slot has no part in an operation, the inode at the path tells. So every operation can be unmade any number of
times, and a process that dies in the middle of it leaves nothing that the next one can not go on from.

Whatever somebody else has made of a path in the meantime stays as it is, and the former version stays in the slot:
that is a conflict, told by path, and the other operations are unmade all the same.
"""

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import replace

from executor.domain.changes import Node, NodeType
from executor.domain.errors import ExecutorError
from executor.workspace.directories import status_of
from executor.workspace.operations import Operation, OperationKind
from executor.workspace.paths import Directory, PathOutsideError, same_stamp, shown
from executor.workspace.record import Applied, changed_paths
from executor.workspace.staging import Slot
from executor.workspace.switch import Renames, change_metadata, inode_of, is_lifted, set_bits, set_mtime

# A disk that fails once may work the next moment; only what keeps failing is left to a person.
_ATTEMPTS = 3
_Rename = Callable[[Operation], None]
_TAKEN = frozenset({errno.EEXIST, errno.ENOENT, errno.ENOTDIR})


class UndoConflictError(Exception):
    """An operation can not be unmade, because somebody changed its path since; both versions are kept."""


class Unmaking:
    """Unmakes one commit.

    Args:
        root: the workspace.
        slot: the commit's slot.
        applied: the commit.
        resumed: a process died while it unmade it. Somebody may have saved a file at the very moment when it came back
            into the slot, so what is there is looked at.
    """

    def __init__(self, root: Directory, slot: Slot, applied: Applied, *, resumed: bool) -> None:
        self._root = root
        self._slot = slot
        self._seen = applied.seen
        self._made = applied.made
        self._operations = applied.operations
        self._resumed = resumed
        self._renames = Renames(root, slot, changed_paths(applied.changes))
        self._staging = slot.staging.directory

    def all(self) -> tuple[str, ...]:
        """Unmake what was made, the last first; returns what could not be, in words."""
        differences = [text for text in map(self._one, reversed(self._operations)) if text]
        locked = (path for path, seen in self._seen.items() if _is_locked(seen.node))
        differences += [text for text in map(self._close, locked) if text]
        return tuple(differences)

    def is_made(self) -> bool:
        """Tell whether every operation is made, by the looks of it; only of the workspace's latest commit."""
        placed = {operation.entry for operation in self._operations if _comes_back(operation)}
        try:
            return all(
                self._is_made(operation)
                for operation in self._operations
                if operation.kind is not OperationKind.TAKE or operation.entry not in placed
            )
        except ExecutorError:
            return False  # a path can not be reached the way that the commit reached it

    def _one(self, operation: Operation) -> str:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._backward(operation)
            except UndoConflictError as conflict:
                return str(conflict)
            except (OSError, ExecutorError) as error:
                if attempt == _ATTEMPTS or isinstance(error, ExecutorError):
                    return f"{shown(operation.path)} could not be restored: {error}{self._kept(operation)}"
            else:
                break
        return ""

    def _backward(self, operation: Operation) -> None:
        match operation.kind:
            case OperationKind.PLACE if operation.origin:
                self._take_moved(operation)
            case OperationKind.PLACE:
                self._unplace(operation)
            case OperationKind.EXCHANGE:
                self._exchange_back(operation)
            case OperationKind.TAKE:
                self._return_taken(operation)
            case OperationKind.MOVE:
                self._move_back(operation)
            case OperationKind.METADATA:
                self._unset_metadata(operation)
            case OperationKind.TIMES:
                self._unset_mtime(operation)

    def _is_made(self, operation: Operation) -> bool:
        held = self._held(operation)
        match operation.kind:
            case OperationKind.PLACE if not operation.origin:
                # A power failure may have taken the entry, which nobody syncs, together with the rename.
                return held is None and self._is_there(operation)
            case OperationKind.EXCHANGE:
                return _same_object(held, self._seen[operation.path].status) and self._is_there(operation)
            case OperationKind.TAKE:
                return held is not None
            case OperationKind.PLACE | OperationKind.MOVE:
                return _same_object(self._status(operation.path), self._former(operation)) and self._is_there(operation)
            case OperationKind.METADATA:
                node = self._root.node(operation.path, digest=False)
                return node is not None and operation.new is not None and _metadata(node) == _metadata(operation.new)
            case OperationKind.TIMES:
                status = self._status(operation.path)
                return status is not None and status.st_mtime_ns == operation.mtime_ns

    def _is_there(self, operation: Operation) -> bool:
        """Tell whether something is at the path, and has no right to write any more that it got for the rename."""
        status = self._status(operation.path)
        return status is not None and not (operation.new and is_lifted(status, operation.new.mode))

    def _unplace(self, operation: Operation) -> None:
        """Take a new object back into the slot."""
        held = self._held(operation)
        if held is not None and held.st_ino != self._made[operation.entry]:
            # Cut off while it was unmade: what came into the slot is what somebody saved at that moment.
            self._return(operation, self._renames.place)
            raise self._conflict(operation, "was changed by somebody else")
        if held is not None:
            self._check_unedited(operation)
            return
        status = self._still_ours(operation)
        if status is not None:
            self._renames.take(operation)
            self._confirm(operation, status)

    def _exchange_back(self, operation: Operation) -> None:
        held = self._held(operation)
        if held is not None and held.st_ino == self._made[operation.entry]:
            self._check_unedited(operation)
            return
        there = self._status(operation.path)
        former = self._seen[operation.path].status
        if held is None:
            if _same_object(there, former):
                return  # a power failure took the new object before it had changed places
            raise self._conflict(operation, "has lost its former version")
        if held.st_ino != former.st_ino and _same_object(there, former):
            # Cut off while it was unmade: what came into the slot is what somebody saved at that moment.
            self._renames.swap(operation)
            raise self._conflict(operation, "was changed by somebody else")
        status = self._still_ours(operation)
        if status is None:
            raise self._conflict(operation, "was removed by somebody else")
        self._renames.swap(operation)
        self._confirm(operation, status)

    def _return_taken(self, operation: Operation) -> None:
        if self._held(operation) is not None:
            self._return(operation, self._renames.place)
        elif not self._slot.is_live and not _same_object(self._status(operation.path), self._former(operation)):
            raise self._conflict(operation, "has lost its former version")

    def _take_moved(self, operation: Operation) -> None:
        """Take what waited in the slot, and then moved, back into the slot."""
        if self._held(operation) is None and self._has_moved(operation):
            self._renames.take(operation)

    def _move_back(self, operation: Operation) -> None:
        if self._has_moved(operation):
            self._return(operation, lambda moved: self._renames.move(moved.path, moved.origin))

    def _has_moved(self, operation: Operation) -> bool:
        former = self._former(operation)
        status = self._status(operation.path)
        if status is not None and _same_object(status, former):
            if not _unchanged(status, former):
                raise self._conflict(operation, "is not what was moved there any more")
            return True
        if not _same_object(self._status(operation.origin), former):
            raise self._conflict(operation, "is not what was moved there any more")
        return False

    def _unset_metadata(self, operation: Operation) -> None:
        """Set bits and attributes back; a process that died between them left some of the old and some of the new."""
        old, new = operation.old, operation.new
        found = self._examined(operation, digest=False)
        if operation.entry in self._made and not self._is_in_place(operation):
            return  # a new directory that is not here; its own operation tells what became of it
        if found is None or old is None or new is None:
            raise self._conflict(operation, "was removed by somebody else")
        node, status = found
        if node.type is old.type and _metadata(node) == _metadata(old):
            return
        if node.type is not new.type or not _between(node, old, new):
            raise self._conflict(operation, "was changed by somebody else")
        if status.st_ino != inode_of(operation, self._seen, self._made):
            raise self._conflict(operation, "was replaced by somebody else")
        fd = self._root.open_look(operation.path)
        try:
            if os.fstat(fd).st_ino != status.st_ino:
                raise self._conflict(operation, "was replaced by somebody else")
            change_metadata(fd, node, old)
        finally:
            os.close(fd)

    def _unset_mtime(self, operation: Operation) -> None:
        """Set a modification time back; those of directories are restored at the very end, by another hand."""
        if operation.entry in self._made or operation.new is None or operation.new.type is NodeType.DIRECTORY:
            return
        former = self._former(operation)
        status = self._status(operation.path)
        if not _same_object(status, former) and operation.origin:
            return  # not moved here; the move itself tells what became of it
        if status is not None and status.st_mtime_ns == former.st_mtime_ns:
            return
        if status is None or not _same_object(status, former) or status.st_mtime_ns != operation.mtime_ns:
            raise self._conflict(operation, "was changed by somebody else")
        fd = self._root.open_look(operation.path)
        try:
            if os.fstat(fd).st_ino != former.st_ino:
                raise self._conflict(operation, "was replaced by somebody else")
            set_mtime(fd, former.st_mtime_ns)
        finally:
            os.close(fd)

    def _still_ours(self, operation: Operation) -> os.stat_result | None:
        """Return the status of what was put at a path, or None where it is gone.

        Raises:
            UndoConflictError: it is something else by now.
        """
        found = self._examined(operation, digest=True)
        if found is None:
            return None
        node, status = found
        if status.st_ino != self._made[operation.entry] or not _is_new(node, operation.new):
            raise self._conflict(operation, "was changed by somebody else")
        if node.type is NodeType.DIRECTORY and self._root.names(operation.path):
            raise self._conflict(operation, "holds names that somebody else made")
        return status

    def _confirm(self, operation: Operation, status: os.stat_result) -> None:
        """Compare what came back into the slot with what was looked at; an edit in between goes back to its place."""
        came = self._held(operation)
        if came is not None and same_stamp(came, status):
            return
        (self._renames.swap if operation.kind is OperationKind.EXCHANGE else self._renames.place)(operation)
        raise self._conflict(operation, "was changed by somebody else at this very moment")

    def _check_unedited(self, operation: Operation) -> None:
        new = operation.new
        if self._resumed and new is not None and new.type is NodeType.FILE:
            node = self._staging.node(self._slot.entry(operation.entry))
            if node is None or node.digest != new.digest:
                where = self._slot.where(operation.entry)
                message = (
                    f"{shown(operation.path)} was written by somebody else as it was restored; that is kept at {where}"
                )
                raise UndoConflictError(message)

    def _return(self, operation: Operation, rename: _Rename) -> None:
        try:
            rename(operation)
        except OSError as error:
            if error.errno in _TAKEN:
                raise self._conflict(operation, "was made again, or lost its directory, by somebody else") from None
            raise

    def _close(self, path: bytes) -> str:
        """Take the right to write from a directory that got it for the moment of a rename that was cut off."""
        former = self._seen[path].status
        try:
            status = self._status(path)
            if status is None or not _same_object(status, former) or status.st_mode != former.st_mode | stat.S_IWUSR:
                return ""
            fd = self._root.open_look(path)
            try:
                set_bits(fd, stat.S_IMODE(former.st_mode))
            finally:
                os.close(fd)
        except (OSError, ExecutorError) as error:
            return f"the bits of {shown(path)} could not be restored: {error}"
        return ""

    def _status(self, path: bytes) -> os.stat_result | None:
        """Return what is at a path; where a link is still, or again, in the way of it, nothing of ours is."""
        return status_of(self._root, path)

    def _examined(self, operation: Operation, *, digest: bool) -> tuple[Node, os.stat_result] | None:
        try:
            return self._root.examine(operation.path, digest=digest)
        except PathOutsideError:
            return None

    def _held(self, operation: Operation) -> os.stat_result | None:
        return self._staging.lstat(self._slot.entry(operation.entry))

    def _former(self, operation: Operation) -> os.stat_result:
        return self._seen[operation.origin or operation.path].status

    def _is_in_place(self, operation: Operation) -> bool:
        status = self._status(operation.path)
        return status is not None and status.st_ino == self._made[operation.entry]

    def _conflict(self, operation: Operation, what: str) -> UndoConflictError:
        return UndoConflictError(f"{shown(operation.path)} {what} and stays as it is{self._kept(operation)}")

    def _kept(self, operation: Operation) -> str:
        if operation.kind not in {OperationKind.EXCHANGE, OperationKind.TAKE}:
            return ""
        return f"; the former version is kept at {self._slot.where(operation.entry)}"


def _comes_back(operation: Operation) -> bool:
    """Tell whether it puts in place what was taken into the slot before."""
    return operation.kind is OperationKind.PLACE and bool(operation.origin)


def _same_object(status: os.stat_result | None, former: os.stat_result) -> bool:
    """Tell whether it is the inode that was looked at. Device numbers may be others after a restart of the machine."""
    return status is not None and status.st_ino == former.st_ino


def _unchanged(status: os.stat_result, former: os.stat_result) -> bool:
    """Tell whether an inode is as it was, but for a right to write that a directory got for a moment."""
    if stat.S_ISDIR(former.st_mode):
        return status.st_mode in {former.st_mode, former.st_mode | stat.S_IWUSR}
    facts = (former.st_mode, former.st_size, former.st_mtime_ns)
    return (status.st_mode, status.st_size, status.st_mtime_ns) == facts


def _is_new(node: Node, new: Node | None) -> bool:
    if new is not None and new.type is NodeType.DIRECTORY and node.mode == new.mode | stat.S_IWUSR:
        new = replace(new, mode=node.mode)
    return node == new


def _is_locked(node: Node) -> bool:
    return node.type is NodeType.DIRECTORY and not node.mode & stat.S_IWUSR


def _metadata(node: Node) -> tuple[int, tuple[tuple[str, bytes], ...]]:
    return node.mode, node.xattrs


def _between(node: Node, old: Node, new: Node) -> bool:
    """Tell whether all bits and attributes are either the old or the new ones, but for a right to write."""
    found, before, after = dict(node.xattrs), dict(old.xattrs), dict(new.xattrs)
    names = found.keys() | before.keys() | after.keys()
    modes = {old.mode, new.mode}
    if node.type is NodeType.DIRECTORY or before != after:
        modes |= {mode | stat.S_IWUSR for mode in modes}
    return node.mode in modes and all(found.get(name) in {before.get(name), after.get(name)} for name in names)
