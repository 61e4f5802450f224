"""The commit: exactly the changes or none, whoever else writes meanwhile, and an exact way back."""

import errno
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from executor.domain.changes import Change, ChangeKind, Node, NodeType, change_between
from executor.domain.errors import DriftError, ExecutorError, StepFailedError, StepUnsafeError, StoreError
from executor.domain.plan import CreateDirectory, CreateFile, DeletePath, Edit, MovePath, SetMode, WriteFile
from executor.steps.edit import EditLimits, apply_edit
from executor.workspace import staging
from executor.workspace.beneath import exchange, rename_new
from executor.workspace.commit import CommitConflictError, Committer, StagingUnavailableError
from executor.workspace.globs import Globs
from executor.workspace.objects import Batch, ObjectStore
from executor.workspace.paths import MAX_PATH, Directory
from executor.workspace.staging import Slot
from executor.workspace.tree import Tree
from executor.workspace.workspace import Workspace, WorkspaceBusyError, WorkspaceUnknownError, check_placement

ROUNDS = 300
MOST_ROUNDS = 5000


def no_small_objects(digest: str) -> bytes | None:
    """Stands for a ledger that holds none."""
    return None


class Site:
    """A workspace on disk with a committer, and the shortest way from edits to a change set."""

    def __init__(self, place: Path) -> None:
        self.root = place / "workspace"
        (self.root / "sub" / "deep").mkdir(parents=True)
        (self.root / "file").write_bytes(b"old")
        (self.root / "sub" / "one").write_bytes(b"1")
        (self.root / "sub" / "two").write_bytes(b"2")
        self.staging = place / "staging"
        self.directory = Directory.open(self.root)
        self.store = ObjectStore(place / "objects", no_small_objects)
        self.batch: Batch = self.store.batch()
        self.committer = Committer(self.directory, self.staging, self.batch)

    def changes(self, *edits: Edit) -> tuple[Change, ...]:
        tree = Tree(self.directory, self.batch)
        for edit in edits:
            apply_edit(tree, edit, EditLimits())
        return tree.changes_since(0)

    def files(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.root)): path.read_bytes() for path in self.root.rglob("*") if path.is_file()}

    def staged(self) -> set[str]:
        """What the staging directory holds beside the journal."""
        return {path.name for path in self.staging.iterdir() if not path.name.startswith("journal.")}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.committer.close()
    made.directory.close()


OLD = {"file": b"old", "sub/one": b"1", "sub/two": b"2"}
WRITE = WriteFile(path="file", content=b"new", mode=None)
EDITS: dict[str, Edit] = {
    "create": CreateFile(path="new", content=b"new", mode=0o600),
    "write": WRITE,
    "delete": DeletePath(path="sub", recursive=True),
    "move": MovePath(path="sub", to="moved"),
    "mode": SetMode(path="file", mode=0o600),
    "mkdir": CreateDirectory(path="made", mode=0o500),
}


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


def test_a_commit_leaves_the_old_objects_in_the_slot_until_it_is_discarded(site: Site) -> None:
    """The replaced inode itself is the backup; discarding removes it."""
    inode = (site.root / "file").stat().st_ino
    applied = site.committer.apply("x-1", site.changes(WRITE))
    assert (site.root / "file").read_bytes() == b"new"
    assert site.staged() == {"x-1.0"}
    assert (site.staging / "x-1.0").stat().st_ino == inode
    site.committer.discard(applied)
    assert site.staged() == set()


@pytest.mark.parametrize("name", list(EDITS))
def test_a_changed_base_is_drift_and_nothing_happens(site: Site, name: str) -> None:
    """What is not as the report found it is named, and neither workspace nor staging has changed."""
    changes = site.changes(EDITS[name])
    drift = {
        "create": "new",
        "write": "file",
        "delete": "sub/three",
        "move": "sub/one",
        "mode": "file",
        "mkdir": "made",
    }
    (site.root / drift[name]).write_bytes(b"somebody else")
    before = site.files()
    with pytest.raises(DriftError) as caught:
        site.committer.apply("x-1", changes)
    assert caught.value.fault.paths == (drift[name].encode(),)
    assert site.committer.check(changes) == (drift[name].encode(),)
    assert site.files() == before
    assert site.staged() == set()


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


