"""Keeping the executor's checkpoints, and having the executor keep ours.

Each of the two services holds the other's newest checkpoint together with the proof that it continues the one before.
A log that was cut, edited or written anew can not prove that, whoever did it and whatever keys they had: this is the
only check that needs no trust in the machine whose log it is.

What does not continue is a fork. From then on nothing is dry run or executed here, and that stays so through restarts
until an operator has looked at both logs and had the kept checkpoint forgotten. The executor that can not be reached
is no fork: it is asked again. But before the first order of a process it must have been heard once, so that a log that
was put back before the start is found before anything follows from it.
"""

import asyncio
import logging
from dataclasses import dataclass, field, replace
from typing import Final

from gonogo.merkle import EMPTY_ROOT, MissingHashesError, consistency_path, verify_consistency
from gonogo.notes import EXECUTOR, Checkpoint, NoteError, log_origin, open_note, unverified_checkpoint
from gonogo.signatures import SignatureError, load_public_key
from orchestrator.domain.errors import ContractError, ExecutorRefusedError, OrchestratorError, Reason, StateForbidsError
from orchestrator.domain.evidence import ExecutorInfo
from orchestrator.service.audit_log import AuditLog, Exchanged, Witnessed
from orchestrator.service.event_log_errors import EventLogError
from orchestrator.service.executor_card import ExecutorCard
from orchestrator.service.ports import Executor

EXCHANGE_EVERY: Final = 3.0
"""Seconds between two looks at whether a log has grown."""
EXCHANGE_AT_LEAST_EVERY: Final = 60.0

_REMEDY: Final = (
    "Nothing is dry run or executed until an operator has compared both logs (`gonogo doctor`, `python -m orchestrator "
    "audit check`). When it is clear what happened, run `python -m orchestrator audit forget` with the orchestrator "
    "stopped. Where its own log was put back, run `python -m executor audit forget` on the executor's host, too."
)
_log = logging.getLogger(__name__)


class _ForkFoundError(Exception):
    """A log is not one history; the text says what was seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Continued:
    """One of the executor's checkpoints, and the proof that it continues the one that was kept before."""

    older: str
    newer: Checkpoint
    note: str
    consistency: tuple[bytes, ...]


