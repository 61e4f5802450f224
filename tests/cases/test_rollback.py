"""What is undone is exactly what was there, and nothing else is touched; no repository is ever moved out of the way."""

import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

from executor.runner.executions import RefusedError
from gonogo.v1 import evidence_pb2, plan_pb2
from tests.cases.case import case
from tests.cases.case_house import (
    CaseHouse,
    Step,
    Tried,
    appended,
    created,
    deleted,
    made,
    moded,
    moved,
    names_in,
    python,
    shell,
    tree_of,
    written,
)
from tests.cases.test_persist import git, repository

pytestmark = pytest.mark.sandbox
OLD = 1_111_111_111_987_654_321
ROLLED_BACK = evidence_pb2.OUTCOME_ROLLED_BACK
SUCCEEDED = evidence_pb2.OUTCOME_SUCCESS


def gate(house: CaseHouse) -> Step:
    """A test step that passes as long as the operator's tools hold the file `on`: a dry run's success turned later."""
    tests = plan_pb2.RunTests(argv=("test", "-e", str(house.tools / "on")))
    return Step(run_tests=tests, stage=plan_pb2.STAGE_TEST)


def fails_at_the_end(house: CaseHouse, *steps: Step, **more: object) -> evidence_pb2.Receipt:
    """Execute steps, all of which work, before one that fails though its dry run did not."""
    (house.tools / "on").touch()
    found = house.worked(*steps, gate(house), **more)
    (house.tools / "on").unlink()
    return house.execute(found)


def identities(root: Path) -> dict[str, int]:
    """Which inode has which name."""
    return {str(path.relative_to(root)): path.lstat().st_ino for path in root.rglob("*")}


@pytest.fixture
def rich(house: CaseHouse) -> CaseHouse:
    """Modes, times to the nanosecond, links, attributes, link groups, empty directories, holes, and odd bits."""
    site = house.site
    (site / "d" / "e").mkdir(parents=True)
    (site / "empty" / "nested").mkdir(parents=True)
    (site / "locked").mkdir()
    for name, mode in (("a", 0o644), ("run", 0o755), ("d/f", 0o600), ("d/e/g", 0o444), ("locked/in", 0o640)):
        (site / name).write_text(f"{name}\n")
        (site / name).chmod(mode)
    (site / "bytes").write_bytes(bytes(range(256)) * 100)
    (site / "group1").write_text("shared\n")
    (site / "d" / "group2").hardlink_to(site / "group1")
    (site / "link").symlink_to("d/e/g")
    (site / "d" / "dangling").symlink_to("no/where")
    with (site / "sparse").open("wb") as file:
        file.truncate(50 << 20)
        os.pwrite(file.fileno(), b"x", 20 << 20)
    os.setxattr(site / "a", "user.one", b"\0\1\2")
    os.setxattr(site / "d", "user.two", b"directory")
    (site / "locked").chmod(0o555)
    (site / "d" / "e").chmod(0o1770)
    for number, path in enumerate(sorted(site.rglob("*"), reverse=True)):
        os.utime(path, ns=(OLD + number, OLD + 7 * number), follow_symlinks=False)
    os.utime(site, ns=(OLD, OLD))
    return house


CHANGES: dict[str, list[Step]] = {
    "typed": [
        written("a", "other\n"),
        appended("d/f"),
        moded("run", "0600"),
        deleted("bytes"),
        deleted("link"),
        deleted("empty"),
        moved("d/e", "moved"),
        created("d/new"),
        made("d/fresh"),
        created("d/fresh/file"),
        moded("d", "0700"),
    ],
    "by a command": [
        shell(
            "echo x >> a; rm -r d empty bytes; mkdir d; echo new > d/f; ln -sf a link; chmod 700 run; "
            "chmod 755 locked; rm locked/in; touch -d @5 locked; rm sparse; mkdir sparse; echo in > sparse/in; "
            "mv run renamed"
        ),
    ],
    "attributes and times": [
        python(
            "import os; os.setxattr('a', 'user.one', b'3'); os.removexattr('d', 'user.two');"
            "os.setxattr('d/e', 'user.n', b''); os.utime('a', ns=(5, 5)); os.utime('d', ns=(5, 5));"
            "os.utime('link', ns=(5, 5), follow_symlinks=False); os.chmod('d', 0o711)"
        ),
    ],
    "holes": [
        shell("printf y | dd of=sparse bs=1 seek=1000 conv=notrunc 2>/dev/null"),
        shell("rm sparse; echo x > sparse"),
    ],
    "link groups": [deleted("group1"), moved("d/group2", "group3"), shell("rm -f group1 group3")],
    "everything": [shell("chmod -R u+w .; rm -rf ./* ./.[!.]* 2>/dev/null; mkdir a; echo only > a/only")],
    "back and forth": [
        moved("a", "b"),
        moved("b", "c"),
        written("c", "x"),
        created("a"),
        deleted("a"),
        moved("c", "a"),
        shell("rm a; cp d/f a"),
    ],
}


