"""The executor simulator behind a real gRPC server, for tests of the way there and back."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from gonogo.v1 import executor_pb2 as pb
from gonogo.v1.executor_pb2_grpc import ExecutorServiceServicer, add_ExecutorServiceServicer_to_server
from orchestrator.adapters import wire
from orchestrator.adapters.field_mapper import message_map
from orchestrator.domain.control import ExecutionState
from orchestrator.domain.errors import ExecutorRefusedError, Reason
from orchestrator.service.ports import ControlOrder, ExecutionOrder, ExecutionUpdate
from tests.fakes.executor_simulator import ExecutorSimulator

Context = Any


class ExecutorFace(ExecutorServiceServicer):
    """Maps calls to the simulator."""

    def __init__(self, simulator: ExecutorSimulator) -> None:
        self._simulator = simulator

    async def GetExecutor(self, _request: pb.GetExecutorRequest, _context: Context) -> pb.GetExecutorResponse:  # noqa: N802 - gRPC's name
        return wire.executor_to_proto(await self._simulator.describe())

    async def DryRun(self, request: pb.DryRunRequest, _context: Context) -> AsyncIterator[pb.DryRunResponse]:  # noqa: N802 - gRPC's name
        report = await self._simulator.dry_run(request.request_id, wire.sealed_from_proto(request.plan))
        yield pb.DryRunResponse(report=wire.sealed_to_proto(report))

    async def Execute(self, request: pb.ExecuteRequest, context: Context) -> AsyncIterator[pb.ExecuteResponse]:  # noqa: N802 - gRPC's name
        order = ExecutionOrder(
            request_id=request.request_id,
            mission_id=request.mission_id,
            workspace_id=request.workspace_id,
            executor_id=request.executor_id,
            intent_id=request.intent_id,
            plan=wire.sealed_from_proto(request.plan),
            report=wire.sealed_from_proto(request.report),
            approvals=tuple(wire.sealed_from_proto(approval) for approval in request.approvals),
        )
        try:
            async for update in self._simulator.execute(order):
                yield pb.ExecuteResponse(**_fields(update))
        except ExecutorRefusedError as error:
            await _refuse(context, error)

    async def WatchExecution(  # noqa: N802 - gRPC's name
        self, request: pb.WatchExecutionRequest, context: Context
    ) -> AsyncIterator[pb.WatchExecutionResponse]:
        try:
            async for update in self._simulator.watch(request.mission_id, request.resume_token):
                yield pb.WatchExecutionResponse(**_fields(update))
        except ExecutorRefusedError as error:
            await _refuse(context, error)

    async def GetExecution(self, request: pb.GetExecutionRequest, context: Context) -> pb.GetExecutionResponse:  # noqa: N802 - gRPC's name
        state = await self._simulator.execution(request.mission_id)
        if state is None:
            await _refuse(context, ExecutorRefusedError(Reason.NOT_FOUND, "no execution", "Execute it."))
            raise AssertionError
        return pb.GetExecutionResponse(execution=message_map(ExecutionState, pb.Execution).to_message(state))

    async def GetObject(self, request: pb.GetObjectRequest, _context: Context) -> pb.GetObjectResponse:  # noqa: N802 - gRPC's name
        part = await self._simulator.read_object(request.digest, request.offset, request.limit)
        return pb.GetObjectResponse(data=part.data, total_bytes=part.total_bytes)

    async def ExchangeCheckpoints(  # noqa: N802 - gRPC's name
        self, request: pb.ExchangeCheckpointsRequest, context: Context
    ) -> pb.ExchangeCheckpointsResponse:
        try:
            answer = await self._simulator.exchange(request.checkpoint, tuple(request.consistency), request.known_size)
        except ExecutorRefusedError as error:
            await _refuse(context, error)
            raise AssertionError from None
        return pb.ExchangeCheckpointsResponse(
            checkpoint=answer.checkpoint, consistency=answer.consistency, kept_size=answer.kept_size
        )

    async def GetMissionLog(  # noqa: N802 - gRPC's name
        self, request: pb.GetMissionLogRequest, context: Context
    ) -> pb.GetMissionLogResponse:
        log = await self._simulator.mission_log(request.mission_id)
        if log is None:
            await _refuse(context, ExecutorRefusedError(Reason.NOT_FOUND, "no entry", "Look the id up."))
            raise AssertionError
        return pb.GetMissionLogResponse(log=wire.extract_to_proto(log))

    async def GetReceipt(self, request: pb.GetReceiptRequest, _context: Context) -> pb.GetReceiptResponse:  # noqa: N802 - gRPC's name
        return pb.GetReceiptResponse(receipt=wire.sealed_or_none(self._simulator.ledger[request.mission_id].receipt))

    async def ControlExecution(  # noqa: N802 - gRPC's name
        self, request: pb.ControlExecutionRequest, context: Context
    ) -> pb.ControlExecutionResponse:
        order = ControlOrder(
            request_id=request.request_id,
            mission_id=request.mission_id,
            action=wire.action_from_proto(request.action),
            actor=request.actor,
            reason=request.reason,
            roll_back=request.roll_back,
            document=wire.sealed_from_proto(request.document) if request.HasField("document") else None,
        )
        try:
            state = await self._simulator.control(order)
        except ExecutorRefusedError as error:
            await _refuse(context, error)
            raise
        return pb.ControlExecutionResponse(execution=message_map(ExecutionState, pb.Execution).to_message(state))

    async def ListProcesses(self, request: pb.ListProcessesRequest, _context: Context) -> pb.ListProcessesResponse:  # noqa: N802 - gRPC's name
        running = await self._simulator.processes(request.mission_id)
        return pb.ListProcessesResponse(processes=[wire.process_to_proto(one) for one in running])

    async def StopProcess(self, request: pb.StopProcessRequest, context: Context) -> pb.StopProcessResponse:  # noqa: N802 - gRPC's name
        try:
            ended = await self._simulator.stop_process(request.request_id, request.process_id, request.actor)
        except ExecutorRefusedError as error:
            await _refuse(context, error)
            raise
        return pb.StopProcessResponse(process=wire.process_to_proto(ended))


async def serve_executor(
    simulator: ExecutorSimulator, *, authority: bytes, key: bytes, certificate: bytes
) -> tuple[grpc.aio.Server, str]:
    """Serve a simulator with mutual TLS; return the server and its address."""
    server = grpc.aio.server()
    add_ExecutorServiceServicer_to_server(ExecutorFace(simulator), server)
    credentials = grpc.ssl_server_credentials([(key, certificate)], authority, require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    return server, f"127.0.0.1:{port}"


def _fields(update: ExecutionUpdate) -> dict[str, Any]:
    return {
        "events": wire.event_parts(update.events),
        "resume_token": update.resume_token,
        "receipt": wire.sealed_or_none(update.receipt),
    }


async def _refuse(context: Context, error: ExecutorRefusedError) -> None:
    details = [
        _packed(
            error_details_pb2.ErrorInfo(reason=error.reason.value, domain="gonogo", metadata={"remedy": error.remedy})
        )
    ]
    if error.refusal is not None:
        details.append(_packed(wire.sealed_to_proto(error.refusal)))
    status = status_pb2.Status(code=9, message=error.message, details=details)
    await context.abort_with_status(rpc_status.to_status(status))


def _packed(message: Any) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed
