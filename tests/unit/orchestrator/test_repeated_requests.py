"""Many requests at once, and the same one again: one mission, one dry run, one execution, one answer."""

import asyncio

from orchestrator.domain.errors import OrchestratorError, Reason
from orchestrator.domain.mission import MissionStatus
from orchestrator.service.streams import MISSIONS
from tests.fakes.executor_simulator import ExecutorSimulator
from tests.fakes.orchestrator_house import House, draft, request
from tests.unit.orchestrator.refusing import refused

S = MissionStatus


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
        Reason.STATE_FORBIDS
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
