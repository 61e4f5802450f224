"""Reading what changed from an overlay's upper directory. The cost follows the changes, not the workspace.

The upper directory holds, in the kernel's own form, exactly what differs from the tree below (`lower`):

* a character device 0:0 is a whiteout: what had this name below is gone;
* a directory with `user.overlay.opaque` = `y` replaces what was below: nothing of that shows through, nor does
  anything below the directories that were then made in it, which carry no mark of their own;
* anything else is present as it stands, new or copied up.

A command can forge none of this (`overlay_attributes`). Whatever mark is not known is an error, never a guess.

Names are bytes; paths are relative, joined by `/`; the workspace itself is `b"."`.
"""

import contextlib
import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from executor.workspace.overlay_attributes import (
    NO_ATTRIBUTES,
    UpperAttributes,
    UpperUnreadableError,
    Xattrs,
    lower_attributes,
    upper_attributes,
)

__all__ = ["ROOT", "Former", "UpperEntry", "UpperIndex", "UpperScan", "UpperUnreadableError", "read_upper"]

ROOT = b"."
# The slowest clock that Linux is built with ticks a hundred times a second. What changed in the tick of a scan may
# change once more in it, and have the same times.
_TICK_NS = 10_000_000
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Former:
    """What had an entry's name until something changed it: in the upper directory at the last scan, or below."""

    mode: int
    uid: int
    gid: int
    nlink: int
    """Names of the inode; what was copied up or made in the upper directory had one."""
    mtime_ns: int
    foreign: Xattrs
    """Attributes that are not of the `user.` name space, or are named as the overlay's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpperEntry:
    """One path that differs from the lower tree.

    `deleted`: the name is gone, with everything that was below it; the other fields are then empty.
    Else `mode` is the whole `st_mode`, type included, `xattrs` are those of the `user.` name space as the command set
    them, sorted, `foreign` those of any other name space, and `opaque` says that the directory shows nothing of what
    was below. A directory that is present only because something in it changed is reported too: compare it.
    `former` is looked up for what changed since the previous scan; None where the name was free.
    """

    path: bytes
    deleted: bool
    changed_since_previous: bool
    mode: int = 0
    size: int = 0
    uid: int = 0
    gid: int = 0
    nlink: int = 0
    ino: int = 0
    dev: int = 0
    mtime_ns: int = 0
    link_target: bytes = b""
    xattrs: Xattrs = ()
    foreign: Xattrs = ()
    opaque: bool = False
    former: Former | None = None


class Mark(NamedTuple):
    """What has to be equal for a node to be the same as at an earlier scan."""

    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int
    mode: int
    uid: int
    gid: int
    attributes: UpperAttributes

    def as_former(self) -> Former:
        """Return what an entry had been that was like this at the last scan."""
        return Former(
            mode=self.mode,
            uid=self.uid,
            gid=self.gid,
            nlink=1,
            mtime_ns=self.mtime_ns,
            foreign=self.attributes.foreign,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UpperIndex:
    """What one scan found, for the next one to compare with: each path's mark, None for a deletion.

    `taken_ns` is when the scan began, by the clock that file systems use.
    """

    marks: Mapping[bytes, Mark | None]
    taken_ns: int

    def knows(self, path: bytes, status: os.stat_result) -> Mark | None:
        """Return a path's mark where nothing of the node can have changed since, its attributes included."""
        mark = self.marks.get(path)
        if mark is None or mark.ctime_ns >= self.taken_ns - _TICK_NS:
            return None
        same = (
            status.st_ctime_ns == mark.ctime_ns
            and status.st_ino == mark.ino
            and status.st_size == mark.size
            and status.st_mtime_ns == mark.mtime_ns
            and status.st_mode == mark.mode
            and status.st_uid == mark.uid
            and status.st_gid == mark.gid
        )
        return mark if same else None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpperScan:
    """All entries of one scan, sorted by path, so that a directory comes before what it holds.

    What is as it was at the previous scan may be left out, only directories never are.
    A path that an earlier scan reported and that has vanished since is reported once, as deleted.
    """

    entries: tuple[UpperEntry, ...]
    index: UpperIndex


