"""A hostile orchestrator and repair plans: only the next segment, of the execution that waits, as it waits, passes."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from executor.domain.control import PauseKind
from executor.domain.errors import ExecutorError
from executor.runner.executions import RefusedError
from executor.runner.repairs import Repairs
from executor.runner.requests import ExecuteInput
from gonogo import sealing
from gonogo.digests import digest
from gonogo.v1 import evidence_pb2
from tests.attacks.target import Target
from tests.unit.executor.house import ignore
from tests.unit.executor.paused_house import MISSION, PausedMission


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    """An executor as it is started."""
    target = Target(tmp_path)
    yield target
    target.close()


@pytest.fixture
def paused(target: Target) -> PausedMission:
    """A mission that alice proposed and bob approved; it failed and waits."""
    return PausedMission(target, target.good())


def repair(paused: PausedMission, **changes: object) -> ExecuteInput:
    """A repair plan that everything is in order with, by alice and approved by bob."""
    target = paused.house
    assert isinstance(target, Target)
    return paused.approved(paused.repair(**changes), proposer=target.alice, by=target.bob)


def refused(paused: PausedMission, request: ExecuteInput) -> str:
    """The reason for which the whole executor refuses; nothing was claimed, begun or changed then."""
    target = paused.house
    assert isinstance(target, Target)
    before, claims = target.tree(), target.ledger.claims_of(paused.claim.execution_id)
    with pytest.raises(RefusedError) as caught:
        target.core.execute(request, ignore)
    assert target.tree() == before
    assert target.begun == []
    assert target.ledger.claims_of(paused.claim.execution_id) == claims
    refusal = sealing.open_sealed(caught.value.refusal.body, evidence_pb2.Refusal)
    assert refusal.remedy
    return refusal.abort_reason


def test_the_next_segment_is_taken_and_stands_on_its_own_approvals(paused: PausedMission) -> None:
    """A repair plan that fits is claimed under the same execution, with gates, approvals and demand of its own."""
    verified = paused.claimed(repair(paused))
    first, second = paused.house.ledger.claims_of(paused.claim.execution_id)
    assert first == paused.claim
    assert second == verified.claim
    assert (second.execution_id, second.segment) == (first.execution_id, 1)
    assert second.journal_digest == paused.pauses.states[MISSION].results_digest
    assert {one.approval_id for one in first.approvals}.isdisjoint(one.approval_id for one in second.approvals)
    assert second.gates[-1].detail == f"{MISSION}, segment 1, claimed by {first.execution_id}"
    assert paused.house.ledger.plan_of(first.execution_id, 1) is not None


def test_segment_0_once_more(paused: PausedMission) -> None:
    """While its execution waits the first plan is as little taken as while it runs: neither it nor its like."""
    target = paused.house
    assert isinstance(target, Target)
    assert refused(paused, target.again(paused.request)) == "ALREADY_CLAIMED"
    assert refused(paused, target.good(content="other\n")) == "ALREADY_CLAIMED"


def test_a_segment_once_more(paused: PausedMission) -> None:
    """A repair plan is taken once, by whichever request, and another one for the same segment is not."""
    request, rival = repair(paused), repair(paused, plan_id="p-rival", step_id="r1-other")
    paused.claimed(request)
    paused.wait(step_ids=frozenset({"s1", "r1-s1"}))
    again = dataclasses.replace(request, request_id="again")
    assert refused(paused, again) == "ALREADY_CLAIMED"
    assert refused(paused, rival) == "ALREADY_CLAIMED"


STALE: list[tuple[str, str, Callable[[PausedMission], None]]] = [
    ("it went on", "ALREADY_CLAIMED", PausedMission.run_on),
    ("a step waits for its approval", "ALREADY_CLAIMED", lambda one: one.wait(repairable=False)),
    ("it did more since", "PLAN_MISMATCH", lambda one: one.wait(results_digest=digest(b"more"))),
    ("a step of that name since", "PLAN_INVALID", lambda one: one.wait(step_ids=frozenset({"s1", "r1-s1"}))),
]


@pytest.mark.parametrize(("name", "reason", "since"), STALE, ids=[one[0] for one in STALE])
def test_a_repair_plan_that_came_too_late(
    paused: PausedMission, name: str, reason: str, since: Callable[[PausedMission], None]
) -> None:
    """What was dry run and approved for another moment of the execution is not taken in this one."""
    del name
    request = repair(paused)
    since(paused)
    assert refused(paused, request) == reason


@pytest.mark.parametrize(("name", "reason", "since"), STALE, ids=[one[0] for one in STALE])
def test_a_repair_plan_that_is_overtaken_at_the_last_gate(
    paused: PausedMission, name: str, reason: str, since: Callable[[PausedMission], None]
) -> None:
    """The last look comes right before the claim: what changed after the gates 1 to 5 is seen there."""
    del name
    checked = paused.gates.check(repair(paused))
    since(paused)
    with pytest.raises(ExecutorError) as caught:
        paused.gates.claim(checked, paused._workspace)
    assert caught.value.fault.reason == reason
    assert len(paused.house.ledger.claims_of(paused.claim.execution_id)) == 1


FOREIGN: list[tuple[str, dict[str, object], str]] = [
    ("another execution", {"execution_id": "x-other"}, "STATE_FORBIDS"),
    ("another state of it", {"journal_digest": digest(b"other")}, "STATE_FORBIDS"),
    ("a segment too far", {"segment": 2}, "STATE_FORBIDS"),
    ("another intent", {"intent_id": "i-other"}, "STATE_FORBIDS"),
    ("another workspace", {"workspace_id": "other"}, "STATE_FORBIDS"),
    ("another mission", {"mission_id": "m-2"}, "STATE_FORBIDS"),
    ("a step of the first plan", {"step_id": "s1"}, "PLAN_INVALID"),
    ("no segment", {"segment": 0}, "PLAN_INVALID"),
    ("no execution", {"execution_id": ""}, "PLAN_INVALID"),
    ("no state", {"journal_digest": ""}, "PLAN_INVALID"),
]


@pytest.mark.parametrize(("name", "changes", "reason"), FOREIGN, ids=[one[0] for one in FOREIGN])
def test_a_repair_plan_for_something_else_is_not_even_dry_run(
    paused: PausedMission, name: str, changes: dict[str, object], reason: str
) -> None:
    """A repair plan is for one execution, one segment, one state of it, in its workspace; others get no report."""
    del name
    with pytest.raises(ExecutorError) as caught:
        repair(paused, **changes)
    assert caught.value.fault.reason == reason
    assert caught.value.fault.remedy


AT_THE_GATES: list[tuple[str, dict[str, object], str]] = [
    ("another execution", {"execution_id": "x-other"}, "MISSION_MISMATCH"),
    ("another state of it", {"journal_digest": digest(b"other")}, "PLAN_MISMATCH"),
    ("a segment too far", {"segment": 2}, "STATE_FORBIDS"),
    ("another intent", {"intent_id": "i-other"}, "MISSION_MISMATCH"),
    ("another workspace", {"workspace_id": "other"}, "WORKSPACE_MISMATCH"),
]


@pytest.mark.parametrize(("name", "changes", "reason"), AT_THE_GATES, ids=[one[0] for one in AT_THE_GATES])
def test_the_gates_look_for_themselves(
    paused: PausedMission, name: str, changes: dict[str, object], reason: str
) -> None:
    """Even with a report that was issued while something else waited, and good approvals, the plan must fit now."""
    del name
    target = paused.house
    assert isinstance(target, Target)
    sealed = target.sealed_plan(paused.repair(**changes), by=target.alice)
    with pytest.MonkeyPatch.context() as careless:
        careless.setattr(Repairs, "check_dry_run", lambda *_: None)
        report = target.dry_run(sealed)
    elsewhere = changes.get("workspace_id") is not None
    approval = target.touched(sealed, report) if elsewhere else target.approve(sealed, report)
    assert refused(paused, target.request(sealed, report, approval)) == reason


def test_nothing_is_repaired_that_nothing_waits_for(target: Target, paused: PausedMission) -> None:
    """A repair plan for a mission that was never claimed, runs, or has ended is neither dry run nor executed."""
    with pytest.raises(ExecutorError) as caught:
        repair(paused, mission_id="m-new", intent_id="i-m-new")
    assert caught.value.fault.reason == "STATE_FORBIDS"
    request = repair(paused)
    paused.run_on()
    with pytest.raises(ExecutorError) as caught:
        repair(paused, plan_id="p-late")
    assert caught.value.fault.reason == "STATE_FORBIDS"
    assert refused(paused, target.again(request)) == "ALREADY_CLAIMED"


def test_approvals_of_the_first_plan_approve_no_repair(target: Target, paused: PausedMission) -> None:
    """An approval names one report; with the first plan's, or with one that was used, no repair is taken."""
    request = repair(paused)
    assert refused(paused, target.again(request, approvals=paused.request.approvals)) == "PLAN_MISMATCH"
    assert refused(paused, target.again(request, approvals=())) == "NOT_APPROVED"
    used = paused.claim.nonces[0]
    assert request.report is not None
    again = target.approve(request.plan, request.report, by=target.bob, nonce=used)
    with pytest.raises(ExecutorError) as caught:
        paused.claimed(target.again(request, approvals=(again,)))
    assert caught.value.fault.reason == "NOT_APPROVED"


