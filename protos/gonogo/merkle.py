"""The tree over an audit log: RFC 6962 (RFC 9162, section 2.1) with SHA-256, and nothing invented.

A log is a list of leaves that only grows. Its root says all of them in 32 bytes; an inclusion path shows that a leaf is
at its place under a root, a consistency path that a root continues an older one. Whoever kept an old root notices any
change of what was in the log then.

Storage. The leaves' hashes are level 0. Every complete run of `TILE` hashes of a level, beginning at a multiple of it,
has its root stored as one hash of the next level: hash i of level l is the root over the leaves from i * TILE**l on,
TILE**l of them. That is one more row for sixteen appends, and a path at a million leaves reads ten runs of sixteen
hashes at most. A reader of stored hashes is any callable of the type `HashesOf`.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

TILE_BITS: Final = 4
TILE: Final = 1 << TILE_BITS
HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()

HashesOf = Callable[[int, int, int], Sequence[bytes]]
"""Reads stored hashes: (level, first, count) -> the hashes from `first` on, exactly `count` of them."""

_sha256: Final = hashlib.sha256


class MissingHashesError(LookupError):
    """The store does not have hashes that a log of that size must have."""


@dataclass(frozen=True, slots=True)
class Tile:
    """The root over a complete run of hashes, to be stored as hash `index` of `level`."""

    level: int
    index: int
    root: bytes


def leaf_hash(leaf: bytes) -> bytes:
    """Return the hash that stands for a leaf."""
    return _sha256(b"\0" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash that stands for two subtrees."""
    return _sha256(b"\1" + left + right).digest()


