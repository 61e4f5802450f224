"""Random histories of change sets: what they come to, told by the executor and by whoever checks its report."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import changes as checked
from executor.adapters.wire_changes import change_from_proto, change_to_proto
from executor.domain.changes import (
    Change,
    Node,
    NodeType,
    changes_between,
    net_changes,
    net_states,
    net_times,
    states_after,
    states_before,
    states_fingerprint,
)
from executor.domain.moves import with_moves
from tests.property.bounds import bounded

pytestmark = pytest.mark.timeout(900)

NAMES = (b"a", b"b", b"c", b"\xff")
DIRECTORY = Node(type=NodeType.DIRECTORY, mode=0o755)
LEAVES = st.one_of(
    st.builds(
        lambda digest, mode: Node(type=NodeType.FILE, mode=mode, digest=f"sha256:{digest}", size=int(digest)),
        st.sampled_from("0123"),
        st.sampled_from([0o644, 0o600]),
    ),
    st.builds(
        lambda target: Node(type=NodeType.SYMLINK, mode=0o777, link_target=target), st.sampled_from([b"x", b"\xfe"])
    ),
)
State = dict[bytes, tuple[Node, int]]


@st.composite
def states(draw: st.DrawFn, above: bytes = b"", depth: int = 2) -> State:
    """A whole tree: every path with what it is and its time."""
    found: State = {}
    for name in draw(st.sets(st.sampled_from(NAMES), max_size=3)):
        path = above + name
        time = draw(st.integers(0, 2))
        if depth and draw(st.booleans()):
            found[path] = DIRECTORY, time
            found |= draw(states(path + b"/", depth - 1))
        else:
            found[path] = draw(LEAVES), time
    return found


def change_set(old: State, new: State, set_times: set[bytes]) -> tuple[Change, ...]:
    """What a command that made one tree of another would be told to have changed."""
    before = {path: node for path, (node, _) in old.items()}
    after: dict[bytes, Node | None] = dict.fromkeys(old)
    after.update((path, node) for path, (node, _) in new.items())
    times = {path: time for path, (_, time) in new.items() if path in set_times}
    changes = changes_between(before, after, times)
    return with_moves(
        changes,
        former_time=lambda path: old[path][1] if path in old else None,
        time=lambda path: new[path][1] if path in new else None,
    )


HISTORIES = st.lists(states(), min_size=2, max_size=4)
SET_TIMES = st.sets(st.sampled_from([a + b"/" + b for a in NAMES for b in NAMES] + list(NAMES)), max_size=6)


@given(old=states(), new=states())
@bounded(600)
def test_moves_tell_the_same_story(old: State, new: State) -> None:
    """Whatever is paired, the states before and after are those of the plain deletes and creates."""
    plain = changes_between(
        {path: node for path, (node, _) in old.items()},
        {**dict.fromkeys(old), **{path: node for path, (node, _) in new.items()}},
    )
    told = change_set(old, new, set())
    assert states_after(told) == states_after(plain)
    assert states_before(told) == states_before(plain)
    moved = [change for change in told if change.moved_from]
    assert len({change.moved_from for change in moved}) == len(moved)
    assert all(old[change.moved_from] == new[change.path] for change in moved)


@given(history=HISTORIES, set_times=SET_TIMES)
@bounded(600)
def test_what_a_history_comes_to_is_told_alike_on_both_sides(history: list[State], set_times: set[bytes]) -> None:
    """Executor and client, each from the change sets alone, find the same net changes, states and times."""
    steps = [change_set(old, new, set_times) for old, new in pairwise(history)]
    wire = [[change_to_proto(change) for change in step] for step in steps]
    assert [tuple(map(change_from_proto, step)) for step in wire] == steps
    net = net_changes(steps)
    assert [(one.path, one.kind, one.moved_from, one.modified_at_ns) for one in checked.net_changes(wire)] == [
        (one.path, one.kind.value, one.moved_from, one.mtime_ns) for one in net
    ]
    before, after = net_states(steps)
    assert states_fingerprint(after) == checked.states_fingerprint(checked.net_states(wire)[1])
    assert {path: states_after(net).get(path, before[path]) for path in after} == after
    assert net_times(steps) == checked.net_times(wire)


@given(history=HISTORIES)
@bounded(200)
def test_a_history_comes_to_the_difference_of_its_ends(history: list[State]) -> None:
    """However many steps led there: the last state, and nothing for what is as it was."""
    steps = [change_set(old, new, set()) for old, new in pairwise(history)]
    first = {path: node for path, (node, _) in history[0].items()}
    last = {path: node for path, (node, _) in history[-1].items()}
    net = net_changes(steps)
    states = {**first, **states_after(net)}
    assert {path: node for path, node in states.items() if node is not None} == last
    assert all(change.moved_from or first.get(change.path) != last.get(change.path) for change in net)
