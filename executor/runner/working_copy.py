"""The throw-away copy of a workspace that a dry run works on.

Typed steps work on a tree in memory: the base and what the steps so far made of it. The first command opens a sandbox
session, whose overlay shows the same tree at the workspace's own path, without the volatile paths. From then on the two
are kept equal: before a command what typed steps changed is written into the overlay (`write_through`), after it the
overlay's upper directory tells what the command changed (`absorb`). Nothing here writes to the workspace.
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from executor.domain.cancel import NEVER, Cancel
from executor.domain.changes import Change
from executor.domain.errors import Fault, StepBlockedError
from executor.domain.ladder import LadderLevel
from executor.domain.plan import Plan, RunCommand, RunTests
from executor.domain.redaction import NO_SECRETS, Redactor
from executor.domain.report import Notice
from executor.runner.absorb import CommandChanges
from executor.runner.command_network import NO_NETWORK, CommandGate, CommandNetwork
from executor.runner.write_through import WriteThrough, remove_tree
from executor.sandbox.sandbox import Limits, Sandbox, SandboxRefusedError, SandboxSession, SessionRequest
from executor.steps.command import SandboxRun
from executor.workspace.manifest import Manifest, ManifestWalk
from executor.workspace.objects import Batch
from executor.workspace.paths import ROOT, Directory, parent_of
from executor.workspace.tree import Tree
from executor.workspace.workspace import Workspace
from gonogo.safe_text import excerpt, shown_argv

SHOWN_COMMAND = 80


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
        redactor: Redactor = NO_SECRETS,
        network: CommandNetwork = NO_NETWORK,
        cancel: Cancel = NEVER,
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
        self._redactor = redactor
        self._network = network
        self._cancel = cancel
        self._gates: list[tuple[str, CommandGate]] = []
        self._session: SandboxSession | None = None
        self._pending: list[tuple[Change, ...]] = []
        self._commands: CommandChanges | None = None
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
        session, commands = self._opened()
        if self._pending:
            self._write_through(session)
            commands.begin()
        program = session.lookup_program(action.argv[0], action.cwd)
        if not program.found:
            raise StepBlockedError("PROGRAM_HIDDEN", program.detail, program.remedy)
        gate = self._network.gate(self._plan)
        self._gates.append((excerpt(shown_argv(action.argv), SHOWN_COMMAND), gate))
        commands.start_clock()
        return SandboxRun(
            session=session,
            timeout_seconds=self._plan.scope.max_duration_seconds,
            on_output=on_output,
            redactor=self._redactor,
            gateway=gate.gateway,
            told=gate.told,
            cancel=self._cancel,
        )

    def network_notices(self) -> Iterator[Notice]:
        """Yield what each command reached of a network, or why it had none although the plan asks for one."""
        for why in dict.fromkeys(gate.why_none for _, gate in self._gates if gate.why_none):
            yield Notice(kind="network_off", path="", message=why)
        for command, gate in self._gates:
            for line in gate.told():
                yield Notice(kind="network_used", path="", message=f"{command}: {line}")

    def absorb(self) -> tuple[Fault, ...]:
        """Take what a command changed from the overlay into the tree; return why some of it may not be committed."""
        return () if self._commands is None else self._commands.absorb()

    def changes_of_command(self, mark: int) -> tuple[Change, ...]:
        """Return what the last command changed since a mark of the tree, its moves told as such."""
        changes = self.tree.changes_since(mark)
        return changes if self._commands is None else self._commands.with_moves(changes)

    @property
    def volatile(self) -> tuple[bytes, ...]:
        """The volatile paths that are there and that commands do not see, sorted."""
        return () if self.manifest_before is None else tuple(sorted(self.manifest_before.volatile))

    def record(self, changes: tuple[Change, ...]) -> None:
        """Take note of what a typed step changed in the tree, for the next command to see."""
        self._pending.append(changes)

    def manifest_after(self) -> Manifest | None:
        """End the commands' session and return the base's manifest of now, where a command ran at all."""
        if self.manifest_before is None:
            return None
        with self._walk() as walk:
            self._closing.close()  # nothing reads the base any more, and both take a while
            self._session = self._commands = None
            return walk.finish()

    def _walk(self) -> ManifestWalk:
        return ManifestWalk(self.base, volatile=self._workspace.volatile, hidden=self._workspace.hidden)

    def _opened(self) -> tuple[SandboxSession, CommandChanges]:
        if self._session is None or self._commands is None:
            self._session = self._open_session()
            self._make_alike(self._session)
            self._commands = CommandChanges(
                self.tree,
                self._batch,
                session=self._session,
                lower=self._workspace.root,
                volatile=self._workspace.volatile,
                max_file_bytes=self._limits.change_bytes,
            )
            self._commands.begin()
        return self._session, self._commands

    def _open_session(self) -> SandboxSession:
        if self._sandbox is None:
            raise StepBlockedError(
                "UNSUPPORTED",
                "this executor can not isolate commands (ladder level L1)",
                "run gonogo doctor on the executor's host; it says what is missing",
            )
        if self._sandbox.level is not LadderLevel.L3:  # what is to be hidden is not even copied
            with self._walk() as walk:
                self.manifest_before = walk.finish()
            return self._closing.enter_context(self._sandbox.open(self._request(self.manifest_before.hidden)))
        with ExitStack() as on_error, self._walk() as walk:  # both take a while, and no command has started yet
            session = on_error.enter_context(_opened(self._sandbox, self._request(frozenset()), walk))
            manifest = walk.finish()
            session.hide(tuple(sorted(manifest.hidden)))
            self.manifest_before = manifest
            self._closing.push(on_error.pop_all())
        return session

    def _request(self, hidden: frozenset[bytes]) -> SessionRequest:
        return SessionRequest(
            workspace=self._workspace.root,
            workspace_id=self._workspace.workspace_id,
            tools=self._tools,
            hidden=tuple(sorted(hidden)),
            limits=self._sandbox_limits(),
        )

    def _make_alike(self, session: SandboxSession) -> None:
        """Take the volatile paths out of the commands' view, and leave no trace of it in any directory's times."""
        volatile = self.volatile
        with self._merged(session) as merged:
            times = {parent: merged.lstat(parent) for parent in map(parent_of, volatile)}
            times[ROOT] = os.fstat(self.base.fd)  # the overlay's own is as old as the overlay
            for path in volatile:
                remove_tree(merged, path)
            for parent, status in times.items():
                if status is not None:
                    set_times(merged, parent, status)

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
        with self._merged(session) as merged:
            for changes in self._pending:
                WriteThrough(merged, self.tree, self._batch, self._workspace.volatile).write(changes)
        self._pending.clear()

    @contextmanager
    def _merged(self, session: SandboxSession) -> Iterator[Directory]:
        """Open the tree that commands see, for writing.

        Raises:
            StepBlockedError: it can not take what is written.
        """
        merged = Directory.open(session.merged)
        try:
            yield merged
        except OSError as error:
            raise _not_taken(error) from error
        finally:
            merged.close()


def _opened(sandbox: Sandbox, request: SessionRequest, walk: ManifestWalk) -> SandboxSession:
    """Open a session while the workspace is walked; what is wrong with the workspace itself is said first."""
    try:
        return sandbox.open(request)
    except SandboxRefusedError:
        walk.finish()
        raise


def set_times(directory: Directory, path: bytes, status: os.stat_result) -> None:
    """Give a directory the times that it had."""
    fd = directory.open_directory(path)
    try:
        os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))
    finally:
        os.close(fd)


def _not_taken(error: OSError) -> StepBlockedError:
    message = f"the copy of the workspace that commands see can not be written: {error.strerror}"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StepBlockedError("TOO_LARGE", message, "raise scope.max_bytes, or split the plan")
    if error.errno in {errno.EPERM, errno.EACCES, errno.EOVERFLOW}:
        return StepBlockedError("UNSUPPORTED", message, "run the executor as the owner of the workspace's files")
    return StepBlockedError("UNSUPPORTED", message, "run gonogo doctor on the executor's host")
