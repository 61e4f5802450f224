"""The walk of a tree by GNU find: a third of the time of `executor.workspace.walk`, and none of it in this process.

find begins in the very directory that is open (its working directory is that descriptor), follows no link, and does not
enter other file systems. It is told what to leave out where its tests mean exactly what a glob means; the few globs
for which it has no such test are applied to what it prints. Whether a machine's find is this one is tried out once.
"""

import contextlib
import fcntl
import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

from executor.workspace import walk
from executor.workspace.globs import Globs
from executor.workspace.paths import Directory, read_up_to
from executor.workspace.walk import BLOCK, END, LeftOut, Passed, joined, path_of, split

_SYSTEM_PATH = "/usr/bin:/bin"
_ENVIRONMENT = {"LC_ALL": "C"}  # names are bytes
_IDENTITY = r"%P\0/%D %U %G %y%m %i"
_RECORDS = (
    *("-type", "d", "-printf", rf"{_IDENTITY}\0\0"),
    *("-o", "-printf", rf"{_IDENTITY} %s %T@ %C@ %n %l\0\0"),
)
_BENEATH = ("-mindepth", "1", "-xdev", "-ignore_readdir_race")


class WalkBrokenError(Exception):
    """find could not look at something; what it printed is not all."""


class FindWalk:
    """One find at work on a tree from the moment this is made."""

    def __init__(self, program: str, root: Directory, left_out: LeftOut) -> None:
        self._program = program
        self._root = root
        self._left_out = left_out
        self._rest = _Rest(left_out)
        self._hidden = os.memfd_create("hidden")
        self._volatile = os.memfd_create("volatile")
        try:
            self._process = self._started()
        except BaseException:
            os.close(self._hidden)
            os.close(self._volatile)
            raise

    def close(self) -> None:
        """End it, also in the middle of its work."""
        self._process.kill()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process.wait()
        os.close(self._hidden)
        os.close(self._volatile)

    def blocks(self, passed: Passed) -> Generator[bytes, None, None]:
        """Yield the records as `executor.workspace.walk.walk` does, in another order.

        Args:
            passed: gets what was passed by; of what find has no test for also what is beneath it.

        Raises:
            WalkBrokenError: find could not look at something.
        """
        for block in self._whole_records():
            yield self._rest.applied(block, passed)
        if self._process.wait() != 0:
            raise WalkBrokenError
        passed.hidden.update(_noted(self._hidden))
        for path in _noted(self._volatile):
            (passed.hidden if self._rest.hidden.matches(path) else passed.volatile).add(path)

    def _started(self) -> subprocess.Popen[bytes]:
        argv = [self._program, ".", *_BENEATH]
        argv += _noting(_tests(self._left_out.hidden.patterns), self._hidden)
        argv += _noting(_tests(self._left_out.volatile.patterns), self._volatile)
        process = subprocess.Popen(
            [*argv, *_RECORDS],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd=f"/proc/self/fd/{self._root.fd}",
            env=_ENVIRONMENT,
            pass_fds=(self._root.fd, self._hidden, self._volatile),
            start_new_session=True,
        )
        if process.stdout is not None:
            with contextlib.suppress(OSError):  # more than a user may have; the usual size does, too
                fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, BLOCK)
        return process

    def _whole_records(self) -> Iterator[bytes]:
        data = b""
        for block in _read(self._process):
            data += block
            end = data.rfind(END) + len(END)
            if end >= len(END):
                yield data[:end]
                data = data[end:]
        if data:
            raise WalkBrokenError


class _Rest:
    """The globs that find has no test for."""

    def __init__(self, left_out: LeftOut) -> None:
        self.hidden = _untested(left_out.hidden.patterns)
        self.volatile = _untested(left_out.volatile.patterns)

    def applied(self, block: bytes, passed: Passed) -> bytes:
        """Return a block without what they leave out."""
        if not self.hidden and not self.volatile:
            return block
        return joined(record for record in split(block) if not self._leaves_out(path_of(record), passed))

    def _leaves_out(self, path: bytes, passed: Passed) -> bool:
        for globs, paths in ((self.hidden, passed.hidden), (self.volatile, passed.volatile)):
            if globs.covers(path):
                if globs.matches(path):
                    paths.add(path)
                return True
        return False


