"""Paths that are no plain files, and files that are larger than anybody wants to read: refused or bounded, no hang."""

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from executor.runner.executions import RefusedError
from gonogo.v1 import evidence_pb2
from tests.cases.case import case
from tests.cases.case_house import (
    FAILED,
    SUCCESS,
    CaseHouse,
    Step,
    appended,
    created,
    deleted,
    listed,
    made,
    moded,
    moved,
    names_in,
    read,
    searched,
    shell,
    tree_of,
    written,
)

pytestmark = pytest.mark.timeout(60)
LARGE = 1 << 28
TIB = 1 << 40
BOUND_SECONDS = 15


def make_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path may be 108 bytes long only
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)
    os.chdir(here)


MAKERS: dict[str, Callable[[Path], None]] = {"fifo": os.mkfifo, "socket": make_socket}


def bounded(house: CaseHouse, step: Step) -> tuple[evidence_pb2.Report, float]:
    """Dry-run a step; how long it took."""
    began = time.monotonic()
    found = house.tried(step)
    return found.report, time.monotonic() - began


@case("S14", "X90")
@pytest.mark.parametrize("kind", MAKERS)
def test_a_fifo_or_socket_at_a_named_path_is_refused_at_once(house: CaseHouse, kind: str) -> None:
    """Reading, writing, appending, patching, searching and moding it fail by name; nothing waits for its other end."""
    MAKERS[kind](house.site / "it")
    for step in (
        read("it"),
        written("it"),
        appended("it"),
        searched("x", "it"),
        moded("it", "0600"),
        created("it"),
        made("it/x"),
    ):
        report, took = bounded(house, step)
        assert (report.status, took < 2) == (FAILED, True), step
        assert "it" in report.problems[0].message


@case("S14")
@pytest.mark.parametrize("kind", MAKERS)
def test_a_fifo_or_socket_elsewhere_disturbs_nothing(house: CaseHouse, kind: str) -> None:
    """Listings, searches, commands and edits beside it work, and do not wait."""
    MAKERS[kind](house.site / "it")
    (house.site / "a").write_text("needle\n")
    before = (house.site / "it").lstat()
    receipt = house.mission(
        listed("."),
        searched("needle"),
        shell("grep -r --devices=skip needle . ; cp -a it copied; rm copied"),
        appended("a"),
    )
    assert receipt.steps_succeeded == 4
    after = (house.site / "it").lstat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


@case("S14", "X90")
@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize(
    "step",
    [
        deleted("it"),
        moved("it", "there"),
        deleted("d"),
        moved("d", "e"),
        shell("rm it"),
        shell("rm -r d"),
        shell("mv d e"),
    ],
)
def test_taking_a_fifo_or_socket_away_is_exact_or_refused(house: CaseHouse, kind: str, step: Step) -> None:
    """Where it can be restored by identity it may go; else it is refused by name. It is never read."""
    (house.site / "d").mkdir()
    for place in ("it", "d/it"):
        MAKERS[kind](house.site / place)
    before = tree_of(house.site)
    began = time.monotonic()
    found = house.tried(step)
    if found.report.status == SUCCESS:
        house.execute(found)
    else:
        assert "it" in found.complaint
        assert tree_of(house.site) == before
    assert time.monotonic() - began < 5


@case("X91")
@pytest.mark.parametrize("kind", MAKERS)
def test_a_file_that_became_a_fifo_after_the_dry_run_is_drift(house: CaseHouse, kind: str) -> None:
    """Nobody waits for it: the gate names the path, for reading steps and writing ones."""
    for step in (read("a"), appended("a"), written("a", "x"), deleted("a"), searched("x", "a"), shell("cat a")):
        (house.site / "a").unlink(missing_ok=True)
        (house.site / "a").write_text("old\n")
        found = house.worked(step)
        (house.site / "a").unlink()
        MAKERS[kind](house.site / "a")
        began = time.monotonic()
        with pytest.raises(RefusedError) as caught:
            house.execute(found)
        assert (caught.value.fault.reason, caught.value.fault.paths) == ("BASE_DRIFTED", (b"a",))
        assert time.monotonic() - began < 2


@case("X92")
def test_a_junit_file_that_is_no_file_is_missing(house: CaseHouse) -> None:
    """A FIFO, a link, a directory or an endless file where results should be is not waited for and not believed."""
    from gonogo.v1 import plan_pb2

    for script in ("mkfifo j.xml", "ln -s /etc/passwd j.xml", "mkdir j.xml", "truncate -s 2G j.xml"):
        tests = plan_pb2.RunTests(argv=("sh", "-c", script), junit="j.xml")
        report, took = bounded(house, Step(run_tests=tests, stage=plan_pb2.STAGE_TEST))
        assert (report.status, report.problems[0].reason, took < 5) == (FAILED, "JUNIT_MISSING", True)


