"""The journal: whole records are found again, torn and former ones are not, and notes are never out of order."""

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.workspace.commit import Committer
from executor.workspace.journal import LAID_OUT, Journal, Note, write_aside
from executor.workspace.objects import ObjectStore
from executor.workspace.paths import Directory

FRAME_BYTES = 120


def record(slot: str, size: int = 10) -> bytes:
    """A record as a commit writes one."""
    return json.dumps({"slot": slot, "text": "x" * size}).encode()


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture
def journal(directory: int) -> Iterator[Journal]:
    made = Journal(directory, "journal.1")
    yield made
    made.close()


def again(directory: int) -> Journal:
    """The journal as the next process opens it."""
    return Journal(directory, "journal.1")


def found(directory: int) -> list[str]:
    """The slots that the next process finds."""
    journal = again(directory)
    try:
        return list(journal.slots())
    finally:
        journal.close()


def test_records_follow_one_another_while_a_slot_is_live(journal: Journal, directory: int) -> None:
    """The steps of one execution are all in the journal, in their order, for this process and the next."""
    for slot in ("x-1", "x-2", "x-3"):
        journal.add(slot, record(slot))
    journal.sync()
    for reader in (journal, again(directory)):
        assert reader.slots() == ("x-1", "x-2", "x-3")
        assert reader.record("x-2") == record("x-2")


def test_the_next_process_goes_on_behind_what_it_finds(journal: Journal, directory: int) -> None:
    """What a dead process has left is not overwritten while somebody needs it."""
    journal.add("x-1", record("x-1"))
    following = again(directory)
    following.add("y-1", record("y-1"))
    assert found(directory) == ["x-1", "y-1"]
    following.close()


def test_it_begins_again_when_no_slot_is_live(journal: Journal, directory: int, tmp_path: Path) -> None:
    """A record of a former generation does not count, though it is whole and follows a shorter one."""
    journal.add("x-1", record("x-1"))
    journal.add("x-2", record("x-2"))
    journal.note(Note.RELEASED, "x-1", "x-2")
    assert found(directory) == []
    journal.add("y-1", record("y-1"))
    assert found(directory) == ["y-1"]
    assert b'"x-2"' in (tmp_path / "journal.1").read_bytes()


def test_notes_say_what_became_of_a_slot(journal: Journal, directory: int) -> None:
    """Each note counts for the slots that it names, and keeps what it says."""
    journal.note(Note.STAGED, "x-1")
    assert again(directory).standing("x-1").entries_go
    journal.add("x-1", record("x-1"))
    journal.note(Note.MADE, "x-1", times=[1, None])
    standing = again(directory).standing("x-1")
    assert standing.notes[Note.MADE] == {"times": [1, None]}
    assert not standing.entries_go
    journal.note(Note.DROPPED, "x-1")
    assert again(directory).standing("x-1").entries_go


def test_a_note_that_can_not_be_written_goes_out_before_the_next_record(
    journal: Journal, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails for a moment loses no note, and a record never stands without those before it."""
    journal.add("x-1", record("x-1"))

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("executor.workspace.journal.os.pwrite", full)
        journal.note(Note.UNDONE, "x-1")
        with pytest.raises(OSError, match="space"):
            journal.add("x-2", record("x-2"))
    assert Note.UNDONE not in again(directory).standing("x-1").notes
    journal.add("x-2", record("x-2"))
    following = again(directory)
    assert Note.UNDONE in following.standing("x-1").notes
    assert following.record("x-2") == journal.record("x-2") == record("x-2")


def test_an_ordinary_record_does_not_make_the_file_longer(journal: Journal, directory: int, tmp_path: Path) -> None:
    """The file is laid out once, and a huge record is given back at the next beginning."""
    file = tmp_path / "journal.1"
    for number in range(500):
        journal.add(f"x-{number}", record(f"x-{number}"))
        journal.note(Note.RELEASED, f"x-{number}")
    assert file.stat().st_size == LAID_OUT
    journal.add("large", record("large", 4_000_000))
    assert found(directory) == ["large"]
    journal.note(Note.RELEASED, "large")
    journal.add("x", record("x"))
    assert file.stat().st_size == LAID_OUT
    assert found(directory) == ["x"]


def test_a_long_execution_lays_room_out_a_good_deal_at_a_time(journal: Journal, directory: int, tmp_path: Path) -> None:
    """A file that grew with every record would make each sync wait for the file system's own books."""
    sizes = set()
    slots = [f"x-{number}" for number in range(1000)]
    for slot in slots:
        journal.add(slot, record(slot, 1000))
        sizes.add((tmp_path / "journal.1").stat().st_size)
    assert found(directory) == slots
    assert len(sizes) < 25


@pytest.mark.parametrize("place", [0, 30, 60, FRAME_BYTES + 1, -3])
def test_a_torn_record_ends_the_journal(journal: Journal, directory: int, tmp_path: Path, place: int) -> None:
    """Whatever byte of a record is not right, it does not count, and those before it do."""
    journal.add("x-1", record("x-1"))
    before = (tmp_path / "journal.1").read_bytes().index(b"\0")
    journal.add("x-2", record("x-2"))
    text = bytearray((tmp_path / "journal.1").read_bytes())
    position = before + place if place >= 0 else text.index(b"\0") + place
    text[position] ^= 1
    (tmp_path / "journal.1").write_bytes(text)
    assert found(directory) == ["x-1"]


def test_a_record_of_which_a_part_was_put_aside_is_put_aside_whole(directory: int, tmp_path: Path) -> None:
    """What a full disk or a crash left of the first try does not pass for the record, which is let go of next."""
    (tmp_path / "x-1.json").write_bytes(record("x-1", 1_000)[:7])
    write_aside(directory, "x-1", record("x-1"))
    assert (tmp_path / "x-1.json").read_bytes() == record("x-1")


def test_what_the_former_release_wrote_is_put_aside(journal: Journal, tmp_path: Path) -> None:
    """Its records said nothing of how far a commit came; what it held is left for a person to look at."""
    root = tmp_path / "workspace"
    root.mkdir()
    directory = Directory.open(root)
    staging = tmp_path / "staging"
    Committer(directory, staging, ObjectStore(tmp_path / "objects", lambda _: None)).close()
    [file] = staging.glob("journal.*")
    fd = os.open(staging, os.O_RDONLY)
    former = Journal(fd, file.name)
    for slot in ("x-1", "x-2"):
        former.add(slot, b'{"version":1,"slot":"%b"}' % slot.encode())
    (staging / "x-1.0").write_bytes(b"old")
    committer = Committer(directory, staging, ObjectStore(tmp_path / "objects", lambda _: None))
    assert committer.pending() == ()
    assert {path.name for path in staging.iterdir()} == {"x-1.0", "x-1.json", file.name}
    os.close(fd)
