"""Missions whose execution waits, and the signed words about their steps."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from gonogo import sealing
from gonogo.v1 import evidence_pb2
from orchestrator.domain import events as ev
from orchestrator.domain.events import ControlAction
from orchestrator.domain.evidence import Sealed
from orchestrator.domain.mission import Mission, MissionStatus
from orchestrator.domain.plan import PlanDraft, Step, WriteFile
from orchestrator.service.controlling import Wish
from orchestrator.service.execution import MissionUpdate
from orchestrator.service.requests import Request
from tests.fakes.approvers import sealed, timestamp
from tests.fakes.orchestrator_house import House, request

FAILURE = ev.ExecutionPaused(reason="step s1 failed", kind=ev.PauseKind.FAILURE)
S = MissionStatus


def step(path: str = "notes.txt") -> Step:
    return Step(action=WriteFile(path=path, content="hello\n"))


def repair_draft(path: str = "repaired.txt", workspace: str = "") -> PlanDraft:
    return PlanDraft(objective="Write it elsewhere", workspace=workspace, steps=(step(path),))


async def until(house: House, mission: Mission, holds: Callable[[Mission], bool]) -> Mission:
    """Wait until a mission stands as it should."""
    async with asyncio.timeout(10):
        while not holds(house.mission(mission.mission_id)):  # noqa: ASYNC110 - a state is polled, not waited for
            await asyncio.sleep(0.001)
    return house.mission(mission.mission_id)


async def until_status(house: House, mission: Mission, status: MissionStatus) -> Mission:
    return await until(house, mission, lambda now: now.status is status)


async def until_written(house: House, mission: Mission) -> None:
    """Wait until all that happened to a mission is in the log."""
    await until(house, mission, lambda now: not house.use.missions.store.has_unwritten(now.mission_id))


def executing(house: House, mission: Mission, asked: Request | None = None) -> "asyncio.Task[list[MissionUpdate]]":
    """Begin to execute a mission, as a caller that stays to the end."""
    return asyncio.ensure_future(house.execute(mission, asked))


async def failed(house: House, *steps: Step) -> tuple[Mission, "asyncio.Task[list[MissionUpdate]]"]:
    """Return a mission that is paused on a failure, and its caller."""
    house.executor.pauses = (FAILURE,)
    mission = await house.approved(*steps)
    caller = executing(house, mission)
    return await until_status(house, mission, S.PAUSED), caller


async def told(
    house: House, mission: Mission, action: ControlAction, asked: Request | None = None, **wish: object
) -> Mission:
    """Have a mission's execution do something."""
    made = Wish(action=action, **wish)  # type: ignore[arg-type]  # tests give what they like
    return (await house.use.controls.control(asked or request(), mission.mission_id, made)).mission


async def repaired(house: House, mission: Mission, draft: PlanDraft | None = None) -> Mission:
    """Give a mission a repair plan that is dry-run and approved."""
    answer = await house.use.repairs.repair(request(), mission.mission_id, draft or repair_draft(), dry_run=True)
    return await house.approve(answer.mission)


def step_approval(house: House, mission: Mission, comment: str = "") -> Sealed:
    """Sign an approval of the step that a mission waits before."""
    assert mission.pause is not None
    now = datetime.now(UTC)
    said = evidence_pb2.StepApproval(
        approval_id=f"a-{mission.pause.step_id}",
        executor_id=mission.executor_id,
        workspace_id=mission.workspace_id,
        mission_id=mission.mission_id,
        execution_id=mission.execution_id,
        segment=mission.segment,
        step_id=mission.pause.step_id,
        change_set_digest=mission.pause.change_set_digest,
        results_digest=mission.pause.results_digest,
        approver=house.approver.person,
        decision=evidence_pb2.DECISION_APPROVE,
        approved_at=timestamp(now),
        expires_at=timestamp(now + timedelta(hours=1)),
        nonce="once",
        comment=comment,
    )
    return sealed(sealing.STEP_APPROVAL, sealing.seal(said), house.approver.key, house.approver.scheme)


def reconciliation(house: House, mission: Mission, *, happened: bool, reason: str = "") -> Sealed:
    """Sign a word on the effect that a mission waits for."""
    assert mission.pause is not None
    said = evidence_pb2.Reconciliation(
        reconciliation_id=f"rec-{mission.pause.step_id}",
        executor_id=mission.executor_id,
        mission_id=mission.mission_id,
        execution_id=mission.execution_id,
        step_id=mission.pause.step_id,
        happened=happened,
        reason=reason,
        person=house.approver.person,
        decided_at=timestamp(datetime.now(UTC)),
        nonce="once",
        results_digest=mission.pause.results_digest,
    )
    return sealed(sealing.RECONCILIATION, sealing.seal(said), house.approver.key, house.approver.scheme)
