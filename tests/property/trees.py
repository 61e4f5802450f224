"""Random trees on a real file system, and all that can be told about one from outside."""

import os
import shutil
import stat
from pathlib import Path

from hypothesis import strategies as st

NAMES = ("a", "b", "c")
# Names that only programs make: a plan can not write them, but moves or deletes them with their directory.
BASE_NAMES = st.sampled_from([*NAMES, "line\nfeed", "not\udcffutf8"])
MODES = st.sampled_from([0o644, 0o755, 0o600, 0o500, 0o700])
SAMPLES = (b"", b"x\n", b"x\ny\n", b"\0\1", "é\r\n".encode(), b"z" * 40_000)
CONTENTS = st.integers(0, len(SAMPLES) - 1).map(SAMPLES.__getitem__)
HOLE = 300_000
EPOCH_NS = 10**18
"""Every time that a tree is built with lies shortly after this, in 2001."""

TreeOf = dict[str, tuple[str, object, int]]
Picture = dict[bytes, tuple[object, ...]]


def trees_of(modes: st.SearchStrategy[int], targets: tuple[bytes, ...]) -> st.SearchStrategy[TreeOf]:
    """Return trees of files with and without holes, links and directories."""
    leaves = st.one_of(
        st.tuples(st.just("file"), CONTENTS, modes),
        st.tuples(st.just("sparse"), CONTENTS, modes),
        st.tuples(st.just("link"), st.sampled_from(targets), st.just(0o777)),
    )
    return st.recursive(
        st.dictionaries(BASE_NAMES, leaves, max_size=3),
        lambda inner: st.dictionaries(BASE_NAMES, st.one_of(leaves, st.tuples(st.just("dir"), inner, modes))),
        max_leaves=8,
    )


TREES = trees_of(MODES, (b"a", b"../..", b"\xff"))


def entered(mode: int) -> int:
    """Return the bits of a directory that can be looked into: without privileges the commit needs that like anybody."""
    return mode if os.geteuid() == 0 else mode | 0o500


def build(directory: Path, tree: TreeOf, number: int = 0) -> int:
    """Make a tree in an empty directory; every path gets attributes and a time of its own. Return the next number."""
    for name, (kind, content, mode) in tree.items():
        path = directory / name
        number += 1
        if kind == "dir":
            path.mkdir()
            assert isinstance(content, dict)
            number = build(path, content, number)
        else:
            assert isinstance(content, bytes)
            _make(path, kind, content)
        if kind != "link":
            os.setxattr(path, "user.number", str(number).encode())
            path.chmod(entered(mode) if kind == "dir" else mode)
        os.utime(path, ns=(EPOCH_NS + number, EPOCH_NS + 7 * number), follow_symlinks=False)
    os.utime(directory, ns=(EPOCH_NS, EPOCH_NS))
    return number


def _make(path: Path, kind: str, content: bytes) -> None:
    if kind == "link":
        path.symlink_to(os.fsdecode(content))
        return
    path.write_bytes(content)
    if kind == "sparse":
        with path.open("r+b") as file:
            file.truncate(HOLE)


def remove(folder: Path) -> None:
    """Remove a folder whatever bits the directories in it have."""
    for name, _, _ in os.walk(folder):
        Path(name).chmod(0o700)
        for inner in Path(name).iterdir():
            if inner.is_dir() and not inner.is_symlink():
                inner.chmod(0o700)
    shutil.rmtree(folder)


def picture(root: Path) -> Picture:
    """Everything that can be told about a tree from outside, times, identities and holes included; no change times."""
    return {path: (*facts, *_place(root / os.fsdecode(path))) for path, facts in contents(root).items()}


def contents(root: Path) -> Picture:
    """What a change set carries of a tree: types, bits, contents, links and attributes."""
    found: Picture = {}
    for path in [root, *sorted(root.rglob("*"))]:
        status = path.lstat()
        is_link, is_file = stat.S_ISLNK(status.st_mode), stat.S_ISREG(status.st_mode)
        content = os.fsencode(path.readlink()) if is_link else path.read_bytes() if is_file else b""
        attributes = [] if is_link else [(name, os.getxattr(path, name)) for name in sorted(os.listxattr(path))]
        found[os.fsencode(path.relative_to(root))] = (status.st_mode, content, attributes)
    return found


def times(root: Path) -> dict[bytes, int]:
    """The modification time of every path."""
    return {os.fsencode(path.relative_to(root)): path.lstat().st_mtime_ns for path in [root, *root.rglob("*")]}


def _place(path: Path) -> tuple[object, ...]:
    status = path.lstat()
    blocks = status.st_blocks if stat.S_ISREG(status.st_mode) else 0
    return status.st_mtime_ns, status.st_ino, blocks
