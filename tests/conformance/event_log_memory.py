"""The event log as a model: the same contract in lists and dictionaries, simple enough to be believed."""

import asyncio
from collections.abc import AsyncGenerator, Callable

from gonogo.merkle import TILE, leaf_hash, node_hash
from orchestrator.service.event_leaf import event_leaf
from orchestrator.service.event_log import (
    ANY,
    NO_STREAM,
    PAGE,
    Append,
    Appended,
    CommandRecord,
    Document,
    ProjectionCursor,
    ProjectionRow,
    StoredDocument,
    StoredEvent,
)
from orchestrator.service.event_log_errors import CommandConflict, DuplicateCommand, StoreClosed, VersionConflict


class MemoryEventLog:
    """`EventLog` without a disk: an append takes effect at once, so it never overlaps another."""

    def __init__(self, clock_us: Callable[[], int]) -> None:
        self._clock_us = clock_us
        self._events: list[StoredEvent] = []
        self._streams: dict[str, list[StoredEvent]] = {}
        self._documents: dict[str, StoredDocument] = {}
        self._commands: dict[str, CommandRecord] = {}
        self._projections: dict[tuple[str, str], ProjectionRow] = {}
        self._news = asyncio.Event()
        self._closed = False

    async def append(self, append: Append) -> Appended:
        if self._closed:
            raise StoreClosed("closed")
        self._check(append)
        at = self._clock_us()
        for event in append.events:
            pos, version = self.head() + 1, self.stream_version(append.stream_id) + 1
            command_id = append.command.command_id if append.command else None
            leaf = event_leaf(pos, append.stream_id, version, event, recorded_at_us=at, command_id=command_id)
            stored = StoredEvent(
                pos=pos,
                stream_id=append.stream_id,
                version=version,
                type=event.type,
                schema_version=event.schema_version,
                occurred_at_us=event.occurred_at_us,
                recorded_at_us=at,
                command_id=command_id,
                actor=event.actor,
                data=event.data,
                leaf_hash=leaf_hash(leaf),
            )
            self._events.append(stored)
            self._streams.setdefault(append.stream_id, []).append(stored)
        self._keep_rest(append)
        self._tell()
        first = self.head() - len(append.events) + 1
        return Appended(first_pos=first, last_pos=self.head(), version=self.stream_version(append.stream_id))

    def head(self) -> int:
        return len(self._events)

    def stream_version(self, stream_id: str) -> int:
        return len(self._streams.get(stream_id, ())) or NO_STREAM

    def read_all(self, after_pos: int = 0, limit: int = PAGE) -> tuple[StoredEvent, ...]:
        return tuple(self._events[after_pos : after_pos + limit])

    def read_stream(self, stream_id: str, after_version: int = 0, limit: int = PAGE) -> tuple[StoredEvent, ...]:
        return tuple(self._streams.get(stream_id, [])[after_version : after_version + limit])

    def document(self, digest: str) -> Document | None:
        stored = self._documents.get(digest)
        return stored.document if stored else None

    def documents(self, after_sequence: int = 0, limit: int = PAGE) -> tuple[StoredDocument, ...]:
        return tuple(self._documents.values())[after_sequence : after_sequence + limit]

    def command(self, command_id: str) -> CommandRecord | None:
        return self._commands.get(command_id)

    def projection(self, name: str, key: str) -> ProjectionRow | None:
        return self._projections.get((name, key))

    def projections(
        self, name: str, *, status: str | None = None, before: ProjectionCursor | None = None, limit: int = PAGE
    ) -> tuple[ProjectionRow, ...]:
        rows = [row for row in self._rows(name) if status is None or row.status == status]
        if before is not None:
            rows = [row for row in rows if (row.sort_key, row.key) < (before.sort_key, before.key)]
        return tuple(sorted(rows, key=lambda row: (row.sort_key, row.key), reverse=True)[:limit])

    def projection_keys(self, name: str, *, after_key: str = "", limit: int = PAGE) -> tuple[ProjectionRow, ...]:
        rows = [row for row in self._rows(name) if row.key > after_key]
        return tuple(sorted(rows, key=lambda row: row.key)[:limit])

    def tree_hashes(self, level: int, first: int, count: int) -> tuple[bytes, ...]:
        """Compute them as RFC 6962 says, from the leaves up."""
        width = TILE**level
        numbers = range(first, min(first + count, len(self._events) // width))
        return tuple(self._root(number * width, (number + 1) * width) for number in numbers)

    def _root(self, first: int, end: int) -> bytes:
        if end - first == 1:
            return self._events[first].leaf_hash
        middle = (first + end) // 2
        return node_hash(self._root(first, middle), self._root(middle, end))

    async def subscribe(self, after_pos: int = 0) -> AsyncGenerator[tuple[StoredEvent, ...], None]:
        while True:
            batch = self.read_all(after_pos)
            if batch:
                after_pos = batch[-1].pos
                yield batch
            else:
                await self._wait()

    async def subscribe_stream(
        self, stream_id: str, after_version: int = 0
    ) -> AsyncGenerator[tuple[StoredEvent, ...], None]:
        while True:
            batch = self.read_stream(stream_id, after_version)
            if batch:
                after_version = batch[-1].version
                yield batch
            else:
                await self._wait()

    def close(self) -> None:
        self._closed = True
        self._tell()

    def _check(self, append: Append) -> None:
        command = append.command
        known = self._commands.get(command.command_id) if command else None
        if command and known:
            if known.request_hash != command.request_hash:
                raise CommandConflict(command.command_id)
            raise DuplicateCommand(known)
        version = self.stream_version(append.stream_id)
        if append.expected_version not in (ANY, version):
            raise VersionConflict(append.stream_id, append.expected_version, version)

    def _keep_rest(self, append: Append) -> None:
        first = self.head() - len(append.events) + 1
        for document in append.documents:
            if document.digest not in self._documents:
                sequence = len(self._documents) + 1
                self._documents[document.digest] = StoredDocument(sequence=sequence, pos=first, document=document)
        if append.command:
            self._commands[append.command.command_id] = append.command
        for row in append.projections:
            self._projections[row.name, row.key] = row

    def _rows(self, name: str) -> list[ProjectionRow]:
        return [row for row in self._projections.values() if row.name == name]

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _wait(self) -> None:
        if self._closed:
            raise StoreClosed("closed")
        await self._news.wait()
