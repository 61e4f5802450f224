"""The anchor: a small file outside of the ledger's backup set that remembers how far the ledger has come.

Order of writes. A claim is committed to the ledger first, then the anchor is moved, then the first effect happens:

    ledger commit ──▶ anchor durable ──▶ journal of the first commit to the workspace ──▶ renames

- The process dies before the ledger's commit: nothing was claimed, nothing was done.
- It dies between commit and anchor: the ledger is ahead of its anchor by claims that had no effect. That is no reason
  for an epoch. Should somebody restore an older ledger at exactly this moment, the anchor can not tell; the mission is
  executed then, and it is the first time that anything of it happens.
- It dies after the anchor: a ledger from before the claim is behind its anchor, a new epoch begins, and the report that
  was executed is unknown. There is no moment in which a mission has had an effect and the anchor does not know.

The other order, anchor first, would make every death in between look like a restored ledger.

The wait costs a mission next to nothing: a thread writes the anchor while the execution stages its files, and only the
moment before the journal waits for it (`settle`). States of several claims that come together are one write. The file
has two slots which are overwritten in turn and in place, which no file system has to note in its own journal; a slot
that was torn does not match its checksum, and the other one, a state older, counts.

Claims are not all that the anchor learns: within a second it knows the audit log's newest size and root, and at once
the newest trust file.

What names the ledger's file is its inode and, where the file system tells, the inode's generation: a restored or copied
file has others, even where somebody put the anchor into the backup set. Who writes old bytes over both files in place
is not noticed here; whoever kept a checkpoint of the audit log notices.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import struct
import threading
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

from executor.adapters.ledger_audit import AuditedState
from executor.domain.anchoring import Anchored
from executor.domain.errors import StoreError
from executor.settings import SettingsError

SLOT_BYTES: Final = 1024
SLOTS: Final = 2
SETTLE_SECONDS: Final = 30.0

_GET_GENERATION: Final = 0x80087601  # FS_IOC_GETVERSION
_TYPES: Final = {field.name: field.type for field in fields(Anchored)}

_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

log = logging.getLogger(__name__)


class Anchor:
    """One anchor file, held open and locked. Every method may be called from any thread.

    Args:
        path: the file; it is made where it is not there.

    Raises:
        SettingsError: it can not be used, or another executor uses it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = _opened(path)
        number, self._last = _read(self._fd)
        self._number = number
        self._wanted = self._last
        self._moved = self._durable = 0
        self._failed = False
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="anchor", daemon=True)

    @property
    def last(self) -> Anchored | None:
        """What was remembered last; None where the file was not there or says nothing that can be read."""
        return self._last

    def start(self, state: Anchored) -> None:
        """Remember where the ledger is at the start, durably, and be ready to be moved.

        Raises:
            StoreError: it can not be written.
        """
        with self._changed:
            self._wanted = state
            self._moved += 1
        self._write()
        self._thread.start()

    def close(self) -> None:
        """Remember what was to be remembered, and close the file."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()
        os.close(self._fd)

    def move(self, state: AuditedState) -> None:
        """Take a state to be remembered, without waiting for it. An older one than the last changes nothing."""
        with self._changed:
            wanted = self._wanted
            if wanted is None or state.audit_size <= wanted.audit_size:
                return
            self._wanted = replace(
                wanted,
                epoch=state.epoch,
                claims=max(state.claims, wanted.claims),
                clock_us=max(state.clock_us, wanted.clock_us),
                audit_size=state.audit_size,
                audit_root=state.audit_root.hex(),
            )
            self._moved += 1
            self._changed.notify_all()

    def settle(self) -> None:
        """Wait until everything that was to be remembered is durable; called before the first effect of a claim.

        Raises:
            StoreError: it can not be written; nothing may happen then.
        """
        with self._changed:
            goal = self._moved
            done = self._changed.wait_for(lambda: self._durable >= goal or self._failed, timeout=SETTLE_SECONDS)
            if not done or self._durable < goal:
                raise _unwritable(self._path)

    def check(self) -> None:
        """Try once more where the last write failed; called before a claim.

        Raises:
            StoreError: it still can not be written.
        """
        if self._failed:
            self._write()

    def trust_seen(self) -> tuple[int, str]:
        """Return the version and the digest of the newest trust file; 0 and nothing where none was seen."""
        with self._changed:
            return (0, "") if self._wanted is None else (self._wanted.trust_version, self._wanted.trust_digest)

    def see_trust(self, version: int, digest: str) -> None:
        """Remember a trust file that comes into force, durably.

        Raises:
            StoreError: it can not be written; the file must not come into force.
        """
        with self._changed:
            if self._wanted is None or (self._wanted.trust_version, self._wanted.trust_digest) == (version, digest):
                return
            self._wanted = replace(self._wanted, trust_version=version, trust_digest=digest)
            self._moved += 1
        self._write()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or (self._durable < self._moved and not self._failed))
                if self._durable >= self._moved or self._failed:
                    return  # it is closing, and there is nothing left that could be written
            with contextlib.suppress(StoreError):  # whoever waits is told by `settle`
                self._write()

    def _write(self) -> None:
        """Write the state that is wanted now. One write at a time: a slot is never overwritten by an older state."""
        with self._writing:
            with self._changed:
                state, goal, number = self._wanted, self._moved, self._number + 1
            failed = self._stored(number, state)
            with self._changed:
                self._failed = failed
                if not failed:
                    self._number, self._durable = number, goal
                self._changed.notify_all()
        if failed:
            raise _unwritable(self._path)

    def _stored(self, number: int, state: Anchored | None) -> bool:
        """Write a state into its slot; returns whether that failed."""
        if state is None:
            return False
        try:
            os.pwrite(self._fd, _slot(number, state), number % SLOTS * SLOT_BYTES)
            os.fdatasync(self._fd)
        except OSError:
            log.exception("the anchor %s can not be written", self._path)
            return True
        return False


def ledger_file(path: Path) -> str:
    """Name a ledger's very file, so that a copy of it is told apart."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        generation = b"\0" * struct.calcsize("l")
        with contextlib.suppress(OSError):  # not every file system tells
            generation = fcntl.ioctl(fd, _GET_GENERATION, generation)
        return f"{os.fstat(fd).st_ino}:{struct.unpack('l', generation)[0]}"
    finally:
        os.close(fd)


