"""The audit log's rows in the SQLite ledger: appended in the transaction of what they record, and read for proofs.

The tree's right edge is held in memory. It is read again where another connection wrote meanwhile, and a transaction
that fails leaves it as it was. No entry costs a commit of its own.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from executor.adapters.ledger_entries import (
    CHECKPOINT_FORGOTTEN,
    CHECKPOINT_KEPT,
    EPOCH_STARTED,
    FORK_FOUND,
    caller_value,
    entry_text,
    epoch_value,
)
from executor.adapters.ledger_retention import Execute
from executor.runner.audit import Entry
from executor.runner.kept_logs import Kept
from gonogo.merkle import Frontier, leaf_hash

CHECKPOINTS_KEPT: Final = 1_000
PAGE: Final = 2_000
MISSION_ENTRIES: Final = 50_000

Rows = Callable[..., list[tuple[Any, ...]]]
"""Runs a named query that reads."""

SignRoot = Callable[[int, bytes], str]
"""Signs that the log has a size and a root, and returns the note."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEntry:
    """One row of the audit log, as it is stored."""

    index: int
    hashed: bytes
    mission_id: str
    leaf: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedState:
    """How far the ledger has come: what an anchor remembers of it."""

    epoch: str
    claims: int
    clock_us: int
    audit_size: int
    audit_root: bytes


def append_entry(execute: Execute, kind: str, mission_id: str, value: Mapping[str, object]) -> int:
    """Append an entry to the audit log in a transaction of the ledger, and return its place.

    Its time is the transaction's. If it can not be written, the transaction fails with all that it records.

    Args:
        execute: the transaction.
        kind: what happened, such as "claimed".
        mission_id: whose it is; empty where it is no mission's.
        value: all that it says besides; every document by its digest.
    """
    leaf = entry_text(kind, mission_id, execute.at_us, value)
    hashed = leaf_hash(leaf.encode())
    index = execute.tail.size
    execute("insert_audit_entry", index, hashed, mission_id, leaf)
    for tile in execute.tail.append(hashed):
        execute("insert_audit_tile", tile.level, tile.index, tile.root)
    return index


def state_after(execute: Execute, epoch: str) -> AuditedState:
    """Return how far the ledger will have come with a transaction, before that is committed.

    What is to be remembered of a claim must be known by then: a fault afterwards would be taken for a refusal.
    """
    [(claims, clock_us)] = execute.rows("claims_and_clock")
    return AuditedState(
        epoch=epoch,
        claims=claims,
        clock_us=max(int(clock_us), execute.at_us),
        audit_size=execute.tail.size,
        audit_root=execute.tail.root(),
    )


def stored_hashes(rows: Rows, level: int, first: int, count: int) -> Sequence[bytes]:
    """Read stored hashes of the tree by whatever runs named queries."""
    if level == 0:
        found = rows("audit_hashes", first, first + count)
    else:
        found = rows("audit_tiles", level, first, first + count)
    return [bytes(row[0]) for row in found]


class Anchoring(Protocol):
    """Remembers outside of the ledger how far that has come."""

    def check(self) -> None:
        """Raise StoreError where it could not remember the last state, and can not now."""
        ...

    def move(self, state: AuditedState) -> None:
        """Take a state to be remembered, without waiting for it."""
        ...

    def settle(self) -> None:
        """Wait until all that was taken is remembered; raise StoreError where it can not be."""
        ...


