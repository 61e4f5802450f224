"""The event log under kill -9: a process that writes as fast as it can is killed at random moments."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from gonogo.merkle import stored_root
from gonogo.notes import Checkpoint, open_note
from gonogo.signatures import load_public_key, new_signing_key
from orchestrator.adapters.audit_key import LogKey, load_log_key
from orchestrator.adapters.event_log_reader import SqliteEventReader
from orchestrator.adapters.event_log_sqlite import SqliteEventLog
from orchestrator.service.audit_check import require_unforked
from orchestrator.service.event_log_checks import first_bad_event, projection_digest

ROUNDS = 10
MOST_ROUNDS = 40  # goes on beyond ROUNDS only until a kill has hit between commit and acknowledgement

# 32 callers append in a loop; each acknowledged command goes to standard output with one write.
WRITER = """
import asyncio, json, os, pathlib, sys
from orchestrator.adapters.audit_key import load_log_key
from orchestrator.adapters.event_log_sqlite import Limits, SqliteEventLog
from orchestrator.service.event_log import ANY, Append, CommandRecord, NewEvent, ProjectionRow

path, name, inline = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

def decision(caller, number):
    command = f"{name}-{caller}-{number}"
    events = tuple(
        NewEvent(type="step_completed", schema_version=1, occurred_at_us=number, actor="a", data=json.dumps({"n": n}))
        for n in range(3)
    )
    row = ProjectionRow(name="commands", key=command, status="done", sort_key="0", data="{}")
    record = CommandRecord(command_id=command, request_hash="h", result="{}")
    return Append(
        stream_id=f"s/{caller}", expected_version=ANY, events=events, command=record, projections=(row,),
        sign=number % 7 == 0,
    )

async def caller(log, me):
    number = 0
    while True:
        number += 1
        append = decision(me, number)
        await log.append(append)
        os.write(1, append.command.command_id.encode() + b"\\n")

async def main():
    signer = load_log_key(path.with_name("key"))
    log = SqliteEventLog(path, signer=signer, limits=Limits(inline_commit_us=inline))
    await asyncio.gather(*(caller(log, me) for me in range(32)))

asyncio.run(main())
"""


def write_until_killed(path: Path, name: str, inline: int, seconds: float) -> list[str]:
    """Lets a process write for about that long after its first acknowledgement; returns what it acknowledged."""
    acknowledged = path.with_suffix(f".{name}.acknowledged")
    with acknowledged.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), name, str(inline)],
            stdout=output,
            env={"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        deadline = time.monotonic() + 30
        while not acknowledged.stat().st_size and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
    return [line for line in acknowledged.read_text().split("\n")[:-1] if line]


def stored_commands(path: Path) -> dict[str, int]:
    """Counts the events of each command in the log."""
    counts: dict[str, int] = {}
    with SqliteEventReader(path) as reader:
        pos = 0
        while page := reader.read_all(pos):
            pos = page[-1].pos
            for event in page:
                counts[event.command_id or ""] = counts.get(event.command_id or "", 0) + 1
    return counts


def check_whole(path: Path, stored: dict[str, int]) -> None:
    """Asserts that every append is there with all its parts, or not at all."""
    assert set(stored.values()) <= {3}
    with SqliteEventReader(path) as reader:
        assert first_bad_event(reader) is None
        versions = sum(reader.stream_version(f"s/{caller}") for caller in range(32))
        assert versions == reader.head() == 3 * len(stored)
        assert all(reader.command(command) is not None for command in stored)
        keys: set[str] = set()
        last = ""
        while rows := reader.projection_keys("commands", after_key=last):
            keys |= {row.key for row in rows}
            last = rows[-1].key
        assert keys == set(stored)


def newest_checkpoint(path: Path, key: LogKey) -> Checkpoint:
    """Returns the newest checkpoint of a log that is as it was signed."""
    with SqliteEventReader(path) as reader:
        require_unforked(reader, key)
        newest = reader.newest_checkpoint()
        assert newest is not None
        return open_note(newest.note, load_public_key(key.public_key), key.origin)


def check_continued(path: Path, kept: list[Checkpoint]) -> None:
    """Asserts that the log continues every checkpoint that was ever seen of it."""
    with SqliteEventReader(path) as reader:
        assert all(stored_root(one.size, reader.tree_hashes) == one.root for one in kept)


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    """After each kill every acknowledged append is there, each append is whole, and pos and tree have no gap."""
    path = tmp_path / "log.db"
    (tmp_path / "key").write_bytes(new_signing_key().private_bytes())
    key = load_log_key(tmp_path / "key")
    kept: list[Checkpoint] = []
    dice = random.Random(20)
    acknowledged: set[str] = set()
    number = unacknowledged_rounds = cut_logs = 0
    while number < ROUNDS or (not unacknowledged_rounds and number < MOST_ROUNDS):
        acknowledged |= set(write_until_killed(path, f"r{number}", 1000 if number % 2 else 0, dice.random() * 0.25))
        cut_logs += path.with_name("log.db-wal").stat().st_size > 0  # nobody closed it: the WAL is still to be replayed
        stored = stored_commands(path)
        assert acknowledged <= set(stored)
        unacknowledged_rounds += any(key.startswith(f"r{number}-") for key in set(stored) - acknowledged)
        kept.append(newest_checkpoint(path, key))
        SqliteEventLog(path, signer=key).close()
        kept.append(newest_checkpoint(path, key))
        assert kept[-1].size == 3 * len(stored)
        assert stored_commands(path) == stored
        number += 1
    check_whole(path, stored_commands(path))
    check_continued(path, kept)
    with SqliteEventReader(path) as reader:
        assert projection_digest(reader, "commands").startswith("sha256:")
    # The test of the test: kills really hit between commit and acknowledgement, and left a WAL behind.
    assert unacknowledged_rounds > 0
    assert cut_logs == number
    assert len(acknowledged) > 10 * ROUNDS
