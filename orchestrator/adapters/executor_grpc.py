"""The executor over gRPC, with mutual TLS.

A stream is opened once; going on after a break is the caller's, with the token. Unary calls that change nothing are
tried again when the connection is down; `DryRun`, `ControlExecution` and `StopProcess` may be tried again too, because
their request ids make a second one the first. `Execute` never is: whether a broken call arrived is a question for the
executor's ledger.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from gonogo.v1 import executor_pb2, sealed_pb2
from gonogo.v1.executor_pb2_grpc import ExecutorServiceStub
from orchestrator.adapters import wire
from orchestrator.adapters.contract_errors import contract_error
from orchestrator.domain.control import ExecutionState, LiveProcess
from orchestrator.domain.errors import (
    ContractError,
    ExecutorRefusedError,
    ExecutorUnavailableError,
    OrchestratorError,
    Reason,
)
from orchestrator.domain.evidence import ExecutorInfo, Sealed
from orchestrator.service.audit_log import Exchanged, LogExtract
from orchestrator.service.ports import ControlOrder, ExecutionOrder, ExecutionUpdate, ObjectPart

if TYPE_CHECKING:
    from gonogo.v1.executor_pb2_grpc import ExecutorServiceAsyncStub  # a class of the type stubs only

DOMAIN: Final = "gonogo"
UNARY_SECONDS: Final = 10.0
STOP_SECONDS: Final = 60.0
"""A program is asked to end before it is killed."""
DRY_RUN_SECONDS: Final = 24 * 3600.0
ATTEMPTS: Final = 3
PAUSE_SECONDS: Final = 0.1
LAST_WORD_SECONDS: Final = 5.0
MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024

_GONE: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED})

T = TypeVar("T")


class _Stream(Protocol):
    """A call that is answered with a stream, as far as it is used here."""

    async def read(self) -> Any: ...
    def cancel(self) -> bool: ...
    def add_done_callback(self, callback: Callable[[Any], None]) -> None: ...


def open_channel(address: str, *, authority: bytes, key: bytes, certificate: bytes) -> grpc.aio.Channel:
    """Return a channel to an executor that proves itself with a certificate for the name ``executor``."""
    credentials = grpc.ssl_channel_credentials(authority, key, certificate)
    return grpc.aio.secure_channel(
        address,
        credentials,
        options=[
            ("grpc.ssl_target_name_override", "executor"),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.ping_timeout_ms", 10_000),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2_000),
        ],
    )


class GrpcExecutor:
    """`Executor` behind a channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._stub: ExecutorServiceAsyncStub = ExecutorServiceStub(channel)
        self._ending: set[_Stream] = set()

    async def close(self) -> None:
        for call in tuple(self._ending):
            call.cancel()
        await self._channel.close()

    async def describe(self) -> ExecutorInfo:
        request = executor_pb2.GetExecutorRequest()
        return wire.executor_from_proto(await _again(lambda: self._stub.GetExecutor(request, timeout=UNARY_SECONDS)))

    async def dry_run(self, request_id: str, plan: Sealed) -> Sealed:
        request = executor_pb2.DryRunRequest(request_id=request_id, plan=wire.sealed_to_proto(plan))
        return await _again(lambda: self._report(request))

    def execute(self, order: ExecutionOrder) -> AsyncGenerator[ExecutionUpdate, None]:
        return self._updates(self._stub.Execute(wire.order_to_proto(order)))

    def watch(self, mission_id: str, resume_token: str) -> AsyncGenerator[ExecutionUpdate, None]:
        request = executor_pb2.WatchExecutionRequest(mission_id=mission_id, resume_token=resume_token)
        return self._updates(self._stub.WatchExecution(request))

    async def execution(self, mission_id: str) -> ExecutionState | None:
        request = executor_pb2.GetExecutionRequest(mission_id=mission_id)
        try:
            answer = await _again(lambda: self._stub.GetExecution(request, timeout=UNARY_SECONDS))
        except ExecutorRefusedError as error:
            if error.reason is Reason.NOT_FOUND:
                return None
            raise
        return wire.execution_from_proto(answer.execution)

    async def control(self, order: ControlOrder) -> ExecutionState:
        request = wire.control_to_proto(order)
        answer = await _again(lambda: self._stub.ControlExecution(request, timeout=UNARY_SECONDS))
        return wire.execution_from_proto(answer.execution)

    async def processes(self, mission_id: str) -> tuple[LiveProcess, ...]:
        request = executor_pb2.ListProcessesRequest(mission_id=mission_id)
        answer = await _again(lambda: self._stub.ListProcesses(request, timeout=UNARY_SECONDS))
        return tuple(wire.process_from_proto(process) for process in answer.processes)

    async def stop_process(self, request_id: str, process_id: str, actor: str) -> LiveProcess:
        request = executor_pb2.StopProcessRequest(request_id=request_id, process_id=process_id, actor=actor)
        answer = await _again(lambda: self._stub.StopProcess(request, timeout=STOP_SECONDS))
        return wire.process_from_proto(answer.process)

    async def read_object(self, digest: str, offset: int, limit: int) -> ObjectPart:
        request = executor_pb2.GetObjectRequest(digest=digest, offset=offset, limit=limit)
        answer = await _again(lambda: self._stub.GetObject(request, timeout=UNARY_SECONDS))
        return ObjectPart(data=answer.data, total_bytes=answer.total_bytes)

    async def exchange(self, checkpoint: str, consistency: tuple[bytes, ...], known_size: int) -> Exchanged:
        request = executor_pb2.ExchangeCheckpointsRequest(
            checkpoint=checkpoint, consistency=consistency, known_size=known_size
        )
        answer = await _again(lambda: self._stub.ExchangeCheckpoints(request, timeout=UNARY_SECONDS))
        return Exchanged(
            checkpoint=answer.checkpoint, consistency=tuple(answer.consistency), kept_size=answer.kept_size
        )

    async def mission_log(self, mission_id: str) -> LogExtract | None:
        request = executor_pb2.GetMissionLogRequest(mission_id=mission_id)
        try:
            answer = await _again(lambda: self._stub.GetMissionLog(request, timeout=UNARY_SECONDS))
        except ExecutorRefusedError as error:
            if error.reason is Reason.NOT_FOUND:
                return None
            raise
        return wire.extract_from_proto(answer.log)

    async def _report(self, request: executor_pb2.DryRunRequest) -> Sealed:
        call: _Stream = self._stub.DryRun(request, timeout=DRY_RUN_SECONDS)
        while (message := await call.read()) is not grpc.aio.EOF:
            if message.HasField("report"):
                self._let_end(call)
                return wire.sealed_from_proto(message.report)
        raise contract_error("the executor's dry run ended without a report")

    async def _updates(self, call: _Stream) -> AsyncGenerator[ExecutionUpdate, None]:
        try:
            while (message := await call.read()) is not grpc.aio.EOF:
                update = wire.update_from_proto(message)
                if update.receipt is not None:
                    self._let_end(call)
                yield update
                if update.receipt is not None:
                    return
        except grpc.aio.AioRpcError as error:
            raise translated(error) from error

    def _let_end(self, call: _Stream) -> None:
        """Keep a stream that has said its last word until it has ended: dropped before, it would be cut off."""
        timer = asyncio.get_running_loop().call_later(LAST_WORD_SECONDS, call.cancel)

        def ended(_call: object) -> None:
            timer.cancel()
            self._ending.discard(call)

        self._ending.add(call)
        call.add_done_callback(ended)


