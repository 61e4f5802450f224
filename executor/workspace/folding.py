"""Names that are one and the same for a file system which does not tell case, or forms of a letter, apart.

Only some file systems fold names, and ext4 only in directories that are marked so. Elsewhere nothing is refused.
"""

import array
import ctypes
import fcntl
import functools
import os
import struct
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

from executor.domain.changes import Change, NodeType
from executor.domain.errors import Fault
from executor.domain.unsafe import unsafe
from executor.workspace.paths import ROOT, PathOutsideError, join, name_of, parent_of, shown
from executor.workspace.tree import Tree

_GET_FLAGS = 0x80086601  # FS_IOC_GETFLAGS
_CASEFOLD = 0x40000000  # FS_CASEFOLD_FL
_FOLDING_TYPES = frozenset(
    {
        0x4D44,  # FAT
        0x2011BAB0,  # exFAT
        0x5346544E,  # NTFS
        0x7366746E,  # NTFS, the newer driver
        0xFF534D42,  # CIFS
        0xFE534D42,  # SMB
        0x4244,  # HFS
        0x482B,  # HFS+
    }
)
_STATFS_BYTES = 256  # more than the structure has anywhere
# By device number: what is mounted there does not change under an open workspace.
_TYPE_FOLDS: dict[int, bool] = {}


def directory_folds(fd: int) -> bool:
    """Tell whether an open directory takes names that differ in case only for the same."""
    device = os.fstat(fd).st_dev
    if device not in _TYPE_FOLDS:
        _TYPE_FOLDS[device] = _type_folds(fd)
    if _TYPE_FOLDS[device]:
        return True
    flags = array.array("l", [0])
    try:
        fcntl.ioctl(fd, _GET_FLAGS, flags)
    except OSError:
        return False  # the file system has no such marks
    return bool(flags[0] & _CASEFOLD)


class Folding:
    """What folds in one workspace; a directory is asked once.

    Args:
        tree: the workspace as it is after the step that is looked at.
        folds: tells whether an open directory folds names.
    """

    def __init__(self, tree: Tree, folds: Callable[[int], bool] = directory_folds) -> None:
        self._tree = tree
        self._asks = folds
        self._known: dict[bytes, bool] = {}

    def folds(self, directory: bytes) -> bool:
        """Tell whether a directory folds names; one that is not there yet is as the one that will hold it."""
        known = self._known.get(directory)
        if known is None:
            known = self._known[directory] = self._found(directory)
        return known

    def collisions(self, changes: Iterable[Change]) -> Iterator[Fault]:
        """Yield the changed paths whose name is, for a folding directory, also that of another path."""
        changed: dict[bytes, set[bytes]] = defaultdict(set)
        for change in changes:
            for path in filter(None, (change.path, change.moved_from)):
                if path != ROOT:
                    changed[parent_of(path)].add(name_of(path))
        for directory, names in changed.items():
            if self.folds(directory):
                for name, other in _colliding(names, names.union(self._children(directory))):
                    remedy = "use one spelling of the name, or another name"
                    what = f"has for this file system the same name as {shown(join(directory, other))!r}"
                    yield unsafe(join(directory, name), what, remedy)

    def _found(self, directory: bytes) -> bool:
        if directory == ROOT:
            return self._asks(self._tree.base.fd)
        if not self._tree.made_here(directory):
            try:
                fd = self._tree.base.open_directory(directory)
            except (FileNotFoundError, NotADirectoryError, PathOutsideError):
                return self.folds(parent_of(directory))
            try:
                return self._asks(fd)
            finally:
                os.close(fd)
        return self.folds(parent_of(directory))

    def _children(self, directory: bytes) -> Iterable[bytes]:
        node = self._tree.node(directory)
        return self._tree.children(directory) if node is not None and node.type is NodeType.DIRECTORY else ()


def folded(name: bytes) -> str:
    """Return what all names have in common that a folding file system may take for one."""
    return unicodedata.normalize("NFC", name.decode("utf-8", "surrogateescape").casefold())


def _colliding(changed: set[bytes], names: set[bytes]) -> Iterator[tuple[bytes, bytes]]:
    by_form: dict[str, list[bytes]] = defaultdict(list)
    for name in sorted(names):
        by_form[folded(name)].append(name)
    for name in sorted(changed):
        others = [other for other in by_form[folded(name)] if other != name]
        if others:
            yield name, others[0]


def _type_folds(fd: int) -> bool:
    """Tell whether a directory's file system folds all names."""
    data = ctypes.create_string_buffer(_STATFS_BYTES)
    if _fstatfs()(fd, data) != 0:
        return False
    return struct.unpack_from("l", data)[0] & 0xFFFFFFFF in _FOLDING_TYPES


@functools.cache
def _fstatfs() -> Callable[..., int]:
    call = ctypes.CDLL(None)["fstatfs"]
    call.argtypes = (ctypes.c_int, ctypes.c_char_p)
    call.restype = ctypes.c_int
    return call