def test_who_proposed_the_repair_does_not_approve_it(target: Target, paused: PausedMission) -> None:
    """Who approved the first plan may propose the repair; then somebody else approves that."""
    plan = paused.repair(proposer="bob")
    assert refused(paused, paused.approved(plan, proposer=target.bob, by=target.bob)) == "SELF_APPROVAL"
    plan = paused.repair(proposer="bob", plan_id="p-second")
    assert paused.claimed(paused.approved(plan, proposer=target.bob, by=target.carol)).claim.segment == 1


def test_what_was_taken_back_holds_for_every_segment(target: Target, paused: PausedMission) -> None:
    """Who withdrew approves no repair of the mission either; others may, until somebody denies it."""
    target.core.revoke(target.revocation(by=target.bob))
    paused.wait(PauseKind.REVOKED)
    assert refused(paused, repair(paused)) == "APPROVAL_REVOKED"
    by_carol = paused.approved(paused.repair(plan_id="p-carol"), proposer=target.alice, by=target.carol)
    checked = paused.gates.check(by_carol)
    target.core.revoke(target.revocation(by=target.carol, kind=evidence_pb2.REVOCATION_KIND_DENY))
    with pytest.raises(ExecutorError) as caught:
        paused.gates.claim(checked, paused._workspace)
    assert caught.value.fault.reason == "NOT_APPROVED"


def test_an_execution_stands_on_its_newest_segment(target: Target, paused: PausedMission) -> None:
    """After a repair it is stopped by those who approved the repair, and no more by those before."""
    revocations = target.core._revocations
    assert target.core.revoke(target.revocation(by=target.bob)).stopping
    by_carol = paused.approved(paused.repair(), proposer=target.alice, by=target.carol)
    claim = paused.claimed(by_carol).claim
    revocations.stands_on(claim)
    assert revocations.stopped(MISSION) is None
    assert target.core.revoke(target.revocation(by=target.carol)).stopping
    stopped = revocations.stopped(MISSION)
    assert stopped is not None
    assert stopped.person == "carol"
    revocations.stands_on(claim)  # said once more it forgets nothing that holds
    assert revocations.stopped(MISSION) == stopped
