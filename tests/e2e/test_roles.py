"""Who may do what, with real processes: roles, tokens, certificates, and what is on each port."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from client.api import GonogoClient
from client.certificates import issue_all
from client.errors import RemoteError
from client.state import StateDirectory
from gonogo.v1 import executor_pb2, orchestrator_pb2
from gonogo.v1.executor_pb2_grpc import ExecutorServiceStub
from gonogo.v1.orchestrator_pb2_grpc import MissionServiceStub
from tests.e2e.installation import Installation, Ran, installed
from tests.e2e.peer import executor_channel

pytestmark = pytest.mark.long

LISTENERS = ("--token-listen", "127.0.0.1:0", "--health")
PLAN = "objective: Write a file\nworkspace: site\nsteps:\n  - write_file: {{path: {name}, content: hello}}\n"
NOT_PERMITTED = 7


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Both services, with a listener for tokens and ports for health."""
    with installed(tmp_path_factory.mktemp("roles"), options=LISTENERS) as installation:
        yield installation


class Someone(Installation):
    """Somebody who calls with a token, or from a state directory of their own."""

    def __init__(self, house: Installation, *, token: str = "", state: Path | None = None) -> None:
        super().__init__(state or house.state, house.workspaces)
        self._ready = json.loads((house.state / "run" / "ready.json").read_text())
        self._token = token
        self.more: dict[str, str] = {}

    @property
    def environment(self) -> dict[str, str]:
        address = self._ready["orchestrator_tokens" if self._token else "orchestrator"]
        shown = {"GONOGO_TOKEN": self._token} if self._token else {}
        return {**super().environment, **shown, **self.more, "GONOGO_ORCHESTRATOR": address}


def caller(house: Installation, name: str, *roles: str, expires: str = "1h") -> Someone:
    """Add a caller with a token."""
    options = [word for role in roles for word in ("--role", role)]
    added = house.json("caller", "add", name, *options, "--token", "--expires", expires)
    assert (added["name"], added["roles"]) == (name, list(roles))
    return Someone(house, token=added["token"])


def proposed(someone: Installation, name: str) -> str:
    """Propose a file and return the mission's id."""
    mission: str = someone.json("propose", "-f", "-", text=PLAN.format(name=name))["mission_id"]
    return mission


def refused(ran: Ran, reason: str = "ROLE_MISSING") -> None:
    """Make sure that a command was refused for this reason, with a remedy."""
    assert (ran.code, ran.error["reason"]) == (NOT_PERMITTED, reason), ran
    assert ran.error["remedy"]


def missions(house: Installation) -> dict[str, str]:
    """Return how all missions stand."""
    return {mission["mission_id"]: mission["status"] for mission in house.json("list")}


def test_a_viewer_sees_and_does_nothing(house: Installation) -> None:
    """Every view is open to it; proposing, saying, deciding and executing are not, and leave everything as it was."""
    mission = proposed(house, "viewed.txt")
    viewer = caller(house, "viewer", "view")
    before = missions(house)
    assert viewer.json("show", mission)["mission_id"] == mission
    assert set(missions(viewer)) == set(before)
    viewer.json("whiteboard", mission)
    viewer.json("events", mission)

    refused(viewer.run("propose", "-f", "-", "-o", "json", text=PLAN.format(name="x.txt")))
    refused(viewer.run("chat", "create x.txt with 'x'", "-o", "json"))
    refused(viewer.run("dry-run", mission, "-o", "json"))
    refused(viewer.run("reject", mission, "-m", "no", "-o", "json"))
    refused(viewer.run("cancel", mission, "-o", "json"))
    refused(viewer.run("execute", mission, "-o", "json"))
    refused(viewer.run("caller", "list", "-o", "json"))
    assert missions(house) == before


def test_a_proposer_proposes_and_decides_nothing(house: Installation) -> None:
    """What it proposes bears its name; it may take that back, and neither approve nor execute nor touch others'."""
    foreign = proposed(house, "foreign.txt")
    proposer = caller(house, "proposer", "propose")
    mission, other = proposed(proposer, "mine.txt"), proposed(proposer, "second.txt")
    shown = house.json("show", mission)
    assert shown["proposer"] == "proposer"
    assert proposer.json("dry-run", mission)["status"] == "success"

    key = str(house.state / "keys" / "approver")
    refused(proposer.run("approve", mission, "--key", key, "--yes", "-o", "json"))
    refused(proposer.run("execute", mission, "-o", "json"))
    refused(proposer.run("reject", foreign, "-m", "no", "-o", "json"))
    refused(proposer.run("cancel", foreign, "-o", "json"))
    said = proposer.run("chat", f"reject {foreign}", "-o", "json")
    assert "was not proposed by proposer" in said.out + said.err
    assert missions(house)[foreign] == "proposed"
    assert missions(house)[mission] == "proposed"

    proposer.json("reject", mission, "-m", "changed my mind")
    proposer.run("chat", f"reject {other}", "-o", "json")
    assert missions(house)[mission] == missions(house)[other] == "rejected"


