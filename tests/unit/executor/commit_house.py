"""A workspace on disk with a committer, edits of every kind, and what a next process finds."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.domain.changes import Change
from executor.domain.plan import CreateDirectory, CreateFile, DeletePath, Edit, MovePath, SetMode, WriteFile
from executor.steps.edit import EditLimits, apply_edit
from executor.workspace.commit import Committer
from executor.workspace.globs import Globs
from executor.workspace.objects import Batch, ObjectStore
from executor.workspace.paths import Directory
from executor.workspace.tree import Tree
from executor.workspace.workspace import Workspace


def no_small_objects(digest: str) -> bytes | None:
    """Stands for a ledger that holds none."""
    return None


class Site:
    """A workspace on disk with a committer, and the shortest way from edits to a change set."""

    def __init__(self, place: Path) -> None:
        self.root = place / "workspace"
        (self.root / "sub" / "deep").mkdir(parents=True)
        (self.root / "file").write_bytes(b"old")
        (self.root / "sub" / "one").write_bytes(b"1")
        (self.root / "sub" / "two").write_bytes(b"2")
        self.staging = place / "staging"
        self.directory = Directory.open(self.root)
        self.store = ObjectStore(place / "objects", no_small_objects)
        self.batch: Batch = self.store.batch()
        self.committer = Committer(self.directory, self.staging, self.batch)

    def changes(self, *edits: Edit) -> tuple[Change, ...]:
        tree = Tree(self.directory, self.batch)
        for edit in edits:
            apply_edit(tree, edit, EditLimits())
        return tree.changes_since(0)

    def files(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.root)): path.read_bytes() for path in self.root.rglob("*") if path.is_file()}

    def staged(self) -> set[str]:
        """What the staging directory holds beside the journal."""
        return {path.name for path in self.staging.iterdir() if not path.name.startswith("journal.")}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.committer.close()
    made.directory.close()


OLD = {"file": b"old", "sub/one": b"1", "sub/two": b"2"}
WRITE = WriteFile(path="file", content=b"new", mode=None)
EDITS: dict[str, Edit] = {
    "create": CreateFile(path="new", content=b"new", mode=0o600),
    "write": WRITE,
    "delete": DeletePath(path="sub", recursive=True),
    "move": MovePath(path="sub", to="moved"),
    "mode": SetMode(path="file", mode=0o600),
    "mkdir": CreateDirectory(path="made", mode=0o500),
}
EVERYTHING: tuple[Edit, ...] = (
    WriteFile(path="file", content=b"new", mode=None),
    SetMode(path="sub/two", mode=0o600),
    MovePath(path="sub/one", to="one"),
    DeletePath(path="sub/deep", recursive=True),
    CreateDirectory(path="made", mode=0o500),
    CreateFile(path="made/file", content=b"x", mode=0o400),
)


def workspace(tmp_path: Path, name: str = "workspace") -> Workspace:
    return Workspace(
        workspace_id=name,
        root=tmp_path / name,
        staging=tmp_path / "staging",
        locks=tmp_path / "locks",
        hidden=Globs([]),
        volatile=Globs([]),
    )


def next_process(site: Site) -> Committer:
    """Open the committer as the next process does."""
    site.committer.close()
    site.committer = Committer(site.directory, site.staging, site.batch)
    return site.committer


def times(site: Site) -> dict[str, int]:
    return {str(path.relative_to(site.root)): path.lstat().st_mtime_ns for path in [site.root, *site.root.rglob("*")]}
