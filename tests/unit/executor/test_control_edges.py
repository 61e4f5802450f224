"""The edges of control: too late, too often, on a ledger of the past, with a word that is half kept."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from executor.adapters.ledger_sqlite import SqliteLedger
from executor.domain.control import ControlAction, PauseKind
from executor.domain.errors import ExecutorError, RequestMalformedError, StoreError
from executor.domain.events import EffectClaimed, ExecutionPaused, FailureDetected, StepReconciled
from executor.domain.receipt import EffectState
from executor.runner import carrying_out, control, live_steps
from executor.runner.documents import OpenDocuments
from executor.runner.outside import Setting
from executor.runner.words import Words
from gonogo.v1 import evidence_pb2, plan_pb2
from tests.unit.executor.control_house import CONTINUE, PAUSE, ROLL_BACK, STOP, ControlHouse, live, unknown, writes
from tests.unit.executor.house import ignore
from tests.unit.executor.undo_house import write

SUCCESS, PARTIAL, ROLLED_BACK, UNKNOWN = (
    evidence_pb2.OUTCOME_SUCCESS,
    evidence_pb2.OUTCOME_PARTIAL,
    evidence_pb2.OUTCOME_ROLLED_BACK,
    evidence_pb2.OUTCOME_UNKNOWN,
)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[ControlHouse]:
    """An executor on real files."""
    house = ControlHouse(tmp_path)
    yield house
    house.close()


def full(*_: object) -> None:
    """Find no room."""
    raise StoreError("STORE_FULL", "there is no room", "make some")


class TestTooLate:
    @pytest.mark.parametrize("policy", [PAUSE, ROLL_BACK, STOP, CONTINUE])
    def test_a_stop_during_the_last_step_takes_effect(
        self, house: ControlHouse, policy: plan_pb2.FailurePolicy.ValueType
    ) -> None:
        """It was recorded and answered before the end, so what it asks for is done, though no step is left to stop."""

        def stop(_: Setting) -> None:
            house.far.meanwhile = ignore
            house.control(ControlAction.STOP, roll_back=True)

        house.far.meanwhile = stop
        house.begin(house.mission(write("one", "1\n"), live(undo="un-deploy"), policy=policy))
        receipt = house.ended()
        assert (receipt.execution_status, receipt.abort_reason) == (ROLLED_BACK, "STOPPED")
        assert house.contents() == {}
        assert [line.rpartition(":")[2] for line in house.far.done()] == ["deploy", "un-deploy"]

    def test_what_comes_while_it_ends_is_refused_and_not_recorded(
        self, house: ControlHouse, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The receipt tells of every control; one that could not have an effect any more is none."""
        reasons: list[str] = []
        real = SqliteLedger.finish

        def finish(self: SqliteLedger, *args: Any, **more: Any) -> None:
            for action in (ControlAction.STOP, ControlAction.PAUSE):
                with pytest.raises(ExecutorError) as caught:
                    house.control(action)
                reasons.append(caught.value.fault.reason)
            real(self, *args, **more)

        monkeypatch.setattr(SqliteLedger, "finish", finish)
        house.begin(house.writing())
        receipt = house.ended()
        assert (receipt.execution_status, reasons) == (SUCCESS, ["STATE_FORBIDS"] * 2)
        assert house.ledger.controls(receipt.execution_id) == ()

    def test_the_last_of_two_stops_holds_over_a_restart(self, house: ControlHouse) -> None:
        """Also where both have the same time, because the clock was set back and stands still."""
        house.fails = {2: 1}
        house.begin(house.writing())
        house.paused()
        house.clock._latest += timedelta(seconds=20)
        house.die_before_it_takes_effect()
        house.control(ControlAction.STOP)
        house.control(ControlAction.STOP, roll_back=True)
        house.restart()
        assert (house.ended().execution_status, house.contents()) == (ROLLED_BACK, {})


