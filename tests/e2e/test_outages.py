"""A dead executor, a full disk, a workspace that goes away: clear errors, nothing changed, nothing lost."""

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from client.approving import fetch_verified
from client.errors import ClientError
from client.exit_codes import ExitCode
from client.json_form import short_name
from client.verification import VerifiedMission
from gonogo import sealing
from gonogo.v1 import evidence_pb2
from tests.e2e.by_hand import Pair, Process, pair, prepared, start_executor
from tests.e2e.installation import tree_of
from tests.e2e.wire_house import Desk, desk, ledger_rows

pytestmark = pytest.mark.long

POLL_SECONDS = 0.05
PATIENCE_SECONDS = 30


def create_plan(name: str, content: str = "hello\n") -> str:
    """Return a plan that creates one file."""
    steps = [{"create_file": {"path": name, "content": content}}]
    return json.dumps({"objective": f"Create {name}", "workspace": "site", "steps": steps})


async def until(holds: Callable[[], object], what: str) -> None:
    """Wait for something to hold, for as long as a slow machine may need."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"it never came to this: {what}"
        await asyncio.sleep(POLL_SECONDS)


async def status_of(one: Desk, mission: str) -> str:
    """Return how a mission stands."""
    return short_name((await one.client.get(mission)).mission, "status")


async def until_status(one: Desk, mission: str, status: str) -> None:
    """Wait until a mission stands so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (found := await status_of(one, mission)) != status:
        assert time.monotonic() < deadline, f"{mission} is {found}, not {status}"
        await asyncio.sleep(POLL_SECONDS)


def restarted(both: Pair) -> Process:
    """Start the executor again where the orchestrator looks for it."""
    address = json.loads((both.house.state / "run" / "ready.json").read_text())["executor"]
    return start_executor(both.house.state, both.house.workspaces, listen=address)


async def test_a_dead_executor_is_told_and_everything_goes_on_when_it_is_back(tmp_path: Path) -> None:
    """Proposals, dry runs and executions say that it is away; approved and queued missions wait for it and run once."""
    with pair(tmp_path) as both:
        house, site = both.house, both.house.workspaces["site"]
        async with desk(house.state) as one:
            proposed = (await one.propose(create_plan("proposed.txt"))).mission.mission_id
            approved = await one.approved(create_plan("approved.txt"))
            queued = await one.approved(create_plan("queued.txt"))
            both.executor.kill()
            before = tree_of(site)
            for command in (("dry-run", proposed), ("execute", approved)):
                error = house.json(*command, code=ExitCode.ERROR)
                assert (error["reason"], bool(error["remedy"])) == ("EXECUTOR_UNAVAILABLE", True)
            async for _ in one.client.execute(queued, detach=True):
                pass
            assert await status_of(one, proposed) == "proposed"
            assert await status_of(one, approved) == "approved"
            assert await status_of(one, queued) == "queued"
            assert tree_of(site) == before
            back = restarted(both)
            try:
                await until_status(one, queued, "completed")
                await until_reachable(one)
                assert (await one.receipt(approved)).execution_status == evidence_pb2.OUTCOME_SUCCESS
                await one.client.dry_run(proposed)
                assert ledger_rows(house.state, [approved, queued, proposed]) == 2
                assert {path.name for path in site.iterdir()} == {"approved.txt", "queued.txt"}
            finally:
                back.stop()


