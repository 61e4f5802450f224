"""Writes batches of appends: the only code that changes the orchestrator's database.

A batch is one transaction. Every check (command, version) is made inside it and before the first write of the append
that is checked, so a refused append has written nothing and its batch-mates need no savepoint. The checks of later
appends see what earlier ones of the same batch are about to write.

The head (the tree's frontier, whose size is the last pos, and the last signed size) is kept in memory and moves only
after COMMIT has returned; a batch that was rolled back leaves it where it was. A checkpoint is signed in the
transaction that brings what it must not miss: it is durable with the events, and costs no commit of its own.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from gonogo.merkle import Frontier, MissingHashesError, leaf_hash, stored_frontier
from orchestrator.adapters.sqlite_driver import sqlite3
from orchestrator.service.audit_log import CheckpointSigner, SignedCheckpoint, Witnessed
from orchestrator.service.event_leaf import event_leaf
from orchestrator.service.event_log import (
    ANY,
    NO_STREAM,
    Append,
    Appended,
    CommandRecord,
    Document,
    StoredEvent,
)
from orchestrator.service.event_log_errors import (
    CommandConflict,
    DuplicateCommand,
    EventLogError,
    LogForked,
    StoreBusy,
    StoreFailed,
    StoreFull,
    StoreUnusable,
    VersionConflict,
)

EventRow: TypeAlias = tuple[int, int, int, str, int, int, int, str | None, str, str, bytes]

SIGN_EVERY: Final = 100
"""Events after which a checkpoint is signed with whatever is being written."""
CHECKPOINTS_KEPT: Final = 4096
_PRUNE_EVERY: Final = 64
_BUSY_PAUSE_SECONDS: Final = 0.01
_OWN_WAIT_SECONDS: Final = 5.0
# Primary result codes after which the file can not be trusted to take another write.
_FATAL: Final = frozenset(
    {
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOMEM,
    }
)


@dataclass(frozen=True, slots=True)
class Written:
    """One append that is on disk, with its rows for those who watch."""

    appended: Appended
    stream_id: str
    rows: tuple[EventRow, ...]

    def events(self) -> tuple[StoredEvent, ...]:
        return tuple(_stored(self.stream_id, row) for row in self.rows)


Outcome: TypeAlias = Written | EventLogError


@dataclass(frozen=True, slots=True)
class _Head:
    tree: Frontier
    stream_pk: int
    signed_size: int


@dataclass(slots=True)
class _Batch:
    """What one transaction is going to write."""

    tree: Frontier
    stream_pk: int
    signed_size: int
    recorded_at_us: int
    sign: bool = False
    streams: dict[str, tuple[int, int]] = field(default_factory=dict)
    commands: dict[str, CommandRecord] = field(default_factory=dict)
    event_rows: list[EventRow] = field(default_factory=list)
    tree_rows: list[tuple[int, int, bytes]] = field(default_factory=list)
    checkpoint_rows: list[tuple[int, str, int]] = field(default_factory=list)
    command_rows: list[tuple[str, str, str, int, int, int]] = field(default_factory=list)
    document_rows: list[tuple[str, str, bytes, str, int]] = field(default_factory=list)
    projection_rows: list[tuple[str, str, str, str, str, int]] = field(default_factory=list)
    count_rows: dict[str, list[tuple[int | str, ...]]] = field(default_factory=dict)


class BatchWriter:
    """Owns the write connection. Calls must not overlap; whoever calls holds the store's write lock."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        queries: Mapping[str, str],
        clock_us: Callable[[], int],
        signer: CheckpointSigner | None = None,
    ) -> None:
        self._connection = connection
        self._queries = queries
        self._clock_us = clock_us
        self._signer = signer
        self._unpruned = 0
        pos, stream_pk, signed_size = connection.execute(queries["writer_state"]).fetchone()
        self._head = _Head(self._stored_tree(pos), stream_pk, signed_size)
        self.failure: StoreFailed | None = None

    @property
    def has_grown(self) -> bool:
        """Whether there are events after the last signed checkpoint."""
        return self._head.tree.size > self._head.signed_size

    def write(self, appends: Sequence[Append], *, wait_seconds: float = 0.0) -> list[Outcome]:
        """Writes the appends in one transaction and returns what became of each.

        When the transaction as a whole can not be written, each append is tried in one of its own: there may be room
        for some, and what is wrong with one must not cost the others theirs.
        """
        try:
            return self._transaction(appends, wait_seconds)
        except (StoreFailed, StoreBusy) as error:
            return [error] * len(appends)
        except EventLogError as error:
            if len(appends) == 1:
                return [error]
        except Exception as error:  # noqa: BLE001 - a caller that is never answered is worse than any fault
            self.failure = StoreFailed(f"writing failed in an unforeseen way: {error!r}")
            return [self.failure] * len(appends)
        return [outcome for append in appends for outcome in self.write((append,), wait_seconds=wait_seconds)]

    def checkpoint(self) -> None:
        """Moves what readers no longer need from the WAL into the database file, as far as that goes now."""
        try:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error:
            return  # The WAL stays whole and is tried again; a disk that fails shows at the next COMMIT.

    def close(self) -> None:
        self._connection.close()

    def sign(self) -> SignedCheckpoint:
        """Sign a checkpoint over all events, unless the newest one is that already; return the newest.

        Raises:
            EventLogError: it could not be stored, or there is no key to sign with.
        """
        if self._signer is None:
            raise StoreUnusable("this log was opened without a key for its checkpoints")
        tree, at = self._head.tree, self._clock_us()
        if tree.size and tree.size == self._head.signed_size:
            return SignedCheckpoint(*self._connection.execute(self._queries["newest_checkpoint"]).fetchone())
        signed = SignedCheckpoint(tree.size, self._signer.sign(tree.size, tree.root()))
        self._alone(lambda: self._store_checkpoints([(signed.size, signed.note, at)]))
        self._head = replace(self._head, signed_size=tree.size)
        return signed

    def keep_document(self, document: Document) -> None:
        """Store a document that no event brings; one that is there already stays as it is."""
        row = (document.digest, document.media_type, document.body, document.signatures, self._head.tree.size)
        self._alone(lambda: self._run("add_document", [row]))

    def keep_witnessed(self, kept: Witnessed) -> None:
        """Replace what is kept of another log."""
        row = (kept.origin, kept.public_key, kept.size, kept.note, kept.fault, self._clock_us())
        self._alone(lambda: self._run("put_witnessed", [row]))

    def forget_witnessed(self, origin: str) -> None:
        """Let go of what is kept of another log."""
        self._alone(lambda: self._run("forget_witnessed", [(origin,)]))

    def _store_checkpoints(self, rows: Sequence[tuple[int, str, int]]) -> None:
        """Store what was signed, and now and then let go of what is old."""
        self._run("add_checkpoint", rows)
        self._unpruned += len(rows)
        if self._unpruned >= _PRUNE_EVERY:
            self._run("prune_checkpoints", [(CHECKPOINTS_KEPT,)])
            self._unpruned = 0

    def _alone(self, work: Callable[[], None]) -> None:
        """Do something in a transaction of its own."""
        if self.failure is not None:
            raise self.failure
        self._begin(_OWN_WAIT_SECONDS)
        try:
            work()
        except Exception as error:
            self._roll_back()
            raise self._translated(error) from error
        self._commit()

    def _stored_tree(self, size: int) -> Frontier:
        try:
            return stored_frontier(size, self._tree_hashes)
        except MissingHashesError as error:
            raise LogForked(f"the log's tree is not whole: {error}") from None

    def _tree_hashes(self, level: int, first: int, count: int) -> list[bytes]:
        if level == 0:
            rows = self._connection.execute(self._queries["leaf_hashes"], (first + 1, first + count))
        else:
            rows = self._connection.execute(self._queries["tree_hashes"], (level, first, first + count - 1))
        return [row[0] for row in rows]

    def _transaction(self, appends: Sequence[Append], wait_seconds: float) -> list[Outcome]:
        if self.failure is not None:
            raise self.failure
        self._begin(wait_seconds)
        try:
            batch = _Batch(self._head.tree.copy(), self._head.stream_pk, self._head.signed_size, self._clock_us())
            outcomes = [self._admit(batch, append) for append in appends]
            self._insert(batch)
        except Exception as error:
            self._roll_back()
            raise self._translated(error) from error
        self._commit()
        self._head = _Head(batch.tree, batch.stream_pk, batch.signed_size)
        return outcomes

    def _begin(self, wait_seconds: float) -> None:
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                if _code(error) != sqlite3.SQLITE_BUSY:
                    raise self._translated(error) from error
                if time.monotonic() >= deadline:
                    raise StoreBusy("another program holds the database's write lock") from error
                time.sleep(_BUSY_PAUSE_SECONDS)
            else:
                return

    def _commit(self) -> None:
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if _code(error) == sqlite3.SQLITE_FULL:
                self._roll_back()
                raise self._translated(error) from error
            # The commit record may or may not be on disk, and a failed fsync can not be asked again: stop.
            self.failure = StoreFailed(f"the commit failed: {error}")
            raise self.failure from error

    def _roll_back(self) -> None:
        if not self._connection.in_transaction:  # SQLite rolls back by itself after some faults
            return
        try:
            self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            self.failure = StoreFailed(f"the rollback failed: {error}")

    def _translated(self, error: Exception) -> EventLogError:
        if self.failure is not None:
            return self.failure
        code = _code(error)
        if code == sqlite3.SQLITE_FULL:
            return StoreFull("no room on the file system; nothing was written")
        if code in _FATAL:
            self.failure = StoreFailed(f"the database can not be written: {error}")
            return self.failure
        return StoreUnusable(f"the database refuses the append: {error}")

    def _admit(self, batch: _Batch, append: Append) -> Outcome:
        refusal = self._command_refusal(batch, append.command)
        if refusal is not None:
            return refusal
        stream_pk, version = self._stream(batch, append.stream_id)
        if append.expected_version not in (ANY, version):
            return VersionConflict(append.stream_id, append.expected_version, version)
        rows = _add_events(batch, append, stream_pk, version)
        appended = Appended(first_pos=rows[0][0], last_pos=rows[-1][0], version=rows[-1][2])
        _add_rest(batch, append, appended)
        return Written(appended, append.stream_id, rows)

    def _command_refusal(self, batch: _Batch, command: CommandRecord | None) -> EventLogError | None:
        if command is None:
            return None
        known = batch.commands.get(command.command_id) or self._stored_command(command.command_id)
        if known is None:
            return None
        if known.request_hash != command.request_hash:
            return CommandConflict(command.command_id)
        return DuplicateCommand(known)

    def _stored_command(self, command_id: str) -> CommandRecord | None:
        row = self._connection.execute(self._queries["find_command"], (command_id,)).fetchone()
        return None if row is None else CommandRecord(command_id=row[0], request_hash=row[1], result=row[2])

    def _stream(self, batch: _Batch, stream_id: str) -> tuple[int, int]:
        """Returns the stream's key and version; a stream that is not there gets the next key, at NO_STREAM."""
        known = batch.streams.get(stream_id)
        if known is None:
            known = self._connection.execute(self._queries["find_stream"], (stream_id,)).fetchone()
        return known or (batch.stream_pk + 1, NO_STREAM)

    def _insert(self, batch: _Batch) -> None:
        if self._signer is not None and (batch.sign or batch.tree.size - batch.signed_size >= SIGN_EVERY):
            self._sign(batch, self._signer)
        streams = [(pk, stream_id, version, batch.recorded_at_us) for stream_id, (pk, version) in batch.streams.items()]
        self._run("put_stream", streams)
        self._run("add_event", batch.event_rows)
        self._run("add_tree_hash", batch.tree_rows)
        self._store_checkpoints(batch.checkpoint_rows)
        self._run("add_command", batch.command_rows)
        self._run("add_document", batch.document_rows)
        self._run("put_projection", batch.projection_rows)
        for counters, rows in batch.count_rows.items():
            self._run(f"count_{counters}", rows)

    def _sign(self, batch: _Batch, signer: CheckpointSigner) -> None:
        size = batch.tree.size
        if size > batch.signed_size:
            note = signer.sign(size, batch.tree.root())
            batch.checkpoint_rows.append((size, note, batch.recorded_at_us))
            batch.signed_size = size

    def _run(self, query: str, rows: Sequence[tuple[int | str | bytes | None, ...]]) -> None:
        if len(rows) == 1:
            self._connection.execute(self._queries[query], rows[0])
        elif rows:
            self._connection.executemany(self._queries[query], rows)


