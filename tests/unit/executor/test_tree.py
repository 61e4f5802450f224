"""The virtual tree and the typed edits on it: exact change sets, clear reasons, nothing written."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.domain.changes import Change, ChangeKind, Node, NodeType
from executor.domain.errors import ExecutorError, StepFailedError, StepUnsafeError
from executor.domain.plan import (
    AppendText,
    CreateDirectory,
    CreateFile,
    DeletePath,
    Edit,
    MovePath,
    PatchFile,
    ReplaceText,
    SetMode,
    WriteFile,
)
from executor.steps.edit import EditLimits, apply_edit
from executor.workspace.objects import ObjectStore
from executor.workspace.paths import Directory, PathOutsideError
from executor.workspace.tree import Tree
from gonogo.digests import digest

ODD = b"not\xffutf8\n"
LIMITS = EditLimits(content_bytes=100, text_bytes=200)


def file_node(data: bytes, mode: int = 0o644) -> Node:
    return Node(type=NodeType.FILE, mode=mode, digest=digest(data), size=len(data))


def directory_node(mode: int = 0o755) -> Node:
    return Node(type=NodeType.DIRECTORY, mode=mode)


def no_small_objects(digest: str) -> bytes | None:
    """Stands for a ledger that holds none."""
    return None


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "workspace"
    (made / "sub" / "deep").mkdir(parents=True)
    (made / "sub" / "file").write_bytes(b"one\ntwo\n")
    (made / "sub" / os.fsdecode(ODD)).write_bytes(b"odd")
    (made / "script").write_bytes(b"#!\n")
    (made / "script").chmod(0o755)
    (made / "link").symlink_to("sub")
    (made / "binary").write_bytes(b"\0")
    os.mkfifo(made / "fifo")
    return made


@pytest.fixture
def tree(tmp_path: Path, root: Path) -> Iterator[Tree]:
    directory = Directory.open(root)
    store = ObjectStore(tmp_path / "objects", no_small_objects)
    yield Tree(directory, store.batch())
    directory.close()


def changes(tree: Tree, *edits: Edit) -> tuple[Change, ...]:
    mark = tree.mark()
    for edit in edits:
        apply_edit(tree, edit, LIMITS)
    return tree.changes_since(mark)


def change(path: bytes, kind: ChangeKind, old: Node | None, new: Node | None, moved_from: bytes = b"") -> Change:
    return Change(path=path, kind=kind, old=old, new=new, moved_from=moved_from)


def test_each_edit_gives_its_exact_change(tree: Tree) -> None:
    """A step's change set names the path, how it changed, and what it was and is."""
    two = file_node(b"one\ntwo\n")
    assert changes(tree, CreateFile(path="new", content=b"n", mode=0o600)) == (
        change(b"new", ChangeKind.CREATE, None, file_node(b"n", 0o600)),
    )
    assert changes(tree, WriteFile(path="script", content=b"x", mode=None)) == (
        change(b"script", ChangeKind.MODIFY, file_node(b"#!\n", 0o755), file_node(b"x", 0o755)),
    )
    assert changes(tree, CreateDirectory(path="d", mode=0o750)) == (
        change(b"d", ChangeKind.CREATE, None, directory_node(0o750)),
    )
    patch = "@@ -1 +1 @@\n-one\n+1\n"
    assert changes(tree, PatchFile(path="sub/file", patch=patch)) == (
        change(b"sub/file", ChangeKind.MODIFY, two, file_node(b"1\ntwo\n")),
    )
    assert changes(tree, ReplaceText(path="sub/file", old="two", new="2", expected_count=1)) == (
        change(b"sub/file", ChangeKind.MODIFY, file_node(b"1\ntwo\n"), file_node(b"1\n2\n")),
    )
    assert changes(tree, AppendText(path="sub/file", content="3")) == (
        change(b"sub/file", ChangeKind.MODIFY, file_node(b"1\n2\n"), file_node(b"1\n2\n3")),
    )
    assert changes(tree, SetMode(path="sub/file", mode=0o600)) == (
        change(b"sub/file", ChangeKind.METADATA, file_node(b"1\n2\n3"), file_node(b"1\n2\n3", 0o600)),
    )
    assert changes(tree, MovePath(path="sub/file", to="d/file")) == (
        change(b"d/file", ChangeKind.MOVE, file_node(b"1\n2\n3", 0o600), file_node(b"1\n2\n3", 0o600), b"sub/file"),
    )
    assert changes(tree, DeletePath(path="link", recursive=False)) == (
        change(b"link", ChangeKind.DELETE, Node(type=NodeType.SYMLINK, mode=0o777, link_target=b"sub"), None),
    )


