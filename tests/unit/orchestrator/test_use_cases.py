"""Missions from proposal to receipt, over a real log and a simulated executor."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gonogo.v1 import evidence_pb2
from orchestrator.domain import events as ev
from orchestrator.domain.errors import ExecutorUnavailableError, OrchestratorError, Reason
from orchestrator.domain.evidence import Outcome, SelfApproval
from orchestrator.domain.mission import MissionStatus
from orchestrator.domain.plan import PlanDraft, RunCommand, Step, WriteFile
from orchestrator.service.mission_row import mission_of_row, mission_row
from orchestrator.service.streams import MISSIONS
from tests.fakes.executor_simulator import Approver, ExecutorSimulator
from tests.fakes.orchestrator_house import House, draft, request

S = MissionStatus


async def refused(awaitable: object) -> OrchestratorError:
    """Return the error that a call ends with."""
    with pytest.raises(OrchestratorError) as caught:
        await awaitable  # type: ignore[misc]  # any coroutine
    assert caught.value.remedy
    return caught.value


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


async def test_approving_twice_leaves_one_record(house: House) -> None:
    """The same person's second approval of the same report returns the first."""
    mission = await house.proposed()
    report = await house.dry_run(mission)
    first = await house.use.approvals.approve(request(), mission.mission_id, house.approver.approve(report))
    again = house.approver.approve(report, approval_id="a-second", nonce="twice")
    second = await house.use.approvals.approve(request(), mission.mission_id, again)

    assert second.told["approval_id"] == first.told["approval_id"] != "a-second"
    assert house.types(mission.mission_id).count("approval_granted") == 1
    assert len(house.mission(mission.mission_id).approvals) == 1


async def test_as_many_persons_as_the_executor_asks_for(house: House, executor: ExecutorSimulator) -> None:
    """One of two approvals approves nothing yet; the second of another person does."""
    other = Approver(person="second")
    executor.persons = (*executor.persons, other.trusted())
    executor.approvals_required = 2
    mission = await house.proposed()

    first = await house.approve(mission)
    second = await house.approve(first, other)

    assert (first.status, second.status) == (S.PROPOSED, S.APPROVED)
    assert second.approved_until == min(granted.expires_at for granted in second.approvals)


async def test_a_person_may_renew_an_approval_that_ran_out(house: House, executor: ExecutorSimulator) -> None:
    """Only approvals that hold count, and only those are sent to the executor."""
    other = Approver(person="second")
    executor.persons = (*executor.persons, other.trusted())
    executor.approvals_required = 2
    mission = await house.approve(await house.proposed(), lasts=timedelta(minutes=1))
    house.clock.ahead = timedelta(minutes=2)
    second = await house.approve(mission, other)
    renewed = await house.approve(second, approval_id="a-renewed")

    assert (second.status, renewed.status) == (S.PROPOSED, S.APPROVED)
    assert len(house.use.executions._order(mission.mission_id).approvals) == 2
    assert (await house.execute(renewed))[-1].receipt is not None


async def test_a_denial_rejects_a_proposed_and_cancels_an_approved_mission(house: House) -> None:
    """A signed no is final, and its document is kept."""
    deny: dict[str, Any] = {"decision": evidence_pb2.DECISION_DENY, "comment": "too wide"}
    proposed = await house.proposed()
    approved = await house.approved()

    rejected = await house.approve(proposed, **deny)
    cancelled = await house.approve(approved, **deny)

    assert (rejected.status, cancelled.status) == (S.REJECTED, S.CANCELLED)
    assert rejected.reason == "denied by owner: too wide"


async def test_an_approval_by_an_unknown_key_is_refused_and_recorded(house: House) -> None:
    """A stranger's signature is an event, and asks the executor once more whether it knows the key by now."""
    mission = await house.proposed()
    await house.dry_run(mission)

    error = await refused(house.approve(house.mission(mission.mission_id), Approver(person="owner")))

    assert error.reason is Reason.APPROVER_UNKNOWN
    assert house.types(mission.mission_id)[-1] == "approval_refused"
    assert house.executor.calls.count("describe") == 2
    assert house.mission(mission.mission_id).status is S.PROPOSED