def test_an_operator_operates_and_administers_nothing(house: Installation, tmp_path: Path) -> None:
    """It approves and executes what others propose; it neither proposes nor lists, adds or removes callers."""
    mission = proposed(house, "operated.txt")
    house.json("dry-run", mission)
    operator = caller(house, "operator", "operate")

    refused(operator.run("propose", "-f", "-", "-o", "json", text=PLAN.format(name="x.txt")))
    refused(operator.run("caller", "add", "friend", "--role", "administer", "--token", "-o", "json"))
    refused(operator.run("caller", "remove", "owner", "-o", "json"))
    refused(operator.run("caller", "list", "-o", "json"))
    assert "friend" not in {one["name"] for one in house.json("caller", "list")}

    operator.json("approve", mission, "--key", str(house.state / "keys" / "approver"), "--yes")
    operator.json("execute", mission)
    assert (house.workspaces["site"] / "operated.txt").read_text() == "hello"


def test_an_administrator_only_administers(house: Installation) -> None:
    """It adds and removes callers; missions it can only see."""
    administrator = caller(house, "administrator", "administer")
    administrator.json("caller", "add", "added", "--role", "view", "--role", "propose")
    [added] = [one for one in administrator.json("caller", "list") if one["name"] == "added"]
    assert (added["credential"], added["roles"]) == ("certificate", ["view", "propose"])
    administrator.json("caller", "remove", "added")
    refused(administrator.run("propose", "-f", "-", "-o", "json", text=PLAN.format(name="x.txt")))


def test_the_token_s_file(house: Installation, tmp_path: Path) -> None:
    """A token is read from a file as well, an empty one is said; with it, the authority's certificate is enough."""
    token = house.json("caller", "add", "filed", "--role", "view", "--token")["token"]
    path = tmp_path / "token"
    path.write_text(token + "\n")
    assert house.run("list", "--token-file", str(path)).code == 0
    refused(house.run("propose", "-f", "-", "-o", "json", "--token-file", str(path), text=PLAN.format(name="x.txt")))
    elsewhere = Someone(house, token=token, state=tmp_path / "nothing")
    assert elsewhere.run("list").code == 1
    elsewhere.more["GONOGO_CA"] = str(house.state / "tls" / "ca.pem")
    assert elsewhere.run("list").code == 0
    path.write_text("")
    assert house.run("list", "--token-file", str(path), "-o", "json").error["reason"] == "FILE_UNREADABLE"


async def test_a_removed_token_s_next_call_is_refused(house: Installation) -> None:
    """On the very connection on which it was served a moment before."""
    async with connection(house, caller(house, "removed", "view").environment["GONOGO_TOKEN"]) as client:
        await client.list()
        await asyncio.to_thread(house.json, "caller", "remove", "removed")
        with pytest.raises(RemoteError) as caught:
            await client.list()
    assert caught.value.reason == "UNAUTHENTICATED"


async def test_a_removed_caller_s_watch_ends(house: Installation) -> None:
    """Who watches when they are removed is told no more than a second of what happens afterwards."""
    mission = await asyncio.to_thread(proposed, house, "watched.txt")
    async with connection(house, caller(house, "watcher", "view").environment["GONOGO_TOKEN"]) as client:
        watch = aiter(client.watch(mission))
        assert (await anext(watch)).events
        await asyncio.to_thread(house.json, "caller", "remove", "watcher")
        await asyncio.sleep(1.1)
        await asyncio.to_thread(house.json, "reject", mission, "-m", "no")
        with pytest.raises(RemoteError) as caught:
            await anext(watch)
    assert caught.value.reason == "UNAUTHENTICATED"


async def test_an_expired_token_is_refused(house: Installation) -> None:
    """From its moment on, also in the middle of a connection; the doctor says who has expired."""
    async with connection(house, caller(house, "brief", "view", expires="3s").environment["GONOGO_TOKEN"]) as client:
        await client.list()
        await asyncio.sleep(3.1)
        with pytest.raises(RemoteError) as caught:
            await client.list()
    assert caught.value.reason == "UNAUTHENTICATED"
    assert "expired: brief" in (await asyncio.to_thread(house.run, "doctor")).out


