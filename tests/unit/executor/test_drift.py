"""Drift: what counts as a change of the base, at the end of a dry run and before an execution."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from executor.domain.errors import StoreError
from executor.domain.plan import Action, CreateFile, DeletePath, ListDirectory, MovePath, ReadFile, SetMode, WriteFile
from executor.domain.report import Evidence, ReportStatus
from executor.runner import simulate
from executor.runner.drift import changed_meanwhile
from executor.steps.retrieve import retrieve
from executor.workspace.paths import ROOT
from executor.workspace.tree import Tree
from tests.unit.executor.plan_house import PlanHouse, plan_house, shell

READ = ReadFile(path="a.txt")
LISTED = ListDirectory(path="d")


@pytest.fixture
def house(tmp_path: Path) -> Iterator[PlanHouse]:
    with plan_house(tmp_path) as opened:
        (opened.root / "a.txt").write_text("one\n")
        (opened.root / "d").mkdir()
        (opened.root / "d" / "b.txt").write_text("two\n")
        yield opened


def rewritten_behind_its_time(root: Path) -> None:
    status = (root / "a.txt").stat()
    (root / "a.txt").write_text("ONE\n")
    os.utime(root / "a.txt", ns=(status.st_atime_ns, status.st_mtime_ns))


def replaced_by_a_link(root: Path) -> None:
    (root / "a.txt").rename(root / "elsewhere")
    (root / "a.txt").symlink_to("elsewhere")


def replaced_by_a_copy(root: Path) -> None:
    shutil.copy2(root / "a.txt", root / "copy")
    (root / "copy").rename(root / "a.txt")


CHANGES: dict[str, tuple[Callable[[Path], object], bytes]] = {
    "content": (lambda root: (root / "a.txt").write_text("other\n"), b"a.txt"),
    "content behind its time": (rewritten_behind_its_time, b"a.txt"),
    "bits": (lambda root: (root / "a.txt").chmod(0o600), b"a.txt"),
    "gone": (lambda root: (root / "a.txt").unlink(), b"a.txt"),
    "attribute": (lambda root: os.setxattr(root / "a.txt", "user.note", b"1"), b"a.txt"),
    "link": (replaced_by_a_link, b"a.txt"),
    "name taken": (lambda root: (root / "absent").touch(), b"absent"),
    "directory's bits": (lambda root: (root / "d").chmod(0o700), b"d"),
    "new in a directory": (lambda root: (root / "d" / "new").touch(), b"d/new"),
    "gone from a directory": (lambda root: (root / "d" / "b.txt").unlink(), b"d/b.txt"),
    "directory moved": (lambda root: (root / "d").rename(root / "e"), b"d"),
}
SAME: dict[str, Callable[[Path], object]] = {
    "touch": lambda root: (root / "a.txt").touch(),
    "copy": replaced_by_a_copy,
    "touch in a directory": lambda root: (root / "d" / "b.txt").touch(),
    "volatile name": lambda root: (root / "d" / "__pycache__").mkdir(),
    "elsewhere": lambda root: (root / "unrelated").touch(),
}


def seen(house: PlanHouse) -> Tree:
    """Return a tree that has looked at a file, at a name that is free, and at a directory's names."""
    tree = Tree(house.workspace.open(), house.objects.batch())
    for path in (b"a.txt", b"absent", b"d"):
        tree.node(path)
    tree.children(b"d")
    return tree


@pytest.mark.parametrize(("change", "path"), CHANGES.values(), ids=CHANGES)
def test_what_a_dry_run_saw_is_watched(house: PlanHouse, change: Callable[[Path], object], path: bytes) -> None:
    """Whatever happens during a dry run to what it looked at is noticed at its end, by name."""
    tree = seen(house)
    change(house.root)
    assert path in changed_meanwhile(tree, house.workspace)


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_what_is_the_same_again_is_no_change(house: PlanHouse, change: Callable[[Path], object]) -> None:
    """Where stat differs the content decides; what is volatile, or was not looked at, does not count."""
    tree = seen(house)
    change(house.root)
    assert changed_meanwhile(tree, house.workspace) == ()


def test_names_in_the_workspace_itself_are_watched(house: PlanHouse) -> None:
    """The listing of the root is one like any other, without what is hidden."""
    tree = Tree(house.workspace.open(), house.objects.batch())
    tree.children(ROOT)
    (house.root / ".env").touch()
    assert changed_meanwhile(tree, house.workspace) == ()
    (house.root / "new").touch()
    assert changed_meanwhile(tree, house.workspace) == (b"new",)