@case("S53")
@pytest.mark.parametrize("how", CHANGES)
def test_a_rollback_is_byte_and_metadata_exact(rich: CaseHouse, how: str) -> None:
    """Bytes, modes, nanosecond times of files, links and directories, attributes, holes, link groups, empty folders."""
    before, blocks = tree_of(rich.site), (rich.site / "sparse").stat().st_blocks
    inodes = identities(rich.site)
    receipt = fails_at_the_end(rich, *CHANGES[how])
    assert receipt.execution_status == ROLLED_BACK, receipt.errors
    assert tree_of(rich.site) == before
    assert identities(rich.site) == inodes
    assert (rich.site / "sparse").stat().st_blocks == blocks
    assert (rich.site / "group1").stat().st_nlink == 2
    assert all(step.rollback_succeeded for step in receipt.steps if step.rollback_invoked)
    assert [name for name in names_in(rich.state / "staging" / "site") if name.startswith("x-")] == []


@case("S53")
def test_what_is_committed_keeps_what_was_not_changed(rich: CaseHouse) -> None:
    """A new content keeps attributes, bits and owner; paths beside keep everything, times of directories aside."""
    before = tree_of(rich.site)
    rich.mission(written("a", "other\n"), shell("echo x >> d/f"))
    after = tree_of(rich.site)
    assert os.getxattr(rich.site / "a", "user.one") == b"\0\1\2"
    assert {path for path in before if before[path] != after[path]} <= {b"a", b"d/f", b"d", b"."}
    assert (rich.site / "a").stat().st_mode == 0o100644


@case("S57")
@pytest.mark.parametrize(
    "script",
    [
        "rm a",
        "rm -rf d",
        "mv a b",
        "mv d elsewhere",
        "mv d/f d/e/f",
        "> a",
        "git clean -fdx 2>/dev/null; rm -f a",
        "chmod -R u+w .; find . -type f -delete",
        "cp a t; rm a; mv t a",
    ],
)
def test_what_a_command_deleted_or_moved_is_restored(rich: CaseHouse, script: str) -> None:
    """Not only what typed steps touched, and ignored or untracked files like any other."""
    repository(rich.site)
    (rich.site / ".gitignore").write_text("a\nd/\n*.log\n")
    (rich.site / "ignored.log").write_text("log\n")
    before, inodes = tree_of(rich.site), identities(rich.site)
    receipt = fails_at_the_end(rich, shell("git clean -fdxq 2>/dev/null; " + script))
    assert receipt.execution_status == ROLLED_BACK, receipt.errors
    assert tree_of(rich.site) == before
    assert identities(rich.site) == inodes


@pytest.fixture
def nested(house: CaseHouse) -> CaseHouse:
    """A repository with a submodule, a linked worktree, an untracked nested repository and one with a `.git` link."""
    other = repository(house.folder / "other")
    site = repository(house.site)
    git(site, "submodule", "add", "-q", str(other), "module")
    git(site, "commit", "-q", "-m", "module")
    git(site, "worktree", "add", "-q", "tree")
    repository(site / "inner")
    repository(site / "linked")
    (site / "linked" / ".git").rename(site / "linked" / "real")
    (site / "linked" / ".git").symlink_to("real")
    return house


def git_dirs(root: Path) -> dict[str, tuple[int, int]]:
    """Every `.git` of a tree: which inode it is and when its names last changed."""
    return {str(path): (path.lstat().st_ino, path.lstat().st_mtime_ns) for path in root.rglob(".git")}


