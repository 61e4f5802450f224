"""Content by its digest.

A dry run puts what its steps made into a `Batch`. Small content stays in memory, and goes into the ledger in the very
transaction that issues the report: no file and no sync of its own. Large content is streamed into a file that gets
its name only once it is durable (`Batch.sync`), so a file under a digest's name always holds that digest's bytes.

The modification time of such a file tells when somebody last stored or relied on it. Whoever collects what no report
needs any more leaves alone what is young: a dry run that relies on an object which is there already has no report yet.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from executor.domain.errors import NotFoundError, StepFailedError, StoreError
from executor.domain.redaction import NO_SECRETS, Redactor
from executor.workspace.paths import BLOCK, read_up_to
from gonogo.digests import PREFIX, is_digest
from gonogo.digests import digest as digest_of

SMALL_BYTES = 32 * 1024

_ZEROS = bytes(BLOCK)
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class Objects(Protocol):
    """Content to be read by digest; what is not here is `NotFoundError`."""

    def has(self, digest: str) -> bool:
        """Tell whether the content is here."""

    def size(self, digest: str) -> int:
        """Return the content's length in bytes."""

    def open(self, digest: str) -> int:
        """Return a descriptor at the content's beginning, the caller's to close. It is never written to."""

    def read(self, digest: str, offset: int, limit: int) -> bytes:
        """Return at most `limit` bytes from an offset on."""

    def held(self, digest: str) -> bytes | None:
        """Return content that is here as bytes; None for a file, which may have holes, and for what is not here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectUse:
    """When an object was last named by a report that was issued."""

    digest: str
    last_used: datetime


class ObjectStore:
    """The executor's durable objects: small ones where `small_lookup` finds them, the others as files."""

    def __init__(self, directory: Path, small_lookup: Callable[[str], bytes | None]) -> None:
        self._directory = directory
        self._small_lookup = small_lookup
        self._unfinished = directory / "unfinished"
        self._unfinished.mkdir(parents=True, exist_ok=True)
        self._aging = threading.Lock()

    def batch(self, redactor: Redactor = NO_SECRETS) -> "Batch":
        """Return a new batch on top of what is stored; it keeps nothing that holds one of the redactor's secrets."""
        return Batch(self, self._unfinished, redactor)

    def clean(self) -> None:
        """Remove what a process that died left unfinished; only while no batch is in use."""
        for path in self._unfinished.iterdir():
            path.unlink()

    def has(self, digest: str) -> bool:
        return self.path(digest).exists() or self._small_lookup(digest) is not None

    def size(self, digest: str) -> int:
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return len(self._small(digest))

    def open(self, digest: str) -> int:
        try:
            return os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return _memory_fd(self._small(digest))

    def read(self, digest: str, offset: int, limit: int) -> bytes:
        return _read(self, digest, offset, limit)

    def held(self, digest: str) -> bytes | None:
        return None if self.path(digest).exists() else self._small_lookup(digest)

    def renew(self, digest: str) -> bool:
        """Make a large object young again, and tell whether it is here at all."""
        with self._aging:
            try:
                os.utime(self.path(digest))
            except FileNotFoundError:
                return False
            return True

    def remove(self, digest: str, *, unused_since: float) -> bool:
        """Remove a large object that nobody stored or relied on since a moment, in seconds since 1970.

        Returns:
            Whether it is gone now; it may have been before.
        """
        path = self.path(digest)
        with self._aging:
            try:
                if path.stat().st_mtime > unused_since:
                    return False
                path.unlink()
            except FileNotFoundError:
                pass
            return True

    def large(self) -> Iterator[str]:
        """Yield the digest of every large object; what else somebody put there is none."""
        for folder in sorted(self._directory.iterdir()):
            if folder != self._unfinished and folder.is_dir():
                yield from filter(is_digest, (PREFIX + folder.name + path.name for path in folder.iterdir()))

    def path(self, digest: str) -> Path:
        """Return where the file of a large object is or would be."""
        if not is_digest(digest):
            raise _missing(digest)
        name = digest[len(PREFIX) :]
        return self._directory / name[:2] / name[2:]

    def _small(self, digest: str) -> bytes:
        data = self._small_lookup(digest)
        if data is None:
            raise _missing(digest)
        return data