class TestUnheeded:
    def test_a_retry_survives_the_executor(self, house: ControlHouse) -> None:
        """Recorded and not acted upon, because the process died just then: the next start goes on with it, once."""
        house.fails = {2: 2}
        house.begin(house.writing())
        house.failed(1)
        house.die_before_it_takes_effect()
        house.control(ControlAction.RETRY, request_id="q-lost")
        house.restart()
        house.failed(2)
        house.restart()
        house.failed(2)
        assert house.control(ControlAction.RETRY, request_id="q-lost").progress(0).pause is not None
        house.control(ControlAction.RETRY)
        receipt = house.ended()
        assert (receipt.execution_status, receipt.steps[1].attempts) == (SUCCESS, 3)
        assert len(receipt.controls) == 2

    def test_a_resume_that_was_refused_is_not_made_by_a_restart(self, house: ControlHouse) -> None:
        """It was heeded: what it came to is the wait that stands. Nobody has it go on from there but a person."""
        house.fails = {2: 1}
        house.begin(house.writing())
        house.failed(1)
        (house.site / "one").write_text("edited\n")
        house.control(ControlAction.RETRY)
        house.until(lambda one: one.pause is not None and "BASE_DRIFTED" in one.pause.reason)
        (house.site / "one").write_text("new one\n")
        house.restart()
        assert "BASE_DRIFTED" in house.paused().reason
        assert len(house.payloads(ExecutionPaused)) == 2


class TestWorkspace:
    def test_one_that_is_gone_for_a_while_ends_nothing(self, house: ControlHouse) -> None:
        """Whoever has it go on meanwhile is told so; it waits on, and goes on once the directory is there again."""
        house.fails = {2: 1}
        house.begin(house.writing())
        house.failed(1)
        away = house.site.rename(house.site.with_name("away"))
        house.control(ControlAction.RETRY)
        house.until(lambda one: one.pause is not None and "WORKSPACE_UNKNOWN" in one.pause.reason)
        away.rename(house.site)
        house.control(ControlAction.RETRY)
        assert house.ended().execution_status == SUCCESS

    def test_one_that_is_served_no_more_ends_what_waits_there_and_nothing_else(self, house: ControlHouse) -> None:
        """Nobody can tell what it left: the receipt says so, and what to do; what is committed stays."""
        house.fails = {2: 1}
        house.begin(house.writing())
        house.failed(1)
        served = house.workspaces
        house.workspaces = dict
        house.restart()
        receipt = house.ended()
        assert (receipt.execution_status, len(receipt.controls)) == (UNKNOWN, 0)
        assert "not served any more" in receipt.errors[1]
        assert f"gonogo cancel {receipt.mission_id}" in receipt.errors[2]
        house.workspaces = served
        house.restart()
        assert house.contents() == {"one": "new one\n"}
        progress = house.execute(house.mission(write("four", "4\n"), mission="m-2"))
        assert progress.receipt is not None
        assert house.contents() == {"one": "new one\n", "four": "4\n"}


