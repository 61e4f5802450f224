"""Missions from proposal to receipt, over a real log and a simulated executor."""

from datetime import timedelta

import pytest

from orchestrator.domain import events as ev
from orchestrator.domain.errors import ExecutorUnavailableError, OrchestratorError, Reason
from orchestrator.domain.evidence import Outcome
from orchestrator.domain.mission import MissionStatus
from orchestrator.domain.plan import PlanDraft, RunCommand, Step, WriteFile
from orchestrator.service.mission_row import mission_of_row, mission_row
from orchestrator.service.streams import MISSIONS
from tests.fakes.executor_simulator import ExecutorSimulator
from tests.fakes.orchestrator_house import House, draft, request
from tests.unit.orchestrator.refusing import refused

S = MissionStatus


@pytest.mark.quick
async def test_a_mission_goes_from_proposal_to_receipt(house: House) -> None:
    """The status goes proposed, approved, active, completed; the log has one of each event of the way."""
    mission = await house.approved()
    assert mission.status is S.APPROVED

    updates = await house.execute(mission)

    assert updates[-1].mission is not None
    assert updates[-1].mission.status is S.COMPLETED
    assert updates[-1].receipt is not None
    assert house.types(mission.mission_id) == [
        "mission_proposed",
        "plan_sealed",
        "dry_run_started",
        "dry_run_completed",
        "approval_granted",
        "mission_approved",
        "mission_started",
        "execution_started",
        "stage_changed",
        "step_started",
        "checkpoint_created",
        "diff_proposed",
        "step_completed",
        "execution_completed",
        "receipt_issued",
        "signal_recorded",
        "mission_completed",
    ]
    sequences = [event.sequence for event in house.events(mission.mission_id)]
    assert sequences == list(range(1, len(sequences) + 1))


async def test_the_whiteboard_tells_the_same_as_the_log(house: House) -> None:
    """Start, end, result, stages, steps and approvals are folded from the events."""
    mission = await house.approved()
    await house.execute(mission)

    board = house.use.watching.board(mission.mission_id)

    assert (board.status, board.outcome, board.objective) == (S.COMPLETED, Outcome.SUCCESS, "Write a file")
    assert board.end_time is not None
    assert board.start_time <= board.end_time
    assert board.result.tools_used == ("write_file",)
    assert "1 of 1 steps succeeded" in board.result.final_answer
    assert [(step.step_id, step.status) for step in board.steps] == [("s1", "succeeded")]
    assert [(stage.stage.value, stage.steps, stage.succeeded) for stage in board.stages] == [("edit", 1, 1)]
    assert board.stages[0].end_time is not None
    assert [approval.approver for approval in board.approvals] == ["owner"]
    assert board.last_sequence == len(house.events(mission.mission_id))


async def test_a_second_execution_is_refused(house: House, executor: ExecutorSimulator) -> None:
    """What was executed is not executed again, and the executor is not even asked."""
    mission = await house.approved()
    await house.execute(mission)
    calls = len(executor.calls)

    error = await refused(house.execute(mission))

    assert (error.reason, error.message) == (Reason.ALREADY_EXECUTED, "Mission has already been executed")
    assert len(executor.calls) == calls
    assert house.types(mission.mission_id).count("receipt_issued") == 1


async def test_an_unapproved_mission_is_refused_and_nothing_is_dispatched(
    house: House, executor: ExecutorSimulator
) -> None:
    """Neither a fresh proposal nor a dry-run one reaches the executor's Execute."""
    mission = await house.proposed()
    first = await refused(house.execute(mission))
    await house.dry_run(mission)
    second = await refused(house.execute(mission))

    assert first.reason is second.reason is Reason.NOT_APPROVED
    assert "execute" not in executor.calls
    assert house.types(mission.mission_id)[-1] == "dry_run_completed"


async def test_drift_sends_the_mission_back_for_a_fresh_dry_run(house: House, executor: ExecutorSimulator) -> None:
    """A refusal for drift leaves a signed document, a returned mission, and a way on."""
    mission = await house.approved()
    executor.base += 1

    error = await refused(house.execute(mission))

    assert error.reason is Reason.BASE_DRIFTED
    assert house.types(mission.mission_id)[-2:] == ["gate_refused", "mission_returned"]
    returned = house.use.missions.file(mission.mission_id)
    assert returned.mission.status is S.PROPOSED
    assert returned.report is None
    assert returned.refusal is not None
    again = await house.approve(returned.mission)
    assert (await house.execute(again))[-1].mission.status is S.COMPLETED  # type: ignore[union-attr]  # the last has it


