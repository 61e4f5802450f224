"""The executor over the wire: who may call, what errors become, and how streams begin, go on and end."""

import asyncio
import dataclasses
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from executor.adapters.wire import sealed_from_proto, sealed_to_proto
from executor.domain.errors import ExecutorError, GateRefusedError, RequestMalformedError
from executor.domain.far_sides import McpServer
from executor.entrypoints import resume_tokens
from executor.entrypoints.grpc_errors import code_of
from executor.entrypoints.grpc_messages import description_message
from executor.entrypoints.grpc_service import TICK_SECONDS
from executor.runner.requests import ExecuteInput
from gonogo import sealing
from gonogo.digests import digest
from gonogo.v1 import errors_pb2, evidence_pb2, executor_pb2, plan_pb2, sealed_pb2
from tests.contract.executor_server import Served, served
from tests.unit.executor.house import House


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest_asyncio.fixture
async def server(house: House, tmp_path: Path) -> AsyncIterator[Served]:
    async with served(house.core, tmp_path, heartbeat_seconds=0.3) as server:
        yield server
    house.close()


def message(request: ExecuteInput) -> executor_pb2.ExecuteRequest:
    """The message of a request."""
    return executor_pb2.ExecuteRequest(
        request_id=request.request_id,
        mission_id=request.named.mission_id,
        intent_id=request.named.intent_id,
        workspace_id=request.named.workspace_id,
        executor_id=request.named.executor_id,
        plan=sealed_to_proto(request.plan),
        report=sealed_to_proto(request.report) if request.report else None,
        approvals=[sealed_to_proto(approval) for approval in request.approvals],
    )


async def everything(call: Any) -> list[Any]:
    return [answer async for answer in call]


async def failure(call: Any) -> tuple[grpc.StatusCode, dict[str, Any]]:
    """The code of a call that fails, and the details of its status by name."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (everything(call) if hasattr(call, "__aiter__") else call)
    status = rpc_status.from_call(caught.value)
    kinds = (
        error_details_pb2.ErrorInfo,
        error_details_pb2.PreconditionFailure,
        error_details_pb2.BadRequest,
        sealed_pb2.Sealed,
    )
    details: dict[str, Any] = {}
    for packed in status.details if status else ():
        for kind in kinds:
            if packed.Is(kind.DESCRIPTOR):
                details[kind.DESCRIPTOR.name] = unpacked = kind()
                packed.Unpack(unpacked)
    return caught.value.code(), details


class TestPeers:
    @pytest.mark.parametrize("who", ["stranger", "nameless", "both"])
    async def test_nobody_but_the_orchestrator_is_served(self, server: Served, who: str) -> None:
        """Every method refuses a certificate of the same authority that is not exactly the trust file's."""
        async with server.stub(who) as stub:
            for method in executor_pb2.DESCRIPTOR.services_by_name["ExecutorService"].methods:
                request = getattr(executor_pb2, method.input_type.name)()
                code, details = await failure(getattr(stub, method.name)(request))
                assert code is grpc.StatusCode.PERMISSION_DENIED, method.name
                assert details["ErrorInfo"].reason == "PEER_NOT_ALLOWED"

    async def test_an_orchestrator_that_may_not_dry_run(self, tmp_path: Path) -> None:
        """The policy can take dry runs from an orchestrator that may call everything else."""
        house = House(tmp_path, may_dry_run="[]")
        async with served(house.core, tmp_path) as server, server.stub() as stub:
            request = executor_pb2.DryRunRequest(request_id="q", plan=sealed_to_proto(house.sealed_plan()))
            code, details = await failure(stub.DryRun(request))
            assert code is grpc.StatusCode.PERMISSION_DENIED
            assert details["ErrorInfo"].reason == "PEER_NOT_ALLOWED"
            assert "may_dry_run" in details["ErrorInfo"].metadata["remedy"]
            assert house.simulator.runs == 0
            assert (await stub.GetExecutor(executor_pb2.GetExecutorRequest())).executor_id
        house.close()

    async def test_how_long_things_are_kept(self, tmp_path: Path) -> None:
        """Whoever asks is told how long a report can be executed and a mission be undone."""
        house = House(tmp_path, report_seconds=100, checkpoint_seconds=200)
        async with served(house.core, tmp_path) as server, server.stub() as stub:
            told = await stub.GetExecutor(executor_pb2.GetExecutorRequest())
        assert (told.report_seconds, told.checkpoint_seconds) == (100, 200)
        house.close()

    async def test_no_certificate_no_connection(self, server: Served) -> None:
        """A caller without a certificate does not get as far as a method."""
        credentials = grpc.ssl_channel_credentials((server.authority.directory / "ca.pem").read_bytes())
        options = [("grpc.ssl_target_name_override", "executor")]
        async with grpc.aio.secure_channel(f"127.0.0.1:{server.port}", credentials, options=options) as channel:
            call: Any = channel.unary_unary("/gonogo.v1.ExecutorService/GetExecutor")(b"", timeout=5)  # type: ignore[arg-type]  # bytes without a serializer
            code, _ = await failure(call)
            assert code is grpc.StatusCode.UNAVAILABLE

    async def test_health_is_on_the_same_port(self, server: Served) -> None:
        """A supervisor asks for health where the service is."""
        async with server.channel() as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Check(health_pb2.HealthCheckRequest(service="other"))


