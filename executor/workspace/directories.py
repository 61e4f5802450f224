"""The directories that a commit changes names in: their times, and their way to the disk."""

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace

from executor.domain.changes import NodeType
from executor.domain.errors import ExecutorError, StepFailedError
from executor.workspace.operations import Operation, OperationKind
from executor.workspace.paths import Directory, PathOutsideError, parent_of, shown
from executor.workspace.record import DirectoryTimes

_RENAMES = frozenset({OperationKind.PLACE, OperationKind.EXCHANGE, OperationKind.TAKE, OperationKind.MOVE})
_IN_PLACE = frozenset({OperationKind.METADATA, OperationKind.TIMES})
_GONE = (FileNotFoundError, NotADirectoryError, PathOutsideError)
_ATTEMPTS = 2


def touched_directories(operations: Iterable[Operation]) -> tuple[bytes, ...]:
    """Return every directory in which a name comes, goes or changes, and each whose own bits or times do, sorted."""
    found: set[bytes] = set()
    for operation in operations:
        if operation.kind in _RENAMES:
            found.add(parent_of(operation.path))
        if operation.kind is OperationKind.MOVE:
            found.add(parent_of(operation.origin))
        elif operation.kind in _IN_PLACE and operation.new and operation.new.type is NodeType.DIRECTORY:
            found.add(operation.path)
    return tuple(sorted(found))


def times_before(
    root: Directory, operations: Iterable[Operation], moved: Mapping[bytes, bytes]
) -> dict[bytes, DirectoryTimes]:
    """Return the times of the directories that a commit is about to touch, by the paths that they have now.

    Args:
        root: the workspace.
        operations: the commit's.
        moved: new paths of what moves to the old ones.
    """
    found = {}
    for path in sorted({moved.get(path, path) for path in touched_directories(operations)}):
        status = status_of(root, path)
        if status is not None:
            found[path] = DirectoryTimes(inode=status.st_ino, atime_ns=status.st_atime_ns, mtime_ns=status.st_mtime_ns)
    return found


def times_after(root: Directory, times: Mapping[bytes, DirectoryTimes]) -> dict[bytes, DirectoryTimes]:
    """Add the times that the directories have now, where they still are in their places."""
    found = {}
    for path, before in times.items():
        status = status_of(root, path)
        same = status is not None and status.st_ino == before.inode
        found[path] = replace(before, mtime_after_ns=status.st_mtime_ns) if status is not None and same else before
    return found


def status_of(root: Directory, path: bytes) -> os.stat_result | None:
    """Return what a path is; a path through a link is nothing in here."""
    try:
        return root.lstat(path)
    except PathOutsideError:
        return None


def restore_times(root: Directory, times: Mapping[bytes, DirectoryTimes]) -> tuple[str, ...]:
    """Set directories' times back, each only where it still is the same directory; returns in words what failed.

    Another owner's directory keeps its new time: only its owner may set it.
    """
    differences = []
    for path, before in times.items():
        for attempt in range(_ATTEMPTS):
            try:
                with contextlib.suppress(*_GONE, PermissionError):
                    _restore(root, path, before)
            except (OSError, ExecutorError) as error:
                if attempt == _ATTEMPTS - 1:
                    differences.append(f"the times of {shown(path)} could not be restored: {error}")
            else:
                break
    return tuple(differences)


def sync_directories(root: Directory, operations: Iterable[Operation]) -> None:
    """Make the names of every directory that changed durable, and the bits and times of what stayed in its place."""
    kept = tuple(operations)
    for path in touched_directories(kept):
        with contextlib.suppress(*_GONE):
            _fsync(root.open_directory(path))
    for operation in kept:
        if operation.kind in _IN_PLACE and operation.new and operation.new.type is NodeType.FILE:
            # Unreadable for us: its directory, synced above, brings the bits along on journalling file systems.
            with contextlib.suppress(*_GONE, StepFailedError):
                _fsync(root.open_file(operation.path))


def sync_with_patience(root: Directory, operations: Iterable[Operation]) -> str:
    """Sync them, once more where it fails; returns in words what failed for good."""
    kept = tuple(operations)
    failed = ""
    for _ in range(_ATTEMPTS):
        try:
            sync_directories(root, kept)
        except (OSError, ExecutorError) as error:
            failed = f"what was restored could not be made durable: {error}"
        else:
            return ""
    return failed


def _restore(root: Directory, path: bytes, before: DirectoryTimes) -> None:
    fd = root.open_directory(path)
    try:
        status = os.fstat(fd)
        if status.st_ino == before.inode and status.st_mtime_ns != before.mtime_ns:
            os.utime(fd, ns=(before.atime_ns, before.mtime_ns))
    finally:
        os.close(fd)


def _fsync(fd: int) -> None:
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