def _opened(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise SettingsError(f"the anchor {path} can not be opened: {error}", "choose another --anchor") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _lay_out(fd, path)
    except BlockingIOError:
        os.close(fd)
        raise SettingsError(f"another executor moves the anchor {path}", "give each its own --anchor") from None
    except OSError as error:
        os.close(fd)
        raise SettingsError(f"the anchor {path} can not be used: {error}", "choose another --anchor") from error
    return fd


def _lay_out(fd: int, path: Path) -> None:
    """Give the file its full length, so that no later write makes it longer."""
    size = os.fstat(fd).st_size
    if size >= SLOTS * SLOT_BYTES:
        return
    os.pwrite(fd, (b" " * (SLOT_BYTES - 1) + b"\n") * SLOTS, 0)
    os.fsync(fd)
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def _slot(number: int, state: Anchored) -> bytes:
    body = _text({"number": number, **{name: getattr(state, name) for name in _TYPES}})
    line = f'{{"check":"{_checksum(body)}","anchor":{body}}}'.encode()
    if len(line) >= SLOT_BYTES:
        raise ValueError("a state does not fit into its slot")
    return line.ljust(SLOT_BYTES - 1) + b"\n"


def _read(fd: int) -> tuple[int, Anchored | None]:
    """Return the newest state that is whole, with its number."""
    slots = [_parsed(os.pread(fd, SLOT_BYTES, slot * SLOT_BYTES)) for slot in range(SLOTS)]
    whole = [slot for slot in slots if slot is not None]
    return max(whole, key=lambda slot: slot[0]) if whole else (0, None)


def _parsed(raw: bytes) -> tuple[int, Anchored] | None:
    try:
        line = json.loads(raw)
        body = line["anchor"]
        if line["check"] != _checksum(_text(body)):
            return None
        number = body.pop("number")
        if type(number) is not int or any(type(body[name]) is not kind for name, kind in _TYPES.items()):
            return None
        return number, Anchored(**body)
    except (ValueError, TypeError, LookupError):
        return None


def _text(value: dict[str, Any]) -> str:
    return _encode(value)


def _checksum(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:32]


def _unwritable(path: Path) -> StoreError:
    return StoreError(
        "INTERNAL",
        f"the ledger's anchor {path.name} can not be written, so nothing may happen",
        "look at that file's disk and permissions, which the executor's log names; nothing was done meanwhile",
    )
