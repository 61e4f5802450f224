"""Measures the event log against one commit per append through the same tables on one connection.

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
from itertools import count
from pathlib import Path

from bench.measure import tell
from orchestrator.adapters.event_log_sqlite import SqliteEventLog
from orchestrator.adapters.sql_files import named_queries
from orchestrator.adapters.sqlite_driver import sqlite3 as chosen_sqlite3
from orchestrator.service.event_log import NO_STREAM, Append, NewEvent

CALLERS = 64
ROUNDS = 9
FLOOR_APPENDS = 300
APPENDS_PER_CALLER = 20
DATA = json.dumps({"mission_id": "0" * 36, "detail": "x" * 170})


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="gonogo-bench-", dir=".") as directory:
        for name, figures in asyncio.run(measure(Path(directory))).items():
            tell(name, **figures)


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


def an_append(stream_id: str) -> Append:
    event = NewEvent(type="mission_proposed", schema_version=1, occurred_at_us=1, actor="bench", data=DATA)
    return Append(stream_id=stream_id, expected_version=NO_STREAM, events=(event,))


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
