"""Processes by number: who they are, whether they still are, and what descends from them.

A number alone names nobody: the kernel gives it to somebody else later. Number, start time and the machine's boot
together do.
"""

import logging
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

log = logging.getLogger(__name__)

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_STATE, _START = 0, 19  # of the fields behind the name in /proc/PID/stat
_LOOK_SECONDS: Final = 0.002
_GONE: Final = (FileNotFoundError, ProcessLookupError, PermissionError)
"""What is read of a process that is not there, or that nobody may look at; anything else says nothing about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """One process, ever."""

    pid: int
    start: int
    """In the kernel's ticks since the boot."""
    boot: str

    @classmethod
    def of(cls, pid: int) -> Self:
        """Return who has a number now.

        Raises:
            ProcessLookupError: nobody has.
        """
        fields = _stat(pid)
        if fields is None:
            raise ProcessLookupError(pid)
        return cls(pid=pid, start=int(fields[_START]), boot=boot_id())

    @property
    def runs(self) -> bool:
        """Whether it is still there, and no zombie."""
        fields = _stat(self.pid)
        return (
            fields is not None
            and fields[_STATE] not in {b"Z", b"X"}
            and int(fields[_START]) == self.start
            and boot_id() == self.boot
        )

    def open(self) -> int:
        """Return a descriptor of it, which can not come to mean somebody else.

        Raises:
            ProcessLookupError: it is gone.
        """
        found = os.pidfd_open(self.pid)
        if self.runs:  # looked at while the descriptor holds the number
            return found
        os.close(found)
        raise ProcessLookupError(self.pid)


def boot_id() -> str:
    """Return what names this boot of the machine."""
    return _BOOT.read_text(encoding="ascii").strip()


def descendants(root: int) -> Sequence[int]:
    """Return the processes below one that still run, parents first."""
    found: dict[int, None] = {}
    waiting = [root]
    while waiting:
        for child in _children(waiting.pop()):
            if child not in found:
                found[child] = None
                waiting.append(child)
    return [pid for pid in found if not is_dead(pid)]


def is_dead(pid: int) -> bool:
    """Tell whether nobody has a number, or only what is left of a process that was not waited for."""
    fields = _stat(pid)
    return fields is None or fields[_STATE] in {b"Z", b"X"}


def depth_of_namespace(pid: int) -> tuple[int, int]:
    """Return how many pid namespaces a process is in, and its number in the innermost; zeros where it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("NSpid:"):
                numbers = line.split()[1:]
                return len(numbers), int(numbers[-1])
    return 0, 0


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to whoever may still be there."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def end_descendants(seconds: float) -> bool:
    """Kill all that descends from this process, which takes in orphans; False where something will not go."""
    return end_below(os.getpid(), seconds, set())


def end_below(root: int, seconds: float, ended: set[int]) -> bool:
    """Kill all that descends from a process which takes in orphans; False where something will not go.

    Each is killed the moment it is found: what forks and goes, over and over, has hardly any time to do it between
    being seen and being killed, and whatever it leaves is the root's.

    Args:
        root: it must not have been waited for.
        seconds: how long that may take.
        ended: gets the numbers of those that were killed.
    """
    until = time.monotonic() + seconds
    while time.monotonic() <= until:
        try:
            if _killed_anew(root, ended):
                continue
            left = descendants(root)
            for pid in left:
                send(pid, signal.SIGKILL)
            if not left and not _killed_anew(root, ended):
                return True
        except OSError as error:  # of what can not be looked at nobody knows that it ended
            log.warning("the processes below %d can not be listed now: %s", root, error)
        time.sleep(_LOOK_SECONDS)
    return False


def _killed_anew(root: int, ended: set[int]) -> bool:
    """Kill those below a process that were not killed before, and tell whether there were any."""
    found, waiting = False, [root]
    while waiting:
        for child in _children(waiting.pop()):
            if child not in ended:
                send(child, signal.SIGKILL)
                ended.add(child)
                waiting.append(child)
                found = True
    return found


def _stat(pid: int) -> list[bytes] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except _GONE:
        return None
    return text.rpartition(b") ")[2].split()


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(*_GONE):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(*_GONE):
                found += map(int, task.joinpath("children").read_text(encoding="ascii").split())
    return found
