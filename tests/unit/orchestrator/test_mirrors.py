"""The mirrors: what their lines say, and that they are whole after anything."""

import asyncio
import errno
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters import mirror_files
from orchestrator.adapters.event_codec import JsonEventCodec
from orchestrator.adapters.event_log_reader import SqliteEventReader
from orchestrator.adapters.event_log_sqlite import SqliteEventLog
from orchestrator.adapters.mirror_files import CURSORS_FILE, MirrorFolder
from orchestrator.bootstrap import open_log
from orchestrator.domain.mission import TRANSITIONS
from orchestrator.service import mirror_lines
from orchestrator.service.event_log_checks import all_events
from orchestrator.service.mirror_lines import LEADS_TO
from orchestrator.service.mirrors import LOOK_EVERY, MISSIONS_FILE, SIGNALS_FILE, Mirrors, mirrors_of
from tests.e2e.test_outages import filled, needs_root, small_disk
from tests.fakes.cutting_os import CutOffError, CuttingOs
from tests.fakes.long_log import COURSES, LongLog, cancelled, expired, rejected, rolled_back, stopped, succeeded
from tests.fakes.orchestrator_house import House

pytestmark = pytest.mark.long

FILES = (MISSIONS_FILE, SIGNALS_FILE)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteEventLog]:
    opened = open_log(tmp_path / "log" / "events.db")
    yield opened
    opened.close()


def mirrors(log: SqliteEventLog, folder: Path) -> Mirrors:
    """Return the mirrors as a start of the service has them."""
    folder.mkdir(exist_ok=True)
    return mirrors_of(log, JsonEventCodec(), MirrorFolder(folder))


def catch_up(found: Mirrors) -> set[str]:
    """Write everything, without the task and its threads; return what failed."""
    failed: set[str] = set()
    while found.write_page(failed):
        pass
    found.keep(failed)
    return failed


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


async def life(log: SqliteEventLog, course: Callable[[int], Any]) -> str:
    """Have one mission of a course in the log."""
    return await LongLog(log).live(next(n for n in (1, 2, 3, 4, 5, 7) if COURSES[n] is course))


def test_each_event_that_moves_a_mission_leads_to_one_status() -> None:
    """So a line can tell the status without folding what came before."""
    for (status, name), following in TRANSITIONS.items():
        assert following is status or LEADS_TO[name] is following


async def test_a_mission_has_a_line_for_each_of_its_moves(log: SqliteEventLog, tmp_path: Path) -> None:
    """Position, time, status, event and actor, and the words that somebody looks for."""
    mission = await life(log, rolled_back)
    catch_up(mirrors(log, tmp_path / "m"))

    found = lines(tmp_path / "m", MISSIONS_FILE)

    known = {"mission": mission, "objective": "Größe 1: write a file", "workspace": "site-1"}
    told = [
        (1, "06", "proposed", "mission_proposed", "owner", {}),
        (6, "11", "approved", "mission_approved", "owner", {}),
        (7, "12", "queued", "mission_queued", "owner", {}),
        (8, "13", "active", "mission_started", "owner", {}),
        (22, "27", "failed", "mission_failed", "owner", {"outcome": "rolled_back", "reason": "step s2 failed"}),
    ]
    assert found == [
        {
            "pos": pos, "seq": pos, "time": f"2026-01-02T03:04:{second}.678901Z", "status": status, "event": event,
            "actor": actor, **known, **more,
        }
        for pos, second, status, event, actor, more in told
    ]  # fmt: skip


async def test_a_mission_that_ended_has_a_signal_for_each_kind_of_step(log: SqliteEventLog, tmp_path: Path) -> None:
    """What was undone or failed is no success; of what was never begun nothing is claimed."""
    mission = await life(log, rolled_back)
    catch_up(mirrors(log, tmp_path / "m"))

    found = lines(tmp_path / "m", SIGNALS_FILE)

    same = {
        "pos": 22, "seq": 22, "time": "2026-01-02T03:04:27.678901Z", "mission": mission, "workspace": "site-1",
        "status": "failed", "outcome": "rolled_back", "stated_report": "success", "stated_risk": "low", "planned": 1,
    }  # fmt: skip
    nothing = {"started": 0, "succeeded": 0, "failed": 0, "rolled_back": 0}
    began = {**nothing, "success": False, "started": 1}
    assert found == [
        {**same, "kind": "write_file", **began, "rolled_back": 1, "duration_ms": 5, "stated_changes": 2, "changes": 2},
        {
            **same, "kind": "run_command", **began, "failed": 1, "duration_ms": 6, "stated_changes": 3, "changes": 0,
            "divergences": 1,
        },
        {**same, "kind": "run_tests", **nothing},
    ]  # fmt: skip