@case("S55")
@pytest.mark.parametrize("end", ["success", "rolled back"])
def test_repositories_in_the_workspace_are_left_alone(nested: CaseHouse, end: str) -> None:
    """Nested repository, submodule, worktree: no `.git` is renamed, written or missing at any moment."""
    places, state = (
        git_dirs(nested.site),
        {place: git(nested.site / place, "log", "--format=%H") for place in (".", "module", "tree", "inner", "linked")},
    )
    missing: list[str] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            missing.extend(place for place in places if not os.path.lexists(place))

    watcher = threading.Thread(target=watch)
    watcher.start()
    steps = [appended(f"{place}/file") for place in ("module", "tree", "inner", "linked")] + [
        shell("for d in . module tree inner linked; do echo x > $d/new; done")
    ]
    receipt = nested.mission(*steps) if end == "success" else fails_at_the_end(nested, *steps)
    stop.set()
    watcher.join()
    assert receipt.execution_status == (SUCCEEDED if end == "success" else ROLLED_BACK), receipt.errors
    assert missing == []
    assert git_dirs(nested.site) == places
    for place, log in state.items():
        assert git(nested.site / place, "log", "--format=%H") == log
        git(nested.site / place, "fsck", "--strict")


@case("S55")
def test_a_command_that_uses_git_is_undone_in_every_repository(nested: CaseHouse) -> None:
    """Commits, resets and a removed worktree by a command: rolled back to the byte, `.git` directories included."""
    before = tree_of(nested.site)
    script = """
    export GIT_AUTHOR_NAME=n GIT_AUTHOR_EMAIL=e GIT_COMMITTER_NAME=n GIT_COMMITTER_EMAIL=e
    for d in . inner module; do
        (cd $d; echo x >> file; git add -A . 2>/dev/null; git commit -qam change; git gc -q)
    done
    git worktree remove --force tree; rm -rf linked/.git inner/.git
    """
    receipt = fails_at_the_end(nested, shell(script))
    assert receipt.execution_status == ROLLED_BACK, receipt.errors
    assert tree_of(nested.site) == before


@case("X110")
def test_an_edit_since_the_commit_survives_the_rollback(house: CaseHouse) -> None:
    """A file that somebody changed after its step keeps their change; the former version is kept and named."""
    (house.site / "a").write_text("old\n")
    (house.site / "b").write_text("old\n")
    (house.tools / "on").touch()
    found = house.worked(appended("a"), appended("b"), editing(house))
    result: list[evidence_pb2.Receipt] = []
    run = threading.Thread(target=lambda: result.append(house.execute(found)))
    (house.tools / "on").unlink()
    run.start()
    until = time.monotonic() + 10
    while (house.site / "b").read_text() == "old\n" and time.monotonic() < until:
        time.sleep(0.01)
    (house.site / "a").write_text("somebody's\n")
    run.join()
    (receipt,) = result
    assert (house.site / "a").read_text() == "somebody's\n"
    assert (house.site / "b").read_text() == "old\n"
    assert receipt.execution_status == evidence_pb2.OUTCOME_UNKNOWN
    told = " ".join([*receipt.divergence_details, *receipt.errors])
    kept = [
        path
        for path in (house.state / "staging" / "site").iterdir()
        if path.name.startswith("x-") and path.suffix != ".json"
    ]
    assert [path.read_text() for path in kept if str(path) in told] == ["old\n"]


def editing(house: CaseHouse) -> Step:
    """A test step that fails, slowly enough for somebody to save a file meanwhile."""
    script = f"test -e {house.tools}/on || {{ sleep 1; exit 1; }}"
    return Step(run_tests=plan_pb2.RunTests(argv=("sh", "-c", script)), stage=plan_pb2.STAGE_TEST)


@case("X111")
def test_the_same_mission_is_executed_once(house: CaseHouse) -> None:
    """A second request, before or after a restart, is told that it was executed; nothing happens again."""
    (house.site / "a").write_text("old\n")
    found = house.worked(appended("a"))
    house.execute(found)
    for _ in range(2):
        with pytest.raises(RefusedError) as caught:
            house.execute(house.approved(found))
        assert caught.value.fault.reason == "ALREADY_EXECUTED"
        house.restart()
    assert (house.site / "a").read_text() == "old\nmore\n"


