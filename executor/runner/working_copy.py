"""The throw-away copy of a workspace that a dry run works on.

Typed steps work on a tree in memory: the base and what the steps so far made of it. The first command opens a sandbox
session, whose overlay shows the same tree at the workspace's own path. From then on the two are kept equal: before a
command what typed steps changed is written into the overlay (`_write_through`), after it the overlay's upper directory
tells what the command changed (`_absorb`). Nothing here writes to the workspace.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from executor.domain.changes import Change, Node, NodeType
from executor.domain.errors import StepBlockedError, StepFailedError, StepUnsafeError
from executor.domain.plan import Plan, RunCommand, RunTests
from executor.sandbox.sandbox import Limits, Sandbox, SandboxSession, SessionRequest
from executor.steps.command import SandboxRun
from executor.workspace.manifest import Manifest, manifest
from executor.workspace.objects import Batch
from executor.workspace.overlay import UpperEntry, UpperIndex, read_upper
from executor.workspace.paths import Directory, join
from executor.workspace.tree import Tree
from executor.workspace.workspace import Workspace

SETUID_OR_SETGID = stat.S_ISUID | stat.S_ISGID
PERMISSIONS = 0o7777


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyLimits:
    """What a dry run may use; the operator's."""

    change_bytes: int
    change_count: int
    output_bytes: int
    processes: int
    open_files: int


