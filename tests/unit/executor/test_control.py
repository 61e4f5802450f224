"""Pause, resume, stop, retry and roll back: what people have an execution do, and when it has an effect."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from executor.domain.control import ControlAction, ExecutionState, PauseKind
from executor.domain.errors import ExecutorError, RequestMalformedError
from executor.domain.events import (
    ExecutionPaused,
    ExecutionResumed,
    ExecutionStopped,
    FailureDetected,
    RollbackCompleted,
    StepStarted,
)
from executor.domain.plan import PauseDefault
from executor.runner.control_requests import ControlInput
from executor.runner.executions import RefusedError
from executor.runner.step_work import StepFault, StepWork
from gonogo.v1 import evidence_pb2, plan_pb2
from tests.unit.executor.control_house import CONTINUE, MISSION, PAUSE, ROLL_BACK, STOP, ControlHouse
from tests.unit.executor.undo_house import write

NEW = {"one": "new one\n", "two": "new two\n", "three": "new three\n"}
SUCCESS, PARTIAL, ROLLED_BACK, ABORTED = (
    evidence_pb2.OUTCOME_SUCCESS,
    evidence_pb2.OUTCOME_PARTIAL,
    evidence_pb2.OUTCOME_ROLLED_BACK,
    evidence_pb2.OUTCOME_ABORTED,
)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[ControlHouse]:
    """An executor on real files."""
    house = ControlHouse(tmp_path)
    yield house
    house.close()


def paused_before_the_first(house: ControlHouse, **more: object) -> None:
    """Have it wait before its first step, because somebody asked for that."""
    house.during = lambda: house.control(ControlAction.PAUSE, reason="lunch")
    house.begin(house.writing(**more))
    house.paused(PauseKind.REQUESTED)


class TestAskedFor:
    def test_it_pauses_at_the_next_step_and_resumes(self, house: ControlHouse) -> None:
        """Nothing runs while it waits; after that it goes on to its end, and the receipt tells who had it do what."""
        paused_before_the_first(house)
        pause = house.paused()
        assert (pause.step_id, pause.reason) == ("s1", "owner asked for it: lunch")
        assert pause.actions == (ControlAction.RESUME, ControlAction.STOP)
        assert pause.repairable
        assert house.contents() == {}
        run = house.control(ControlAction.RESUME, actor="somebody", reason="back")
        assert run.mission_id == MISSION
        receipt = house.ended()
        assert (receipt.execution_status, receipt.abort_reason, list(receipt.errors)) == (SUCCESS, "", [])
        assert house.contents() == NEW
        assert [(one.action, one.actor, one.reason) for one in receipt.controls] == [
            ("pause", "owner", "lunch"),
            ("resume", "somebody", "back"),
        ]
        [resumed] = house.payloads(ExecutionResumed)
        assert (resumed.action, resumed.actor, resumed.step_id) == ("resume", "somebody", "s1")

    def test_the_pause_is_durable_before_anybody_sees_it(self, house: ControlHouse) -> None:
        """What watchers see of a pause is on the disk, digest of the results and deadline included."""
        paused_before_the_first(house)
        progress = house.progress()
        assert progress.state is ExecutionState.PAUSED
        stored = house.ledger.events(progress.record.execution_id, 0)
        assert stored == progress.events
        last = stored[-1].payload
        assert isinstance(last, ExecutionPaused)
        assert last.kind is PauseKind.REQUESTED
        assert (last.results_digest, last.deadline) == (house.paused().results_digest, house.paused().deadline)

    def test_stop_keeps_what_is_committed(self, house: ControlHouse) -> None:
        """Stopped while it waits for a retry, the steps before stay; the outcome is partial and says who stopped it."""
        house.fails = {2: 1}
        house.begin(house.writing())
        house.paused(PauseKind.FAILURE)
        house.control(ControlAction.STOP, reason="enough")
        receipt = house.ended()
        assert (receipt.execution_status, receipt.abort_reason) == (PARTIAL, "STOPPED")
        assert house.contents() == {"one": "new one\n"}
        assert receipt.errors[-1] == "stopped by owner: enough"
        [stopped] = house.payloads(ExecutionStopped)
        assert (stopped.actor, stopped.reason, stopped.roll_back) == ("owner", "enough", False)

    def test_stop_with_roll_back_undoes_all_of_it(self, house: ControlHouse) -> None:
        """Whatever the plan's own policy is."""
        before = house.tree()
        house.fails = {3: 1}
        house.begin(house.writing())
        house.paused(PauseKind.FAILURE)
        house.control(ControlAction.STOP, roll_back=True)
        receipt = house.ended()
        assert (receipt.execution_status, receipt.abort_reason) == (ROLLED_BACK, "STOPPED")
        assert house.tree() == before
        assert [one.step_id for one in house.payloads(RollbackCompleted)] == ["s2", "s1"]
        assert receipt.controls[-1].action == "roll_back"

    def test_stop_before_the_first_step_aborts(self, house: ControlHouse) -> None:
        """A stop that arrives while it runs takes effect before the next step."""
        house.during = lambda: house.control(ControlAction.STOP)
        house.begin(house.writing(policy=CONTINUE))
        receipt = house.ended()
        assert (receipt.execution_status, receipt.abort_reason) == (ABORTED, "STOPPED")
        assert house.contents() == {}
        assert house.payloads(StepStarted) == []


