"""Steps that wait for a signature of their own, and steps with an effect outside."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from executor.domain.control import ControlAction, PauseKind
from executor.domain.errors import ExecutorError, Fault, StoreError
from executor.domain.events import (
    DiffProposed,
    EffectClaimed,
    ExecutionResumed,
    StepApproved,
    StepReconciled,
    StepStarted,
)
from executor.domain.receipt import EffectState
from executor.runner.control_requests import ControlInput
from executor.runner.outside import Performed, Setting
from gonogo import sealing
from gonogo.v1 import evidence_pb2, plan_pb2
from tests.unit.executor.control_house import MISSION, PAUSE, ROLL_BACK, ControlHouse, live, refused, unknown
from tests.unit.executor.undo_house import write

SUCCESS, PARTIAL, ROLLED_BACK, ABORTED, UNKNOWN = (
    evidence_pb2.OUTCOME_SUCCESS,
    evidence_pb2.OUTCOME_PARTIAL,
    evidence_pb2.OUTCOME_ROLLED_BACK,
    evidence_pb2.OUTCOME_ABORTED,
    evidence_pb2.OUTCOME_UNKNOWN,
)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[ControlHouse]:
    """An executor on real files."""
    house = ControlHouse(tmp_path)
    yield house
    house.close()


def asking() -> tuple[plan_pb2.Step, ...]:
    """Three steps, the second of which waits for a signature of its own."""
    steps = [write(name, f"new {name}\n") for name in ("one", "two", "three")]
    steps[1].needs_approval = True
    return tuple(steps)


def full(*_: object) -> None:
    """Find no room."""
    raise StoreError("STORE_FULL", "there is no room", "make some")


class TestStepApproval:
    def test_it_shows_the_change_and_waits_for_a_signature(self, house: ControlHouse) -> None:
        """Under any policy; the signature names the step as the report has it, and what was done so far."""
        house.begin(house.mission(*asking(), policy=ROLL_BACK))
        pause = house.paused(PauseKind.STEP_APPROVAL)
        assert (pause.step_id, pause.repairable) == ("s2", False)
        assert pause.actions == (ControlAction.APPROVE_STEP, ControlAction.STOP)
        assert house.kinds()[-2:] == ["DiffProposed", "ExecutionPaused"]
        assert [one.step_id for one in house.payloads(StepStarted)] == ["s1"]
        assert house.contents() == {"one": "new one\n"}
        house.approve_step(pause)
        receipt = house.ended()
        assert receipt.execution_status == SUCCESS
        [approval] = receipt.steps[1].step_approvals
        assert approval.approver == "owner"
        assert [(one.step_id, one.approver) for one in house.payloads(StepApproved)] == [("s2", "owner")]
        assert [one.action for one in house.payloads(ExecutionResumed)] == ["approve_step"]
        assert [one.step_id for one in house.payloads(DiffProposed)] == ["s1", "s2", "s3"]
        assert [(one.action, one.actor, one.step_id) for one in receipt.controls] == [("approve_step", "owner", "s2")]

    def test_a_denial_of_the_step_stops_it(self, house: ControlHouse) -> None:
        """By that person, and what is committed stays."""
        house.begin(house.mission(*asking()))
        house.approve_step(house.paused(), decision=evidence_pb2.DECISION_DENY, comment="not that", by=house.second)
        receipt = house.ended()
        assert (receipt.execution_status, receipt.abort_reason) == (PARTIAL, "STOPPED")
        assert receipt.errors[-1] == "stopped by second: denied s2: not that"
        assert [(one.action, one.actor, one.step_id) for one in receipt.controls] == [("deny_step", "second", "s2")]

    @pytest.mark.parametrize(
        "changes",
        [{"step_id": "s3"}, {"results_digest": "sha256:" + "0" * 64}, {"change_set_digest": "sha256:" + "0" * 64}],
    )
    def test_a_signature_of_something_else_does_not_hold(self, house: ControlHouse, changes: dict[str, Any]) -> None:
        """It waits on, and nothing is recorded."""
        house.begin(house.mission(*asking()))
        pause = house.paused()
        with pytest.raises(ExecutorError):
            house.approve_step(pause, **changes)
        assert house.paused() == pause
        assert house.ledger.controls(house.progress().record.execution_id) == ()
        house.control(ControlAction.STOP)
        house.ended()

    def test_without_one_it_stops_at_its_deadline(self, house: ControlHouse) -> None:
        """What is committed stays, whatever the default of other pauses is."""
        house.begin(house.mission(*asking()))
        house.paused()
        house.wall.ahead = timedelta(seconds=3601)
        receipt = house.ended()
        assert (receipt.execution_status, receipt.abort_reason) == (PARTIAL, "STOPPED")

    def test_a_signature_survives_the_executor(self, house: ControlHouse, monkeypatch: pytest.MonkeyPatch) -> None:
        """Recorded and not acted upon, because the process died just then: the next start goes on with it."""
        house.begin(house.mission(*asking()))
        pause = house.paused()
        house.die_before_it_takes_effect()
        with monkeypatch.context() as patched:
            patched.setattr(house.ledger, "append_events", full)  # nor is anybody told
            house.approve_step(pause)
        house.restart()
        receipt = house.ended()
        assert receipt.execution_status == SUCCESS
        assert [one.approver for one in receipt.steps[1].step_approvals] == ["owner"]
        assert [one.step_id for one in house.payloads(StepApproved)] == ["s2"]

    def test_a_retry_of_an_approved_step_asks_nobody_again(self, house: ControlHouse) -> None:
        """It is the same step with the same bytes."""
        house.fails = {2: 1}
        house.begin(house.mission(*asking()))
        house.approve_step(house.paused(PauseKind.STEP_APPROVAL))
        house.paused(PauseKind.FAILURE)
        house.restart()
        house.paused(PauseKind.FAILURE)
        house.control(ControlAction.RETRY)
        receipt = house.ended()
        assert receipt.execution_status == SUCCESS
        assert len(receipt.steps[1].step_approvals) == 1

    def test_before_a_retry_an_approval_that_is_older_than_the_policy_takes_is_asked_for_anew(
        self, house: ControlHouse
    ) -> None:
        """Whatever end it gives itself: it holds no longer than it would have been taken for."""
        house.with_policy(max_approval_seconds=600)
        house.fails = {2: 1}
        house.begin(house.mission(*asking()))
        house.approve_step(house.paused(PauseKind.STEP_APPROVAL))
        house.paused(PauseKind.FAILURE)
        house.wall.ahead = timedelta(seconds=601)
        house.control(ControlAction.RETRY)
        house.approve_step(house.paused(PauseKind.STEP_APPROVAL))
        assert house.ended().execution_status == SUCCESS

    def test_before_a_retry_an_approval_by_a_key_that_left_the_trust_file_is_asked_for_anew(
        self, house: ControlHouse
    ) -> None:
        """A newer trust file holds for what is decided under it, and a lost key commits nothing any more."""
        house.fails = {2: 1}
        house.begin(house.mission(*asking()))
        house.approve_step(house.paused(PauseKind.STEP_APPROVAL))
        house.paused(PauseKind.FAILURE)
        house.with_policy(persons=tuple(one for one in house.trust.policy.persons if one.person_id != "owner"))
        house.paused(PauseKind.FAILURE)
        house.control(ControlAction.RETRY)
        house.approve_step(house.paused(PauseKind.STEP_APPROVAL), by=house.second)
        receipt = house.ended()
        assert receipt.execution_status == SUCCESS
        assert [one.approver for one in receipt.steps[1].step_approvals] == ["second"]


class TestEffects:
    def test_it_is_claimed_performed_and_settled(self, house: ControlHouse) -> None:
        """Once, with a row of its own before it, and a key by which the far side can recognise it."""
        rows: list[int] = []
        house.far.meanwhile = lambda setting: rows.append(len(house.ledger.effects(setting.execution_id)))
        house.begin(house.mission(write("one", "1\n"), live()))
        receipt = house.ended()
        execution_id = receipt.execution_id
        assert (receipt.execution_status, house.far.done()) == (SUCCESS, [f"{execution_id}-s2:deploy"])
        assert rows == [1]
        effect = receipt.steps[1].effect
        assert (effect.state, effect.idempotency_key) == (evidence_pb2.EFFECT_STATE_DONE, f"{execution_id}-s2")
        assert house.kinds().index("EffectClaimed") < house.kinds().index("ReceiptIssued")

    def test_of_an_unknown_effect_a_person_must_say(self, house: ControlHouse) -> None:
        """Under any policy it waits for ever; the word that it happened goes on with the next step."""
        house.far.comes_to = [unknown()]
        house.begin(house.mission(live(), write("one", "1\n"), policy=ROLL_BACK))
        pause = house.paused(PauseKind.UNKNOWN_EFFECT)
        assert (pause.deadline, pause.step_id, pause.repairable) == (None, "s1", False)
        assert pause.actions == (ControlAction.RECONCILE, ControlAction.STOP)
        house.reconcile(pause, happened=True)
        receipt = house.ended()
        assert receipt.execution_status == SUCCESS
        word = receipt.steps[0].effect.reconciliation
        assert (word.person, word.happened) == ("owner", True)
        assert len(house.far.done()) == 1
        [reconciled] = house.payloads(StepReconciled)
        assert (reconciled.step_id, reconciled.happened, reconciled.person) == ("s1", True, "owner")

    def test_what_did_not_happen_can_be_done_again(self, house: ControlHouse) -> None:
        """By a person's retry, with a row of its own and the same key."""
        house.far.comes_to = [unknown()]
        house.begin(house.mission(live(), policy=ROLL_BACK))
        house.reconcile(house.paused(PauseKind.UNKNOWN_EFFECT), happened=False)
        pause = house.paused(PauseKind.FAILURE)
        assert ControlAction.RETRY in pause.actions
        house.control(ControlAction.RETRY)
        receipt = house.ended()
        assert (receipt.execution_status, receipt.steps[0].attempts) == (SUCCESS, 2)
        entries = house.ledger.effects(receipt.execution_id)
        assert len({one.claim.effect_id for one in entries}) == 2
        assert len({one.claim.idempotency_key for one in entries}) == 1

    def test_a_stop_while_it_is_unknown_says_so(self, house: ControlHouse) -> None:
        """Nobody knows what was done; the receipt does not pretend to."""
        house.far.comes_to = [unknown()]
        house.begin(house.mission(live()))
        house.paused(PauseKind.UNKNOWN_EFFECT)
        house.control(ControlAction.STOP)
        receipt = house.ended()
        assert (receipt.execution_status, receipt.abort_reason) == (UNKNOWN, "STOPPED")

    def test_a_crash_before_it_is_settled_makes_it_unknown(
        self, house: ControlHouse, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The row says nothing: after the restart a person is asked, whatever the policy; it is not done again."""

        def dies(*_: object) -> None:
            raise KeyboardInterrupt

        request = house.mission(live(), write("one", "1\n"), policy=ROLL_BACK)
        monkeypatch.setattr(house.ledger, "settle_effect", dies)
        with pytest.raises(KeyboardInterrupt):
            house.execute(request)
        house.restart()
        pause = house.paused(PauseKind.UNKNOWN_EFFECT)
        assert len(house.far.done()) == 1
        house.restart()
        assert house.paused(PauseKind.UNKNOWN_EFFECT) == pause
        house.reconcile(pause, happened=True)
        assert house.ended().execution_status == SUCCESS
        assert len(house.far.done()) == 1
        assert house.contents() == {"one": "1\n"}

    def test_a_word_survives_the_executor(self, house: ControlHouse) -> None:
        """Recorded and not acted upon, because the process died just then: the next start goes on with it."""
        house.far.comes_to = [unknown()]
        house.begin(house.mission(live(), write("one", "1\n")))
        pause = house.paused(PauseKind.UNKNOWN_EFFECT)
        house.die_before_it_takes_effect()
        house.reconcile(pause, happened=True)
        house.restart()
        assert house.ended().execution_status == SUCCESS

    def test_the_word_is_good_for_this_attempt_alone(self, house: ControlHouse) -> None:
        """Another unknown effect of the same step is another state of the execution."""
        house.far.comes_to = [unknown(), unknown()]
        house.begin(house.mission(live()))
        first = house.paused(PauseKind.UNKNOWN_EFFECT)
        house.reconcile(first, happened=False)
        house.paused(PauseKind.FAILURE)
        house.control(ControlAction.RETRY)
        second = house.paused(PauseKind.UNKNOWN_EFFECT)
        assert second.results_digest != first.results_digest
        with pytest.raises(ExecutorError):
            house.reconcile(first, happened=True)
        house.reconcile(second, happened=True)
        assert house.ended().execution_status == SUCCESS

    def test_a_refusal_of_the_far_side_is_a_failure_like_any_other(self, house: ControlHouse) -> None:
        """It did not happen, so it can be tried again."""
        house.far.comes_to = [refused()]
        house.begin(house.mission(live()))
        pause = house.paused(PauseKind.FAILURE)
        assert "it is closed today (come back)" in pause.reason
        house.control(ControlAction.RETRY)
        assert house.ended().execution_status == SUCCESS

    def test_an_effect_that_is_done_and_not_well_is_never_begun_again(self, house: ControlHouse) -> None:
        """The far side did it and complained: a person may stop or repair, and not have it done twice."""
        fault = Fault(reason="EFFECT_FAILED", message="exit code 3", remedy="look")
        house.far.comes_to = [Performed(state=EffectState.DONE, summary="exit code 3", fault=fault)]
        house.begin(house.mission(live()))
        pause = house.paused(PauseKind.FAILURE)
        assert pause.actions == (ControlAction.STOP,)
        assert pause.repairable
        house.restart()
        assert house.paused() == pause
        assert "no retry; a repair plan can go on" in pause.reason
        with pytest.raises(ExecutorError, match="the effect of s1 has happened, or may have, and is never begun again"):
            house.control(ControlAction.RETRY)
        house.control(ControlAction.STOP)
        assert house.ended().execution_status == PARTIAL

    def test_a_repair_goes_on_without_an_effect_that_is_not_well(self, house: ControlHouse) -> None:
        """There is more to do than to stop: the rest is done under a plan of its own, and the effect once."""
        fault = Fault(reason="EFFECT_FAILED", message="exit code 3", remedy="look")
        house.far.comes_to = [Performed(state=EffectState.DONE, summary="exit code 3", fault=fault)]
        house.begin(house.mission(live(), write("one", "1\n")))
        house.paused(PauseKind.FAILURE)
        house.begin(house.repair(write("one", "1\n")))
        receipt = house.ended()
        assert receipt.execution_status == SUCCESS
        assert house.contents() == {"one": "1\n"}
        assert len(house.far.done()) == 1
        assert receipt.steps[0].effect.state == evidence_pb2.EFFECT_STATE_DONE

    def test_a_stop_reaches_the_far_side(self, house: ControlHouse) -> None:
        """What runs there is asked to end; an effect of which nobody knows is asked about before the stop."""
        house.far.comes_to = [unknown()]
        asked: list[bool] = []

        def stop(setting: Setting) -> None:
            house.control(ControlAction.STOP)
            asked.append(setting.cancel.requested)

        house.far.meanwhile = stop
        house.begin(house.mission(live(), write("one", "1\n")))
        pause = house.paused(PauseKind.UNKNOWN_EFFECT)
        assert asked == [True]
        house.reconcile(pause, happened=True)
        receipt = house.ended()
        assert (receipt.execution_status, receipt.abort_reason) == (PARTIAL, "STOPPED")
        assert house.contents() == {}


class TestCompensation:
    def test_effects_are_made_up_for_newest_first(self, house: ControlHouse) -> None:
        """Between the commits, in the order of the steps backwards, each with a row of its own."""
        before = house.tree()
        steps = (live("first", undo="un-first"), write("one", "1\n"), live("second", undo="un-second"), write("x", "x"))
        house.fails = {4: 1}
        house.begin(house.mission(*steps, policy=ROLL_BACK))
        receipt = house.ended()
        assert [line.rpartition(":")[2] for line in house.far.done()] == ["first", "second", "un-second", "un-first"]
        assert receipt.execution_status == ROLLED_BACK
        assert house.tree() == before
        states = [step.effect.state for step in receipt.steps if step.HasField("effect")]
        assert states == [evidence_pb2.EFFECT_STATE_COMPENSATED] * 2
        claimed = [one.idempotency_key for one in house.payloads(EffectClaimed)]
        assert claimed[2:] == [f"{receipt.execution_id}-s3-c", f"{receipt.execution_id}-s1-c"]

    def test_without_a_compensation_it_is_partial_at_best(self, house: ControlHouse) -> None:
        """The files go back; what was done outside stays done."""
        house.fails = {3: 1}
        house.begin(house.mission(live(), write("one", "1\n"), write("two", "2\n"), policy=ROLL_BACK))
        receipt = house.ended()
        assert (receipt.execution_status, house.contents()) == (PARTIAL, {})
        assert receipt.steps[0].effect.state == evidence_pb2.EFFECT_STATE_DONE

    @pytest.mark.parametrize(("came", "outcome"), [(refused(), PARTIAL), (unknown(), UNKNOWN)])
    def test_one_that_fails_is_told_and_the_rest_goes_back(
        self, house: ControlHouse, came: Performed, outcome: int
    ) -> None:
        """One of which nobody knows makes all of it unknown."""
        house.far.comes_to = [Performed(state=EffectState.DONE, summary="done"), came]
        house.fails = {3: 1}
        steps = (write("one", "1\n"), live("first", undo="un-first"), write("two", "2\n"))
        house.begin(house.mission(*steps, policy=ROLL_BACK))
        receipt = house.ended()
        assert (receipt.execution_status, house.contents()) == (outcome, {})
        assert receipt.steps[1].effect.compensation

    def test_one_that_would_be_another_thing_now_is_not_begun(
        self, house: ControlHouse, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A changed tool, or a program that nothing confines any more, is not what the approvers were told of."""
        house.fails = {3: 1}
        steps = (live("first", undo="un-first"), write("one", "1\n"), write("two", "2\n"))
        request = house.mission(*steps, policy=ROLL_BACK)
        declare = house.far.declare
        monkeypatch.setattr(
            house.far, "declare", lambda *given: replace(declare(*given), not_simulated="nothing confines it")
        )
        house.begin(request)
        receipt = house.ended()
        assert [line.rpartition(":")[2] for line in house.far.done()] == ["first"]
        assert (receipt.execution_status, house.contents()) == (PARTIAL, {})
        assert "would not be what the report describes" in receipt.steps[0].effect.compensation

    def test_a_crash_after_a_settled_effect_rolls_back_with_its_compensation(self, house: ControlHouse) -> None:
        """As the plan's policy says: made up for once, and not before the start is over."""
        steps = (live("first", undo="un-first"), write("one", "1\n"), write("two", "2\n"))
        request = house.mission(*steps, policy=ROLL_BACK)
        house.dies = 3
        with pytest.raises(KeyboardInterrupt):
            house.execute(request)
        house.dies = 0
        house.restart()
        receipt = house.ended()
        assert (receipt.execution_status, house.contents()) == (ROLLED_BACK, {})
        assert [line.rpartition(":")[2] for line in house.far.done()] == ["first", "un-first"]


def test_a_control_with_a_document_needs_the_right_one(house: ControlHouse) -> None:
    """A word about an effect is no approval of a step."""
    house.begin(house.mission(*asking(), policy=PAUSE))
    pause = house.paused()
    with pytest.raises(ExecutorError) as caught:
        house.control(ControlAction.APPROVE_STEP, document=house.word(pause, happened=True))
    assert caught.value.fault.reason == "MALFORMED"
    with pytest.raises(ExecutorError) as caught:
        house.core.control(
            ControlInput(request_id="q", mission_id=MISSION, action=ControlAction.APPROVE_STEP, actor="owner")
        )
    assert caught.value.fault.reason == "MALFORMED"
    assert sealing.STEP_APPROVAL != sealing.RECONCILIATION
    house.control(ControlAction.STOP)
    house.ended()
