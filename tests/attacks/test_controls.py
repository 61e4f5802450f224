"""A hostile orchestrator at the controls of a real execution: it can stop it, and begin nothing that nobody signed."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from client.bundle import Leaf
from client.proving.controlled import controlled_checks
from client.proving.leaves import read_entry
from executor.domain.control import ControlAction, Pause, PauseKind
from executor.domain.errors import ExecutorError
from executor.domain.sealed import SealedBytes
from executor.runner.control_requests import ControlInput
from executor.runner.executions import RefusedError
from executor.runner.requests import ExecuteInput
from executor.runner.run import Progress
from executor.runner.stored_run import AnyRun
from gonogo import sealing
from gonogo.v1 import evidence_pb2, plan_pb2
from tests.attacks.target import Target
from tests.unit.executor.house import EXECUTOR_ID, Person, ignore, stamp

MISSION = "m-1"
PATIENCE = 10.0


class Underway:
    """A mission of two steps, of which the first waits for a signature of its own; it is executed in a thread."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.run: AnyRun | None = None
        self.thread = threading.Thread(target=self._execute, args=(self._request(),))
        self.thread.start()

    def _request(self) -> ExecuteInput:
        plan = self.target.plan(mission=MISSION)
        plan.failure_policy = plan_pb2.FAILURE_POLICY_PAUSE
        plan.steps[0].needs_approval = True
        plan.steps.add(step_id="s2", stage=plan_pb2.STAGE_EDIT).write_file.CopyFrom(
            plan_pb2.WriteFile(path="second.txt", content="second\n")
        )
        sealed = self.target.sealed_plan(plan, by=self.target.alice)
        self.report = self.target.dry_run(sealed)
        return self.target.request(sealed, self.report, self.target.approve(sealed, self.report, by=self.target.bob))

    def _execute(self, request: ExecuteInput) -> None:
        self.target.core.execute(request, lambda run: setattr(self, "run", run))

    def until(self, holds: Callable[[Progress], bool]) -> Progress:
        """Wait until the execution stands in some way."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self.run is not None and holds(self.run.progress(0)):
                return self.run.progress(0)
            time.sleep(0.01)
        raise AssertionError("the execution does not come to stand so")

    def paused(self, kind: PauseKind) -> Pause:
        """Wait until it waits for something."""
        pause = self.until(lambda one: one.pause is not None and one.pause.kind is kind).pause
        assert pause is not None
        return pause

    def control(self, action: ControlAction, document: SealedBytes | None = None, **more: object) -> None:
        values: dict[str, object] = {"request_id": self.target.next_request(), "actor": "alice", **more}
        self.target.core.control(
            ControlInput(mission_id=MISSION, action=action, document=document, **values)  # type: ignore[arg-type]  # a test's own
        )

    def refused(self, action: ControlAction, document: SealedBytes | None = None, **more: object) -> str:
        """Why a control is refused; nothing was recorded or changed then."""
        before = (self.target.tree(), self.target.ledger.controls(self.execution_id))
        with pytest.raises(ExecutorError) as caught:
            self.control(action, document, **more)
        assert (self.target.tree(), self.target.ledger.controls(self.execution_id)) == before
        assert caught.value.fault.remedy
        return caught.value.fault.reason

    @property
    def execution_id(self) -> str:
        assert self.run is not None
        return self.run.progress(0).record.execution_id

    def step_approval(self, by: Person, **changes: object) -> SealedBytes:
        """What an honest client signs for the step that waits, with some of it changed."""
        pause = self.paused(PauseKind.STEP_APPROVAL)
        now = datetime.now(UTC)
        number = self.target.next_request()
        values: dict[str, object] = {
            "approval_id": f"sa-{number}",
            "executor_id": EXECUTOR_ID,
            "workspace_id": "site",
            "mission_id": MISSION,
            "execution_id": self.execution_id,
            "step_id": pause.step_id,
            "change_set_digest": pause.change_set_digest,
            "results_digest": pause.results_digest,
            "approver": by.name,
            "decision": evidence_pb2.DECISION_APPROVE,
            "approved_at": stamp(now),
            "expires_at": stamp(now + timedelta(hours=1)),
            "nonce": f"sn-{number}",
            **changes,
        }
        body = sealing.seal(evidence_pb2.StepApproval(**values))  # type: ignore[arg-type]  # a test may write anything
        return by.sign(sealing.STEP_APPROVAL, body)

    def receipt(self) -> evidence_pb2.Receipt:
        """The receipt, once it is there; what it says agrees with the executor's log."""
        progress = self.until(lambda one: one.ended)
        self.thread.join(PATIENCE)
        assert progress.receipt is not None
        receipt = sealing.open_sealed(progress.receipt.body, evidence_pb2.Receipt)
        entries = self.target.ledger.entries_of(MISSION)
        leaves = [read_entry(Leaf(index=one.index, text=one.leaf.decode(), path=())).value for one in entries]
        assert [one for one in controlled_checks(receipt, leaves) if not one.ok] == []
        return receipt