def test_hard_links_sparse_files_and_attributes_survive_undo(site: Site, tmp_path: Path) -> None:
    """A deleted file comes back as the same inode: its other names, holes, attributes and times included."""
    sparse = site.root / "sparse"
    with sparse.open("wb") as file:
        file.truncate(64 << 20)
    os.setxattr(sparse, "user.kept", b"1")
    os.link(sparse, tmp_path / "other name")
    os.utime(sparse, ns=(1, 2))
    before = sparse.stat()
    applied = site.committer.apply("x-1", site.changes(DeletePath(path="sparse", recursive=False)))
    assert not sparse.exists()
    assert site.committer.undo(applied).success
    after = sparse.stat()
    assert (after.st_ino, after.st_nlink, after.st_blocks, after.st_mtime_ns) == (
        before.st_ino,
        2,
        before.st_blocks,
        before.st_mtime_ns,
    )
    assert os.getxattr(sparse, "user.kept") == b"1"


def test_large_content_keeps_its_holes_and_owner(site: Site, tmp_path: Path) -> None:
    """A large sparse object is committed sparse; the new file has the old one's owner and group."""
    if os.geteuid() == 0:
        os.chown(site.root / "file", 65534, 65534)
    owner = (site.root / "file").stat()
    source = tmp_path / "sparse"
    with source.open("wb") as file:
        file.seek(32 << 20)
        file.write(b"end")
    with source.open("rb") as opened:
        content, size = site.batch.put_fd(opened.fileno(), limit=1 << 30)
    old = site.directory.node(b"file")
    new = Node(type=NodeType.FILE, mode=0o640, digest=content, size=size, xattrs=(("user.a", b"1"),))
    change = change_between(b"file", old, new)
    assert change is not None
    site.committer.apply("x-1", (change,))
    assert site.committer.verify((change,)) == ()
    status = (site.root / "file").stat()
    assert status.st_blocks * 512 < 1 << 20
    assert (status.st_uid, status.st_gid) == (owner.st_uid, owner.st_gid)


def test_a_file_that_gained_a_name_is_drift(site: Site, tmp_path: Path) -> None:
    """A hard link made since the report keeps the commit from changing a file under two names."""
    changes = site.changes(WRITE)
    os.link(site.root / "file", tmp_path / "outside")
    with pytest.raises(DriftError):
        site.committer.apply("x-1", changes)
    assert (tmp_path / "outside").read_bytes() == b"old"


def test_verify_tells_in_words_what_differs(site: Site) -> None:
    """Each path that is not as the changes say is described; nothing is said of the others."""
    changes = site.changes(WRITE, EDITS["create"])
    site.committer.apply("x-1", changes)
    assert site.committer.verify(changes) == ()
    (site.root / "new").unlink()
    (found,) = site.committer.verify(changes)
    assert found.startswith("new: absent instead of file 0600 sha256:")


def test_odd_names_are_committed_exactly(site: Site) -> None:
    """A name with a line feed, invalid UTF-8 and 255 bytes goes and comes back as its bytes."""
    name = b"line\nfeed\xff" + b"n" * 245
    node = Node(type=NodeType.FILE, mode=0o644, digest=site.batch.put_bytes(b"x"), size=1)
    change = Change(path=name, kind=ChangeKind.CREATE, old=None, new=node)
    applied = site.committer.apply("x-1", (change,))
    assert site.directory.node(name) == node
    assert site.committer.undo(applied).success
    assert site.directory.node(name) is None


@pytest.mark.parametrize("slot", ["", "../x", "a/b", "a.b", "-x", "x" * 101])
def test_a_slot_name_is_a_plain_word(site: Site, slot: str) -> None:
    """A slot can not name a place outside the staging directory."""
    with pytest.raises(ValueError, match="slot"):
        site.committer.apply(slot, site.changes(WRITE))


def test_staging_must_be_outside_and_on_the_same_file_system(site: Site) -> None:
    """A staging directory that can not serve is refused with its remedy."""
    for place in (site.root / "inside", site.root, Path("/dev/shm/gonogo-test-staging")):
        with pytest.raises(StagingUnavailableError) as caught:
            Committer(site.directory, place, site.batch)
        assert "--staging" in caught.value.fault.remedy
        assert place == site.root or not place.exists()


def workspace(tmp_path: Path, name: str = "workspace") -> Workspace:
    return Workspace(
        workspace_id=name,
        root=tmp_path / name,
        staging=tmp_path / "staging",
        locks=tmp_path / "locks",
        hidden=Globs([]),
        volatile=Globs([]),
    )


