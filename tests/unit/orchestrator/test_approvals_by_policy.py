"""Whose approvals are enough, and which are refused at once: the executor's policy, as the orchestrator knows it."""

from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from gonogo.policy import Condition, Group, Policy, ProposerKind, Requirement, Rule
from gonogo.v1 import evidence_pb2
from orchestrator.domain.errors import ContractError, ExecutorRefusedError, OrchestratorError, Reason
from orchestrator.domain.evidence import Sealed, SelfApproval
from orchestrator.domain.mission import Mission, MissionStatus
from tests.fakes.approvers import Approver, HardwareKey
from tests.fakes.executor_simulator import ExecutorSimulator
from tests.fakes.orchestrator_house import House, draft, request

S = MissionStatus
UNKNOWN_TOO = Rule(
    rule_id="unknown", when=Condition(proposers=(ProposerKind.UNKNOWN,)), require=(Requirement(count=1),)
)


@pytest.fixture
def team(executor: ExecutorSimulator) -> dict[str, Approver]:
    """Four persons and an agent of ann's: two of ann, bob and cid, and dan, must agree; nobody to their own."""
    people = {name: Approver(person=name) for name in ("ann", "bob", "cid", "dan")}
    agent = Approver(person="ann-agent")
    executor.persons = (*executor.persons, *(one.trusted() for one in people.values()))
    executor.proposers = (agent.proposing(sponsor="ann"),)
    executor.groups = (
        Group(group_id="sre", members=("ann", "bob", "cid")),
        Group(group_id="security", members=("cid", "dan")),
    )
    require = (Requirement(count=2, group="sre"), Requirement(count=1, group="security"))
    executor.rules = (Rule(rule_id="both", require=require),)
    executor.approvals_required = 0
    executor.self_approval = SelfApproval.REFUSED
    return {**people, "ann-agent": agent}


async def signed(house: House, by: Approver) -> Mission:
    """Propose, and sign the plan as its proposer."""
    mission = (await house.use.missions.propose(request(person=by.person), draft())).mission
    plan = house.use.missions.store.plan_of(mission)
    assert plan is not None
    await house.use.plan_signing.sign(request(person=by.person), mission.mission_id, by.sign_plan(plan))
    return mission


async def approve(house: House, mission: Mission, by: Approver, **changes: Any) -> Mission:
    return await house.approve(house.mission(mission.mission_id), by, **changes)


async def approve_all(house: House, mission: Mission, people: Sequence[Approver]) -> Mission:
    """Have several approve, one after the other."""
    for one in people:
        mission = await approve(house, mission, one)
    return mission


async def refused(call: Awaitable[object]) -> OrchestratorError:
    """Return the error of a call, which must have a remedy."""
    with pytest.raises(OrchestratorError) as caught:
        await call
    assert caught.value.remedy
    return caught.value


async def test_places_of_two_groups_are_filled_by_three_persons(house: House, team: dict[str, Approver]) -> None:
    """Somebody in both groups fills one place; the mission is approved when the last place is, and then executed."""
    mission = await signed(house, house.approver)
    found = [(await approve(house, mission, team[name])).status for name in ("cid", "bob", "ann")]
    assert found == [S.PROPOSED, S.PROPOSED, S.APPROVED]
    assert (await house.execute(house.mission(mission.mission_id)))[-1].receipt is not None


async def test_heads_alone_are_not_enough(house: House, team: dict[str, Approver]) -> None:
    """Three of one group, and the same person again, leave the other group's place empty."""
    mission = await signed(house, team["dan"])
    for name in ("ann", "bob", "ann"):
        await approve(house, mission, team[name], approval_id=f"a-{name}", nonce=name)
    assert (await approve(house, mission, house.approver)).status is S.PROPOSED
    assert (await approve(house, mission, team["cid"])).status is S.APPROVED


async def test_who_proposed_does_not_count(house: House, team: dict[str, Approver]) -> None:
    """Their own approval is refused at once, and recorded as refused."""
    mission = await signed(house, team["bob"])
    assert (await refused(approve(house, mission, team["bob"]))).reason is Reason.SELF_APPROVAL
    assert house.types(mission.mission_id)[-1] == "approval_refused"


