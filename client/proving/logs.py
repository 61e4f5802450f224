"""Both audit logs: signed checkpoints, leaves that are in the tree, and one history in all checkpoints that are there.

A checkpoint alone shows nothing about the past: what shows it is that every checkpoint which somebody kept - the other
service, an approver's client, the verifier - is of the same tree. Two of the same size with different roots are a fork,
whatever else holds.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from client.bundle import Bundle, Continuity, LogPart
from client.proving.anchors import Anchors
from client.proving.checks import Check, absent, check
from client.proving.opened import Opened
from gonogo.merkle import leaf_hash, verify_consistency, verify_inclusion
from gonogo.notes import EXECUTOR, ORCHESTRATOR, Checkpoint, NoteError, log_origin, open_note
from gonogo.signatures import PublicKey, SignatureError, load_public_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """One log of the bundle, with whose it has to be."""

    name: str
    part: LogPart
    origin: str
    key: PublicKey
    vouched: bool = True
    """Whether the key is the verifier's own, and not only the one that the bundle names."""

    def opened(self, note: str) -> Checkpoint:
        """Verify and read one of its checkpoints.

        Raises:
            NoteError: it is none.
        """
        return open_note(note, self.key, self.origin)


def log_checks(bundle: Bundle, opened: Opened, anchors: Anchors) -> Iterator[Check]:
    """Check both logs' proofs; what the leaves say is not looked at here."""
    if not bundle.has_logs:
        yield absent("audit logs", "this file has no place for them; gonogo export M --bundle FILE writes one that has")
        return
    executor = executor_log(bundle, opened, anchors)
    if executor is None:
        yield absent("executor log", "the bundle was made without the executor")
    else:
        yield from _proof_checks(executor, anchors)
        yield from _witness_checks(executor, opened)
    orchestrator = orchestrator_log(bundle, anchors)
    if orchestrator is None:
        yield _no_orchestrator(bundle)
    else:
        yield from _proof_checks(orchestrator, anchors)


def executor_log(bundle: Bundle, opened: Opened, anchors: Anchors) -> Log | None:
    """Return the executor's log, None where the bundle has none or nothing says which executor it is."""
    if bundle.executor_log is None or opened.plan is None:
        return None
    origin = log_origin(EXECUTOR, opened.plan.executor_id)
    return Log(name="executor", part=bundle.executor_log, origin=origin, key=anchors.executor)


def orchestrator_log(bundle: Bundle, anchors: Anchors) -> Log | None:
    """Return the orchestrator's log, None where the bundle has none or no key for it."""
    part = bundle.orchestrator_log
    if part is None:
        return None
    key = anchors.orchestrator or _readable(bundle.orchestrator_key)
    origin = part.checkpoint.partition("\n")[0]
    if key is None:
        return None
    return Log(name="orchestrator", part=part, origin=origin, key=key, vouched=anchors.orchestrator is not None)


def _no_orchestrator(bundle: Bundle) -> Check:
    if bundle.orchestrator_log is None:
        return check("orchestrator log", False, "the bundle leaves it out, and every export has it")
    detail = "no key to check it with: --orchestrator-key FILE names one"
    return check("orchestrator log checkpoint", False, detail)


def _proof_checks(log: Log, anchors: Anchors) -> Iterator[Check]:
    title = f"{log.name} log checkpoint"
    if log.name == ORCHESTRATOR and not log.origin.startswith(log_origin(ORCHESTRATOR, "")):
        yield check(title, False, f"{log.origin!r} is not the log of an orchestrator")
        return
    try:
        checkpoint = log.opened(log.part.checkpoint)
    except NoteError as error:
        yield check(title, False, str(error))
        return
    shown = f"{log.origin}, {checkpoint.size} entries, signed by {log.key.key_id}"
    yield check(title, True, shown if log.vouched else f"{shown}, which only the bundle names")
    yield _order(log)
    yield _inclusion(log, checkpoint)
    yield from _continuity_checks(log)
    yield _one_history(log, checkpoint)
    yield _kept_by_the_verifier(log, checkpoint, anchors)


def _order(log: Log) -> Check:
    places = [leaf.index for leaf in log.part.leaves]
    rising = all(first < second for first, second in pairwise(places))
    return check(f"{log.name} leaves are in order, each once", rising, f"{len(places)} leaves")


def _inclusion(log: Log, checkpoint: Checkpoint) -> Check:
    missing = [
        str(leaf.index)
        for leaf in log.part.leaves
        if not verify_inclusion(leaf_hash(leaf.text.encode()), leaf.index, checkpoint.size, leaf.path, checkpoint.root)
    ]
    title = f"{log.name} leaves are in its log"
    if missing:
        return check(title, False, f"not under the checkpoint: {', '.join(missing)}")
    return check(title, True, f"{len(log.part.leaves)} of {checkpoint.size}")


