"""The journal: whole records are found again, torn and former ones are not, and what a dead process left is kept."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.domain.changes import Change, ChangeKind, Node, NodeType
from executor.workspace import switch
from executor.workspace.commit import Committer
from executor.workspace.journal import LAID_OUT, Journal
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


def found(journal: Journal) -> list[str]:
    """The slots whose records the file holds."""
    return [slot for slot, _ in journal.left_over()]


def test_records_follow_one_another_while_a_slot_is_live(journal: Journal) -> None:
    """The steps of one execution are all in the journal, in their order."""
    for slot in ("x-1", "x-2", "x-3"):
        journal.add(slot, record(slot))
    journal.sync()
    assert list(journal.left_over()) == [(slot, record(slot)) for slot in ("x-1", "x-2", "x-3")]
    assert journal.record("x-2") == record("x-2")


def test_it_begins_again_when_no_slot_is_live(journal: Journal, tmp_path: Path) -> None:
    """A record of a former generation does not count, though it is whole and follows a shorter one."""
    journal.add("x-1", record("x-1"))
    journal.add("x-2", record("x-2"))
    journal.release("x-1")
    journal.release("x-2")
    journal.add("y-1", record("y-1"))
    assert found(journal) == ["y-1"]
    assert b'"x-2"' in (tmp_path / "journal.1").read_bytes()


def test_an_ordinary_record_does_not_make_the_file_longer(journal: Journal, tmp_path: Path) -> None:
    """The file is laid out once, and a huge record is given back at the next beginning."""
    file = tmp_path / "journal.1"
    for number in range(500):
        journal.add(f"x-{number}", record(f"x-{number}"))
        journal.release(f"x-{number}")
    assert file.stat().st_size == LAID_OUT
    journal.add("large", record("large", 4_000_000))
    assert found(journal) == ["large"]
    journal.release("large")
    journal.add("x", record("x"))
    assert file.stat().st_size == LAID_OUT
    assert found(journal) == ["x"]


@pytest.mark.parametrize("place", [0, 30, 60, FRAME_BYTES + 1, -3])
def test_a_torn_record_ends_the_journal(journal: Journal, tmp_path: Path, place: int) -> None:
    """Whatever byte of a record is not right, it does not count, and those before it do."""
    journal.add("x-1", record("x-1"))
    before = (tmp_path / "journal.1").read_bytes().index(b"\0")
    journal.add("x-2", record("x-2"))
    text = bytearray((tmp_path / "journal.1").read_bytes())
    position = before + place if place >= 0 else text.index(b"\0") + place
    text[position] ^= 1
    (tmp_path / "journal.1").write_bytes(text)
    assert found(journal) == ["x-1"]


def test_the_record_is_there_before_the_first_rename_and_outlives_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies at the first rename leaves a whole record; the next one puts it aside."""
    root, staging = tmp_path / "workspace", tmp_path / "staging"
    root.mkdir()
    (root / "file").write_bytes(b"old")
    old = Directory.open(root).state(b"file")
    batch = ObjectStore(tmp_path / "objects", lambda _: None).batch()
    new = Node(type=NodeType.FILE, mode=0o644, digest=batch.put_bytes(b"new"), size=3)

    class Died(BaseException):
        pass

    def dies(*_: object) -> None:
        raise Died

    committer = Committer(Directory.open(root), staging, batch)
    monkeypatch.setattr(switch, "exchange", dies)
    monkeypatch.setattr(Committer, "_undo_failed", dies)  # a dead process undoes nothing
    with pytest.raises(Died):
        committer.apply("x-1", (Change(path=b"file", kind=ChangeKind.MODIFY, old=old, new=new),))
    [journal] = staging.glob("journal.*")
    assert {path.name for path in staging.iterdir()} == {"x-1.0", journal.name}
    Committer(Directory.open(root), staging, batch).close()
    told = json.loads((staging / "x-1.json").read_bytes())
    assert told["slot"] == "x-1"
    assert told["operations"][0]["new_inode"] == (staging / "x-1.0").stat().st_ino