def _add_events(batch: _Batch, append: Append, stream_pk: int, version: int) -> tuple[EventRow, ...]:
    tree, stream_id, pos = batch.tree, append.stream_id, batch.tree.size
    command_id = append.command.command_id if append.command else None
    at = batch.recorded_at_us
    rows: list[EventRow] = []
    for event in append.events:
        pos, version = pos + 1, version + 1
        hashed = leaf_hash(event_leaf(pos, stream_id, version, event, recorded_at_us=at, command_id=command_id))
        for tile in tree.append(hashed):
            batch.tree_rows.append((tile.level, tile.index, tile.root))
        rows.append(
            (pos, stream_pk, version, event.type, event.schema_version, event.occurred_at_us, at, command_id,
             event.actor, event.data, hashed)
        )  # fmt: skip
    batch.stream_pk = max(stream_pk, batch.stream_pk)
    batch.sign = batch.sign or append.sign
    batch.streams[append.stream_id] = (stream_pk, version)
    batch.event_rows += rows
    return tuple(rows)


def _add_rest(batch: _Batch, append: Append, appended: Appended) -> None:
    first, last = appended.first_pos, appended.last_pos
    if append.command is not None:
        command = append.command
        batch.commands[command.command_id] = command
        batch.command_rows.append(
            (command.command_id, command.request_hash, command.result, first, last, batch.recorded_at_us)
        )
    batch.document_rows += [(d.digest, d.media_type, d.body, d.signatures, first) for d in append.documents]
    for count in append.counts:
        batch.count_rows.setdefault(count.counters, []).append(count.row)
    batch.projection_rows += [(p.name, p.key, p.status, p.sort_key, p.data, last) for p in append.projections]


def _stored(stream_id: str, row: EventRow) -> StoredEvent:
    return StoredEvent(
        pos=row[0],
        stream_id=stream_id,
        version=row[2],
        type=row[3],
        schema_version=row[4],
        occurred_at_us=row[5],
        recorded_at_us=row[6],
        command_id=row[7],
        actor=row[8],
        data=row[9],
        leaf_hash=row[10],
    )


def _code(error: Exception) -> int:
    """The primary result code, without the detail in the upper bits; 0 for what is no fault of SQLite's."""
    code: int = getattr(error, "sqlite_errorcode", 0) or 0
    return code & 0xFF
