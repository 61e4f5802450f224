"""Undoing: takes back what a committed step did, exactly, from the checkpoint that the executor keeps of it.

The plan only names the step. What is taken back is what the executor's own ledger says the step changed, and the former
content comes from the old objects themselves, its digest checked. Every path must now be exactly what the step left,
as the steps before this one in the plan leave it; where one is not, nothing of the step is taken back.

A restored object gets its former modification time. So does a directory in which names came and went, unless its time
tells that somebody else changed it since. A modification time alone is no drift, except where it is all that the step
changed.
"""

import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

from executor.domain.changes import Change, ChangeKind, Node, NodeType, states_after
from executor.domain.errors import DriftError, StepFailedError, StepUnsafeError
from executor.domain.plan import UndoStep
from executor.workspace.objects import Batch
from executor.workspace.paths import ROOT, PathOutsideError, join, name_of, parent_of, shown
from executor.workspace.record import DirectoryTimes
from executor.workspace.tree import Tree
from executor.workspace.workspace import Workspace

LEAVING = frozenset({ChangeKind.DELETE, ChangeKind.MOVE, ChangeKind.TYPE_CHANGE})
REVERSED: Mapping[ChangeKind, ChangeKind] = {
    ChangeKind.CREATE: ChangeKind.DELETE,
    ChangeKind.MODIFY: ChangeKind.MODIFY,
    ChangeKind.DELETE: ChangeKind.CREATE,
    ChangeKind.MOVE: ChangeKind.MOVE,
    ChangeKind.TYPE_CHANGE: ChangeKind.TYPE_CHANGE,
    ChangeKind.METADATA: ChangeKind.METADATA,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptStep:
    """What the executor keeps of one committed step."""

    changes: tuple[Change, ...]
    """What it really changed."""
    directory_times: Mapping[bytes, DirectoryTimes]
    """The times of the directories in which it changed names."""
    former: Callable[[bytes], os.stat_result | None]
    """What a path was before; None where nothing was there."""
    open_former: Callable[[bytes], int]
    """Opens a file's former content, the caller's to close; FileNotFoundError where it is no longer kept."""


class KeptSteps(Protocol):
    """Where committed steps are looked up, by the executor's own records alone."""

    def find(self, action: UndoStep, workspace: Workspace) -> KeptStep:
        """Return what is kept of a step.

        Raises:
            StepFailedError: there is no such step (`NOT_FOUND`), it has not ended or changed nothing for good
                (`STATE_FORBIDS`), or its checkpoint is gone (`CHECKPOINT_GONE`).
            StepBlockedError: it was carried out in another workspace (`WORKSPACE_MISMATCH`).
        """


class NothingKept:
    """For an executor, or a part of one, that has no ledger."""

    def find(self, action: UndoStep, workspace: Workspace) -> KeptStep:
        """Refuse; there is nothing."""
        del workspace
        raise checkpoint_gone(f"nothing is kept of step {action.step_id} of mission {action.mission_id}")


NOTHING_KEPT: Final[KeptSteps] = NothingKept()


class Undoing:
    """Takes steps back on the tree of one dry run.

    Args:
        tree: what the steps so far made of the workspace.
        batch: takes the former contents.
        limit: the most bytes that one file may have.
    """

    def __init__(self, tree: Tree, batch: Batch, *, limit: int) -> None:
        self._tree = tree
        self._batch = batch
        self._limit = limit
        # The modification times that the plan's steps so far leave, None where only the commit will know.
        self._left: dict[bytes, int | None] = {}
        self._times: dict[bytes, int] = {}
        self._owners: dict[bytes, tuple[int, int]] = {}

    def take_back(self, kept: KeptStep) -> None:
        """Reverse one step on the tree.

        Raises:
            DriftError: paths are not what the step left; it names them all. The tree is as before.
            StepUnsafeError: something can not be restored as it was. The tree is as before.
            StepFailedError: the former content is not what it was, or no longer kept. The tree is as before.
        """
        changes = tuple(sorted(map(reverse_of, kept.changes), key=lambda change: change.path))
        different = self._different(kept.changes, changes)
        if different:
            raise DriftError(
                "BASE_DRIFTED",
                "the path is no longer what the step that is to be undone left",
                "undo what changed it since first, or restore by hand what is still wanted",
                paths=different,
            )
        coming = [change for change in changes if change.new is not None and _is_made_anew(change)]
        for change in coming:
            self._check_restorable(change, kept, coming)
        for change in changes:
            if change.new is not None and change.new.type is NodeType.FILE and _brings_content(change):
                self._fetch(change.path, change.new, kept)
        self._times = dict(self._restored_times(kept, changes))
        self._tree.replay(changes)

    def timed(self, changes: tuple[Change, ...]) -> tuple[Change, ...]:
        """Add the modification times that the last undone step restores to the tree's changes since.

        Call it once after every step of the plan, whatever its kind: it also takes note of the times they leave.
        """
        times, self._times = self._times, {}
        timed = [replace(one, mtime_ns=times.pop(one.path, one.mtime_ns)) for one in changes]
        for path, mtime_ns in times.items():
            node = self._tree.node(path)
            if node is not None:
                timed.append(Change(path=path, kind=ChangeKind.METADATA, old=node, new=node, mtime_ns=mtime_ns))
        self._note(timed)
        return tuple(sorted(timed, key=lambda change: change.path))

    def _note(self, changes: Collection[Change]) -> None:
        """Take note of the times that some changes leave: moved with their object, set by the step, or unknown."""
        moved = {change.path: change.moved_from for change in changes if change.moved_from}
        carried = {path: self._mtime_ns(origin) for path, origin in moved.items()}
        unknown: set[bytes] = set()
        for change in changes:
            if change.kind is ChangeKind.METADATA:
                continue
            gone = change.moved_from or change.path
            unknown.add(gone)
            if not (moved.get(parent_of(change.path)) == parent_of(gone) and name_of(change.path) == name_of(gone)):
                unknown.update((parent_of(change.path), parent_of(gone)))  # it did not just move along
        self._left.update(carried)
        self._left.update(dict.fromkeys(unknown))
        self._left.update({change.path: change.mtime_ns for change in changes if change.mtime_ns is not None})

    def _different(self, done: Iterable[Change], changes: Iterable[Change]) -> tuple[bytes, ...]:
        """Return the paths that are not what the step left, sorted."""
        kept = tuple(changes)
        leaving = {_source(change) for change in kept if change.kind in LEAVING}
        after = states_after(kept)
        different: set[bytes] = set()
        for change in kept:
            source = _source(change)
            if not self._is(source, change.old):
                different.add(source)
                continue
            different.update(self._unexpected(change, source, leaving))
            if change.moved_from and not self._is(change.path, None):
                different.add(change.path)
            if change.kind in {ChangeKind.CREATE, ChangeKind.MOVE} and not self._has_place(change.path, after):
                different.add(parent_of(change.path))
        different.update(
            change.path for change in done if _only_time(change) and self._mtime_ns(change.path) != change.mtime_ns
        )
        return tuple(sorted(different))

    def _unexpected(self, change: Change, source: bytes, leaving: set[bytes]) -> set[bytes]:
        """Return what would go or change along with a path though the step had no part in it."""
        old = change.old
        if old is not None and old.type is NodeType.DIRECTORY and change.kind in LEAVING:
            return {join(source, name) for name in self._tree.children(source)} - leaving
        if change.kind in {ChangeKind.MODIFY, ChangeKind.METADATA} and not self._tree.touched(source):
            status = self._tree.base.lstat(source)
            if status is not None and stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
                return {source}
        return set()

    def _is(self, path: bytes, node: Node | None) -> bool:
        try:
            return self._tree.node(path) == node
        except PathOutsideError:
            return node is None  # behind a link there is nothing of this workspace

    def _has_place(self, path: bytes, after: Mapping[bytes, Node | None]) -> bool:
        parent = parent_of(path)
        if parent == ROOT:
            return True
        try:
            node = after[parent] if parent in after else self._tree.node(parent)
        except PathOutsideError:
            return False
        return node is not None and node.type is NodeType.DIRECTORY

    def _check_restorable(self, change: Change, kept: KeptStep, coming: list[Change]) -> None:
        """Refuse what a commit can not make as it was: another owner's, or one name of several."""
        former = kept.former(change.path)
        if former is None:
            raise checkpoint_gone(f"{shown(change.path)!r} is not in the checkpoint any more")
        if stat.S_ISREG(former.st_mode) and former.st_nlink > 1:
            raise _not_restorable(change.path, "shared its content with another name, a hard link")
        owner = self._owner_to_be(change.path, kept, {one.path for one in coming})
        if owner is not None and owner != (former.st_uid, former.st_gid)[: len(owner)]:
            raise _not_restorable(change.path, "belonged to another owner or group than it would get")
        self._owners[change.path] = (former.st_uid, former.st_gid)

    def _owner_to_be(self, path: bytes, kept: KeptStep, coming: set[bytes]) -> tuple[int, ...] | None:
        """Return the owner (and group, where root commits) that a new object at a path will get, None if unknown."""
        if os.geteuid() != 0:
            return (os.geteuid(),)
        parent = parent_of(path)
        if parent in coming:
            status = kept.former(parent)
        elif self._tree.made_here(parent):
            return self._owners.get(parent)  # restored by an earlier step, or made by one and nobody's yet
        else:
            status = self._tree.base.lstat(parent)
        return None if status is None else (status.st_uid, status.st_gid)

    def _fetch(self, path: bytes, node: Node, kept: KeptStep) -> None:
        try:
            fd = kept.open_former(path)
        except FileNotFoundError:
            raise checkpoint_gone(f"{shown(path)!r} is not in the checkpoint any more") from None
        try:
            digest, _ = self._batch.put_fd(fd, limit=self._limit)
        finally:
            os.close(fd)
        if digest != node.digest:
            raise checkpoint_gone(f"what the checkpoint holds of {shown(path)!r} is not what was there before the step")

    def _restored_times(self, kept: KeptStep, changes: Iterable[Change]) -> Iterator[tuple[bytes, int]]:
        set_by_step = {change.path for change in kept.changes if change.mtime_ns is not None}
        gone = set()
        for change in changes:
            if change.new is None:
                gone.add(change.path)
                continue
            times = kept.directory_times.get(change.path)
            if change.moved_from and times is not None:
                yield change.path, times.mtime_ns  # names in it changed as well, and nobody else's: that was checked
            elif _brings_content(change) or _source(change) in set_by_step:
                former = kept.former(change.path)
                if former is not None:
                    yield change.path, former.st_mtime_ns
        for path, times in kept.directory_times.items():
            if path not in gone and times.mtime_after_ns is not None and self._mtime_ns(path) == times.mtime_after_ns:
                yield path, times.mtime_ns

    def _mtime_ns(self, path: bytes) -> int | None:
        """Return a path's modification time as the steps so far leave it, None where nobody knows it yet."""
        if path in self._left:
            return self._left[path]
        try:
            status = self._tree.base.lstat(path)
        except PathOutsideError:
            return None
        return None if status is None else status.st_mtime_ns


def reverse_of(change: Change) -> Change:
    """Return the change that leads back, without modification times."""
    if change.moved_from:
        return Change(
            path=change.moved_from, kind=ChangeKind.MOVE, old=change.new, new=change.old, moved_from=change.path
        )
    return Change(path=change.path, kind=REVERSED[change.kind], old=change.new, new=change.old)


def checkpoint_gone(message: str) -> StepFailedError:
    """Return the error for a step that can no longer be taken back."""
    remedy = (
        "restore what is wanted by a plan of its own; checkpoint_seconds in the trust file keeps checkpoints longer"
    )
    return StepFailedError("CHECKPOINT_GONE", message, remedy)


def _source(change: Change) -> bytes:
    return change.moved_from or change.path


def _brings_content(change: Change) -> bool:
    return change.kind in {ChangeKind.CREATE, ChangeKind.MODIFY, ChangeKind.TYPE_CHANGE}


def _is_made_anew(change: Change) -> bool:
    return change.kind in {ChangeKind.CREATE, ChangeKind.TYPE_CHANGE}


def _only_time(change: Change) -> bool:
    return change.mtime_ns is not None and change.old == change.new and not change.moved_from


def _not_restorable(path: bytes, why: str) -> StepUnsafeError:
    remedy = (
        "restore it by hand: its former self is in the executor's staging directory as long as checkpoints are kept"
    )
    return StepUnsafeError(
        "UNSUPPORTED", f"{shown(path)!r} {why}, and a commit can not make it so", remedy, paths=(path,)
    )