class WorkingCopy:
    """A copy-on-write copy of one workspace for one plan."""

    def __init__(
        self,
        *,
        workspace: Workspace,
        plan: Plan,
        batch: Batch,
        sandbox: Sandbox | None,
        limits: CopyLimits,
        tools: tuple[Path, ...],
    ) -> None:
        self.base = workspace.open()
        self.tree = Tree(self.base, batch)
        self.manifest_before: Manifest | None = None
        self._workspace = workspace
        self._plan = plan
        self._batch = batch
        self._sandbox = sandbox
        self._limits = limits
        self._tools = tools
        self._session: SandboxSession | None = None
        self._pending: list[tuple[Change, ...]] = []
        self._index: UpperIndex | None = None
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    def sandbox_run(self, action: RunCommand | RunTests, on_output: Callable[[str, bytes], None]) -> SandboxRun:
        """Prepare the sandbox for one program: open it, bring it up to date, check that the program is visible.

        Raises:
            StepBlockedError: this executor can not run commands, or the sandbox can not see the program.
        """
        session = self._open_session()
        self._write_through(session)
        program = session.lookup_program(action.argv[0], action.cwd)
        if not program.found:
            raise StepBlockedError("PROGRAM_HIDDEN", program.detail, program.remedy)
        return SandboxRun(session=session, timeout_seconds=self._plan.scope.max_duration_seconds, on_output=on_output)

    def absorb(self) -> None:
        """Take what a command changed from the overlay into the tree.

        Raises:
            StepUnsafeError: a result that may not be committed.
        """
        session = self._session
        if session is None:
            return
        scan = read_upper(session.upper, self._workspace.root, self._index)
        self._index = scan.index
        upper = Directory.open(session.upper)
        try:
            for entry in scan.entries:
                self._absorb_entry(upper, entry)
        finally:
            upper.close()

    def record(self, changes: tuple[Change, ...]) -> None:
        """Take note of what a typed step changed in the tree, for the next command to see."""
        self._pending.append(changes)

    def manifest_after(self) -> Manifest | None:
        """Return the base's manifest of now, where a command ran at all."""
        return None if self.manifest_before is None else self._manifest()

    def _manifest(self) -> Manifest:
        return manifest(self.base, volatile=self._workspace.volatile, hidden=self._workspace.hidden)

    def _open_session(self) -> SandboxSession:
        if self._session is not None:
            return self._session
        if self._sandbox is None:
            raise StepBlockedError(
                "UNSUPPORTED",
                "this executor can not isolate commands (ladder level L1)",
                "run gonogo doctor on the executor's host; it says what is missing",
            )
        self.manifest_before = self._manifest()
        request = SessionRequest(
            workspace=self._workspace.root,
            workspace_id=self._workspace.workspace_id,
            tools=self._tools,
            hidden=tuple(sorted(self.manifest_before.hidden)),
            limits=self._sandbox_limits(),
        )
        self._session = self._closing.enter_context(self._sandbox.open(request))
        return self._session

    def _sandbox_limits(self) -> Limits:
        return Limits(
            max_duration_seconds=self._plan.scope.max_duration_seconds,
            upper_bytes=min(self._limits.change_bytes, self._plan.scope.max_bytes or self._limits.change_bytes),
            upper_inodes=self._limits.change_count,
            output_bytes=self._limits.output_bytes,
            max_processes=self._limits.processes,
            max_open_files=self._limits.open_files,
            max_file_bytes=self._limits.change_bytes,
            memory_bytes=None,
        )

    def _write_through(self, session: SandboxSession) -> None:
        if not self._pending:
            return
        merged = Directory.open(session.merged)
        try:
            for changes in self._pending:
                _write_changes(merged, changes, self._batch)
        finally:
            merged.close()
        self._pending.clear()
        # What was just written is known to the tree: the next scan must not take it for the command's work.
        self._index = read_upper(session.upper, self._workspace.root, self._index).index

    def _absorb_entry(self, upper: Directory, entry: UpperEntry) -> None:
        if not entry.changed_since_previous or self._workspace.volatile.covers(entry.path):
            return
        old = self.tree.node(entry.path)
        new = self._node_of(upper, entry, old)
        if new == old:
            return
        if _is_directory(old) and not _is_directory(new):
            for path in reversed(list(self._beneath(entry.path))):
                self.tree.put_node(path, None)  # the overlay says only that the top is gone
        self.tree.put_node(entry.path, new)

    def _beneath(self, directory: bytes) -> Iterator[bytes]:
        for name in self.tree.children(directory):
            path = join(directory, name)
            yield path
            if _is_directory(self.tree.node(path)):
                yield from self._beneath(path)

    def _node_of(self, upper: Directory, entry: UpperEntry, old: Node | None) -> Node | None:
        if entry.deleted:
            return None
        refuse_unsafe(entry, old)
        mode = entry.mode & PERMISSIONS
        if stat.S_ISDIR(entry.mode):
            return Node(type=NodeType.DIRECTORY, mode=mode, xattrs=entry.xattrs)
        if stat.S_ISLNK(entry.mode):
            return Node(type=NodeType.SYMLINK, mode=mode, link_target=entry.link_target)
        fd = upper.open_file(entry.path)
        try:
            digest, size = self._batch.put_fd(fd, limit=self._limits.change_bytes)
        finally:
            os.close(fd)
        return Node(type=NodeType.FILE, mode=mode, digest=digest, size=size, xattrs=entry.xattrs)


def _is_directory(node: Node | None) -> bool:
    return node is not None and node.type is NodeType.DIRECTORY


def refuse_unsafe(entry: UpperEntry, old: Node | None) -> None:
    """Refuse a result that may not be committed.

    Raises:
        StepUnsafeError: a device, socket, FIFO or setuid or setgid file, or one whose old self has other hard links.
    """
    if not (stat.S_ISREG(entry.mode) or stat.S_ISDIR(entry.mode) or stat.S_ISLNK(entry.mode)):
        raise _unsafe(entry, "is a device, socket or FIFO", "let the command remove it before it ends")
    gained = entry.mode & ~(0 if old is None else old.mode) & SETUID_OR_SETGID
    if not stat.S_ISDIR(entry.mode) and gained:
        raise _unsafe(entry, "has a setuid or setgid bit", "leave such bits to the operator of the machine")


def _unsafe(entry: UpperEntry, what: str, remedy: str) -> StepUnsafeError:
    return StepUnsafeError("SIMULATION_UNSAFE", f"the result {what}", remedy, paths=(entry.path,))


