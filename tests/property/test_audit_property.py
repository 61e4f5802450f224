"""Any change of what a log holds is found: by the log itself, or by a checkpoint that somebody kept."""

import asyncio
import json
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from gonogo.merkle import Frontier, consistency_path, leaf_hash, verify_consistency
from gonogo.signatures import new_signing_key
from orchestrator.adapters.audit_key import LogKey
from orchestrator.adapters.event_log_sqlite import SqliteEventLog
from orchestrator.adapters.sqlite_driver import sqlite3
from orchestrator.service.audit_check import check_all
from orchestrator.service.event_leaf import event_leaf, stored_leaf
from orchestrator.service.event_log import ANY, Append, NewEvent
from orchestrator.service.event_log_checks import all_events

KEY = LogKey(new_signing_key())
EVENT = NewEvent(type="step_completed", schema_version=1, occurred_at_us=5, actor="anna", data='{"n":1}')

CHANGES = {
    "actor": "UPDATE events SET actor = 'eve' WHERE pos = ?",
    "data": "UPDATE events SET data = '{\"n\":2}' WHERE pos = ?",
    "type": "UPDATE events SET type = 'step_started' WHERE pos = ?",
    "schema": "UPDATE events SET schema_version = 2 WHERE pos = ?",
    "happened": "UPDATE events SET occurred_at_us = 6 WHERE pos = ?",
    "recorded": "UPDATE events SET recorded_at_us = recorded_at_us + 1 WHERE pos = ?",
    "command": "UPDATE events SET command_id = 'c' WHERE pos = ?",
    "hash": "UPDATE events SET leaf_hash = zeroblob(32) WHERE pos = ?",
    "dropped": "DELETE FROM events WHERE pos = ?",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """A log's appends: how many events each has, and whether it asks for a checkpoint."""

    appends: tuple[tuple[int, bool], ...]

    @property
    def size(self) -> int:
        return sum(count for count, _ in self.appends)


grown = st.lists(st.tuples(st.integers(1, 20), st.booleans()), min_size=1, max_size=12).map(
    lambda appends: Grown(appends=tuple(appends))
)


names = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20)
texts = st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3).map(json.dumps)


@given(names, names, names, st.none() | names, texts, st.integers(0, 1 << 62))
def test_a_leaf_is_what_a_json_encoder_writes(
    stream: str, name: str, actor: str, command: str | None, text: str, time: int
) -> None:
    """The leaf that is written by hand is the compact JSON text of the same array, in UTF-8."""
    event = NewEvent(type=name, schema_version=3, occurred_at_us=time, actor=actor, data=text)
    leaf = event_leaf(7, stream, 2, event, recorded_at_us=time + 1, command_id=command)
    fields = [7, stream, 2, name, 3, time, time + 1, command, actor, text]
    assert leaf == json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


async def grow(log: SqliteEventLog, how: Grown) -> list[tuple[int, bytes]]:
    """Append, and return size and root after each append, as an ideal witness would keep them."""
    tree, kept = Frontier(), []
    for number, (count, sign) in enumerate(how.appends):
        appended = await log.append(
            Append(stream_id=f"s/{number % 3}", expected_version=ANY, events=(EVENT,) * count, sign=sign)
        )
        for event in log.read_all(appended.first_pos - 1):
            tree.append(event.leaf_hash)
        kept.append((tree.size, tree.root()))
    return kept


def tamper(path: Path, change: str, pos: int) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DROP TRIGGER events_are_never_changed")
        connection.execute("DROP TRIGGER events_are_never_deleted")
        connection.execute(CHANGES[change], (pos,))


@settings(max_examples=60, deadline=None)
@given(grown, st.sampled_from(sorted(CHANGES)), st.data())
def test_a_change_is_found_and_named(how: Grown, change: str, data: st.DataObject) -> None:
    """The full check finds nothing in a log as it was written, and names the very event that was changed or dropped."""
    pos = data.draw(st.integers(1, how.size))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.db"
        with closing(SqliteEventLog(path, signer=KEY)) as log:
            asyncio.run(grow(log, how))
            assert check_all(log, KEY).faults == []
            tamper(path, change, pos)
            assert check_all(log, KEY).first_bad_event == pos


@settings(max_examples=40, deadline=None)
@given(grown, st.sampled_from(sorted(CHANGES.keys() - {"hash"})), st.data())
def test_a_careful_change_is_found_by_every_later_checkpoint(how: Grown, change: str, data: st.DataObject) -> None:
    """With all hashes made anew, only the checkpoints before the changed event lead by a proof to the log as it is."""
    pos = data.draw(st.integers(1, how.size))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.db"
        with closing(SqliteEventLog(path)) as log:
            kept = asyncio.run(grow(log, how))
            tamper(path, change, pos)
            leaves = [leaf_hash(stored_leaf(event)) for event in all_events(log)]
    tree, tiles = Frontier(), {(0, number): leaf for number, leaf in enumerate(leaves)}
    for leaf in leaves:
        tiles |= {(tile.level, tile.index): tile.root for tile in tree.append(leaf)}

    def hashes_of(level: int, first: int, count: int) -> list[bytes]:
        return [tiles[level, number] for number in range(first, first + count)]

    for size, root in kept:
        path_to_now = consistency_path(size, tree.size, hashes_of) if size <= tree.size else []
        assert verify_consistency(size, root, tree.size, tree.root(), path_to_now) == (size < pos)
