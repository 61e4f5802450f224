"""Reading steps: they see earlier edits, show nothing hidden, and can not be led elsewhere."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.domain.changes import NodeType
from executor.domain.errors import ExecutorError, StepBlockedError, StepFailedError
from executor.domain.plan import DeletePath, Edit, ListDirectory, MovePath, ReadFile, SearchFiles, WriteFile
from executor.domain.report import ListEvidence, ReadEvidence, SearchEvidence
from executor.steps.edit import EditLimits, apply_edit
from executor.steps.retrieve import retrieve
from executor.workspace.globs import Globs
from executor.workspace.objects import ObjectStore
from executor.workspace.paths import Directory
from executor.workspace.tree import Tree
from gonogo.digests import digest

HIDDEN = Globs([".env", "**/.env", "keys/**"])


def no_small_objects(digest: str) -> bytes | None:
    """Stands for a ledger that holds none."""
    return None


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "workspace"
    (made / "docs" / "deep").mkdir(parents=True)
    (made / "keys").mkdir()
    (made / "docs" / "guide.md").write_text("The colour red.\nNothing.\nAnother colour.\n")
    (made / "docs" / "deep" / ".hidden.md").write_text("colour\n")
    (made / "docs" / os.fsdecode(b"not\xffutf8")).write_bytes(b"colour \xff\n")
    (made / ".gitignore").write_text("*.md\n")
    (made / ".env").write_text("colour=secret\n")
    (made / "docs" / ".env").write_text("colour=secret\n")
    (made / "keys" / "k").write_text("colour=secret\n")
    return made


@pytest.fixture
def tree(tmp_path: Path, root: Path) -> Iterator[Tree]:
    directory = Directory.open(root)
    yield Tree(directory, ObjectStore(tmp_path / "objects", no_small_objects).batch())
    directory.close()


def search(
    tree: Tree, pattern: str, path: str = ".", *, literal: bool = False, timeout: float = 30.0
) -> SearchEvidence:
    action = SearchFiles(pattern=pattern, path=path, literal=literal)
    found = retrieve(tree, action, hidden=HIDDEN, timeout=timeout)
    assert isinstance(found, SearchEvidence)
    return found


def lines(found: SearchEvidence) -> list[tuple[str, int]]:
    return [(match.path, match.line) for match in found.matches]


def edit(tree: Tree, *edits: Edit) -> None:
    for one in edits:
        apply_edit(tree, one, EditLimits())


def test_reading_a_file(tree: Tree) -> None:
    """A small file is shown whole, with what it is."""
    found = retrieve(tree, ReadFile(path="docs/guide.md"), hidden=HIDDEN)
    assert isinstance(found, ReadEvidence)
    assert found.node.digest == digest(b"The colour red.\nNothing.\nAnother colour.\n")
    assert found.preview.head == "The colour red.\nNothing.\nAnother colour.\n"
    assert (found.preview.tail, found.preview.truncated, found.preview.total_bytes) == ("", False, 41)


def test_a_large_file_shows_both_ends(tree: Tree, root: Path) -> None:
    """Of a large file 4 KiB are shown: its beginning and its end."""
    (root / "large").write_bytes(b"a" * 5000 + b"z" * 5000)
    found = retrieve(tree, ReadFile(path="large"), hidden=HIDDEN)
    assert isinstance(found, ReadEvidence)
    assert (found.preview.head, found.preview.tail) == ("a" * 3072, "z" * 1024)
    assert found.preview.truncated


def test_reading_sees_earlier_edits(tree: Tree) -> None:
    """A file that an earlier step wrote or moved reads as that step left it."""
    edit(tree, WriteFile(path="new", content=b"fresh", mode=None), MovePath(path="docs", to="pages"))
    fresh = retrieve(tree, ReadFile(path="new"), hidden=HIDDEN)
    moved = retrieve(tree, ReadFile(path="pages/guide.md"), hidden=HIDDEN)
    assert isinstance(fresh, ReadEvidence)
    assert isinstance(moved, ReadEvidence)
    assert (fresh.preview.head, moved.preview.head[:10]) == ("fresh", "The colour")


def test_listing_a_directory(tree: Tree) -> None:
    """Names with type and size, sorted by raw bytes, hidden ones left out, edits seen."""
    edit(tree, WriteFile(path="docs/new", content=b"12345", mode=None))
    found = retrieve(tree, ListDirectory(path="docs"), hidden=HIDDEN)
    assert isinstance(found, ListEvidence)
    assert [(name, node.type, node.size) for name, node in found.entries] == [
        (b"deep", NodeType.DIRECTORY, 0),
        (b"guide.md", NodeType.FILE, 41),
        (b"new", NodeType.FILE, 5),
        (b"not\xffutf8", NodeType.FILE, 9),
    ]
    assert found.count == 4


def test_a_listing_is_the_same_before_and_after_the_commit(tree: Tree, root: Path, tmp_path: Path) -> None:
    """The digest of a listing does not tell an edit in memory from one on disk."""
    edit(tree, WriteFile(path="docs/new", content=b"12345", mode=None))
    virtual = retrieve(tree, ListDirectory(path="docs"), hidden=HIDDEN)
    (root / "docs" / "new").write_bytes(b"12345")
    real = retrieve(Tree(tree.base, tree.batch), ListDirectory(path="docs"), hidden=HIDDEN)
    assert virtual == real


@pytest.mark.parametrize("path", [".env", "docs/.env", "keys", "keys/k"])
def test_hidden_paths_are_not_shown(tree: Tree, path: str) -> None:
    """A hidden path is blocked, whichever step asks for it."""
    for action in (ReadFile(path=path), ListDirectory(path=path), SearchFiles(pattern="c", path=path, literal=True)):
        with pytest.raises(StepBlockedError):
            retrieve(tree, action, hidden=HIDDEN)


def test_searching_a_directory(tree: Tree) -> None:
    """Ignored, dotted and oddly named files are searched; hidden ones are not; order is by path and line."""
    found = search(tree, "colou?r")
    assert lines(found) == [
        ("docs/deep/.hidden.md", 1),
        ("docs/guide.md", 1),
        ("docs/guide.md", 3),
        ("docs/not\\xffutf8", 1),
    ]
    assert found.count == 4
    assert found.matches[1].text == "The colour red."
    assert "secret" not in str(search(tree, ".").matches)


def test_a_search_sees_earlier_edits(tree: Tree, root: Path) -> None:
    """What earlier steps changed, deleted or moved is searched as it is now; the digest is that of the real tree."""
    edit(
        tree,
        WriteFile(path="docs/guide.md", content=b"no match\ncolour!\n", mode=None),
        DeletePath(path="docs/deep", recursive=True),
        MovePath(path="docs", to="pages"),
        WriteFile(path="pages/.env", content=b"colour=secret\n", mode=None),
    )
    virtual = search(tree, "colour")
    assert lines(virtual) == [("pages/guide.md", 2), ("pages/not\\xffutf8", 1)]
    assert search(tree, "colour", "pages") == virtual
    assert search(tree, "colour", "pages/guide.md").count == 1
    (root / "docs" / "guide.md").write_bytes(b"no match\ncolour!\n")
    (root / "docs" / "deep" / ".hidden.md").unlink()
    (root / "docs").rename(root / "pages")
    assert search(Tree(tree.base, tree.batch), "colour") == virtual


@pytest.mark.parametrize("pattern", ["--pre=/bin/sh", "-e", "--help", "--files", "-"])
def test_a_pattern_is_never_an_option(tree: Tree, root: Path, pattern: str) -> None:
    """A pattern that looks like an option is searched for as text."""
    (root / "docs" / "options").write_text(f"x{pattern}x\n")
    assert ("docs/options", 1) in lines(search(tree, pattern, literal=True))


@pytest.mark.parametrize("name", ["--pre=sh", "-rf", "{a,b}", "[x]", "*"])
def test_a_name_is_never_an_option(tree: Tree, root: Path, name: str) -> None:
    """A directory or file that looks like an option or a glob is only a name."""
    (root / name).mkdir()
    (root / name / "file").write_text("needle\n")
    assert lines(search(tree, "needle", name)) == [(f"{name}/file", 1)]
    assert lines(search(tree, "needle", f"{name}/file")) == [(f"{name}/file", 1)]


def test_configuration_and_links_are_ignored(
    tree: Tree, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a configuration file of the executor's user nor a link out of the workspace changes a search."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("needle\n")
    (root / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "config").write_text("--follow\n")
    monkeypatch.setenv("RIPGREP_CONFIG_PATH", str(tmp_path / "config"))
    assert search(tree, "needle").count == 0
    with pytest.raises(ExecutorError):
        search(tree, "needle", "link")
    with pytest.raises(ExecutorError):
        search(tree, "needle", "link/file")


@pytest.mark.parametrize("pattern", ["", "a\nb", "a\0b", "(", "x" * 20_000])
def test_malformed_patterns_are_refused(tree: Tree, pattern: str) -> None:
    """A pattern that ripgrep does not take fails the step and says why."""
    with pytest.raises(StepFailedError) as caught:
        search(tree, pattern)
    assert caught.value.fault.reason == "PLAN_INVALID"
    assert caught.value.fault.remedy


def test_only_the_first_matches_are_kept(tree: Tree, root: Path) -> None:
    """All matching lines count and go into the digest; the first hundred are shown, long lines cut."""
    for number in range(30):
        (root / f"many{number:02}").write_text(("needle" + "x" * 1000 + "\n") * 50)
    found = search(tree, "needle")
    assert found.count == 1500
    assert lines(found) == [(f"many{file:02}", line) for file in (0, 1) for line in range(1, 51)]
    assert len(found.matches[0].text) == 500
    (root / "many29").write_text(("needle" + "y" * 1000 + "\n") * 50)
    assert search(tree, "needle").digest != found.digest


def test_too_many_matches_are_refused(tree: Tree, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search without bound ends with the reason TOO_LARGE and leaves no process."""
    monkeypatch.setattr("executor.steps.search.MAX_LINES", 1000)
    (root / "many").write_text("needle\n" * 200_000)
    with pytest.raises(StepFailedError) as caught:
        search(tree, "needle")
    assert caught.value.fault.reason == "TOO_LARGE"


