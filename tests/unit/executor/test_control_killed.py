"""Executors that are killed at any event of a mission of any kind, and what the next one makes of it.

A mission is carried out, with people who decide whatever it waits for, in a process of its own; that is killed at one
of its events, once with that event on the disk and once without. The next start must leave it where its record says;
then the same people go on deciding, and it must come to the same end as if nobody had been killed.
"""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from executor.domain.control import ControlAction, PauseKind
from executor.domain.events import CheckpointCreated, ExecutionPaused, ExecutionResumed, Payload, ReceiptIssued
from executor.domain.receipt import Outcome, StepReceipt
from executor.runner import execute, step_receipts
from executor.runner.requests import ExecuteInput
from executor.runner.run import Progress, Recorder
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
from tests.unit.executor.test_recovery import POINTS, in_child
from tests.unit.executor.undo_house import write

NEW = {"one": "new one\n", "two": "new two\n", "three": "new three\n"}
MOST_EVENTS = 60


@dataclass(frozen=True)
class Story:
    """A mission, what goes wrong with it, and what it may come to."""

    request: Callable[[ControlHouse], ExecuteInput]
    prepare: Callable[[ControlHouse], object] = lambda _: None
    left: tuple[dict[str, str], ...] = (NEW,)
    outcomes: tuple[str, ...] = ("success",)
    done_outside: int = 0


def plain(policy: plan_pb2.FailurePolicy.ValueType) -> Callable[[ControlHouse], ExecuteInput]:
    """A mission of three files."""
    return lambda house: house.writing(policy=policy)


def asking(house: ControlHouse) -> ExecuteInput:
    """A mission whose second step waits for a signature."""
    steps = writes()
    steps[1].needs_approval = True
    return house.mission(*steps, policy=ROLL_BACK)


def outside(house: ControlHouse) -> ExecuteInput:
    """A mission that does something outside between two files."""
    return house.mission(write("one", "new one\n"), live(), write("two", "new two\n"), policy=ROLL_BACK)


def fail_second(house: ControlHouse) -> None:
    """Have the second step fail once."""
    house.fails = {2: 1}


def pause_first(house: ControlHouse) -> None:
    """Have somebody ask for a pause at once, and once only."""
    house.during = lambda: None if house.progress().segment or house.payloads(ExecutionPaused) else ask(house)


def ask(house: ControlHouse) -> None:
    """Ask for a pause."""
    house.control(ControlAction.PAUSE)


def lose_the_line(house: ControlHouse) -> None:
    """Have nobody know of the effect."""
    house.far.comes_to = [unknown()]


PARTS = tuple(dict(list(NEW.items())[:count]) for count in range(len(NEW) + 1))
UNASKED = ("success", "rolled_back", "aborted")
BOTH = (PARTS[0], PARTS[2])
STORIES: dict[str, Story] = {
    "roll back": Story(plain(ROLL_BACK), left=({}, NEW), outcomes=UNASKED),
    "stop": Story(plain(STOP), left=PARTS, outcomes=(*UNASKED, "partial")),
    "continue": Story(plain(CONTINUE), left=PARTS, outcomes=(*UNASKED, "partial")),
    "pause": Story(plain(PAUSE)),
    "failure and retry": Story(plain(PAUSE), fail_second),
    "asked for": Story(plain(PAUSE), pause_first),
    "step approval": Story(asking, left=({}, NEW), outcomes=UNASKED),
    "effect": Story(outside, left=BOTH, outcomes=(*UNASKED, "partial"), done_outside=1),
    "unknown effect": Story(outside, lose_the_line, left=BOTH, outcomes=(*UNASKED, "partial"), done_outside=1),
    "repair": Story(plain(PAUSE), fail_second, left=({"one": "new one\n", "two": "mended\n"},)),
}
"""Under other policies than pause an execution that was cut off in the middle is ended by the next start."""


def decide(house: ControlHouse, story: str) -> None:
    """Decide as a person would, whenever it waits, until it has ended."""
    while not (progress := house.until(lambda one: one.ended or one.pause is not None)).ended:
        pause = progress.pause
        assert pause is not None
        match pause.kind:
            case PauseKind.FAILURE if story == "repair" and not progress.segment:
                house.core.execute(house.repair(write("two", "mended\n")), lambda _: None)
            case PauseKind.INTERRUPTED if story == "repair" and not progress.segment and "one" in house.contents():
                house.core.execute(house.repair(write("two", "mended\n")), lambda _: None)
            case PauseKind.FAILURE:
                house.control(ControlAction.RETRY)
            case PauseKind.STEP_APPROVAL:
                house.approve_step(pause)
            case PauseKind.UNKNOWN_EFFECT:
                house.reconcile(pause, happened=bool(house.far.done()))
            case _:
                house.control(ControlAction.RESUME)


def kill_at_event(house: ControlHouse, number: int, *, stored: bool) -> None:
    """Have this process die once an event is recorded."""
    real = Recorder.__call__

    def recorded(self: Recorder, payload: Payload) -> None:
        real(self, payload)
        [*running] = house.core._executions._running._by_id.values()
        if not running or self.count < number:
            return
        if stored and not isinstance(payload, ReceiptIssued):  # which is stored with the receipt
            house.core._executions._carrier.flusher.flush(running[0].run)
        os.kill(os.getpid(), signal.SIGKILL)

    Recorder.__call__ = recorded  # type: ignore[method-assign]  # in this process alone


