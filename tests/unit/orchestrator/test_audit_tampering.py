"""Attacks on the event log's file: edit, drop, truncate, rewrite, fork. Each is found, and named.

What is found by what: a slip or a clumsy change by the log itself; a careful one, by somebody who has the file and the
key and makes everything agree again, only by a checkpoint that the executor or an approver's client keeps.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from gonogo.merkle import Frontier, leaf_hash, verify_consistency
from gonogo.notes import Checkpoint, checkpoint_text, open_note, sign_note
from gonogo.signatures import load_public_key, load_signing_key
from orchestrator.adapters.event_log_reader import SqliteEventReader
from orchestrator.adapters.sqlite_driver import sqlite3
from orchestrator.bootstrap import open_log
from orchestrator.domain.errors import OrchestratorError, Reason
from orchestrator.service.audit_check import Checked, check_all, check_kept
from orchestrator.service.event_leaf import stored_leaf
from orchestrator.service.event_log_checks import all_events
from orchestrator.service.event_log_errors import LogForked
from tests.fakes.executor_simulator import Approver, ExecutorSimulator
from tests.fakes.orchestrator_house import House, log_key

TRIGGERS = (
    "events_are_never_changed",
    "events_are_never_deleted",
    "tree_hashes_are_never_changed",
    "tree_hashes_are_never_deleted",
)


def database(house: House) -> Path:
    return house.folder / "orchestrator" / "events.db"


@contextmanager
def attacked(house: House) -> Iterator[sqlite3.Connection]:
    """Open a closed house's file as somebody who has it, and close it again."""
    with closing(sqlite3.connect(database(house), isolation_level=None)) as connection:
        for trigger in TRIGGERS:
            connection.execute(f"DROP TRIGGER {trigger}")
        yield connection


def make_agree(house: House, connection: sqlite3.Connection) -> None:
    """Write every hash and a checkpoint anew, so that nothing in the file tells that an event was changed."""
    key = load_signing_key((house.folder / "keys" / "orchestrator").read_bytes())
    connection.execute("DELETE FROM tree_hashes")
    connection.execute("DELETE FROM checkpoints")
    tree = Frontier()
    with closing(SqliteEventReader(database(house))) as reader:
        for event in all_events(reader):
            hashed = leaf_hash(stored_leaf(event))
            connection.execute("UPDATE events SET leaf_hash = ? WHERE pos = ?", (hashed, event.pos))
            for tile in tree.append(hashed):
                connection.execute("INSERT INTO tree_hashes VALUES (?, ?, ?)", (tile.level, tile.index, tile.root))
    name = log_key(house.folder).origin
    note = sign_note(checkpoint_text(name, tree.size, tree.root()), key, name)
    connection.execute("INSERT INTO checkpoints VALUES (?, ?, 1)", (tree.size, note))


def checked(house: House) -> Checked:
    """Check a closed house's log whole."""
    with closing(SqliteEventReader(database(house))) as reader:
        return check_all(reader, log_key(house.folder))


async def lived(house: House) -> int:
    """Have a house execute two missions and close; return how many events there are then."""
    for _ in range(2):
        await house.execute(await house.approved())
    await house.orchestrator.witness.exchange()
    await house.log.sign_checkpoint()
    events = house.log.head()
    await house.close()
    return events


async def refused(house: House) -> OrchestratorError:
    """Open a house again, have it ask for a dry run, and return why it is refused."""
    again = House(house.folder, house.executor, house.approver)
    try:
        with pytest.raises(OrchestratorError) as caught:
            await again.dry_run(await again.proposed())
        assert again.executor.calls.count("dry_run") == 2, "only those of the two missions before"
        return caught.value
    finally:
        await again.close()


@pytest.fixture
async def house(tmp_path: Path) -> House:
    """A house that every test closes itself."""
    approver = Approver()
    return House(tmp_path, ExecutorSimulator(approver), approver)


async def test_a_log_that_nobody_touched_is_good(house: House) -> None:
    """Without an attack the check finds nothing, and the next life begins and dry-runs."""
    events = await lived(house)
    found = checked(house)
    assert (found.faults, found.events, found.first_bad_event) == ([], events, None)
    again = House(house.folder, house.executor, house.approver)
    await again.dry_run(await again.proposed())
    assert again.orchestrator.witness.fault == ""
    await again.close()


async def test_an_edited_event_is_named(house: House) -> None:
    """What an event says was changed: the full check names that event."""
    await lived(house)
    with attacked(house) as connection:
        connection.execute("UPDATE events SET actor = 'somebody else' WHERE pos = 9")
    found = checked(house)
    assert found.first_bad_event == 9
    assert found.faults[0] == "event 9 is not what was written"
    with pytest.raises(LogForked, match="event 9 "):
        open_log(database(house), log_key(house.folder))


async def test_an_edited_event_with_its_hash_is_found(house: House) -> None:
    """The event's hash was changed with it: its place in the tree no longer fits, and the service does not start."""
    await lived(house)
    with attacked(house) as connection:
        connection.execute("UPDATE events SET actor = 'somebody else' WHERE pos = 9")
        with closing(SqliteEventReader(database(house))) as reader:
            hashed = leaf_hash(stored_leaf(reader.read_all(8, 1)[0]))
        connection.execute("UPDATE events SET leaf_hash = ? WHERE pos = 9", (hashed,))
    found = checked(house)
    assert found.first_bad_event is not None
    assert found.first_bad_event <= 9
    assert found.faults