def _write_changes(merged: Directory, changes: tuple[Change, ...], batch: Batch) -> None:
    """Write one typed step's changes into the overlay.

    First what comes, parents first; a moved file is renamed, so that its bytes need not be at hand. Then what goes,
    children before parents.
    """
    for change in changes:
        if change.new is None:
            continue
        if change.moved_from and change.new.type is not NodeType.DIRECTORY:
            _rename(merged, change.moved_from, change.path)
        else:
            _put(merged, change.path, change.new, batch)
            if change.moved_from:
                _give_as_before(merged, change.moved_from, change.path)
    gone = [change.moved_from or change.path for change in changes if change.new is None or change.moved_from]
    for path in sorted(gone, reverse=True):
        _remove(merged, path)


def _rename(merged: Directory, old: bytes, new: bytes) -> None:
    old_parent, old_name = merged.open_parent(old)
    try:
        new_parent, new_name = merged.open_parent(new)
        try:
            os.rename(old_name, new_name, src_dir_fd=old_parent, dst_dir_fd=new_parent)
        finally:
            os.close(new_parent)
    finally:
        os.close(old_parent)


def _remove(merged: Directory, path: bytes) -> None:
    parent, name = merged.open_parent(path)
    try:
        info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            os.rmdir(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return  # renamed away
    finally:
        os.close(parent)


def _put(merged: Directory, path: bytes, node: Node, batch: Batch) -> None:
    parent, name = merged.open_parent(path)
    try:
        match node.type:
            case NodeType.DIRECTORY:
                _put_directory(parent, name, node)
            case NodeType.SYMLINK:
                os.symlink(node.link_target, name, dir_fd=parent)
                _give_to_owner(parent, name)
            case NodeType.FILE:
                _put_file(parent, name, node, batch)
            case NodeType.OTHER:
                raise StepFailedError("SIMULATION_UNSAFE", "can not be copied", "leave it out", paths=(path,))
    finally:
        os.close(parent)


def _put_directory(parent: int, name: bytes, node: Node) -> None:
    with suppress(FileExistsError):  # a change of its mode
        os.mkdir(name, dir_fd=parent)
        _give_to_owner(parent, name)
    os.chmod(name, node.mode, dir_fd=parent)


def _put_file(parent: int, name: bytes, node: Node, batch: Batch) -> None:
    if not batch.has(node.digest):  # only its mode changed, or a base file moved: its bytes are the overlay's already
        os.chmod(name, node.mode, dir_fd=parent)
        return
    target = _open_for_writing(parent, name)
    try:
        source = batch.open(node.digest)
        try:
            _copy(source, target, node.size)
        finally:
            os.close(source)
        os.fchmod(target, node.mode)
    finally:
        os.close(target)


def _open_for_writing(parent: int, name: bytes) -> int:
    flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags | os.O_TRUNC, dir_fd=parent)
    except FileNotFoundError:
        target = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=parent)
        _give_to_owner(parent, name)
        return target


def _give_to_owner(parent: int, name: bytes) -> None:
    """Let what root made belong to the owner of its directory, as the commit does: commands run as the workspace's."""
    if os.geteuid() != 0:
        return
    owner = os.fstat(parent)
    if (owner.st_uid, owner.st_gid) != (0, 0):
        with suppress(PermissionError):  # root without the capability; the commit then does without it, too
            os.chown(name, owner.st_uid, owner.st_gid, dir_fd=parent, follow_symlinks=False)


def _give_as_before(merged: Directory, old: bytes, new: bytes) -> None:
    """Let a directory that stands for one that moved belong to whom that one does, as it will after the commit."""
    owner = merged.lstat(old) if os.geteuid() == 0 else None
    if owner is None:
        return
    parent, name = merged.open_parent(new)
    try:
        with suppress(PermissionError):
            os.chown(name, owner.st_uid, owner.st_gid, dir_fd=parent, follow_symlinks=False)
    finally:
        os.close(parent)


def _copy(source: int, target: int, size: int) -> None:
    done = 0
    while done < size:
        done += os.sendfile(target, source, done, size - done)