def test_a_recursive_delete_lists_everything_beneath(tree: Tree) -> None:
    """Deleting a directory names every path that goes, odd names included, sorted by raw bytes."""
    assert [(one.path, one.kind) for one in changes(tree, DeletePath(path="sub", recursive=True))] == [
        (path, ChangeKind.DELETE) for path in (b"sub", b"sub/deep", b"sub/file", b"sub/" + ODD)
    ]
    assert tree.node(b"sub/file") is None


def test_a_moved_directory_is_one_move_for_each_path(tree: Tree) -> None:
    """Every path beneath has its own move, and reads on under its new name."""
    found = changes(tree, MovePath(path="sub", to="moved"))
    assert [(one.path, one.kind, one.moved_from) for one in found] == [
        (path.replace(b"sub", b"moved"), ChangeKind.MOVE, path)
        for path in (b"sub", b"sub/deep", b"sub/file", b"sub/" + ODD)
    ]
    assert tree.content(b"moved/file", 100) == b"one\ntwo\n"
    assert tree.children(b"moved") == [b"deep", b"file", ODD]
    with pytest.raises(StepFailedError):
        tree.children(b"sub")


def test_a_step_that_changes_nothing_has_no_change(tree: Tree) -> None:
    """Writing what is there, moving there and back, and making and deleting come to nothing."""
    assert changes(tree, WriteFile(path="script", content=b"#!\n", mode=None)) == ()
    assert changes(tree, MovePath(path="sub", to="x"), MovePath(path="x", to="sub")) == ()
    made = CreateFile(path="n", content=b"", mode=0o644)
    assert changes(tree, made, DeletePath(path="n", recursive=False)) == ()


def test_a_moved_and_changed_file_is_a_delete_and_a_create(tree: Tree) -> None:
    """Within one step, what is not the same any more is no move; the bytes it needs are in the batch."""
    found = changes(tree, MovePath(path="script", to="tool"), SetMode(path="tool", mode=0o700))
    assert [(one.path, one.kind) for one in found] == [(b"script", ChangeKind.DELETE), (b"tool", ChangeKind.CREATE)]
    assert tree.batch.read(digest(b"#!\n"), 0, 10) == b"#!\n"


def test_what_was_made_in_between_did_not_move(tree: Tree) -> None:
    """Two of one name: the one that was there moved, and the one that came after it is new where it is now."""
    found = changes(
        tree,
        MovePath(path="sub/deep", to="moved"),
        CreateDirectory(path="sub/deep", mode=0o755),
        MovePath(path="sub/deep", to="moved/deep"),
    )
    assert found == (
        change(b"moved", ChangeKind.MOVE, directory_node(), directory_node(), b"sub/deep"),
        change(b"moved/deep", ChangeKind.CREATE, None, directory_node()),
    )


def test_only_touched_paths_are_looked_at(tree: Tree) -> None:
    """A typed edit consults its own path and directory, nothing else, and remembers what they were."""
    changes(tree, CreateFile(path="sub/new", content=b"", mode=0o644))
    assert tree.consulted == {b"sub/new": None, b"sub": directory_node()}


