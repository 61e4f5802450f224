"""Somebody swaps directories for links, or saves files, while the executor looks, copies and commits."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from executor.domain.changes import Change, ChangeKind, Node, NodeType
from executor.domain.errors import ExecutorError
from executor.runner.executions import RefusedError
from executor.workspace.commit import CommitConflictError, Committer
from executor.workspace.objects import ObjectStore
from executor.workspace.paths import Directory
from gonogo.digests import digest
from gonogo.v1 import evidence_pb2
from tests.cases.case import case
from tests.cases.case_house import (
    SUCCESS,
    CaseHouse,
    appended,
    case_house,
    created,
    deleted,
    names_in,
    read,
    shell,
    tree_of,
    written,
)

ROUNDS = 10_000
MOST_SECONDS = 45
SUCCEEDED = evidence_pb2.OUTCOME_SUCCESS
OLD, NEW = b"inside\n", b"new\n"


@dataclass(slots=True)
class Race:
    """A racer; how many swaps it made is known when it has ended."""

    process: subprocess.Popen[str]
    swaps: int = 0

    @contextmanager
    def at_rest(self, one: Path, other: Path) -> Iterator[None]:
        """Hold it still, with both names as they were at first: the first is the directory."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)
        swapped = one.is_symlink()
        if swapped:
            exchange(one, other)
        yield
        if swapped:
            exchange(one, other)
        self.process.send_signal(signal.SIGCONT)


def exchange(one: Path, other: Path) -> None:
    between = one.with_name("between")
    for old, new in ((one, between), (other, one), (between, other)):
        old.rename(new)


