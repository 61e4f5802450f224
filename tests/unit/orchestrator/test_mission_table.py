"""The mission's state machine, pair by pair."""

from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.domain import events as ev
from orchestrator.domain.control import Pause
from orchestrator.domain.errors import Reason, TransitionError
from orchestrator.domain.events import ControlAction
from orchestrator.domain.evidence import Outcome, ReportStatus
from orchestrator.domain.mission import (
    ENDED,
    TRANSITIONS,
    GrantedApproval,
    Mission,
    MissionStatus,
    evolve,
    fold,
    next_status,
)
from orchestrator.domain.plan import Stage
from orchestrator.domain.states import states_diagram, states_page
from orchestrator.service.mission_row import mission_of_row, mission_row

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
S = MissionStatus

MOVES = {
    (None, "mission_proposed"): S.PROPOSED,
    (S.PROPOSED, "mission_approved"): S.APPROVED,
    (S.PROPOSED, "mission_rejected"): S.REJECTED,
    (S.PROPOSED, "mission_expired"): S.EXPIRED,
    (S.PROPOSED, "mission_cancelled"): S.CANCELLED,
    (S.APPROVED, "mission_queued"): S.QUEUED,
    (S.APPROVED, "mission_started"): S.ACTIVE,
    (S.APPROVED, "mission_returned"): S.PROPOSED,
    (S.APPROVED, "mission_expired"): S.EXPIRED,
    (S.APPROVED, "mission_cancelled"): S.CANCELLED,
    (S.QUEUED, "mission_started"): S.ACTIVE,
    (S.QUEUED, "mission_returned"): S.PROPOSED,
    (S.QUEUED, "mission_expired"): S.EXPIRED,
    (S.QUEUED, "mission_cancelled"): S.CANCELLED,
    (S.ACTIVE, "execution_paused"): S.PAUSED,
    (S.PAUSED, "execution_resumed"): S.ACTIVE,
    (S.PAUSED, "execution_stopped"): S.ACTIVE,
    (S.ACTIVE, "mission_completed"): S.COMPLETED,
    (S.ACTIVE, "mission_failed"): S.FAILED,
    (S.ACTIVE, "mission_cancelled"): S.CANCELLED,
    (S.PAUSED, "mission_completed"): S.COMPLETED,
    (S.PAUSED, "mission_failed"): S.FAILED,
    (S.PAUSED, "mission_cancelled"): S.CANCELLED,
}
BEFORE_CLAIM = {"plan_sealed", "plan_signed", "dry_run_started", "dry_run_completed"}
WHILE_OPEN = {"approval_granted", "approval_refused"}
OF_A_REPAIR = {"mission_approved", "mission_returned", "gate_refused"}
EXECUTION = {ev.TYPES[payload] for payload in ev.EXECUTION_PAYLOADS}


def stays(status: MissionStatus | None, name: str) -> bool:
    """Say whether the status takes the event and keeps; written apart from the table, to hold it."""
    where: dict[str, set[MissionStatus]] = {
        **{event_type: {S.ACTIVE, S.PAUSED} for event_type in EXECUTION},
        **{event_type: {S.PROPOSED, S.PAUSED} for event_type in BEFORE_CLAIM},
        **{event_type: {S.PROPOSED, S.APPROVED, S.QUEUED, S.PAUSED} for event_type in WHILE_OPEN},
        **{event_type: {S.PAUSED} for event_type in OF_A_REPAIR},
        "gate_refused": {S.APPROVED, S.QUEUED, S.PAUSED},
        "execution_paused": {S.PAUSED},
        "execution_resumed": {S.ACTIVE},
        "execution_stopped": {S.ACTIVE},
        "feedback_recorded": set(S),
        "signal_recorded": set(S),
    }
    return status in where.get(name, set())


def event(payload: ev.Payload, sequence: int = 1, actor: str = "owner") -> ev.Event:
    return ev.Event(event_id="e-1", mission_id="m-1", sequence=sequence, time=NOW, actor=actor, payload=payload)


