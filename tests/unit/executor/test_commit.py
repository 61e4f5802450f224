"""The commit: exactly the changes or none, and an exact way back."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from executor.domain.changes import Change, ChangeKind, Node, NodeType, change_between
from executor.domain.errors import DriftError, StepFailedError, StepUnsafeError
from executor.domain.plan import CreateDirectory, CreateFile, DeletePath, MovePath, SetMode, WriteFile
from executor.workspace.paths import MAX_PATH
from tests.unit.executor.commit_house import EDITS, OLD, WRITE, Site, site

__all__ = ["site"]


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
