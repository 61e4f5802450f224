"""Replaying a long log: what is live is a fold of the log, whatever the missions in it came to."""

import os
from pathlib import Path

import pytest

from orchestrator.adapters.event_codec import JsonEventCodec
from orchestrator.bootstrap import open_log
from orchestrator.service.mission_row import mission_row
from orchestrator.service.replay import replay
from orchestrator.service.replay_until import state_at
from orchestrator.service.streams import MISSIONS, mission_stream
from tests.fakes.long_log import LongLog

pytestmark = pytest.mark.long

EVENTS = int(os.environ.get("GONOGO_REPLAY_EVENTS", "100000"))
"""`make large` asks for a million."""


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_the_replay_of_a_long_log_equals_what_is_live(tmp_path: Path) -> None:
    """Folded into an empty database, the events give the very same rows; so does each mission's own replay."""
    live, empty = open_log(tmp_path / "live" / "events.db"), open_log(tmp_path / "again" / "events.db")
    await LongLog(live).grow(EVENTS)

    found = await replay(live, empty, JsonEventCodec())

    assert (found.equal, found.events, found.broken_at) == (True, live.head(), None)
    assert found.events >= EVENTS
    newest = live.projections(MISSIONS, limit=50)
    assert {row.status for row in newest} >= {"completed", "failed", "paused", "rejected", "expired", "cancelled"}
    for row in newest:
        last = live.stream_version(mission_stream(row.key))
        assert mission_row(state_at(live, JsonEventCodec(), row.key, last).mission) == row
    live.close()
    empty.close()
