"""Attacks that take more than one request: files brought back, clocks, floods, and races."""

import dataclasses
import gc
import json
import resource
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from executor.domain.control import ControlAction
from executor.domain.errors import ExecutorError
from executor.domain.sealed import SealedBytes
from executor.runner.control_requests import ControlInput
from executor.runner.executions import RefusedError
from executor.runner.ports import Revoked
from executor.runner.refusal_pace import RefusalPace
from executor.runner.requests import ExecuteInput
from gonogo import sealing
from gonogo.v1 import evidence_pb2
from tests.attacks.target import Target
from tests.unit.executor.house import ignore

FLOOD = 10_000
ROOM = 8 * 1024 * 1024


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    """An executor as it is started."""
    target = Target(tmp_path)
    yield target
    target.close()


class TestDryRuns:
    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda body: body.replace(b'"plan_id"', b'"planId"'), id="camelCase"),
            pytest.param(lambda body: body.replace(b'"FAILURE_POLICY_ROLL_BACK"', b"2"), id="number for a name"),
            pytest.param(lambda body: body.replace(b"{", b'{"workspace_id":"other",', 1), id="key twice"),
            pytest.param(lambda body: body.replace(b"{", b'{"approved":true,', 1), id="extra field"),
            pytest.param(lambda body: body.replace(b"FAILURE_POLICY_ROLL_BACK", b"FAILURE_POLICY_LUCK"), id="name"),
        ],
    )
    def test_a_plan_in_another_text_is_not_even_dry_run(self, target: Target, change: Callable[[bytes], bytes]) -> None:
        """One text stands for one plan; no other is run, in a copy or at all."""
        plan = target.signed_plan()
        body = change(plan.body)
        assert body != plan.body
        with pytest.raises(ExecutorError) as caught:
            target.dry_run(target.alice.sign(sealing.PLAN, body))
        assert caught.value.fault.reason == "MALFORMED"

    def test_a_plan_for_another_executor(self, target: Target) -> None:
        """What is for somebody else is not dry run here, so no report of it can ever be sent back."""
        plan = target.plan()
        plan.executor_id = "executor-other"
        with pytest.raises(ExecutorError) as caught:
            target.dry_run(target.sealed_plan(plan, by=target.alice))
        assert caught.value.fault.reason == "EXECUTOR_MISMATCH"

    def test_a_plan_that_somebody_else_signed(self, target: Target) -> None:
        """A plan that names alice and is signed by bob proves neither, and is refused."""
        with pytest.raises(ExecutorError) as caught:
            target.dry_run(target.sealed_plan(target.plan(proposer="alice"), by=target.bob))
        assert caught.value.fault.reason == "SIGNATURE_INVALID"


class TestTrustFile:
    def test_one_key_under_two_names(self, target: Target) -> None:
        """A file that lists one key for two persons is refused: at the start, and while the executor runs."""
        line = target.bob.key.public.line
        twice = f'[[persons]]\nid = "mallory"\n[[persons.keys]]\nscheme = "sshsig"\npublic_key = "{line}"\n'
        request = target.good()
        target.write_trust(target.trust_file(2, more=twice))
        assert eventually(target, request) == "STATE_FORBIDS"
        target.close()
        with pytest.raises(ExecutorError) as caught:
            target.open()
        assert caught.value.fault.reason in {"MALFORMED", "STATE_FORBIDS"}
        target._closing.close()
        target.write_trust(target.trust_file(1))
        target.open()

    def test_an_older_trust_file_brings_nobody_back(self, target: Target) -> None:
        """Who was removed stays removed: the file before is refused, running or at the start."""
        request = target.good()
        target.write_trust(target.trust_file(2, without="bob").replace('"bob", ', ""))
        target.restart()
        target.write_trust(target.trust_file(1))
        assert eventually(target, request) == "STATE_FORBIDS"
        target.close()
        with pytest.raises(ExecutorError):
            target.open()
        target._closing.close()
        target.write_trust(target.trust_file(2, without="bob").replace('"bob", ', ""))
        target.open()
        assert target.reason_of(target.again(request)) == "APPROVER_UNKNOWN"

    def test_other_content_under_the_same_version(self, target: Target) -> None:
        """A file that changed without its version is as bad as an older one."""
        request = target.good()
        target.write_trust(target.trust_file(1, more='[workspaces.site]\nlabels = ["prod"]\n'))
        assert eventually(target, request) == "STATE_FORBIDS"
        assert target.site.joinpath("kept.txt").exists()


def eventually(target: Target, request: ExecuteInput) -> str:
    """The reason of a refusal once the executor has looked at its trust file again.

    Until it has, the request would be good; so what is asked meanwhile is something that no file makes good.
    """
    probe = target.again(request, approvals=())
    for _ in range(60):
        if target.reason_of(target.again(probe)) != "NOT_APPROVED":
            break
        threading.Event().wait(0.1)
    return target.reason_of(target.again(request))


