"""What people decide reaches the execution, whatever the disk and the end of a process do meanwhile."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from executor.adapters.ledger_sqlite import SqliteLedger
from executor.domain.control import ControlAction, PauseKind
from executor.domain.errors import StoreError
from executor.domain.events import (
    ExecutionCompleted,
    ExecutionPaused,
    ReceiptIssued,
    RollbackStarted,
    StepCompleted,
    StepStarted,
)
from executor.domain.receipt import Outcome
from executor.runner import carrying_out, control
from executor.runner.executions import RefusedError
from executor.runner.ports import Event
from gonogo.v1 import evidence_pb2, plan_pb2
from tests.unit.executor.control_house import (
    CONTINUE,
    MISSION,
    PAUSE,
    ROLL_BACK,
    STOP,
    ControlHouse,
    live,
    unknown,
    writes,
)
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


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits between two attempts to store an end."""
    monkeypatch.setattr(carrying_out, "STORE_PAUSE_SECONDS", 0.0)


def without_room(house: ControlHouse, policy: plan_pb2.FailurePolicy.ValueType = PAUSE) -> None:
    """Have a mission come to an end for which there is no room."""
    house.begin(house.writing(policy=policy))
    house.until(lambda one: one.failure is not None)
    house.idle()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("policy", [PAUSE, ROLL_BACK, STOP])
