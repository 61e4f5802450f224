"""One open session of the bubblewrap sandbox: its commands, one at a time, and what is left of each."""

import contextlib
import os
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from executor.sandbox import files, launch, view
from executor.sandbox.arguments import Inside, init_script, words
from executor.sandbox.cgroups import Cgroups, Slot
from executor.sandbox.command import Ending, RunningCommand
from executor.sandbox.gateway import Gate
from executor.sandbox.holder import Holder, Launchers
from executor.sandbox.requests import check_command, check_relative
from executor.sandbox.sandbox import (
    CommandResult,
    CommandSpec,
    OutputListener,
    ProgramLookup,
    SandboxFullError,
    SandboxRefusedError,
    SandboxUnavailableError,
    SessionRequest,
)
from executor.sandbox.seccomp import SeccompFilter
from executor.sandbox.storage import DiskPlace
from gonogo.safe_text import safe_line

COLLECT_BYTES = 16 << 20
_OVERFLOW = b"Value too large for defined data type"
_OVERFLOW_HINT = (
    "a file that belongs to another user or group can not be changed here: the executor runs as an ordinary user, "
    "whose namespace knows only its own user and group"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What one command works on.

    `mounts` holds the mount namespace, `bound` is the view's place in the cellar, and below `written` a file that the
    command wrote is.
    """

    mounts: Holder
    bound: str
    written: Path

    @property
    def merged(self) -> Path:
        return self.mounts.path(self.bound)


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenSlot:
    """A slot that a session has, and whom to give it back to."""

    slot: Slot
    cgroups: Cgroups


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionParts:
    """What a session is made of; it closes the holder, and the place on disk and the slot where there are any.

    `closed` is called when that is done.
    """

    request: SessionRequest
    holder: Holder
    inside: Inside
    launchers: Launchers
    seccomp: SeccompFilter
    place: DiskPlace | None = None
    slot: TakenSlot | None = None
    closed: Callable[[], None] | None = None


class BubblewrapSession:
    """One open session; see `SandboxSession` for what it promises."""

    def __init__(self, parts: SessionParts) -> None:
        self._request = parts.request
        self._place = parts.place
        self._holder = parts.holder
        self._inside = parts.inside
        self._launchers = parts.launchers
        self._seccomp = parts.seccomp
        self._slot = parts.slot
        self._on_closed = parts.closed
        self._running = threading.Lock()
        self._closed = False
        self._left = 0
        self._layers = 0
        view.make_etc(self._holder.path("etc"), self._inside.identity.accounts)
        self._make_scratch()

    @property
    def merged(self) -> Path:
        return self._holder.path("merged")

    @property
    def upper(self) -> Path:
        return self._holder.path("upper")

    def hide(self, paths: tuple[bytes, ...]) -> None:
        for path in paths:
            check_relative(path, what="hidden path")
        self._inside = replace(self._inside, hidden=(*self._inside.hidden, *paths))

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
            if self._place is not None:
                self._place.close()
            taken, self._slot = self._slot, None
            if taken is not None:
                taken.cgroups.give_back(taken.slot)
        if self._on_closed is not None:
            self._on_closed()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _view(self) -> view.View:
        merged = self._holder.path("merged")
        return view.View(
            workspace=str(self._request.workspace),
            merged=str(merged),
            tools=self._inside.tools,
            search_path=self._inside.search_path,
        )

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
            return self._run_on(self._ground(), spec, on_output)
        with self._throw_away_ground() as ground:
            return self._run_on(ground, spec, on_output)

    def _ground(self) -> Ground:
        return Ground(mounts=self._holder, bound="merged", written=self._holder.path("upper"))

    @contextlib.contextmanager
    def _throw_away_ground(self) -> Iterator[Ground]:
        """One more layer over what commands see."""
        name, limits = "layer", self._request.limits
        if self._place is not None:
            # Never the same one twice: the kernel may take a moment to let go of the last.
            self._layers += 1
            name = f"layer-{self._layers}"
            self._holder.path(name).mkdir(mode=0o711)
        try:
            layer = Holder.for_layer(
                self._launchers,
                self._holder,
                cellar=self._inside.cellar,
                layer=name,
                limits=limits if self._place is None else None,
            )
            try:
                yield Ground(mounts=layer, bound="merged", written=layer.path(f"{name}/upper"))
            finally:
                layer.close()
        finally:
            if self._place is not None:
                self._place.remove(name)

    def _run_on(self, ground: Ground, spec: CommandSpec, on_output: OutputListener | None) -> CommandResult:
        before = {path: files.stamp(ground.merged, path) for path in spec.collect}
        ending = self._ending_on(ground, spec, on_output)
        self._check_ending(ending)
        self._check_room(ending)
        return self._result(ending, *self._collect(ground, before))

    def _ending_on(self, ground: Ground, spec: CommandSpec, on_output: OutputListener | None) -> Ending:
        limits = self._request.limits
        covers = self._inside.covers(ground.merged)
        looked_at = self._inside.to_look_at(covers)
        environment = self._inside.environment(spec)
        options = self._inside.arguments(bound=ground.bound, cwd=spec.cwd, covers=covers, environment=environment)
        variables = [f"{name}={value}" for name, value in environment.items()]
        command = words(spec)
        launch.check_size(argv=command, variables=variables, looked_at=looked_at, options=len(options))
        inside: list[launch.Word] = [
            "/bin/sh",
            "-c",
            init_script(limits),
            "init",
            str(len(looked_at)),
            *looked_at,
            *command,
        ]
        slot = None if self._slot is None else self._slot.slot
        with contextlib.ExitStack() as around:
            seccomp = around.enter_context(launch.passed(self._seccomp.program))
            given = around.enter_context(launch.passed(launch.packed(options)))
            gate = None if spec.gateway is None else around.enter_context(Gate(spec.gateway))
            argv = [*(slot.prefix if slot else ()), *self._enter(ground.mounts), self._launchers.bwrap]
            argv += [] if gate is None else gate.options
            with slot.joined() if slot else contextlib.nullcontext():
                running = RunningCommand(
                    [*argv, "--args", str(given), "--seccomp", str(seccomp), "--", *inside],
                    keep=limits.output_bytes,
                    hard_limit=limits.output_hard_bytes,
                    pass_fds=(seccomp, given, *(() if gate is None else gate.descriptors)),
                    overflows=None if self._place is None else self._place.overflows,
                    redactor=spec.redactor,
                    cancel=spec.cancel,
                )
            if gate is not None:
                gate.open(running)
            return running.wait(min(spec.timeout_seconds, limits.max_duration_seconds), on_output)

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

    def _check_room(self, ending: Ending) -> None:
        """On disk no filesystem keeps the session within its limits: what is over them is refused as a whole."""
        if self._place is None:
            return
        excess = self._place.excess()
        if excess is None and ending.killed_reason == "storage_limit":
            excess = "the disk under it was nearly full, so the command was ended"
        if excess is not None:
            raise SandboxFullError(
                "TOO_LARGE",
                f"the command's copy of the workspace is too large: {excess}",
                "let the command write less, raise scope.max_bytes, or let the operator free space or raise the limit",
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

    def _collect(
        self, ground: Ground, before: Mapping[bytes, tuple[int, int] | None]
    ) -> tuple[dict[bytes, bytes], dict[bytes, str]]:
        taken: dict[bytes, bytes] = {}
        missed: dict[bytes, str] = {}
        for path, former in before.items():
            try:
                self._check_written(path, ground.merged, files.stamp(ground.written, path), former)
                taken[path] = files.read_file(ground.written, path, limit=COLLECT_BYTES)
            except files.UnreadableFileError as error:
                missed[path] = str(error)
        return taken, missed

    def _check_written(
        self, path: bytes, merged: Path, now: tuple[int, int] | None, former: tuple[int, int] | None
    ) -> None:
        """Refuses what was there before: a stale result in the workspace is no result of this command.

        Opening a file for writing copies it up as it is, so that being in the upper directory does not say enough.

        Raises:
            UnreadableFileError: says why there is nothing of the command's to take.
        """
        if self._inside.hides(path):
            raise files.UnreadableFileError("is hidden by the executor's policy")
        kind = files.kind_of(merged, path)
        if kind is None:
            raise files.UnreadableFileError("is not there")
        if kind != stat.S_IFREG:
            raise files.UnreadableFileError("is not a regular file")
        if now in (None, former):
            raise files.UnreadableFileError("was not written by the command")

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
                for name in (*self._inside.mount_points, "tmp/home", "tmp", "shm"):
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
        if self._place is not None:
            self._place.remove(left.name)
            return
        # Not a walk of our own: how deep and how wide the command made it is the command's choice.
        subprocess.run(
            [self._launchers.remove, "-rf", "--", left],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
