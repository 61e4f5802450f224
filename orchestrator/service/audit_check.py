"""Whether the stored events are still those of this log's own checkpoints.

At every start the newest checkpoint is compared with the tree of the stored hashes, and the last events with theirs:
that takes a millisecond however long the log is, and finds what was cut off and what was put in another order with its
hashes. The full check reads every event and compares everything with everything; it names the first that is not what
was written. Whoever can write the file and has the key can make all of it agree again; then only a checkpoint that
somebody else keeps tells, which is what `service.witnessing` is for. Events after the last checkpoint are those that a
process wrote before it died, or that somebody without the key added since: nothing here can tell the two apart.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from gonogo.merkle import TILE, Frontier, MissingHashesError, stored_root
from gonogo.notes import Checkpoint, NoteError, open_note
from gonogo.signatures import PublicKey, load_public_key
from orchestrator.service.audit_log import AuditReader, LogIdentity, SignedCheckpoint
from orchestrator.service.event_leaf import is_as_written
from orchestrator.service.event_log import StoredEvent
from orchestrator.service.event_log_checks import all_events
from orchestrator.service.event_log_errors import LogForked

ENOUGH_FAULTS: Final = 100
LAST_EVENTS: Final = 256
"""Events at the end that are compared with their hashes at every start."""


def require_unforked(log: AuditReader, identity: LogIdentity) -> None:
    """Compare the stored tree with the newest stored checkpoint, and the last events with their hashes.

    Raises:
        LogForked: they are not one history.
    """
    head = log.head()
    first = max(0, head - LAST_EVENTS) + 1
    for pos, event in enumerate(log.read_all(first - 1, LAST_EVENTS), first):
        if event.pos != pos:
            raise LogForked(f"event {pos} is missing")
        if not is_as_written(event):
            raise LogForked(f"event {event.pos} is not what was written")
    newest = log.newest_checkpoint()
    if newest is None:
        return
    contradiction = _contradiction(log, _opened(newest, identity))
    if contradiction:
        raise LogForked(contradiction)


@dataclass(slots=True, kw_only=True)
class Checked:
    """What the full check found; nothing bad where `faults` is empty."""

    events: int = 0
    checkpoints: int = 0
    first_bad_event: int | None = None
    """The first event that is not what was written, or that may be the first, as far as this log alone can tell."""
    faults: list[str] = field(default_factory=list)

    def found(self, pos: int, fault: str) -> None:
        """Note a fault at an event or after it; events are read in order, so that the first fault is the first."""
        if self.first_bad_event is None:
            self.first_bad_event = pos
        self.faults.append(fault)


def check_all(log: AuditReader, identity: LogIdentity) -> Checked:
    """Read every event once, and compare it with its hash, the tree's hashes and every stored checkpoint."""
    checked, tree = Checked(), Frontier()
    checkpoints = _Checkpoints(log, identity, checked)
    versions: dict[str, int] = {}
    for event in all_events(log):
        checked.events += 1
        version = versions[event.stream_id] = versions.get(event.stream_id, 0) + 1
        if (event.pos, event.version) != (checked.events, version):
            checked.found(checked.events, f"event {checked.events} is missing, or events are out of order")
            return checked
        _grow(log, tree, event, checked)
        if len(checked.faults) >= ENOUGH_FAULTS:
            return checked
        checkpoints.reached(tree)
    checkpoints.end()
    _check_ends(log, versions, checked)
    return checked


def check_kept(log: AuditReader, identity: LogIdentity, note: str) -> str:
    """Compare the stored tree with a checkpoint that somebody else kept; return what is wrong, or nothing."""
    try:
        checkpoint = open_note(note, _public(identity), identity.origin)
        return _contradiction(log, checkpoint)
    except NoteError as error:
        return f"it is not a checkpoint of this log: {error}"


def _contradiction(log: AuditReader, checkpoint: Checkpoint) -> str:
    head = log.head()
    if checkpoint.size > head:
        return f"a checkpoint over {checkpoint.size} events was signed, and only {head} are there"
    try:
        root = stored_root(checkpoint.size, log.tree_hashes)
    except MissingHashesError as error:
        return f"the log's tree is not whole: {error}"
    if root != checkpoint.root:
        return f"the first {checkpoint.size} events are not those of the checkpoint that was signed over them"
    return ""


def _grow(log: AuditReader, tree: Frontier, event: StoredEvent, checked: Checked) -> None:
    """Compare an event with its hash, add that to a tree that is computed anew, and compare the stored tree with it."""
    if not is_as_written(event):
        checked.found(event.pos, f"event {event.pos} is not what was written")
    for tile in tree.append(event.leaf_hash):
        if tuple(log.tree_hashes(tile.level, tile.index, 1)) != (tile.root,):
            first = tile.index * TILE**tile.level + 1
            checked.found(first, f"the tree's hash over the events {first} to {event.pos} is not that of these events")


def _check_ends(log: AuditReader, versions: dict[str, int], checked: Checked) -> None:
    for stream, version in versions.items():
        if log.stream_version(stream) > version:
            checked.found(checked.events + 1, f"the last events of {stream} are missing")


class _Checkpoints:
    """The stored checkpoints, each looked at when the tree has reached its size."""

    def __init__(self, log: AuditReader, identity: LogIdentity, checked: Checked) -> None:
        self._identity = identity
        self._checked = checked
        self._good = 0
        self._coming = _all_checkpoints(log)
        self._next = next(self._coming, None)
        if self._next is not None and self._next.size == 0:
            self.reached(Frontier())

    def reached(self, tree: Frontier) -> None:
        """Compare the checkpoint of this size, where there is one."""
        if self._next is None or self._next.size != tree.size:
            return
        signed, self._next = self._next, next(self._coming, None)
        self._checked.checkpoints += 1
        try:
            checkpoint = _opened(signed, self._identity)
        except LogForked as error:
            self._checked.found(self._good + 1, str(error))
            return
        if checkpoint.root == tree.root():
            self._good = tree.size
        else:
            between = f"{self._good + 1} to {tree.size}"
            self._checked.found(self._good + 1, f"of the events {between} some are not those that were signed")

    def end(self) -> None:
        """Say so where checkpoints are left that the log never reached."""
        if self._next is not None:
            size, events = self._next.size, self._checked.events
            self._checked.found(events + 1, f"a checkpoint over {size} events was signed, and only {events} are there")


def _all_checkpoints(log: AuditReader) -> Iterator[SignedCheckpoint]:
    size = -1
    while page := log.checkpoints(size):
        yield from page
        size = page[-1].size


def _opened(signed: SignedCheckpoint, identity: LogIdentity) -> Checkpoint:
    try:
        checkpoint = open_note(signed.note, _public(identity), identity.origin)
    except NoteError as error:
        raise LogForked(f"the stored checkpoint over {signed.size} events is not one of this log: {error}") from None
    if checkpoint.size != signed.size:
        raise LogForked(f"the stored checkpoint over {signed.size} events is one over {checkpoint.size}")
    return checkpoint


def _public(identity: LogIdentity) -> PublicKey:
    return load_public_key(identity.public_key)
