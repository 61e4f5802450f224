"""Running one launcher process: reading what it prints, and ending it when it goes beyond its limits."""

import math
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from executor.domain.cancel import NEVER, Cancel
from executor.domain.redaction import NO_SECRETS, Redactor
from executor.sandbox.output import StreamCapture
from executor.sandbox.sandbox import CapturedOutput, OutputListener
from executor.sandbox.waking import Waking, woken_by

_BLOCK = 1 << 16
# After the launcher has ended its pipes end with it. Where they do not, something of the command is still there.
_LINGER_SECONDS = 3.0
_LOOK_SECONDS = 0.2
_SIGNALLED = 128
_LAST_SIGNAL = 64
_NOT_WAITED_FOR = frozenset({"mark", "stopped"})
# After these the rest ends by itself, or something of the command holds a pipe.
_LAST_SIGNS = frozenset({"exited", "stopped"})


class ChildlessError(Exception):
    """A launcher has no child process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a launcher process ended. `started`: the command itself was reached. `lingering`: not all of it is gone."""

    started: bool
    lingering: bool
    returncode: int
    killed_reason: str | None
    stdout: CapturedOutput
    stderr: CapturedOutput
    duration_ms: int

    @property
    def exit_code(self) -> int | None:
        return None if self.killed_reason else self.returncode

    @property
    def signal(self) -> int | None:
        if self.killed_reason:
            return signal.SIGKILL
        number = self.returncode - _SIGNALLED
        return number if 0 < number <= _LAST_SIGNAL else None