def test_the_base_stays_untouched(tree: Tree, root: Path) -> None:
    """Edits are in memory only."""
    before = {path: (path.lstat().st_mtime_ns, path.lstat().st_ino) for path in root.rglob("*")}
    changes(tree, DeletePath(path="sub", recursive=True), WriteFile(path="script", content=b"", mode=0o600))
    assert {path: (path.lstat().st_mtime_ns, path.lstat().st_ino) for path in root.rglob("*")} == before


def test_listing_shows_the_edits(tree: Tree) -> None:
    """A directory's names are those of the base with what came and without what went."""
    changes(tree, DeletePath(path="sub/file", recursive=False), CreateDirectory(path="sub/new", mode=0o755))
    assert tree.children(b"sub") == [b"deep", b"new", ODD]
    changes(tree, DeletePath(path="sub", recursive=True), CreateDirectory(path="sub", mode=0o755))
    assert tree.children(b"sub") == []


def test_a_command_may_turn_a_file_into_a_directory(tree: Tree) -> None:
    """What a command made of a path is taken over as it is, and its kind follows."""
    mark = tree.mark()
    tree.put_node(b"script", directory_node())
    tree.put_node(b"script/inner", file_node(b""))
    tree.put_node(b"sub/file", None)
    assert [(one.path, one.kind) for one in tree.changes_since(mark)] == [
        (b"script", ChangeKind.TYPE_CHANGE),
        (b"script/inner", ChangeKind.CREATE),
        (b"sub/file", ChangeKind.DELETE),
    ]
    assert tree.children(b"script") == [b"inner"]


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (CreateFile(path="script", content=b"", mode=0o644), "CONFLICT"),
        (CreateFile(path=".", content=b"", mode=0o644), "CONFLICT"),
        (CreateFile(path="none/new", content=b"", mode=0o644), "NOT_FOUND"),
        (CreateFile(path="script/new", content=b"", mode=0o644), "CONFLICT"),
        (CreateFile(path="new", content=b"x" * 101, mode=0o644), "TOO_LARGE"),
        (CreateDirectory(path="sub", mode=0o755), "CONFLICT"),
        (WriteFile(path="sub", content=b"", mode=None), "CONFLICT"),
        (WriteFile(path="fifo", content=b"", mode=None), "CONFLICT"),
        (WriteFile(path="link", content=b"", mode=None), "CONFLICT"),
        (PatchFile(path="none", patch="@@ -1 +1 @@\n-a\n+b\n"), "NOT_FOUND"),
        (PatchFile(path="sub/file", patch="@@ -1 +1 @@\n-a\n+b\n"), "CONFLICT"),
        (PatchFile(path="binary", patch="@@ -1 +1 @@\n-a\n+b\n"), "UNSUPPORTED"),
        (PatchFile(path="sub/file", patch="no patch"), "PLAN_INVALID"),
        (ReplaceText(path="sub", old="a", new="b", expected_count=0), "CONFLICT"),
        (ReplaceText(path="sub/file", old="o", new="x" * 99, expected_count=0), "TOO_LARGE"),
        (AppendText(path="binary", content="x"), "UNSUPPORTED"),
        (AppendText(path="sub/file", content="x" * 101), "TOO_LARGE"),
        (MovePath(path="none", to="x"), "NOT_FOUND"),
        (MovePath(path="script", to="sub"), "CONFLICT"),
        (MovePath(path="script", to="none/x"), "NOT_FOUND"),
        (MovePath(path="sub", to="sub/deep/x"), "CONFLICT"),
        (MovePath(path=".", to="x"), "CONFLICT"),
        (DeletePath(path="none", recursive=True), "NOT_FOUND"),
        (DeletePath(path="sub", recursive=False), "CONFLICT"),
        (DeletePath(path=".", recursive=True), "CONFLICT"),
        (SetMode(path="none", mode=0o644), "NOT_FOUND"),
        (SetMode(path="link", mode=0o644), "CONFLICT"),
        (SetMode(path="script", mode=-1), "PLAN_INVALID"),
        (SetMode(path="script", mode=0o4755), "UNSUPPORTED"),
        (SetMode(path="script", mode=0o055), "UNSUPPORTED"),
        (CreateDirectory(path="new", mode=0o2755), "UNSUPPORTED"),
        (WriteFile(path="../x", content=b"", mode=None), "PATH_INVALID"),
        (WriteFile(path="/etc/passwd", content=b"", mode=None), "PATH_INVALID"),
        (MovePath(path="script", to="a/../../x"), "PATH_INVALID"),
        (DeletePath(path="link/file", recursive=False), "PATH_OUTSIDE_WORKSPACE"),
        (CreateFile(path="link/new", content=b"", mode=0o644), "PATH_OUTSIDE_WORKSPACE"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value)[:60],
)
def test_what_can_not_be_done_has_a_reason(tree: Tree, edit: Edit, reason: str) -> None:
    """Each impossible edit is refused with its reason and a remedy, and changes nothing."""
    mark = tree.mark()
    with pytest.raises(ExecutorError) as caught:
        apply_edit(tree, edit, LIMITS)
    assert caught.value.fault.reason == reason
    assert caught.value.fault.remedy
    assert tree.changes_since(mark) == ()


