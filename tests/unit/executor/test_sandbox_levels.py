"""Each level of the ladder, in the executor's own process, as its operator forces it: what is said and what is done."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from executor.adapters.wire import sealed_from_proto, sealed_to_proto
from executor.domain.ladder import LadderLevel
from executor.settings import SettingsError, read_settings
from gonogo import sealing
from gonogo.v1 import evidence_pb2, executor_pb2, plan_pb2
from tests.contract.test_executor_grpc import everything, message
from tests.contract.test_executor_process import Installed

pytestmark = pytest.mark.sandbox
ON_THE_WIRE = {level: plan_pb2.LadderLevel.Value(f"LADDER_LEVEL_{level.name}") for level in LadderLevel}
COMMAND = plan_pb2.Step(
    step_id="s1",
    description="make a file",
    stage=plan_pb2.STAGE_EDIT,
    run_command=plan_pb2.RunCommand(argv=["/bin/sh", "-c", "echo made > made; rm old; cat kept"]),
)
READ = plan_pb2.Step(
    step_id="s1",
    description="read a file",
    stage=plan_pb2.STAGE_RETRIEVE,
    read_file=plan_pb2.ReadFile(path="kept"),
)


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Installed]:
    installed = Installed(tmp_path)
    for name in ("kept", "old"):
        (installed.site / name).write_text("base\n")
    yield installed
    installed.people.close()
    if installed.process is not None and installed.process.poll() is None:
        installed.process.kill()
        installed.process.communicate()


class Asked:
    """One executor at a level, and what it answers."""

    def __init__(self, installed: Installed, stub: Any) -> None:
        self.people, self.stub = installed.people, stub
        self.missions = 0

    async def dry_run(self, step: plan_pb2.Step | None = None) -> tuple[Any, evidence_pb2.Report]:
        self.missions += 1
        plan = self.people.plan(mission=f"m-{self.missions}")
        if step is not None:
            plan.steps[0].CopyFrom(step)
        self.plan = self.people.sealed_plan(plan)
        request = executor_pb2.DryRunRequest(request_id=self.people.next_request(), plan=sealed_to_proto(self.plan))
        self.report = sealed_from_proto((await everything(self.stub.DryRun(request)))[-1].report)
        return self.report, sealing.open_sealed(self.report.body, evidence_pb2.Report)

    async def execute(self) -> evidence_pb2.Receipt:
        request = message(self.people.request(self.plan, self.report, self.people.approve(self.plan, self.report)))
        last = (await everything(self.stub.Execute(request)))[-1]
        return sealing.open_sealed(last.receipt.body, evidence_pb2.Receipt)


@pytest.mark.parametrize("level", [LadderLevel.L3, LadderLevel.L2])
async def test_a_level_that_runs_commands(installed: Installed, level: LadderLevel) -> None:
    """GetExecutor, report and receipt name the level, and what a command made in its copy is what is committed."""
    installed.start("--max-ladder-level", level.name)
    async with installed.served().stub() as stub:
        told = await stub.GetExecutor(executor_pb2.GetExecutorRequest())
        assert (told.ladder_level, told.workspaces[0].ladder_level) == (ON_THE_WIRE[level],) * 2
        findings = {finding.name: finding for finding in told.findings}
        assert ("private_copy" in findings, "overlay" in findings) == (level is LadderLevel.L2, level is LadderLevel.L3)
        assert "is in force" in findings["seccomp"].detail
        assert "pids" in findings["cgroups"].detail
        assert bool(told.workspaces[0].limitation) is (level is LadderLevel.L2)
        asked = Asked(installed, stub)
        _, report = await asked.dry_run(COMMAND)
        assert (report.status, report.ladder_level) == (evidence_pb2.REPORT_STATUS_SUCCESS, ON_THE_WIRE[level]), report
        receipt = await asked.execute()
        assert (receipt.execution_status, receipt.ladder_level) == (evidence_pb2.OUTCOME_SUCCESS, ON_THE_WIRE[level])
    assert sorted(place.name for place in installed.site.iterdir()) == ["kept", "made"]
    assert await asyncio.to_thread(installed.stop) == 0
    scratch = installed.state / "executor" / "scratch"
    assert not scratch.exists() or not list(scratch.iterdir())


async def test_a_level_without_commands(installed: Installed) -> None:
    """At L1 a command is blocked, with what to do, and a typed edit works."""
    installed.start("--max-ladder-level", "L1")
    async with installed.served().stub() as stub:
        told = await stub.GetExecutor(executor_pb2.GetExecutorRequest())
        assert told.workspaces[0].ladder_level == ON_THE_WIRE[LadderLevel.L1]
        assert "--max-ladder-level" in told.workspaces[0].limitation
        asked = Asked(installed, stub)
        _, report = await asked.dry_run(COMMAND)
        assert (report.status, bool(report.problems[0].remedy)) == (evidence_pb2.REPORT_STATUS_BLOCKED, True)
        await asked.dry_run()
        receipt = await asked.execute()
        assert receipt.execution_status == evidence_pb2.OUTCOME_SUCCESS
        assert receipt.ladder_level == ON_THE_WIRE[LadderLevel.L1]
    assert (installed.site / "hello.txt").exists()


async def test_a_level_that_only_reads(installed: Installed) -> None:
    """At L0 what would change something is refused before anybody approves it; reading works."""
    installed.start("--max-ladder-level", "L0")
    async with installed.served().stub() as stub:
        asked = Asked(installed, stub)
        for step in (None, COMMAND):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await asked.dry_run(step)
            assert "only be read" in str(caught.value.details())
        _, report = await asked.dry_run(READ)
        assert (report.status, report.ladder_level) == (
            evidence_pb2.REPORT_STATUS_SUCCESS,
            ON_THE_WIRE[LadderLevel.L0],
        )


def test_the_setting() -> None:
    """It comes from the command line or the environment; an unknown level is no level."""
    needed = ["--workspace", "site=/srv/site"]
    assert read_settings(needed, {}).max_ladder_level is LadderLevel.L3
    assert read_settings(needed, {"GONOGO_MAX_LADDER_LEVEL": "L1"}).max_ladder_level is LadderLevel.L1
    both = read_settings([*needed, "--max-ladder-level", "L2"], {"GONOGO_MAX_LADDER_LEVEL": "L1"})
    assert both.max_ladder_level is LadderLevel.L2
    for wrong in ("4", "l3", ""):
        with pytest.raises(SettingsError, match="level"):
            read_settings([*needed, "--max-ladder-level", wrong], {})
