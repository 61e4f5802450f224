"""Checks the executor's own audit log: that it is the tree that was signed, and that the records are what it says.

At the start the newest entries are looked at with their records, and of the older ones the stored roots: that costs the
same for any length of the log. `python -m executor audit check` looks at everything.

What is found by this: an entry or a record that was changed or removed, hashes that do not belong together, a log that
is shorter than what was signed, another tree than what was signed. Who can write the file and holds the executor's key
can make all of it fit together again; then the checkpoints that others keep tell.
"""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from executor.adapters.audit_reader import AuditReader, read_audit
from executor.adapters.audit_records import COUNTED, COUNTED_OF_CONTROL, Records
from executor.adapters.ledger_audit import CHECKPOINTS_KEPT, StoredEntry, stored_hashes
from executor.adapters.ledger_entries import EPOCH_STARTED
from executor.domain.errors import ExecutorError
from executor.runner.audit import LogSigner
from gonogo.merkle import TILE, Frontier, MissingHashesError, leaf_hash, stored_frontier, stored_root
from gonogo.notes import Checkpoint, NoteError
from gonogo.safe_text import safe_line

NEWEST: Final = 4_096
"""Entries that are looked at one by one at the start."""
NEWEST_CHECKPOINTS: Final = 100


class AuditFaultError(ExecutorError):
    """The log, or what it is about, was changed from outside; the executor must not go on."""

    def __init__(self, what: str) -> None:
        super().__init__(
            "AUDIT_FORKED",
            f"the executor's audit log does not hold: {what}",
            "find out who wrote to the executor's state directory; restore the ledger from a copy, or move it away to"
            " begin a new one (all reports that were issued are unknown then, and nothing that was done is done again)",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What was looked at."""

    size: int
    root: bytes
    entries: int
    """Entries that were looked at one by one."""
    checkpoints: int


def check_at_start(path: Path, signer: LogSigner) -> None:
    """Check the newest part of a ledger's log one by one, and the rest by its stored roots.

    Args:
        path: the ledger; one that is not there, or has no audit log yet, is none to be checked.
        signer: whose checkpoints the log's are.

    Raises:
        AuditFaultError: naming the first entry that differs.
        StoreError: the ledger can not be read.
    """
    with read_audit(path) as ledger:
        if ledger is not None:
            check_newest(ledger, signer)


def check_newest(ledger: AuditReader, signer: LogSigner) -> Checked:
    """Check the newest part of the log one by one, and the rest by its stored roots.

    Raises:
        AuditFaultError: naming the first entry that differs.
    """
    first = max(0, ledger.audit_size - NEWEST)
    return _Check(ledger, signer, first - first % TILE, NEWEST_CHECKPOINTS).run()


def check_all(ledger: AuditReader, signer: LogSigner) -> Checked:
    """Check every entry with its record, every checkpoint, and that nothing is recorded without an entry.

    Raises:
        AuditFaultError: naming the first entry that differs.
    """
    check = _Check(ledger, signer, 0, CHECKPOINTS_KEPT)
    checked = check.run()
    check.count()
    return checked


class _Check:
    """One check of the log from an entry on."""

    def __init__(self, ledger: AuditReader, signer: LogSigner, first: int, checkpoints: int) -> None:
        self._ledger = ledger
        self._rows = ledger.reading()
        self._hashes_of = partial(stored_hashes, self._rows)
        self._records = Records(self._rows)
        self._first = first
        self._size = ledger.audit_size
        self._signed = self._checkpoints(signer, checkpoints)
        self._kinds: dict[str, int] = {}
        self._before = [0] * len(COUNTED)

    def run(self) -> Checked:
        """Look at everything from the entry on."""
        self._check_length()
        frontier = self._tree_before()
        waiting = [point for point in reversed(self._signed) if point.size > self._first]
        for entry in self._ledger.stored_entries(self._first):
            self._take(entry, frontier)
            while waiting and waiting[0].size <= frontier.size:
                self._check_root(waiting.pop(0), frontier)
        if frontier.size != self._size:
            raise AuditFaultError(f"entry {frontier.size} is not there")
        return Checked(
            size=frontier.size,
            root=frontier.root(),
            entries=frontier.size - self._first,
            checkpoints=len(self._signed),
        )

    def count(self) -> None:
        """Compare how many entries of each kind there are with how many records."""
        [counts] = self._rows("recorded_rows")
        stored = dict(zip(COUNTED, counts, strict=True))
        if self._rows("has_control"):  # a ledger of an older release is checked as it is
            [counts] = self._rows("recorded_control_rows")
            for kind, count in zip(COUNTED_OF_CONTROL, counts, strict=True):
                stored[kind] = stored.get(kind, 0) + count
        before = dict(zip(COUNTED, self._before, strict=True))
        for kind, count in stored.items():
            said = self._kinds.get(kind, 0) + before.get(kind, 0)
            if said != count:
                raise AuditFaultError(f"{count} records of the kind {kind} are stored, and the log says {said}")

    def _checkpoints(self, signer: LogSigner, limit: int) -> list[Checkpoint]:
        """Read the own checkpoints, the newest first, and no more than one from before the first entry."""
        found = []
        for size, note in self._ledger.own_checkpoints(limit):
            try:
                checkpoint = signer.open(note)
            except NoteError as error:
                raise AuditFaultError(f"the checkpoint of {size} entries: {error}") from error
            if checkpoint.size != size:
                raise AuditFaultError(f"the checkpoint of {size} entries says {checkpoint.size}")
            found.append(checkpoint)
            if size <= self._first:
                break
        return found

    def _check_length(self) -> None:
        newest = self._signed[0].size if self._signed else 0
        if self._size < newest:
            raise AuditFaultError(f"entry {self._size} is not there; {newest} entries were signed")

    def _tree_before(self) -> Frontier:
        """Return the stored tree up to the first entry that is looked at, as the last checkpoint before it confirms."""
        older = [point for point in self._signed if point.size <= self._first]
        try:
            roots = [stored_root(point.size, self._hashes_of) for point in older]
            frontier = stored_frontier(self._first, self._hashes_of)
        except MissingHashesError as error:
            raise AuditFaultError(str(error)) from error
        for point, root in zip(older, roots, strict=True):
            if point.root != root:
                raise AuditFaultError(f"the hashes of the first {point.size} entries are not those that were signed")
        return frontier

    def _take(self, entry: StoredEntry, frontier: Frontier) -> None:
        if entry.index != frontier.size:
            raise AuditFaultError(f"entry {frontier.size} is not there")
        if leaf_hash(entry.leaf) != entry.hashed:
            raise AuditFaultError(f"entry {entry.index} was changed: {_shown(entry)}")
        fault = self._records.fault_of(entry)
        if fault:
            raise AuditFaultError(f"entry {entry.index}: {fault}")
        for tile in frontier.append(entry.hashed):
            if list(self._hashes_of(tile.level, tile.index, 1)) != [tile.root]:
                raise AuditFaultError(f"the stored root over the entries up to {entry.index} is not theirs")
        self._note(entry)

    def _note(self, entry: StoredEntry) -> None:
        kind = entry.leaf[len('{"type":"') :].split(b'"', 1)[0].decode()
        self._kinds[kind] = self._kinds.get(kind, 0) + 1
        if entry.index == 0 and kind == EPOCH_STARTED:
            self._before = _rows_before(entry.leaf)

    def _check_root(self, point: Checkpoint, frontier: Frontier) -> None:
        if (point.size, point.root) == (frontier.size, frontier.root()):
            return
        held = max((other.size for other in self._signed if other.size < point.size), default=0)
        raise AuditFaultError(
            f"one of the entries {held} to {point.size - 1} is not what was signed, and its hashes were made to fit"
        )


def _rows_before(leaf: bytes) -> list[int]:
    """Return how many records of each counted kind were there before the log began."""
    rows = json.loads(leaf)["rows"]
    return [int(count) for count in rows]


def _shown(entry: StoredEntry) -> str:
    return safe_line(entry.leaf.decode("utf-8", "replace"))[:200]
