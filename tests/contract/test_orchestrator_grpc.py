"""The orchestrator's service over real sockets with mutual TLS, an executor simulator behind another one."""

import asyncio
import itertools
import json
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from client.initialise import initialise
from client.state import StateDirectory
from gonogo import sealing
from gonogo.v1 import events_pb2, plan_pb2, sealed_pb2
from gonogo.v1 import orchestrator_pb2 as pb
from gonogo.v1.orchestrator_pb2_grpc import (
    ChatServiceStub,
    MissionServiceStub,
    SignalServiceStub,
    WhiteboardServiceStub,
)
from orchestrator.adapters import wire
from orchestrator.bootstrap import Service
from orchestrator.settings import read_settings
from tests.fakes.executor_face import serve_executor
from tests.fakes.executor_simulator import Approver, ExecutorSimulator

_numbers = itertools.count(1)


def new_id() -> str:
    return f"id-{next(_numbers)}"


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> StateDirectory:
    """Certificates for both services and a client."""
    made = StateDirectory(root=tmp_path_factory.mktemp("state") / "state")
    initialise(made)
    return made


class Site:
    """Both services, and a client's stubs."""

    def __init__(self, state: StateDirectory, simulator: ExecutorSimulator, approver: Approver, address: str) -> None:
        self.state = state
        self.simulator = simulator
        self.approver = approver
        self.address = address
        self.channel = self.open("client")
        self.missions: Any = MissionServiceStub(self.channel)
        self.chat: Any = ChatServiceStub(self.channel)
        self.boards: Any = WhiteboardServiceStub(self.channel)
        self.signals: Any = SignalServiceStub(self.channel)

    def open(self, identity: str) -> grpc.aio.Channel:
        tls = self.state.root / "tls"
        credentials = grpc.ssl_channel_credentials(
            (tls / "ca.pem").read_bytes(),
            (tls / f"{identity}.key").read_bytes(),
            (tls / f"{identity}.pem").read_bytes(),
        )
        options = [("grpc.ssl_target_name_override", "orchestrator")]
        return grpc.aio.secure_channel(self.address, credentials, options)

    async def proposed(self) -> pb.Mission:
        step = plan_pb2.Step(write_file=plan_pb2.WriteFile(path="a.txt", content="hello"))
        draft = plan_pb2.PlanDraft(objective="write", workspace="site", steps=[step])
        answer = await self.missions.ProposeMission(pb.ProposeMissionRequest(request_id=new_id(), draft=draft))
        mission: pb.Mission = answer.mission
        return mission

    async def approved(self) -> str:
        mission_id = (await self.proposed()).mission_id
        answer = await self.missions.DryRunMission(pb.DryRunMissionRequest(request_id=new_id(), mission_id=mission_id))
        approval = wire.sealed_to_proto(self.approver.approve(wire.sealed_from_proto(answer.report)))
        await self.missions.ApproveMission(
            pb.ApproveMissionRequest(request_id=new_id(), mission_id=mission_id, approval=approval)
        )
        return mission_id

    async def execute(self, mission_id: str, *, detach: bool = False) -> list[pb.ExecuteMissionResponse]:
        request = pb.ExecuteMissionRequest(request_id=new_id(), mission_id=mission_id, detach=detach)
        return [message async for message in self.missions.ExecuteMission(request)]


def furnish(folder: Path, state: StateDirectory) -> None:
    """Make a state of an orchestrator with the certificates and the callers of another."""
    (folder / "orchestrator").mkdir(parents=True)
    (folder / "tls").symlink_to(state.root / "tls")
    for path in (state.callers, *state.keys.glob("orchestrator*")):
        target = folder / path.relative_to(state.root)
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)


@pytest.fixture
async def site(state: StateDirectory, tmp_path: Path) -> AsyncIterator[Site]:
    """A running pair; each test has a log of its own."""
    tls = state.root / "tls"
    furnish(tmp_path, state)
    approver = Approver()
    simulator = ExecutorSimulator(approver)
    executor, address = await serve_executor(
        simulator,
        authority=(tls / "ca.pem").read_bytes(),
        key=(tls / "executor.key").read_bytes(),
        certificate=(tls / "executor.pem").read_bytes(),
    )
    arguments = ["serve", "--state", str(tmp_path), "--executor", address, "--listen", "127.0.0.1:0", "--reflection"]
    service = Service(read_settings(arguments, {}))
    running = Site(state, simulator, approver, (await service.start()).calls)
    yield running
    await running.channel.close()
    await service.stop()
    await executor.stop(None)


async def drained(call: Any) -> None:
    """Wait for the end of a call, whichever kind it is."""
    if hasattr(call, "__aiter__"):
        async for _message in call:
            pass
    else:
        await call


