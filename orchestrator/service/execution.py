"""Handing approved missions to the executor, and writing down what it does with them.

A run is a task of its own: it owns the executor's stream, and callers only follow it. Events are folded into the state
as they come and written together, at the end or every 50 ms of a longer run; followers see what
is written. When the stream breaks, the run goes on from the last token for as long as it takes; the executor works on
meanwhile. When this process dies, the next one takes the run up again: the log tells how many of the executor's events
it has, and the executor tells the rest.

A mission that the log calls approved or queued may have been claimed all the same, when this process died between
handing it over and writing that down. So the executor is asked before such a mission is called expired or cancelled,
and its answer that the mission was executed already is not an error of the caller's but the execution itself.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from orchestrator.domain import decisions
from orchestrator.domain import events as ev
from orchestrator.domain.errors import (
    ContractError,
    ExecutorRefusedError,
    ExecutorUnavailableError,
    OrchestratorError,
    Reason,
    StateForbidsError,
)
from orchestrator.domain.evidence import Sealed
from orchestrator.domain.mission import WAITING, Mission, MissionStatus
from orchestrator.service.approvals import Approvals
from orchestrator.service.event_log import ProjectionRow
from orchestrator.service.mission_store import Decision, MissionStore
from orchestrator.service.ports import Clock, Documents, ExecutionOrder, ExecutionUpdate, Executor, Ids
from orchestrator.service.recorder import ORCHESTRATOR, Recorder
from orchestrator.service.requests import Answer, Request, reused
from orchestrator.service.run import Run
from orchestrator.service.streams import REFUSALS

LONGEST_PAUSE: Final = 5.0

_CLAIMED: Final = frozenset({Reason.ALREADY_EXECUTED, Reason.ALREADY_CLAIMED})
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
    ids: Ids
    approvals: Approvals
    runs: dict[str, Run]
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
        mission = self.store.find(reference)
        run = self.runs.get(mission.mission_id)
        if run is None or run.request is None or run.request.command_id != request.command_id:
            answer = self.store.answered(request)
            if answer is not None:
                run = self.runs.get(mission.mission_id)
                async for update in self._follow(mission.mission_id, run) if run else self._past(mission.mission_id):
                    yield update
                return
            run = self.start(await self._executable(mission, run), request)
        elif run.request.digest != request.digest:
            raise reused(request)
        async for update in self._follow(mission.mission_id, run):
            yield update

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
            decisions.require_unexecuted(self.store.state(mission_id), running=mission_id in self.runs)
            raise

    def _known(self, request: Request, mission_id: str) -> bool:
        run = self.runs.get(mission_id)
        of_run = run is not None and run.request is not None and run.request.command_id == request.command_id
        return of_run or self.store.answered(request) is not None

    def start(self, mission: Mission, request: Request | None, *, claimed: bool = False) -> Run:
        """Begin to hand a mission over, or to follow one that is claimed. The caller has made sure that it may be."""
        run = Run(mission_id=mission.mission_id, request=request)
        self.runs[mission.mission_id] = run
        run.task = asyncio.ensure_future(self._drive(run, claimed=claimed))
        return run

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
        """Cancel a mission that the executor has not claimed."""
        mission = self.store.find(reference)
        answer = None if mission.status in WAITING else self.store.answered(request)
        if answer is not None:
            return answer
        await self.settled(mission)

        def decide(now: Mission | None) -> Decision:
            present = now or mission
            decisions.require_unclaimed(present, running=present.mission_id in self.runs)
            return Decision(payloads=decisions.decide_cancel(present, reason[:2000]))

        return await self.store.act(mission.mission_id, request, decide)

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

    async def _follow(self, mission_id: str, run: Run) -> AsyncGenerator[MissionUpdate, None]:
        held: MissionUpdate | None = None
        async with aclosing(run.follow()) as batches:
            async for events in batches:
                if held is not None:
                    yield held
                held = MissionUpdate(mission_id=mission_id, events=events, sequence=events[-1].sequence)
                if not run.ended:
                    yield held
                    held = None
        yield self._last(mission_id, held.events if held else ())

    async def _past(self, mission_id: str) -> AsyncGenerator[MissionUpdate, None]:
        """Yield what a run that is over came to, from the log."""
        events = tuple(self.store.events(mission_id))
        begun = (
            at for at, event in enumerate(events) if isinstance(event.payload, ev.MissionStarted | ev.MissionQueued)
        )
        yield self._last(mission_id, events[next(begun, len(events)) :])

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
        recorder = Recorder(self.store, self.documents, self.clock, run)
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
        stream = self.executor.watch(mission_id, "") if claimed else self._sent(run)
        while True:
            try:
                async with aclosing(stream):
                    async for update in stream:
                        place.heard(update)
                        yield update
                        if update.receipt is not None:
                            return
                place.broken(_broken())
            except ExecutorUnavailableError as error:
                place.broken(error)
            except ExecutorRefusedError as error:
                place.refused(error)
            await asyncio.sleep(place.pause())
            stream = self.executor.watch(mission_id, place.token)

    def _sent(self, run: Run) -> AsyncGenerator[ExecutionUpdate, None]:
        order = self._order(run.mission_id)
        run.sent_at = self.clock.now()
        return self.executor.execute(order)

    def _order(self, mission_id: str) -> ExecutionOrder:
        mission, document = self.store.state(mission_id), self.store.document
        plan, report = self.store.plan_of(mission), document(mission_id, mission.report_digest)
        standing = decisions.standing_approvals(mission, self.clock.now())
        approvals = (document(mission_id, granted.approval_digest) for granted in standing)
        if plan is None or report is None:
            raise StateForbidsError(Reason.REPORT_MISSING, "the mission has no report", "Dry-run the mission.")
        return ExecutionOrder(
            request_id=self.ids.new("execute-"),
            mission_id=mission_id,
            workspace_id=mission.workspace_id,
            executor_id=mission.executor_id,
            intent_id=mission.intent_id,
            plan=plan,
            report=report,
            approvals=tuple(sealed for sealed in approvals if sealed is not None),
        )

    async def _refused(self, mission_id: str, error: ExecutorRefusedError) -> None:
        """Record what a refusal does to a mission that nobody has claimed."""
        sealed = error.refusal
        facts = self.documents.open_refusal(sealed) if sealed is not None else None
        refused = ev.GateRefused(
            refusal_id=facts.refusal_id if facts else "",
            gate=facts.gate if facts else 0,
            reason=error.reason.value,
            message=error.message,
            remedy=error.remedy,
            paths=facts.paths if facts else (),
        )

        def decide(mission: Mission) -> Decision:
            if mission.status not in WAITING:
                return Decision(payloads=())
            documents = (sealed,) if sealed is not None else ()
            rows = (_refusal_row(refused, sealed),) if sealed is not None else ()
            return Decision(payloads=decisions.decide_refusal(refused), documents=documents, rows=rows)

        if decisions.decide_refusal(refused):
            await self.store.record(mission_id, ORCHESTRATOR, decide)


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
        if not self.claimed and error.reason in _CLAIMED:
            self.claimed = True
        elif self.token and error.reason is Reason.RESUME_TOKEN_INVALID:
            self.token = ""
        elif self.claimed and error.reason in decisions.TRANSIENT:
            self.failures += 1
        else:
            raise error

    def pause(self) -> float:
        return min(self.first_pause * 2 ** min(self.failures, 16), LONGEST_PAUSE) if self.failures else 0.0


def _refusal_row(refused: ev.GateRefused, sealed: Sealed) -> ProjectionRow:
    return ProjectionRow(
        name=REFUSALS, key=refused.refusal_id, status=sealed.digest, sort_key=refused.refusal_id, data="{}"
    )


def _broken() -> ExecutorUnavailableError:
    return ExecutorUnavailableError(
        Reason.EXECUTOR_UNAVAILABLE,
        "the executor's answer ended before it began",
        "Try again with the same request id; the executor's ledger makes sure that nothing is done twice.",
    )
