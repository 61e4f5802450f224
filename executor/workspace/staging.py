"""The staging directory: where new objects are made ready, and where the old ones wait until nobody needs them.

It is on the workspace's file system and outside the workspace, so that an object gets from one to the other by one
rename. A *slot* is one commit's part of it: the entries ``SLOT.0``, ``SLOT.1``, … and a record in the workspace's
journal, or in ``SLOT.json`` where the slot stays for a person to look at. Directory and journal are opened once for
the executor's life; a commit makes no file of its own beside what it brings into the workspace, and so removes none.
"""

import contextlib
import ctypes
import errno
import fcntl
import functools
import os
import re
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from executor.domain.changes import Node, NodeType
from executor.domain.errors import ExecutorError, StepUnsafeError, StoreError
from executor.workspace.journal import Journal, Note, Standing, write_aside
from executor.workspace.objects import SMALL_BYTES, Objects, data_ranges, has_holes
from executor.workspace.paths import BLOCK, Directory, digest_fd, read_up_to, shown
from executor.workspace.removal import remove_tree
from gonogo.digests import digest as digest_of

_SLOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_MAKE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
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

    def take_journal(self) -> None:
        """Hold the workspace's journal against other executors, whose slots it would not know."""
        try:
            fcntl.flock(self.journal.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"another executor commits to this workspace from the staging directory {str(self.path)!r}"
            raise StagingUnavailableError(message) from None

    def _open_journal(self, root: Directory) -> Journal:
        """Open the journal, and take over or put aside what a former version of this program has left here.

        It has the workspace in its name: two workspaces may share a staging directory, and not a lock. Both are on one
        file system, so that the inode tells them apart; the device's number may be another after a restart.
        """
        journal = Journal(self.fd, f"journal.{root.inode:x}")
        for name in self._former_journals(root):
            self._take_over(name, journal)
        former = [slot for slot in journal.slots() if _is_former(journal.record(slot))]
        held = self._held() if former else {}
        for slot in former:
            record = journal.record(slot)
            if slot in held and record is not None:
                write_aside(self.fd, slot, record)
            journal.note(Note.RELEASED, slot)
        return journal

    def _former_journals(self, root: Directory) -> list[str]:
        """Return the names of the workspace's journals that have a device in their name, the oldest first."""
        name = re.compile(rf"journal\.[0-9a-f]+\.{root.inode:x}")
        found = [one for one in os.listdir(self.fd) if name.fullmatch(one)]  # noqa: PTH208 - a descriptor, not a path
        return sorted(found, key=lambda one: os.stat(one, dir_fd=self.fd).st_mtime_ns)

    def _take_over(self, name: str, journal: Journal) -> None:
        """Write what a journal of another name holds into the workspace's own, durably, and remove it."""
        former = Journal(self.fd, name)
        try:
            fcntl.flock(former.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for slot in former.slots():
                if slot not in journal.slots():
                    journal.copy(former, slot)
            journal.sync()
        finally:
            former.close()
        os.unlink(name, dir_fd=self.fd)

    def sweep(self) -> None:
        """Remove the entries of slots that nobody needs: of commits that were not begun, or are done with.

        Only slots of this workspace's journal are looked at; others may share the directory.
        """
        going = [slot for slot in self.journal.slots() if self.journal.standing(slot).entries_go]
        held = self._held() if going else {}
        for slot in going:
            if self.slot(slot).remove(held.get(slot, ())):
                self.journal.forget(slot)

    def _held(self) -> dict[str, list[int]]:
        """Return the entries that are here, by slot."""
        held: dict[str, list[int]] = {}
        for name in os.listdir(self.fd):  # noqa: PTH208 - a descriptor, not a path
            slot, _, number = name.rpartition(".")
            if number.isdecimal():
                held.setdefault(slot, []).append(int(number))
        return held

    def slot(self, name: str) -> "Slot":
        """Return the slot of one commit; its name is the caller's and never used twice."""
        if not _SLOT.fullmatch(name):
            message = f"not a slot name: {name!r}"
            raise ValueError(message)
        return Slot(self, name)

    def new_slot(self, name: str) -> "Slot":
        """Return the slot of a commit that is about to be made."""
        if name in self.journal.slots():
            message = f"a slot is used once: {name!r}"
            raise ValueError(message)
        return self.slot(name)


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

    def begin(self) -> None:
        """Write down that entries are about to be made, so that they are found if nothing else ever is."""
        self.staging.journal.note(Note.STAGED, self.name)

    def make(
        self, number: int, node: Node, objects: Objects, former: "Former | None", mtime_ns: int | None = None
    ) -> int:
        """Make an object ready and return its inode number. `sync` makes it durable.

        Args:
            number: of the entry.
            node: what to make.
            objects: where a file's bytes are.
            former: the object it will replace, or the directory it comes into, whose owner it takes over.
            mtime_ns: its modification time; None leaves it at this moment.
        """
        if node.type is NodeType.SYMLINK:
            return self._make_link(self.entry(number), node, former, mtime_ns)
        fd = self._made(self.entry(number), node)
        try:
            if node.type is NodeType.FILE:
                _fill(fd, node, objects)
            _dress(fd, node, former)
            if mtime_ns is not None:
                os.utime(fd, ns=(mtime_ns, mtime_ns))
            inode = os.fstat(fd).st_ino
        except BaseException:
            os.close(fd)
            raise
        self._open.append(fd)
        if len(self._open) >= _MOST_OPEN:
            self._sync_objects()
        return inode

    def _make_link(self, name: bytes, node: Node, former: "Former | None", mtime_ns: int | None) -> int:
        parent = self.staging.fd
        os.symlink(node.link_target, name, dir_fd=parent)
        if former is not None and os.geteuid() == 0:
            with contextlib.suppress(PermissionError):  # root without the capability; nobody's right depends on it
                os.chown(name, former.uid, former.gid, dir_fd=parent, follow_symlinks=False)
        if mtime_ns is not None:
            os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=parent, follow_symlinks=False)
        return os.stat(name, dir_fd=parent, follow_symlinks=False).st_ino

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

    @property
    def standing(self) -> Standing:
        """What the journal holds of it."""
        return self.staging.journal.standing(self.name)

    @property
    def is_live(self) -> bool:
        """Whether the journal holds its record."""
        return self.standing.place is not None

    def note(self, note: Note, **facts: object) -> None:
        """Write down what becomes of it, while it is live."""
        if self.is_live:
            self.staging.journal.note(note, self.name, **facts)

    def drop(self, numbers: Iterable[int]) -> bool:
        """Remove entries, with all beneath them, and let go of the record; what is not there is no error.

        What can not be removed now is removed at the next start, as long as the journal knows of the slot.

        Returns:
            Whether nothing is left.
        """
        journal = self.staging.journal
        if self.name in journal.slots():
            journal.note(Note.DROPPED, self.name)
        removed = self.remove(numbers)
        if removed:
            journal.forget(self.name)
        return removed

    def keep(self) -> None:
        """Leave the slot as it is for a person to look at, and free the journal from its record."""
        record = self.staging.journal.record(self.name)
        if record is not None:
            with contextlib.suppress(OSError):  # no room: then the journal keeps it
                write_aside(self.staging.fd, self.name, record)
                self.note(Note.RELEASED)

    def remove(self, numbers: Iterable[int]) -> bool:
        """Remove entries; returns whether none of them is left."""
        removed = True
        for number in numbers:
            try:
                remove_tree(self.staging.directory, self.entry(number))
            except (OSError, ExecutorError):
                removed = False
        return removed


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


def _is_former(record: bytes | None) -> bool:
    return record is not None and record.startswith(b'{"version":1,')


def _access_list(root: Directory, path: bytes) -> bytes:
    fd = root.open_file(path)
    try:
        return os.getxattr(fd, _ACCESS_LIST)
    except OSError:
        return b""  # it has none, or the file system knows none
    finally:
        os.close(fd)


def _fill(fd: int, node: Node, objects: Objects) -> None:
    """Write a file's bytes: in one go where they are small, else copied by the kernel, holes left out.

    Raises:
        StoreError: they are not the bytes that the digest stands for. Nothing else ever comes into a workspace.
    """
    held = objects.held(node.digest) if node.size <= SMALL_BYTES else None
    if held is not None:
        _check_content(digest_of(held), node)
        _write(fd, held)
        return
    source = objects.open(node.digest)
    try:
        if node.size <= 1 << 20 and not has_holes(source, node.size):
            data = read_up_to(source, 0, node.size)
            _check_content(digest_of(data), node)
            _write(fd, data)
            return
        for start, end in data_ranges(source, node.size):
            _copy_range(source, fd, start, end)
    finally:
        os.close(source)
    os.ftruncate(fd, node.size)
    _check_content(digest_fd(fd, node.size), node)


def _check_content(found: str, node: Node) -> None:
    if found != node.digest:
        raise StoreError("INTERNAL", "a stored object is damaged", "make the dry run again, and check the disk")


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        copied = _copied(source, target, start, end)
        if copied == 0:
            message = "an object is shorter than its size says"
            raise OSError(message)
        start += copied


def _copied(source: int, target: int, start: int, end: int) -> int:
    """Copy some of a range; the kernel does it only within one file system, and the objects may be on another."""
    try:
        return os.copy_file_range(source, target, end - start, start, start)
    except OSError as error:
        if error.errno not in {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}:
            raise
    return os.pwrite(target, os.pread(source, min(BLOCK, end - start), start), start)


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
