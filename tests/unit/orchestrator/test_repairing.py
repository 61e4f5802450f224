"""Repair plans: for a dry run that failed, and for an execution that waits."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from client.bundle import Leaf
from client.mission_state import MissionState, state_of
from client.proving.events import read_event
from client.proving.replay import replayed
from gonogo import sealing
from gonogo.v1 import evidence_pb2, plan_pb2
from orchestrator.adapters.event_codec import JsonEventCodec
from orchestrator.adapters.wire import mission_to_proto
from orchestrator.bootstrap import open_log
from orchestrator.domain import events as ev
from orchestrator.domain.errors import OrchestratorError, Reason
from orchestrator.domain.events import ControlAction
from orchestrator.domain.evidence import Sealed
from orchestrator.domain.mission import Mission, MissionStatus
from orchestrator.domain.plan import PlanDraft, Scope
from orchestrator.service.event_leaf import stored_leaf
from orchestrator.service.ports import RepairCase
from orchestrator.service.replay import replay
from orchestrator.service.streams import mission_stream
from tests.fakes.executor_simulator import ExecutorSimulator
from tests.fakes.orchestrator_house import House, request
from tests.unit.orchestrator.paused import (
    FAILURE,
    executing,
    failed,
    repair_draft,
    repaired,
    step,
    told,
    until,
    until_status,
    until_written,
)
from tests.unit.orchestrator.refusing import refused

S = MissionStatus


class Proposer:
    """Proposes what it is told, and remembers what it was asked."""

    def __init__(self, draft: PlanDraft | None) -> None:
        self.draft = draft
        self.cases: list[RepairCase] = []

    async def propose(self, case: RepairCase) -> PlanDraft | None:
        self.cases.append(case)
        return self.draft


def plan_in(sealed: Sealed | None) -> plan_pb2.Plan:
    assert sealed is not None
    return sealing.open_sealed(sealed.body, plan_pb2.Plan)


def proposing(house: House, draft: PlanDraft | None) -> Proposer:
    """Have a house's repairs proposed by somebody who says just this."""
    proposer = Proposer(draft)
    repairs = replace(house.use.repairs, proposer=proposer)
    house.use = replace(house.use, repairs=repairs)
    return proposer


async def test_a_failed_dry_run_is_repaired_before_anything_is_approved(
    house: House, executor: ExecutorSimulator
) -> None:
    """The new plan replaces the old one, whose report is void."""
    executor.report_status = evidence_pb2.REPORT_STATUS_FAILED
    mission = await house.proposed()
    await house.dry_run(mission)
    executor.report_status = evidence_pb2.REPORT_STATUS_SUCCESS

    answer = await house.use.repairs.repair(request(), mission.mission_id, repair_draft(), dry_run=False)

    now = answer.mission
    assert (now.status, now.segment, now.report_digest, now.reason) == (S.PROPOSED, 0, "", "")
    assert now.plan_digest != mission.plan_digest
    assert "the one that was given" in answer.told["explanation"]
    approved = await house.approve(now)
    assert (await house.execute(approved))[-1].receipt is not None
    board = house.use.watching.board(mission.mission_id)
    assert [(shown.step_id, shown.target) for shown in board.steps] == [("s1", "repaired.txt")]


async def test_what_is_fine_or_over_takes_no_repair(house: House) -> None:
    """A plan is not replaced under those who read it."""
    mission = await house.approved()
    for attempt in (mission, await house.proposed()):
        error = await refused(house.use.repairs.repair(request(), attempt.mission_id, repair_draft(), dry_run=False))
        assert error.reason is Reason.STATE_FORBIDS
    await house.execute(mission)

    error = await refused(house.use.repairs.repair(request(), mission.mission_id, repair_draft(), dry_run=False))

    assert error.reason is Reason.STATE_FORBIDS


