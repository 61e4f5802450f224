"""What each commit is about to do, written down before its first rename.

The journal is one file in the staging directory, opened once, laid out in advance and overwritten in place: so a record
is made durable without a change to the file system's own books, for a third of what a new file costs. The commits of a
workspace come one after the other. While a slot is live its record stays where it is and further ones follow it; once
no slot is, the next record begins again at the start of the file, with a new generation.

A record is a line that frames it and a line of JSON, so that a person can read it too:

    gonogo-journal GENERATION LENGTH DIGEST
    {"version":1,"slot":"x-01-1",…}

Records count from the start of the file to the first that is not whole, by its length and its digest over all the
rest, or is of another generation than the first: that one was torn, or is left over from before.
"""

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator

from gonogo.digests import LENGTH as DIGEST_LENGTH
from gonogo.digests import framed_digest

LAID_OUT = 64 * 1024
_KEPT = 1024 * 1024
_FRAME = re.compile(rb"gonogo-journal ([0-9]{20}) ([0-9]{10}) (sha256:[0-9a-f]{64})\n")
_FRAME_LENGTH = len("gonogo-journal ") + 20 + 1 + 10 + 1 + DIGEST_LENGTH + 1


class Journal:
    """The records of the commits of one workspace; its lock is the caller's.

    Args:
        directory: descriptor of the staging directory.
        name: of the file, made where it is missing.
    """

    def __init__(self, directory: int, name: str) -> None:
        self.fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
        self._live: dict[str, tuple[int, int]] = {}
        self._end = 0
        self._generation = b""
        try:
            self._lay_out()
        except BaseException:
            os.close(self.fd)
            raise

    def close(self) -> None:
        os.close(self.fd)

    def add(self, slot: str, body: bytes) -> None:
        """Write a slot's record; durable with the next `sync`."""
        if not self._live:
            self._begin_again()
        frame = _frame(self._generation, body)
        _write_at(self.fd, frame + body + b"\n", self._end)
        start = self._end + len(frame)
        self._live[slot] = (start, len(body))
        self._end = start + len(body) + 1

    def sync(self) -> None:
        """Make every record durable."""
        os.fdatasync(self.fd)

    def record(self, slot: str) -> bytes | None:
        """Return a live slot's record."""
        place = self._live.get(slot)
        return None if place is None else os.pread(self.fd, place[1], place[0])

    def release(self, slot: str) -> None:
        """Let go of a slot's record: nobody needs it any more."""
        self._live.pop(slot, None)

    def left_over(self) -> Iterator[tuple[str, bytes]]:
        """Yield the slots and records that the file holds; at its opening, those of the process before."""
        generation, offset = b"", 0
        while found := self._whole(offset):
            its_generation, body = found
            if generation not in {b"", its_generation}:
                return
            generation = its_generation
            yield str(json.loads(body)["slot"]), body
            offset += _FRAME_LENGTH + len(body) + 1

    def _whole(self, offset: int) -> tuple[bytes, bytes] | None:
        frame = _FRAME.fullmatch(os.pread(self.fd, _FRAME_LENGTH, offset))
        if frame is None:
            return None
        generation, length, digest = frame.groups()
        if int(length) > os.fstat(self.fd).st_size:
            return None
        body = os.pread(self.fd, int(length), offset + _FRAME_LENGTH)
        return (generation, body) if framed_digest((generation, body)).encode() == digest else None

    def _begin_again(self) -> None:
        if self._end > _KEPT:
            os.ftruncate(self.fd, LAID_OUT)
        self._end = 0
        self._generation = b"%020d" % time.time_ns()

    def _lay_out(self) -> None:
        size = os.fstat(self.fd).st_size
        if size < LAID_OUT:
            _write_at(self.fd, bytes(LAID_OUT - size), size)
            os.fsync(self.fd)


def write_aside(directory: int, slot: str, record: bytes) -> None:
    """Put the record of a slot that stays for a person to look at into a file of its own, durably."""
    with contextlib.suppress(FileExistsError):
        fd = os.open(aside(slot), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
        try:
            _write_at(fd, record, 0)
            os.fsync(fd)
        finally:
            os.close(fd)


def aside(slot: str) -> str:
    """Return the name of that file."""
    return f"{slot}.json"


def _frame(generation: bytes, body: bytes) -> bytes:
    return b"gonogo-journal %b %010d %b\n" % (generation, len(body), framed_digest((generation, body)).encode())


def _write_at(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