async def test_outcomes_and_statuses(house: House, executor: ExecutorSimulator) -> None:
    """Partial, rolled back and aborted are failed; unknown is paused and can not be executed again."""
    found = {}
    for outcome in (Outcome.PARTIAL, Outcome.ROLLED_BACK, Outcome.ABORTED, Outcome.UNKNOWN):
        executor.outcome = outcome
        mission = await house.approved()
        last = (await house.execute(mission))[-1].mission
        assert last is not None
        assert last.outcome is outcome
        assert (await refused(house.execute(mission))).reason is Reason.ALREADY_EXECUTED
        found[outcome] = last.status

    assert found == {
        Outcome.PARTIAL: S.FAILED,
        Outcome.ROLLED_BACK: S.FAILED,
        Outcome.ABORTED: S.FAILED,
        Outcome.UNKNOWN: S.PAUSED,
    }


async def test_approvals_that_ran_out_expire_the_mission(house: House, executor: ExecutorSimulator) -> None:
    """Expiry is decided when somebody acts; the executor is asked first whether it holds the mission."""
    mission = await house.approved()
    house.clock.ahead = timedelta(hours=2)

    error = await refused(house.execute(mission))

    assert error.reason is Reason.APPROVAL_EXPIRED
    assert house.mission(mission.mission_id).status is S.EXPIRED
    assert executor.calls[-1] == "execution"
    assert "execute" not in executor.calls


async def test_the_sweep_expires_what_nobody_touches(house: House) -> None:
    """The sweep works on rows: one expired, one not."""
    old = await house.approved()
    house.clock.ahead = timedelta(minutes=50)
    fresh = await house.approve(await house.proposed(), lasts=timedelta(hours=9))
    house.clock.ahead = timedelta(minutes=70)

    await house.use.dispatcher.sweep()

    assert house.mission(old.mission_id).status is S.EXPIRED
    assert house.mission(fresh.mission_id).status is S.APPROVED


async def test_rejecting_and_cancelling(house: House) -> None:
    """Reject is for proposed missions, cancel for those that the executor has not claimed."""
    rejected = await house.use.missions.reject(request(), (await house.proposed()).mission_id, "no")
    cancelled = await house.use.executions.cancel(request(), (await house.approved()).mission_id, "changed my mind")
    done = await house.approved()
    await house.execute(done)

    assert (rejected.mission.status, rejected.mission.reason) == (S.REJECTED, "no")
    assert cancelled.mission.status is S.CANCELLED
    assert (await refused(house.use.executions.cancel(request(), done.mission_id, ""))).reason is Reason.STATE_FORBIDS
    assert (await refused(house.use.missions.reject(request(), done.mission_id, ""))).reason is Reason.STATE_FORBIDS
    assert (await refused(house.execute(rejected.mission))).reason is Reason.STATE_FORBIDS


async def test_a_clone_is_a_new_mission_with_the_same_steps(house: House) -> None:
    """It names the mission it repeats, and begins at proposed."""
    mission = await house.approved()
    await house.execute(mission)

    clone = (await house.use.missions.clone(request(), mission.mission_id)).mission

    assert (clone.status, clone.cloned_from) == (S.PROPOSED, mission.mission_id)
    assert clone.plan_digest != mission.plan_digest
    documents = house.use.missions.documents
    old, new = house.use.missions.file(mission.mission_id).plan, house.use.missions.file(clone.mission_id).plan
    assert old is not None
    assert new is not None
    assert documents.open_plan(old) == documents.open_plan(new)


async def test_an_executor_that_is_away_leaves_everything_as_it_was(house: House, executor: ExecutorSimulator) -> None:
    """A clear error, and the mission is executed when the executor is back."""
    mission = await house.approved()
    executor.away = True
    before = house.types(mission.mission_id)

    with pytest.raises(ExecutorUnavailableError):
        await house.execute(mission)
    assert house.types(mission.mission_id) == before
    executor.away = False

    assert (await house.execute(mission))[-1].receipt is not None


async def test_a_broken_stream_is_taken_up_where_it_broke(house: House, executor: ExecutorSimulator) -> None:
    """No event is lost or doubled, and the caller sees nothing of it."""
    executor.break_after = 3
    mission = await house.approved()

    updates = await house.execute(mission)

    types = house.types(mission.mission_id)
    assert updates[-1].receipt is not None
    assert "watch" in executor.calls
    assert len(types) == 17
    assert [ev.TYPES[type(event.payload)] for update in updates for event in update.events] == types[6:]


