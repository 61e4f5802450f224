"""Every access to a workspace, safe against names and links that lead out of it.

A plan's path is text written by somebody else, and the tree may be changed under our feet while we walk it. So no
path is ever resolved by name alone: each is opened beneath a directory that is already open, the kernel refuses
symbolic links, magic links and other mounts on the way (`openat2`), and what was opened is looked at again through
its descriptor. Where `openat2` is not allowed (an outer seccomp filter), the path is walked one component at a time
without following links, which refuses the same.

Paths are bytes. The root of a workspace is ``b"."``; every other path is its components joined by ``b"/"``.
"""

import contextlib
import errno
import functools
import hashlib
import os
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from executor.domain.changes import Node, NodeType
from executor.domain.errors import ExecutorError, StepFailedError
from executor.workspace.beneath import LOOK, opener
from gonogo.digests import PREFIX
from gonogo.safe_text import safe_line, shown_path

ROOT = b"."
MAX_PATH = 4096
MAX_NAME = 255
BLOCK = 1 << 20
LARGEST_FILE = 4 << 30

_LOOKS = 3
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK the open of a FIFO would wait for its writer.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class PathInvalidError(ExecutorError):
    """The path is not well formed; whoever wrote the plan must change it."""

    def __init__(self, path: str | bytes, why: str) -> None:
        super().__init__(
            "PATH_INVALID",
            f"path {shown(path)!r}: {why}",
            "give a path relative to the workspace, such as docs/guide.md, without '..'",
        )


class PathOutsideError(ExecutorError):
    """The path leads through a symbolic link or onto another file system; what it would reach is not the workspace."""

    def __init__(self, path: bytes, why: str) -> None:
        super().__init__(
            "PATH_OUTSIDE_WORKSPACE",
            f"path {shown(path)!r}: {why}",
            "name the real path of a file inside the workspace; links and mounts are never followed",
            paths=(path,),
        )


class ChangedError(StepFailedError):
    """Somebody changed the path while it was read."""

    def __init__(self, path: bytes) -> None:
        message = f"{shown(path)!r} changed while it was read"
        super().__init__("CONFLICT", message, "try again when nothing else writes there", paths=(path,))


def shown(path: str | bytes) -> str:
    """Return a path as safe text for a message."""
    text = shown_path(path) if isinstance(path, bytes) else path
    return safe_line(text if len(text) <= MAX_NAME else text[:MAX_NAME] + "…")


def relative(path: str | bytes) -> bytes:
    """Return the normal form of a path that a plan names.

    Raises:
        PathInvalidError: it is absolute, has ``..``, an empty component or a control character, or is too long.
    """
    try:
        raw = path.encode() if isinstance(path, str) else path
    except UnicodeEncodeError:
        raise PathInvalidError(path.encode("utf-8", "replace") if isinstance(path, str) else path, "not text") from None
    text = shown_path(raw) if isinstance(path, bytes) else path
    if not text.isprintable() and any(unicodedata.category(character) == "Cc" for character in text):
        raise PathInvalidError(path, "holds a control character")
    kept = [name for name in raw.split(b"/") if name != ROOT]
    return well_formed(b"/".join(kept)) if kept else ROOT


def well_formed(path: bytes) -> bytes:
    """Return a path in normal form as it is; names that a program made may hold any byte but NUL.

    Raises:
        PathInvalidError: it is not in normal form.
    """
    why = _malformed(path)
    if why:
        raise PathInvalidError(path, why)
    return path


def parent_of(path: bytes) -> bytes:
    """Return the directory that holds a path; the root holds itself."""
    return path.rpartition(b"/")[0] or ROOT


def name_of(path: bytes) -> bytes:
    """Return a path's last component."""
    return path.rpartition(b"/")[2]


def join(directory: bytes, name: bytes) -> bytes:
    """Return the path of a name in a directory."""
    return name if directory == ROOT else directory + b"/" + name


def is_beneath(path: bytes, directory: bytes) -> bool:
    """Tell whether a path lies beneath a directory (a directory does not lie beneath itself)."""
    return path != ROOT if directory == ROOT else path.startswith(directory + b"/")


def ancestors(path: bytes) -> Iterator[bytes]:
    """Yield the directories above a path, nearest first, without the root."""
    while (path := parent_of(path)) != ROOT:
        yield path


