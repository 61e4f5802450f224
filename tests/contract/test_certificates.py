"""Certificates that are replaced while both services run, over real connections."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509

import executor.adapters.certificates
import orchestrator.adapters.certificates
from client.certificates import Certificate, issue_all, issue_client, load_authority, name_of_client
from client.doctor import examine
from client.errors import StateError
from client.initialise import initialise
from client.state import StateDirectory
from gonogo.grpc_credentials import mutual_tls
from gonogo.v1 import executor_pb2 as pb
from gonogo.v1.executor_pb2_grpc import (
    ExecutorServiceServicer,
    ExecutorServiceStub,
    add_ExecutorServiceServicer_to_server,
)
from orchestrator.adapters.executor_channel import LOOK_SECONDS, ReloadingChannel
from orchestrator.adapters.executor_grpc import open_channel

LONG_AGO = datetime.now(UTC) - timedelta(days=4000)
SIDES = {
    "executor": executor.adapters.certificates,
    "orchestrator": orchestrator.adapters.certificates,
}


def write(tls: Path, issued: Mapping[str, Certificate]) -> None:
    """Write certificates and keys, each in its file's place."""
    tls.mkdir(exist_ok=True)
    for name, one in issued.items():
        for suffix, data in (("pem", one.certificate), ("key", one.key)):
            new = tls / f"{name}.{suffix}.new"
            new.write_bytes(data)
            new.replace(tls / f"{name}.{suffix}")


@pytest.fixture
def tls(tmp_path: Path) -> Path:
    """A folder of certificates."""
    folder = tmp_path / "tls"
    write(folder, issue_all("owner"))
    return folder


class Counter(ExecutorServiceServicer):
    """Tells whose certificate a call came with; streams until it is told to end."""

    def __init__(self) -> None:
        self.end = asyncio.Event()

    async def GetExecutor(self, _request: pb.GetExecutorRequest, context: Any) -> pb.GetExecutorResponse:  # noqa: N802 - gRPC's name
        [pem] = context.auth_context()["x509_pem_cert"]
        return pb.GetExecutorResponse(version=serial(pem))

    async def WatchExecution(  # noqa: N802 - gRPC's name
        self, _request: pb.WatchExecutionRequest, _context: Any
    ) -> AsyncIterator[pb.WatchExecutionResponse]:
        yield pb.WatchExecutionResponse(resume_token="begun")
        await self.end.wait()
        yield pb.WatchExecutionResponse(resume_token="ended")


def serial(pem: bytes) -> str:
    return str(x509.load_pem_x509_certificate(pem).serial_number)


@asynccontextmanager
async def serving(credentials: grpc.ServerCredentials, address: str = "127.0.0.1:0") -> AsyncIterator[tuple[Any, str]]:
    """Serve with some credentials; yields the servicer and the address."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    counter = Counter()  # type: ignore[abstract]  # nothing else of it is called
    add_ExecutorServiceServicer_to_server(counter, server)
    port = server.add_secure_port(address, credentials)
    await server.start()
    try:
        yield counter, f"127.0.0.1:{port}"
    finally:
        counter.end.set()
        await server.stop(1)


def dial(address: str, issued: Mapping[str, Certificate], *, who: str = "client", server: str) -> grpc.aio.Channel:
    """Open a channel with a certificate of some authority, to a server of the same."""
    credentials = grpc.ssl_channel_credentials(issued["ca"].certificate, issued[who].key, issued[who].certificate)
    # Two channels to one address would share a connection if they had the same arguments.
    options = [("grpc.ssl_target_name_override", server), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.secure_channel(address, credentials, options)


async def answers(channel: grpc.aio.Channel) -> str:
    """Make a call; return the serial number of the certificate that the server saw."""
    stub: Any = ExecutorServiceStub(channel)
    return str((await stub.GetExecutor(pb.GetExecutorRequest(), timeout=5)).version)


async def refused(channel: grpc.aio.Channel) -> None:
    """Make a call that gets no connection."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answers(channel)
    assert caught.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


@pytest.mark.parametrize("side", SIDES)
async def test_a_server_goes_over_to_new_certificates(side: str, tls: Path) -> None:
    """A new certificate of a new authority holds for the next connection; calls and connections of before go on."""
    certificates = SIDES[side]
    write(tls, old := issue_all("owner"))
    async with serving(mutual_tls(certificates.CertificateFiles(tls, side))) as (counter, address):
        before = dial(address, old, server=side)
        stub: Any = ExecutorServiceStub(before)
        stream = aiter(stub.WatchExecution(pb.WatchExecutionRequest()))
        assert (await anext(stream)).resume_token == "begun"

        write(tls, new := issue_all("owner"))

        async with dial(address, new, server=side) as after, dial(address, old, server=side) as late:
            assert await answers(after) == serial(new["client"].certificate)
            await refused(late)
        assert await answers(before) == serial(old["client"].certificate)
        counter.end.set()
        assert [message.resume_token async for message in stream] == ["ended"]
        await before.close()


