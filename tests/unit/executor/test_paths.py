"""The path layer: no name and no race leads out of a workspace, and nothing waits for ever."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from executor.domain.changes import Node, NodeType
from executor.domain.errors import StepFailedError
from executor.workspace import beneath
from executor.workspace.paths import ROOT, Directory, PathInvalidError, PathOutsideError, relative
from gonogo.digests import digest

ROUNDS = 3000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "workspace"
    made.mkdir()
    return made


@pytest.fixture(params=["openat2", "walk"])
def directory(root: Path, request: pytest.FixtureRequest) -> Iterator[Directory]:
    """The same directory through the kernel's own check and through the fallback."""
    made = Directory.open(root)
    if request.param == "walk":
        made._open = beneath.open_by_walk
    yield made
    made.close()


@pytest.mark.parametrize(
    ("text", "normal"),
    [(".", b"."), ("a", b"a"), ("./a/./b", b"a/b"), ("é/ü", "é/ü".encode()), ("-rf", b"-rf"), ("a\\b", b"a\\b")],
)
def test_normal_form(text: str, normal: bytes) -> None:
    """A relative path is kept as it is, without '.' components; a backslash is an ordinary character."""
    assert relative(text) == normal


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/etc/passwd",
        "..",
        "a/../b",
        "a//b",
        "a/",
        "a\0b",
        "a\nb",
        "a\x1bb",
        "a\u0085b",
        "a" * 256,
        "a/" * 2100 + "a",
    ],
)
def test_malformed_paths_are_refused(text: str) -> None:
    """Absolute, climbing, empty, hidden or overlong paths have the reason PATH_INVALID and a remedy."""
    with pytest.raises(PathInvalidError) as caught:
        relative(text)
    assert caught.value.fault.reason == "PATH_INVALID"
    assert caught.value.fault.remedy


def test_a_lone_surrogate_is_refused() -> None:
    """Text that is no Unicode has no bytes that a plan could mean."""
    with pytest.raises(PathInvalidError):
        relative("a\udcff")


@pytest.mark.parametrize(
    "name", [b"line\nfeed", b"not\xffutf8", b"n" * 255, b"-rf", "\u202etxt.exe".encode(), b"back\\slash"]
)
def test_any_name_of_a_program_is_read_exactly(root: Path, directory: Directory, name: bytes) -> None:
    """Names are bytes: every name that the kernel knows comes back as it is."""
    (root / os.fsdecode(name)).write_bytes(b"content")
    assert directory.names(ROOT) == [name]
    assert directory.node(name) == Node(type=NodeType.FILE, mode=0o644, digest=digest(b"content"), size=7)


def test_nodes_of_each_type(root: Path, directory: Directory) -> None:
    """A node says what a path is: type, bits, content, target and attributes."""
    (root / "sub").mkdir(mode=0o750)
    (root / "sub" / "file").write_bytes(b"x" * 3_000_000)
    (root / "link").symlink_to("../anywhere")
    os.setxattr(root / "sub" / "file", "user.b", b"2")
    os.setxattr(root / "sub" / "file", "user.a", b"\0")
    assert directory.node(b"sub") == Node(type=NodeType.DIRECTORY, mode=0o750)
    assert directory.node(b"sub/file") == Node(
        type=NodeType.FILE,
        mode=0o644,
        digest=digest(b"x" * 3_000_000),
        size=3_000_000,
        xattrs=(("user.a", b"\0"), ("user.b", b"2")),
    )
    assert directory.node(b"link") == Node(type=NodeType.SYMLINK, mode=0o777, link_target=b"../anywhere")
    assert directory.node(b"missing") is None
    assert directory.node(b"sub/file/below") is None
    assert directory.lstat(b"missing") is None


def test_a_fifo_is_neither_waited_for_nor_read(root: Path, directory: Directory) -> None:
    """A FIFO, a socket or a device is `other`, at once."""
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "socket"))
        assert directory.node(b"fifo") == Node(type=NodeType.OTHER, mode=0o644)
        found = directory.node(b"socket")
    assert found is not None
    assert found.type is NodeType.OTHER
    with pytest.raises(StepFailedError, match="not a regular file"):
        directory.open_file(b"fifo")


