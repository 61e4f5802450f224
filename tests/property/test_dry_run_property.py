"""Random trees, random plans of typed steps and real programs: the dry run tells what really happens, and no more.

The judge is the same plan carried out without gonogo on a second copy of the tree: typed steps by plain system calls,
programs without a sandbox. What the dry run found is then committed and must leave the same tree; undone, every byte,
bit, attribute, hole, identity and time must be back.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.domain.changes import Change, ChangeKind, net_states, net_times, states_fingerprint, touched
from executor.domain.errors import DriftError
from executor.domain.plan import (
    Action,
    AppendText,
    CreateDirectory,
    CreateFile,
    DeletePath,
    MovePath,
    RunCommand,
    SetMode,
    WriteFile,
)
from executor.domain.report import ReportStatus
from executor.sandbox.bubblewrap import Bubblewrap
from executor.sandbox.storage import Storage
from executor.workspace.commit import Applied, Committer
from executor.workspace.paths import parent_of
from tests.property import programs
from tests.property.bounds import bounded
from tests.property.trees import CONTENTS, NAMES, TreeOf, build, contents, picture, remove, times, trees_of
from tests.unit.executor.plan_house import PlanHouse, plan_house

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(900)]

# A sandbox has no privileges: bits that keep the owner out would keep the program out, and not root without one.
OPEN_MODES = st.sampled_from([0o755, 0o700, 0o750])
TREES = trees_of(OPEN_MODES, (b"a", b"b/c", b"\xff"))
EDITS = st.tuples(
    st.sampled_from(("create", "write", "mkdir", "move", "delete", "mode", "append")),
    st.integers(0, 99),
    st.integers(0, 99),
    CONTENTS,
    OPEN_MODES,
)
Recipe = tuple[str, int, int, bytes, int]
STEPS = st.lists(st.one_of(EDITS, programs.PROGRAMS), min_size=1, max_size=6)
BOUNDED = bounded(100)
# What a tree is built with, and what a program sets, lies before this; what is written now, behind it.
LONG_AGO_NS = 1_600_000_000 * 10**9


class Trial:
    """A workspace, and beside it the same tree for a judge."""

    def __init__(self, house: PlanHouse, tree: TreeOf) -> None:
        self.house = house
        self.judge = house.folder / "judge"
        self.judge.mkdir()
        for root in (house.root, self.judge):
            build(root, tree)
        self.before = picture(house.root)

    def carry_out(self, steps: list[Recipe | programs.Program]) -> list[Action]:
        """Carry steps out on the judge's tree, and return those that worked as actions of a plan."""
        actions: list[Action] = []
        for step in steps:
            if isinstance(step, list):
                programs.run_here(self.judge, step)
                actions.append(RunCommand(argv=programs.argv(step), cwd="", env={}, success_codes=()))
            else:
                action = edit_of(step, self.judge)
                if action is not None:
                    carry_out(action, self.judge)
                    actions.append(action)
        return actions

    def dry_run(self, actions: list[Action]) -> list[tuple[Change, ...]]:
        """Dry-run a plan of actions, which must succeed and change nothing."""
        found = self.house.simulate(self.house.plan(*actions, seconds=120))
        assert (found.status, found.problems) == (ReportStatus.SUCCESS, ())
        assert picture(self.house.root) == self.before
        change_sets = [step.changes for step in found.steps]
        assert found.after_fingerprint == states_fingerprint(net_states(change_sets)[1])
        return change_sets

    @property
    def committer(self) -> Committer:
        return self.house.workspace.committer(self.house.objects)


@contextmanager
def trial(base: Path, tree: TreeOf, storage: Storage = Storage.TMPFS) -> Iterator[Trial]:
    folder = base / "example"
    folder.mkdir()
    try:
        with plan_house(folder) as house:
            house.sandbox = Bubblewrap.on_this_machine(scratch=folder / "scratch", storage=storage)
            yield Trial(house, tree)
    finally:
        remove(folder)


def edit_of(recipe: Recipe, root: Path) -> Action | None:
    """Return a typed action that can be carried out on a tree, or None where this one can not."""
    kind, one, two, content, mode = recipe
    named = [path for path in sorted(root.rglob("*")) if str(path.relative_to(root)).replace("/", "").isalpha()]
    old = named[one % len(named)] if named else root
    folders = [root, *(path for path in named if path.is_dir() and not path.is_symlink())]
    new = folders[two % len(folders)] / NAMES[(one + two) % len(NAMES)]
    path, to = str(old.relative_to(root)), str(new.relative_to(root))
    is_file = old.is_file() and not old.is_symlink()
    can: dict[str, tuple[bool, Action]] = {
        "create": (not os.path.lexists(new), CreateFile(path=to, content=content, mode=mode)),
        # The same bytes again are no change for a typed step, whatever their time then says.
        "write": (
            is_file and old.read_bytes() != content,
            WriteFile(path=path, content=content, mode=mode if one % 2 else None),
        ),
        "mkdir": (not os.path.lexists(new), CreateDirectory(path=to, mode=mode)),
        "move": (not os.path.lexists(new) and old not in new.parents and old != root, MovePath(path=path, to=to)),
        "delete": (old != root, DeletePath(path=path, recursive=True)),
        "mode": (old != root and not old.is_symlink(), SetMode(path=path, mode=mode)),
        "append": (is_file and b"\0" not in old.read_bytes(), AppendText(path=path, content="more")),
    }
    works, action = can[kind] if kind != "append" or is_file else (False, can["mode"][1])
    return action if works else None


