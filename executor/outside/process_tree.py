"""Processes by number: who they are, whether they still are, and what descends from them.

A number alone names nobody: the kernel gives it to somebody else later. Number, start time and the machine's boot
together do.
"""

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_STATE, _START = 0, 19  # of the fields behind the name in /proc/PID/stat
_LOOK_SECONDS: Final = 0.01


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
    return [pid for pid in found if (fields := _stat(pid)) is not None and fields[_STATE] not in {b"Z", b"X"}]


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
    until = time.monotonic() + seconds
    while left := descendants(os.getpid()):
        for pid in left:
            send(pid, signal.SIGKILL)
        if time.monotonic() > until:
            return False
        time.sleep(_LOOK_SECONDS)
    return True


def _stat(pid: int) -> list[bytes] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return text.rpartition(b") ")[2].split()


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found += map(int, task.joinpath("children").read_text(encoding="ascii").split())
    return found