def proposed() -> Mission:
    payload = ev.MissionProposed(
        intent_id="i-1", objective="x", workspace_id="site", executor_id="executor-1", proposer="owner"
    )
    return evolve(None, event(payload))


@pytest.mark.quick
@pytest.mark.parametrize("status", [None, *S], ids=str)
@pytest.mark.parametrize("name", sorted(ev.PAYLOADS))
def test_every_pair_is_a_known_move_a_stay_or_an_error_that_names_both(status: MissionStatus | None, name: str) -> None:
    """Each of the (status, event) pairs does exactly what the tables of this test say."""
    if (status, name) in MOVES:
        assert next_status(status, name) is MOVES[status, name]
    elif stays(status, name):
        assert next_status(status, name) is status
    else:
        with pytest.raises(
            TransitionError, match=f"{status.value if status else 'not proposed yet'}.*{name}"
        ) as caught:
            next_status(status, name)
        assert caught.value.reason is Reason.INTERNAL


@pytest.mark.quick
def test_nothing_leads_out_of_an_ended_status() -> None:
    """An ended mission takes feedback, and what is learnt from it, and nothing else."""
    taken = {name for (status, name) in TRANSITIONS if status in ENDED}

    assert taken == {"feedback_recorded", "signal_recorded"}


def test_every_status_can_be_reached() -> None:
    """No status of the table is an island."""
    reached: set[MissionStatus | None] = {None}
    for _round in S:
        reached |= {following for (status, _), following in TRANSITIONS.items() if status in reached}

    assert reached == {None, *S}


def test_the_diagram_has_each_move_of_the_table() -> None:
    """The documentation's diagram is drawn from the table, so it names every move."""
    diagram = states_diagram()

    for (status, name), following in MOVES.items():
        assert f"{status.value if status else '[*]'} --> {following.value}: {name}" in diagram
    assert diagram in states_page()


def test_a_report_replaces_the_former_one_and_voids_its_approvals() -> None:
    """A new dry run leaves nothing of the evidence of the old one."""
    granted = ev.ApprovalGranted(
        approval_id="a-1", approval_digest="d", approver="owner", key_id="k", expires_at=NOW, report_digest="r"
    )
    mission = evolve(proposed(), event(granted, 2))
    completed = ev.DryRunCompleted(
        report_id="r-2",
        report_digest="d2",
        status=ReportStatus.SUCCESS,
        risk=None,
        change_count=1,
        reason="",
        message="",
    )
    after = evolve(mission, event(completed, 3))

    assert len(mission.approvals) == 1
    assert (after.report_id, after.approvals, after.approved_until) == ("r-2", (), None)


def test_a_new_report_leaves_the_proposer_s_signatures() -> None:
    """They are under the plan, which stays; two of them add up also where they come in one go."""
    signed = [ev.PlanSigned(plan_digest="d", person="ann", key_id=key, scheme="sshsig", signature=b"s") for key in "ab"]
    events = [event(payload, sequence) for sequence, payload in enumerate(signed, 2)]
    completed = ev.DryRunCompleted(
        report_id="r", report_digest="d", status=ReportStatus.SUCCESS, risk=None, change_count=1, reason="", message=""
    )

    after = fold([*events, event(completed, 4)], proposed())

    assert after is not None
    assert [(one.key_id, one.person, one.signature) for one in after.plan_signatures] == [
        ("a", "ann", "cw=="),
        ("b", "ann", "cw=="),
    ]


def test_a_returned_mission_has_neither_report_nor_approvals() -> None:
    """Drift sends a mission back to where only a fresh dry run leads on."""
    mission = replace(proposed(), status=S.APPROVED, report_id="r", report_digest="d", approved_until=NOW)

    after = evolve(mission, event(ev.MissionReturned(reason="BASE_DRIFTED", message="drift"), 2))

    assert (after.status, after.report_id, after.report_digest, after.approved_until) == (S.PROPOSED, "", "", None)
    assert after.reason == "drift"