async def test_a_dropped_event_is_named(house: House) -> None:
    """An event was taken out: the check names its place, and the service does not start."""
    await lived(house)
    with attacked(house) as connection:
        connection.execute("DELETE FROM events WHERE pos = 12")
    assert checked(house).first_bad_event == 12
    with pytest.raises(LogForked):
        open_log(database(house), log_key(house.folder))


async def test_a_cut_log_does_not_start(house: House) -> None:
    """The last events were cut off: the stored checkpoint is over more of them than there are."""
    events = await lived(house)
    with attacked(house) as connection:
        connection.execute("DELETE FROM events WHERE pos > 20")
        connection.execute("DELETE FROM tree_hashes WHERE (number + 1) * 16 > 20 OR level > 1")
    assert checked(house).faults[-1].startswith("the last events of") or checked(house).first_bad_event == 21
    with pytest.raises(LogForked, match=f"over {events} events"):
        open_log(database(house), log_key(house.folder))


def cut(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM events WHERE pos > 20")


def drop(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM events WHERE pos = 20")
    connection.execute("UPDATE events SET pos = -pos WHERE pos > 20")
    connection.execute("UPDATE events SET pos = -pos - 1 WHERE pos < 0")


def edit(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE events SET actor = 'somebody else' WHERE pos = 9")


def rewrite(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE events SET occurred_at_us = occurred_at_us + 1")


CAREFUL: dict[str, Callable[[sqlite3.Connection], None]] = {
    "edit": edit,
    "drop": drop,
    "truncate": cut,
    "rewrite": rewrite,
}


@pytest.mark.parametrize("attack", sorted(CAREFUL))
async def test_a_careful_attack_is_found_by_what_the_executor_keeps(house: House, attack: str) -> None:
    """Hashes, tree and checkpoints were made to agree: the executor's kept checkpoint tells, and nothing is dry run."""
    await lived(house)
    with attacked(house) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        CAREFUL[attack](connection)
        make_agree(house, connection)
    error = await refused(house)
    assert error.reason is Reason.AUDIT_FORKED
    assert "executor" in error.message
    assert "audit forget" in error.remedy


@pytest.mark.parametrize("attack", sorted(CAREFUL))
async def test_a_careful_attack_is_found_by_what_a_client_keeps(house: House, attack: str) -> None:
    """An approver's client keeps a checkpoint: what the orchestrator shows it later does not continue that one."""
    shown = await house.orchestrator.audit.own_log(0)
    events = await lived(house)
    public, name = load_public_key(shown.public_key), log_key(house.folder).origin
    with closing(open_log(database(house), log_key(house.folder))) as log:
        note = (await log.sign_checkpoint()).note
        kept = open_note(note, public, name)
    with attacked(house) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        CAREFUL[attack](connection)
        make_agree(house, connection)
    with closing(SqliteEventReader(database(house))) as reader:
        assert check_kept(reader, log_key(house.folder), note), "an operator who is given the checkpoint sees it, too"

    again = House(house.folder, ExecutorSimulator(house.approver), house.approver)
    try:
        assert await names_the_fork(again, kept, events)
    finally:
        await again.close()


async def names_the_fork(house: House, kept: Checkpoint, events: int) -> bool:
    """Tell whether a client that keeps a checkpoint notices, by the answer's refusal or by its proof."""
    try:
        shown = await house.orchestrator.audit.own_log(kept.size)
    except OrchestratorError as error:
        return error.reason is Reason.AUDIT_FORKED and f"{events} entries" in error.message
    newer = open_note(shown.checkpoint, load_public_key(shown.public_key), kept.origin)
    return not verify_consistency(kept.size, kept.root, newer.size, newer.root, shown.consistency)


async def test_two_histories_are_found(house: House) -> None:
    """A copy of the log goes on by itself, and the other one too: the executor, which saw one, refuses the other."""
    await lived(house)
    copy = house.folder.parent / f"{house.folder.name}-copy"
    shutil.copytree(house.folder, copy)
    one = House(house.folder, house.executor, house.approver)
    await one.proposed()
    await one.orchestrator.witness.exchange()
    await one.close()

    other = House(copy, house.executor, house.approver)
    await other.proposed()
    await other.proposed()
    with pytest.raises(OrchestratorError) as caught:
        await other.dry_run(await other.proposed())
    await other.close()
    assert caught.value.reason is Reason.AUDIT_FORKED
    assert "does not continue" in caught.value.message


async def test_a_removed_key_stops_the_start(house: House) -> None:
    """Without the key for the checkpoints there is no log to write to, and so nothing is accepted."""
    await lived(house)
    path = house.folder / "keys" / "orchestrator"
    path.unlink()
    path.mkdir()
    with pytest.raises(OrchestratorError, match="can not be read") as caught:
        House(house.folder, house.executor, house.approver)
    assert "ssh-keygen" in caught.value.remedy


async def test_another_key_does_not_take_the_log_over(house: House) -> None:
    """A log that was signed under one key does not start under another."""
    await lived(house)
    (house.folder / "keys" / "orchestrator").unlink()
    with pytest.raises(LogForked, match="not one of this log"):
        House(house.folder, house.executor, house.approver)