class AuditRows(ABC):
    """The part of the SQLite ledger that is `executor.runner.audit.AuditLog`."""

    _tail: Frontier
    _epoch: str
    _sign_root: SignRoot | None
    _anchor: Anchoring | None = None

    def anchor_to(self, anchor: Anchoring) -> None:
        """Have every claim from now on remembered outside of the ledger."""
        self._anchor = anchor

    def reading(self) -> Rows:
        """Return what runs the ledger's named queries, for a check of all of it."""
        return self._rows

    @property
    def audit_size(self) -> int:
        """How many entries the log has."""
        return self._tail.size

    def audit_root(self) -> tuple[int, bytes]:
        """Return the log's size and its root, both of the same moment."""
        tail = self._tail  # never changed, only replaced
        return tail.size, tail.root()

    def audit_hashes(self, level: int, first: int, count: int) -> Sequence[bytes]:
        """Read stored hashes of the tree; a `gonogo.merkle.HashesOf`."""
        return stored_hashes(self._rows, level, first, count)

    def entries_of(self, mission_id: str) -> tuple[Entry, ...]:
        """Return a mission's entries in their order."""
        rows = self._rows("audit_entries_of_mission", mission_id, MISSION_ENTRIES)
        return tuple(Entry(index=number, leaf=leaf.encode()) for number, leaf in rows)

    def stored_entries(self, first: int = 0) -> Iterator[StoredEntry]:
        """Yield all entries from a place on, page by page."""
        while rows := self._rows("audit_entries", first, PAGE):
            for number, hashed, mission_id, leaf in rows:
                yield StoredEntry(index=number, hashed=bytes(hashed), mission_id=mission_id, leaf=leaf.encode())
            first = rows[-1][0] + 1

    def store_checkpoint(self, size: int, note: str, at: datetime) -> None:
        """Record a checkpoint that was signed outside of a transaction, and let go of very old ones."""
        with self._commit(0) as execute:
            execute("insert_audit_checkpoint", size, _micros(at), note)
            execute("prune_audit_checkpoints", CHECKPOINTS_KEPT - 1)
        if self._anchor is not None:
            self._anchor.move(self.audited_state())

    def own_checkpoints(self, limit: int = 1) -> tuple[tuple[int, str], ...]:
        """Return the newest of the own checkpoints as pairs of size and note, the newest first."""
        found: dict[int, str] = dict(self._rows("newest_audit_checkpoints", limit))
        for (note,) in self._rows("meta", "audit_checkpoint"):
            found[_size_of(note)] = note
        return tuple(sorted(found.items(), reverse=True)[:limit])

    def kept_checkpoints(self) -> tuple[Kept, ...]:
        """Return what is kept of all callers' logs."""
        return tuple(_kept(*row) for row in self._rows("kept_checkpoints"))

    def keep_checkpoint(self, kept: Kept, at: datetime) -> None:
        """Keep a newer checkpoint of a caller's log, or that it contradicts the one that is kept."""
        with self._commit(_micros(at)) as execute:
            execute("keep_checkpoint", kept.identity, kept.note, kept.before, kept.fork, _micros(at))
            kind = FORK_FOUND if kept.fork else CHECKPOINT_KEPT
            # Two services that record each other's checkpoints would have something new to exchange for ever.
            if kept.fork or not _ends_with(execute, CHECKPOINT_KEPT):
                append_entry(execute, kind, "", caller_value(kept.identity, kept.note, kept.fork))

    def forget_checkpoint_of(self, identity: str, at: datetime) -> bool:
        """Forget what is kept of a caller's log; returns whether there was something."""
        row = self._row("kept_checkpoint", identity)
        if row is None:
            return False
        with self._commit(_micros(at)) as execute:
            execute("forget_kept_checkpoint", identity)
            append_entry(execute, CHECKPOINT_FORGOTTEN, "", caller_value(identity, row[0], row[2]))
        return True

    def audited_state(self) -> AuditedState:
        """Return how far the ledger has come."""
        size, root = self.audit_root()
        [(claims, clock_us)] = self._rows("claims_and_clock")
        return AuditedState(epoch=self._epoch, claims=claims, clock_us=int(clock_us), audit_size=size, audit_root=root)

    @property
    def is_new(self) -> bool:
        """Whether nothing was ever recorded here."""
        [counts] = self._rows("recorded_rows")
        return not self._tail.size and not any(counts)

    def start_epoch(self, epoch: str, why: str, at: datetime) -> None:
        """Begin an epoch: reports of another are unknown from now on.

        Args:
            epoch: its name; that of the present one for a ledger that begins.
            why: in words, for the audit log.
            at: effective time.
        """
        former = "" if epoch == self._epoch else self._epoch
        [counts] = self._rows("recorded_rows")
        with self._commit(_micros(at)) as execute:
            execute("set_epoch", epoch)
            append_entry(execute, EPOCH_STARTED, "", epoch_value(epoch, former, why, counts))
            self._sign(execute)
        self._epoch = epoch

    def _sign(self, execute: Execute) -> None:
        """Sign a checkpoint over everything up to here, in the transaction that may not come about.

        It replaces the one of the last decision, in a page that every transaction writes anyway; the background's
        checkpoints, one in a second at most, are those that stay.
        """
        if self._sign_root is not None:
            execute("set_decision_checkpoint", self._sign_root(execute.tail.size, execute.tail.root()))

    @abstractmethod
    def _commit(self, at: int) -> AbstractContextManager[Execute]: ...

    @abstractmethod
    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]: ...

    @abstractmethod
    def _row(self, query: str, *values: object) -> tuple[Any, ...] | None: ...


def _ends_with(execute: Execute, kind: str) -> bool:
    last = execute.rows("audit_entries", execute.tail.size - 1, 1)
    return bool(last) and last[0][3].startswith(f'{{"type":"{kind}",')


def _size_of(note: str) -> int:
    """Return the size that a note claims; 0 where it is none, which a check then finds."""
    lines = note.split("\n")
    return int(lines[1]) if len(lines) > 1 and lines[1].isdecimal() else 0


def _kept(identity: str, note: str, before: str, fork: str) -> Kept:
    return Kept(identity=identity, note=note, before=before, fork=fork)


def _micros(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND
