"""Measures the event log against one commit per append through the same tables, and against itself without its tree.

`python -m bench.event_log` prints one JSON line per measurement. The floor does nothing but BEGIN, two inserts and
COMMIT: no version check, no hash, no event loop. Store and floor take turns, and medians are compared, so that a noisy
machine disturbs both alike.
"""

import asyncio
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from unittest.mock import patch

from bench.measure import tell
from gonogo.merkle import Tile, inclusion_path
from gonogo.signatures import new_signing_key
from orchestrator.adapters import event_log_writer
from orchestrator.adapters.audit_key import LogKey
from orchestrator.adapters.event_log_sqlite import SqliteEventLog
from orchestrator.adapters.sql_files import named_queries
from orchestrator.adapters.sqlite_driver import sqlite3 as chosen_sqlite3
from orchestrator.service.audit_check import check_all, require_unforked
from orchestrator.service.event_log import NO_STREAM, Append, NewEvent
from orchestrator.service.event_log_checks import all_events

VERIFIED_EVENTS = 100_000
IMPORT_GROUP = 500
CALLERS = 64
ROUNDS = 9
FLOOR_APPENDS = 300
APPENDS_PER_CALLER = 20
DATA = json.dumps({"mission_id": "0" * 36, "detail": "x" * 170})


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="gonogo-bench-", dir=".") as directory:
        folder = Path(directory)
        for figures in (asyncio.run(measure(folder)), asyncio.run(measure_tree(folder)), asyncio.run(verify(folder))):
            for name, line in figures.items():
                tell(name, **line)


async def measure(directory: Path) -> dict[str, dict[str, object]]:
    """Returns the two measurements: many callers, and one."""
    log = SqliteEventLog(directory / "store.db")
    floor = Floor(directory / "floor.db")
    names = (f"mission/{number:012}" for number in count())
    floors, many, one = [], [], []
    try:
        for _ in range(ROUNDS):
            floors.append(floor.run(FLOOR_APPENDS))
            many.append(await many_callers(log, names))
            one.append(await one_caller(log, names, FLOOR_APPENDS))
    finally:
        log.close()
        floor.close()
    return {"event_appends_64_callers": many_line(floors, many), "event_append_1_caller": one_line(floors, one)}


async def measure_tree(directory: Path) -> dict[str, dict[str, object]]:
    """Returns what the tree costs: the same log with it and its checkpoints, and without, in turns."""
    key = LogKey(new_signing_key())
    planted = SqliteEventLog(directory / "tree.db", signer=key)
    with patch.object(event_log_writer, "stored_frontier", lambda size, _hashes: NoTree(size)):
        bare = SqliteEventLog(directory / "bare.db")
    names = (f"mission/{number:012}" for number in count())
    with_tree: list[tuple[float, float]] = []
    without: list[tuple[float, float]] = []
    try:
        for _ in range(ROUNDS):
            with_tree.append((await many_callers(planted, names), await one_caller(planted, names, FLOOR_APPENDS)))
            with no_leaves():
                without.append((await many_callers(bare, names), await one_caller(bare, names, FLOOR_APPENDS)))
    finally:
        planted.close()
        bare.close()
    many, one = ([statistics.median(figures) for figures in zip(*runs, strict=True)] for runs in (with_tree, without))
    return {
        f"event_append_with_tree_{name}": {
            "share_of_floor": round(bare_s / tree_s, 2),
            "asked": 0.7,
            "floor": "the same log without its tree",
            "append_us": round(tree_s * 1e6, 1),
            "floor_append_us": round(bare_s * 1e6, 1),
        }
        for name, tree_s, bare_s in zip(("64_callers", "1_caller"), many, one, strict=True)
    }


class NoTree:
    """Counts events and hashes nothing."""

    def __init__(self, size: int = 0) -> None:
        self.size = size

    def copy(self) -> "NoTree":
        return NoTree(self.size)

    def append(self, _hashed: bytes) -> tuple[Tile, ...]:
        self.size += 1
        return ()


@contextmanager
def no_leaves() -> Iterator[None]:
    """Have the writer make no leaves and no hashes."""
    with (
        patch.object(event_log_writer, "event_leaf", lambda *_fields, **_more: b""),
        patch.object(event_log_writer, "leaf_hash", lambda _leaf: bytes(32)),
    ):
        yield