@pytest.fixture
def huge(house: CaseHouse) -> CaseHouse:
    """A workspace with a file of one TiB that holds three bytes."""
    path = house.site / "huge"
    try:
        with path.open("wb") as file:
            file.truncate(TIB)
            for place in (0, TIB // 2, TIB - 1):
                os.pwrite(file.fileno(), b"x", place)
    except OSError:
        pytest.skip("the file system under the tests has no files of one TiB")
    (house.site / "small").write_text("small\n")
    return house


@case("S16")
def test_one_byte_changed_in_a_file_of_a_terabyte_is_refused_in_bounded_time(huge: CaseHouse) -> None:
    """A command that touches it: the size limit ends it within seconds, by name, and the holes are still holes."""
    blocks = (huge.site / "huge").stat().st_blocks
    for script in (
        "printf y | dd of=huge bs=1 seek=5 conv=notrunc 2>&1",
        "echo more >> huge",
        "cp --sparse=always huge copy",
        "truncate -s 2T huge",
        "chmod 600 huge",
        "mv huge there",
        "rm huge",
    ):
        report, took = bounded(huge, shell(script))
        if script not in {"chmod 600 huge", "mv huge there", "rm huge"}:
            assert report.status != SUCCESS, script
        assert report.status == SUCCESS or report.problems[0].message
        assert took < BOUND_SECONDS, (script, took)
    assert (huge.site / "huge").stat().st_blocks == blocks
    assert names_in(huge.site) != []


@case("S16")
@pytest.mark.parametrize(
    "step",
    [
        read("huge"),
        appended("huge"),
        written("huge"),
        moded("huge", "0600"),
        moved("huge", "there"),
        deleted("huge"),
        searched("x", "huge"),
        searched("x", "."),
        listed("."),
    ],
)
def test_a_typed_step_on_a_file_of_a_terabyte_takes_bounded_time(huge: CaseHouse, step: Step) -> None:
    """It works without reading a terabyte, or is refused for the size: never does it take an hour."""
    blocks = (huge.site / "huge").stat().st_blocks
    ended: list[evidence_pb2.Report] = []
    work = threading.Thread(target=lambda: ended.append(bounded(huge, step)[0]), daemon=True)
    work.start()
    work.join(BOUND_SECONDS)
    late = not ended
    if late:
        (huge.site / "huge").open("wb").close()  # let the reader come to its end
        work.join()
    assert not late
    if ended[0].status != SUCCESS:
        assert ended[0].problems[0].reason in {"TOO_LARGE", "UNSUPPORTED", "COMMAND_FAILED"}
    assert (huge.site / "huge").stat().st_blocks == blocks


@case("S16")
def test_a_huge_file_that_nobody_touches_costs_nothing(huge: CaseHouse) -> None:
    """Commands and edits beside it work as if it were not there, and it stays the very same file."""
    before = (huge.site / "huge").stat()
    began = time.monotonic()
    huge.mission(appended("small"), shell("ls -l huge; echo x >> small; head -c 1 huge"))
    assert time.monotonic() - began < 3
    after = (huge.site / "huge").stat()
    assert (before.st_ino, before.st_blocks, before.st_mtime_ns) == (after.st_ino, after.st_blocks, after.st_mtime_ns)


@case("X94")
def test_a_file_that_grows_all_the_time_is_not_read_for_ever(house: CaseHouse) -> None:
    """Somebody appends faster than anybody reads: the step says so within seconds."""
    path = house.site / "growing"
    path.write_bytes(bytes(1 << 20))
    stop = threading.Event()

    def grow() -> None:
        block = bytes(8 << 20)
        with path.open("ab", buffering=0) as file:
            while not stop.is_set() and file.tell() < 3 << 30:
                file.write(block)

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        for step in (read("growing"), appended("growing"), shell("tail -c 1 growing > last")):
            report, took = bounded(house, step)
            assert took < BOUND_SECONDS / 2, step
            assert report.status == SUCCESS or report.problems[0].remedy
    finally:
        stop.set()
        writer.join()


@case("S16", "X93")
def test_holes_are_kept_where_the_size_is_allowed(house: CaseHouse) -> None:
    """Two bytes and a quarter of a GiB between them: one byte changed by a command is committed with its holes."""
    path = house.site / "sparse"
    with path.open("wb") as file:
        file.truncate(LARGE)
        os.pwrite(file.fileno(), b"x", 0)
        os.pwrite(file.fileno(), b"x", LARGE - 1)
    found = house.worked(
        shell("printf y | dd of=sparse bs=1 seek=50000000 conv=notrunc 2>/dev/null; truncate -s 200M fresh")
    )
    house.execute(found)
    assert (path.stat().st_size, (house.site / "fresh").stat().st_size) == (LARGE, 200 << 20)
    assert path.stat().st_blocks * 512 < 8 << 20
    assert (house.site / "fresh").stat().st_blocks * 512 < 8 << 20
    with path.open("rb") as file:
        assert [os.pread(file.fileno(), 1, place) for place in (0, 5, 50_000_000, LARGE - 1)] == [
            b"x",
            b"\0",
            b"y",
            b"x",
        ]
