"""The whiteboard as a fold of events."""

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.domain import events as ev
from orchestrator.domain.events import ControlAction
from orchestrator.domain.evidence import Outcome
from orchestrator.domain.mission import MissionStatus
from orchestrator.domain.plan import Stage
from orchestrator.domain.whiteboard import Whiteboard, whiteboard

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def told(*payloads: ev.Payload) -> Whiteboard:
    """Fold a mission of two steps and what follows, one event a second."""
    steps = tuple(
        ev.PlannedStep(step_id=name, kind=kind, stage=stage, description=kind, target="a")
        for name, kind, stage in (("s1", "write_file", Stage.EDIT), ("s2", "run_tests", Stage.TEST))
    )
    begin: tuple[ev.Payload, ...] = (
        ev.MissionProposed(intent_id="i", objective="x", workspace_id="w", executor_id="e", proposer="p"),
        ev.PlanSealed(plan_id="p", plan_digest="d", steps=steps),
    )
    board = whiteboard(
        ev.Event(
            event_id=f"e-{number}",
            mission_id="m-1",
            sequence=number,
            time=START + timedelta(seconds=number),
            actor="e",
            payload=payload,
        )
        for number, payload in enumerate((*begin, *payloads), 1)
    )
    assert board is not None
    return board


def step(name: str, kind: str, stage: Stage, *, success: bool) -> tuple[ev.Payload, ...]:
    return (
        ev.StepStarted(step_id=name, kind=kind, stage=stage, target="a"),
        ev.StepCompleted(step_id=name, kind=kind, stage=stage, success=success, duration_ms=5, change_count=1),
    )


CLAIM: tuple[ev.Payload, ...] = (
    ev.MissionApproved(approval_id="a", expires_at=START + timedelta(hours=1)),
    ev.MissionStarted(goal="x", steps_count=2, scope_contract=None),
    ev.ExecutionStarted(execution_id="x-1"),
)


@pytest.mark.quick
def test_a_proposed_mission_shows_its_planned_steps() -> None:
    """Nothing has begun, and nothing says that it has."""
    board = told()

    assert (board.status, board.start_time, board.end_time) == (
        MissionStatus.PROPOSED,
        START + timedelta(seconds=1),
        None,
    )
    assert [shown.status for shown in board.steps] == ["planned", "planned"]
    assert board.result.tools_used == ()


def test_a_rolled_back_mission_shows_which_steps_were_undone() -> None:
    """The step that failed stays failed, the earlier one is rolled back; both ran, so both tools were used."""
    board = told(
        *CLAIM,
        *step("s1", "write_file", Stage.EDIT, success=True),
        *step("s2", "run_tests", Stage.TEST, success=False),
        ev.RollbackStarted(step_id="s1"),
        ev.RollbackCompleted(step_id="s1", success=True, message=""),
        ev.ExecutionCompleted(execution_id="x-1", outcome=Outcome.ROLLED_BACK),
        ev.MissionFailed(outcome=Outcome.ROLLED_BACK, reason="tests failed"),
        ev.FeedbackRecorded(text="pity"),
    )

    assert (board.status, board.outcome, board.reason) == (MissionStatus.FAILED, Outcome.ROLLED_BACK, "tests failed")
    assert [shown.status for shown in board.steps] == ["rolled_back", "failed"]
    assert board.result.tools_used == ("run_tests", "write_file")
    assert [(stage.stage, stage.steps, stage.succeeded) for stage in board.stages] == [
        (Stage.EDIT, 1, 0),
        (Stage.TEST, 1, 0),
    ]
    assert board.end_time == START + timedelta(seconds=13)
    assert board.last_sequence == 14


def test_a_running_mission_has_a_running_step_and_an_open_stage() -> None:
    """A stage ends with its last step."""
    board = told(*CLAIM, ev.StepStarted(step_id="s1", kind="write_file", stage=Stage.EDIT, target="a"))

    assert [shown.status for shown in board.steps] == ["running", "planned"]
    assert board.stages[0].start_time == START + timedelta(seconds=6)
    assert board.stages[0].end_time is None


def test_a_step_that_was_begun_again_shows_how_often_and_no_longer_why_it_failed() -> None:
    """What failed and works now has succeeded; the board shows the pause while it lasts."""
    failure = ev.FailureDetected(step_id="s1", reason="CONFLICT", message="somebody was faster")
    pause = ev.ExecutionPaused(reason="s1 failed", kind=ev.PauseKind.FAILURE, step_id="s1", results_digest="d")
    begin = (*CLAIM, *step("s1", "write_file", Stage.EDIT, success=False), failure, pause)

    waiting = told(*begin)
    assert (waiting.steps[0].status, waiting.steps[0].error) == ("failed", "somebody was faster")
    assert waiting.pause is not None
    assert waiting.pause.actions == (ControlAction.RETRY, ControlAction.STOP)
    again = told(
        *begin,
        ev.ExecutionResumed(action="retry", actor="owner", step_id="s1"),
        *step("s1", "write_file", Stage.EDIT, success=True),
    )

    assert (again.steps[0].status, again.steps[0].error, again.steps[0].attempts) == ("succeeded", "", 2)
    assert (again.pause, again.status) == (None, MissionStatus.ACTIVE)


@pytest.mark.parametrize(("happened", "status"), [(True, "succeeded"), (False, "failed")], ids=["yes", "no"])
def test_an_effect_of_which_a_person_spoke_shows_what_was_said(happened: bool, status: str) -> None:
    """Nobody else can tell."""
    board = told(
        *CLAIM,
        ev.StepStarted(step_id="s1", kind="http_request", stage=Stage.EDIT, target="a"),
        ev.EffectClaimed(step_id="s1"),
        ev.ExecutionPaused(reason="who knows", kind=ev.PauseKind.UNKNOWN_EFFECT, step_id="s1"),
        ev.StepReconciled(step_id="s1", happened=happened, person="owner", reconciliation_id="rec-1"),
    )

    assert board.steps[0].status == status


def test_the_steps_of_a_repair_plan_stand_behind_those_it_goes_on_from() -> None:
    """A plan that was replaced or refused leaves nothing on the board; one that was taken stays."""
    pause = ev.ExecutionPaused(reason="s1 failed", kind=ev.PauseKind.FAILURE, step_id="s1", results_digest="d")
    begin = (*CLAIM, *step("s1", "write_file", Stage.EDIT, success=False), pause)
    first, second = repair_plan("a"), repair_plan("b")
    opened = ev.SegmentOpened(segment=1, plan_id="p-b", plan_digest="b", report_digest="r")
    resumed = ev.ExecutionResumed(action="repair", actor="owner")

    assert [one.step_id for one in told(*begin, first, second).steps] == ["s1", "s2", "b"]
    refused = told(*begin, first, ev.MissionReturned(reason="BASE_DRIFTED", message="drift"))
    assert [one.step_id for one in refused.steps] == ["s1", "s2"]
    taken = told(*begin, first, second, opened, resumed, pause, ev.ExecutionResumed(action="resume", actor="owner"))
    assert [(one.step_id, one.segment) for one in taken.steps] == [("s1", 0), ("s2", 0), ("b", 1)]


def repair_plan(name: str) -> ev.PlanSealed:
    planned = ev.PlannedStep(step_id=name, kind="write_file", stage=Stage.EDIT, description=name, target=name)
    return ev.PlanSealed(plan_id=f"p-{name}", plan_digest=name, steps=(planned,), segment=1)


def test_no_events_are_no_board() -> None:
    """There is nothing to show."""
    assert whiteboard(()) is None
