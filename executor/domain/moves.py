"""Which deletes and creates of one command are moves.

A program that moves a file leaves one name gone and another one there, with the same content, permission bits,
attributes and modification time. Where exactly one such pair fits, it is told, and committed, as a move: the object
itself changes its name, so that its identity and all that no change set carries stay with it.

A directory is moved where the same holds for it and for everything beneath it, name by name. Empty files and empty
directories look all alike, so that they only move with the directory that holds them. A copy that got a time of its
own is no move, nor is anything of which two would fit.
"""

import functools
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

from executor.domain.changes import Change, ChangeKind, Node, NodeType

TimeOf = Callable[[bytes], int | None]


def with_moves(changes: Sequence[Change], *, former_time: TimeOf, time: TimeOf) -> tuple[Change, ...]:
    """Return the change set with its moves told as such; what the paths are after it is the same.

    Args:
        changes: one command's, sorted by path.
        former_time: the modification time that a deleted path had.
        time: the modification time that a created path has.
    """
    gone = {change.path: change.old for change in changes if change.kind is ChangeKind.DELETE and change.old}
    come = {change.path: change.new for change in changes if change.kind is ChangeKind.CREATE and change.new}
    if not gone or not come:
        return tuple(changes)
    moves = _Pairing(_Side(gone, former_time), _Side(come, time)).moves()
    if not moves:
        return tuple(changes)
    sources = set(moves.values())
    kept = [change for change in changes if change.path not in moves and change.path not in sources]
    kept += (
        Change(path=path, kind=ChangeKind.MOVE, old=gone[origin], new=come[path], moved_from=origin)
        for path, origin in moves.items()
    )
    return tuple(sorted(kept, key=lambda change: change.path))


class _Side:
    """The names that go, or those that come."""

    def __init__(self, nodes: Mapping[bytes, Node], time: TimeOf) -> None:
        self.nodes = nodes
        self.time = functools.cache(time)
        self.directories = {path for path, node in nodes.items() if node.type is NodeType.DIRECTORY}
        self._children: dict[bytes, list[bytes]] = defaultdict(list)
        for path in nodes:
            self._children[path.rpartition(b"/")[0]].append(path)

    def signatures(self) -> dict[bytes, Hashable]:
        """Return for each directory what has to be equal, all that is beneath it included.

        A signature as deep as the tree would be hashed as often; so only the hashes of what is beneath stand in it,
        and whoever finds two equal ones compares the directories themselves.
        """
        found: dict[bytes, Hashable] = {}
        for path in sorted(self.nodes, reverse=True):  # what is beneath a directory comes before it
            children = ((child.rpartition(b"/")[2], hash(found[child])) for child in sorted(self._children[path]))
            found[path] = (self.nodes[path], self.time(path), tuple(children))
        return {path: found[path] for path in self.directories}

    def at_and_beneath(self, path: bytes) -> Iterator[bytes]:
        """Yield a path and all that is beneath it, parents first."""
        waiting = [path]
        while waiting:
            here = waiting.pop()
            yield here
            waiting += self._children[here]


class _Pairing:
    def __init__(self, gone: _Side, come: _Side) -> None:
        self._gone = gone
        self._come = come
        self._moves: dict[bytes, bytes] = {}
        self._sources: set[bytes] = set()

    def moves(self) -> dict[bytes, bytes]:
        """Return new name → old name."""
        if self._gone.directories and self._come.directories:
            pairs = _unique_pairs(self._gone.signatures(), self._come.signatures())
            for path, origin in sorted(pairs.items()):
                self._pair_directory(path, origin)
        self._pair_single()
        return self._moves

    def _pair_directory(self, path: bytes, origin: bytes) -> None:
        """Pair a directory and everything beneath it, or nothing of it."""
        come, gone = set(self._come.at_and_beneath(path)), set(self._gone.at_and_beneath(origin))
        if len(come) == 1 or come & self._moves.keys() or gone & self._sources:
            return
        pairs = {one: origin + one[len(path) :] for one in come}
        if set(pairs.values()) == gone and all(self._are_equal(old, new) for new, old in pairs.items()):
            self._moves |= pairs
            self._sources |= gone

    def _are_equal(self, old: bytes, new: bytes) -> bool:
        return self._gone.nodes[old] == self._come.nodes[new] and self._gone.time(old) == self._come.time(new)

    def _pair_single(self) -> None:
        gone = {path for path, node in self._gone.nodes.items() if _is_telling(node) and path not in self._sources}
        come = {path for path, node in self._come.nodes.items() if _is_telling(node) and path not in self._moves}
        common = {self._gone.nodes[path] for path in gone} & {self._come.nodes[path] for path in come}
        self._moves |= _unique_pairs(
            {path: (node, self._gone.time(path)) for path in gone if (node := self._gone.nodes[path]) in common},
            {path: (node, self._come.time(path)) for path in come if (node := self._come.nodes[path]) in common},
        )


def _unique_pairs(gone: Mapping[bytes, Hashable], come: Mapping[bytes, Hashable]) -> dict[bytes, bytes]:
    """Return new name → old name wherever exactly one of each side has the same signature."""
    sources, targets = _by_signature(gone), _by_signature(come)
    return {
        paths[0]: sources[signature][0]
        for signature, paths in targets.items()
        if len(paths) == 1 and len(sources.get(signature, ())) == 1
    }


def _by_signature(signatures: Mapping[bytes, Hashable]) -> dict[Hashable, list[bytes]]:
    found: dict[Hashable, list[bytes]] = defaultdict(list)
    for path, signature in signatures.items():
        found[signature].append(path)
    return found


def _is_telling(node: Node) -> bool:
    """Tell whether a node's content says enough to know it again by."""
    return node.type is NodeType.SYMLINK or (node.type is NodeType.FILE and node.size > 0)
