"""The process that a live program runs under: `python -m executor.outside.supervise`, its standard input a socket.

It starts one program, takes in whatever that leaves behind, and ends all of it: when the first process of the program
has ended, when it is told to, or, unless the program is to keep running, when the executor is gone. A program that is
to keep running has a supervisor that has left the executor's family, writes the program's output to a file of bounded
length, and writes down how it ended.

    executor:   a job      supervisor: who I am
    executor:   go         (the job is on record: without this nothing starts)
    supervisor: inner      executor: on      (only where the program waits for its network)
    supervisor: began      supervisor: ready (once the text has come that it is to wait for)
    supervisor: ended

Before `go`, the end of the conversation means that nothing ever starts.
"""

import ctypes
import json
import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from executor.domain.redaction import Redactor, Secret
from executor.outside.durable import write_durably
from executor.outside.process_tree import ProcessIdentity, depth_of_namespace, descendants, end_descendants, send

END_SECONDS: Final = 10.0
_BLOCK: Final = 1 << 16
_JOB_BYTES: Final = 16 << 20
_SIGNALLED: Final = 128
_LAST_SIGNAL: Final = 64
_INFO_SECONDS: Final = 10.0
_TAKE_IN_ORPHANS: Final = 36  # PR_SET_CHILD_SUBREAPER


class Channel:
    """Lines of JSON from the executor and to it."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._lines = connection.makefile("rb")

    def hear(self) -> dict[str, Any]:
        """Return the next value; where none comes any more, the process ends, and with it what it started."""
        line = self._lines.readline(_JOB_BYTES)
        value = json.loads(line) if line.endswith(b"\n") else None
        if not isinstance(value, dict):
            end_descendants(END_SECONDS)
            sys.exit(0)
        return value

    def say(self, value: Mapping[str, Any]) -> None:
        """Tell the executor, if it is still there."""
        with suppress(OSError):
            self.socket.sendall(json.dumps(value, separators=(",", ":")).encode() + b"\n")


class Log:
    """A program's output in a file and its predecessor, each at most half of what may be kept; without secrets."""

    def __init__(self, place: Path, most: int, secrets: Mapping[str, str]) -> None:
        self._place = place
        self._half = most // 2
        known = [Secret(name=name, value=bytes.fromhex(value)) for name, value in secrets.items()]
        self._redacted = Redactor(known).stream() if known else None
        self._file = place.open("wb", buffering=0)  # so that what a full disk does not take is not tried again
        self._length = 0

    def take(self, chunk: bytes) -> None:
        """Write what a program said."""
        self._write(chunk if self._redacted is None else self._redacted.feed(chunk))

    def end(self) -> None:
        """Write what may have been the beginning of a secret."""
        if self._redacted is not None:
            self._write(self._redacted.end())
        self._file.close()

    def _write(self, chunk: bytes) -> None:
        kept = chunk[-self._half :]
        with suppress(OSError):  # a full disk is no reason to end the program
            if self._length + len(chunk) > self._half and self._length:
                self._begin_anew()
            self._file.write(kept)
        self._length += len(kept)

    def _begin_anew(self) -> None:
        """Go on in a new file; where there can be none, in the one that is there, from its beginning."""
        self._length = 0
        try:
            self._place.replace(self._place.with_suffix(".old"))
            file = self._place.open("wb", buffering=0)
        except OSError:
            self._file.seek(0)
            self._file.truncate()
            return
        self._file.close()
        self._file = file


