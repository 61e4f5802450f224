"""A mission of three steps in a real executor, cut anywhere from the gates to the receipt, and the start after it."""

import json
import os
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.faults.calls import KILL
from tests.faults.crew import Crew, Figures, Result, crew
from tests.faults.scenarios import MIXED, NEW, OLD
from tests.faults.worker import Point

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("strace"), pytest.mark.timeout(900)]

STEPS = {"s1", "s2"}
PERMITTED = {"roll_back": {OLD, NEW}, "stop": {OLD, *STEPS, NEW}, "pause": {OLD, NEW}}
# Under the others the start alone decides; under pause a person has it go on from where it waits.
DECIDED = ("roll_back", "stop")
SAYS = {"success": {NEW}, "rolled_back": {OLD}, "aborted": {OLD}, "partial": STEPS}
DOUBLY = 2


def points(workers: Crew, *kinds: str) -> list[Point]:
    """Return the points of the mission's own thread, and those that only the executor's other threads reach."""
    own = [call.fault(kind) for call in workers.list_calls() for kind in kinds]
    every = [call.fault(kind) for call in workers.list_calls(threads=True) for kind in kinds]
    others = [fault for fault in every if fault not in own]
    return [*(Point(faults=(one,)) for one in own), *(Point(faults=(one,), threads=True) for one in others)]


def check(results: Sequence[Result], policy: str) -> None:
    """Assert that recovery has left what the policy permits, and that one receipt says which."""
    assert [str(one) for one in results if one.outcome.broken] == []
    assert [str(one) for one in results if one.outcome.states[-1] not in PERMITTED[policy]] == []
    # How often the background writes depends on how long things take, so a few of its last calls are not met again.
    assert sum(not all(one.outcome.fired) for one in results) <= len(results) // 20
    assert [problem for one in results if (problem := wrong(one))] == []


def wrong(result: Result) -> str:
    """Say what is not right in what the executor tells after its start."""
    told = json.loads(result.outcome.said[-1])
    state = result.outcome.states[-1]
    if not told["claims"]:
        return "" if state == OLD and not told["receipts"] else f"unclaimed and not old: {result}"
    if told["receipts"] != 1 or told["replay"] != "ALREADY_EXECUTED":
        return f"{told}: {result}"
    return "" if state in SAYS.get(told["outcome"], ()) else f"{told['outcome']} and {state}: {result}"


@pytest.mark.parametrize("policy", list(PERMITTED))
def test_a_mission_killed_anywhere(policy: str, table: list[Figures]) -> None:
    """Killed at any call, the next start leaves what the policy promises, and its one receipt says what that is."""
    with crew(f"mission, {policy}", os.getuid(), table) as workers:
        results = workers.play(points(workers, KILL), f"mission, {policy}, killed")
    check(results, policy)
    between = {MIXED} if policy == "stop" else {MIXED, *STEPS}
    assert sum(one.outcome.states[0] in between for one in results) > 5


@pytest.mark.parametrize("policy", DECIDED)
def test_a_mission_on_a_failing_disk(policy: str, table: list[Figures]) -> None:
    """Whichever call fails, the mission ends as its policy promises, at the latest at the next start, and says how."""
    with crew(f"mission, {policy}", os.getuid(), table) as workers:
        results = workers.play(points(workers, "error=EIO"), f"mission, {policy}, call fails")
    check(results, policy)


@pytest.mark.parametrize("policy", DECIDED)
def test_what_a_disk_that_goes_on_failing_leaves_is_told(policy: str, table: list[Figures]) -> None:
    """Where no rename works any more, not even the way back, the receipt says unknown and where the old files are."""
    with crew(f"mission, {policy}", os.getuid(), table) as workers:
        renames = [call for call in workers.list_calls() if call.name == "renameat2"]
        told = [Point(faults=(f"{call.fault('error=EIO')}+",)) for call in renames]
        results = workers.play(told, f"mission, {policy}, renames go on failing")
    assert [str(one) for one in results if one.outcome.broken] == []
    for one in results:
        receipt, state = json.loads(one.outcome.said[-1]), one.outcome.states[-1]
        assert (receipt["receipts"], receipt["replay"]) == (1, "ALREADY_EXECUTED"), one
        if receipt["outcome"] != "unknown":
            assert state in SAYS[receipt["outcome"]] & PERMITTED[policy], one
        else:
            assert any("could not be restored" in text for text in receipt["words"]), one
    words = " ".join(text for one in results for text in json.loads(one.outcome.said[-1])["words"])
    assert "the former version is kept at" in words
    assert {one.outcome.states[-1] for one in results} >= {OLD, MIXED}


def test_a_start_killed_anywhere_is_made_good_by_the_next(table: list[Figures]) -> None:
    """Killed in the mission and again at any call of the next start, the start after that settles it all the same."""
    with crew("mission, roll_back", os.getuid(), table) as workers:
        renames = [one for one in points(workers, KILL) if one.faults[0].startswith("renameat2:")]
        first = workers.play([replace(one, list_next=True) for one in renames])
        mixed = [one for one in first if one.outcome.states[0] == MIXED]
        chosen = mixed[:: max(1, len(mixed) // DOUBLY)][:DOUBLY]
        again = [
            Point(faults=(*one.point.faults, call.fault(KILL)), threads=one.point.threads)
            for one in chosen
            for call in one.outcome.calls
        ]
        results = workers.play(again, "mission killed, start killed")
    check(results, "roll_back")
    assert sum(one.outcome.states[1] == MIXED for one in results) > 5
