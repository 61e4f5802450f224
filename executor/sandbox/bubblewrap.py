"""Level L3: commands on a copy-on-write view of the workspace, confined by bubblewrap.

Two nested layers. The outer one, a session (`holder.py`), is made once per plan: it holds the overlay, whose upper
directory lies on a tmpfs with a cap on bytes and inodes, and every process that the plan ever starts is in its pid
namespace. The inner one is made per command, by bwrap: fresh user, mount, pid, network, ipc and uts namespaces, no
capability, no_new_privs, the system's directories read-only one by one, and the overlay at the workspace's own path.

    nsenter (user, mount and pid namespace of the session) → bwrap → sh, pid 1 → the command

Pid 1 inside is a shell that waits for the command alone. When it ends, the kernel kills what the command left in the
background, and only then does bwrap, its parent, see it as ended: so when `run` returns nothing can still write.
To end a command the server kills that pid 1, with the same certainty, and the launchers end by themselves; each of
them has asked to die with its parent, too.

All that a command can write to (workspace, /tmp, /dev/shm) lies on the capped tmpfs; the rest is mounted read-only.
"""

import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from executor.domain.ladder import LadderLevel
from executor.sandbox import files, view
from executor.sandbox.arguments import Identity, Inside, init_script
from executor.sandbox.command import Ending, RunningCommand
from executor.sandbox.holder import Holder, Launchers, choose_cellar
from executor.sandbox.requests import check_command, check_session
from executor.sandbox.sandbox import (
    CommandResult,
    CommandSpec,
    OutputListener,
    ProgramLookup,
    SandboxRefusedError,
    SandboxUnavailableError,
    SessionRequest,
)
from gonogo.safe_text import safe_line

SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
COLLECT_BYTES = 16 << 20
_OVERFLOW = b"Value too large for defined data type"
_OVERFLOW_HINT = (
    "a file that belongs to another user or group can not be changed here: the executor runs as an ordinary user, "
    "whose namespace knows only its own user and group"
)


class Bubblewrap:
    """The L3 sandbox. `seccomp` is a compiled filter program; bwrap loads it last, just before the command's pid 1."""

    def __init__(self, *, launchers: Launchers, seccomp: bytes | None = None) -> None:
        self._launchers = launchers
        self._seccomp = seccomp
        self._system = view.system_arguments()

    @classmethod
    def on_this_machine(cls, *, seccomp: bytes | None = None) -> Self:
        """Finds the programs it needs in the system's own directories.

        Raises:
            SandboxUnavailableError: names the first that is missing.
        """
        return cls(launchers=find_launchers(), seccomp=seccomp)

    @property
    def level(self) -> LadderLevel:
        return LadderLevel.L3

    def open(self, request: SessionRequest) -> "BubblewrapSession":
        check_session(request)
        inside = self._inside(request)
        holder = Holder.for_session(
            self._launchers, workspace=request.workspace, cellar=inside.cellar, limits=request.limits
        )
        try:
            return BubblewrapSession(
                request=request, holder=holder, inside=inside, launchers=self._launchers, seccomp=self._seccomp
            )
        except BaseException:
            holder.close()
            raise

    def _inside(self, request: SessionRequest) -> Inside:
        tools = view.tool_trees(request.tools, request.workspace)
        return Inside(
            cellar=choose_cellar((request.workspace, *map(Path, tools))),
            workspace=request.workspace,
            tools=tools,
            system=self._system,
            hidden=request.hidden,
            identity=Identity.for_workspace(request.workspace),
        )


def find_launchers() -> Launchers:
    """The programs that sessions are built with.

    Raises:
        SandboxUnavailableError: names the first that is missing.
    """
    return Launchers(
        bwrap=_program("bwrap", package="bubblewrap"),
        unshare=_program("unshare", package="util-linux"),
        nsenter=_program("nsenter", package="util-linux"),
        shell=_program("sh", package="dash"),
        remove=_program("rm", package="coreutils"),
    )


