"""The staging directory: where new objects are made ready, and where the old ones wait until nobody needs them.

It is on the workspace's file system and outside the workspace, so that an object gets from one to the other by one
rename. A *slot* is one commit's part of it: the entries ``SLOT.0``, ``SLOT.1``, … and a record in the workspace's
journal, or in ``SLOT.json`` where the slot stays for a person to look at. Directory and journal are opened once for
the executor's life; a commit makes no file of its own beside what it brings into the workspace, and so removes none.
"""

import contextlib
import ctypes
import functools
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from executor.domain.changes import Node, NodeType
from executor.domain.errors import ExecutorError, StepUnsafeError
from executor.workspace.journal import Journal, write_aside
from executor.workspace.objects import Objects, data_ranges
from executor.workspace.paths import Directory, shown

_SLOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_OPEN = 128
_START_WRITING = 2  # SYNC_FILE_RANGE_WRITE
_ACCESS_LIST = "system.posix_acl_access"


class StagingUnavailableError(ExecutorError):
    """The staging directory can not serve the workspace; the operator must name another."""

    def __init__(self, message: str) -> None:
        remedy = "give --staging WORKSPACE=DIRECTORY: a directory on the workspace's file system and outside of it"
        super().__init__("WORKSPACE_UNKNOWN", message, remedy)


class Staging:
    """An open staging directory.

    Args:
        root: the workspace it serves.
        path: where it is; made where it is missing.

    Raises:
        StagingUnavailableError: it is inside the workspace, on another file system, or can not be made.
    """

    def __init__(self, root: Directory, path: Path) -> None:
        try:
            _check_place(root, path)
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.directory = Directory.open(path)
            self.journal = self._open_journal(root)
        except OSError as error:
            raise StagingUnavailableError(f"the staging directory {str(path)!r} can not be used: {error}") from error
        self.path = path

    @property
    def fd(self) -> int:
        return self.directory.fd

    def close(self) -> None:
        self.journal.close()
        self.directory.close()

    def _open_journal(self, root: Directory) -> Journal:
        """Open the journal, and put aside the records of slots that a process which died has left here.

        It has the workspace in its name: two workspaces may share a staging directory, and not a lock.
        """
        journal = Journal(self.fd, f"journal.{root.device:x}.{root.inode:x}")
        held = {name.rpartition(".")[0] for name in os.listdir(self.fd)}  # noqa: PTH208 - a descriptor, not a path
        for slot, record in journal.left_over():
            if slot in held:
                write_aside(self.fd, slot, record)
        return journal

    def slot(self, name: str) -> "Slot":
        """Return the slot of one commit; its name is the caller's and never used twice."""
        if not _SLOT.fullmatch(name):
            message = f"not a slot name: {name!r}"
            raise ValueError(message)
        return Slot(self, name)


