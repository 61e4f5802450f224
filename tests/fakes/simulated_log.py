"""An executor's audit log in memory, over the real tree and real notes; attacks on it are method calls."""

import json
from collections.abc import Sequence

from gonogo.merkle import (
    EMPTY_ROOT,
    TILE,
    Frontier,
    consistency_path,
    inclusion_path,
    leaf_hash,
    stored_root,
    verify_consistency,
)
from gonogo.notes import NoteError, checkpoint_text, open_note, sign_note, unverified_checkpoint
from gonogo.signatures import PublicKey, SigningKey
from orchestrator.domain.errors import ExecutorRefusedError, Reason
from orchestrator.service.audit_log import Exchanged, LogEntry, LogExtract


class SimulatedLog:
    """See the module."""

    def __init__(self, origin: str, key: SigningKey) -> None:
        self.origin = origin
        self.key = key
        self.leaves: list[tuple[str, bytes]] = []
        self.kept: tuple[int, bytes] = (0, EMPTY_ROOT)
        """Size and root of the orchestrator's checkpoint that is kept here."""
        self.kept_note = ""
        self.orchestrator_key: PublicKey | None = None
        """Set: the orchestrator's checkpoints must be signed by it."""
        self.add("epoch_started", "", "")

    def add(self, kind: str, mission_id: str, digest: str) -> None:
        """Record one entry."""
        leaf = json.dumps({"type": kind, "mission_id": mission_id, "digest": digest}).encode()
        self.leaves.append((mission_id, leaf))

    def rewrite(self, index: int) -> None:
        """Change what an entry says, as whoever has the key and the database can."""
        mission_id, leaf = self.leaves[index]
        self.leaves[index] = (mission_id, leaf + b" ")

    def cut(self, count: int) -> None:
        """Put the log back by some entries."""
        del self.leaves[-count:]

    def checkpoint(self) -> str:
        """Return a checkpoint over everything."""
        root = stored_root(len(self.leaves), self.hashes)
        return sign_note(checkpoint_text(self.origin, len(self.leaves), root), self.key, self.origin)

    def exchange(self, checkpoint: str, consistency: Sequence[bytes], known_size: int) -> Exchanged:
        """Keep the orchestrator's checkpoint and give out one of this log."""
        if checkpoint:
            self._keep(checkpoint, consistency)
        size = len(self.leaves)
        path = consistency_path(known_size, size, self.hashes) if known_size <= size else []
        return Exchanged(checkpoint=self.checkpoint(), consistency=tuple(path), kept_size=self.kept[0])

    def extract(self, mission_id: str) -> LogExtract | None:
        """Return a mission's entries with their paths; None where it was never heard of."""
        size = len(self.leaves)
        if all(of != mission_id for of, _ in self.leaves):
            return None
        return LogExtract(
            checkpoint=self.checkpoint(),
            entries=tuple(
                LogEntry(index=index, leaf=leaf, path=tuple(inclusion_path(index, size, self.hashes)))
                for index, (of, leaf) in enumerate(self.leaves)
                if of == mission_id
            ),
        )

    def hashes(self, level: int, first: int, count: int) -> list[bytes]:
        """Compute the stored hashes of the tree."""
        width = TILE**level
        starts = [number * width for number in range(first, first + count)]
        return [_root([leaf for _, leaf in self.leaves[start : start + width]]) for start in starts]

    def _keep(self, note: str, consistency: Sequence[bytes]) -> None:
        name = note.partition("\n")[0]
        try:
            if self.orchestrator_key is not None:
                found = open_note(note, self.orchestrator_key, name)
                new = (found.size, found.root)
            else:
                new = _unverified(note)
        except NoteError as error:
            raise _forked(str(error)) from None
        if not verify_consistency(*self.kept, *new, consistency):
            raise _forked(f"the log of {new[0]} events does not continue that of {self.kept[0]}")
        self.kept, self.kept_note = new, note


def _unverified(note: str) -> tuple[int, bytes]:
    found = unverified_checkpoint(note, note.partition("\n")[0])
    return found.size, found.root


def _root(leaves: Sequence[bytes]) -> bytes:
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf_hash(leaf))
    return frontier.root()


def _forked(message: str) -> ExecutorRefusedError:
    return ExecutorRefusedError(Reason.AUDIT_FORKED, message, "Look at both logs.")
