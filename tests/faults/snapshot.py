"""What a directory tree is, to the last bit that a rollback promises to bring back."""

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

# The trees under test carry times of the year 2001; whatever is younger was given by the run itself.
ERA_NS = 1_577_836_800 * 10**9
FRESH = -1
# Smaller files lie in blocks of which too little can be said.
HOLES_FROM = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One path: everything but its inode number and its times of access and change."""

    mode: int
    uid: int
    gid: int
    links: int
    """Of a file; 0 for what has no hard links."""
    content: str
    """Digest of a file, target of a link."""
    xattrs: tuple[tuple[str, bytes], ...]
    mtime_ns: int
    """FRESH where the run under test set it."""
    data: tuple[tuple[int, int], ...]
    """The parts of a large file that are not holes."""


Snapshot = Mapping[bytes, Entry]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A whole tree, and which inode stands at each path."""

    entries: Snapshot
    inodes: Mapping[bytes, int]


def look(root: bytes) -> Tree:
    """Look at a tree, the root itself included."""
    entries: dict[bytes, Entry] = {}
    inodes: dict[bytes, int] = {}
    for path, place in _walk(root):
        status = os.lstat(place)
        entries[path] = _entry(place, status)
        inodes[path] = status.st_ino
    return Tree(entries=entries, inodes=inodes)


def differences(found: Snapshot, expected: Snapshot) -> tuple[str, ...]:
    """Say path by path how one tree differs from another."""
    told = []
    for path in sorted({*found, *expected}):
        one, other = found.get(path), expected.get(path)
        if one is None or other is None:
            told.append(f"{path!r} is {'missing' if one is None else 'too much'}")
        elif one != other:
            told += [f"{path!r} {name}" for name in _unequal(one, other)]
    return tuple(told)


def without_links(entries: Snapshot) -> Snapshot:
    """Return a tree without the number of its files' links."""
    return {path: replace(entry, links=0) for path, entry in entries.items()}


def _unequal(one: Entry, other: Entry) -> Iterator[str]:
    for name in Entry.__slots__:
        here, there = getattr(one, name), getattr(other, name)
        if here != there:
            yield f"{name}: {here!r} instead of {there!r}"


def _walk(root: bytes, path: bytes = b".") -> Iterator[tuple[bytes, bytes]]:
    place = os.path.join(root, path)  # noqa: PTH118 - bytes
    yield path, place
    if stat.S_ISDIR(os.lstat(place).st_mode):
        for name in sorted(os.listdir(place)):  # noqa: PTH208 - bytes
            yield from _walk(root, name if path == b"." else path + b"/" + name)


def _entry(place: bytes, status: os.stat_result) -> Entry:
    is_file = stat.S_ISREG(status.st_mode)
    content, data = _file(place) if is_file else ("", ())
    if stat.S_ISLNK(status.st_mode):
        content = repr(os.readlink(place))  # noqa: PTH115 - bytes
    names = [] if stat.S_ISLNK(status.st_mode) else sorted(os.listxattr(place))
    return Entry(
        mode=status.st_mode,
        uid=status.st_uid,
        gid=status.st_gid,
        links=status.st_nlink if is_file else 0,
        content=content,
        xattrs=tuple((name, os.getxattr(place, name)) for name in names),
        mtime_ns=status.st_mtime_ns if status.st_mtime_ns < ERA_NS else FRESH,
        data=data,
    )


def _file(place: bytes) -> tuple[str, tuple[tuple[int, int], ...]]:
    fd = os.open(place, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        size = os.fstat(fd).st_size
        ranges = tuple(_data(fd, size)) if size >= HOLES_FROM else ()
        hasher = hashlib.sha256(b"%d " % size)
        for start, end in ranges or ((0, size),):
            hasher.update(b"%d " % start + os.pread(fd, end - start, start))
        return hasher.hexdigest(), ranges
    finally:
        os.close(fd)


def _data(fd: int, size: int) -> Iterator[tuple[int, int]]:
    offset = 0
    while offset < size:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError:  # only a hole is left
            return
        offset = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        yield start, offset
