"""The conformance suite on each event log, and what only SQLite does: files, watchers, queries, migrations."""

import asyncio
import os
import sqlite3 as stdlib_sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, closing
from itertools import count
from pathlib import Path

import pytest

from orchestrator.adapters.event_log_feed import LoopFeed
from orchestrator.adapters.event_log_reader import SqliteEventReader
from orchestrator.adapters.event_log_sqlite import Limits, SqliteEventLog
from orchestrator.adapters.migrations import migrate
from orchestrator.adapters.sql_files import named_queries, statements
from orchestrator.adapters.sqlite_driver import sqlite3, version_info, wal_reset_fixed
from orchestrator.service.event_log import ANY, Append, EventLog, NewEvent
from orchestrator.service.event_log_checks import first_bad_event
from orchestrator.service.event_log_errors import StoreClosed, StoreLocked, StoreUnusable
from tests.conformance.event_log_memory import MemoryEventLog
from tests.conformance.event_log_on_disk import THREAD_ONLY, log, writable
from tests.conformance.event_log_suite import EventLogSuite, a_document, a_row, an_append, an_event

__all__ = ["log"]


class TestMemory(EventLogSuite):
    @pytest.fixture
    async def log(self) -> AsyncIterator[EventLog]:
        log = MemoryEventLog(count(1).__next__)
        yield log
        log.close()


class TestSqliteInline(EventLogSuite):
    @pytest.fixture
    async def log(self, tmp_path: Path) -> AsyncIterator[EventLog]:
        log = SqliteEventLog(tmp_path / "log.db", limits=Limits(inline_commit_us=10_000_000))
        yield log
        log.close()


class TestSqliteThread(EventLogSuite):
    @pytest.fixture
    async def log(self, tmp_path: Path) -> AsyncIterator[EventLog]:
        log = SqliteEventLog(tmp_path / "log.db", limits=THREAD_ONLY)
        yield log
        log.close()


async def test_the_log_is_there_after_reopening(tmp_path: Path) -> None:
    """What was appended is read after closing and opening again, and pos and chain go on from there."""
    path = tmp_path / "a dir?" / "log#1.db"
    path.parent.mkdir()
    for _ in range(3):
        log = SqliteEventLog(path)
        await log.append(an_append(count=2))
        log.close()
    with SqliteEventReader(path) as reader:
        assert (reader.head(), reader.stream_version("mission/1"), first_bad_event(reader)) == (6, 6, None)
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_second_writer_is_refused(log: SqliteEventLog, tmp_path: Path) -> None:
    """Only one process may write a store; another is refused, and reading beside it is allowed."""
    await log.append(an_append())
    with pytest.raises(StoreLocked):
        SqliteEventLog(tmp_path / "log.db")
    script = (
        "import sys, pathlib\n"
        "from orchestrator.adapters.event_log_sqlite import SqliteEventLog\n"
        "SqliteEventLog(pathlib.Path(sys.argv[1]))\n"
    )
    other = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", script, str(tmp_path / "log.db")], check=False, capture_output=True, text=True,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert "StoreLocked" in other.stderr
    with SqliteEventReader(tmp_path / "log.db") as reader:
        assert reader.head() == 1


async def test_another_file_is_refused(tmp_path: Path) -> None:
    """A file that is no database, another program's database and a missing directory are refused, unchanged."""
    garbage, foreign = tmp_path / "garbage.db", tmp_path / "foreign.db"
    garbage.write_bytes(b"not a database" * 100)
    with closing(writable(foreign)) as connection:
        connection.execute("CREATE TABLE t (x)")
    for path in (garbage, foreign):
        before = path.read_bytes()
        with pytest.raises(StoreUnusable):
            SqliteEventLog(path)
        with pytest.raises(StoreUnusable):
            SqliteEventReader(path)
        assert path.read_bytes() == before
    with pytest.raises(StoreUnusable):
        SqliteEventLog(tmp_path / "missing" / "log.db")
    with pytest.raises(StoreUnusable):
        SqliteEventReader(tmp_path / "missing.db")