class Batch:
    """The new objects of one dry run, readable at once together with everything stored before.

    `small` is for the ledger's transaction; `sync` must be called before it, `drop` when the dry run came to nothing.
    Content that holds a secret is not kept anywhere: `exposed` names the secret by the content's digest.
    """

    def __init__(self, store: ObjectStore, unfinished: Path, redactor: Redactor = NO_SECRETS) -> None:
        self.small: dict[str, bytes] = {}
        self.exposed: dict[str, str] = {}
        self._redactor = redactor
        self._large: dict[str, Path] = {}
        self._relied: set[str] = set()
        self._store = store
        self._unfinished = unfinished

    def put_bytes(self, data: bytes) -> str:
        """Keep some bytes and return their digest."""
        digest = digest_of(data)
        secret = self._redactor.find(data) if self._redactor else None
        if secret is not None:
            self.exposed[digest] = secret
        elif len(data) <= SMALL_BYTES:
            self.small[digest] = data
        elif not self._rely(digest):
            with _full_disk_is_store_error(), self._new_file() as (path, fd):
                _write_all(fd, data)
                self._large[digest] = path
        return digest

    def put_fd(self, fd: int, *, limit: int) -> tuple[str, int]:
        """Keep a regular file's bytes, streamed, holes kept; return their digest and length.

        Raises:
            StepFailedError: there are more than `limit` bytes.
        """
        size = os.fstat(fd).st_size
        if size > limit:
            raise _over(limit)
        if size <= SMALL_BYTES and not has_holes(fd, size):
            data = read_up_to(fd, 0, limit + 1)
            if len(data) > limit:
                raise _over(limit)
            return self.put_bytes(data), len(data)
        secret = self._redactor.find_in(data_blocks(fd, size)) if self._redactor else None
        if secret is not None:  # looked for first, so that no part of it reaches the disk
            digest = _hashed(fd, size)
            self.exposed[digest] = secret
            return digest, size
        with _full_disk_is_store_error(), self._new_file() as (path, target):
            digest = _copy_hashed(fd, target, size)
            if self._rely(digest) and not (has_holes(target, size) and self._is_fuller(digest, target, size)):
                path.unlink()
            else:
                self._put_large(digest, path)
        return digest, size

    def _rely(self, digest: str) -> bool:
        """Tell whether a large object is here already; if so it stays, as long as the batch is of use."""
        if digest in self._large:
            return True
        if not self._store.renew(digest):
            return False
        self._relied.add(digest)
        return True

    def _is_fuller(self, digest: str, fd: int, size: int) -> bool:
        """Tell whether the object that is here has fewer holes than the same content in another file."""
        known = self.open(digest)
        try:
            return _data_bytes(known, size) > _data_bytes(fd, size)
        finally:
            os.close(known)

    def _put_large(self, digest: str, path: Path) -> None:
        former = self._large.get(digest)
        if former is not None:
            former.unlink()
        self._large[digest] = path

    def has(self, digest: str) -> bool:
        return digest in self.small or digest in self._large or self._store.has(digest)

    def size(self, digest: str) -> int:
        if digest in self.small:
            return len(self.small[digest])
        path = self._large.get(digest)
        return path.stat().st_size if path else self._store.size(digest)

    def open(self, digest: str) -> int:
        path = self._large.get(digest)  # the one with holes comes first
        if path is None and digest in self.small:
            return _memory_fd(self.small[digest])
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC) if path else self._store.open(digest)

    def read(self, digest: str, offset: int, limit: int) -> bytes:
        data = self.small.get(digest)
        return _read(self, digest, offset, limit) if data is None else data[offset : offset + limit]

    def held(self, digest: str) -> bytes | None:
        if digest in self._large:
            return None
        return self.small[digest] if digest in self.small else self._store.held(digest)

    def sync(self) -> None:
        """Make the large objects durable, and only then give them their names.

        Raises:
            StoreError: the disk is full, or an object that the batch relies on is gone.
        """
        for digest in self._relied:
            if not self._store.renew(digest):
                raise StoreError("INTERNAL", "an object went while the dry run relied on it", "make the dry run again")
        if not self._large:
            return
        with _full_disk_is_store_error():
            for path in self._large.values():
                _fsync(path)
            parents = {self._named(digest, path) for digest, path in self._large.items()}
            for directory in sorted({*parents, *(parent.parent for parent in parents)}):
                _fsync(directory)
        self._large.clear()

    def sync_as_files(self) -> None:
        """As `sync`, where no ledger takes the small ones: they become files, too.

        Raises:
            StoreError: the disk is full, or an object that the batch relies on is gone.
        """
        for digest, data in self.small.items():
            if not self._rely(digest):
                with _full_disk_is_store_error(), self._new_file() as (path, fd):
                    _write_all(fd, data)
                    self._large[digest] = path
        self.small.clear()
        self.sync()

    def drop(self) -> None:
        """Throw away everything that has not been synced."""
        for path in self._large.values():
            path.unlink(missing_ok=True)
        self._large.clear()
        self._relied.clear()
        self.small.clear()

    def _named(self, digest: str, path: Path) -> Path:
        target = self._store.path(digest)
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
        return target.parent

    @contextlib.contextmanager
    def _new_file(self) -> Iterator[tuple[Path, int]]:
        path = self._unfinished / secrets.token_hex(16)
        fd = os.open(path, _CREATE, 0o600)
        try:
            yield path, fd
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)


