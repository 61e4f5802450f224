"""What the event log on SQLite does for its audit: checkpoints, the tree after restarts and faults, older databases."""

import asyncio
import hashlib
import sqlite3 as stdlib_sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gonogo.merkle import EMPTY_ROOT, leaf_hash, stored_root
from gonogo.notes import open_note
from gonogo.signatures import load_public_key, new_signing_key
from orchestrator.adapters import event_log_sqlite, event_log_writer, migrations
from orchestrator.adapters.audit_key import LogKey
from orchestrator.adapters.event_log_sqlite import Limits, SqliteEventLog
from orchestrator.adapters.sqlite_driver import sqlite3
from orchestrator.service.audit_check import check_all, require_unforked
from orchestrator.service.audit_log import Witnessed
from orchestrator.service.event_leaf import event_leaf
from orchestrator.service.event_log import ANY, Append
from orchestrator.service.event_log_checks import first_bad_event
from orchestrator.service.event_log_errors import EventLogError, StoreUnusable, VersionConflict
from tests.conformance.event_log_suite import a_document, an_append, an_event

GOLDEN = "f8756ef203219b5b3e155f30181b53279347019d6ac249c315f55fca0905c77d"
INLINE, THREAD = Limits(inline_commit_us=10_000_000), Limits(inline_commit_us=0)


@pytest.fixture
def key() -> LogKey:
    return LogKey(new_signing_key())


@pytest.fixture(params=[INLINE, THREAD], ids=["inline", "thread"])
def log(request: pytest.FixtureRequest, tmp_path: Path, key: LogKey) -> Iterator[SqliteEventLog]:
    log = SqliteEventLog(tmp_path / "log.db", signer=key, limits=request.param)
    yield log
    log.close()


def signed(stream_id: str = "mission/1", count: int = 1) -> Append:
    """Return an append that asks for a checkpoint."""
    events = tuple(an_event(number) for number in range(count))
    return Append(stream_id=stream_id, expected_version=ANY, events=events, sign=True)


def require_whole(log: SqliteEventLog, key: LogKey) -> None:
    """Fail unless every event, hash and checkpoint agree."""
    require_unforked(log, key)
    checked = check_all(log, key)
    assert (checked.faults, checked.events) == ([], log.head())


async def test_a_checkpoint_is_stored_with_the_events_that_ask_for_one(log: SqliteEventLog, key: LogKey) -> None:
    """An append that asks for a checkpoint has one over itself when it returns; others make none."""
    await log.append(an_append())
    assert log.newest_checkpoint() is None
    await log.append(signed(count=3))
    newest = log.newest_checkpoint()
    assert newest is not None
    opened = open_note(newest.note, load_public_key(key.public_key), key.origin)
    assert (newest.size, opened.size, opened.root) == (4, 4, stored_root(4, log.tree_hashes))
    require_whole(log, key)


async def test_a_hundred_events_bring_a_checkpoint(log: SqliteEventLog, key: LogKey) -> None:
    """Of many events no more than a hundred are without a checkpoint, without anybody asking for one."""
    for _ in range(25):
        await log.append(an_append(count=10))
    assert [checkpoint.size for checkpoint in log.checkpoints()] == [100, 200]
    require_whole(log, key)


