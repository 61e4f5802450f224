"""The tree over an audit log: equal to RFC 6962 as pymerkle computes it, and no forged path passes."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymerkle import InmemoryTree

from gonogo.merkle import (
    EMPTY_ROOT,
    TILE,
    Frontier,
    MissingHashesError,
    consistency_path,
    inclusion_path,
    leaf_hash,
    stored_frontier,
    stored_root,
    verify_consistency,
    verify_inclusion,
)

pytestmark = pytest.mark.quick
SMALL = 40
LARGE = 700


class Store:
    """A tree with what a service would store of it, and its roots at every size."""

    def __init__(self, size: int) -> None:
        self.levels: dict[int, list[bytes]] = {0: []}
        self.roots = [EMPTY_ROOT]
        self.read: list[int] = []
        frontier = Frontier()
        for number in range(size):
            hashed = leaf_hash(b"leaf %d" % number)
            self.levels[0].append(hashed)
            for tile in frontier.append(hashed):
                stored = self.levels.setdefault(tile.level, [])
                assert tile.index == len(stored)
                stored.append(tile.root)
            self.roots.append(frontier.root())

    def __call__(self, level: int, first: int, count: int) -> Sequence[bytes]:
        self.read.append(count)
        return self.levels.get(level, [])[first : first + count]


def oracle(size: int) -> InmemoryTree:
    """The same leaves in pymerkle's tree."""
    tree = InmemoryTree(algorithm="sha256")
    for number in range(size):
        tree.append_entry(b"leaf %d" % number)
    return tree


@pytest.fixture(scope="module")
def small() -> Store:
    return Store(SMALL)


@pytest.fixture(scope="module")
def large() -> Store:
    return Store(LARGE)


@pytest.fixture(scope="module")
def peer() -> InmemoryTree:
    return oracle(LARGE)


def test_every_small_root_and_path_is_pymerkles(small: Store, peer: InmemoryTree) -> None:
    """For all sizes below 40: roots, inclusion paths and consistency verify against the roots pymerkle computes."""
    for size in range(1, SMALL):
        root = peer.get_root(size)
        assert small.roots[size] == stored_root(size, small) == root
        for index in range(size):
            path = inclusion_path(index, size, small)
            assert verify_inclusion(small.levels[0][index], index, size, path, root)
            proof = peer.prove_inclusion(index + 1, size)
            assert sorted([small.levels[0][index], *path]) == sorted(proof.path)
        for old in range(size + 1):
            path = consistency_path(old, size, small)
            assert verify_consistency(old, small.roots[old], size, root, path)
            if 0 < old < size:
                peer.prove_consistency(old, size).verify(small.roots[old], root)


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    """RFC 6962: the root over no leaves is the hash of the empty string, and everything continues it."""
    assert Frontier().root() == EMPTY_ROOT == stored_root(0, Store(0))
    assert verify_consistency(0, EMPTY_ROOT, 0, EMPTY_ROOT, [])
    assert verify_consistency(0, EMPTY_ROOT, 5, Store(5).roots[5], [])
    assert not verify_consistency(0, EMPTY_ROOT, 0, bytes(32), [])


def test_no_forged_small_path_passes(small: Store) -> None:
    """A path for another place, size or root, with a changed, missing or added hash, proves nothing."""
    other = bytes(32)
    for size in range(1, 20):
        root = small.roots[size]
        for index in range(size):
            hashed, path = small.levels[0][index], inclusion_path(index, size, small)
            assert not verify_inclusion(hashed, index, size, path, other)
            assert not verify_inclusion(other, index, size, path, root)
            assert not verify_inclusion(hashed, index, size, [*path, other], root)
            assert not verify_inclusion(hashed, index, size, path[:-1], root) or not path
            assert not any(
                verify_inclusion(hashed, place, size, path, root) for place in range(-1, 25) if place != index
            )
            assert not any(
                verify_inclusion(hashed, index, size, _changed(path, place), root) for place in range(len(path))
            )