async def failed(call: Any) -> tuple[grpc.StatusCode, str, error_details_pb2.ErrorInfo, list[str]]:
    """Return code, message, ErrorInfo and the names of all details of a call that fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await drained(call)
    status = rpc_status.from_call(caught.value)
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    names = [detail.TypeName() for detail in status.details]
    next(detail for detail in status.details if detail.Is(info.DESCRIPTOR)).Unpack(info)
    assert info.domain == "gonogo"
    assert info.metadata["remedy"]
    return caught.value.code(), status.message, info, names


async def test_the_whole_way_in_two_calls(site: Site) -> None:
    """A proposal carries its report, an execution its approval, and repeating either gives the same answer."""
    step = plan_pb2.Step(write_file=plan_pb2.WriteFile(path="a.txt", content="hello"))
    draft = plan_pb2.PlanDraft(objective="write", workspace="site", steps=[step])
    propose = pb.ProposeMissionRequest(request_id=new_id(), draft=draft, dry_run=True)
    proposed = await site.missions.ProposeMission(propose)
    report = wire.sealed_from_proto(proposed.report)
    assert report.digest == proposed.mission.report_digest
    approvals = [wire.sealed_to_proto(site.approver.approve(report))]
    execute = pb.ExecuteMissionRequest(request_id=new_id(), mission_id=proposed.mission.mission_id, approvals=approvals)

    messages = [message async for message in site.missions.ExecuteMission(execute)]
    again = [message async for message in site.missions.ExecuteMission(execute)]

    assert messages[-1].mission.status == events_pb2.MISSION_STATUS_COMPLETED
    assert messages[-1].receipt == again[-1].receipt
    assert await site.missions.ProposeMission(propose) == proposed
    propose.dry_run = False
    code, _, info, _ = await failed(site.missions.ProposeMission(propose))
    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_REUSED")


async def test_a_proposal_that_asks_for_no_dry_run_has_no_report(site: Site) -> None:
    """Nor is one made, and an execution without an approval is refused before the executor is asked."""
    mission = await site.proposed()

    code, _, info, _ = await failed(
        site.missions.ExecuteMission(pb.ExecuteMissionRequest(request_id=new_id(), mission_id=mission.mission_id))
    )

    assert (code, info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_APPROVED")
    assert not mission.report_digest
    assert {"dry_run", "execute"}.isdisjoint(site.simulator.calls)


async def test_the_whole_way_over_the_wire(site: Site) -> None:
    """Propose, dry run, approve, execute, and everything that can be read afterwards."""
    mission_id = await site.approved()

    messages = await site.execute(mission_id)

    assert messages[-1].mission.status == events_pb2.MISSION_STATUS_COMPLETED
    assert json.loads(messages[-1].receipt.body)["mission_id"] == mission_id
    file = await site.missions.GetMission(pb.GetMissionRequest(mission_id=mission_id))
    assert file.receipt == messages[-1].receipt
    assert (len(file.approvals), file.HasField("refusal")) == (1, False)
    assert sealing.open_sealed(file.plan.body, plan_pb2.Plan).mission_id == mission_id
    board = (await site.boards.GetWhiteboard(pb.GetWhiteboardRequest(mission_id=mission_id))).whiteboard
    assert board.result.tools_used == ["write_file"]
    listed = await site.missions.ListMissions(pb.ListMissionsRequest())
    assert [mission.mission_id for mission in listed.missions] == [mission_id]
    info = (await site.missions.GetMissionExecutor(pb.GetMissionExecutorRequest())).executor
    assert info.workspaces[0].workspace_id == "site"


async def test_errors_have_reason_remedy_and_the_right_code(site: Site) -> None:
    """One status each, with ErrorInfo, and what kind of failure it is."""
    mission_id = (await site.proposed()).mission_id
    execute = pb.ExecuteMissionRequest(request_id=new_id(), mission_id=mission_id)
    code, _, info, names = await failed(site.missions.ExecuteMission(execute))
    assert (code, info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_APPROVED")
    assert "google.rpc.PreconditionFailure" in names
    code, _, info, _ = await failed(site.missions.GetMission(pb.GetMissionRequest(mission_id="m-nothing")))
    assert (code, info.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    code, _, info, names = await failed(site.missions.ProposeMission(pb.ProposeMissionRequest(request_id=new_id())))
    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED")
    assert "google.rpc.BadRequest" in names
    unnamed = pb.DryRunMissionRequest(mission_id=mission_id)
    code, _, info, _ = await failed(site.missions.DryRunMission(unnamed))
    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED")
    for request in (pb.ListMissionsRequest(page_size=-1), pb.ListMissionsRequest(page_token="!")):
        code, _, info, _ = await failed(site.missions.ListMissions(request))
        assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED")


async def test_a_second_execution_says_so(site: Site) -> None:
    """ALREADY_EXISTS, with the message that scripts know."""
    mission_id = await site.approved()
    await site.execute(mission_id)

    request = pb.ExecuteMissionRequest(request_id=new_id(), mission_id=mission_id)
    code, message, info, _ = await failed(site.missions.ExecuteMission(request))

    assert (code, message) == (grpc.StatusCode.ALREADY_EXISTS, "Mission has already been executed")
    assert info.reason == "ALREADY_EXECUTED"


async def test_a_gate_s_refusal_reaches_the_caller_with_its_signed_document(site: Site) -> None:
    """The executor's refusal is stored, named in the log, and sent on as it is."""
    mission_id = await site.approved()
    site.simulator.base += 1

    request = pb.ExecuteMissionRequest(request_id=new_id(), mission_id=mission_id)
    code, _, info, names = await failed(site.missions.ExecuteMission(request))

    assert (code, info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "BASE_DRIFTED")
    assert sealed_pb2.Sealed.DESCRIPTOR.full_name in names
    file = await site.missions.GetMission(pb.GetMissionRequest(mission_id=mission_id))
    assert file.refusal.media_type == sealing.REFUSAL
    assert not file.HasField("report")


