"""What each commit is about to do, written down before its first rename, and what became of it.

The journal is one file in the staging directory, opened once, laid out in advance and overwritten in place: so a record
is made durable without a change to the file system's own books, for a third of what a new file costs. The commits of a
workspace come one after the other. While a slot is live its record stays where it is and what follows comes after it;
once no slot is, the next begins again at the start of the file, with a new generation.

A record or a note is a line that frames it and a line of JSON, so that a person can read it too:

    gonogo-journal GENERATION LENGTH DIGEST
    {"version":2,"slot":"x-01-1",…}
    gonogo-journal GENERATION LENGTH DIGEST
    {"note":"made","slots":["x-01-1"],…}

They count from the start of the file to the first that is not whole, by its length and its digest over all the rest,
or is of another generation than the first: that one was torn, or is left over from before.

A record is made durable before the first rename. Notes are not waited for: a process that dies takes nothing with it
that it had written, and after a power failure a missing note is made good by a look at the inodes. What keeps that
right is the order in the file: a note that could not be written is owed, and goes out before anything else does; and
a record is durable only together with all that stands before it.
"""

import contextlib
import enum
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gonogo.digests import LENGTH as DIGEST_LENGTH
from gonogo.digests import framed_digest

LAID_OUT = 64 * 1024
_KEPT = 1024 * 1024
_FRAME = re.compile(rb"gonogo-journal ([0-9]{20}) ([0-9]{10}) (sha256:[0-9a-f]{64})\n")
_TEXT = json.JSONEncoder(separators=(",", ":")).encode
_FRAME_LENGTH = len("gonogo-journal ") + 20 + 1 + 10 + 1 + DIGEST_LENGTH + 1


class Note(enum.Enum):
    """What became of a slot."""

    STAGED = "staged"
    """Its entries are about to be made."""
    MADE = "made"
    """Its commit is made in full and durable."""
    UNDOING = "undoing"
    """Its commit is about to be unmade."""
    UNDONE = "undone"
    """Its commit is unmade in full and durable."""
    DROPPED = "dropped"
    """Its entries are nothing worth; they are about to be removed."""
    RELEASED = "released"
    """Nobody needs its record any more; what entries it has stay."""