class RunningCommand:
    """One launcher process and its pipes.

    Standard input is the write end of a pipe. The first process inside writes one byte there, which tells that the
    sandbox stands and the command is next, and then opens /dev/null in its place. So no other descriptor has to be
    passed in, and none can leak.

    `overflows` is asked now and then whether the command took more space than it may, and then ends it. `cancel` ends
    it from another thread.
    """

    def __init__(
        self,
        argv: Sequence[str | bytes],
        *,
        keep: int,
        hard_limit: int,
        pass_fds: Sequence[int] = (),
        overflows: Callable[[], bool] | None = None,
        redactor: Redactor = NO_SECRETS,
        cancel: Cancel = NEVER,
    ) -> None:
        self._cancel = cancel
        self._captures = {name: StreamCapture(keep=keep, redactor=redactor) for name in ("stdout", "stderr")}
        self._hard_limit = hard_limit
        self._started = False
        self._forced = False
        self._killed_reason: str | None = None
        self._began = time.monotonic()
        self._overflows = overflows
        self._next_look = self._began + _LOOK_SECONDS if overflows else math.inf
        self._mark, mark = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=mark,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd="/",
                env={"PATH": "/usr/bin:/bin"},
                pass_fds=pass_fds,
                start_new_session=True,
            )
        except BaseException:
            os.close(self._mark)
            raise
        finally:
            os.close(mark)

    @property
    def ended(self) -> bool:
        """Whether the launcher is gone."""
        return self._process.poll() is not None

    def inner_pid(self) -> int | None:
        """Pid 1 inside as this process sees it; None while it is not there."""
        try:
            return _only_child(_only_child(self._process.pid))
        except (ChildlessError, OSError, ValueError):
            return None

    def abandon(self) -> None:
        """Ends it before it was waited for, and everything that it started."""
        self._end()
        self._reap()
        self._close()

    def wait(self, timeout: float, on_output: OutputListener | None) -> Ending:
        """Reads until the end, or until a limit; then everything of the command is dead or dying."""
        exited = os.pidfd_open(self._process.pid)
        try:
            with selectors.DefaultSelector() as selector, woken_by(self._cancel) as waking:
                self._register(selector, exited, waking)
                lingering = self._pump(selector, self._began + timeout, on_output or _silent)
        except BaseException:
            self._end()
            raise
        finally:
            os.close(exited)
            returncode = self._reap()
            self._close()
        return Ending(
            started=self._started,
            lingering=lingering,
            returncode=returncode,
            killed_reason=self._killed_reason,
            stdout=self._captures["stdout"].result(),
            stderr=self._captures["stderr"].result(),
            duration_ms=round((time.monotonic() - self._began) * 1000),
        )

    def _pump(self, selector: selectors.BaseSelector, deadline: float, on_output: OutputListener) -> bool:
        """Serves the pipes until launcher and streams have ended; True where a stream outlives the launcher."""
        while any(key.data not in _NOT_WAITED_FOR for key in selector.get_map().values()):
            for key, _ in selector.select(max(0.0, min(deadline, self._next_look) - time.monotonic())):
                if self._serve(key.data, key.fd, on_output):
                    continue
                selector.unregister(key.fileobj)
                if key.data in _LAST_SIGNS:
                    deadline = time.monotonic() + _LINGER_SECONDS
            self._look()
            if time.monotonic() < deadline:
                continue
            if self._killed_reason or self._process.poll() is not None:
                self._process.kill()
                return True
            self._kill("timeout")
            deadline = time.monotonic() + _LINGER_SECONDS
        return self._forced

    def _register(self, selector: selectors.BaseSelector, exited: int, waking: Waking | None) -> None:
        for name, stream in (("stdout", self._process.stdout), ("stderr", self._process.stderr)):
            if stream is not None:
                selector.register(stream, selectors.EVENT_READ, name)
        selector.register(self._mark, selectors.EVENT_READ, "mark")
        selector.register(exited, selectors.EVENT_READ, "exited")
        if waking is not None:
            selector.register(waking.fd, selectors.EVENT_READ, "stopped")

    def _serve(self, name: str, fd: int, on_output: OutputListener) -> bool:
        """Handles one readable descriptor; False where nothing more comes from it."""
        if name == "mark":
            self._started = bool(os.read(fd, 1))
            return False
        if name == "stopped":
            self._kill("stopped")
            return False
        return name != "exited" and self._read(fd, name, on_output)

    def _read(self, fd: int, name: str, on_output: OutputListener) -> bool:
        chunk = os.read(fd, _BLOCK)
        capture = self._captures[name]
        audible = capture.feed(chunk) if chunk else capture.end()
        if audible:
            on_output(name, audible)
        if capture.read > self._hard_limit:
            self._kill("output_limit")
        return bool(chunk)

    def _look(self) -> None:
        if self._overflows is None or time.monotonic() < self._next_look:
            return
        if self._overflows():
            self._kill("storage_limit")
        self._next_look = time.monotonic() + _LOOK_SECONDS

    def _kill(self, reason: str) -> None:
        if self._killed_reason is None:
            self._killed_reason = reason
            self._end()

    def _end(self) -> None:
        """Kills pid 1 inside; the launcher then ends by itself, once the kernel has ended all of the pid namespace.

        A launcher loses its child only when that has ended with all of its pid namespace: where the command had
        started and the child is gone there is nothing left to kill. Where pid 1 can not be found for another reason
        the launcher is killed instead. That ends the rest too, but not before this returns: `lingering` is reported.
        """
        try:
            inner = _only_child(_only_child(self._process.pid))
            _kill_process(inner)
        except ChildlessError:
            self._force(unless=self._started)
        except (OSError, ValueError):
            self._force()

    def _force(self, *, unless: bool = False) -> None:
        if not unless:
            self._forced = True
            self._process.kill()

    def _reap(self) -> int:
        try:
            return self._process.wait(_LINGER_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _close(self) -> None:
        os.close(self._mark)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()


def _only_child(pid: int) -> int:
    """The one child that each launcher has.

    Raises:
        OSError: the process is gone, or this kernel does not list children.
        ChildlessError: it has none yet, or no more.
        ValueError: it has several.
    """
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    if not children:
        raise ChildlessError
    (child,) = children
    return int(child)


def _kill_process(pid: int) -> None:
    fd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(fd, signal.SIGKILL)
    finally:
        os.close(fd)


def _silent(_name: str, _chunk: bytes) -> None:
    """Nobody listens."""