def carry_out(action: Action, root: Path) -> None:
    """Do what a typed action says, plainly."""
    match action:
        case CreateFile(path=path, content=content, mode=mode):
            (root / path).write_bytes(content)
            (root / path).chmod(mode)
        case WriteFile(path=path, content=content, mode=bits):
            (root / path).write_bytes(content)
            if bits is not None:
                (root / path).chmod(bits)
        case CreateDirectory(path=path, mode=mode):
            (root / path).mkdir()
            (root / path).chmod(mode)
        case MovePath(path=path, to=to):
            (root / path).rename(root / to)
        case DeletePath(path=path):
            whole = root / path
            shutil.rmtree(whole) if whole.is_dir() and not whole.is_symlink() else whole.unlink()
        case SetMode(path=path, mode=mode):
            (root / path).chmod(mode)
        case AppendText(path=path, content=text):
            with (root / path).open("a") as file:
                file.write(text)
        case _:
            raise AssertionError(action)


def commit_all(here: Trial, change_sets: list[tuple[Change, ...]]) -> list[Applied]:
    applied = []
    for number, changes in enumerate(change_sets):
        applied.append(here.committer.apply(f"x-{number}", changes))
        assert here.committer.verify(changes) == ()
        assert here.committer.time_differences(changes) == ()
    return applied


def check_times(here: Trial, change_sets: list[tuple[Change, ...]], began_ns: int) -> None:
    """Every time of long ago is where it should be; what was written anew, file or link, is of now.

    The commit brings new contents by a rename, which moves the time of their directory too, where a program may write
    in place.
    """
    real, judged = times(here.house.root), times(here.judge)
    renamed = {parent_of(path) for changes in change_sets for path in touched(changes)}
    for path, mtime_ns in judged.items():
        if path in renamed:
            continue
        if mtime_ns < LONG_AGO_NS:
            assert (path, real[path]) == (path, mtime_ns)
        elif not (here.judge / os.fsdecode(path)).is_dir() or (here.judge / os.fsdecode(path)).is_symlink():
            assert real[path] > began_ns - 10**9, path
    for path, mtime_ns in net_times(change_sets).items():
        assert path in renamed or (path, real[path]) == (path, mtime_ns)


@given(tree=TREES, steps=STEPS, storage=st.sampled_from((Storage.TMPFS, Storage.TMPFS, Storage.DISK, Storage.COPY)))
@bounded(250)
def test_what_a_dry_run_found_is_what_happens_and_can_be_undone(
    tmp_path_factory: pytest.TempPathFactory, tree: TreeOf, steps: list[Recipe | programs.Program], storage: Storage
) -> None:
    """The committed tree is the judge's, times that were set included; undone, it is the one before, to the inode.

    On a tmpfs, on disk, and where every command works on a private copy.
    """
    began_ns = time.time_ns()
    with trial(tmp_path_factory.mktemp("dry"), tree, storage) as here:
        actions = here.carry_out(steps)
        if not actions:
            return
        change_sets = here.dry_run(actions)
        applied = commit_all(here, change_sets)
        assert contents(here.house.root) == contents(here.judge)
        check_times(here, change_sets, began_ns)
        for one in reversed(applied):
            undone = here.committer.undo(one)
            assert (undone.differences, undone.success) == ((), True)
            here.committer.discard(one)
        assert picture(here.house.root) == here.before


DRIFTS = ("write", "touch_and_write", "remove", "mode", "appear")


@given(tree=TREES, steps=STEPS, at=st.integers(0, 99), how=st.sampled_from(DRIFTS))
@BOUNDED
def test_whatever_drifts_is_refused_and_nothing_is_touched(
    tmp_path_factory: pytest.TempPathFactory, tree: TreeOf, steps: list[Recipe | programs.Program], at: int, how: str
) -> None:
    """Another content, other bits, a name gone or come: the step's commit is refused, and the tree stays as it is."""
    with trial(tmp_path_factory.mktemp("drift"), tree) as here:
        actions = here.carry_out(steps)
        change_sets = [changes for changes in (here.dry_run(actions) if actions else []) if changes]
        if not change_sets:
            return
        number = at % len(change_sets)
        for position, changes in enumerate(change_sets[:number]):
            here.committer.apply(f"x-{position}", changes)
        if not drift(here.house.root, change_sets[number], at, how):
            return
        now = picture(here.house.root)
        with pytest.raises(DriftError):
            here.committer.apply("x-drift", change_sets[number])
        assert picture(here.house.root) == now


def drift(root: Path, changes: tuple[Change, ...], at: int, how: str) -> bool:
    """Change one path that a change set touches; False where this way does not fit any."""
    change = changes[at % len(changes)]
    path = root / os.fsdecode(change.moved_from or change.path)
    if how == "appear":
        if (
            change.kind not in {ChangeKind.CREATE, ChangeKind.MOVE}
            or not (root / os.fsdecode(change.path)).parent.is_dir()
        ):
            return False
        (root / os.fsdecode(change.path)).write_bytes(b"somebody else's")
        return True
    if change.old is None or path == root or path.is_symlink():
        return False
    if how == "remove":
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    elif how == "mode":
        path.chmod(0o711)
    elif path.is_dir():
        return False
    else:
        status = path.stat()
        path.write_bytes(b"edited by somebody")
        if how == "write":
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return True
