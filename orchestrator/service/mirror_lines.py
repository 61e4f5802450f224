"""What the mirrors say: the lines that follow from an event, for people with `tail`, `grep` and `jq`.

A line is a function of the log up to its event and of nothing else: neither the clock nor what was read before goes
into it. That is why a mirror that was lost can be written again, byte for byte the same. What the log does not say is
left out of a line, never guessed.
"""

import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from orchestrator.domain import events as ev
from orchestrator.domain.evidence import Outcome
from orchestrator.domain.mission import ENDED, TRANSITIONS, MissionStatus
from orchestrator.domain.whiteboard import BoardStep, steps_of
from orchestrator.service.event_log import EventReader, StoredEvent
from orchestrator.service.ports import EventCodec
from orchestrator.service.streams import mission_of

LEADS_TO: Final[Mapping[str, MissionStatus]] = {
    name: following for (status, name), following in TRANSITIONS.items() if following is not status
}
"""The events that move a mission, each with the one status that it leads to."""

_ENDING: Final = frozenset(name for name, status in LEADS_TO.items() if status in ENDED)
_NEVER_EXECUTED: Final = frozenset({MissionStatus.REJECTED, MissionStatus.EXPIRED})
_KEPT_PROPOSALS: Final = 1024
_KEPT_MISSIONS: Final = 64
_KEPT_EVENTS: Final = 32
_KEPT_CHARACTERS: Final = 4096
"""How many missions under way are remembered, events of each, and characters of an event; others are read again."""
_STREAM_PAGE: Final = 128
_ABSENT: Final = (None, "")

_SIGNAL_PAYLOADS: Final = (
    ev.MissionProposed,
    ev.PlanSealed,
    ev.DryRunCompleted,
    ev.DiffProposed,
    ev.StepStarted,
    ev.StepCompleted,
    ev.DivergenceDetected,
    ev.RollbackCompleted,
    ev.ExecutionCompleted,
)
_SIGNAL_TYPES: Final = frozenset(ev.TYPES[payload] for payload in _SIGNAL_PAYLOADS)
_PROPOSED: Final = ev.TYPES[ev.MissionProposed]
_EXECUTED: Final = ev.TYPES[ev.ExecutionStarted]
_COMPLETED: Final = ev.TYPES[ev.ExecutionCompleted]
_RATED: Final = ev.TYPES[ev.FeedbackRecorded]
_TELLING: Final = _SIGNAL_TYPES | {_EXECUTED}

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_encode_ascii = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def line_of(fields: Mapping[str, Any]) -> str:
    """Return one line of JSON without what is absent.

    The line is made for a terminal. Where a character of it can not be seen (escape sequences, marks that turn the
    reading direction), the whole line is written in ASCII, which says the same and shows each of them.
    """
    kept = {name: value for name, value in fields.items() if value not in _ABSENT}
    line = _encode(kept)
    return line if line.isprintable() else _encode_ascii(kept)


@dataclass(slots=True, kw_only=True, eq=False)
class _Proposals:
    """How missions began; the events of one mission lie close together in the log."""

    reader: EventReader
    codec: EventCodec
    _kept: "OrderedDict[str, ev.MissionProposed]" = field(default_factory=OrderedDict)

    def of(self, stream_id: str, payload: ev.Payload) -> ev.MissionProposed | None:
        """Return how the mission began that an event with this payload is of."""
        kept = self._kept.get(stream_id)
        if kept is not None:
            return kept
        if not isinstance(payload, ev.MissionProposed):
            payload = self.codec.decode(self.reader.read_stream(stream_id, 0, 1)[0]).payload
        if not isinstance(payload, ev.MissionProposed):
            return None
        self._kept[stream_id] = payload
        if len(self._kept) > _KEPT_PROPOSALS:
            self._kept.popitem(last=False)
        return payload