@functools.cache
def find_program() -> str | None:
    """Return the machine's find where it makes the very records that are made here; tried out at the first call."""
    program = shutil.which("find", path=_SYSTEM_PATH)
    if program is None:
        return None
    try:
        with tempfile.TemporaryDirectory(prefix="gonogo-find-") as folder:
            return program if _works(program, Path(folder)) else None
    except OSError:
        return None


def _works(program: str, folder: Path) -> bool:
    (folder / "with space").mkdir()
    for name in (".env", "a\nb", "\udcff", "with space/.env", "volatile"):
        (folder / name).touch()
    os.utime(folder / "volatile", ns=(0, -1))
    (folder / "link").symlink_to("no where")
    os.mkfifo(folder / "fifo")
    left_out = LeftOut(volatile=Globs(["volatile"]), hidden=Globs(["**/.env"]))
    root = Directory.open(folder)
    try:
        return _found(program, root, left_out) == _walked(root, left_out)
    except WalkBrokenError:
        return False
    finally:
        root.close()


def _found(program: str, root: Directory, left_out: LeftOut) -> tuple[list[bytes], Passed]:
    passed = Passed()
    with contextlib.closing(FindWalk(program, root, left_out)) as find:
        return sorted(split(b"".join(find.blocks(passed)))), passed


def _walked(root: Directory, left_out: LeftOut) -> tuple[list[bytes], Passed]:
    passed = Passed()
    return sorted(split(b"".join(walk.walk(root, left_out, passed)))), passed


def _read(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """Yield what a process prints, about a MiB at a time."""
    if process.stdout is None:
        raise ValueError("the process was started without a pipe")
    parts: list[bytes] = []
    size = 0
    while part := os.read(process.stdout.fileno(), BLOCK):
        parts.append(part)
        size += len(part)
        if size >= BLOCK:
            yield b"".join(parts)
            parts, size = [], 0
    yield b"".join(parts)


def _noted(fd: int) -> list[bytes]:
    return read_up_to(fd, 0, os.fstat(fd).st_size).split(b"\0")[:-1]


def _noting(tests: tuple[str, ...], fd: int) -> list[str]:
    """Return the arguments that keep find out of what the tests match, and note it."""
    return ["(", *tests, ")", "-prune", "-fprintf", f"/proc/self/fd/{fd}", r"%P\0", "-o"] if tests else []


@functools.lru_cache(maxsize=64)  # a workspace's globs never change
def _tests(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Return the test for all patterns that find has one for."""
    tests = [test for pattern in patterns if (test := find_test(pattern))]
    return tuple(word for test in tests for word in ("-o", *test))[1:]


@functools.lru_cache(maxsize=64)
def _untested(patterns: tuple[str, ...]) -> Globs:
    return Globs([pattern for pattern in patterns if not find_test(pattern)])


def find_test(pattern: str) -> tuple[str, str] | None:
    """Return find's test that means what a glob means, or None where it has none.

    Its `*` also stands for a slash, so only in a single name it is the same as a glob's. That a directory is left out
    with all beneath it needs no test: find does not enter it.
    """
    names = pattern.removeprefix("./").split("/")
    while names and names[-1] == "**":
        names.pop()
    anywhere = bool(names) and names[0] == "**"
    while names and names[0] == "**":
        names.pop(0)
    if not names or "**" in names or re.search(r"[?\[\0]", pattern):
        return None
    if anywhere and len(names) == 1:
        return "-name", names[0].replace("\\", "\\\\")
    if any("*" in name for name in names):
        return None
    return "-path", ("*/" if anywhere else "./") + "/".join(names).replace("\\", "\\\\")