async def test_a_changed_document_under_a_good_key_is_refused_and_recorded(house: House) -> None:
    """A signature is over the very bytes."""
    mission = await house.proposed()
    report = await house.dry_run(mission)
    good = house.approver.approve(report)
    other = house.approver.approve(report, comment="changed")
    forged = replace(other, signatures=good.signatures)

    error = await refused(house.use.approvals.approve(request(), mission.mission_id, forged))

    assert error.reason is Reason.SIGNATURE_INVALID
    assert house.types(mission.mission_id)[-1] == "approval_refused"


async def test_the_proposer_s_own_approval_counts_only_where_the_executor_says_so(
    house: House, executor: ExecutorSimulator
) -> None:
    """Self-approval is refused unless the executor allows it in so many words."""
    executor.self_approval = SelfApproval.REFUSED

    error = await refused(house.approved())

    assert error.reason is Reason.SELF_APPROVAL


MISMATCHES = [
    ({"mission_id": "m-other"}, Reason.MISSION_MISMATCH),
    ({"intent_id": "i-other"}, Reason.MISSION_MISMATCH),
    ({"workspace_id": "other"}, Reason.WORKSPACE_MISMATCH),
    ({"executor_id": "other"}, Reason.EXECUTOR_MISMATCH),
    ({"plan_id": "p-other"}, Reason.PLAN_MISMATCH),
    ({"plan_digest": "sha256:0"}, Reason.PLAN_MISMATCH),
    ({"report_id": "r-other"}, Reason.REPORT_UNKNOWN),
    ({"report_digest": "sha256:0"}, Reason.REPORT_UNKNOWN),
    ({"lasts": timedelta(seconds=-1)}, Reason.APPROVAL_EXPIRED),
]


@pytest.mark.parametrize(("changes", "reason"), MISMATCHES)
async def test_an_approval_of_something_else_is_refused(house: House, changes: dict[str, Any], reason: Reason) -> None:
    """Each id and digest is compared, and the expiry; nothing is recorded."""
    mission = await house.proposed()
    await house.dry_run(mission)
    before = house.types(mission.mission_id)

    error = await refused(house.approve(house.mission(mission.mission_id), **changes))

    assert error.reason is reason
    assert house.types(mission.mission_id) == before


async def test_a_failed_dry_run_can_not_be_approved(house: House, executor: ExecutorSimulator) -> None:
    """Only a successful simulation is worth a signature."""
    executor.report_status = evidence_pb2.REPORT_STATUS_FAILED

    error = await refused(house.approved())

    assert error.reason is Reason.SIMULATION_FAILED
    assert "a step failed" in error.message


async def test_an_approval_before_any_dry_run_is_refused(house: House) -> None:
    """Without a report there is nothing to approve."""
    mission = await house.proposed()
    report = await house.dry_run(await house.proposed())

    error = await refused(house.use.approvals.approve(request(), mission.mission_id, house.approver.approve(report)))

    assert error.reason is Reason.REPORT_MISSING


async def test_a_new_dry_run_voids_the_approvals_of_the_old_one(house: House, executor: ExecutorSimulator) -> None:
    """With two persons required, the first's approval goes with the report it was for."""
    executor.approvals_required = 2
    mission = await house.approve(await house.proposed())
    assert len(mission.approvals) == 1

    await house.dry_run(mission)

    assert house.mission(mission.mission_id).approvals == ()


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
    assert len(types) == 16
    assert [ev.TYPES[type(event.payload)] for update in updates for event in update.events] == types[6:]


async def test_a_caller_that_goes_away_stops_nothing_and_can_attach_again(
    house: House, executor: ExecutorSimulator
) -> None:
    """The run is the service's; the same request sees it from its first event, another one is told that it runs."""
    executor.gate_open.clear()
    mission = await house.approved()
    asked = request()
    first = house.use.executions.execute(asked, mission.mission_id)
    seen = await anext(first)
    await first.aclose()
    assert house.mission(mission.mission_id).status is S.ACTIVE
    assert (await refused(house.execute(mission))).reason is Reason.ALREADY_CLAIMED
    assert (await refused(house.use.executions.cancel(request(), mission.mission_id, ""))).reason is (
        Reason.ALREADY_CLAIMED
    )

    attached = asyncio.ensure_future(house.execute(mission, asked))
    await asyncio.sleep(0)
    executor.gate_open.set()
    updates = await attached

    assert updates[0].events[: len(seen.events)] == seen.events
    assert updates[-1].receipt is not None
    past = await house.execute(mission, asked)
    assert [event for update in past for event in update.events] == [
        event for update in updates for event in update.events
    ]
    assert executor.calls.count("execute") == 1


