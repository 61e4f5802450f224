"""The typed asynchronous client for other programs: one channel, one method per thing a person can do.

    async with GonogoClient.connect(StateDirectory(root=Path(".gonogo"))) as client:
        proposed = await client.propose(draft)
        tried = await client.dry_run(proposed.mission.mission_id)
        verified = client.verified(proposed, tried)
        await client.approve(verified, signer)
        async for part in client.execute(proposed.mission.mission_id):
            ...

An agent that has a key of its own signs what it proposes: `propose(draft, sign=signer)`. Who does all of it can do it
in two calls: `propose(draft, dry_run=True)`, then, after looking at the report,
`execute(mission_id, approvals=[client.approval(verified, signer)])`.

Keys are read once, when connecting. Every failed call raises `ClientError` with a stable reason and a remedy.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp

from client.calls import QUICK, called, new_request_id, streamed
from client.connection import open_channel
from client.control_calls import ControlCalls
from client.errors import EvidenceError, RemoteError
from client.plan_signing import ProposedPlan, asked_plan, sign_plan
from client.signing import DEFAULT_LIFETIME, Signer, read_public_key, sign_approval
from client.state import StateDirectory
from client.verification import VerifiedMission, require_success, verify_mission
from gonogo.digests import PREFIX, digest, is_digest
from gonogo.signatures import PublicKey
from gonogo.v1 import events_pb2, executor_pb2, orchestrator_pb2, orchestrator_pb2_grpc, plan_pb2, sealed_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueWish:
    """How a mission is to be queued."""

    priority: int = 0
    """-100 to 100; higher ones come first."""
    not_before: datetime | None = None
    expires_at: datetime | None = None
    """A mission that still waits then is expired."""


class GonogoClient(ControlCalls):
    """A client of one orchestrator. Use it as an asynchronous context manager."""

    def __init__(self, channel: grpc.aio.Channel, executor_key: PublicKey | None) -> None:
        """Take over an open channel and the executor's pinned key."""
        self._channel = channel
        self._executor_key = executor_key
        self._chat = orchestrator_pb2_grpc.ChatServiceStub(channel)
        self._missions = orchestrator_pb2_grpc.MissionServiceStub(channel)
        self._whiteboards = orchestrator_pb2_grpc.WhiteboardServiceStub(channel)
        self._audit = orchestrator_pb2_grpc.AuditServiceStub(channel)
        self._callers = orchestrator_pb2_grpc.CallerServiceStub(channel)
        self._signals = orchestrator_pb2_grpc.SignalServiceStub(channel)

    @classmethod
    def connect(
        cls, state: StateDirectory, *, address: str | None = None, executor_key: PublicKey | None = None
    ) -> Self:
        """Return a client of the services that run on a state directory.

        Raises:
            ClientError: nothing runs there, or its keys and certificates can not be read.
        """
        pinned = executor_key
        if pinned is None and state.executor_public_key.exists():
            pinned = read_public_key(state.executor_public_key)
        return cls(open_channel(state, address), pinned)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def send_message(
        self,
        text: str,
        *,
        session_id: str = "",
        workspace_id: str = "",
        transcription: events_pb2.Transcription | None = None,
        request_id: str | None = None,
    ) -> orchestrator_pb2.SendMessageResponse:
        """Send one chat message."""
        request = orchestrator_pb2.SendMessageRequest(
            request_id=request_id or new_request_id(),
            session_id=session_id,
            text=text,
            transcription=transcription,
            workspace_id=workspace_id,
        )
        return await called(self._chat.SendMessage(request, timeout=QUICK))

    async def messages(self, session_id: str) -> list[orchestrator_pb2.ChatMessage]:
        """Return the messages of a chat session, oldest first."""
        found: list[orchestrator_pb2.ChatMessage] = []
        token = ""
        while True:
            request = orchestrator_pb2.ListMessagesRequest(session_id=session_id, page_size=1000, page_token=token)
            page = await called(self._chat.ListMessages(request, timeout=QUICK))
            found += page.messages
            token = page.next_page_token
            if not token:
                return found

    async def propose(
        self,
        draft: plan_pb2.PlanDraft,
        *,
        dry_run: bool = False,
        sign: Signer | None = None,
        request_id: str | None = None,
    ) -> orchestrator_pb2.ProposeMissionResponse:
        """Propose a plan as a mission; with `dry_run` also have it dry-run, and get the report in the same answer.

        Where that dry run could not be made the answer has no report, and `dry_run` tells why.

        With `sign` the plan is signed as its proposer, who must be the one as whom this client calls, once it has been
        checked to be what was asked for. That comes before the dry run, so that the report knows who proposed.

        Raises:
            EvidenceError: another plan was sealed than was asked for; the mission stays proposed and unsigned.
        """
        asked = request_id or new_request_id()
        request = orchestrator_pb2.ProposeMissionRequest(
            request_id=asked, draft=draft, dry_run=dry_run and sign is None
        )
        proposed = await called(self._missions.ProposeMission(request, timeout=None if request.dry_run else QUICK))
        if sign is None:
            return proposed
        signed = await self.sign_plan(asked_plan(draft, proposed, sign.person), sign)
        answer = orchestrator_pb2.ProposeMissionResponse(mission=signed.mission, plan=signed.plan)
        return await self._tried(answer, asked) if dry_run else answer

    async def _tried(
        self, proposed: orchestrator_pb2.ProposeMissionResponse, request_id: str
    ) -> orchestrator_pb2.ProposeMissionResponse:
        """Return a proposal with its report, or without where no dry run could be made."""
        retried = "q-" + digest(f"{request_id}/dry-run".encode()).removeprefix(PREFIX)[:32]
        try:
            tried = await self.dry_run(proposed.mission.mission_id, request_id=retried)
        except RemoteError:
            return proposed
        return orchestrator_pb2.ProposeMissionResponse(mission=tried.mission, plan=proposed.plan, report=tried.report)

    async def sign_plan(
        self, plan: ProposedPlan, signer: Signer, *, request_id: str | None = None
    ) -> orchestrator_pb2.SignPlanResponse:
        """Sign a plan as its proposer, and hand the signature in; a second one by the same key changes nothing."""
        request = orchestrator_pb2.SignPlanRequest(
            request_id=request_id or new_request_id(),
            mission_id=plan.plan.mission_id,
            signature=sign_plan(plan, signer),
        )
        answer = await called(self._missions.SignPlan(request, timeout=QUICK))
        if answer.plan.body != plan.sealed.body:
            message = f"the plan of mission {plan.plan.mission_id} was handed out with other bytes once it was signed"
            raise EvidenceError("PLAN_MISMATCH", message, "reject the mission, and ask the orchestrator's operator")
        return answer

    async def clone(self, mission_id: str, *, request_id: str | None = None) -> orchestrator_pb2.ProposeMissionResponse:
        """Propose a mission's plan once more, as a new mission."""
        request = orchestrator_pb2.ProposeMissionRequest(request_id=request_id or new_request_id(), clone_of=mission_id)
        return await called(self._missions.ProposeMission(request, timeout=QUICK))

    async def get(self, mission_id: str) -> orchestrator_pb2.GetMissionResponse:
        """Return a mission with its sealed documents."""
        request = orchestrator_pb2.GetMissionRequest(mission_id=mission_id)
        return await called(self._missions.GetMission(request, timeout=QUICK))

    async def list(
        self, *, status: events_pb2.MissionStatus.ValueType = events_pb2.MISSION_STATUS_UNSPECIFIED, limit: int = 50
    ) -> list[orchestrator_pb2.Mission]:
        """Return at most `limit` missions, newest first."""
        found: list[orchestrator_pb2.Mission] = []
        token = ""
        while len(found) < limit:
            size = min(limit - len(found), 500)
            request = orchestrator_pb2.ListMissionsRequest(page_size=size, page_token=token, status=status)
            page = await called(self._missions.ListMissions(request, timeout=QUICK))
            found += page.missions
            token = page.next_page_token
            if not token:
                break
        return found

    async def dry_run(
        self, mission_id: str, *, request_id: str | None = None
    ) -> orchestrator_pb2.DryRunMissionResponse:
        """Have the mission's plan dry-run; takes as long as its steps take."""
        request = orchestrator_pb2.DryRunMissionRequest(
            request_id=request_id or new_request_id(), mission_id=mission_id
        )
        return await called(self._missions.DryRunMission(request))

    def verified(
        self,
        proposed: orchestrator_pb2.ProposeMissionResponse,
        tried: orchestrator_pb2.DryRunMissionResponse | None = None,
    ) -> VerifiedMission:
        """Check plan and report against the pinned key; a report that is no success is refused.

        Args:
            proposed: the proposal's answer.
            tried: the dry run's answer, where the proposal did not ask for one.

        Raises:
            EvidenceError: they do not hold.
        """
        mission = verify_mission(
            mission_id=proposed.mission.mission_id,
            plan=proposed.plan,
            report=proposed.report if tried is None else tried.report,
            executor_key=self.executor_key,
        )
        require_success(mission)
        return mission

    @property
    def executor_key(self) -> PublicKey:
        """The executor's pinned key."""
        if self._executor_key is None:
            remedy = "give the executor's public key with --executor-key FILE"
            raise EvidenceError("SIGNATURE_INVALID", "no executor key is pinned on this side", remedy)
        return self._executor_key

    async def approve(
        self,
        mission: VerifiedMission,
        signer: Signer,
        *,
        comment: str = "",
        lifetime: timedelta = DEFAULT_LIFETIME,
        audit_checkpoint: str = "",
        request_id: str | None = None,
    ) -> orchestrator_pb2.ApproveMissionResponse:
        """Sign an approval of a verified mission and hand it in.

        `audit_checkpoint` is what a witness keeps of the executor's log (`client.witnessing`); the executor refuses an
        approval whose checkpoint is not of its own past.
        """
        approval = self.approval(mission, signer, comment=comment, lifetime=lifetime, audit_checkpoint=audit_checkpoint)
        request = orchestrator_pb2.ApproveMissionRequest(
            request_id=request_id or new_request_id(), mission_id=mission.plan.mission_id, approval=approval
        )
        return await called(self._missions.ApproveMission(request, timeout=QUICK))

    def approval(
        self,
        mission: VerifiedMission,
        signer: Signer,
        *,
        comment: str = "",
        lifetime: timedelta = DEFAULT_LIFETIME,
        audit_checkpoint: str = "",
    ) -> sealed_pb2.Sealed:
        """Sign an approval of a verified mission, to be handed in with `execute`."""
        return sign_approval(mission, signer, comment=comment, lifetime=lifetime, audit_checkpoint=audit_checkpoint)

    async def reject(
        self, mission_id: str, reason: str, *, request_id: str | None = None
    ) -> orchestrator_pb2.RejectMissionResponse:
        """Reject a proposed mission."""
        request = orchestrator_pb2.RejectMissionRequest(
            request_id=request_id or new_request_id(), mission_id=mission_id, reason=reason
        )
        return await called(self._missions.RejectMission(request, timeout=QUICK))

    async def cancel(
        self, mission_id: str, reason: str, *, request_id: str | None = None
    ) -> orchestrator_pb2.CancelMissionResponse:
        """Cancel a mission that has not been handed to the executor."""
        request = orchestrator_pb2.CancelMissionRequest(
            request_id=request_id or new_request_id(), mission_id=mission_id, reason=reason
        )
        return await called(self._missions.CancelMission(request, timeout=QUICK))

    def execute(
        self,
        mission_id: str,
        *,
        detach: bool = False,
        approvals: Iterable[sealed_pb2.Sealed] = (),
        queue: QueueWish | None = None,
        request_id: str | None = None,
    ) -> AsyncIterator[orchestrator_pb2.ExecuteMissionResponse]:
        """Have an approved mission executed; yields its events, with mission and receipt in the last message.

        A paused mission goes on with its approved repair plan. The stream goes through pauses; `event.execution_paused`
        tells of one, and `control` ends it.

        Args:
            mission_id: the mission.
            detach: queue it and end at once.
            approvals: recorded first, as by `approve`.
            queue: how it is to be queued; with `detach` only.
            request_id: the same one attaches again.
        """
        wish = queue or QueueWish()
        request = orchestrator_pb2.ExecuteMissionRequest(
            request_id=request_id or new_request_id(),
            mission_id=mission_id,
            detach=detach,
            approvals=approvals,
            priority=wish.priority,
            not_before=_stamp(wish.not_before),
            expires_at=_stamp(wish.expires_at),
        )
        return streamed(self._missions.ExecuteMission(request))

    def watch(
        self, mission_id: str, *, resume_token: str = "", follow: bool = True
    ) -> AsyncIterator[orchestrator_pb2.WatchMissionResponse]:
        """Stream a mission's events, those of the past first."""
        request = orchestrator_pb2.WatchMissionRequest(mission_id=mission_id, resume_token=resume_token, follow=follow)
        return streamed(self._missions.WatchMission(request))

    async def whiteboard(self, mission_id: str) -> orchestrator_pb2.Whiteboard:
        """Return a mission's whiteboard."""
        request = orchestrator_pb2.GetWhiteboardRequest(mission_id=mission_id)
        return (await called(self._whiteboards.GetWhiteboard(request, timeout=QUICK))).whiteboard

    async def add_caller(self, request: orchestrator_pb2.AddCallerRequest) -> orchestrator_pb2.AddCallerResponse:
        """Add a caller; the answer is the only place where its token ever stands."""
        wanted = orchestrator_pb2.AddCallerRequest()
        wanted.CopyFrom(request)
        wanted.request_id = request.request_id or new_request_id()
        return await called(self._callers.AddCaller(wanted, timeout=QUICK))

    async def callers(self) -> Sequence[orchestrator_pb2.Caller]:
        """Return all callers, by name."""
        request = orchestrator_pb2.ListCallersRequest(page_size=1000)
        return (await called(self._callers.ListCallers(request, timeout=QUICK))).callers

    async def remove_caller(self, name: str, *, request_id: str | None = None) -> None:
        """Remove a caller."""
        request = orchestrator_pb2.RemoveCallerRequest(request_id=request_id or new_request_id(), name=name)
        await called(self._callers.RemoveCaller(request, timeout=QUICK))

    async def executor(self) -> executor_pb2.GetExecutorResponse:
        """Return what the orchestrator knows of its executor."""
        request = orchestrator_pb2.GetMissionExecutorRequest()
        return (await called(self._missions.GetMissionExecutor(request, timeout=QUICK))).executor

    async def export_mission(self, mission_id: str) -> orchestrator_pb2.ExportMissionResponse:
        """Return all that a proof of a mission needs: its documents, and its leaves in both audit logs."""
        request = orchestrator_pb2.ExportMissionRequest(mission_id=mission_id)
        return await called(self._missions.ExportMission(request, timeout=QUICK))

    async def get_log(
        self, log: orchestrator_pb2.AuditLog.ValueType, *, known_size: int = 0
    ) -> orchestrator_pb2.GetLogResponse:
        """Return an audit log's newest checkpoint, with the proof that it continues the one of `known_size` entries."""
        request = orchestrator_pb2.GetLogRequest(log=log, known_size=known_size)
        return await called(self._audit.GetLog(request, timeout=QUICK))

    async def object(self, mission_id: str, object_digest: str, *, max_bytes: int) -> bytes | None:
        """Return an object's bytes, checked against its digest, or None where it is longer than `max_bytes`.

        Raises:
            ClientError: it is not there, or the bytes are not those of the digest.
        """
        if not is_digest(object_digest):
            raise EvidenceError("MALFORMED", f"not a digest: {object_digest!r}", "ask the orchestrator's operator")
        data = b""
        while True:
            request = orchestrator_pb2.GetMissionObjectRequest(
                mission_id=mission_id, digest=object_digest, offset=len(data)
            )
            part = await called(self._missions.GetMissionObject(request, timeout=QUICK))
            if part.total_bytes > max_bytes:
                return None
            data += part.data
            if len(data) >= part.total_bytes or not part.data:
                return _checked_object(data, object_digest)


def _stamp(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def _checked_object(data: bytes, object_digest: str) -> bytes:
    if digest(data) != object_digest:
        message = f"the object {object_digest} was handed out with other bytes"
        raise EvidenceError("PLAN_MISMATCH", message, "do not approve; ask the orchestrator's operator")
    return data
