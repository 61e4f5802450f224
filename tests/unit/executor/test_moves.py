"""Which deletes and creates of a command are told as moves, and which are not."""

from collections.abc import Mapping

import pytest

from executor.domain.changes import Change, ChangeKind, Node, NodeType, change_between, net_changes, states_after
from executor.domain.moves import with_moves

DIRECTORY = Node(type=NodeType.DIRECTORY, mode=0o755)
EMPTY = Node(type=NodeType.FILE, mode=0o644, digest="sha256:0", size=0)


def file_of(digest: str, mode: int = 0o644) -> Node:
    return Node(type=NodeType.FILE, mode=mode, digest=digest, size=7)


def link_to(target: bytes) -> Node:
    return Node(type=NodeType.SYMLINK, mode=0o777, link_target=target)


def told(
    gone: Mapping[bytes, Node], come: Mapping[bytes, Node], times: Mapping[bytes, int] | None = None
) -> dict[bytes, tuple[str, bytes]]:
    """Each change's kind and former name; every path has the same time where none is named."""
    changes = [change_between(path, node, None) for path, node in gone.items()]
    changes += [change_between(path, None, node) for path, node in come.items()]
    kept = sorted((change for change in changes if change), key=lambda change: change.path)

    def time(path: bytes) -> int | None:
        return (times or {}).get(path, 1)

    moved = with_moves(kept, former_time=time, time=time)
    assert states_after(moved) == states_after(kept)
    assert [change.path for change in moved] == sorted(change.path for change in moved)
    return {change.path: (change.kind.value, change.moved_from) for change in moved}


def test_a_file_or_link_that_is_elsewhere_now_was_moved() -> None:
    """The same content, bits, attributes and time under another name is a move."""
    assert told(
        {b"a": file_of("sha256:1"), b"l": link_to(b"x")}, {b"b": file_of("sha256:1"), b"m/l": link_to(b"x")}
    ) == {b"b": ("move", b"a"), b"m/l": ("move", b"l")}


@pytest.mark.parametrize(
    ("gone", "come", "times"),
    [
        ({b"a": file_of("sha256:1")}, {b"b": file_of("sha256:2")}, {}),
        ({b"a": file_of("sha256:1")}, {b"b": file_of("sha256:1", 0o600)}, {}),
        ({b"a": file_of("sha256:1")}, {b"b": file_of("sha256:1")}, {b"b": 2}),
        ({b"a": file_of("sha256:1")}, {b"b": file_of("sha256:1"), b"c": file_of("sha256:1")}, {}),
        ({b"a": file_of("sha256:1"), b"b": file_of("sha256:1")}, {b"c": file_of("sha256:1")}, {}),
        ({b"a": EMPTY}, {b"b": EMPTY}, {}),
        ({b"a": DIRECTORY}, {b"b": DIRECTORY}, {}),
    ],
    ids=["content", "mode", "time", "two new", "two old", "empty file", "empty directory"],
)
def test_what_is_not_certain_is_no_move(
    gone: dict[bytes, Node], come: dict[bytes, Node], times: dict[bytes, int]
) -> None:
    """Another content, mode or time, more than one that fits, or nothing to know it by."""
    assert {kind for kind, _ in told(gone, come, times).values()} == {"create", "delete"}


def test_the_time_tells_equal_files_apart() -> None:
    """Two files of the same content, each with a time of its own, are two moves."""
    same = file_of("sha256:1")
    times = {b"a": 1, b"b": 2, b"c": 2, b"d": 1}
    assert told({b"a": same, b"b": same}, {b"c": same, b"d": same}, times) == {
        b"c": ("move", b"b"),
        b"d": ("move", b"a"),
    }


def test_a_directory_moves_with_everything_beneath_it() -> None:
    """Empty files and equal files too, when every name beneath pairs up."""
    same = file_of("sha256:1")
    gone = {b"a": DIRECTORY, b"a/x": same, b"a/y": same, b"a/e": EMPTY, b"a/d": DIRECTORY}
    come = {b"n/" + path.replace(b"a", b"b", 1): node for path, node in gone.items()}
    found = told(gone, {**come, b"n": DIRECTORY})
    assert found.pop(b"n") == ("create", b"")
    assert found == {b"n/" + path.replace(b"a", b"b", 1): ("move", path) for path in gone}


