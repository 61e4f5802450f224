"""Writes batches of appends: the only code that changes the orchestrator's database.

A batch is one transaction. Every check (command, version) is made inside it and before the first write of the append
that is checked, so a refused append has written nothing and its batch-mates need no savepoint. The checks of later
appends see what earlier ones of the same batch are about to write.

The head (last pos, last hash) is kept in memory and moves only after COMMIT has returned; a batch that was rolled
back leaves it where it was.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from orchestrator.adapters.sqlite_driver import sqlite3
from orchestrator.service.event_log import (
    ANY,
    GENESIS,
    NO_STREAM,
    Append,
    Appended,
    CommandRecord,
    StoredEvent,
    chain_hash,
)
from orchestrator.service.event_log_errors import (
    CommandConflict,
    DuplicateCommand,
    EventLogError,
    StoreBusy,
    StoreFailed,
    StoreFull,
    StoreUnusable,
    VersionConflict,
)

EventRow: TypeAlias = tuple[int, int, int, str, int, int, int, str | None, str, str, bytes]

_BUSY_PAUSE_SECONDS: Final = 0.01
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
    pos: int
    hash: bytes
    stream_pk: int


@dataclass(slots=True)
class _Batch:
    """What one transaction is going to write."""

    head: _Head
    recorded_at_us: int
    streams: dict[str, tuple[int, int]] = field(default_factory=dict)
    commands: dict[str, CommandRecord] = field(default_factory=dict)
    event_rows: list[EventRow] = field(default_factory=list)
    command_rows: list[tuple[str, str, str, int, int, int]] = field(default_factory=list)
    document_rows: list[tuple[str, str, bytes, str, int]] = field(default_factory=list)
    projection_rows: list[tuple[str, str, str, str, str, int]] = field(default_factory=list)


class BatchWriter:
    """Owns the write connection. Calls must not overlap; whoever calls holds the store's write lock."""

    def __init__(self, connection: sqlite3.Connection, queries: Mapping[str, str], clock_us: Callable[[], int]) -> None:
        self._connection = connection
        self._queries = queries
        self._clock_us = clock_us
        pos, last_hash, stream_pk = connection.execute(queries["writer_state"]).fetchone()
        self._head = _Head(pos, last_hash or GENESIS, stream_pk)
        self.failure: StoreFailed | None = None

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

    def _transaction(self, appends: Sequence[Append], wait_seconds: float) -> list[Outcome]:
        if self.failure is not None:
            raise self.failure
        self._begin(wait_seconds)
        try:
            batch = _Batch(self._head, self._clock_us())
            outcomes = [self._admit(batch, append) for append in appends]
            self._insert(batch)
        except Exception as error:
            self._roll_back()
            raise self._translated(error) from error
        self._commit()
        self._head = batch.head
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
        return known or (batch.head.stream_pk + 1, NO_STREAM)

    def _insert(self, batch: _Batch) -> None:
        streams = [(pk, stream_id, version, batch.recorded_at_us) for stream_id, (pk, version) in batch.streams.items()]
        self._run("put_stream", streams)
        self._run("add_event", batch.event_rows)
        self._run("add_command", batch.command_rows)
        self._run("add_document", batch.document_rows)
        self._run("put_projection", batch.projection_rows)

    def _run(self, query: str, rows: Sequence[tuple[int | str | bytes | None, ...]]) -> None:
        if len(rows) == 1:
            self._connection.execute(self._queries[query], rows[0])
        elif rows:
            self._connection.executemany(self._queries[query], rows)


def _add_events(batch: _Batch, append: Append, stream_pk: int, version: int) -> tuple[EventRow, ...]:
    pos, last_hash = batch.head.pos, batch.head.hash
    command_id = append.command.command_id if append.command else None
    at = batch.recorded_at_us
    rows: list[EventRow] = []
    for event in append.events:
        pos, version = pos + 1, version + 1
        last_hash = chain_hash(
            last_hash, pos, append.stream_id, version, event, recorded_at_us=at, command_id=command_id
        )
        rows.append(
            (pos, stream_pk, version, event.type, event.schema_version, event.occurred_at_us, at, command_id,
             event.actor, event.data, last_hash)
        )  # fmt: skip
    batch.head = _Head(pos, last_hash, max(stream_pk, batch.head.stream_pk))
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
        hash=row[10],
    )


def _code(error: Exception) -> int:
    """The primary result code, without the detail in the upper bits; 0 for what is no fault of SQLite's."""
    code: int = getattr(error, "sqlite_errorcode", 0) or 0
    return code & 0xFF