class TestRestored:
    def test_a_ledger_from_before_the_execution(self, target: Target, tmp_path: Path) -> None:
        """Who brings back the ledger of before finds all of its reports unknown: nothing runs a second time."""
        request = target.good()
        copied(target, tmp_path / "copy")
        target.run(request)
        brought_back(target, tmp_path / "copy")
        (target.site / "hello.txt").unlink()
        before = target.tree()
        assert target.reason_of(target.again(request)) == "REPORT_UNKNOWN"
        assert target.tree() == before
        starts = [one for one in leaves(target) if one["type"] == "epoch_started"]
        assert len(starts) == 2

    @pytest.mark.parametrize("kind", [evidence_pb2.REVOCATION_KIND_DENY, evidence_pb2.REVOCATION_KIND_WITHDRAW])
    def test_a_ledger_from_before_the_revocation(
        self, target: Target, tmp_path: Path, kind: evidence_pb2.RevocationKind.ValueType
    ) -> None:
        """Bringing back the ledger of before does not make anybody's no undone, either."""
        request = target.good()
        copied(target, tmp_path / "copy")
        target.core.revoke(target.revocation(by=target.bob, kind=kind))
        brought_back(target, tmp_path / "copy")
        assert target.reason_of(target.again(request)) == "REPORT_UNKNOWN"

    def test_a_lost_ledger(self, target: Target) -> None:
        """Without its ledger an executor knows no report; what was done is not done again."""
        request = target.good()
        target.run(request)
        target.close()
        for path in target.settings.own.glob("ledger.db*"):
            path.unlink()
        target.open()
        assert target.reason_of(target.again(request)) == "REPORT_UNKNOWN"


def leaves(target: Target) -> list[dict[str, object]]:
    """The entries of the audit log."""
    return [json.loads(entry.leaf) for entry in target.ledger.stored_entries()]


def copied(target: Target, folder: Path) -> None:
    """A backup of the executor's own directory, taken while it rests."""
    target.close()
    shutil.copytree(target.settings.own, folder)
    target.open()


def brought_back(target: Target, folder: Path) -> None:
    """The backup put back in its place, into the very same files: nothing but their contents tells it."""
    target.close()
    for path in target.settings.own.glob("ledger.db*"):
        path.write_bytes((folder / path.name).read_bytes())
    target.open()


class TestClock:
    @pytest.mark.parametrize("seconds", [-3_600, -31, -86_400 * 365])
    def test_a_jump_back_brings_nothing_to_life(self, target: Target, seconds: int) -> None:
        """An approval that has expired is not good again because somebody set the clock back, restart or not."""
        request = target.good()
        target.wall.offset = timedelta(hours=2)
        assert target.reason_of(target.again(request)) == "APPROVAL_EXPIRED"
        target.wall.offset = timedelta(hours=2, seconds=seconds)
        assert target.reason_of(target.again(request)) == "CLOCK_BEHIND"
        target.restart()
        assert target.reason_of(target.again(request)) == "CLOCK_BEHIND"

    def test_a_little_back_stands_still(self, target: Target) -> None:
        """Half a minute back time stands still: what has expired stays expired."""
        request = target.good()
        target.wall.offset = timedelta(hours=1, seconds=10)
        assert target.reason_of(target.again(request)) == "APPROVAL_EXPIRED"
        target.wall.offset = timedelta(minutes=59, seconds=45)
        assert target.reason_of(target.again(request)) == "APPROVAL_EXPIRED"


