"""Measures the executor's audit log: what it adds to recording, a proof in a large log, and checking all of it.

`python -m bench.audit` prints one JSON line per measurement. The floor of recording is the same ledger without entries,
tree, signed checkpoints and anchor; both take turns.
"""

import json
import random
import statistics
import tempfile
import time
from contextlib import AbstractContextManager
from functools import partial
from itertools import count
from pathlib import Path
from unittest.mock import patch

from bench.measure import interleaved, seconds, tell
from executor.adapters import ledger_sqlite
from executor.adapters.audit_check import check_all, check_newest
from executor.adapters.audit_reader import read_audit
from executor.adapters.ledger_sqlite import SqliteLedger
from gonogo.merkle import Frontier, inclusion_path, leaf_hash
from tests.unit.executor.audit_house import LogHouse

ROUNDS = 9
MISSIONS = 40
LEAVES = 1_000_000
PROOFS = 300
ENTRIES = 100_000
NUMBERS = count(1)


def main() -> None:
    """Print all figures."""
    with tempfile.TemporaryDirectory(prefix="gonogo-bench-", dir=".") as directory:
        recording(Path(directory))
        proving(Path(directory))
        checking(Path(directory))


def recording(directory: Path) -> None:
    """Tell what share of its rate the ledger reaches with the log, and what the anchor adds to a claim that waits."""
    audited, bare, anchored = (LogHouse(directory / name) for name in ("audited", "bare", "anchored"))
    audited.ledger.anchor_to(NoAnchor())
    bare.ledger.anchor_to(NoAnchor())

    def without() -> float:
        with patch.object(ledger_sqlite, "append_entry", lambda *_: 0), unsigned():
            return missions(bare)

    compared = interleaved(lambda: missions(audited), without, ROUNDS)
    tell(
        "executor_record_with_tree",
        share_of_floor=compared.share_of_floor_rate,
        asked=0.7,
        mission_us=statistics.median(compared.subject) * 1e6,
        floor_mission_us=statistics.median(compared.floor) * 1e6,
    )
    waiting = interleaved(lambda: missions(anchored), lambda: missions(audited), ROUNDS)
    tell(
        "executor_record_with_anchor",
        share_of_floor=waiting.share_of_floor_rate,
        mission_us=statistics.median(waiting.subject) * 1e6,
        floor_mission_us=statistics.median(waiting.floor) * 1e6,
    )
    for house in (audited, bare, anchored):
        house.close()


def missions(house: LogHouse) -> float:
    """Record some missions: report, claim with its anchor, events, end; return the median seconds of one."""
    durations = []
    for number in (next(NUMBERS) for _ in range(MISSIONS)):
        started = time.perf_counter()
        house.issue(number)
        house.claim(number)
        house.anchor.settle()
        house.end(number)
        durations.append(time.perf_counter() - started)
    return statistics.median(durations)


class NoAnchor:
    """Remembers nothing."""

    def check(self) -> None:
        """Never fails."""

    def move(self, state: object) -> None:
        """Is not interested."""

    def settle(self) -> None:
        """Has nothing to wait for."""


def unsigned() -> AbstractContextManager[object]:
    """Have no checkpoint signed."""
    return patch.object(SqliteLedger, "_sign", lambda *_: None)


def proving(directory: Path) -> None:
    """Tell how long an inclusion proof takes in a log of a million leaves, read from the ledger's file."""
    house = LogHouse(directory / "large")
    fill(house, LEAVES)
    house.restart()
    size = house.ledger.audit_size
    chosen = random.Random(1).choices(range(size), k=PROOFS)
    durations = [seconds(partial(inclusion_path, index, size, house.ledger.audit_hashes)) for index in chosen]
    house.close()
    tell(
        "inclusion_proof_1000000_leaves",
        milliseconds=statistics.median(durations) * 1e3,
        asked=1.0,
        slowest_milliseconds=max(durations) * 1e3,
    )


def fill(house: LogHouse, size: int) -> None:
    """Append entries that stand for nothing, all at once."""
    frontier = Frontier()
    entries, tiles = [], []
    for number in range(size):
        leaf = json.dumps({"type": "bench", "mission_id": "", "at_us": number})
        hashed = leaf_hash(leaf.encode())
        entries.append((number, hashed, "", leaf))
        tiles += [(tile.level, tile.index, tile.root) for tile in frontier.append(hashed)]
    house.close()
    house.write(
        ("DELETE FROM audit_entries", [()]),
        ("DELETE FROM meta WHERE key = 'audit_checkpoint'", [()]),
        ("INSERT INTO audit_entries (number, hash, mission_id, leaf) VALUES (?, ?, ?, ?)", entries),
        ("INSERT INTO audit_tiles (level, number, root) VALUES (?, ?, ?)", tiles),
    )
    house.anchor_path.unlink()
    house.open()


def checking(directory: Path) -> None:
    """Tell how long it takes to check a log whole, entries and records, against only reading the entries."""
    house = LogHouse(directory / "checked")
    house.hurry()
    number = 0
    while house.ledger.audit_size < ENTRIES:
        number += 1
        house.mission(number)
    house.close()
    with read_audit(house.path) as log:
        if log is None:
            raise RuntimeError("there is no log")
        read = seconds(lambda: [None for _ in log.stored_entries()])
        checked: list[int] = []
        whole = seconds(lambda: checked.append(check_all(log, house.signer).entries))
        start = seconds(lambda: check_newest(log, house.signer))
    tell(
        "verification_of_100000_entries",
        times_the_floor=whole / read,
        seconds=whole,
        entries_per_second=round(checked[0] / whole),
        at_start_seconds=start,
    )


if __name__ == "__main__":
    main()
