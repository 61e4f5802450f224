"""The walk by find: the very records of the walk without it, whatever the names and whatever is left out."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.domain.errors import ExecutorError
from executor.workspace import find as finds
from executor.workspace import manifest as manifests
from executor.workspace.find import FindWalk, find_program, find_test
from executor.workspace.globs import Globs
from executor.workspace.manifest import manifest
from executor.workspace.paths import Directory, ancestors
from executor.workspace.walk import LeftOut, Passed, path_of, split, walk

NOTHING = Globs([])
FOLDERS = ("", "plain", "plain/plain", "with space", "x.pyc.d", "deep/er")
NAMES = (
    *(b".env", b"a\nb", b"\xff\xfe", "ä".encode(), b"*", b"[x]", b"?", b"back\\slash", b"-name", b"{}", b"$(x)", b"'"),
    *(b'"', b"!", b"(", b"65024 x", b"x.pyc", b"y.pyc", b"...", b"\x01", b"%P", b"x" * 255),
)
PATTERNS = (
    *(".env", "**/.env", "plain/**", "**/plain/**", "**/*.pyc", "plain/*.pyc", "plain/.env", "**/plain/.env", "*"),
    *("**", "**/*", "plain/**/.env", "?", "**/?", "**/[[]x]", "**/back\\slash", "**/with space", "./plain/x.pyc"),
    *("**/ä", "**/?.pyc", "**/[!x].pyc", "**/-name", "plain/*", "**/x*c", "**/%P", "nothing/**", "**/plain/plain/**"),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    for name in FOLDERS:
        (made / name).mkdir(parents=True, exist_ok=True)
        for file in NAMES:
            (made / name / os.fsdecode(file)).touch()
    (made / "link").symlink_to("over there\n")
    os.mkfifo(made / "fifo")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as bound, contextlib.chdir(made):
        bound.bind("socket")
    (made / "second name").hardlink_to(made / "*")
    (made / "with space" / "*").chmod(0o4711)
    (made / "with space" / "?").chmod(0)
    os.utime(made / "with space" / "?", ns=(0, -1))
    os.utime(made / "with space" / "!", ns=(0, -1_500_000_001))
    return made


@pytest.fixture
def root(folder: Path) -> Iterator[Directory]:
    directory = Directory.open(folder)
    yield directory
    directory.close()


def found(root: Directory, left_out: LeftOut) -> tuple[list[bytes], Passed]:
    program = find_program()
    assert program is not None
    passed = Passed()
    with contextlib.closing(FindWalk(program, root, left_out)) as going:
        return sorted(split(b"".join(going.blocks(passed)))), passed


def walked(root: Directory, left_out: LeftOut) -> tuple[list[bytes], Passed]:
    passed = Passed()
    return sorted(split(b"".join(walk(root, left_out, passed)))), passed


def topmost(paths: set[bytes]) -> set[bytes]:
    return {path for path in paths if paths.isdisjoint(ancestors(path))}


def test_all_kinds_of_names_and_files_are_the_same(root: Directory) -> None:
    """Each path has the same record from either walk, whatever bytes its name is of."""
    records, passed = found(root, LeftOut(volatile=NOTHING, hidden=NOTHING))
    assert (records, passed) == walked(root, LeftOut(volatile=NOTHING, hidden=NOTHING))
    assert len(records) == len({path_of(record) for record in records}) == len(FOLDERS) * (len(NAMES) + 1) + 4


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_same_is_left_out(root: Directory, pattern: str) -> None:
    """A glob leaves out the same paths, volatile or hidden, whether find has a test for it or not."""
    for left_out in (
        LeftOut(volatile=Globs([pattern]), hidden=NOTHING),
        LeftOut(volatile=NOTHING, hidden=Globs([pattern])),
        LeftOut(volatile=Globs([pattern]), hidden=Globs(["**/plain/**"])),
        LeftOut(volatile=Globs(["plain/**", "**/?"]), hidden=Globs(["**/.env", pattern])),
    ):
        records, passed = found(root, left_out)
        expected, left = walked(root, left_out)
        assert records == expected
        assert topmost(passed.hidden) == left.hidden
        assert topmost(passed.volatile) == left.volatile


@pytest.mark.parametrize(
    ("pattern", "test"),
    [
        (".git/index", ("-path", "./.git/index")),
        ("**/__pycache__/**", ("-name", "__pycache__")),
        ("**/*.pyc", ("-name", "*.pyc")),
        ("node_modules/**", ("-path", "./node_modules")),
        ("**/a/b", ("-path", "*/a/b")),
        ("build/*.o", None),
        ("**/x[1-3]", None),
        ("a/**/b", None),
        ("**", None),
    ],
)
def test_the_usual_globs_are_for_find(pattern: str, test: tuple[str, str] | None) -> None:
    """What find can tell by itself it does not enter; the rest is filtered from what it prints."""
    assert find_test(pattern) == test


def test_a_find_that_fails_is_not_believed(root: Directory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where find could not look at something, what it printed does not count, and the other walk is made."""
    whole = manifest(root, volatile=NOTHING, hidden=NOTHING)
    broken = tmp_path / "find"
    broken.write_text("#!/bin/sh\nprintf 'half/\\0/0 0 0 f644'\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(manifests, "find_program", lambda: str(broken))
    again = manifest(root, volatile=NOTHING, hidden=NOTHING)
    assert len(again) == len(whole)
    assert again.differences(whole) == ()


def test_another_find_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A find that prints other records, as busybox's does, is found out before it is used."""
    other = tmp_path / "find"
    other.write_text("#!/bin/sh\nexit 0\n")
    other.chmod(0o755)
    monkeypatch.setattr(finds, "_SYSTEM_PATH", str(tmp_path))
    find_program.cache_clear()
    try:
        assert find_program() is None
    finally:
        find_program.cache_clear()


def test_a_directory_that_may_not_be_read_is_named(
    root: Directory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tree that can not be looked at as a whole has no manifest; the error says where."""
    if os.geteuid() == 0:
        monkeypatch.setattr(manifests, "find_program", lambda: None)
        monkeypatch.setattr(os, "scandir", _refused)
    else:
        (tmp_path / "root" / "deep").chmod(0)
    with pytest.raises(ExecutorError) as caught:
        manifest(root, volatile=NOTHING, hidden=NOTHING)
    (tmp_path / "root" / "deep").chmod(0o755)
    assert caught.value.fault.reason == "STATE_FORBIDS"
    assert caught.value.fault.paths


def _refused(_fd: int) -> Iterator[os.DirEntry[str]]:
    raise PermissionError
