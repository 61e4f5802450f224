"""Commits and undos cut off anywhere: what the next process finds is undone to the last bit, or was made in full."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.domain.changes import Change, NodeType, changes_between
from executor.domain.errors import ExecutorError
from executor.steps.edit import EditLimits, apply_edit
from executor.workspace.commit import Applied, Committer
from executor.workspace.paths import Directory
from executor.workspace.tree import Tree
from tests.fakes.dying import MUTATING, Died
from tests.property.bounds import bounded
from tests.property.test_commit_property import RECIPES, Bench, bench, edit_from, states
from tests.property.trees import TREES, build, picture

RECIPES_OF_ONE_STEP = st.lists(RECIPES, min_size=3, max_size=8)
CUTS = st.lists(st.tuples(st.integers(1, 8), st.booleans()), min_size=1, max_size=4)
# A harness that never cuts anywhere interesting would show nothing; every fifth example or so leaves a mixture.
ENOUGH = 50
TIMES = st.lists(st.one_of(st.none(), st.integers(10**18, 2 * 10**18)), min_size=8, max_size=8)


@contextmanager
def cut(number: int, *, after: bool) -> Iterator[None]:
    """Let the process die just before or after one of its calls that change something."""
    calls = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > number or (calls == number and not after):
                raise Died
            result = real(*arguments, **named)
            if calls == number:
                raise Died
            return result

        return call

    with pytest.MonkeyPatch.context() as patched:
        for module, name in MUTATING:
            patched.setattr(module, name, counted(getattr(module, name)))
        patched.setattr(Committer, "_undo_failed", _dead)
        yield


def _dead(*_: object) -> None:
    raise Died


def next_process(here: Bench) -> Committer:
    """Open the committer as the next process does."""
    here.committer.close()
    here.committer = Committer(here.directory, here.staging, here.objects)
    return here.committer


def one_step(
    here: Bench, recipes: list[tuple[str, int, int, bytes, int]], times: list[int | None]
) -> tuple[Change, ...]:
    """Some edits as one change set, with modification times for some of its paths."""
    batch = here.objects.batch()
    virtual = Tree(here.directory, batch)
    for recipe in recipes:
        with suppress(ExecutorError):
            apply_edit(virtual, edit_from(recipe, virtual), EditLimits())
    changes = virtual.changes_since(0)
    here.store(batch)
    return tuple(
        replace(change, mtime_ns=None if change.new is None else times[number % len(times)])
        for number, change in enumerate(changes)
    )


def another_tree(here: Bench, new: dict[str, tuple[str, object, int]], place: Path) -> tuple[Change, ...]:
    """One change set to an unrelated tree, as a command may make it: types change, attributes and bits too."""
    place.mkdir()
    build(place, new)
    directory = Directory.open(place)
    batch = here.objects.batch()
    wanted = states(directory, place)
    for path, node in wanted.items():
        if node is not None and node.type is NodeType.FILE:
            fd = directory.open_file(path)
            batch.put_fd(fd, limit=1 << 30)
            os.close(fd)
    directory.close()
    here.store(batch)
    had = states(here.directory, here.root)
    return changes_between(had, {**dict.fromkeys(had), **wanted})


def left(here: Bench) -> Applied:
    """What the next process finds."""
    [applied] = next_process(here).pending()
    return applied


def cut_and_undone(here: Bench, changes: tuple[Change, ...], cuts: list[tuple[int, bool]]) -> bool:
    """Cut off the commit, and then its undo as often as asked; tell whether the first cut left a mixture."""
    before = picture(here.root)
    [(place, after), *more] = cuts
    with cut(1 + place % (len(changes) + 1), after=after), suppress(Died):
        here.committer.apply("x-1", changes)
    mixed = picture(here.root) != before and here.committer.verify(changes) != ()
    for number, late in more:
        applied = left(here)
        assert not applied.complete or here.committer.verify(changes) == ()
        with cut(number, after=late), suppress(Died):
            here.committer.undo(applied)
    applied = left(here)
    undone = here.committer.undo(applied)
    assert undone.differences == ()
    assert picture(here.root) == before
    assert here.committer.undo(applied).success
    here.committer.discard(applied)
    assert picture(here.root) == before
    assert [path.name for path in here.staging.iterdir() if not path.name.startswith("journal.")] == []
    assert next_process(here).pending() == ()
    return mixed


def test_edits_that_are_cut_off_anywhere_are_undone_exactly(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Cut off in the commit, and again and again in the undo, the tree comes back as it was, times included."""
    mixed = []

    @given(tree=TREES, recipes=RECIPES_OF_ONE_STEP, times=TIMES, cuts=CUTS)
    @bounded(250)
    def check(
        tree: dict[str, tuple[str, object, int]],
        recipes: list[tuple[str, int, int, bytes, int]],
        times: list[int | None],
        cuts: list[tuple[int, bool]],
    ) -> None:
        with bench(tmp_path_factory.mktemp("cut"), tree) as here:
            mixed.append(cut_and_undone(here, one_step(here, recipes, times), cuts))

    check()
    assert sum(mixed) >= len(mixed) // ENOUGH


def test_whole_trees_that_are_cut_off_anywhere_are_undone_exactly(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The same for change sets in which everything changes at once."""
    mixed = []

    @given(old=TREES, new=TREES, cuts=CUTS)
    @bounded(250)
    def check(
        old: dict[str, tuple[str, object, int]],
        new: dict[str, tuple[str, object, int]],
        cuts: list[tuple[int, bool]],
    ) -> None:
        base = tmp_path_factory.mktemp("cut")
        with bench(base, old) as here:
            mixed.append(cut_and_undone(here, another_tree(here, new, base / "target"), cuts))

    check()
    assert sum(mixed) >= len(mixed) // ENOUGH