@asynccontextmanager
async def connection(house: Installation, token: str) -> AsyncIterator[GonogoClient]:
    """Open the Python client with a token in a file, as a program would."""
    path = house.state / "run" / "a-token"
    path.write_text(token)
    async with GonogoClient.connect(StateDirectory(root=house.state, token_file=path)) as client:
        yield client


async def test_tokens_and_certificates_have_their_own_listeners(house: Installation) -> None:
    """A token is not taken over the listener for certificates, nor a certificate over the one for tokens."""
    token = caller(house, "mixed", "view").environment["GONOGO_TOKEN"]
    ready = json.loads((house.state / "run" / "ready.json").read_text())
    bearer = f"Bearer {token}"
    certificates, tokens = ready["orchestrator"], ready["orchestrator_tokens"]

    assert await listed(house, certificates, "client") == "OK"
    assert await listed(house, certificates, "client", bearer) == "UNAUTHENTICATED"
    assert await listed(house, certificates, "", bearer) == "UNAVAILABLE"
    assert await listed(house, tokens, "", bearer) == "OK"
    assert await listed(house, tokens, "client") == "UNAUTHENTICATED"
    assert await listed(house, tokens, "client", bearer) == "OK"
    assert await listed(house, tokens, "") == "UNAUTHENTICATED"


async def listed(house: Installation, address: str, who: str, *authorization: str) -> str:
    """List missions with some certificate and metadata; return the refusal's reason or the status."""
    tls = house.state / "tls"
    pair = ((tls / f"{who}.{suffix}").read_bytes() for suffix in ("key", "pem")) if who else (None, None)
    credentials = grpc.ssl_channel_credentials((tls / "ca.pem").read_bytes(), *pair)
    options = [("grpc.ssl_target_name_override", "orchestrator")]
    async with grpc.aio.secure_channel(address, credentials, options) as channel:
        metadata = tuple(("authorization", text) for text in authorization)
        stub: Any = MissionServiceStub(channel)
        return await reason_of(stub.ListMissions(orchestrator_pb2.ListMissionsRequest(), metadata=metadata, timeout=20))


