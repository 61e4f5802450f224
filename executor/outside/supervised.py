"""The executor's end of a supervisor: hands it a job, and hears what comes of it."""

import json
import os
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from executor.outside.process_tree import ProcessIdentity
from executor.outside.worker import end_tree, not_started
from executor.sandbox.output import StreamCapture

MODULE: Final = "executor.outside.supervise"
START_SECONDS: Final = 20.0
END_SECONDS: Final = 15.0
_BLOCK: Final = 1 << 16
_ENVIRONMENT: Final = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}


class SupervisorGoneError(Exception):
    """The supervisor ended, or said nothing in time; the argument is what is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a supervisor is to start, and how."""

    argv: Sequence[str]
    """What comes behind the launcher's own first options."""
    env: Mapping[str, str]
    cwd: str
    launcher: Sequence[str] = ()
    waits: bool = False
    """The launcher is bwrap, and the program waits for its network."""
    descriptors: Sequence[int] = ()
    limits: Mapping[str, int] = field(default_factory=dict)
    """By the names of the module `resource`."""
    grace: float = 10.0
    """Seconds from being asked to end to being killed."""
    log: str = ""
    """Where a program's output goes that is to keep running; empty for one that is waited for."""
    log_bytes: int = 0
    ended: str = ""
    """Where it is written down how the program ended."""
    secrets: Mapping[str, str] = field(default_factory=dict)
    """What is kept out of the log: hexadecimal values by their names."""
    ready_text: str = ""
    """What a program that is to keep running says when it is ready; empty where it says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramEnd:
    """How a program ended. `began`: it was reached at all."""

    code: int
    signal: int
    began: bool
    stopped: bool
    all_ended: bool
    at: float


class Supervised:
    """One program under its supervisor; a context manager that ends what is to end with it.

    Raises:
        StepFailedError: the machine starts no process now.
    """

    def __init__(self, job: Job, on_output: Callable[[str, bytes], None] | None = None) -> None:
        self._job = job
        self._on_output = on_output
        self._said = bytearray()
        self._lock = threading.Lock()
        self._channel, theirs = socket.socketpair()
        output = subprocess.DEVNULL if job.log else subprocess.PIPE
        with ExitStack() as on_error:
            on_error.callback(self._channel.close)
            with theirs:
                try:
                    self._process = subprocess.Popen(
                        [sys.executable, "-I", "-m", MODULE],
                        stdin=theirs.fileno(),
                        stdout=output,
                        stderr=output,
                        bufsize=0,
                        cwd="/",
                        env=_ENVIRONMENT,
                        pass_fds=job.descriptors,
                        start_new_session=True,
                    )
                except OSError as error:
                    raise not_started(error) from None
            on_error.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hang_up()
        self._channel.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:  # what it supervises may have stopped it
            end_tree(self._process.pid)
            self._process.wait()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def introduce(self) -> ProcessIdentity:
        """Hand the job over and return who supervises it; nothing has started.

        Raises:
            SupervisorGoneError: it did not answer.
        """
        self._tell(asdict(self._job))
        said = self._hear()
        if self._job.log:
            self._process.wait()  # it has left the family
        return ProcessIdentity(pid=said["pid"], start=said["start"], boot=said["boot"])

    def go(self, serve: Callable[[int], None] | None = None) -> bool:
        """Start the program; True once it was reached.

        Args:
            serve: for a program that waits for its network, gets the first process inside.

        Raises:
            SupervisorGoneError: nobody knows whether it was.
        """
        self._tell({"go": True})
        if self._job.waits:
            inner = self._hear().get("inner", 0)
            if inner and serve is not None:
                serve(inner)
            self._tell({"on": True})
        return bool(self._hear().get("began"))

    def said_ready(self) -> bool:
        """Tell whether the awaited text has come by now."""
        self._channel.setblocking(False)
        with suppress(OSError):
            self._said += self._channel.recv(_BLOCK)
        return b'{"ready":true}\n' in self._said

    def kill(self) -> None:
        """End a program that is waited for; from any thread, at any time."""
        self._hang_up()

    def wait(
        self, until: float, captures: Mapping[str, StreamCapture], hard_limit: int
    ) -> tuple[ProgramEnd | None, str]:
        """Serve its output to its end; and why it was killed, where it was.

        Returns:
            How it ended, None where the supervisor did not live to tell.
        """
        why = ""
        with selectors.DefaultSelector() as selector:
            for name, stream in (("stdout", self._process.stdout), ("stderr", self._process.stderr)):
                if stream is not None:
                    selector.register(stream, selectors.EVENT_READ, name)
            while selector.get_map():
                for key, _ in selector.select(max(0.0, min(until - time.monotonic(), 1.0))):
                    if not self._read(key.data, key.fd, captures[key.data]):
                        selector.unregister(key.fileobj)
                if why and time.monotonic() >= until:
                    break
                if not why and any(one.read > hard_limit for one in captures.values()):
                    why, until = "it printed more than it may", time.monotonic() + END_SECONDS
                    self.kill()
                elif not why and time.monotonic() >= until:
                    why, until = "it took longer than it may", time.monotonic() + END_SECONDS
                    self.kill()
        return self._ending(), why

    def _read(self, name: str, fd: int, capture: StreamCapture) -> bool:
        chunk = os.read(fd, _BLOCK)
        audible = capture.feed(chunk) if chunk else capture.end()
        if audible and self._on_output is not None:
            self._on_output(name, audible)
        return bool(chunk)

    def _ending(self) -> ProgramEnd | None:
        try:
            said = self._hear()
            while "ended" not in said:
                said = self._hear()
        except SupervisorGoneError:
            return None
        return ProgramEnd(**said["ended"])

    def _hang_up(self) -> None:
        """Say nothing more: a supervisor ends what it does not keep running."""
        with self._lock, suppress(OSError):
            self._channel.shutdown(socket.SHUT_WR)

    def _tell(self, value: Mapping[str, Any]) -> None:
        try:
            self._channel.settimeout(START_SECONDS)
            self._channel.sendall(json.dumps(value, separators=(",", ":")).encode() + b"\n")
        except OSError as error:
            raise SupervisorGoneError(str(error)) from None

    def _hear(self) -> dict[str, Any]:
        until = time.monotonic() + START_SECONDS
        while b"\n" not in self._said:
            self._channel.settimeout(max(0.001, until - time.monotonic()))
            try:
                chunk = self._channel.recv(_BLOCK)
            except OSError as error:
                raise SupervisorGoneError(str(error)) from None
            if not chunk:
                raise SupervisorGoneError("it ended without a word")
            self._said += chunk
        line, _, rest = bytes(self._said).partition(b"\n")
        self._said[:] = rest
        value: dict[str, Any] = json.loads(line)
        if "failed" in value:
            raise ProgramNotStartedError(str(value["failed"]))
        return value


class ProgramNotStartedError(Exception):
    """The program could not be started; the argument says why."""