def test_no_forged_consistency_passes(small: Store) -> None:
    """Another old or new root or size, and any changed, missing or added hash, proves no continuation."""
    other = bytes(32)
    for size in range(2, 20):
        root = small.roots[size]
        for old in range(1, size):
            path, old_root = consistency_path(old, size, small), small.roots[old]
            assert not verify_consistency(old, other, size, root, path)
            assert not verify_consistency(old, old_root, size, other, path)
            assert not verify_consistency(old, old_root, size, root, path[:-1])
            assert not verify_consistency(old, old_root, size, root, [*path, other])
            assert not verify_consistency(old, small.roots[old - 1], size, root, path)
            for place in range(len(path)):
                assert not verify_consistency(old, old_root, size, root, _changed(path, place))
            assert not verify_consistency(size, root, old, old_root, path)


def test_a_hash_of_another_length_is_no_hash(small: Store) -> None:
    """Bytes that are not 32 never pass, so that nobody can move the border between two hashes."""
    path = inclusion_path(3, 8, small)
    assert not verify_inclusion(small.levels[0][3][:31], 3, 8, path, small.roots[8])
    assert not verify_inclusion(small.levels[0][3], 3, 8, [path[0] + path[1], path[2]], small.roots[8])
    assert not verify_consistency(4, small.roots[4], 8, small.roots[8], [b""])


@given(size=st.integers(1, LARGE), data=st.data())
def test_any_path_of_a_larger_tree_verifies(large: Store, peer: InmemoryTree, size: int, data: st.DataObject) -> None:
    """Sizes over several stored levels: paths from tiles verify against pymerkle's roots, in their place only."""
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(0, size))
    root = peer.get_root(size)
    path = inclusion_path(index, size, large)
    assert verify_inclusion(large.levels[0][index], index, size, path, root)
    assert not verify_inclusion(large.levels[0][(index + 1) % LARGE], index, size, path, root)
    consistent = consistency_path(old, size, large)
    assert verify_consistency(old, large.roots[old], size, root, consistent)
    if 0 < old < size:
        assert not verify_consistency(old, large.roots[old - 1], size, root, consistent)
        assert not verify_consistency(old, large.roots[old], size, large.roots[size - 1], consistent)


@given(st.integers(0, LARGE))
def test_a_frontier_read_from_the_store_grows_on(large: Store, size: int) -> None:
    """The frontier at any size of the past, read back, appends to the same roots and tiles."""
    frontier = stored_frontier(size, large)
    for number in range(size, min(size + 20, LARGE)):
        for tile in frontier.append(large.levels[0][number]):
            assert large.levels[tile.level][tile.index] == tile.root
        assert frontier.root() == large.roots[number + 1]


def test_a_copy_grows_by_itself() -> None:
    """What is appended to a copy is not in the original: a transaction that fails has changed nothing."""
    frontier = Frontier()
    frontier.append(leaf_hash(b"one"))
    copy = frontier.copy()
    copy.append(leaf_hash(b"two"))
    assert (frontier.size, copy.size) == (1, 2)
    assert frontier.root() == leaf_hash(b"one")


def test_a_proof_reads_few_hashes(large: Store) -> None:
    """Of each stored level a path reads its own run and the right edge's, never the whole."""
    large.read.clear()
    inclusion_path(300, LARGE, large)
    assert len(large.read) <= 2 * 3
    assert max(large.read) <= TILE


def test_a_store_with_holes_is_told(large: Store) -> None:
    """Hashes that should be there and are not raise, rather than make another tree."""
    with pytest.raises(MissingHashesError):
        stored_root(LARGE + 1, large)
    with pytest.raises(MissingHashesError):
        inclusion_path(3, 2 * LARGE, large)


def test_what_no_tree_has_is_refused(small: Store) -> None:
    """A leaf behind the end, an older tree that is larger, and a frontier with the wrong number of roots."""
    with pytest.raises(ValueError, match="no leaf 8"):
        inclusion_path(8, 8, small)
    with pytest.raises(ValueError, match="can not continue"):
        consistency_path(9, 8, small)
    with pytest.raises(ValueError, match="complete subtrees"):
        Frontier(3, [bytes(32)])


def _changed(path: Sequence[bytes], place: int) -> list[bytes]:
    return [*path[:place], bytes(32), *path[place + 1 :]]
