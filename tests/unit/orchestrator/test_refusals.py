"""What a refusal of the executor does to a mission: whether it goes back, or waits for what will pass."""

from pathlib import Path

import pytest

from gonogo import sealing
from gonogo.v1 import evidence_pb2
from orchestrator.domain.errors import ExecutorRefusedError, OrchestratorError, Reason
from orchestrator.domain.mission import MissionStatus
from orchestrator.service.ports import ExecutionOrder
from tests.fakes import executor_simulator
from tests.fakes.executor_simulator import Approver, ExecutorSimulator
from tests.fakes.orchestrator_house import House

S = MissionStatus
PERSONS = ("alice", "bob", "carol")


class Moody(ExecutorSimulator):
    """An executor that refuses with a reason of the test's, and takes no approval of those who withdrew theirs."""

    refuses: Reason | None = None
    withdrawn: tuple[str, ...] = ()

    def _check(self, order: ExecutionOrder) -> None:
        if self.refuses is not None:
            raise self._refusal(order, self.refuses, "not now")
        for approval in order.approvals:
            approver = sealing.open_sealed(approval.body, evidence_pb2.Approval).approver
            if approver in self.withdrawn:
                raise self._refusal(order, Reason.APPROVAL_REVOKED, f"{approver} withdrew")
        super()._check(order)


@pytest.mark.parametrize(
    ("reason", "gate", "status"),
    [
        (Reason.STATE_FORBIDS, 0, S.APPROVED),
        (Reason.TRUST_EXPIRED, 0, S.APPROVED),
        (Reason.CLOCK_BEHIND, 0, S.APPROVED),
        (Reason.AUDIT_FORKED, 0, S.APPROVED),
        (Reason.AUDIT_FORKED, 3, S.PROPOSED),
        (Reason.APPROVAL_REVOKED, 3, S.PROPOSED),
        (Reason.APPROVAL_EXPIRED, 3, S.EXPIRED),
    ],
)
async def test_what_a_refusal_does(
    tmp_path: Path, approver: Approver, monkeypatch: pytest.MonkeyPatch, reason: Reason, gate: int, status: S
) -> None:
    """What is wrong with the executor passes, and the approvals stay; what is wrong with the evidence never does."""
    monkeypatch.setitem(executor_simulator.GATES, reason, gate)
    executor = Moody(approver)
    house = House(tmp_path, executor, approver)
    mission = await house.approved()
    executor.refuses = reason
    with pytest.raises(ExecutorRefusedError) as caught:
        await house.execute(mission)
    assert caught.value.reason is reason
    assert house.mission(mission.mission_id).status is status

    executor.refuses = None
    if status is S.APPROVED:
        await house.execute(mission)
        assert house.mission(mission.mission_id).status is S.COMPLETED
    await house.close()


async def test_the_others_can_go_on_without_who_withdrew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A withdrawn go sends the mission back; a fresh report that the others approve is executed."""
    monkeypatch.setitem(executor_simulator.GATES, Reason.APPROVAL_REVOKED, 3)
    alice, bob, carol = (Approver(person=name) for name in PERSONS)
    executor = Moody(alice, bob, carol, approvals_required=2)
    house = House(tmp_path, executor, alice)
    mission = await house.approved()
    for other in (bob, carol):
        await house.approve(house.mission(mission.mission_id), other)
    executor.withdrawn = ("alice",)
    with pytest.raises(OrchestratorError) as caught:
        await house.execute(mission)
    assert caught.value.reason is Reason.APPROVAL_REVOKED

    back = house.mission(mission.mission_id)
    assert (back.status, back.approvals) == (S.PROPOSED, ())
    await house.dry_run(back)
    for other in (bob, carol):
        await house.approve(house.mission(mission.mission_id), other)
    await house.execute(mission)
    assert house.mission(mission.mission_id).status is S.COMPLETED
    await house.close()