@dataclass(slots=True, kw_only=True, eq=False)
class MissionLines:
    """`missions.jsonl`: one line for each event that moves a mission."""

    reader: EventReader
    codec: EventCodec
    _proposals: _Proposals = field(init=False)

    def __post_init__(self) -> None:
        self._proposals = _Proposals(reader=self.reader, codec=self.codec)

    def __call__(self, stored: StoredEvent) -> Iterator[str]:
        """Yield the line of an event, where it has one.

        Raises:
            ContractError: the event, or the mission's first, can not be read.
        """
        mission_id = mission_of(stored.stream_id) if stored.type in LEADS_TO else ""
        if not mission_id:
            return
        payload = self.codec.decode(stored).payload
        proposal = self._proposals.of(stored.stream_id, payload)
        yield line_of(
            {
                "pos": stored.pos,
                "seq": stored.version,
                "time": _time(stored),
                "mission": mission_id,
                "status": LEADS_TO[stored.type],
                "event": stored.type,
                "actor": stored.actor,
                "objective": proposal.objective if proposal else None,
                "workspace": proposal.workspace_id if proposal else None,
                "outcome": self._outcome(stored, payload),
                "reason": getattr(payload, "message", "") or getattr(payload, "reason", ""),
            }
        )

    def _outcome(self, stored: StoredEvent, payload: ev.Payload) -> Outcome | None:
        """Return what an end came to: the receipt's outcome, where the end does not say it itself."""
        if stored.type not in _ENDING or LEADS_TO[stored.type] in _NEVER_EXECUTED:
            return None
        return _outcome(payload) or self._executed(stored)

    def _executed(self, stored: StoredEvent) -> Outcome | None:
        """Read from the end of a mission back to where its execution told what it came to, or began."""
        before = stored.version - 1
        while before > 0:
            after = max(0, before - _STREAM_PAGE)
            for one in reversed(self.reader.read_stream(stored.stream_id, after, before - after)):
                if one.type == _COMPLETED:
                    return _outcome(self.codec.decode(one).payload)
            before = after
        return None


@dataclass(slots=True, kw_only=True)
class _Told:
    """What a mission's events say that is worth learning from."""

    workspace: str = ""
    outcome: Outcome | None = None
    report: ev.DryRunCompleted | None = None
    steps: tuple[BoardStep, ...] = ()
    stated_changes: dict[str, int] = field(default_factory=dict)
    changes: dict[str, int] = field(default_factory=dict)
    divergences: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True, eq=False)
class SignalLines:
    """`learning_signals.jsonl`: for each mission that ended after its execution began, one line for each kind of step.

    What a person thinks of a mission has a line of its own, with the rating and the words, whenever it is said.

    A mission that was denied, or never came to be executed, teaches nothing about its steps and has no line. A step
    that was undone did not succeed. Where no step of a kind was begun, nothing is said about success; where no change
    was stated, or none made, nothing about changes.
    """

    reader: EventReader
    codec: EventCodec
    _under_way: "OrderedDict[str, list[StoredEvent]]" = field(default_factory=OrderedDict)
    """What was told of missions from their first event on, by stream: most of them end soon after they began."""
    _proposals: _Proposals = field(init=False)

    def __post_init__(self) -> None:
        self._proposals = _Proposals(reader=self.reader, codec=self.codec)

    def __call__(self, stored: StoredEvent) -> Iterator[str]:
        """Yield the lines of an event, where it ends a mission or is a person's feedback.

        Raises:
            ContractError: one of the mission's events can not be read.
        """
        if stored.type in _TELLING:
            self._keep(stored)
        if stored.type == _RATED:
            yield from self._feedback(stored)
        if stored.type not in _ENDING or LEADS_TO[stored.type] in _NEVER_EXECUTED or not mission_of(stored.stream_id):
            return
        before = self._before(stored)
        if all(one.type != _EXECUTED for one in before):
            return
        told = self._told(before)
        head = {
            "pos": stored.pos,
            "seq": stored.version,
            "time": _time(stored),
            "mission": mission_of(stored.stream_id),
            "workspace": told.workspace,
            "status": LEADS_TO[stored.type],
            "outcome": _outcome(self.codec.decode(stored).payload) or told.outcome,
            "stated_report": told.report.status if told.report else None,
            "stated_risk": told.report.risk if told.report else None,
        }
        for kind in dict.fromkeys(step.kind for step in told.steps):
            yield line_of({**head, **_of_kind(kind, told)})

    def _feedback(self, stored: StoredEvent) -> Iterator[str]:
        payload = self.codec.decode(stored).payload
        mission_id = mission_of(stored.stream_id)
        if not isinstance(payload, ev.FeedbackRecorded) or not mission_id:
            return
        proposal = self._proposals.of(stored.stream_id, payload)
        yield line_of(
            {
                "pos": stored.pos,
                "seq": stored.version,
                "time": _time(stored),
                "mission": mission_id,
                "workspace": proposal.workspace_id if proposal else None,
                "event": stored.type,
                "actor": stored.actor,
                "rating": payload.rating,
                "text": payload.text,
            }
        )

    def _told(self, before: Iterable[StoredEvent]) -> _Told:
        events = [self.codec.decode(one) for one in before if one.type in _SIGNAL_TYPES]
        told = _Told(steps=steps_of(events))
        for event in events:
            _take(told, event.payload)
        return told

    def _keep(self, stored: StoredEvent) -> None:
        """Remember an event of a mission whose first one was seen; one that comes again is there already."""
        if stored.type == _PROPOSED:
            self._under_way[stored.stream_id] = []
            self._under_way.move_to_end(stored.stream_id)
            if len(self._under_way) > _KEPT_MISSIONS:
                self._under_way.popitem(last=False)
        kept = self._under_way.get(stored.stream_id)
        if kept is None or (kept and kept[-1].version >= stored.version):
            return
        kept.append(stored)
        if len(kept) > _KEPT_EVENTS or len(stored.data) > _KEPT_CHARACTERS:
            del self._under_way[stored.stream_id]

    def _before(self, stored: StoredEvent) -> list[StoredEvent]:
        """Return the mission's events that came before the one that ended it."""
        kept = self._under_way.pop(stored.stream_id, None)
        return list(self._read_before(stored)) if kept is None else kept

    def _read_before(self, stored: StoredEvent) -> Iterator[StoredEvent]:
        """Yield those events from the log; outputs of steps are let go of at once."""
        version = 0
        while version < stored.version and (page := self.reader.read_stream(stored.stream_id, version, _STREAM_PAGE)):
            for one in page:
                if one.version < stored.version and one.type in _TELLING:
                    yield one
            version = page[-1].version


