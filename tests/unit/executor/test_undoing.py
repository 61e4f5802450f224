"""What a commit leaves for others: records that are whole again, an undo that may be made twice, former versions."""

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from executor.domain.changes import Change, ChangeKind, Node, NodeType
from executor.domain.errors import ExecutorError, StoreError
from executor.domain.plan import CreateDirectory, CreateFile, DeletePath, Edit, MovePath, SetMode, WriteFile
from executor.workspace import commit, switch, undoing
from executor.workspace.beneath import exchange, rename_new
from executor.workspace.commit import Applied, CommitConflictError, Committer, StagingUnavailableError, Undone
from executor.workspace.journal import Journal, Note
from executor.workspace.paths import Directory
from executor.workspace.staging import Slot
from tests.unit.executor.test_commit import OLD, Site

EVERYTHING: tuple[Edit, ...] = (
    WriteFile(path="file", content=b"new", mode=None),
    SetMode(path="sub/two", mode=0o600),
    MovePath(path="sub/one", to="one"),
    DeletePath(path="sub/deep", recursive=True),
    CreateDirectory(path="made", mode=0o500),
    CreateFile(path="made/file", content=b"x", mode=0o400),
)
OFTEN = 1000


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.committer.close()
    made.directory.close()


def next_process(site: Site) -> Committer:
    """Open the committer as the next process does."""
    site.committer.close()
    site.committer = Committer(site.directory, site.staging, site.batch)
    return site.committer


def times(site: Site) -> dict[str, int]:
    return {str(path.relative_to(site.root)): path.lstat().st_mtime_ns for path in [site.root, *site.root.rglob("*")]}


class Died(BaseException):
    """The process is no more."""


def die_at(monkeypatch: pytest.MonkeyPatch, place: object, name: str) -> None:
    """Let the process die at a call, with nobody left to undo anything."""

    def dead(*_: object, **__: object) -> None:
        raise Died

    monkeypatch.setattr(place, name, dead)
    monkeypatch.setattr(Committer, "_undo_failed", dead)


def test_what_is_pending_is_what_apply_returned(site: Site) -> None:
    """The record holds all of it: changes, operations, looks, inodes and times, for the next process too."""
    changes = tuple(replace(one, mtime_ns=10**18 if one.new else None) for one in site.changes(*EVERYTHING))
    applied = site.committer.apply("x-1", changes)
    assert site.committer.pending() == (applied,)
    assert next_process(site).pending() == (applied,)
    assert applied.complete
    assert Applied.decode(applied.encode()) == applied


def test_commits_are_pending_in_their_order_until_somebody_lets_go_of_them(site: Site) -> None:
    """Released ones keep their old objects, discarded ones do not; neither is pending any more."""
    first = site.committer.apply("x-1", site.changes(WriteFile(path="file", content=b"1", mode=None)))
    second = site.committer.apply("x-2", site.changes(WriteFile(path="sub/one", content=b"2", mode=None)))
    third = site.committer.apply("x-3", site.changes(WriteFile(path="file", content=b"3", mode=None)))
    assert next_process(site).pending() == (first, second, third)
    site.committer.release([first])
    site.committer.discard(second)
    assert next_process(site).pending() == (third,)
    assert site.staged() == {"x-1.0", "x-3.0"}
    assert site.committer.undo(third).success
    site.committer.discard(third)
    site.committer.discard(first)
    assert site.staged() == set()


