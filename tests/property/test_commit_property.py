"""Random trees, random edits: what the tree says must be what the commit makes, and undoing must leave no trace."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.domain.changes import (
    Change,
    ChangeKind,
    Node,
    NodeType,
    changes_between,
    net_states,
    states_after,
    states_before,
    states_fingerprint,
)
from executor.domain.errors import ExecutorError, StepFailedError
from executor.domain.moves import with_moves
from executor.domain.plan import (
    AppendText,
    CreateDirectory,
    CreateFile,
    DeletePath,
    Edit,
    MovePath,
    ReplaceText,
    SetMode,
    WriteFile,
)
from executor.steps.edit import EditLimits, apply_edit
from executor.workspace.commit import Applied, Committer
from executor.workspace.objects import Batch, ObjectStore
from executor.workspace.paths import ROOT, Directory, parent_of
from executor.workspace.record import changed_paths
from executor.workspace.tree import Tree
from tests.property.bounds import bounded
from tests.property.trees import CONTENTS, MODES, NAMES, TREES, TreeOf, build, entered, picture, remove, times

pytestmark = pytest.mark.timeout(900)

KINDS = ("create", "write", "mkdir", "move", "move", "delete", "mode", "append", "replace")
# An edit is drawn as a recipe, and gets its paths from what the tree holds by then, so that most of them work.
RECIPES = st.tuples(st.sampled_from(KINDS), st.integers(0, 99), st.integers(0, 99), CONTENTS, MODES)
Recipe = tuple[str, int, int, bytes, int]
# Each inner list is one step's edits; several in one step exercise change sets that only commands make otherwise.
STEPS = st.lists(st.lists(RECIPES, min_size=1, max_size=5), min_size=1, max_size=4)


class Bench:
    """A workspace with its staging directory and objects, on a real file system."""

    def __init__(self, place: Path, tree: TreeOf) -> None:
        self.root = place / "workspace"
        self.root.mkdir()
        build(self.root, tree)
        self.directory = Directory.open(self.root)
        self.kept: dict[str, bytes] = {}
        self.objects = ObjectStore(place / "objects", self.kept.get)
        self.committer = Committer(self.directory, place / "staging", self.objects)
        self.staging = place / "staging"

    def store(self, batch: Batch) -> None:
        batch.sync()
        self.kept.update(batch.small)

    def close(self) -> None:
        self.committer.close()
        self.directory.close()


@contextmanager
def bench(base: Path, tree: TreeOf) -> Iterator[Bench]:
    place = base / "example"
    place.mkdir()
    made = Bench(place, tree)
    try:
        yield made
    finally:
        made.close()
        remove(place)


def paths_of(virtual: Tree, directory: str = "") -> Iterator[tuple[str, bool]]:
    """Every path in a tree that a plan can name, and whether it is a directory."""
    for name in virtual.children(os.fsencode(directory) or ROOT):
        if name.isalpha():
            path = f"{directory}/{name.decode()}".lstrip("/")
            node = virtual.node(path.encode())
            is_directory = node is not None and node.type is NodeType.DIRECTORY
            yield path, is_directory
            if is_directory:
                yield from paths_of(virtual, path)


def edit_from(recipe: Recipe, virtual: Tree) -> Edit:
    kind, one, two, content, mode = recipe
    found = list(paths_of(virtual))
    directories = ["", *(path for path, is_directory in found if is_directory)]
    old, is_directory = found[one % len(found)] if found else ("a", False)
    new = f"{directories[two % len(directories)]}/{NAMES[(one + two) % len(NAMES)]}".lstrip("/")
    edits: dict[str, Edit] = {
        "create": CreateFile(path=new, content=content, mode=mode),
        "write": WriteFile(path=old, content=content, mode=mode if one % 2 else None),
        "mkdir": CreateDirectory(path=new, mode=entered(mode)),
        "move": MovePath(path=old, to=new),
        "delete": DeletePath(path=old, recursive=bool(two % 4)),
        "mode": SetMode(path=old, mode=entered(mode) if is_directory else mode),
        "append": AppendText(path=old, content="more"),
        "replace": ReplaceText(path=old, old="x", new="yy", expected_count=0),
    }
    return edits[kind]


def states(directory: Directory, root: Path) -> dict[bytes, Node | None]:
    paths = [os.fsencode(path.relative_to(root)) for path in root.rglob("*")]
    return {path: directory.node(path) for path in paths}


def is_forbidden(here: Bench, changes: tuple[Change, ...]) -> bool:
    """Whether a name would come or go in a directory that may not be written and that is not itself to be changed."""
    if os.geteuid() == 0:
        return False
    parents = {parent_of(path) for path in changed_paths(changes) if changes_a_name(path, changes)}
    statuses = [here.directory.lstat(path) for path in parents - changed_paths(changes)]
    return any(status is not None and not status.st_mode & stat.S_IWUSR for status in statuses)


def changes_a_name(path: bytes, changes: tuple[Change, ...]) -> bool:
    return any(path in {one.path, one.moved_from} and one.kind is not ChangeKind.METADATA for one in changes)


def commit_all(here: Bench, change_sets: list[tuple[Change, ...]]) -> list[Applied]:
    """Commit one after the other, up to the first that the bits of a directory forbid."""
    applied = []
    for number, changes in enumerate(change_sets):
        if is_forbidden(here, changes):
            before = picture(here.root)
            with pytest.raises(StepFailedError) as caught:
                here.committer.apply(f"x-{number}", changes)
            assert caught.value.fault.reason == "STATE_FORBIDS"
            assert picture(here.root) == before
            break
        applied.append(here.committer.apply(f"x-{number}", changes))
        assert here.committer.verify(changes) == ()
        assert all(here.directory.state(path) == node for path, node in states_after(changes).items())
    return applied


def undo_all(here: Bench, applied: list[Applied]) -> None:
    for one in reversed(applied):
        undone = here.committer.undo(one)
        assert undone.differences == ()
        assert undone.success
        here.committer.discard(one)


@given(tree=TREES, steps=STEPS)
@bounded(800)
def test_commit_makes_what_the_tree_says_and_undo_restores_everything(
    tmp_path_factory: pytest.TempPathFactory, tree: TreeOf, steps: list[list[Recipe]]
) -> None:
    """Every step's change set commits to exactly its after states; undone, the tree is as before, times included."""
    with bench(tmp_path_factory.mktemp("commit"), tree) as here:
        before = picture(here.root)
        batch = here.objects.batch()
        virtual = Tree(here.directory, batch)
        change_sets = []
        for recipes in steps:
            mark = virtual.mark()
            for recipe in recipes:
                with suppress(ExecutorError):
                    apply_edit(virtual, edit_from(recipe, virtual), EditLimits())
            change_sets.append(virtual.changes_since(mark))
        here.store(batch)
        assert picture(here.root) == before
        expected_before, expected_after = net_states(change_sets)
        assert {path: here.directory.state(path) for path in expected_before} == expected_before
        assert all(path in virtual.consulted or node is None for path, node in expected_before.items())
        applied = commit_all(here, change_sets)
        if len(applied) == len(change_sets):
            real = {path: here.directory.state(path) for path in expected_after}
            assert states_fingerprint(real) == states_fingerprint(expected_after)
            found = states(here.directory, here.root)
            assert {path: virtual.node(path) for path in found} == found
        undo_all(here, applied)
        assert picture(here.root) == before
        assert [path.name for path in here.staging.iterdir() if not path.name.startswith("journal.")] == []