def test_a_directory_that_is_not_whole_moves_in_parts() -> None:
    """One more name, or one less, and only what can be known again is a move."""
    gone = {b"a": DIRECTORY, b"a/x": file_of("sha256:1"), b"a/e": EMPTY}
    come = {b"b": DIRECTORY, b"b/x": file_of("sha256:1"), b"b/e": EMPTY, b"b/new": EMPTY}
    assert told(gone, come) == {
        b"a": ("delete", b""),
        b"a/e": ("delete", b""),
        b"b": ("create", b""),
        b"b/e": ("create", b""),
        b"b/new": ("create", b""),
        b"b/x": ("move", b"a/x"),
    }


def test_many_names_are_paired_in_a_moment() -> None:
    """The work follows the number of paths, also where a hundred directories move."""
    gone: dict[bytes, Node] = {}
    for number in range(100):
        folder = b"old/%d" % number
        gone[folder] = DIRECTORY
        gone |= {folder + b"/%d" % name: file_of(f"sha256:{number}-{name}") for name in range(100)}
    come = {b"new/" + path[4:]: node for path, node in gone.items()}
    found = told({b"old": DIRECTORY, **gone}, {b"new": DIRECTORY, **come})
    assert all(kind == "move" for kind, _ in found.values())
    assert len(found) == 10_101


def test_a_change_of_another_kind_stays_what_it_is() -> None:
    """Where nothing comes or nothing goes, the change set is as it was."""
    change = Change(path=b"a", kind=ChangeKind.MODIFY, old=file_of("sha256:1"), new=file_of("sha256:2"))
    assert with_moves([change], former_time=lambda _: 1, time=lambda _: 1) == (change,)


def moved(path: bytes, origin: bytes, node: Node) -> Change:
    return Change(path=path, kind=ChangeKind.MOVE, old=node, new=node, moved_from=origin)


def created(path: bytes, node: Node) -> Change:
    return Change(path=path, kind=ChangeKind.CREATE, old=None, new=node)


def deleted(path: bytes, node: Node) -> Change:
    return Change(path=path, kind=ChangeKind.DELETE, old=node, new=None)


OLD, NEW = file_of("sha256:1", 0o755), file_of("sha256:2", 0o755)


@pytest.mark.parametrize(
    ("steps", "net"),
    [
        (
            [moved(b"b", b"a", OLD), created(b"a", NEW), moved(b"c", b"a", NEW)],
            {b"b": ("move", b"a"), b"c": ("create", b"")},
        ),
        (
            [deleted(b"a", OLD), created(b"a", NEW), moved(b"c", b"a", NEW)],
            {b"a": ("delete", b""), b"c": ("create", b"")},
        ),
        (
            [moved(b"b", b"a", OLD), deleted(b"b", OLD), created(b"b", NEW)],
            {b"a": ("delete", b""), b"b": ("create", b"")},
        ),
        (
            [moved(b"b", b"a", DIRECTORY), created(b"a", DIRECTORY), moved(b"b/b", b"a", DIRECTORY)],
            {b"b": ("move", b"a"), b"b/b": ("create", b"")},
        ),
        (
            [moved(b"b", b"a", OLD), moved(b"a", b"b", OLD), moved(b"c", b"a", OLD)],
            {b"c": ("move", b"a")},
        ),
    ],
    ids=["another of its name", "made again", "deleted at its new name", "into the first", "there, back and away"],
)
def test_over_several_steps_only_the_object_itself_moves(
    steps: list[Change], net: dict[bytes, tuple[str, bytes]]
) -> None:
    """What was made in between under a moved object's old or new name is new, and is told as that."""
    assert {one.path: (one.kind.value, one.moved_from) for one in net_changes([[step] for step in steps])} == net