async def test_success_is_told_where_every_begun_step_stands(log: SqliteEventLog, tmp_path: Path) -> None:
    """Stated beside realised."""
    await life(log, succeeded)
    catch_up(mirrors(log, tmp_path / "m"))

    found = [one for one in lines(tmp_path / "m", SIGNALS_FILE) if "kind" in one]

    told = [(one["kind"], one["success"], one.get("stated_changes"), one["changes"]) for one in found]
    assert told == [("write_file", True, 2, 2), ("run_command", True, 3, 3), ("run_tests", True, None, 0)]


async def test_what_a_person_thinks_has_a_line(log: SqliteEventLog, tmp_path: Path) -> None:
    """Every person's feedback is a signal: who said it, the words, and the rating where there is one."""
    mission = await life(log, succeeded)
    catch_up(mirrors(log, tmp_path / "m"))

    *_, found = lines(tmp_path / "m", SIGNALS_FILE)

    assert {name: found[name] for name in found if name not in {"pos", "seq", "time"}} == {
        "mission": mission, "workspace": "site-3", "event": "feedback_recorded", "actor": "owner", "text": "good",
    }  # fmt: skip


@pytest.mark.parametrize("page", [128, 2])
async def test_a_mission_that_was_stopped_has_its_receipts_outcome(
    log: SqliteEventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    """Its end says who stopped it; what came of it stands before, however far."""
    monkeypatch.setattr(mirror_lines, "_STREAM_PAGE", page)
    await LongLog(log).live(1, stopped)
    catch_up(mirrors(log, tmp_path / "m"))

    assert lines(tmp_path / "m", MISSIONS_FILE)[-1]["outcome"] == "partial"
    rated, *kinds = lines(tmp_path / "m", SIGNALS_FILE)
    assert rated["rating"] == "bad"
    assert {one["outcome"] for one in kinds} == {"partial"}


@pytest.mark.parametrize("course", [rejected, expired, cancelled])
async def test_what_was_never_executed_teaches_nothing(
    log: SqliteEventLog, tmp_path: Path, course: Callable[[int], Any]
) -> None:
    """A denial is no failure of a step."""
    await life(log, course)
    catch_up(mirrors(log, tmp_path / "m"))

    assert lines(tmp_path / "m", SIGNALS_FILE) == []
    assert lines(tmp_path / "m", MISSIONS_FILE)[-1]["reason"]


async def test_what_can_not_be_seen_is_spelt_out(log: SqliteEventLog, tmp_path: Path) -> None:
    """A reason with escape sequences or reversed text does nothing to a terminal, and is still what was said."""
    await life(log, rejected)
    catch_up(mirrors(log, tmp_path / "m"))

    line = (tmp_path / "m" / MISSIONS_FILE).read_text().splitlines()[-1]

    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["reason"] == "denied by owner: \u202eno\x1b[31m"


async def test_going_on_after_a_restart_doubles_and_misses_nothing(log: SqliteEventLog, tmp_path: Path) -> None:
    """Written in many lives, the files are the same as written in one."""
    growing = LongLog(log)
    for events in (1, 400, 900, 1500):
        await growing.grow(events)
        assert not catch_up(mirrors(log, tmp_path / "often"))
    catch_up(mirrors(log, tmp_path / "once"))

    assert content(tmp_path / "often") == content(tmp_path / "once")
    moves = sum(stored.type in LEADS_TO for stored in all_events(log))
    assert len(lines(tmp_path / "once", MISSIONS_FILE)) == moves


@pytest.mark.parametrize(("bound", "most"), [("_KEPT_MISSIONS", 0), ("_KEPT_EVENTS", 3), ("_KEPT_CHARACTERS", 40)])
async def test_what_is_remembered_of_a_mission_shows_in_no_line(
    log: SqliteEventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, most: int
) -> None:
    """A mission that is over a bound is read again at its end, and its signals are the same."""
    await life(log, succeeded)
    await life(log, rolled_back)
    catch_up(mirrors(log, tmp_path / "remembered"))
    monkeypatch.setattr(mirror_lines, bound, most)
    catch_up(mirrors(log, tmp_path / "read"))

    assert lines(tmp_path / "read", SIGNALS_FILE)
    assert content(tmp_path / "read") == content(tmp_path / "remembered")


def lost_missions(folder: Path) -> None:
    (folder / MISSIONS_FILE).unlink()


def lost_signals(folder: Path) -> None:
    (folder / SIGNALS_FILE).unlink()


def lost_cursors(folder: Path) -> None:
    (folder / CURSORS_FILE).unlink()


def torn(folder: Path) -> None:
    with (folder / MISSIONS_FILE).open("ab") as file:
        file.write(b'{"pos":1,"miss')


def shortened(folder: Path) -> None:
    with (folder / SIGNALS_FILE).open("r+b") as file:
        file.truncate(10)


def emptied(folder: Path) -> None:
    (folder / MISSIONS_FILE).write_bytes(b"")


def garbled(folder: Path) -> None:
    (folder / CURSORS_FILE).write_text('{"format": 2, "files": {"missions.jsonl": {"position": "9"}}}')


def older_format(folder: Path) -> None:
    kept = json.loads((folder / CURSORS_FILE).read_text())
    (folder / CURSORS_FILE).write_text(json.dumps({**kept, "format": 0}))


def out_of_range(folder: Path) -> None:
    kept = json.loads((folder / CURSORS_FILE).read_text())
    for cursor in kept["files"].values():
        cursor["position"] = 2**70
    (folder / CURSORS_FILE).write_text(json.dumps(kept))


def bottomless(folder: Path) -> None:
    (folder / CURSORS_FILE).write_text("[" * 100_000)


def all_gone(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


HARMS = [
    *(lost_missions, lost_signals, lost_cursors, all_gone),
    *(torn, shortened, emptied, garbled, older_format, out_of_range, bottomless),
]


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("harm", HARMS)
async def test_a_harmed_mirror_is_whole_again(
    log: SqliteEventLog, tmp_path: Path, harm: Callable[[Path], None], *, running: bool
) -> None:
    """Lost, torn, cut short or without a cursor: byte for byte what it was, in the same process and after a restart."""
    await LongLog(log).grow(600)
    first = mirrors(log, tmp_path / "m")
    catch_up(first)
    whole = content(tmp_path / "m")

    harm(tmp_path / "m")
    assert not catch_up(first if running else mirrors(log, tmp_path / "m"))

    assert content(tmp_path / "m") == whole


async def test_a_log_that_was_put_back_has_its_mirrors_written_anew(log: SqliteEventLog, tmp_path: Path) -> None:
    """What was mirrored of another log, a longer or a different one, does not stay."""
    await LongLog(log).grow(600)
    catch_up(mirrors(log, tmp_path / "m"))
    other = open_log(tmp_path / "other" / "events.db")
    await life(other, succeeded)

    catch_up(mirrors(other, tmp_path / "m"))
    catch_up(mirrors(other, tmp_path / "fresh"))
    other.close()

    assert content(tmp_path / "m") == content(tmp_path / "fresh")
    assert len(lines(tmp_path / "m", MISSIONS_FILE)) == 4


async def test_a_process_that_is_cut_off_anywhere_leaves_mirrors_that_become_whole(
    log: SqliteEventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every call that changes something, half a write included; the log grows meanwhile."""
    growing = LongLog(log)
    await growing.grow(300)
    half = log.head() // 2
    await growing.grow(600)
    catch_up(mirrors(log, tmp_path / "whole"))
    surplus = cuts = 0
    while True:
        cuts += 1
        folder = tmp_path / f"cut-{cuts}"
        first = mirrors(log, folder)
        while first.files.position(MISSIONS_FILE) < half:
            first.write_page(set())
        first.keep(set())
        cutting = CuttingOs(cuts)
        with monkeypatch.context() as patched:
            patched.setattr(mirror_files, "os", cutting)
            try:
                catch_up(first)
            except CutOffError:
                kept = json.loads((folder / CURSORS_FILE).read_text())["files"]
                surplus += any((folder / name).stat().st_size > kept[name]["length"] for name in FILES)
        assert not catch_up(mirrors(log, folder))
        assert content(folder) == content(tmp_path / "whole"), cuts
        if cutting.calls < cuts:
            break
    assert cuts > 10, "nothing was cut"
    assert surplus > 3, "no cut left lines behind that no cursor knew of"


async def test_what_the_disk_did_not_take_is_written_again(
    log: SqliteEventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel says once that it dropped bytes; nothing that is behind the stored cursor is relied on afterwards."""
    await LongLog(log).grow(300)
    found = mirrors(log, tmp_path / "m")

    def fail(_file: int) -> None:
        with (tmp_path / "m" / MISSIONS_FILE).open("r+b") as file:
            file.write(bytes(10))
        raise OSError(errno.EIO, "the disk failed")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fail)
        assert catch_up(found)
    assert not catch_up(found)

    catch_up(mirrors(log, tmp_path / "fresh"))
    assert content(tmp_path / "m") == content(tmp_path / "fresh")


async def test_a_mirror_that_can_not_be_written_holds_up_nothing_and_is_told_once(
    log: SqliteEventLog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A directory in the place of one file: the other is written, and this one, too, when the way is free."""
    await LongLog(log).grow(300)
    found = mirrors(log, tmp_path / "m")
    (tmp_path / "m" / MISSIONS_FILE).mkdir()
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            await found.catch_up()
        assert [one.levelname for one in caplog.records] == ["WARNING"]
        assert lines(tmp_path / "m", SIGNALS_FILE)
        (tmp_path / "m" / MISSIONS_FILE).rmdir()
        await found.catch_up()

    assert [one.levelname for one in caplog.records] == ["WARNING", "INFO"]
    catch_up(mirrors(log, tmp_path / "fresh"))
    assert content(tmp_path / "m") == content(tmp_path / "fresh")


async def test_a_link_in_the_place_of_a_mirror_is_not_followed(log: SqliteEventLog, tmp_path: Path) -> None:
    """Whoever may write to the folder can not have another file emptied."""
    await life(log, succeeded)
    found, kept = mirrors(log, tmp_path / "m"), tmp_path / "kept"
    kept.write_text("mine")
    (tmp_path / "m" / MISSIONS_FILE).symlink_to(kept)

    assert catch_up(found) == {MISSIONS_FILE}
    assert kept.read_text() == "mine"


@needs_root
async def test_a_full_disk_under_the_mirrors_stops_only_them(log: SqliteEventLog, tmp_path: Path) -> None:
    """No half of a line stays, the log goes on, and with room again nothing is missing."""
    with small_disk(tmp_path / "m", "512k") as disk:
        found, growing = mirrors(log, disk), LongLog(log)
        await growing.grow(1)
        catch_up(found)
        with filled(disk):
            await growing.grow(log.head() + 1)
            assert MISSIONS_FILE in catch_up(found)
            assert (disk / MISSIONS_FILE).read_bytes().endswith(b"\n")
        catch_up(mirrors(log, tmp_path / "fresh"))
        assert not catch_up(found)
        assert content(disk) == content(tmp_path / "fresh")


async def test_the_task_follows_a_running_service_and_writes_the_rest_at_its_end(house: House, tmp_path: Path) -> None:
    """A real mission is in the file within moments, and what came last is there after the service has stopped."""
    reader = SqliteEventReader(house.folder / "orchestrator" / "events.db", cache_kib=256)
    found = mirrors_of(reader, JsonEventCodec(), MirrorFolder(tmp_path))
    found.start()
    await house.execute(await house.approved())
    await asyncio.sleep(3 * LOOK_EVERY)
    statuses = [one["status"] for one in lines(tmp_path, MISSIONS_FILE)]
    proposed = await house.proposed()
    assert await found.close()
    reader.close()

    assert statuses == ["proposed", "approved", "active", "completed"]
    assert [one["kind"] for one in lines(tmp_path, SIGNALS_FILE)] == ["write_file"]
    last = lines(tmp_path, MISSIONS_FILE)[-1]
    assert (last["mission"], last["status"]) == (proposed.mission_id, "proposed")
