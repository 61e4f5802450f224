"""The executor's audit log towards others: signed checkpoints, proofs, and what is kept of the callers' own logs.

A checkpoint that somebody else keeps is what makes the log evidence: whoever changes, drops or rewrites an entry can
not continue it. So the two services exchange checkpoints, each checks that the other's newest one continues the one it
keeps, and approvers put the one that they saw into their approvals.

Checkpoints are signed in the transaction of every decision (a claim, a refusal). What comes between is signed within a
second, or as soon as a hundred entries wait, by a thread of its own: nobody's call pays for that.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from executor.domain.errors import ExecutorError, NotFoundError
from executor.runner.kept_logs import KeptLogs, KeptRows
from executor.runner.requests import malformed
from gonogo.merkle import (
    MissingHashesError,
    consistency_path,
    inclusion_path,
    stored_root,
)
from gonogo.notes import (
    Checkpoint,
    NoteError,
    checkpoint_text,
    open_note,
    sign_note,
)
from gonogo.signatures import SigningKey

SIGN_SECONDS: Final = 1.0
LOOK_SECONDS: Final = 0.1
ENTRIES_AT_MOST: Final = 100
NOTES_REMEMBERED: Final = 512
MAX_PATH: Final = 128
ENTRIES_EVER: Final = 1 << 48
"""More than any log has, now or later."""
TELL_AGAIN: Final = timedelta(minutes=1)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of the log."""

    index: int
    leaf: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenEntry:
    """One entry and the path that shows it under a checkpoint."""

    entry: Entry
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extract:
    """Some entries under one checkpoint."""

    checkpoint: str
    entries: tuple[ProvenEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchanged:
    """The answer to a caller's checkpoint."""

    checkpoint: str
    consistency: tuple[bytes, ...]
    kept_size: int


class AuditLog(KeptRows, Protocol):
    """The log's rows, and those of the callers' logs. Every method raises StoreError where the storage fails."""

    @property
    def audit_size(self) -> int: ...

    def audit_root(self) -> tuple[int, bytes]:
        """Return the log's size and its root, both of the same moment."""
        ...

    def audit_hashes(self, level: int, first: int, count: int) -> Sequence[bytes]: ...

    def entries_of(self, mission_id: str) -> tuple[Entry, ...]: ...

    def store_checkpoint(self, size: int, note: str, at: datetime) -> None:
        """Record a checkpoint, and have the anchor know of it."""
        ...


class LogSigner:
    """Signs checkpoints of one log with the executor's key, and knows which ones it signed lately."""

    def __init__(self, key: SigningKey, origin: str) -> None:
        self.origin = origin
        self._key = key
        self._notes: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, size: int, root: bytes) -> str:
        """Sign that the log has a size and a root. The transaction it is for may still fail."""
        return sign_note(checkpoint_text(self.origin, size, root), self._key, self.origin)

    def open(self, note: str) -> Checkpoint:
        """Read one's own checkpoint.

        Raises:
            NoteError: it is none, or not signed by this key.
        """
        return open_note(note, self._key.public, self.origin)

    def held(self, note: str) -> None:
        """Remember a checkpoint that is known to be one of the log's past."""
        with self._lock:
            self._notes[note] = None
            if len(self._notes) > NOTES_REMEMBERED:
                self._notes.popitem(last=False)

    def is_held(self, note: str) -> bool:
        """Whether a checkpoint was shown to be one of the log's past by this process."""
        return note in self._notes


