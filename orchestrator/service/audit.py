"""Giving checkpoints and proofs out."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gonogo.merkle import HashesOf, MissingHashesError, consistency_path, inclusion_path
from orchestrator.domain.errors import Reason, StateForbidsError
from orchestrator.service.audit_log import AuditLog, LogEntry, LogExtract, SignedCheckpoint
from orchestrator.service.event_leaf import stored_leaf
from orchestrator.service.event_log import StoredEvent
from orchestrator.service.event_log_errors import LogForked
from orchestrator.service.ports import Executor
from orchestrator.service.witnessing import Witness

PAUSE_AFTER: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownLog:
    """A log's newest checkpoint, and the proof that it continues the one that the caller keeps."""

    checkpoint: str
    consistency: tuple[bytes, ...]
    public_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Shows this log and the executor's to whoever keeps their checkpoints."""

    log: AuditLog
    executor: Executor
    witness: Witness

    async def own_log(self, known_size: int) -> ShownLog:
        """Return this log's newest checkpoint.

        Raises:
            StateForbidsError: AUDIT_FORKED: the caller keeps a checkpoint of more events than there are.
            EventLogError: no checkpoint can be signed.
        """
        self._require_own()
        signed = await self.log.sign_checkpoint()
        _require_as_much(known_size, signed.size, "orchestrator")
        consistency = self._consistency(known_size, signed.size)
        return ShownLog(checkpoint=signed.note, consistency=consistency, public_key=self.log.signer.public_key)

    async def executor_log(self, known_size: int) -> ShownLog:
        """Return the executor's newest checkpoint, as it gives it out now.

        Raises:
            StateForbidsError: AUDIT_FORKED: it does not continue what was seen of the log before.
            OrchestratorError: the executor can not be asked.
        """
        continued = await self.witness.exchange()
        self.witness.require_unforked()
        if continued is not None:  # what somebody has kept already can not be larger than the log is by now
            _require_as_much(known_size, continued.newer.size, "executor")
        answer = await self.executor.exchange("", (), known_size)
        newest = self.witness.opened(answer.checkpoint)
        _require_as_much(known_size, newest.size, "executor")
        key = self.witness.public_key
        return ShownLog(checkpoint=answer.checkpoint, consistency=answer.consistency, public_key=key)

    async def extract(self, events: Sequence[StoredEvent], signed: SignedCheckpoint) -> LogExtract:
        """Return events as leaves with their paths to a checkpoint that covers them.

        Raises:
            LogForked: the stored tree is not whole.
        """
        hashes_of, entries = _remembering(self.log.tree_hashes), []
        for event in events:
            entries.append(_entry(event, signed.size, hashes_of))
            if len(entries) % PAUSE_AFTER == 0:
                await asyncio.sleep(0)  # a mission of thousands of events must not hold everybody else up
        return LogExtract(checkpoint=signed.note, entries=tuple(entries))

    def _consistency(self, known_size: int, size: int) -> tuple[bytes, ...]:
        try:
            return tuple(consistency_path(known_size, size, self.log.tree_hashes))
        except MissingHashesError as error:
            raise _not_whole(error) from None

    def _require_own(self) -> None:
        """A fork that was found is told to whoever looks at either log."""
        self.witness.require_unforked()


def _require_as_much(known_size: int, size: int, whose: str) -> None:
    if known_size > size:
        raise StateForbidsError(
            Reason.AUDIT_FORKED,
            f"you keep a checkpoint over {known_size} entries of the {whose}'s audit log, and it has {size}",
            f"The {whose}'s log was cut or put back. Trust nothing of it until its operator knows by whom.",
        )


def _entry(event: StoredEvent, size: int, hashes_of: HashesOf) -> LogEntry:
    index = event.pos - 1
    try:
        path = tuple(inclusion_path(index, size, hashes_of))
    except MissingHashesError as error:
        raise _not_whole(error) from None
    return LogEntry(index=index, leaf=stored_leaf(event), path=path)


def _remembering(hashes_of: HashesOf) -> HashesOf:
    """Read each run of hashes once: the paths of events that are close to each other share nearly all of them."""
    known: dict[tuple[int, int, int], Sequence[bytes]] = {}

    def read(level: int, first: int, count: int) -> Sequence[bytes]:
        wanted = (level, first, count)
        if wanted not in known:
            known[wanted] = hashes_of(level, first, count)
        return known[wanted]

    return read


def _not_whole(error: MissingHashesError) -> LogForked:
    return LogForked(f"the log's tree is not whole: {error}")
