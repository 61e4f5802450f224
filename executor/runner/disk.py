"""What paths really are, for receipts that must be written whatever the disk says."""

from collections.abc import Iterable

from executor.domain.changes import Node
from executor.domain.errors import ExecutorError
from executor.workspace.paths import Directory


def states_on_disk(root: Directory, paths: Iterable[bytes]) -> dict[bytes, Node | None]:
    """Return what some paths are. One that can not be looked at, or changes all the time, is left out."""
    found: dict[bytes, Node | None] = {}
    for path in sorted(paths):
        try:
            found[path] = root.state(path)
        except (ExecutorError, OSError):
            continue
    return found


def mtimes_on_disk(root: Directory, paths: Iterable[bytes]) -> dict[bytes, int]:
    """Return the modification times of some paths, in nanoseconds; one that is not there is left out."""
    found: dict[bytes, int] = {}
    for path in paths:
        try:
            status = root.lstat(path)
        except (ExecutorError, OSError):
            continue
        if status is not None:
            found[path] = status.st_mtime_ns
    return found