@contextmanager
def racing(one: Path, other: Path) -> Iterator[Race]:
    """Swap two names in a process of its own."""
    program = Path(__file__).with_name("racer.py")
    process = subprocess.Popen(
        [sys.executable, "-IS", program, one, other], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    race = Race(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    try:
        yield race
    finally:
        said, _ = process.communicate()
        race.swaps = int(said)


@pytest.fixture
def bait(tmp_path: Path) -> Path:
    """A workspace with `d/file`, beside `d` a link `x` to a folder outside that has a `file` too."""
    site, outside = tmp_path / "site", tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"outside\n")
    lay_out(site)
    (site / "x").symlink_to(outside)
    return site


def rounds_until(enough: Callable[[], bool], *, least: float) -> Iterator[None]:
    """Go on for some seconds, and then until a race came often enough: how soon it does is not what is tested."""
    began = time.monotonic()
    while (lasted := time.monotonic() - began) < least or (lasted < MOST_SECONDS and not enough()):
        yield


def lay_out(site: Path) -> None:
    """Make the workspace's directory anew, which nobody swaps meanwhile."""
    shutil.rmtree(site / "d", ignore_errors=True)
    (site / "d").mkdir(parents=True)
    (site / "d" / "file").write_bytes(OLD)
    (site / "d" / "file").chmod(0o644)


@case("S03")
def test_a_look_through_a_swapped_directory_never_sees_the_outside(bait: Path) -> None:
    """In 10,000 looks while a directory changes places with a link, each sees the inside or refuses."""
    root = Directory.open(bait)
    seen: Counter[bytes] = Counter()
    with racing(bait / "d", bait / "x") as race:
        for _ in rounds_until(
            lambda: seen.total() >= ROUNDS and min(seen[OLD], seen[b"PATH_OUTSIDE_WORKSPACE"]) > ROUNDS / 100, least=0
        ):
            try:
                seen[root.read(b"d/file", 100)] += 1
            except ExecutorError as error:
                seen[error.fault.reason.encode()] += 1
            except FileNotFoundError:
                seen[b"gone"] += 1
    root.close()
    assert seen.keys() <= {OLD, b"PATH_OUTSIDE_WORKSPACE", b"CONFLICT", b"gone"}
    assert seen[OLD] > ROUNDS / 100
    assert seen[b"PATH_OUTSIDE_WORKSPACE"] > ROUNDS / 100
    assert race.swaps > ROUNDS / 10


def changes_of(name: bytes) -> tuple[Change, ...]:
    """One file modified and one created in the directory that is swapped."""
    old = Node(type=NodeType.FILE, mode=0o644, digest=digest(OLD), size=len(OLD))
    new = Node(type=NodeType.FILE, mode=0o644, digest=digest(NEW), size=len(NEW))
    return (
        Change(path=b"d/file", kind=ChangeKind.MODIFY, old=old, new=new),
        Change(path=b"d/" + name, kind=ChangeKind.CREATE, old=None, new=new),
    )


@case("S03")
def test_a_commit_through_a_swapped_directory_never_reaches_the_outside(bait: Path) -> None:
    """Commits and their undoing while a directory is swapped for a link: made inside, or not at all."""
    outside = tree_of(bait.parent / "outside")
    contents = {digest(NEW): NEW}
    root = Directory.open(bait)
    committer = Committer(root, bait.parent / "staging", ObjectStore(bait.parent / "objects", contents.get))
    ends: Counter[str] = Counter()
    with racing(bait / "d", bait / "x") as race:
        for _ in rounds_until(lambda: ends["applied"] > 3, least=5):
            number = ends.total()
            try:
                applied = committer.apply(f"x-{number}", changes_of(b"n%d" % number))
            except ExecutorError as error:
                ends[error.fault.reason] += 1
                if isinstance(error, CommitConflictError):  # the way back was cut off too: both are kept, and named
                    message = error.fault.message
                    assert "d/" in message
                    assert OLD in {kept.read_bytes() for kept in (bait.parent / "staging").glob(f"x-{number}.?")}
                    with race.at_rest(bait / "d", bait / "x"):
                        lay_out(bait)
                continue
            ends["applied"] += 1
            with race.at_rest(bait / "d", bait / "x"):
                assert committer.verify(applied.changes) == ()
                assert committer.undo(applied).success
            committer.discard(applied)
    assert tree_of(bait.parent / "outside") == outside
    assert (bait / "d" / "file").read_bytes() == OLD
    assert names_in(bait / "d") == ["file"]
    assert race.swaps > ROUNDS
    assert ends["applied"] > 3, ends
    assert ends["BASE_DRIFTED"] > 3, ends
    committer.close()
    root.close()


@case("X12")
def test_a_commit_to_a_name_that_is_swapped_for_a_link_never_reaches_the_target(bait: Path) -> None:
    """The file itself changes places with a link to a file outside: the link is never written through, nor removed."""
    outside = tree_of(bait.parent / "outside")
    (bait / "d" / "link").symlink_to("../../outside/file")
    contents = {digest(NEW): NEW}
    root = Directory.open(bait)
    committer = Committer(root, bait.parent / "staging", ObjectStore(bait.parent / "objects", contents.get))
    ends: Counter[str] = Counter()
    until = time.monotonic() + 3
    swapped = bait / "d" / "file", bait / "d" / "link"
    with racing(*swapped) as race:
        while time.monotonic() < until:
            number = ends.total()
            try:
                applied = committer.apply(f"x-{number}", changes_of(b"n%d" % number))
            except ExecutorError as error:
                ends[error.fault.reason] += 1
                if isinstance(error, CommitConflictError):  # swapped once more while it was put back: kept, and named
                    with race.at_rest(*swapped):
                        kept = [*(bait / "d").iterdir(), *(bait.parent / "staging").glob(f"x-{number}.?")]
                        assert OLD in {path.read_bytes() for path in kept if not path.is_symlink()}
                        lay_out(bait)
                        swapped[1].symlink_to("../../outside/file")
                continue
            ends["applied"] += 1
            with race.at_rest(*swapped):
                assert committer.undo(applied).success
            committer.discard(applied)
    assert tree_of(bait.parent / "outside") == outside
    assert sorted(path.name for path in (bait / "d").iterdir()) == ["file", "link"]
    assert [path.read_bytes() for path in (bait / "d").iterdir() if not path.is_symlink()] == [OLD]
    assert min(ends["applied"], ends["BASE_DRIFTED"]) > 0, ends
    committer.close()
    root.close()


@case("S03")
def test_missions_through_a_swapped_directory_never_reach_the_outside(bait: Path) -> None:
    """Whole missions, typed and by command, while the directory they write into is swapped for a link and back."""
    outside = tree_of(bait.parent / "outside")
    ends: Counter[str] = Counter()
    with case_house(bait.parent) as house, racing(bait / "d", bait / "x") as race:
        for _ in rounds_until(lambda: ends.total() > 10, least=5):
            steps = [read("d/file"), written("d/file"), created("d/made"), deleted("d/made")]
            steps += [shell("cat d/file; echo x > d/file; echo y > d/by-command")] if ends.total() % 5 == 0 else []
            try:
                found = house.tried(*steps)
                ends[evidence_pb2.ReportStatus.Name(found.report.status)] += 1
                assert "outside\n" not in str(found.report)
                if found.report.status == SUCCESS:
                    receipt = house.execute(found)
                    ends[evidence_pb2.Outcome.Name(receipt.execution_status)] += 1
            except ExecutorError as error:
                ends[error.fault.reason] += 1
    assert tree_of(bait.parent / "outside") == outside
    assert race.swaps > ROUNDS
    assert ends.total() > 10, ends


@case("X10")
def test_a_file_swapped_for_something_else_while_it_is_read(bait: Path) -> None:
    """A file that changes places with a FIFO, a link to the outside or a directory is read whole, or not; no hang."""
    root = Directory.open(bait)
    makers: tuple[Callable[[Path], None], ...] = (
        os.mkfifo,
        lambda path: path.symlink_to("../outside/file"),
        Path.mkdir,
    )
    for number, make in enumerate(makers):
        other = bait / f"other{number}"
        make(other)
        seen: Counter[bytes] = Counter()
        with racing(bait / "d" / "file", other):
            for _ in rounds_until(lambda seen=seen: seen.total() >= 1500 and len(seen) > 1, least=0):  # type: ignore[misc]  # bound now
                try:
                    seen[root.read(b"d/file", 100)] += 1
                except ExecutorError as error:
                    seen[error.fault.reason.encode()] += 1
        assert seen.keys() <= {OLD, b"PATH_OUTSIDE_WORKSPACE", b"CONFLICT"}, seen
        assert len(seen) > 1, seen
    root.close()


@case("S50")
def test_an_edit_between_approval_and_commit_is_kept(house: CaseHouse) -> None:
    """A file saved after the approval, in place or by rename: the gate names it, and nothing at all is applied."""
    (house.site / "a").write_text("old\n")
    saves: tuple[Callable[[Path, str], object], ...] = (
        Path.write_text,
        save_by_rename,
        lambda path, _: path.chmod(0o600),
    )
    for number, save in enumerate(saves):
        (house.site / "a").write_text("old\n")
        (house.site / "a").chmod(0o644)
        found = house.worked(appended("a"), created(f"b{number}"))
        save(house.site / "a", "edited\n")
        before = tree_of(house.site)
        with pytest.raises(RefusedError) as caught:
            house.execute(found)
        fault = caught.value.fault
        assert (fault.reason, fault.paths) == ("BASE_DRIFTED", (b"a",))
        assert tree_of(house.site) == before


def save_by_rename(path: Path, text: str) -> None:
    """Save as editors do."""
    beside = path.with_name(path.name + "~")
    beside.write_text(text)
    beside.rename(path)


@case("S50")
def test_an_edit_at_any_moment_of_the_execution_is_kept(house: CaseHouse) -> None:
    """An editor that saves once at a random moment never loses its text, and the step is made whole or not at all."""
    chance = random.Random(50)
    ends: Counter[str] = Counter()
    names = [f"f{number}" for number in range(6)]
    took = [0.012]
    for turn in range(80):
        for name in names:
            (house.site / name).write_text("old\n")
        found = house.worked(shell("for f in f*; do echo new >> $f; done"))
        request = house.approved(found)
        edited, delay = house.site / chance.choice(names), chance.uniform(0, 1.5 * sorted(took)[len(took) // 2])
        delay = 0.0 if turn % 4 == 0 else delay  # early enough for the gate to see it
        text = f"edit {turn}\n"
        editor = threading.Timer(delay, save_by_rename, (edited, text))
        editor.start()
        began = time.monotonic()
        try:
            receipt = house.execute(request)
            end, success = evidence_pb2.Outcome.Name(receipt.execution_status), receipt.execution_status == SUCCEEDED
        except RefusedError as error:
            end, success = error.fault.reason, False
        took.append(time.monotonic() - began)
        editor.join()
        ends[end] += 1
        assert edited.read_text() == text, end
        others = {(house.site / name).read_text() for name in names if house.site / name != edited}
        assert others == ({"old\nnew\n"} if success else {"old\n"}), end
    assert ends["OUTCOME_SUCCESS"] > 0, ends
    assert ends["BASE_DRIFTED"] > 0, ends
    assert ends["OUTCOME_ABORTED"] > 0, ends


@case("S24")
def test_an_edit_during_the_dry_run_fails_it(house: CaseHouse) -> None:
    """What a command saw is not known when the tree below changed meanwhile: failed, with the path."""
    for name in ("touched", "read", "neither"):
        (house.site / name).write_text("old\n")
    for name in ("touched", "read", "neither"):
        editor = threading.Timer(0.3, save_by_rename, (house.site / name, f"edited {time.time()}\n"))
        editor.start()
        found = house.tried(shell("cat read; echo x >> touched; sleep 0.6; echo y >> touched"))
        editor.join()
        assert (found.report.status, found.reasons) == (evidence_pb2.REPORT_STATUS_FAILED, ["BASE_DRIFTED"])
        assert found.report.problems[0].path == name
        with pytest.raises(RefusedError):
            house.execute(found)


@case("S24", "X11")
def test_anything_that_happens_below_a_dry_run_is_noticed(house: CaseHouse) -> None:
    """New and lost names, bits, links and directories, also where size and modification time are set back."""
    (house.site / "d").mkdir()
    (house.site / "d" / "f").write_text("old\n")
    (house.site / "l").symlink_to("d")
    info = (house.site / "d" / "f").stat()

    def same_size_and_time() -> None:
        (house.site / "d" / "f").write_text("OLD\n")
        os.utime(house.site / "d" / "f", ns=(info.st_atime_ns, info.st_mtime_ns))

    def relinked() -> None:
        (house.site / "l").unlink()
        (house.site / "l").symlink_to("e")

    (house.site / "gone").touch()
    happenings = {
        "gone": (house.site / "gone").unlink,
        "d/f": same_size_and_time,
        "n": (house.site / "n").mkdir,
        "d": lambda: (house.site / "d").chmod(0o700),
        "l": relinked,
    }
    for path, happens in happenings.items():
        thing = threading.Timer(0.2, happens)
        thing.start()
        found = house.tried(shell("sleep 0.4"))
        thing.join()
        assert (found.reasons, [one.path for one in found.report.problems]) == (["BASE_DRIFTED"], [path])