async def test_the_sponsor_of_an_agent_does_not_count(house: House, team: dict[str, Approver]) -> None:
    """Whoever stands behind the agent that proposed is told so; the others are as good as ever."""
    mission = await signed(house, team["ann-agent"])
    error = await refused(approve(house, mission, team["ann"]))
    assert error.reason is Reason.SELF_APPROVAL
    assert "stands behind ann-agent" in error.message
    assert (await approve_all(house, mission, [team[name] for name in ("bob", "cid", "dan")])).status is S.APPROVED


async def test_the_sponsor_does_not_count_where_the_agent_called_and_did_not_sign(
    house: House, team: dict[str, Approver], executor: ExecutorSimulator
) -> None:
    """The orchestrator knows its caller, even where nothing proves it to the executor."""
    executor.rules = (*executor.rules, UNKNOWN_TOO)
    mission = (await house.use.missions.propose(request(person="ann-agent"), draft())).mission
    assert (await refused(approve(house, mission, team["ann"]))).reason is Reason.SELF_APPROVAL
    assert (await approve(house, mission, team["bob"])).status is S.PROPOSED


async def test_an_agent_never_approves_nor_denies(house: House, team: dict[str, Approver]) -> None:
    """A key for proposing is refused for what it is, whatever it signs."""
    mission = await signed(house, house.approver)
    as_ann = replace(team["ann-agent"], person="ann")
    deny = {"decision": evidence_pb2.DECISION_DENY}
    for agent, changes in ((team["ann-agent"], {}), (team["ann-agent"], deny), (as_ann, {})):
        error = await refused(approve(house, mission, agent, **changes))
        assert error.reason is Reason.APPROVER_UNKNOWN
        assert "can propose and not approve" in error.message
    assert house.mission(mission.mission_id).status is S.PROPOSED


async def test_an_unknown_proposer_is_told_to_sign(house: House, team: dict[str, Approver]) -> None:
    """Where no rule is about unknown proposers nobody's approval can count, which is said before anybody has tried."""
    mission = (await house.use.missions.propose(request(), draft())).mission
    error = await refused(approve(house, mission, team["bob"]))
    assert error.reason is Reason.SELF_APPROVAL
    assert "gonogo sign" in error.remedy


async def test_a_rule_for_unknown_proposers_lets_them_be(
    house: House, team: dict[str, Approver], executor: ExecutorSimulator
) -> None:
    """What that rule asks for comes on top."""
    executor.rules = (*executor.rules, UNKNOWN_TOO)
    mission = (await house.use.missions.propose(request(), draft())).mission
    found = [(await approve(house, mission, team[name])).status for name in ("ann", "bob", "cid", "dan")]
    assert found == [S.PROPOSED, S.PROPOSED, S.PROPOSED, S.APPROVED]


async def test_a_rule_about_hardware_keys(house: House, team: dict[str, Approver], executor: ExecutorSimulator) -> None:
    """A key in a file is refused with what to do instead."""
    executor.rules = (Rule(rule_id="touch", require=(Requirement(count=1),), hardware_key=True),)
    eve = Approver(person="eve", key=HardwareKey())
    executor.persons = (*executor.persons, eve.trusted())
    mission = await signed(house, house.approver)
    assert (await refused(approve(house, mission, team["bob"]))).reason is Reason.HARDWARE_KEY_NEEDED
    approved = await approve(house, mission, eve)
    assert approved.status is S.APPROVED
    assert (await house.execute(approved))[-1].receipt is not None


async def test_what_the_policy_refuses_nobody_approves(
    house: House, team: dict[str, Approver], executor: ExecutorSimulator
) -> None:
    """The rule is named; a denial is taken all the same."""
    executor.rules = (*executor.rules, Rule(rule_id="frozen", refuse=True))
    mission = await signed(house, house.approver)
    error = await refused(approve(house, mission, team["bob"]))
    assert error.reason is Reason.POLICY_REFUSES
    assert "frozen" in error.message
    denied = await approve(house, mission, team["bob"], decision=evidence_pb2.DECISION_DENY)
    assert denied.status is S.REJECTED