def _read(objects: Objects, digest: str, offset: int, limit: int) -> bytes:
    fd = objects.open(digest)
    try:
        return read_up_to(fd, offset, limit)
    finally:
        os.close(fd)


def data_ranges(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield the (start, end) of a file's parts that are not holes; all of it where holes can not be told."""
    offset = 0
    while offset < size:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
            end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            start, end = offset, size
        if start >= size:
            return
        yield start, end
        offset = end


def data_blocks(fd: int, size: int) -> Iterator[bytes]:
    """Yield a file's bytes, holes left out."""
    for start, end in data_ranges(fd, size):
        for offset in range(start, end, BLOCK):
            yield os.pread(fd, min(BLOCK, end - offset), offset)


def has_holes(fd: int, size: int) -> bool:
    """Tell whether a file has parts that nobody ever wrote; where holes can not be told it has none."""
    try:
        return os.lseek(fd, 0, os.SEEK_HOLE) < size
    except OSError:
        return False


def _data_bytes(fd: int, size: int) -> int:
    return sum(end - start for start, end in data_ranges(fd, size))


def _copy_hashed(source: int, target: int, size: int) -> str:
    """Copy a file's data and leave its holes; the digest is over the logical bytes, holes as zeros."""
    hasher = hashlib.sha256()
    position = 0
    for start, end in data_ranges(source, size):
        _hash_zeros(hasher.update, start - position)
        position = start
        while position < end:
            block = os.pread(source, min(BLOCK, end - position), position)
            if not block:
                raise _shrunk()
            hasher.update(block)
            _write_at(target, block, position)
            position += len(block)
    _hash_zeros(hasher.update, size - position)
    os.ftruncate(target, size)
    if os.fstat(source).st_size != size:
        raise _shrunk()
    return PREFIX + hasher.hexdigest()


def _hashed(fd: int, size: int) -> str:
    """Return the digest that `_copy_hashed` would, without a copy."""
    hasher = hashlib.sha256()
    for offset in range(0, size, BLOCK):
        hasher.update(os.pread(fd, min(BLOCK, size - offset), offset))
    return PREFIX + hasher.hexdigest()


def _hash_zeros(update: Callable[[bytes], None], count: int) -> None:
    while count > 0:
        update(_ZEROS[:count] if count < BLOCK else _ZEROS)
        count -= BLOCK


def _write_at(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


def _write_all(fd: int, data: bytes) -> None:
    _write_at(fd, data, 0)


def _memory_fd(data: bytes) -> int:
    fd = os.memfd_create("object", os.MFD_CLOEXEC)
    _write_all(fd, data)
    return fd


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _full_disk_is_store_error() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            message = "the executor's object store is full"
            raise StoreError("STORE_FULL", message, "free space on the file system of the state directory") from error
        raise


def _missing(digest: str) -> NotFoundError:
    return NotFoundError("NOT_FOUND", f"no object {digest[:80]!r} here", "ask for a digest that a report names")


def _over(limit: int) -> StepFailedError:
    return StepFailedError("TOO_LARGE", f"content over the limit of {limit} bytes", "make the change smaller")


def _shrunk() -> StepFailedError:
    return StepFailedError("CONFLICT", "a file changed while it was copied", "try again when nothing else writes there")