@pytest.fixture
def underway(tmp_path: Path) -> Iterator[Underway]:
    """An execution whose first step waits."""
    target = Target(tmp_path)
    underway = Underway(target)
    yield underway
    target.close()
    underway.thread.join(PATIENCE)


def test_nothing_but_a_signature_lets_the_step_go_on(underway: Underway) -> None:
    """Every other control, and every word that is not somebody's about this step, leaves it waiting and undone."""
    target = underway.target
    underway.paused(PauseKind.STEP_APPROVAL)
    assert underway.refused(ControlAction.RESUME) == "STATE_FORBIDS"
    assert underway.refused(ControlAction.RETRY) == "STATE_FORBIDS"
    assert underway.refused(ControlAction.APPROVE_STEP) == "MALFORMED"
    assert underway.refused(ControlAction.APPROVE_STEP, target.good(mission="m-2").approvals[0]) == "MALFORMED"
    for by, changes, reason in (
        (Person("bob"), {}, "APPROVER_UNKNOWN"),
        (target.alice, {}, "SELF_APPROVAL"),
        (target.bob, {"step_id": "s2"}, "STEP_NOT_WAITING"),
        (target.bob, {"execution_id": "x-other"}, "MISSION_MISMATCH"),
        (target.bob, {"results_digest": ""}, "PLAN_MISMATCH"),
    ):
        document = underway.step_approval(by, **changes)
        assert underway.refused(ControlAction.APPROVE_STEP, document) == reason
    assert not (target.site / "hello.txt").exists()
    underway.control(ControlAction.APPROVE_STEP, underway.step_approval(target.carol))
    receipt = underway.receipt()
    assert receipt.execution_status == evidence_pb2.OUTCOME_SUCCESS
    assert [one.approver for one in receipt.steps[0].step_approvals] == ["carol"]
    assert (target.site / "second.txt").read_text() == "second\n"


def test_a_control_once_more_and_another_under_its_id(underway: Underway) -> None:
    """The same request does nothing once more; another body under its id, or an execution's id, is refused."""
    target = underway.target
    underway.paused(PauseKind.STEP_APPROVAL)
    word = underway.step_approval(target.carol)
    underway.control(ControlAction.APPROVE_STEP, word, request_id="c-1")
    underway.control(ControlAction.APPROVE_STEP, word, request_id="c-1")
    assert underway.refused(ControlAction.STOP, request_id="c-1") == "REQUEST_REUSED"
    assert underway.refused(ControlAction.STOP, request_id="q-2") == "REQUEST_REUSED"
    assert len(underway.receipt().controls) == 1
    with pytest.raises(ExecutorError) as caught:
        underway.control(ControlAction.APPROVE_STEP, word)
    assert caught.value.fault.reason == "STATE_FORBIDS"


def test_a_denial_stops_it(underway: Underway) -> None:
    """One person's signed no ends the execution, with nothing done; the receipt says whose it was."""
    target = underway.target
    denial = underway.step_approval(target.carol, decision=evidence_pb2.DECISION_DENY)
    underway.control(ControlAction.APPROVE_STEP, denial, actor="somebody else")
    receipt = underway.receipt()
    assert (receipt.abort_reason, receipt.controls[0].actor) == ("STOPPED", "carol")
    assert not (target.site / "hello.txt").exists()


def test_a_repair_goes_through_all_gates_and_into_one_receipt(underway: Underway) -> None:
    """After a failure only a plan for this state, with approvals of its own, goes on; the receipt tells both."""
    target = underway.target
    underway.paused(PauseKind.STEP_APPROVAL)
    (target.site / "second.txt").write_text("somebody else's\n")
    underway.control(ControlAction.APPROVE_STEP, underway.step_approval(target.carol))
    pause = underway.paused(PauseKind.FAILURE)
    plan = target.plan(mission=MISSION, path="third.txt", content="third\n")
    plan.plan_id, plan.segment, plan.execution_id = "p-repair", 1, underway.execution_id
    plan.journal_digest, plan.steps[0].step_id = pause.results_digest, "r1-s1"
    sealed = target.sealed_plan(plan, by=target.alice)
    report = target.dry_run(sealed)
    request = target.request(sealed, report, target.approve(sealed, report, by=target.alice))
    with pytest.raises(RefusedError) as caught:
        target.core.execute(request, ignore)
    assert caught.value.fault.reason == "SELF_APPROVAL"
    good = target.again(request, approvals=(target.approve(sealed, report, by=target.carol),))
    target.core.execute(good, ignore)
    receipt = underway.receipt()
    assert [(one.segment, one.plan_digest) for one in receipt.segments] == [(1, sealed.digest)]
    assert [one.approver for one in receipt.segments[0].approvals] == ["carol"]
    assert receipt.segments[0].journal_digest == pause.results_digest
    assert (target.site / "third.txt").read_text() == "third\n"
    assert (target.site / "second.txt").read_text() == "somebody else's\n"
    with pytest.raises(RefusedError) as again:
        target.core.execute(target.again(good), ignore)
    assert again.value.fault.reason == "ALREADY_EXECUTED"