async def until_reachable(one: Desk) -> None:
    """Wait until the orchestrator reaches the executor again."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            await one.client.executor()
        except ClientError:
            await asyncio.sleep(POLL_SECONDS)
        else:
            return


@pytest.mark.sandbox
async def test_an_executor_that_dies_in_an_execution_rolls_it_back_when_it_is_back(tmp_path: Path) -> None:
    """The orchestrator waits for it and gets the signed receipt; nothing is left behind and nothing runs twice."""
    tools = tmp_path / "tools"
    tools.mkdir()
    with pair(tmp_path, tools=[tools]) as both:
        house, site = both.house, both.house.workspaces["site"]
        steps = [
            {"create_file": {"path": "half.txt", "content": ""}},
            {"run_tests": {"argv": ["sh", "-c", f"while ! test -e {tools}/on; do sleep 0.02; done"]}},
            {"create_file": {"path": "rest.txt", "content": ""}},
        ]
        plan = {"objective": "Be cut", "workspace": "site", "failure_policy": "roll_back", "steps": steps}
        async with desk(house.state) as one:
            (tools / "on").touch()
            mission = await one.approved(json.dumps(plan))
            (tools / "on").unlink()
            async for _ in one.client.execute(mission, detach=True):
                pass
            await until((site / "half.txt").exists, "the first step is done")
            await until_status(one, mission, "active")
            both.executor.kill()
            assert await status_of(one, mission) == "active"
            back = restarted(both)
            try:
                await until_status(one, mission, "failed")
                found = await one.client.get(mission)
                receipt = sealing.open_sealed(found.receipt.body, evidence_pb2.Receipt)
                assert short_name(receipt, "execution_status") == "rolled_back"
                assert list(site.iterdir()) == []
                assert house.run("execute", mission, "-o", "json").code == ExitCode.ALREADY_EXECUTED
                assert ledger_rows(house.state, [mission]) == 1
            finally:
                back.stop()


async def test_a_workspace_that_goes_away_is_told_and_comes_back(tmp_path: Path) -> None:
    """Dry run and execution refuse with a reason and a remedy; with the directory back the mission goes through."""
    with pair(tmp_path) as both:
        house, site = both.house, both.house.workspaces["site"]
        away = tmp_path / "away"
        async with desk(house.state) as one:
            mission = await one.approved(create_plan("back.txt"))
            fresh = (await one.propose(create_plan("fresh.txt"))).mission.mission_id
            site.rename(away)
            failed = house.run("dry-run", fresh, "-o", "json")
            assert failed.code != 0
            assert (bool(failed.error["reason"]), bool(failed.error["remedy"])) == (True, True)
            assert failed.error["reason"] != "INTERNAL", failed.error
            refused = house.run("execute", mission, "-o", "json")
            assert refused.code != 0
            assert refused.error["reason"] != "INTERNAL", refused.error
            assert refused.error["remedy"]
            assert not site.exists()
            assert not list(away.iterdir())
            assert ledger_rows(house.state) == 0
            away.rename(site)
            again = await one.approved(create_plan("again.txt"))
            assert (await one.receipt(again)).execution_status == evidence_pb2.OUTCOME_SUCCESS
            if await status_of(one, mission) == "approved":
                assert (await one.receipt(mission)).execution_status == evidence_pb2.OUTCOME_SUCCESS


async def test_another_directory_in_the_workspaces_place_is_never_written_to(tmp_path: Path) -> None:
    """A report was made from one directory; one that took its name since is not what was approved."""
    with pair(tmp_path) as both:
        house, site = both.house, both.house.workspaces["site"]
        (site / "base.txt").write_text("old\n")
        plan = create_plan("base.txt").replace("create_file", "write_file")
        async with desk(house.state) as one:
            mission = await one.approved(plan)
            site.rename(tmp_path / "away")
            site.mkdir()
            refused = house.run("execute", mission, "-o", "json")
            assert refused.code != 0
            assert refused.error["remedy"]
            assert not list(site.iterdir())
            assert (tmp_path / "away" / "base.txt").read_text() == "old\n"


# A full disk, on a small one of its own.

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")


@contextmanager
def small_disk(place: Path, size: str = "24m") -> Iterator[Path]:
    """Mount a small disk in memory at a place."""
    place.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this machine does not let anybody mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Fill a disk to the last byte; make room again afterwards."""
    filling = disk / "filling"
    try:
        with filling.open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1 << 8, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue
        yield
    finally:
        filling.unlink()


def failures(reason: str, remedy: str) -> bool:
    """Tell whether an error is one that helps."""
    return reason in {"STORE_FULL", "OVERLOADED"} and bool(remedy)


@needs_root
async def test_a_full_disk_under_the_executors_state_loses_no_mission(tmp_path: Path) -> None:
    """What can not be kept is refused; what was done is in the ledger, and has its receipt when there is room again."""
    prepared(tmp_path)
    with small_disk(tmp_path / "state" / "executor") as disk, pair(tmp_path) as both:
        house, site = both.house, both.house.workspaces["site"]
        async with desk(house.state) as one:
            large = (await one.propose(create_plan("large.txt", "x" * 200_000))).mission.mission_id
            begun: list[str] = []
            with filled(disk):
                with pytest.raises(ClientError) as caught:
                    await one.client.dry_run(large)
                assert failures(caught.value.reason, caught.value.remedy), (caught.value.reason, caught.value)
                with pytest.raises(ClientError) as caught:
                    await execute_many(one, begun)
                assert failures(caught.value.reason, caught.value.remedy), (caught.value.reason, caught.value)
            await one.client.dry_run(large)
            both.executor.stop()
            back = restarted(both)
            try:
                await until_reachable(one)
                done = {path.name for path in site.iterdir()}
                assert ledger_rows(house.state, begun) == len(done) == ledger_rows(house.state)
                for mission in begun[: len(done)]:
                    await until_settled(one, mission)
                assert (await one.receipt(await one.approved(create_plan("after.txt")))).mission_id
            finally:
                back.stop()


