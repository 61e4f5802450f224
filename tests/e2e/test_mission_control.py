"""A mission under control between both services: it fails and is retried, pauses and goes on, is stopped, is repaired.

What fails is a test run whose verdict hangs on a folder of the operator's tools: commands see it, no fingerprint holds
it, and the tests here turn it on and off.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from client.calls import new_request_id
from client.errors import ClientError
from client.json_form import short_name
from client.planfile import parse
from gonogo import sealing
from gonogo.v1 import events_pb2, evidence_pb2, orchestrator_pb2
from tests.e2e.by_hand import Pair, pair, start_executor, start_orchestrator
from tests.e2e.installation import Installation
from tests.e2e.wire_house import HOUR, Desk, desk

pytestmark = pytest.mark.sandbox

SECONDS = 30


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder whose file `on` decides about the verdict."""
    return tmp_path_factory.mktemp("tools")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, tools: Path) -> Iterator[Pair]:
    """Both services; commands see the tools."""
    with pair(tmp_path_factory.mktemp("control"), tools=[tools]) as services:
        yield services


@pytest.fixture
def house(both: Pair) -> Installation:
    return both.house


@pytest.fixture
async def one(house: Installation) -> AsyncIterator[Desk]:
    """A person at work."""
    async with desk(house.state) as opened:
        yield opened


class Controlled:
    """One mission that is executed by a caller who stays, and what persons have it do meanwhile."""

    def __init__(self, one: Desk, mission_id: str, *, execute: bool = True) -> None:
        self.one = one
        self.mission_id = mission_id
        self.caller = asyncio.ensure_future(one.execute(mission_id)) if execute else None

    @property
    def missions(self) -> Any:
        """The service itself: what is asked of it here no command asks."""
        return self.one.client._missions

    async def mission(self) -> orchestrator_pb2.Mission:
        return (await self.one.client.get(self.mission_id)).mission

    async def until(self, holds: Callable[[orchestrator_pb2.Mission], bool]) -> orchestrator_pb2.Mission:
        """Wait until the mission stands as it should."""
        async with asyncio.timeout(SECONDS):
            while not holds(found := await self.mission()):  # noqa: ASYNC110 - a state is polled, not waited for
                await asyncio.sleep(0.02)
        return found

    async def paused(self, kind: str) -> orchestrator_pb2.Mission:
        return await self.until(
            lambda now: short_name(now, "status") == "paused" and short_name(now.pause, "kind") == kind
        )

    async def told(self, action: str, *, roll_back: bool = False, reason: str = "") -> orchestrator_pb2.Mission:
        """Have the execution do something."""
        request = orchestrator_pb2.ControlMissionRequest(
            request_id=new_request_id(),
            mission_id=self.mission_id,
            action=events_pb2.ControlAction.Value(f"CONTROL_ACTION_{action.upper()}"),
            roll_back=roll_back,
            reason=reason,
        )
        mission: orchestrator_pb2.Mission = (await self.missions.ControlMission(request)).mission
        return mission

    async def repaired(self, plan: str) -> orchestrator_pb2.RepairMissionResponse:
        """Give it a repair plan that is dry-run and approved."""
        request = orchestrator_pb2.RepairMissionRequest(
            request_id=new_request_id(), mission_id=self.mission_id, draft=parse(plan.encode()), dry_run=True
        )
        answer: orchestrator_pb2.RepairMissionResponse = await self.missions.RepairMission(request)
        proposed = orchestrator_pb2.ProposeMissionResponse(
            mission=answer.mission, plan=answer.plan, report=answer.report
        )
        await self.one.client.approve(self.one.client.verified(proposed), self.one.signer, lifetime=HOUR)
        return answer

    async def ended(self) -> tuple[orchestrator_pb2.Mission, evidence_pb2.Receipt]:
        """Return how it ended, as the caller who stayed was told."""
        assert self.caller is not None
        async with asyncio.timeout(SECONDS):
            last = await self.caller
        return last.mission, sealing.open_sealed(last.receipt.body, evidence_pb2.Receipt)


def plan(tools: Path, *names: str, test: str = "on") -> str:
    """A plan that writes files, and has a test between the first and the others."""
    first, *others = [{"write_file": {"path": name, "content": f"{name}\n"}} for name in names]
    verdict = {"run_tests": {"argv": ["test", "-e", str(tools / test)]}}
    steps = [first, verdict, *others]
    return json.dumps({"objective": "Try it", "workspace": "site", "steps": steps})


