"""Missions that wait for their turn, and what a restart finds under way.

The queue is in the log: a mission waits because its status says so, and its row says with which priority, for whom, and
from when until when. In memory there is one line for each workspace, made again from the rows at a start, and what
holds a workspace: a mission that is being executed, or one that is paused.

Nothing is polled. A line is looked at when something joins it, when what held its workspace lets go, and when the next
moment comes that somebody waits for. There is one timer, for the nearest of all such moments, and it comes at least
once a minute to find approvals that ran out: waiting for an approval is only rows, and no mission has a timer.

A mission that can not be handed over keeps its place, and its line is tried again after a pause that grows. What is
sent again is the very same request, and only while nobody has claimed the mission; after that it is followed.
"""

import asyncio
import heapq
import logging
from collections.abc import AsyncGenerator, Coroutine, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, Final

from orchestrator.domain import decisions
from orchestrator.domain import events as ev
from orchestrator.domain.errors import OrchestratorError, Reason, malformed
from orchestrator.domain.evidence import Sealed
from orchestrator.domain.mission import Mission, MissionStatus
from orchestrator.domain.queue import Line, QueueWish, Waiting, waiting_of
from orchestrator.service.event_log import PAGE, EventReader, ProjectionCursor
from orchestrator.service.event_log_errors import EventLogError
from orchestrator.service.execution import Executions, MissionUpdate
from orchestrator.service.mission_row import mission_of_row
from orchestrator.service.mission_store import Decision
from orchestrator.service.requests import Request
from orchestrator.service.streams import MISSIONS

SWEEP_EVERY: Final = 60.0
LONGEST_PAUSE: Final = 10.0
MAX_SHOWN: Final = 1000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedMission:
    """One mission that waits, its place, and what it waits for."""

    mission_id: str
    objective: str
    workspace_id: str
    tenant: str
    priority: int
    queued_at: datetime
    not_before: datetime | None
    expires_at: datetime | None
    position: int
    waiting_for: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """What waits: line by line, and how much in all."""

    missions: tuple[QueuedMission, ...]
    depth: int


@dataclass(slots=True, kw_only=True)
class _Place:
    """One workspace: who waits for it, and why nobody gets it now."""

    line: Line = field(default_factory=Line)
    handing: str = ""
    """The mission that this process is handing over, or that it follows after that."""
    holding: dict[str, MissionStatus] = field(default_factory=dict)
    again_at: datetime | None = None
    """Not tried before: the last attempt failed."""
    pause: float = 0.0
    because: str = ""

    @property
    def idle(self) -> bool:
        return not (self.line.waiting or self.handing or self.holding)

    def pauses(self, now: datetime) -> bool:
        """Whether it is too early to try again. A moment that is far off is one of a clock that was set back since."""
        return self.again_at is not None and timedelta() < self.again_at - now <= timedelta(seconds=LONGEST_PAUSE)


