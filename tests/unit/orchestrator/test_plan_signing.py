"""A proposer's signature under a plan: who may give it, when, and that it is kept and sent on."""

from collections.abc import Awaitable
from dataclasses import replace

import pytest

from gonogo import sealing
from gonogo.v1 import evidence_pb2
from orchestrator.domain.errors import OrchestratorError, Reason
from orchestrator.domain.evidence import Sealed, Signature
from orchestrator.domain.mission import Mission, MissionStatus
from orchestrator.service.plan_signing import MAX_SIGNATURES
from orchestrator.service.requests import Answer
from tests.fakes.executor_simulator import Approver, ExecutorSimulator
from tests.fakes.orchestrator_house import House, draft, request

AGENT = "owner-agent"


@pytest.fixture
def agent(executor: ExecutorSimulator) -> Approver:
    """An agent of the owner's, whom the executor knows."""
    known = Approver(person=AGENT)
    executor.proposers = (known.proposing(sponsor="owner"),)
    return known


async def proposed(house: House, by: str = AGENT) -> Mission:
    return (await house.use.missions.propose(request(person=by), draft())).mission


def plan_of(house: House, mission: Mission) -> Sealed:
    plan = house.use.missions.store.plan_of(house.mission(mission.mission_id))
    assert plan is not None
    return plan


def sign(house: House, mission: Mission, signature: Signature, *, caller: str = AGENT) -> Awaitable[Answer]:
    return house.use.plan_signing.sign(request(person=caller), mission.mission_id, signature)


async def refused(call: Awaitable[Answer]) -> OrchestratorError:
    """Return the error of a call, which must have a remedy."""
    with pytest.raises(OrchestratorError) as caught:
        await call
    assert caught.value.remedy
    return caught.value


async def test_the_executor_gets_the_signature_and_its_report_names_the_proposer(house: House, agent: Approver) -> None:
    """Signed after the proposal and before the dry run; the receipt's order carries the same signature."""
    mission = await proposed(house)
    answer = await sign(house, mission, agent.sign_plan(plan_of(house, mission)))
    report = sealing.open_sealed((await house.dry_run(mission)).body, evidence_pb2.Report)

    assert house.types(mission.mission_id)[2] == "plan_signed"
    assert [one.person for one in answer.mission.plan_signatures] == [AGENT]
    assert (report.proposer.kind, report.proposer.person, report.proposer.sponsor) == (
        evidence_pb2.PROPOSER_KIND_AGENT,
        AGENT,
        "owner",
    )
    approved = await house.approve(house.mission(mission.mission_id))
    assert house.use.executions._order(mission.mission_id).plan.signatures == plan_of(house, mission).signatures
    assert (await house.execute(approved))[-1].receipt is not None


async def test_a_signature_outlives_the_process(house: House, agent: Approver) -> None:
    """It is in the row of the mission, byte for byte, and the mission's file shows it with the plan."""
    mission = await proposed(house)
    signature = agent.sign_plan(plan_of(house, mission))
    await sign(house, mission, signature)
    following = await house.reopen()
    try:
        plan = following.use.missions.file(mission.mission_id).plan
        assert plan is not None
        assert plan.signatures == (signature,)
    finally:
        await following.close()


async def test_signing_twice_is_signing_once(house: House, agent: Approver) -> None:
    """The same key leaves one signature and one event, also once the mission is approved."""
    mission = await proposed(house)
    signature = agent.sign_plan(plan_of(house, mission))
    await sign(house, mission, signature)
    await sign(house, mission, signature)
    approved = await house.approve(house.mission(mission.mission_id))
    again = await sign(house, mission, signature)

    assert approved.status is again.mission.status is MissionStatus.APPROVED
    assert house.types(mission.mission_id).count("plan_signed") == 1
    assert len(again.mission.plan_signatures) == 1


async def test_a_clone_is_not_signed(house: House, agent: Approver) -> None:
    """A signature is under one plan's bytes; the same steps in another mission are another plan."""
    mission = await proposed(house)
    await sign(house, mission, agent.sign_plan(plan_of(house, mission)))
    clone = (await house.use.missions.clone(request(person=AGENT), mission.mission_id)).mission

    assert clone.plan_signatures == ()
    assert plan_of(house, clone).signatures == ()


