"""The audit log as a port: the tree over all events, this log's signed checkpoints, and what is kept of other logs.

The tree, the events and the checkpoints are in one store and change in one transaction. A checkpoint that somebody else
keeps is what makes a change of the past visible; everything here is there to give checkpoints out and to prove that
each continues the one before.
"""

from dataclasses import dataclass
from typing import Protocol

from orchestrator.service.event_log import PAGE, Document, EventReader


class LogIdentity(Protocol):
    """What the checkpoints of one log are known by."""

    @property
    def origin(self) -> str:
        """The log's name: the first line of each checkpoint."""
        ...

    @property
    def public_key(self) -> str:
        """The key that checks them, in OpenSSH's one-line form."""
        ...


class CheckpointSigner(LogIdentity, Protocol):
    """Signs the checkpoints of one log with the log's own key."""

    def sign(self, size: int, root: bytes) -> str:
        """Return a checkpoint as a signed note."""
        ...


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """One of this log's own checkpoints."""

    size: int
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Witnessed:
    """The newest checkpoint of another log that continued all those before, and what was wrong with a later one."""

    origin: str
    public_key: str
    size: int
    note: str
    fault: str = ""
    """Why nothing is taken from that log's service any more; empty while all is well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchanged:
    """The answer of another log's service to a checkpoint of ours."""

    checkpoint: str
    """Its newest checkpoint as a signed note."""
    consistency: tuple[bytes, ...]
    """Proof that this continues the one of the size that was asked for."""
    kept_size: int
    """Size of our checkpoint that it keeps now; 0 where it keeps none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """A leaf, its place, and the way from it to the root."""

    index: int
    leaf: bytes
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogExtract:
    """Some leaves of a log under one checkpoint."""

    checkpoint: str
    entries: tuple[LogEntry, ...]


class AuditReader(EventReader, Protocol):
    """Reads of the audit log, with the same promises as the other reads of the event log."""

    def newest_checkpoint(self) -> SignedCheckpoint | None:
        """Return the newest checkpoint that was stored."""
        ...

    def checkpoints(self, after_size: int = -1, limit: int = PAGE) -> tuple[SignedCheckpoint, ...]:
        """Return stored checkpoints by their size; old ones are let go of."""
        ...

    def witnessed(self, after_origin: str = "", limit: int = PAGE) -> tuple[Witnessed, ...]:
        """Return what is kept of other logs, by their names."""
        ...


class AuditLog(AuditReader, Protocol):
    """The audit log as its service has it open. Each of these writes is a transaction of its own, beside the appends.

    All raise what `EventLog.append` raises where the store can not be written.
    """

    @property
    def signer(self) -> CheckpointSigner:
        """What signs this log's checkpoints."""
        ...

    async def sign_checkpoint(self) -> SignedCheckpoint:
        """Sign and store a checkpoint over all events, where there is none yet; return the newest."""
        ...

    async def keep_document(self, document: Document) -> None:
        """Store a document that no event brings; one that is stored stays as it is."""
        ...

    async def keep_witnessed(self, kept: Witnessed) -> None:
        """Replace what is kept of another log."""
        ...

    async def forget_witnessed(self, origin: str) -> None:
        """Let go of what is kept of another log."""
        ...
