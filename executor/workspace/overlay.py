"""Reading what changed from an overlay's upper directory. The cost follows the changes, not the workspace.

The upper directory holds, in the kernel's own form, exactly what differs from the tree below (`lower`):

* a character device 0:0 is a whiteout: what had this name below is gone;
* a directory with `user.overlay.opaque` = `y` replaces what was below: nothing of that shows through, nor does
  anything below the directories that were then made in it, which carry no mark of their own;
* anything else is present as it stands, new or copied up.

A command can forge none of this. The attributes that it sets under `user.overlay.` are stored one level deeper, as
`user.overlay.overlay.`, and are read back here as what the command meant them to be; the overlay's own are never
reported. Whatever mark is not known here is an error, never a guess.

Names are bytes; paths are relative, joined by `/`; the workspace itself is `b"."`.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from executor.domain.errors import StepUnsafeError
from gonogo.safe_text import shown_path

ROOT = b"."
_OWN = "user.overlay."
_ESCAPED = "user.overlay.overlay."
_OPAQUE = "user.overlay.opaque"
# What the overlay notes for itself on an upper node; none of it is part of the tree.
_PRIVATE = frozenset({_OPAQUE, *(f"{_OWN}{name}" for name in ("origin", "impure", "nlink", "protattr", "uuid"))})

Xattrs = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpperEntry:
    """One path that differs from the lower tree.

    `deleted`: the name is gone, with everything that was below it; the other fields are then empty.
    Else `mode` is the whole `st_mode`, type included, `xattrs` are those of the `user.` name space as the command set
    them, sorted, and `opaque` says that the directory shows nothing of what was below. A directory that is present
    only because something in it changed is reported too: compare it.
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
    mtime_ns: int = 0
    link_target: bytes = b""
    xattrs: Xattrs = ()
    opaque: bool = False


# What has to be equal for a node to be the same as at an earlier scan; None is a deletion.
_Mark = tuple[int, int, int, int, int, int, int, Xattrs, bool] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpperIndex:
    """What one scan found, for the next one to compare with."""

    marks: Mapping[bytes, _Mark]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpperScan:
    """All entries of one scan, sorted by path, so that a directory comes before what it holds.

    A path that an earlier scan reported and that has vanished since is reported once, as deleted.
    """

    entries: tuple[UpperEntry, ...]
    index: UpperIndex


class UpperUnreadableError(StepUnsafeError):
    """The upper directory holds what this reader does not know or can not reach, so the changes are not known."""

    def __init__(self, path: bytes, why: str) -> None:
        super().__init__(
            "SIMULATION_UNSAFE",
            f"the changes can not be read: {shown_path(path)!r} {why}",
            "let the command leave plain files and directories, less deeply nested",
            paths=(path,),
        )