async def failing(one: Desk, tools: Path, *names: str) -> Controlled:
    """Execute a plan whose test worked in the dry run and fails now; return it once it waits."""
    (tools / "on").touch()
    mission_id = await one.approved(plan(tools, *names))
    (tools / "on").unlink()
    controlled = Controlled(one, mission_id)
    await controlled.paused("failure")
    return controlled


async def test_a_failure_pauses_and_a_retry_runs_the_same_step_again(
    house: Installation, one: Desk, site: Path, tools: Path
) -> None:
    """The step before it stands, the step behind it comes after the retry, and one receipt tells it all."""
    mission = await failing(one, tools, "retry-1.txt", "retry-2.txt")
    assert ((site / "retry-1.txt").exists(), (site / "retry-2.txt").exists()) == (True, False)
    (tools / "on").touch()

    await mission.told("retry")
    ended, receipt = await mission.ended()

    assert (short_name(ended, "status"), short_name(receipt, "execution_status")) == ("completed", "success")
    assert (site / "retry-2.txt").read_text() == "retry-2.txt\n"
    assert {step.step_id: step.attempts for step in receipt.steps} == {"s1": 1, "s2": 2, "s3": 1}
    assert [control.action for control in receipt.controls] == ["retry"]


async def test_stop_with_roll_back_leaves_nothing(house: Installation, one: Desk, site: Path, tools: Path) -> None:
    """A person wanted it so: the mission is cancelled, and the workspace is as it was."""
    mission = await failing(one, tools, "stop-1.txt", "stop-2.txt")
    assert (site / "stop-1.txt").exists()

    await mission.told("stop", roll_back=True, reason="not like this")
    ended, receipt = await mission.ended()

    assert (short_name(ended, "status"), short_name(ended, "outcome")) == ("cancelled", "rolled_back")
    assert receipt.abort_reason == "STOPPED"
    assert not (site / "stop-1.txt").exists()


async def test_a_running_mission_pauses_at_the_next_step_and_goes_on(one: Desk, site: Path, tools: Path) -> None:
    """While it is paused nothing runs; resumed, it goes on with the next step."""
    (tools / "on").touch()
    steps = [
        {"run_tests": {"argv": ["sleep", "1"]}},
        {"write_file": {"path": "resumed.txt", "content": "x"}},
    ]
    mission_id = await one.approved(json.dumps({"objective": "Wait", "workspace": "site", "steps": steps}))
    mission = Controlled(one, mission_id)
    await mission.until(lambda now: short_name(now, "status") == "active")

    await mission.told("pause", reason="lunch")
    waiting = await mission.paused("requested")
    assert not (site / "resumed.txt").exists()
    assert waiting.pause.step_id == "s2"
    await mission.told("resume")
    ended, receipt = await mission.ended()

    assert (short_name(ended, "status"), (site / "resumed.txt").exists()) == ("completed", True)
    assert [control.action for control in receipt.controls] == ["pause", "resume"]


async def test_a_stop_ends_what_runs(one: Desk, site: Path, tools: Path) -> None:
    """A long test run dies at once with the whole of its process tree."""
    (tools / "on").touch()
    steps = [
        {"write_file": {"path": "kept.txt", "content": "x"}},
        {"run_tests": {"argv": ["sh", "-c", f"test -e {tools / 'on'} || sleep 25"], "expect": "any"}},
    ]
    mission_id = await one.approved(json.dumps({"objective": "Run on", "workspace": "site", "steps": steps}))
    (tools / "on").unlink()
    mission = Controlled(one, mission_id)
    await mission.until(lambda now: short_name(now, "status") == "active")
    await asyncio.sleep(0.3)
    begun = asyncio.get_running_loop().time()

    await mission.told("stop")
    ended, receipt = await mission.ended()

    assert asyncio.get_running_loop().time() - begun < SECONDS / 3
    assert (short_name(ended, "status"), receipt.abort_reason) == ("cancelled", "STOPPED")
    assert (short_name(ended, "outcome"), (site / "kept.txt").exists()) == ("partial", True)


