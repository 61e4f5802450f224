"""What a whole tree looks like from outside: the fingerprint of everything that a command could read.

Only names and `lstat` results, no content: any write to a file moves its change time, which no program can set back.
So an equal manifest means an untouched tree, and a differing one means that the tree must be taken as changed. Of a
directory only type, mode and identity count, because its times also move when a volatile name comes or goes in it.

A manifest is kept as the packed stream of its records, in the order in which the walk came by them. Two of an
untouched tree are the same bytes. Only where they are not, the records are compared: another order is no difference.
"""

import contextlib
import hashlib
import os
import re
import zlib
from collections.abc import Container, Generator, Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import Self

from executor.domain.errors import StepBlockedError, StoreError
from executor.workspace import walk
from executor.workspace.find import FindWalk, WalkBrokenError, find_program
from executor.workspace.globs import Globs
from executor.workspace.paths import Directory, ancestors, shown
from executor.workspace.walk import BLOCK, END, MIDDLE, LeftOut, Passed, path_of, split
from gonogo.digests import PREFIX

MAX_PATHS = 5_000_000

_HEADER = b"gonogo manifest 2\n"
_DIGEST_BYTES = 32
_COUNT_BYTES = 8
_PACKED_BLOCK = 1 << 16
_BODY = len(_HEADER) + _DIGEST_BYTES + _COUNT_BYTES
# How mountinfo writes what stands between its fields.
_TO_ESCAPE = re.compile(rb"[ \t\n\\]")
_ESCAPED = re.compile(rb"\\([0-7]{3})")
_OWNER = re.compile(rb"\0/\d+ (\d+) (\d+) ")


class Manifest:
    """The paths of a tree and what `lstat` says of each.

    Args:
        stored: its packed form.
        hidden: paths that were left out since no command is shown them; not part of what is kept.
        volatile: paths that were left out since they change by themselves, without what is beneath; not kept either.
        owners: the (user, group) pairs that something in the tree belongs to; not part of what is kept.
    """

    def __init__(
        self,
        stored: bytes,
        *,
        hidden: frozenset[bytes] = frozenset(),
        volatile: frozenset[bytes] = frozenset(),
        owners: frozenset[tuple[int, int]] = frozenset(),
    ) -> None:
        self.hidden = hidden
        self.volatile = volatile
        self.owners = owners
        self.digest = PREFIX + stored[len(_HEADER) : len(_HEADER) + _DIGEST_BYTES].hex()
        self._stored = stored

    def __len__(self) -> int:
        return int.from_bytes(self._stored[_BODY - _COUNT_BYTES : _BODY], "big")

    def encode(self) -> bytes:
        """Return its packed form, to be kept as an object."""
        return self._stored

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read what `encode` returned; its records are read when they are needed.

        Raises:
            StoreError: it is no manifest.
        """
        if not data.startswith(_HEADER) or len(data) <= _BODY:
            raise _damaged()
        return cls(data)

    def owned_by_others(self, users: Container[int], groups: Container[int]) -> Iterator[bytes]:
        """Yield the paths whose user or group is none of these; reads the records only where there are such."""
        if all(user in users and group in groups for user, group in self.owners):
            return
        for path, facts in self._facts():
            _, user, group, _ = facts.split(b" ", 3)
            if int(user) not in users or int(group) not in groups:
                yield path

    def differences(self, other: "Manifest") -> tuple[bytes, ...]:
        """Return the paths that are in one of the two only, or not the same in both, sorted.

        Both come in much the same order. So of each no more is in memory than what the other did not have so far.

        Raises:
            StoreError: a stored one is damaged.
        """
        if self.digest == other.digest:
            return ()
        mine: set[bytes] = set()
        theirs: set[bytes] = set()
        for one, two in zip_longest(self.blocks(), other.blocks(), fillvalue=b""):
            if one == two:
                continue
            mine.update(split(one))
            theirs.update(split(two))
            both = mine & theirs
            mine -= both
            theirs -= both
        return tuple(sorted({path_of(record) for record in mine | theirs}))

    def _facts(self) -> Iterator[tuple[bytes, bytes]]:
        for block in self.blocks():
            for record in split(block):
                path, _, facts = record.partition(b"\0")
                yield path, facts

    def blocks(self) -> Iterator[bytes]:
        """Yield its records, whole ones, about a MiB at a time.

        Raises:
            StoreError: it is damaged.
        """
        unpacker = zlib.decompressobj()
        stored = memoryview(self._stored)
        data = b""
        try:
            for start in range(_BODY, len(stored), _PACKED_BLOCK):
                data += unpacker.decompress(stored[start : start + _PACKED_BLOCK])
                while len(data) >= BLOCK:  # cut by the records' own bytes alone, so that equal ones stay equal
                    end = data.rindex(END, 0, BLOCK) + len(END)
                    yield data[:end]
                    data = data[end:]
        except (zlib.error, ValueError):
            raise _damaged() from None
        if not unpacker.eof or not data.endswith(END if data else b""):
            raise _damaged()
        yield data


class ManifestWalk:
    """The making of a manifest, at work from the moment this is made until `finish`.

    Args:
        root: the workspace.
        volatile: paths that change by themselves; left out, with all beneath them.
        hidden: paths that no command is shown; left out, with all beneath them.
    """

    def __init__(self, root: Directory, *, volatile: Globs, hidden: Globs) -> None:
        self._root = root
        self._left_out = LeftOut(volatile=volatile, hidden=hidden)
        self._find: FindWalk | None = None
        program = find_program()
        if program is not None:
            with contextlib.suppress(OSError):  # no process to be had, or more globs than its arguments may hold
                self._find = FindWalk(program, root, self._left_out)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it, also in the middle of its work."""
        if self._find is not None:
            self._find.close()

    def finish(self) -> Manifest:
        """Wait for the end of the walk and return the manifest; at most once.

        Raises:
            StepBlockedError: another file system is mounted inside, or there are too many paths.
            StepFailedError: something in the tree may not be looked at.
        """
        self._refuse_mounts()
        if self._find is not None:
            with contextlib.suppress(WalkBrokenError):
                passed = Passed()
                return self._packed(self._find.blocks(passed), passed)
        passed = Passed()  # the other walk can say what is wrong
        return self._packed(walk.walk(self._root, self._left_out, passed), passed)

    def _packed(self, blocks: Generator[bytes, None, None], passed: Passed) -> Manifest:
        with contextlib.closing(blocks):
            return _packed(blocks, self._root, passed)

    def _refuse_mounts(self) -> None:
        """Refuse what is mounted inside, also from the same file system, where no device number tells.

        An overlay shows what is below a mount: commands would see another tree than everybody else.
        """
        root = os.fsencode(Path(f"/proc/self/fd/{self._root.fd}").readlink()).rstrip(b"/") + b"/"
        escaped = _TO_ESCAPE.sub(lambda found: b"\\%03o" % ord(found[0]), root)
        beneath = rb"(?m)^\d+ \d+ \S+ \S+ %b(\S+) " % re.escape(escaped)
        for found in re.finditer(beneath, Path("/proc/self/mountinfo").read_bytes()):
            path = _ESCAPED.sub(lambda octal: bytes([int(octal[1], 8)]), found[1])
            if not self._passes_by(path):
                raise _mounted(path)

    def _passes_by(self, path: bytes) -> bool:
        return self._left_out.volatile.covers(path) or self._left_out.hidden.covers(path)


