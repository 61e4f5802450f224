"""From the hash chain of the first event logs to the tree.

The chain is checked before its hashes are replaced: recomputed hashes would otherwise call whatever is stored now the
truth. After it the tree's upper hashes are written as if every event had just been appended.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias

from sqlite_utils import Database

from gonogo.merkle import Frontier, leaf_hash
from orchestrator.adapters.sqlite_driver import sqlite3
from orchestrator.service.event_leaf import event_leaf
from orchestrator.service.event_log import NewEvent
from orchestrator.service.event_log_errors import StoreUnusable

Row: TypeAlias = Sequence[Any]

_GENESIS: Final = bytes(32)
_CHAINED: Final = """
SELECT e.pos, s.stream_id, e.version, e.type, e.schema_version, e.occurred_at_us, e.recorded_at_us, e.command_id,
       e.actor, e.data, e.hash
FROM events AS e JOIN streams AS s USING (stream_pk) ORDER BY e.pos
"""


def teach_leaf_hash(connection: sqlite3.Connection) -> None:
    """Give the connection the function by which a migration computes an event's leaf hash."""
    connection.create_function("event_leaf_hash", 10, _leaf_hash, deterministic=True)


def check_chain(database: Database) -> None:
    """Check the hash chain of a log that still has one.

    Raises:
        StoreUnusable: an event is not what was written.
    """
    previous = _GENESIS
    for pos, row in enumerate(database.execute(_CHAINED), 1):
        previous = _link(previous, row)
        if row[0] != pos or row[10] != previous:
            raise StoreUnusable(f"event {pos} is not what was written: the log's hash chain breaks there")


def grow_tree(database: Database) -> None:
    """Write the hashes above the leaves for all events that are there."""
    database.conn.executemany("INSERT INTO tree_hashes (level, number, hash) VALUES (?, ?, ?)", _tiles(database))


def _tiles(database: Database) -> Iterator[tuple[int, int, bytes]]:
    frontier = Frontier()
    for (hashed,) in database.execute("SELECT leaf_hash FROM events ORDER BY pos"):
        for tile in frontier.append(hashed):
            yield tile.level, tile.index, tile.root


def _leaf_hash(*row: Any) -> bytes:
    pos, stream_id, version, name, schema_version, occurred_at_us, recorded_at_us, command_id, actor, data = row
    event = NewEvent(
        type=name, schema_version=schema_version, occurred_at_us=occurred_at_us, actor=actor, data=data,
        just_encoded=True,
    )  # fmt: skip
    leaf = event_leaf(pos, stream_id, version, event, recorded_at_us=recorded_at_us, command_id=command_id)
    return leaf_hash(leaf)


def _link(previous: bytes, row: Row) -> bytes:
    """Return SHA-256 over the previous hash and every stored field, each written as `<length>:<bytes>`."""
    fields = [str("" if value is None else value).encode() for value in row[:10]]
    return hashlib.sha256(b"".join([b"%d:%b" % (len(part), part) for part in (previous, *fields)])).digest()