@pytest.mark.parametrize("side", SIDES)
async def test_both_authorities_are_taken_while_one_replaces_the_other(side: str, tls: Path) -> None:
    """An authority's file may hold two certificates: peers of either are let in."""
    certificates = SIDES[side]
    write(tls, old := issue_all("owner"))
    new = issue_all("ann")
    async with serving(mutual_tls(certificates.CertificateFiles(tls, side))) as (_, address):
        (tls / "ca.pem").write_bytes(old["ca"].certificate + new["ca"].certificate)
        mixed = {"ca": old["ca"], "client": new["client"]}
        async with dial(address, old, server=side) as one, dial(address, mixed, server=side) as other:
            assert await answers(one) == serial(old["client"].certificate)
            assert await answers(other) == serial(new["client"].certificate)


HALVES: dict[str, Callable[[Path, str, Mapping[str, Certificate]], object]] = {
    "certificate without its key": lambda tls, side, new: (tls / f"{side}.pem").write_bytes(new[side].certificate),
    "key without its certificate": lambda tls, side, new: (tls / f"{side}.key").write_bytes(new[side].key),
    "half a certificate": lambda tls, side, new: (tls / f"{side}.pem").write_bytes(new[side].certificate[:300]),
    "an empty key": lambda tls, side, _new: (tls / f"{side}.key").write_bytes(b""),
    "half an authority": lambda tls, _side, new: (tls / "ca.pem").write_bytes(new["ca"].certificate[:300]),
    "no authority": lambda tls, _side, _new: (tls / "ca.pem").unlink(),
    "a certificate that has expired": lambda tls, side, _new: write(tls, {side: issue_all("owner", LONG_AGO)[side]}),
}


@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES.keys())
@pytest.mark.parametrize("side", SIDES)
async def test_half_a_change_changes_nothing(
    side: str, tls: Path, half: Callable[..., object], caplog: pytest.LogCaptureFixture
) -> None:
    """What can not be used leaves the former certificates in use, is logged once, and a whole change is taken then."""
    certificates = SIDES[side]
    write(tls, old := issue_all("owner"))
    new = issue_all("owner")
    async with serving(mutual_tls(certificates.CertificateFiles(tls, side))) as (_, address):
        half(tls, side, new)
        with caplog.at_level(logging.ERROR):
            for _ in range(3):
                async with dial(address, old, server=side) as channel:
                    assert await answers(channel) == serial(old["client"].certificate)
        assert [record.message.partition(":")[0] for record in caplog.records] == [
            "the certificates changed and stay as they were"
        ]
        write(tls, new)
        async with dial(address, new, server=side) as channel:
            assert await answers(channel) == serial(new["client"].certificate)


@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES.keys())
@pytest.mark.parametrize("side", SIDES)
def test_no_service_starts_with_half_a_pair(side: str, tls: Path, half: Callable[..., object]) -> None:
    """At the start there is nothing older to go on with: it is refused, with what to do."""
    certificates = SIDES[side]
    half(tls, side, issue_all("owner"))
    with pytest.raises(certificates.CertificateError):
        certificates.CertificateFiles(tls, side)


@pytest.mark.parametrize("side", SIDES)
def test_files_that_did_not_change_are_not_read(side: str, tls: Path) -> None:
    """The very same object comes back until something is different; a change of one file is enough."""
    certificates = SIDES[side]
    files = certificates.CertificateFiles(tls, side)
    held = files.current()
    assert files.current() is held
    authority = (tls / "ca.pem").read_bytes()
    (tls / "ca.pem").write_bytes(authority + issue_all("ann")["ca"].certificate)
    assert files.current() is not held
    assert files.current().key == held.key


@pytest.mark.parametrize("side", SIDES)
async def test_who_shows_no_good_certificate_gets_no_connection(side: str, tls: Path) -> None:
    """One that has expired, one of another authority, and none at all."""
    certificates = SIDES[side]
    write(tls, issued := issue_all("owner"))
    expired = issue_client(load_authority(tls), "owner", timedelta(days=1), LONG_AGO)
    foreign = issue_all("owner")["client"]
    async with serving(mutual_tls(certificates.CertificateFiles(tls, side))) as (_, address):
        for shown in (expired, foreign):
            async with dial(address, {**issued, "client": shown}, server=side) as channel:
                await refused(channel)
        anonymous = grpc.ssl_channel_credentials(issued["ca"].certificate)
        options = [("grpc.ssl_target_name_override", side)]
        async with grpc.aio.secure_channel(address, anonymous, options) as channel:
            await refused(channel)
        async with dial(address, issued, server=side) as channel:
            assert await answers(channel) == serial(issued["client"].certificate)


class Ticks:
    """A clock that goes forwards when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def channel_to(address: str, tls: Path, ticks: Ticks) -> ReloadingChannel:
    """Open the orchestrator's channel to an executor."""

    def opened(held: orchestrator.adapters.certificates.Certificates) -> grpc.aio.Channel:
        return open_channel(address, authority=held.authority, key=held.key, certificate=held.certificate)

    files = orchestrator.adapters.certificates.CertificateFiles(tls, "orchestrator")
    return ReloadingChannel(files, opened, monotonic=ticks)