@dataclass(slots=True, kw_only=True, eq=False)
class Dispatcher:
    """Drains the queue, one mission per workspace at a time, by priority and with a turn for every tenant."""

    executions: Executions
    reader: EventReader
    first_pause: float = 0.2
    sweep_size: int = 100
    _places: dict[str, _Place] = field(default_factory=dict)
    _moments: list[datetime] = field(default_factory=list)
    _timer: asyncio.TimerHandle | None = None
    _swept_at: datetime | None = None
    _expiring: set[str] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _closed: bool = False
    _gathering: bool = False
    """The lines are not complete yet."""

    def __post_init__(self) -> None:
        self.executions.store.written_listeners.append(self._noted)

    async def enqueue(
        self,
        request: Request,
        reference: str,
        approvals: Sequence[Sealed] = (),
        wish: QueueWish | None = None,
    ) -> AsyncGenerator[MissionUpdate, None]:
        """Queue an approved mission and yield the one event of that; approvals are recorded first.

        A repair plan does not wait for a turn: its mission holds the workspace. It is handed over at once.

        Raises:
            RequestRefusedError: a mission can not be queued so.
            StateForbidsError: the mission is not approved, or is queued, being executed or executed already.
        """
        store, wish = self.executions.store, wish or QueueWish()
        await self.executions.approve(request, reference, approvals)
        mission_id = store.find(reference).mission_id
        if store.state(mission_id).repair_pending:
            yield await self._hand_over_repair(request, mission_id, wish)
            return
        await self.executions.expire(store.state(mission_id))

        def decide(mission: Mission | None) -> Decision:
            decisions.require_executable(mission or store.state(mission_id), running=mission_id in self.executions.runs)
            fault = wish.fault(self.executions.clock.now()) or _too_late(mission, wish)
            if fault is not None:
                raise fault
            return Decision(payloads=(_queued(request, wish),))

        answer = await store.act(mission_id, request, decide)
        mission = answer.mission
        last = mission.last_sequence
        events = tuple(store.events(mission_id, after=last - 1, until=last))
        yield MissionUpdate(mission_id=mission_id, events=events, sequence=last, mission=mission)

    def queue(self, workspace_id: str = "") -> Queue:
        """Return what waits, for one workspace or (empty) for all."""
        now = self.executions.clock.now()
        chosen = {name: place for name, place in self._places.items() if workspace_id in {"", name}}
        shown: list[QueuedMission] = []
        for name in sorted(chosen):
            shown += self._shown(chosen[name], now, MAX_SHOWN - len(shown))
        return Queue(missions=tuple(shown), depth=sum(len(place.line.waiting) for place in chosen.values()))

    def position(self, mission: Mission) -> int:
        """Return a mission's place in its workspace's line, from 1; 0 where it does not wait."""
        place = self._places.get(mission.workspace_id)
        return 0 if place is None else place.line.position(mission.mission_id, self.executions.clock.now())

    def positions(self, missions: Iterable[Mission]) -> dict[str, int]:
        """Return the places of those missions that wait, from 1, each in its workspace's line; read from memory."""
        now = self.executions.clock.now()
        by_workspace: dict[str, list[str]] = {}
        for mission in missions:
            if mission.status is MissionStatus.QUEUED and mission.workspace_id in self._places:
                by_workspace.setdefault(mission.workspace_id, []).append(mission.mission_id)
        found: dict[str, int] = {}
        for workspace_id, mission_ids in by_workspace.items():
            found |= self._places[workspace_id].line.positions(mission_ids, now)
        return found

    def start(self) -> None:
        """Take up what was under way when the last process ended, and begin to wait for the next moment."""
        self._gathering = True  # whoever comes first in a list of the newest is not whose turn it is
        for status in (MissionStatus.ACTIVE, MissionStatus.PAUSED):
            for mission in self._standing(status):
                self._noted(mission)
                self.executions.take_up(mission)
        for mission in self._standing(MissionStatus.QUEUED):
            self._noted(mission)
        self._gathering = False
        for workspace_id, place in tuple(self._places.items()):
            self._wake(workspace_id, place)
        self._spawn(self.executions.adopt(tuple(self._standing(MissionStatus.APPROVED))))
        self._swept_at = self.executions.clock.now()
        self._arm()

    async def close(self) -> None:
        """Stop; what waits stays queued in the log."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def sweep(self) -> None:
        """Expire every waiting mission whose approvals have run out, and let others work in between."""
        for status in (MissionStatus.APPROVED, MissionStatus.QUEUED):
            for missions in self._pages(status, self.sweep_size):
                for mission in missions:
                    with suppress(OrchestratorError):  # an executor that is away: the next sweep asks again
                        await self.executions.expire(mission)
                await asyncio.sleep(0)

    async def _hand_over_repair(self, request: Request, mission_id: str, wish: QueueWish) -> MissionUpdate:
        if wish != QueueWish():
            raise malformed("a repair plan does not wait for a turn", "Leave priority, not_before and expires_at out.")
        mission = await self.executions.begin(request, mission_id)
        return MissionUpdate(mission_id=mission_id, events=(), sequence=mission.last_sequence, mission=mission)

    def _noted(self, mission: Mission) -> None:
        """Take note of where a mission stands: it joins or leaves its line, takes or frees its workspace."""
        mission_id, status = mission.mission_id, mission.status
        place = self._places.get(mission.workspace_id)
        if place is None:
            if status not in _CONCERNED:
                return
            place = self._places[mission.workspace_id] = _Place()
        if status is MissionStatus.QUEUED:
            self._join(place, waiting_of(mission))
        else:
            place.line.drop(mission_id)
        if _holds(mission):
            place.holding[mission_id] = status
        else:
            place.holding.pop(mission_id, None)
        self._wake(mission.workspace_id, place)

    def _join(self, place: _Place, waiting: Waiting) -> None:
        if waiting.mission_id in place.line.waiting:
            return
        place.line.put(waiting)
        for moment in (waiting.not_before, waiting.expires_at):
            if moment is not None:
                self._at(moment)

    def _wake(self, workspace_id: str, place: _Place) -> None:
        """Hand the next mission of a line over, where there is one and nothing is in its way."""
        if place.idle:
            self._places.pop(workspace_id, None)
            return
        if self._closed or self._gathering or place.handing or place.holding or not place.line.waiting:
            return
        now = self.executions.clock.now()
        if place.pauses(now):
            return
        chosen = place.line.first(now)
        if chosen is not None:
            place.handing = chosen.mission_id
            self._spawn(self._dispatch(workspace_id, place, chosen))

    async def _dispatch(self, workspace_id: str, place: _Place, chosen: Waiting) -> None:
        """Hand one mission over and wait until it holds its workspace no longer, or can not be handed over now."""
        failed: BaseException | None = None
        try:
            failed = await self._try(chosen.mission_id)
        except (OrchestratorError, EventLogError) as error:
            failed = error
        except Exception as error:  # noqa: BLE001 - one mission's fault must not stop the line; it is logged whole
            _log.exception("dispatching mission %s failed", chosen.mission_id)
            failed = error
        finally:
            place.handing = ""
        if chosen.mission_id in place.line.waiting:
            self._put_off(place, chosen, failed)
        else:
            place.again_at, place.pause, place.because = None, 0.0, ""
            place.line.serve(chosen.tenant)
        self._wake(workspace_id, place)

    async def _try(self, mission_id: str) -> BaseException | None:
        """Return why a mission waits on, where it does."""
        store, runs = self.executions.store, self.executions.runs
        await self.executions.expire(store.state(mission_id))
        mission = store.state(mission_id)
        run = runs.get(mission_id)
        if run is None and mission.status is MissionStatus.QUEUED:
            run = self.executions.start(mission, None)
        if run is None or run.task is None:
            return None
        await asyncio.wait({run.task})
        return run.error

    def _put_off(self, place: _Place, chosen: Waiting, failed: BaseException | None) -> None:
        """Try the line again after a pause: with another mission first, where the fault may be this one's own."""
        if not _concerns_all(failed):
            place.line.set_back(chosen.mission_id)
        place.pause = min(place.pause * 2 or self.first_pause, LONGEST_PAUSE)
        place.because = _told(failed)
        place.again_at = self.executions.clock.now() + timedelta(seconds=place.pause)
        _log.info("mission %s waits on: %s", chosen.mission_id, place.because)
        self._at(place.again_at)

    def _at(self, moment: datetime) -> None:
        """Look at the lines at a moment."""
        heapq.heappush(self._moments, moment)
        if self._moments[0] is moment:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._closed:
            return
        now = self.executions.clock.now()
        nearest = (self._moments[0] - now).total_seconds() if self._moments else SWEEP_EVERY
        self._timer = asyncio.get_running_loop().call_later(min(max(nearest, 0.0), SWEEP_EVERY), self._look)

    def _look(self) -> None:
        """The moment has come: expire whose time is over, wake the lines, and wait for the next one."""
        now = self.executions.clock.now()
        while self._moments and self._moments[0] <= now:
            heapq.heappop(self._moments)
        for workspace_id, place in tuple(self._places.items()):
            for waiting in tuple(place.line.waiting.values()):
                if waiting.expires_at is not None and waiting.expires_at <= now:
                    self._expire(waiting.mission_id)
            self._wake(workspace_id, place)
        if self._swept_at is None or abs((now - self._swept_at).total_seconds()) >= SWEEP_EVERY:
            self._swept_at = now
            self._spawn(self._swept())
        self._arm()

    def _expire(self, mission_id: str) -> None:
        """Have a mission expire that has waited too long, unless the executor holds it or nobody can tell."""
        if mission_id not in self._expiring:
            self._expiring.add(mission_id)
            self._spawn(self._expired(mission_id))

    async def _expired(self, mission_id: str) -> None:
        try:
            await self.executions.expire(self.executions.store.state(mission_id))
        except (OrchestratorError, EventLogError) as error:
            _log.info("mission %s can not expire yet: %s", mission_id, error)
            self._at(self.executions.clock.now() + timedelta(seconds=LONGEST_PAUSE))
        finally:
            self._expiring.discard(mission_id)

    async def _swept(self) -> None:
        try:
            await self.sweep()
        except EventLogError as error:
            _log.warning("the sweep for missions that ran out failed: %s", error)

    def _shown(self, place: _Place, now: datetime, most: int) -> Iterator[QueuedMission]:
        reason = _in_the_way(place, now)
        for position, one in enumerate(place.line.order(now)[: max(0, most)], 1):
            yield QueuedMission(
                mission_id=one.mission_id,
                objective=one.objective,
                workspace_id=one.workspace_id,
                tenant=one.tenant,
                priority=one.priority,
                queued_at=one.queued_at,
                not_before=one.not_before,
                expires_at=one.expires_at,
                position=position,
                waiting_for=_waiting_for(place, one, position, reason, now),
            )

    def _standing(self, status: MissionStatus) -> Iterator[Mission]:
        return chain.from_iterable(self._pages(status, PAGE))

    def _pages(self, status: MissionStatus, size: int) -> Iterator[list[Mission]]:
        before: ProjectionCursor | None = None
        while page := self.reader.projections(MISSIONS, status=status.value, before=before, limit=size):
            yield [mission_of_row(row) for row in page]
            before = ProjectionCursor(sort_key=page[-1].sort_key, key=page[-1].key)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


