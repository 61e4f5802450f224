"""Names that a file system may take for one, and links that lead out."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.domain.changes import Node, NodeType
from executor.workspace.folding import Folding, directory_folds
from executor.workspace.links import leaves, leaving_links
from executor.workspace.objects import ObjectStore
from executor.workspace.paths import Directory
from executor.workspace.tree import Tree

WORKSPACE = b"/somewhere/else"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    (root / "folder" / "sub").mkdir(parents=True)
    (root / "folder" / "readme").write_text("r")
    (root / "up").symlink_to("..")
    (root / "inner").symlink_to("folder/sub")
    (root / "circle").symlink_to("circle")
    return root


@pytest.fixture
def tree(root: Path, tmp_path: Path) -> Iterator[Tree]:
    directory = Directory.open(root)
    yield Tree(directory, ObjectStore(tmp_path / "objects", lambda _: None).batch())
    directory.close()


def collisions(tree: Tree, *, folds: bool = True) -> list[bytes]:
    return sorted(fault.paths[0] for fault in Folding(tree, lambda _: folds).collisions(tree.changes_since(0)))


def test_an_ordinary_directory_does_not_fold(root: Path) -> None:
    """The file system that this runs on tells case apart, so nothing is ever refused there."""
    directory = Directory.open(root)
    assert not directory_folds(directory.fd)
    directory.close()


def test_two_names_of_one_form_are_refused_where_names_fold(tree: Tree) -> None:
    """A new name beside one that is there, two new ones, and one file named in another way."""
    tree.put_file(b"folder/README", b"", 0o644)
    assert collisions(tree) == [b"folder/README"]
    tree.put_file("Ärger".encode(), b"", 0o644)
    tree.put_file("a\u0308rger".encode(), b"", 0o644)
    assert collisions(tree) == ["a\u0308rger".encode(), b"folder/README", "Ärger".encode()]
    assert collisions(tree, folds=False) == []


def test_a_new_directory_folds_as_the_one_that_holds_it(tree: Tree) -> None:
    """It takes the mark over when it is made."""
    tree.make_directory(b"folder/new", 0o755)
    tree.put_file(b"folder/new/x", b"", 0o644)
    assert collisions(tree) == []
    tree.put_file(b"folder/new/X", b"", 0o644)
    assert collisions(tree) == [b"folder/new/X", b"folder/new/x"]


def test_a_change_of_a_name_by_its_own_spelling_is_fine(tree: Tree) -> None:
    """Also where names fold; a move that only changes the case is not."""
    tree.put_file(b"folder/readme", b"new", 0o644)
    assert collisions(tree) == []
    tree.move(b"folder/readme", b"folder/ReadMe")
    assert collisions(tree) == [b"folder/ReadMe", b"folder/readme"]


@pytest.mark.parametrize(
    ("path", "target", "out"),
    [
        (b"l", b"folder/readme", False),
        (b"l", b"nowhere/at/all", False),
        (b"l", b"..", True),
        (b"folder/l", b"../up", True),
        (b"folder/l", b"..", False),
        (b"folder/sub/l", b"../../../x", True),
        (b"l", b"up/anything", True),
        (b"l", b"inner/../../..", True),
        (b"l", b"inner/../readme", False),
        (b"l", b"circle/x", False),
        (b"l", b"/etc/passwd", True),
        (b"l", b"/somewhere/else/folder", False),
        (b"l", b"/somewhere/else", False),
        (b"l", b"/somewhere/else/../else/folder", True),
        (b"l", b"/somewhere/elsewhere", True),
        (b"l", b"x" * 300, False),
        (b"l", b"folder//./readme", False),
    ],
)
def test_where_a_link_leads(tree: Tree, path: bytes, target: bytes, *, out: bool) -> None:
    """Followed as text through the tree, and through other links on the way."""
    assert leaves(tree, path, target, WORKSPACE) is out


def test_only_what_a_step_made_lead_out_is_refused(tree: Tree) -> None:
    """A link that led out before may stay and may move; a new one, or one that is moved out of reach, may not."""
    tree.move(b"up", b"still-up")
    tree.put_node(b"folder/l", Node(type=NodeType.SYMLINK, mode=0o777, link_target=b"../folder"))
    assert list(leaving_links(tree.changes_since(0), tree, WORKSPACE)) == []
    mark = tree.mark()
    tree.move(b"folder/l", b"l")
    tree.put_node(b"new", Node(type=NodeType.SYMLINK, mode=0o777, link_target=b"/etc"))
    found = list(leaving_links(tree.changes_since(mark), tree, WORKSPACE))
    assert [fault.paths for fault in found] == [(b"l",), (b"new",)]