class TestFloods:
    def test_what_is_refused_leaves_nothing_behind_in_memory(
        self, target: Target, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ten thousand different requests, each refused, grow the executor's memory by next to nothing."""
        monkeypatch.setattr(target.ledger, "record_refusal", ignore)  # what goes to the disk is not counted here
        monkeypatch.setattr(target.core._executions, "_pace", RefusalPace(at_once=10**9))  # nor how many are let in
        good = target.good()
        refuse = refuser(target, good)
        for number in range(500):
            refuse(number)
        before = resident()
        for number in range(500, 500 + FLOOD):
            refuse(number)
        assert resident() - before < ROOM
        assert target.core._executions._desk._turns == {}
        assert target.core._revocations._stops == {}

    def test_a_flood_of_refusals_does_not_fill_the_ledger(
        self, target: Target, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Beyond its bucket a caller is turned away unrecorded, and another caller's mission is executed meanwhile."""
        monkeypatch.setattr(target.core._executions, "_pace", RefusalPace(lambda: 0.0, at_once=20))
        good = target.good()
        bad = dataclasses.replace(good, approvals=(), caller="spiffe://gonogo.local/hostile")
        before = target.ledger.audit_size
        assert [target.reason_of(target.again(bad)) for _ in range(20)] == ["NOT_APPROVED"] * 20
        for _ in range(80):
            with pytest.raises(ExecutorError) as caught:
                target.core.execute(target.again(bad), ignore)
            assert caught.value.fault.reason == "OVERLOADED"
        assert target.ledger.audit_size == before + 20
        assert target.execute(good).receipt is not None

    def test_sixteen_bad_approvals_cost_no_more_than_sixteen(self, target: Target) -> None:
        """A request is as dear as its bound says: sixteen signatures, and then no."""
        good = target.good()
        assert good.report is not None
        many = [
            target.approve(good.plan, good.report, by=target.bob, approval_id=f"a-{number}", approver="carol")
            for number in range(16)
        ]
        assert target.reason_of(target.again(good, approvals=tuple(many))) == "SIGNATURE_INVALID"


def resident() -> int:
    """The memory that this process holds, in bytes."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def refuser(target: Target, good: ExecuteInput) -> Callable[[int], None]:
    """What sends requests that differ in everything and are refused at different places."""

    def refuse(number: int) -> None:
        named = dataclasses.replace(good.named, mission_id=f"m-{number}")
        report = SealedBytes(media_type=sealing.REPORT, body=b"%d" % number)
        other = dataclasses.replace(good, request_id=f"flood-{number}", named=named)
        sent = [
            other,
            dataclasses.replace(other, report=report),
            dataclasses.replace(other, approvals=()),
        ][number % 3]
        with pytest.raises(RefusedError):
            target.core.execute(sent, ignore)

    return refuse


class TestRaces:
    def test_a_revocation_that_races_the_claim(self, target: Target) -> None:
        """In either order one of the two wins: never an execution on a withdrawn approval that was not told to stop."""
        seen: set[bool] = set()
        for number in range(10):
            request = target.good(mission=f"m-{number}", path=f"file-{number}")
            document = target.revocation(by=target.bob, mission=f"m-{number}")
            refused, answer = raced(target, request, document)
            assert refused == answer.in_time
            assert (target.site / f"file-{number}").exists() <= (not refused)
            seen.add(refused)
        assert seen <= {True, False}

    @pytest.mark.parametrize("first", ["revocation", "claim"])
    def test_both_orders_by_hand(self, target: Target, first: str) -> None:
        """Committed before the claim the claim fails; committed after it the execution stops before its first step."""
        request, document = target.good(), target.revocation(by=target.bob)
        gates = target.core._executions._gates
        checked = gates.check(request)
        workspace = target.core._executions._workspaces["site"]
        with workspace.lock():
            if first == "revocation":
                assert target.core.revoke(document).in_time
                with pytest.raises(ExecutorError) as caught:
                    gates.claim(checked, workspace)
                assert caught.value.fault.reason == "APPROVAL_REVOKED"
            else:
                gates.claim(checked, workspace)
                answer = target.core.revoke(document)
                assert (answer.in_time, answer.stopping) == (False, True)
                assert target.core._revocations.stopped("m-1") == answer.record

    def test_of_many_identical_requests_one_is_executed(self, target: Target) -> None:
        """However many threads send the same approvals, the mission runs once."""
        good = target.good()
        requests = [target.again(good) for _ in range(8)]
        reasons: list[str] = []

        def send(request: ExecuteInput) -> None:
            try:
                target.core.execute(request, ignore)
                reasons.append("executed")
            except RefusedError as error:
                reasons.append(error.fault.reason)

        threads = [threading.Thread(target=send, args=(request,)) for request in requests]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert reasons.count("executed") == 1
        assert set(reasons) <= {"executed", "ALREADY_CLAIMED", "ALREADY_EXECUTED"}
        assert len(target.begun) == 1


def raced(target: Target, request: ExecuteInput, document: SealedBytes) -> tuple[bool, Revoked]:
    """Send both at the same moment: whether the execution was refused, and what the revocation was answered.

    An execution that waits because of it is stopped.
    """
    barrier = threading.Barrier(3)
    answers: list[Revoked] = []
    reasons: list[str] = []

    def revoke() -> None:
        barrier.wait()
        answers.append(target.core.revoke(document))

    def execute() -> None:
        barrier.wait()
        try:
            target.core.execute(request, ignore)
        except RefusedError as error:
            reasons.append(error.fault.reason)

    threads = [threading.Thread(target=revoke), threading.Thread(target=execute)]
    for thread in threads:
        thread.start()
    barrier.wait()
    while threads[1].is_alive():
        with suppress(ExecutorError):
            mission = request.named.mission_id
            stop = ControlInput(request_id=f"stop-{mission}", mission_id=mission, action=ControlAction.STOP, actor="x")
            target.core.control(stop)
        threads[1].join(0.01)
    threads[0].join()
    assert reasons in ([], ["APPROVAL_REVOKED"])
    return bool(reasons), answers[0]
