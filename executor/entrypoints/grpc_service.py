"""The executor's service over gRPC: arrival and answer, nothing in between.

The core is synchronous; a call that works goes to a thread once and comes back once. What runs in a thread goes on
when its caller has gone.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Final

from executor.adapters.wire import sealed_from_proto, sealed_to_proto
from executor.entrypoints import resume_tokens
from executor.entrypoints.grpc_messages import (
    control_input,
    description_message,
    event_batches,
    execute_input,
    execution_message,
    extract_message,
    process_message,
)
from executor.entrypoints.grpc_peers import Peers, streaming, unary
from executor.entrypoints.work import Work
from executor.runner.requests import malformed
from executor.runner.run import Progress, Recorder, Run
from executor.runner.service import ExecutorCore
from executor.runner.stored_run import AnyRun
from gonogo.v1 import events_pb2, executor_pb2, executor_pb2_grpc

TICK_SECONDS: Final = 0.02
HEARTBEAT_SECONDS: Final = 15.0
READERS: Final = 8
RUNNERS: Final = 256
CONTROLLERS: Final = 16
"""Threads of their own: the others may all be with executions that wait for just these calls."""
DRY_RUNNERS: Final = 128
_LAST: Final = sys.maxsize  # after every event: only how it stands is asked for


class ExecutorService(executor_pb2_grpc.ExecutorServiceServicer):
    """One core, served."""

    def __init__(self, core: ExecutorCore, *, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> None:
        self.peers = Peers(core.trust)
        self._core = core
        self._heartbeat = heartbeat_seconds
        self._draining = False
        self._wakes: set[asyncio.Event] = set()
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="read")
        self._dry_runners = ThreadPoolExecutor(DRY_RUNNERS, thread_name_prefix="dry-run")
        self._runners = ThreadPoolExecutor(RUNNERS, thread_name_prefix="run")
        self._controllers = ThreadPoolExecutor(CONTROLLERS, thread_name_prefix="control")

    def drain(self) -> None:
        """End the streams that watch, each with a token to go on from; what runs goes on."""
        self._draining = True
        for wake in self._wakes:
            wake.set()

    @unary
    async def GetExecutor(
        self, request: executor_pb2.GetExecutorRequest, caller: str
    ) -> executor_pb2.GetExecutorResponse:
        return description_message(self._core.describe())

    @streaming
    async def DryRun(
        self, request: executor_pb2.DryRunRequest, caller: str
    ) -> AsyncGenerator[executor_pb2.DryRunResponse, None]:
        self.peers.check_dry_run(caller)
        self._core.check_caller(caller)
        attached: list[Recorder] = []
        work = Work(
            self._dry_runners, self._core.dry_run, request.request_id, sealed_from_proto(request.plan), attached.append
        )
        sent = 0
        while True:
            done = await work.ended(TICK_SECONDS)
            events = attached[0].after(sent) if attached else ()
            sent += len(events)
            *first, last = event_batches(events)
            for batch in first:
                yield executor_pb2.DryRunResponse(events=batch)
            if done:
                yield executor_pb2.DryRunResponse(events=last, report=sealed_to_proto(work.result()))
                return
            if last:
                yield executor_pb2.DryRunResponse(events=last)

    @streaming
    async def Execute(
        self, request: executor_pb2.ExecuteRequest, caller: str
    ) -> AsyncGenerator[executor_pb2.ExecuteResponse, None]:
        attached: list[AnyRun] = []
        waited = False

        def attach(run: AnyRun) -> None:
            attached.append(run)
            if waited:
                work.look()

        work = Work(self._runners, self._core.execute, execute_input(request, caller), attach)
        if not await work.ended(TICK_SECONDS):
            waited = True  # before the look: what is attached in between is seen, or says so itself
            while not attached and not await work.ended():
                pass  # the gates are checked, or the workspace is waited for
        run = attached[0] if attached else work.result()
        async for events, progress, token in self._follow(run, 0):
            yield executor_pb2.ExecuteResponse(
                events=events,
                resume_token=token,
                execution=execution_message(progress),
                receipt=sealed_to_proto(progress.receipt) if progress.receipt else None,
            )

    @streaming
    async def WatchExecution(
        self, request: executor_pb2.WatchExecutionRequest, caller: str
    ) -> AsyncGenerator[executor_pb2.WatchExecutionResponse, None]:
        run = await self._find(request.execution_id, request.mission_id)
        now = await self._progress(run, 0)
        after = resume_tokens.decode(request.resume_token, run.execution_id, now.record.last_sequence)
        async for events, progress, token in self._follow(run, after):
            yield executor_pb2.WatchExecutionResponse(
                events=events,
                resume_token=token,
                execution=execution_message(progress),
                receipt=sealed_to_proto(progress.receipt) if progress.receipt else None,
            )

    @unary
    async def GetExecution(
        self, request: executor_pb2.GetExecutionRequest, caller: str
    ) -> executor_pb2.GetExecutionResponse:
        run = await self._find(request.execution_id, request.mission_id)
        progress = await self._progress(run, 0)
        return executor_pb2.GetExecutionResponse(execution=execution_message(progress))

    @unary
    async def ControlExecution(
        self, request: executor_pb2.ControlExecutionRequest, caller: str
    ) -> executor_pb2.ControlExecutionResponse:
        run = await Work(self._controllers, self._core.control, control_input(request, caller)).answer()
        progress = await self._progress(run, _LAST)
        return executor_pb2.ControlExecutionResponse(execution=execution_message(progress))

    @unary
    async def GetReceipt(self, request: executor_pb2.GetReceiptRequest, caller: str) -> executor_pb2.GetReceiptResponse:
        receipt = await Work(self._readers, self._core.get_receipt, request.mission_id).answer()
        return executor_pb2.GetReceiptResponse(receipt=sealed_to_proto(receipt))

    @unary
    async def GetObject(self, request: executor_pb2.GetObjectRequest, caller: str) -> executor_pb2.GetObjectResponse:
        work = Work(self._readers, self._core.get_object, request.digest, request.offset, request.limit)
        data, size = await work.answer()
        return executor_pb2.GetObjectResponse(data=data, total_bytes=size)

    @unary
    async def ListProcesses(
        self, request: executor_pb2.ListProcessesRequest, caller: str
    ) -> executor_pb2.ListProcessesResponse:
        found = await Work(self._readers, self._core.list_processes, request.mission_id).answer()
        return executor_pb2.ListProcessesResponse(processes=map(process_message, found))

    @unary
    async def StopProcess(
        self, request: executor_pb2.StopProcessRequest, caller: str
    ) -> executor_pb2.StopProcessResponse:
        stop = self._core.stop_process
        found = await Work(self._controllers, stop, request.request_id, request.process_id, request.actor).answer()
        return executor_pb2.StopProcessResponse(process=process_message(found))

    @unary
    async def ExchangeCheckpoints(
        self, request: executor_pb2.ExchangeCheckpointsRequest, caller: str
    ) -> executor_pb2.ExchangeCheckpointsResponse:
        exchange = self._core.exchange_checkpoints
        found = await Work(
            self._readers, exchange, caller, request.checkpoint, tuple(request.consistency), request.known_size
        ).answer()
        return executor_pb2.ExchangeCheckpointsResponse(
            checkpoint=found.checkpoint, consistency=found.consistency, kept_size=found.kept_size
        )

    @unary
    async def GetMissionLog(
        self, request: executor_pb2.GetMissionLogRequest, caller: str
    ) -> executor_pb2.GetMissionLogResponse:
        extract = await Work(self._readers, self._core.mission_log, request.mission_id).answer()
        return executor_pb2.GetMissionLogResponse(log=extract_message(extract))

    async def _find(self, execution_id: str, mission_id: str) -> AnyRun:
        if not execution_id and not mission_id:
            raise malformed("the request names no execution", "set execution_id or mission_id")
        call = partial(self._core.get_execution, execution_id=execution_id, mission_id=mission_id)
        return await Work(self._readers, call).answer()

    async def _progress(self, run: AnyRun, after: int) -> Progress:
        if isinstance(run, Run):
            return run.progress(after)
        return await Work(self._readers, run.progress, after).answer()

    async def _follow(
        self, run: AnyRun, after: int
    ) -> AsyncGenerator[tuple[Sequence[events_pb2.Event], Progress, str], None]:
        """Yield what comes after a place, batch by batch, to the end.

        An empty batch is a heartbeat, or tells that it waits for something else than before, or goes on.
        """
        wake = asyncio.Event()
        leave = run.watch(_from_threads(wake))
        self._wakes.add(wake)
        try:
            idle, waits_for = False, None
            while True:
                wake.clear()
                progress = await self._progress(run, after)
                if progress.failure is not None:
                    raise progress.failure
                *first, last = event_batches(progress.events)
                for batch in first:
                    after = batch[-1].sequence
                    yield batch, replace(progress, receipt=None), resume_tokens.encode(run.execution_id, after)
                if last or progress.ended or idle or self._draining or progress.pause != waits_for:
                    waits_for = progress.pause
                    after = last[-1].sequence if last else after
                    yield last, progress, resume_tokens.encode(run.execution_id, after)
                if progress.ended or self._draining:
                    return
                idle = not await _woken(wake, self._heartbeat)
        finally:
            self._wakes.discard(wake)
            leave()


def _from_threads(wake: asyncio.Event) -> Callable[[], None]:
    """Return what wakes a stream from any thread; a loop that has ended has nobody left to wake."""
    loop = asyncio.get_running_loop()

    def call() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
            loop.call_soon_threadsafe(wake.set)

    return call


async def _woken(wake: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await wake.wait()
    except TimeoutError:
        return False
    return True
