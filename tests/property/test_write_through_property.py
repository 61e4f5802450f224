"""What typed steps changed is what the next command sees: any change set, written into a copy of the tree."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from executor.domain.changes import changes_between
from executor.domain.moves import with_moves
from executor.runner.write_through import WriteThrough
from executor.workspace.globs import Globs
from executor.workspace.paths import Directory
from executor.workspace.tree import Tree
from tests.property.bounds import bounded
from tests.property.test_commit_property import bench, states, taken_in
from tests.property.trees import TREES, TreeOf, build, contents, times

pytestmark = pytest.mark.timeout(900)

MOVED: dict[str, TreeOf] = {
    "from": {"a": ("dir", {"b": ("file", b"", 0o755)}, 0o755)},
    "to": {"b": ("dir", {"b": ("file", b"", 0o755)}, 0o755)},
}
"""A directory that moves as it is keeps its time."""


@given(old=TREES, new=TREES, timed=st.booleans())
@example(old=MOVED["from"], new=MOVED["to"], timed=True)
@bounded(300)
def test_a_change_set_written_through_makes_the_tree_it_tells(
    tmp_path_factory: pytest.TempPathFactory, old: TreeOf, new: TreeOf, *, timed: bool
) -> None:
    """Whatever became of whatever, moves and times included; the workspace itself is not touched."""
    base = tmp_path_factory.mktemp("written")
    with bench(base, old) as here:
        target, copy = base / "target", base / "copy"
        for place, tree in ((target, new), (copy, old)):
            place.mkdir()
            build(place, tree)
        wanted, wanted_times = taken_in(here, target), times(target)
        had, had_times = states(here.directory, here.root), times(here.root)
        set_times = {path: wanted_times[path] for path in wanted} if timed else {}
        changes = with_moves(
            changes_between(had, {**dict.fromkeys(had), **wanted}, set_times),
            former_time=had_times.get,
            time=wanted_times.get,
        )
        before = contents(here.root)
        merged = Directory.open(copy)
        virtual = Tree(here.directory, here.objects.batch())
        WriteThrough(merged, virtual, virtual.batch, Globs([])).write(changes)
        merged.close()
        assert contents(copy) == contents(target)
        found = times(copy)
        assert not timed or {path: found[path] for path in wanted} == {path: wanted_times[path] for path in wanted}
        assert found[b"."] == had_times[b"."] or any(b"/" not in change.path + change.moved_from for change in changes)
        assert contents(here.root) == before