class TestFailure:
    def test_it_waits_and_the_same_bytes_are_tried_again(self, house: ControlHouse) -> None:
        """The failing step is undone, the failure told with kind and path; a retry goes on to a full success."""
        house.fails = {2: 2}
        house.begin(house.writing())
        first = house.paused(PauseKind.FAILURE)
        assert (first.step_id, first.actions) == ("s2", (ControlAction.RETRY, ControlAction.STOP))
        assert "CONFLICT" in first.reason
        [failure] = house.payloads(FailureDetected)
        assert (failure.kind, failure.path, failure.reason) == ("write_file", "two", "CONFLICT")
        assert house.contents() == {"one": "new one\n"}
        house.control(ControlAction.RETRY)
        house.until(
            lambda progress: len([one for one in progress.events if isinstance(one.payload, FailureDetected)]) == 2
        )
        second = house.paused(PauseKind.FAILURE)
        assert second.results_digest != first.results_digest
        house.control(ControlAction.RETRY)
        receipt = house.ended()
        assert (receipt.execution_status, receipt.abort_reason, list(receipt.errors)) == (SUCCESS, "", [])
        assert [(step.step_id, step.attempts, step.success) for step in receipt.steps] == [
            ("s1", 1, True),
            ("s2", 3, True),
            ("s3", 1, True),
        ]
        assert house.contents() == NEW
        assert len(house.ledger.checkpoints(MISSION)) == 3

    def test_a_retry_after_a_commit_was_undone_clashes_with_nothing(
        self, house: ControlHouse, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A step that was committed, found to differ and undone has used its slot; the retry takes another."""
        real, calls = StepWork._verified, 0

        def differs(self: StepWork, applied: object) -> object:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise StepFault("DIVERGED", "another", undo=applied)  # type: ignore[arg-type]  # handed on
            return real(self, applied)  # type: ignore[arg-type]  # handed on

        monkeypatch.setattr(StepWork, "_verified", differs)
        house.begin(house.writing())
        house.paused(PauseKind.FAILURE)
        assert house.contents() == {"one": "new one\n"}
        house.control(ControlAction.RETRY)
        assert house.ended().execution_status == SUCCESS
        assert house.contents() == NEW
        assert {one.slot.rpartition("-")[2] for one in house.ledger.checkpoints(MISSION)} == {"1", "2_2", "3"}

    def test_what_somebody_changed_while_it_waited_keeps_it_from_going_on(self, house: ControlHouse) -> None:
        """A resume compares what was committed; where that differs it waits on, says where, and goes on once mended."""
        house.fails = {2: 1}
        house.begin(house.writing())
        deadline = house.paused(PauseKind.FAILURE).deadline
        (house.site / "one").write_text("edited\n")
        house.control(ControlAction.RETRY)
        pause = house.until(
            lambda progress: progress.pause is not None and "BASE_DRIFTED" in progress.pause.reason
        ).pause
        assert pause is not None
        assert (pause.kind, pause.deadline) == (PauseKind.FAILURE, deadline)
        assert "one" in pause.reason
        assert len(house.payloads(StepStarted)) == 2
        (house.site / "one").write_text("new one\n")
        house.control(ControlAction.RETRY)
        assert house.ended().execution_status == SUCCESS

    @pytest.mark.parametrize(
        ("policy", "outcome", "left"),
        [(ROLL_BACK, ROLLED_BACK, {}), (STOP, PARTIAL, {"one"}), (CONTINUE, PARTIAL, {"one", "three"})],
    )
    def test_other_policies_ask_nobody(
        self, house: ControlHouse, policy: plan_pb2.FailurePolicy.ValueType, outcome: int, left: set[str]
    ) -> None:
        """They decide by themselves, as they did."""
        house.fails = {2: 1}
        house.begin(house.writing(policy=policy))
        receipt = house.ended()
        assert (receipt.execution_status, receipt.abort_reason) == (outcome, "CONFLICT")
        assert set(house.contents()) == set(left)
        assert house.payloads(ExecutionPaused) == []


class TestDeadline:
    @pytest.mark.parametrize(
        ("default", "outcome", "left"),
        [
            (plan_pb2.PAUSE_DEFAULT_ROLL_BACK, ROLLED_BACK, set()),
            (plan_pb2.PAUSE_DEFAULT_STOP, PARTIAL, {"one"}),
        ],
    )
    def test_when_nobody_decides_the_default_is_done(
        self, house: ControlHouse, default: plan_pb2.PauseDefault.ValueType, outcome: int, left: set[str]
    ) -> None:
        """At the deadline, and not a moment before."""
        house.fails = {2: 1}
        rules = plan_pb2.PauseRules(deadline_seconds=3600, default_action=default, step_approval_seconds=60)
        house.begin(house.writing(pause=rules))
        pause = house.paused(PauseKind.FAILURE)
        assert pause.deadline is not None
        house.wall.ahead = timedelta(seconds=3500)
        assert house.paused().deadline == pause.deadline
        house.wall.ahead = timedelta(seconds=3700)
        receipt = house.ended()
        assert (receipt.execution_status, receipt.abort_reason) == (outcome, "STOPPED")
        assert set(house.contents()) == left
        assert [(one.action, one.actor) for one in receipt.controls] == [("deadline", "deadline")]

    def test_it_is_the_same_after_a_restart(self, house: ControlHouse) -> None:
        """A deadline that has passed while the executor was down is acted upon at its start."""
        house.fails = {2: 1}
        house.begin(house.writing())
        pause = house.paused(PauseKind.FAILURE)
        house.restart()
        assert house.paused() == pause
        house.close()
        house.wall.ahead = timedelta(days=2)
        house.open()
        receipt = house.ended()
        assert (receipt.execution_status, receipt.controls[0].action) == (ROLLED_BACK, "deadline")
        assert house.contents() == {}
        assert pause.default_action is PauseDefault.ROLL_BACK


class TestRequests:
    def test_what_does_not_fit_is_refused_by_name(self, house: ControlHouse) -> None:
        """The answer names what does fit, and nothing is recorded."""
        paused_before_the_first(house)
        with pytest.raises(ExecutorError) as caught:
            house.control(ControlAction.RETRY)
        assert caught.value.fault.reason == "STATE_FORBIDS"
        assert "resume, stop, or a repair plan" in caught.value.fault.remedy
        with pytest.raises(ExecutorError) as caught:
            house.reconcile(house.paused(), happened=True)
        assert caught.value.fault.reason == "STEP_NOT_WAITING"
        assert len(house.ledger.controls(house.progress().record.execution_id)) == 1
        house.control(ControlAction.STOP)
        house.ended()
        with pytest.raises(ExecutorError) as caught:
            house.control(ControlAction.STOP)
        assert caught.value.fault.reason == "STATE_FORBIDS"
        with pytest.raises(ExecutorError) as caught:
            house.control(ControlAction.STOP, mission_id="m-2")
        assert caught.value.fault.reason == "NOT_FOUND"

    def test_the_same_request_again_does_nothing_more(self, house: ControlHouse) -> None:
        """Same id and body: the same answer, also after the end; another body is refused."""
        house.fails = {2: 2}
        house.begin(house.writing())
        house.paused(PauseKind.FAILURE)
        request = ControlInput(request_id="q-x", mission_id=MISSION, action=ControlAction.RETRY, actor="owner")
        house.core.control(request)
        house.until(
            lambda progress: len([one for one in progress.events if isinstance(one.payload, FailureDetected)]) == 2
        )
        house.paused(PauseKind.FAILURE)
        assert house.core.control(request).progress(0).pause is not None
        with pytest.raises(RequestMalformedError) as caught:
            house.control(ControlAction.STOP, request_id="q-x")
        assert caught.value.fault.reason == "REQUEST_REUSED"
        house.control(ControlAction.STOP)
        house.ended()
        assert house.core.control(request).progress(0).ended

    @pytest.mark.parametrize(
        "changes",
        [{"request_id": ""}, {"mission_id": ""}, {"roll_back": True}, {"actor": "a" * 201}, {"reason": "r" * 4001}],
    )
    def test_what_is_not_well_formed_is_refused(self, house: ControlHouse, changes: dict[str, object]) -> None:
        """Before anything is looked up."""
        with pytest.raises(RequestMalformedError):
            house.control(ControlAction.PAUSE, **changes)

    def test_of_many_at_once_one_takes_effect(self, house: ControlHouse) -> None:
        """A pause ends once: of twelve people who press retry at the same moment one is taken."""
        house.fails = {2: 1}
        house.begin(house.writing(policy=PAUSE))
        house.paused(PauseKind.FAILURE)
        barrier, taken, refused = threading.Barrier(12), [], []

        def press() -> None:
            barrier.wait()
            try:
                taken.append(house.control(ControlAction.RETRY))
            except ExecutorError as error:
                refused.append(error.fault.reason)

        threads = [threading.Thread(target=press) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(taken), set(refused)) == (1, {"STATE_FORBIDS"})
        assert house.ended().execution_status == SUCCESS

    def test_another_mission_is_told_at_once_whom_it_would_wait_for(self, house: ControlHouse) -> None:
        """The workspace belongs to the mission that waits; the next one is refused, named, and free to come again."""
        paused_before_the_first(house)
        other = house.mission(write("four", "4\n"), mission="m-2")
        with pytest.raises(RefusedError) as caught:
            house.execute(other)
        assert caught.value.fault.reason == "EXECUTION_PAUSED"
        assert MISSION in caught.value.fault.message
        house.control(ControlAction.RESUME)
        house.ended()
        assert house.execute(house.mission(write("four", "4\n"), mission="m-2")).ended

    def test_the_end_of_the_process_does_not_wait_for_people(self, house: ControlHouse) -> None:
        """An execution that waits is drained, and its thread goes."""
        paused_before_the_first(house)
        assert house.core.drain(0.0)
        house.restart()
        assert house.paused(PauseKind.REQUESTED).step_id == "s1"
        house.control(ControlAction.RESUME)
        assert house.ended().execution_status == SUCCESS