async def test_a_prefix_finds_a_mission_where_it_is_unique(house: House) -> None:
    """The beginning of an id is enough, unless it begins several."""
    missions = [await house.proposed() for _ in range(2)]
    first, second = missions[0].mission_id, missions[1].mission_id
    common = next(at for at in range(len(first)) if first[at] != second[at])

    assert house.use.missions.store.find(first[: common + 1]) == missions[0]
    for reference in (first[:common], "m-0", "", "nothing", "x" * 600, "\n"):
        with pytest.raises(OrchestratorError) as caught:
            house.use.missions.store.find(reference)
        assert caught.value.reason is Reason.NOT_FOUND


async def test_pages_list_every_mission_once_newest_first(house: House) -> None:
    """Going from page to page meets each mission once, also when new ones come in between."""
    made = [(await house.proposed()).mission_id for _ in range(5)]
    seen: list[str] = []
    page = house.use.missions.page(size=2, before=None, status=None)
    seen += [mission.mission_id for mission in page.missions]
    await house.proposed()
    while page.next_page is not None:
        page = house.use.missions.page(size=2, before=page.next_page, status=None)
        seen += [mission.mission_id for mission in page.missions]

    assert seen == made[::-1]
    assert house.use.missions.page(size=9, before=None, status=S.FAILED).missions == ()


async def test_a_row_is_the_mission(house: House) -> None:
    """A mission read from its row is the one that was written, and its row the same bytes."""
    mission = await house.approved()
    row = house.log.projection(MISSIONS, mission.mission_id)

    assert row == mission_row(mission)
    assert mission_of_row(row) == mission


BAD = [
    (draft(objective=""), Reason.PLAN_INVALID),
    (draft(objective="x" * 1001), Reason.TOO_LARGE),
    (draft(objective="a\nb"), Reason.PLAN_INVALID),
    (draft(workspace="nowhere"), Reason.WORKSPACE_UNKNOWN),
    (draft(workspace="../x"), Reason.PLAN_INVALID),
    (PlanDraft(objective="x", workspace="site"), Reason.PLAN_INVALID),
    (draft(*[Step(action=WriteFile(path="a", content=""))] * 1001), Reason.PLAN_INVALID),
    (draft(Step(action=WriteFile(path="/etc/passwd", content=""))), Reason.PATH_OUTSIDE_WORKSPACE),
    (draft(Step(action=WriteFile(path="a/../../b", content=""))), Reason.PATH_OUTSIDE_WORKSPACE),
    (draft(Step(action=WriteFile(path="a\0b", content=""))), Reason.PATH_INVALID),
    (draft(Step(action=WriteFile(path="", content=""))), Reason.PATH_INVALID),
    (draft(Step(action=WriteFile(path="a//b", content=""))), Reason.PATH_INVALID),
    (draft(Step(action=WriteFile(path="a" * 256, content=""))), Reason.PATH_INVALID),
    (draft(Step(action=WriteFile(path="a", content="x" * ((1 << 20) + 1)))), Reason.TOO_LARGE),
    (draft(Step(action=WriteFile(path="a"))), Reason.PLAN_INVALID),
    (draft(Step(action=RunCommand(argv=(), env={}))), Reason.PLAN_INVALID),
    (draft(Step(action=RunCommand(argv=("a\0",), env={}))), Reason.PLAN_INVALID),
    (draft(Step(action=RunCommand(argv=("a",), env={"A=B": ""}))), Reason.PLAN_INVALID),
]


@pytest.mark.parametrize(("bad", "reason"), BAD)
async def test_a_bad_plan_is_refused_and_leaves_nothing(house: House, bad: PlanDraft, reason: Reason) -> None:
    """Each has a reason and a remedy, and the log stays empty."""
    error = await refused(house.use.missions.propose(request(), bad))

    assert error.reason is reason
    assert house.log.head() == 0


async def test_without_an_executor_nothing_is_proposed(house: House, executor: ExecutorSimulator) -> None:
    """A mission names its executor when it is created, so one must have been heard of."""
    executor.away = True

    assert (await refused(house.use.missions.propose(request(), draft()))).reason is Reason.EXECUTOR_UNAVAILABLE
    assert house.log.head() == 0