class TestTooOften:
    def test_who_presses_for_ever_is_refused_and_a_stop_is_not(
        self, house: ControlHouse, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The record of an execution, which the receipt carries, has an end; stopping it has none."""
        monkeypatch.setattr(control, "MOST_CONTROLS", 3)
        house.fails = {2: 9}
        house.begin(house.writing())
        for times in range(1, 4):
            house.failed(times)
            house.control(ControlAction.RETRY)
        house.failed(4)
        with pytest.raises(ExecutorError) as caught:
            house.control(ControlAction.RETRY)
        assert caught.value.fault.reason == "OVERLOADED"
        house.control(ControlAction.STOP)
        assert len(house.ended().controls) == 4

    def test_votes_for_other_steps_are_not_verified_again(
        self, house: ControlHouse, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A plan of many steps that wait costs a look at each step's own votes, not at all that there ever were."""
        count = 12
        steps = [write(f"f{number}", "x\n") for number in range(count)]
        for step in steps:
            step.needs_approval = True
        looked, real = [], Words._vote

        def vote(self: Words, *args: Any, **more: Any) -> Any:
            looked.append(1)
            return real(self, *args, **more)

        monkeypatch.setattr(Words, "_vote", vote)
        house.begin(house.mission(*steps))
        for number in range(1, count + 1):
            house.until(lambda one, step=f"s{number}": one.pause is not None and one.pause.step_id == step)  # type: ignore[misc]  # bound at once
            house.approve_step(house.paused())
        assert house.ended().execution_status == SUCCESS
        assert len(looked) <= 2 * count


def restored(house: ControlHouse, copy: Path) -> None:
    """End the executor, put an older ledger in place of its own, and start it in a new epoch."""
    house.close()
    for name in ("ledger.db", "ledger.db-wal", "ledger.db-shm"):
        (house.own / name).unlink(missing_ok=True)
    shutil.copy(copy, house.own / "ledger.db")
    ledger = SqliteLedger(house.own / "ledger.db")
    ledger.start_epoch("another", "restored", house.wall())
    ledger.close()
    house.open()


class TestAnOlderLedger:
    @pytest.fixture
    def copied(self, house: ControlHouse, tmp_path: Path) -> Path:
        """Where the ledger is copied to, once, before the first step of an execution begins."""
        copy = tmp_path / "copy.db"

        def during() -> None:
            if not copy.exists():
                with closing(sqlite3.connect(house.own / "ledger.db")) as here, closing(sqlite3.connect(copy)) as there:
                    here.backup(there)

        house.during = during
        return copy

    @pytest.mark.parametrize("policy", [PAUSE, ROLL_BACK, STOP])
    def test_what_it_does_not_know_of_is_not_done_again(
        self, house: ControlHouse, copied: Path, policy: plan_pb2.FailurePolicy.ValueType
    ) -> None:
        """The effect's row was lost with the newer ledger: the mission does not go on, and its end is unknown."""

        def pause(_: Setting) -> None:
            house.control(ControlAction.PAUSE)

        house.far.meanwhile = pause
        house.begin(house.mission(live(undo="un-deploy"), write("one", "1\n"), policy=policy))
        house.paused(PauseKind.REQUESTED)
        assert len(house.far.done()) == 1
        restored(house, copied)
        receipt = house.ended()
        assert receipt.execution_status == UNKNOWN
        assert house.payloads(ExecutionPaused) == []
        assert len(house.far.done()) == 1

    def test_an_effect_without_its_row_is_no_part_of_a_success(
        self, house: ControlHouse, copied: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """That a later step was committed tells that it was done; what was done, nobody can tell any more."""
        with monkeypatch.context() as patched:
            patched.setattr(SqliteLedger, "finish", full)
            patched.setattr(carrying_out, "STORE_PAUSE_SECONDS", 0.0)
            house.begin(house.mission(live(), write("one", "1\n")))
            house.until(lambda one: one.ended)
        restored(house, copied)
        assert house.ended().execution_status == UNKNOWN
        assert (house.contents(), len(house.far.done())) == ({"one": "1\n"}, 1)

    def test_files_alone_are_left_where_they_are(self, house: ControlHouse, copied: Path) -> None:
        """The journal tells of them; what was taken back since is lost with the ledger, so it does not go on either."""
        house.fails = {2: 1}
        house.begin(house.writing())
        house.paused()
        restored(house, copied)
        receipt = house.ended()
        assert (receipt.execution_status, house.contents()) == (PARTIAL, {"one": "new one\n"})


class TestWords:
    def test_a_word_that_is_not_settled_is_not_built_upon(
        self, house: ControlHouse, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A full disk keeps it from going on; with room it goes on from there, and leaves out no step."""
        monkeypatch.setattr(live_steps, "SETTLE_PAUSE_SECONDS", 0.0)
        house.far.comes_to = [unknown()]
        house.fails = {2: 1, 3: 1}
        house.begin(house.mission(live(), *writes()))
        pause = house.paused(PauseKind.UNKNOWN_EFFECT)
        with monkeypatch.context() as patched:
            patched.setattr(house.ledger, "settle_effect", full)
            house.reconcile(pause, happened=True)
            house.until(lambda one: one.ended)
        house.restart()
        house.paused(PauseKind.FAILURE)
        house.restart()
        house.paused(PauseKind.FAILURE)
        house.control(ControlAction.RETRY)
        house.failed(2)
        house.control(ControlAction.RETRY)
        receipt = house.ended()
        assert (receipt.execution_status, len(house.contents())) == (SUCCESS, 3)
        assert [step.step_id for step in receipt.steps] == ["s1", "s2", "s3", "s4"]
        assert len(house.payloads(StepReconciled)) == 1

    def test_a_denial_does_not_run_out(self, house: ControlHouse) -> None:
        """Recorded and not acted upon when the process died; it still holds when it has expired by the next start."""
        steps = writes()
        steps[1].needs_approval = True
        house.begin(house.mission(*steps))
        pause = house.paused(PauseKind.STEP_APPROVAL)
        house.die_before_it_takes_effect()
        house.approve_step(pause, decision=evidence_pb2.DECISION_DENY, by=house.second)
        house.close()
        house.wall.ahead = timedelta(minutes=40)
        house.open()
        receipt = house.ended()
        assert receipt.errors[-1] == "stopped by second: denied s2"

    @pytest.mark.parametrize("how", ["expired", "withdrawn"])
    def test_a_retry_asks_again_where_the_step_s_approval_does_not_hold_any_more(
        self, house: ControlHouse, how: str
    ) -> None:
        """What was signed for a moment that has passed, or was taken back by its signer, lets no later attempt run."""
        steps = writes()
        steps[1].needs_approval = True
        house.fails = {2: 1}
        house.begin(house.mission(*steps))
        house.approve_step(house.paused(PauseKind.STEP_APPROVAL), by=house.second)
        house.failed(1)
        if how == "expired":
            house.wall.ahead = timedelta(minutes=31)
        else:
            house.core.revoke(house.revocation(by=house.second))
        house.restart()
        house.control(ControlAction.RETRY)
        pause = house.paused(PauseKind.STEP_APPROVAL)
        assert house.contents() == {"one": "new one\n"}
        house.approve_step(pause, by=house.owner)
        receipt = house.ended()
        assert receipt.execution_status == SUCCESS
        assert receipt.steps[1].step_approvals[-1].approver == "owner"

    def test_a_receipt_after_a_crash_names_who_approved_the_step(
        self, house: ControlHouse, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever the policy, and with what the trust file says of the key."""
        persons = tuple(
            replace(one, keys=tuple(replace(key, hardware=True) for key in one.keys))
            for one in house.trust.policy.persons
        )
        house.close()
        house.trust = replace(house.trust, policy=replace(house.trust.policy, persons=persons))
        house.open()
        steps = writes()
        steps[1].needs_approval = True
        house.begin(house.mission(*steps, policy=STOP))
        pause = house.paused(PauseKind.STEP_APPROVAL)
        monkeypatch.setattr(live_steps, "SETTLE_PAUSE_SECONDS", 0.0)
        with monkeypatch.context() as patched:
            patched.setattr(house.ledger, "finish", full)
            house.approve_step(pause)
            house.until(lambda one: one.failure is not None)
        house.restart()
        receipt = house.ended()
        [approval] = receipt.steps[1].step_approvals
        assert (approval.approver, approval.hardware_key) == ("owner", True)


class TestEffects:
    def test_what_was_not_begun_after_its_claim_did_not_happen(self, house: ControlHouse) -> None:
        """The anchor could not be written after the effect's row: that is certain, so nobody is asked about it."""
        calls: list[int] = []

        def anchor() -> None:
            calls.append(1)
            if len(calls) == 1:
                full()

        object.__setattr__(house.core._executions._carrier.executioner, "before_effects", anchor)
        house.begin(house.mission(live(), write("one", "1\n")))
        pause = house.paused(PauseKind.FAILURE)
        [entry] = house.ledger.effects(house.progress().record.execution_id)
        assert entry.record is not None
        assert (entry.record.state, house.far.done()) == (EffectState.NOT_DONE, [])
        house.restart()
        assert house.paused() == pause
        house.control(ControlAction.RETRY)
        assert house.ended().execution_status == SUCCESS

    def test_an_attempt_without_a_claim_leaves_the_one_before(
        self, house: ControlHouse, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The receipt tells of every effect that was claimed; a restart finds the same wait, and claims nothing new."""
        house.far.comes_to = [unknown()]
        house.begin(house.mission(live()))
        house.reconcile(house.paused(PauseKind.UNKNOWN_EFFECT), happened=False)
        house.failed(1)
        with monkeypatch.context() as patched:
            patched.setattr(house.ledger, "claim_effect", full)
            house.control(ControlAction.RETRY)
            pause = house.failed(2)
        house.restart()
        assert house.paused() == pause
        assert len(house.payloads(EffectClaimed)) == 1
        assert len(house.payloads(FailureDetected)) == 2
        house.control(ControlAction.STOP)
        [step] = house.ended().steps
        assert step.effect.state == evidence_pb2.EFFECT_STATE_NOT_DONE
        assert step.effect.reconciliation.person == "owner"


def test_plans_that_nobody_can_read_any_more_end_unknown(house: ControlHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later release that does not take the plan: what was done outside and under repairs is not denied."""
    house.fails = {3: 1}
    house.begin(house.mission(write("one", "1\n"), live(), write("two", "2\n")))
    house.paused(PauseKind.FAILURE)
    house.close()

    def unreadable(*_: object) -> None:
        raise RequestMalformedError("PLAN_INVALID", "not any more", "plan anew")

    monkeypatch.setattr(OpenDocuments, "plan", unreadable)
    house.open()
    receipt = house.ended()
    assert receipt.execution_status == UNKNOWN
    assert house.contents() == {"one": "1\n"}
