"""Which role opens which method: the table against the contract, and every method over real listeners."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from client.initialise import initialise
from client.state import StateDirectory
from gonogo.v1 import orchestrator_pb2
from orchestrator.adapters.callers_file import CallersFile
from orchestrator.adapters.clock import SystemClock
from orchestrator.bootstrap import Service
from orchestrator.domain.callers import ACCESS, Credential, Role
from orchestrator.entrypoints.grpc_server import Addresses
from orchestrator.service.callers import Callers, WantedCaller
from orchestrator.settings import read_settings
from tests.fakes.orchestrator_house import request

VIEWING = {
    "ListMessages",
    "GetMission",
    "ListMissions",
    "WatchMission",
    "GetMissionObject",
    "GetMissionExecutor",
    "ExportMission",
    "GetWhiteboard",
    "GetLog",
    "GetQueue",
    "GetSignals",
    "ListMissionProcesses",
}
OPENED: dict[Role, set[str]] = {
    Role.VIEW: VIEWING,
    Role.PROPOSE: VIEWING | {"SendMessage", "ProposeMission", "DryRunMission", "SignPlan"},
    Role.OPERATE: VIEWING
    | {"DryRunMission", "ApproveMission", "ExecuteMission", "RejectMission", "CancelMission"}
    | {"ControlMission", "RepairMission", "StopMissionProcess", "RecordFeedback"},
    Role.ADMINISTER: VIEWING | {"AddCaller", "ListCallers", "RemoveCaller"},
}
OWN_ONLY = {"DryRunMission", "SignPlan", "RejectMission", "CancelMission"}
CLOSED = {"UNAUTHENTICATED", "ROLE_MISSING", "PEER_NOT_ALLOWED"}


def methods() -> Iterator[tuple[ServiceDescriptor, MethodDescriptor]]:
    """All methods of all services of the orchestrator's contract."""
    for service in orchestrator_pb2.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            yield service, method


METHODS = {method.name: (service, method) for service, method in methods()}


def test_every_method_of_every_service_has_its_row() -> None:
    """The table names each method of the contract once, and nothing else."""
    names = [method.name for _, method in methods()]
    assert len(names) == len(set(names)), "the table is keyed by method, so no two services may share a name"
    assert set(names) == set(ACCESS)
    assert set(names) == set().union(*OPENED.values())


def test_no_request_says_who_asks() -> None:
    """Who calls is told by what the caller shows; no request has a field in which it could say something else."""
    speaking = {"proposer", "person", "approver", "actor", "caller", "user", "identity", "roles", "role"}
    for _, method in methods():
        named = {field.name for field in _fields(method.input_type, set())}
        allowed = {"roles"} if method.name == "AddCaller" else set()
        assert named & speaking <= allowed, method.full_name