async def test_only_clients_are_served(site: Site) -> None:
    """The executor's own certificate, from the same authority, is turned away."""
    async with site.open("executor") as channel:
        stub: Any = MissionServiceStub(channel)
        code, _, info, _ = await failed(stub.ListMissions(pb.ListMissionsRequest()))

    assert (code, info.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PEER_NOT_ALLOWED")


async def test_watching_tells_the_past_and_what_comes(site: Site) -> None:
    """A follower sees every event once, from the first to the mission's end, and can go on from any token."""
    mission_id = await site.approved()
    watch = aiter(site.missions.WatchMission(pb.WatchMissionRequest(mission_id=mission_id, follow=True)))
    first = await anext(watch)
    assert [event.sequence for event in first.events] == [1, 2, 3, 4, 5, 6]
    await site.execute(mission_id, detach=True)

    seen = [event async for message in watch for event in message.events]

    assert [event.sequence for event in (*first.events, *seen)] == list(range(1, 19))
    rest = site.missions.WatchMission(pb.WatchMissionRequest(mission_id=mission_id, resume_token=first.resume_token))
    assert [event async for message in rest for event in message.events] == seen


async def test_a_token_that_is_none_is_out_of_range(site: Site) -> None:
    """Garbage, another mission's, and one from the future."""
    mission, other = await site.proposed(), await site.proposed()
    token_of = site.missions.WatchMission(pb.WatchMissionRequest(mission_id=other.mission_id))
    foreign = (await token_of.read()).resume_token
    future = "WyJ4Iiw5OV0"

    for token in ("garbage", foreign, future, "W10"):
        request = pb.WatchMissionRequest(mission_id=mission.mission_id, resume_token=token)
        code, _, info, _ = await failed(site.missions.WatchMission(request))
        assert (code, info.reason) == (grpc.StatusCode.OUT_OF_RANGE, "RESUME_TOKEN_INVALID")


async def test_pages_of_missions(site: Site) -> None:
    """Tokens lead through all of them."""
    made = [(await site.proposed()).mission_id for _ in range(5)]
    seen, token = [], ""
    while True:
        page = await site.missions.ListMissions(pb.ListMissionsRequest(page_size=2, page_token=token))
        seen += [mission.mission_id for mission in page.missions]
        token = page.next_page_token
        if not token:
            break

    assert seen == made[::-1]


async def test_chat_over_the_wire(site: Site) -> None:
    """A message, its answer, and the pages of the session."""
    request = pb.SendMessageRequest(request_id=new_id(), text="create a.txt with 'x'")
    reply = await site.chat.SendMessage(request)
    again = await site.chat.SendMessage(request)
    first = await site.chat.ListMessages(pb.ListMessagesRequest(session_id=reply.session_id, page_size=1))
    token = first.next_page_token
    second = await site.chat.ListMessages(pb.ListMessagesRequest(session_id=reply.session_id, page_token=token))

    assert again == reply
    assert reply.mission.session_id == reply.session_id
    assert [message.actor for message in (*first.messages, *second.messages)] == ["owner", "gonogo"]
    assert second.next_page_token == ""


async def test_objects_are_read_only_where_the_report_names_them(site: Site) -> None:
    """A digest that the report does not name is not asked for."""
    mission_id = await site.approved()
    report = (await site.missions.GetMission(pb.GetMissionRequest(mission_id=mission_id))).report
    named = json.loads(report.body)["steps"][0]["changes"][0]["new"]["digest"]

    part = await site.missions.GetMissionObject(pb.GetMissionObjectRequest(mission_id=mission_id, digest=named))

    assert part.data.startswith(b"object ")
    foreign = pb.GetMissionObjectRequest(mission_id=mission_id, digest="sha256:" + "0" * 64)
    code, _, _, _ = await failed(site.missions.GetMissionObject(foreign))
    assert code is grpc.StatusCode.NOT_FOUND


async def test_a_watch_ends_with_a_drain_and_health_says_so(state: StateDirectory, tmp_path: Path, site: Site) -> None:
    """Followers of missions that have not ended are let go in order, not cut off."""
    health: Any = health_pb2_grpc.HealthStub(site.channel)
    serving = await health.Check(health_pb2.HealthCheckRequest(service="gonogo.v1.MissionService"))
    assert serving.status == health_pb2.HealthCheckResponse.SERVING
    furnish(tmp_path / "second", state)
    arguments = ["serve", "--state", str(tmp_path / "second"), "--executor", "127.0.0.1:1", "--listen", "127.0.0.1:0"]
    service = Service(read_settings(arguments, {}))
    other = Site(state, site.simulator, site.approver, (await service.start()).calls)
    code, _, info, _ = await failed(other.proposed())
    assert (code, info.reason) == (grpc.StatusCode.UNAVAILABLE, "EXECUTOR_UNAVAILABLE")
    reply = await other.chat.SendMessage(pb.SendMessageRequest(request_id=new_id(), text="help"))
    assert reply.session_id

    async with asyncio.timeout(3):
        await service.stop()
    await other.channel.close()


async def test_signals_and_feedback_over_the_wire(site: Site) -> None:
    """Five missions of a kind have a rate, the sixth states its confidence, and a rating is counted with them."""
    mission_id = ""
    for _ in range(5):
        mission_id = await site.approved()
        await site.execute(mission_id)
    rated = pb.RecordFeedbackRequest(request_id=new_id(), mission_id=mission_id, rating=events_pb2.RATING_GOOD)
    await site.missions.RecordFeedback(rated)
    await asyncio.sleep(1.1)  # a rate that was read goes on being stated for a second
    sixth = await site.approved()
    await site.execute(sixth)

    found = await site.signals.GetSignals(pb.GetSignalsRequest(kind="write_file"))
    stated = (await site.missions.GetMission(pb.GetMissionRequest(mission_id=sixth))).mission
    code, _, info, _ = await failed(site.missions.RecordFeedback(pb.RecordFeedbackRequest(request_id=new_id())))

    (rate,) = found.rates
    assert (rate.kind, rate.workspace_id, rate.samples, rate.rated_good) == ("write_file", "site", 6, 1)
    assert 0 < rate.low < rate.success_rate < rate.high <= 10_000
    assert (stated.confidence_samples, found.calibration.samples) == (5, 1)
    assert [one.samples for one in found.calibration.bins] == [1]
    assert found.stages[0].samples == 6
    assert not (await site.signals.GetSignals(pb.GetSignalsRequest(tool="make"))).rates
    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED")


async def test_the_queue_over_the_wire(site: Site) -> None:
    """What waits is shown with its place and why; how it is to be queued can only be said of what is queued."""
    mission_id = await site.approved()
    later = Timestamp()
    later.FromDatetime(datetime.now(UTC) + timedelta(minutes=5))
    wish: dict[str, Any] = {"mission_id": mission_id, "priority": 7, "not_before": later}
    at_once = pb.ExecuteMissionRequest(request_id=new_id(), **wish)
    code, _, info, _ = await failed(site.missions.ExecuteMission(at_once))
    queued = pb.ExecuteMissionRequest(request_id=new_id(), detach=True, **wish)
    messages = [message async for message in site.missions.ExecuteMission(queued)]

    queue = await site.missions.GetQueue(pb.GetQueueRequest())
    alone = (await site.missions.ListMissions(pb.ListMissionsRequest())).missions
    shown = (await site.missions.GetMission(pb.GetMissionRequest(mission_id=mission_id))).mission
    second = await site.approved()
    first = pb.ExecuteMissionRequest(request_id=new_id(), mission_id=second, priority=9, not_before=later, detach=True)
    assert [message async for message in site.missions.ExecuteMission(first)]
    listed = (await site.missions.ListMissions(pb.ListMissionsRequest())).missions

    assert [one.queue_position for one in alone] == [1]
    assert {one.mission_id: one.queue_position for one in listed} == {mission_id: 2, second: 1}
    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED")
    assert messages[-1].mission.queue_position == shown.queue_position == 1
    (one,) = queue.missions
    assert (queue.depth, one.mission_id, one.tenant, one.priority) == (1, mission_id, "owner", 7)
    assert one.not_before == later
    assert one.waiting_for.startswith("not before ")
    assert not (await site.missions.GetQueue(pb.GetQueueRequest(workspace_id="other"))).missions