async def reason_of(call: Any) -> str:
    """Return what a call came to."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        status = rpc_status.from_call(error)
        info = error_details_pb2.ErrorInfo()
        told = status is not None and any(detail.Unpack(info) for detail in status.details)
        return info.reason if told else error.code().name
    return "OK"


async def test_the_services_certificates_are_not_the_clients(house: Installation) -> None:
    """The executor can not call the orchestrator, the orchestrator not itself, and no client the executor."""
    ready = json.loads((house.state / "run" / "ready.json").read_text())
    for service in ("executor", "orchestrator"):
        assert await listed(house, ready["orchestrator"], service) == "PEER_NOT_ALLOWED"
    for who in ("client", "executor"):
        async with executor_channel(house.state, who) as channel:
            stub: Any = ExecutorServiceStub(channel)
            call = stub.GetExecutor(executor_pb2.GetExecutorRequest(), timeout=20)
            assert await reason_of(call) == "PEER_NOT_ALLOWED"


def test_a_certificate_counts_once_its_name_is_listed(house: Installation, tmp_path: Path) -> None:
    """A certificate that the operator issued opens nothing by itself; listed, it opens what its roles do."""
    told = house.json("caller", "certificate", "ann", "--out", str(tmp_path / "ann"))
    ann = Someone(house, state=Path(told["directory"]))
    ran = ann.run("list", "-o", "json")
    refused(ran)
    assert "gonogo caller add ann" in ran.error["remedy"]

    house.json("caller", "add", "ann", "--role", "propose")
    assert house.json("show", proposed(ann, "ann.txt"))["proposer"] == "ann"
    refused(ann.run("caller", "list", "-o", "json"))

    house.json("caller", "remove", "ann")
    refused(ann.run("list", "-o", "json"))
    house.json("caller", "add", "ann", "--role", "view", "--token")
    refused(ann.run("list", "-o", "json"), "UNAUTHENTICATED")
    assert (tmp_path / "ann" / "tls" / "client.key").stat().st_mode & 0o077 == 0


def test_a_wrong_list_serves_nobody_until_it_is_mended(house: Installation) -> None:
    """By hand and without a restart: a list that can not be read, or is gone, closes every door, and doctor says so."""
    path = house.state / "orchestrator" / "callers.json"
    good = path.read_bytes()
    viewer = caller(house, "waiting", "view")
    listing = path.read_bytes()
    for content in (b"{", b'{"version": 1, "callers": []}', None):
        replace(path, content)
        until(lambda: house.run("list", "-o", "json").code == NOT_PERMITTED)
        refused(house.run("list", "-o", "json"))
        refused(viewer.run("list", "-o", "json"), "UNAUTHENTICATED")
        ran = house.run("doctor")
        assert "callers: " in ran.out
        assert content == b'{"version": 1, "callers": []}' or ran.code == 1
    house.json("caller", "init")
    until(lambda: house.run("list", "-o", "json").code == 0)
    refused(viewer.run("list", "-o", "json"), "UNAUTHENTICATED")
    replace(path, listing)
    until(lambda: viewer.run("list", "-o", "json").code == 0)
    replace(path, good)


def replace(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink()
        return
    new = path.with_suffix(".mine")
    new.write_bytes(content)
    new.chmod(0o600)
    new.replace(path)


def until(holds: Any) -> None:
    """Wait for what becomes true within a moment."""
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def test_health_in_plain_text_and_nothing_beside_it(house: Installation) -> None:
    """Both services say that they serve; gonogo's own methods are not there, and no other port speaks plain text."""
    ready = json.loads((house.state / "run" / "ready.json").read_text())
    calls = {
        "executor": ("/gonogo.v1.ExecutorService/GetExecutor", executor_pb2.GetExecutorRequest()),
        "orchestrator": ("/gonogo.v1.MissionService/ListMissions", orchestrator_pb2.ListMissionsRequest()),
    }
    for service, (path, message) in calls.items():
        for address, status in ((ready["health"][service], "UNIMPLEMENTED"), (ready[service], "UNAVAILABLE")):
            async with grpc.aio.insecure_channel(address) as channel:
                call: Any = channel.unary_unary(path, request_serializer=type(message).SerializeToString)
                assert await reason_of(call(message, timeout=20)) == status
        async with grpc.aio.insecure_channel(ready["health"][service]) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest())
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_no_token_is_left_anywhere(house: Installation) -> None:
    """Neither in a file of the state nor in a log, after it was added, used, misused and removed."""
    canary = caller(house, "canary", "view")
    token = canary.environment["GONOGO_TOKEN"]
    canary.json("list")
    refused(canary.run("propose", "-f", "-", "-o", "json", text=PLAN.format(name="x.txt")))
    house.json("caller", "remove", "canary")
    refused(canary.run("list", "-o", "json"), "UNAUTHENTICATED")
    for path in house.state.rglob("*"):
        if path.is_file():
            assert token.encode() not in path.read_bytes(), path


async def test_new_certificates_under_a_running_pair(tmp_path: Path) -> None:
    """Authority, certificates and keys of both services are replaced: who watches goes on, who comes shows new ones."""
    with installed(tmp_path) as house:
        mission = proposed(house, "renewed.txt")
        state = StateDirectory(root=house.state)
        async with GonogoClient.connect(state) as before:
            watch = aiter(before.watch(mission))
            seen = [event async for part in _first(watch) for event in part.events]
            old = {path.name: path.read_bytes() for path in state.tls.iterdir()}
            for name, issued in issue_all("owner").items():
                (state.tls / f"{name}.pem").write_bytes(issued.certificate)
                (state.tls / f"{name}.key").write_bytes(issued.key)

            await asyncio.to_thread(run_mission, house, mission)

            seen += [event async for part in watch for event in part.events]
            assert [event.sequence for event in seen] == list(range(1, len(seen) + 1))
            assert (await before.get(mission)).mission.outcome
        assert (house.workspaces["site"] / "renewed.txt").exists()
        former = tmp_path / "former"
        (former / "tls").mkdir(parents=True)
        for name, data in old.items():
            (former / "tls" / name).write_bytes(data)
        late = Someone(house, state=former)
        assert late.run("list", "-o", "json").error["reason"] == "NOT_RUNNING"


async def _first(stream: AsyncIterator[Any]) -> AsyncIterator[Any]:
    yield await anext(stream)


def run_mission(house: Installation, mission: str) -> None:
    """Take a mission to its end with the command, each time over a connection of its own."""
    time.sleep(1.1)  # the orchestrator looks at its files once in a second
    house.json("dry-run", mission)
    house.json("approve", mission, "--key", str(house.state / "keys" / "approver"), "--yes")
    house.json("execute", mission)
    assert (house.workspaces["site"] / "renewed.txt").exists()