def test_a_link_made_by_a_command_is_not_followed(tree: Tree) -> None:
    """An earlier step's link leads a later typed step nowhere."""
    tree.put_node(b"out", Node(type=NodeType.SYMLINK, mode=0o777, link_target=b"/etc"))
    with pytest.raises(StepFailedError):
        apply_edit(tree, CreateFile(path="out/new", content=b"", mode=0o644), LIMITS)


@pytest.mark.parametrize(
    "edit", [WriteFile(path="sub/file", content=b"x", mode=None), SetMode(path="sub/file", mode=0o600)]
)
def test_a_file_with_other_names_is_not_changed(tree: Tree, root: Path, tmp_path: Path, edit: Edit) -> None:
    """A change of a hard-linked file would show where nobody approved it; deleting one name is no such change."""
    os.link(root / "sub" / "file", tmp_path / "outside")
    with pytest.raises(StepUnsafeError, match="hard links"):
        apply_edit(tree, edit, LIMITS)
    assert len(changes(tree, DeletePath(path="sub/file", recursive=False))) == 1


def test_attributes_of_a_written_file_are_kept(tree: Tree, root: Path) -> None:
    """Writing a file keeps its extended attributes."""
    os.setxattr(root / "script", "user.kept", b"1")
    (found,) = changes(tree, WriteFile(path="script", content=b"x", mode=None))
    assert found.new is not None
    assert found.new.xattrs == (("user.kept", b"1"),)


def test_content_that_changed_meanwhile_is_noticed(tree: Tree, root: Path) -> None:
    """A file that somebody writes between two looks of a dry run fails the step."""
    tree.node(b"sub/file")
    (root / "sub" / "file").write_bytes(b"ONE\ntwo\n")
    with pytest.raises(StepFailedError, match="changed"):
        apply_edit(tree, AppendText(path="sub/file", content="x"), LIMITS)


def test_a_link_swapped_in_is_refused(tree: Tree, root: Path) -> None:
    """A directory that became a link since is not followed."""
    (root / "sub").rename(root / "other")
    (root / "sub").symlink_to("/etc")
    with pytest.raises(PathOutsideError):
        tree.node(b"sub/passwd")


def test_the_number_of_touched_paths_is_bounded(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan over the limit is refused with the reason TOO_LARGE."""
    monkeypatch.setattr("executor.workspace.tree.MAX_TOUCHED", 3)
    with pytest.raises(StepFailedError) as caught:
        apply_edit(tree, DeletePath(path="sub", recursive=True), LIMITS)
    assert caught.value.fault.reason == "TOO_LARGE"
