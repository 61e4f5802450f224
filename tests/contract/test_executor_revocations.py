"""The listener that can only revoke, the command on the host, and the client's two words for it."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from executor.adapters.certificates import CertificateFiles
from executor.adapters.wire import sealed_to_proto
from executor.domain.errors import ExecutorError
from executor.entrypoints.grpc_revocations import CLIENTS, Pace, RevocationPort
from gonogo.grpc_credentials import mutual_tls
from gonogo.v1 import evidence_pb2, executor_pb2, executor_pb2_grpc
from tests.contract.executor_server import ORCHESTRATOR, Authority
from tests.contract.test_executor_process import ROOT, Installed
from tests.unit.executor.house import House, Person

DENY = evidence_pb2.REVOCATION_KIND_DENY


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """An executor and its persons."""
    house = House(tmp_path / "house")
    yield house
    house.close()


class Listening:
    """The listener on loopback, and whoever calls it."""

    def __init__(self, authority: Authority, address: str) -> None:
        self.authority = authority
        self.address = address

    def channel(self, name: str) -> grpc.aio.Channel:
        """Open a channel with somebody's certificate."""
        files = [self.authority.directory / file for file in ("ca.pem", f"{name}.key", f"{name}.pem")]
        credentials = grpc.ssl_channel_credentials(*(file.read_bytes() for file in files))
        options = [("grpc.ssl_target_name_override", "executor")]
        return grpc.aio.secure_channel(self.address, credentials, options=options)

    async def revoke(self, document: Any, *, by: str = "owner") -> executor_pb2.RevokeResponse:
        """Hand a document in."""
        async with self.channel(by) as channel:
            stub = executor_pb2_grpc.RevocationServiceStub(channel)
            return await stub.Revoke(executor_pb2.RevokeRequest(revocation=sealed_to_proto(document)))

    async def refused(self, document: Any, *, by: str = "owner") -> tuple[str, str]:
        """Hand in what is not taken: the status and the stable reason."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.revoke(document, by=by)
        return caught.value.code().name, reason_of(caught.value)


def reason_of(error: grpc.aio.AioRpcError) -> str:
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    if status is None or not any(detail.Is(info.DESCRIPTOR) and detail.Unpack(info) for detail in status.details):
        return ""
    return str(info.reason)


@pytest.fixture
async def listening(house: House, tmp_path: Path) -> AsyncIterator[Listening]:
    """The listener alone, with certificates of several callers."""
    authority = Authority(tmp_path / "tls")
    authority.issue("executor", "spiffe://gonogo.local/executor")
    authority.issue("owner", f"{CLIENTS}owner")
    authority.issue("orchestrator", ORCHESTRATOR)
    authority.issue("nameless")
    authority.issue("empty", CLIENTS)
    authority.issue("both", ORCHESTRATOR, f"{CLIENTS}owner")
    credentials = mutual_tls(CertificateFiles(authority.directory, "executor"))
    port = RevocationPort(house.core, "127.0.0.1:0", lambda: credentials)
    yield Listening(authority, await port.start())
    await port.stop(1)


class TestListener:
    async def test_it_records_and_answers(self, house: House, listening: Listening) -> None:
        """A client's signed revocation is recorded, and the same again is answered alike."""
        document = house.revocation()
        first = await listening.revoke(document)
        assert (first.in_time, first.stopping, first.revocation_id != "") == (True, False, True)
        assert await listening.revoke(document) == first
        assert [one.person for one in house.ledger.revocations("m-1")] == ["owner"]

    @pytest.mark.parametrize("name", ["orchestrator", "nameless", "empty", "both"])
    async def test_only_clients_are_let_in(self, house: House, listening: Listening, name: str) -> None:
        """A certificate of the authority that is no client's, or is two things, revokes nothing."""
        assert await listening.refused(house.revocation(), by=name) == ("PERMISSION_DENIED", "PEER_NOT_ALLOWED")
        assert house.ledger.revocations("m-1") == ()

    async def test_it_refuses_with_the_stable_reasons(self, house: House, listening: Listening) -> None:
        """What the core refuses arrives with its reason."""
        stranger = house.revocation(by=Person("owner"))
        assert await listening.refused(stranger) == ("FAILED_PRECONDITION", "APPROVER_UNKNOWN")
        other = house.revocation(executor_id="executor-other")
        assert await listening.refused(other) == ("FAILED_PRECONDITION", "EXECUTOR_MISMATCH")
        plan = house.sealed_plan()
        assert await listening.refused(plan) == ("INVALID_ARGUMENT", "MALFORMED")

    async def test_nothing_else_answers_there(self, listening: Listening) -> None:
        """No other service is served on this listener."""
        async with listening.channel("owner") as channel:
            stub = executor_pb2_grpc.ExecutorServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.GetExecutor(executor_pb2.GetExecutorRequest())
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED

    async def test_large_messages_are_not_read(self, house: House, listening: Listening) -> None:
        """What is larger than any revocation is refused by the transport."""
        assert (await listening.refused(house.revocation(reason="x" * 40_000)))[0] == "RESOURCE_EXHAUSTED"

    async def test_who_floods_waits_alone(self, house: House, listening: Listening) -> None:
        """A client that sends many is told to wait; another one gets in meanwhile."""
        listening.authority.issue("second", f"{CLIENTS}second")
        stranger = house.revocation(by=Person("owner"))
        reasons = [(await listening.refused(stranger))[1] for _ in range(40)]
        assert reasons[0] == "APPROVER_UNKNOWN"
        assert "OVERLOADED" in reasons
        assert (await listening.revoke(house.revocation(), by="second")).in_time