def read_upper(upper: Path, lower: Path, previous: UpperIndex | None) -> UpperScan:
    """Reads an overlay's upper directory while no command runs.

    Args:
        upper: The upper directory.
        lower: The tree below, which is only looked at where an entry changed, or an opaque directory replaced one of
            its directories.
        previous: The index of an earlier scan of the same upper directory.

    Raises:
        UpperUnreadableError: a mark of the overlay is unknown, or a path is longer than the system can name.
    """
    return _Reader(os.fsencode(upper), os.fsencode(lower), previous).scan()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Folder:
    """A directory still to be read.

    `lower`: a real directory, behind no link, is below it. `hides`: nothing of that shows through.
    """

    path: bytes
    lower: bool
    hides: bool


class _Reader:
    def __init__(self, upper: bytes, lower: bytes, previous: UpperIndex | None) -> None:
        self._upper = upper
        self._lower = lower
        self._previous = UpperIndex(marks={}, taken_ns=0) if previous is None else previous
        self._before = self._previous.marks
        self._taken_ns = time.time_ns()
        self._marks: dict[bytes, Mark | None] = {}
        self._entries: list[UpperEntry] = []

    def scan(self) -> UpperScan:
        self._read_root()
        # A stack instead of recursion: how deep the tree is was the command's choice.
        todo = [_Folder(path=b"", lower=True, hides=False)]
        while todo:
            todo += self._read_directory(todo.pop())
        self._add_vanished()
        self._entries.sort(key=lambda entry: entry.path)
        return UpperScan(entries=tuple(self._entries), index=UpperIndex(marks=self._marks, taken_ns=self._taken_ns))

    def _read_root(self) -> None:
        """The workspace's own directory is an entry only where a command changed its mode, attributes or time.

        The upper one is as old as the overlay: its time tells something only by comparison with an earlier scan.
        """
        status = os.lstat(self._upper)
        attributes = upper_attributes(ROOT, self._upper)
        mark = self._marks[ROOT] = _mark(status, attributes)
        before = self._before.get(ROOT)
        if before is None:
            plain = lower_attributes(self._lower).user
            changed = (mark.mode, attributes.user) != (os.lstat(self._lower).st_mode, plain)
        else:
            changed = (mark.mode, mark.mtime_ns, attributes) != (before.mode, before.mtime_ns, before.attributes)
        if changed:
            former = mark if before is None else before
            self._entries.append(_entry(ROOT, status, attributes, changed=True, former=former.as_former()))

    def _read_directory(self, folder: _Folder) -> list[_Folder]:
        """Reads one directory; returns the directories in it."""
        with self._opened(folder.path) as fd:
            names = list(map(os.fsencode, os.listdir(fd)))  # noqa: PTH208  # of a descriptor
            found = [found for name in names if (found := self._read_node(folder, name, fd))]
        if folder.hides and folder.lower:
            self._delete_others(folder.path, set(names))
        return found

    def _read_node(self, folder: _Folder, name: bytes, fd: int) -> _Folder | None:
        """Reads one name of a directory; returns it where it is one too."""
        path = _join(folder.path, name)
        status = _status(path, name, fd)
        known = self._previous.knows(path, status)
        if known is not None and not stat.S_ISDIR(status.st_mode):
            self._marks[path] = known
            return None
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            self._add_deletion(path)
            return None
        entry = self._add_node(path, status, known=known, shines=folder.lower and not folder.hides)
        if not stat.S_ISDIR(status.st_mode):
            return None
        lower = folder.lower and _is_directory(path, self._lower + b"/" + path)
        return _Folder(path=path, lower=lower, hides=folder.hides or entry.opaque)

    def _add_vanished(self) -> None:
        """What only the upper directory had, and has no more, leaves no whiteout; the earlier scan knows of it."""
        gone = {path for path, mark in self._marks.items() if mark is None}
        for path in sorted(self._before.keys() - self._marks.keys()):
            if self._before[path] is not None and not any(above in gone for above in _ancestors(path)):
                gone.add(path)
                self._entries.append(UpperEntry(path=path, deleted=True, changed_since_previous=True))

    @contextlib.contextmanager
    def _opened(self, folder: bytes) -> Iterator[int]:
        try:
            fd = os.open(self._upper + b"/" + folder, _FOLDER)
        except OSError as error:
            raise _unreadable(folder, error) from error
        try:
            yield fd
        finally:
            os.close(fd)

    def _delete_others(self, folder: bytes, names: set[bytes]) -> None:
        """In a directory that replaces one below, what was there and is not again is gone."""
        for name in os.listdir(self._lower + b"/" + folder):  # noqa: PTH208  # names are bytes
            if name not in names:
                self._add_deletion(_join(folder, name))

    def _add_deletion(self, path: bytes) -> None:
        self._marks[path] = None
        if path not in self._before or self._before[path] is not None:
            self._entries.append(UpperEntry(path=path, deleted=True, changed_since_previous=True))

    def _add_node(self, path: bytes, status: os.stat_result, *, known: Mark | None, shines: bool) -> UpperEntry:
        """Adds what is present. `shines`: what the lower tree had under this name was to be seen."""
        place = self._upper + b"/" + path
        try:
            attributes = _attributes(path, place, status) if known is None else known.attributes
            target = _target(place) if stat.S_ISLNK(status.st_mode) else b""
        except OSError as error:
            raise _unreadable(path, error) from error
        mark = self._marks[path] = _mark(status, attributes)
        before = self._before.get(path)
        changed = before != mark
        former = before and before.as_former()
        if changed and shines and path not in self._before:
            former = _below(path, self._lower + b"/" + path)
        entry = _entry(path, status, attributes, changed=changed, former=former, link_target=target)
        self._entries.append(entry)
        return entry


