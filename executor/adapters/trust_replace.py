"""Puts a new text of the trust file in the place of the old one: whole, or not at all."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from executor.adapters.trust_file import read_trust_bytes
from executor.adapters.trust_tables import TrustFileError


def rewrite(path: Path, edit: Callable[[bytes], bytes]) -> None:
    """Replace a trust file by what an edit makes of it; of several at once, each edits what the one before it left.

    The new file keeps the old one's owner and permissions, and takes its place by a rename: an executor that reads it
    sees one or the other.

    Raises:
        TrustFileError: it can not be read or written, or the edit refuses.
    """
    if path.is_symlink():
        raise TrustFileError(f"{path} is a link", "name the file that it points to with --file")
    try:
        with _alone(path.parent):
            old = read_trust_bytes(path)
            _replace(path, edit(old))
    except OSError as error:
        remedy = "do this as the user that owns the trust file"
        raise TrustFileError(f"{path} can not be written: {error.strerror}", remedy) from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(path: Path, data: bytes) -> None:
    status = path.stat()
    new = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, status.st_uid, status.st_gid)
            os.fchmod(descriptor, status.st_mode & 0o7777)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        new.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            new.unlink()
        raise
