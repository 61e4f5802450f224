"""Starts the child process that talks to one far side for one step, and talks to the child line by line.

The child gets one JSON value per line and answers each with one, so that what it found can be judged here before it
is told to go on. Until it is told, nothing has happened; from then on, whatever ends it leaves an effect that nobody
knows.

Where bubblewrap works the child is in namespaces of its own, sees only what its view names, and never the executor's
state. Without it, it is an ordinary child. In both, everything that it ever started ends with it.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from executor.domain.cancel import Cancel
from executor.domain.errors import ExecutorError, StepFailedError
from executor.outside.process_tree import end_below, is_dead, send
from executor.sandbox import view as system_view

ANSWER_BYTES: Final = 8 << 20
GRACE_SECONDS: Final = 5.0
_ERROR_BYTES: Final = 64 << 10  # much more than is shown of it: a secret that was cut in two is not recognised
_BLOCK: Final = 1 << 16
_DEATH_SECONDS: Final = 2.0
_DEATH_LOOK_SECONDS: Final = 0.002
_ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/nonexistent"}
# What name resolution, TLS and accounts need of /etc, each where it is there.
_ETC: Final = (
    *("alternatives", "ca-certificates", "group", "gai.conf", "host.conf", "hosts", "ld.so.cache", "localtime"),
    *("nsswitch.conf", "passwd", "pki", "protocols", "resolv.conf", "services", "ssl"),
)
_CONFINE: Final = (
    *("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--cap-drop", "ALL"),
    *("--new-session", "--die-with-parent"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a child may see of the file system besides the system's directories and its own code."""

    whole: bool = False
    """All of it, as the executor sees it, without the executor's state: for what the operator installed."""
    readable: tuple[str, ...] = ()
    """Nothing in these can be changed, either."""
    writable: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    """Files that can not be opened, where they would be seen at all."""
    offline: bool = False
    """It reaches no network but by the descriptors that it is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """How children are confined on this machine."""

    launcher: str
    """Where bwrap is."""
    covered: tuple[str, ...]
    """What no child ever sees: the executor's state."""

    def arguments(self, view: View) -> list[str]:
        """Return what comes before the child's own words."""
        fixed = [word for path in view.readable for word in ("--ro-bind-try", path, path)]
        seen = ["--dev-bind", "/", "/", *fixed] if view.whole else self._narrow(view)
        covers = [word for path in self.covered for word in _cover(path)]
        empty = [word for path in view.hidden for word in _cover(path)]
        network = ["--unshare-net"] if view.offline else []
        # Under root the files of /proc/sys belong to the child, and one of them is a way out: core_pattern names a
        # program that the kernel starts outside. Where no root is, a program of the operator's may need its own files.
        proc = [] if view.whole and os.geteuid() != 0 else ["--remount-ro", "/proc"]
        return [self.launcher, *_CONFINE, *network, *seen, *empty, "--proc", "/proc", *proc, *covers, "--"]

    @staticmethod
    def _narrow(view: View) -> list[str]:
        arguments = [*system_view.system_arguments(), "--dev", "/dev", "--tmpfs", "/tmp"]  # noqa: S108  # its own
        read = [*(f"/etc/{name}" for name in _ETC), "/run/systemd/resolve", *_code(), *view.readable]
        arguments += [word for path in read for word in ("--ro-bind-try", path, path)]
        return arguments + [word for path in view.writable for word in ("--bind", path, path)]


def _cover(path: str) -> Sequence[str]:
    """Lay something empty over a directory or a file."""
    place = Path(path).resolve()  # the launcher finds no way through a link
    if place.is_dir():
        return ("--tmpfs", str(place))
    return ("--ro-bind", "/dev/null", str(place)) if place.is_file() else ()


class WorkerGoneError(Exception):
    """The child ended, was ended, or said what can not be read; `cancelled` where somebody wished it."""

    def __init__(self, message: str, *, cancelled: bool = False) -> None:
        super().__init__(message)
        self.cancelled = cancelled


