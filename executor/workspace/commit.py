"""The commit of one change set: exactly these changes, or none, and the way back.

New objects are made ready and durable in a slot of the staging directory. Every touched path is compared with what
the change set starts from. The record of what is about to happen is written into the journal: from then on another
process could unmake whatever this one makes. Then each change is one rename: a replaced object changes places with the
new one, so that the old inode *is* the backup, with its bytes, times, attributes and holes; a deleted one moves into
the slot. What comes out is compared once more with what was looked at, since an editor may have saved in between.
Last, every directory that changed is made durable, once.

What a process that dies leaves, by the moment at which it dies:

    before the record is whole     entries in the slot, which the next start removes; the workspace is untouched
    before the first rename        a record, and a slot that shows that nothing was made
    between two renames            a record, and a slot that shows which renames were made (`undoing`)
    after the last rename          a record whose operations are all made: the commit stands, or is undone whole
    in the middle of an undo       the same as between two renames; `undo` goes on where it was cut off

No state needs a second record that is waited for: what was made is told by inodes, and a note in the journal says it
where somebody may have touched a path since.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from executor.domain.changes import Change, ChangeKind, Node, NodeType, states_after
from executor.domain.errors import ExecutorError, StepFailedError, StoreError
from executor.workspace.directories import (
    restore_times,
    status_of,
    sync_directories,
    sync_with_patience,
    times_after,
    times_before,
)
from executor.workspace.journal import Note
from executor.workspace.objects import Objects
from executor.workspace.operations import Operation, plan_operations, staged_operations
from executor.workspace.owners import Owners
from executor.workspace.paths import ChangedError, Directory, PathOutsideError, join, shown
from executor.workspace.record import Applied, DirectoryTimes, Seen, changed_paths
from executor.workspace.staging import Former, Slot, Staging, StagingUnavailableError
from executor.workspace.switch import Renames, Switch, drifted, look
from executor.workspace.undoing import Unmaking

__all__ = ["Applied", "CommitConflictError", "Committer", "DirectoryTimes", "StagingUnavailableError", "Undone"]

_DRIFT = frozenset({errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.ELOOP})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})
_LEAVING = frozenset({ChangeKind.DELETE, ChangeKind.MOVE, ChangeKind.TYPE_CHANGE})


class CommitConflictError(ExecutorError):
    """A commit failed midway and could not be undone in full; both versions are kept, and a person must choose.

    `applied` is what is left of it. It stays in the journal until it is undone after all, or kept.
    """

    def __init__(self, applied: Applied, message: str) -> None:
        super().__init__("CONFLICT", message, "compare both versions and keep the right one")
        self.applied = applied


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

    @property
    def moved(self) -> dict[bytes, bytes]:
        return {change.path: change.moved_from for change in self.changes if change.moved_from}

    def applied(self, *, complete: bool) -> Applied:
        return Applied(
            slot=self.slot.name,
            changes=self.changes,
            operations=self.operations,
            seen=self.seen,
            made=self.made,
            times=self.times,
            complete=complete,
            made_whole=complete,
        )


class Committer:
    """Commits change sets to one workspace. The caller holds the workspace's lock.

    What a commit leaves in its slot, and its record in the journal, stay until the caller lets go of them: by
    `discard`, which removes the slot, by `release`, which leaves the old objects where they are, or by `keep`.

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

    def take_journal(self) -> None:
        """Hold the workspace's journal until the committer is closed: an executor needs it for itself.

        Raises:
            StagingUnavailableError: another executor commits to the workspace from the same staging directory.
        """
        self._staging.take_journal()

    def check(self, changes: Sequence[Change]) -> tuple[bytes, ...]:
        """Return the touched paths that are not what the changes start from, sorted."""
        return self._look(changes)[1]

    def apply(
        self, slot: str, changes: Sequence[Change], *, before_effects: Callable[[], None] | None = None
    ) -> Applied:
        """Make all of the changes, or none.

        Args:
            slot: a name for this commit, never used before: letters, digits, '-' and '_'.
            changes: the change set; every path beneath a directory that goes or moves must be in it.
            before_effects: called when everything is ready and nothing can be seen yet; what it raises stops all of it.

        Raises:
            DriftError: a touched path is not, or does not stay, what the changes start from. Nothing has changed.
            StepUnsafeError: an old file's owner can not be kept, or two changes name one path. Nothing has changed.
            StepFailedError: the workspace may not be written. Nothing has changed.
            StoreError: the disk is full or fails. Nothing has changed.
            CommitConflictError: it failed midway, and somebody else's changes prevent undoing it.
        """
        seen, different = self._look(changes)
        if different:
            raise drifted(different, "not what the report was made from")
        kept = tuple(changes)
        work = _Work(slot=self._staging.new_slot(slot), changes=kept, operations=plan_operations(kept), seen=seen)
        try:
            self._prepare(work)
            if before_effects is not None:
                before_effects()
            self._switch_all(work)
        except (OSError, ExecutorError) as error:
            raise self._undo_failed(work, error) from error
        except BaseException as error:
            self._undo_failed(work, error)
            raise
        work.times = times_after(self._root, work.times)
        work.slot.note(Note.MADE, times=[one.mtime_after_ns for one in work.times.values()])
        return work.applied(complete=True)

    def verify(self, changes: Iterable[Change]) -> tuple[str, ...]:
        """Return in words how the workspace differs from what the changes end in; nothing where it does not."""
        kept = tuple(changes)
        found = [self._difference(path, node) for path, node in sorted(states_after(kept).items())]
        return (*(text for text in found if text), *self.time_differences(kept))

    def time_differences(self, changes: Iterable[Change]) -> tuple[str, ...]:
        """Return in words which paths have another modification time than the changes give them."""
        return tuple(
            f"{shown(change.path)}: another modification time than the report's"
            for change in changes
            if change.mtime_ns is not None and self._mtime_ns(change.path) not in {None, change.mtime_ns}
        )

    def pending(self) -> tuple[Applied, ...]:
        """Return the commits whose records are in the journal, oldest first: nobody has let go of them.

        At the start these are what a dead process has left. What it had not begun is removed here.

        A commit is `complete` when every operation is made. The journal may say so, or a later record, which is only
        written when everything before it was made or said to be undone; of the latest commit the inodes tell.
        """
        self._staging.sweep()
        found: list[Applied] = []
        journal = self._staging.journal
        for name in reversed(journal.slots()):
            slot = self._staging.slot(name)
            record = journal.record(name)
            if record is not None and not slot.standing.entries_go:
                found.insert(0, self._rebuilt(slot, Applied.decode(record), latest=not found))
        return tuple(found)

    def undo(self, applied: Applied) -> Undone:
        """Restore what was there before, exactly: bytes, bits, times, attributes, deleted files, directory times.

        Of a commit that was cut off what was made is unmade, and an undo that was cut off is finished; what was undone
        before stays so. A path that somebody else changed since stays as it is, its former version in the slot.
        """
        slot = self._staging.slot(applied.slot)
        notes = slot.standing.notes
        if Note.UNDONE in notes:
            return Undone(success=True, differences=())
        left = self._left_alone(applied, notes.get(Note.UNDOING))
        resumed = Note.UNDOING in notes
        slot.note(Note.UNDOING, left=[path.decode("utf-8", "surrogateescape") for path in left])
        with contextlib.suppress(OSError):
            # Without the note a power failure would leave our own renames' directory times for somebody else's.
            self._staging.journal.sync()
        return self._unmade(slot, applied, left, resumed=resumed)

    def discard(self, applied: Applied) -> bool:
        """Give up the way back: remove the slot with the old objects. Not after an undo without success.

        Returns:
            Whether nothing is left of it.
        """
        return self._staging.slot(applied.slot).drop(operation.entry for operation in applied.operations)

    def release(self, applied: Iterable[Applied]) -> None:
        """Let go of commits' records and leave their slots: the old objects stay until somebody discards them."""
        journal = self._staging.journal
        live = set(journal.slots())
        names = [one.slot for one in applied if one.slot in live]
        if names:
            journal.note(Note.RELEASED, *names)

    def keep(self, applied: Applied) -> None:
        """Leave the slot to a person: after an undo without success, in place of `discard`."""
        self._staging.slot(applied.slot).keep()

    def former(self, applied: Applied, path: bytes) -> os.stat_result | None:
        """Return what a path was just before a commit, or None where nothing was there."""
        seen = applied.seen.get(path)
        return None if seen is None else seen.status

    def old_file(self, applied: Applied, path: bytes) -> int:
        """Open the former content of a file that a commit replaced or removed; the descriptor is the caller's.

        Raises:
            FileNotFoundError: it is not in the slot, or no longer what it was.
        """
        place, seen = applied.place_of(path), applied.seen.get(path)
        if place is None or seen is None or seen.node.type is not NodeType.FILE:
            raise FileNotFoundError(errno.ENOENT, "the commit keeps no such file", path)
        entry, beneath = place
        name = self._staging.slot(applied.slot).entry(entry)
        fd = self._staging.directory.open_file(join(name, beneath) if beneath else name)
        status = os.fstat(fd)
        expected = seen.status
        if (status.st_ino, status.st_size, status.st_mtime_ns) != (
            expected.st_ino,
            expected.st_size,
            expected.st_mtime_ns,
        ):
            os.close(fd)
            raise FileNotFoundError(errno.ENOENT, "what the commit kept was changed", path)
        return fd

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
            if change.moved_from and status_of(self._root, change.path) is not None:
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

    def _mtime_ns(self, path: bytes) -> int | None:
        status = status_of(self._root, path)
        return None if status is None else status.st_mtime_ns

    def _prepare(self, work: _Work) -> None:
        """Make everything new ready, write the record, and make both durable. Nothing of it can be seen yet."""
        work.slot.begin()
        owners = Owners(self._root, work.moved)
        for operation in staged_operations(work.operations):
            if operation.new is not None:
                former = self._former(work, operation) or owners.of_new(operation.path)
                work.made[operation.entry] = work.slot.make(
                    operation.entry, operation.new, self._objects, former, operation.mtime_ns
                )
        work.times = times_before(self._root, work.operations, work.moved)
        work.slot.write_record(work.applied(complete=False).encode())
        work.slot.sync()

    def _former(self, work: _Work, operation: Operation) -> Former | None:
        old = work.seen.get(operation.path)
        if old is None or operation.new is None or old.node.type is not operation.new.type:
            return None
        return Former.replaced(self._root, operation.path, old.status)

    def _switch_all(self, work: _Work) -> None:
        renames = Renames(self._root, work.slot, changed_paths(work.changes))
        switch = Switch(self._root, work.slot, work.seen, work.made, renames)
        for operation in work.operations:
            try:
                switch.forward(operation)
            except OSError as error:
                raise _translated(operation, error) from error
        sync_directories(self._root, work.operations)

    def _undo_failed(self, work: _Work, error: BaseException) -> ExecutorError:
        """Restore what was there before a commit that failed midway, and return the error that says so."""
        work.slot.close()
        undone = Undone(success=True, differences=())
        if work.slot.is_live:  # else nothing was begun
            work.slot.note(Note.UNDOING, left=[])
            undone = self._unmade(work.slot, work.applied(complete=False), (), resumed=False)
        if not undone.success:
            message = f"the commit failed ({error}) and could not be undone in full: " + "; ".join(undone.differences)
            return CommitConflictError(work.applied(complete=False), message)
        work.slot.drop(operation.entry for operation in work.operations)
        if isinstance(error, PathOutsideError):
            return drifted(error.fault.paths, "a directory above it is a link now")
        if isinstance(error, OSError):
            return _storage_failed(error)
        return error if isinstance(error, ExecutorError) else StoreError("INTERNAL", str(error), "see the log")

    def _unmade(self, slot: Slot, applied: Applied, left: Sequence[bytes], *, resumed: bool) -> Undone:
        """Unmake a commit, restore its directories' times but for those left alone, and make all of it durable."""
        differences = list(Unmaking(self._root, slot, applied, resumed=resumed).all())
        restored = {path: times for path, times in applied.times.items() if path not in left}
        differences += restore_times(self._root, restored)
        not_durable = sync_with_patience(self._root, applied.operations)
        if not_durable:
            differences.append(not_durable)
        if not differences:
            slot.note(Note.UNDONE)
        return Undone(success=not differences, differences=tuple(differences))

    def _left_alone(self, applied: Applied, undoing: Mapping[str, Any] | None) -> tuple[bytes, ...]:
        """Return the directories that somebody else has changed since: their times stay.

        Once undoing has begun the times tell nothing any more; then the journal knows what was found at its beginning.
        """
        if undoing is not None:
            return tuple(path.encode("utf-8", "surrogateescape") for path in undoing["left"])
        return tuple(
            path for path, times in applied.times.items() if times.mtime_after_ns not in {None, self._mtime_ns(path)}
        )

    def _rebuilt(self, slot: Slot, applied: Applied, *, latest: bool) -> Applied:
        """Add to a record what the journal, or else the disk, says of how far its commit came."""
        notes = slot.standing.notes
        if Note.MADE in notes:
            after = notes[Note.MADE]["times"]
            times = {
                path: replace(before, mtime_after_ns=mtime_ns)
                for (path, before), mtime_ns in zip(applied.times.items(), after, strict=True)
            }
            return replace(applied, times=times, complete=Note.UNDOING not in notes)
        if Note.UNDOING in notes:
            return replace(applied, complete=False, made_whole=False)
        made = not latest or Unmaking(self._root, slot, applied, resumed=False).is_made()
        return replace(applied, complete=made, made_whole=made)


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
