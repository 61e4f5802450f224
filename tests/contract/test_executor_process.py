"""`python -m executor` as its operator starts it: real files, the real sandbox's level, a real end."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from executor.adapters.wire import sealed_from_proto, sealed_to_proto
from gonogo import sealing
from gonogo.v1 import evidence_pb2, executor_pb2
from tests.contract.executor_server import ORCHESTRATOR, Authority, Served
from tests.contract.test_executor_grpc import everything, message
from tests.unit.executor.house import House, trust_text

ROOT = Path(__file__).parents[2]


class Installed:
    """A state directory, a workspace, and the process on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.people = House(root / "people")  # who signs; its own executor is not asked
        self.state = root / "state"
        self.site = root / "site"
        self.site.mkdir()
        self.state.mkdir()
        (self.state / "keys").mkdir()
        (self.state / "keys" / "executor").write_bytes(self.people.executor_key.private_bytes())
        (self.state / "trust.toml").write_text(trust_text(self.people.persons))
        self.authority = Authority(self.state / "tls")
        self.authority.issue("executor", "spiffe://gonogo.local/executor")
        self.authority.issue("orchestrator", ORCHESTRATOR)
        self.ready_file = self.state / "run" / "executor.json"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> "subprocess.Popen[bytes]":
        """Start the executor."""
        self.ready_file.unlink(missing_ok=True)
        arguments = [
            "--state",
            str(self.state),
            "--workspace",
            f"site={self.site}",
            "--ready-file",
            str(self.ready_file),
        ]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GONOGO_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "executor", *arguments, *options],
            cwd=ROOT,
            env={**environment, "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}"},
            stderr=subprocess.PIPE,
        )
        return self.process

    def served(self) -> Served:
        """Wait until it answers."""
        process = self.process
        deadline = time.monotonic() + 60
        while not self.ready_file.exists():
            assert process is not None
            assert process.poll() is None, process.communicate()[1].decode()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        told = json.loads(self.ready_file.read_text())
        assert process is not None
        assert told["pid"] == process.pid
        return Served(self.authority, None, int(told["address"].rpartition(":")[2]))  # type: ignore[arg-type]  # another process has it

    def stop(self) -> int:
        """End it as a supervisor does and return its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=30)
        return self.process.returncode


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Installed]:
    installed = Installed(tmp_path)
    yield installed
    installed.people.close()
    if installed.process is not None and installed.process.poll() is None:
        installed.process.kill()
        installed.process.communicate()


async def mission(stub: Any, people: House, **plan: str) -> tuple[Any, executor_pb2.ExecuteRequest]:
    """Dry run and execute one mission; returns the last answer and the request."""
    sealed = people.sealed_plan(people.plan(**plan))
    request = executor_pb2.DryRunRequest(request_id=people.next_request(), plan=sealed_to_proto(sealed))
    report = sealed_from_proto((await everything(stub.DryRun(request)))[-1].report)
    execute = message(people.request(sealed, report, people.approve(sealed, report)))
    return (await everything(stub.Execute(execute)))[-1], execute


async def test_a_mission_and_a_restart(installed: Installed) -> None:
    """The process serves, ends with 0 when told to, and knows everything when it is started again."""
    installed.start("--listen", "127.0.0.1:0")
    async with installed.served().stub() as stub:
        told = await stub.GetExecutor(executor_pb2.GetExecutorRequest())
        assert [workspace.workspace_id for workspace in told.workspaces] == ["site"]
        last, request = await mission(stub, installed.people)
    receipt = sealing.open_sealed(last.receipt.body, evidence_pb2.Receipt)
    assert receipt.execution_status == evidence_pb2.OUTCOME_SUCCESS, receipt
    assert receipt.after_fingerprint == receipt.expected_after_fingerprint
    assert (installed.site / "hello.txt").read_bytes() == b"hello\n"
    assert await asyncio.to_thread(installed.stop) == 0
    installed.start("--reflection", "--die-with-parent")
    async with installed.served().stub() as stub:
        again = await everything(stub.Execute(request))
        assert again[-1].receipt == last.receipt
        assert (await stub.GetExecutor(executor_pb2.GetExecutorRequest())).ledger_epoch == told.ledger_epoch
    assert await asyncio.to_thread(installed.stop) == 0


def test_two_executors_on_one_state(installed: Installed) -> None:
    """The second is refused: it would take the first one's running executions for dead ones."""
    installed.start()
    installed.served()
    first = installed.process
    second = installed.start()
    told = json.loads(second.communicate(timeout=60)[1].splitlines()[-1])
    assert second.returncode == 1
    assert "another executor" in told["message"]
    assert told["remedy"]
    installed.process = first


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        ("trust.toml", "trust file"),
        ("keys/executor", "key"),
        ("tls/executor.pem", "certificate"),
    ],
)
def test_what_is_missing_stops_the_start(installed: Installed, spoil: str, says: str) -> None:
    """Without one of its files the executor does not start, and says in one line what to do."""
    (installed.state / spoil).unlink()
    process = installed.start()
    told = json.loads(process.communicate(timeout=60)[1].splitlines()[-1])
    assert process.returncode == 1
    assert says in told["message"]
    assert "gonogo init" in told["remedy"]
    assert not installed.ready_file.exists()