def _take(told: _Told, payload: ev.Payload) -> None:
    match payload:
        case ev.MissionProposed():
            told.workspace = payload.workspace_id
        case ev.DryRunCompleted():
            told.report = payload
        case ev.DiffProposed():
            told.stated_changes[payload.step_id] = payload.change_count
        case ev.StepCompleted():
            told.changes[payload.step_id] = payload.change_count
        case ev.DivergenceDetected():
            told.divergences[payload.step_id] = told.divergences.get(payload.step_id, 0) + 1
        case ev.ExecutionCompleted():
            told.outcome = payload.outcome
        case _:  # the fold of the steps has taken it
            pass


def _of_kind(kind: str, told: _Told) -> dict[str, Any]:
    steps = [step for step in told.steps if step.kind == kind]
    statuses = [step.status for step in steps]
    started = len(steps) - statuses.count("planned")
    ended = [step for step in steps if step.end_time is not None]
    return {
        "kind": kind,
        "success": statuses.count("succeeded") == started if started else None,
        "planned": len(steps),
        "started": started,
        "succeeded": statuses.count("succeeded"),
        "failed": statuses.count("failed"),
        "rolled_back": statuses.count("rolled_back"),
        "duration_ms": sum(step.duration_ms for step in ended) if ended else None,
        "stated_changes": _sum(told.stated_changes, steps),
        "changes": _sum(told.changes, steps),
        "divergences": _sum(told.divergences, steps),
    }


def _sum(counts: Mapping[str, int], steps: list[BoardStep]) -> int | None:
    """Return the sum over the steps that have a count; None where none has."""
    found = [counts[step.step_id] for step in steps if step.step_id in counts]
    return sum(found) if found else None


def _outcome(payload: ev.Payload) -> Outcome | None:
    if isinstance(payload, ev.MissionCompleted):
        return Outcome.SUCCESS
    return payload.outcome if isinstance(payload, ev.MissionFailed | ev.ExecutionCompleted) else None


def _time(stored: StoredEvent) -> str:
    seconds, micros = divmod(stored.occurred_at_us, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{micros:06}Z"