def _status(path: bytes, name: bytes, fd: int) -> os.stat_result:
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False)
    except OSError as error:
        raise _unreadable(path, error) from error


def _attributes(path: bytes, place: bytes, status: os.stat_result) -> UpperAttributes:
    return upper_attributes(path, place) if _may_have_xattrs(status.st_mode) else NO_ATTRIBUTES


def _mark(status: os.stat_result, attributes: UpperAttributes) -> Mark:
    return Mark(
        ino=status.st_ino,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
        mode=status.st_mode,
        uid=status.st_uid,
        gid=status.st_gid,
        attributes=attributes,
    )


def _entry(
    path: bytes,
    status: os.stat_result,
    attributes: UpperAttributes,
    *,
    changed: bool,
    former: Former | None,
    link_target: bytes = b"",
) -> UpperEntry:
    return UpperEntry(
        path=path,
        deleted=False,
        changed_since_previous=changed,
        mode=status.st_mode,
        size=status.st_size,
        uid=status.st_uid,
        gid=status.st_gid,
        nlink=status.st_nlink,
        ino=status.st_ino,
        dev=status.st_dev,
        mtime_ns=status.st_mtime_ns,
        link_target=link_target,
        xattrs=attributes.user,
        foreign=attributes.foreign,
        opaque=attributes.opaque,
        former=former,
    )


def _below(path: bytes, place: bytes) -> Former | None:
    try:
        status = os.lstat(place)
        attributes = lower_attributes(place) if _may_have_xattrs(status.st_mode) else NO_ATTRIBUTES
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:  # without it nobody could tell whether the change is a safe one
        raise _unreadable(path, error) from error
    return Former(
        mode=status.st_mode,
        uid=status.st_uid,
        gid=status.st_gid,
        nlink=status.st_nlink,
        mtime_ns=status.st_mtime_ns,
        foreign=attributes.foreign,
    )


def _may_have_xattrs(mode: int) -> bool:
    """Only files and directories may have attributes that a change set can carry."""
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def _target(place: bytes) -> bytes:
    return os.readlink(place)  # noqa: PTH115  # the target is bytes


def _is_directory(path: bytes, place: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(place).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:  # what it held would pass for new
        raise _unreadable(path, error) from error


def _ancestors(path: bytes) -> Iterator[bytes]:
    while b"/" in path:
        path = path.rpartition(b"/")[0]
        yield path


def _join(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name


def _unreadable(path: bytes, error: OSError) -> UpperUnreadableError:
    return UpperUnreadableError(path, f"can not be looked at: {error.strerror}")
