"""The manifest of a tree: every change shows, and what is volatile or hidden does not; with find and without."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from executor.domain.errors import ExecutorError, StoreError
from executor.workspace import manifest as manifests
from executor.workspace.find import find_program
from executor.workspace.globs import Globs
from executor.workspace.manifest import Manifest, ManifestWalk, manifest
from executor.workspace.paths import Directory

VOLATILE = Globs(["**/__pycache__/**", ".git/index"])
HIDDEN = Globs([".env"])


@pytest.fixture(autouse=True, params=["find", "no find"])
def walker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every test run with this machine's find and as if there were none."""
    if request.param == "find":
        assert find_program() is not None
    else:
        monkeypatch.setattr(manifests, "find_program", lambda: None)


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


def test_a_stored_one_names_the_changes(root: Path, directory: Directory) -> None:
    """What was kept is as good for a comparison as what was just made."""
    before = Manifest.decode(taken(directory).encode())
    (root / "sub" / "file").write_text("other")
    (root / "new").touch()
    assert before.differences(taken(directory)) == (b"new", b"sub/file")


def test_it_names_the_changes_among_many_files(root: Path, directory: Directory) -> None:
    """In a tree of several blocks the three paths that differ are found, and no other."""
    for number in range(4_500):
        (root / "sub" / f"{number:0250}").touch()
    before = taken(directory)
    names = sorted(path.name for path in (root / "sub").iterdir())
    (root / "sub" / names[5]).unlink()
    (root / "sub" / names[4000]).write_text("x")
    (root / "b").touch()
    assert before.differences(taken(directory)) == (b"b", f"sub/{names[5]}".encode(), f"sub/{names[4000]}".encode())


def test_another_order_is_no_difference(root: Path, directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two ways to walk come by the paths in different orders, and find the same."""
    for number in range(50):
        (root / "sub" / f"f{number}").write_text("x")
    one = taken(directory)
    monkeypatch.setattr(manifests, "find_program", lambda: None)
    other = taken(directory)
    assert one.differences(other) == other.differences(one) == ()


@pytest.mark.parametrize("damage", [b"", b"x", b"\x78\x9c\x03\x00\x00\x00\x00\x01", b"gonogo manifest 2\n"])
def test_a_damaged_one_is_an_error(damage: bytes) -> None:
    """Bytes that are no manifest are a storage error, not an empty manifest."""
    with pytest.raises(StoreError):
        Manifest.decode(damage)


def test_one_that_was_cut_off_is_an_error(root: Path, directory: Directory) -> None:
    """A manifest that lacks its end does not pass for one of fewer paths."""
    before = taken(directory)
    (root / "new").touch()
    with pytest.raises(StoreError):
        Manifest.decode(before.encode()[:-9]).differences(taken(directory))


def test_hidden_paths_are_noted(root: Path, directory: Directory) -> None:
    """What no command is shown is named, the topmost of it."""
    (root / "sub" / "__pycache__" / "deep").mkdir(parents=True)
    (root / "sub" / "__pycache__" / "deep" / ".env").touch()
    (root / "secret" / ".env").mkdir(parents=True)
    (root / "secret" / ".env" / ".env").touch()
    found = manifest(directory, volatile=VOLATILE, hidden=Globs(["**/.env", "se?ret/*/**"]))
    assert found.hidden == {b"secret/.env"}
    assert found.volatile == {b"sub/__pycache__"}


def test_paths_of_other_owners_are_named(directory: Directory) -> None:
    """Who owns the files is known, and which of them belong to somebody else."""
    found = taken(directory)
    owner = (os.geteuid(), os.fstat(directory.fd).st_gid)
    assert found.owners == {owner}
    assert list(found.owned_by_others({owner[0]}, {owner[1]})) == []
    assert len(list(found.owned_by_others({owner[0]}, ()))) == len(found)


def test_a_walk_may_be_given_up(directory: Directory) -> None:
    """A walk that nobody waits for ends with its context, and leaves nothing open."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    with ManifestWalk(directory, volatile=VOLATILE, hidden=HIDDEN):
        pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before


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


MOUNTED = """
import subprocess, sys
from pathlib import Path
from executor.domain.errors import ExecutorError
from executor.workspace import manifest as manifests
from executor.workspace.find import find_program
from executor.workspace.globs import Globs
from executor.workspace.paths import Directory
root, kind, find = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
if find == "no find":
    manifests.find_program = lambda: None
options = ["-t", "tmpfs", "tmpfs"] if kind == "tmpfs" else ["--bind", str(root / "sub" / "deep")]
subprocess.run(["mount", *options, str(root / "a b")], check=True)
directory = Directory.open(root)
try:
    manifests.manifest(directory, volatile=Globs([]), hidden=Globs([]))
except ExecutorError as error:
    print(error.fault.reason, error.fault.paths[0].decode())
manifests.manifest(directory, volatile=Globs(["a b/**"]), hidden=Globs([]))
"""


@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
def test_whatever_is_mounted_inside_is_refused(root: Path, kind: str, request: pytest.FixtureRequest) -> None:
    """A mount inside is refused also where it comes from the same file system, unless it is volatile."""
    (root / "a b").mkdir()
    walker = request.node.callspec.params["walker"]
    alone = ["unshare", "--user", "--map-root-user", "--mount"]
    ran = subprocess.run(
        [*alone, sys.executable, "-c", MOUNTED, str(root), kind, walker], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, "PATH_OUTSIDE_WORKSPACE a b\n"), ran.stderr