@pytest.mark.parametrize("place", ["make", "sync"])
def test_a_commit_that_was_not_begun_leaves_nothing(site: Site, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """Entries without a record, and a record without a rename, are nothing that happened."""
    changes = site.changes(*EVERYTHING)
    with monkeypatch.context() as patched:
        die_at(patched, Slot, place)
        with pytest.raises(Died):
            site.committer.apply("x-1", changes)
    (site.staging / "y-1.0").write_bytes(b"somebody else's")
    for applied in next_process(site).pending():
        assert not applied.complete
        assert site.committer.undo(applied).success
        site.committer.discard(applied)
    assert site.files() == OLD
    assert site.staged() == {"y-1.0"}


def test_two_workspaces_share_a_staging_directory(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a journal of its own, and removes nothing that the other has made."""
    changes = site.changes(*EVERYTHING)
    with monkeypatch.context() as patched:
        die_at(patched, Slot, "sync")
        with pytest.raises(Died):
            site.committer.apply("x-1", changes)
    left = site.staged()
    (tmp_path / "other").mkdir()
    other = Committer(Directory.open(tmp_path / "other"), site.staging, site.batch)
    assert other.pending() == ()
    assert site.staged() == left
    assert len(next_process(site).pending()) == 1
    other.close()


def cut_off_at(site: Site, monkeypatch: pytest.MonkeyPatch, *changes: Change) -> None:
    """Let the process die in the middle of a commit."""
    with monkeypatch.context() as patched:
        die_at(patched, switch, "exchange")
        with pytest.raises(Died):
            site.committer.apply("x-1", changes)


def on_another_device(text: str) -> str:
    """A record as it would be had the device another number, as after a restart of the machine."""
    value = json.loads(text)
    for seen in value["seen"]:
        seen[4] += 1
    return json.dumps(value, separators=(",", ":"))


def test_a_record_is_good_on_a_device_of_another_number(site: Site) -> None:
    """What was moved, replaced and deleted is known by its inode alone."""
    before = times(site)
    applied = site.committer.apply("x-1", site.changes(*EVERYTHING))
    assert applied.seen[b"file"].status.st_dev == site.directory.device
    stored = Applied.decode(on_another_device(applied.encode().decode()).encode())
    assert stored.seen[b"file"].status.st_dev == site.directory.device + 1
    os.close(site.committer.old_file(stored, b"file"))
    undone = site.committer.undo(replace(stored, times=applied.times))
    assert undone.differences == ()
    assert times(site) == before


def test_journals_of_a_former_name_are_taken_over(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """They had the device's number in their name; whatever it is by now, what they hold is found, in its order."""
    first = site.committer.apply("x-0", site.changes(WriteFile(path="sub/one", content=b"1", mode=None)))
    cut_off_at(site, monkeypatch, *site.changes(*EVERYTHING))
    name = f"journal.{site.directory.inode:x}"
    old, older = (site.staging / f"journal.{number:x}.{site.directory.inode:x}" for number in (7, 8))
    (site.staging / name).rename(old)
    fd = os.open(site.staging, os.O_RDONLY)
    Journal(fd, older.name).note(Note.STAGED, "w-1")
    os.close(fd)
    os.utime(older, ns=(1, 1))
    other = site.staging / f"journal.7.{site.directory.inode + 1:x}"
    other.write_bytes(b"")
    (site.staging / "w-1.0").write_bytes(b"left behind")
    found = next_process(site).pending()
    assert [(one.slot, one.complete) for one in found] == [("x-0", True), ("x-1", False)]
    assert found[0] == first
    assert {path.name for path in site.staging.glob("journal.*")} == {name, other.name}
    assert "w-1.0" not in site.staged()
    assert site.committer.undo(found[1]).success
    assert site.committer.undo(found[0]).success
    assert site.files() == OLD


def test_a_journal_that_somebody_holds_is_not_taken_over(site: Site) -> None:
    """A former version of this program may still be running."""
    held = site.staging / f"journal.7.{site.directory.inode:x}"
    held.write_bytes(b"")
    with held.open() as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        with pytest.raises(StagingUnavailableError):
            Committer(site.directory, site.staging, site.batch)
    next_process(site)
    assert not held.exists()


@pytest.mark.parametrize("number", [1, 2])
def test_a_right_that_was_only_lent_is_taken_back(site: Site, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A process may die between the rename of a directory that nobody may write and the return of its bits."""
    (site.root / "sub" / "deep").chmod(0o500)
    edits = MovePath(path="sub/deep", to="deep"), CreateDirectory(path="new", mode=0o500)
    changes = site.changes(edits[number - 1])
    site.committer.apply("x-1", changes)
    site.committer.undo(left := site.committer.pending()[0])
    site.committer.discard(left)
    with monkeypatch.context() as patched:
        die_at(patched, commit, "sync_directories")
        with pytest.raises(Died):
            site.committer.apply("x-2", changes)
    [place] = [one.path.decode() for one in changes]
    (site.root / place).chmod(0o700)
    [found] = next_process(site).pending()
    assert not found.complete
    assert site.committer.undo(found).success
    assert site.committer.check(changes) == ()


def test_undoing_is_the_same_twice_and_by_another_process(site: Site) -> None:
    """An undo that was made is not made again, and touches nothing."""
    before = times(site)
    applied = site.committer.apply("x-1", site.changes(*EVERYTHING))
    assert site.committer.undo(applied).success
    assert times(site) == before
    (site.root / "since").write_bytes(b"")
    after = times(site)
    assert site.committer.undo(applied).success
    [pending] = next_process(site).pending()
    assert (pending.complete, pending.made_whole) == (False, True)
    assert site.committer.undo(pending).success
    assert times(site) == after


def test_a_directory_that_somebody_changed_since_keeps_its_time_over_a_crash(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an undo found at its beginning counts for the one that finishes it."""
    applied = site.committer.apply(
        "x-1",
        site.changes(WriteFile(path="sub/one", content=b"1+", mode=None), DeletePath(path="file", recursive=False)),
    )
    (site.root / "sub" / "theirs").write_bytes(b"")
    theirs = (site.root / "sub").stat().st_mtime_ns

    def dies(*_: object) -> None:
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(switch, "exchange", dies)
        with pytest.raises(Died):
            site.committer.undo(applied)
    [pending] = next_process(site).pending()
    assert site.committer.undo(pending).success
    assert site.files() == {**OLD, "sub/theirs": b""}
    assert (site.root / "sub").stat().st_mtime_ns != applied.times[b"sub"].mtime_ns
    assert (site.root / "sub").stat().st_mtime_ns >= theirs
    assert site.root.stat().st_mtime_ns == applied.times[b"."].mtime_ns


def test_an_edit_saved_into_an_undo_that_was_cut_off_is_not_lost(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """An editor's file that came into the slot as the process died goes back to its place."""
    applied = site.committer.apply("x-1", site.changes(WriteFile(path="file", content=b"new", mode=None)))

    def late(*arguments: int | bytes) -> None:
        (site.root / "saved").write_bytes(b"EDIT")
        (site.root / "saved").rename(site.root / "file")
        exchange(*arguments)  # type: ignore[arg-type]  # handed on as they came
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(switch, "exchange", late)
        with pytest.raises(Died):
            site.committer.undo(applied)
    assert (site.staging / "x-1.0").read_bytes() == b"EDIT"
    [pending] = next_process(site).pending()
    undone = site.committer.undo(pending)
    assert site.files()["file"] == b"EDIT"
    assert (site.staging / "x-1.0").read_bytes() == b"old"
    [told] = undone.differences
    assert str(site.staging / "x-1.0") in told


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("number", range(1, 12))
def test_a_disk_that_fails_once_in_an_undo_leaves_the_old_state(
    site: Site, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    """Whichever call fails, it is made once more."""
    before = times(site)
    applied = site.committer.apply("x-1", site.changes(*EVERYTHING))
    fail(monkeypatch, number, code, times=1)
    assert site.committer.undo(applied).success
    assert site.files() == OLD
    assert times(site) == before


@pytest.mark.parametrize("number", range(1, 9))
def test_a_disk_that_goes_on_failing_is_told_and_waited_for(
    site: Site, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The commit, or the undo, says what is not restored; with a disk that works again it is undone after all."""
    before = times(site)
    changes = site.changes(*EVERYTHING)
    with monkeypatch.context() as patched:
        fail(patched, number, errno.EIO, times=OFTEN)  # the commit makes eight such calls
        with pytest.raises(ExecutorError) as caught:
            site.committer.apply("x-1", changes)
    if isinstance(caught.value, CommitConflictError):
        assert "could not be restored" in caught.value.fault.message
        [pending] = next_process(site).pending()
        assert site.committer.undo(pending).success
        site.committer.discard(pending)
    else:
        assert isinstance(caught.value, StoreError)
    assert site.files() == OLD
    assert times(site) == before
    assert site.staged() == set()


def fail(monkeypatch: pytest.MonkeyPatch, number: int, code: int, *, times: int) -> None:
    """Let some calls that change something fail, from one of them on."""
    calls = 0

    def counted(real: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: object) -> None:
            nonlocal calls
            calls += 1
            if number <= calls < number + times:
                raise OSError(code, os.strerror(code))
            real(*arguments)

        return call

    for place, name in (
        (switch, "rename_new"),
        (switch, "exchange"),
        (switch, "change_metadata"),
        (undoing, "change_metadata"),
        (commit, "sync_directories"),
    ):
        monkeypatch.setattr(place, name, counted(getattr(place, name)))


def test_the_former_versions_can_be_read_as_long_as_the_slot_is_there(site: Site) -> None:
    """Replaced, deleted and deleted with their directory: content by descriptor, and what each path was."""
    stamp = (site.root / "sub" / "two").stat()
    changes = site.changes(
        WriteFile(path="file", content=b"new", mode=None),
        DeletePath(path="sub", recursive=True),
        CreateFile(path="made", content=b"", mode=0o644),
    )
    applied = Applied.decode(site.committer.apply("x-1", changes).encode())
    committer = next_process(site)
    for path, content in ((b"file", b"old"), (b"sub/two", b"2")):
        fd = committer.old_file(applied, path)
        assert os.read(fd, 10) == content
        os.close(fd)
    former = committer.former(applied, b"sub/two")
    assert former is not None
    assert (former.st_ino, former.st_mtime_ns, former.st_nlink) == (stamp.st_ino, stamp.st_mtime_ns, 1)
    assert committer.former(applied, b"made") is None
    assert applied.kept_bytes == len(b"old" + b"1" + b"2")
    for path in (b"made", b"sub", b"other"):
        with pytest.raises(FileNotFoundError):
            committer.old_file(applied, path)
    place = applied.place_of(b"file")
    assert place is not None
    with (site.staging / f"x-1.{place[0]}").open("ab") as file:
        file.write(b"by somebody who had it open")
    with pytest.raises(FileNotFoundError):
        committer.old_file(applied, b"file")
    committer.discard(applied)
    with pytest.raises(FileNotFoundError):
        committer.old_file(applied, b"sub/two")


def test_undoing_what_was_discarded_is_told(site: Site) -> None:
    """Without its old objects a commit can not be undone, and nothing is said to be restored."""
    applied = site.committer.apply("x-1", site.changes(DeletePath(path="file", recursive=False)))
    site.committer.discard(applied)
    assert not site.committer.undo(applied).success


SET = 1_600_000_000_123_456_789


NESTED: dict[str, tuple[Edit, ...]] = {
    "a new one moves into the old one": (
        MovePath(path="sub", to="moved"),
        CreateDirectory(path="sub", mode=0o755),
        MovePath(path="sub", to="moved/sub"),
    ),
    "the old one moves into a new one of its name": (
        MovePath(path="sub", to="moved"),
        CreateDirectory(path="sub", mode=0o700),
        MovePath(path="moved", to="sub/moved"),
        MovePath(path="file", to="sub/moved/file"),
    ),
    "two change places": (
        MovePath(path="sub/deep", to="deep"),
        MovePath(path="sub", to="deep/sub"),
        MovePath(path="deep", to="sub"),
    ),
    "what is beneath comes above": (
        MovePath(path="sub/deep", to="deep"),
        MovePath(path="sub", to="deep/sub"),
        MovePath(path="deep/sub/one", to="one"),
        CreateDirectory(path="sub", mode=0o755),
        MovePath(path="deep/sub/two", to="sub/one"),
        MovePath(path="file", to="deep/sub/two"),
    ),
}
MOST_CALLS = 50


@pytest.mark.parametrize("late", [False, True], ids=["before a rename", "after a rename"])
@pytest.mark.parametrize("edits", NESTED.values(), ids=NESTED)
def test_nested_moves_that_are_cut_off_anywhere_are_undone(
    site: Site, monkeypatch: pytest.MonkeyPatch, edits: tuple[Edit, ...], *, late: bool
) -> None:
    """Directories that move into and out of one another come back whole from wherever the commit was cut off."""
    before, changes = times(site), site.changes(*edits)
    for number in range(1, MOST_CALLS):
        died = False
        with monkeypatch.context() as patched:
            die_around(patched, number, late=late)
            try:
                site.committer.apply(f"x-{number}", changes)
            except Died:
                died = True
        assert died or site.committer.verify(changes) == ()
        [applied] = next_process(site).pending()
        assert site.committer.undo(applied) == Undone(success=True, differences=())
        site.committer.discard(applied)
        assert (times(site), site.files(), site.staged()) == (before, OLD, set())
        if not died:
            assert number > 1
            return
    pytest.fail("the commit never came to its end")


def die_around(monkeypatch: pytest.MonkeyPatch, number: int, *, late: bool) -> None:
    """Let the process die just before or after the rename with this number."""
    calls = 0

    def counted(*place: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == number and not late:
            raise Died
        rename_new(*place)
        if calls == number:
            raise Died

    def dead(*_: object) -> None:
        raise Died

    monkeypatch.setattr(switch, "rename_new", counted)
    monkeypatch.setattr(Committer, "_undo_failed", dead)


class TestTimes:
    """Modification times that a step set itself."""

    def commit(self, site: Site, *changes: Change) -> Applied:
        applied = site.committer.apply("x-1", changes)
        assert site.committer.verify(changes) == ()
        assert site.committer.time_differences(changes) == ()
        return applied

    def test_every_kind_of_change_can_carry_one(self, site: Site) -> None:
        """Files, links and directories, new, replaced, moved and filled in the same commit; all undone exactly."""
        (site.root / "link").symlink_to("file")
        before = times(site)
        edits = (*EVERYTHING, CreateFile(path="sub/three", content=b"3", mode=0o644))
        changes = [replace(one, mtime_ns=SET if one.new else None) for one in site.changes(*edits)]
        sub, link = site.directory.node(b"sub"), site.directory.node(b"link")
        for path, node in ((b"sub", sub), (b"link", link)):
            changes.append(Change(path=path, kind=ChangeKind.METADATA, old=node, new=node, mtime_ns=SET))
        applied = self.commit(site, *changes)
        found = times(site)
        assert {path for path, mtime in found.items() if mtime == SET} == {
            "file", "sub", "sub/two", "sub/three", "one", "made", "made/file", "link",
        }  # fmt: skip
        assert site.committer.undo(applied).success
        assert times(site) == before

    def test_a_time_alone_is_a_change(self, site: Site) -> None:
        """The object stays the same inode with the same content."""
        node, inode = site.directory.node(b"file"), (site.root / "file").stat().st_ino
        applied = self.commit(site, Change(path=b"file", kind=ChangeKind.METADATA, old=node, new=node, mtime_ns=SET))
        status = (site.root / "file").stat()
        assert (status.st_mtime_ns, status.st_ino) == (SET, inode)
        os.utime(site.root / "file", ns=(SET, SET + 1))
        undone = site.committer.undo(applied)
        assert not undone.success
        assert "changed by somebody else" in undone.differences[0]

    def test_what_has_no_time_of_its_own_gets_the_commit_s(self, site: Site) -> None:
        """A new file, and the directory that it comes into, are as young as the commit."""
        before = os.stat(site.staging).st_mtime_ns  # noqa: PTH116 - the file system's own clock
        self.commit(site, *site.changes(CreateFile(path="sub/new", content=b"", mode=0o644)))
        assert times(site)["sub/new"] >= before
        assert times(site)["sub"] >= before

    def test_another_time_is_told(self, site: Site) -> None:
        """Verification names the path whose time is not what the change set says."""
        node = Node(type=NodeType.DIRECTORY, mode=0o755)
        change = Change(path=b"made", kind=ChangeKind.CREATE, old=None, new=node, mtime_ns=SET)
        self.commit(site, change)
        (site.root / "made" / "theirs").write_bytes(b"")
        assert site.committer.verify((change,)) == ("made: another modification time than the report's",)