class Supervisor:
    """One job, from its start to its end."""

    def __init__(self, channel: Channel, job: Mapping[str, Any]) -> None:
        self._channel = channel
        self._job = job
        self._detached = bool(job["log"])
        self._log = Log(Path(job["log"]), job["log_bytes"], job["secrets"]) if self._detached else None
        self._began = False
        self._said_began = False
        self._told_to_end = False
        self._passed_on = False
        self._kill_at: float | None = None
        self._awaited = os.fsencode(job["ready_text"])
        self._recent = bytearray()
        self._mark = self._output = -1
        self._program = 0

    def run(self) -> None:
        """Start the program and see it to its end."""
        woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._asked_to_end)
        try:
            self._start()
        except OSError as error:
            self._channel.say({"failed": error.strerror or str(error)})
            return
        status = self._watch(woken)
        all_ended = end_descendants(END_SECONDS)
        self._drain()
        self._tell_end(status, all_ended=all_ended)

    def _asked_to_end(self, *_: object) -> None:
        """The first time it asks, the second time it insists."""
        if self._told_to_end:
            self._kill_at = time.monotonic()
        self._told_to_end = True

    def _start(self) -> None:
        """Start it; where it waits for its network, say who waits, and let it go on when told."""
        job = self._job
        set_limits(job["limits"])
        self._mark, mark = os.pipe2(os.O_CLOEXEC)
        streams: tuple[int | None, int | None] = (None, None)
        theirs = -1
        if self._detached:
            self._output, theirs = os.pipe2(os.O_CLOEXEC)
            streams = (theirs, theirs)
        with _Block(asked=job["waits"]) as block:
            started = subprocess.Popen(
                [*job["launcher"], *block.options, *job["argv"]],
                stdin=mark,
                stdout=streams[0],
                stderr=streams[1],
                cwd=job["cwd"],
                env=job["env"],
                pass_fds=(*job["descriptors"], *block.descriptors),
            )
            for fd in (mark, theirs, *job["descriptors"]):
                if fd >= 0:
                    os.close(fd)
            self._program = started.pid
            started.returncode = 0  # it is waited for below, with everything else that ends
            if job["waits"]:
                self._channel.say({"inner": block.inner()})
                self._channel.hear()

    def _watch(self, woken: int) -> int:
        """Serve what comes until the first process has ended; returns its status."""
        with selectors.DefaultSelector() as selector:
            selector.register(woken, selectors.EVENT_READ, "signal")
            selector.register(self._mark, selectors.EVENT_READ, "mark")
            selector.register(self._channel.socket, selectors.EVENT_READ, "channel")
            if self._output >= 0:
                selector.register(self._output, selectors.EVENT_READ, "output")
            while True:
                for key, _ in selector.select(self._patience()):
                    if not self._serve(key.data, key.fd):
                        selector.unregister(key.fileobj)
                status = self._reaped()
                if status is not None:
                    return status
                self._end_if_asked()

    def _patience(self) -> float | None:
        return None if self._kill_at is None else max(0.0, self._kill_at - time.monotonic())

    def _serve(self, name: str, fd: int) -> bool:
        """Handle one readable descriptor; False where nothing more comes from it."""
        if name == "signal":
            os.read(fd, _BLOCK)
            return True
        if name == "mark":
            self._note_begin()
            return False
        if name == "output":
            chunk = os.read(fd, _BLOCK)
            if chunk and self._log is not None:
                self._log.take(chunk)
                self._look_for_text(chunk)
            return bool(chunk)
        # The executor says nothing now: its end of the conversation was closed, by its wish or its death.
        if not self._detached:
            end_descendants(END_SECONDS)
        return False

    def _look_for_text(self, chunk: bytes) -> None:
        """Say once when the program has said that it is ready, in the text as it came."""
        if self._awaited:
            self._recent += chunk
            if self._awaited in self._recent:
                self._awaited = b""
                self._channel.say({"ready": True})
            del self._recent[: -len(self._awaited) or None]

    def _note_begin(self) -> None:
        if not self._said_began:
            self._said_began = True
            self._began = bool(os.read(self._mark, 1))
            self._channel.say({"began": self._began})

    def _reaped(self) -> int | None:
        """Wait for whatever has ended; returns the first process's status once that is among it."""
        status = None
        with suppress(ChildProcessError):
            while True:
                pid, found = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                if pid == self._program:
                    status = os.waitstatus_to_exitcode(found)
        return status

    def _end_if_asked(self) -> None:
        if self._told_to_end and not self._passed_on:
            self._passed_on = True
            self._kill_at = time.monotonic() + self._job["grace"]
            for pid in listeners(descendants(os.getpid())):
                send(pid, signal.SIGTERM)
        elif self._kill_at is not None and time.monotonic() >= self._kill_at:
            end_descendants(END_SECONDS)
            self._kill_at = time.monotonic() + END_SECONDS

    def _drain(self) -> None:
        """Take what is left in the pipes; all who could write have ended, or will not."""
        self._note_begin_now()
        if self._output < 0 or self._log is None:
            return
        os.set_blocking(self._output, False)
        with suppress(BlockingIOError):
            while chunk := os.read(self._output, _BLOCK):
                self._log.take(chunk)
        self._log.end()

    def _note_begin_now(self) -> None:
        os.set_blocking(self._mark, False)
        with suppress(BlockingIOError):
            self._note_begin()

    def _tell_end(self, status: int, *, all_ended: bool) -> None:
        code = status if status >= 0 else _SIGNALLED - status
        ending = {
            "code": code,
            "signal": code - _SIGNALLED if _SIGNALLED < code <= _SIGNALLED + _LAST_SIGNAL else 0,
            "began": self._began,
            "stopped": self._told_to_end,
            "all_ended": all_ended,
            "at": time.time(),
        }
        if self._job["ended"]:
            with suppress(OSError):
                write_durably(Path(self._job["ended"]), ending)
        self._channel.say({"ended": ending})


