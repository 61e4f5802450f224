"""The part of the client that has to do with missions under way: control, repair, the queue, and what was learnt."""

from client.calls import QUICK, called, new_request_id
from gonogo.v1 import events_pb2, executor_pb2, orchestrator_pb2, orchestrator_pb2_grpc, plan_pb2, sealed_pb2

PAUSE = events_pb2.CONTROL_ACTION_PAUSE
RESUME = events_pb2.CONTROL_ACTION_RESUME
STOP = events_pb2.CONTROL_ACTION_STOP
RETRY = events_pb2.CONTROL_ACTION_RETRY
APPROVE_STEP = events_pb2.CONTROL_ACTION_APPROVE_STEP
RECONCILE = events_pb2.CONTROL_ACTION_RECONCILE


class ControlCalls:
    """The calls; a mission may be named by the beginning of its id."""

    _missions: "orchestrator_pb2_grpc.MissionServiceAsyncStub"
    _signals: "orchestrator_pb2_grpc.SignalServiceAsyncStub"

    async def control(
        self,
        mission_id: str,
        action: events_pb2.ControlAction.ValueType,
        *,
        reason: str = "",
        roll_back: bool = False,
        document: sealed_pb2.Sealed | None = None,
        request_id: str | None = None,
    ) -> orchestrator_pb2.Mission:
        """Have an execution pause, go on or stop, or hand in a signed word about one of its steps.

        The answer is the mission as far as its events have come; what the wish comes to is told by those that follow.
        """
        request = orchestrator_pb2.ControlMissionRequest(
            request_id=request_id or new_request_id(),
            mission_id=mission_id,
            action=action,
            reason=reason,
            roll_back=roll_back,
            document=document,
        )
        return (await called(self._missions.ControlMission(request, timeout=QUICK))).mission

    async def repair(
        self,
        mission_id: str,
        draft: plan_pb2.PlanDraft | None = None,
        *,
        dry_run: bool = True,
        request_id: str | None = None,
    ) -> orchestrator_pb2.RepairMissionResponse:
        """Give a mission a repair plan; without a draft the repair proposer makes one.

        It does nothing before it is dry-run and approved. Where the dry run could not be made, the answer has no
        report, and `dry_run` tells why.
        """
        request = orchestrator_pb2.RepairMissionRequest(
            request_id=request_id or new_request_id(), mission_id=mission_id, draft=draft, dry_run=dry_run
        )
        return await called(self._missions.RepairMission(request, timeout=None if dry_run else QUICK))

    async def feedback(
        self, mission_id: str, rating: events_pb2.Rating.ValueType, text: str = "", *, request_id: str | None = None
    ) -> orchestrator_pb2.Mission:
        """Record what a person thinks of a mission's result."""
        request = orchestrator_pb2.RecordFeedbackRequest(
            request_id=request_id or new_request_id(), mission_id=mission_id, rating=rating, text=text
        )
        return (await called(self._missions.RecordFeedback(request, timeout=QUICK))).mission

    async def queue(self, workspace_id: str = "") -> orchestrator_pb2.GetQueueResponse:
        """Return what waits for its turn."""
        request = orchestrator_pb2.GetQueueRequest(workspace_id=workspace_id)
        return await called(self._missions.GetQueue(request, timeout=QUICK))

    async def signals(
        self, *, kind: str = "", tool: str = "", workspace_id: str = ""
    ) -> orchestrator_pb2.GetSignalsResponse:
        """Return what outcomes have taught."""
        request = orchestrator_pb2.GetSignalsRequest(kind=kind, tool=tool, workspace_id=workspace_id)
        return await called(self._signals.GetSignals(request, timeout=QUICK))

    async def processes(self, mission_id: str = "") -> list[executor_pb2.LiveProcess]:
        """Return the programs that live steps started and that keep running, the newest first."""
        request = orchestrator_pb2.ListMissionProcessesRequest(mission_id=mission_id)
        return list((await called(self._missions.ListMissionProcesses(request, timeout=QUICK))).processes)

    async def stop_process(self, process_id: str, *, request_id: str | None = None) -> executor_pb2.LiveProcess:
        """End such a program, with everything that it started."""
        request = orchestrator_pb2.StopMissionProcessRequest(
            request_id=request_id or new_request_id(), process_id=process_id
        )
        return (await called(self._missions.StopMissionProcess(request, timeout=QUICK))).process
