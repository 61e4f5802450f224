"""Repair: a new plan for the rest of a mission that waits, with a dry run and approvals of its own, and one receipt."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.domain.control import ControlAction, PauseKind
from executor.domain.events import ExecutionResumed, SegmentOpened, StepStarted
from executor.runner.executions import RefusedError
from gonogo.v1 import evidence_pb2
from tests.unit.executor.control_house import MISSION, ROLL_BACK, ControlHouse
from tests.unit.executor.undo_house import delete, write

SUCCESS, ROLLED_BACK, PARTIAL = (
    evidence_pb2.OUTCOME_SUCCESS,
    evidence_pb2.OUTCOME_ROLLED_BACK,
    evidence_pb2.OUTCOME_PARTIAL,
)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[ControlHouse]:
    """An executor on real files."""
    house = ControlHouse(tmp_path)
    yield house
    house.close()


def failed(house: ControlHouse) -> None:
    """Have the second of three steps fail."""
    house.fails = {2: 1}
    house.begin(house.writing())
    house.paused(PauseKind.FAILURE)


def test_it_goes_on_in_place_of_the_rest(house: ControlHouse) -> None:
    """The steps behind the failure are not begun any more; the one receipt holds both plans and their approvals."""
    failed(house)
    first = house.progress().record.execution_id
    run = house.core.execute(house.repair(write("two", "mended\n"), delete("one")), lambda _: None)
    assert run.execution_id == first
    receipt = house.ended()
    assert house.contents() == {"two": "mended\n"}
    assert (receipt.execution_status, receipt.abort_reason, list(receipt.errors)) == (SUCCESS, "", [])
    assert [(step.step_id, step.segment, step.success) for step in receipt.steps] == [
        ("s1", 0, True),
        ("s2", 0, False),
        ("r1-s1", 1, True),
        ("r1-s2", 1, True),
    ]
    assert receipt.plan_id == f"p-{MISSION}"
    [segment] = receipt.segments
    assert (segment.segment, segment.plan_id, [one.approver for one in segment.approvals]) == (
        1,
        f"p-{MISSION}-1",
        ["owner"],
    )
    assert [(one.action, one.actor) for one in receipt.controls] == [("repair", "owner")]
    [opened] = house.payloads(SegmentOpened)
    assert (opened.segment, opened.plan_digest) == (1, segment.plan_digest)
    assert [one.action for one in house.payloads(ExecutionResumed)] == ["repair"]


def test_rolling_back_undoes_both_plans(house: ControlHouse) -> None:
    """Newest first, over the segments."""
    (house.site / "one").write_text("old one\n")
    before = house.tree()
    failed(house)
    repair = house.repair(write("two", "mended\n"), write("four", "4\n"))
    house.fails = {5: 1}
    house.core.execute(repair, lambda _: None)
    pause = house.paused(PauseKind.FAILURE)
    assert (pause.step_id, house.progress().segment) == ("r1-s2", 1)
    house.control(ControlAction.STOP, roll_back=True)
    receipt = house.ended()
    assert receipt.execution_status == ROLLED_BACK
    assert house.tree() == before
    assert [step.step_id for step in receipt.steps if step.rollback_succeeded] == ["s1", "r1-s1"]


def test_a_repair_s_own_policy_undoes_everything(house: ControlHouse) -> None:
    """A repair plan that says roll back takes the plan before along."""
    before = house.tree()
    failed(house)
    repair = house.repair(write("two", "mended\n"), policy=ROLL_BACK)
    house.fails = {4: 1}
    house.core.execute(repair, lambda _: None)
    assert house.ended().execution_status == ROLLED_BACK
    assert house.tree() == before


def test_a_repair_can_be_repaired(house: ControlHouse) -> None:
    """Each time a new segment, from how it stands then; and over restarts in between."""
    failed(house)
    house.restart()
    repair = house.repair(write("two", "mended\n"), write("four", "4\n"))
    house.fails = {5: 1}
    house.core.execute(repair, lambda _: None)
    pause = house.paused(PauseKind.FAILURE)
    house.restart()
    assert house.paused() == pause
    assert house.progress().segment == 1
    house.core.execute(house.repair(write("five", "5\n")), lambda _: None)
    receipt = house.ended()
    assert house.contents() == {"five": "5\n", "one": "new one\n", "two": "mended\n"}
    assert receipt.execution_status == SUCCESS
    assert [one.segment for one in receipt.segments] == [1, 2]
    assert len(house.ledger.checkpoints(MISSION)) == 3


def test_a_plan_for_another_state_is_refused(house: ControlHouse) -> None:
    """Made before a retry that failed again, it is about what is not so any more; nothing happens, and it waits on."""
    failed(house)
    repair = house.repair(write("two", "mended\n"))
    house.fails = {2: 1}
    house.control(ControlAction.RETRY)
    pause = house.failed(2)
    with pytest.raises(RefusedError):
        house.core.execute(repair, lambda _: None)
    assert house.paused() == pause
    house.core.execute(house.repair(write("two", "mended\n")), lambda _: None)
    assert house.ended().execution_status == SUCCESS


def test_the_same_request_again_finds_the_execution(house: ControlHouse) -> None:
    """A repair plan is taken once, however often its request comes."""
    failed(house)
    repair = house.repair(write("two", "mended\n"))
    run = house.core.execute(repair, lambda _: None)
    assert house.core.execute(repair, lambda _: None).execution_id == run.execution_id
    house.ended()
    assert [one.step_id for one in house.payloads(StepStarted)] == ["s1", "s2", "r1-s1"]


def test_a_claim_that_was_not_gone_on_with_waits_after_the_restart(house: ControlHouse) -> None:
    """The process died between the claim and the first step: the repair plan is open, and a person has it go on."""
    failed(house)
    repair = house.repair(write("two", "mended\n"), policy=ROLL_BACK)
    house.die_before_it_takes_effect()
    house.core.execute(repair, lambda _: None)
    house.restart()
    pause = house.paused(PauseKind.INTERRUPTED)
    assert pause.step_id == "r1-s1"
    assert house.contents() == {"one": "new one\n"}
    house.control(ControlAction.RESUME)
    receipt = house.ended()
    assert (receipt.execution_status, len(receipt.segments)) == (SUCCESS, 1)
    assert len(house.payloads(SegmentOpened)) == 1


def test_another_person_s_repair_goes_on_after_a_withdrawal(house: ControlHouse) -> None:
    """A withdrawn approval never holds again; with a repair plan that others approve the mission goes on."""
    house.during = lambda: house.core.revoke(house.revocation())
    house.begin(house.writing())
    pause = house.paused(PauseKind.REVOKED)
    assert pause.actions == (ControlAction.RESUME, ControlAction.STOP)
    house.control(ControlAction.RESUME)
    again = house.paused(PauseKind.REVOKED)
    assert again.deadline == pause.deadline
    repair = house.repair(write("two", "mended\n"))
    with pytest.raises(RefusedError):
        house.core.execute(repair, lambda _: None)
    assert repair.report is not None
    by_second = house.request(repair.plan, repair.report, house.approve(repair.plan, repair.report, by=house.second))
    house.core.execute(by_second, lambda _: None)
    receipt = house.ended()
    assert (receipt.execution_status, house.contents()) == (SUCCESS, {"two": "mended\n"})