@given(old=TREES, new=TREES, timed=st.booleans(), moving=st.booleans())
@bounded(800)
def test_any_tree_can_become_any_other_and_back(
    tmp_path_factory: pytest.TempPathFactory, old: TreeOf, new: TreeOf, *, timed: bool, moving: bool
) -> None:
    """One change set between two unrelated trees, as a command may make it, commits exactly and is undone exactly.

    With the times that it sets, directories' included, and with what can be told as moves told so.
    """
    base = tmp_path_factory.mktemp("commit")
    with bench(base, old) as here:
        target = base / "target"
        target.mkdir()
        build(target, new)
        wanted, wanted_times = taken_in(here, target), times(target)
        had, had_times = states(here.directory, here.root), times(here.root)
        set_times = {path: wanted_times[path] for path in wanted} if timed else {}
        changes = changes_between(had, {**dict.fromkeys(had), **wanted}, set_times)
        if moving:
            changes = with_moves(changes, former_time=had_times.get, time=wanted_times.get)
        before = picture(here.root)
        applied = commit_all(here, [changes])
        if not applied:
            return
        assert states(here.directory, here.root) == wanted
        found = times(here.root)
        assert not timed or {path: found[path] for path in wanted} == {path: wanted_times[path] for path in wanted}
        undo_all(here, applied)
        assert picture(here.root) == before
        assert states_before(changes) == {path: had.get(path) for path in states_before(changes)}


def taken_in(here: Bench, target: Path) -> dict[bytes, Node | None]:
    """What a tree holds; its contents are kept as objects."""
    directory = Directory.open(target)
    batch = here.objects.batch()
    found = states(directory, target)
    for path, node in found.items():
        if node is not None and node.type is NodeType.FILE:
            fd = directory.open_file(path)
            batch.put_fd(fd, limit=1 << 30)
            os.close(fd)
    directory.close()
    here.store(batch)
    return found


def test_the_root_stays_what_it_is(tmp_path: Path) -> None:
    """A change of the workspace's own bits is committed and undone like any other."""
    with bench(tmp_path, {}) as here:
        here.root.chmod(0o755)
        old = here.directory.node(ROOT)
        assert old is not None
        new = Node(type=NodeType.DIRECTORY, mode=0o700)
        change = Change(path=ROOT, kind=ChangeKind.METADATA, old=old, new=new)
        applied = here.committer.apply("x-1", (change,))
        assert stat.S_IMODE(here.root.stat().st_mode) == 0o700
        assert here.committer.undo(applied).success
        assert stat.S_IMODE(here.root.stat().st_mode) == 0o755