async def test_closing_writes_what_was_handed_over(tmp_path: Path) -> None:
    """Appends that the writer has taken are written before the log closes; later ones are told it is closed."""
    log = SqliteEventLog(tmp_path / "log.db", limits=THREAD_ONLY)
    early = [asyncio.create_task(log.append(an_append())) for _ in range(20)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    late = asyncio.create_task(log.append(an_append()))
    await asyncio.sleep(0)
    log.close()
    assert len(await asyncio.gather(*early)) == 20
    with pytest.raises(StoreClosed):
        await late
    with pytest.raises(StoreClosed):
        log.head()


async def test_appends_from_two_loops(log: SqliteEventLog) -> None:
    """A second event loop in another thread appends to the same log, and a watcher here sees all of it in order."""

    async def there() -> None:
        for number in range(50):
            await log.append(an_append(f"there/{number}"))

    async def watch() -> list[int]:
        seen: list[int] = []
        async with asyncio.timeout(10), aclosing(log.subscribe()) as batches:
            async for batch in batches:
                seen += [event.pos for event in batch]
                if len(seen) == 100:
                    break
        return seen

    watcher = asyncio.create_task(watch())
    other = asyncio.create_task(asyncio.to_thread(asyncio.run, there()))
    for number in range(50):
        await log.append(an_append(f"here/{number}"))
        await asyncio.sleep(0)
    await other
    assert await watcher == list(range(1, 101))


async def test_a_slow_watcher_falls_back_to_pages(log: SqliteEventLog) -> None:
    """A watcher that sleeps through more than the tail keeps reads the rest from the database, in order."""
    log._feeds[asyncio.get_running_loop()] = LoopFeed(log, all_kept=4, stream_kept=4)
    for batches in (log.subscribe(), log.subscribe_stream("mission/1")):
        async with aclosing(batches):
            before = log.head()
            await log.append(an_append())
            cursor = 0
            while cursor < before + 1:
                cursor += len(await anext(batches))
            for _ in range(40):
                await log.append(an_append())
            numbers: list[int] = []
            while len(numbers) < 40:
                numbers += [event.version for event in await anext(batches)]
            assert numbers == list(range(cursor + 1, cursor + 41))


async def test_other_streams_do_not_wake_a_watcher(log: SqliteEventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """While only one mission is watched, events of others are not even built."""
    async with aclosing(log.subscribe_stream("mission/1")) as batches:
        waiting = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0)
        monkeypatch.setattr("orchestrator.adapters.event_log_writer.Written.events", lambda _: pytest.fail("built"))
        for number in range(2, 50):
            await log.append(an_append(f"mission/{number}"))
        assert not waiting.done()
        monkeypatch.undo()
        await log.append(an_append("mission/1"))
        assert [event.version for event in await waiting] == [1]
    assert log._feeds[asyncio.get_running_loop()].idle


async def test_no_read_keeps_the_wal(log: SqliteEventLog, tmp_path: Path) -> None:
    """With a watcher in the middle of its pages the WAL is still checkpointed and stays small."""
    await log.append(an_append(count=3))
    async with aclosing(log.subscribe()) as batches:
        await anext(batches)
        log.read_all()
        text = '{"x":"' + "y" * 20_000 + '"}'
        for _ in range(1200):
            await log.append(Append(stream_id="m", expected_version=ANY, events=(an_event(data=text),)))
        assert (tmp_path / "log.db-wal").stat().st_size < 24 << 20


async def test_every_query_uses_an_index(log: SqliteEventLog, tmp_path: Path) -> None:
    """No query of the hot paths scans a table or sorts."""
    with closing(writable(tmp_path / "log.db")) as connection:
        for name, query in named_queries("event_log.sql").items():
            parameters = [1] * query.count("?")
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", parameters)]
            scans = [step for step in plan if step.startswith("SCAN") and step != "SCAN CONSTANT ROW"]
            unbounded = [step for step in scans if name != "writer_state"]
            assert (name, unbounded, [step for step in plan if "TEMP B-TREE" in step]) == (name, [], [])


def test_a_failing_migration_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration that fails in the middle is rolled back whole and can be run again."""
    good = statements("0001_event_log.sql")
    monkeypatch.setattr("orchestrator.adapters.migrations.statements", lambda _: [*good[:4], "CREATE NONSENSE"])
    with closing(writable(tmp_path / "log.db")) as connection:
        with pytest.raises(sqlite3.OperationalError):
            migrate(connection)
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        assert tables == ["_sqlite_migrations"]
        monkeypatch.undo()
        assert migrate(connection) == ["0001_event_log", "0002_audit_tree", "0003_signals"]
        assert migrate(connection) == []


async def test_a_person_reads_it_with_sqlite3(log: SqliteEventLog, tmp_path: Path) -> None:
    """The plain library of Python opens the file read-only and reads data with JSON functions."""
    await log.append(an_append(count=2))
    with closing(stdlib_sqlite3.connect(f"file:{tmp_path / 'log.db'}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT stream_id, json_extract(data, '$.n') FROM event_log ORDER BY pos").fetchall()
    assert rows == [("mission/1", 1), ("mission/1", 2)]


@pytest.mark.parametrize(
    ("version", "fixed"),
    [
        ((3, 6, 23), False),
        ((3, 40, 1), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 50, 6), False),
        ((3, 50, 7), True),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 52, 0), False),
        ((3, 53, 4), True),
        ((4, 0, 0), True),
    ],
)
def test_the_wal_reset_fault_is_known_by_version(version: tuple[int, int, int], *, fixed: bool) -> None:
    """A version counts as fixed from the release of its branch that carries the fix, and not before."""
    assert wal_reset_fixed(version) is fixed
    assert version_info == sqlite3.sqlite_version_info


@pytest.mark.parametrize(
    "data",
    [
        "",
        "[]",
        "{",
        '{"a":NaN}',
        '{"a":1}\n',
        '{"a":"\ud800"}',
        "{}{}",
        '{"a":' * 100_000,
        '{"x":"' + "y" * (1 << 20) + '"}',
    ],
    ids=["empty", "list", "cut", "nan", "newline", "surrogate", "two", "deep", "large"],
)
def test_data_that_is_no_json_object_is_refused(data: str) -> None:
    """An event's data is one JSON object on one line, within its size."""
    with pytest.raises(ValueError, match="data"):
        NewEvent(type="t", schema_version=1, occurred_at_us=1, actor="a", data=data)


def test_values_out_of_range_are_refused() -> None:
    """Empty appends, empty or unprintable names, and a digest that is not the body's never become values."""
    for wrong in (
        lambda: Append(stream_id="m", expected_version=0, events=()),
        lambda: an_append(""),
        lambda: an_append("a\x00b"),
        lambda: an_append("m", -2),
        lambda: a_row("k", data="nonsense"),
        lambda: an_event(actor=""),
        lambda: a_document(signatures="{"),
        lambda: type(a_document())(digest="sha256:0", media_type="x", body=b"", signatures="[]"),
    ):
        with pytest.raises(ValueError, match=r"."):
            wrong()