def test_nothing_is_built_on_an_execution_whose_end_found_no_room(
    house: ControlHouse, monkeypatch: pytest.MonkeyPatch, policy: plan_pb2.FailurePolicy.ValueType
) -> None:
    """The next start finds that end out from what is there; until then the workspace is not given to another."""
    with monkeypatch.context() as patched:
        patched.setattr(house.ledger, "finish", full)
        without_room(house, policy)
        request = house.mission(write("one", "second\n"), mission="m-2")
        with pytest.raises(RefusedError) as caught:
            house.execute(request)
    assert caught.value.fault.reason == "STORE_FULL"
    house.restart()
    assert house.ended().execution_status == SUCCESS
    assert house.execute(replace(request, request_id=house.next_request())).receipt is not None
    assert house.contents()["one"] == "second\n"


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("asked", ["by the next mission", "by whoever looks"])
def test_an_end_that_found_no_room_is_stored_once_there_is_some(
    house: ControlHouse, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    """With the receipt that was signed then, and all its events, and without a restart."""
    with monkeypatch.context() as patched:
        patched.setattr(house.ledger, "finish", full)
        without_room(house)
    told = [one.event_id for one in house.core._executions._running.of_mission(MISSION).run.pending()]  # type: ignore[union-attr]  # it is there
    if asked == "by the next mission":
        request = house.mission(write("one", "second\n"), mission="m-2")
        assert house.execute(request).receipt is not None
        assert house.contents()["one"] == "second\n"
    seen = house.progress()  # by who asks first: there is nothing wrong any more
    assert (seen.failure, seen.receipt is None) == (None, False)
    receipt = house.ended()
    assert (receipt.execution_status, len(house.payloads(ReceiptIssued))) == (SUCCESS, 1)
    stored = house.ledger.events(receipt.execution_id, 0)
    assert [one.event_id for one in stored[-len(told) :]] == told
    assert [one.sequence for one in stored] == list(range(1, len(stored) + 1))
    house.restart()
    assert house.ended() == receipt


@pytest.mark.usefixtures("quick")
def test_an_end_that_was_stored_though_the_disk_said_no_is_not_stored_again(
    house: ControlHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that failed may be there all the same; its receipt is the one."""
    real = house.ledger.finish

    def half(*arguments: Any, **named: Any) -> None:
        with suppress(StoreError):
            real(*arguments, **named)
        full()

    with monkeypatch.context() as patched:
        patched.setattr(house.ledger, "finish", half)
        without_room(house)
    receipt = house.ended()
    assert (receipt.execution_status, house.ledger.unfinished()) == (SUCCESS, ())
    assert house.execute(house.mission(write("one", "second\n"), mission="m-2")).receipt is not None


def told_only(ledger: SqliteLedger) -> Callable[..., None]:
    """Store all events of an end but the receipt's, and then find no room."""

    def finish(execution_id: str, *, events: tuple[Event, ...], **_: object) -> None:
        known = {one.event_id for one in ledger.events(execution_id, 0)}
        *rest, _issued = (one for one in events if one.event_id not in known)
        if rest and isinstance(rest[-1].payload, ExecutionCompleted):
            ledger.append_events(execution_id, rest)
        full()

    return finish


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("path", ["one", "three"])
@pytest.mark.parametrize("policy", [PAUSE, ROLL_BACK, STOP, CONTINUE])
def test_a_receipt_says_what_was_told_whatever_somebody_changed_since(
    house: ControlHouse, monkeypatch: pytest.MonkeyPatch, policy: plan_pb2.FailurePolicy.ValueType, path: str
) -> None:
    """The end was told, its receipt was not; what a stranger does before the next start is no part of the execution."""
    with monkeypatch.context() as patched:
        patched.setattr(house.ledger, "finish", told_only(house.ledger))
        without_room(house, policy)
        house.close()
    (house.site / path).write_text("somebody else's\n")
    house.open()
    receipt = house.ended()
    assert [one.outcome for one in house.payloads(ExecutionCompleted)] == [Outcome.SUCCESS]
    assert house.kinds()[-2:] == ["ExecutionCompleted", "ReceiptIssued"]
    assert (receipt.execution_status, receipt.after_fingerprint) == (SUCCESS, receipt.expected_after_fingerprint)
    assert house.contents() == {name: f"new {name}\n" for name in ("one", "two", "three")} | {path: "somebody else's\n"}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("then", ["gone", "as it was"])
def test_an_outcome_that_was_told_as_unknown_stays_so(
    house: ControlHouse, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    """What was in the way of undoing is not there any more at the next start; people were told that nobody knows."""
    one = house.site / "one"

    class Meddling(dict[int, int]):
        def get(self, number: int, default: Any = 0) -> Any:
            if number == len(writes()):
                one.write_text("somebody else's\n")
            return super().get(number, default)

    house.fails = Meddling({3: 1})
    with monkeypatch.context() as patched:
        patched.setattr(house.ledger, "finish", told_only(house.ledger))
        without_room(house, ROLL_BACK)
        house.close()
    if then == "gone":
        one.unlink()
    else:
        one.write_text("new one\n")
    house.open()
    receipt = house.ended()
    assert [told.outcome for told in house.payloads(ExecutionCompleted)] == [Outcome.UNKNOWN]
    assert receipt.execution_status == UNKNOWN


@pytest.mark.parametrize("starts", [1, 2])
def test_what_makes_up_for_an_effect_is_begun_once_in_whichever_life(house: ControlHouse, starts: int) -> None:
    """Begun, and nobody knows whether it happened: so the receipt says, and no start begins it anew, or tells of it."""
    calls = iter([None, KeyboardInterrupt])

    def meanwhile(_setting: object) -> None:
        died = next(calls)
        if died is not None:
            raise died

    house.far.meanwhile = meanwhile
    house.fails = {2: 1}
    request = house.mission(live(undo="take-back"), write("one", "1\n"), policy=ROLL_BACK)
    with pytest.raises(KeyboardInterrupt):
        house.execute(request)
    for _ in range(starts):
        house.restart()
    receipt = house.ended()
    effect = receipt.steps[0].effect
    assert (receipt.execution_status, effect.state) == (UNKNOWN, evidence_pb2.EFFECT_STATE_DONE)
    assert effect.compensation == "nobody knows whether it was made up for"
    assert [word.partition(":")[2] for word in house.far.done()] == ["deploy", "take-back"]
    entries = house.ledger.effects(receipt.execution_id)
    assert [(one.claim.compensates, one.record is None) for one in entries] == [(False, False), (True, True)]
    assert len(house.payloads(RollbackStarted)) <= 1


def test_the_ledger_takes_no_second_row_of_what_makes_up_for_an_effect(house: ControlHouse) -> None:
    """Whoever would begin it once more has nothing to begin it with."""
    house.fails = {2: 1}
    house.execute(house.mission(live(undo="take-back"), write("one", "1\n"), policy=ROLL_BACK))
    _, back = house.ledger.effects(house.ended().execution_id)
    with pytest.raises(StoreError):
        house.ledger.claim_effect(back.claim)
    assert house.ledger.effects(back.claim.execution_id)[1:] == (back,)