async def verify(directory: Path) -> dict[str, dict[str, object]]:
    """Returns how long it takes to check a log whole, and to prove that one event is in it."""
    key = LogKey(new_signing_key())
    log = SqliteEventLog(directory / "verified.db", signer=key)
    try:
        for number in range(VERIFIED_EVENTS // IMPORT_GROUP):
            await log.append(an_append(f"mission/{number:012}", IMPORT_GROUP))
        started = time.perf_counter()
        for _ in all_events(log):
            pass
        read = time.perf_counter() - started
        started = time.perf_counter()
        checked = check_all(log, key)
        whole = time.perf_counter() - started
        started = time.perf_counter()
        require_unforked(log, key)
        at_start = time.perf_counter() - started
        started = time.perf_counter()
        for index in range(0, VERIFIED_EVENTS, VERIFIED_EVENTS // 200):
            inclusion_path(index, VERIFIED_EVENTS, log.tree_hashes)
        prove = (time.perf_counter() - started) / 200
    finally:
        log.close()
    if checked.faults or checked.events != VERIFIED_EVENTS:
        raise AssertionError(checked)
    return {
        "verification_of_100000_events": {
            "times_the_floor": round(whole / read, 2),
            "floor": "reading them",
            "seconds": round(whole, 2),
            "events_per_second": round(VERIFIED_EVENTS / whole),
            "at_start_ms": round(at_start * 1e3, 2),
            "inclusion_proof_us": round(prove * 1e6),
        }
    }


def many_line(floors: list[float], many: list[float]) -> dict[str, object]:
    floor, store = 1 / statistics.median(floors), 1 / statistics.median(many)
    return {
        "ratio": round(store / floor, 2),
        "floor": "one commit per append, one connection",
        "appends_per_second": round(store),
        "floor_appends_per_second": round(floor),
    }


def one_line(floors: list[float], one: list[float]) -> dict[str, object]:
    floor, store = statistics.median(floors), statistics.median(one)
    return {
        "ratio": round(floor / store, 2),
        "floor": "one commit per append, one connection",
        "append_us": round(store * 1e6, 1),
        "floor_append_us": round(floor * 1e6, 1),
    }


async def many_callers(log: SqliteEventLog, names: Iterator[str]) -> float:
    """Returns seconds per append with 64 callers at once."""

    async def caller() -> None:
        for _ in range(APPENDS_PER_CALLER):
            await log.append(an_append(next(names)))

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return (time.perf_counter() - started) / (CALLERS * APPENDS_PER_CALLER)


async def one_caller(log: SqliteEventLog, names: Iterator[str], appends: int) -> float:
    """Returns the median seconds of an append, the building of its values included."""
    durations = []
    for _ in range(appends):
        started = time.perf_counter()
        await log.append(an_append(next(names)))
        durations.append(time.perf_counter() - started)
    return statistics.median(durations)


def an_append(stream_id: str, events: int = 1) -> Append:
    event = NewEvent(type="mission_proposed", schema_version=1, occurred_at_us=1, actor="bench", data=DATA)
    return Append(stream_id=stream_id, expected_version=NO_STREAM, events=(event,) * events)


class Floor:
    """The least that a durable append through these tables can be."""

    def __init__(self, path: Path) -> None:
        SqliteEventLog(path).close()  # the same schema
        self._queries: Mapping[str, str] = named_queries("event_log.sql")
        self._connection: sqlite3.Connection = chosen_sqlite3.connect(path, isolation_level=None)
        for pragma in ("PRAGMA synchronous = FULL", "PRAGMA cache_size = -65536"):
            self._connection.execute(pragma)
        self._pos = 0
        self.close: Callable[[], None] = self._connection.close

    def run(self, appends: int) -> float:
        """Returns the median seconds of an append."""
        durations = []
        for _ in range(appends):
            started = time.perf_counter()
            self._append()
            durations.append(time.perf_counter() - started)
        return statistics.median(durations)

    def _append(self) -> None:
        self._pos += 1
        pos, execute = self._pos, self._connection.execute
        execute("BEGIN IMMEDIATE")
        execute(self._queries["put_stream"], (pos, f"mission/{pos:012}", 1, 1))
        execute(self._queries["add_event"], (pos, pos, 1, "mission_proposed", 1, 1, 1, None, "bench", DATA, bytes(32)))
        execute("COMMIT")


if __name__ == "__main__":
    main()