@dataclass(slots=True, kw_only=True, eq=False)
class Witness:
    """Exchanges checkpoints with the executor and remembers what does not continue."""

    log: AuditLog
    executor: Executor
    card: ExecutorCard
    pinned_key: str = ""
    """The executor's public key as the operator put it here; empty where the first answer of the executor counts."""
    fault: str = ""
    """What was found wrong with a log; empty while all is well."""
    _kept: Witnessed | None = None
    _kept_there: int | None = None
    """Size of our checkpoint that the executor keeps; None while that is not known."""
    _heard: bool = False
    _exchanged_at: float = 0.0
    _exchanged_size: int = -1
    _called: bool = False
    _told: str = ""
    """Why the last exchange in the background did not come about, as the service log has it."""
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _task: "asyncio.Task[None] | None" = None

    def __post_init__(self) -> None:
        for kept in self.log.witnessed():
            self._kept = kept
            self.fault = self.fault or kept.fault

    @property
    def kept(self) -> Witnessed | None:
        """The executor's newest checkpoint that is kept here."""
        return self._kept

    @property
    def public_key(self) -> str:
        """The key that the executor's checkpoints are checked with; empty before the first exchange."""
        return self._kept.public_key if self._kept else self.pinned_key

    def opened(self, note: str) -> Checkpoint:
        """Check that a note is a checkpoint of the executor's log, which was heard of before.

        Raises:
            ContractError: it is not; reason AUDIT_FORKED.
        """
        kept = self._kept
        try:
            return open_note(note, load_public_key(self.public_key), kept.origin if kept else "")
        except (NoteError, SignatureError) as error:
            raise ContractError(
                Reason.AUDIT_FORKED, f"the executor gave a checkpoint that is not one of its log: {error}", _REMEDY
            ) from None

    def start(self) -> None:
        """Begin to exchange in the background; needs a running event loop."""
        self._task = asyncio.ensure_future(self._exchange_forever())

    async def close(self) -> None:
        """Stop exchanging."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def require_unforked(self) -> None:
        """Refuse where a log was found to be forked.

        Raises:
            StateForbidsError: AUDIT_FORKED.
        """
        if self.fault:
            raise StateForbidsError(Reason.AUDIT_FORKED, self.fault, _REMEDY)

    async def before_an_order(self) -> None:
        """Make sure that the executor may be asked to do something: both logs are one history as far as is known.

        Raises:
            StateForbidsError: AUDIT_FORKED.
            OrchestratorError: no checkpoint was exchanged yet, and none can be.
        """
        self._called = True
        if not self._heard:
            await self._heard_once()
        self.require_unforked()

    async def _heard_once(self) -> None:
        try:
            await self.exchange()
        except ExecutorRefusedError as refused:  # of the exchange: no gate has said anything about a mission
            raise StateForbidsError(
                Reason.STATE_FORBIDS, f"the executor takes no checkpoint: {refused.message}", refused.remedy
            ) from None

    async def exchange(self) -> Continued | None:
        """Give the executor our newest checkpoint and keep its newest one; None where a fork is known.

        Raises:
            OrchestratorError: the executor can not be asked, or gave no answer that is one.
            EventLogError: the log can not be written.
        """
        async with self._lock:
            if self.fault:
                return None
            try:
                return await self._exchange()
            except _ForkFoundError as fork:
                await self._forked(str(fork))
                return None

    async def _exchange(self) -> Continued:
        info = await self.card.get()
        kept = self._identified(info)
        self._called = False
        own = await self.log.sign_checkpoint()
        answer = await self._asked(own.size, own.note, kept)
        if answer.kept_size > own.size:
            raise _ForkFoundError(
                f"the executor keeps a checkpoint over {answer.kept_size} events of this orchestrator's log, which has "
                f"{own.size}"
            )
        found = self._continued(kept, answer)
        if found.newer.size != kept.size or not kept.note:
            kept = replace(kept, size=found.newer.size, note=found.note)
            await self.log.keep_witnessed(kept)
        self._kept, self._kept_there, self._heard = kept, answer.kept_size, True
        self._exchanged_at, self._exchanged_size = asyncio.get_running_loop().time(), own.size
        return found

    def _identified(self, info: ExecutorInfo) -> Witnessed:
        """Return what is kept of this executor's log; for a new one, that there is nothing yet."""
        origin = log_origin(EXECUTOR, info.executor_id)
        if info.log_origin != origin:
            raise OrchestratorError(
                Reason.INTERNAL,
                f"the executor {info.executor_id} says that its audit log is {info.log_origin!r}",
                "Run an executor of the same release.",
            )
        kept = self._kept or Witnessed(origin=origin, public_key=info.public_key, size=0, note="")
        if self.pinned_key:
            kept = replace(kept, public_key=self.pinned_key)
        if kept.origin != origin:
            raise _ForkFoundError(f"another executor answers: its audit log is {origin}, and was {kept.origin}")
        return kept

    async def _asked(self, size: int, note: str, kept: Witnessed) -> Exchanged:
        """Hand our checkpoint over, with the proof from the one that the executor keeps."""
        if self._kept_there is None:
            self._kept_there = (await self.executor.exchange("", (), kept.size)).kept_size
        try:
            return await self._handed_over(size, note, kept)
        except ExecutorRefusedError as refused:
            self._kept_there = None
            if refused.reason is not Reason.AUDIT_FORKED:
                raise
            raise _ForkFoundError(f"the executor says: {refused.message}") from None

    async def _handed_over(self, size: int, note: str, kept: Witnessed) -> Exchanged:
        there = self._kept_there or 0
        if there > size:
            raise _ForkFoundError(
                f"the executor keeps a checkpoint over {there} events of this orchestrator's log, which has {size}"
            )
        try:
            path = tuple(consistency_path(there, size, self.log.tree_hashes))
        except MissingHashesError as error:
            raise _ForkFoundError(f"this orchestrator's log is not whole: {error}") from None
        return await self.executor.exchange(note, path, kept.size)

    def _continued(self, kept: Witnessed, answer: Exchanged) -> Continued:
        """Check that the executor's checkpoint continues the kept one."""
        try:
            newer = open_note(answer.checkpoint, load_public_key(kept.public_key), kept.origin)
            older = unverified_checkpoint(kept.note, kept.origin) if kept.note else None
        except (NoteError, SignatureError) as error:
            raise _ForkFoundError(f"the executor's checkpoint is not one of the log {kept.origin}: {error}") from None
        size, root = (older.size, older.root) if older else (0, EMPTY_ROOT)
        if newer.size < size:
            raise _ForkFoundError(f"the executor's log had {size} entries, and now has {newer.size}")
        if not verify_consistency(size, root, newer.size, newer.root, answer.consistency):
            raise _ForkFoundError(
                f"the executor's log of {newer.size} entries does not continue the one of {size} entries that was seen"
            )
        return Continued(older=kept.note, newer=newer, note=answer.checkpoint, consistency=answer.consistency)

    async def _forked(self, fault: str) -> None:
        self.fault = fault
        _log.error("an audit log is forked, nothing is dispatched any more: %s", fault)
        kept = self._kept or Witnessed(origin="unknown", public_key=self.pinned_key, size=0, note="")
        self._kept = replace(kept, fault=fault)
        await self.log.keep_witnessed(self._kept)

    async def _exchange_forever(self) -> None:
        while True:
            try:
                if self._is_due():
                    await self.exchange()
                    self._told = ""
            except (OrchestratorError, EventLogError) as error:
                self._tell(error)
            except Exception:  # noqa: BLE001 - the next round must come all the same; it is logged whole
                _log.exception("exchanging checkpoints failed")
            await asyncio.sleep(EXCHANGE_EVERY)

    def _tell(self, error: OrchestratorError | EventLogError) -> None:
        """Say once why no checkpoint goes round: this is tried every few seconds, for as long as it takes."""
        if str(error) != self._told:
            self._told = str(error)
            _log.warning("no checkpoints are exchanged with the executor, which is tried again: %s", error)

    def _is_due(self) -> bool:
        overdue = asyncio.get_running_loop().time() - self._exchanged_at > EXCHANGE_AT_LEAST_EVERY
        return self._called or overdue or not self._heard or self.log.head() != self._exchanged_size
