"""The system calls that change something, as strace names and counts them.

`strace -e inject=CALL:when=N` counts the calls of one name, for each thread by itself. So the places where a run can
be cut are listed from a trace of that very run: the N-th call of that name, whoever made it and whatever it did.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_WRITES = ("write", "pwrite64", "writev", "pwritev", "pwritev2", "copy_file_range", "sendfile", "splice")
_NAMES = (
    *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "mkdir", "mkdirat"),
    *("mknod", "mknodat"),
)
_REMOVALS = ("unlink", "unlinkat", "rmdir")
_SIZES = ("truncate", "ftruncate", "fallocate")
_SYNCS = ("fsync", "fdatasync", "sync_file_range", "syncfs", "sync", "msync")
_BITS = ("chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "lchown", "fchown", "fchownat")
_TIMES = ("utimensat", "utimes", "futimesat", "utime")
_XATTRS = ("setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr")
_OPENS = ("open", "creat", "openat", "openat2")
TRACED = (*_WRITES, *_NAMES, *_REMOVALS, *_SIZES, *_SYNCS, *_BITS, *_TIMES, *_XATTRS, *_OPENS)

_MAKES_ROOM = {*_WRITES, *_NAMES, *_SIZES, *_OPENS, "fsync", "fdatasync", *_XATTRS}
# Of a journalling file system a removal and new times can fail as well, but not for want of room.
_CREATES = re.compile(r"\bO_CREAT\b|\bO_TRUNC\b|\bO_TMPFILE\b")
_LINE = re.compile(r"^(?:(\d+) +)?([a-z0-9_]+)\((.*)$", re.DOTALL)

KILL = "signal=KILL"
ERRORS = ("error=ENOSPC", "error=EIO")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Call:
    """One call of a trace."""

    name: str
    number: int
    """How many calls of that name its thread had made by then, this one included."""
    thread: int
    text: str

    @property
    def changes(self) -> bool:
        """Tell whether it changes something on a file system."""
        if self.name in _OPENS:
            return bool(_CREATES.search(self.text))
        return self.name in TRACED

    def faults(self) -> Iterator[str]:
        """Yield everything that is to be done to it, as strace takes it."""
        yield self.fault(KILL)
        for error in ERRORS:
            if error != "error=ENOSPC" or self.name in _MAKES_ROOM:
                yield self.fault(error)

    def fault(self, what: str) -> str:
        """Return one thing to be done to it, as strace takes it."""
        return f"{self.name}:{what}:when={self.number}"


def read_trace(lines: Sequence[str]) -> tuple[Call, ...]:
    """Return the calls of a trace in the order in which they began."""
    counted: Counter[tuple[int, str]] = Counter()
    found = []
    for line in lines:
        match = _LINE.match(line)
        if match is None:
            continue  # how a call that was interrupted went on, a signal, an exit
        thread, name, text = int(match[1] or 0), match[2], match[3]
        counted[thread, name] += 1
        found.append(Call(name=name, number=counted[thread, name], thread=thread, text=text))
    return tuple(found)


def cuts(calls: Sequence[Call], place: str) -> tuple[Call, ...]:
    """Return the calls at which a run is to be cut: those that change something beneath a place, each count once.

    A descriptor's own name under /proc stands for what it was opened on, and that was the place.
    """
    first: dict[tuple[str, int], Call] = {}
    for call in calls:
        if call.changes and (place in call.text or '"/proc/self/fd/' in call.text):
            first.setdefault((call.name, call.number), call)
    return tuple(first.values())


def was_fired(lines: Sequence[str]) -> bool:
    """Tell from a run's trace whether what was to be done to it was done."""
    return any("(INJECTED)" in line or "killed by SIGKILL" in line for line in lines)
