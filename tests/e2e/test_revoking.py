"""`gonogo revoke` and `gonogo deny` reach the executor itself: in time before the claim, between two steps after it."""

import json
from pathlib import Path

import pytest

from tests.e2e.installation import Installation
from tests.e2e.test_invariants import create_plan, wait_for

pytestmark = pytest.mark.long

STEPS = json.dumps(
    {
        "objective": "Take a while between two files",
        "workspace": "site",
        "failure_policy": "roll_back",
        "steps": [
            {"create_file": {"path": "first.txt", "content": ""}},
            {"run_tests": {"argv": ["sleep", "4"]}},
            {"create_file": {"path": "last.txt", "content": ""}},
        ],
    }
)


def test_what_is_withdrawn_in_time_is_not_executed(house: Installation, site: Path) -> None:
    """The orchestrator holds the approval still, and the executor refuses it."""
    mission = house.approved(create_plan("withdrawn.txt"))
    told = house.json("revoke", mission, "-m", "not today")
    assert (told["in_time"], told["stopping"], told["mission_id"]) == (True, False, mission)
    explained = house.json("policy", "explain", mission)  # from the executor's own log, before anything was refused
    assert (explained["met"], explained["persons"][0]["state"]) == (False, "taken back")
    assert house.json("execute", mission, code=4)["reason"] == "APPROVAL_REVOKED"
    assert not (site / "withdrawn.txt").exists()


def test_a_denial_is_final(house: Installation, site: Path) -> None:
    """Whoever approves again: the mission is over at this executor."""
    mission = house.approved(create_plan("denied.txt"))
    assert house.json("deny", mission, "-m", "never")["in_time"]
    assert house.json("execute", mission, code=3)["reason"] == "NOT_APPROVED"
    assert not (site / "denied.txt").exists()


def test_an_execution_that_runs_stops_before_its_next_step(house: Installation, site: Path) -> None:
    """The step that runs is ended, no other begins, and it waits for a person, whatever its failure policy is."""
    mission = house.approved(STEPS)
    house.json("execute", mission, "--detach")
    wait_for(house, mission, {"active"})
    told = house.json("revoke", mission, "-m", "stop it")
    assert (told["in_time"], told["stopping"]) == (False, True)
    wait_for(house, mission, {"paused"})
    names = [json.loads(line)["type"] for line in house.run("events", mission, "-o", "ndjson").out.splitlines()]
    at = names.index("approval_revoked")
    assert names[at : at + 2] == ["approval_revoked", "execution_paused"]
    assert (site / "first.txt").exists()
    assert not (site / "last.txt").exists()
    house.json("stop", mission, "--roll-back")
    wait_for(house, mission, {"cancelled"})
    assert not (site / "first.txt").exists()


def test_afterwards_it_is_too_late_and_says_so(house: Installation) -> None:
    """A revocation of what has been executed is recorded, and no success."""
    mission = house.approved(create_plan("done.txt"))
    assert house.json("execute", mission)["outcome"] == "success"
    ran = house.run("revoke", mission, "-m", "oh", "-o", "json")
    assert ran.code == 8
    assert (ran.json["in_time"], ran.json["stopping"]) == (False, False)
    assert ran.error["reason"] == "ALREADY_EXECUTED"
