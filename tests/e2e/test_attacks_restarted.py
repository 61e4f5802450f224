"""A hostile orchestrator that waits for a restart, on files that somebody brought back or changed meanwhile."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gonogo.v1 import evidence_pb2, executor_pb2
from tests.contract.executor_server import ORCHESTRATOR
from tests.contract.test_executor_grpc import message
from tests.e2e.attacked import EXECUTE, METHODS, SECONDS, ServedTarget, failure, refused
from tests.e2e.installation import Installation
from tests.e2e.test_invariants import create_plan
from tests.e2e.wire_house import desk, forger, untouched

pytestmark = pytest.mark.long


@pytest.fixture
def own(tmp_path: Path) -> Iterator[ServedTarget]:
    """An executor's process whose files one attack brings back or spoils."""
    target = ServedTarget(tmp_path / "own")
    yield target
    target.close()


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
def test_a_ledger_that_was_brought_back(own: ServedTarget, tmp_path: Path, kill: bool) -> None:
    """From before the execution, into the very same files: its reports are unknown, and nothing runs again."""
    request = own.good()
    own.close()
    copy = tmp_path / "copy"
    shutil.copytree(own.settings.own, copy)
    own.open()
    own.run(request)
    (own.site / "hello.txt").unlink()
    own.end(kill=kill)
    for path in own.settings.own.glob("ledger.db*"):
        if (copy / path.name).exists():
            path.write_bytes((copy / path.name).read_bytes())
        else:
            path.unlink()
    own.open()
    refused(own, own.again(request), "REPORT_UNKNOWN")
    refused(own, request, "REPORT_UNKNOWN")
    assert not (own.site / "hello.txt").exists()


def test_a_trust_file_that_was_brought_back(own: ServedTarget) -> None:
    """With the file of before nothing is decided and nothing starts; mended it starts, and who was removed is gone."""
    request = own.good()
    without_bob = own.trust_file(2, without="bob").replace('"bob", ', "")
    own.write_trust(without_bob)
    own.restart()
    own.write_trust(own.trust_file(1))
    until = time.monotonic() + SECONDS
    while own.asked(own.again(request, approvals=())).reason == "NOT_APPROVED":
        assert time.monotonic() < until
        time.sleep(0.1)
    refused(own, own.again(request), "STATE_FORBIDS")
    assert own.dry_run_refused(own.signed_plan(mission="m-2")).reason == "STATE_FORBIDS"
    own.end(kill=False)
    line = own.start_fails()
    assert "was in force already" in line["message"]
    assert line["remedy"]
    own.write_trust(without_bob)
    own.open()
    refused(own, own.again(request), "APPROVER_UNKNOWN")


def test_an_orchestrator_that_the_trust_file_names_no_longer(own: ServedTarget) -> None:
    """Once its operator took it out of the file, the orchestrator's certificate is good for nothing."""
    request = own.good()
    own.write_trust(own.trust_file(2).replace(ORCHESTRATOR, f"{ORCHESTRATOR}-new"))
    own.restart()
    for method in METHODS:
        assert failure(own.connection, method).reason == "PEER_NOT_ALLOWED"
    own.authority.issue("new", f"{ORCHESTRATOR}-new")
    with own.channel("new") as channel:
        answer = failure(channel, EXECUTE, message(request).SerializeToString())
    assert answer.reason == "NOT_APPROVED"  # the file is another one, so the dry run has to be made again


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
def test_the_replay_of_an_orchestrator_that_died(own: ServedTarget, kill: bool) -> None:
    """Its mission was executed without it; what it sends again finds that, before and after a restart."""
    request = own.good()
    call = own.stub.Execute(message(request), timeout=SECONDS)
    next(iter(call))
    own.connection.close()  # the orchestrator dies
    own.connect()
    ended(own, request.named.mission_id)
    refused(own, own.again(request), "ALREADY_EXECUTED")
    before = own.tree()
    own.end(kill=kill)
    own.open()
    refused(own, own.again(request), "ALREADY_EXECUTED")
    refused(own, own.again(request, report=None, approvals=()), "ALREADY_EXECUTED")
    receipt = own.executed(message(request))  # the very same request: it attaches to what was
    assert receipt.mission_id == request.named.mission_id
    assert own.tree() == before


def ended(target: ServedTarget, mission_id: str) -> None:
    """Wait until an execution has ended."""
    request = executor_pb2.GetExecutionRequest(mission_id=mission_id)
    until = time.monotonic() + SECONDS
    while not target.stub.GetExecution(request, timeout=SECONDS).execution.ended:
        assert time.monotonic() < until
        time.sleep(0.02)


async def test_the_documents_of_the_real_orchestrator_in_other_hands(house: Installation) -> None:
    """Whoever holds its certificate delivers what was approved once, and nothing that was withdrawn without it.

    The real orchestrator hangs meanwhile. Afterwards, and after both services were killed, everything that it sends
    itself finds what has happened.
    """
    async with desk(house.state) as one:
        missions = [await one.approved(create_plan(f"{name}.txt")) for name in ("delivered", "withdrawn")]
        held = [await one.client.get(mission) for mission in missions]
    orchestrator = house.service_pids()[1]
    os.kill(orchestrator, signal.SIGSTOP)
    try:
        assert house.json("revoke", missions[1], "-m", "no")["in_time"]
        async with forger(house.state) as bad:
            delivered, withdrawn = (bad.request(one.plan, one.report, *one.approvals) for one in held)
            before = untouched(house)
            assert (await bad.refused(withdrawn)).reason == "APPROVAL_REVOKED"
            before.check()
            assert (await bad.execute(delivered)).execution_status == evidence_pb2.OUTCOME_SUCCESS
    finally:
        os.kill(orchestrator, signal.SIGCONT)
    before = untouched(house)
    assert house.json("execute", missions[0])["outcome"] == "success"  # it learns of the one execution that there was
    assert house.json("execute", missions[1], code=4)["reason"] == "APPROVAL_REVOKED"
    before.check()
    house.kill()
    house.start()
    async with forger(house.state) as bad:
        delivered.request_id += "-again"
        withdrawn.request_id += "-again"
        assert (await bad.refused(delivered)).reason == "ALREADY_EXECUTED"
        assert (await bad.refused(withdrawn)).reason == "APPROVAL_REVOKED"
    before.check()
    assert (house.workspaces["site"] / "delivered.txt").exists()
    assert not (house.workspaces["site"] / "withdrawn.txt").exists()
