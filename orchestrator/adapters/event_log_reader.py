"""Reads the event log's database through one read-only connection.

Each read is one statement, fetched whole: no read transaction outlives a call, so no reader ever keeps the WAL from
being reset.
"""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from orchestrator.adapters.migrations import APPLICATION_ID
from orchestrator.adapters.sql_files import log_queries
from orchestrator.adapters.sqlite_driver import sqlite3
from orchestrator.service.audit_log import SignedCheckpoint, Witnessed
from orchestrator.service.event_log import (
    NO_STREAM,
    PAGE,
    CommandRecord,
    Document,
    ProjectionCursor,
    ProjectionRow,
    StoredDocument,
    StoredEvent,
)
from orchestrator.service.event_log_errors import StoreClosed, StoreUnusable

_PRAGMAS = (
    "PRAGMA query_only = ON",
    "PRAGMA busy_timeout = 5000",
    "PRAGMA trusted_schema = OFF",
)
_CACHE_KIB = 65536
_CACHE_KIB_BESIDE = 2048


class SqliteEventReader:
    """The reading half of the log, which needs no lock: it may be open beside a running service."""

    def __init__(self, path: Path, *, cache_kib: int = _CACHE_KIB) -> None:
        self._queries = log_queries()
        self._closed = False
        self._path = path
        self._connection = _open_read_only(path, cache_kib)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._closed = True
        self._connection.close()

    def beside(self) -> "SqliteEventReader":
        """Return a reader of the same log with a connection of its own, for a thread of its own."""
        return SqliteEventReader(self._path, cache_kib=_CACHE_KIB_BESIDE)

    def head(self) -> int:
        return int(self._rows("head")[0][0])

    def stream_version(self, stream_id: str) -> int:
        rows = self._rows("stream_version", stream_id)
        return int(rows[0][0]) if rows else NO_STREAM

    def read_all(self, after_pos: int = 0, limit: int = PAGE) -> tuple[StoredEvent, ...]:
        return tuple(_event(row) for row in self._rows("read_all", after_pos, limit))

    def read_stream(self, stream_id: str, after_version: int = 0, limit: int = PAGE) -> tuple[StoredEvent, ...]:
        return tuple(_event(row) for row in self._rows("read_stream", stream_id, after_version, limit))

    def document(self, digest: str) -> Document | None:
        rows = self._rows("document", digest)
        return _document(rows[0]) if rows else None

    def documents(self, after_sequence: int = 0, limit: int = PAGE) -> tuple[StoredDocument, ...]:
        rows = self._rows("documents", after_sequence, limit)
        return tuple(StoredDocument(sequence=row[0], pos=row[1], document=_document(row[2:])) for row in rows)

    def command(self, command_id: str) -> CommandRecord | None:
        rows = self._rows("find_command", command_id)
        return CommandRecord(command_id=rows[0][0], request_hash=rows[0][1], result=rows[0][2]) if rows else None

    def projection(self, name: str, key: str) -> ProjectionRow | None:
        rows = self._rows("projection", name, key)
        return _projection(rows[0]) if rows else None

    def projections(
        self, name: str, *, status: str | None = None, before: ProjectionCursor | None = None, limit: int = PAGE
    ) -> tuple[ProjectionRow, ...]:
        query = "projections" + ("_of_status" if status is not None else "") + ("_before" if before else "")
        parameters: list[str | int] = [name]
        parameters += [status] if status is not None else []
        parameters += [before.sort_key, before.key] if before else []
        return tuple(_projection(row) for row in self._rows(query, *parameters, limit))

    def projection_keys(self, name: str, *, after_key: str = "", limit: int = PAGE) -> tuple[ProjectionRow, ...]:
        return tuple(_projection(row) for row in self._rows("projection_keys", name, after_key, limit))

    def counted(self, query: str, *parameters: str | int) -> Sequence[Sequence[Any]]:
        return self._rows(f"counted_{query}", *parameters)

    def tree_hashes(self, level: int, first: int, count: int) -> tuple[bytes, ...]:
        if level == 0:
            rows = self._rows("leaf_hashes", first + 1, first + count)
        else:
            rows = self._rows("tree_hashes", level, first, first + count - 1)
        return tuple(row[0] for row in rows)

    def newest_checkpoint(self) -> SignedCheckpoint | None:
        rows = self._rows("newest_checkpoint")
        return SignedCheckpoint(*rows[0]) if rows else None

    def checkpoints(self, after_size: int = -1, limit: int = PAGE) -> tuple[SignedCheckpoint, ...]:
        return tuple(SignedCheckpoint(*row) for row in self._rows("checkpoints", after_size, limit))

    def witnessed(self, after_origin: str = "", limit: int = PAGE) -> tuple[Witnessed, ...]:
        return tuple(
            Witnessed(origin=row[0], public_key=row[1], size=row[2], note=row[3], fault=row[4])
            for row in self._rows("witnessed", after_origin, limit)
        )

    def _rows(self, query: str, *parameters: str | int) -> list[Any]:
        try:
            return self._connection.execute(self._queries[query], parameters).fetchall()
        except sqlite3.Error as error:
            if self._closed:
                raise StoreClosed("the event log is closed") from error
            raise StoreUnusable(f"the database can not be read: {error}") from error


def _open_read_only(path: Path, cache_kib: int) -> sqlite3.Connection:
    """Opens an existing log; a file that is missing or is something else is refused."""
    connection = None
    try:
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
        )
        for pragma in (*_PRAGMAS, f"PRAGMA cache_size = -{cache_kib}"):
            connection.execute(pragma).fetchall()
        if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise StoreUnusable(f"{path.name} is not an event log")
    except sqlite3.Error as error:
        raise StoreUnusable(f"{path.name} can not be opened: {error}") from error
    return connection


def _event(row: Sequence[Any]) -> StoredEvent:
    return StoredEvent(
        pos=row[0],
        stream_id=row[1],
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


def _document(row: Sequence[Any]) -> Document:
    try:
        return Document(digest=row[0], media_type=row[1], body=row[2], signatures=row[3])
    except ValueError as error:
        raise StoreUnusable(f"document {row[0]} is damaged: {error}") from error


def _projection(row: Sequence[Any]) -> ProjectionRow:
    return ProjectionRow(name=row[0], key=row[1], status=row[2], sort_key=row[3], data=row[4])