async def test_300_identical_executions_have_one_winner(house: House, executor: ExecutorSimulator) -> None:
    """Of callers with ids of their own one executes; all the others are told that it is or was executed."""
    mission = await house.approved()

    results = await asyncio.gather(*(house.execute(mission) for _ in range(300)), return_exceptions=True)

    errors = [result for result in results if isinstance(result, OrchestratorError)]
    assert len(errors) == 299
    assert {error.reason for error in errors} <= {Reason.ALREADY_CLAIMED, Reason.ALREADY_EXECUTED}
    assert executor.calls.count("execute") == 1
    assert house.types(mission.mission_id).count("mission_started") == 1
    assert house.types(mission.mission_id).count("receipt_issued") == 1


async def test_300_repeats_of_one_execution_request_see_one_execution(
    house: House, executor: ExecutorSimulator
) -> None:
    """With the same request id every caller gets the same receipt."""
    mission, asked = await house.approved(), request()

    results = await asyncio.gather(*(house.execute(mission, asked) for _ in range(300)))

    assert len({updates[-1].receipt.digest for updates in results if updates[-1].receipt}) == 1
    assert executor.calls.count("execute") == 1


async def test_300_identical_proposals_make_one_mission(house: House) -> None:
    """The same request id returns the first mission, however many ask at once."""
    asked = request()

    answers = await asyncio.gather(*(house.use.missions.propose(asked, draft()) for _ in range(300)))

    assert len({answer.mission for answer in answers}) == 1
    assert len(house.log.projections(MISSIONS)) == 1


async def test_a_retry_gets_the_first_answer_although_the_mission_moved_on(house: House) -> None:
    """Each mutating call, repeated after everything is over, says what it said the first time."""
    use, ask = house.use, [request() for _ in range(4)]
    proposed = await use.missions.propose(ask[0], draft())
    mission_id = proposed.mission.mission_id
    ran = await use.dry_runs.dry_run(ask[1], mission_id)
    approval = house.approver.approve(use.dry_runs.report_of(ran.mission))
    approved = await use.approvals.approve(ask[2], mission_id, approval)
    await house.execute(approved.mission, ask[3])

    assert await use.missions.propose(ask[0], draft()) == proposed
    assert await use.dry_runs.dry_run(ask[1], mission_id) == ran
    assert await use.approvals.approve(ask[2], mission_id, approval) == approved
    assert house.executor.calls.count("dry_run") == 1


async def test_a_request_id_for_another_request_is_refused(house: House) -> None:
    """The same id with another body is a mistake of the caller's, on every mutating call."""
    use, mission = house.use, await house.approved()
    used = request("used", "one")
    other = request("used", "two")
    await use.missions.propose(used, draft())

    calls = (
        use.missions.propose(other, draft()),
        use.dry_runs.dry_run(other, mission.mission_id),
        use.missions.reject(other, (await house.proposed()).mission_id, ""),
        use.executions.cancel(other, mission.mission_id, ""),
        house.execute(mission, other),
        house.queue(mission, other),
        house.say("help", asked=other),
    )
    for call in calls:
        assert (await refused(call)).reason is Reason.REQUEST_REUSED
    assert house.mission(mission.mission_id).status is S.APPROVED


async def test_two_persons_may_use_the_same_request_id(house: House) -> None:
    """An id is a person's own."""
    first = await house.use.missions.propose(request("same", "a", "one"), draft())
    second = await house.use.missions.propose(request("same", "b", "two"), draft())

    assert first.mission.mission_id != second.mission.mission_id


async def test_one_dry_run_at_a_time(house: House, executor: ExecutorSimulator) -> None:
    """While one goes on, another request waits its turn, the same request waits with it, and the log says it began."""
    executor.dry_run_open.clear()
    mission, asked = await house.proposed(), request()
    running = [asyncio.ensure_future(house.use.dry_runs.dry_run(asked, mission.mission_id)) for _ in range(2)]
    await asyncio.sleep(0.1)

    assert (await refused(house.use.dry_runs.dry_run(request(), mission.mission_id))).reason is Reason.CONFLICT
    assert house.types(mission.mission_id)[-1] == "dry_run_started"
    executor.dry_run_open.set()
    answers = await asyncio.gather(*running)
    assert answers[0] == answers[1]
    assert house.types(mission.mission_id).count("dry_run_started") == 1


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