@pytest.mark.parametrize("target", ["/etc", "..", "inside"])
def test_links_on_the_way_are_refused(root: Path, directory: Directory, target: str) -> None:
    """A path through a link is refused, wherever the link leads; the link itself can be looked at."""
    (root / "inside").mkdir()
    (root / "inside" / "passwd").write_text("x")
    (root / "link").symlink_to(target)
    attempts: list[Callable[[bytes], object]] = [
        directory.node,
        directory.lstat,
        directory.open_file,
        directory.open_parent,
        directory.names,
    ]
    for attempt in attempts:
        with pytest.raises(PathOutsideError) as caught:
            attempt(b"link/passwd/x" if attempt == directory.open_parent else b"link/passwd")
        assert caught.value.fault.reason == "PATH_OUTSIDE_WORKSPACE"
    assert directory.state(b"link/passwd") is None
    with pytest.raises((PathOutsideError, StepFailedError)):
        directory.open_file(b"link")


@pytest.mark.parametrize("path", [b"../x", b"/etc/passwd", b"a/../../x", b"a\0b", b"", b"a//b", b"./a"])
def test_the_directory_refuses_what_is_not_in_normal_form(directory: Directory, path: bytes) -> None:
    """Whoever forgets to normalise a path gets an error, not an escape."""
    with pytest.raises(PathInvalidError):
        directory.node(path)


def test_another_file_system_is_refused(tmp_path: Path) -> None:
    """A mount inside the directory is not entered."""
    made = Directory.open(Path("/"))
    try:
        with pytest.raises(PathOutsideError):
            made.node(b"proc/self/status")
    finally:
        made.close()


def test_reading_is_bounded(root: Path, directory: Directory) -> None:
    """A file over the limit is refused with the reason TOO_LARGE; at the limit it is read."""
    (root / "file").write_bytes(b"12345")
    assert directory.read(b"file", 5) == b"12345"
    with pytest.raises(StepFailedError) as caught:
        directory.read(b"file", 4)
    assert caught.value.fault.reason == "TOO_LARGE"


def test_a_directory_swapped_for_a_link_never_leads_out(tmp_path: Path, root: Path, directory: Directory) -> None:
    """While somebody swaps a directory for a link to the outside, every read is inside or refused."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"secret")
    (root / "swap").mkdir()
    (root / "swap" / "file").write_bytes(b"inside")
    (root / "link").symlink_to(outside)
    ended = threading.Event()

    def race() -> None:
        while not ended.is_set():
            here = os.open(root, os.O_RDONLY)
            beneath.exchange(here, b"swap", here, b"link")
            os.close(here)

    racer = threading.Thread(target=race)
    racer.start()
    seen = {"inside": 0, "refused": 0}
    try:
        for _ in range(ROUNDS):
            try:
                content = directory.read(b"swap/file", 100)
            except (PathOutsideError, FileNotFoundError):
                seen["refused"] += 1
            else:
                assert content == b"inside"
                seen["inside"] += 1
    finally:
        ended.set()
        racer.join()
    assert min(seen.values()) > 0, "the race never happened"


def test_no_descriptor_is_left_open(root: Path, directory: Directory) -> None:
    """Refused and successful accesses alike close what they opened."""
    (root / "sub").mkdir()
    (root / "sub" / "file").write_text("x")
    (root / "link").symlink_to("sub")
    before = sorted(Path("/proc/self/fd").iterdir())
    for path in (b"sub", b"sub/file", b"link", b"none", b"sub/none/none"):
        directory.node(path)
        directory.lstat(path)
    for path in (b"link/file", b"sub/file/x"):
        with pytest.raises((PathOutsideError, OSError)):
            directory.names(path)
    assert sorted(Path("/proc/self/fd").iterdir()) == before