def same_stamp(one: os.stat_result, other: os.stat_result) -> bool:
    """Tell whether two looks at an object saw the same inode with the same content, as far as its times tell.

    The change time is left out, because a rename moves it; of a directory size and times too, because they follow
    the names in it.
    """
    if (one.st_ino, one.st_dev, one.st_mode) != (other.st_ino, other.st_dev, other.st_mode):
        return False
    return stat.S_ISDIR(one.st_mode) or (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


def digest_fd(fd: int, size: int) -> str:
    """Return the digest of a file's first bytes, read in blocks; a file that grows meanwhile is not chased."""
    hasher = hashlib.sha256()
    offset = 0
    while offset < size and (block := os.pread(fd, min(BLOCK, size - offset), offset)):
        hasher.update(block)
        offset += len(block)
    return PREFIX + hasher.hexdigest()


def user_xattrs(fd: int) -> tuple[tuple[str, bytes], ...]:
    """Return the `user.` extended attributes of an open file or directory, sorted by name."""
    try:
        names = os.listxattr(fd)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return ()
        raise
    return tuple((name, os.getxattr(fd, name)) for name in sorted(names) if name.startswith("user."))


class Directory:
    """A directory that is open, and the root of all access beneath it.

    Descriptors that a method returns belong to the caller. A path that is not there is None or `FileNotFoundError`;
    a path that leads out is always `PathOutsideError`.
    """

    def __init__(self, fd: int, *, largest: int = LARGEST_FILE) -> None:
        status = os.fstat(fd)
        self.fd = fd
        self.largest = largest
        self.device = status.st_dev
        self.inode = status.st_ino
        self._open = opener(fd)

    @classmethod
    def open(cls, path: Path, *, largest: int = LARGEST_FILE) -> Self:
        """Open a directory that the operator named; only here are links followed.

        Args:
            path: of the directory.
            largest: bytes of the largest file that is ever read for its digest.
        """
        return cls(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), largest=largest)

    def close(self) -> None:
        os.close(self.fd)

    def lstat(self, path: bytes) -> os.stat_result | None:
        """Return what a path is, links not followed, or None where it is not there."""
        if path == ROOT:
            return os.fstat(self.fd)
        try:
            fd = self._opened(path, LOOK)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def open_look(self, path: bytes) -> int:
        """Open whatever a path is without reading it (`O_PATH`), a link itself included."""
        return self._opened(path, LOOK)

    def open_directory(self, path: bytes) -> int:
        """Open a directory for listing, and to make, rename and sync names in it."""
        return self._opened(path, _LIST)

    def open_parent(self, path: bytes) -> tuple[int, bytes]:
        """Open the directory that holds a path; everything is created, renamed and removed by that pair alone."""
        if path == ROOT:
            raise PathInvalidError(path, "the workspace itself has no place in a directory")
        return self.open_directory(parent_of(path)), name_of(path)

    def open_file(self, path: bytes) -> int:
        """Open a regular file for reading; anything else is refused and never waited for.

        Raises:
            StepFailedError: it is no regular file, or may not be read.
        """
        # Looked at before it is opened: opening a device can already do something.
        status = self.lstat(path)
        if status is None:
            raise FileNotFoundError(errno.ENOENT, "not there", path)
        if not stat.S_ISREG(status.st_mode):
            raise _not_a_file(path)
        fd = self._opened(path, _READ)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise _not_a_file(path)
        return fd

    def read(self, path: bytes, limit: int) -> bytes:
        """Return a regular file's bytes, all of them.

        Raises:
            StepFailedError: it holds more than `limit` bytes.
        """
        fd = self.open_file(path)
        try:
            data = read_up_to(fd, 0, limit + 1)
        finally:
            os.close(fd)
        if len(data) > limit:
            raise too_large(path, limit)
        return data

    def names(self, path: bytes) -> list[bytes]:
        """Return the names in a directory, sorted."""
        fd = self.open_directory(path)
        try:
            return sorted(os.fsencode(name) for name in os.listdir(fd))  # noqa: PTH208 - a descriptor, not a path
        finally:
            os.close(fd)

    def node(self, path: bytes, *, digest: bool = True) -> Node | None:
        """Return what a path is, or None where it is not there.

        Args:
            path: in normal form.
            digest: read a file's bytes for their digest; without it the digest is empty.
        """
        found = self.examine(path, digest=digest)
        return found[0] if found else None

    def state(self, path: bytes, *, digest: bool = True) -> Node | None:
        """Return what a path is, and None also where a directory above it is a link: then it names nothing in here."""
        try:
            return self.node(path, digest=digest)
        except PathOutsideError:
            return None

    def examine(self, path: bytes, *, digest: bool = True) -> tuple[Node, os.stat_result] | None:
        """Return what a path is together with the inode that it is, or None where it is not there.

        Raises:
            ChangedError: it was replaced or written again and again while it was read.
            StepFailedError: its digest is asked for, and it is too large to be read for one.
        """
        for attempt in range(_LOOKS):
            try:
                look = self._opened(path, LOOK)
            except (FileNotFoundError, NotADirectoryError):
                return None
            try:
                return self._examined(path, look, digest=digest)
            except (ChangedError, FileNotFoundError, NotADirectoryError):
                if attempt == _LOOKS - 1:
                    raise ChangedError(path) from None
            finally:
                os.close(look)
        raise ChangedError(path)

    def _examined(self, path: bytes, look: int, *, digest: bool) -> tuple[Node, os.stat_result]:
        status = os.fstat(look)
        mode = stat.S_IMODE(status.st_mode)
        if stat.S_ISLNK(status.st_mode):
            return Node(type=NodeType.SYMLINK, mode=mode, link_target=os.readlink(b"", dir_fd=look)), status
        if stat.S_ISDIR(status.st_mode):
            with self._same(path, _LIST, status) as fd:
                return Node(type=NodeType.DIRECTORY, mode=mode, xattrs=user_xattrs(fd)), status
        if not stat.S_ISREG(status.st_mode):
            return Node(type=NodeType.OTHER, mode=mode), status
        if digest and status.st_size > self.largest:  # holes cost no space, and hours to read
            raise too_large(path, self.largest)
        with self._same(path, _READ, status) as fd:
            content = digest_fd(fd, status.st_size) if digest else ""
            node = Node(type=NodeType.FILE, mode=mode, digest=content, size=status.st_size, xattrs=user_xattrs(fd))
            if not same_stamp(os.fstat(fd), status):
                raise ChangedError(path)
            return node, status

    @contextlib.contextmanager
    def _same(self, path: bytes, flags: int, status: os.stat_result) -> Iterator[int]:
        """Open for reading what was only looked at, and refuse another object that took its name in between."""
        fd = self._opened(path, flags)
        try:
            if not os.path.samestat(os.fstat(fd), status):
                raise ChangedError(path)
            yield fd
        finally:
            os.close(fd)

    def _opened(self, path: bytes, flags: int) -> int:
        try:
            return self._open(self.fd, well_formed(path), flags)
        except OSError as error:
            raise _translated(path, error) from error