def test_a_replaced_root_is_noticed(tmp_path: Path) -> None:
    """The workspace is the directory that was opened, not whatever has its name later."""
    (tmp_path / "workspace").mkdir()
    here = workspace(tmp_path)
    assert here.open() is here.open()
    (tmp_path / "workspace").rename(tmp_path / "old")
    with pytest.raises(WorkspaceUnknownError):
        here.open()
    (tmp_path / "workspace").mkdir()
    with pytest.raises(WorkspaceUnknownError, match="another directory"):
        here.open()
    here.close()


def test_a_missing_root_or_staging_is_an_error_with_a_remedy(tmp_path: Path, site: Site) -> None:
    """A workspace without a directory, or without staging, says what the operator can do."""
    with pytest.raises(WorkspaceUnknownError):
        workspace(tmp_path, "none").open()
    here = workspace(tmp_path)
    here.staging = None
    with pytest.raises(StagingUnavailableError):
        here.committer(site.batch)
    here.close()


def test_one_execution_at_a_time(tmp_path: Path) -> None:
    """A second holder waits, in this process and across processes, and gives up after its time."""
    (tmp_path / "workspace").mkdir()
    here, other_process = workspace(tmp_path), workspace(tmp_path)
    for second in (here, other_process):
        with here.lock(), pytest.raises(WorkspaceBusyError), second.lock(timeout=0.02):
            pass
        with second.lock(timeout=0):
            pass
    entered = threading.Event()

    def wait() -> None:
        with other_process.lock(timeout=10):
            entered.set()

    with here.lock():
        waiting = threading.Thread(target=wait)
        waiting.start()
        assert not entered.wait(0.05)
    waiting.join()
    assert entered.is_set()
    here.close()
    other_process.close()


@pytest.mark.parametrize("state", ["a/state", ".", "a", "b/.."])
def test_state_and_workspaces_must_lie_beside_each_other(tmp_path: Path, state: str) -> None:
    """A state directory in a workspace, or around one, is refused at the start."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    check_placement([workspace(tmp_path, "a"), workspace(tmp_path, "b")], tmp_path / "state")
    with pytest.raises(WorkspaceUnknownError):
        check_placement([workspace(tmp_path, "a")], tmp_path / state)
    with pytest.raises(WorkspaceUnknownError):
        check_placement([workspace(tmp_path, "a"), workspace(tmp_path, "a/x")], tmp_path / "state")


def test_directories_that_nobody_may_write_come_and_go(site: Site) -> None:
    """The bits of a directory do not stand in the way of its commit, and are exact before, after and undone.

    Run without privileges this needs the bits lifted for the moment of each rename; with them it needs nothing.
    """
    made = site.changes(
        CreateDirectory(path="made", mode=0o755),
        CreateFile(path="made/file", content=b"x", mode=0o400),
        CreateDirectory(path="made/locked", mode=0o500),
        SetMode(path="made", mode=0o500),
    )
    first = site.committer.apply("x-1", made)
    assert site.committer.verify(made) == ()
    moved = site.changes(MovePath(path="made/locked", to="unlocked"), DeletePath(path="made", recursive=True))
    second = site.committer.apply("x-2", moved)
    assert site.committer.verify(moved) == ()
    assert site.committer.undo(second).success
    assert site.committer.verify(made) == ()
    assert site.committer.undo(first).success
    assert site.files() == OLD


def test_a_directory_outside_of_the_change_set_keeps_its_bits(site: Site) -> None:
    """Only what a change set changes gets rights for a moment: elsewhere the bits forbid, and nothing has changed."""
    (site.root / "sub").chmod(0o500)
    before = (site.root / "sub").stat()
    changes = site.changes(CreateFile(path="sub/new", content=b"", mode=0o644), WRITE)
    if os.geteuid() == 0:
        site.committer.apply("x-1", changes)
        assert (site.root / "sub" / "new").exists()
    else:
        with pytest.raises(StepFailedError) as caught:
            site.committer.apply("x-1", changes)
        assert caught.value.fault.reason == "STATE_FORBIDS"
        assert site.files() == OLD
        assert (site.root / "sub").stat().st_mtime_ns == before.st_mtime_ns
    assert (site.root / "sub").stat().st_mode == before.st_mode
    (site.root / "sub").chmod(0o700)


@pytest.mark.parametrize("name", ["file", "sub"])
def test_what_may_not_be_written_gets_and_loses_attributes(site: Site, name: str) -> None:
    """Bits and attributes change together and back, though without privileges the bits forbid it both times."""
    place = site.root / name
    os.setxattr(place, "user.a", b"1")
    modes = [0o500, 0o700, 0o500]
    applied = []
    for number, mode in enumerate(modes):
        old = site.directory.node(name.encode())
        assert old is not None
        new = replace(old, mode=mode, xattrs=(("user.a", b"%d" % number), ("user.b", b"")))
        change = Change(path=name.encode(), kind=ChangeKind.METADATA, old=old, new=new)
        applied.append(site.committer.apply(f"x-{number}", [change]))
        assert site.committer.verify([change]) == ()
    for one in reversed(applied):
        assert site.committer.undo(one).success
        assert site.committer.check(one.changes) == ()
    assert os.getxattr(place, "user.a") == b"1"


def test_a_replaced_file_moves_no_time_of_its_directory(site: Site) -> None:
    """No name comes or goes: neither the commit nor its undo is seen in the directory's time; one that does is."""
    sub = site.root / "sub"
    os.utime(sub, ns=(1, 2))
    replaced = site.committer.apply("x-1", site.changes(WriteFile(path="sub/one", content=b"new", mode=None)))
    assert sub.stat().st_mtime_ns == 2
    assert site.committer.undo(replaced).success
    assert (sub.stat().st_mtime_ns, site.files()) == (2, OLD)
    edits = (WriteFile(path="sub/one", content=b"new", mode=None), CreateDirectory(path="sub/a", mode=0o755))
    both = site.committer.apply("x-2", site.changes(*edits))
    assert sub.stat().st_mtime_ns > 2
    assert site.committer.undo(both).success
    assert sub.stat().st_mtime_ns == 2


