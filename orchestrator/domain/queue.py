"""The order in which missions that wait for a workspace have their turn.

The higher priority comes first, always. Among missions of one priority the tenants take turns, a tenant being whoever
queued: who was served longest ago is next, so that a flood of one caller's missions is one turn in the round and not
all of them. Within a tenant the mission that was queued first is first. A mission that can not be handed over is
behind the others until one of them was; one that is not to begin yet is behind all that may.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from typing import Any, Final, TypeAlias

from orchestrator.domain.errors import RequestRefusedError, malformed
from orchestrator.domain.mission import Mission

HIGHEST_PRIORITY: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueWish:
    """How somebody wants a mission queued."""

    priority: int = 0
    not_before: datetime | None = None
    expires_at: datetime | None = None

    def fault(self, now: datetime) -> RequestRefusedError | None:
        """Return why a mission can not be queued so; None where it can."""
        if abs(self.priority) > HIGHEST_PRIORITY:
            most = HIGHEST_PRIORITY
            return malformed(f"the priority is not between {-most} and {most}", "Give one that is, or leave it out.")
        if self.expires_at is not None and self.expires_at <= max(now, self.not_before or now):
            return malformed("the mission would expire before its turn can come", "Give a later `expires_at`.")
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """One mission that waits for its turn."""

    mission_id: str
    objective: str
    workspace_id: str
    tenant: str
    priority: int
    queued_at: datetime
    not_before: datetime | None = None
    expires_at: datetime | None = None
    """When it stops waiting, because whoever queued it said so, or because its approvals end."""

    def ready(self, now: datetime) -> bool:
        return self.not_before is None or self.not_before <= now

    @property
    def place(self) -> tuple[datetime, str]:
        """What orders the missions of one tenant and priority."""
        return self.queued_at, self.mission_id


def waiting_of(mission: Mission) -> Waiting:
    """Return a queued mission as the queue sees it."""
    ends = [end for end in (mission.queue_expires_at, mission.approved_until) if end is not None]
    return Waiting(
        mission_id=mission.mission_id,
        objective=mission.objective,
        workspace_id=mission.workspace_id,
        tenant=mission.tenant,
        priority=mission.priority,
        queued_at=mission.queued_at or mission.updated_at,
        not_before=mission.not_before,
        expires_at=min(ends, default=None),
    )


_Place: TypeAlias = tuple[datetime, str]
_Later: TypeAlias = tuple[datetime, int, _Place]


@dataclass(slots=True, kw_only=True)
class Line:
    """Those who wait for one workspace.

    It may be long, and each of them joins, is shown and leaves once. So those who may begin are kept in order, by
    priority and tenant, and those who may not yet by the time from which they may.
    """

    waiting: dict[str, Waiting] = field(default_factory=dict)
    _ready: dict[int, dict[str, list[_Place]]] = field(default_factory=dict)
    """By priority and tenant; no list is empty."""
    _later: list[_Later] = field(default_factory=list)
    _set_back: dict[str, None] = field(default_factory=dict)
    """Those who had a turn and could not use it, the first first."""
    _served: dict[str, int] = field(default_factory=dict)
    """By tenant, the number of its last turn."""
    _turns: int = 0
    _looked_at: datetime | None = None

    def put(self, mission: Waiting) -> None:
        self.drop(mission.mission_id)
        self.waiting[mission.mission_id] = mission
        self._enter(mission)

    def drop(self, mission_id: str) -> None:
        mission = self.waiting.pop(mission_id, None)
        if mission is not None:
            self._leave(mission)

    def set_back(self, mission_id: str) -> None:
        """Have a mission wait until another one had its turn, or there is none; it is not to block the others."""
        mission = self.waiting.get(mission_id)
        if mission is not None and mission_id not in self._set_back:
            self._leave(mission)
            self._set_back[mission_id] = None

    def serve(self, tenant: str) -> None:
        """Take note of a tenant's turn."""
        self._turns += 1
        self._served[tenant] = self._turns
        back, self._set_back = self._set_back, {}
        for mission_id in back:
            self._enter(self.waiting[mission_id])

    def first(self, now: datetime) -> Waiting | None:
        """Return the mission whose turn it is; None where none may begin yet."""
        self._look(now)
        if not self._ready:
            return next((one for one in map(self.waiting.__getitem__, self._set_back) if one.ready(now)), None)
        tenants = self._ready[max(self._ready)]
        tenant = min(tenants, key=lambda name: (self._served.get(name, 0), tenants[name][0]))
        return self.waiting[tenants[tenant][0][1]]

    def order(self, now: datetime) -> list[Waiting]:
        """Return all in the order in which they would have their turn, were nothing to change."""
        self._look(now)
        ready = (mission_id for tenants, cycle in self._levels() for mission_id in _rounds(tenants, cycle))
        later = (place[1] for _, _, place in self._later)
        return [self.waiting[mission_id] for mission_id in (*ready, *self._set_back, *later)]

    def position(self, mission_id: str, now: datetime) -> int:
        """Return a mission's place in the order, from 1; 0 where it does not wait."""
        mission = self.waiting.get(mission_id)
        if mission is None:
            return 0
        self._look(now)
        before = 0
        for tenants, cycle in self._levels():
            if tenants is self._ready.get(mission.priority) and mission_id not in self._set_back:
                places = tenants.get(mission.tenant, [])
                at = bisect_left(places, mission.place)
                if at < len(places) and places[at] == mission.place:
                    return 1 + before + _turns_before(tenants, cycle, mission.tenant, at)
            before += sum(map(len, tenants.values()))
        if mission_id in self._set_back:
            return 1 + before + list(self._set_back).index(mission_id)
        return 1 + before + len(self._set_back) + bisect_left(self._later, _later(mission))

    def positions(self, mission_ids: Iterable[str], now: datetime) -> dict[str, int]:
        """Return the places of those missions that wait; of several, from one look at the whole line."""
        wanted = self.waiting.keys() & set(mission_ids)
        if len(wanted) < 2:  # noqa: PLR2004 - one alone is found without the order of all
            return {mission_id: self.position(mission_id, now) for mission_id in wanted}
        return {one.mission_id: at for at, one in enumerate(self.order(now), 1) if one.mission_id in wanted}

    def _look(self, now: datetime) -> None:
        """Let those begin whose time has come; where the clock was set back, it may not have come any more."""
        if self._looked_at is not None and now < self._looked_at:
            self._ready.clear()
            self._later.clear()
            for mission in self.waiting.values():
                if mission.mission_id not in self._set_back:
                    self._enter(mission)
        self._looked_at = now
        come = bisect_right(self._later, now, key=itemgetter(0))
        for _, _, place in self._later[:come]:
            self._may_begin(self.waiting[place[1]])
        del self._later[:come]

    def _enter(self, mission: Waiting) -> None:
        if mission.not_before is None:
            self._may_begin(mission)
        else:
            insort(self._later, _later(mission))

    def _may_begin(self, mission: Waiting) -> None:
        insort(self._ready.setdefault(mission.priority, {}).setdefault(mission.tenant, []), mission.place)

    def _leave(self, mission: Waiting) -> None:
        if mission.mission_id in self._set_back:
            del self._set_back[mission.mission_id]
        elif mission.not_before is None or not _taken(self._later, _later(mission)):
            tenants = self._ready[mission.priority]
            _taken(tenants[mission.tenant], mission.place)
            if not tenants[mission.tenant]:
                del tenants[mission.tenant]
            if not tenants:
                del self._ready[mission.priority]

    def _levels(self) -> Iterator[tuple[dict[str, list[_Place]], list[str]]]:
        """Yield the tenants of each priority, the highest first, and the order in which they take turns.

        They take turns in the same order until one has none left; so who has most of them has the last turn, and of
        those with as many the one that comes later in that order.
        """
        served, turns = dict(self._served), self._turns
        for priority in sorted(self._ready, reverse=True):
            tenants = self._ready[priority]
            cycle = sorted(tenants, key=lambda name: (served.get(name, 0), tenants[name][0]))
            yield tenants, cycle
            for turn, name in enumerate(sorted(cycle, key=lambda name: len(tenants[name])), turns + 1):
                served[name] = turns = turn


def _later(mission: Waiting) -> _Later:
    assert mission.not_before is not None  # noqa: S101 - only such a mission is asked for
    return mission.not_before, -mission.priority, mission.place


def _taken(places: list[Any], place: Any) -> bool:
    """Take a place out of a list that is in order; tell whether it was there."""
    at = bisect_left(places, place)
    there = at < len(places) and places[at] == place
    if there:
        del places[at]
    return there


def _rounds(tenants: Mapping[str, list[_Place]], cycle: list[str]) -> Iterator[str]:
    turn = 0
    while cycle:
        cycle = [tenant for tenant in cycle if turn < len(tenants[tenant])]
        yield from (tenants[tenant][turn][1] for tenant in cycle)
        turn += 1


def _turns_before(tenants: Mapping[str, list[_Place]], cycle: list[str], tenant: str, at: int) -> int:
    """Return how many turns there are before the one of a tenant that has had so many."""
    own = cycle.index(tenant)
    return sum(min(len(tenants[name]), at + (place < own)) for place, name in enumerate(cycle))
