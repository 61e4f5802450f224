"""A mission that waits for a person, as the one who follows it sees it: why, until when, and what can be done."""

from collections.abc import Iterable

from client.api import GonogoClient
from client.errors import ResultError
from client.exit_codes import for_pause
from client.json_form import short_name, to_json
from client.render.layout import shortened
from client.render.pauses import WHY, pause_commands, pause_text
from client.session import Session
from gonogo.v1 import events_pb2, orchestrator_pb2

WAITS = frozenset(WHY) - {events_pb2.PAUSE_KIND_UNKNOWN_OUTCOME}
"""The pauses that a person can end; an outcome that nobody knows is told by the receipt."""
REASONS = {
    events_pb2.PAUSE_KIND_REVOKED: "APPROVAL_REVOKED",
    events_pb2.PAUSE_KIND_UNKNOWN_EFFECT: "EFFECT_UNKNOWN",
}
_MOVES = frozenset({"execution_paused", "execution_resumed", "execution_stopped", "execution_completed"})


async def waiting_mission(
    client: GonogoClient, mission_id: str, events: Iterable[events_pb2.Event]
) -> orchestrator_pb2.Mission | None:
    """Return the mission where these events end with a pause that stands; None where it goes on, or has ended."""
    last = next((one for one in reversed(list(events)) if one.WhichOneof("payload") in _MOVES), None)
    if last is None or last.WhichOneof("payload") != "execution_paused" or last.execution_paused.kind not in WAITS:
        return None
    mission = (await client.get(mission_id)).mission
    return mission if waits(mission) else None


def waits(mission: orchestrator_pb2.Mission) -> bool:
    """Tell whether a mission waits for a person who can have it go on."""
    return mission.status == events_pb2.MISSION_STATUS_PAUSED and mission.pause.kind in WAITS


def show_waiting(session: Session, mission: orchestrator_pb2.Mission) -> None:
    """Show what a mission waits for."""
    session.output.emit(to_json(mission), lambda: pause_text(mission.pause, mission.mission_id))


def waiting_error(mission: orchestrator_pb2.Mission) -> ResultError:
    """Return the end of a command that can not follow a mission any further."""
    pause = mission.pause
    kind = short_name(pause, "kind")
    why = WHY.get(pause.kind, kind or "it does not say for what")
    message = f"the execution waits: {why}" + (f" ({shortened(pause.reason)})" if pause.reason else "")
    if pause.HasField("deadline"):
        message += f"; until {pause.deadline.ToJsonString()}, then {short_name(pause, 'default_action') or 'nothing'}"
    commands = pause_commands(pause, mission.mission_id)
    remedy = ", or ".join(commands) if commands else f"gonogo show {mission.mission_id} tells more"
    reason = REASONS.get(pause.kind, "EXECUTION_PAUSED")
    return ResultError(reason, message, remedy, exit_code=for_pause(kind))


def was_asked_for(mission: orchestrator_pb2.Mission) -> bool:
    """Tell whether it waits because somebody wanted that."""
    return mission.pause.kind == events_pb2.PAUSE_KIND_REQUESTED


def watched_to(mission: orchestrator_pb2.Mission) -> ResultError | None:
    """Return how watching ends at a pause: well, where somebody asked for it."""
    return None if was_asked_for(mission) else waiting_error(mission)
