"""A session's private copy of its workspace, and what became of it (ladder level L2).

Where there is no overlay, commands work on a whole copy on disk. It is made once, when the session opens, and each path
in it is remembered by inode number and time of change, which no program can set. What differs later was changed by a
command, or by the server between them. Exactly that is then shown in `upper`, in the form in which an overlay keeps
it: changed nodes as they are, deleted ones as a character device 0:0. So whoever reads changes reads them in one way.

The kernel's clock for files ticks a few hundred times a second, so the first thing a command does must not fall into
the tick in which the copy was looked at: `let_clock_pass`.
"""

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from executor.domain.errors import StepUnsafeError
from executor.sandbox.copying import Copier, opened
from gonogo.safe_text import shown_path

_WHITEOUT = stat.S_IFCHR
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_TICK_SECONDS = 0.0005
_COARSE_CLOCK = 5  # CLOCK_REALTIME_COARSE, by which the kernel dates files

# Inode number and time of change.
Mark = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """A tree at one moment: the mark of each path, and which of them are directories."""

    marks: dict[bytes, Mark]
    folders: frozenset[bytes]


def copy_tree(source: Path, target: Path, *, copier: Copier, left_empty: frozenset[bytes] = frozenset()) -> None:
    """Copies a whole tree to a directory that is not there yet.

    Args:
        source: the tree.
        target: the copy's place.
        copier: with what may be taken of the disk.
        left_empty: paths of files and directories whose content stays behind: what no command may see is not spread.

    Raises:
        SandboxRefusedError: something in it can not be copied, or it is too large.
    """
    target.mkdir(mode=0o700)
    with _root(source) as read, _root(target) as written:
        folders = [b""]
        for folder in folders:  # grows while it is read, so that a parent comes before what it holds
            folders += _copy_folder(read, written, folder, copier, left_empty)
        for folder in reversed(folders):
            with opened(read, folder) as one, opened(written, folder) as other:
                copier.finish(one, other)


def _copy_folder(read: int, written: int, folder: bytes, copier: Copier, left_empty: frozenset[bytes]) -> list[bytes]:
    """Copies a directory's entries; returns the directories among them."""
    if folder in left_empty:
        return []
    further = []
    with opened(read, folder) as source, opened(written, folder) as target:
        for name, status in _entries(source):
            path = _join(folder, name)
            if stat.S_ISDIR(status.st_mode):
                copier.folder(target, name, status)
                further.append(path)
            elif path in left_empty and stat.S_ISREG(status.st_mode):
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400, dir_fd=target))
            elif not _linked(copier, written, target, status, path):
                copier.node(source, target, name, path)
    return further