async def test_a_paused_mission_goes_on_with_an_approved_repair_plan(house: House) -> None:
    """Its own dry run, its own approval, the same execution, one receipt; both callers see the end."""
    mission, first = await failed(house)
    approved = await repaired(house, mission)
    assert (approved.status, approved.segment, approved.repair_pending) == (S.PAUSED, 1, True)
    plan = plan_in(house.use.missions.store.plan_of(approved))
    assert mission.pause is not None
    assert (plan.segment, plan.execution_id, plan.journal_digest) == (
        1,
        mission.execution_id,
        mission.pause.results_digest,
    )
    assert [one.step_id for one in plan.steps] == ["r1-s1"]

    second = await house.execute(approved)
    ended = (await first)[-1].mission

    assert ended is not None
    assert (ended.status, ended.segment, ended.opened_segment) == (S.COMPLETED, 1, 1)
    assert second[-1].mission == ended
    assert second[-1].receipt is not None
    types = [ev.TYPES[type(event.payload)] for update in second for event in update.events]
    assert types[:2] == ["segment_opened", "execution_resumed"]
    assert "under 2 plans" in ended.final_answer
    file = house.use.missions.file(mission.mission_id)
    (segment,) = file.segments
    assert segment.plan is not None
    assert (segment.segment, segment.plan.digest, len(segment.approvals)) == (0, mission.plan_digest, 1)
    assert segment.report is not None
    assert segment.report.digest == mission.report_digest
    board = house.use.watching.board(mission.mission_id)
    assert [(shown.step_id, shown.segment, shown.status, shown.attempts) for shown in board.steps] == [
        ("s1", 0, "failed", 1),
        ("r1-s1", 1, "succeeded", 1),
    ]
    assert board.steps[0].error == "step s1 failed"


async def test_the_steps_of_a_repair_plan_are_called_as_none_before(house: House) -> None:
    """Also where the first plan's steps are called like those of a repair plan; asked for again, it is the same."""
    mission, caller = await failed(house, replace(step(), step_id="r1-s1"), replace(step("b"), step_id="r1-r1-s1"))
    given = replace(repair_draft(), steps=(step("c"), replace(step("d"), step_id="r1-s1")))

    for _ in range(2):
        answer = await house.use.repairs.repair(request(), mission.mission_id, given, dry_run=False)
        plan = plan_in(house.use.missions.store.plan_of(answer.mission))
        assert [one.step_id for one in plan.steps] == ["r1-r1-r1-s1", "r1-r1-r1-r1-s1"]
    caller.cancel()


async def test_a_repair_can_itself_be_repaired(house: House, executor: ExecutorSimulator) -> None:
    """Each segment goes on from where the one before was left; the receipt names them all."""
    mission, first = await failed(house)
    executor.ledger[mission.mission_id]._pauses.append(FAILURE)
    await house.execute_detached(await repaired(house, mission))
    again = await until(house, mission, lambda now: now.status is S.PAUSED and now.opened_segment == 1)

    approved = await repaired(house, again, repair_draft("third.txt"))
    await house.execute(approved)

    ended = (await first)[-1].mission
    assert ended is not None
    assert (ended.status, ended.segment) == (S.COMPLETED, 2)
    assert [segment.segment for segment in ended.earlier] == [0, 1]
    assert plan_in(house.use.missions.store.plan_of(ended)).steps[0].step_id == "r2-s1"


async def test_a_repair_plan_without_enough_approvals_does_nothing(house: House) -> None:
    """The mission stays paused, whatever is asked."""
    mission, caller = await failed(house)
    answer = await house.use.repairs.repair(request(), mission.mission_id, repair_draft(), dry_run=True)

    error = await refused(house.execute(answer.mission))

    assert error.reason is Reason.NOT_APPROVED
    assert house.executor.calls.count("execute") == 1
    await told(house, mission, ControlAction.STOP)
    ended = (await caller)[-1].mission
    assert ended is not None
    assert (ended.status, ended.segment, ended.plan_digest) == (S.CANCELLED, 0, mission.plan_digest)


async def test_drift_at_a_segment_voids_its_plan_and_leaves_the_mission_paused(
    house: House, executor: ExecutorSimulator
) -> None:
    """Nothing was done; the execution waits for what it waited for."""
    mission, caller = await failed(house)
    approved = await repaired(house, mission)
    executor.base += 1

    error = await refused(house.execute(approved))

    now = house.mission(mission.mission_id)
    assert error.reason is Reason.BASE_DRIFTED
    assert (now.status, now.segment, now.plan_digest, now.repair_pending) == (S.PAUSED, 0, mission.plan_digest, False)
    assert house.types(mission.mission_id)[-2:] == ["gate_refused", "mission_returned"]
    assert [shown.step_id for shown in house.use.watching.board(mission.mission_id).steps] == ["s1"]
    await told(house, mission, ControlAction.RETRY)
    assert (await caller)[-1].receipt is not None