def _continuity_checks(log: Log) -> Iterator[Check]:
    for pair in log.part.continuity:
        title = f"{log.name} checkpoints continue each other"
        try:
            older, newer = log.opened(pair.older), log.opened(pair.newer)
        except NoteError as error:
            yield check(title, False, str(error))
            continue
        yield check(title, _continues(older, newer, pair), f"{older.size} → {newer.size} entries")


def _continues(older: Checkpoint, newer: Checkpoint, pair: Continuity) -> bool:
    return verify_consistency(older.size, older.root, newer.size, newer.root, pair.consistency)


def _one_history(log: Log, checkpoint: Checkpoint) -> Check:
    """Two signed checkpoints of one size with different roots are a fork, proven by the log's own signatures."""
    seen = {(one.size, one.root) for one in (checkpoint, *_readable_checkpoints(log))}
    sizes = sorted(size for size, _ in seen)
    twice = [size for size, following in pairwise(sizes) if size == following]
    title = f"{log.name} log has one history"
    if twice:
        return check(title, False, f"AUDIT_FORKED: two signed checkpoints of {twice[0]} entries differ")
    return check(title, True, f"{len(seen)} checkpoints")


def _kept_by_the_verifier(log: Log, checkpoint: Checkpoint, anchors: Anchors) -> Check:
    title = f"{log.name} log is the one that this side has seen"
    kept = anchors.kept.get(log.origin)
    if kept is None:
        return absent(title, "no checkpoint of it is kept here", optional=True)
    comparable = {one.size: one.root for one in _linked(log, checkpoint)}
    if kept.size not in comparable:
        detail = f"the one kept here has {kept.size} entries, and the bundle does not lead there"
        return absent(title, detail, optional=True)
    if comparable[kept.size] == kept.root:
        return check(title, True, f"{kept.size} entries")
    return check(title, False, f"AUDIT_FORKED: the checkpoint kept here, of {kept.size} entries, is another")


def _witness_checks(log: Log, opened: Opened) -> Iterator[Check]:
    """Check what the approvers saw of the executor's log when they approved."""
    try:
        checkpoint = log.opened(log.part.checkpoint)
    except NoteError:
        return
    linked = {(one.size, one.root) for one in _linked(log, checkpoint)}
    for one in (approval for segment in opened.every for approval in segment.approvals):
        title = f"{one.name} saw this log"
        if not one.approval.audit_checkpoint:
            yield absent(title, "its approver's client kept no checkpoint", optional=True)
            continue
        try:
            seen = log.opened(one.approval.audit_checkpoint)
        except NoteError as error:
            yield check(title, False, str(error))
            continue
        yield _seen_check(title, seen, linked)


def _seen_check(title: str, seen: Checkpoint, linked: Iterable[tuple[int, bytes]]) -> Check:
    roots = dict(linked)
    if seen.size not in roots:
        return absent(title, f"the bundle does not lead to its checkpoint of {seen.size} entries", optional=True)
    if roots[seen.size] == seen.root:
        return check(title, True, f"{seen.size} entries")
    return check(title, False, f"AUDIT_FORKED: its checkpoint of {seen.size} entries is of another log")


def _linked(log: Log, checkpoint: Checkpoint) -> list[Checkpoint]:
    """Return the checkpoints that verified proofs lead to from the bundle's own, each once."""
    neighbours: dict[Checkpoint, set[Checkpoint]] = {}
    for pair in dict.fromkeys(log.part.continuity):
        try:
            older, newer = log.opened(pair.older), log.opened(pair.newer)
        except NoteError:
            continue
        if _continues(older, newer, pair):
            neighbours.setdefault(older, set()).add(newer)
            neighbours.setdefault(newer, set()).add(older)
    found = {checkpoint: None}
    ahead = [checkpoint]
    while ahead:
        fresh = [one for one in neighbours.get(ahead.pop(), ()) if one not in found]
        found.update(dict.fromkeys(fresh))
        ahead += fresh
    return list(found)


def _readable_checkpoints(log: Log) -> Iterator[Checkpoint]:
    for note in (note for pair in log.part.continuity for note in (pair.older, pair.newer)):
        try:
            yield log.opened(note)
        except NoteError:
            continue  # nothing leads over it, and what would have to is told as missing


def _readable(line: str) -> PublicKey | None:
    try:
        return load_public_key(line)
    except SignatureError:
        return None