async def test_a_second_brings_a_checkpoint(tmp_path: Path, key: LogKey, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody asked a checkpoint for has one shortly after, and nothing is signed while nothing happens."""
    monkeypatch.setattr(event_log_sqlite, "SIGN_AFTER_SECONDS", 0.02)
    with closing(SqliteEventLog(tmp_path / "log.db", signer=key)) as log:
        await log.append(an_append())
        for _ in range(500):
            await asyncio.sleep(0.02)
            if log.newest_checkpoint() is not None:
                break
        await asyncio.sleep(0.1)
        assert [checkpoint.size for checkpoint in log.checkpoints()] == [1]


async def test_asking_for_a_checkpoint_twice_signs_once(log: SqliteEventLog) -> None:
    """The newest checkpoint is given out again while there is no new event; an empty log has one, too."""
    empty = await log.sign_checkpoint()
    await log.append(an_append())
    first, second = await log.sign_checkpoint(), await log.sign_checkpoint()
    assert (empty.size, first.size, first) == (0, 1, second)
    assert [checkpoint.size for checkpoint in log.checkpoints()] == [0, 1]


async def test_old_checkpoints_are_let_go_of(log: SqliteEventLog, key: LogKey, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest are kept, and the check does not miss those that are gone."""
    monkeypatch.setattr(event_log_writer, "CHECKPOINTS_KEPT", 3)
    monkeypatch.setattr(event_log_writer, "_PRUNE_EVERY", 1)
    for _ in range(10):
        await log.append(an_append())
        await log.sign_checkpoint()
    assert [checkpoint.size for checkpoint in log.checkpoints()] == [7, 8, 9, 10]
    require_whole(log, key)


async def test_the_tree_goes_on_after_reopening(tmp_path: Path, key: LogKey) -> None:
    """The tree of a log that was closed many times is that of one that never was."""
    for _ in range(20):
        with closing(SqliteEventLog(tmp_path / "a.db", signer=key, clock_us=lambda: 1)) as log:
            await log.append(an_append(count=17))
    with (
        closing(SqliteEventLog(tmp_path / "a.db", signer=key)) as parts,
        closing(SqliteEventLog(tmp_path / "b.db", clock_us=lambda: 1)) as whole,
    ):
        for _ in range(20):
            await whole.append(an_append(count=17))
        assert stored_root(340, parts.tree_hashes) == stored_root(340, whole.tree_hashes)
        require_whole(parts, key)


async def test_a_refused_append_leaves_the_tree_alone(log: SqliteEventLog, key: LogKey) -> None:
    """Conflicts and appends that the database refuses leave no trace in the tree, alone or beside others."""
    await log.append(an_append("taken"))
    bad = an_append("bad", count=30)
    object.__setattr__(bad.events[29], "occurred_at_us", 1 << 70)  # what the value itself would have refused
    appends = [signed("a", 20), bad, an_append("taken", 0), signed("b", 20)]
    results = await asyncio.gather(*(log.append(append) for append in appends), return_exceptions=True)
    assert [type(result).__name__ for result in results][1:3] == [StoreUnusable.__name__, VersionConflict.__name__]
    assert log.head() == 41
    require_whole(log, key)


async def test_what_can_not_be_signed_is_not_written(log: SqliteEventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """An append whose checkpoint can not be signed is refused, and nothing of it is there."""

    def broken(_self: LogKey, _size: int, _root: bytes) -> str:
        raise OSError("the key is gone")

    monkeypatch.setattr(LogKey, "sign", broken)
    with pytest.raises(EventLogError):
        await log.append(signed())
    assert (log.head(), log.newest_checkpoint()) == (0, None)
    assert stored_root(0, log.tree_hashes) == EMPTY_ROOT


async def test_documents_and_kept_checkpoints_are_written_beside_the_events(
    log: SqliteEventLog, tmp_path: Path
) -> None:
    """What no event brings is stored by itself, replaced or kept as the port says, and read back."""
    await log.keep_document(a_document())
    await log.keep_document(a_document(signatures='["other"]'))
    assert log.document(a_document().digest) == a_document()
    first = Witnessed(origin="gonogo.local/executor/x", public_key="k", size=1, note="n")
    second = Witnessed(origin="gonogo.local/executor/x", public_key="k", size=2, note="m", fault="it was cut")
    await log.keep_witnessed(first)
    await log.keep_witnessed(second)
    assert log.witnessed() == (second,)
    await log.forget_witnessed(second.origin)
    assert (log.witnessed(), log.head()) == ((), 0)


async def test_a_person_s_sqlite_can_not_change_the_tree_by_a_slip(log: SqliteEventLog, tmp_path: Path) -> None:
    """The tree's hashes are guarded like the events."""
    await log.append(an_append(count=20))
    with closing(stdlib_sqlite3.connect(tmp_path / "log.db")) as connection:
        for slip in ("UPDATE tree_hashes SET number = 7", "DELETE FROM tree_hashes"):
            with pytest.raises(stdlib_sqlite3.IntegrityError):
                connection.execute(slip)


def chained(path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Make a database of the first schema, with a hash chain."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection, monkeypatch.context() as first:
        connection.execute("PRAGMA journal_mode = WAL")
        first.setattr(migrations, "_STEPS", ("0001_event_log",))
        migrations.migrate(connection)
        connection.execute("INSERT INTO streams VALUES (1, 'mission/ü', ?, 1)", (count,))
        previous = bytes(32)
        for pos in range(1, count + 1):
            command, data = (f"c/{pos}" if pos % 2 else None), f'{{"n":{pos},"t":"é"}}'
            fields = (pos, "mission/ü", pos, "step_completed", 1, pos, 9, command or "", "anna", data)
            parts = [previous, *(str(value).encode() for value in fields)]
            previous = hashlib.sha256(b"".join(b"%d:%b" % (len(part), part) for part in parts)).digest()
            row = (pos, 1, pos, "step_completed", 1, pos, 9, command, "anna", data, previous)
            connection.execute(f"INSERT INTO events VALUES ({','.join('?' * 11)})", row)


async def test_a_log_with_a_chain_becomes_one_with_a_tree(
    tmp_path: Path, key: LogKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database of the first schema is brought up to date with all its events, and appending goes on."""
    chained(tmp_path / "log.db", monkeypatch, 100)
    with closing(SqliteEventLog(tmp_path / "log.db", signer=key)) as log:
        assert (log.head(), log.stream_version("mission/ü"), first_bad_event(log)) == (100, 100, None)
        await log.append(signed("mission/ü"))
        require_whole(log, key)


async def test_a_log_with_a_broken_chain_is_not_made_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the chain shows that an event was changed, the log is refused by name and left as it is."""
    path = tmp_path / "log.db"
    chained(path, monkeypatch, 20)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DROP TRIGGER events_are_never_changed")
        connection.execute("UPDATE events SET actor = 'eve' WHERE pos = 7")
    for _ in range(2):
        with pytest.raises(StoreUnusable, match="event 7 "):
            SqliteEventLog(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(hash) FROM events").fetchone() == (20,)


def test_the_bytes_of_a_leaf_never_change() -> None:
    """One leaf and its hash, for ever: an old log must be proved by a new release."""
    event = an_event(7, data='{"text":"Zürich \\"☃\\""}', actor="änna")
    leaf = event_leaf(9, "mission/m-1", 3, event, recorded_at_us=8, command_id=None)
    assert leaf.decode() == (
        r'[9,"mission/m-1",3,"mission_proposed",1,7,8,null,"änna","{\"text\":\"Zürich \\\"☃\\\"\"}"]'
    )
    assert leaf_hash(leaf).hex() == GOLDEN