@pytest.mark.parametrize("size", [10, 40_000, 3 << 20])
def test_bytes_that_are_not_the_digest_s_never_come_into_the_workspace(
    site: Site, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Whoever changes the executor's own store gets nothing written: it is noticed before the first rename."""
    old = site.directory.node(b"file")
    new = Node(type=NodeType.FILE, mode=0o644, digest=site.batch.put_bytes(b"x" * size), size=size)
    change = Change(path=b"file", kind=ChangeKind.MODIFY, old=old, new=new)
    changes = (*site.changes(CreateDirectory(path="a", mode=0o755)), change)
    os.utime(site.root, ns=(1, 2))
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


def test_a_tree_is_as_deep_as_a_path_may_be(site: Site) -> None:
    """It goes and comes back in one commit, and its slot goes too; in there its paths are longer than any may be."""
    names = [b"d"] * 1080 + [b"e" * 200] * 9 + [b"f" * 126]  # more than calls may be deep, and 4095 bytes
    paths = [b"/".join(names[:number]) for number in range(1, len(names) + 1)]
    assert len(paths[-1]) == MAX_PATH - 1
    fd = os.open(site.root, os.O_RDONLY)
    for name in names:
        os.mkdir(name, 0o500 if name == names[-1] else 0o700, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    nodes = [(path, site.directory.node(path)) for path in paths]
    changes = [Change(path=path, kind=ChangeKind.DELETE, old=node, new=None) for path, node in nodes]
    first = site.committer.apply("x-1", changes)
    assert not (site.root / "d").exists()
    assert site.committer.undo(first).success
    assert site.committer.check(changes) == ()
    second = site.committer.apply("x-2", changes)
    assert site.committer.discard(second)
    assert site.staged() == set()


@pytest.mark.parametrize("second", ["move", "mode", "delete"])
def test_a_path_that_two_changes_name_is_refused(site: Site, second: str) -> None:
    """Nothing moves twice, or moves and also changes where it was; before the first rename that is refused."""
    (move,) = site.changes(MovePath(path="file", to="moved"))
    others: dict[str, tuple[Change, ...]] = {
        "move": (replace(move, path=b"sub/moved"),),
        "mode": site.changes(SetMode(path="file", mode=0o600)),
        "delete": site.changes(DeletePath(path="file", recursive=False)),
    }
    with pytest.raises(StepUnsafeError) as caught:
        site.committer.apply("x-1", (move, *others[second]))
    assert caught.value.fault.paths == (b"file",)
    assert site.files() == OLD
    assert site.staged() == set()
