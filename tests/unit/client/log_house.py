"""An audit log in memory, with real signatures and proofs: what both services keep, without their databases."""

from collections.abc import Iterable, Sequence

from gonogo.merkle import Frontier, consistency_path, inclusion_path, leaf_hash
from gonogo.notes import checkpoint_text, sign_note
from gonogo.signatures import SigningKey
from gonogo.v1 import audit_pb2


class LogHouse:
    """One log that grows; nothing is ever signed that it is not."""

    def __init__(self, origin: str, key: SigningKey) -> None:
        self.origin = origin
        self.key = key
        self.leaves: list[str] = []
        self._levels: dict[int, list[bytes]] = {0: []}
        self._roots: list[bytes] = [Frontier().root()]
        self._frontier = Frontier()

    @property
    def size(self) -> int:
        return len(self.leaves)

    def append(self, leaf: str) -> int:
        """Append a leaf and return its place."""
        hashed = leaf_hash(leaf.encode())
        self.leaves.append(leaf)
        self._levels[0].append(hashed)
        for tile in self._frontier.append(hashed):
            self._levels.setdefault(tile.level, []).append(tile.root)
        self._roots.append(self._frontier.root())
        return self.size - 1

    def checkpoint(self, size: int | None = None) -> str:
        """Return a signed checkpoint, the newest where no size is given."""
        wanted = self.size if size is None else size
        return sign_note(checkpoint_text(self.origin, wanted, self._roots[wanted]), self.key, self.origin)

    def consistency(self, old: int, new: int | None = None) -> list[bytes]:
        """Return the proof that a size continues an older one."""
        return consistency_path(old, self.size if new is None else new, self._hashes)

    def extract(self, places: Iterable[int], size: int | None = None) -> audit_pb2.LogExtract:
        """Return some leaves with their proofs under a checkpoint."""
        wanted = self.size if size is None else size
        entries = [
            audit_pb2.LogEntry(
                index=place, leaf=self.leaves[place].encode(), path=inclusion_path(place, wanted, self._hashes)
            )
            for place in places
        ]
        return audit_pb2.LogExtract(checkpoint=self.checkpoint(wanted), entries=entries)

    def _hashes(self, level: int, first: int, count: int) -> Sequence[bytes]:
        return self._levels.get(level, [])[first : first + count]
