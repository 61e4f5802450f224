"""The event log on SQLite: one writer, group commit, reads beside it.

How an append travels. All appends that come in during one turn of the event loop are one group. When nothing else is
being written and commits have lately been quick, the loop commits the group itself: handing it to the writer thread
and back costs about a third of a commit on a fast disk. Otherwise the writer thread takes the group together with
whatever else is waiting, without lingering for more; on a slow disk that keeps the loop free, and the slower the
disk the larger the groups. Either way one lock is held around the one write connection, and appends are written in
the order in which they came.

What is written beside the appends (a checkpoint when none was signed for a second, what is kept of other logs) is done
by the writer thread, in transactions of their own that no append waits for unless it comes at that very moment.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import queue
import threading
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from orchestrator.adapters.event_log_feed import LoopFeed
from orchestrator.adapters.event_log_reader import SqliteEventReader
from orchestrator.adapters.event_log_writer import BatchWriter, Outcome, Written
from orchestrator.adapters.migrations import APPLICATION_ID, migrate
from orchestrator.adapters.sql_files import log_queries
from orchestrator.adapters.sqlite_driver import sqlite3
from orchestrator.service.audit_log import CheckpointSigner, SignedCheckpoint, Witnessed
from orchestrator.service.event_log import Append, Appended, Document, StoredEvent
from orchestrator.service.event_log_errors import (
    EventLogError,
    StoreBusy,
    StoreClosed,
    StoreLocked,
    StoreOverloaded,
    StoreUnusable,
)

T = TypeVar("T")

SIGN_AFTER_SECONDS: Final = 1.0
_LARGEST_GROUP: Final = 256
_BUSY_WAIT_SECONDS: Final = 5.0
_CHECKPOINT_EVERY_APPENDS: Final = 256
_CHECKPOINT_EVERY_BYTES: Final = 8 << 20
_PRAGMAS: Final = (
    "PRAGMA busy_timeout = 5000",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA recursive_triggers = ON",  # without it INSERT OR REPLACE walks past the append-only triggers
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cache_size = -65536",
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA wal_autocheckpoint = 10000",  # the writer thread checkpoints long before, so that no append pays for it
)


_log = logging.getLogger(__name__)


def _now_us() -> int:
    return time.time_ns() // 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What may wait, and up to which commit time the event loop commits by itself (0: never)."""

    waiting_appends: int = 4096
    waiting_bytes: int = 128 << 20
    inline_commit_us: int = 1000


@dataclass(frozen=True, slots=True)
class _Ticket:
    append: Append
    size: int
    future: asyncio.Future[Appended]
    loop: asyncio.AbstractEventLoop


class _Order(Enum):
    CHECKPOINT = auto()
    SIGN = auto()
    STOP = auto()