def test_a_file_edited_while_typed_steps_read_it_fails_the_dry_run(
    house: PlanHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dry run without any command is no less exact: somebody else's edit ends it, and the report names the file."""

    def and_then_edited(*arguments: object, **options: object) -> Evidence:
        found = retrieve(*arguments, **options)  # type: ignore[arg-type]  # handed on as they came
        (house.root / "a.txt").write_text("by somebody else\n")
        return found

    monkeypatch.setattr(simulate, "retrieve", and_then_edited)
    found = house.simulate(house.plan(READ, CreateFile(path="new", content=b"x", mode=0o644)))
    assert found.status is ReportStatus.FAILED
    assert [(one.reason, one.path) for one in found.problems] == [("BASE_DRIFTED", "a.txt")]


@pytest.mark.parametrize(
    "action",
    [READ, WriteFile(path="a.txt", content=b"x", mode=None), shell("echo x >> a.txt")],
    ids=["read", "written", "changed by a command"],
)
def test_a_mere_touch_of_a_known_path_is_no_drift(house: PlanHouse, action: Action) -> None:
    """A file that the plan reads or changes is known by digest, so only its content can drift, also under a command."""
    plan = house.plan(action)
    found = house.simulate(plan)
    (house.root / "a.txt").touch()
    assert house.drift(plan, found) == ()
    replaced_by_a_copy(house.root)
    assert house.drift(plan, found) == ()
    (house.root / "a.txt").write_text("other\n")
    assert house.drift(plan, found) == (b"a.txt",)


def test_any_difference_counts_in_what_a_command_may_have_read(house: PlanHouse) -> None:
    """Of a file that only a command could read no digest is known: a touch is drift, and is named."""
    plan = house.plan(shell("cat d/b.txt"))
    found = house.simulate(plan)
    assert house.drift(plan, found) == ()
    (house.root / "d" / "b.txt").touch()
    (house.root / "new").touch()
    assert house.drift(plan, found) == (b"d/b.txt", b"new")


def test_a_listing_and_a_removal_are_known_paths(house: PlanHouse) -> None:
    """What a directory held when it was listed or removed must still be so."""
    plan = house.plan(LISTED, DeletePath(path="d", recursive=True))
    found = house.simulate(plan)
    assert house.drift(plan, found) == ()
    (house.root / "d" / "b.txt").write_text("more\n")
    assert house.drift(plan, found) == (b"d", b"d/b.txt")


def more_in_a_directory(root: Path) -> None:
    (root / "d" / "new").write_text("somebody's")


def another_name(root: Path) -> None:
    (root / "other").hardlink_to(root / "a.txt")


@pytest.mark.parametrize(
    ("action", "change", "path"),
    [
        (DeletePath(path="d", recursive=True), more_in_a_directory, b"d/new"),
        (MovePath(path="d", to="e"), more_in_a_directory, b"d/new"),
        (WriteFile(path="a.txt", content=b"new", mode=None), another_name, b"a.txt"),
        (SetMode(path="a.txt", mode=0o600), another_name, b"a.txt"),
    ],
    ids=["delete", "move", "write", "mode"],
)
def test_what_would_go_or_change_beyond_the_report_is_drift(
    house: PlanHouse, action: Action, change: Callable[[Path], None], path: bytes
) -> None:
    """It is found at the gate, while the mission is still free, and not only by the commit that it would stop."""
    plan = house.plan(action)
    found = house.simulate(plan)
    change(house.root)
    assert house.drift(plan, found) == (path,)


def test_a_plans_own_file_in_the_place_of_one_with_two_names_is_no_drift(house: PlanHouse) -> None:
    """What is deleted, made and then written is another file when it is written."""
    another_name(house.root)
    plan = house.plan(
        DeletePath(path="a.txt", recursive=False),
        CreateFile(path="a.txt", content=b"1", mode=0o644),
        WriteFile(path="a.txt", content=b"2", mode=None),
    )
    found = house.simulate(plan)
    assert (found.status, house.drift(plan, found)) == (ReportStatus.SUCCESS, ())


def test_a_stored_manifest_that_is_not_what_was_sealed_is_an_error(house: PlanHouse) -> None:
    """The report names the manifest's digest; other bytes in its place are no base to compare with."""
    plan = house.plan(shell("true"))
    found = house.simulate(plan)
    house.small[found.manifest_digest] += b"x"
    with pytest.raises(StoreError):
        house.drift(plan, found)
