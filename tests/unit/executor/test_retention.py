"""Retention: what is needed stays, what is too old goes, and what a sweep that died left the next one finds."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from executor.runner.retention import Sweeper, Swept
from gonogo.digests import digest
from tests.unit.executor.undo_house import UndoHouse, delete, undo_house, write

ROOT = Path(__file__).parents[3]
SMALL, LARGE, OTHER = "small\n", "large\n" * 20_000, "other\n" * 20_000
TOO_LATE = timedelta(days=7, hours=2)
NOTHING = Swept(objects=0, checkpoints=0, complete=True)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[UndoHouse]:
    with undo_house(tmp_path) as house:
        yield house


def slot_entries(house: UndoHouse) -> list[Path]:
    """What commits have left in the staging directory."""
    return [path for path in house.slots.iterdir() if path.name.startswith("x-")]


def has(house: UndoHouse, text: str) -> bool:
    return house.objects.has(digest(text.encode()))


class TestObjects:
    def test_what_a_live_report_names_stays(self, house: UndoHouse) -> None:
        """Old and new contents, small and large, are here as long as the report can be executed."""
        (house.site / "a").write_text(OTHER)
        house.tried(house.steps("m-1", write("a", LARGE), write("b", SMALL)))
        assert house.retention().sweep() == NOTHING
        assert house.retention(timedelta(days=7)).sweep() == NOTHING  # a claim may still be under way
        assert has(house, LARGE)
        assert has(house, SMALL)
        assert has(house, OTHER)

    def test_what_only_old_reports_name_goes(self, house: UndoHouse) -> None:
        """After its time all that a report alone needs is gone, and the report itself can still be asked for."""
        (house.site / "a").write_text(OTHER)
        plan = house.steps("m-1", write("a", LARGE), write("b", SMALL))
        report = house.dry_run(plan, "q-first")
        swept = house.retention(TOO_LATE).sweep()
        assert (swept.objects, swept.complete) == (3, True)
        assert not has(house, LARGE)
        assert not has(house, SMALL)
        assert not has(house, OTHER)
        assert list(house.objects.large()) == []
        assert house.dry_run(plan, "q-first") == report
        assert house.retention(TOO_LATE).sweep() == NOTHING

    def test_the_youngest_report_counts(self, house: UndoHouse) -> None:
        """What an old and a live report name stays for the live one."""
        house.tried(house.steps("m-1", write("a", LARGE), write("b", SMALL)))
        house.ledger._connection.execute("UPDATE issued_reports SET issued_at_us = 1")
        house.tried(house.steps("m-2", write("c", LARGE)))
        assert house.retention().sweep().objects == 1
        assert has(house, LARGE)
        assert not has(house, SMALL)

    def test_an_execution_that_has_not_ended_keeps_its_objects(self, house: UndoHouse) -> None:
        """However long it takes; once it has ended they go with their report."""
        swept: list[Swept] = []
        house.during = lambda: swept.append(house.retention(TOO_LATE).sweep())
        house.run(house.steps("m-1", write("a", LARGE), write("b", SMALL)))
        assert [one.objects for one in swept] == [0]
        assert (house.site / "a").read_text() == LARGE
        assert (house.site / "b").read_text() == SMALL
        assert house.retention(2 * TOO_LATE).sweep().objects == 2

    def test_a_dry_run_that_relies_on_an_old_object(self, house: UndoHouse) -> None:
        """What a dry run finds stored stays for its report, which is not there yet."""
        house.tried(house.steps("m-1", write("a", LARGE), write("b", SMALL)))
        os.utime(house.objects.path(digest(LARGE.encode())), (1, 1))
        batch = house.objects.batch()
        batch.put_bytes(LARGE.encode())
        assert house.retention(TOO_LATE, young=timedelta(days=1)).sweep().objects == 1
        batch.sync()
        assert has(house, LARGE)

    def test_a_report_that_comes_in_the_middle(self, house: UndoHouse, monkeypatch: pytest.MonkeyPatch) -> None:
        """A report issued between the choice of what goes and its going keeps what it names."""
        house.tried(house.steps("m-1", write("b", SMALL)))
        forget = house.ledger.forget_objects

        def late(*arguments: object) -> None:
            house.tried(house.steps("m-2", write("c", SMALL)))
            house.ledger._connection.execute(
                "UPDATE issued_reports SET issued_at_us = issued_at_us + 1000000000000 WHERE mission_id = 'm-2'"
            )
            forget(*arguments)  # type: ignore[arg-type]  # passed on as they came

        monkeypatch.setattr(house.ledger, "forget_objects", late)
        house.retention(TOO_LATE).sweep()
        assert has(house, SMALL)

    def test_what_no_report_ever_named_goes(self, house: UndoHouse) -> None:
        """A dry run whose report could not be stored leaves objects behind; they go when they are old."""
        batch = house.objects.batch()
        batch.put_bytes(LARGE.encode())
        batch.sync()
        assert house.retention(young=timedelta(days=1)).sweep() == NOTHING
        os.utime(house.objects.path(digest(LARGE.encode())), (1, 1))
        assert house.retention(young=timedelta(days=1)).sweep().objects == 1
        assert not has(house, LARGE)


class TestCheckpoints:
    def test_they_stay_for_their_time(self, house: UndoHouse) -> None:
        """A checkpoint is there until its time is over, whatever becomes of the objects."""
        (house.site / "a").write_text("old\n")
        house.run(house.steps("m-1", write("a", LARGE)))
        house.ledger._connection.execute("UPDATE issued_reports SET issued_at_us = 1")
        assert house.retention(timedelta(days=6)).sweep().checkpoints == 0
        assert len(slot_entries(house)) == 1
        house.undone("m-1", "s1")
        assert (house.site / "a").read_text() == "old\n"

    def test_they_go_after_it(self, house: UndoHouse) -> None:
        """Files first, then the row; after that the step can not be taken back."""
        (house.site / "d" / "e").mkdir(parents=True)
        (house.site / "d" / "e" / "f").write_text("old\n")
        house.run(house.steps("m-1", delete("d"), write("a", SMALL)))
        assert slot_entries(house)
        swept = house.retention(TOO_LATE).sweep()
        assert (swept.checkpoints, swept.complete) == (2, True)
        assert slot_entries(house) == []
        assert house.ledger.checkpoints("m-1") == ()
        assert house.refused(house.undoing("m-1", "s1"))[:2] == ("failed", "CHECKPOINT_GONE")

    def test_the_time_counts_and_not_the_sweep(self, tmp_path: Path) -> None:
        """A checkpoint that is too old is gone for who asks, even where no sweep has come by yet."""
        with undo_house(tmp_path / "short", checkpoint_seconds=1) as house:
            house.run(house.steps("m-1", write("a", SMALL)))
            time.sleep(1.01)
            assert house.refused(house.undoing("m-1", "s1"))[:2] == ("failed", "CHECKPOINT_GONE")

    def test_a_busy_workspace_is_left_alone(self, house: UndoHouse) -> None:
        """A sweep never waits for an execution; the next one comes by again."""
        house.run(house.steps("m-1", write("a", SMALL)))
        with house.workspace.lock():
            assert house.retention(TOO_LATE).sweep().checkpoints == 0
        assert house.retention(TOO_LATE).sweep().checkpoints == 1

    def test_a_workspace_that_is_not_served_now(self, house: UndoHouse) -> None:
        """Its checkpoints stay until it is served again: nobody else knows where their files are."""
        house.run(house.steps("m-1", write("a", SMALL)))
        house.ledger._connection.execute("UPDATE checkpoints SET workspace_id = 'elsewhere'")
        assert house.retention(TOO_LATE).sweep().checkpoints == 0
        assert house.refused(house.undoing("m-1", "s1"))[:2] == ("blocked", "WORKSPACE_MISMATCH")


class TestSweeps:
    def test_a_sweep_without_time(self, house: UndoHouse) -> None:
        """What has no time left does nothing and says that it is not done."""
        house.run(house.steps("m-1", write("a", LARGE)))
        assert house.retention(TOO_LATE).sweep(seconds=0) == Swept(objects=0, checkpoints=0, complete=False)
        stopped = house.retention(TOO_LATE).sweep(stopped=lambda: True)
        assert stopped == Swept(objects=0, checkpoints=0, complete=False)
        assert has(house, LARGE)

    def test_in_the_background(self, house: UndoHouse) -> None:
        """The sweeper sweeps at its start and ends when it is told to."""
        house.run(house.steps("m-1", write("a", LARGE)))
        sweeper = Sweeper(house.retention(TOO_LATE))
        others = set(threading.enumerate())
        sweeper.start()
        [own] = set(threading.enumerate()) - others
        until = time.monotonic() + 10
        while has(house, LARGE) and time.monotonic() < until:
            time.sleep(0.01)
        sweeper.close()
        assert not has(house, LARGE)
        assert not own.is_alive()

    def test_one_that_was_never_started(self, house: UndoHouse) -> None:
        """Closing it is no error."""
        Sweeper(house.retention()).close()

    def test_calls_go_on_meanwhile(self, house: UndoHouse) -> None:
        """No call waits for a sweep: it goes in pieces of a few milliseconds."""
        steps = [write(f"f{number}", f"{number}\n") for number in range(900)]
        for mission in range(3):
            house.tried(house.steps(f"m-{mission}", *steps[mission * 300 : mission * 300 + 300]))
        done = threading.Event()
        longest = 0.0

        def sweep() -> None:
            assert house.retention(TOO_LATE).sweep(seconds=60).objects == 900
            done.set()

        thread = threading.Thread(target=sweep)
        thread.start()
        while not done.is_set():
            started = time.perf_counter()
            house.ledger.standing("m-none")
            longest = max(longest, time.perf_counter() - started)
        thread.join()
        assert longest < 0.25  # milliseconds; the machine may be busy with other things


@pytest.mark.parametrize(
    ("place", "number"),
    [
        *(("unlink", number) for number in (1, 11, 20, 25)),  # old objects of checkpoints first, then large objects
        *(("forget_checkpoint", number) for number in (1, 20)),
        ("mark_reports", 1),
        ("renew_unfinished", 1),
        ("forget_objects", 1),
        ("is_used", 1),
    ],
)
def test_a_sweep_that_is_killed(tmp_path: Path, place: str, number: int) -> None:
    """Killed anywhere, a sweep leaves nothing that the next one does not find, and touches nothing that is needed."""
    with undo_house(tmp_path) as house:
        for name in ("same", *(f"f{one}" for one in range(10))):
            (house.site / name).write_text("first")
        steps = [step for one in range(10) for step in (write(f"f{one}", f"{one}{LARGE}"), write("same", f"{one}"))]
        house.run(house.steps("m-1", *steps))
        house.ledger._connection.execute("UPDATE issued_reports SET issued_at_us = 1")
        house.ledger._connection.execute("UPDATE checkpoints SET kept_at_us = 1")
        house.run(house.steps("m-keep", write("kept", OTHER), write("same", "kept")))
        needed = {entry for entry in slot_entries(house) if entry.name.startswith(kept_execution(house))}
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "sweep_until_killed.py"), str(tmp_path), place, str(number)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}"},
    ) as sweeper:
        assert sweeper.wait(timeout=30) == -signal.SIGKILL
    with undo_house(tmp_path) as house:
        gone = [one for one in house.ledger.checkpoints("m-1") if not held(house, one.slot)]
        assert len(gone) == (place == "forget_checkpoint")  # the step's files went, its row not yet
        for one in gone:
            assert house.refused(house.undoing("m-1", one.step_id))[1] == "CHECKPOINT_GONE"
        assert house.retention().sweep(seconds=60).complete
        assert house.ledger.checkpoints("m-1") == ()
        assert set(slot_entries(house)) == needed
        assert set(house.objects.large()) == {digest(OTHER.encode())}
        house.undone("m-keep", "s2", "s1")
        assert (house.site / "same").read_text() == "9"
        assert not (house.site / "kept").exists()


def kept_execution(house: UndoHouse) -> str:
    """The execution whose checkpoints are needed."""
    return house.ledger.checkpoints("m-keep")[0].execution_id


def held(house: UndoHouse, slot: str) -> bool:
    """Tell whether the staging directory has anything of a slot."""
    return any(path.name.startswith(f"{slot}.") for path in slot_entries(house))
