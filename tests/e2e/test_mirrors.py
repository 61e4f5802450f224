"""The mirrors and the replay of one mission, on a real pair."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.installation import installed
from tests.e2e.test_invariants import create_plan

pytestmark = pytest.mark.long

PATIENCE_SECONDS = 30


def lines(path: Path, count: int) -> list[dict[str, Any]]:
    """Return a mirror's lines once it has as many."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        found = path.read_text().splitlines() if path.exists() else []
        if len(found) >= count:
            return [json.loads(line) for line in found]
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def test_a_mission_is_mirrored_and_can_be_seen_at_each_of_its_events(tmp_path: Path) -> None:
    """Lines come by themselves, a lost file comes back the same, also after kill -9, and any event has its state."""
    with installed(tmp_path) as house:
        missions, signals = (
            house.state / "orchestrator" / f"{name}.jsonl" for name in ("missions", "learning_signals")
        )
        mission = house.approved(create_plan("seen.txt"))
        house.json("execute", mission)
        assert [line["status"] for line in lines(missions, 4)] == ["proposed", "approved", "active", "completed"]
        signal = lines(signals, 1)[0]
        assert (signal["mission"], signal["success"], signal["stated_changes"], signal["changes"]) == (
            mission,
            True,
            1,
            1,
        )
        whole = missions.read_bytes()
        missions.unlink()
        lines(missions, 4)
        assert missions.read_bytes() == whole
        house.kill()
        missions.write_bytes(whole[:-9])
        house.start()
        lines(missions, 4)
        assert missions.read_bytes() == whole

        board, last = house.json("whiteboard", mission), house.json("events", mission)[-1]["sequence"]
        ended = house.json("replay", "--until", str(last), mission[:12])
        assert (ended["mission"]["status"], ended["mission"]["outcome"]) == (board["status"], board["outcome"])
        assert house.json("replay", "--until", "2", mission)["mission"]["status"] == "proposed"
        assert house.run("replay", "--until", "2", mission).out.startswith("event ")
        beyond = house.json("replay", "--until", "999", mission, code=1)
        assert (beyond["reason"], f"1 to {last}" in beyond["message"]) == ("NOT_FOUND", True)
