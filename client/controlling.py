"""Having an execution do something, and waiting a moment for what comes of it.

The answer to a control says how the mission stands as far as its events have come, and those of the control come a
little later. So a command looks again for a moment: a script that reads `status` after `gonogo retry` reads what the
retry led to, and not the pause that it ended. What takes longer than that moment is not waited for.
"""

import asyncio
import time

from client.api import GonogoClient
from client.control_calls import APPROVE_STEP, PAUSE, STOP
from client.errors import ClientError
from client.verification import require_asked_for
from gonogo.v1 import events_pb2, orchestrator_pb2, sealed_pb2

MOMENT = 2.0
VOTE_MOMENT = 0.5
"""For a signature of several: the execution waits on, and nothing more is to come."""
LOOK_EVERY = 0.05
UNDER_WAY = frozenset({events_pb2.MISSION_STATUS_ACTIVE, events_pb2.MISSION_STATUS_PAUSED})
HANDED_OVER = frozenset({events_pb2.MISSION_STATUS_APPROVED, events_pb2.MISSION_STATUS_QUEUED})
"""As which a mission stands whose execution has begun, until the first event of it has come."""


async def fetch_mission(client: GonogoClient, asked: str) -> orchestrator_pb2.Mission:
    """Return the mission that is asked for, by its id or the beginning of it.

    Raises:
        ClientError: there is no such mission, or another was handed out.
    """
    found = (await client.get(asked)).mission
    require_asked_for(asked, found.mission_id)
    return found


async def control_mission(
    client: GonogoClient,
    before: orchestrator_pb2.Mission,
    action: events_pb2.ControlAction.ValueType,
    *,
    reason: str = "",
    roll_back: bool = False,
    document: sealed_pb2.Sealed | None = None,
) -> orchestrator_pb2.Mission:
    """Have a mission's execution do something; returns the mission as it stands a moment later.

    Args:
        client: the client.
        before: the mission as it stood when that was decided.
        action: what is wanted.
        reason: why.
        roll_back: undo everything, with a stop.
        document: the signed word that goes with it.

    Raises:
        ClientError: it does not fit how the execution stands, or the word is refused.
    """
    answer = await client.control(before.mission_id, action, reason=reason, roll_back=roll_back, document=document)
    deadline = time.monotonic() + (VOTE_MOMENT if action == APPROVE_STEP else MOMENT)
    while not _has_come(before, answer, action) and time.monotonic() < deadline:
        await asyncio.sleep(LOOK_EVERY)
        try:
            answer = (await client.get(before.mission_id)).mission
        except ClientError:
            return answer  # the control was taken, whatever keeps us from looking
    return answer


def _has_come(
    before: orchestrator_pb2.Mission, now: orchestrator_pb2.Mission, action: events_pb2.ControlAction.ValueType
) -> bool:
    """Tell whether the mission stands as the control has it stand."""
    if now.status in HANDED_OVER:
        return False
    if now.status not in UNDER_WAY:
        return True
    if action == PAUSE:
        return now.status == events_pb2.MISSION_STATUS_PAUSED
    waits_anew = now.status == events_pb2.MISSION_STATUS_PAUSED and now.pause != before.pause
    if action == STOP:  # it ends the mission, unless nobody knows what the step did that it cut off
        return waits_anew and now.pause.kind == events_pb2.PAUSE_KIND_UNKNOWN_EFFECT
    return waits_anew or now.status != events_pb2.MISSION_STATUS_PAUSED
