"""Missions in memory, and the one way their events get into the log.

Each mission that is in use has a record: its state, and the events that have happened but are not written yet. A
decision is made on the state that includes those, and its append carries them first, so that the log has every event
in the order in which it happened. The log has one writer, this process; a record is therefore right until an append
says otherwise, and then it is read again and the decision made anew.

Whatever writes runs in a task of its own: a caller that goes away between the append and its answer would otherwise
leave a record that knows less than the log. Work that has such a task already (a run, a dry run; nobody cancels those
but the end of the service) writes in it.
"""

import asyncio
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, TypeAlias, TypeVar

from orchestrator.domain.errors import ContractError, OrchestratorError, Reason
from orchestrator.domain.events import (
    ApprovalGranted,
    ApprovalRevoked,
    Event,
    FeedbackRecorded,
    MissionApproved,
    MissionCancelled,
    MissionCompleted,
    MissionExpired,
    MissionFailed,
    MissionQueued,
    MissionRejected,
    Payload,
    event_id,
)
from orchestrator.domain.evidence import Sealed, Signature
from orchestrator.domain.lessons import TELLING, Tale, tale_of
from orchestrator.domain.mission import Mission, PlanSignature, fold
from orchestrator.service.documents import document_of, sealed_of
from orchestrator.service.event_log import Append, CommandRecord, Count, EventLog, ProjectionRow
from orchestrator.service.event_log_errors import CommandConflict, DuplicateCommand, VersionConflict
from orchestrator.service.mission_ids import id_that_begins, no_mission
from orchestrator.service.mission_row import mission_of_row, mission_row
from orchestrator.service.ports import Clock, EventCodec
from orchestrator.service.requests import Answer, Request, check_same, command_record, reused, told_before
from orchestrator.service.signals import count_of
from orchestrator.service.streams import MISSIONS, mission_stream

MAX_RECORDS: Final = 4096
MAX_KEPT_BODY: Final = 256 * 1024
MAX_ATTEMPTS: Final = 8
ENDING: Final = frozenset({MissionCompleted, MissionFailed, MissionCancelled, MissionRejected, MissionExpired})
DECIDED: Final = (ENDING - {MissionCompleted}) | {ApprovalGranted, ApprovalRevoked, MissionApproved, MissionQueued}
"""Events that are written together with a checkpoint: what was decided, what is handed over, and what was not done.

A success is no decision of this side. The executor's own log holds it, and the next checkpoint covers it within a
second, or at once where somebody asks for one.
"""

TEACHING: Final = ENDING | {FeedbackRecorded}
"""Events with which something is counted."""
SIGNALLER: Final = "orchestrator"

