"""The mission's state machine, pair by pair."""

from dataclasses import fields, replace
from datetime import UTC, datetime

import pytest

from orchestrator.domain import events as ev
from orchestrator.domain.errors import Reason, TransitionError
from orchestrator.domain.evidence import ReportStatus
from orchestrator.domain.mission import ENDED, TRANSITIONS, Mission, MissionStatus, evolve, fold, next_status
from orchestrator.domain.plan import Stage
from orchestrator.domain.states import states_diagram, states_page

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
    (S.ACTIVE, "mission_completed"): S.COMPLETED,
    (S.ACTIVE, "mission_failed"): S.FAILED,
    (S.ACTIVE, "mission_cancelled"): S.CANCELLED,
    (S.PAUSED, "mission_completed"): S.COMPLETED,
    (S.PAUSED, "mission_failed"): S.FAILED,
    (S.PAUSED, "mission_cancelled"): S.CANCELLED,
}
BEFORE_CLAIM = {"plan_sealed", "plan_signed", "dry_run_started", "dry_run_completed"}
WHILE_OPEN = {"approval_granted", "approval_refused"}
EXECUTION = {ev.TYPES[payload] for payload in ev.EXECUTION_PAYLOADS}


def stays(status: MissionStatus | None, name: str) -> bool:
    """Say whether the status takes the event and keeps; written apart from the table, to hold it."""
    where: dict[str, set[MissionStatus]] = {
        **{event_type: {S.ACTIVE, S.PAUSED} for event_type in EXECUTION},
        **{event_type: {S.PROPOSED} for event_type in BEFORE_CLAIM},
        **{event_type: {S.PROPOSED, S.APPROVED, S.QUEUED} for event_type in WHILE_OPEN},
        "gate_refused": {S.APPROVED, S.QUEUED},
        "execution_paused": {S.PAUSED},
        "feedback_recorded": set(S),
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
    """An ended mission takes feedback and nothing else."""
    taken = {name for (status, name) in TRANSITIONS if status in ENDED}

    assert taken == {"feedback_recorded"}


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
