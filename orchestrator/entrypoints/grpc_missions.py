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
from orchestrator.domain.queue import QueueWish
from orchestrator.entrypoints.calls import page_size, request_of, stream, unary
from orchestrator.entrypoints.door import Door
from orchestrator.entrypoints.tokens import cursor_of, page_token, resume_token, sequence_of
from orchestrator.service.approvals import Approvals
from orchestrator.service.controlling import Controls, Wish
from orchestrator.service.dispatcher import Dispatcher
from orchestrator.service.dry_runs import DryRuns
from orchestrator.service.execution import Executions, MissionUpdate
from orchestrator.service.executor_card import ExecutorCard
from orchestrator.service.exporting import Exports
from orchestrator.service.feedback import Feedbacks
from orchestrator.service.missions import MissionFile, Missions
from orchestrator.service.plan_signing import PlanSigning
from orchestrator.service.ports import Executor
from orchestrator.service.recent import Recent
from orchestrator.service.repairing import Repairs
from orchestrator.service.signals import Signals
from orchestrator.service.tried_proposals import TriedProposals
from orchestrator.service.watching import SHARED_BATCHES, Watching

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
    controls: Controls
    repairs: Repairs
    feedbacks: Feedbacks
    signals: Signals


class MissionFace(MissionServiceServicer):
    """Missions from proposal to receipt."""

    def __init__(self, use_cases: UseCases, door: Door) -> None:
        self.door = door
        self._use = use_cases
        self._messages: Recent[tuple[str, int, int], pb.WatchMissionResponse] = Recent(SHARED_BATCHES)

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
        file = self._use.missions.file(request.mission_id)
        sent = _file(file)
        sent.mission.queue_position = self._position(file.mission)
        return sent

    @unary
    async def ListMissions(self, request: pb.ListMissionsRequest, person: str) -> pb.ListMissionsResponse:
        page = self._use.missions.page(
            size=page_size(request.page_size, default=PAGE, most=LARGEST_PAGE),
            before=cursor_of(request.page_token),
            status=wire.status_from_proto(request.status),
        )
        listed = [wire.mission_to_proto(mission) for mission in page.missions]
        places = self._use.dispatcher.positions(page.missions)
        for sent in listed if places else ():
            sent.queue_position = places.get(sent.mission_id, 0)
        return pb.ListMissionsResponse(missions=listed, next_page_token=page_token(page.next_page))

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
        async with aclosing(self._executed(request, person)) as updates:
            async for update in updates:
                for message in _messages(update):
                    if message.HasField("mission"):
                        message.mission.queue_position = self._position(update.mission)
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
                yield self._watched_message(mission_id, sequence, batch)

    @unary
    async def ControlMission(self, request: pb.ControlMissionRequest, person: str) -> pb.ControlMissionResponse:
        if not request.action:
            raise malformed("the request has no action", "Set `action`.")
        wish = Wish(
            action=wire.action_from_proto(request.action),
            reason=request.reason,
            roll_back=request.roll_back,
            document=wire.sealed_from_proto(request.document) if request.HasField("document") else None,
        )
        answer = await self._use.controls.control(request_of(request, person), request.mission_id, wish)
        return pb.ControlMissionResponse(mission=wire.mission_to_proto(answer.mission))

    @unary
    async def RepairMission(self, request: pb.RepairMissionRequest, person: str) -> pb.RepairMissionResponse:
        draft = wire.draft_from_proto(request.draft) if request.HasField("draft") else None
        asked = request_of(request, person)
        answer = await self._use.repairs.repair(asked, request.mission_id, draft, dry_run=request.dry_run)
        store, mission = self._use.missions.store, answer.mission
        report = store.document(mission.mission_id, mission.report_digest) if request.dry_run else None
        return pb.RepairMissionResponse(
            mission=wire.mission_to_proto(mission),
            plan=wire.sealed_or_none(store.plan_of(mission)),
            report=wire.sealed_or_none(report),
            explanation=answer.told["explanation"],
        )

    @unary
    async def RecordFeedback(self, request: pb.RecordFeedbackRequest, person: str) -> pb.RecordFeedbackResponse:
        rating = wire.rating_from_proto(request.rating)
        answer = await self._use.feedbacks.record(request_of(request, person), request.mission_id, rating, request.text)
        return pb.RecordFeedbackResponse(mission=wire.mission_to_proto(answer.mission))

    @unary
    async def GetQueue(self, request: pb.GetQueueRequest, person: str) -> pb.GetQueueResponse:
        return wire.queue_to_proto(self._use.dispatcher.queue(request.workspace_id))

    @unary
    async def ListMissionProcesses(
        self, request: pb.ListMissionProcessesRequest, person: str
    ) -> pb.ListMissionProcessesResponse:
        found = await self._use.controls.processes(request.mission_id)
        return pb.ListMissionProcessesResponse(processes=[wire.process_to_proto(process) for process in found])

    @unary
    async def StopMissionProcess(
        self, request: pb.StopMissionProcessRequest, person: str
    ) -> pb.StopMissionProcessResponse:
        process = await self._use.controls.stop_process(request_of(request, person), request.process_id)
        return pb.StopMissionProcessResponse(process=wire.process_to_proto(process))

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

    def _executed(self, request: pb.ExecuteMissionRequest, person: str) -> AsyncGenerator[MissionUpdate, None]:
        asked, wish = request_of(request, person), wire.wish_from_proto(request)
        approvals = [wire.sealed_from_proto(approval) for approval in request.approvals]
        if request.detach:
            return self._use.dispatcher.enqueue(asked, request.mission_id, approvals, wish)
        if wish != QueueWish():
            raise malformed(
                "priority, not_before and expires_at are for missions that are queued",
                "Set `detach`, or leave them out.",
            )
        return self._use.executions.execute(asked, request.mission_id, approvals)

    def _position(self, mission: Mission | None) -> int:
        return 0 if mission is None or mission.queued_at is None else self._use.dispatcher.position(mission)

    def _watched_message(self, mission_id: str, sequence: int, batch: tuple[Event, ...]) -> pb.WatchMissionResponse:
        """Return a batch as a message, the same one for all who watch; a heartbeat without events."""

        def made() -> pb.WatchMissionResponse:
            token = resume_token(mission_id, sequence)
            return pb.WatchMissionResponse(events=wire.event_parts(batch), resume_token=token)

        return self._messages.made((mission_id, batch[0].sequence, sequence), made) if batch else made()

    def _check_named(self, mission: Mission, digest: str) -> None:
        names = self._use.missions.documents.names_object
        if not digest or not any(names(report, digest) for report in self._use.dry_runs.reports_of(mission)):
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
        segments=[
            pb.SegmentDocuments(
                segment=segment.segment,
                plan=wire.sealed_or_none(segment.plan),
                report=wire.sealed_or_none(segment.report),
                approvals=[wire.sealed_to_proto(approval) for approval in segment.approvals],
            )
            for segment in file.segments
        ],
        words=[wire.sealed_to_proto(word) for word in file.words],
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
        events=wire.event_parts(events),
        resume_token=resume_token(mission_id, sequence),
        mission=mission,
        receipt=receipt,
    )
