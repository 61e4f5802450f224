"""Proposals that carry their dry run, and executions that carry their approvals."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from gonogo.v1 import evidence_pb2
from orchestrator.domain import events as ev
from orchestrator.domain.errors import ContractError, ExecutorRefusedError, OrchestratorError, Reason
from orchestrator.domain.evidence import Sealed
from orchestrator.domain.mission import Mission, MissionStatus
from orchestrator.service.event_log import Append, Appended
from orchestrator.service.event_log_errors import StoreFull
from orchestrator.service.execution import MissionUpdate
from orchestrator.service.requests import Request
from orchestrator.service.streams import MISSIONS
from tests.fakes.executor_simulator import Approver, ExecutorSimulator
from tests.fakes.orchestrator_house import House, draft, request

S = MissionStatus

PROPOSED = ["mission_proposed", "plan_sealed"]
TRIED = [*PROPOSED, "dry_run_started", "dry_run_completed"]


class Counted:
    """Counts a house's appends, and lets some of them fail."""

    def __init__(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        self.appends: list[Append] = []
        self.full = 0
        self._append = house.log.append
        monkeypatch.setattr(house.log, "append", self._counted)

    async def _counted(self, append: Append) -> Appended:
        if self.full:
            self.full -= 1
            raise StoreFull("no room")
        appended = await self._append(append)
        self.appends.append(append)
        return appended


@pytest.fixture
def counted(house: House, monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(house, monkeypatch)


async def tried(house: House, asked: Request | None = None) -> Mission:
    answer = await house.use.tried_proposals.propose(asked or request(), draft())
    return answer.mission


async def execute(
    house: House, mission: Mission, approvals: Sequence[Sealed], asked: Request | None = None
) -> list[MissionUpdate]:
    call = house.use.executions.execute(asked or request(), mission.mission_id, approvals)
    return [update async for update in call]


def approval(house: House, mission: Mission, **changes: Any) -> Sealed:
    return house.approver.approve(house.use.dry_runs.report_of(mission), **changes)


async def refused(awaitable: Any) -> OrchestratorError:
    with pytest.raises(OrchestratorError) as caught:
        await awaitable
    return caught.value


async def test_a_whole_mission_is_two_calls_and_three_appends(
    house: House, executor: ExecutorSimulator, counted: Counted
) -> None:
    """Proposal and report are one append, the approvals another, the execution the last; the events are all there."""
    mission = await tried(house)
    assert len(counted.appends) == 1
    updates = await execute(house, mission, [approval(house, mission)])

    assert len(counted.appends) == 3
    assert [name for name in executor.calls if name != "describe"] == ["dry_run", "execute"]
    assert updates[-1].receipt is not None
    assert house.types(mission.mission_id)[:7] == [*TRIED, "approval_granted", "mission_approved", "mission_started"]
    assert len(house.types(mission.mission_id)) == 17
    assert ev.TYPES[type(updates[0].events[0].payload)] == "mission_started"


async def test_a_mission_s_times_never_go_backwards(house: House) -> None:
    """A dry run begins before it is completed, and a mission is started before its execution is."""
    mission = await tried(house)
    await execute(house, mission, [approval(house, mission)])

    times = [event.time for event in house.events(mission.mission_id)]
    assert times == sorted(times)


async def test_a_retry_of_a_tried_proposal_gets_the_same_mission_and_report(
    house: House, executor: ExecutorSimulator
) -> None:
    """Also at the same time, and after the mission has moved on."""
    asked = request()
    first, second = await asyncio.gather(tried(house, asked), tried(house, asked))
    await execute(house, first, [approval(house, first)])

    assert first == second == await tried(house, asked)
    assert first.report_digest
    assert executor.calls.count("dry_run") == 1
    other = request(asked.request_id, "another body")
    assert (await refused(tried(house, other))).reason is Reason.REQUEST_REUSED


async def test_a_long_dry_run_s_mission_is_in_the_log_before_it_ends(
    house: House, executor: ExecutorSimulator, counted: Counted
) -> None:
    """After a moment the proposal is written; the report follows; nobody else's dry run comes in between."""
    executor.dry_run_open.clear()
    asked = request()
    call = asyncio.ensure_future(tried(house, asked))
    await asyncio.sleep(0.1)

    mission_id = house.log.projections(MISSIONS)[0].key
    assert house.types(mission_id) == TRIED[:3]
    assert (await refused(house.use.dry_runs.dry_run(request(), mission_id))).reason is Reason.CONFLICT
    again = asyncio.ensure_future(tried(house, asked))
    await asyncio.sleep(0)
    executor.dry_run_open.set()

    mission = await call
    assert mission == await again == await tried(house, asked)
    assert mission.report_digest
    assert house.types(mission_id) == TRIED
    assert (len(counted.appends), executor.calls.count("dry_run")) == (2, 1)


async def test_a_mission_rejected_during_its_long_dry_run_stays_rejected(
    house: House, executor: ExecutorSimulator
) -> None:
    """The report comes too late, and the answer is the mission as it was proposed."""
    executor.dry_run_open.clear()
    call = asyncio.ensure_future(tried(house))
    await asyncio.sleep(0.1)
    mission_id = house.log.projections(MISSIONS)[0].key
    await house.use.missions.reject(request(), mission_id, "no")
    executor.dry_run_open.set()

    assert (await call).report_digest == ""
    assert house.mission(mission_id).status is S.REJECTED


@pytest.mark.parametrize(
    "error",
    [
        ExecutorRefusedError(Reason.OVERLOADED, "too many dry runs", "Wait."),
        ExecutorRefusedError(Reason.PLAN_INVALID, "malformed", "Change the plan."),
        ContractError(Reason.INTERNAL, "no report", "Report this."),
    ],
)
async def test_without_a_dry_run_the_mission_is_proposed_all_the_same(
    house: House, executor: ExecutorSimulator, monkeypatch: pytest.MonkeyPatch, error: OrchestratorError
) -> None:
    """Whatever the executor says to the dry run; the retry has it made when it can be."""

    async def refuse(_request_id: str, _plan: Sealed) -> Sealed:
        raise error

    asked = request()
    with monkeypatch.context() as patch:
        patch.setattr(executor, "dry_run", refuse)
        mission = await tried(house, asked)
        assert house.types(mission.mission_id) == PROPOSED
        assert mission.report_digest == ""
        assert await tried(house, asked) == mission

    later = await tried(house, asked)
    assert (later.mission_id, bool(later.report_digest)) == (mission.mission_id, True)
    assert await tried(house, asked) == later
    assert house.types(mission.mission_id) == TRIED


async def test_a_retry_makes_no_dry_run_of_a_mission_that_has_moved_on(
    house: House, executor: ExecutorSimulator
) -> None:
    """A report that somebody else asked for, and what was approved on it, is left alone."""
    await house.proposed()  # the executor is known from here on
    executor.away = True
    asked = request()
    mission = await tried(house, asked)
    executor.away = False
    await house.approve(mission)
    calls = len(executor.calls)

    assert await tried(house, asked) == mission
    assert len(executor.calls) == calls
    assert house.mission(mission.mission_id).status is S.APPROVED


async def test_a_restart_in_a_long_dry_run_leaves_a_mission_that_the_retry_completes(
    house: House, executor: ExecutorSimulator
) -> None:
    """What was written early is found by the same request in the next process."""
    executor.dry_run_open.clear()
    asked = request()
    call = asyncio.ensure_future(tried(house, asked))
    await asyncio.sleep(0.1)
    following = await house.reopen()
    with pytest.raises((asyncio.CancelledError, OrchestratorError)):
        await call
    executor.dry_run_open.set()

    mission = await tried(following, asked)

    assert mission.report_digest
    assert len(following.log.projections(MISSIONS)) == 1
    assert len(set(executor.requests)) == 1
    await following.close()


async def test_a_full_disk_at_the_early_write_costs_nothing_but_the_early_write(
    house: House, executor: ExecutorSimulator, counted: Counted
) -> None:
    """What could not be written after a moment is written with the report."""
    executor.dry_run_open.clear()
    counted.full = 1
    call = asyncio.ensure_future(tried(house))
    await asyncio.sleep(0.1)
    assert house.log.head() == 0
    executor.dry_run_open.set()

    assert house.types((await call).mission_id) == TRIED
    assert len(counted.appends) == 1


async def test_a_caller_that_goes_away_stops_no_tried_proposal(house: House, executor: ExecutorSimulator) -> None:
    """The mission and its report are there for the retry."""
    executor.dry_run_open.clear()
    asked = request()
    call = asyncio.ensure_future(tried(house, asked))
    await asyncio.sleep(0.01)
    call.cancel()
    executor.dry_run_open.set()

    assert (await tried(house, asked)).report_digest
    assert executor.calls.count("dry_run") == 1


async def test_a_clone_can_be_tried_too(house: House) -> None:
    """It is the same steps with a report of its own."""
    mission = await tried(house)

    clone = (await house.use.tried_proposals.clone(request(), mission.mission_id)).mission

    assert (clone.cloned_from, clone.report_status) == (mission.mission_id, mission.report_status)
    assert clone.report_digest != mission.report_digest


async def test_a_failed_dry_run_is_reported_with_the_proposal(house: House, executor: ExecutorSimulator) -> None:
    """A report that is no success is a report."""
    executor.report_status = evidence_pb2.REPORT_STATUS_FAILED

    mission = await tried(house)

    assert mission.report_status is not None
    assert mission.report_status.value == "failed"


async def test_a_refused_approval_is_recorded_and_nothing_is_dispatched(
    house: House, executor: ExecutorSimulator, counted: Counted
) -> None:
    """The error and the events are those that handing them in one by one would have given."""
    executor.approvals_required = 2
    mission = await tried(house)
    stranger = Approver(person="owner").approve(house.use.dry_runs.report_of(mission), approval_id="a-x")

    error = await refused(execute(house, mission, [approval(house, mission), stranger]))

    assert error.reason is Reason.APPROVER_UNKNOWN
    assert house.types(mission.mission_id)[4:] == ["approval_granted", "approval_refused"]
    assert len(counted.appends) == 2
    assert "execute" not in executor.calls


async def test_an_approval_of_something_else_dispatches_nothing(house: House, executor: ExecutorSimulator) -> None:
    """What was good before it stays recorded, as it would with a call for each."""
    mission = await tried(house)
    wrong = approval(house, mission, plan_id="p-other")

    error = await refused(execute(house, mission, [approval(house, mission), wrong]))

    assert error.reason is Reason.PLAN_MISMATCH
    assert house.mission(mission.mission_id).status is S.APPROVED
    assert "execute" not in executor.calls


async def test_two_persons_approvals_come_with_one_execution(house: House, executor: ExecutorSimulator) -> None:
    """The last that is needed approves the mission, in the same append as the first."""
    other = Approver(person="second")
    executor.persons = (*executor.persons, other.trusted())
    executor.approvals_required = 2
    mission = await tried(house)
    both = [approval(house, mission), other.approve(house.use.dry_runs.report_of(mission))]

    updates = await execute(house, mission, both)

    assert updates[-1].receipt is not None
    assert house.types(mission.mission_id)[4:7] == ["approval_granted", "approval_granted", "mission_approved"]


async def test_too_few_approvals_are_recorded_and_not_executed(house: House, executor: ExecutorSimulator) -> None:
    """The execution is refused as it is without any."""
    executor.approvals_required = 2
    mission = await tried(house)

    error = await refused(execute(house, mission, [approval(house, mission)]))

    assert error.reason is Reason.NOT_APPROVED
    assert house.types(mission.mission_id)[-1] == "approval_granted"


async def test_a_denial_that_comes_with_an_execution_is_final(house: House, executor: ExecutorSimulator) -> None:
    """It rejects the mission, and nothing is dispatched."""
    mission = await tried(house)

    error = await refused(execute(house, mission, [approval(house, mission, decision=evidence_pb2.DECISION_DENY)]))

    assert error.reason is Reason.STATE_FORBIDS
    assert house.mission(mission.mission_id).status is S.REJECTED
    assert "execute" not in executor.calls


async def test_300_repeats_of_an_execution_with_approvals_see_one_execution(
    house: House, executor: ExecutorSimulator
) -> None:
    """The same request attaches, whatever its approvals find, and a repeat after the end gets the same receipt."""
    mission, asked = await tried(house), request()
    approvals = [approval(house, mission)]

    results = await asyncio.gather(*(execute(house, mission, approvals, asked) for _ in range(300)))
    results.append(await execute(house, mission, approvals, asked))

    assert len({updates[-1].receipt.digest for updates in results if updates[-1].receipt}) == 1
    assert all(updates[-1].receipt for updates in results)
    assert executor.calls.count("execute") == 1
    assert house.types(mission.mission_id).count("approval_granted") == 1


async def test_of_many_executions_with_approvals_one_wins(house: House, executor: ExecutorSimulator) -> None:
    """Requests with ids of their own are told that it is or was executed."""
    mission = await tried(house)
    approvals = [approval(house, mission)]

    results = await asyncio.gather(*(execute(house, mission, approvals) for _ in range(100)), return_exceptions=True)

    errors = [result for result in results if isinstance(result, OrchestratorError)]
    assert len(errors) == 99
    assert {error.reason for error in errors} <= {
        Reason.ALREADY_CLAIMED,
        Reason.ALREADY_EXECUTED,
    }
    assert executor.calls.count("execute") == 1


async def test_an_execution_taken_up_after_a_restart_starts_before_its_first_event(
    house: House, executor: ExecutorSimulator
) -> None:
    """What a former process ordered is not said to have started when the next one heard of it."""
    mission = await house.approved()
    executor.claim(house.use.executions._order(mission.mission_id))
    await asyncio.sleep(0.01)
    following = await house.reopen()

    await following.execute(mission)

    times = {type(event.payload): event.time for event in following.events(mission.mission_id)}
    assert times[ev.MissionStarted] <= times[ev.ExecutionStarted]
    await following.close()


async def test_a_queued_execution_takes_approvals_too(house: House) -> None:
    """They are recorded before it is queued, and a repeat gets the first answer."""
    mission, asked = await tried(house), request()
    approvals = [approval(house, mission)]

    first = [update async for update in house.use.dispatcher.enqueue(asked, mission.mission_id, approvals)]
    async with asyncio.timeout(10):
        while house.mission(mission.mission_id).status is not S.COMPLETED:  # noqa: ASYNC110 - a state is polled
            await asyncio.sleep(0.001)
    again = [update async for update in house.use.dispatcher.enqueue(asked, mission.mission_id, approvals)]

    assert first == again
    assert house.types(mission.mission_id)[4:7] == ["approval_granted", "mission_approved", "mission_queued"]
