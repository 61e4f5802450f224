"""Reading in a tree that a command wrote: nothing there is followed, waited for or trusted to be small."""

import os
import stat
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_BLOCK = 1 << 20


class UnreadableFileError(Exception):
    """A file can not be taken; the argument says why."""


def read_file(root: Path, path: bytes, *, limit: int) -> bytes:
    """Reads a regular file below `root`, without following any link.

    Raises:
        UnreadableFileError: there is none, it is something else, or it is longer than `limit`.
    """
    try:
        fd = _open(root, path)
    except FileNotFoundError:
        raise UnreadableFileError("is not there") from None
    except OSError as error:
        raise UnreadableFileError(f"can not be read without following a link: {error.strerror}") from error
    try:
        return _read(fd, limit)
    finally:
        os.close(fd)


def kind_of(root: Path, path: bytes) -> int | None:
    """What stands at a path: its file type bits, or None where nothing does.

    Raises:
        UnreadableFileError: a symbolic link stands there or on the way.
    """
    at = os.fsencode(root)
    mode = stat.S_IFDIR
    for name in _names(path):
        at = at + b"/" + name
        try:
            mode = os.lstat(at).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat.S_ISLNK(mode):
            raise UnreadableFileError("is, or is behind, a symbolic link")
    return stat.S_IFMT(mode)


def stamp(root: Path, path: bytes) -> tuple[int, int] | None:
    """Modification time and size of a regular file below `root`, behind no link; None where there is none."""
    try:
        fd = _open(root, path, flags=os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
    finally:
        os.close(fd)
    return (status.st_mtime_ns, status.st_size) if stat.S_ISREG(status.st_mode) else None


def _names(path: bytes) -> list[bytes]:
    return [name for name in path.split(b"/") if name not in (b"", b".")]


def _open(root: Path, path: bytes, *, flags: int = _FILE) -> int:
    *folders, name = _names(path) or [b"."]
    at = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for folder in folders:
            below = os.open(folder, _DIRECTORY, dir_fd=at)
            os.close(at)
            at = below
        return os.open(name, flags, dir_fd=at)
    finally:
        os.close(at)


def _read(fd: int, limit: int) -> bytes:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise UnreadableFileError("is not a regular file")
    chunks, total = [], 0
    while chunk := os.read(fd, min(_BLOCK, limit + 1 - total)):
        chunks.append(chunk)
        total += len(chunk)
        if total > limit:
            raise UnreadableFileError(f"is longer than {limit} bytes")
    return b"".join(chunks)