def test_the_time_limit_ends_a_search(tree: Tree, root: Path) -> None:
    """A search that takes too long is killed and fails the step."""
    (root / "many").write_text("needle needle\n" * 2_000_000)
    with pytest.raises(StepFailedError, match="took longer"):
        search(tree, "n(.*)x(.*)q", timeout=0.001)


def test_a_fifo_does_not_hang_a_search(tree: Tree, root: Path) -> None:
    """A FIFO in the tree is passed over; one as the target is refused."""
    os.mkfifo(root / "fifo")
    assert search(tree, "red").count == 1
    with pytest.raises(StepFailedError):
        search(tree, "red", "fifo")
    with pytest.raises(StepFailedError):
        retrieve(tree, ReadFile(path="fifo"), hidden=HIDDEN)


def test_without_ripgrep_the_step_is_blocked(tree: Tree, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where ripgrep is missing, the step says how to get it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StepBlockedError) as caught:
        search(tree, "colour")
    assert "ripgrep" in caught.value.fault.remedy


def test_a_file_that_went_away_fails_the_step(tree: Tree, root: Path) -> None:
    """What somebody deletes between two looks is a conflict, not a crash."""
    tree.node(b"docs/guide.md")
    (root / "docs" / "guide.md").unlink()
    with pytest.raises(StepFailedError, match="changed"):
        retrieve(tree, ReadFile(path="docs/guide.md"), hidden=HIDDEN)


@pytest.mark.parametrize("path", ["none", "docs/none", "docs/guide.md/none"])
def test_what_is_not_there_fails(tree: Tree, path: str) -> None:
    """Reading, listing or searching a missing path fails the step with NOT_FOUND."""
    for action in (ReadFile(path=path), ListDirectory(path=path), SearchFiles(pattern="c", path=path, literal=True)):
        with pytest.raises(StepFailedError) as caught:
            retrieve(tree, action, hidden=HIDDEN)
        assert caught.value.fault.reason == "NOT_FOUND"