def read_up_to(fd: int, offset: int, limit: int) -> bytes:
    """Return at most `limit` bytes of a file from an offset on."""
    blocks = []
    while limit > 0 and (block := os.pread(fd, min(BLOCK, limit), offset)):
        blocks.append(block)
        offset += len(block)
        limit -= len(block)
    return b"".join(blocks)


def too_large(path: bytes, limit: int) -> StepFailedError:
    """Return the error for content over a limit."""
    remedy = "use a smaller file, a command, or ask the operator to raise the executor's limit"
    return StepFailedError("TOO_LARGE", f"{shown(path)!r} is over the limit of {limit} bytes", remedy, paths=(path,))


@functools.lru_cache(maxsize=1024)
def _malformed(path: bytes) -> str:
    if not path or path.startswith(b"/"):
        return "absolute or empty"
    if b"\0" in path or len(path) > MAX_PATH:
        return f"holds a NUL byte or is longer than {MAX_PATH} bytes"
    if path == ROOT:
        return ""
    for name in path.split(b"/"):
        if name in {b"", ROOT, b".."}:
            return "has an empty, '.' or '..' component"
        if len(name) > MAX_NAME:
            return f"has a component longer than {MAX_NAME} bytes"
    return ""


def _not_a_file(path: bytes) -> StepFailedError:
    return StepFailedError("CONFLICT", f"{shown(path)!r} is not a regular file", "name a regular file", paths=(path,))


def _translated(path: bytes, error: OSError) -> Exception:
    """Return an error of the path layer for what the kernel said; absence stays what it is."""
    match error.errno:
        case errno.ELOOP:
            return PathOutsideError(path, "a component is a symbolic link")
        case errno.EXDEV:
            return PathOutsideError(path, "leaves the workspace or crosses onto another file system")
        case errno.ENAMETOOLONG:
            return PathInvalidError(path, "longer than the file system allows")
        case errno.EACCES | errno.EPERM:
            message = f"{shown(path)!r} may not be opened by the executor"
            remedy = "run the executor as the owner of the workspace"
            return StepFailedError("STATE_FORBIDS", message, remedy, paths=(path,))
        case _:
            return error