class TestErrors:
    def test_every_reason_has_one_code(self) -> None:
        """A reason that nobody gave a code is the executor's own fault, and only INTERNAL is that."""
        reasons = {name.removeprefix("REASON_") for name in errors_pb2.Reason.DESCRIPTOR.values_by_name} - {
            "UNSPECIFIED"
        }
        gates = {
            *("REPORT_MISSING", "REPORT_UNKNOWN", "SIMULATION_UNSAFE", "SIMULATION_BLOCKED", "SIMULATION_FAILED"),
            *("NOT_APPROVED", "QUORUM_NOT_MET", "APPROVAL_EXPIRED", "APPROVAL_REVOKED", "SIGNATURE_INVALID"),
            *("APPROVER_UNKNOWN", "SELF_APPROVAL", "PLAN_MISMATCH", "MISSION_MISMATCH", "WORKSPACE_MISMATCH"),
            *("EXECUTOR_MISMATCH", "ALREADY_EXECUTED", "ALREADY_CLAIMED", "HARDWARE_KEY_NEEDED", "POLICY_REFUSES"),
        }
        requests = {
            *("MALFORMED", "REQUEST_REUSED", "PLAN_INVALID", "TOO_LARGE", "SECRET_IN_PLAN", "NETWORK_REFUSED"),
            *(name for name in reasons if name.startswith("PATH_")),
        }
        findings = {
            *("COMMAND_FAILED", "TESTS_UNEXPECTED", "JUNIT_MISSING", "JUNIT_UNREADABLE", "PROGRAM_HIDDEN"),
            *("CHECKPOINT_GONE", "FETCH_FAILED", "TOOL_CHANGED", "FAR_SIDE_UNKNOWN", "ROWS_DIVERGED"),
            *("EFFECT_FAILED", "STOPPED", "NOT_READY", "TOOL_FAILED"),
        }
        orchestrators = {"EXECUTOR_UNAVAILABLE", "UNAUTHENTICATED", "ROLE_MISSING"}
        others = {"DIVERGED", "INTERNAL"} | orchestrators | findings  # findings stand in reports, not in errors
        internal = {reason for reason in reasons if code_of(ExecutorError(reason, "", "")) == 13}
        assert internal == gates | requests | others

    def test_the_class_of_an_error_says_whose_turn_it_is(self) -> None:
        """Gates 1 to 6 are preconditions, 7 and the first read exist already, requests are the caller's."""
        for gate in range(1, 7):
            assert code_of(GateRefusedError(gate, "X", "", "")) == grpc.StatusCode.FAILED_PRECONDITION.value[0]
        for gate in (0, 7):
            assert code_of(GateRefusedError(gate, "X", "", "")) == grpc.StatusCode.ALREADY_EXISTS.value[0]
        assert code_of(RequestMalformedError("X", "", "")) == grpc.StatusCode.INVALID_ARGUMENT.value[0]

    async def test_a_refusal_travels_whole(self, house: House, server: Served) -> None:
        """The caller of a refused execution gets reason, remedy and the executor's signed document."""
        request = dataclasses.replace(house.ready(), approvals=())
        async with server.stub() as stub:
            code, details = await failure(stub.Execute(message(request)))
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert details["ErrorInfo"].reason == "NOT_APPROVED"
        assert details["ErrorInfo"].domain == "gonogo"
        assert details["ErrorInfo"].metadata["remedy"]
        assert details["PreconditionFailure"].violations[0].type == "NOT_APPROVED"
        document = sealed_from_proto(details["Sealed"])
        assert document.media_type == sealing.REFUSAL
        refusal = sealing.open_sealed(document.body, evidence_pb2.Refusal)
        assert (refusal.gate, refusal.abort_reason) == (3, "NOT_APPROVED")
        assert document.signatures[0].key_id == house.executor_key.public.key_id

    async def test_the_largest_refusal_still_travels(
        self, house: House, server: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Trailers have little room; a refusal with the longest texts and names arrives all the same."""
        request = house.ready()
        error = GateRefusedError(
            6, "BASE_DRIFTED", "ü\x00" * 9000, "\U0001d569" * 9000, paths=(b"\x01\xff" * 40,) * 500
        )

        def drifts(*_: object) -> tuple[bytes, ...]:
            raise error

        monkeypatch.setattr(house.core._executions._gates, "_find_drift", drifts)
        async with server.stub() as stub:
            code, details = await failure(stub.Execute(message(request)))
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert sealing.open_sealed(details["Sealed"].body, evidence_pb2.Refusal).path_count == 500

    async def test_a_malformed_request(self, server: Served) -> None:
        """A request that is none is the caller's to change."""
        async with server.stub() as stub:
            code, details = await failure(stub.Execute(executor_pb2.ExecuteRequest()))
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert details["BadRequest"].field_violations
            code, details = await failure(stub.DryRun(executor_pb2.DryRunRequest(request_id="q")))
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            code, details = await failure(stub.GetExecution(executor_pb2.GetExecutionRequest()))
            assert code is grpc.StatusCode.INVALID_ARGUMENT

    async def test_a_second_execution(self, house: House, server: Served) -> None:
        """The second execution is refused as existing, in the promised words."""
        request = house.ready()
        house.execute(request)
        async with server.stub() as stub:
            call = stub.Execute(message(dataclasses.replace(request, request_id="again")))
            code, details = await failure(call)
            assert code is grpc.StatusCode.ALREADY_EXISTS
            assert await call.details() == "Mission has already been executed"
            assert details["ErrorInfo"].reason == "ALREADY_EXECUTED"

    async def test_a_fault_without_a_name(self, house: House, server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        """What breaks inside is INTERNAL, and the caller sees nothing of it."""

        def breaks(*_: object) -> None:
            raise ZeroDivisionError("secret detail")

        monkeypatch.setattr(house.core, "get_receipt", breaks)
        async with server.stub() as stub:
            call = stub.GetReceipt(executor_pb2.GetReceiptRequest(mission_id="m"))
            code, _ = await failure(call)
            assert code is grpc.StatusCode.INTERNAL
            assert "secret" not in (await call.details() or "")


class TestCalls:
    async def test_who_the_executor_is(self, house: House, server: Served) -> None:
        """The description carries keys, policy, level, findings and workspaces."""
        async with server.stub() as stub:
            told = await stub.GetExecutor(executor_pb2.GetExecutorRequest())
        # This house keeps no audit log and lists no far sides; test_executor_audit.py has one that does, and the next
        # test lists some.
        assert {field.name for field, _ in told.ListFields()} | {"log_origin", "far_sides"} == {
            field.name for field in executor_pb2.GetExecutorResponse.DESCRIPTOR.fields
        }
        assert told.public_key == house.executor_key.public.line
        assert [person.person for person in told.persons] == ["owner", "second"]
        assert told.ladder_level == plan_pb2.LADDER_LEVEL_L1

    async def test_what_live_steps_may_use(self, house: House) -> None:
        """The description names domains, servers and databases, and nothing of how they are reached."""
        server = McpServer(name="notes", workspaces=("site",), tools=("add",), command=("/opt/notes",))
        house.use(dataclasses.replace(house.trust, domains=("example.org",), servers=(server,)))
        told = description_message(house.core.describe())
        house.close()
        assert list(told.far_sides) == [
            executor_pb2.FarSide(kind="domain", name="example.org"),
            executor_pb2.FarSide(kind="mcp_server", name="notes", workspaces=["site"]),
        ]

    async def test_a_whole_mission(self, house: House, server: Served) -> None:
        """Dry run, execution, and everything that can be asked afterwards."""
        plan = house.sealed_plan()
        async with server.stub() as stub:
            dry = await everything(stub.DryRun(executor_pb2.DryRunRequest(request_id="d", plan=sealed_to_proto(plan))))
            assert [answer.HasField("report") for answer in dry] == [*(False for _ in dry[1:]), True]
            report = sealed_from_proto(dry[-1].report)
            names = [event.WhichOneof("payload") for answer in dry for event in answer.events]
            assert names == ["dry_run_started", "step_started"]
            assert {event.mission_id for answer in dry for event in answer.events} == {"m-1"}
            request = house.request(plan, report, house.approve(plan, report))
            answers = await everything(stub.Execute(message(request)))
            last = answers[-1]
            assert last.execution.ended
            assert last.execution.outcome == evidence_pb2.OUTCOME_SUCCESS
            by_mission = executor_pb2.GetExecutionRequest(mission_id="m-1")
            assert (await stub.GetExecution(by_mission)).execution == last.execution
            receipt = await stub.GetReceipt(executor_pb2.GetReceiptRequest(mission_id="m-1"))
            assert receipt.receipt == last.receipt
            part = await stub.GetObject(executor_pb2.GetObjectRequest(digest=digest(b"hello\n"), offset=1, limit=2))
            assert (part.data, part.total_bytes) == (b"el", 6)
            watched = await everything(stub.WatchExecution(executor_pb2.WatchExecutionRequest(mission_id="m-1")))
        events = [event for answer in answers for event in answer.events]
        assert [event for answer in watched for event in answer.events] == events
        assert [event.sequence for event in events] == list(range(1, 7))
        assert {event.actor for event in events} == {"executor"}
        assert house.files() == {"hello.txt": b"hello\n"}

    async def test_what_is_not_there(self, server: Served) -> None:
        """Unknown names are NOT_FOUND."""
        async with server.stub() as stub:
            for call in (
                stub.GetReceipt(executor_pb2.GetReceiptRequest(mission_id="m")),
                stub.GetExecution(executor_pb2.GetExecutionRequest(execution_id="x")),
                stub.WatchExecution(executor_pb2.WatchExecutionRequest(execution_id="x")),
                stub.GetObject(executor_pb2.GetObjectRequest(digest=digest(b"other"))),
            ):
                code, details = await failure(call)
                assert code is grpc.StatusCode.NOT_FOUND
                assert details["ErrorInfo"].metadata["remedy"]


class TestStreams:
    async def test_a_caller_that_goes_away_stops_nothing(self, house: House, server: Served) -> None:
        """The execution goes on without its caller, and the same request finds it again from the first event."""
        begun, go_on = threading.Event(), threading.Event()

        def wait(execution_id: str) -> None:
            begun.set()
            assert go_on.wait(10)

        house.executioner.during = wait
        request = house.ready()
        async with server.stub() as stub:
            call = stub.Execute(message(request))
            await anext(aiter(call))
            assert await asyncio.to_thread(begun.wait, 10)
            call.cancel()
            again = aiter(stub.Execute(message(request)))
            answer = await anext(again)
            assert answer.events[0].sequence == 1
            assert not answer.HasField("receipt")
            go_on.set()
            answers: list[Any] = [answer, *await everything(again)]
        assert answers[-1].HasField("receipt")
        assert len(house.executioner.runs) == 1
        assert house.files() == {"hello.txt": b"hello\n"}

    async def test_whoever_waited_for_the_workspace_sees_the_execution_run(self, house: House, server: Served) -> None:
        """A stream whose execution begins long after the request tells of it while it runs, not only at its end."""
        go_on = threading.Event()

        def wait(execution_id: str) -> None:
            assert go_on.wait(10)

        house.executioner.during = wait
        request = house.ready()
        async with server.stub() as stub:
            call = stub.Execute(message(request))
            with house.workspace.lock():
                executing = aiter(call)
                first = asyncio.ensure_future(anext(executing))
                done, _ = await asyncio.wait({first}, timeout=4 * TICK_SECONDS)
                assert not done
            async with asyncio.timeout(5):
                answer = await first
            assert not answer.HasField("receipt")
            go_on.set()
            answers: list[Any] = [answer, *await everything(executing)]
        assert answers[-1].HasField("receipt")

    async def test_a_watch_goes_on_from_its_token(self, house: House, server: Served) -> None:
        """A token carries on behind the last event that was seen; together nothing is missing or doubled."""
        house.execute(house.ready())
        run = house.core.get_execution(mission_id="m-1")
        async with server.stub() as stub:
            for place in range(7):
                token = resume_tokens.encode(run.execution_id, place)
                request = executor_pb2.WatchExecutionRequest(mission_id="m-1", resume_token=token)
                answers = await everything(stub.WatchExecution(request))
                numbers = [event.sequence for answer in answers for event in answer.events]
                assert numbers == list(range(place + 1, 7))
                assert answers[-1].HasField("receipt")

    async def test_tokens_that_are_none(self, house: House, server: Served) -> None:
        """A token of another execution, of a place not reached or of no kind at all is out of range."""
        house.execute(house.ready())
        execution_id = house.core.get_execution(mission_id="m-1").execution_id
        tokens = [
            "nonsense",
            "ü",
            resume_tokens.encode("x-other", 1),
            resume_tokens.encode(execution_id, 7),
            resume_tokens.encode(execution_id, -1),
        ]
        async with server.stub() as stub:
            for token in tokens:
                request = executor_pb2.WatchExecutionRequest(mission_id="m-1", resume_token=token)
                code, details = await failure(stub.WatchExecution(request))
                assert code is grpc.StatusCode.OUT_OF_RANGE
                assert details["ErrorInfo"].reason == "RESUME_TOKEN_INVALID"

    async def test_an_idle_watch_has_a_heartbeat(self, house: House, server: Served) -> None:
        """While nothing happens, messages without events keep the stream alive and carry the token."""
        begun, go_on = threading.Event(), threading.Event()

        def wait(execution_id: str) -> None:
            begun.set()
            assert go_on.wait(10)

        house.executioner.during = wait
        request = house.ready()
        async with server.stub() as stub:
            executing = asyncio.ensure_future(everything(stub.Execute(message(request))))
            assert await asyncio.to_thread(begun.wait, 10)
            watch = aiter(stub.WatchExecution(executor_pb2.WatchExecutionRequest(mission_id="m-1")))
            answers = [await anext(watch) for _ in range(3)]
            go_on.set()
            rest = await everything(watch)
            await executing
        assert any(not answer.events for answer in answers)
        assert all(answer.resume_token for answer in answers)
        numbers = [event.sequence for answer in [*answers, *rest] for event in answer.events]
        assert numbers == list(range(1, 7))

    async def test_a_drain_sends_watchers_off_with_a_token(self, house: House, server: Served) -> None:
        """At the end of the server a watch ends well, with the place to go on from; the execution goes on."""
        begun, go_on = threading.Event(), threading.Event()

        def wait(execution_id: str) -> None:
            begun.set()
            assert go_on.wait(10)

        house.executioner.during = wait
        request = house.ready()
        async with server.stub() as stub:
            executing = asyncio.ensure_future(everything(stub.Execute(message(request))))
            assert await asyncio.to_thread(begun.wait, 10)
            server.service.drain()
            answers: list[Any] = await executing
        assert answers[-1].resume_token
        assert not answers[-1].HasField("receipt")
        go_on.set()
        assert await asyncio.to_thread(house.core.drain, 10)
        assert house.core.get_receipt("m-1").body