class Audit:
    """The audit log of this executor, as others see it. Every method may be called from any thread.

    Args:
        log: its rows.
        signer: signs its checkpoints.
        log_key_of: the key that a caller's checkpoints are signed with, in OpenSSH's one-line form; empty where the
            trust file names none, and then nothing is kept of that caller's log.
        now: effective time.
        wishes: yields the callers that the operator wants to be forgotten.
    """

    def __init__(
        self,
        log: AuditLog,
        signer: LogSigner,
        *,
        log_key_of: Callable[[str], str],
        now: Callable[[], datetime],
        wishes: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._log = log
        self._signer = signer
        self.callers = KeptLogs(log, log_key_of=log_key_of, now=now, wishes=wishes)
        self._now = now
        self._newest = (-1, "")
        self._stored = 0
        self._told: dict[str, datetime] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)

    @property
    def origin(self) -> str:
        """The name of the log."""
        return self._signer.origin

    def start(self) -> None:
        """Begin to sign what waits; what the operator wants to be forgotten is forgotten first."""
        self.callers.forget_wanted()
        self._thread.start()

    def close(self) -> None:
        """End; what waits is signed."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
            self._sign_waiting()

    def checkpoint(self) -> str:
        """Return a checkpoint over everything that is recorded now."""
        return self._checkpoint()[1]

    def holds(self, note: str) -> bool:
        """Tell whether a checkpoint is a state that this log was in: signed by this executor, and of the same tree."""
        if self._signer.is_held(note):
            return True
        try:
            named = self._signer.open(note)
            holds = named.size <= self._log.audit_size and stored_root(named.size, self._log.audit_hashes) == named.root
        except (NoteError, MissingHashesError):
            return False
        if holds:
            self._signer.held(note)
        return holds

    def mission_log(self, mission_id: str) -> Extract:
        """Return all entries about a mission with their proofs, under one checkpoint.

        Raises:
            NotFoundError: the log has no entry about it.
        """
        entries = self._log.entries_of(mission_id)
        if not entries:
            raise NotFoundError(
                "NOT_FOUND", "the audit log has no entry about that mission", "look the mission's id up"
            )
        size, note = self._checkpoint()
        hashes_of = _Remembering(self._log.audit_hashes)
        return Extract(
            checkpoint=note,
            entries=tuple(
                ProvenEntry(entry=entry, path=tuple(inclusion_path(entry.index, size, hashes_of)))
                for entry in entries
                if entry.index < size
            ),
        )

    def exchange(self, identity: str, note: str, consistency: Sequence[bytes], known_size: int) -> Exchanged:
        """Take a caller's newest checkpoint and return this log's, with the proof that it continues a known one.

        Args:
            identity: the caller's SPIFFE id.
            note: its checkpoint; empty where it only asks.
            consistency: shows that this continues the caller's checkpoint that is kept here. Without it a larger one
                is not kept; the answer's `kept_size` tells where a proof has to start.
            known_size: the size of this log's checkpoint that the caller keeps; where it is larger than the log is,
                the answer's checkpoint is the smaller one, without a proof.

        Raises:
            RequestMalformedError: the checkpoint can not be read, or is not signed by the caller's key; no log has as
                many entries as the caller says that it knows.
            ExecutorError: reason AUDIT_FORKED: it does not continue the kept one.
        """
        if known_size > ENTRIES_EVER:
            raise malformed(
                "no log has as many entries as known_size says", "send the size of a checkpoint of this log"
            )
        kept_size = self.callers.take(identity, note, consistency)
        size, own = self._checkpoint()
        if known_size > size:
            self._tell_ahead(identity, known_size, size)
        path = consistency_path(known_size, size, self._log.audit_hashes) if known_size <= size else []
        return Exchanged(checkpoint=own, consistency=tuple(path), kept_size=kept_size)

    def _tell_ahead(self, identity: str, known_size: int, size: int) -> None:
        """Write that a caller knows more of this log than there is, and not with every call."""
        now = self._now()
        if identity in self._told and now - self._told[identity] < TELL_AGAIN:
            return
        self._told[identity] = now
        log.error("%s keeps a checkpoint of %d entries; this audit log has %d", identity, known_size, size)

    def _checkpoint(self) -> tuple[int, str]:
        size, root = self._log.audit_root()
        known, note = self._newest
        if known != size:
            note = self._signer(size, root)
            self._signer.held(note)
            self._newest = (size, note)
        return size, note

    def _run(self) -> None:
        waited = 0.0
        while not self._stop.wait(LOOK_SECONDS):
            waited += LOOK_SECONDS
            if waited >= SIGN_SECONDS or self._log.audit_size - self._stored >= ENTRIES_AT_MOST:
                waited = 0.0
                self.callers.forget_wanted()
                self._sign_waiting()

    def _sign_waiting(self) -> None:
        if self._log.audit_size == self._stored:
            return
        size, note = self._checkpoint()
        try:
            self._log.store_checkpoint(size, note, self._now())
        except ExecutorError as error:  # the next one covers it; what must not go on without the log, fails by itself
            log.warning("a checkpoint of the audit log could not be stored: %s", error)
        else:
            self._stored = size


class _Remembering:
    """Reads each run of hashes once for a number of proofs."""

    def __init__(self, hashes_of: Callable[[int, int, int], Sequence[bytes]]) -> None:
        self._hashes_of = hashes_of
        self._known: dict[tuple[int, int, int], Sequence[bytes]] = {}

    def __call__(self, level: int, first: int, count: int) -> Sequence[bytes]:
        wanted = (level, first, count)
        if wanted not in self._known:
            self._known[wanted] = self._hashes_of(level, first, count)
        return self._known[wanted]