async def test_approvals_of_a_repair_plan_run_out_and_can_be_given_again(house: House) -> None:
    """The mission stays paused and keeps its report; no approval that ran out is sent."""
    mission, caller = await failed(house)
    approved = await repaired(house, mission)
    house.clock.ahead = timedelta(hours=2)

    assert (await refused(house.execute(approved))).reason is Reason.APPROVAL_EXPIRED
    now = house.mission(mission.mission_id)
    assert (now.status, now.report_digest) == (S.PAUSED, approved.report_digest)
    await house.approve(now, approval_id="a-again", lasts=timedelta(hours=4))
    await house.execute(now)

    assert (await caller)[-1].receipt is not None


async def test_a_denied_repair_plan_is_void(house: House) -> None:
    """A person's no is about that plan; what was committed before stays a matter of its own."""
    mission, caller = await failed(house)
    answer = await house.use.repairs.repair(request(), mission.mission_id, repair_draft(), dry_run=True)

    await house.approve(answer.mission, decision=evidence_pb2.DECISION_DENY)

    now = house.mission(mission.mission_id)
    assert (now.status, now.repair_pending) == (S.PAUSED, False)
    assert "denied by owner" in now.reason
    again = await house.use.repairs.repair(request(), mission.mission_id, repair_draft(), dry_run=True)
    rejected = await house.use.missions.reject(request(), mission.mission_id, "no")
    assert (again.mission.segment, rejected.mission.segment) == (1, 0)
    await told(house, mission, ControlAction.STOP)
    await caller


async def test_a_repair_plan_for_a_moment_that_passed_is_void(house: House, executor: ExecutorSimulator) -> None:
    """An execution that went on and failed again is not where the plan was made for."""
    executor.pauses = (FAILURE, FAILURE)
    mission = await house.approved(step("a"), step("b"))
    caller = executing(house, mission)
    await until_status(house, mission, S.PAUSED)
    await repaired(house, house.mission(mission.mission_id))
    await told(house, mission, ControlAction.RETRY)
    again = await until(house, mission, lambda now: now.pause is not None and now.pause.step_id == "s2")

    assert (again.segment, again.repair_pending) == (0, False)
    assert (await refused(house.execute(again))).reason is Reason.EXECUTION_PAUSED
    await told(house, mission, ControlAction.STOP)
    await caller


async def test_the_same_request_is_the_same_order_when_its_answer_was_lost(
    house: House, executor: ExecutorSimulator
) -> None:
    """The executor took the plan and the connection broke; asking again attaches."""
    mission, caller = await failed(house)
    approved, asked = await repaired(house, mission), request()
    executor.loses_answers = True
    assert (await refused(house.execute(approved, asked))).reason is Reason.EXECUTOR_UNAVAILABLE
    executor.loses_answers = False

    again = await house.execute(approved, asked)

    assert again[-1].receipt is not None
    assert (await caller)[-1].receipt is not None
    assert house.types(mission.mission_id).count("segment_opened") == 1
    assert (await house.execute(approved, asked))[-1].receipt is not None


async def test_another_request_for_the_same_segment_is_told_that_it_is_taken(
    house: House, executor: ExecutorSimulator
) -> None:
    """Only the request that had it taken attaches by itself; others watch."""
    mission, caller = await failed(house)
    executor.ledger[mission.mission_id]._pauses.append(FAILURE)
    approved = await repaired(house, mission)
    taken = executing(house, approved)
    await until(house, mission, lambda now: now.status is S.PAUSED and now.opened_segment == 1)

    error = await refused(house.execute(house.mission(mission.mission_id)))

    assert error.reason in {Reason.ALREADY_CLAIMED, Reason.ALREADY_EXECUTED, Reason.EXECUTION_PAUSED}
    await told(house, mission, ControlAction.STOP)
    await asyncio.gather(caller, taken)


