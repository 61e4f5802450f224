"""One mission at any of its events: the state is the one that the events up to it lead to."""

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.adapters.event_codec import JsonEventCodec
from orchestrator.domain.errors import Reason, RequestRefusedError
from orchestrator.domain.mission import fold
from orchestrator.service.mission_row import mission_row
from orchestrator.service.replay_until import state_at
from orchestrator.service.streams import MISSIONS, mission_stream
from tests.fakes.orchestrator_house import House
from tests.unit.orchestrator.test_watching import command


async def executed(house: House) -> str:
    """Return the id of a mission that was executed."""
    mission = await house.approved()
    await house.execute(mission)
    return mission.mission_id


async def test_every_event_has_its_state(house: House) -> None:
    """Each is the fold of what came until then; the last is the live row, byte for byte."""
    mission_id = await executed(house)
    events = house.events(mission_id)

    found = state_at(house.log, JsonEventCodec(), mission_id, 1)
    for sequence in range(1, len(events) + 1):
        found = state_at(house.log, JsonEventCodec(), mission_id, sequence)
        assert found.mission == fold(events[:sequence])
        assert (found.event, found.last_sequence, found.broken_at) == (events[sequence - 1], len(events), None)

    assert mission_row(found.mission) == house.log.projection(MISSIONS, mission_id)
    assert [step.status for step in found.steps] == ["succeeded"]


@pytest.mark.parametrize("sequence", [0, -1, 10_000])
async def test_an_event_that_is_not_there_is_refused_with_those_that_are(house: House, sequence: int) -> None:
    """The answer names the range."""
    mission_id = await executed(house)
    last = house.log.stream_version(mission_stream(mission_id))

    with pytest.raises(RequestRefusedError, match=f"its events are 1 to {last}") as caught:
        state_at(house.log, JsonEventCodec(), mission_id, sequence)
    assert caught.value.reason is Reason.NOT_FOUND


async def test_the_beginning_of_an_id_is_enough_where_one_mission_has_it(house: House) -> None:
    """Two that begin so, and none, are refused."""
    first = await house.proposed()
    assert state_at(house.log, JsonEventCodec(), first.mission_id[:8], 1).mission.mission_id == first.mission_id
    await house.proposed()

    for reference in ("m-", "m-0", "m-zzz", "x\n12"):
        with pytest.raises(RequestRefusedError, match=r"no mission|several missions"):
            state_at(house.log, JsonEventCodec(), reference, 1)


async def test_the_command_prints_the_state(house: House) -> None:
    """Beside a running service; an event that is not there ends it with reason and remedy."""
    mission_id = await executed(house)

    shown = await asyncio.to_thread(command, house, "replay", "-o", "json", "--mission", mission_id, "--until", "6")
    beyond = await asyncio.to_thread(command, house, "replay", "--mission", mission_id, "--until", "99")
    alone = await asyncio.to_thread(command, house, "replay", "--until", "6")

    found = json.loads(shown.stdout)
    assert (found["mission_id"], found["sequence"], found["event"]) == (mission_id, 6, "mission_approved")
    assert (found["mission"]["status"], found["steps"][0]["status"]) == ("approved", "planned")
    assert {"plan_digest", "report_digest", "approvals"} <= found["mission"].keys()
    assert (beyond.returncode, json.loads(beyond.stderr)["reason"]) == (1, "NOT_FOUND")
    assert alone.returncode == 2


async def test_an_event_that_was_changed_is_told(house: House) -> None:
    """The state is shown all the same, with the first event that is not as it was written."""
    mission_id = await executed(house)
    database: Path = house.folder / "orchestrator" / "events.db"
    await house.close()
    with closing(sqlite3.connect(database)) as connection, connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
            connection.execute(f'DROP TRIGGER "{name}"')
        connection.execute("UPDATE events SET actor = 'mallory' WHERE version = 5 AND type = 'approval_granted'")

    shown = await asyncio.to_thread(command, house, "replay", "-o", "json", "--mission", mission_id, "--until", "6")

    assert (shown.returncode, json.loads(shown.stdout)["broken_at"]) == (1, 5)
