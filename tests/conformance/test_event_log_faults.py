"""The event log on SQLite when something is wrong: changed rows, too much at once, another writer, a bad disk."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.adapters import event_log_sqlite
from orchestrator.adapters.event_log_reader import SqliteEventReader
from orchestrator.adapters.event_log_sqlite import Limits, SqliteEventLog
from orchestrator.adapters.sqlite_driver import sqlite3
from orchestrator.service.event_log import ANY, Append
from orchestrator.service.event_log_checks import first_bad_event
from orchestrator.service.event_log_errors import StoreBusy, StoreFailed, StoreFull, StoreOverloaded, StoreUnusable
from tests.conformance.event_log_on_disk import THREAD_ONLY, log, writable
from tests.conformance.event_log_suite import a_document, a_row, an_append, an_event

__all__ = ["log"]


async def test_events_can_not_be_changed_by_a_slip(log: SqliteEventLog, tmp_path: Path) -> None:
    """Update, delete and replace of events and documents are refused by the database itself."""
    await log.append(Append(stream_id="m", expected_version=ANY, events=(an_event(),), documents=(a_document(),)))
    with closing(writable(tmp_path / "log.db")) as connection:
        connection.execute("PRAGMA recursive_triggers = ON")
        for slip in (
            "UPDATE events SET data = '{}'",
            "DELETE FROM events",
            "REPLACE INTO events SELECT * FROM events",
            "UPDATE documents SET signatures = '[1]'",
            "DELETE FROM documents",
        ):
            with pytest.raises(sqlite3.IntegrityError):
                connection.execute(slip)
    assert first_bad_event(log) is None


@pytest.mark.parametrize(
    ("change", "first_bad"),
    [
        ("UPDATE events SET data = '{\"n\":9}' WHERE pos = 3", 3),
        ("UPDATE events SET actor = 'eve' WHERE pos = 2", 2),
        ("UPDATE events SET occurred_at_us = 99 WHERE pos = 4", 4),
        ("DELETE FROM events WHERE pos = 2", 2),
        ("DELETE FROM events WHERE pos = 5", 5),
        ("UPDATE streams SET stream_id = 'mission/2'", 1),
    ],
)
async def test_tampering_is_found(log: SqliteEventLog, tmp_path: Path, change: str, first_bad: int) -> None:
    """The check names the first event that is not what was written."""
    await log.append(an_append(count=5))
    with closing(writable(tmp_path / "log.db")) as connection:
        for trigger in ("events_are_never_changed", "events_are_never_deleted"):
            connection.execute(f"DROP TRIGGER {trigger}")
        connection.execute(change)
    assert first_bad_event(log) == first_bad


async def test_a_damaged_document_is_not_handed_out(log: SqliteEventLog, tmp_path: Path) -> None:
    """A body that no longer has its digest is an error, not a document."""
    await log.append(Append(stream_id="m", expected_version=ANY, events=(an_event(),), documents=(a_document(),)))
    with closing(writable(tmp_path / "log.db")) as connection:
        connection.execute("DROP TRIGGER documents_are_never_changed")
        connection.execute("UPDATE documents SET body = x'00'")
    with pytest.raises(StoreUnusable):
        log.document(a_document().digest)


async def test_too_much_waiting_is_refused(tmp_path: Path) -> None:
    """Beyond the limits an append is refused with a reason, those that were taken in are written, and it recovers."""
    limits = Limits(waiting_appends=4, inline_commit_us=0)
    with closing(SqliteEventLog(tmp_path / "log.db", limits=limits)) as log:
        results = await asyncio.gather(*(log.append(an_append()) for _ in range(10)), return_exceptions=True)
        assert [type(result).__name__ for result in results] == ["Appended"] * 4 + ["StoreOverloaded"] * 6
        await log.append(an_append())
        assert log.head() == 5


async def test_too_many_bytes_waiting_are_refused(tmp_path: Path) -> None:
    """One append larger than the limit is taken when it is alone; a second beside it is refused."""
    big = Append(
        stream_id="m",
        expected_version=ANY,
        events=(an_event(),),
        documents=(a_document(b'{"x":"' + b"y" * 9000 + b'"}'),),
    )
    with closing(SqliteEventLog(tmp_path / "log.db", limits=Limits(waiting_bytes=1000))) as log:
        results = await asyncio.gather(log.append(big), log.append(big), return_exceptions=True)
        assert isinstance(results[1], StoreOverloaded)
        assert log.head() == 1


async def test_another_writer_is_waited_for_by_the_thread(
    log: SqliteEventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another program holds the lock the loop stays free; the append goes through, or is refused in the end."""
    monkeypatch.setattr(event_log_sqlite, "_BUSY_WAIT_SECONDS", 0.3)
    with closing(writable(tmp_path / "log.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(log.append(an_append()))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        other.execute("ROLLBACK")
        await waiting
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy):
            await log.append(an_append())
        other.execute("ROLLBACK")
    await log.append(an_append())
    assert (log.head(), first_bad_event(log)) == (2, None)


async def test_one_bad_append_does_not_cost_its_neighbours(log: SqliteEventLog) -> None:
    """An append that the database refuses for its content fails alone; those written with it are written."""
    bad = an_append("bad")
    object.__setattr__(bad.events[0], "occurred_at_us", 1 << 70)  # what the value itself would have refused
    appends = [an_append("a"), bad, an_append("b"), an_append("c")]
    results = await asyncio.gather(*(log.append(append) for append in appends), return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["Appended", "StoreUnusable", "Appended", "Appended"]
    assert ([event.stream_id for event in log.read_all()], first_bad_event(log)) == (["a", "b", "c"], None)


class _FailingCommit:
    """A connection whose next COMMIT fails the way a failing disk makes it fail."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: tuple[object, ...] = ()) -> sqlite3.Cursor:
        if sql == "COMMIT":
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR | (4 << 8)  # its detail says: fsync
            raise error
        return self._connection.execute(sql, parameters)

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)


async def test_a_failing_disk_stops_the_store(log: SqliteEventLog) -> None:
    """After an I/O error at COMMIT the outcome is unknown, nothing more is taken, and reading still works."""
    await log.append(an_append())
    log._writer._connection = _FailingCommit(log._writer._connection)  # type: ignore[assignment] # simulates the disk
    for _ in range(2):
        with pytest.raises(StoreFailed):
            await log.append(an_append())
    log._writer._connection = log._writer._connection._connection  # type: ignore[attr-defined] # the disk is back
    with pytest.raises(StoreFailed):
        await log.append(an_append())
    assert log.head() == 1


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("a file system of 3 MB to fill can only be mounted by root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], check=False, capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a tmpfs can not be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("limits", [Limits(), THREAD_ONLY], ids=["inline", "thread"])
async def test_a_full_disk_loses_nothing(tiny_disk: Path, limits: Limits) -> None:
    """On a full disk appends fail with a remedy, what was acknowledged stays, and with room again it goes on."""
    ballast = tiny_disk / "ballast"
    ballast.write_bytes(bytes(1 << 20))
    log = SqliteEventLog(tiny_disk / "log.db", limits=limits)
    text = '{"x":"' + "y" * 4000 + '"}'
    written, failures = 0, 0
    while failures < 3:
        appends = [
            Append(
                stream_id=f"m/{written}/{n}",
                expected_version=0,
                events=(an_event(data=text),),
                projections=(a_row("k"),),
            )
            for n in range(8)
        ]
        results = await asyncio.gather(*(log.append(append) for append in appends), return_exceptions=True)
        written += sum(not isinstance(result, BaseException) for result in results)
        problems = [result for result in results if isinstance(result, BaseException)]
        assert all(isinstance(problem, StoreFull) and "Free space" in problem.remedy for problem in problems)
        failures += bool(problems)
    assert (log.head(), first_bad_event(log)) == (written, None)
    ballast.unlink()
    await log.append(an_append())
    log.close()
    with SqliteEventReader(tiny_disk / "log.db") as reader:
        assert (reader.head(), first_bad_event(reader)) == (written + 1, None)


async def test_a_cancelled_caller_disturbs_nobody(log: SqliteEventLog) -> None:
    """A caller that goes away leaves the store and its neighbours working."""
    tasks = [asyncio.create_task(log.append(an_append(f"m/{number}"))) for number in range(8)]
    await asyncio.sleep(0)
    tasks[3].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(result, asyncio.CancelledError) for result in results].count(True) == 1
    await log.append(an_append())
    assert first_bad_event(log) is None


async def test_an_unforeseen_fault_is_answered(log: SqliteEventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong in the writer, the caller gets an answer and the store takes no more."""

    def unforeseen() -> None:
        raise KeyError

    monkeypatch.setattr(log._writer, "_commit", unforeseen)
    with pytest.raises(StoreFailed):
        await log.append(an_append())
    monkeypatch.undo()
    with pytest.raises(StoreFailed):
        await log.append(an_append())
