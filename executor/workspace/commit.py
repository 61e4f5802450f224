"""The commit of one change set: exactly these changes, or none, and the way back.

New objects are made ready and durable in a slot of the staging directory. Every touched path is compared with what
the change set starts from. The record of what is about to happen is written into the slot. Then each change is one
rename: a replaced object changes places with the new one, so that the old inode *is* the backup, with its bytes,
times, attributes and holes; a deleted one moves into the slot. What comes out is compared once more with what was
looked at, since an editor may have saved in between. Last, every directory that changed is made durable, once.

The record is the place where a crash-safe journal belongs: it is complete before the first rename, and what a slot
holds tells by inode number which renames were made.
"""

import base64
import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from executor.domain.changes import Change, ChangeKind, Node, NodeType, states_after
from executor.domain.errors import ExecutorError, StepFailedError, StoreError
from executor.workspace.objects import Objects
from executor.workspace.operations import Operation, OperationKind, plan_operations, staged_operations
from executor.workspace.paths import ChangedError, Directory, PathOutsideError, join, parent_of, shown
from executor.workspace.staging import Former, Slot, Staging, StagingUnavailableError
from executor.workspace.switch import Seen, Switch, UndoConflictError, drifted, look

__all__ = ["Applied", "CommitConflictError", "Committer", "StagingUnavailableError", "Undone"]

_DRIFT = frozenset({errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.ELOOP})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})
_RENAMES = frozenset({OperationKind.PLACE, OperationKind.EXCHANGE, OperationKind.TAKE, OperationKind.MOVE})


