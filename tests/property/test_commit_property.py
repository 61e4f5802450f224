"""Random trees, random edits: what the tree says must be what the commit makes, and undoing must leave no trace."""

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
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
from executor.domain.errors import ExecutorError
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
from executor.workspace.paths import ROOT, Directory
from executor.workspace.tree import Tree

NAMES = ("a", "b", "c")
# Names that only programs make: a plan can not write them, but moves or deletes them with their directory.
BASE_NAMES = st.sampled_from([*NAMES, "line\nfeed", "not\udcffutf8"])
MODES = st.sampled_from([0o644, 0o755, 0o600, 0o500, 0o700])
SAMPLES = (b"", b"x\n", b"x\ny\n", b"\0\1", "é\r\n".encode(), b"z" * 40_000)
CONTENTS = st.integers(0, len(SAMPLES) - 1).map(SAMPLES.__getitem__)
LEAVES = st.one_of(
    st.tuples(st.just("file"), CONTENTS, MODES),
    st.tuples(st.just("link"), st.sampled_from([b"a", b"../..", b"\xff"]), st.just(0o777)),
)
TREES = st.recursive(
    st.dictionaries(BASE_NAMES, LEAVES, max_size=3),
    lambda inner: st.dictionaries(BASE_NAMES, st.one_of(LEAVES, st.tuples(st.just("dir"), inner, MODES))),
    max_leaves=8,
)
KINDS = ("create", "write", "mkdir", "move", "move", "delete", "mode", "append", "replace")
# An edit is drawn as a recipe, and gets its paths from what the tree holds by then, so that most of them work.
RECIPES = st.tuples(st.sampled_from(KINDS), st.integers(0, 99), st.integers(0, 99), CONTENTS, MODES)
Recipe = tuple[str, int, int, bytes, int]
# Each inner list is one step's edits; several in one step exercise change sets that only commands make otherwise.
STEPS = st.lists(st.lists(RECIPES, min_size=1, max_size=5), min_size=1, max_size=4)
BOUNDED = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Bench:
    """A workspace with its staging directory and objects, on a real file system."""

    def __init__(self, place: Path, tree: dict[str, tuple[str, object, int]]) -> None:
        self.root = place / "workspace"
        self.root.mkdir()
        _build(self.root, tree)
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
def bench(base: Path, tree: dict[str, tuple[str, object, int]]) -> Iterator[Bench]:
    place = base / "example"
    place.mkdir()
    made = Bench(place, tree)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(place)


def _build(directory: Path, tree: dict[str, tuple[str, object, int]]) -> None:
    for number, (name, (kind, content, mode)) in enumerate(tree.items()):
        path = directory / name
        if kind == "link":
            assert isinstance(content, bytes)
            path.symlink_to(os.fsdecode(content))
            continue
        if kind == "dir":
            path.mkdir()
            assert isinstance(content, dict)
            _build(path, content)
        else:
            assert isinstance(content, bytes)
            path.write_bytes(content)
            os.setxattr(path, "user.number", str(number).encode())
        path.chmod(mode)
        os.utime(path, ns=(10**18 + number, 10**18 + 7 * number))


def picture(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything that can be told about a tree from outside, times and identities included; not change times."""
    found: dict[bytes, tuple[object, ...]] = {}
    for path in [root, *sorted(root.rglob("*"))]:
        status = path.lstat()
        is_link, is_file = stat.S_ISLNK(status.st_mode), stat.S_ISREG(status.st_mode)
        content = os.fsencode(path.readlink()) if is_link else path.read_bytes() if is_file else b""
        attributes = [] if is_link else [(name, os.getxattr(path, name)) for name in sorted(os.listxattr(path))]
        size = status.st_size if is_file else 0
        times = (status.st_mtime_ns, status.st_ino)
        found[os.fsencode(path.relative_to(root))] = (status.st_mode, size, content, attributes, times)
    return found


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
    old = found[one % len(found)][0] if found else "a"
    new = f"{directories[two % len(directories)]}/{NAMES[(one + two) % len(NAMES)]}".lstrip("/")
    edits: dict[str, Edit] = {
        "create": CreateFile(path=new, content=content, mode=mode),
        "write": WriteFile(path=old, content=content, mode=mode if one % 2 else None),
        "mkdir": CreateDirectory(path=new, mode=mode),
        "move": MovePath(path=old, to=new),
        "delete": DeletePath(path=old, recursive=bool(two % 4)),
        "mode": SetMode(path=old, mode=mode),
        "append": AppendText(path=old, content="more"),
        "replace": ReplaceText(path=old, old="x", new="yy", expected_count=0),
    }
    return edits[kind]


def states(directory: Directory, root: Path) -> dict[bytes, Node | None]:
    paths = [os.fsencode(path.relative_to(root)) for path in root.rglob("*")]
    return {path: directory.node(path) for path in paths}


def commit_all(here: Bench, change_sets: list[tuple[Change, ...]]) -> list[Applied]:
    applied = []
    for number, changes in enumerate(change_sets):
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
@BOUNDED
def test_commit_makes_what_the_tree_says_and_undo_restores_everything(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, tuple[str, object, int]], steps: list[list[Recipe]]
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
        real = {path: here.directory.state(path) for path in expected_after}
        assert states_fingerprint(real) == states_fingerprint(expected_after)
        assert {path: virtual.node(path) for path in states(here.directory, here.root)} == states(
            here.directory, here.root
        )
        undo_all(here, applied)
        assert picture(here.root) == before
        assert [path.name for path in here.staging.iterdir() if not path.name.startswith("journal.")] == []


@given(old=TREES, new=TREES)
@BOUNDED
def test_any_tree_can_become_any_other_and_back(
    tmp_path_factory: pytest.TempPathFactory,
    old: dict[str, tuple[str, object, int]],
    new: dict[str, tuple[str, object, int]],
) -> None:
    """One change set between two unrelated trees, as a command may make it, commits exactly and is undone exactly."""
    base = tmp_path_factory.mktemp("commit")
    with bench(base, old) as here:
        target = base / "target"
        target.mkdir()
        _build(target, new)
        directory = Directory.open(target)
        batch = here.objects.batch()
        wanted = states(directory, target)
        for path, node in wanted.items():
            if node is not None and node.type is NodeType.FILE:
                fd = directory.open_file(path)
                batch.put_fd(fd, limit=1 << 30)
                os.close(fd)
        directory.close()
        here.store(batch)
        had = states(here.directory, here.root)
        changes = changes_between(had, {**dict.fromkeys(had), **wanted})
        before = picture(here.root)
        applied = commit_all(here, [changes])
        assert states(here.directory, here.root) == wanted
        undo_all(here, applied)
        assert picture(here.root) == before
        assert states_before(changes) == {path: had.get(path) for path in states_before(changes)}


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
