"""Writing what typed steps changed into the copy that commands see, before the next command runs.

A change set is written as a whole, in an order in which each of its changes can be made: files that move are set aside,
what goes is removed (children before parents), what comes is made (parents before children), and bits and times are set
last. A moved file is renamed, so that its bytes need not be at hand.
"""

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator, Sequence

from executor.domain.changes import Change, ChangeKind, Node, NodeType
from executor.domain.errors import StepFailedError
from executor.workspace.globs import Globs
from executor.workspace.objects import Batch
from executor.workspace.paths import ROOT, Directory, join, name_of, parent_of
from executor.workspace.tree import Tree


class WriteThrough:
    """Writes change sets into the tree that commands see.

    Args:
        merged: that tree.
        tree: the same tree in memory; it knows where the bytes of what it moved are.
        batch: the contents that typed steps made.
        volatile: paths that commands do not see; changes of them are not written.
    """

    def __init__(self, merged: Directory, tree: Tree, batch: Batch, volatile: Globs) -> None:
        self._merged = merged
        self._tree = tree
        self._batch = batch
        self._volatile = volatile
        self._aside: dict[bytes, bytes] = {}
        self._owners: dict[bytes, os.stat_result | None] = {}
        self._kept_times: dict[bytes, int] = {}
        """Of directories that move as they are: they are made anew here, where the commit renames them."""

    def write(self, changes: Sequence[Change]) -> None:
        """Write one step's changes."""
        self._owners.clear()
        self._kept_times.clear()
        seen = [change for change in changes if not self._volatile.covers(change.path)]
        self._set_aside(seen)
        for path in sorted(filter(None, map(_leaves, changes)), reverse=True):
            if not self._volatile.covers(path):
                self._remove(path)
        for change in seen:
            if change.new is not None and change.kind is not ChangeKind.METADATA:
                self._come(change, change.new)
        for change in reversed(seen):  # what a directory holds before its own bits and time
            if change.new is not None:
                self._finish(change, change.new)

    def _set_aside(self, changes: Sequence[Change]) -> None:
        """Rename the files that move to names without meaning in the workspace's own directory, and its time back."""
        before = os.fstat(self._merged.fd)
        changed = {parent_of(change.path) for change in changes if not _moves_along(change)}
        for change in changes:
            if not change.moved_from or self._volatile.covers(change.moved_from):
                continue
            if _is_directory(change.new):
                former = self._owners[change.path] = self._merged.lstat(change.moved_from)
                if former is not None and change.path not in changed:
                    self._kept_times[change.path] = former.st_mtime_ns
                continue
            aside = self._aside[change.path] = secrets.token_hex(16).encode()
            with names_in(self._merged, change.moved_from) as (parent, name):
                os.rename(name, aside, src_dir_fd=parent, dst_dir_fd=self._merged.fd)
        if self._aside:
            os.utime(self._merged.fd, ns=(before.st_atime_ns, before.st_mtime_ns))

    def _remove(self, path: bytes) -> None:
        with contextlib.suppress(FileNotFoundError), names_in(self._merged, path) as (parent, name):
            info = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode):
                os.rmdir(name, dir_fd=parent)
            else:
                os.unlink(name, dir_fd=parent)

    def _come(self, change: Change, node: Node) -> None:
        with names_in(self._merged, change.path) as (parent, name):
            aside = self._aside.pop(change.path, None)
            if aside is not None:
                os.rename(aside, name, src_dir_fd=self._merged.fd, dst_dir_fd=parent)
                return
            match node.type:
                case NodeType.DIRECTORY:
                    os.mkdir(name, stat.S_IRWXU, dir_fd=parent)
                    _give_to(parent, name, self._owners.get(change.path))
                case NodeType.SYMLINK:
                    os.symlink(node.link_target, name, dir_fd=parent)
                    _give_to(parent, name, None)
                case NodeType.FILE:
                    self._put_file(parent, name, change.path, node)
                case NodeType.OTHER:
                    raise StepFailedError(
                        "SIMULATION_UNSAFE", "can not be copied", "leave it out", paths=(change.path,)
                    )

    def _put_file(self, parent: int, name: bytes, path: bytes, node: Node) -> None:
        known = self._batch.has(node.digest)
        source = self._batch.open(node.digest) if known else self._tree.open_content(path)
        try:
            target = _open_for_writing(parent, name)
            try:
                _copy(source, target, node.size)
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _finish(self, change: Change, node: Node) -> None:
        """Set attributes, bits and, last, the time: whatever of it differs."""
        fd = self._merged.fd if change.path == ROOT else self._merged.open_look(change.path)
        try:
            place = f"/proc/self/fd/{fd}"
            if node.type is not NodeType.SYMLINK:
                if _xattrs(place) != dict(node.xattrs):
                    os.chmod(place, node.mode | stat.S_IRWXU)  # noqa: PTH101 - as below; its bits may be in the way
                    _set_xattrs(place, node)
                if stat.S_IMODE(os.fstat(fd).st_mode) != node.mode:
                    os.chmod(place, node.mode)  # noqa: PTH101 - a descriptor's own name
        finally:
            if fd != self._merged.fd:
                os.close(fd)
        mtime_ns = self._kept_times.get(change.path) if change.mtime_ns is None else change.mtime_ns
        if mtime_ns is not None:
            self._set_time(change.path, mtime_ns)

    def _set_time(self, path: bytes, mtime_ns: int) -> None:
        if path == ROOT:
            os.utime(self._merged.fd, ns=(mtime_ns, mtime_ns))
            return
        parent, name = self._merged.open_parent(path)
        try:
            os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(parent)