QUICK = ("failure and retry", "repair", "step approval", "unknown effect")


@pytest.fixture(params=[one if one in QUICK else pytest.param(one, marks=pytest.mark.long) for one in STORIES])
def story(request: pytest.FixtureRequest) -> str:
    """Each of them."""
    return str(request.param)


@pytest.mark.parametrize(
    "stored", [pytest.param(True, id="stored"), pytest.param(False, id="lost", marks=pytest.mark.long)]
)
def test_killed_at_any_event(tmp_path: Path, story: str, *, stored: bool) -> None:
    """It comes to the same end; no event is lost that was seen, none told twice, nothing is done twice."""
    cut_in_the_middle = 0
    for number in range(1, MOST_EVENTS):
        root = tmp_path / str(number)
        root.mkdir()
        if not killed(root, story, number, stored=stored):
            break
        cut_in_the_middle += checked(root, story)
    else:
        pytest.fail("the mission never came to its end")
    assert cut_in_the_middle > 1


HOUSES: dict[Path, ControlHouse] = {}


def killed(root: Path, story: str, number: int, *, stored: bool) -> bool:
    """Carry the story out in a process that dies at an event; returns whether it did."""
    told = STORIES[story]
    house = HOUSES[root] = ControlHouse(root)
    request = told.request(house)
    house.close()

    def act() -> None:
        house.open()
        told.prepare(house)
        kill_at_event(house, number, stored=stored)
        house.begin(request)
        decide(house, story)

    return in_child(act)


def checked(root: Path, story: str) -> bool:
    """Start the next executor, go on deciding, hold the invariants; returns whether it was cut between two steps."""
    told, house = STORIES[story], HOUSES.pop(root)
    found = house.contents()
    house.open()
    seen = house.progress().events
    decide(house, story)
    progress = house.progress()
    assert progress.events[: len(seen)] == seen
    check_told_once(progress)
    receipt = house.ended()
    outcome = evidence_pb2.Outcome.Name(receipt.execution_status).removeprefix("OUTCOME_").lower()
    assert outcome in told.outcomes, (story, outcome, list(receipt.errors), house.kinds())
    if story != "repair" or receipt.segments:
        assert house.contents() in told.left, (story, outcome, house.contents(), house.kinds())
    assert len(house.far.done()) <= told.done_outside
    if outcome == "success":
        assert len(house.far.done()) == told.done_outside
        check_committed_once(house)
    assert len([one for one in house.ledger.claims_of(receipt.execution_id) if one.segment == 0]) == 1
    between = found not in ({}, NEW, told.left[-1])
    house.close()
    return between


def check_told_once(progress: Progress) -> None:
    """Numbered from one without a gap, one end, one receipt, and never two pauses without anything between them."""
    kinds = [type(event.payload).__name__ for event in progress.events]
    assert [event.sequence for event in progress.events] == list(range(1, len(kinds) + 1))
    assert kinds[-2:] == ["ExecutionCompleted", "ReceiptIssued"]
    assert kinds.count("ExecutionCompleted") == kinds.count("ExecutionStarted") == 1
    assert progress.record.outcome in set(Outcome)
    between = [kind for kind in kinds if kind in {"ExecutionPaused", "ExecutionResumed"}]
    assert len({event.event_id for event in progress.events}) == len(kinds)
    assert between.count("ExecutionResumed") <= between.count("ExecutionPaused")


def check_committed_once(house: ControlHouse) -> None:
    """Every slot that was taken was taken once."""
    slots = [one.checkpoint_id for one in house.payloads(CheckpointCreated)]
    assert len(slots) == len(set(slots))
    assert all(one.action != "" for one in house.payloads(ExecutionResumed))
    assert house.progress(MISSION).ended


@pytest.mark.parametrize("point", POINTS)
def test_killed_inside_a_commit_a_person_has_it_go_on(tmp_path: Path, point: str) -> None:
    """Where the plan has people asked, what was cut off is undone, what was committed stands, and it goes on there."""
    deadly, _, kept = POINTS[point]
    house = ControlHouse(tmp_path)
    request = house.writing()
    house.close()

    def act() -> None:
        house.open()
        deadly()
        house.begin(request)
        decide(house, "pause")

    assert in_child(act)
    house.open()
    assert len(house.contents()) == kept
    decide(house, "pause")
    receipt = house.ended()
    assert (receipt.execution_status, house.contents()) == (evidence_pb2.OUTCOME_SUCCESS, NEW)
    assert sum(step.attempts for step in receipt.steps) <= len(NEW) + 1
    check_told_once(house.progress())
    house.close()


def test_an_execution_that_breaks_off_waits_where_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected error in the executor itself is no reason to throw a mission away, nor to wait for a restart."""
    real, calls = step_receipts.step_receipt, 0

    def breaks(*arguments: Any) -> StepReceipt:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise ZeroDivisionError("broken")
        return real(*arguments)

    monkeypatch.setattr(execute, "step_receipt", breaks)
    house = ControlHouse(tmp_path)
    house.begin(house.writing())
    pause = house.paused(PauseKind.INTERRUPTED)
    assert (pause.step_id, sorted(house.contents())) == ("s3", ["one", "two"])
    house.control(ControlAction.RESUME)
    assert house.ended().execution_status == evidence_pb2.OUTCOME_SUCCESS
    check_told_once(house.progress())
    house.close()