class CommitConflictError(ExecutorError):
    """A commit failed midway and could not be undone in full; both versions are kept, and a person must choose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryTimes:
    """When a directory was last read and changed, before a commit and after it.

    `mtime_after_ns` is None where the commit itself took the directory from its place.
    """

    inode: int
    atime_ns: int
    mtime_ns: int
    mtime_after_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """A commit that was made, and all that undoing it needs."""

    slot: str
    changes: tuple[Change, ...]
    operations: tuple[Operation, ...]
    seen: Mapping[bytes, Seen]
    made: Mapping[int, int]
    times: Mapping[bytes, DirectoryTimes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone:
    """How undoing a commit ended.

    Where `success` is false, `differences` says path by path what was not restored and where its former version is.
    The slot must be kept then, not discarded.
    """

    success: bool
    differences: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class _Work:
    """One commit while it is made."""

    slot: Slot
    changes: tuple[Change, ...]
    operations: tuple[Operation, ...]
    seen: dict[bytes, Seen]
    made: dict[int, int] = field(default_factory=dict)
    times: dict[bytes, DirectoryTimes] = field(default_factory=dict)
    done: list[Operation] = field(default_factory=list)


class Committer:
    """Commits change sets to one workspace. The caller holds the workspace's lock.

    Args:
        root: the workspace.
        staging: a directory of the executor's own, on the workspace's file system and outside of it.
        objects: where the new files' bytes are.

    Raises:
        StagingUnavailableError: the staging directory is not usable.
    """

    def __init__(self, root: Directory, staging: Path, objects: Objects) -> None:
        self._root = root
        self._staging = Staging(root, staging)
        self._objects = objects

    def close(self) -> None:
        self._staging.close()

    def check(self, changes: Sequence[Change]) -> tuple[bytes, ...]:
        """Return the touched paths that are not what the changes start from, sorted."""
        return self._look(changes)[1]

    def apply(self, slot: str, changes: Sequence[Change]) -> Applied:
        """Make all of the changes, or none.

        Args:
            slot: a name for this commit, never used before: letters, digits, '-' and '_'.
            changes: the change set; every path beneath a directory that goes or moves must be in it.

        Raises:
            DriftError: a touched path is not, or does not stay, what the changes start from. Nothing has changed.
            StepUnsafeError: an old file's owner can not be kept. Nothing has changed.
            StepFailedError: the workspace may not be written. Nothing has changed.
            StoreError: the disk is full or fails. Nothing has changed.
            CommitConflictError: it failed midway, and somebody else's changes prevent undoing it.
        """
        seen, different = self._look(changes)
        if different:
            raise drifted(different, "not what the report was made from")
        kept = tuple(changes)
        work = _Work(slot=self._staging.slot(slot), changes=kept, operations=plan_operations(kept), seen=seen)
        try:
            self._prepare(work)
            self._switch_all(work)
        except (OSError, ExecutorError, UndoConflictError) as error:
            raise self._undo_failed(work, error) from error
        except BaseException as error:
            self._undo_failed(work, error)
            raise
        return self._applied(work)

    def verify(self, changes: Iterable[Change]) -> tuple[str, ...]:
        """Return in words how the workspace differs from what the changes end in; nothing where it does not."""
        found = (self._difference(path, node) for path, node in sorted(states_after(changes).items()))
        return tuple(text for text in found if text)

    def undo(self, applied: Applied) -> Undone:
        """Restore what was there before, exactly: bytes, bits, times, attributes, deleted files, directory times.

        A path that somebody else changed since stays as it is, and its former version stays in the slot.
        """
        slot = self._staging.slot(applied.slot)
        switch = Switch(self._root, slot, applied.seen, applied.made)
        untouched = {
            path: times for path, times in applied.times.items() if times.mtime_after_ns in {None, self._mtime_ns(path)}
        }
        differences = _undo_all(switch, applied.operations)
        self._restore_times(untouched)
        self._sync_directories(applied.operations)
        return Undone(success=not differences, differences=differences)

    def discard(self, applied: Applied) -> None:
        """Give up the way back: remove the slot with the old objects. Not after an undo without success."""
        self._staging.slot(applied.slot).remove(operation.entry for operation in applied.operations)

    def keep(self, applied: Applied) -> None:
        """Leave the slot to a person: after an undo without success, in place of `discard`."""
        self._staging.slot(applied.slot).keep()

    def _difference(self, path: bytes, expected: Node | None) -> str:
        try:
            found = self._root.state(path)
        except StepFailedError as error:
            return error.fault.message
        if found == expected:
            return ""
        return f"{shown(path)}: {_described(found)} instead of {_described(expected)}"

    def _look(self, changes: Sequence[Change]) -> tuple[dict[bytes, Seen], tuple[bytes, ...]]:
        """Look at every touched path, and return what was seen and which paths are not as the changes start from."""
        seen: dict[bytes, Seen] = {}
        different: set[bytes] = set()
        leaving = {change.moved_from or change.path for change in changes if change.kind in _LEAVING}
        for change in changes:
            path = change.moved_from or change.path
            if change.moved_from and self._lstat(change.path) is not None:
                different.add(change.path)
            found = self._seen(path)
            if (found and found.node) != change.old:
                different.add(path)
            elif found is not None:
                seen[path] = found
                different.update(self._unexpected(change, path, found, leaving))
        return seen, tuple(sorted(different))

    def _unexpected(self, change: Change, path: bytes, found: Seen, leaving: set[bytes]) -> set[bytes]:
        """Return what would go or change along with a path though no change says so."""
        if found.node.type is NodeType.DIRECTORY and change.kind in _LEAVING:
            return {join(path, name) for name in self._root.names(path)} - leaving
        shared = found.node.type is NodeType.FILE and found.status.st_nlink > 1
        return {path} if shared and change.kind in {ChangeKind.MODIFY, ChangeKind.METADATA} else set()

    def _seen(self, path: bytes) -> Seen | None:
        try:
            return look(self._root, path)
        except (PathOutsideError, ChangedError):
            return None  # a directory above it has become a link, or somebody is writing it: not what was planned on

    def _lstat(self, path: bytes) -> os.stat_result | None:
        try:
            return self._root.lstat(path)
        except PathOutsideError:
            return None

    def _mtime_ns(self, path: bytes) -> int | None:
        status = self._lstat(path)
        return None if status is None else status.st_mtime_ns

    def _prepare(self, work: _Work) -> None:
        """Make everything new ready, write the record, and make both durable. Nothing of it can be seen yet."""
        moved = {change.path: change.moved_from for change in work.changes if change.moved_from}
        owners = _Owners(self._root, moved)
        for operation in staged_operations(work.operations):
            if operation.new is not None:
                former = self._former(work, operation) or owners.of_new(operation.path)
                work.made[operation.entry] = work.slot.make(operation.entry, operation.new, self._objects, former)
        for path in {moved.get(path, path) for path in _directories(work.operations)}:
            status = self._lstat(path)
            if status is not None:
                work.times[path] = DirectoryTimes(
                    inode=status.st_ino, atime_ns=status.st_atime_ns, mtime_ns=status.st_mtime_ns
                )
        work.slot.write_record(_record(work))
        work.slot.sync()

    def _former(self, work: _Work, operation: Operation) -> Former | None:
        old = work.seen.get(operation.path)
        if old is None or operation.new is None or old.node.type is not operation.new.type:
            return None
        return Former.replaced(self._root, operation.path, old.status)

    def _switch_all(self, work: _Work) -> None:
        switch = Switch(self._root, work.slot, work.seen, work.made)
        for operation in work.operations:
            try:
                switch.forward(operation)
            except OSError as error:
                raise _translated(operation, error) from error
            work.done.append(operation)
        self._sync_directories(work.operations)

    def _applied(self, work: _Work) -> Applied:
        times = {}
        for path, before in work.times.items():
            status = self._lstat(path)
            if status is not None and status.st_ino == before.inode:
                times[path] = DirectoryTimes(
                    inode=before.inode,
                    atime_ns=before.atime_ns,
                    mtime_ns=before.mtime_ns,
                    mtime_after_ns=status.st_mtime_ns,
                )
        return Applied(
            slot=work.slot.name,
            changes=work.changes,
            operations=work.operations,
            seen=work.seen,
            made=work.made,
            times={**work.times, **times},
        )

    def _undo_failed(self, work: _Work, error: BaseException) -> ExecutorError:
        """Restore what was there before a commit that failed midway, and return the error that says so."""
        work.slot.close()
        switch = Switch(self._root, work.slot, work.seen, work.made)
        differences = _undo_all(switch, work.done)
        self._restore_times(work.times)
        if differences:
            work.slot.keep()
            message = f"the commit failed ({error}) and could not be undone in full: " + "; ".join(differences)
            return CommitConflictError("CONFLICT", message, "compare both versions and keep the right one")
        work.slot.remove(operation.entry for operation in work.operations)
        if isinstance(error, PathOutsideError):
            return drifted(error.fault.paths, "a directory above it is a link now")
        if isinstance(error, OSError):
            return _storage_failed(error)
        return error if isinstance(error, ExecutorError) else StoreError("INTERNAL", str(error), "see the log")

    def _restore_times(self, times: Mapping[bytes, DirectoryTimes]) -> None:
        """Set directories' times back, each only where it still is the same directory."""
        for path, before in times.items():
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, PathOutsideError):
                fd = self._root.open_directory(path)
                try:
                    if os.fstat(fd).st_ino == before.inode:
                        os.utime(fd, ns=(before.atime_ns, before.mtime_ns))
                finally:
                    os.close(fd)

    def _sync_directories(self, operations: Iterable[Operation]) -> None:
        """Make the names of every directory that changed durable, and the bits of what stayed in its place."""
        for path in _directories(operations):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, PathOutsideError):
                _fsync(self._root.open_directory(path))
        for operation in operations:
            if operation.kind is OperationKind.METADATA and operation.old and operation.old.type is NodeType.FILE:
                # Unreadable for us: its directory, synced above, brings the bits along on journalling file systems.
                with contextlib.suppress(FileNotFoundError, NotADirectoryError, PathOutsideError, StepFailedError):
                    _fsync(self._root.open_file(operation.path))


