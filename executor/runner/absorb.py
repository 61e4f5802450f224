"""What a command changed, taken from the overlay into the tree.

Modification times follow one rule: a change set carries a time only where the step set it itself. That is

* a file or link whose content is as before, and whose time is not: it was touched, or written anew with the same bytes;
* any path whose time lies outside the command's own run: it was given that time, as by `tar x`, `cp -p`, `touch -d`.

What a command wrote while it ran gets the time of the commit. A directory's time follows the names in it; it is
carried only where it lies outside the run, so that a bare `touch` of a directory is not told from names that came and
went. File systems take their times from a clock that ticks every few milliseconds, so the run counts as one tick
longer at both ends.
"""

import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from executor.domain.changes import Change, Node, NodeType
from executor.domain.errors import Fault
from executor.domain.moves import with_moves
from executor.sandbox.sandbox import SandboxSession
from executor.workspace.globs import Globs
from executor.workspace.objects import Batch
from executor.workspace.overlay import UpperEntry, UpperIndex, UpperScan, read_upper
from executor.workspace.overlay_unsafe import attributes_kept, unsafe_in_overlay
from executor.workspace.paths import ROOT, Directory, PathOutsideError, join, parent_of
from executor.workspace.tree import Tree

PERMISSIONS = 0o7777
TICK_NS = 10_000_000  # the slowest clock that Linux is built with, 100 Hz


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """When a command ran, by the clock that file systems use."""

    began_ns: int
    ended_ns: int

    def covers(self, mtime_ns: int) -> bool:
        """Tell whether something written by the command itself may have this modification time."""
        return self.began_ns - TICK_NS <= mtime_ns <= self.ended_ns + TICK_NS


class CommandChanges:
    """Follows one session's overlay, command by command.

    Args:
        tree: takes the changes.
        batch: takes the files' new contents.
        session: its upper directory tells what changed.
        lower: the workspace.
        volatile: paths that no change set holds.
        max_file_bytes: the most that one file may have.
    """

    def __init__(
        self, tree: Tree, batch: Batch, *, session: SandboxSession, lower: Path, volatile: Globs, max_file_bytes: int
    ) -> None:
        self._tree = tree
        self._batch = batch
        self._session = session
        self._lower = lower
        self._volatile = volatile
        self._max_file_bytes = max_file_bytes
        self._owners = os.geteuid() == 0
        self._index: UpperIndex | None = None
        self._before: UpperIndex | None = None
        self._began_ns = 0

    def begin(self) -> None:
        """Take what the overlay holds now as known: a command starts, and the next scan tells what it changed."""
        self._index = read_upper(self._session.upper, self._lower, self._index).index
        self.start_clock()

    def start_clock(self) -> None:
        """A command starts, and the overlay is as the last scan found it."""
        self._began_ns = time.time_ns()

    def absorb(self) -> tuple[Fault, ...]:
        """Take what the command changed into the tree, and return why some of it may not be committed."""
        run = Run(began_ns=self._began_ns, ended_ns=time.time_ns())
        scan = read_upper(self._session.upper, self._lower, self._index)
        self._before, self._index = self._index, scan.index
        upper = Directory.open(self._session.upper)
        try:
            return tuple(_Absorption(self._tree, upper, scan, run, self).faults())
        finally:
            upper.close()

    def with_moves(self, changes: tuple[Change, ...]) -> tuple[Change, ...]:
        """Return the last command's changes with its moves told as such."""
        return with_moves(changes, former_time=self._former_time, time=self._time)

    def is_volatile(self, path: bytes) -> bool:
        """Tell whether changes of a path are left out."""
        return self._volatile.covers(path)

    def content(self, upper: Directory, path: bytes) -> tuple[str, int]:
        """Keep a file's content and return its digest and length."""
        fd = upper.open_file(path)
        try:
            return self._batch.put_fd(fd, limit=self._max_file_bytes)
        finally:
            os.close(fd)

    @property
    def gives_owners(self) -> bool:
        """Whether the commit gives new names the owner of their directory."""
        return self._owners

    def _time(self, path: bytes) -> int | None:
        mark = None if self._index is None else self._index.marks.get(path)
        return None if mark is None else mark.mtime_ns

    def _former_time(self, path: bytes) -> int | None:
        """Return the time that a path had before the last command: in the overlay, else in the workspace."""
        if self._before is not None and path in self._before.marks:
            mark = self._before.marks[path]
            return None if mark is None else mark.mtime_ns
        try:
            status = self._tree.base.lstat(path)
        except PathOutsideError:
            return None
        return None if status is None else status.st_mtime_ns