def _fields(message: Descriptor, seen: set[str]) -> Iterator[FieldDescriptor]:
    if message.full_name in seen:
        return
    seen.add(message.full_name)
    for field in message.fields:
        yield field
        if field.message_type is not None:
            yield from _fields(field.message_type, seen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A running orchestrator with both listeners, and tokens of one caller for each role."""

    tls: Path
    at: Addresses
    tokens: dict[str, str]

    def channel(self, address: str, *, who: str = "", server: str = "orchestrator") -> grpc.aio.Channel:
        """Open a channel, with somebody's certificate where one is named."""
        pair = ((self.tls / f"{who}.{suffix}").read_bytes() for suffix in ("key", "pem")) if who else (None, None)
        credentials = grpc.ssl_channel_credentials((self.tls / "ca.pem").read_bytes(), *pair)
        return grpc.aio.secure_channel(address, credentials, [("grpc.ssl_target_name_override", server)])


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> StateDirectory:
    """Certificates, keys and the first list of callers."""
    made = StateDirectory(root=tmp_path_factory.mktemp("state") / "state")
    initialise(made)
    return made


@asynccontextmanager
async def serving(state: StateDirectory, folder: Path) -> AsyncIterator[Site]:
    """Serve on a copy of a state, without an executor: nobody gets as far as to one."""
    shutil.copytree(state.root, folder)
    callers = Callers(records=CallersFile(folder / "orchestrator" / "callers.json"), clock=SystemClock())
    wanted = [WantedCaller(name=f"only-{role}", credential=Credential.TOKEN, roles=frozenset({role})) for role in Role]
    tokens = {one.name: callers.add(request(), one).token for one in wanted}
    anywhere = "127.0.0.1:0"
    options = ["--listen", anywhere, "--token-listen", anywhere, "--health-listen", anywhere, "--reflection"]
    arguments = ["serve", "--state", str(folder), "--executor", "127.0.0.1:1", *options]
    service = Service(read_settings(arguments, {}))
    try:
        yield Site(tls=folder / "tls", at=await service.start(), tokens=tokens)
    finally:
        await service.stop()


@pytest.fixture
async def site(state: StateDirectory, tmp_path: Path) -> AsyncIterator[Site]:
    async with serving(state, tmp_path / "state") as running:
        yield running


async def outcome(channel: grpc.aio.Channel, name: str, *authorization: str) -> str:
    """Call a method with an empty request; return the reason of its refusal, or its status."""
    service, method = METHODS[name]
    kind = channel.unary_stream if method.server_streaming else channel.unary_unary
    request_class, response_class = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    stub: Any = kind(
        f"/{service.full_name}/{name}",
        request_serializer=request_class.SerializeToString,
        response_deserializer=response_class.FromString,
    )
    metadata = tuple(("authorization", text) for text in authorization)
    call = stub(request_class(), metadata=metadata, timeout=20)
    try:
        if method.server_streaming:
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        status = rpc_status.from_call(error)
        info = error_details_pb2.ErrorInfo()
        found = status is not None and any(detail.Unpack(info) for detail in status.details)
        assert not found or info.metadata["remedy"]
        return info.reason if found else error.code().name
    return "OK"


@pytest.mark.parametrize("role", Role)
async def test_a_role_opens_its_methods_and_no_other(site: Site, role: Role) -> None:
    """With one role each: every method of the contract is either open to it or refused with ROLE_MISSING."""
    opened = OPENED[role] | (OWN_ONLY if role is Role.PROPOSE else set())
    async with site.channel(site.at.tokens) as channel:
        for name in METHODS:
            found = await outcome(channel, name, f"Bearer {site.tokens[f'only-{role}']}")
            if name in opened:
                assert found not in CLOSED | {"UNIMPLEMENTED"}, name
            else:
                assert found == "ROLE_MISSING", name


NOT_A_MESSAGE = b"\xff\xff not a message"


async def raw_outcome(channel: grpc.aio.Channel, name: str, *authorization: str) -> tuple[str, str]:
    """Call a method with bytes that are no request; return status and reason."""
    service, method = METHODS[name]
    kind = channel.unary_stream if method.server_streaming else channel.unary_unary
    metadata = tuple(("authorization", text) for text in authorization)
    stub: Any = kind(f"/{service.full_name}/{name}")
    call = stub(NOT_A_MESSAGE, metadata=metadata, timeout=20)
    code = await call.code()
    info = error_details_pb2.ErrorInfo()
    status = await rpc_status.aio.from_call(call)
    assert status is not None, (name, code, await call.details())
    assert any(detail.Unpack(info) for detail in status.details), name
    return code.name, info.reason


async def test_bytes_that_are_no_request_are_malformed_for_whom_the_method_is_open(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """By either listener: first who calls, then the role, and only then that it can not be read; never a trace."""
    async with site.channel(site.at.tokens) as tokens, site.channel(site.at.calls, who="client") as certified:
        viewer, proposer = (f"Bearer {site.tokens[f'only-{role}']}" for role in (Role.VIEW, Role.PROPOSE))
        for name in METHODS:
            malformed = ("INVALID_ARGUMENT", "MALFORMED")
            closed = ("PERMISSION_DENIED", "ROLE_MISSING")
            assert await raw_outcome(certified, name) == malformed, name
            assert await raw_outcome(tokens, name) == ("UNAUTHENTICATED", "UNAUTHENTICATED"), name
            assert await raw_outcome(tokens, name, viewer) == (malformed if name in VIEWING else closed), name
            proposes = name in OPENED[Role.PROPOSE] | OWN_ONLY
            assert await raw_outcome(tokens, name, proposer) == (malformed if proposes else closed), name
    async with site.channel(site.at.calls, who="executor") as other:
        assert await raw_outcome(other, "GetMission") == ("PERMISSION_DENIED", "PEER_NOT_ALLOWED")
    assert not [record for record in caplog.records if record.exc_info]


async def test_no_method_is_open_without_credentials(site: Site) -> None:
    """Without a token, with one of nobody, and with a certificate that no client has: every method is closed."""
    nobody = f"Bearer gonogo_{'A' * 43}"
    async with (
        site.channel(site.at.tokens) as tokens,
        site.channel(site.at.calls, who="executor") as other,
        site.channel(site.at.tokens, who="client") as certified,
    ):
        for name in METHODS:
            assert await outcome(tokens, name) == "UNAUTHENTICATED", name
            assert await outcome(tokens, name, nobody) == "UNAUTHENTICATED", name
            assert await outcome(certified, name) == "UNAUTHENTICATED", name
            assert await outcome(other, name) == "PEER_NOT_ALLOWED", name


async def test_a_certificate_that_is_not_listed_opens_nothing(state: StateDirectory, tmp_path: Path) -> None:
    """The authority's word alone is no role: without a list, and on a list without the name, every method is closed."""
    async with serving(state, tmp_path / "state") as site, site.channel(site.at.calls, who="client") as channel:
        assert await outcome(channel, "ListMissions") == "OK"
        callers = tmp_path / "state" / "orchestrator" / "callers.json"
        callers.unlink()
        async with site.channel(site.at.tokens) as tokens:
            assert await eventually(tokens, f"Bearer {site.tokens['only-view']}", "UNAUTHENTICATED")
        for name in METHODS:
            assert await outcome(channel, name) == "ROLE_MISSING", name
        callers.write_text('{"version": 1, "callers": []}')
        for name in METHODS:
            assert await outcome(channel, name) == "ROLE_MISSING", name


async def eventually(channel: grpc.aio.Channel, authorization: str, wanted: str) -> bool:
    """Call until an answer is as wanted; the list is looked at every quarter of a second."""
    async with asyncio.timeout(10):
        while await outcome(channel, "ListMissions", authorization) != wanted:  # noqa: ASYNC110 - a file changes
            await asyncio.sleep(0.02)
    return True


async def test_credentials_are_not_mixed(site: Site) -> None:
    """A token is not taken where certificates are, two tokens are none, and neither is another scheme."""
    token = site.tokens["only-view"]
    async with site.channel(site.at.calls, who="client") as certified, site.channel(site.at.tokens) as channel:
        assert await outcome(certified, "ListMissions", f"Bearer {token}") == "UNAUTHENTICATED"
        assert await outcome(certified, "ListMissions") == "OK"
        assert await outcome(channel, "ListMissions", f"Bearer {token}") == "OK"
        assert await outcome(channel, "ListMissions", f"bearer {token}") == "OK"
        for shown in (("Bearer",), ("Bearer ",), (token,), (f"Basic {token}",), (f"Bearer  {token}",)):
            assert await outcome(channel, "ListMissions", *shown) == "UNAUTHENTICATED", shown
        assert await outcome(channel, "ListMissions", f"Bearer {token}", f"Bearer {token}") == "UNAUTHENTICATED"


async def test_who_has_no_token_is_not_listened_to(site: Site) -> None:
    """A call without a good token is ended before its request has arrived; not even what exists is told."""
    async with site.channel(site.at.tokens) as channel:
        for path in ("/gonogo.v1.MissionService/ProposeMission", "/grpc.health.v1.Health/Check", "/no.Such/Method"):
            call: Any = channel.stream_unary(path)(timeout=20)  # a request of which nothing is ever sent
            assert await call.code() is grpc.StatusCode.UNAUTHENTICATED, path
        good: Any = channel.stream_unary("/grpc.health.v1.Health/Check")
        metadata = (("authorization", f"Bearer {site.tokens['only-view']}"),)
        assert await good(timeout=20, metadata=metadata).code() is grpc.StatusCode.UNIMPLEMENTED


async def test_the_listener_for_certificates_takes_nobody_without_one(site: Site) -> None:
    """A caller that has only a token gets no connection there."""
    async with site.channel(site.at.calls) as channel:
        token = f"Bearer {site.tokens['only-view']}"
        assert await outcome(channel, "ListMissions", token) == "UNAVAILABLE"


async def test_a_token_s_caller_looks_who_it_talks_to(site: Site) -> None:
    """The server must prove to be the orchestrator: another name, or plain text, gets no token."""
    async with site.channel(site.at.tokens, server="executor") as channel:
        assert await outcome(channel, "ListMissions", "Bearer x") == "UNAVAILABLE"
    async with grpc.aio.insecure_channel(site.at.tokens) as channel:
        assert await outcome(channel, "ListMissions", "Bearer x") == "UNAVAILABLE"


async def test_the_health_port_answers_health_and_nothing_else(site: Site) -> None:
    """In plain text, without credentials; no method of gonogo's and no reflection is to be found there."""
    async with grpc.aio.insecure_channel(site.at.health) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        for service in ("", "gonogo.v1.MissionService", "gonogo.v1.CallerService"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        for name in METHODS:
            assert await outcome(channel, name) == "UNIMPLEMENTED", name
        reflecting: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in reflecting.ServerReflectionInfo(
                iter([reflection_pb2.ServerReflectionRequest(list_services="")])
            ):
                pass
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    async with site.channel(site.at.calls, who="client") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        await health.Check(health_pb2.HealthCheckRequest())
