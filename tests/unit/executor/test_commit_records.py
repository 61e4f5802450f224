"""What a commit leaves for the next process: records that are whole, in order, and found under whatever name."""

import fcntl
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from executor.domain.changes import Change
from executor.domain.plan import CreateDirectory, MovePath, WriteFile
from executor.workspace import commit, switch
from executor.workspace.commit import Applied, Committer, StagingUnavailableError
from executor.workspace.journal import Journal, Note
from executor.workspace.paths import Directory
from executor.workspace.staging import Slot
from tests.fakes.dying import Died
from tests.unit.executor.commit_house import EVERYTHING, OLD, Site, next_process, site, times

__all__ = ["site"]


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
