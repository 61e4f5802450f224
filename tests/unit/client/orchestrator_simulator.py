# ruff: noqa: N802, ARG002 - gRPC names its methods and passes what they may not need
"""An orchestrator and executor in one, for the client's tests: honest by default, lying where a test tells it to.

It serves the real contract over real mutual TLS, seals and signs for real, and keeps its missions in memory.
"""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
from google.rpc import code_pb2

from client.changes import net_states, states_fingerprint
from client.state import StateDirectory
from gonogo import sealing
from gonogo.digests import digest
from gonogo.signatures import ED25519, PublicKey, SigningKey, load_public_key, load_signing_key, new_signing_key
from gonogo.v1 import (
    events_pb2,
    evidence_pb2,
    executor_pb2,
    orchestrator_pb2,
    orchestrator_pb2_grpc,
    plan_pb2,
    sealed_pb2,
)
from tests.unit.client.simulated_answers import Stored, abort
from tests.unit.client.simulated_audit import SimulatedAudit, said
from tests.unit.client.simulated_control import SimulatedControl

EXECUTOR = "executor-simulated"


class Simulator(
    SimulatedControl,
    orchestrator_pb2_grpc.ChatServiceServicer,
    orchestrator_pb2_grpc.WhiteboardServiceServicer,
    orchestrator_pb2_grpc.AuditServiceServicer,
):
    """Everything the client can call. Attributes that begin with `lie_` make it lie."""

    def __init__(
        self,
        executor_key: SigningKey,
        *,
        orchestrator_key: SigningKey | None = None,
        approver: PublicKey | None = None,
    ) -> None:
        super().__init__()
        self.executor_key = executor_key
        self.audit = SimulatedAudit(
            EXECUTOR, executor_key, orchestrator_key or new_signing_key(), approver or new_signing_key().public
        )
        self.objects: dict[str, bytes] = {}
        self.changes: list[list[evidence_pb2.Change]] = []
        self.status = evidence_pb2.REPORT_STATUS_SUCCESS
        self.risk = evidence_pb2.RISK_LEVEL_LOW
        self.outcome = evidence_pb2.OUTCOME_SUCCESS
        self.lie_plan_of: str = ""
        self.lie_report_of: str = ""
        self.lie_receipt_of: str = ""
        self.lie_object: bytes | None = None
        self.breaks_off = False
        """A watcher's connection ends after the first events."""
        self.lie_in_plan: Callable[[plan_pb2.Plan], object] = bool
        """Changes a plan before it is sealed."""

    def ProposeMission(
        self, request: orchestrator_pb2.ProposeMissionRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.ProposeMissionResponse:
        self.gate("propose", context)
        number = next(self.numbers)
        mission_id = f"m-{number:020d}"
        draft = request.draft
        plan = plan_pb2.Plan(
            plan_id=f"p-{number:020d}",
            mission_id=mission_id,
            intent_id=f"i-{number:020d}",
            objective=draft.objective,
            workspace_id=draft.workspace,
            executor_id=EXECUTOR,
            proposer="owner",
            scope=completed_scope(draft.scope),
            failure_policy=draft.failure_policy or plan_pb2.FAILURE_POLICY_PAUSE,
            steps=draft.steps,
            pause=completed_pause(draft.pause),
        )
        for position, step in enumerate(plan.steps, 1):
            complete_step(step, position)
        plan.created_at.GetCurrentTime()
        self.lie_in_plan(plan)
        body = sealing.seal(plan)
        mission = orchestrator_pb2.Mission(
            mission_id=mission_id,
            status=events_pb2.MISSION_STATUS_PROPOSED,
            objective=plan.objective,
            workspace_id=plan.workspace_id,
            executor_id=EXECUTOR,
            plan_id=plan.plan_id,
            plan_digest=digest(body),
            intent_id=plan.intent_id,
            proposer=plan.proposer,
        )
        sealed = sealed_pb2.Sealed(media_type=sealing.PLAN, body=body)
        self.missions[mission_id] = Stored(mission=mission, plan=sealed)
        self.event(mission_id, plan_sealed=events_pb2.PlanSealed(plan_id=plan.plan_id))
        return orchestrator_pb2.ProposeMissionResponse(mission=mission, plan=sealed)

    def DryRunMission(
        self, request: orchestrator_pb2.DryRunMissionRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.DryRunMissionResponse:
        self.gate("dry_run", context)
        stored = self.stored(request.mission_id, context)
        plan = sealing.open_sealed(stored.plan.body, plan_pb2.Plan)
        report = self._report(plan, stored.mission.plan_digest)
        body = sealing.seal(report)
        stored.report = self._signed(sealing.REPORT, body)
        self.audit.record_report(stored.report, report)
        stored.mission.report_digest = digest(body)
        stored.mission.report_id = f"r-{plan.mission_id}"
        report_shown = self.missions[self.lie_report_of].report if self.lie_report_of else stored.report
        return orchestrator_pb2.DryRunMissionResponse(mission=stored.mission, report=report_shown)

    def ApproveMission(
        self, request: orchestrator_pb2.ApproveMissionRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.ApproveMissionResponse:
        self.gate("approve", context)
        stored = self.stored(request.mission_id, context)
        approval = sealing.open_sealed(request.approval.body, evidence_pb2.Approval)
        stored.approvals.append(request.approval)
        if stored.mission.status != events_pb2.MISSION_STATUS_PAUSED:
            stored.mission.status = events_pb2.MISSION_STATUS_APPROVED
        return orchestrator_pb2.ApproveMissionResponse(
            mission=stored.mission,
            approval_id=approval.approval_id,
            approver=approval.approver,
            expires_at=approval.expires_at,
        )

    def ExecuteMission(
        self, request: orchestrator_pb2.ExecuteMissionRequest, context: grpc.ServicerContext
    ) -> Iterator[orchestrator_pb2.ExecuteMissionResponse]:
        self.executed.append(request)
        self.gate("execute", context)
        stored = self.stored(request.mission_id, context)
        event = self.event(request.mission_id, step_started=events_pb2.StepStarted(step_id="s1", kind="write_file"))
        yield orchestrator_pb2.ExecuteMissionResponse(events=[event])
        yield from self.waiting(stored)
        receipt = self._receipt(stored)
        stored.receipt = self._signed(sealing.RECEIPT, sealing.seal(receipt))
        self.audit.record_execution(stored.receipt, receipt)
        stored.mission.status = events_pb2.MISSION_STATUS_COMPLETED
        stored.mission.execution_id = f"x-{request.mission_id}"
        stored.mission.receipt_id = f"rc-{request.mission_id}"
        receipt_shown = self.missions[self.lie_receipt_of].receipt if self.lie_receipt_of else stored.receipt
        yield orchestrator_pb2.ExecuteMissionResponse(mission=stored.mission, receipt=receipt_shown)

    def RejectMission(
        self, request: orchestrator_pb2.RejectMissionRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.RejectMissionResponse:
        stored = self.stored(request.mission_id, context)
        stored.mission.status = events_pb2.MISSION_STATUS_REJECTED
        self.event(request.mission_id, mission_rejected=events_pb2.MissionRejected(reason=request.reason))
        return orchestrator_pb2.RejectMissionResponse(mission=stored.mission)

    def CancelMission(
        self, request: orchestrator_pb2.CancelMissionRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.CancelMissionResponse:
        stored = self.stored(request.mission_id, context)
        stored.mission.status = events_pb2.MISSION_STATUS_CANCELLED
        self.event(request.mission_id, mission_cancelled=events_pb2.MissionCancelled(reason=request.reason))
        return orchestrator_pb2.CancelMissionResponse(mission=stored.mission)

    def GetMission(
        self, request: orchestrator_pb2.GetMissionRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.GetMissionResponse:
        stored = self.stored(request.mission_id, context)
        plan = self.missions[self.lie_plan_of].plan if self.lie_plan_of else stored.plan
        report = self.missions[self.lie_report_of].report if self.lie_report_of else stored.report
        receipt = self.missions[self.lie_receipt_of].receipt if self.lie_receipt_of else stored.receipt
        return orchestrator_pb2.GetMissionResponse(
            mission=stored.mission,
            plan=plan,
            report=report,
            approvals=stored.approvals,
            receipt=receipt,
            words=self.words.get(stored.mission.mission_id, []),
        )

    def SignPlan(
        self, request: orchestrator_pb2.SignPlanRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.SignPlanResponse:
        self.gate("sign", context)
        stored = self.stored(request.mission_id, context)
        stored.plan.signatures.append(request.signature)
        return orchestrator_pb2.SignPlanResponse(mission=stored.mission, plan=stored.plan)

    def ExportMission(
        self, request: orchestrator_pb2.ExportMissionRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.ExportMissionResponse:
        self.gate("export", context)
        documents = self.GetMission(orchestrator_pb2.GetMissionRequest(mission_id=request.mission_id), context)
        events, state = self.audit.orchestrator_extract(documents)
        documents.mission.CopyFrom(said(documents, state))
        return orchestrator_pb2.ExportMissionResponse(
            documents=documents,
            policy=self.audit.policy,
            orchestrator_log=events,
            executor_log=self.audit.executor_extract(documents.mission.mission_id),
            orchestrator_public_key=self.audit.orchestrator.key.public.line,
        )

    def GetLog(
        self, request: orchestrator_pb2.GetLogRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.GetLogResponse:
        if request.log == orchestrator_pb2.AUDIT_LOG_EXECUTOR:
            self.gate("executor_log", context)
        return self.audit.log(request)

    def ListMissions(
        self, request: orchestrator_pb2.ListMissionsRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.ListMissionsResponse:
        every = [stored.mission for stored in reversed(self.missions.values())]
        start = int(request.page_token or 0)
        page = every[start : start + min(request.page_size or 50, 2)]
        end = start + len(page)
        token = str(end) if end < len(every) else ""
        return orchestrator_pb2.ListMissionsResponse(missions=page, next_page_token=token)

    def WatchMission(
        self, request: orchestrator_pb2.WatchMissionRequest, context: grpc.ServicerContext
    ) -> Iterator[orchestrator_pb2.WatchMissionResponse]:
        stored = self.stored(request.mission_id, context)
        yield orchestrator_pb2.WatchMissionResponse(events=stored.events, resume_token="t$1")
        if self.breaks_off:
            context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    def GetMissionObject(
        self, request: orchestrator_pb2.GetMissionObjectRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.GetMissionObjectResponse:
        data = self.lie_object if self.lie_object is not None else self.objects.get(request.digest)
        if data is None:
            abort(context, "NOT_FOUND", code_pb2.NOT_FOUND)
        part = data[request.offset : request.offset + 65536]
        return orchestrator_pb2.GetMissionObjectResponse(data=part, total_bytes=len(data))

    def GetMissionExecutor(
        self, request: orchestrator_pb2.GetMissionExecutorRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.GetMissionExecutorResponse:
        executor = executor_pb2.GetExecutorResponse(
            executor_id=EXECUTOR, ladder_level=plan_pb2.LADDER_LEVEL_L3, version="0"
        )
        executor.policy.CopyFrom(self.audit.policy)
        executor.findings.add(name="overlay", ok=False, detail="not there", remedy="a newer kernel")
        executor.far_sides.extend(self.far_sides)
        return orchestrator_pb2.GetMissionExecutorResponse(executor=executor)

    def GetWhiteboard(
        self, request: orchestrator_pb2.GetWhiteboardRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.GetWhiteboardResponse:
        stored = self.stored(request.mission_id, context)
        board = orchestrator_pb2.Whiteboard(
            mission_id=stored.mission.mission_id, objective=stored.mission.objective, status=stored.mission.status
        )
        board.result.final_answer = "done"
        return orchestrator_pb2.GetWhiteboardResponse(whiteboard=board)

    def SendMessage(
        self, request: orchestrator_pb2.SendMessageRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.SendMessageResponse:
        return orchestrator_pb2.SendMessageResponse(
            session_id="c-1",
            message_id="msg-1",
            intent_id="i-1",
            intent=events_pb2.INTENT_KIND_UNCLEAR,
            reply="\x1b[31mI do not understand that.",
            nearest=["delete FILE"],
        )

    def ListMessages(
        self, request: orchestrator_pb2.ListMessagesRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.ListMessagesResponse:
        said = orchestrator_pb2.ChatMessage(message_id="msg-1", actor="gonogo", text=f"in {request.session_id}")
        token = "" if request.page_token else "next"
        return orchestrator_pb2.ListMessagesResponse(messages=[said], next_page_token=token)

    def _report(self, plan: plan_pb2.Plan, plan_digest: str) -> evidence_pb2.Report:
        report = evidence_pb2.Report(
            report_id=f"r-{plan.mission_id}",
            mission_id=plan.mission_id,
            intent_id=plan.intent_id,
            plan_id=plan.plan_id,
            plan_digest=plan_digest,
            workspace_id=plan.workspace_id,
            executor_id=EXECUTOR,
            ledger_epoch="1",
            nonce="n",
            status=self.status,
            ladder_level=plan_pb2.LADDER_LEVEL_L3,
            self_approval=evidence_pb2.SELF_APPROVAL_ALLOWED,
            base_fingerprint=digest(b"base"),
            risk=evidence_pb2.Risk(level=self.risk),
        )
        if self.status != evidence_pb2.REPORT_STATUS_SUCCESS:
            report.problems.add(step_id="s1", reason="CONFLICT", message="it does not apply", remedy="read it again")
        for position, step in enumerate(plan.steps):
            changes = self.changes[position] if position < len(self.changes) else []
            report.steps.add(step_id=step.step_id, kind=step.WhichOneof("action") or "", success=True, changes=changes)
        report.after_fingerprint = states_fingerprint(net_states(step.changes for step in report.steps)[1])
        self.audit.decide_report(plan, report)
        return report

    def _receipt(self, stored: Stored) -> evidence_pb2.Receipt:
        assert stored.report is not None
        report = sealing.open_sealed(stored.report.body, evidence_pb2.Report)
        before, after = net_states(step.changes for step in report.steps)
        receipt = evidence_pb2.Receipt(
            receipt_id=f"rc-{report.mission_id}",
            execution_id=f"x-{report.mission_id}",
            mission_id=report.mission_id,
            intent_id=report.intent_id,
            plan_id=report.plan_id,
            plan_digest=report.plan_digest,
            report_id=report.report_id,
            report_digest=digest(stored.report.body),
            executor_id=EXECUTOR,
            workspace_id=report.workspace_id,
            execution_status=self.outcome,
            steps_succeeded=len(report.steps),
            after_fingerprint=report.after_fingerprint,
            expected_after_fingerprint=report.after_fingerprint,
            before=[snapshot(path, node) for path, node in sorted(before.items())],
            after=[snapshot(path, node) for path, node in sorted(after.items())],
        )
        if self.outcome != evidence_pb2.OUTCOME_SUCCESS:
            receipt.abort_reason = "INTERNAL"
            receipt.errors.append("the disk is gone")
        for sealed in stored.approvals:
            approval = sealing.open_sealed(sealed.body, evidence_pb2.Approval)
            receipt.approvals.add(
                approval_id=approval.approval_id,
                approval_digest=digest(sealed.body),
                approver=approval.approver,
                key_id=sealed.signatures[0].key_id,
                scheme=sealed.signatures[0].scheme,
                approved_at=approval.approved_at,
                expires_at=approval.expires_at,
            )
        for step in report.steps:
            receipt.steps.add(step_id=step.step_id, operation=step.kind, success=True, duration_ms=3)
        self.audit.decide_receipt(sealing.open_sealed(stored.plan.body, plan_pb2.Plan), report, receipt)
        return receipt

    def _signed(self, media_type: str, body: bytes) -> sealed_pb2.Sealed:
        blob = self.executor_key.sign(ED25519, media_type, body)
        signature = sealed_pb2.Signature(key_id=self.executor_key.public.key_id, scheme=ED25519, signature=blob)
        return sealed_pb2.Sealed(media_type=media_type, body=body, signatures=[signature])


def completed_scope(asked: plan_pb2.Scope) -> plan_pb2.Scope:
    """Return a scope with its defaults."""
    scope = plan_pb2.Scope(network=plan_pb2.NETWORK_ACCESS_NONE, max_pages=1, max_duration_seconds=30)
    scope.MergeFrom(asked)
    return scope


def completed_pause(asked: plan_pb2.PauseRules) -> plan_pb2.PauseRules:
    """Return how long pauses wait, with the defaults."""
    pause = plan_pb2.PauseRules(
        deadline_seconds=86_400, default_action=plan_pb2.PAUSE_DEFAULT_ROLL_BACK, step_approval_seconds=3_600
    )
    pause.MergeFrom(asked)
    return pause


def complete_step(step: plan_pb2.Step, position: int) -> None:
    """Fill in what an edit leaves open."""
    kind = step.WhichOneof("action") or ""
    step.step_id = step.step_id or f"s{position}"
    step.stage = step.stage or plan_pb2.STAGE_EDIT
    step.description = step.description or f"{kind.replace('_', ' ')} {getattr(getattr(step, kind), 'path', '')}"


def snapshot(path: bytes, node: evidence_pb2.NodeState | None) -> evidence_pb2.Snapshot:
    """Return what a path is, or that it is not there."""
    return evidence_pb2.Snapshot(path=path.decode(), node=node)


@contextmanager
def serving(state: StateDirectory) -> Iterator[tuple[Simulator, str]]:
    """Serve a simulator with the certificates and keys of a state directory; its logs are new, so nothing is kept."""
    shutil.rmtree(state.witness, ignore_errors=True)
    simulator = Simulator(
        load_signing_key((state.keys / "executor").read_bytes()),
        orchestrator_key=load_signing_key((state.keys / "orchestrator").read_bytes()),
        approver=load_public_key((state.keys / "approver.pub").read_text()),
    )
    server = grpc.server(ThreadPoolExecutor(4))
    orchestrator_pb2_grpc.add_MissionServiceServicer_to_server(simulator, server)
    orchestrator_pb2_grpc.add_ChatServiceServicer_to_server(simulator, server)
    orchestrator_pb2_grpc.add_WhiteboardServiceServicer_to_server(simulator, server)
    orchestrator_pb2_grpc.add_AuditServiceServicer_to_server(simulator, server)
    orchestrator_pb2_grpc.add_SignalServiceServicer_to_server(simulator, server)
    pair = ((state.tls / "orchestrator.key").read_bytes(), (state.tls / "orchestrator.pem").read_bytes())
    credentials = grpc.ssl_server_credentials([pair], (state.tls / "ca.pem").read_bytes(), require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield simulator, f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