async def test_a_policy_that_changed_since_is_left_to_the_executor(
    house: House, team: dict[str, Approver], executor: ExecutorSimulator
) -> None:
    """Heads are counted, the executor refuses with what to do, and the mission waits for a fresh dry run."""
    mission = await signed(house, house.approver)
    await house.dry_run(mission)
    executor.trust_version = 2
    three = [team[name] for name in ("ann", "bob", "dan")]
    last = await approve_all(house, mission, three)
    assert last.status is S.APPROVED
    with pytest.raises(ExecutorRefusedError) as caught:
        await house.execute(last)
    assert (caught.value.reason, "trust file changed" in caught.value.message) == (Reason.NOT_APPROVED, True)
    returned = house.mission(mission.mission_id)
    assert (returned.status, returned.report_digest) == (S.PROPOSED, "")
    assert len(returned.plan_signatures) == 1
    assert (await house.execute(await approve_all(house, mission, three)))[-1].receipt is not None


async def test_who_is_new_to_the_trust_file_is_asked_for(
    house: House, team: dict[str, Approver], executor: ExecutorSimulator
) -> None:
    """A report made under a newer policy than the one known here has the executor asked once more."""
    await house.use.approvals.card.get()
    executor.trust_version, executor.rules = 2, (Rule(rule_id="one", require=(Requirement(count=1, group="sre"),)),)
    mission = await signed(house, house.approver)
    assert (await approve(house, mission, team["dan"])).status is S.PROPOSED
    assert (await approve(house, mission, team["ann"])).status is S.APPROVED


async def test_a_signature_after_the_dry_run_leaves_the_decision_to_the_executor(
    house: House, team: dict[str, Approver], executor: ExecutorSimulator
) -> None:
    """The report does not know the proposer yet: heads are counted, and the executor decides by what is proven."""
    executor.rules = (Rule(rule_id="one", require=(Requirement(count=1),)),)
    bob = team["bob"]
    mission = (await house.use.missions.propose(request(person="bob"), draft())).mission
    await house.dry_run(mission)
    plan = house.use.missions.store.plan_of(mission)
    assert plan is not None
    await house.use.plan_signing.sign(request(person="bob"), mission.mission_id, bob.sign_plan(plan))
    assert (await refused(approve(house, mission, bob))).reason is Reason.SELF_APPROVAL
    approved = await approve(house, mission, team["ann"])
    assert approved.status is S.APPROVED
    assert (await house.execute(approved))[-1].receipt is not None


async def test_reports_that_say_no_demand_count_heads(
    house: House, team: dict[str, Approver], executor: ExecutorSimulator
) -> None:
    """What an executor of before asked for is a number."""
    executor.says_demand, executor.rules, executor.approvals_required = False, (), 2
    mission = await signed(house, house.approver)
    assert (await approve(house, mission, team["ann"])).status is S.PROPOSED
    assert (await approve(house, mission, team["bob"])).status is S.APPROVED


async def test_self_approval_where_it_is_allowed(house: House, executor: ExecutorSimulator) -> None:
    """An installation of one person signs or does not sign, and approves its own either way."""
    assert (await house.approved()).status is S.APPROVED
    assert (await approve(house, await signed(house, house.approver), house.approver)).status is S.APPROVED


async def test_a_policy_that_can_not_be_read_is_left_to_the_executor(
    house: House, team: dict[str, Approver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is kept from denying by it, and approvals are counted by heads."""

    def unreadable(_sealed: Sealed) -> Policy:
        raise ContractError(Reason.MALFORMED, "not a policy of this release", "Use one release on both sides.")

    mission, other = await signed(house, house.approver), await signed(house, house.approver)
    monkeypatch.setattr(type(house.use.approvals.documents), "open_policy", staticmethod(unreadable))
    assert (await approve_all(house, mission, [team["ann"], team["bob"]])).status is S.PROPOSED
    assert (await approve(house, mission, team["cid"])).status is S.APPROVED
    assert (await approve(house, other, team["ann"], decision=evidence_pb2.DECISION_DENY)).status is S.REJECTED
