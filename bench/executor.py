"""A real executor process for a benchmark, spoken to over mutual TLS as the orchestrator does."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import grpc.aio

from gonogo import sealing
from gonogo.v1 import evidence_pb2, executor_pb2, executor_pb2_grpc, plan_pb2
from tests.e2e.peer import executor_channel
from tests.e2e.wire_house import Forger

START_SECONDS = 60


class BenchedExecutor:
    """One executor and everything needed to ask it: keys, a channel, an event loop that runs only in between."""

    def __init__(self, state: Path, pid: int, runner: asyncio.Runner) -> None:
        self.pid = pid
        self._runner = runner
        self._channel: grpc.aio.Channel
        self._runner.run(self._connect(state))

    def seconds_of_dry_run(self, workspace: str, *steps: plan_pb2.Step) -> float:
        """Dry-run a new plan; return how long the call took, from its first byte to the report."""
        plan = self._asker.sealed(self._plan(workspace, steps))
        started = time.perf_counter()
        report = self._runner.run(self._asker.dry_run(plan))
        took = time.perf_counter() - started
        found = sealing.open_sealed(report.body, evidence_pb2.Report)
        if found.status != evidence_pb2.REPORT_STATUS_SUCCESS:
            message = f"a dry run did not succeed: {found.problems}"
            raise RuntimeError(message)
        return took

    def seconds_of_execution(self, workspace: str, *steps: plan_pb2.Step) -> float:
        """Dry-run, approve and execute a new plan; return how long the execution took, from its call to the receipt."""
        plan = self._asker.sealed(self._plan(workspace, steps))
        request = self._runner.run(self._asker.approved(plan))
        started = time.perf_counter()
        receipt = self._runner.run(self._asker.execute(request))
        took = time.perf_counter() - started
        if receipt.execution_status != evidence_pb2.OUTCOME_SUCCESS:
            message = f"an execution did not succeed: {receipt.errors}"
            raise RuntimeError(message)
        return took

    def peak_mib(self) -> float:
        """Return the most memory that the process ever held, in MiB."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

    def close(self) -> None:
        """Close the channel."""
        self._runner.run(self._channel.close())

    def _plan(self, workspace: str, steps: tuple[plan_pb2.Step, ...]) -> plan_pb2.Plan:
        return self._asker.plan(*steps, workspace_id=workspace)

    async def _connect(self, state: Path) -> None:
        self._channel = executor_channel(state)
        stub = executor_pb2_grpc.ExecutorServiceStub(self._channel)
        self._asker = Forger(state, stub, await stub.GetExecutor(executor_pb2.GetExecutorRequest()))


@contextmanager
def running_executor(folder: Path, workspaces: Mapping[str, Path]) -> Iterator[BenchedExecutor]:
    """Start an executor on a new state directory beside its workspaces; end it afterwards."""
    state = folder / "state"
    environment = {**os.environ, "GONOGO_STATE": str(state)}
    subprocess.run([sys.executable, "-m", "client", "init"], env=environment, check=True, stdout=subprocess.DEVNULL)
    ready = state / "run" / "executor.json"
    ready.parent.mkdir(exist_ok=True)
    options = [word for name, path in workspaces.items() for word in ("--workspace", f"{name}={path}")]
    argv = [sys.executable, "-m", "executor", *options, "--listen", "127.0.0.1:0", "--ready-file", str(ready)]
    process = subprocess.Popen([*argv, "--die-with-parent"], env=environment)
    try:
        _await_file(ready, process)
        with asyncio.Runner() as runner:
            executor = BenchedExecutor(state, process.pid, runner)
            try:
                yield executor
            finally:
                executor.close()
    finally:
        process.terminate()
        process.wait(timeout=30)


def _await_file(ready: Path, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_SECONDS
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > until:
            message = "the executor did not start"
            raise RuntimeError(message)
        time.sleep(0.02)
