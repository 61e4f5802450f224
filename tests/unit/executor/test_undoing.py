"""An undo: the same twice and by another process, cut off anywhere, on a failing disk, and what it reads from."""

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest

from executor.domain.errors import ExecutorError, StoreError
from executor.domain.plan import CreateDirectory, CreateFile, DeletePath, Edit, MovePath, WriteFile
from executor.workspace import commit, switch, undoing
from executor.workspace.beneath import exchange, rename_new
from executor.workspace.commit import Applied, CommitConflictError, Committer, Undone
from tests.fakes.dying import Died
from tests.unit.executor.commit_house import EVERYTHING, OLD, Site, next_process, site, times

__all__ = ["site"]

OFTEN = 1000


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