@dataclass(frozen=True, slots=True)
class _Chore:
    """A write beside the appends, and who waits for it."""

    work: Callable[[BatchWriter], Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


_Work: TypeAlias = list[_Ticket] | _Order | _Chore


class SqliteEventLog(SqliteEventReader):
    """`EventLog` and `AuditLog` on one SQLite file."""

    def __init__(
        self,
        path: Path,
        *,
        signer: CheckpointSigner | None = None,
        limits: Limits | None = None,
        clock_us: Callable[[], int] = _now_us,
    ) -> None:
        """Opens the log for writing, makes it where there is none, and brings it to the newest schema.

        Without a signer the tree grows all the same, and no checkpoint is made.

        Raises:
            StoreLocked: Another process, or this one, has it open for writing.
            StoreUnusable: The file can not be opened or is something else.
            LogForked: Its tree is not whole.
        """
        self._limits = limits or Limits()
        self._signer = signer
        self._lock_file = _take_lock(path)
        try:
            self._writer = BatchWriter(_open_for_writing(path), log_queries(), clock_us, signer)
            super().__init__(path)
        except BaseException:
            _release_lock(self._lock_file)
            raise
        self._gate = threading.Lock()  # guards the five values below
        self._stopped = False
        self._waiting = 0
        self._waiting_bytes = 0
        self._handed_over = 0
        self._unchecked = [0, 0]  # appends and bytes since the last checkpoint
        self._commit_us = 0.0
        self._writing = threading.Lock()  # held around every use of the write connection
        self._turns: dict[asyncio.AbstractEventLoop, list[_Ticket]] = {}
        self._feeds: dict[asyncio.AbstractEventLoop, LoopFeed] = {}
        self._work: queue.SimpleQueue[_Work] = queue.SimpleQueue()
        self._sign_at = time.monotonic() + SIGN_AFTER_SECONDS if signer is not None else None
        self._thread = threading.Thread(target=self._write_forever, name="event-log-writer", daemon=True)
        self._thread.start()

    async def append(self, append: Append) -> Appended:
        loop = asyncio.get_running_loop()
        ticket = _Ticket(append, append.size(), loop.create_future(), loop)
        self._take_in(ticket)
        turn = self._turns.get(loop)
        if turn is None:
            self._turns[loop] = [ticket]
            loop.call_soon(self._end_turn, loop)
        else:
            turn.append(ticket)
        return await ticket.future

    def subscribe(self, after_pos: int = 0) -> AsyncGenerator[tuple[StoredEvent, ...], None]:
        return self._feed().follow(None, after_pos)

    def subscribe_stream(self, stream_id: str, after_version: int = 0) -> AsyncGenerator[tuple[StoredEvent, ...], None]:
        return self._feed().follow(stream_id, after_version)

    @property
    def signer(self) -> CheckpointSigner:
        if self._signer is None:
            raise StoreUnusable("this log was opened without a key for its checkpoints")
        return self._signer

    async def sign_checkpoint(self) -> SignedCheckpoint:
        return await self._aside(BatchWriter.sign)

    async def keep_document(self, document: Document) -> None:
        await self._aside(lambda writer: writer.keep_document(document))

    async def keep_witnessed(self, kept: Witnessed) -> None:
        await self._aside(lambda writer: writer.keep_witnessed(kept))

    async def forget_witnessed(self, origin: str) -> None:
        await self._aside(lambda writer: writer.forget_witnessed(origin))

    async def _aside(self, work: Callable[[BatchWriter], T]) -> T:
        """Have the writer thread do something beside the appends."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._gate:
            if self._stopped:
                raise StoreClosed("the event log is closed")
            self._work.put(_Chore(work, future, loop))
        return await future

    def close(self) -> None:
        with self._gate:
            if self._stopped:
                return
            self._stopped = True
            self._work.put(_Order.STOP)
        self._thread.join()
        super().close()
        with self._writing:
            self._writer.close()
        for loop, feed in self._feeds.items():
            with contextlib.suppress(RuntimeError):  # a loop that is closed has no watchers left
                loop.call_soon_threadsafe(feed.close)
        _release_lock(self._lock_file)

    def _take_in(self, ticket: _Ticket) -> None:
        limits = self._limits
        with self._gate:
            if self._stopped:
                raise StoreClosed("the event log is closed")
            if self._waiting >= limits.waiting_appends:
                raise StoreOverloaded(f"{self._waiting} appends are waiting to be written")
            # One that is larger than the limit itself must get its turn when it is alone.
            if self._waiting and self._waiting_bytes + ticket.size > limits.waiting_bytes:
                raise StoreOverloaded(f"{self._waiting_bytes} bytes are waiting to be written")
            self._waiting += 1
            self._waiting_bytes += ticket.size

    def _end_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        group = self._turns.pop(loop)
        if self._commit_inline(group, loop):
            return
        with self._gate:
            if not self._stopped:
                self._handed_over += 1
                self._work.put(group)
                return
        closed = StoreClosed("the event log was closed before this was written")
        self._finish(group, [closed] * len(group), here=loop)

    def _commit_inline(self, group: list[_Ticket], loop: asyncio.AbstractEventLoop) -> bool:
        if self._handed_over or self._commit_us >= self._limits.inline_commit_us:
            return False
        if not self._writing.acquire(blocking=False):
            return False
        try:
            if self._stopped:
                return False
            outcomes = self._write(group, wait_seconds=0.0)
        finally:
            self._writing.release()
        if all(isinstance(outcome, StoreBusy) for outcome in outcomes):
            return False  # the thread can wait for the lock; the loop can not
        self._finish(group, outcomes, here=loop)
        return True

    def _write_forever(self) -> None:
        while True:
            waited_for = self._next_work()
            work = self._write_waiting(waited_for) if isinstance(waited_for, list) else waited_for
            if work is _Order.STOP:
                if self._signer is not None:
                    self._sign_what_is_new()  # so that the next start is checked against everything
                return
            if work is _Order.CHECKPOINT:
                with self._writing:
                    self._writer.checkpoint()
            elif work is _Order.SIGN:
                self._sign_what_is_new()
            elif isinstance(work, _Chore):
                self._do(work)

    def _next_work(self) -> _Work:
        """Wait for work; a second after the last time it is to sign what has come since."""
        if self._sign_at is None:
            return self._work.get()
        try:
            return self._work.get(timeout=max(0.0, self._sign_at - time.monotonic()))
        except queue.Empty:
            self._sign_at = time.monotonic() + SIGN_AFTER_SECONDS
            return _Order.SIGN

    def _sign_what_is_new(self) -> None:
        try:
            with self._writing:
                if self._writer.has_grown:
                    self._writer.sign()
        except EventLogError as error:  # the next append will say the same to somebody
            _log.warning("no checkpoint could be signed: %s", error)

    def _do(self, chore: _Chore) -> None:
        result: Any = None
        fault: Exception | None = None
        try:
            with self._writing:
                result = chore.work(self._writer)
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            fault = error
        with contextlib.suppress(RuntimeError):  # nobody waits in a closed loop
            chore.loop.call_soon_threadsafe(_answer, chore.future, result, fault)

    def _write_waiting(self, group: list[_Ticket]) -> _Order | _Chore | None:
        """Writes a group and what waits behind it; returns what ended the collecting, if something did."""
        handed_over = 1
        order: _Order | _Chore | None = None
        while len(group) < _LARGEST_GROUP and order is None:
            try:
                work = self._work.get_nowait()
            except queue.Empty:
                break
            if isinstance(work, list):
                group += work
                handed_over += 1
            else:
                order = work
        with self._writing:
            outcomes = self._write(group, wait_seconds=_BUSY_WAIT_SECONDS)
        with self._gate:
            self._handed_over -= handed_over
        self._finish(group, outcomes, here=None)
        return order

    def _write(self, group: list[_Ticket], *, wait_seconds: float) -> list[Outcome]:
        started = time.perf_counter_ns()
        outcomes = self._writer.write([ticket.append for ticket in group], wait_seconds=wait_seconds)
        elapsed_us = (time.perf_counter_ns() - started) / 1000
        self._commit_us += (elapsed_us - self._commit_us) / 4
        return outcomes

    def _finish(
        self, group: list[_Ticket], outcomes: Sequence[Outcome], *, here: asyncio.AbstractEventLoop | None
    ) -> None:
        self._count_off(group)
        answers: dict[asyncio.AbstractEventLoop, list[tuple[_Ticket, Outcome]]] = defaultdict(list)
        for ticket, outcome in zip(group, outcomes, strict=True):
            answers[ticket.loop].append((ticket, outcome))
        written = [outcome for outcome in outcomes if isinstance(outcome, Written)]
        watching = [loop for loop, feed in tuple(self._feeds.items()) if not feed.idle]
        for loop in {*answers, *watching}:
            if loop is here:
                self._arrive(loop, answers[loop], written)
            else:
                with contextlib.suppress(RuntimeError):  # nobody waits in a closed loop
                    loop.call_soon_threadsafe(self._arrive, loop, answers[loop], written)

    def _count_off(self, group: list[_Ticket]) -> None:
        size = sum(ticket.size for ticket in group)
        with self._gate:
            self._waiting -= len(group)
            self._waiting_bytes -= size
            self._unchecked[0] += len(group)
            self._unchecked[1] += size
            if self._unchecked[0] >= _CHECKPOINT_EVERY_APPENDS or self._unchecked[1] >= _CHECKPOINT_EVERY_BYTES:
                self._unchecked = [0, 0]
                self._work.put(_Order.CHECKPOINT)

    def _arrive(
        self, loop: asyncio.AbstractEventLoop, answers: list[tuple[_Ticket, Outcome]], written: list[Written]
    ) -> None:
        for ticket, outcome in answers:
            if ticket.future.done():  # the caller was cancelled
                continue
            if isinstance(outcome, Written):
                ticket.future.set_result(outcome.appended)
            else:
                ticket.future.set_exception(outcome)
        feed = self._feeds.get(loop)
        if feed is not None:
            feed.publish(written)

    def _feed(self) -> LoopFeed:
        loop = asyncio.get_running_loop()
        feed = self._feeds.get(loop)
        if feed is None:
            for gone in [known for known in tuple(self._feeds) if known.is_closed()]:
                self._feeds.pop(gone, None)
            feed = self._feeds[loop] = LoopFeed(self)
        return feed


def _answer(future: asyncio.Future[Any], result: Any, fault: Exception | None) -> None:
    if future.done():  # the caller was cancelled
        return
    if fault is None:
        future.set_result(result)
    else:
        future.set_exception(fault)


def _release_lock(lock_file: int) -> None:
    """Let go of the lock itself: a child process that is just being started may have the descriptor, too."""
    fcntl.flock(lock_file, fcntl.LOCK_UN)
    os.close(lock_file)


def _take_lock(path: Path) -> int:
    """Holds the right to write for as long as the descriptor is open; the kernel lets go when the process dies."""
    try:
        lock_file = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreUnusable(f"{path.name} can not be opened: {error.strerror}") from error
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock_file)
        raise StoreLocked(f"{path.name} is open for writing elsewhere") from error
    return lock_file


def _open_for_writing(path: Path) -> sqlite3.Connection:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite gives its WAL the same mode
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        _prepare(connection, path.name)
    except (OSError, sqlite3.Error) as error:
        raise StoreUnusable(f"{path.name} can not be opened: {error}") from error
    return connection


def _prepare(connection: sqlite3.Connection, name: str) -> None:
    application_id, tables = connection.execute(
        "SELECT (SELECT application_id FROM pragma_application_id), (SELECT count(*) FROM sqlite_schema)"
    ).fetchone()
    if application_id != APPLICATION_ID and (application_id or tables):
        raise StoreUnusable(f"{name} is a database, but not an event log")
    for pragma in _PRAGMAS:
        connection.execute(pragma).fetchall()
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        raise StoreUnusable(f"{name} can not be kept in WAL mode on this file system")
    migrate(connection)
    connection.execute("PRAGMA busy_timeout = 0").fetchall()  # waiting is the writer's decision from here on
