"""The sandbox port: what it is asked, what it answers, how it refuses."""

import socket
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from executor.domain.cancel import NEVER, Cancel
from executor.domain.errors import StepBlockedError
from executor.domain.ladder import LadderLevel
from executor.domain.redaction import NO_SECRETS, Redactor

OutputListener = Callable[[str, bytes], None]


class SandboxUnavailableError(StepBlockedError):
    """The machine's fault: a namespace, a mount or a launcher did not work. Another command would fail too."""


class SandboxRefusedError(StepBlockedError):
    """The caller's fault: this workspace or this command may not run as asked. Another one may."""


class SandboxFullError(StepBlockedError):
    """The command took more space than the session may have, where only measuring shows it: nothing of it counts."""


class Gateway(Protocol):
    """What a command reaches a network through, and nothing beside it."""

    def serve(self, listener: socket.socket) -> AbstractContextManager[None]:
        """Serves who connects to a port on a sandbox's own loopback, until the context ends; closes the listener."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a session and each of its commands may use.

    `upper_bytes` and `upper_inodes` bound everything that the session writes, temporary folders included: where the
    filesystem can not, by measuring (`SandboxFullError`).
    `output_bytes` is kept per stream (half from the start, half from the end); `output_hard_bytes` ends the command.
    `max_processes` does not bind a command that runs as the machine's root: the kernel exempts it.
    `memory_bytes` is address space per process. `session_memory_bytes` is what all processes of a session may take
    together, besides what it writes; it holds, and `max_processes` for all together, where there is a cgroup for it.
    `copy_bytes` and `copy_inodes` bound the copy of the workspace itself where one has to be made (level L2).
    """

    max_duration_seconds: int = 30
    upper_bytes: int = 1 << 30
    upper_inodes: int = 200_000
    output_bytes: int = 1 << 20
    output_hard_bytes: int = 256 << 20
    max_processes: int = 512
    max_open_files: int = 1024
    max_file_bytes: int = 1 << 30
    memory_bytes: int | None = None
    session_memory_bytes: int = 4 << 30
    copy_bytes: int = 4 << 30
    copy_inodes: int = 500_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRequest:
    """One workspace, opened for all commands of one plan.

    `workspace` is absolute and free of symbolic links. `tools` are further trees that commands may read.
    `hidden` are paths, relative to the workspace, whose content no command may see.
    """

    workspace: Path
    workspace_id: str
    limits: Limits
    tools: tuple[Path, ...] = ()
    hidden: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSpec:
    """One command: argv as given to exec, never a shell's string.

    `cwd` and `collect` are relative to the workspace. With `discard_changes` the command's writes are thrown away when
    it ends; the files named in `collect` are read back before that, each only if this very command wrote it.
    `redactor` takes out of what it prints what nobody may see, before it is digested, kept or heard.
    Without a `gateway` it has no network at all. `cancel` ends it from another thread, with all that it started.
    """

    argv: tuple[str, ...]
    timeout_seconds: float
    cwd: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    discard_changes: bool = False
    collect: tuple[bytes, ...] = ()
    redactor: Redactor = NO_SECRETS
    gateway: Gateway | None = None
    cancel: Cancel = NEVER


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturedOutput:
    """One stream. Not truncated: `head` is all of it. `digest` and `total` are of all that it says, redacted."""

    head: bytes
    tail: bytes
    total: int
    digest: str
    truncated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """How a command ended.

    `exit_code` is None when the sandbox killed it, and `killed_reason` says why: `timeout`, `output_limit`, `stopped`.
    A death by signal N shows, as in a shell, as exit code 128 + N, with `signal` set.
    `collected` holds the files asked for; `uncollected` says why one is missing there.
    `hint` explains a failure that the sandbox, rather than the command, is known to cause.
    """

    exit_code: int | None
    signal: int | None
    timed_out: bool
    killed_reason: str | None
    stdout: CapturedOutput
    stderr: CapturedOutput
    duration_ms: int
    collected: Mapping[bytes, bytes]
    uncollected: Mapping[bytes, str]
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramLookup:
    """Whether a command's program can be started inside, and if not, why and what to do."""

    found: bool
    inside: str | None
    detail: str
    remedy: str


class SandboxSession(Protocol):
    """A writable view of one workspace. The workspace itself is never written to.

    What one command writes the next one sees; nothing outlives `close`. One command at a time: a second `run` waits.
    `merged` and `upper` are server-side paths, good until `close`: what is written below `merged` later commands see.
    """

    @property
    def merged(self) -> Path:
        """The tree as commands see it, hidden files included (at level L2: their names, without content)."""
        ...

    @property
    def upper(self) -> Path:
        """What differs from the workspace, in the overlay's own form.

        Where there is no overlay (level L2) it is brought up to date when it is asked for.

        Raises:
            StepUnsafeError: what commands made can not be looked at.
        """
        ...

    def run(self, spec: CommandSpec, on_output: OutputListener | None = None) -> CommandResult:
        """Runs one command; no process of it is left when this returns.

        `on_output` gets (`stdout` or `stderr`, bytes) as they come, up to the limit kept per stream.

        Raises:
            SandboxRefusedError: the command was not started; its reason says why.
            SandboxFullError: the command wrote more than the session may.
            SandboxUnavailableError: the sandbox could not be built, or broke.
        """
        ...

    def hide(self, paths: tuple[bytes, ...]) -> None:
        """Hides these paths too, as if the request had named them; only before the first command.

        So a session can be opened while what is to be hidden in it is still looked for.

        Raises:
            SandboxRefusedError: one is no path inside the workspace.
        """
        ...

    def find_program(self, argv0: str, cwd: str = "") -> bool:
        """Whether `argv0` names a program that can be started inside. `run` refuses where this is false."""
        ...

    def lookup_program(self, argv0: str, cwd: str = "") -> ProgramLookup:
        """As `find_program`, with what is hidden and the folder to add to `tools`."""
        ...

    def close(self) -> None:
        """Ends every process and mount of the session. Safe to call twice, and from another thread during `run`."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Sandbox(Protocol):
    """Opens sessions at one level of the ladder. Thread safe; sessions are independent of each other."""

    @property
    def level(self) -> LadderLevel: ...

    def open(self, request: SessionRequest) -> SandboxSession:
        """Opens a session.

        Raises:
            SandboxRefusedError: the workspace, a tool or a hidden path can not be used.
            SandboxUnavailableError: the machine does not give the namespaces or mounts.
        """
        ...