_CONCERNED: Final = frozenset({MissionStatus.QUEUED, MissionStatus.ACTIVE, MissionStatus.PAUSED})


def _holds(mission: Mission) -> bool:
    """Whether a mission's execution has its workspace: it goes on, or waits for a person."""
    waits = mission.status is MissionStatus.PAUSED and not decisions.outcome_unknown(mission)
    return mission.status is MissionStatus.ACTIVE or waits


def _queued(request: Request, wish: QueueWish) -> ev.MissionQueued:
    return ev.MissionQueued(
        request_id=request.request_id,
        tenant=request.person,
        priority=wish.priority,
        not_before=wish.not_before,
        expires_at=wish.expires_at,
    )


def _too_late(mission: Mission | None, wish: QueueWish) -> OrchestratorError | None:
    """Return why a mission can not wait so long; None where its approvals hold until it may begin."""
    ends = None if mission is None else mission.approved_until
    if ends is None or wish.not_before is None or wish.not_before < ends:
        return None
    return malformed(
        "the mission's approvals end before its turn can come",
        "Give an earlier `not_before`, or have it approved later.",
    )


_OWN: Final = frozenset({Reason.INTERNAL})
"""Of the refusals that say nothing about a mission, those that may be about it all the same."""


def _concerns_all(failed: BaseException | None) -> bool:
    """Whether what kept a mission from being handed over would keep every other one of its workspace from it, too."""
    if isinstance(failed, OrchestratorError):
        return failed.reason in decisions.TRANSIENT - _OWN
    return isinstance(failed, EventLogError)


def _told(failed: BaseException | None) -> str:
    if failed is None or isinstance(failed, OrchestratorError | EventLogError):
        return "" if failed is None else str(failed)
    return f"an error of the orchestrator: {type(failed).__name__}"


def _in_the_way(place: _Place, now: datetime) -> str:
    """Return why nobody of a line has its turn; empty where the next one can have it."""
    for mission_id, status in place.holding.items():
        paused = status is MissionStatus.PAUSED
        return f"workspace held by {'paused ' if paused else ''}mission {mission_id}" + (
            "" if paused else ", which is being executed"
        )
    if place.handing:
        return f"workspace about to be held by mission {place.handing}"
    if place.again_at is not None and place.pauses(now) and place.because:
        return f"{place.because}; tried again at {_clock(place.again_at)}"
    return ""


def _waiting_for(place: _Place, one: Waiting, position: int, reason: str, now: datetime) -> str:
    if not one.ready(now) and one.not_before is not None:
        return f"not before {_clock(one.not_before)}"
    if place.handing == one.mission_id:
        return "being handed over"
    if reason:
        return reason
    return f"{position - 1} before it" if position > 1 else "its turn, which is now"


def _clock(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
