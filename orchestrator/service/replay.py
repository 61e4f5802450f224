"""Folding a log into an empty one, and comparing what comes out."""

import asyncio
from dataclasses import dataclass, field

from orchestrator.domain.lessons import Tale
from orchestrator.domain.mission import Mission, evolve
from orchestrator.service.event_log import ANY, Append, Count, CountedLog, CountedReader, NewEvent, StoredEvent
from orchestrator.service.event_log_checks import first_bad_event, state_digest
from orchestrator.service.mission_row import mission_row
from orchestrator.service.ports import EventCodec
from orchestrator.service.signals import count_of
from orchestrator.service.streams import mission_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What a replay found; equal digests mean that the live state is a fold of the log and of nothing else."""

    events: int
    missions: int
    live_digest: str
    replayed_digest: str
    broken_at: int | None
    """The first event that is not as it was written, where there is one."""

    @property
    def equal(self) -> bool:
        return self.live_digest == self.replayed_digest and self.broken_at is None


async def replay(live: CountedReader, empty: CountedLog, codec: EventCodec) -> Replayed:
    """Fold every event of a log into an empty one, page by page, and compare missions' rows and signals' counters.

    Raises:
        TransitionError: an event that the state machine does not allow.
        ContractError: an event that can not be read.
    """
    folds = _Folds()
    events = 0
    head = live.head()
    while events < head and (page := live.read_all(events)):
        # One append for each stream: none depends on another, so the log commits the page as one group.
        await asyncio.gather(*(empty.append(append) for append in _appends(page, folds, codec)))
        events = page[-1].pos
    return Replayed(
        events=events,
        missions=len(folds.missions),
        live_digest=state_digest(live),
        replayed_digest=state_digest(empty),
        broken_at=first_bad_event(live),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Folds:
    """Every mission so far: where it stands, and what it teaches."""

    missions: dict[str, Mission] = field(default_factory=dict)
    tales: dict[str, Tale] = field(default_factory=dict)


def _appends(page: tuple[StoredEvent, ...], folds: _Folds, codec: EventCodec) -> list[Append]:
    """Return one append for each stream of a page; a projection's row does not depend on how they are cut."""
    streams: dict[str, list[StoredEvent]] = {}
    for stored in page:
        streams.setdefault(stored.stream_id, []).append(stored)
    return [_append(stream_id, events, folds, codec) for stream_id, events in streams.items()]


def _append(stream_id: str, events: list[StoredEvent], folds: _Folds, codec: EventCodec) -> Append:
    mission_id = mission_of(stream_id)
    tale = folds.tales.setdefault(mission_id, Tale()) if mission_id else Tale()
    counts: list[Count] = []
    for stored in events:
        event = codec.decode(stored)
        if mission_id:
            folds.missions[mission_id] = evolve(folds.missions.get(mission_id), event)
            counts += map(count_of, tale.take(event))
    return Append(
        stream_id=stream_id,
        expected_version=ANY,
        events=tuple(_again(stored) for stored in events),
        projections=(mission_row(folds.missions[mission_id]),) if mission_id else (),
        counts=tuple(counts),
    )


def _again(stored: StoredEvent) -> NewEvent:
    return NewEvent(
        type=stored.type,
        schema_version=stored.schema_version,
        occurred_at_us=stored.occurred_at_us,
        actor=stored.actor,
        data=stored.data,
    )
