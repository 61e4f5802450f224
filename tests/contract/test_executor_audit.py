"""The audit log of a real executor process: over the wire, on its host, and over a restored ledger."""

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest

from executor.adapters.wire import sealed_from_proto, sealed_to_proto
from gonogo.digests import digest
from gonogo.merkle import leaf_hash, verify_consistency, verify_inclusion
from gonogo.notes import Checkpoint, open_note
from gonogo.v1 import executor_pb2
from tests.contract.executor_server import ORCHESTRATOR
from tests.contract.test_executor_grpc import everything, failure, message
from tests.contract.test_executor_process import ROOT, Installed, mission
from tests.unit.executor.audit_house import PlayedLog


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Installed]:
    """A state directory whose trust file names the key of the orchestrator's log."""
    installed = Installed(tmp_path)
    log = PlayedLog()
    text = (installed.state / "trust.toml").read_text()
    table = f'[{{ id = "{ORCHESTRATOR}", log_key = "{log.key.public.line}" }}]'
    lines = [f"orchestrators = {table}" if line.startswith("orchestrators") else line for line in text.splitlines()]
    (installed.state / "trust.toml").write_text("\n".join(lines) + "\n")
    installed.log = log  # type: ignore[attr-defined]  # the orchestrator's
    yield installed
    installed.people.close()
    if installed.process is not None and installed.process.poll() is None:
        installed.process.kill()
        installed.process.communicate()


def command(installed: Installed, *arguments: str) -> dict[str, Any]:
    """Run `python -m executor audit` beside the process and return what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "executor", "audit", *arguments, "--state", str(installed.state)],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=False,
    )
    lines = (done.stdout or done.stderr).splitlines()
    told: dict[str, Any] = json.loads(lines[-1])
    return told


def opened(installed: Installed, origin: str, note: str) -> Checkpoint:
    return open_note(note, installed.people.executor_key.public, origin)


async def test_a_mission_is_proven_over_the_wire(installed: Installed) -> None:
    """Report, claim and end of a mission come with their proofs, and name the documents that were sent."""
    installed.start()
    async with installed.served().stub() as stub:
        origin = (await stub.GetExecutor(executor_pb2.GetExecutorRequest())).log_origin
        assert origin == f"gonogo.local/executor/{installed.people.trust.executor_id}"
        before = await stub.ExchangeCheckpoints(executor_pb2.ExchangeCheckpointsRequest())
        old = opened(installed, origin, before.checkpoint)
        last, request = await mission(stub, installed.people)
        log = (await stub.GetMissionLog(executor_pb2.GetMissionLogRequest(mission_id=request.mission_id))).log
        named = opened(installed, origin, log.checkpoint)
        for entry in log.entries:
            assert verify_inclusion(leaf_hash(entry.leaf), entry.index, named.size, entry.path, named.root)
        issued, claimed, ended = (json.loads(entry.leaf) for entry in log.entries)
        assert issued["report_digest"] == digest(request.report.body)
        assert claimed["approvals"] == [digest(one.body) for one in request.approvals]
        assert ended["receipt_digest"] == digest(last.receipt.body)
        asked = executor_pb2.ExchangeCheckpointsRequest(known_size=old.size)
        answer = await stub.ExchangeCheckpoints(asked)
        new = opened(installed, origin, answer.checkpoint)
        assert verify_consistency(old.size, old.root, new.size, new.root, answer.consistency)
        assert (await failure(stub.GetMissionLog(executor_pb2.GetMissionLogRequest(mission_id="other"))))[
            0
        ] is grpc.StatusCode.NOT_FOUND
        checked = command(installed, "check")
        assert (checked["holds"], checked["entries"]) == (True, new.size)


async def test_an_orchestrator_whose_log_forked_is_not_served(installed: Installed) -> None:
    """Its dry runs and executions are refused, the latter by a signed refusal, until the operator had it forgotten."""
    log: PlayedLog = installed.log.grow(9)  # type: ignore[attr-defined]  # the orchestrator's
    people = installed.people
    installed.start()
    async with installed.served().stub() as stub:
        sealed = people.sealed_plan(people.plan())
        dry_run = executor_pb2.DryRunRequest(request_id=people.next_request(), plan=sealed_to_proto(sealed))
        report = sealed_from_proto((await everything(stub.DryRun(dry_run)))[-1].report)
        execute = message(people.request(sealed, report, people.approve(sealed, report)))
        exchange = executor_pb2.ExchangeCheckpointsRequest
        assert (await stub.ExchangeCheckpoints(exchange(checkpoint=log.note()))).kept_size == 9
        log.grow(3)
        proof = log.proof(9)
        assert (await stub.ExchangeCheckpoints(exchange(checkpoint=log.note(), consistency=proof))).kept_size == 12
        forked = PlayedLog()
        forked.key = log.key
        forked.grow(15, b"other leaves")
        reasons = [
            await failure(stub.ExchangeCheckpoints(exchange(checkpoint=forked.note(), consistency=forked.proof(12)))),
            await failure(everything(stub.DryRun(dry_run))),
            await failure(everything(stub.Execute(execute))),
        ]
        assert [details["ErrorInfo"].reason for _, details in reasons] == ["AUDIT_FORKED"] * 3
        assert "Sealed" in reasons[2][1]
        assert command(installed, "forget", "--orchestrator", ORCHESTRATOR) == {
            "forgotten": True,
            "orchestrator": ORCHESTRATOR,
        }
        execute.request_id = people.next_request()
        assert (await everything(stub.Execute(execute)))[-1].receipt.body


async def test_a_restored_ledger_refuses_what_was_executed(installed: Installed) -> None:
    """With the ledger of before the execution, the same approved mission is not carried out again."""
    people, ledger = installed.people, installed.state / "executor" / "ledger.db"
    installed.start()
    async with installed.served().stub() as stub:
        sealed = people.sealed_plan(people.plan())
        dry_run = executor_pb2.DryRunRequest(request_id=people.next_request(), plan=sealed_to_proto(sealed))
        report = sealed_from_proto((await everything(stub.DryRun(dry_run)))[-1].report)
        execute = message(people.request(sealed, report, people.approve(sealed, report)))
    assert installed.stop() == 0
    shutil.copy(ledger, installed.root / "backup")
    installed.start()
    async with installed.served().stub() as stub:
        assert (await everything(stub.Execute(execute)))[-1].receipt.body
    assert installed.stop() == 0
    for path in installed.site.iterdir():
        path.unlink()
    ledger.write_bytes((installed.root / "backup").read_bytes())
    installed.start()
    async with installed.served().stub() as stub:
        _, details = await failure(everything(stub.Execute(execute)))
        assert details["ErrorInfo"].reason == "REPORT_UNKNOWN"
    assert list(installed.site.iterdir()) == []


async def test_a_changed_ledger_does_not_start(installed: Installed) -> None:
    """An edit in the ledger's file is named by the start, in one line that says what to do."""
    installed.start()
    async with installed.served().stub() as stub:
        await mission(stub, installed.people)
    assert installed.stop() == 0
    with closing(sqlite3.connect(installed.state / "executor" / "ledger.db")) as ledger, ledger:
        ledger.execute("UPDATE receipts SET key_id = 'other'")
    told = json.loads(installed.start().communicate(timeout=60)[1].splitlines()[-1])
    assert told["reason"] == "AUDIT_FORKED"
    assert "execution_ended" in told["message"]
    assert command(installed, "check")["reason"] == "AUDIT_FORKED"