async def _again(call: Callable[[], Awaitable[T]]) -> T:
    """Make a call that may be repeated; a connection that is down is tried again shortly."""
    for attempt in range(ATTEMPTS):
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or attempt == ATTEMPTS - 1:
                raise translated(error) from error
            await asyncio.sleep(PAUSE_SECONDS * 2**attempt)
    raise AssertionError


def translated(error: grpc.aio.AioRpcError) -> OrchestratorError:
    """Return what an executor's error status means; a reason that is not known is not guessed at."""
    info, refusal = _details(error)
    if info is not None and info.domain == DOMAIN:
        return _refused(error, info, refusal)
    if error.code() in _GONE:
        return ExecutorUnavailableError(
            Reason.EXECUTOR_UNAVAILABLE,
            f"the executor can not be reached: {_first_line(error)}",
            "Start the executor, or check its address and certificates; then try again with the same request id.",
        )
    return ExecutorRefusedError(
        Reason.INTERNAL,
        f"the executor failed: {error.code().name} {_first_line(error)}",
        "Look at the executor's log.",
    )


def _refused(
    error: grpc.aio.AioRpcError, info: error_details_pb2.ErrorInfo, refusal: Sealed | None
) -> OrchestratorError:
    message, remedy = error.details() or info.reason, info.metadata.get("remedy", "Look at the executor's log.")
    reason = Reason.__members__.get(info.reason)
    if reason is None:
        return ContractError(Reason.INTERNAL, f"the executor's reason {info.reason!r} is not known", remedy)
    if reason is Reason.EXECUTOR_UNAVAILABLE:
        return ExecutorUnavailableError(reason, message, remedy)
    facts = {key: value for key, value in info.metadata.items() if key != "remedy"}
    return ExecutorRefusedError(reason, message, remedy, facts=facts, refusal=refusal)


def _details(error: grpc.aio.AioRpcError) -> tuple[error_details_pb2.ErrorInfo | None, Sealed | None]:
    info: error_details_pb2.ErrorInfo | None = None
    refusal: Sealed | None = None
    try:
        status = rpc_status.from_call(error)
        for detail in status.details if status is not None else ():
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                info = error_details_pb2.ErrorInfo()
                detail.Unpack(info)
            elif detail.Is(sealed_pb2.Sealed.DESCRIPTOR):
                sealed = sealed_pb2.Sealed()
                detail.Unpack(sealed)
                refusal = wire.sealed_from_proto(sealed)
    except (ValueError, DecodeError):
        return None, None  # details that can not be read say nothing; the status code still does
    return info, refusal


def _first_line(error: grpc.aio.AioRpcError) -> str:
    return (error.details() or error.code().name).partition("\n")[0][:300]
