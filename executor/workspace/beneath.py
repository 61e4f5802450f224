"""The kernel's calls that the standard library lacks: opening beneath a directory, and renaming without surprise.

`openat2` resolves a whole path beneath a directory and refuses links, magic links and mounts on the way. Where an
outer seccomp filter forbids it, the walk by single components refuses the same.
"""

import ctypes
import errno
import functools
import os
import stat
import struct
from collections.abc import Callable

LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
"""Flags to look at a path without reading it."""

_OPENAT2 = 437  # the same number on every architecture
# RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
_RESOLVE = 0x08 | 0x04 | 0x02 | 0x01
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
# openat2 answers EAGAIN when a rename elsewhere raced with its walk; the walk is simply made again.
_TRIES = 64


def rename_new(source: int, old: bytes, target: int, new: bytes) -> None:
    """Rename to a name that must be free, as one atomic step.

    Raises:
        OSError: `FileExistsError` where the name is taken.
    """
    _rename(source, old, target, new, _RENAME_NOREPLACE)


def exchange(source: int, old: bytes, target: int, new: bytes) -> None:
    """Let two names change places, as one atomic step; both must exist."""
    _rename(source, old, target, new, _RENAME_EXCHANGE)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


@functools.cache
def _syscall() -> Callable[..., int]:
    call = _libc()["syscall"]
    call.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)
    call.restype = ctypes.c_long
    return call


@functools.cache
def _renameat2() -> Callable[..., int]:
    call = _libc()["renameat2"]
    call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    call.restype = ctypes.c_int
    return call


def _rename(source: int, old: bytes, target: int, new: bytes, flags: int) -> None:
    if _renameat2()(source, old, target, new, flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), new)


@functools.cache
def _how(flags: int) -> bytes:
    return struct.pack("=QQQ", flags, 0, _RESOLVE)


def open_by_openat2(root: int, path: bytes, flags: int) -> int:
    how = _how(flags)
    for _ in range(_TRIES):
        fd = _syscall()(_OPENAT2, root, path, how, len(how))
        if fd >= 0:
            return fd
        code = ctypes.get_errno()
        if code not in {errno.EAGAIN, errno.EINTR}:
            raise OSError(code, os.strerror(code), path)
    raise OSError(errno.EAGAIN, "renamed again and again while it was opened", path)


def open_by_walk(root: int, path: bytes, flags: int) -> int:
    """Open a path one component at a time; what serves where `openat2` is not allowed.

    A mount of the same file system is not noticed here, one of another is.
    """
    *above, last = path.split(b"/")
    device = os.fstat(root).st_dev
    here = os.dup(root)
    for name in above:
        here = _entered(here, name, LOOK, device)
        if stat.S_ISLNK(os.fstat(here).st_mode):
            os.close(here)
            raise OSError(errno.ELOOP, "a symbolic link", path)
    return _entered(here, last, flags, device)


def _entered(above: int, name: bytes, flags: int, device: int) -> int:
    """Open a name in a directory, and let go of the directory."""
    try:
        here = os.open(name, flags, dir_fd=above)
    except NotADirectoryError:
        # Of a link that may not be followed the kernel says this too, where openat2 would have said ELOOP.
        if stat.S_ISLNK(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, "a symbolic link", name) from None
        raise
    finally:
        os.close(above)
    if os.fstat(here).st_dev != device:
        os.close(here)
        raise OSError(errno.EXDEV, "another file system", name)
    return here


def opener(root: int) -> Callable[[int, bytes, int], int]:
    """Return the way to open beneath a root that this system allows, found by using it once."""
    try:
        os.close(open_by_openat2(root, b".", LOOK))
    except OSError as error:
        if error.errno in {errno.ENOSYS, errno.EPERM}:
            return open_by_walk
        raise
    return open_by_openat2
