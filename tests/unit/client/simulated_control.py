# ruff: noqa: N802, ARG002 - gRPC names its methods and passes what they may not need
"""The half of the simulated orchestrator that controls missions, keeps the queue and tells what outcomes taught."""

import time
from collections.abc import Iterator

import grpc
from google.rpc import code_pb2

from gonogo import sealing
from gonogo.digests import digest
from gonogo.v1 import (
    events_pb2,
    evidence_pb2,
    executor_pb2,
    orchestrator_pb2,
    orchestrator_pb2_grpc,
    plan_pb2,
    sealed_pb2,
)
from tests.unit.client.simulated_answers import Shelf, Stored, abort

LONGEST_WAIT = 20.0
GOES_ON = frozenset(
    {
        events_pb2.CONTROL_ACTION_RESUME,
        events_pb2.CONTROL_ACTION_RETRY,
        events_pb2.CONTROL_ACTION_APPROVE_STEP,
        events_pb2.CONTROL_ACTION_RECONCILE,
    }
)


class SimulatedControl(
    Shelf, orchestrator_pb2_grpc.MissionServiceServicer, orchestrator_pb2_grpc.SignalServiceServicer
):
    """What it is asked is kept in `asked`; how missions stand is changed as an honest pair would change it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[orchestrator_pb2.ControlMissionRequest] = []
        self.executed: list[orchestrator_pb2.ExecuteMissionRequest] = []
        self.processes: list[executor_pb2.LiveProcess] = []
        self.far_sides: list[executor_pb2.FarSide] = []
        self.signals = orchestrator_pb2.GetSignalsResponse()
        self.feedback: list[orchestrator_pb2.RecordFeedbackRequest] = []
        self.words: dict[str, list[sealed_pb2.Sealed]] = {}
        self.pauses: list[executor_pb2.Pause] = []
        """What the next execution waits for, one after the other."""

    def waiting(self, stored: Stored) -> Iterator[orchestrator_pb2.ExecuteMissionResponse]:
        """Wait for persons, as often as was asked for; the stream stays open meanwhile."""
        mission = stored.mission
        pauses, self.pauses = self.pauses, []
        for pause in pauses:
            seen = len(stored.events)
            self.pause(mission.mission_id, pause)
            yield orchestrator_pb2.ExecuteMissionResponse(events=stored.events[seen:], resume_token="t")
            deadline = time.monotonic() + LONGEST_WAIT
            while mission.status == events_pb2.MISSION_STATUS_PAUSED and time.monotonic() < deadline:
                time.sleep(0.01)

    def pause(self, mission_id: str, pause: executor_pb2.Pause) -> None:
        """Have a mission wait for a person."""
        stored = self.missions[mission_id]
        stored.mission.status = events_pb2.MISSION_STATUS_PAUSED
        stored.mission.execution_id = stored.mission.execution_id or f"x-{mission_id}"
        stored.mission.pause.CopyFrom(pause)
        self.event(
            mission_id,
            execution_paused=events_pb2.ExecutionPaused(
                reason=pause.reason,
                kind=pause.kind,
                step_id=pause.step_id,
                results_digest=pause.results_digest,
                change_set_digest=pause.change_set_digest,
            ),
        )

    def ControlMission(
        self, request: orchestrator_pb2.ControlMissionRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.ControlMissionResponse:
        self.gate("control", context)
        stored = self.stored(request.mission_id, context)
        mission = stored.mission
        if request.action == events_pb2.CONTROL_ACTION_PAUSE:
            kind = events_pb2.PAUSE_KIND_REQUESTED
            self.pause(mission.mission_id, executor_pb2.Pause(kind=kind, reason=request.reason))
        elif request.action not in mission.pause.actions:
            abort(context, "STATE_FORBIDS", code_pb2.FAILED_PRECONDITION)
        elif request.action in GOES_ON:
            self._go_on(stored, request)
        else:
            self._stop(stored, request)
        self.asked.append(request)
        return orchestrator_pb2.ControlMissionResponse(mission=mission)

    def _go_on(self, stored: Stored, request: orchestrator_pb2.ControlMissionRequest) -> None:
        mission = stored.mission
        if request.HasField("document"):
            self.words.setdefault(mission.mission_id, []).append(request.document)
        action = events_pb2.ControlAction.Name(request.action).removeprefix("CONTROL_ACTION_").lower()
        self.event(
            mission.mission_id,
            execution_resumed=events_pb2.ExecutionResumed(action=action, actor="owner", step_id=mission.pause.step_id),
        )
        mission.status = events_pb2.MISSION_STATUS_ACTIVE
        mission.ClearField("pause")

    def _stop(self, stored: Stored, request: orchestrator_pb2.ControlMissionRequest) -> None:
        mission = stored.mission
        stopped = events_pb2.ExecutionStopped(actor="owner", reason=request.reason, roll_back=request.roll_back)
        self.event(mission.mission_id, execution_stopped=stopped)
        mission.status = events_pb2.MISSION_STATUS_CANCELLED
        mission.outcome = evidence_pb2.OUTCOME_ROLLED_BACK if request.roll_back else evidence_pb2.OUTCOME_PARTIAL
        mission.ClearField("pause")

    def RepairMission(
        self, request: orchestrator_pb2.RepairMissionRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.RepairMissionResponse:
        self.gate("repair", context)
        stored = self.stored(request.mission_id, context)
        if not stored.mission.pause.repairable:
            abort(context, "STATE_FORBIDS", code_pb2.FAILED_PRECONDITION)
        plan = self._repair_plan(stored, request)
        stored.plan = sealed_pb2.Sealed(media_type=sealing.PLAN, body=sealing.seal(plan))
        stored.approvals.clear()
        stored.mission.segment = plan.segment
        stored.mission.plan_id, stored.mission.plan_digest = plan.plan_id, digest(stored.plan.body)
        if request.dry_run:
            again = orchestrator_pb2.DryRunMissionRequest(mission_id=stored.mission.mission_id)
            self.DryRunMission(again, context)  # type: ignore[arg-type]  # the stubs have a context of their own
        report = stored.report if request.dry_run else None
        return orchestrator_pb2.RepairMissionResponse(
            mission=stored.mission, plan=stored.plan, report=report, explanation="the failing file as it was"
        )

    def _repair_plan(self, stored: Stored, request: orchestrator_pb2.RepairMissionRequest) -> plan_pb2.Plan:
        plan = sealing.open_sealed(stored.plan.body, plan_pb2.Plan)
        plan.plan_id = f"p-{next(self.numbers):020d}"
        plan.segment += 1
        plan.execution_id, plan.journal_digest = stored.mission.execution_id, stored.mission.pause.results_digest
        if request.HasField("draft"):
            del plan.steps[:]
            plan.steps.extend(request.draft.steps)
        for number, step in enumerate(plan.steps, 1):
            step.step_id = f"r{plan.segment}-{step.step_id or f's{number}'}"
            step.stage = step.stage or plan_pb2.STAGE_REPAIR
        return plan

    def RecordFeedback(
        self, request: orchestrator_pb2.RecordFeedbackRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.RecordFeedbackResponse:
        stored = self.stored(request.mission_id, context)
        self.feedback.append(request)
        return orchestrator_pb2.RecordFeedbackResponse(mission=stored.mission)

    def GetQueue(
        self, request: orchestrator_pb2.GetQueueRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.GetQueueResponse:
        waiting = [
            stored.mission
            for stored in self.missions.values()
            if stored.mission.status == events_pb2.MISSION_STATUS_QUEUED
            and request.workspace_id in {"", stored.mission.workspace_id}
        ]
        shown = [
            orchestrator_pb2.QueuedMission(
                mission_id=mission.mission_id,
                objective=mission.objective,
                workspace_id=mission.workspace_id,
                tenant=mission.proposer,
                priority=mission.priority,
                position=place,
            )
            for place, mission in enumerate(waiting, 1)
        ]
        return orchestrator_pb2.GetQueueResponse(missions=shown, depth=len(shown))

    def ListMissionProcesses(
        self, request: orchestrator_pb2.ListMissionProcessesRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.ListMissionProcessesResponse:
        shown = [one for one in self.processes if request.mission_id in {"", one.mission_id}]
        return orchestrator_pb2.ListMissionProcessesResponse(processes=shown)

    def StopMissionProcess(
        self, request: orchestrator_pb2.StopMissionProcessRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.StopMissionProcessResponse:
        found = next((one for one in self.processes if one.process_id == request.process_id), None)
        if found is None:
            abort(context, "NOT_FOUND", code_pb2.NOT_FOUND)
        found.running, found.ended = False, "stopped by owner"
        return orchestrator_pb2.StopMissionProcessResponse(process=found)

    def GetSignals(
        self, request: orchestrator_pb2.GetSignalsRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.GetSignalsResponse:
        return self.signals
