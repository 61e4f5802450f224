"""Copying one node of a tree as exactly as this user may: bytes, holes, mode, owner, attributes, times.

All is done by directory descriptors and single names, never through a link: the tree copied from may be one that a
command wrote, or that somebody writes to meanwhile.
"""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from executor.sandbox.sandbox import SandboxRefusedError
from gonogo.safe_text import shown_path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CLONE = 0x40049409  # FICLONE
_CAN_NOT_CLONE = frozenset({errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.EPERM, errno.ENOSYS})
_PIECE = 1 << 30
_PLAIN = frozenset({stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK})
_OVERLAYS = "user.overlay."
# An access list says more about who may read than the mode does; it is taken along where the disk has them.
_ACCESS_LIST = "system.posix_acl_"
BLOCK = 512


@dataclass(slots=True, kw_only=True)
class Budget:
    """What copies may take of the disk, and what they took."""

    most_bytes: int
    most_inodes: int
    bytes: int = 0
    inodes: int = 0

    def take(self, status: os.stat_result) -> None:
        """Counts a node before it is copied: holes cost nothing.

        Raises:
            SandboxRefusedError: it is too much.
        """
        self.bytes += status.st_blocks * BLOCK
        self.inodes += 1
        if self.bytes > self.most_bytes or self.inodes > self.most_inodes:
            raise SandboxRefusedError(
                "TOO_LARGE",
                "the workspace is too large for the private copy that commands work on at ladder level L2: more than "
                f"{self.most_bytes} bytes or {self.most_inodes} files and directories",
                "run gonogo doctor on the executor's host: with an overlay (level L3) nothing is copied",
            )


@dataclass(slots=True, kw_only=True)
class Copier:
    """Copies nodes; remembers whether the disk can clone, and under which name it made each file of several names.

    `escape`: attributes named as the overlay's own are written the way an overlay stores them.
    """

    budget: Budget
    escape: bool = False
    clones: bool = True
    links: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def node(self, source: int, target: int, name: bytes, path: bytes) -> None:
        """Copies what is no directory.

        Args:
            source: the directory that it is in.
            target: the directory to copy it to, where the name is free.
            name: its name in both.
            path: the same below the tree's root, for what is said about it.

        Raises:
            SandboxRefusedError: it can not be read, is a device, or is too much.
        """
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind not in _PLAIN:
            raise _not_copied(path, "is a device", "take it out of the workspace")
        self.budget.take(status)
        try:
            if kind == stat.S_IFREG:
                self._file(source, target, name)
            else:
                self._special(source, target, name, status)
        except PermissionError as error:
            raise _not_copied(path, f"can not be read by the executor: {error.strerror}", _READABLE) from error

    def folder(self, target: int, name: bytes, status: os.stat_result) -> None:
        """Makes a directory, to be filled and then given its own rights and times by `finish`."""
        self.budget.take(status)
        os.mkdir(name, 0o700, dir_fd=target)

    def finish(self, source: int, target: int) -> None:
        """Gives a file or directory, by descriptors, the owner, attributes, mode and times of another."""
        status = os.fstat(source)
        _give_owner(target, status)
        for name in os.listxattr(source):
            if name.startswith("user."):
                os.setxattr(target, self._attribute(name), os.getxattr(source, name))
            elif name.startswith(_ACCESS_LIST):
                with contextlib.suppress(OSError):  # the copy's file system may know none, and no change set has any
                    os.setxattr(target, name, os.getxattr(source, name))
        os.fchmod(target, stat.S_IMODE(status.st_mode))
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _attribute(self, name: str) -> str:
        if self.escape and name.startswith(_OVERLAYS):
            return _OVERLAYS + "overlay." + name.removeprefix(_OVERLAYS)
        return name

    def _file(self, source: int, target: int, name: bytes) -> None:
        read = os.open(name, _READ, dir_fd=source)
        try:
            written = os.open(name, _CREATE, 0o600, dir_fd=target)
            try:
                self._content(read, written)
                self.finish(read, written)
            finally:
                os.close(written)
        finally:
            os.close(read)

    def _content(self, read: int, written: int) -> None:
        if self.clones:
            try:
                fcntl.ioctl(written, _CLONE, read)
            except OSError as error:
                if error.errno not in _CAN_NOT_CLONE:
                    raise
                self.clones = False
            else:
                return
        _copy_data(read, written)

    def _special(self, source: int, target: int, name: bytes, status: os.stat_result) -> None:
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        else:
            os.mknod(name, status.st_mode, dir_fd=target)
            os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=target)
        with contextlib.suppress(PermissionError):  # as in `_give_owner`
            os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False)


_READABLE = "let the executor's user read it, name it in `hidden`, or take it out of the workspace"


def open_folder(root: int, path: bytes) -> int:
    """Opens a directory below `root` name by name, through no link; the empty path is `root` itself."""
    at = os.open(b".", _FOLDER, dir_fd=root)
    for name in path.split(b"/") if path else ():
        try:
            below = os.open(name, _FOLDER, dir_fd=at)
        finally:
            os.close(at)
        at = below
    return at


@contextlib.contextmanager
def opened(root: int, path: bytes) -> Iterator[int]:
    """`open_folder`, closed at the end."""
    fd = open_folder(root, path)
    try:
        yield fd
    finally:
        os.close(fd)


def _copy_data(read: int, written: int) -> None:
    """Copies what is not a hole, and lets the rest be one."""
    size = os.fstat(read).st_size
    at = 0
    while at < size:
        try:
            start = os.lseek(read, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole from here on
                break
            raise
        at = os.lseek(read, start, os.SEEK_HOLE)
        _copy_range(read, written, start, at)
    os.ftruncate(written, size)


def _copy_range(read: int, written: int, start: int, end: int) -> None:
    os.lseek(written, start, os.SEEK_SET)
    while start < end:
        done = os.sendfile(written, read, start, min(end - start, _PIECE))
        if not done:
            return
        start += done


def _give_owner(target: int, status: os.stat_result) -> None:
    # An ordinary user's copies are its own, whosever the originals are.
    with contextlib.suppress(PermissionError):
        os.fchown(target, status.st_uid, status.st_gid)


def _not_copied(path: bytes, why: str, remedy: str) -> SandboxRefusedError:
    message = f"{shown_path(path)!r} {why}, so that the workspace can not be copied for commands (ladder level L2)"
    return SandboxRefusedError("UNSUPPORTED", message, remedy, paths=(path,))