class _Block:
    """Lets bwrap wait just before the program starts, and say who waits."""

    def __init__(self, *, asked: bool) -> None:
        self._asked = asked
        self._fds: list[int] = []
        if asked:
            self._told, info = os.pipe2(os.O_CLOEXEC)
            blocked, self._go = os.pipe2(os.O_CLOEXEC)
            self.descriptors: Sequence[int] = (info, blocked)
            self.options: Sequence[str] = ("--info-fd", str(info), "--block-fd", str(blocked))
            self._fds = [self._told, info, blocked, self._go]
        else:
            self.descriptors, self.options = (), ()

    def __enter__(self) -> "_Block":  # noqa: PYI034 - nobody derives from it
        return self

    def __exit__(self, *_: object) -> None:
        """Let it go on: it reads the end of the pipe."""
        for fd in self._fds:
            os.close(fd)

    def inner(self) -> int:
        """Return the first process inside; 0 where there is none."""
        os.close(self.descriptors[0])
        self._fds.remove(self.descriptors[0])
        text = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._told, selectors.EVENT_READ)
            while selector.select(_INFO_SECONDS) and (chunk := os.read(self._told, _BLOCK)):
                text += chunk
        with suppress(ValueError, KeyError, TypeError):
            return int(json.loads(text)["child-pid"])
        return 0


def listeners(pids: Sequence[int]) -> Sequence[int]:
    """Return those that a signal to end is for: the program's own, not the launchers that hold its namespace.

    The first process of a namespace would not hear it, and the launcher outside would end everything at once.
    """
    levels = {pid: depth_of_namespace(pid) for pid in pids}
    own = depth_of_namespace(os.getpid())[0]
    inside = [pid for pid, (level, number) in levels.items() if level > own and number != 1]
    return inside if any(level > own for level, _ in levels.values()) else list(pids)


def set_limits(limits: Mapping[str, int]) -> None:
    """Bound this process and whatever it starts."""
    for name, most in limits.items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (least, least))


def take_in_orphans() -> None:
    """Become the parent of whatever this process's descendants leave behind, however they were started."""
    if ctypes.CDLL(None, use_errno=True).prctl(_TAKE_IN_ORPHANS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def leave_the_family() -> None:
    """Go on as a child of nobody who is going to wait."""
    if os.fork():
        os._exit(0)
    os.setsid()


def main() -> None:
    """Hear the job, wait for the word that it is on record, and supervise."""
    os.umask(0o077)
    channel = Channel(socket.socket(fileno=os.dup(0)))
    os.set_inheritable(channel.socket.fileno(), False)
    job = channel.hear()
    if job["log"]:
        leave_the_family()
    take_in_orphans()
    identity = ProcessIdentity.of(os.getpid())
    channel.say({"pid": identity.pid, "start": identity.start, "boot": identity.boot})
    channel.hear()
    Supervisor(channel, job).run()


if __name__ == "__main__":
    main()
