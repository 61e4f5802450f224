"""Handing approved missions to the executor, and writing down what it does with them.

A run is a task of its own: it owns the executor's stream, and callers only follow it. Events are folded into the state
as they come and written together, at the end or every 50 ms of a longer run; followers see what
is written. When the stream breaks, the run goes on from the last token for as long as it takes; the executor works on
meanwhile. When this process dies, the next one takes the run up again: the log tells how many of the executor's events
it has, and the executor tells the rest.

A mission that the log calls approved or queued may have been claimed all the same, when this process died between
handing it over and writing that down. So the executor is asked before such a mission is called expired or cancelled,
and its answer that the mission was executed already is not an error of the caller's but the execution itself.

A run goes through pauses: the executor's stream stays open, and what persons have the execution do comes back as its
events. One run follows all segments of an execution; a repair plan is handed over beside it (`segments`).
"""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from gonogo.digests import PREFIX, digest
from orchestrator.domain import decisions
from orchestrator.domain import events as ev
from orchestrator.domain.errors import (
    ContractError,
    ExecutorRefusedError,
    ExecutorUnavailableError,
    OrchestratorError,
    Reason,
    StateForbidsError,
    TransitionError,
)
from orchestrator.domain.evidence import Sealed
from orchestrator.domain.mission import WAITING, Mission, MissionStatus
from orchestrator.service.approvals import Approvals
from orchestrator.service.event_log import PAGE
from orchestrator.service.mission_store import Decision, MissionStore
from orchestrator.service.ports import Clock, Documents, ExecutionOrder, ExecutionUpdate, Executor
from orchestrator.service.recorder import ORCHESTRATOR, Recorder
from orchestrator.service.requests import Answer, Request
from orchestrator.service.run import Run
from orchestrator.service.segments import CLAIMED, Segments, kept_refusal, no_answer
from orchestrator.service.words import Words