class Frontier:
    """All that appending needs of a tree: the roots of its complete subtrees, one for each binary digit of its size.

    Args:
        size: number of leaves.
        roots: of the complete subtrees, the largest first.
    """

    __slots__ = ("_roots", "_size")

    def __init__(self, size: int = 0, roots: Iterable[bytes] = ()) -> None:
        self._size = size
        self._roots = list(roots)
        if size < 0 or len(self._roots) != size.bit_count():
            message = f"a tree of {size} leaves does not have {len(self._roots)} complete subtrees"
            raise ValueError(message)

    @property
    def size(self) -> int:
        """Number of leaves."""
        return self._size

    @property
    def roots(self) -> tuple[bytes, ...]:
        """The roots of the complete subtrees, the largest first."""
        return tuple(self._roots)

    def copy(self) -> "Frontier":
        """Return one that grows by itself: for a transaction that may not come about."""
        return Frontier(self._size, self._roots)

    def append(self, hashed: bytes) -> tuple[Tile, ...]:
        """Add a leaf by its hash, and return what is to be stored beside it: mostly nothing."""
        node, height, index = hashed, 0, self._size
        tiles: list[Tile] = []
        while index & 1:
            node = node_hash(self._roots.pop(), node)
            height, index = height + 1, index >> 1
            if height % TILE_BITS == 0:
                tiles.append(Tile(height // TILE_BITS, index, node))
        self._roots.append(node)
        self._size += 1
        return tuple(tiles)

    def root(self) -> bytes:
        """Return the root over all leaves."""
        return _folded(self._roots)


def stored_frontier(size: int, hashes_of: HashesOf) -> Frontier:
    """Return the frontier of a stored tree at a size that it has, or had.

    Raises:
        MissingHashesError: the store is not that large.
    """
    tree = _Tree(size, hashes_of)
    return Frontier(size, [tree.complete(first, height) for first, height in _complete_subtrees(0, size)])


def stored_root(size: int, hashes_of: HashesOf) -> bytes:
    """Return the root of a stored tree at a size that it has, or had.

    Raises:
        MissingHashesError: the store is not that large.
    """
    return stored_frontier(size, hashes_of).root()


def inclusion_path(index: int, size: int, hashes_of: HashesOf) -> list[bytes]:
    """Return what shows that leaf `index` is in the tree of `size` leaves: hashes from the leaf upwards.

    Raises:
        MissingHashesError: the store is not that large.
        ValueError: the tree has no such leaf.
    """
    if not 0 <= index < size:
        message = f"a tree of {size} leaves has no leaf {index}"
        raise ValueError(message)
    tree, path = _Tree(size, hashes_of), []
    first, end = 0, size
    while end - first > 1:
        middle = first + _split(end - first)
        if index < middle:
            path.append(tree.root(middle, end))
            end = middle
        else:
            path.append(tree.root(first, middle))
            first = middle
    return path[::-1]


def consistency_path(old_size: int, new_size: int, hashes_of: HashesOf) -> list[bytes]:
    """Return what shows that the tree of `new_size` leaves continues that of `old_size`.

    Everything continues the empty tree, and each tree itself: then there is nothing to show.

    Raises:
        MissingHashesError: the store is not that large.
        ValueError: the old tree is larger than the new one.
    """
    if not 0 <= old_size <= new_size:
        message = f"a tree of {new_size} leaves can not continue one of {old_size}"
        raise ValueError(message)
    if old_size in {0, new_size}:
        return []
    tree, path = _Tree(new_size, hashes_of), []
    first, end, is_old_root = 0, new_size, True
    while end != old_size:
        middle = first + _split(end - first)
        if old_size <= middle:
            path.append(tree.root(middle, end))
            end = middle
        else:
            path.append(tree.root(first, middle))
            first, is_old_root = middle, False
    if not is_old_root:
        path.append(tree.root(first, end))
    return path[::-1]


def verify_inclusion(hashed: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Tell whether a path shows that a leaf's hash is at a place under a root (RFC 9162, section 2.1.3.2)."""
    if not 0 <= index < size or not _are_hashes((hashed, *path, root)):
        return False
    number, last, node = index, size - 1, hashed
    for sibling in path:
        if last == 0:
            return False
        if number & 1 or number == last:
            node = node_hash(sibling, node)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        number, last = number >> 1, last >> 1
    return last == 0 and node == root


def verify_consistency(old_size: int, old_root: bytes, new_size: int, new_root: bytes, path: Sequence[bytes]) -> bool:
    """Tell whether a path shows that a tree continues an older one (RFC 9162, section 2.1.4.2)."""
    if not 0 <= old_size <= new_size or not _are_hashes((old_root, *path, new_root)):
        return False
    if old_size in {0, new_size}:
        wanted = EMPTY_ROOT if old_size == 0 else new_root
        return not path and old_root == wanted and (new_size > 0 or new_root == EMPTY_ROOT)
    rest = list(path)
    if old_size & (old_size - 1) == 0:
        rest.insert(0, old_root)
    return bool(rest) and _continues(old_size, old_root, new_size, new_root, rest)


def _continues(old_size: int, old_root: bytes, new_size: int, new_root: bytes, path: list[bytes]) -> bool:
    number, last = old_size - 1, new_size - 1
    while number & 1:
        number, last = number >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if number & 1 or number == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        number, last = number >> 1, last >> 1
    return last == 0 and old == old_root and new == new_root


class _Tree:
    """A stored tree at one size; each run of stored hashes is read once."""

    def __init__(self, size: int, hashes_of: HashesOf) -> None:
        self._size = size
        self._hashes_of = hashes_of
        self._runs: dict[tuple[int, int], Sequence[bytes]] = {}

    def root(self, first: int, end: int) -> bytes:
        """Return the root over some leaves that are a subtree: complete, or the tree's right edge."""
        return _folded([self.complete(start, height) for start, height in _complete_subtrees(first, end)])

    def complete(self, first: int, height: int) -> bytes:
        """Return the root over 2**height leaves from a multiple of that on."""
        level, above = divmod(height, TILE_BITS)
        run, start = divmod(first >> (level * TILE_BITS), TILE)
        hashes = self._run(level, run)[start : start + (1 << above)]
        while len(hashes) > 1:
            hashes = [node_hash(*pair) for pair in zip(hashes[::2], hashes[1::2], strict=True)]
        return hashes[0]

    def _run(self, level: int, run: int) -> Sequence[bytes]:
        hashes = self._runs.get((level, run))
        if hashes is None:
            first = run * TILE
            count = min(TILE, (self._size >> (level * TILE_BITS)) - first)
            hashes = self._hashes_of(level, first, count)
            if len(hashes) != count:
                message = f"of {count} hashes of level {level} from {first} on, {len(hashes)} are stored"
                raise MissingHashesError(message)
            self._runs[level, run] = hashes
        return hashes


def _folded(roots: Sequence[bytes]) -> bytes:
    """Return the root over complete subtrees that stand side by side, the largest first."""
    if not roots:
        return EMPTY_ROOT
    node = roots[-1]
    for left in reversed(roots[:-1]):
        node = node_hash(left, node)
    return node


def _complete_subtrees(first: int, end: int) -> list[tuple[int, int]]:
    """Return the complete subtrees, as (first leaf, height), that a subtree of the tree is made of."""
    found = []
    while first < end:
        height = (end - first).bit_length() - 1
        found.append((first, height))
        first += 1 << height
    return found


def _split(count: int) -> int:
    """Return the largest power of two below a count of two or more."""
    return 1 << ((count - 1).bit_length() - 1)


def _are_hashes(values: Iterable[bytes]) -> bool:
    return all(len(value) == HASH_BYTES for value in values)