def test_only_the_executor_s_own_events_count_as_its() -> None:
    """Where a stream goes on after a break is told by events of the executor alone."""
    mission = replace(proposed(), status=S.ACTIVE)
    mission = evolve(mission, event(ev.StageChanged(stage=Stage.EDIT), 2, actor="executor-1"))
    mission = evolve(mission, event(ev.FeedbackRecorded(text="fine"), 3, actor="executor-1"))
    mission = evolve(mission, event(ev.ReceiptIssued(receipt_id="rc", receipt_digest="d", execution_id="x"), 4))

    assert mission.executor_events == 1


def test_folding_is_the_same_at_once_and_one_by_one() -> None:
    """The state is a function of the events and of nothing else."""
    events = [
        event(ev.MissionProposed(intent_id="i", objective="x", workspace_id="w", executor_id="e", proposer="p"), 1),
        event(ev.PlanSealed(plan_id="p", plan_digest="d", steps=()), 2),
        event(ev.MissionCancelled(reason="no"), 3),
    ]
    mission = None
    for item in events:
        mission = evolve(mission, item)

    assert fold(events) == mission
    assert mission is not None
    assert {field.name for field in fields(mission)} >= {"mission_id", "status", "last_sequence"}


def paused(**changes: Any) -> Mission:
    """Return a mission that waits after a failure, with the evidence it was executed on."""
    granted = GrantedApproval(
        approval_id="a-1", approval_digest="d", approver="owner", key_id="k", expires_at=NOW, granted_at=NOW
    )
    mission = replace(
        proposed(),
        status=S.ACTIVE,
        plan_id="p-1",
        plan_digest="plan 1",
        steps_count=2,
        report_id="r-1",
        report_digest="report 1",
        report_status=ReportStatus.SUCCESS,
        approvals=(granted,),
        approved_until=NOW,
        execution_id="x-1",
    )
    return replace(evolve(mission, event(FAILED, 9, actor="executor-1")), **changes)


FAILED = ev.ExecutionPaused(reason="it failed", kind=ev.PauseKind.FAILURE, step_id="s2", results_digest="done: s1")
REPAIR_PLAN = ev.PlanSealed(plan_id="p-2", plan_digest="plan 2", steps=(), segment=1)


def test_a_pause_says_what_it_takes_and_an_older_one_says_nothing() -> None:
    """What can be asked of a pause follows from its kind; a log of a release without kinds folds as it did."""
    mission = paused()

    assert mission.status is S.PAUSED
    assert mission.pause == Pause(
        kind=ev.PauseKind.FAILURE,
        reason="it failed",
        step_id="s2",
        results_digest="done: s1",
        actions=(ControlAction.RETRY, ControlAction.STOP),
        repairable=True,
    )
    older = evolve(replace(proposed(), status=S.ACTIVE), event(ev.ExecutionPaused(reason="unknown"), 2))
    assert (older.status, older.pause, older.reason) == (S.PAUSED, None, "unknown")


def test_a_repair_plan_keeps_what_the_segment_before_stood_on() -> None:
    """It has no evidence of its own yet, and the mission waits for the same thing as before."""
    mission = evolve(paused(), event(REPAIR_PLAN, 10))

    assert (mission.status, mission.segment, mission.opened_segment) == (S.PAUSED, 1, 0)
    assert (mission.plan_digest, mission.report_digest, mission.approvals) == ("plan 2", "", ())
    assert (mission.reason, mission.repair_pending) == ("it failed", True)
    (first,) = mission.earlier
    assert (first.segment, first.plan_digest, first.report_digest, len(first.approvals)) == (0, "plan 1", "report 1", 1)
    assert mission.first_plan_digest == "plan 1"
    assert mission.later_plan_digests == ()


def test_another_repair_plan_replaces_one_that_was_never_taken() -> None:
    """Only plans that the execution went under are earlier ones."""
    again = replace(REPAIR_PLAN, plan_id="p-3", plan_digest="plan 3")
    mission = fold([event(REPAIR_PLAN, 10), event(again, 11)], paused())

    assert mission is not None
    assert (mission.plan_digest, [segment.plan_digest for segment in mission.earlier]) == ("plan 3", ["plan 1"])