@pytest.mark.parametrize("moment", ["sealed", "dry run", "approved", "taken", "under way"])
async def test_a_repair_goes_on_after_a_restart_between_any_two_of_its_steps(
    house: House, executor: ExecutorSimulator, moment: str
) -> None:
    """The log and the executor know everything; the next process needs nothing else."""
    mission, caller = await failed(house)
    await until_written(house, mission)
    asked, execute = request("repair"), request("execute it")
    if moment != "sealed":
        await house.use.repairs.repair(asked, mission.mission_id, repair_draft(), dry_run=True)
    else:
        await house.use.repairs.repair(asked, mission.mission_id, repair_draft(), dry_run=False)
    if moment in {"approved", "taken", "under way"}:
        await house.approve(house.mission(mission.mission_id))
    if moment == "taken":
        now = house.mission(mission.mission_id)
        order = house.use.executions.segments.order(now, "other")
        executor.ledger[mission.mission_id]._pauses.append(FAILURE)
        executor.claim(order)
    if moment == "under way":
        executor.ledger[mission.mission_id]._pauses.append(FAILURE)
        await house.execute_detached(house.mission(mission.mission_id), execute)
        await until(house, mission, lambda now: now.status is S.PAUSED and now.opened_segment == 1)
        await until_written(house, mission)
    following = await house.reopen()
    with pytest.raises((asyncio.CancelledError, OrchestratorError)):
        await caller

    if moment in {"taken", "under way"}:
        await until(following, mission, lambda now: now.status is S.PAUSED and now.opened_segment == 1)
        await told(following, mission, ControlAction.RETRY)
        await until_status(following, mission, S.COMPLETED)
    else:
        again = await following.use.repairs.repair(asked, mission.mission_id, None, dry_run=True)
        assert again.mission.segment == 1
        approved = again.mission if moment == "approved" else await following.approve(again.mission)
        await following.execute(approved, execute)

    ended = following.mission(mission.mission_id)
    assert (ended.status, ended.opened_segment) == (S.COMPLETED, 1)
    assert following.types(mission.mission_id).count("segment_opened") == 1
    if moment == "under way":
        assert (await following.execute(ended, execute))[-1].receipt is not None
    await following.close()


async def test_repairs_are_part_of_what_a_replay_gives(house: House, tmp_path: Path) -> None:
    """Folding the log into an empty one gives the same rows, segments, pauses and stops included."""
    mission, caller = await failed(house)
    await house.execute(await repaired(house, mission))
    await caller
    stopped, other = await failed(house)
    await house.use.repairs.repair(request(), stopped.mission_id, repair_draft(), dry_run=True)
    await told(house, stopped, ControlAction.STOP, roll_back=True)
    await other
    waiting, last = await failed(house)
    await repaired(house, waiting)
    empty = open_log(tmp_path / "again" / "events.db")

    found = await replay(house.log, empty, JsonEventCodec())
    empty.close()

    assert found.equal
    await told(house, waiting, ControlAction.STOP)
    await last


async def test_a_clone_of_a_repaired_mission_is_of_what_it_began_with(house: House) -> None:
    """The repair was for a moment that does not come again."""
    mission, caller = await failed(house)
    await house.execute(await repaired(house, mission))
    await caller

    answer = await house.use.missions.clone(request(), mission.mission_id)

    plan = plan_in(house.use.missions.store.plan_of(answer.mission))
    assert ([one.step_id for one in plan.steps], plan.segment, plan.execution_id) == (["s1"], 0, "")


async def test_a_repair_keeps_to_the_first_plan_unless_somebody_asks_for_more(house: House) -> None:
    """Scope, workspace and rules are the first plan's where the draft has none; a wider scope is said."""
    house.executor.pauses = (FAILURE,)
    answer = await house.use.missions.propose(
        request(), PlanDraft(objective="x", workspace="site", scope=Scope(paths=("docs/**",)), steps=(step("docs/a"),))
    )
    mission = await house.approve(answer.mission)
    caller = executing(house, mission)
    await until_status(house, mission, S.PAUSED)

    outside = await refused(house.use.repairs.repair(request(), mission.mission_id, repair_draft(), dry_run=False))
    elsewhere = await refused(
        house.use.repairs.repair(request(), mission.mission_id, repair_draft(workspace="other"), dry_run=False)
    )
    wider = replace(repair_draft(), scope=Scope(paths=("**",)))
    given = await house.use.repairs.repair(request(), mission.mission_id, wider, dry_run=False)

    assert (outside.reason, elsewhere.reason) == (Reason.PATH_OUTSIDE_SCOPE, Reason.WORKSPACE_MISMATCH)
    assert "Its scope is not the first plan's" in given.told["explanation"]
    await told(house, mission, ControlAction.STOP)
    await caller


