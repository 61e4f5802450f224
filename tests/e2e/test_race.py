"""Two processes ask for the same three hundred things at the same time: each thing happens once."""

import asyncio
import base64
import itertools
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

from gonogo.v1 import events_pb2, evidence_pb2
from tests.e2e.installation import Installation, tree_of
from tests.e2e.racer import create_plan
from tests.e2e.wire_house import Desk, created, desk, forger, ledger_rows

pytestmark = pytest.mark.long

COUNT = 300
AT_ONCE = 16
PATIENCE_SECONDS = 60
TAKEN = {"ALREADY_EXECUTED", "ALREADY_CLAIMED"}
ROOT = Path(__file__).resolve().parents[2]


def raced(folder: Path, mode: str, state: Path, *lines_of: Iterable[str]) -> list[list[dict[str, str]]]:
    """Run one process for each list of lines, let them go at once, and return what each was answered."""
    start = folder / f"{mode}.start"
    processes, ready = [], []
    for number, lines in enumerate(lines_of):
        listed = folder / f"{mode}.{number}"
        listed.write_text("\n".join(lines) + "\n")
        ready.append(folder / f"{mode}.{number}.ready")
        argv = [sys.executable, "-m", "tests.e2e.racer", mode, str(state), str(listed), str(start)]
        processes.append(subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not all(path.exists() for path in ready) and time.monotonic() < deadline:
        time.sleep(0.01)
    start.touch()
    answers = []
    for process in processes:
        out, errors = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 0, errors
        answers.append(json.loads(out))
    return answers


async def prepared(one: Desk, names: list[str]) -> list[str]:
    """Take each name's plan to an approved mission; return the missions in the order of the names."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def prepare(name: str) -> str:
        async with turns:
            return await one.approved(create_plan(name))

    return list(await asyncio.gather(*map(prepare, names)))


def by_key(answers: list[list[dict[str, str]]]) -> dict[str, list[dict[str, str]]]:
    """Return what each thing was answered, by all who asked for it."""
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    for one in itertools.chain.from_iterable(answers):
        found[one["key"]].append(one)
    return found


def written_once(house: Installation, names: list[str]) -> bool:
    """Tell whether each file is there with its own content, and nothing beside them."""
    tree = tree_of(house.workspaces["site"])
    contents = {name: state[2] for name, state in tree.items() if name in names}
    return contents == {name: f"{name}\n".encode() for name in names}


async def test_two_processes_racing_three_hundred_executions_have_one_winner_each(
    house: Installation, tmp_path: Path
) -> None:
    """Under two request ids one caller wins and the other hears so; under one id both get the one receipt."""
    names = [f"raced-{number:03}.txt" for number in range(COUNT)]
    async with desk(house.state) as one:
        missions = await prepared(one, names)
        shared = set(missions[::2])
        lines = [
            [f"{mission} {mission}-{'both' if mission in shared else caller}" for mission in missions]
            for caller in ("left", "right")
        ]
        sides = raced(tmp_path, "execute", house.state, *lines)
        answers = by_key(sides)
        assert set(answers) == set(missions)
        receipts = {mission: {one["receipt"] for one in told if "receipt" in one} for mission, told in answers.items()}
        assert all(len(found) == 1 for found in receipts.values())
        assert len(set().union(*receipts.values())) == COUNT
        for mission, told in answers.items():
            winners = [one for one in told if "receipt" in one]
            losers = {one["reason"] for one in told if "reason" in one}
            assert len(winners) == (2 if mission in shared else 1), told
            assert losers <= TAKEN, told
        assert all(any("receipt" in one for one in side if one["key"] not in shared) for side in sides)  # a real race
        done = await one.client.list(limit=COUNT, status=events_pb2.MISSION_STATUS_COMPLETED)
    assert {mission.mission_id for mission in done} >= set(missions)
    assert ledger_rows(house.state, missions) == COUNT
    assert written_once(house, names)
    logged = house.run("export")
    events = [json.loads(line) for line in logged.out.splitlines()]
    issued = [event["stream_id"] for event in events if event.get("type") == "receipt_issued"]
    assert len(issued) == len(set(issued)) == COUNT


async def test_two_orchestrators_racing_the_same_approved_missions_have_one_winner_each(
    house: Installation, tmp_path: Path
) -> None:
    """At the executor's own door, with all gates passed by both, the ledger lets one of two in."""
    names = [f"direct-{number:03}.txt" for number in range(COUNT)]
    async with forger(house.state) as bad:
        honest = [await bad.ready(created(name, f"{name}\n")) for name in names]
    lines: list[list[str]] = []
    for caller in ("left", "right"):
        for request in honest:
            request.request_id = f"{request.mission_id}-{caller}"
        lines.append([base64.b64encode(request.SerializeToString()).decode() for request in honest])
    sides = raced(tmp_path, "direct", house.state, *lines)
    assert all(any("receipt" in one for one in side) for side in sides)  # both were in each other's way
    answers = by_key(sides)
    assert set(answers) == {request.mission_id for request in honest}
    for told in answers.values():
        assert sorted("receipt" in one for one in told) == [False, True], told
        assert {one["reason"] for one in told if "reason" in one} <= TAKEN, told
    assert ledger_rows(house.state, answers) == COUNT
    assert written_once(house, names)


async def test_the_same_proposals_from_two_processes_make_three_hundred_missions(
    house: Installation, tmp_path: Path
) -> None:
    """A request id stands for one mission, whoever sends it first and however often."""
    lines = [f"proposed-{number:03}.txt request-{number:03}" for number in range(COUNT)]
    answers = by_key(raced(tmp_path, "propose", house.state, lines, lines))
    assert len(answers) == COUNT
    missions = {key: {one["mission"] for one in told} for key, told in answers.items()}
    assert all(len(found) == 1 for found in missions.values())
    assert len(set().union(*missions.values())) == COUNT
    async with desk(house.state) as one:
        listed = await one.client.list(limit=5 * COUNT, status=events_pb2.MISSION_STATUS_PROPOSED)
    assert len([mission for mission in listed if mission.objective.startswith("Create proposed-")]) == COUNT
    assert {mission.report_status for mission in listed} == {evidence_pb2.REPORT_STATUS_UNSPECIFIED}