T = TypeVar("T")
Listener: TypeAlias = Callable[[tuple[Event, ...], Mission], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is to be written: events, the documents they name, rows beside them, and what the caller is told."""

    payloads: tuple[Payload, ...]
    earlier: "tuple[Happened, ...]" = ()
    """What happened before the decision and is written with it, at times of its own."""
    documents: tuple[Sealed, ...] = ()
    rows: tuple[ProjectionRow, ...] = ()
    told: dict[str, Any] = field(default_factory=dict)
    error: OrchestratorError | None = None
    """Raised after the events are written, where the decision is a refusal that is itself recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """Something that happened, before it has its place in the mission's stream."""

    payload: Payload
    time: datetime
    actor: str


@dataclass(slots=True, eq=False)
class MissionRecord:
    """One mission in use."""

    mission: Mission | None
    """The state, what is not written yet included."""
    version: int = 0
    """The version that the log holds."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    unwritten: list[Event] = field(default_factory=list)
    """In their places after what is written; they move when something else is written before them."""
    documents: dict[str, Sealed] = field(default_factory=dict)
    listeners: list[Listener] = field(default_factory=list)
    tale: Tale | None = None
    """What was written of it, as far as it teaches something; None where that is yet to be read."""

    @property
    def in_use(self) -> bool:
        return bool(self.unwritten or self.listeners or self.lock.locked())

    def tell(self, events: Sequence[Event], tale: Tale | None) -> None:
        """Go on with the tale after what was written: the one that was told with it, or its own."""
        if tale is not None:
            self.tale = tale
        elif self.tale is not None:
            for event in events:
                if type(event.payload) in TELLING:
                    self.tale.take(event)


class MissionStore:
    """Finds missions, and writes what was decided about them."""

    def __init__(self, log: EventLog, codec: EventCodec, clock: Clock) -> None:
        self._log = log
        self._codec = codec
        self._clock = clock
        self._records: OrderedDict[str, MissionRecord] = OrderedDict()
        self.ended_listeners: list[Callable[[Mission], None]] = []
        self.written_listeners: list[Callable[[Mission], None]] = []
        """Called with a mission after each write of it, before anything else is."""
        self._writes: set[asyncio.Task[Any]] = set()

    def find(self, reference: str) -> Mission:
        """Return the mission of an id, or of the beginning of an id where that is unique.

        Raises:
            RequestRefusedError: there is none, or there are several.
        """
        record = self._records.get(reference)
        if record is not None and record.mission is not None:
            return record.mission
        row = self._log.projection(MISSIONS, reference) if reference.isprintable() and reference else None
        return self._use(mission_of_row(row)) if row else self.find(id_that_begins(self._log, reference))

    def state(self, mission_id: str) -> Mission:
        """Return how a mission that exists stands now, what is not written yet included."""
        mission = self._record(mission_id).mission
        if mission is None:
            raise no_mission(mission_id)
        return mission

    async def decided(self, mission_id: str) -> Mission:
        """Return how a mission stands when what is being decided about it right now is written, or has failed."""
        lock = self._record(mission_id).lock
        if lock.locked():
            async with lock:
                pass
        return self.state(mission_id)

    async def create(self, mission_id: str, request: Request, decision: Decision, *, detach: bool = True) -> Answer:
        """Write the first events of a new mission."""
        return await self.act(mission_id, request, lambda _mission: decision, new=True, detach=detach)

    async def act(
        self,
        mission_id: str,
        request: Request,
        decide: Callable[[Mission | None], Decision],
        *,
        new: bool = False,
        detach: bool = True,
    ) -> Answer:
        """Decide on a caller's request and write the decision, once per request.

        A request that was answered before gets that answer again, and nothing is decided. An answer is looked for
        only where the decision fails or its append does: a first request pays nothing for the possibility of a retry.
        Who has a task of its own that no caller can cancel says so with `detach=False`.

        Raises:
            OrchestratorError: what the decision raised, or REQUEST_REUSED.
            EventLogError: the log did not take it; nothing has changed.
        """
        try:
            write = self._decide(mission_id, decide, request.person, request, new=new)
            return await (self._detached(write) if detach else write)
        except DuplicateCommand as duplicate:
            return self.answer_again(request, duplicate.record)
        except CommandConflict:
            raise reused(request) from None
        except OrchestratorError:
            record = self._log.command(request.command_id)
            if record is None:
                raise
            return self.answer_again(request, record)

    async def conclude(
        self, mission_id: str, actor: str, request: Request | None, decision: Decision, *, detach: bool = True
    ) -> Answer:
        """Write what a request that began earlier has come to; the request is recorded with it."""
        write = self._decide(mission_id, lambda _mission: decision, actor, request)
        return await (self._detached(write) if detach else write)

    async def record(self, mission_id: str, actor: str, decide: Callable[[Mission], Decision]) -> Answer:
        """Decide on something that nobody's request asked for, and write the decision."""
        return await self._detached(self._decide(mission_id, _existing(decide), actor, None))

    def happened(self, mission_id: str, happened: Sequence[Happened]) -> Mission:
        """Fold what has happened into the state; the next append carries it."""
        record = self._record(mission_id)
        events = _placed(mission_id, record.mission, happened)
        mission = record.mission = _folded(mission_id, record.mission, events)
        record.unwritten += events
        return mission

    async def write_out(self, mission_id: str) -> None:
        """Write what has happened to a mission and is not written yet."""
        if self.has_unwritten(mission_id):
            await self.record(mission_id, SIGNALLER, lambda _mission: Decision(payloads=()))

    def has_unwritten(self, mission_id: str) -> bool:
        """Whether something has happened to a mission that is not written yet."""
        return self.unwritten(mission_id) > 0

    def unwritten(self, mission_id: str) -> int:
        """Return how many events have happened to a mission that are not written yet."""
        return len(self._record(mission_id).unwritten)

    def forget(self, mission_id: str) -> None:
        """Let go of what has happened to a mission and is not written: it is as the log says."""
        record = self._record(mission_id)
        record.unwritten.clear()
        self._reload(mission_id, record)

    def answer_again(self, request: Request, record: CommandRecord) -> Answer:
        """Return the answer that a request got before, with the mission as it stood then."""
        check_same(request, record)
        told = told_before(record)
        return Answer(mission=self.as_it_was(told.pop("mission_id"), told.pop("sequence")), told=told)

    def answered(self, request: Request) -> Answer | None:
        """Return the answer a request got before, if it got one."""
        record = self._log.command(request.command_id)
        return None if record is None else self.answer_again(request, record)

    def events(self, mission_id: str, after: int = 0, until: int | None = None) -> Iterable[Event]:
        """Yield a mission's written events in order."""
        while page := self._log.read_stream(mission_stream(mission_id), after):
            for stored in page:
                if until is not None and stored.version > until:
                    return
                yield self._codec.decode(stored)
            after = page[-1].version

    def plan_of(self, mission: Mission) -> Sealed | None:
        """Return a mission's sealed plan with its proposer's signatures."""
        return self.signed_plan(mission.mission_id, mission.plan_digest, mission.plan_signatures)

    def signed_plan(self, mission_id: str, digest: str, signed: Sequence[PlanSignature]) -> Sealed | None:
        """Return one of a mission's sealed plans with the signatures that its proposer gave it."""
        plan = self.document(mission_id, digest)
        if plan is None or not signed:
            return plan
        signatures = (
            Signature(key_id=one.key_id, scheme=one.scheme, signature=b64decode(one.signature)) for one in signed
        )
        return replace(plan, signatures=(*plan.signatures, *signatures))

    def document(self, mission_id: str, digest: str) -> Sealed | None:
        """Return a document that a mission names; None for an empty digest.

        Raises:
            ContractError: the log does not hold it.
        """
        if not digest:
            return None
        record = self._records.get(mission_id)
        kept = record.documents.get(digest) if record else None
        if kept is not None:
            return kept
        stored = self._log.document(digest)
        if stored is None:
            raise ContractError(Reason.INTERNAL, f"document {digest} is not in the log", "Run `gonogo doctor`.")
        return sealed_of(stored)

    def listen(self, mission_id: str, listener: Listener) -> Callable[[], None]:
        """Call the listener with every batch of a mission's events that was written; returns what ends that."""
        record = self._record(mission_id)
        record.listeners.append(listener)
        return lambda: record.listeners.remove(listener)

    async def settle(self) -> None:
        """Wait for the writes that are under way."""
        while self._writes:
            await asyncio.wait(self._writes)

    async def _decide(
        self,
        mission_id: str,
        decide: Callable[[Mission | None], Decision],
        actor: str,
        request: Request | None,
        *,
        new: bool = False,
    ) -> Answer:
        for _attempt in range(MAX_ATTEMPTS):
            record = MissionRecord(mission=None, tale=Tale()) if new else self._record(mission_id)
            async with record.lock:
                decision = decide(record.mission)
                try:
                    mission = await self._append(mission_id, record, decision, actor, request)
                except VersionConflict:
                    self._reload(mission_id, record)
                    continue
            if decision.error is not None:
                raise decision.error
            return Answer(mission=mission, told=decision.told)
        raise OrchestratorError(
            Reason.CONFLICT, f"mission {mission_id} kept changing", "Try again with the same request id."
        )

    async def _append(
        self, mission_id: str, record: MissionRecord, decision: Decision, actor: str, request: Request | None
    ) -> Mission:
        carried = tuple(record.unwritten)
        now = self._clock.now()
        decided = [*decision.earlier, *[Happened(payload=item, time=now, actor=actor) for item in decision.payloads]]
        added, tale, counts = self._taught(mission_id, record, decided)
        mission = _folded(mission_id, record.mission, added)
        events = (*carried, *added)
        if events:
            answers = request if decision.error is None else None
            told = command_record(answers, mission, decision.told) if answers else None
            await self._log.append(self._written(mission, record.version, events, decision, told, counts))
            del record.unwritten[: len(carried)]
            self._wrote(record, mission, events, decision, tale)
        return mission

    def planned(self, mission: Mission) -> tuple[tuple[str, str], ...]:
        """Return kind and tool of each step of a mission's present plan."""
        return self._tale(mission.mission_id, self._record(mission.mission_id)).planned

    def _taught(
        self, mission_id: str, record: MissionRecord, decided: Sequence[Happened]
    ) -> tuple[list[Event], Tale | None, tuple[Count, ...]]:
        """Return what was decided as events, with the signals of a mission that ends right before its end.

        With it comes what it adds to the counters, and the tale that goes on from there; None where nothing is counted.
        """
        first = [at for at, item in enumerate(decided) if type(item.payload) in TEACHING][:1]
        if not first:
            return _placed(mission_id, record.mission, decided), None, ()
        before = _placed(mission_id, record.mission, decided[: first[0]])
        tale = self._tale(mission_id, record).copy()
        for event in (*record.unwritten, *before):
            if type(event.payload) in TELLING:
                tale.take(event)
        rest = list(decided[first[0] :])
        if type(rest[0].payload) in ENDING:
            time = rest[0].time
            rest[:0] = [Happened(payload=signal, time=time, actor=SIGNALLER) for signal in tale.recorded()]
        after = _placed(mission_id, record.mission, rest, skipped=len(before))
        counts = [count_of(lesson) for event in after for lesson in tale.take(event)]
        return [*before, *after], tale, tuple(counts)

    def _tale(self, mission_id: str, record: MissionRecord) -> Tale:
        if record.tale is None:
            record.tale = tale_of(self.events(mission_id, until=record.version))
        return record.tale

    def _written(
        self,
        mission: Mission,
        version: int,
        events: Sequence[Event],
        decision: Decision,
        command: CommandRecord | None,
        counts: tuple[Count, ...],
    ) -> Append:
        encode = self._codec.encode
        return Append(
            stream_id=mission_stream(mission.mission_id),
            expected_version=version,
            events=tuple([encode(event.payload, time=event.time, actor=event.actor) for event in events]),
            command=command,
            documents=tuple(document_of(sealed) for sealed in decision.documents),
            projections=(mission_row(mission), *decision.rows),
            counts=counts,
            sign=any(type(event.payload) in DECIDED for event in events),
        )

    def _wrote(
        self,
        record: MissionRecord,
        mission: Mission,
        events: tuple[Event, ...],
        decision: Decision,
        tale: Tale | None,
    ) -> None:
        record.version += len(events)
        record.tell(events, tale)
        self._follow_on(record, mission)
        for sealed in decision.documents:
            if len(sealed.body) <= MAX_KEPT_BODY:
                record.documents[sealed.digest] = sealed
        self._keep(mission.mission_id, record)
        for written in self.written_listeners:
            written(mission)
        for listener in tuple(record.listeners):
            listener(events, mission)
        if mission.has_ended and any(type(event.payload) in ENDING for event in events):
            for ended in self.ended_listeners:
                ended(mission)

    def _follow_on(self, record: MissionRecord, mission: Mission) -> None:
        """Set the state to what was written, and fold what has happened meanwhile onto it."""
        if record.unwritten:
            record.unwritten = _placed(mission.mission_id, mission, record.unwritten)
            mission = _folded(mission.mission_id, mission, record.unwritten)
        record.mission = mission

    def _reload(self, mission_id: str, record: MissionRecord) -> None:
        row = self._log.projection(MISSIONS, mission_id)
        mission = mission_of_row(row) if row else None
        record.version = mission.last_sequence if mission else 0
        record.mission = record.tale = None
        if mission is not None:
            self._follow_on(record, mission)

    def _record(self, mission_id: str) -> MissionRecord:
        record = self._records.get(mission_id)
        if record is None:
            self.find(mission_id)
            record = self._records[mission_id]
        self._records.move_to_end(mission_id)
        return record

    def _use(self, mission: Mission) -> Mission:
        self._keep(mission.mission_id, MissionRecord(mission=mission, version=mission.last_sequence))
        return mission

    def _keep(self, mission_id: str, record: MissionRecord) -> None:
        self._records[mission_id] = record
        if len(self._records) > MAX_RECORDS:
            idle = next((key for key, kept in self._records.items() if not kept.in_use and key != mission_id), None)
            if idle is not None:
                del self._records[idle]

    def as_it_was(self, mission_id: str, sequence: int) -> Mission:
        mission = fold(self.events(mission_id, until=sequence))
        if mission is None:
            raise no_mission(mission_id)
        return mission

    async def _detached(self, write: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(write)
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)
        return await asyncio.shield(task)


def as_decided(mission: Mission, payloads: Sequence[Payload], actor: str, now: datetime) -> Mission:
    """Return the mission as it will stand when a decision is written."""
    decided = [Happened(payload=item, time=now, actor=actor) for item in payloads]
    return _folded(mission.mission_id, mission, _placed(mission.mission_id, mission, decided))


def _existing(decide: Callable[[Mission], Decision]) -> Callable[[Mission | None], Decision]:
    def wrapped(mission: Mission | None) -> Decision:
        if mission is None:
            raise no_mission("")
        return decide(mission)

    return wrapped


def _folded(mission_id: str, mission: Mission | None, events: Sequence[Event]) -> Mission:
    folded = fold(events, mission)
    if folded is None:
        raise no_mission(mission_id)
    return folded


def _placed(
    mission_id: str, mission: Mission | None, happened: Sequence[Happened | Event], *, skipped: int = 0
) -> list[Event]:
    """Return what happened as the events that come next in the mission's stream, some places further on."""
    first = (mission.last_sequence if mission else 0) + 1 + skipped
    return [
        Event(
            event_id=event_id(mission_id, sequence),
            mission_id=mission_id,
            sequence=sequence,
            time=item.time,
            actor=item.actor,
            payload=item.payload,
        )
        for sequence, item in enumerate(happened, first)
    ]