def _linked(copier: Copier, root: int, target: int, status: os.stat_result, path: bytes) -> bool:
    """Gives a file that was copied under another name this one too."""
    if status.st_nlink == 1:
        return False
    first = copier.links.setdefault((status.st_dev, status.st_ino), path)
    if first == path:
        return False
    folder, _, name = first.rpartition(b"/")
    with opened(root, folder) as source:
        os.link(name, path.rpartition(b"/")[2], src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    return True


@dataclass(slots=True, kw_only=True)
class Mirror:
    """Keeps `upper` equal to what differs between a copy, `merged`, and what it was when this was made."""

    merged: Path
    upper: Path
    copier: Copier
    _base: _Seen = field(init=False)
    _shown: dict[bytes, Mark | None] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Takes the copy as it is now for what nothing has changed yet."""
        self._base = _look(self.merged)

    def update(self) -> None:
        """Shows what changed since the last time.

        Raises:
            StepUnsafeError: the copy holds what can not be looked at.
            SandboxRefusedError: it can not be kept.
        """
        now = _look(self.merged)
        wanted = _differences(self._base, now)
        # Who was told that a path is gone takes nothing for granted beneath its name: it is shown when it comes back,
        # though a directory that was moved away and back brings the very files that it took along.
        self._base.marks.update(dict.fromkeys(self._base.marks.keys() - now.marks.keys(), _NOTHING))
        with _root(self.merged) as read, _root(self.upper) as written:
            for path in sorted(self._shown.keys() - wanted.keys(), reverse=True):
                _remove(written, path)
            self._add(read, written, now, wanted)
            for folder in sorted((path for path in wanted if path in now.folders), reverse=True):
                with opened(read, folder) as one, opened(written, folder) as other:
                    _finish_if_new(self.copier, one, other)
            with opened(read, b"") as one:
                _finish_if_new(self.copier, one, written)
        self._shown = wanted

    def _add(self, read: int, written: int, now: _Seen, wanted: dict[bytes, Mark | None]) -> None:
        self.copier.links.clear()
        for path, mark in sorted(wanted.items()):
            if self._shown.get(path, _NOTHING) == mark and path not in now.folders:
                continue
            folder, _, name = path.rpartition(b"/")
            with opened(written, folder) as target, contextlib.ExitStack() as stack:
                if path in now.folders:
                    self._add_folder(target, name, path)
                    continue
                _remove(written, path)
                if mark is None:
                    os.mknod(name, _WHITEOUT, 0, dir_fd=target)
                    continue
                source = stack.enter_context(opened(read, folder))
                status = os.stat(name, dir_fd=source, follow_symlinks=False)
                if not _linked(self.copier, written, target, status, path):
                    self.copier.node(source, target, name, path)

    def _add_folder(self, target: int, name: bytes, path: bytes) -> None:
        if path in self._shown and _is_folder(target, name):
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=target)
        os.mkdir(name, 0o700, dir_fd=target)


_NOTHING = (0, 0)


def _finish_if_new(copier: Copier, read: int, written: int) -> None:
    """Gives a directory its metadata; one that has them already keeps its own time of change."""
    one, other = os.fstat(read), os.fstat(written)
    same = (one.st_mode, one.st_mtime_ns, one.st_uid, one.st_gid) == (
        other.st_mode,
        other.st_mtime_ns,
        other.st_uid,
        other.st_gid,
    )
    if not same or os.listxattr(read) or os.listxattr(written):
        for name in os.listxattr(written):
            if name.startswith("user."):
                os.removexattr(written, name)
        copier.finish(read, written)


def _differences(base: _Seen, now: _Seen) -> dict[bytes, Mark | None]:
    """What `upper` has to hold: the mark of what is there and changed, or leads to it; None for what is gone."""
    wanted: dict[bytes, Mark | None] = {path: mark for path, mark in now.marks.items() if base.marks.get(path) != mark}
    for path in sorted(base.marks.keys() - now.marks.keys()):
        parent = path.rpartition(b"/")[0]
        if not parent or parent in now.folders:  # else its parent is gone, and that says it
            wanted[path] = None
    for path in list(wanted):
        for above in _ancestors(path):
            wanted.setdefault(above, now.marks[above])
    return wanted


def _look(root: Path) -> _Seen:
    """Looks at every path of a tree.

    Raises:
        StepUnsafeError: a directory can not be read, or is nested too deeply.
    """
    marks: dict[bytes, Mark] = {}
    folders = []
    with _root(root) as top:
        todo = [b""]
        while todo:
            folder = todo.pop()
            for name, status in _readable_entries(top, folder):
                path = _join(folder, name)
                marks[path] = status.st_ino, status.st_ctime_ns
                if stat.S_ISDIR(status.st_mode):
                    todo.append(path)
                    folders.append(path)
    return _Seen(marks=marks, folders=frozenset(folders))


def _readable_entries(top: int, folder: bytes) -> list[tuple[bytes, os.stat_result]]:
    try:
        with opened(top, folder) as fd:
            return list(_entries(fd))
    except OSError as error:
        raise StepUnsafeError(
            "SIMULATION_UNSAFE",
            f"the changes can not be read: {shown_path(folder)!r} can not be looked at: {error.strerror}",
            "let the command leave directories that its user can read",
            paths=(folder,),
        ) from error


def let_clock_pass() -> None:
    """Waits until the kernel's clock for files has moved on, a few milliseconds at most."""
    now = time.clock_gettime_ns(_COARSE_CLOCK)
    while time.clock_gettime_ns(_COARSE_CLOCK) == now:
        time.sleep(_TICK_SECONDS)


def _entries(folder: int) -> Iterator[tuple[bytes, os.stat_result]]:
    for name in os.listdir(folder):
        yield os.fsencode(name), os.stat(name, dir_fd=folder, follow_symlinks=False)


def _is_folder(parent: int, name: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _remove(root: int, path: bytes) -> None:
    """Removes what `upper` holds at a path; what it held below goes before it, so that a directory is empty."""
    folder, _, name = path.rpartition(b"/")
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), opened(root, folder) as parent:
        if _is_folder(parent, name):
            os.rmdir(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)


@contextlib.contextmanager
def _root(path: Path) -> Iterator[int]:
    fd = os.open(path, _FOLDER)
    try:
        yield fd
    finally:
        os.close(fd)


def _ancestors(path: bytes) -> Iterator[bytes]:
    while b"/" in path:
        path = path.rpartition(b"/")[0]
        yield path


def _join(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name
