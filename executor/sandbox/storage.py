"""Where what a session writes lies: on a tmpfs with a cap, or in a directory on disk that is measured instead.

The tmpfs is the first choice: the kernel caps it and nothing of it survives. But an overlay marks replaced directories
by `user.` attributes, and a tmpfs has had those only since Linux 6.6. On an older kernel a session gets a directory of
its own beneath one of the operator's, on a disk whose filesystem has them. There nothing is capped; so it is measured
after each command, and looked at while one runs.
"""

import enum
import os
import stat
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from executor.domain.ladder import LadderLevel
from executor.sandbox.holder import Launchers, capacity
from executor.sandbox.sandbox import Limits, SandboxUnavailableError
from gonogo.safe_text import safe_line

_PREFIX = "session-"
_MEASURE_SECONDS = 20
_REMOVALS = 5
_REMOVAL_PAUSE_SECONDS = 0.05
# The executor's own records are likely on this disk too: a command may not take its last bytes.
_RESERVE_BYTES = 64 << 20
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


class Storage(enum.Enum):
    """On what a session's view of the workspace lies.

    TMPFS: an overlay whose upper directory is on a capped tmpfs. DISK: one whose upper directory is on disk.
    COPY: no overlay, but a private copy of the workspace on disk.
    """

    TMPFS = "tmpfs"
    DISK = "disk"
    COPY = "copy"

    @property
    def level(self) -> LadderLevel:
        return LadderLevel.L2 if self is Storage.COPY else LadderLevel.L3


@dataclass(frozen=True, slots=True, kw_only=True)
class Scratch:
    """The operator's directory for sessions on disk; all that is named as sessions name theirs is the executor's."""

    root: Path
    launchers: Launchers

    def new(self, limits: Limits) -> "DiskPlace":
        """Makes one session's directory.

        Raises:
            SandboxUnavailableError: the scratch directory can not be used.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check()
            # 0700, whatever the scratch directory itself allows: a command that runs as root may make setuid files.
            own = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self.root))
            cellar = own / "cellar"
            cellar.mkdir()
            cellar.chmod(0o711)
        except OSError as error:
            raise self._unusable(str(error)) from error
        return DiskPlace(own=own, limits=limits, launchers=self.launchers)

    def clean(self) -> None:
        """Removes what sessions of a process that died left behind; no session may be open.

        Raises:
            SandboxUnavailableError: the scratch directory is not the executor's own.
        """
        if not os.path.lexists(self.root):
            return
        self._check()
        for place in self.root.iterdir():
            if place.name.startswith(_PREFIX) and stat.S_ISDIR(place.lstat().st_mode):
                remove_tree(self.launchers, place)

    def _check(self) -> None:
        status = self.root.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise self._unusable("it is a link, no directory, or another user's")

    def _unusable(self, why: str) -> SandboxUnavailableError:
        return SandboxUnavailableError(
            "UNSUPPORTED",
            f"the scratch directory {safe_line(str(self.root))!r} can not be used: {safe_line(why)}",
            "make it a directory of the executor's own user, on a disk with space",
        )


class DiskPlace:
    """One session's directory on disk. `cellar` takes the tmpfs's place."""

    def __init__(self, *, own: Path, limits: Limits, launchers: Launchers) -> None:
        self.cellar = own / "cellar"
        self._own = own
        self._launchers = launchers
        self._bytes, self._inodes = capacity(limits)
        self._free = os.statvfs(own)
        # What may go from the filesystem, whoever takes it, before it is worth while to measure again.
        self._unmeasured = (self._bytes, self._inodes)
        self._borne = (0, 0)
        self._measured = False

    @property
    def room(self) -> int:
        """How many bytes of the disk may still be taken."""
        now = os.statvfs(self._own)
        return max(0, now.f_bavail * now.f_frsize - _RESERVE_BYTES)

    def allow(self, more_bytes: int, more_inodes: int) -> None:
        """Counts what the server itself put here, or took away again, on top of what commands may write."""
        self._bytes, self._inodes = self._bytes + more_bytes, self._inodes + more_inodes
        self._free = os.statvfs(self._own)

    def excess(self) -> str | None:
        """Measures; says what is too much, or None. While the next command runs no more than that is borne."""
        free, self._measured = os.statvfs(self._own), False
        try:
            used, inodes = self._measure("--block-size=1"), self._measure("--inodes")
        except (OSError, ValueError, subprocess.TimeoutExpired):
            return "what it wrote can not be measured"
        self._free, self._unmeasured = free, (max(0, self._bytes - used), max(0, self._inodes - inodes))
        self._borne, self._measured = (used, inodes), True
        if used > self._bytes or inodes > self._inodes:
            return (
                f"it holds {used} bytes in {inodes} files and directories; "
                f"the limits are {self._bytes} bytes and {self._inodes} files and directories"
            )
        return None

    def overflows(self) -> bool:
        """Looks while a command runs: one call of the kernel, unless the disk lost more than is allowed here.

        A command may begin with too much, left by the one before, and is then the one that clears it away.
        """
        now = os.statvfs(self._own)
        if now.f_bavail * now.f_frsize < _RESERVE_BYTES:
            return True
        lost = (self._free.f_bfree - now.f_bfree) * now.f_frsize, self._free.f_ffree - now.f_ffree
        if lost[0] <= self._unmeasured[0] and lost[1] <= self._unmeasured[1]:
            return False
        former = self._borne
        if self.excess() is None:
            return False
        return not self._measured or self._borne[0] > former[0] or self._borne[1] > former[1]

    def remove(self, name: str) -> None:
        """Removes a directory of the cellar, whatever bits a command gave to what is in it."""
        remove_tree(self._launchers, self.cellar / name)

    def close(self) -> None:
        remove_tree(self._launchers, self._own)

    def _measure(self, what: str) -> int:
        """One total by du(1), which no depth, width or change of the tree confuses.

        Raises:
            ValueError: it did not come to a total.
        """
        argv = [*_with_rights(self._launchers), self._launchers.measure, "-s", "-x", what, "--", str(self._own)]
        done = _run(argv, timeout=_MEASURE_SECONDS)
        return int(done.split(b"\t", 1)[0])


def remove_tree(launchers: Launchers, place: Path) -> None:
    """Removes a directory by rm(1): how deep and how wide a command made it is the command's choice.

    Processes of a session that was just killed may still be dying, and write; so it is tried again.
    """
    argv = [*_with_rights(launchers), launchers.remove, "-rf", "--one-file-system", "--", str(place)]
    for attempt in range(_REMOVALS):
        if not os.path.lexists(place):
            return
        time.sleep(_REMOVAL_PAUSE_SECONDS * attempt)
        _run(argv)


def _with_rights(launchers: Launchers) -> list[str]:
    """An ordinary user is root over its own files in a user namespace: directories without bits are no hindrance."""
    return [] if os.geteuid() == 0 else [launchers.unshare, "--user", "--map-root-user"]


def _run(argv: list[str], *, timeout: float | None = None) -> bytes:
    return subprocess.run(
        argv,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env=_ENVIRONMENT,
        timeout=timeout,
    ).stdout