class _Absorption:
    """One scan taken into the tree."""

    def __init__(self, tree: Tree, upper: Directory, scan: UpperScan, run: Run, commands: CommandChanges) -> None:
        self._tree = tree
        self._upper = upper
        self._scan = scan
        self._run = run
        self._commands = commands
        self._named: set[bytes] = set()
        self._uids = {entry.path: entry.uid for entry in scan.entries if stat.S_ISDIR(entry.mode)}
        self._uids.setdefault(ROOT, os.fstat(upper.fd).st_uid)

    def faults(self) -> Iterator[Fault]:
        """Take it in; yield what may not be committed."""
        set_back = []
        for entry in self._scan.entries:
            if not entry.changed_since_previous or self._commands.is_volatile(entry.path):
                continue
            old = self._tree.node(entry.path)
            changed = self._take(entry, old, self._node_of(entry))
            if not entry.deleted:
                yield from self._unsafe(entry, old, changed=changed)
            if self._is_set_back(entry, old):
                set_back.append(entry)
        self._keep_set_back(set_back)

    def _take(self, entry: UpperEntry, old: Node | None, new: Node | None) -> bool:
        """Take one entry in, and tell whether it is a change."""
        mtime_ns = None if new is None else self._set_time(entry, old, new)
        if new == old and mtime_ns is None:
            return False
        if (old is None) != (new is None):
            self._named.add(parent_of(entry.path))
        if _is_directory(old) and not _is_directory(new):
            for path in reversed(list(self._beneath(entry.path))):
                self._tree.put_node(path, None)  # the overlay says only that the top is gone
        self._tree.put_node(entry.path, new, mtime_ns=mtime_ns)
        return True

    def _set_time(self, entry: UpperEntry, old: Node | None, new: Node) -> int | None:
        """Return the modification time that the command itself set, by the rule above."""
        outside = not self._run.covers(entry.mtime_ns)
        stays = old is not None and (old.type, old.digest, old.link_target) == (new.type, new.digest, new.link_target)
        if stays and _keeps_time(entry):
            return None
        if outside or (stays and new.type is not NodeType.DIRECTORY):
            return entry.mtime_ns
        return None

    def _is_set_back(self, entry: UpperEntry, old: Node | None) -> bool:
        """Tell whether a directory has its former time though names in it may have changed: it was set back then."""
        if entry.deleted or not (_is_directory(old) and stat.S_ISDIR(entry.mode)):
            return False
        return _keeps_time(entry) and not self._run.covers(entry.mtime_ns)

    def _keep_set_back(self, entries: list[UpperEntry]) -> None:
        for entry in entries:
            if entry.path in self._named:
                self._tree.put_node(entry.path, self._tree.node(entry.path), mtime_ns=entry.mtime_ns)

    def _unsafe(self, entry: UpperEntry, old: Node | None, *, changed: bool) -> Iterator[Fault]:
        owner = self._uids.get(parent_of(entry.path)) if old is None and self._commands.gives_owners else None
        yield from unsafe_in_overlay(entry, changed=changed, upper_device=self._upper.device, owner=owner)

    def _beneath(self, directory: bytes) -> Iterator[bytes]:
        """Yield everything in a directory, parents first."""
        waiting = [directory]
        while waiting:
            here = waiting.pop()
            for name in self._tree.children(here):
                path = join(here, name)
                yield path
                if _is_directory(self._tree.node(path)):
                    waiting.append(path)

    def _node_of(self, entry: UpperEntry) -> Node | None:
        if entry.deleted:
            return None
        mode = entry.mode & PERMISSIONS
        xattrs = attributes_kept(entry)
        if stat.S_ISDIR(entry.mode):
            return Node(type=NodeType.DIRECTORY, mode=mode, xattrs=xattrs)
        if stat.S_ISLNK(entry.mode):
            return Node(type=NodeType.SYMLINK, mode=mode, link_target=entry.link_target)
        if not stat.S_ISREG(entry.mode):
            return Node(type=NodeType.OTHER, mode=mode)
        digest, size = self._commands.content(self._upper, entry.path)
        return Node(type=NodeType.FILE, mode=mode, digest=digest, size=size, xattrs=xattrs)


def _keeps_time(entry: UpperEntry) -> bool:
    return entry.former is not None and entry.former.mtime_ns == entry.mtime_ns


def _is_directory(node: Node | None) -> bool:
    return node is not None and node.type is NodeType.DIRECTORY
