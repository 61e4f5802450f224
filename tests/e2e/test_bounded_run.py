"""The queue and the whole chain in one process: what a bounded run does, leaves and takes up again."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.adapters.ledger_sqlite import SqliteLedger
from executor.domain.errors import StoreError
from gonogo.v1 import evidence_pb2
from orchestrator.domain.errors import OrchestratorError, Reason
from orchestrator.domain.evidence import Outcome
from orchestrator.domain.mission import MissionStatus
from orchestrator.domain.plan import CreateFile, PlanDraft, RunTests, Step
from tests.e2e.bounded_run import ROOT, Chain, Office, asked, bounded_run, chain, replayed

LONG = 60.0


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Chain]:
    """Both services in this process."""
    with chain(tmp_path) as one:
        yield one


async def proposed(office: Office, name: str, *more: Step) -> str:
    """Propose and dry-run a mission that creates a file."""
    steps = (Step(action=CreateFile(path=name, content="hello\n")), *more)
    draft = PlanDraft(objective=f"Create {name}", workspace="site", steps=steps)
    answer = await office.use.missions.propose(asked(), draft)
    await office.dry_run(answer.mission.mission_id)
    return answer.mission.mission_id


async def queued(office: Office, name: str, *more: Step) -> str:
    """Take such a mission into the queue."""
    mission_id = await proposed(office, name, *more)
    await office.approve(mission_id)
    await office.queue(mission_id)
    return mission_id


def test_the_validation_ends_well_and_tells_its_steps() -> None:
    """The command that people run prints every step as held and ends 0."""
    argv = [sys.executable, "-m", "tests.e2e.bounded_run"]
    ran = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[-1] == "the whole chain holds"
    assert all(line.startswith("ok  ") for line in lines[:-1])
    told = "\n".join(lines)
    for step in (
        "proposed",
        "the report's signature holds",
        "unapproved, it is refused",
        "nothing has been touched",
        "real key",
        "queued",
        "executed",
        "the executor's signature",
        "a second execution is refused",
        "gives the same state",
    ):
        assert step in told


async def test_a_bounded_run_works_the_queue_off_in_its_order(house: Chain, tmp_path: Path) -> None:
    """Everything queued is executed once, first come first served, and the queue is empty then."""
    async with Office(house) as office:
        missions = [await queued(office, f"queued-{number}.txt") for number in range(5)]
        assert not list((tmp_path / "site").iterdir())
    run = await bounded_run(house, LONG)
    assert run.finished
    done = {mission.mission_id: mission for mission in run.missions}
    assert {mission.outcome for mission in done.values()} == {Outcome.SUCCESS}
    async with Office(house) as office:
        starts = [office.receipt(mission).started_at.ToDatetime() for mission in missions]
    assert starts == sorted(starts)
    assert {path.name for path in (tmp_path / "site").iterdir()} == {f"queued-{number}.txt" for number in range(5)}
    assert (await bounded_run(house, LONG)).missions == ()
    assert replayed(house)


async def test_a_run_that_is_too_short_leaves_the_mission_to_the_next(tmp_path: Path) -> None:
    """What the executor has claimed goes on without the orchestrator; the next run takes its result up."""
    tools = tmp_path / "tools"
    tools.mkdir()
    waiting = Step(action=RunTests(argv=("sh", "-c", f"while ! test -e {tools}/on; do sleep 0.02; done"), env={}))
    with chain(tmp_path, tools=tools) as house:
        if not house.core.describe().capabilities.ladder_level.runs_commands:
            pytest.skip("needs the sandbox: the mission runs a program that waits")
        (tools / "on").touch()
        async with Office(house) as office:
            mission_id = await queued(office, "slow.txt", waiting)
        (tools / "on").unlink()
        short = await bounded_run(house, 0.5)
        assert not short.finished
        assert [mission.outcome for mission in short.missions] == [None]
        (tools / "on").touch()
        following = await bounded_run(house, LONG)
        assert [mission.status for mission in following.missions] == [MissionStatus.COMPLETED]
        async with Office(house) as office:
            receipt = office.receipt(mission_id)
            kinds = [type(event.payload).__name__ for event in office.use.missions.store.events(mission_id)]
        assert receipt.execution_status == evidence_pb2.OUTCOME_SUCCESS
        assert (kinds.count("MissionStarted"), kinds.count("ReceiptIssued")) == (1, 1)
        assert replayed(house)


async def test_an_unapproved_mission_can_not_be_queued(house: Chain, tmp_path: Path) -> None:
    """The queue takes approved missions only, and a bounded run finds nothing to do."""
    async with Office(house) as office:
        mission_id = await proposed(office, "never.txt")
        with pytest.raises(OrchestratorError) as caught:
            await office.queue(mission_id)
        assert caught.value.reason is Reason.NOT_APPROVED
        assert caught.value.remedy
    assert (await bounded_run(house, LONG)).missions == ()
    assert not list((tmp_path / "site").iterdir())


async def test_a_queued_mission_whose_workspace_drifted_is_proposed_again(house: Chain, tmp_path: Path) -> None:
    """The worker finds the drift at dispatch; the mission wants a fresh dry run and approval, and then goes through."""
    async with Office(house) as office:
        mission_id = await queued(office, "drift.txt")
    (tmp_path / "site" / "drift.txt").write_text("somebody was here\n")
    run = await bounded_run(house, LONG)
    assert [mission.status for mission in run.missions] == [MissionStatus.PROPOSED]
    assert (tmp_path / "site" / "drift.txt").read_text() == "somebody was here\n"
    (tmp_path / "site" / "drift.txt").unlink()
    async with Office(house) as office:
        await office.dry_run(mission_id)
        await office.approve(mission_id)
        await office.queue(mission_id)
    assert [mission.outcome for mission in (await bounded_run(house, LONG)).missions] == [Outcome.SUCCESS]


async def test_a_receipt_that_could_not_be_stored_is_never_taken_for_a_refusal(
    house: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change happened and its end could not be written: the mission no longer counts as waiting to be executed."""

    def full(*_: object, **__: object) -> None:
        raise StoreError("STORE_FULL", "no room", "make room")

    async with Office(house) as office:
        mission_id = await proposed(office, "done.txt")
        await office.approve(mission_id)
        monkeypatch.setattr(SqliteLedger, "finish", full)
        with pytest.raises(OrchestratorError) as caught:
            await office.execute(mission_id)
        monkeypatch.undo()
        assert caught.value.reason is Reason.STORE_FULL
        assert (tmp_path / "site" / "done.txt").exists()
        assert office.use.missions.file(mission_id).mission.status is not MissionStatus.APPROVED
