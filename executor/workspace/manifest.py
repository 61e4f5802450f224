"""What a whole tree looks like from outside: the fingerprint of everything that a command could read.

Only names and `lstat` results, no content: any write to a file moves its change time, which no program can set back.
So an equal manifest means an untouched tree, and a differing one means that the tree must be taken as changed. Of a
directory only type, mode and identity count, because its times also move when a volatile name comes or goes in it.
"""

import os
import stat
import zlib
from collections.abc import Iterator, Mapping
from typing import Self

from executor.domain.errors import StepBlockedError, StoreError
from executor.workspace.globs import Globs
from executor.workspace.paths import ROOT, Directory, join, shown
from gonogo.digests import digest as digest_of

MAX_PATHS = 5_000_000

_HEADER = b"gonogo manifest 1\n"
_FIELD = 4


class Manifest:
    """The paths of a tree and what `lstat` says of each.

    Args:
        records: path to record; opaque bytes that are equal exactly when nothing changed.
        hard_linked: regular files with more than one name.
        hidden: paths that were left out since no command is shown them; not part of what is kept.
    """

    def __init__(
        self, records: Mapping[bytes, bytes], hard_linked: frozenset[bytes], hidden: frozenset[bytes] = frozenset()
    ) -> None:
        self.records = records
        self.hard_linked = hard_linked
        self.hidden = hidden
        self._plain = _HEADER + b"".join(_packed(records))
        self.digest = digest_of(self._plain)

    def __len__(self) -> int:
        return len(self.records)

    def encode(self) -> bytes:
        """Return it compressed, to be kept as an object."""
        return zlib.compress(self._plain, level=1)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read what `encode` wrote.

        Raises:
            StoreError: it is no manifest.
        """
        try:
            plain = zlib.decompress(data)
        except zlib.error:
            raise _damaged() from None
        if not plain.startswith(_HEADER):
            raise _damaged()
        fields = list(_unpacked(plain, len(_HEADER)))
        records = dict(zip(fields[::2], fields[1::2], strict=True))
        return cls(records, frozenset(path for path, record in records.items() if _is_hard_linked(record)))

    def differences(self, other: "Manifest") -> tuple[bytes, ...]:
        """Return the paths that are in one of the two only, or not the same in both, sorted."""
        if self.digest == other.digest:
            return ()
        mine, theirs = self.records, other.records
        return tuple(sorted(path for path in mine.keys() | theirs.keys() if mine.get(path) != theirs.get(path)))


def manifest(root: Directory, *, volatile: Globs, hidden: Globs) -> Manifest:
    """Return the manifest of a workspace, without what commands never see.

    Args:
        root: the workspace.
        volatile: paths that change by themselves; left out, with all beneath them.
        hidden: paths that no command is shown; left out, with all beneath them.

    Raises:
        StepBlockedError: another file system is mounted inside, or there are too many paths.
    """
    records: dict[bytes, bytes] = {}
    hard_linked: set[bytes] = set()
    left_out: set[bytes] = set()
    waiting = [ROOT]
    while waiting:
        directory = waiting.pop()
        for path, record, beneath, linked in _listed(root, directory, volatile, hidden, left_out):
            records[path] = record
            if beneath:
                waiting.append(path)
            if linked:
                hard_linked.add(path)
        if len(records) > MAX_PATHS:
            remedy = "narrow the workspace, or mark generated directories as volatile"
            raise StepBlockedError("TOO_LARGE", f"the workspace holds more than {MAX_PATHS} paths", remedy)
    return Manifest(dict(sorted(records.items())), frozenset(hard_linked), frozenset(left_out))


def _listed(
    root: Directory, directory: bytes, volatile: Globs, hidden: Globs, left_out: set[bytes]
) -> Iterator[tuple[bytes, bytes, bool, bool]]:
    """Yield each name of one directory: its path, its record, whether it is a directory, whether it has other names."""
    filtered = bool(volatile) or bool(hidden)
    try:
        fd = root.open_directory(directory)
    except (FileNotFoundError, NotADirectoryError):
        return  # gone since it was listed; the next manifest says the same
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                path = join(directory, os.fsencode(entry.name))
                if filtered and hidden.matches(path):
                    left_out.add(path)
                    continue
                if filtered and volatile.matches(path):
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                    target = os.readlink(entry.name, dir_fd=fd) if stat.S_ISLNK(status.st_mode) else ""
                except FileNotFoundError:
                    continue
                if status.st_dev != root.device:
                    raise _mounted(path)
                is_directory = stat.S_ISDIR(status.st_mode)
                record = _directory_record(status) if is_directory else _record(status, os.fsencode(target))
                yield path, record, is_directory, status.st_nlink > 1 and stat.S_ISREG(status.st_mode)
    finally:
        os.close(fd)


def _record(status: os.stat_result, target: bytes) -> bytes:
    return b"%o %d %d %d %d %d %d %d %b" % (
        status.st_mode,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_uid,
        status.st_gid,
        status.st_nlink,
        target,
    )


def _directory_record(status: os.stat_result) -> bytes:
    return b"%o %d %d %d" % (status.st_mode, status.st_ino, status.st_uid, status.st_gid)


def _is_hard_linked(record: bytes) -> bool:
    fields = record.split(b" ", 8)
    return len(fields) > 8 and stat.S_ISREG(int(fields[0], 8)) and int(fields[7]) > 1  # noqa: PLR2004 - see _record


def _packed(records: Mapping[bytes, bytes]) -> Iterator[bytes]:
    for path, record in records.items():
        yield len(path).to_bytes(_FIELD, "big")
        yield path
        yield len(record).to_bytes(_FIELD, "big")
        yield record


def _unpacked(plain: bytes, position: int) -> Iterator[bytes]:
    count = 0
    while position < len(plain):
        begin = position + _FIELD
        position = begin + int.from_bytes(plain[position:begin], "big")
        count += 1
        yield plain[begin:position]
    if position != len(plain) or count % 2:
        raise _damaged()


def _mounted(path: bytes) -> StepBlockedError:
    message = f"another file system is mounted at {shown(path)!r}"
    remedy = "unmount it, or make it a workspace of its own"
    return StepBlockedError("PATH_OUTSIDE_WORKSPACE", message, remedy, paths=(path,))


def _damaged() -> StoreError:
    return StoreError("INTERNAL", "a stored manifest is damaged", "make the dry run again")
