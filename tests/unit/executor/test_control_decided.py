"""What people decide reaches the execution, whatever the disk and the end of a process do meanwhile."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from executor.domain.control import ControlAction, PauseKind
from executor.domain.errors import StoreError
from executor.domain.events import ExecutionPaused, StepCompleted, StepStarted
from executor.runner import carrying_out, control
from executor.runner.executions import RefusedError
from gonogo.v1 import evidence_pb2, plan_pb2
from tests.unit.executor.control_house import CONTINUE, PAUSE, ROLL_BACK, STOP, ControlHouse, live, unknown, writes
from tests.unit.executor.undo_house import write

SUCCESS, ABORTED, UNKNOWN = evidence_pb2.OUTCOME_SUCCESS, evidence_pb2.OUTCOME_ABORTED, evidence_pb2.OUTCOME_UNKNOWN


@pytest.fixture
def house(tmp_path: Path) -> Iterator[ControlHouse]:
    """An executor on real files."""
    house = ControlHouse(tmp_path)
    yield house
    house.close()


def full(*_: object, **_more: object) -> None:
    """Find no room."""
    raise StoreError("STORE_FULL", "there is no room", "make some")


def test_a_stop_of_an_unknown_effect_survives_the_executor(house: ControlHouse) -> None:
    """Recorded and not acted upon, because the process died just then: the next start ends it, and asks nobody."""
    house.far.comes_to = [unknown()]
    house.begin(house.mission(live(), write("one", "1\n")))
    house.paused(PauseKind.UNKNOWN_EFFECT)
    house.die_before_it_takes_effect()
    house.control(ControlAction.STOP)
    house.restart()
    receipt = house.ended()
    assert (receipt.execution_status, receipt.abort_reason, len(receipt.controls)) == (UNKNOWN, "STOPPED", 1)


def test_a_stop_holds_that_comes_while_a_pause_waits_for_room(
    house: ControlHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was recorded and answered, so nobody has to say it once more when the pause can be told."""
    monkeypatch.setattr(control, "STORE_SECONDS", 0.01)
    house.fails = {1: 1}
    real, stops = house.ledger.append_events, [1]

    def full_for_events(*arguments: Any) -> None:
        if stops:
            stops.pop()
            raise StoreError("STORE_FULL", "there is no room", "make some")
        real(*arguments)

    waited = control.ControlDesk._stored

    def stored(desk: control.ControlDesk) -> None:
        if desk._flush():
            return
        house.control(ControlAction.STOP)  # the lock is let go of while it waits
        waited(desk)

    monkeypatch.setattr(house.ledger, "append_events", full_for_events)
    monkeypatch.setattr(control.ControlDesk, "_stored", stored)
    house.begin(house.writing())
    receipt = house.ended()
    assert (receipt.execution_status, receipt.abort_reason) == (ABORTED, "STOPPED")


def test_a_retry_after_a_restart_is_of_the_step_that_did_not_happen(house: ControlHouse) -> None:
    """Also under the policy that goes on from what fails: a person was asked, and wants it done."""
    house.far.comes_to = [unknown()]
    house.begin(house.mission(live(), write("one", "1\n"), policy=CONTINUE))
    house.reconcile(house.paused(PauseKind.UNKNOWN_EFFECT), happened=False)
    pause = house.failed(1)
    house.restart()
    assert house.paused() == pause
    house.control(ControlAction.RETRY)
    receipt = house.ended()
    assert (receipt.execution_status, [step.attempts for step in receipt.steps]) == (SUCCESS, [2, 1])
    assert len(house.payloads(ExecutionPaused)) == 2


def read(path: str) -> plan_pb2.Step:
    """A step that leaves no trace."""
    return plan_pb2.Step(read_file=plan_pb2.ReadFile(path=path))


@pytest.mark.parametrize(("policy", "done"), [(STOP, True), (ROLL_BACK, True), (CONTINUE, False)])
def test_a_step_without_a_trace_before_one_that_was_begun_is_told(
    house: ControlHouse, policy: plan_pb2.FailurePolicy.ValueType, done: bool
) -> None:
    """In events and receipt; where failures are gone on from, nobody can tell that it was done."""
    (house.site / "kept").write_text("kept\n")
    request = house.mission(read("kept"), *writes(), policy=policy)
    house.dies = 3
    with pytest.raises(KeyboardInterrupt):
        house.execute(request)
    house.dies = 0
    house.restart()
    receipt = house.ended()
    assert [(step.step_id, step.success) for step in receipt.steps] == [("s1", done), ("s2", True)]
    assert [one.step_id for one in house.payloads(StepStarted)] == ["s1", "s2"]
    assert [one.success for one in house.payloads(StepCompleted)] == [done, True]


def test_a_step_that_found_no_room_before_one_that_was_done_is_told(house: ControlHouse) -> None:
    """Its effect was never claimed, and the plan goes on from failures; nothing tells of it but what came after it."""
    request = house.mission(live(), *writes(), policy=CONTINUE)
    house.dies = 3
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(house.ledger, "claim_effect", full)
        with pytest.raises(KeyboardInterrupt):
            house.execute(request)
    house.dies = 0
    house.restart()
    receipt = house.ended()
    assert [(step.step_id, step.success) for step in receipt.steps] == [("s1", False), ("s2", True)]
    assert house.far.done() == []


@pytest.mark.parametrize("policy", [PAUSE, ROLL_BACK, STOP])
def test_nothing_is_built_on_an_execution_whose_end_found_no_room(
    house: ControlHouse, monkeypatch: pytest.MonkeyPatch, policy: plan_pb2.FailurePolicy.ValueType
) -> None:
    """The next start finds that end out from what is there; until then the workspace is not given to another."""
    monkeypatch.setattr(carrying_out, "STORE_PAUSE_SECONDS", 0.0)
    with monkeypatch.context() as patched:
        patched.setattr(house.ledger, "finish", full)
        house.begin(house.writing(policy=policy))
        house.until(lambda one: one.failure is not None)
    house.idle()
    request = house.mission(write("one", "second\n"), mission="m-2")
    with pytest.raises(RefusedError) as caught:
        house.execute(request)
    assert caught.value.fault.reason == "STORE_FULL"
    house.restart()
    assert house.ended().execution_status == SUCCESS
    assert house.execute(replace(request, request_id=house.next_request())).receipt is not None
    assert house.contents()["one"] == "second\n"