class _Owners:
    """Whom new names belong to where root commits: the owner of the directory that they come into.

    A directory that comes in the same commit belongs to the owner of its own, and so on upwards; one that moves keeps
    its owner. An ordinary user can make nothing but its own.
    """

    def __init__(self, root: Directory, moved: Mapping[bytes, bytes]) -> None:
        self._root = root
        self._moved = moved
        self._root_commits = os.geteuid() == 0
        self._known: dict[bytes, Former] = {}

    def of_new(self, path: bytes) -> Former | None:
        return self._of_directory(parent_of(path)) if self._root_commits else None

    def _of_directory(self, path: bytes) -> Former:
        known = self._known.get(path)
        if known is None:
            known = self._known[path] = self._found(path)
        return known

    def _found(self, path: bytes) -> Former:
        # Behind a link there is nothing of ours: the link is about to make way for a directory.
        with contextlib.suppress(PathOutsideError):
            status = self._root.lstat(self._moved.get(path, path))
            if status is not None and stat.S_ISDIR(status.st_mode):
                return Former.directory(path, status)
        return self._of_directory(parent_of(path))


_LEAVING = frozenset({ChangeKind.DELETE, ChangeKind.MOVE, ChangeKind.TYPE_CHANGE})


def _undo_all(switch: Switch, operations: Sequence[Operation]) -> tuple[str, ...]:
    """Unmake operations, the last one first; what can not be unmade does not keep the others from it."""
    differences = []
    for operation in reversed(operations):
        try:
            switch.backward(operation)
        except UndoConflictError as conflict:
            differences.append(str(conflict))
        except (OSError, ExecutorError) as error:
            differences.append(f"{shown(operation.path)} could not be restored: {error}")
    return tuple(differences)