def _program(name: str, *, package: str) -> str:
    found = shutil.which(name, path=SYSTEM_PATH)
    if found is None:
        raise SandboxUnavailableError(
            "UNSUPPORTED", f"there is no {name} in {SYSTEM_PATH}", f"install the package {package}"
        )
    return found


class BubblewrapSession:
    """One open session; see `SandboxSession` for what it promises."""

    def __init__(
        self,
        *,
        request: SessionRequest,
        holder: Holder,
        inside: Inside,
        launchers: Launchers,
        seccomp: bytes | None,
    ) -> None:
        self._request = request
        self._holder = holder
        self._inside = inside
        self._launchers = launchers
        self._seccomp = seccomp
        self._running = threading.Lock()
        self._closed = False
        self._left = 0
        view.make_etc(holder.path("etc"), inside.identity.accounts)
        self._make_scratch()

    @property
    def merged(self) -> Path:
        return self._holder.path("merged")

    @property
    def upper(self) -> Path:
        return self._holder.path("upper")

    def find_program(self, argv0: str, cwd: str = "") -> bool:
        return self.lookup_program(argv0, cwd).found

    def lookup_program(self, argv0: str, cwd: str = "") -> ProgramLookup:
        return self._view().lookup(argv0, cwd)

    def run(self, spec: CommandSpec, on_output: OutputListener | None = None) -> CommandResult:
        check_command(spec)
        with self._running:
            self._check_alive()
            self._check_startable(spec)
            try:
                return self._run_layered(spec, on_output)
            finally:
                if not self._closed:
                    self._renew_scratch()

    def close(self) -> None:
        self._closed = True
        self._holder.kill()
        with self._running:
            self._holder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _view(self) -> view.View:
        return view.View(workspace=str(self._request.workspace), merged=str(self.merged), tools=self._inside.tools)

    def _check_alive(self) -> None:
        if self._closed or not self._holder.alive:
            raise SandboxUnavailableError("UNSUPPORTED", "the sandbox session has ended", "run the dry run again")

    def _check_startable(self, spec: CommandSpec) -> None:
        if not self._view().is_directory(spec.cwd):
            raise SandboxRefusedError(
                "PATH_INVALID", f"there is no directory {safe_line(spec.cwd)!r} to run in", "correct cwd"
            )
        program = self.lookup_program(spec.argv[0], spec.cwd)
        if not program.found and "PATH" not in spec.env:
            raise SandboxRefusedError("UNSUPPORTED", program.detail, program.remedy)

    def _run_layered(self, spec: CommandSpec, on_output: OutputListener | None) -> CommandResult:
        if not spec.discard_changes:
            return self._run_on(self._holder, spec, on_output)
        layer = Holder.for_layer(self._launchers, self._holder, cellar=self._inside.cellar, limits=self._request.limits)
        try:
            return self._run_on(layer, spec, on_output)
        finally:
            layer.close()

    def _run_on(self, mounts: Holder, spec: CommandSpec, on_output: OutputListener | None) -> CommandResult:
        limits = self._request.limits
        options = self._inside.arguments(spec, merged=mounts.path("merged"), search_path=self._view().search_path)
        with _passed(self._seccomp) as seccomp:
            argv: list[str | bytes] = [*self._enter(mounts), self._launchers.bwrap, *options]
            argv += [word for fd in seccomp for word in ("--seccomp", str(fd))]
            argv += ["--", "/bin/sh", "-c", init_script(limits), "init", *spec.argv]
            running = RunningCommand(
                argv, keep=limits.output_bytes, hard_limit=limits.output_hard_bytes, pass_fds=seccomp
            )
            ending = running.wait(min(spec.timeout_seconds, limits.max_duration_seconds), on_output)
        self._check_ending(ending)
        return self._result(ending, *self._collect(mounts, spec))

    def _check_ending(self, ending: Ending) -> None:
        if self._closed:
            raise SandboxUnavailableError("UNSUPPORTED", "the session was closed under the command", "run it again")
        if ending.lingering:
            # Something still holds a pipe: only the end of the whole pid namespace is sure to end it too.
            self._holder.kill()
        if not ending.started and ending.killed_reason is None:
            said = (ending.stderr.head + ending.stderr.tail).decode("utf-8", "replace").strip()
            raise SandboxUnavailableError(
                "UNSUPPORTED",
                f"the sandbox could not be built: {safe_line(said[-1000:]) or 'no answer'}",
                "run gonogo doctor on the executor's host",
            )

    def _result(self, ending: Ending, taken: Mapping[bytes, bytes], missed: Mapping[bytes, str]) -> CommandResult:
        overflow = os.geteuid() != 0 and _OVERFLOW in ending.stderr.head + ending.stderr.tail
        return CommandResult(
            exit_code=ending.exit_code,
            signal=ending.signal,
            timed_out=ending.killed_reason == "timeout",
            killed_reason=ending.killed_reason,
            stdout=ending.stdout,
            stderr=ending.stderr,
            duration_ms=ending.duration_ms,
            collected=taken,
            uncollected=missed,
            hint=_OVERFLOW_HINT if overflow else None,
        )

    def _enter(self, mounts: Holder) -> list[str]:
        # The pid namespace is always the session's; the mount namespace is a throw-away layer's, where there is one.
        enter = [self._launchers.nsenter, f"--target={self._holder.pid}", "--user", "--pid"]
        enter.append(f"--mount=/proc/{mounts.pid}/ns/mnt")
        if os.geteuid() != 0:
            return [*enter, "--preserve-credentials"]
        identity = self._inside.identity
        return [*enter, f"--setuid={identity.uid}", f"--setgid={identity.gid}"]

    def _collect(self, mounts: Holder, spec: CommandSpec) -> tuple[dict[bytes, bytes], dict[bytes, str]]:
        taken: dict[bytes, bytes] = {}
        missed: dict[bytes, str] = {}
        for path in spec.collect:
            if self._inside.hides(path):
                missed[path] = "is hidden by the executor's policy"
                continue
            try:
                taken[path] = files.read_file(mounts.path("merged"), path, limit=COLLECT_BYTES)
            except files.UnreadableFileError as error:
                missed[path] = str(error)
        return taken, missed

    def _make_scratch(self) -> None:
        """Empty /tmp, home and /dev/shm for the next command."""
        scratch = self._holder.path("scratch")
        scratch.mkdir(exist_ok=True)
        scratch.chmod(0o711)
        for name, mode in (("tmp", 0o1777), ("tmp/home", 0o700), ("shm", 0o1777)):
            folder = scratch / name
            folder.mkdir()
            folder.chmod(mode)
            if os.geteuid() == 0:
                os.chown(folder, self._inside.identity.uid, self._inside.identity.gid)

    def _renew_scratch(self) -> None:
        """At once after a command, so that the few inodes it takes can not be used up by then."""
        scratch = self._holder.path("scratch")
        try:
            with contextlib.suppress(OSError):
                for name in ("tmp/home", "tmp", "shm"):
                    scratch.joinpath(name).rmdir()
            if any(scratch.iterdir()):
                self._put_away(scratch)
            self._make_scratch()
        except OSError:
            # Without clean temporary folders there is no next command: it finds the session ended.
            self._holder.kill()

    def _put_away(self, scratch: Path) -> None:
        """Removes what a command left, or, where it took its own rights away, at least sets it aside until the end."""
        self._left += 1
        left = scratch.rename(scratch.with_name(f"left-{self._left}"))
        # Not a walk of our own: how deep and how wide the command made it is the command's choice.
        subprocess.run(
            [self._launchers.remove, "-rf", "--", left],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


@contextlib.contextmanager
def _passed(seccomp: bytes | None) -> Iterator[tuple[int, ...]]:
    """The filter as a descriptor for the launcher, which closes it before the command starts."""
    if seccomp is None:
        yield ()
        return
    fd = os.memfd_create("seccomp")
    try:
        os.write(fd, seccomp)
        os.lseek(fd, 0, os.SEEK_SET)
        yield (fd,)
    finally:
        os.close(fd)
