"""One workspace before and after, with everything in between that a change set can say."""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from executor.domain.changes import Change, ChangeKind, Node, NodeType, change_between
from executor.workspace.objects import Batch
from executor.workspace.paths import Directory

# Every path has a time of its own in the year 2001, with odd nanoseconds.
FIRST_NS = 1_000_000_000 * 10**9 + 7
APART_NS = 1_000_003_001
STEP_TIME_NS = 1_100_000_000 * 10**9 + 99
MEBIBYTE = 1 << 20

MOVES = {
    b"dir/to.txt": b"from.txt",
    b"moved": b"tree",
    b"moved/x": b"tree/x",
    b"moved/y": b"tree/y",
    b"moved/y/z": b"tree/y/z",
    b"dir/locked": b"locked",
    b"dir/locked/in": b"locked/in",
}
WITH_A_TIME_OF_ITS_OWN = b"made.txt"
ODD_NAME = b"caf\xe9-\xff.txt"
ODD_NEW_NAME = b"new-\xfe\n.txt"


def build_old(root: Path) -> None:
    """Make the tree that the commit starts from."""
    root.mkdir()
    for name in ("dir", "gone/sub", "gone/empty", "was-dir", "tree/y", "locked", "frozen", "open", "empty-old"):
        (root / name).mkdir(parents=True)
    for name in ("keep", "modify", "delete", "was-file", "from.txt", "bits", "noted", "dir/stay", "tree/x", "tree/y/z"):
        _write(root / name, f"old {name}\n".encode())
    for name in ("gone/a", "gone/sub/b", "was-dir/one", "locked/in", "frozen/in", "open/in", "pair"):
        _write(root / name, f"old {name}\n".encode())
    _write(_named(root, ODD_NAME), b"old odd\n")
    (root / "gone/pair").hardlink_to(root / "pair")
    (root / "gone/link").symlink_to("../keep")
    (root / "link").symlink_to("keep")
    _write_sparse(root / "sparse", b"old", 8)
    _write_sparse(root / "gone/hole", b"old", 4)
    os.setxattr(root / "modify", "user.kept", b"on the old inode")
    os.setxattr(root / "noted", "user.one", b"1")
    os.setxattr(root / "noted", "user.two", b"2")
    for name, mode in (("locked", 0o555), ("frozen", 0o555), ("modify", 0o640), ("gone/a", 0o400)):
        (root / name).chmod(mode)
    set_times(root)


def build_new(root: Path) -> None:
    """Make the tree that the commit ends in, by plain means; times say nothing in it."""
    build_old(root)
    for path in (root / "locked", root / "frozen"):
        path.chmod(0o755)
    for name in ("gone", "frozen", "was-dir", "empty-old"):
        shutil.rmtree(root / name)
    for name in ("delete", "was-file", "link"):
        (root / name).unlink()
    (root / "was-file").mkdir()
    (root / "was-file/inner").mkdir()
    _write(root / "was-file/inner/leaf", b"new leaf\n")
    _write(root / "was-dir", b"a file now\n")
    for new, old in MOVES.items():
        if not _named(root, new).exists():
            _named(root, old).rename(_named(root, new))
    (root / "dir/locked").chmod(0o555)
    _write(root / "modify", b"new modify\n" * 5000)
    _write(_named(root, ODD_NAME), b"new odd\n")
    _write(_named(root, ODD_NEW_NAME), b"")
    _write(root / "made.txt", b"made\n")
    (root / "made-link").symlink_to("dir/to.txt")
    (root / "link").symlink_to("made.txt")
    (root / "sparse").unlink()
    _write_sparse(root / "sparse", b"new", 12)
    (root / "bits").chmod(0o755)
    os.setxattr(root / "noted", "user.one", b"one")
    os.removexattr(root / "noted", "user.two")
    os.setxattr(root / "noted", "user.three", b"3")
    (root / "empty-new").mkdir()
    (root / "sealed").mkdir()
    _write(root / "sealed/in", b"sealed\n")
    (root / "sealed").chmod(0o555)
    (root / "open").chmod(0o700)
    os.setxattr(root / "open", "user.kind", b"directory")


def rich_changes(place: Path, batch: Batch) -> tuple[Change, ...]:
    """Return the change set between the two trees, built for that in an empty place; contents go into the batch."""
    states = []
    for name, build in (("old", build_old), ("new", build_new)):
        build(place / name)
        states.append(_states(place / name, batch))
    old, new = states
    changes = [_move(to, origin, old, new) for to, origin in MOVES.items()]
    for path in sorted({*old, *new} - {*MOVES, *MOVES.values()}):
        change = change_between(path, old.get(path), new.get(path))
        if change is not None:
            changes.append(_with_its_time(change))
    return tuple(sorted(changes, key=lambda change: change.path))


def set_times(root: Path) -> None:
    """Give every path its time, the deepest first."""
    paths = sorted((os.fsencode(path) for path in _all(root)), key=lambda path: (-path.count(b"/"), path))
    for number, path in enumerate(paths):
        time = FIRST_NS + number * APART_NS
        os.utime(path, ns=(time, time), follow_symlinks=False)


def _all(root: Path) -> Iterator[Path]:
    yield root
    yield from root.rglob("*")


def _states(root: Path, batch: Batch) -> dict[bytes, Node]:
    directory = Directory.open(root)
    found = {}
    try:
        for path in sorted(os.fsencode(one.relative_to(root)) for one in root.rglob("*")):
            node = directory.node(path)
            assert node is not None
            found[path] = node
            if node.type is NodeType.FILE:
                fd = directory.open_file(path)
                batch.put_fd(fd, limit=64 * MEBIBYTE)
                os.close(fd)
    finally:
        directory.close()
    return found


def _move(to: bytes, origin: bytes, old: Mapping[bytes, Node], new: Mapping[bytes, Node]) -> Change:
    assert old[origin] == new[to]
    return Change(path=to, kind=ChangeKind.MOVE, old=old[origin], new=new[to], moved_from=origin)


def _with_its_time(change: Change) -> Change:
    if change.path != WITH_A_TIME_OF_ITS_OWN:
        return change
    return Change(path=change.path, kind=change.kind, old=change.old, new=change.new, mtime_ns=STEP_TIME_NS)


def _named(root: Path, name: bytes) -> Path:
    return root / os.fsdecode(name)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o644)


def _write_sparse(path: Path, content: bytes, mebibytes: int) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.seek(mebibytes * MEBIBYTE // 2)
        file.write(content * 1000)
        file.truncate(mebibytes * MEBIBYTE)
    path.chmod(0o644)