def manifest(root: Directory, *, volatile: Globs, hidden: Globs) -> Manifest:
    """Return the manifest of a workspace, without what commands never see; see `ManifestWalk`."""
    with ManifestWalk(root, volatile=volatile, hidden=hidden) as making:
        return making.finish()


def _packed(blocks: Iterable[bytes], root: Directory, passed: Passed) -> Manifest:
    status = os.fstat(root.fd)
    facts = _Facts(status)
    hasher, packer = hashlib.sha256(), zlib.compressobj(level=1)
    stored = bytearray(_BODY)
    for block in blocks:
        facts.add(block)
        hasher.update(block)
        stored += packer.compress(block)
    stored += packer.flush()
    stored[:_BODY] = _HEADER + hasher.digest() + facts.count.to_bytes(_COUNT_BYTES, "big")
    return Manifest(
        bytes(stored),
        hidden=_topmost(passed.hidden),
        volatile=_topmost(passed.volatile),
        owners=frozenset(facts.owners),
    )


class _Facts:
    """What is looked at while the records pass by: their number, their device, their owners."""

    def __init__(self, root: os.stat_result) -> None:
        self.count = 0
        self.owners = {(root.st_uid, root.st_gid)}
        self._on_device = MIDDLE + b"%d " % root.st_dev
        self._all_the_same = self._on_device + b"%d %d " % (root.st_uid, root.st_gid)

    def add(self, block: bytes) -> None:
        count = block.count(END)
        self.count += count
        if self.count > MAX_PATHS:
            remedy = "narrow the workspace, or mark generated directories as volatile"
            raise StepBlockedError("TOO_LARGE", f"the workspace holds more than {MAX_PATHS} paths", remedy)
        if block.count(self._all_the_same) == count:
            return
        if block.count(self._on_device) != count:
            raise _mounted(path_of(next(record for record in split(block) if self._on_device not in record)))
        self.owners.update((int(user), int(group)) for user, group in set(_OWNER.findall(block)))


def _topmost(paths: set[bytes]) -> frozenset[bytes]:
    return frozenset(path for path in paths if paths.isdisjoint(ancestors(path)))


def _mounted(path: bytes) -> StepBlockedError:
    message = f"another file system is mounted at {shown(path)!r}"
    remedy = "unmount it, or make it a workspace of its own"
    return StepBlockedError("PATH_OUTSIDE_WORKSPACE", message, remedy, paths=(path,))


def _damaged() -> StoreError:
    return StoreError("INTERNAL", "a stored manifest is damaged", "make the dry run again")