class Worker:
    """One child, as a context manager; leaving it ends whatever is left.

    Args:
        module: what it runs.
        seconds: how long it may live.
        cancel: the wish that it end.
        view: what it may see.
        confinement: None where bubblewrap does not work.
        answer_bytes: the longest answer that is taken.
        pass_fds: descriptors that it has, too, under the same numbers.

    Raises:
        StepFailedError: the machine starts no process now.
    """

    def __init__(
        self,
        module: str,
        *,
        seconds: float,
        cancel: Cancel,
        view: View,
        confinement: Confinement | None,
        answer_bytes: int = ANSWER_BYTES,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self._deadline = time.monotonic() + seconds
        self._cancel = cancel
        self._answer_bytes = answer_bytes
        self._answers = bytearray()
        self._errors = bytearray()
        self._lock = threading.Lock()
        self._ended: set[int] = set()
        self._closing = ExitStack()
        before = [] if confinement is None else confinement.arguments(view)
        try:
            self._process = subprocess.Popen(
                [*before, sys.executable, "-I", "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd="/",
                env=_ENVIRONMENT,
                start_new_session=True,
                pass_fds=tuple(pass_fds),
            )
        except OSError as error:
            raise not_started(error) from None
        for pipe in self._pipes:
            os.set_blocking(pipe.fileno(), False)

    def __enter__(self) -> Self:
        self._closing.enter_context(self._cancel.calling(self._end))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._leave(at_once=error is not None)
        finally:
            self._closing.close()

    @property
    def remarks(self) -> bytes:
        """The end of what it wrote to its standard error; not redacted."""
        return bytes(self._errors[-_ERROR_BYTES:])

    def ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Send one value, and return the answer.

        Raises:
            WorkerGoneError: there is none.
        """
        question = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        line = self._exchange(memoryview(question))
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            raise WorkerGoneError("its answer can not be read") from None
        if not isinstance(answer, dict):
            raise WorkerGoneError("its answer can not be read")
        return answer

    @property
    def _pipes(self) -> tuple[Any, ...]:
        return (self._process.stdin, self._process.stdout, self._process.stderr)

    def _exchange(self, question: memoryview) -> bytes:
        stdin, stdout, stderr = self._pipes
        with selectors.DefaultSelector() as selector:
            selector.register(stdin, selectors.EVENT_WRITE)
            selector.register(stdout, selectors.EVENT_READ)
            selector.register(stderr, selectors.EVENT_READ)
            while (end := self._answers.find(b"\n")) < 0:
                self._check()
                for key, _ in selector.select(max(0.0, min(1.0, self._deadline - time.monotonic()))):
                    if key.fileobj is stdin:
                        question = self._write(question)
                        if not question:
                            selector.unregister(stdin)
                    elif not self._read(key.fd, is_answer=key.fileobj is stdout):
                        selector.unregister(key.fileobj)
        line = bytes(self._answers[:end])
        del self._answers[: end + 1]
        return line

    def _check(self) -> None:
        if self._cancel.requested:
            raise WorkerGoneError("it was stopped", cancelled=True)
        if time.monotonic() >= self._deadline:
            raise WorkerGoneError("it took longer than it may")
        if len(self._answers) > self._answer_bytes:
            raise WorkerGoneError(f"its answer is longer than {self._answer_bytes} bytes")

    def _write(self, question: memoryview) -> memoryview:
        try:
            return question[os.write(self._pipes[0].fileno(), question[:_BLOCK]) :]
        except BlockingIOError:
            return question
        except OSError:
            return question[:0]  # that it is gone shows at its standard output

    def _read(self, fd: int, *, is_answer: bool) -> bool:
        try:
            chunk = os.read(fd, _BLOCK)
        except BlockingIOError:
            return True
        if is_answer:
            self._answers += chunk
            if not chunk:
                raise WorkerGoneError(
                    "it was stopped" if self._cancel.requested else "it ended without an answer",
                    cancelled=self._cancel.requested,
                )
        else:
            self._errors += chunk
            del self._errors[:-_ERROR_BYTES]
        return bool(chunk)

    def _leave(self, *, at_once: bool) -> None:
        with suppress(OSError):
            self._pipes[0].close()
        if not at_once:
            with suppress(subprocess.TimeoutExpired):
                self._wait_reading()
        self._end()
        with self._lock:
            self._process.wait()
        _wait_for_death(self._ended)
        for pipe in self._pipes[1:]:
            pipe.close()

    def _wait_reading(self) -> None:
        """Give it time to end well; what it still writes is dropped, so that it never waits for a reader."""
        until = min(time.monotonic() + GRACE_SECONDS, max(self._deadline, time.monotonic() + 1))
        with selectors.DefaultSelector() as selector:
            for pipe in self._pipes[1:]:
                selector.register(pipe, selectors.EVENT_READ)
            while selector.get_map() and not self._cancel.requested and (left := until - time.monotonic()) > 0:
                for key, _ in selector.select(min(left, 1.0)):
                    with suppress(BlockingIOError):
                        if not os.read(key.fd, _BLOCK):
                            selector.unregister(key.fileobj)

    def _end(self) -> None:
        """Kill it and everything that it started; from any thread, at any time."""
        with self._lock:
            if self._process.returncode is None:
                self._ended |= end_tree(self._process.pid)


def not_started(error: OSError) -> ExecutorError:
    """Return why no child could be started: nothing was begun, let alone sent."""
    why = error.strerror or "the system refuses"
    return StepFailedError("FETCH_FAILED", f"no process can be started: {why}", "look at the executor's machine")


def end_tree(root: int) -> set[int]:
    """Kill a child of this process and all that descends from it, and return who that was.

    The child must not have been waited for.

    It is stopped first, so that it can start nothing more and, as it takes in what its own children leave behind,
    nothing gets lost between two looks.
    """
    ended: set[int] = set()
    send(root, signal.SIGSTOP)
    end_below(root, _DEATH_SECONDS, ended)
    send(root, signal.SIGKILL)
    return ended


def _wait_for_death(pids: Collection[int]) -> None:
    """Wait until what was killed is gone, which takes the kernel a moment."""
    until = time.monotonic() + _DEATH_SECONDS
    while not all(map(is_dead, pids)) and time.monotonic() < until:
        time.sleep(_DEATH_LOOK_SECONDS)


@cache
def _code() -> tuple[str, ...]:
    """Where the interpreter, its packages and the child's own modules lie."""
    own = Path(__file__).resolve().parents[1]
    contract = [entry for name in sys.path if (entry := Path(name, "gonogo")).is_dir()][:1]
    # In the images all packages lie in one directory beside the interpreter's own.
    installed = [name for name in sys.path if any(Path(name).glob("*.dist-info"))]
    return tuple(dict.fromkeys(map(str, (sys.base_prefix, sys.prefix, own, *contract, *installed))))
