"""A whole tree as a stream of records, one for each path, of everything that `lstat` says.

A record is `PATH NUL /DEVICE UID GID MODE INODE ... NUL NUL`. A path is not empty, holds no NUL and does not begin with
a slash, and what follows it is not empty either. So two NULs stand at the end of a record and nowhere else, NUL slash
in the middle of one and nowhere else, whatever the names are: a block of records can be counted, checked and packed as
it stands, without an object for each file.

This is the walk that needs no program. `executor.workspace.find` makes the same records in a third of the time.
"""

import errno
import os
import stat
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field

from executor.domain.errors import ExecutorError, StepFailedError
from executor.workspace.globs import Globs
from executor.workspace.paths import ROOT, Directory, join, shown

END = b"\0\0"
MIDDLE = b"\0/"
BLOCK = 1 << 20

_TYPES = {
    stat.S_IFREG: b"f",
    stat.S_IFDIR: b"d",
    stat.S_IFLNK: b"l",
    stat.S_IFIFO: b"p",
    stat.S_IFSOCK: b"s",
    stat.S_IFCHR: b"c",
    stat.S_IFBLK: b"b",
}
_SECOND = 1_000_000_000
_CHANGED = frozenset({errno.ENOENT, errno.EINVAL})


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """The globs of what a walk passes by, with all beneath it. What is hidden is not also volatile."""

    volatile: Globs
    hidden: Globs


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """The paths that a walk came to and passed by."""

    volatile: set[bytes] = field(default_factory=set)
    hidden: set[bytes] = field(default_factory=set)


def walk(root: Directory, left_out: LeftOut, passed: Passed) -> Generator[bytes, None, None]:
    """Yield a tree's records in blocks of about a MiB; another file system's root is one, what it holds is not.

    Args:
        root: where to begin.
        left_out: what to pass by.
        passed: gets what was passed by.

    Raises:
        ExecutorError: something in the tree may not be looked at.
    """
    block: list[bytes] = []
    size = 0
    for record in _records(root, left_out, passed):
        block.append(record)
        size += len(record)
        if size >= BLOCK:
            yield b"".join(block)
            block, size = [], 0
    yield b"".join(block)


def path_of(record: bytes) -> bytes:
    """Return a record's path."""
    return record.partition(b"\0")[0]


def split(block: bytes) -> list[bytes]:
    """Return a block's records, without the NULs at their ends."""
    return block.split(END)[:-1]


def joined(records: Iterable[bytes]) -> bytes:
    """Return a block of what `split` returned."""
    return b"".join(record + END for record in records)


def _records(root: Directory, left_out: LeftOut, passed: Passed) -> Iterator[bytes]:
    waiting = [ROOT]
    while waiting:
        for path, status, target in _listed(root, waiting.pop()):
            if left_out.hidden.matches(path):
                passed.hidden.add(path)
            elif left_out.volatile.matches(path):
                passed.volatile.add(path)
            elif stat.S_ISDIR(status.st_mode):
                if status.st_dev == root.device:
                    waiting.append(path)
                yield path + _directory_record(status)
            else:
                yield path + _record(status, target)


def _listed(root: Directory, folder: bytes) -> Iterator[tuple[bytes, os.stat_result, bytes]]:
    """Yield each name of one directory: its path, what it is, and a link's target."""
    try:
        fd = root.open_directory(folder)
    except (FileNotFoundError, NotADirectoryError):
        return  # gone since it was listed; the next manifest says the same
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                path = join(folder, os.fsencode(entry.name))
                try:
                    status = entry.stat(follow_symlinks=False)
                    target = os.readlink(entry.name, dir_fd=fd) if stat.S_ISLNK(status.st_mode) else ""
                except OSError as error:
                    if error.errno not in _CHANGED:
                        raise
                    continue  # gone, or no link any more, within this moment; the next manifest differs from this one
                yield path, status, os.fsencode(target)
    except PermissionError:
        raise _unreadable(folder) from None
    finally:
        os.close(fd)


def _record(status: os.stat_result, target: bytes) -> bytes:
    return b"%b %d %b %b %d %b\0\0" % (
        _identity(status),
        status.st_size,
        _time(status.st_mtime_ns),
        _time(status.st_ctime_ns),
        status.st_nlink,
        target,
    )


def _directory_record(status: os.stat_result) -> bytes:
    """Only mode and identity: a directory's times also move when a volatile name comes or goes in it."""
    return _identity(status) + END


def _identity(status: os.stat_result) -> bytes:
    kind = _TYPES[stat.S_IFMT(status.st_mode)]
    permissions = stat.S_IMODE(status.st_mode)
    owner = (status.st_uid, status.st_gid)
    return b"\0/%d %d %d %b%o %d" % (status.st_dev, *owner, kind, permissions, status.st_ino)


def _time(nanoseconds: int) -> bytes:
    """Return a time as find prints it: the part after the point counts upwards also before 1970."""
    return b"%d.%09d0" % divmod(nanoseconds, _SECOND)


def _unreadable(folder: bytes) -> ExecutorError:
    message = f"the directory {shown(folder)!r} may not be read by the executor"
    remedy = "run the executor as the owner of the workspace"
    return StepFailedError("STATE_FORBIDS", message, remedy, paths=(folder,))
