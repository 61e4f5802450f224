"""What is kept of the callers' own audit logs: the newest checkpoint of each, and what contradicts it.

A caller's log has forked where a checkpoint signed by it can not follow the kept one. Then its dry runs and executions
are refused until the operator had a look and had the kept one forgotten. A proof that starts from the checkpoint before
the kept one is no fork but an answer that was lost on its way: the caller learns what is kept and tries again. Nor is
the checkpoint before the kept one itself: a call that its caller gave up may be served after the next one.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Protocol

from executor.domain.errors import ExecutorError, RequestMalformedError
from executor.runner.ports import Finding
from gonogo.merkle import HASH_BYTES, verify_consistency
from gonogo.notes import ORCHESTRATOR, Checkpoint, NoteError, log_origin, open_note, unverified_checkpoint
from gonogo.signatures import SignatureError, load_public_key

MAX_PATH: Final = 128

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is kept of a caller's log."""

    identity: str
    note: str
    before: str
    """The checkpoint that was kept before; empty where this is the first."""
    fork: str = ""
    """A checkpoint signed by the caller that does not continue the kept one; empty where there is none."""


class KeptRows(Protocol):
    """Where they are kept. Every method raises StoreError where the storage fails."""

    def kept_checkpoints(self) -> tuple[Kept, ...]: ...

    def keep_checkpoint(self, kept: Kept, at: datetime) -> None: ...

    def forget_checkpoint_of(self, identity: str, at: datetime) -> bool: ...


class KeptLogs:
    """The callers' logs. Every method may be called from any thread.

    Args:
        rows: where they are kept.
        log_key_of: the key that a caller's checkpoints are signed with, in OpenSSH's one-line form; empty where the
            trust file names none, and then nothing is kept.
        now: effective time.
        wishes: yields the callers that the operator wants to be forgotten.
    """

    def __init__(
        self,
        rows: KeptRows,
        *,
        log_key_of: Callable[[str], str],
        now: Callable[[], datetime],
        wishes: Callable[[], Iterable[str]],
    ) -> None:
        self._rows = rows
        self._log_key_of = log_key_of
        self._now = now
        self._wishes = wishes
        self._taking = threading.Lock()
        self._kept = {kept.identity: kept for kept in rows.kept_checkpoints()}

    def take(self, identity: str, note: str, consistency: Sequence[bytes]) -> int:
        """Keep a caller's checkpoint where it continues the kept one, and return the size that is kept now.

        Args:
            identity: the caller's SPIFFE id.
            note: its checkpoint; empty where it only asks.
            consistency: shows that this continues the kept one. Without it a larger one is not kept.

        Raises:
            RequestMalformedError: the checkpoint can not be read, or is not signed by the caller's key.
            ExecutorError: reason AUDIT_FORKED: it does not continue the kept one.
        """
        key = self._log_key_of(identity)
        if not key:
            return 0
        with self._taking:
            return self._take(identity, key, note, consistency) if note else self._kept_size(identity)

    def check_caller(self, identity: str) -> None:
        """Refuse a caller whose own audit log has forked.

        Raises:
            ExecutorError: reason AUDIT_FORKED.
        """
        kept = self._kept.get(identity)
        if kept is not None and kept.fork:
            raise _forked(kept)

    def findings(self) -> tuple[Finding, ...]:
        """Return what the operator must look at: the callers whose logs have forked."""
        forked = [_forked(kept).fault for kept in tuple(self._kept.values()) if kept.fork]
        return tuple(Finding(name="audit-log", ok=False, detail=one.message, remedy=one.remedy) for one in forked)

    def forget(self, identity: str) -> bool:
        """Forget what is kept of a caller's log: its next checkpoint is the first. Returns whether there was one."""
        with self._taking:
            known = self._rows.forget_checkpoint_of(identity, self._now())
            self._kept.pop(identity, None)
        return known

    def forget_wanted(self) -> None:
        """Forget those that the operator wants to be forgotten."""
        try:
            for identity in self._wishes():
                known = self.forget(identity)
                log.warning("what was kept of the audit log of %s is %s", identity, "forgotten" if known else "nothing")
        except (OSError, ExecutorError):
            log.exception("a caller's checkpoint could not be forgotten")

    def _kept_size(self, identity: str) -> int:
        kept = self._kept.get(identity)
        return 0 if kept is None else _named(kept.note).size

    def _take(self, identity: str, key: str, note: str, consistency: Sequence[bytes]) -> int:
        """Keep a caller's checkpoint where it continues the kept one, and return the size that is kept now."""
        named = _opened(note, key)
        _check_path(consistency)
        kept = self._kept.get(identity)
        if kept is None:
            self._keep(Kept(identity=identity, note=note, before=""))
            return named.size
        if kept.fork:
            raise _forked(kept)
        last = _named(kept.note)
        if (last.size, last.root) == (named.size, named.root) or note == kept.before:
            return last.size
        if last.origin == named.origin and _continues(last, named, consistency):
            self._keep(Kept(identity=identity, note=note, before=kept.note))
            return named.size
        if last.origin == named.origin and named.size > last.size and _is_late(kept, named, consistency):
            return last.size
        forked = replace(kept, fork=note)
        self._keep(forked)
        log.error("the audit log of %s has forked: %d entries are kept, %d came", identity, last.size, named.size)
        raise _forked(forked)

    def _keep(self, kept: Kept) -> None:
        self._rows.keep_checkpoint(kept, self._now())
        self._kept[kept.identity] = kept


def _opened(note: str, key: str) -> Checkpoint:
    origin = note.partition("\n")[0]
    if not origin.startswith(log_origin(ORCHESTRATOR, "")):
        raise _unacceptable(f"{origin[:100]!r} is not the name of an orchestrator's log")
    try:
        return open_note(note, load_public_key(key), origin)
    except (NoteError, SignatureError) as error:
        raise _unacceptable(str(error)) from error


def _unacceptable(why: str) -> RequestMalformedError:
    return RequestMalformedError(
        "SIGNATURE_INVALID",
        f"the caller's checkpoint can not be taken: {why}",
        "compare the orchestrator's keys/orchestrator.pub with its log_key in the executor's trust file",
    )


def _named(note: str) -> Checkpoint:
    return unverified_checkpoint(note, note.partition("\n")[0])


def _check_path(path: Sequence[bytes]) -> None:
    if len(path) > MAX_PATH or any(len(one) != HASH_BYTES for one in path):
        raise RequestMalformedError("MALFORMED", "that is no consistency proof", "send at most 128 hashes of 32 bytes")


def _continues(old: Checkpoint, new: Checkpoint, path: Sequence[bytes]) -> bool:
    return old.size < new.size and verify_consistency(old.size, old.root, new.size, new.root, path)


def _is_late(kept: Kept, new: Checkpoint, path: Sequence[bytes]) -> bool:
    """Whether a proof is missing, or starts from the checkpoint before the kept one: that shows nothing either way."""
    return not path or (kept.before != "" and _continues(_named(kept.before), new, path))


def _forked(kept: Kept) -> ExecutorError:
    here, other = _named(kept.note).size, _named(kept.fork).size
    return ExecutorError(
        "AUDIT_FORKED",
        f"the audit log of {kept.identity} is not what it was: its checkpoint of {other} entries contradicts the one"
        f" of {here} entries that is kept here",
        "find out who changed the orchestrator's event log; then, on the executor's host:"
        f" python -m executor audit forget --orchestrator {kept.identity}",
    )
