"""The manifest of a tree: every change shows, and what is volatile or hidden does not."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from executor.domain.errors import ExecutorError, StoreError
from executor.workspace.globs import Globs
from executor.workspace.manifest import Manifest, manifest
from executor.workspace.paths import Directory

VOLATILE = Globs(["**/__pycache__/**", ".git/index"])
HIDDEN = Globs([".env"])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    (tmp_path / "sub" / "file").write_text("content")
    (tmp_path / "sub" / "link").symlink_to("file")
    (tmp_path / os.fsdecode(b"not\xffutf8\n")).write_text("x")
    return tmp_path


@pytest.fixture
def directory(root: Path) -> Iterator[Directory]:
    made = Directory.open(root)
    yield made
    made.close()


def taken(directory: Directory) -> Manifest:
    return manifest(directory, volatile=VOLATILE, hidden=HIDDEN)


def _rewrite_with_the_same_times(root: Path) -> None:
    status = (root / "sub" / "file").stat()
    (root / "sub" / "file").write_text("CONTENT")
    os.utime(root / "sub" / "file", ns=(status.st_atime_ns, status.st_mtime_ns))


def _replace_the_link(root: Path) -> None:
    (root / "sub" / "link").unlink()
    (root / "sub" / "link").symlink_to("elsewhere")


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda root: (root / "new").write_text(""), b"new"),
        (lambda root: (root / "sub" / "file").unlink(), b"sub/file"),
        (lambda root: (root / "sub" / "deep").chmod(0o700), b"sub/deep"),
        (lambda root: (root / "sub" / "deep").rmdir(), b"sub/deep"),
        (lambda root: os.setxattr(root / "sub" / "file", "user.x", b"1"), b"sub/file"),
        (_rewrite_with_the_same_times, b"sub/file"),
        (_replace_the_link, b"sub/link"),
        (lambda root: (root / os.fsdecode(b"not\xffutf8\n")).write_text("y"), b"not\xffutf8\n"),
    ],
    ids=[
        "created",
        "deleted",
        "directory bits",
        "directory deleted",
        "attribute",
        "rewritten behind old times",
        "link target",
        "odd name",
    ],
)
def test_every_change_shows(root: Path, directory: Directory, change: Callable[[Path], object], path: bytes) -> None:
    """Whatever happens to a path, also behind restored times, is found and named."""
    before = taken(directory)
    change(root)
    after = taken(directory)
    assert before.digest != after.digest
    assert before.differences(after) == after.differences(before) == (path,)


def test_an_untouched_tree_is_equal(directory: Directory) -> None:
    """Looking twice finds the same; reading files changes nothing."""
    before = taken(directory)
    directory.read(b"sub/file", 100)
    assert taken(directory).digest == before.digest
    assert before.differences(taken(directory)) == ()


def test_volatile_and_hidden_paths_do_not_count(root: Path, directory: Directory) -> None:
    """What changes by itself or is never shown may come, go and change."""
    before = taken(directory)
    (root / "sub" / "__pycache__").mkdir()
    (root / "sub" / "__pycache__" / "x.pyc").write_text("x")
    (root / ".env").write_text("secret")
    assert before.differences(taken(directory)) == ()


def test_it_survives_storage(directory: Directory) -> None:
    """What is encoded and decoded is the same manifest."""
    before = taken(directory)
    again = Manifest.decode(before.encode())
    assert again.digest == before.digest
    assert again.differences(before) == ()
    assert len(again) == len(before) == 5


@pytest.mark.parametrize("damage", [b"", b"x", b"\x78\x9c\x03\x00\x00\x00\x00\x01"])
def test_a_damaged_one_is_an_error(damage: bytes) -> None:
    """Bytes that are no manifest are a storage error, not an empty manifest."""
    with pytest.raises(StoreError):
        Manifest.decode(damage)


def test_hard_links_are_found(root: Path, directory: Directory) -> None:
    """Files with more than one name are listed, also after storage; directories are not."""
    os.link(root / "sub" / "file", root / "other")
    found = taken(directory)
    assert found.hard_linked == Manifest.decode(found.encode()).hard_linked == {b"sub/file", b"other"}


def test_another_file_system_inside_is_refused() -> None:
    """A mount in the tree is refused with its path, and not silently left out."""
    made = Directory.open(Path("/"))
    everything_else = [f"{path.name}/**" for path in Path("/").iterdir() if path.name not in {"proc", "dev"}]
    try:
        with pytest.raises(ExecutorError) as caught:
            manifest(made, volatile=Globs(everything_else), hidden=Globs([]))
    finally:
        made.close()
    assert caught.value.fault.reason == "PATH_OUTSIDE_WORKSPACE"
    assert caught.value.fault.paths[0].split(b"/")[0] in {b"proc", b"dev"}