LONGEST_PAUSE: Final = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class MissionUpdate:
    """A part of what a caller of `execute` is told; only the last has the mission."""

    mission_id: str
    events: tuple[ev.Event, ...]
    sequence: int
    mission: Mission | None = None
    receipt: Sealed | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class Executions:
    """Runs missions: at most one run of each at a time."""

    store: MissionStore
    executor: Executor
    documents: Documents
    clock: Clock
    approvals: Approvals
    runs: dict[str, Run]
    segments: Segments
    words: Words
    first_pause: float = 0.1

    async def execute(
        self, request: Request, reference: str, approvals: Sequence[Sealed] = ()
    ) -> AsyncGenerator[MissionUpdate, None]:
        """Have an approved mission executed and yield its events to the end.

        Approvals that come with the request are recorded first, as if they had been handed in one by one; when one is
        refused, nothing is dispatched. The same request attaches to its run, or reads what its run came to. Leaving
        stops nothing.

        Raises:
            StateForbidsError: the mission is not approved, is being executed, or has been executed.
            ExecutorRefusedError: a gate refused; nothing was done.
            ExecutorUnavailableError: the executor can not be reached; the mission stays approved.
        """
        await self.approve(request, reference, approvals)
        mission_id = self.store.find(reference).mission_id
        run, seen = await self._begun(request, mission_id)
        async for update in self._follow(mission_id, run, seen) if run else self._past(mission_id):
            yield update

    async def begin(self, request: Request, reference: str, approvals: Sequence[Sealed] = ()) -> Mission:
        """Do what `execute` does, and follow nothing; raises what that raises."""
        await self.approve(request, reference, approvals)
        mission_id = self.store.find(reference).mission_id
        await self._begun(request, mission_id)
        return self.store.state(mission_id)

    async def _begun(self, request: Request, mission_id: str) -> tuple[Run | None, int]:
        """Return the run that answers a request, begun where it must be, and from which of its events on.

        There is none where what the request asked for is over.
        """
        run = self.runs.get(mission_id)
        if run is not None and run.answers(request):
            return run, 0
        if self.store.answered(request) is not None:
            return self.runs.get(mission_id), 0
        mission = self.store.state(mission_id)
        if not mission.segment:
            return self.start(await self._executable(mission, run), request), 0
        return await self._gone_on(request, mission)

    async def _gone_on(self, request: Request, mission: Mission) -> tuple[Run | None, int]:
        """Have the next segment begun, unless this very request has done so and never heard of it."""
        if not mission.has_ended and mission.mission_id not in self.runs:
            self.start(mission, None, claimed=True)
        run = self.runs.get(mission.mission_id)
        seen = run.written if run is not None else 0
        try:
            await self.segments.go_on(request, mission)
        except ExecutorRefusedError:
            if not mission.repair_pending:
                decisions.require_executable(mission, running=True)
            raise
        if run is not None:
            run.join(request)
        return run, seen

    async def approve(self, request: Request, reference: str, approvals: Sequence[Sealed]) -> None:
        """Record the approvals that come with a request, unless the request was acted on before.

        Raises:
            StateForbidsError: the mission is being executed, or has been.
            OrchestratorError: one is refused, as `Approvals.record` says.
        """
        if not approvals:
            return
        mission_id = self.store.find(reference).mission_id
        if self._known(request, mission_id):
            return
        try:
            await self.approvals.record(request.person, mission_id, approvals)
        except OrchestratorError:
            if self._known(request, mission_id):
                return  # the same request came in twice, and the other one was first
            mission = self.store.state(mission_id)
            if not mission.repair_pending:
                decisions.require_unexecuted(mission, running=mission_id in self.runs)
            raise

    def _known(self, request: Request, mission_id: str) -> bool:
        run = self.runs.get(mission_id)
        return (run is not None and run.answers(request)) or self.store.answered(request) is not None

    def start(self, mission: Mission, request: Request | None, *, claimed: bool = False) -> Run:
        """Begin to hand a mission over, or to follow one that is claimed. The caller has made sure that it may be."""
        run = Run(mission_id=mission.mission_id, request=request, past=partial(self.store.events, mission.mission_id))
        self.runs[mission.mission_id] = run
        run.task = asyncio.ensure_future(self._drive(run, claimed=claimed))
        return run

    def take_up(self, mission: Mission) -> None:
        """Follow an execution that a former process followed, or that waits; one that has come to its end has not."""
        begun = mission.status in {MissionStatus.ACTIVE, MissionStatus.PAUSED} or mission.execution_id
        if begun and mission.mission_id not in self.runs and not mission.receipt_digest and not mission.has_ended:
            self.start(mission, None, claimed=True)

    async def adopt(self, missions: Sequence[Mission]) -> None:
        """Follow those of the approved missions that the executor holds: a former process ended before it heard so."""
        for mission in missions:
            while mission.mission_id not in self.runs and self.store.state(mission.mission_id).status in WAITING:
                try:
                    state = await self.executor.execution(mission.mission_id)
                except ExecutorUnavailableError:
                    await asyncio.sleep(LONGEST_PAUSE)
                    continue
                if state is not None and mission.mission_id not in self.runs:
                    self.start(mission, None, claimed=True)
                break

    async def settled(self, mission: Mission) -> Mission:
        """Make sure that a waiting mission is not claimed; one that is gets taken up.

        Raises:
            StateForbidsError: the executor has claimed the mission.
            ExecutorUnavailableError: nobody can tell.
        """
        if mission.status in WAITING and mission.mission_id not in self.runs:
            state = await self.executor.execution(mission.mission_id)
            if state is not None and mission.mission_id not in self.runs:
                self.start(mission, None, claimed=True)
        decisions.require_unclaimed(mission, running=mission.mission_id in self.runs)
        return self.store.state(mission.mission_id)

    async def cancel(self, request: Request, reference: str, reason: str) -> Answer:
        """Cancel a mission that the executor has not claimed, or give up one whose outcome nobody knows."""
        mission = self.store.find(reference)
        answer = None if mission.status in WAITING else self.store.answered(request)
        if answer is not None:
            return answer
        if decisions.outcome_unknown(mission):
            await self._require_over(mission)
        elif mission.status in WAITING:
            await self.settled(mission)

        def decide(now: Mission | None) -> Decision:
            present = now or mission
            payloads = decisions.decide_cancel(present, reason[:2000])
            if not decisions.outcome_unknown(present):
                decisions.require_unclaimed(present, running=present.mission_id in self.runs)
            return Decision(payloads=payloads)

        return await self.store.act(mission.mission_id, request, decide)

    async def _require_over(self, mission: Mission) -> None:
        """Make sure that the executor does nothing for a mission any more; one that it does is followed again.

        Raises:
            StateForbidsError: its execution goes on, or waits.
            ExecutorUnavailableError: nobody can tell.
        """
        state = await self.executor.execution(mission.mission_id)
        if state is not None and not state.ended:
            self.take_up(mission)
            raise StateForbidsError(
                Reason.STATE_FORBIDS,
                "the mission's execution goes on",
                f"Stop it: gonogo stop {mission.mission_id} [--roll-back].",
            )

    async def expire(self, mission: Mission) -> bool:
        """Record that a waiting mission's approvals ran out, unless the executor has claimed it."""
        if not decisions.has_run_out(mission, self.clock.now()):
            return False
        try:
            await self.settled(mission)
        except StateForbidsError:
            return False

        def decide(now: Mission) -> Decision:
            if now.mission_id in self.runs:
                return Decision(payloads=())
            return Decision(payloads=decisions.decide_expiry(now, self.clock.now()))

        answer = await self.store.record(mission.mission_id, ORCHESTRATOR, decide)
        return answer.mission.status is MissionStatus.EXPIRED

    async def close(self) -> None:
        """Leave the runs that are going on; the executor goes on with them, and the next start takes them up."""
        await self.segments.close()
        tasks = [run.task for run in self.runs.values() if run.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _executable(self, mission: Mission, run: Run | None) -> Mission:
        decisions.require_executable(mission, running=run is not None)
        if decisions.has_run_out(mission, self.clock.now()):
            await self.expire(mission)
            mission = self.store.state(mission.mission_id)
            decisions.require_executable(mission, running=mission.mission_id in self.runs)
        return mission

    async def _follow(self, mission_id: str, run: Run, seen: int) -> AsyncGenerator[MissionUpdate, None]:
        held: MissionUpdate | None = None
        async with aclosing(run.follow(seen)) as batches:
            async for events in batches:
                if held is not None:
                    yield held
                held = MissionUpdate(mission_id=mission_id, events=events, sequence=events[-1].sequence)
                if not run.ended:
                    yield held
                    held = None
        yield self._last(mission_id, held.events if held else ())

    async def _past(self, mission_id: str) -> AsyncGenerator[MissionUpdate, None]:
        """Yield what a run that is over came to, from the log, in parts."""
        part: list[ev.Event] = []
        begun = False
        for event in self.store.events(mission_id):
            begun = begun or isinstance(event.payload, ev.MissionStarted | ev.MissionQueued)
            if begun:
                part.append(event)
            if len(part) > PAGE:
                *told, last = part
                yield MissionUpdate(mission_id=mission_id, events=tuple(told), sequence=told[-1].sequence)
                part = [last]
                await asyncio.sleep(0)
        yield self._last(mission_id, tuple(part))

    def _last(self, mission_id: str, events: tuple[ev.Event, ...]) -> MissionUpdate:
        mission = self.store.state(mission_id)
        return MissionUpdate(
            mission_id=mission_id,
            events=events,
            sequence=events[-1].sequence if events else mission.last_sequence,
            mission=mission,
            receipt=self.store.document(mission_id, mission.receipt_digest),
        )

    async def _drive(self, run: Run, *, claimed: bool) -> None:
        silence = self.store.listen(run.mission_id, run.published)
        error: BaseException | None = None
        try:
            await self._run_to_the_end(run, claimed=claimed)
        except BaseException as caught:  # noqa: BLE001 - whoever follows gets it
            error = caught
            if not isinstance(caught, OrchestratorError | asyncio.CancelledError):
                _log.exception("the run of mission %s failed", run.mission_id)
        finally:
            silence()
            del self.runs[run.mission_id]
            run.end(error)
            if run.goes_on:
                self.start(self.store.state(run.mission_id), None, claimed=True)

    async def _run_to_the_end(self, run: Run, *, claimed: bool) -> None:
        recorder = Recorder(self.store, self.documents, self.clock, run, self.words)
        try:
            async with aclosing(self._updates(run, claimed=claimed)) as updates:
                async for update in updates:
                    if await recorder.take(update):
                        return
        except ExecutorRefusedError as refused:
            if await self._claimed_all_the_same(run, refused):
                await recorder.begin()
                run.goes_on = True
                raise
            await self._refused(run.mission_id, refused)
            await recorder.stop(refused.message)
            raise
        except ContractError as error:
            await recorder.stop(error.message)
            raise
        except (TransitionError, ValueError) as error:
            await recorder.stop_anew(str(error))
            raise
        finally:
            recorder.close()

    async def _claimed_all_the_same(self, run: Run, error: ExecutorRefusedError) -> bool:
        """Only a signed refusal proves that nothing was done; without one the executor is asked."""
        if error.refusal is not None or self.store.state(run.mission_id).status not in WAITING:
            return False
        try:
            return await self.executor.execution(run.mission_id) is not None
        except OrchestratorError:
            return False  # nobody can tell now; whoever executes the mission again will be told

    async def _updates(self, run: Run, *, claimed: bool) -> AsyncGenerator[ExecutionUpdate, None]:
        """Yield an execution's stream, across breaks, until its receipt."""
        mission_id, place = run.mission_id, _Place(claimed=claimed, first_pause=self.first_pause)
        stream = self.executor.watch(mission_id, "") if claimed else await self._sent(run)
        while True:
            try:
                async with aclosing(stream):
                    async for update in stream:
                        place.heard(update)
                        yield update
                        if update.receipt is not None:
                            return
                place.broken(no_answer())
            except ExecutorUnavailableError as error:
                place.broken(error)
            except ExecutorRefusedError as error:
                place.refused(error)
            await asyncio.sleep(place.pause())
            stream = self.executor.watch(mission_id, place.token)

    async def _sent(self, run: Run) -> AsyncGenerator[ExecutionUpdate, None]:
        """Send the order.

        Whoever decides on the mission from now on sees that it has a run. Who did so just before may still be writing
        it down: a mission that is being cancelled, denied or expired must not be executed.
        """
        mission = await self.store.decided(run.mission_id)
        if mission.status not in WAITING:
            decisions.require_executable(mission, running=True)
        order = self._order(run.mission_id)
        run.sent_at = self.clock.now()
        return self.executor.execute(order)

    def _order(self, mission_id: str) -> ExecutionOrder:
        order = self.segments.order(self.store.state(mission_id), "")
        return replace(order, request_id=_order_id(order))

    async def _refused(self, mission_id: str, error: ExecutorRefusedError) -> None:
        """Record what a refusal does to a mission that nobody has claimed."""
        refused, sealed = self.segments.refusal(error)

        def decide(mission: Mission) -> Decision:
            if mission.status not in WAITING:
                return Decision(payloads=())
            return Decision(payloads=decisions.decide_refusal(refused), **kept_refusal(refused, sealed))

        if decisions.decide_refusal(refused):
            await self.store.record(mission_id, ORCHESTRATOR, decide)


def _order_id(order: ExecutionOrder) -> str:
    """Return the id of an order: what is sent again is the same request, also by the next process."""
    signed = [one.key_id for one in order.plan.signatures]
    approvals = [one.digest for one in order.approvals]
    named = json.dumps([order.mission_id, order.plan.digest, signed, order.report.digest, approvals]).encode()
    return "execute-" + digest(named).removeprefix(PREFIX)[:40]


@dataclass(slots=True)
class _Place:
    """Where a run is in the executor's stream, and whether it goes on after what it was told."""

    claimed: bool
    first_pause: float
    token: str = ""
    failures: int = 0

    def heard(self, update: ExecutionUpdate) -> None:
        self.token, self.claimed, self.failures = update.resume_token or self.token, True, 0

    def broken(self, error: ExecutorUnavailableError) -> None:
        """A claimed mission's stream is opened again; an unclaimed one's caller is told."""
        if not self.claimed:
            raise error
        self.failures += 1

    def refused(self, error: ExecutorRefusedError) -> None:
        """Go on after a token that is too old, a claim of ours that we never heard of, and what passes by itself."""
        if not self.claimed and error.reason in CLAIMED:
            self.claimed = True
        elif self.token and error.reason is Reason.RESUME_TOKEN_INVALID:
            self.token = ""
        elif self.claimed and error.reason in decisions.TRANSIENT:
            self.failures += 1
        else:
            raise error

    def pause(self) -> float:
        return min(self.first_pause * 2 ** min(self.failures, 16), LONGEST_PAUSE) if self.failures else 0.0
