"""Which approvals count, over a real log and a simulated executor."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gonogo.v1 import evidence_pb2
from orchestrator.domain.errors import Reason
from orchestrator.domain.evidence import SelfApproval
from orchestrator.domain.mission import MissionStatus
from tests.fakes.executor_simulator import Approver, ExecutorSimulator
from tests.fakes.orchestrator_house import House, request
from tests.unit.orchestrator.refusing import refused

S = MissionStatus


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