@case("X111")
def test_the_same_plan_in_a_second_mission_finds_what_the_first_did(house: CaseHouse) -> None:
    """Dry-run before the first was executed, it has drifted; dry-run after, it is another change."""
    (house.site / "a").write_text("old\n")
    first, second = house.worked(appended("a")), house.worked(appended("a"))
    house.execute(first)
    with pytest.raises(RefusedError) as caught:
        house.execute(second)
    assert (caught.value.fault.reason, caught.value.fault.paths) == ("BASE_DRIFTED", (b"a",))
    house.mission(appended("a"))
    assert (house.site / "a").read_text() == "old\nmore\nmore\n"


@case("X112")
def test_missions_on_one_workspace_come_one_after_the_other(house: CaseHouse) -> None:
    """Of several at the same time, those that touch the same base are made once; those beside each other all are."""
    (house.site / "shared").write_text("old\n")
    clashing = [house.worked(appended("shared", f"{number}\n"), created(f"c{number}")) for number in range(4)]
    beside = [house.worked(created(f"b{number}")) for number in range(4)]
    ends: list[str] = []

    def run(found: Tried) -> None:
        try:
            ends.append(evidence_pb2.Outcome.Name(house.execute(found).execution_status))
        except RefusedError as error:
            ends.append(error.fault.reason)

    threads = [threading.Thread(target=run, args=(one,)) for one in (*clashing, *beside)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ends) == ["BASE_DRIFTED"] * 3 + ["OUTCOME_SUCCESS"] * 5
    assert len((house.site / "shared").read_text().splitlines()) == 2
    assert len([path for path in house.site.iterdir() if path.name.startswith("c")]) == 1


@case("X113")
def test_only_what_the_report_names_is_ever_touched(rich: CaseHouse) -> None:
    """Names that look temporary, locks and backups of others beside the changed paths keep inode, times and bytes."""
    for name in ("a~", ".a.swp", "a.lock", "x-1.0", ".gonogo", "d/.#f", "journal"):
        (rich.site / name).write_text("theirs\n")
    inodes = identities(rich.site)
    rich.mission(written("a", "new\n"), shell("echo x >> d/f"))
    after = identities(rich.site)
    assert {path for path in inodes if inodes[path] != after[path]} <= {"a", "d/f"}
    assert set(after) == set(inodes)


@case("X114")
def test_the_clock_of_the_machine_does_not_bring_an_approval_back(
    house: CaseHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An approval that ran out stays out when the clock is set back a little or far, also after a restart."""
    from datetime import UTC, datetime, timedelta, tzinfo

    from executor.runner import clock

    (house.site / "a").write_text("old\n")
    found = house.worked(appended("a"))
    short = house.approval(found)
    short.expires_at.FromDatetime(datetime.now(UTC) + timedelta(seconds=30))
    request = house.request(found.plan, found.sealed, house.signed(short))

    class Moved(datetime):
        by = timedelta(hours=2)

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]  # a plain one is enough
            return datetime.now(tz) + cls.by

    monkeypatch.setattr(clock, "datetime", Moved)
    with pytest.raises(RefusedError) as caught:
        house.execute(request)
    assert caught.value.fault.reason == "APPROVAL_EXPIRED"
    # A little behind, time stands still; far behind, nothing can be decided at all.
    for back, reason in ((timedelta(seconds=20), "APPROVAL_EXPIRED"), (timedelta(hours=3), "CLOCK_BEHIND")):
        Moved.by = timedelta(hours=2) - back
        house.restart()
        with pytest.raises(RefusedError) as caught:
            house.execute(house.request(found.plan, found.sealed, house.signed(short)))
        assert caught.value.fault.reason == reason
    assert (house.site / "a").read_text() == "old\n"


@case("X115")
def test_a_copy_of_the_workspace_is_not_the_workspace(house: CaseHouse) -> None:
    """A tree of the same bytes under other inodes, put in its place, is another directory."""
    found = house.worked(created("a"))
    shutil.copytree(house.site, house.folder / "copy")
    house.site.rename(house.folder / "away")
    (house.folder / "copy").rename(house.site)
    with pytest.raises(RefusedError):
        house.execute(found)
    assert subprocess.run(["ls", "-A", house.site], capture_output=True, check=True).stdout == b""
