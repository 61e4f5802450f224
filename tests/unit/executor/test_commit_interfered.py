"""A commit, or its undo, while somebody else writes or the disk fails: no edit is lost, and all of it holds or none."""

import errno
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from executor.domain.changes import Change, ChangeKind, Node, NodeType
from executor.domain.errors import DriftError, ExecutorError, StoreError
from executor.domain.plan import CreateDirectory, CreateFile, DeletePath, MovePath, WriteFile
from executor.workspace import staging
from executor.workspace.beneath import exchange, rename_new
from executor.workspace.commit import CommitConflictError
from executor.workspace.staging import Slot
from tests.unit.executor.commit_house import EDITS, OLD, WRITE, Site, site

__all__ = ["site"]

ROUNDS = 300
MOST_ROUNDS = 5000


def at_the_worst_moment(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Let somebody act after every path was looked at, and before the first rename."""
    sync = Slot.sync

    def sync_then_act(slot: Slot) -> None:
        sync(slot)
        act()

    monkeypatch.setattr(Slot, "sync", sync_then_act)


def fail_at(monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> None:
    """Let the rename with this number fail as a full disk or a dying one does."""
    calls = 0

    def counted(real: Callable[[int, bytes, int, bytes], None]) -> Callable[[int, bytes, int, bytes], None]:
        def call(source: int, old: bytes, target: int, new: bytes) -> None:
            nonlocal calls
            calls += 1
            if calls == number:
                raise OSError(code, os.strerror(code))
            real(source, old, target, new)

        return call

    monkeypatch.setattr("executor.workspace.switch.rename_new", counted(rename_new))
    monkeypatch.setattr("executor.workspace.switch.exchange", counted(exchange))


@pytest.mark.parametrize("name", list(EDITS))
def test_an_edit_between_check_and_rename_is_kept(site: Site, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An editor that saves at the worst moment keeps its edit; all earlier changes of the commit are undone."""
    place = {"create": "new", "write": "file", "delete": "sub/two", "move": "sub/two", "mode": "file", "mkdir": "made"}
    changes = site.changes(CreateFile(path="a-first", content=b"", mode=0o644), EDITS[name])

    def save() -> None:
        (site.root / "saved").write_bytes(b"EDIT")
        (site.root / "saved").rename(site.root / place[name])

    at_the_worst_moment(monkeypatch, save)
    with pytest.raises(DriftError):
        site.committer.apply("x-1", changes)
    assert site.files() == {**OLD, place[name]: b"EDIT"}
    assert site.staged() == set()


@pytest.mark.parametrize("name", ["write", "delete", "move"])
def test_an_edit_in_place_is_noticed_too(site: Site, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing into the same inode, same length and old times included, is not overlooked."""
    place = {"write": "file", "delete": "sub/two", "move": "sub/two"}[name]
    status = (site.root / place).stat()

    def save() -> None:
        with (site.root / place).open("r+b") as file:
            file.write(b"X")
        os.utime(site.root / place, ns=(status.st_atime_ns, status.st_mtime_ns))

    changes = site.changes(EDITS[name])
    at_the_worst_moment(monkeypatch, save)
    with pytest.raises(DriftError):
        site.committer.apply("x-1", changes)
    assert site.files()[place][:1] == b"X"


def test_a_directory_swapped_for_a_link_leads_nowhere(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link put in the place of a directory between check and rename is refused; the outside is untouched."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "one").write_bytes(b"outside")

    def swap() -> None:
        (site.root / "sub").rename(site.root / "away")
        (site.root / "sub").symlink_to(outside)

    changes = site.changes(WriteFile(path="sub/one", content=b"evil", mode=None))
    at_the_worst_moment(monkeypatch, swap)
    with pytest.raises(DriftError):
        site.committer.apply("x-1", changes)
    assert (outside / "one").read_bytes() == b"outside"
    assert (site.root / "away" / "one").read_bytes() == b"1"


def test_no_edit_is_ever_lost_in_a_race(site: Site) -> None:
    """However an editor's save falls into a commit, its content is there afterwards."""
    late = midway = 0
    for number in range(MOST_ROUNDS):
        changes = site.changes(WriteFile(path="file", content=b"ours %d" % number, mode=None))
        edit = b"edit %d" % number

        def save(content: bytes = edit, pause: float = number % 50 / 10_000) -> None:
            (site.root / "saved").write_bytes(content)
            time.sleep(pause)
            (site.root / "saved").rename(site.root / "file")

        editor = threading.Thread(target=save)
        editor.start()
        try:
            site.committer.discard(site.committer.apply(f"x-{number}", changes))
            late += 1
        except DriftError as drift:
            midway += "while it was committed" in drift.fault.message
        editor.join()
        assert (site.root / "file").read_bytes() == edit
        if number >= ROUNDS and late and midway:
            return
    pytest.fail(f"the race never fell everywhere: {midway} midway, {late} late")


@pytest.mark.parametrize(("code", "error"), [(errno.ENOSPC, StoreError), (errno.EIO, StoreError)])
@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_a_failing_disk_leaves_the_old_state(
    site: Site, monkeypatch: pytest.MonkeyPatch, number: int, code: int, error: type[ExecutorError]
) -> None:
    """Whichever rename fails, all that were made before are unmade."""
    times = {path: path.stat().st_mtime_ns for path in (site.root, site.root / "sub")}
    changes = site.changes(
        EDITS["create"],
        WRITE,
        DeletePath(path="sub/deep", recursive=True),
        MovePath(path="sub/one", to="one"),
        EDITS["mkdir"],
    )
    fail_at(monkeypatch, number, code)
    with pytest.raises(error) as caught:
        site.committer.apply("x-1", changes)
    assert caught.value.fault.reason == "STORE_FULL"
    assert site.files() == OLD
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert site.staged() == set()


def test_full_while_staging_changes_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full before the first rename leaves no trace."""

    def full(fd: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(staging, "_write", full)
    with pytest.raises(StoreError):
        site.committer.apply("x-1", site.changes(WRITE))
    assert site.files() == OLD
    assert site.staged() == set()


@pytest.mark.parametrize("name", list(EDITS))
def test_undo_keeps_what_somebody_else_made_since(site: Site, name: str) -> None:
    """Undoing does not overwrite a later edit; both versions are kept, and the answer says where."""
    changes = site.changes(EDITS[name])
    applied = site.committer.apply("x-1", changes)
    later: dict[str, Callable[[], object]] = {
        "create": lambda: (site.root / "new").write_bytes(b"EDIT"),
        "write": lambda: (site.root / "file").write_bytes(b"EDIT"),
        "delete": (site.root / "sub").mkdir,
        "move": (site.root / "sub").mkdir,
        "mode": lambda: (site.root / "file").chmod(0o640),
        "mkdir": lambda: (site.root / "made" / "theirs").write_bytes(b"EDIT"),
    }
    if name == "mkdir":
        (site.root / "made").chmod(0o755)  # an ordinary user could not write there
    later[name]()
    before = site.files()
    undone = site.committer.undo(applied)
    assert not undone.success
    assert len(undone.differences) == 1
    assert site.files() == before
    if name in {"write", "delete"}:
        assert str(site.staging / "x-1.0") in undone.differences[0]
        assert (site.staging / "x-1.0").exists()
    site.committer.keep(applied)
    assert json.loads((site.staging / "x-1.json").read_bytes())["slot"] == "x-1"


def test_a_commit_that_can_not_be_undone_says_so(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a commit fails midway and somebody changed what it made, both versions stay and the error tells."""
    changes = site.changes(EDITS["create"], MovePath(path="sub/one", to="one"), MovePath(path="sub/two", to="two"))

    def interfering(source: int, old: bytes, target: int, new: bytes) -> None:
        if new == b"new":
            (site.root / "one").unlink()
            (site.root / "one").write_bytes(b"EDIT")
            raise OSError(errno.EIO, "dying")
        rename_new(source, old, target, new)

    monkeypatch.setattr("executor.workspace.switch.rename_new", interfering)
    with pytest.raises(CommitConflictError) as caught:
        site.committer.apply("x-1", changes)
    assert caught.value.fault.reason == "CONFLICT"
    assert "one" in caught.value.fault.message
    assert site.files() == {"file": b"old", "sub/two": b"2", "one": b"EDIT"}
    assert site.staged() == {"x-1.2"}
    assert [one.slot for one in site.committer.pending()] == ["x-1"]
    site.committer.keep(caught.value.applied)
    assert site.staged() == {"x-1.2", "x-1.json"}
    assert site.committer.pending() == ()


@pytest.mark.parametrize(("size", "held"), [(10, b"y" * 10), (10, None), (40_000, None), (3 << 20, None)])
def test_bytes_that_are_not_the_digest_s_never_come_into_the_workspace(
    site: Site, monkeypatch: pytest.MonkeyPatch, size: int, held: bytes | None
) -> None:
    """Whoever changes the executor's own store gets nothing written: it is noticed before the first rename."""
    old = site.directory.node(b"file")
    new = Node(type=NodeType.FILE, mode=0o644, digest=site.batch.put_bytes(b"x" * size), size=size)
    change = Change(path=b"file", kind=ChangeKind.MODIFY, old=old, new=new)
    changes = (*site.changes(CreateDirectory(path="a", mode=0o755)), change)
    os.utime(site.root, ns=(1, 2))
    monkeypatch.setattr(site.batch, "held", lambda _: held)
    monkeypatch.setattr(site.batch, "open", lambda _: other_bytes(size))
    with pytest.raises(StoreError, match="damaged"):
        site.committer.apply("x-1", changes)
    assert site.files() == OLD
    assert site.root.stat().st_mtime_ns == 2
    assert site.staged() == set()


def other_bytes(size: int) -> int:
    """A descriptor of as many bytes as are wanted, and of none that are."""
    fd = os.memfd_create("other")
    os.write(fd, b"y" * size)
    return fd
