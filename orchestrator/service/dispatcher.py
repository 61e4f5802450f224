"""Missions that wait for their turn, and what a restart finds under way.

The queue is in the log: a mission waits because its status says so. In memory there is one line per workspace, in the
order in which the missions were queued, and one worker that takes the first of the line at a time. A mission whose
executor can not be reached keeps its place. Waiting for an approval is only rows; a sweep over them finds what has run
out, and no mission has a timer of its own.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from orchestrator.domain import decisions
from orchestrator.domain import events as ev
from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.evidence import Sealed
from orchestrator.domain.mission import Mission, MissionStatus
from orchestrator.service.event_log import EventReader, ProjectionCursor
from orchestrator.service.event_log_errors import EventLogError
from orchestrator.service.execution import Executions, MissionUpdate
from orchestrator.service.mission_row import mission_of_row
from orchestrator.service.mission_store import Decision
from orchestrator.service.requests import Request
from orchestrator.service.streams import MISSIONS

SWEEP_EVERY: Final = 60.0
LONGEST_PAUSE: Final = 10.0

_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True, eq=False)
class Dispatcher:
    """Drains the queue, one mission per workspace at a time, first come first served."""

    executions: Executions
    reader: EventReader
    first_pause: float = 0.2
    _lines: dict[str, deque[str]] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _closed: bool = False

    async def enqueue(
        self, request: Request, reference: str, approvals: Sequence[Sealed] = ()
    ) -> AsyncGenerator[MissionUpdate, None]:
        """Queue an approved mission and yield the one event of that; approvals are recorded first.

        Raises:
            StateForbidsError: the mission is not approved, or is queued, being executed or executed already.
        """
        store = self.executions.store
        await self.executions.approve(request, reference, approvals)
        mission_id = store.find(reference).mission_id
        await self.executions.expire(store.state(mission_id))

        def decide(mission: Mission | None) -> Decision:
            now = mission or store.state(mission_id)
            decisions.require_executable(now, running=mission_id in self.executions.runs)
            return Decision(payloads=(ev.MissionQueued(request_id=request.request_id),))

        answer = await store.act(mission_id, request, decide)
        mission = answer.mission
        self._put(mission)
        last = mission.last_sequence
        events = tuple(store.events(mission_id, after=last - 1, until=last))
        yield MissionUpdate(mission_id=mission_id, events=events, sequence=last, mission=mission)

    def start(self) -> None:
        """Take up what was under way when the last process ended, and begin the sweep."""
        for mission in self._standing(MissionStatus.ACTIVE):
            if mission.mission_id not in self.executions.runs:
                self.executions.start(mission, None, claimed=True)
        queued = sorted(
            self._standing(MissionStatus.QUEUED), key=lambda mission: (mission.queued_at, mission.mission_id)
        )
        for mission in queued:
            self._put(mission)
        self._spawn(self._sweep_forever())

    async def close(self) -> None:
        """Stop; what waits stays queued in the log."""
        self._closed = True
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def sweep(self) -> None:
        """Expire every waiting mission whose approvals have run out."""
        for status in (MissionStatus.APPROVED, MissionStatus.QUEUED):
            for mission in tuple(self._standing(status)):
                with suppress(OrchestratorError):  # an executor that is away: the next sweep asks again
                    await self.executions.expire(mission)

    def _put(self, mission: Mission) -> None:
        if mission.status is not MissionStatus.QUEUED or self._closed:
            return
        line = self._lines.get(mission.workspace_id)
        if line is None:
            line = self._lines[mission.workspace_id] = deque()
            line.append(mission.mission_id)
            self._spawn(self._drain(mission.workspace_id, line))
        elif mission.mission_id not in line:
            line.append(mission.mission_id)

    async def _drain(self, workspace_id: str, line: deque[str]) -> None:
        try:
            while line:
                await self._dispatch(line[0])
                line.popleft()
        finally:
            del self._lines[workspace_id]

    async def _dispatch(self, mission_id: str) -> None:
        """Hand one mission over, and again until it no longer waits."""
        pause = self.first_pause
        while True:
            try:
                await self._try(mission_id)
            except (OrchestratorError, EventLogError) as error:
                _log.info("mission %s waits on: %s", mission_id, error)
            except Exception:  # noqa: BLE001 - one mission's fault must not stop the line; it is logged whole
                _log.exception("dispatching mission %s failed", mission_id)
            if self.executions.store.state(mission_id).status is not MissionStatus.QUEUED:
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _try(self, mission_id: str) -> None:
        store, runs = self.executions.store, self.executions.runs
        await self.executions.expire(store.state(mission_id))
        mission = store.state(mission_id)
        run = runs.get(mission_id)
        if run is None and mission.status is MissionStatus.QUEUED:
            run = self.executions.start(mission, None)
        if run is not None:
            async for _events in run.follow():
                pass

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            try:
                await self.sweep()
            except EventLogError as error:
                _log.warning("the sweep for missions that ran out failed: %s", error)

    def _standing(self, status: MissionStatus) -> Iterator[Mission]:
        before: ProjectionCursor | None = None
        while page := self.reader.projections(MISSIONS, status=status.value, before=before):
            yield from map(mission_of_row, page)
            before = ProjectionCursor(sort_key=page[-1].sort_key, key=page[-1].key)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