@dataclass(slots=True, kw_only=True)
class Standing:
    """What the journal holds of one slot."""

    place: tuple[int, int] | None = None
    """Where its record is, and how long."""
    notes: dict[Note, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def entries_go(self) -> bool:
        """Whether its entries are only in the way: nothing of its commit was begun, or nobody needs them any more."""
        return self.place is None or Note.DROPPED in self.notes


class Journal:
    """The records of the commits of one workspace; its lock is the caller's.

    Args:
        directory: descriptor of the staging directory.
        name: of the file, made where it is missing.
    """

    def __init__(self, directory: int, name: str) -> None:
        self.fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
        self._slots: dict[str, Standing] = {}
        self._end = 0
        self._generation = b"%020d" % 0
        self._owed = b""
        try:
            self._read()
            self._size = self._lay_out()
        except BaseException:
            os.close(self.fd)
            raise

    def close(self) -> None:
        os.close(self.fd)

    def add(self, slot: str, body: bytes) -> None:
        """Write a slot's record; durable with the next `sync`."""
        self._begin()
        frame = _frame(self._generation, body)
        start = self._end + len(self._owed) + len(frame)
        self._write(self._owed + frame + body + b"\n")
        self._owed = b""
        self._slots.setdefault(slot, Standing()).place = (start, len(body))

    def note(self, note: Note, *slots: str, **facts: object) -> None:
        """Write what becomes of some slots. It is not waited for, and where it can not be written it is owed."""
        self._begin()
        body = _TEXT({"note": note.value, "slots": slots, **facts}).encode()
        self._owed += _frame(self._generation, body) + body + b"\n"
        with contextlib.suppress(OSError):
            self._write(self._owed)
            self._owed = b""
        self._take_note(note, slots, facts)

    def copy(self, other: "Journal", slot: str) -> None:
        """Write what another journal holds of a slot; durable with the next `sync`."""
        record = other.record(slot)
        if record is not None:
            self.add(slot, record)
        for note, facts in other.standing(slot).notes.items():
            self.note(note, slot, **facts)

    def forget(self, slot: str) -> None:
        """Let go of a slot whose entries are removed: to look for them once more at the next start does no harm."""
        self._slots.pop(slot, None)

    def sync(self) -> None:
        """Make every record durable."""
        os.fdatasync(self.fd)

    def slots(self) -> tuple[str, ...]:
        """Return the slots that are not released, oldest first."""
        return tuple(self._slots)

    def standing(self, slot: str) -> Standing:
        """Return what there is of a slot; of one that is not live, nothing."""
        return self._slots.get(slot) or Standing()

    def record(self, slot: str) -> bytes | None:
        """Return a live slot's record."""
        place = self.standing(slot).place
        return None if place is None else os.pread(self.fd, place[1], place[0])

    def _take_note(self, note: Note, slots: Iterable[str], facts: Mapping[str, Any]) -> None:
        for slot in slots:
            if note is Note.RELEASED:
                self._slots.pop(slot, None)
            else:
                self._slots.setdefault(slot, Standing()).notes[note] = facts

    def _begin(self) -> None:
        """Begin the file again when nothing in it is needed any more."""
        if self._slots:
            return
        if self._size > _KEPT:
            with contextlib.suppress(OSError):  # then it stays as long as it is
                os.ftruncate(self.fd, LAID_OUT)
                self._size = LAID_OUT
        self._end = 0
        self._owed = b""
        self._generation = b"%020d" % max(time.time_ns(), int(self._generation) + 1)

    def _write(self, data: bytes) -> None:
        """Write on; room is laid out a good deal at a time, since a file that grows makes each sync wait longer."""
        end = self._end + len(data)
        spare = b""
        if end > self._size:
            spare = bytes(-end % LAID_OUT + LAID_OUT)
        _write_at(self.fd, data + spare, self._end)
        self._size = max(self._size, end + len(spare))
        self._end = end

    def _read(self) -> None:
        """Take over what a former process has left."""
        generation = b""
        for its_generation, start, body in self._frames():
            if generation not in {b"", its_generation}:
                break
            generation = self._generation = its_generation
            self._end = start + len(body) + 1
            value = json.loads(body)
            if "note" in value:
                facts = {name: fact for name, fact in value.items() if name not in {"note", "slots"}}
                self._take_note(Note(value["note"]), value["slots"], facts)
            else:
                self._slots.setdefault(value["slot"], Standing()).place = (start, len(body))

    def _frames(self) -> Iterator[tuple[bytes, int, bytes]]:
        """Yield the generation, place and body of every whole frame from the start on."""
        offset, size = 0, os.fstat(self.fd).st_size
        while frame := _FRAME.fullmatch(os.pread(self.fd, _FRAME_LENGTH, offset)):
            generation, length, digest = frame.groups()
            start = offset + _FRAME_LENGTH
            if start + int(length) > size:
                return
            body = os.pread(self.fd, int(length), start)
            if framed_digest((generation, body)).encode() != digest:
                return
            yield generation, start, body
            offset = start + len(body) + 1

    def _lay_out(self) -> int:
        size = os.fstat(self.fd).st_size
        if size < LAID_OUT:
            _write_at(self.fd, bytes(LAID_OUT - size), size)
            os.fsync(self.fd)
        return max(size, LAID_OUT)


def write_aside(directory: int, slot: str, record: bytes) -> None:
    """Put the record of a slot that stays for a person to look at into a file of its own, durably.

    One that is there already is of an earlier try, which a full disk or a crash may have cut short: it is made again.
    The journal lets go of the record next, so the file's name must last as long as its bytes.
    """
    fd = os.open(aside(slot), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        _write_at(fd, record, 0)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.fsync(directory)


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