@contextlib.contextmanager
def names_in(directory: Directory, path: bytes) -> Iterator[tuple[int, bytes]]:
    """Open the directory in which a name changes; one that its owner may not write is opened for the moment."""
    parent, name = directory.open_parent(path)
    try:
        mode = stat.S_IMODE(os.fstat(parent).st_mode)
        closed = os.geteuid() != 0 and mode & stat.S_IRWXU != stat.S_IRWXU
        if closed:
            os.fchmod(parent, mode | stat.S_IRWXU)
        try:
            yield parent, name
        finally:
            if closed:
                os.fchmod(parent, mode)
    finally:
        os.close(parent)


def remove_tree(directory: Directory, path: bytes) -> None:
    """Remove a path with all that is beneath it; what is not there is no error.

    In an overlay each name that goes costs an inode until its directory is gone too: so one directory after the other
    is emptied and removed, the deepest first.
    """
    status = directory.lstat(path)
    if status is None:
        return
    if stat.S_ISDIR(status.st_mode):
        folders = [path]
        for folder in folders:  # grows while it is read
            folders += (join(folder, name) for name in _directories(directory, folder))
        for folder in reversed(folders):
            _remove_folder(directory, folder)
        return
    with names_in(directory, path) as (parent, name):
        os.unlink(name, dir_fd=parent)


def _directories(directory: Directory, folder: bytes) -> list[bytes]:
    fd = directory.open_directory(folder)
    try:
        with os.scandir(fd) as entries:
            return [os.fsencode(entry.name) for entry in entries if entry.is_dir(follow_symlinks=False)]
    finally:
        os.close(fd)


def _remove_folder(directory: Directory, folder: bytes) -> None:
    """Remove a directory that holds no other."""
    fd = directory.open_directory(folder)
    try:
        for file in os.listdir(fd):  # noqa: PTH208  # of a descriptor
            os.unlink(file, dir_fd=fd)
    finally:
        os.close(fd)
    with names_in(directory, folder) as (parent, name):
        os.rmdir(name, dir_fd=parent)


def _leaves(change: Change) -> bytes:
    """Return the path whose old object has to go before anything comes; empty where none has to."""
    if change.moved_from:
        return change.moved_from
    link = change.kind is ChangeKind.MODIFY and change.new is not None and change.new.type is NodeType.SYMLINK
    return change.path if link or change.kind in {ChangeKind.DELETE, ChangeKind.TYPE_CHANGE} else b""


def _moves_along(change: Change) -> bool:
    """Tell whether what moves keeps its own name, as what is in a directory that moves does."""
    return bool(change.moved_from) and name_of(change.moved_from) == name_of(change.path)


def _is_directory(node: Node | None) -> bool:
    return node is not None and node.type is NodeType.DIRECTORY


def _open_for_writing(parent: int, name: bytes) -> int:
    flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags | os.O_TRUNC, dir_fd=parent)
    except FileNotFoundError:
        pass
    except PermissionError:  # its bits are in the way, not its owner's right: it is replaced, as the commit does it
        os.unlink(name, dir_fd=parent)
    target = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=parent)
    _give_to(parent, name, None)
    return target


def _give_to(parent: int, name: bytes, owner: os.stat_result | None) -> None:
    """Let what root made belong to whom it will after the commit: its directory's owner, or the moved one's."""
    if os.geteuid() != 0:
        return
    owner = os.fstat(parent) if owner is None else owner
    if (owner.st_uid, owner.st_gid) != (0, 0):
        with contextlib.suppress(PermissionError):  # root without the capability; the commit does without it, too
            os.chown(name, owner.st_uid, owner.st_gid, dir_fd=parent, follow_symlinks=False)


def _set_xattrs(place: str, node: Node) -> None:
    former, wanted = _xattrs(place), dict(node.xattrs)
    for name in former.keys() - wanted.keys():
        os.removexattr(place, name)
    for name, value in wanted.items():
        if former.get(name) != value:
            os.setxattr(place, name, value)


def _xattrs(place: str) -> dict[str, bytes]:
    return {name: os.getxattr(place, name) for name in os.listxattr(place) if name.startswith("user.")}


def _copy(source: int, target: int, size: int) -> None:
    done = 0
    while done < size:
        done += os.sendfile(target, source, done, size - done)