async def test_a_signature_under_another_plan_is_refused(house: House, agent: Approver) -> None:
    """It does not verify over the bytes that the mission has."""
    mission, other = await proposed(house), await proposed(house)
    error = await refused(sign(house, mission, agent.sign_plan(plan_of(house, other))))

    assert error.reason is Reason.SIGNATURE_INVALID
    assert "plan_signed" not in house.types(mission.mission_id)


async def test_a_signature_of_somebody_else_than_who_proposed_is_refused(house: House, agent: Approver) -> None:
    """The caller is the proposer, the key another's: the remedy says how to call as that one."""
    mission = await proposed(house, "owner")
    error = await refused(sign(house, mission, agent.sign_plan(plan_of(house, mission)), caller="owner"))

    assert error.reason is Reason.SIGNATURE_INVALID
    assert f"gonogo caller add {AGENT}" in error.remedy


async def test_a_signature_handed_in_by_another_caller_is_refused(house: House, agent: Approver) -> None:
    """Also where it is good: who proposed hands it in, and nobody for them."""
    mission = await proposed(house)
    error = await refused(sign(house, mission, agent.sign_plan(plan_of(house, mission)), caller="owner"))

    assert error.reason is Reason.ROLE_MISSING
    assert "certificate or token" in error.remedy


async def test_a_key_that_the_executor_does_not_know_is_refused(house: House, executor: ExecutorSimulator) -> None:
    """The executor is asked once more, so that a key added a moment ago is known."""
    mission = await proposed(house)
    stranger = Approver(person=AGENT)
    signature = stranger.sign_plan(plan_of(house, mission))
    assert (await refused(sign(house, mission, signature))).reason is Reason.APPROVER_UNKNOWN

    executor.proposers = (stranger.proposing(sponsor="owner"),)
    assert (await sign(house, mission, signature)).mission.plan_signatures


async def test_a_scheme_that_the_key_is_not_listed_with_is_refused(house: House, agent: Approver) -> None:
    """A good signature in another scheme is none of this key's."""
    mission = await proposed(house)
    other = replace(agent, scheme="ed25519")
    error = await refused(sign(house, mission, other.sign_plan(plan_of(house, mission))))

    assert error.reason is Reason.APPROVER_UNKNOWN


async def test_a_mission_that_is_approved_takes_no_signature(house: House, agent: Approver) -> None:
    """What approvers have seen stays as they have seen it."""
    mission = await proposed(house)
    await house.approve(mission)
    error = await refused(sign(house, mission, agent.sign_plan(plan_of(house, mission))))

    assert error.reason is Reason.STATE_FORBIDS


async def test_a_person_proves_with_the_key_they_approve_with(house: House) -> None:
    """A key for approving also proves who proposed."""
    mission = await proposed(house, "owner")
    await sign(house, mission, house.approver.sign_plan(plan_of(house, mission)), caller="owner")
    report = sealing.open_sealed((await house.dry_run(mission)).body, evidence_pb2.Report)

    assert (report.proposer.kind, report.proposer.person) == (evidence_pb2.PROPOSER_KIND_PERSON, "owner")


async def test_a_plan_takes_a_few_signatures_and_no_more(house: House, executor: ExecutorSimulator) -> None:
    """One proposer with many keys does not fill the log."""
    keys = [Approver(person=AGENT) for _ in range(MAX_SIGNATURES + 1)]
    listed = [one.proposing(sponsor="owner") for one in keys]
    executor.proposers = (replace(listed[0], keys=tuple(key for one in listed for key in one.keys)),)
    mission = await proposed(house)
    for one in keys[:-1]:
        await sign(house, mission, one.sign_plan(plan_of(house, mission)))
    error = await refused(sign(house, mission, keys[-1].sign_plan(plan_of(house, mission))))

    assert error.reason is Reason.TOO_LARGE
    assert len(plan_of(house, mission).signatures) == MAX_SIGNATURES