@pytest.mark.parametrize(
    "payload",
    [
        ev.MissionReturned(reason="BASE_DRIFTED", message="drift"),
        ev.ExecutionResumed(action="retry", actor="owner"),
        ev.ExecutionStopped(actor="owner", reason="enough"),
        ev.ExecutionPaused(reason="again", kind=ev.PauseKind.FAILURE, results_digest="done: s1 and more"),
        ev.ExecutionPaused(reason="nobody knows", kind=ev.PauseKind.UNKNOWN_OUTCOME),
    ],
    ids=["refused", "resumed", "stopped", "paused elsewhere", "lost"],
)
def test_a_repair_plan_is_void_when_it_is_refused_or_the_execution_moves(payload: ev.Payload) -> None:
    """The mission stands on what it stood on before, evidence and all."""
    before = paused()
    after = fold([event(REPAIR_PLAN, 10), event(payload, 11, actor="executor-1")], before)

    assert after is not None
    kept = ("segment", "plan_id", "plan_digest", "report_digest", "report_status", "approvals", "approved_until")
    assert [getattr(after, name) for name in kept] == [getattr(before, name) for name in kept]
    assert after.earlier == ()


def test_an_execution_that_ends_leaves_a_repair_plan_that_it_never_took() -> None:
    """The mission's plan is the one that its receipt is about, also when all of it is folded in one go."""
    completed = ev.ExecutionCompleted(execution_id="x-1", outcome=Outcome.ROLLED_BACK)
    for end in (
        ev.MissionFailed(outcome=Outcome.ROLLED_BACK, reason="recovered"),
        ev.MissionCancelled(reason="stopped"),
        ev.MissionCompleted(final_answer="Done"),
    ):
        told = [event(REPAIR_PLAN, 10), event(completed, 11, actor="executor-1"), event(end, 12)]
        at_once, one_by_one = fold(told, paused()), paused()
        for item in told:
            one_by_one = evolve(one_by_one, item)

        assert at_once == one_by_one
        assert (one_by_one.plan_digest, one_by_one.segment, one_by_one.pause) == ("plan 1", 0, None)


def test_the_same_pause_told_again_leaves_the_repair_plan() -> None:
    """An execution that stands as it stood takes the plan that was made for it."""
    after = fold([event(REPAIR_PLAN, 10), event(replace(FAILED, reason="still"), 11, actor="executor-1")], paused())

    assert after is not None
    assert (after.plan_digest, after.repair_pending) == ("plan 2", True)


def test_an_opened_segment_is_the_one_that_the_executor_names() -> None:
    """Also where another plan was sealed here meanwhile: what runs is what the executor took."""
    opened = ev.SegmentOpened(segment=1, plan_id="p-2", plan_digest="plan 2", report_digest="report 2")
    resumed = ev.ExecutionResumed(action="repair", actor="owner", step_id="r1-s1")
    taken = fold([event(REPAIR_PLAN, 10), event(opened, 11), event(resumed, 12)], paused())
    other = replace(REPAIR_PLAN, plan_id="p-3", plan_digest="plan 3")
    overtaken = fold([event(REPAIR_PLAN, 10), event(other, 11), event(opened, 12), event(resumed, 13)], paused())

    for mission in (taken, overtaken):
        assert mission is not None
        assert (mission.status, mission.segment, mission.opened_segment) == (S.ACTIVE, 1, 1)
        assert (mission.plan_digest, mission.later_plan_digests) == ("plan 2", ("plan 2",))
        assert mission.pause is None
    assert overtaken is not None
    assert overtaken.report_digest == "report 2"


def test_a_row_gives_back_the_mission_with_its_pause_and_its_segments() -> None:
    """What is in the projection is the whole state, and folding again gives the same bytes."""
    mission = evolve(paused(), event(REPAIR_PLAN, 10))
    row = mission_row(mission)

    assert mission_of_row(row) == mission
    assert mission_row(mission_of_row(row)).data == row.data
    assert "segment" not in mission_row(proposed()).data
