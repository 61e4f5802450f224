"""Files that commands on the executor's own host leave for the executor, and how the executor reads them.

Such a command is often run by root while the executor is not, and a file that only root can read would never be taken,
and hold up the others. So what is made here belongs to whoever owns the folder it is made in, and is open to nobody
else. Root writes into a folder of somebody else's then: no link is followed, and no file that is there is written into.
"""

import errno
import os
import secrets
import stat
from pathlib import Path
from typing import Final

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
UNFINISHED: Final = ".new"


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing, for whoever owns the nearest one that is there.

    Raises:
        OSError: it can not be made.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(folder, _FOLDER)
    try:
        _give(descriptor, folder.parent.stat())
    finally:
        os.close(descriptor)


def leave(folder: Path, name: str, text: str) -> None:
    """Leave a file durably; it is seen under its name only when it is whole.

    Raises:
        OSError: it can not be written.
    """
    descriptor = os.open(folder, _FOLDER)
    new = f"{secrets.token_hex(8)}{UNFINISHED}"
    try:
        try:
            _write(os.open(new, _NEW, 0o600, dir_fd=descriptor), text, os.fstat(descriptor))
            os.rename(new, name, src_dir_fd=descriptor, dst_dir_fd=descriptor)
        except BaseException:
            (folder / new).unlink(missing_ok=True)
            raise
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: Path, limit: int) -> bytes:
    """Read a file up to a limit; whatever is no plain file is not waited for.

    Raises:
        OSError: it can not be read, or is a link, a folder or a pipe.
    """
    descriptor = os.open(path, _READ)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no plain file", str(path))
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(limit)
    finally:
        os.close(descriptor)


def _write(descriptor: int, text: str, folder: os.stat_result) -> None:
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        _give(descriptor, folder)
        file.write(text)
        file.flush()
        os.fsync(descriptor)


def _give(descriptor: int, like: os.stat_result) -> None:
    if os.geteuid() == 0:
        os.fchown(descriptor, like.st_uid, like.st_gid)