async def test_the_orchestrator_s_channel_goes_over_to_new_certificates(tls: Path) -> None:
    """The next call shows the new certificate; a stream of before goes on, and its connection closes after it."""
    ticks = Ticks()
    write(tls, old := issue_all("owner"))
    new = issue_all("owner")
    files = executor.adapters.certificates.CertificateFiles(tls, "executor")
    async with serving(mutual_tls(files)) as (counter, address):
        channel = channel_to(address, tls, ticks)
        stub: Any = ExecutorServiceStub(channel)
        stream = aiter(stub.WatchExecution(pb.WatchExecutionRequest()))
        assert (await anext(stream)).resume_token == "begun"
        assert await answers(channel) == serial(old["orchestrator"].certificate)
        first = channel.line()

        write(tls, new)
        assert await answers(channel) == serial(old["orchestrator"].certificate)  # not looked at yet
        ticks.now += LOOK_SECONDS
        assert await answers(channel) == serial(new["orchestrator"].certificate)
        assert channel.line() is not first
        assert first.calls == 1

        counter.end.set()
        assert [message.resume_token async for message in stream] == ["ended"]
        async with asyncio.timeout(5):
            while first.channel.get_state() is not grpc.ChannelConnectivity.SHUTDOWN:  # noqa: ASYNC110 - gRPC tells nobody
                await asyncio.sleep(0.01)
        await channel.close()


async def test_the_orchestrator_s_channel_keeps_good_certificates(tls: Path) -> None:
    """A pair that does not go together is not shown; calls go on over the channel that there is."""
    ticks = Ticks()
    write(tls, old := issue_all("owner"))
    files = executor.adapters.certificates.CertificateFiles(tls, "executor")
    async with serving(mutual_tls(files)) as (_, address):
        channel = channel_to(address, tls, ticks)
        line = channel.line()
        (tls / "orchestrator.key").write_bytes(old["client"].key)
        ticks.now += LOOK_SECONDS
        assert await answers(channel) == serial(old["orchestrator"].certificate)
        assert channel.line() is line
        await channel.close()


@pytest.mark.parametrize("who", ["client", "orchestrator"])
async def test_the_orchestrator_talks_to_nobody_but_the_executor(tls: Path, who: str) -> None:
    """A server with another certificate of the same authority is not taken for the executor, nor an expired one."""
    held = issue_all("owner")
    write(tls, held)
    pair = [(held[who].key, held[who].certificate)]
    async with serving(grpc.ssl_server_credentials(pair, held["ca"].certificate, require_client_auth=True)) as (
        _,
        address,
    ):
        channel = channel_to(address, tls, Ticks())
        await refused(channel)
        await channel.close()


async def test_an_expired_server_is_refused(tls: Path) -> None:
    """A client that trusts the authority does not take its expired certificate."""
    write(tls, held := issue_all("owner"))
    expired = issue_client(load_authority(tls), "owner", timedelta(days=1), LONG_AGO)
    credentials = grpc.ssl_server_credentials([(expired.key, expired.certificate)])
    async with serving(credentials) as (_, address), dial(address, held, server="client") as channel:
        await refused(channel)


async def test_the_doctor_says_how_long_each_certificate_has(tmp_path: Path) -> None:
    """In days; one that ends soon is a warning, one that has ended or does not hold yet is a failure, with a remedy."""
    state = StateDirectory(root=tmp_path / "state")
    initialise(state)
    expected = {
        "days more": ("ok", timedelta(days=100), datetime.now(UTC)),
        "9 days more": ("warn", timedelta(days=10), datetime.now(UTC)),
        "expired on": ("fail", timedelta(days=10), LONG_AGO),
        "valid only from": ("fail", timedelta(days=10), datetime.now(UTC) + timedelta(days=5)),
    }
    for detail, (level, lifetime, moment) in expected.items():
        issued = issue_client(load_authority(state.tls), "owner", lifetime, moment)
        (state.tls / "client.pem").write_bytes(issued.certificate)
        findings = {finding.name: finding for finding in await examine(state)}
        found = findings["certificate client"]
        assert (found.level, detail in found.detail, bool(found.remedy)) == (level, True, level != "ok"), found
        assert findings["certificate ca"].level == "ok"
        assert findings["callers"].level == "ok"


def test_a_caller_s_certificate(tls: Path) -> None:
    """It carries the caller's name, is from the state's authority and ends when it shall; a wrong key issues none."""
    authority = load_authority(tls)
    issued = issue_client(authority, "ann", timedelta(days=30))
    certificate = x509.load_pem_x509_certificate(issued.certificate)
    certificate.verify_directly_issued_by(authority.certificate)
    assert timedelta(days=29) < certificate.not_valid_after_utc - datetime.now(UTC) <= timedelta(days=30)
    (tls / "ann.pem").write_bytes(issued.certificate)
    assert name_of_client(tls / "ann.pem") == "ann"

    (tls / "ca.key").write_bytes((tls / "client.key").read_bytes())
    with pytest.raises(StateError):
        load_authority(tls)