def test_what_is_remembered_of_clients_is_bounded() -> None:
    """Any number of identities leaves no more behind than there is room for, and time gives everybody room again."""
    now = [0.0]
    pace = Pace(at_once=2, per_second=1, clients=3, now=lambda: now[0])
    for number in range(100):
        pace.take(f"client-{number}")
    assert len(pace._left) == 3
    pace.take("client-99")
    with pytest.raises(ExecutorError):
        pace.take("client-99")
    now[0] = 1.0
    pace.take("client-99")


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Installed]:
    """A state directory with an executor's process."""
    installed = Installed(tmp_path)
    installed.authority.issue("client", f"{CLIENTS}owner")
    (installed.state / "keys" / "approver").write_bytes(installed.people.owner.key.private_bytes())
    yield installed
    installed.people.close()
    if installed.process is not None and installed.process.poll() is None:
        installed.process.kill()
        installed.process.communicate()


def run(*arguments: str, state: Path, **environment: str) -> tuple[int, dict[str, Any]]:
    """Run one of our programs; its exit code, and the JSON object that it told."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GONOGO_")}
    found = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env={**clean, "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}", "GONOGO_STATE": str(state), **environment},
        capture_output=True,
        check=False,
        timeout=60,
    )
    text = (found.stdout.strip() or found.stderr.strip().splitlines()[-1:][0]).decode()
    return found.returncode, json.loads(text)


async def test_the_clients_two_words_and_the_host_command(installed: Installed) -> None:
    """`gonogo revoke`, `gonogo deny` and the command on the host reach a running executor without an orchestrator."""
    installed.start("--listen", "127.0.0.1:0", "--revocation-listen", "127.0.0.1:0")
    await asyncio.to_thread(installed.served)
    told = json.loads(installed.ready_file.read_text())
    address, state, mission = told["revocations"], installed.state, "m-00000000000000000000"
    code, answer = await asyncio.to_thread(
        run, "client", "-o", "json", "revoke", mission, "-m", "no", "--executor-revocations", address, state=state
    )
    assert (code, answer["in_time"], answer["stopping"]) == (0, True, False)
    code, answer = await asyncio.to_thread(
        run, "client", "-o", "json", "deny", mission, "-m", "no", state=state, GONOGO_EXECUTOR_REVOCATIONS=address
    )
    assert (code, answer["in_time"], answer["mission_id"]) == (0, True, mission)
    file = installed.root / "signed.json"
    code, answer = await asyncio.to_thread(
        run, "client", "-o", "json", "deny", mission[:-1] + "1", "-m", "no", "--out", str(file), state=state
    )
    assert (code, answer) == (0, {"written": str(file)})
    code, answer = await asyncio.to_thread(run, "executor", "revoke", str(file), state=state)
    assert (code, answer["in_time"]) == (0, True)
    assert installed.stop() == 0


def test_the_host_command_while_nothing_runs(installed: Installed) -> None:
    """It checks the document at once, says that it waits, and the next start takes it."""
    state, file = installed.state, installed.root / "signed.json"
    code, answer = run(
        "client", "-o", "json", "deny", "m-00000000000000000000", "-m", "no", "--out", str(file), state=state
    )
    assert code == 0
    code, answer = run("executor", "revoke", str(file), "--wait", "0", state=state)
    assert (code, answer["handed_in"]) == (0, True)
    assert len(list((state / "executor" / "revocations").glob("*.revocation"))) == 1
    installed.start("--listen", "127.0.0.1:0")
    installed.served()
    assert list((state / "executor" / "revocations").glob("*.revocation")) == []
    stranger = json.loads(file.read_text())
    stranger["body"] = stranger["body"][:-8] + "AAAAAAA="
    file.write_text(json.dumps(stranger))
    code, answer = run("executor", "revoke", str(file), state=state)
    assert (code, answer["reason"]) == (1, "SIGNATURE_INVALID")
    assert installed.stop() == 0
