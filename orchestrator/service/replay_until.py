"""One mission as it stood at any of its events: folded from the log, up to that event and no further."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator.domain import events as ev
from orchestrator.domain.errors import Reason, RequestRefusedError
from orchestrator.domain.mission import Mission, fold
from orchestrator.domain.whiteboard import BoardStep, steps_of
from orchestrator.service.event_leaf import is_as_written
from orchestrator.service.event_log import EventReader, StoredEvent
from orchestrator.service.mission_ids import id_that_begins, no_mission
from orchestrator.service.mission_row import mission_row
from orchestrator.service.ports import EventCodec
from orchestrator.service.streams import mission_stream


@dataclass(frozen=True, slots=True, kw_only=True)
class StateAt:
    """A mission after one of its events."""

    mission: Mission
    steps: tuple[BoardStep, ...]
    event: ev.Event
    pos: int
    """The event's place among all events."""
    last_sequence: int
    """How many events the mission has by now."""
    broken_at: int | None
    """The first of the events that is not as it was written, where there is one."""

    def as_json(self) -> dict[str, Any]:
        """Return what a program is told; `mission` is the row that was in the projection then."""
        return {
            "mission_id": self.mission.mission_id,
            "sequence": self.event.sequence,
            "last_sequence": self.last_sequence,
            "pos": self.pos,
            "event": ev.TYPES[type(self.event.payload)],
            "time": self.event.time.isoformat(timespec="microseconds"),
            "actor": self.event.actor,
            "broken_at": self.broken_at,
            "mission": json.loads(mission_row(self.mission).data),
            "steps": [
                {
                    "step_id": step.step_id,
                    "kind": step.kind,
                    "stage": step.stage.value,
                    "target": step.target,
                    "status": step.status,
                    "duration_ms": step.duration_ms,
                }
                for step in self.steps
            ],
        }


def state_at(reader: EventReader, codec: EventCodec, reference: str, sequence: int) -> StateAt:
    """Fold a mission's events up to one of them, by its number in the mission's stream; the first has 1.

    `reference` is the mission's id, or the beginning of it.

    Raises:
        RequestRefusedError: no mission, or more than one, begins so; or it has no such event.
        TransitionError: an event that the state machine does not allow.
        ContractError: an event that can not be read.
    """
    known = reader.stream_version(mission_stream(reference))
    mission_id = reference if known else id_that_begins(reader, reference)
    last = reader.stream_version(mission_stream(mission_id))
    if not 1 <= sequence <= last:
        raise RequestRefusedError(
            Reason.NOT_FOUND,
            f"mission {mission_id} has no event {sequence}: its events are 1 to {last}",
            f"Give a number from 1 to {last}; `gonogo events {mission_id}` lists them.",
        )
    stored = list(_until(reader, mission_id, sequence))
    events = [codec.decode(one) for one in stored]
    mission = fold(events)
    if mission is None or not events:
        raise no_mission(reference)
    return StateAt(
        mission=mission,
        steps=steps_of(events),
        event=events[-1],
        pos=stored[-1].pos,
        last_sequence=last,
        broken_at=next((one.version for one in stored if not is_as_written(one)), None),
    )


def _until(reader: EventReader, mission_id: str, sequence: int) -> Iterator[StoredEvent]:
    version = 0
    while version < sequence and (page := reader.read_stream(mission_stream(mission_id), version)):
        yield from page[: sequence - version]
        version = page[-1].version
