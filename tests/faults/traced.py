"""One act in a process of its own, under strace if wanted.

The worker has everything imported. For each act it forks; the child makes itself ready, strace attaches to it, and
only then does it begin. So a trace holds the act and nothing else, and an act costs milliseconds.
"""

import ctypes
import json
import os
import re
import select
import signal
import socket
import subprocess
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.faults.calls import TRACED

Act = Callable[[], str]
"""Does it, and says in a word or two how it went."""
GetReady = Callable[[], Act]
"""Opens all that the act needs; what this does is not part of the act."""

ATTACH_SECONDS = 20.0
DEADLINE_SECONDS = 60.0
_PR_SET_PTRACER = 0x59616D61
_ANYBODY = -1
_BROKEN = 70
_ATTACHED = re.compile(rb"attached")


class BrokenActError(Exception):
    """The act did not end as an act can end: it raised, hung, or could not be traced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How an act ended."""

    killed: bool
    said: str
    trace: tuple[str, ...]


def run(
    get_ready: GetReady,
    log: Path,
    *,
    fault: str = "",
    traced: bool = False,
    threads: bool = False,
    once_ready: Callable[[], object] | None = None,
) -> Ended:
    """Run an act.

    Args:
        get_ready: is called in the child.
        log: where strace writes.
        fault: what strace is to do to it, in the words of `-e inject=`; nothing where empty.
        traced: let strace look on even without a fault.
        threads: with all threads, the child's own first one otherwise.
        once_ready: is called here before the act begins; only what it raises keeps the act from beginning.
    """
    # A socket: what goes over it is no `write`, and so neither counted nor cut.
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _child(get_ready, theirs)
    theirs.close()
    with ours:
        ours.settimeout(DEADLINE_SECONDS)
        _wait_ready(ours, pid)
        if once_ready is not None:
            once_ready()
        if not (fault or traced):
            ours.send(b"g")
            return _ended(pid, ours)
        with _strace(pid, log, fault, threads=threads):
            ours.send(b"g")
            ended = _ended(pid, ours)
        return replace(ended, trace=tuple(log.read_text(errors="surrogateescape").split("\n")))


def get_ready_only(get_ready: GetReady) -> None:
    """Let a child make itself ready for an act, and end without it."""
    run(lambda: _nothing_after(get_ready()), Path(os.devnull))


def _nothing_after(act: Act) -> Act:
    del act
    return str


def _child(get_ready: GetReady, parent: socket.socket) -> None:
    try:
        # Where only ancestors may trace (yama), the child itself must let others.
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(_ANYBODY), 0, 0, 0)
        act = get_ready()
        parent.send(b"r")
        if parent.recv(1):
            parent.sendall(act().encode(errors="replace"))
    except BaseException:  # noqa: BLE001 - whatever it was is told to the parent, and nothing of the parent's runs here
        parent.sendall(b"x" + traceback.format_exc().encode(errors="replace"))
        os._exit(_BROKEN)
    os._exit(0)


def _wait_ready(child: socket.socket, pid: int) -> None:
    """Wait until the child is ready; one that failed at that says so now."""
    first = _received(child, pid, 1)
    if first != b"r":
        _ended(pid, child)


def _ended(pid: int, child: socket.socket) -> Ended:
    words = b""
    while found := _received(child, pid, 1 << 16):
        words += found
    _, status = os.waitpid(pid, 0)
    text = words.decode(errors="replace")
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return Ended(killed=True, said="", trace=())
    if status:
        raise BrokenActError(f"it ended with status {status}: {text}")
    return Ended(killed=False, said=text, trace=())


def _received(child: socket.socket, pid: int, size: int) -> bytes:
    try:
        return child.recv(size)
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise BrokenActError("it never came to an end") from None


@contextmanager
def _strace(pid: int, log: Path, fault: str, *, threads: bool) -> Iterator[None]:
    names = ",".join(f"?{name}" for name in TRACED)
    command = ["strace", "-y", "-s", "0" if fault else "1048576", "-o", str(log), "-p", str(pid)]
    command += ["-e", f"trace={names}", *(["-f"] if threads else []), *(["-e", f"inject={fault}"] if fault else [])]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert process.stderr is not None
    try:
        _wait_attached(process, process.stderr.fileno())
        yield
        process.wait(DEADLINE_SECONDS)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stderr.close()


def _wait_attached(process: "subprocess.Popen[bytes]", stderr: int) -> None:
    heard = b""
    while not _ATTACHED.search(heard):
        found, _, _ = select.select([stderr], [], [], ATTACH_SECONDS)
        part = os.read(stderr, 4096) if found else b""
        if not part:
            raise BrokenActError(f"strace could not attach ({process.poll()}): {json.dumps(heard.decode())}")
        heard += part
