"""Writing an execution down while it goes on."""

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from orchestrator.domain import decisions
from orchestrator.domain import events as ev
from orchestrator.domain.errors import ContractError, Reason
from orchestrator.domain.evidence import ReceiptFacts, Sealed
from orchestrator.domain.mission import WAITING, Mission, MissionStatus
from orchestrator.service.event_log import ProjectionRow
from orchestrator.service.event_log_errors import (
    CommandConflict,
    DuplicateCommand,
    StoreBusy,
    StoreFull,
    StoreOverloaded,
)
from orchestrator.service.mission_store import Decision, Happened, MissionStore
from orchestrator.service.ports import Clock, Documents, ExecutionUpdate
from orchestrator.service.requests import Request
from orchestrator.service.run import Run
from orchestrator.service.words import Words

FLUSH_AFTER: Final = 0.05
WRITE_AGAIN_AFTER: Final = 1.0
MAX_WAITING: Final = 10_000
"""Events that may wait to be written before the executor's stream is left alone."""
MAX_TEXT: Final = 64 * 1024
MAX_OUTPUT: Final = 256 * 1024
"""Characters of one step's output that are recorded; its receipt has the beginning and the end of all."""
ORCHESTRATOR: Final = "orchestrator"

_log = logging.getLogger(__name__)


class Recorder:
    """Folds an execution's updates into its mission and writes them, together where they come quickly."""

    def __init__(self, store: MissionStore, documents: Documents, clock: Clock, run: Run, words: Words) -> None:
        self._store = store
        self._documents = documents
        self._clock = clock
        self._run = run
        self._words = words
        self._rows: list[ProjectionRow] = []
        """Rows that go with the next write."""
        self._told: dict[str, int] = {}
        """How much of each step's output is recorded."""
        self._heard = False
        """Whether the executor said anything: then it has claimed the mission."""
        self._timer: asyncio.TimerHandle | None = None
        self._flush: asyncio.Task[None] | None = None

    async def take(self, update: ExecutionUpdate) -> bool:
        """Take one update; tell whether the execution has ended.

        Raises:
            ContractError: the executor's stream is not one of an execution of this mission.
            ExecutorUnavailableError: events are missing in it.
        """
        self._heard = self._heard or bool(update.events or update.receipt)
        mission = self._store.state(self._run.mission_id)
        happened = tuple(self._news(mission, update))
        if happened:
            mission = self._store.happened(mission.mission_id, happened)
            self._rows += self._words.taken(mission.mission_id, (item.payload for item in happened))
        if update.receipt is not None:
            await self._end(mission, update.receipt)
            return True
        self._flush_later()
        await self._give_way()
        return False

    async def begin(self) -> None:
        """A mission that the executor has claimed is under way, also before it told anything of it."""
        mission = self._store.state(self._run.mission_id)
        if mission.status in WAITING:
            await self._write(Decision(payloads=(self._started(mission),)))

    async def stop(self, message: str) -> None:
        """A claimed mission that can not be followed is paused: nobody knows what was done."""
        mission = self._store.state(self._run.mission_id)
        if mission.status in {MissionStatus.ACTIVE, MissionStatus.PAUSED} and not decisions.outcome_unknown(mission):
            reason = f"the execution can not be followed: {message}"
            paused = ev.ExecutionPaused(reason=reason, kind=ev.PauseKind.UNKNOWN_OUTCOME)
            await self._write(Decision(payloads=(paused,)))

    async def stop_anew(self, message: str) -> None:
        """Like `stop`, where what was heard last can not be written down: the executor has it, and tells it again."""
        await self._written()
        self._store.forget(self._run.mission_id)
        self._rows.clear()
        if self._heard:
            await self.begin()
        await self.stop(message)

    async def _give_way(self) -> None:
        """Take no more from the executor while much waits to be written: it keeps all that it has to tell."""
        if self._store.unwritten(self._run.mission_id) < MAX_WAITING:
            return
        if self._flush is None:
            self.close()
            self._flush_now()
        await self._written()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _news(self, mission: Mission, update: ExecutionUpdate) -> Iterator[Happened]:
        """Yield what an update tells that was not told before the stream broke."""
        if mission.status in WAITING and (update.events or update.receipt):
            yield Happened(payload=self._started(mission), time=self._began_at(update), actor=ORCHESTRATOR)
        known = mission.executor_events
        for event in update.events:
            if event.sequence <= known:
                continue
            known += 1
            _check_next(event, known)
            yield Happened(payload=self._bounded(event.payload), time=event.time, actor=mission.executor_id)

    def _bounded(self, payload: ev.Payload) -> ev.Payload:
        """Cut what a step printed where it goes on and on, and every other text to what one event may hold."""
        if isinstance(payload, ev.StepOutput):
            told = self._told.get(payload.step_id, 0)
            self._told[payload.step_id] = told + len(payload.text)
            if told >= MAX_OUTPUT:
                return replace(payload, text="")
        return _bounded(payload)

    def _started(self, mission: Mission) -> ev.MissionStarted:
        plan = self._store.document(mission.mission_id, mission.plan_digest)
        return ev.MissionStarted(
            goal=mission.objective,
            steps_count=mission.steps_count,
            scope_contract=None if plan is None else self._documents.scope_of(plan),
        )

    async def _end(self, mission: Mission, receipt: Sealed) -> None:
        facts = self._documents.open_receipt(receipt)
        said = (facts.mission_id, facts.executor_id, facts.plan_digest, facts.segment_plan_digests)
        plans = (mission.first_plan_digest, mission.later_plan_digests)
        if said != (mission.mission_id, mission.executor_id, *plans):
            raise ContractError(Reason.INTERNAL, "the receipt is for another mission", "Check which executor answers.")
        payloads = (*_missing(mission, facts, receipt), *decisions.decide_end(mission, facts))
        decision = Decision(payloads=payloads, documents=(receipt,))
        self.close()
        await self._written()
        await self._write(decision)

    def _began_at(self, update: ExecutionUpdate) -> datetime:
        """Return when the order was sent, or the first event of an execution that was ordered by a former process."""
        sent_at = self._run.sent_at or self._clock.now()
        return min(sent_at, update.events[0].time) if update.events else sent_at

    def _flush_later(self) -> None:
        if self._timer is None and self._flush is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_AFTER, self._flush_now)

    def _flush_now(self) -> None:
        self._timer = None
        self._flush = asyncio.ensure_future(self._write())
        self._flush.add_done_callback(self._flushed)

    def _flushed(self, task: asyncio.Task[None]) -> None:
        self._flush = None
        if task.cancelled():
            return
        if task.exception() is not None:
            _log.warning("events of mission %s wait to be written: %s", self._run.mission_id, task.exception())
        elif self._store.has_unwritten(self._run.mission_id):
            self._flush_later()  # they came while the others were written, and what follows may take days

    async def _written(self) -> None:
        if self._flush is not None:
            await asyncio.wait([self._flush])

    async def _write(self, decision: Decision | None = None) -> None:
        """Write until it is written: what the executor has done can not be undone by a full disk of ours."""
        if decision is None and not self._store.has_unwritten(self._run.mission_id):
            return
        detach, rows = decision is None, tuple(self._rows)
        decision = replace(decision or Decision(payloads=()), rows=rows)
        while True:
            request = self._run.unrecorded
            try:
                await self._store.conclude(self._run.mission_id, ORCHESTRATOR, request, decision, detach=detach)
            except (DuplicateCommand, CommandConflict):
                self._recorded(request)  # the same id went elsewhere meanwhile; this execution stands all the same
            except (StoreFull, StoreOverloaded, StoreBusy) as error:
                _log.warning("mission %s waits to be written: %s", self._run.mission_id, error)
                await asyncio.sleep(WRITE_AGAIN_AFTER)
            else:
                self._recorded(request)
                del self._rows[: len(rows)]
                return

    def _recorded(self, request: Request | None) -> None:
        if self._run.unrecorded is request:
            self._run.unrecorded = None