async def execute_many(one: Desk, begun: list[str]) -> None:
    """Execute small missions: the ledger has a little room of its own before it needs the disk's."""
    for number in range(2000):
        begun.append((await one.propose(create_plan(f"small-{number}.txt"))).mission.mission_id)
        verified = await tried(one, begun[-1])
        await one.client.approve(verified, one.signer)
        await one.receipt(begun[-1])


async def tried(one: Desk, mission: str) -> VerifiedMission:
    """Have a mission dry-run; return it verified."""
    await one.client.dry_run(mission)
    return await fetch_verified(one.client, mission)


async def until_settled(one: Desk, mission: str) -> None:
    """Wait until a mission that was begun has its receipt; whoever asks again gets it, and starts nothing."""
    if await status_of(one, mission) == "approved":
        await one.execute(mission)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := await one.client.get(mission)).HasField("receipt"):
        assert time.monotonic() < deadline, f"{mission} has no receipt: {found.mission}"
        await asyncio.sleep(POLL_SECONDS)
    assert short_name(found.mission, "status") in {"completed", "paused"}


@needs_root
async def test_a_full_disk_under_the_orchestrators_log_refuses_and_loses_nothing(tmp_path: Path) -> None:
    """What can not be written down is not begun; what was written is there afterwards, and the log still replays."""
    prepared(tmp_path)
    folder = tmp_path / "state" / "orchestrator"
    callers = (folder / "callers.json").read_bytes()
    with small_disk(folder) as disk:
        (disk / "callers.json").write_bytes(callers)
        (disk / "callers.json").chmod(0o600)
        await _refuses_and_loses_nothing(tmp_path, disk)


async def _refuses_and_loses_nothing(tmp_path: Path, disk: Path) -> None:
    with pair(tmp_path) as both:
        house, site = both.house, both.house.workspaces["site"]
        async with desk(house.state) as one:
            mission = await one.approved(create_plan("room.txt"))
            with filled(disk):
                with pytest.raises(ClientError) as caught:
                    await propose_many(one)
                assert failures(caught.value.reason, caught.value.remedy), (caught.value.reason, caught.value)
                assert not list(site.iterdir())
                assert await status_of(one, mission) == "approved"
            await until_written(one)
            assert (await one.receipt(mission)).execution_status == evidence_pb2.OUTCOME_SUCCESS
        assert house.json("replay")["equal"]


async def propose_many(one: Desk) -> None:
    """Propose large plans: the log has a little room of its own before it needs the disk's."""
    for number in range(200):
        await one.propose(create_plan(f"never-{number}.txt", "x" * 100_000))


async def until_written(one: Desk) -> None:
    """Wait until the log takes something again."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            await one.propose(create_plan("room-again.txt"))
        except ClientError:
            assert time.monotonic() < deadline
            await asyncio.sleep(POLL_SECONDS)
        else:
            return


@needs_root
async def test_a_full_disk_under_the_workspace_undoes_the_mission(tmp_path: Path) -> None:
    """Claimed and out of room half way, the mission is rolled back or aborted, and every old byte is there."""
    with small_disk(tmp_path / "disk", "48m") as disk:
        site = disk / "site"
        with pair(tmp_path, site=site, staging=disk / "staging") as both:
            (site / "kept.txt").write_text("kept\n")
            names = [f"big-{number}" for number in range(8)]
            steps = [{"write_file": {"path": "kept.txt", "content": "new\n"}}]
            steps += [{"create_file": {"path": name, "content": name * 100_000}} for name in names]
            plan = json.dumps(
                {"objective": "Fill it", "workspace": "site", "failure_policy": "roll_back", "steps": steps}
            )
            async with desk(both.house.state) as one:
                mission = await one.approved(plan)
                before = tree_of(site)
                with filled(disk):
                    ran = both.house.run("execute", mission, "-o", "json")
                    assert ran.code != 0
                    assert ran.error["remedy"]
                    assert tree_of(site) == before
                found = await one.client.get(mission)
                if found.HasField("receipt"):
                    receipt = sealing.open_sealed(found.receipt.body, evidence_pb2.Receipt)
                    assert short_name(receipt, "execution_status") in {"rolled_back", "aborted"}
                    assert receipt.errors
                    assert found.mission.status
                again = await one.approved(create_plan("works.txt"))
                assert (await one.receipt(again)).execution_status == evidence_pb2.OUTCOME_SUCCESS
