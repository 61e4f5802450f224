"""`MissionService`: each handler maps, calls one use case, and maps back."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from gonogo.v1 import orchestrator_pb2 as pb
from gonogo.v1 import sealed_pb2
from gonogo.v1.orchestrator_pb2_grpc import MissionServiceServicer
from orchestrator.adapters import wire
from orchestrator.adapters.times import time_to_proto
from orchestrator.domain.errors import Reason, RequestRefusedError, malformed
from orchestrator.domain.events import Event
from orchestrator.domain.mission import Mission
from orchestrator.entrypoints.calls import page_size, request_of, stream, unary
from orchestrator.entrypoints.door import Door
from orchestrator.entrypoints.tokens import cursor_of, page_token, resume_token, sequence_of
from orchestrator.service.approvals import Approvals
from orchestrator.service.dispatcher import Dispatcher
from orchestrator.service.dry_runs import DryRuns
from orchestrator.service.execution import Executions, MissionUpdate
from orchestrator.service.executor_card import ExecutorCard
from orchestrator.service.exporting import Exports
from orchestrator.service.missions import MissionFile, Missions
from orchestrator.service.plan_signing import PlanSigning
from orchestrator.service.ports import Executor
from orchestrator.service.tried_proposals import TriedProposals
from orchestrator.service.watching import Watching

PAGE: Final = 50
LARGEST_PAGE: Final = 500
OBJECT_PART: Final = 1 << 20
BATCH: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class UseCases:
    """What the mission service calls."""

    missions: Missions
    tried_proposals: TriedProposals
    plan_signing: PlanSigning
    approvals: Approvals
    dry_runs: DryRuns
    executions: Executions
    dispatcher: Dispatcher
    watching: Watching
    card: ExecutorCard
    executor: Executor
    exports: Exports


class MissionFace(MissionServiceServicer):
    """Missions from proposal to receipt."""

    def __init__(self, use_cases: UseCases, door: Door) -> None:
        self.door = door
        self._use = use_cases

    @unary
    async def ProposeMission(self, request: pb.ProposeMissionRequest, person: str) -> pb.ProposeMissionResponse:
        if request.HasField("draft") == bool(request.clone_of):
            raise malformed("give exactly one of `draft` and `clone_of`", "Leave the other one out.")
        asked = request_of(request, person)
        proposals = self._use.tried_proposals if request.dry_run else self._use.missions
        if request.clone_of:
            answer = await proposals.clone(asked, request.clone_of)
        else:
            answer = await proposals.propose(asked, wire.draft_from_proto(request.draft))
        mission, document = answer.mission, self._use.missions.store.document
        report = document(mission.mission_id, mission.report_digest) if request.dry_run else None
        return pb.ProposeMissionResponse(
            mission=wire.mission_to_proto(mission),
            plan=wire.sealed_or_none(self._use.missions.store.plan_of(mission)),
            report=wire.sealed_or_none(report),
        )

    @unary
    async def GetMission(self, request: pb.GetMissionRequest, person: str) -> pb.GetMissionResponse:
        return _file(self._use.missions.file(request.mission_id))

    @unary
    async def ListMissions(self, request: pb.ListMissionsRequest, person: str) -> pb.ListMissionsResponse:
        page = self._use.missions.page(
            size=page_size(request.page_size, default=PAGE, most=LARGEST_PAGE),
            before=cursor_of(request.page_token),
            status=wire.status_from_proto(request.status),
        )
        return pb.ListMissionsResponse(
            missions=[wire.mission_to_proto(mission) for mission in page.missions],
            next_page_token=page_token(page.next_page),
        )

    @unary
    async def DryRunMission(self, request: pb.DryRunMissionRequest, person: str) -> pb.DryRunMissionResponse:
        answer = await self._use.dry_runs.dry_run(request_of(request, person), request.mission_id)
        report = self._use.dry_runs.report_of(answer.mission)
        return pb.DryRunMissionResponse(
            mission=wire.mission_to_proto(answer.mission), report=wire.sealed_to_proto(report)
        )

    @unary
    async def ApproveMission(self, request: pb.ApproveMissionRequest, person: str) -> pb.ApproveMissionResponse:
        if not request.HasField("approval"):
            raise malformed("the request has no approval", "Sign one with `gonogo approve`.")
        sealed = wire.sealed_from_proto(request.approval)
        answer = await self._use.approvals.approve(request_of(request, person), request.mission_id, sealed)
        return pb.ApproveMissionResponse(
            mission=wire.mission_to_proto(answer.mission),
            approval_id=answer.told["approval_id"],
            approver=answer.told["approver"],
            expires_at=time_to_proto(datetime.fromisoformat(answer.told["expires_at"])),
        )

    @unary
    async def SignPlan(self, request: pb.SignPlanRequest, person: str) -> pb.SignPlanResponse:
        if not request.HasField("signature"):
            raise malformed("the request has no signature", "Sign the mission's sealed plan.")
        signature = wire.signature_from_proto(request.signature)
        answer = await self._use.plan_signing.sign(request_of(request, person), request.mission_id, signature)
        plan = self._use.missions.store.plan_of(answer.mission)
        return pb.SignPlanResponse(mission=wire.mission_to_proto(answer.mission), plan=wire.sealed_or_none(plan))

    @unary
    async def RejectMission(self, request: pb.RejectMissionRequest, person: str) -> pb.RejectMissionResponse:
        answer = await self._use.missions.reject(request_of(request, person), request.mission_id, request.reason)
        return pb.RejectMissionResponse(mission=wire.mission_to_proto(answer.mission))

    @unary
    async def CancelMission(self, request: pb.CancelMissionRequest, person: str) -> pb.CancelMissionResponse:
        answer = await self._use.executions.cancel(request_of(request, person), request.mission_id, request.reason)
        return pb.CancelMissionResponse(mission=wire.mission_to_proto(answer.mission))

    @stream
    async def ExecuteMission(
        self, request: pb.ExecuteMissionRequest, person: str
    ) -> AsyncGenerator[pb.ExecuteMissionResponse, None]:
        asked = request_of(request, person)
        start = self._use.dispatcher.enqueue if request.detach else self._use.executions.execute
        approvals = [wire.sealed_from_proto(approval) for approval in request.approvals]
        async with aclosing(start(asked, request.mission_id, approvals)) as updates:
            async for update in updates:
                for message in _messages(update):
                    yield message

    @stream
    async def WatchMission(
        self, request: pb.WatchMissionRequest, person: str
    ) -> AsyncGenerator[pb.WatchMissionResponse, None]:
        mission_id = self._use.missions.store.find(request.mission_id).mission_id
        sequence = sequence_of(request.resume_token, mission_id)
        async with aclosing(self._use.watching.watch(mission_id, sequence, follow=request.follow)) as batches:
            async for batch in batches:
                sequence = batch[-1].sequence if batch else sequence
                yield pb.WatchMissionResponse(
                    events=wire.events_to_proto(batch), resume_token=resume_token(mission_id, sequence)
                )

    @unary
    async def GetMissionObject(self, request: pb.GetMissionObjectRequest, person: str) -> pb.GetMissionObjectResponse:
        mission = self._use.missions.store.find(request.mission_id)
        self._check_named(mission, request.digest)
        limit = min(request.limit or OBJECT_PART, OBJECT_PART)
        part = await self._use.executor.read_object(request.digest, request.offset, limit)
        return pb.GetMissionObjectResponse(data=part.data, total_bytes=part.total_bytes)

    @unary
    async def GetMissionExecutor(
        self, request: pb.GetMissionExecutorRequest, person: str
    ) -> pb.GetMissionExecutorResponse:
        return pb.GetMissionExecutorResponse(executor=wire.executor_to_proto(await self._use.card.refresh()))

    @unary
    async def ExportMission(self, request: pb.ExportMissionRequest, person: str) -> pb.ExportMissionResponse:
        found = await self._use.exports.export(request.mission_id)
        theirs = found.executor_log
        return pb.ExportMissionResponse(
            documents=_file(found.file),
            policy=wire.sealed_or_none(found.policy),
            orchestrator_log=wire.extract_to_proto(found.own_log),
            executor_log=None if theirs is None else wire.extract_to_proto(theirs),
            kept_executor_checkpoint=found.kept_checkpoint,
            executor_consistency=found.consistency,
            orchestrator_public_key=found.public_key,
        )

    def _check_named(self, mission: Mission, digest: str) -> None:
        report = self._use.dry_runs.report_of(mission)
        if not digest or not self._use.missions.documents.names_object(report, digest):
            raise RequestRefusedError(
                Reason.NOT_FOUND, "the mission's report names no such object", "Take the digest from the report."
            )


def _file(file: MissionFile) -> pb.GetMissionResponse:
    return pb.GetMissionResponse(
        mission=wire.mission_to_proto(file.mission),
        plan=wire.sealed_or_none(file.plan),
        report=wire.sealed_or_none(file.report),
        approvals=[wire.sealed_to_proto(approval) for approval in file.approvals],
        receipt=wire.sealed_or_none(file.receipt),
        refusal=wire.sealed_or_none(file.refusal),
    )


def _messages(update: MissionUpdate) -> list[pb.ExecuteMissionResponse]:
    """Return an update as messages of bounded size; only the last carries the mission and the receipt."""
    parts = [update.events[at : at + BATCH] for at in range(0, len(update.events), BATCH)] or [()]
    *first, last = parts
    return [
        *(_message(update.mission_id, part[-1].sequence, part) for part in first),
        _message(
            update.mission_id,
            last[-1].sequence if last else update.sequence,
            last,
            mission=wire.mission_to_proto(update.mission) if update.mission is not None else None,
            receipt=wire.sealed_or_none(update.receipt),
        ),
    ]


def _message(
    mission_id: str,
    sequence: int,
    events: tuple[Event, ...],
    *,
    mission: pb.Mission | None = None,
    receipt: sealed_pb2.Sealed | None = None,
) -> pb.ExecuteMissionResponse:
    return pb.ExecuteMissionResponse(
        events=wire.events_to_proto(events),
        resume_token=resume_token(mission_id, sequence),
        mission=mission,
        receipt=receipt,
    )