async def test_a_proposer_is_told_what_went_wrong(house: House) -> None:
    """The failure, the plan, its report and what stands; its plan is within the first plan's scope."""
    proposer = proposing(house, replace(repair_draft(), scope=Scope(paths=("**",))))
    house.executor.pauses = (ev.ExecutionPaused(reason="look", kind=ev.PauseKind.REQUESTED), FAILURE)
    mission = await house.approved(step("a"), step("b"))
    caller = executing(house, mission)
    await until_status(house, mission, S.PAUSED)
    await told(house, mission, ControlAction.RESUME)
    waiting = await until(house, mission, lambda now: now.pause is not None and now.pause.step_id == "s2")

    answer = await house.use.repairs.repair(request(), mission.mission_id, None, dry_run=True)

    (case,) = proposer.cases
    assert case.mission.mission_id == waiting.mission_id
    assert case.failure is not None
    assert (case.failure.step_id, case.standing) == ("s2", frozenset({"s1"}))
    assert [one.step_id for one in case.plan.steps] == ["s1", "s2"]
    assert [one.step_id for one in case.findings.steps] == ["s1", "s2"]
    assert case.findings.steps[0].changes[0].path == "s1.txt"
    found = case.findings.steps[0].changes[0].new
    assert found is not None
    assert (await case.read_object(found.digest)).startswith(b"object ")
    assert "proposed: Write it elsewhere" in answer.told["explanation"]
    assert plan_in(house.use.missions.store.plan_of(answer.mission)).scope.paths == []
    await told(house, mission, ControlAction.STOP)
    await caller


async def test_where_nothing_can_be_proposed_a_plan_is_asked_for(house: House, executor: ExecutorSimulator) -> None:
    """Also where a dry run failed, whose problems the proposer is told."""
    proposer = proposing(house, None)
    executor.report_status = evidence_pb2.REPORT_STATUS_FAILED
    mission = await house.proposed()
    await house.dry_run(mission)

    error = await refused(house.use.repairs.repair(request(), mission.mission_id, None, dry_run=False))

    assert error.reason is Reason.UNSUPPORTED
    (case,) = proposer.cases
    assert (case.failure, case.standing, case.findings.problems[0].message) == (None, frozenset(), "a step failed")


async def test_a_repair_s_dry_run_that_can_not_be_made_leaves_the_plan(
    house: House, executor: ExecutorSimulator
) -> None:
    """The same request has it made later."""
    mission, caller = await failed(house)
    asked = request()
    first = await house.use.repairs.repair(asked, mission.mission_id, repair_draft(), dry_run=False)
    executor.away = True
    without = await house.use.repairs.repair(asked, mission.mission_id, repair_draft(), dry_run=True)
    executor.away = False
    tried = await house.use.repairs.repair(asked, mission.mission_id, repair_draft(), dry_run=True)

    assert (first.mission.segment, without.mission.report_digest) == (1, "")
    assert tried.mission.report_digest
    assert tried.told == first.told
    await told(house, mission, ControlAction.STOP)
    await caller


def folded_by_the_client(house: House, mission: Mission, until: int) -> MissionState:
    """Return where a mission stands by the client's own fold of its first events."""
    stored = house.log.read_stream(mission_stream(mission.mission_id))[:until]
    leaves = [Leaf(index=one.pos - 1, text=stored_leaf(one).decode(), path=()) for one in stored]
    return replayed(mission.mission_id, [read_event(leaf) for leaf in leaves])


async def test_the_client_s_fold_agrees_at_every_event(house: House, executor: ExecutorSimulator) -> None:
    """Repairs that are replaced, refused, taken and overtaken: two folds, one state, after each event."""
    mission, caller = await failed(house)
    await house.use.repairs.repair(request(), mission.mission_id, repair_draft("a"), dry_run=True)
    await repaired(house, mission, repair_draft("b"))
    executor.base += 1
    await refused(house.execute(mission))
    executor.ledger[mission.mission_id]._pauses.append(FAILURE)
    await house.execute_detached(await repaired(house, house.mission(mission.mission_id)))
    await until(house, mission, lambda now: now.status is S.PAUSED and now.opened_segment == 1)
    await repaired(house, house.mission(mission.mission_id), repair_draft("c"))
    await told(house, mission, ControlAction.STOP, roll_back=True)
    await caller

    for number in range(1, len(house.events(mission.mission_id)) + 1):
        own = house.use.missions.store.as_it_was(mission.mission_id, number)
        assert folded_by_the_client(house, mission, number) == state_of(mission_to_proto(own)), number
