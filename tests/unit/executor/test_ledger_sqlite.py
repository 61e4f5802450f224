"""What only the SQLite ledger can show: other processes, a full disk, and what one mission costs."""

import json
import os
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from executor.adapters import migrations
from executor.adapters.ledger_claims import claim_to_json
from executor.adapters.ledger_sqlite import SqliteLedger
from executor.domain.errors import StoreError
from executor.runner.executions import RefusedError
from executor.runner.ports import Standing
from tests.conformance.ledger_values import PLAN, claim, request
from tests.unit.executor.house import House

ROOT = Path(__file__).parents[3]


def python(script: str, *arguments: str) -> "subprocess.Popen[bytes]":
    """Start one of the scripts beside this file."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(Path(__file__).parent / script), *arguments],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}"},
        stdout=subprocess.PIPE,
    )


def test_two_processes_race_and_each_mission_has_one_winner(tmp_path: Path) -> None:
    """Of 300 identical requests by two processes at once, every mission is claimed exactly once."""
    SqliteLedger(tmp_path / "ledger.db").close()
    racers = [python("race_claims.py", str(tmp_path), name) for name in ("a", "b")]
    deadline = time.monotonic() + 30
    while not all((tmp_path / f"ready-{name}").exists() for name in ("a", "b")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (tmp_path / "shot").write_text(str(time.time_ns() + 100_000_000))
    (tmp_path / "shot").rename(tmp_path / "go")
    won = [json.loads(racer.communicate(timeout=60)[0]) for racer in racers]
    assert sorted(won[0] + won[1]) == list(range(300))
    # A race in which one of them wins everything would show nothing.
    assert won[0]
    assert won[1]
    ledger = SqliteLedger(tmp_path / "ledger.db")
    winners = {one.mission_id: one.execution_id for one in ledger.unfinished()}
    assert winners == {
        f"m-{number}": f"x-{name}-{number}" for name, all_ in zip("ab", won, strict=True) for number in all_
    }
    ledger.close()


def test_a_ledger_of_an_older_release_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was claimed before there were segments and kept plans is read, ended and audited as ever."""
    with monkeypatch.context() as older:
        older.setattr(migrations, "_STEPS", migrations._STEPS[:5])
        SqliteLedger(tmp_path / "ledger.db").close()
    value = {name: one for name, one in json.loads(claim_to_json(claim())).items() if name != "journal_digest"}
    row = ("m-1", 0, "x-1", claim().report_digest, 1, json.dumps(value))
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection, connection:
        connection.execute(
            "INSERT INTO executions (mission_id, segment, execution_id, report_digest, claimed_at_us, claim)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            row,
        )
    ledger = SqliteLedger(tmp_path / "ledger.db")
    assert ledger.unfinished() == ledger.claims_of("x-1") == (claim(),)
    assert ledger.plan_of("x-1", 0) is None
    assert (ledger.controls("x-1"), ledger.effects("x-1")) == ((), ())
    assert ledger.claim(claim(2), request("q-2"), PLAN) is None
    assert ledger.plan_of("x-2", 0) == PLAN
    ledger.close()


def test_a_plan_that_is_not_the_claimed_one_restores_nothing(tmp_path: Path) -> None:
    """Where somebody wrote another plan into the ledger, it is an error and no plan."""
    ledger = SqliteLedger(tmp_path / "ledger.db")
    ledger.claim(claim(), request(), PLAN)
    ledger._connection.execute("UPDATE claimed_plans SET body = x'00'")
    with pytest.raises(StoreError):
        ledger.plan_of("x-1", 0)
    ledger.close()


def test_a_full_disk_refuses_and_claims_nothing(tmp_path: Path) -> None:
    """Where the ledger can not grow, the claim is refused with the reason, and the ledger goes on once it can."""
    house = House(tmp_path)
    waiting = house.ready()
    connection = house.ledger._connection
    [(pages,)] = connection.execute("PRAGMA page_count").fetchall()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    filler = claim(9, message_id="x" * 100_000)
    with pytest.raises(StoreError) as caught:
        house.ledger.claim(filler, request("q-filler"), PLAN)
    assert caught.value.fault.reason == "STORE_FULL"
    assert house.ledger.standing("m-9") is Standing.FREE
    connection.execute("PRAGMA max_page_count = 1000000")
    assert house.execute(waiting).ended
    house.close()


def test_a_mission_whose_claim_can_not_be_written_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The claim is durable before the first effect, or there is no effect."""
    house = House(tmp_path)
    waiting = house.ready()
    with monkeypatch.context() as patched:
        full = StoreError("STORE_FULL", "full", "make room")

        def fails(*_: object) -> None:
            raise full

        patched.setattr(house.ledger, "claim", fails)
        with pytest.raises(RefusedError) as caught:
            house.execute(waiting)
    assert caught.value.fault.reason == "STORE_FULL"
    assert house.executioner.runs == []
    assert house.files() == {}
    assert house.execute(waiting).ended
    house.close()


def test_a_small_mission_is_three_commits(tmp_path: Path) -> None:
    """Report, claim and receipt: one commit each, and no other write."""
    house = House(tmp_path)
    statements: list[str] = []
    house.ledger._connection.set_trace_callback(statements.append)
    house.execute(house.ready())
    house.ledger._connection.set_trace_callback(None)
    assert statements.count("COMMIT") == 3
    writing = ("INSERT", "UPDATE", "DELETE", "REPLACE")
    inside = False
    for statement in statements:
        inside = (inside or statement.startswith("BEGIN")) and statement != "COMMIT"
        assert inside or not statement.startswith(writing)
    house.close()


def test_the_file_is_the_executors_alone(tmp_path: Path) -> None:
    """Plans and reports are nobody else's business, and a commit is on the disk when it returns."""
    ledger = SqliteLedger(tmp_path / "ledger.db")
    assert stat.S_IMODE((tmp_path / "ledger.db").stat().st_mode) == 0o600
    assert ledger._connection.execute("PRAGMA synchronous").fetchall() == [(2,)]
    assert ledger._connection.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
    ledger.close()


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    """A damaged file stops the start, with a remedy."""
    (tmp_path / "ledger.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError) as caught:
        SqliteLedger(tmp_path / "ledger.db")
    assert caught.value.fault.remedy