def read_upper(upper: Path, lower: Path, previous: UpperIndex | None) -> UpperScan:
    """Reads an overlay's upper directory while no command runs.

    Args:
        upper: The upper directory.
        lower: The tree below, which is only looked at where an opaque directory replaced one of its directories.
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
        self._before: Mapping[bytes, _Mark] = {} if previous is None else previous.marks
        self._marks: dict[bytes, _Mark] = {}
        self._entries: list[UpperEntry] = []

    def scan(self) -> UpperScan:
        self._read_root()
        # A stack instead of recursion: how deep the tree is was the command's choice.
        todo = [_Folder(path=b"", lower=True, hides=False)]
        while todo:
            todo += self._read_directory(todo.pop())
        self._add_vanished()
        self._entries.sort(key=lambda entry: entry.path)
        return UpperScan(entries=tuple(self._entries), index=UpperIndex(marks=self._marks))

    def _read_root(self) -> None:
        """The workspace's own directory is an entry only where a command changed its mode or attributes."""
        above, below = os.lstat(self._upper), os.lstat(self._lower)
        xattrs = self._xattrs(ROOT, self._upper)[0]
        plain = tuple(item for item in _user_xattrs(self._lower) if not item[0].startswith(_OWN))
        if above.st_mode != below.st_mode or xattrs != plain or ROOT in self._before:
            self._add_node(ROOT, self._upper, above)

    def _read_directory(self, folder: _Folder) -> list[_Folder]:
        """Reads one directory; returns the directories in it."""
        further = []
        names = self._names(folder.path)
        for name in names:
            path = _join(folder.path, name)
            place = self._upper + b"/" + path
            status = self._lstat(path, place)
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                self._add_deletion(path)
                continue
            entry = self._add_node(path, place, status)
            if stat.S_ISDIR(status.st_mode):
                lower = folder.lower and _is_directory(self._lower + b"/" + path)
                further.append(_Folder(path=path, lower=lower, hides=folder.hides or entry.opaque))
        if folder.hides and folder.lower:
            self._delete_others(folder.path, set(names))
        return further

    def _add_vanished(self) -> None:
        """What only the upper directory had, and has no more, leaves no whiteout; the earlier scan knows of it."""
        gone = {entry.path for entry in self._entries if entry.deleted}
        for path in sorted(self._before.keys() - self._marks.keys() - {ROOT}):
            if self._before[path] is not None and not any(above in gone for above in _ancestors(path)):
                gone.add(path)
                self._entries.append(UpperEntry(path=path, deleted=True, changed_since_previous=True))

    def _names(self, folder: bytes) -> list[bytes]:
        try:
            return os.listdir(self._upper + b"/" + folder)  # noqa: PTH208  # names are bytes
        except OSError as error:
            raise _unreadable(folder, error) from error

    def _lstat(self, path: bytes, place: bytes) -> os.stat_result:
        try:
            return os.lstat(place)
        except OSError as error:
            raise _unreadable(path, error) from error

    def _delete_others(self, folder: bytes, names: set[bytes]) -> None:
        """In a directory that replaces one below, what was there and is not again is gone."""
        for name in os.listdir(self._lower + b"/" + folder):  # noqa: PTH208  # names are bytes
            if name not in names:
                self._add_deletion(_join(folder, name))

    def _add_deletion(self, path: bytes) -> None:
        self._marks[path] = None
        changed = path not in self._before or self._before[path] is not None
        self._entries.append(UpperEntry(path=path, deleted=True, changed_since_previous=changed))

    def _add_node(self, path: bytes, place: bytes, status: os.stat_result) -> UpperEntry:
        xattrs, opaque = self._xattrs(path, place) if _may_have_xattrs(status.st_mode) else ((), False)
        mark = (
            *(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns),
            *(status.st_mode, status.st_uid, status.st_gid),
            *(xattrs, opaque),
        )
        self._marks[path] = mark
        entry = UpperEntry(
            path=path,
            deleted=False,
            changed_since_previous=self._before.get(path) != mark,
            mode=status.st_mode,
            size=status.st_size,
            uid=status.st_uid,
            gid=status.st_gid,
            nlink=status.st_nlink,
            ino=status.st_ino,
            mtime_ns=status.st_mtime_ns,
            link_target=_target(place) if stat.S_ISLNK(status.st_mode) else b"",
            xattrs=xattrs,
            opaque=opaque,
        )
        self._entries.append(entry)
        return entry

    def _xattrs(self, path: bytes, place: bytes) -> tuple[Xattrs, bool]:
        """The attributes as the command set them, and whether the directory is opaque."""
        found = []
        opaque = False
        for name, value in _user_xattrs(place):
            if name.startswith(_ESCAPED):
                found.append((_OWN + name.removeprefix(_ESCAPED), value))
            elif not name.startswith(_OWN):
                found.append((name, value))
            elif name not in _PRIVATE:
                raise UpperUnreadableError(path, f"carries the unknown overlay mark {name!r}")
            elif name == _OPAQUE:
                opaque = _is_opaque(path, value)
        return tuple(sorted(found)), opaque


def _is_opaque(path: bytes, value: bytes) -> bool:
    if value != b"y":
        raise UpperUnreadableError(path, "carries an overlay mark of an unknown kind")
    return True


def _may_have_xattrs(mode: int) -> bool:
    """Only files and directories may have attributes of the `user.` name space."""
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def _user_xattrs(place: bytes) -> Iterator[tuple[str, bytes]]:
    for name in sorted(os.listxattr(place, follow_symlinks=False)):
        if name.startswith("user."):
            yield name, os.getxattr(place, name, follow_symlinks=False)


def _target(place: bytes) -> bytes:
    return os.readlink(place)  # noqa: PTH115  # the target is bytes


def _is_directory(place: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(place).st_mode)
    except OSError:
        return False


def _ancestors(path: bytes) -> Iterator[bytes]:
    while b"/" in path:
        path = path.rpartition(b"/")[0]
        yield path


def _join(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name


def _unreadable(path: bytes, error: OSError) -> UpperUnreadableError:
    return UpperUnreadableError(path, f"can not be looked at: {error.strerror}")