async def test_a_paused_mission_is_repaired_under_a_plan_of_its_own(
    house: Installation, one: Desk, site: Path, tools: Path
) -> None:
    """Its own dry run from the workspace as it stands, its own approval, the same execution, one receipt."""
    mission = await failing(one, tools, "repair-1.txt", "repair-2.txt")
    draft = {
        "objective": "Without the test",
        "steps": [{"append_text": {"path": "repair-1.txt", "content": "fixed\n"}}],
    }

    answer = await mission.repaired(json.dumps({**draft, "workspace": "site"}))
    again = await one.execute(mission.mission_id)
    ended, receipt = await mission.ended()

    assert (short_name(ended, "status"), ended.segment) == ("completed", 1)
    assert again.receipt == (await one.client.get(mission.mission_id)).receipt
    assert (site / "repair-1.txt").read_text() == "repair-1.txt\nfixed\n"
    assert not (site / "repair-2.txt").exists()
    assert [segment.plan_id for segment in receipt.segments] == [answer.mission.plan_id]
    assert [step.segment for step in receipt.steps if step.step_id == "r1-s1"] == [1]
    found = await one.client.get(mission.mission_id)
    assert [(segment.segment, bool(segment.plan.body), len(segment.approvals)) for segment in found.segments] == [
        (0, True, 1)
    ]
    board = await one.client.whiteboard(mission.mission_id)
    assert {(step.step_id, step.segment) for step in board.steps} >= {("s1", 0), ("r1-s1", 1)}
    assert house.json("whiteboard", mission.mission_id)


async def test_drift_between_a_repair_s_dry_run_and_its_execution_leaves_the_mission_paused(
    one: Desk, site: Path, tools: Path
) -> None:
    """The executor's gate refuses, the plan is void, and the mission waits for what it waited for."""
    mission = await failing(one, tools, "drift-1.txt", "drift-2.txt")
    draft = {"objective": "x", "workspace": "site", "steps": [{"append_text": {"path": "drift-1.txt", "content": "y"}}]}
    await mission.repaired(json.dumps(draft))
    (site / "drift-1.txt").write_text("somebody else's\n")

    with pytest.raises(ClientError) as caught:
        await one.execute(mission.mission_id)

    now = await mission.mission()
    assert caught.value.reason == "BASE_DRIFTED"
    assert (short_name(now, "status"), now.segment, now.plan_digest != "") == ("paused", 0, True)
    await mission.told("stop")
    await mission.ended()


@pytest.mark.parametrize("killed", ["orchestrator", "executor", "both"])
async def test_a_paused_mission_outlives_a_crash_of_either_service(tmp_path: Path, killed: str) -> None:
    """Killed while it waits, with a repair plan approved: it waits again, and the plan is taken, once."""
    tools, folder = tmp_path / "tools", tmp_path / "house"
    tools.mkdir()
    folder.mkdir()
    with pair(folder, tools=[tools]) as services, ExitStack() as closing:
        house, site = services.house, services.house.workspaces["site"]
        async with desk(house.state) as before:
            mission = await failing(before, tools, "crash-1.txt", "crash-2.txt")
            draft = {"objective": "x", "steps": [{"append_text": {"path": "crash-1.txt", "content": "y"}}]}
            await mission.repaired(json.dumps({**draft, "workspace": "site"}))
            address = services.executor.address
            if killed != "executor":
                services.orchestrator.kill()
            if killed != "orchestrator":
                services.executor.kill()
                back = start_executor(house.state, house.workspaces, listen=address, tools=[tools])
                closing.callback(back.stop)
            if killed != "executor":
                closing.callback(start_orchestrator(house.state, address).stop)
                with pytest.raises((ClientError, grpc.aio.AioRpcError)):
                    await mission.ended()
        async with desk(house.state) as after:
            again = Controlled(after, mission.mission_id, execute=False)
            await again.paused("failure")
            ended = await executed_when_it_can_be(after, mission.mission_id)

        receipt = sealing.open_sealed(ended.receipt.body, evidence_pb2.Receipt)
        assert (short_name(ended.mission, "status"), short_name(receipt, "execution_status")) == (
            "completed",
            "success",
        )
        assert (site / "crash-1.txt").read_text() == "crash-1.txt\ny"
        assert [segment.segment for segment in receipt.segments] == [1]
        assert {step.step_id: step.attempts for step in receipt.steps} == {"s1": 1, "s2": 1, "r1-s1": 1}


async def executed_when_it_can_be(one: Desk, mission_id: str) -> orchestrator_pb2.ExecuteMissionResponse:
    """Execute with one request id until the executor can be reached again."""
    asked = new_request_id()
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                return await one.execute(mission_id, request_id=asked)
            except ClientError as error:
                if error.reason != "EXECUTOR_UNAVAILABLE":
                    raise
                await asyncio.sleep(0.1)