def _check_next(event: ev.Event, expected: int) -> None:
    if event.sequence != expected:
        raise ContractError(Reason.INTERNAL, "events are missing in the executor's stream", "Watch the mission.")
    if type(event.payload) not in ev.EXECUTION_PAYLOADS:
        name = ev.TYPES[type(event.payload)]
        raise ContractError(Reason.INTERNAL, f"an executor can not report {name}", "Check which executor answers.")


def _missing(mission: Mission, facts: ReceiptFacts, receipt: Sealed) -> tuple[ev.Payload, ...]:
    """Return the events of the end that the executor's stream left to be read from the receipt."""
    missing: list[ev.Payload] = []
    if not mission.execution_id:
        missing.append(ev.ExecutionStarted(execution_id=facts.execution_id))
    if mission.outcome is None:
        missing.append(ev.ExecutionCompleted(execution_id=facts.execution_id, outcome=facts.outcome))
    if mission.receipt_digest != receipt.digest:
        issued = ev.ReceiptIssued(
            receipt_id=facts.receipt_id, receipt_digest=receipt.digest, execution_id=facts.execution_id
        )
        missing.append(issued)
    return tuple(missing)


def _bounded(payload: ev.Payload) -> ev.Payload:
    """Cut texts to what one event may hold; the whole is in the report and the executor's objects."""
    for name in ("text", "summary", "message"):
        text = getattr(payload, name, "")
        if len(text) > MAX_TEXT:
            changes: dict[str, Any] = {name: text[:MAX_TEXT] + "…"}
            payload = replace(payload, **changes)
    return payload