class Slot:
    """One commit's part of the staging directory."""

    def __init__(self, staging: Staging, name: str) -> None:
        self.staging = staging
        self.name = name
        self._open: list[int] = []

    def entry(self, number: int) -> bytes:
        """Return an entry's name in the staging directory."""
        return f"{self.name}.{number}".encode()

    def where(self, number: int) -> str:
        """Return an entry's place for a person to find it."""
        return str(self.staging.path / f"{self.name}.{number}")

    def make(self, number: int, node: Node, objects: Objects, former: "Former | None") -> int:
        """Make an object ready and return its inode number. `sync` makes it durable.

        Args:
            number: of the entry.
            node: what to make.
            objects: where a file's bytes are.
            former: the object it will replace, or the directory it comes into, whose owner it takes over.
        """
        name, parent = self.entry(number), self.staging.fd
        if node.type is NodeType.SYMLINK:
            os.symlink(node.link_target, name, dir_fd=parent)
            if former is not None and os.geteuid() == 0:
                with contextlib.suppress(PermissionError):  # root without the capability; nobody's right depends on it
                    os.chown(name, former.uid, former.gid, dir_fd=parent, follow_symlinks=False)
            return os.stat(name, dir_fd=parent, follow_symlinks=False).st_ino
        fd = self._made(name, node)
        try:
            if node.type is NodeType.FILE:
                _fill(fd, node, objects)
            _dress(fd, node, former)
            inode = os.fstat(fd).st_ino
        except BaseException:
            os.close(fd)
            raise
        self._open.append(fd)
        if len(self._open) >= _MOST_OPEN:
            self._sync_objects()
        return inode

    def _made(self, name: bytes, node: Node) -> int:
        if node.type is NodeType.FILE:
            return os.open(name, _MAKE, 0o600, dir_fd=self.staging.fd)
        if node.type is not NodeType.DIRECTORY:
            raise _not_to_be_made()
        os.mkdir(name, 0o700, dir_fd=self.staging.fd)
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.staging.fd)

    def write_record(self, data: bytes) -> None:
        """Write the slot's record; durable with the next `sync`."""
        self.staging.journal.add(self.name, data)

    def sync(self) -> None:
        """Make everything made and written so far durable.

        The record's way to the disk begins before the files are waited for; its own wait is then short.
        """
        journal = self.staging.journal
        _start_writing()(journal.fd, 0, 0, _START_WRITING)
        self._sync_objects()
        journal.sync()

    def _sync_objects(self) -> None:
        """Make the objects durable.

        Writing back is started for all files before the first is waited for: that lets the file system put them
        into one journal transaction, which takes half the time of one file after the other.
        """
        try:
            if len(self._open) > 1:
                for fd in self._open:
                    _start_writing()(fd, 0, 0, _START_WRITING)
            for fd in self._open:
                os.fsync(fd)
        finally:
            self.close()

    def close(self) -> None:
        while self._open:
            os.close(self._open.pop())

    def remove(self, numbers: Iterable[int]) -> None:
        """Remove entries, with all beneath them, and let go of the record; what is not there is no error."""
        for number in numbers:
            self._remove_entry(self.entry(number).decode())
        self.staging.journal.release(self.name)

    def keep(self) -> None:
        """Leave the slot as it is for a person to look at, and free the journal from its record."""
        record = self.staging.journal.record(self.name)
        if record is not None:
            with contextlib.suppress(OSError):  # no room: then the journal keeps it
                write_aside(self.staging.fd, self.name, record)
                self.staging.journal.release(self.name)

    def _remove_entry(self, name: str) -> None:
        try:
            os.unlink(name, dir_fd=self.staging.fd)
        except FileNotFoundError:
            return
        except (IsADirectoryError, PermissionError):
            _open_directories(self.staging.fd, name)
            shutil.rmtree(name, dir_fd=self.staging.fd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Former:
    """What a new object takes over from the one that it replaces, or, at a free name, from its directory.

    `required`: without the owner the object may not be made. A directory's is only better than the executor's own.
    """

    path: bytes
    uid: int
    gid: int
    access_list: bytes = b""
    required: bool = True

    @classmethod
    def replaced(cls, root: Directory, path: bytes, status: os.stat_result) -> Self:
        access_list = _access_list(root, path) if stat.S_ISREG(status.st_mode) else b""
        return cls(path=path, uid=status.st_uid, gid=status.st_gid, access_list=access_list)

    @classmethod
    def directory(cls, path: bytes, status: os.stat_result) -> Self:
        return cls(path=path, uid=status.st_uid, gid=status.st_gid, required=False)


def _access_list(root: Directory, path: bytes) -> bytes:
    fd = root.open_file(path)
    try:
        return os.getxattr(fd, _ACCESS_LIST)
    except OSError:
        return b""  # it has none, or the file system knows none
    finally:
        os.close(fd)


def _fill(fd: int, node: Node, objects: Objects) -> None:
    """Write a file's bytes: in one go where they are small, else copied by the kernel, holes left out."""
    if node.size <= 1 << 20:
        _write(fd, objects.read(node.digest, 0, node.size))
        return
    source = objects.open(node.digest)
    try:
        for start, end in data_ranges(source, node.size):
            _copy_range(source, fd, start, end)
    finally:
        os.close(source)
    os.ftruncate(fd, node.size)


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        copied = os.copy_file_range(source, target, end - start, start, start)
        if copied == 0:
            message = "an object is shorter than its size says"
            raise OSError(message)
        start += copied


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _dress(fd: int, node: Node, former: Former | None) -> None:
    """Give an object its owner, access list, attributes and, last because the others change them, its bits."""
    if former is not None:
        _take_over(fd, former)
    for name, value in node.xattrs:
        os.setxattr(fd, name, value)
    os.fchmod(fd, node.mode)


def _take_over(fd: int, former: Former) -> None:
    status = os.fstat(fd)
    if (status.st_uid, status.st_gid) != (former.uid, former.gid):
        try:
            os.fchown(fd, former.uid, former.gid)
        except PermissionError:
            if not former.required:
                return
            message = f"{shown(former.path)!r} belongs to another owner or group, which the executor can not give"
            remedy = "run the executor as the owner of the workspace's files, or change their owner first"
            raise StepUnsafeError("UNSUPPORTED", message, remedy, paths=(former.path,)) from None
    if former.access_list:
        os.setxattr(fd, _ACCESS_LIST, former.access_list)


def _open_directories(parent: int, name: str) -> None:
    """Let the owner empty every directory of a subtree, whatever its bits."""
    for _, _, _, fd in os.fwalk(name, dir_fd=parent):
        os.fchmod(fd, stat.S_IRWXU)


def _check_place(root: Directory, path: Path) -> None:
    """Look at the nearest directory that exists, before one is made where it should not be."""
    resolved = path.resolve()
    existing = [place.stat() for place in (resolved, *resolved.parents) if place.exists()]
    if any((status.st_dev, status.st_ino) == (root.device, root.inode) for status in existing):
        raise StagingUnavailableError(f"{str(path)!r} is inside the workspace")
    if existing[0].st_dev != root.device:
        raise StagingUnavailableError(f"{str(path)!r} is on another file system than the workspace")


def _not_to_be_made() -> StepUnsafeError:
    return StepUnsafeError("UNSUPPORTED", "only files, directories and links can be made", "leave it out of the plan")


@functools.cache
def _start_writing() -> Callable[..., int]:
    call = ctypes.CDLL(None)["sync_file_range"]
    call.argtypes = (ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong, ctypes.c_uint)
    call.restype = ctypes.c_int
    return call