def _directories(operations: Iterable[Operation]) -> tuple[bytes, ...]:
    """Return every directory in which a name comes, goes or changes, and each whose own bits change, sorted."""
    found: set[bytes] = set()
    for operation in operations:
        if operation.kind in _RENAMES:
            found.add(parent_of(operation.path))
        if operation.kind is OperationKind.MOVE:
            found.add(parent_of(operation.origin))
        elif operation.kind is OperationKind.METADATA and operation.new and operation.new.type is NodeType.DIRECTORY:
            found.add(operation.path)
    return tuple(sorted(found))


def _translated(operation: Operation, error: OSError) -> Exception:
    if error.errno in _DRIFT:
        return drifted((operation.path,), f"changed while it was committed ({os.strerror(error.errno or 0).lower()})")
    return error


def _storage_failed(error: OSError) -> ExecutorError:
    if error.errno in _FULL:
        remedy = "free space on the workspace's file system, check the disk, and make the dry run again"
        return StoreError("STORE_FULL", f"the workspace's file system failed: {error.strerror}", remedy)
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        remedy = "run the executor as the owner of the workspace, and mount it writable"
        return StepFailedError("STATE_FORBIDS", f"the workspace may not be written: {error.strerror}", remedy)
    return StoreError("INTERNAL", f"the commit failed: {error}", "see the executor's log")


def _described(node: Node | None) -> str:
    if node is None:
        return "absent"
    content = node.digest or shown(node.link_target)
    attributes = f" {len(node.xattrs)} attributes" if node.xattrs else ""
    return f"{node.type.value} {node.mode:04o} {content}".rstrip() + attributes


def _fsync(fd: int) -> None:
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _record(work: _Work) -> bytes:
    """Return the slot's record: every operation with the inodes that tell whether it was made."""
    operations = [
        {
            "kind": operation.kind.value,
            "path": _text(operation.path),
            "origin": _text(operation.origin),
            "entry": operation.entry,
            "new_inode": work.made.get(operation.entry),
            "old_inode": _inode(work.seen.get(operation.origin or operation.path)),
            "old_mode": operation.old and operation.old.mode,
            "old_xattrs": [[name, _text(value)] for name, value in operation.old.xattrs] if operation.old else [],
        }
        for operation in work.operations
    ]
    times = [[_text(path), kept.inode, kept.atime_ns, kept.mtime_ns] for path, kept in work.times.items()]
    value = {"version": 1, "slot": work.slot.name, "operations": operations, "directories": times}
    return json.dumps(value, separators=(",", ":")).encode()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _inode(seen: Seen | None) -> int | None:
    return seen.status.st_ino if seen else None
