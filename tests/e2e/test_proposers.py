"""Who proposed, proven: plans signed by persons and agents, from the proposal to the receipt, with real processes."""

import json
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from client.api import GonogoClient
from client.errors import RemoteError
from client.plan_signing import ProposedPlan, handed_plan
from client.planfile import parse
from client.signing import Signer, read_signing_key
from client.state import StateDirectory
from gonogo import sealing
from gonogo.signatures import new_signing_key
from gonogo.v1 import evidence_pb2, orchestrator_pb2, plan_pb2, sealed_pb2
from tests.e2e.installation import Installation, installed
from tests.e2e.test_gates import check
from tests.e2e.test_roles import Someone, caller, until
from tests.e2e.wire_house import created, desk, forger, plan_of, signed, step, untouched

AGENT = "owner-agent"
PERSON_KIND = evidence_pb2.PROPOSER_KIND_PERSON
AGENT_KIND = evidence_pb2.PROPOSER_KIND_AGENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Both services, and the owner's agent with a certificate of its own name and the key that `gonogo init` made."""

    house: Installation
    agent: Someone

    @property
    def orchestrator(self) -> str:
        return str(json.loads((self.house.state / "run" / "ready.json").read_text())["orchestrator"])

    def key(self, name: str) -> Path:
        return self.house.state / "keys" / name

    def signer(self, name: str, person: str) -> Signer:
        """Return one of the state's keys, as a person's or an agent's."""
        return Signer(key=read_signing_key(self.key(name)), person=person)

    @asynccontextmanager
    async def calling(self, root: Path) -> AsyncIterator[GonogoClient]:
        """Call with the certificate of a directory."""
        async with GonogoClient.connect(StateDirectory(root=root), address=self.orchestrator) as client:
            yield client


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A fresh installation with a listener for tokens, to which the agent is added as an operator would."""
    folder = tmp_path_factory.mktemp("proposers")
    with installed(folder, options=("--token-listen", "127.0.0.1:0")) as house:
        own = folder / "agent"
        house.json("caller", "certificate", AGENT, "--out", str(own))
        house.json("caller", "add", AGENT, "--role", "propose")
        shutil.copy2(house.state / "keys" / "proposer", own / "keys" / "proposer")
        yield Site(house=house, agent=Someone(house, state=own))


def draft(name: str) -> plan_pb2.PlanDraft:
    return parse(plan_of(step("create_file", path=name, content="x")).encode())


def report_of(sealed: sealed_pb2.Sealed) -> evidence_pb2.Report:
    return sealing.open_sealed(sealed.body, evidence_pb2.Report)


def test_an_agent_proposes_with_the_command(site: Site) -> None:
    """From its own directory, without the trust file, `--sign` is all it takes; report and receipt name it."""
    plan, key = plan_of(step("create_file", path="by-agent.txt", content="x")), str(site.agent.state / "keys/proposer")
    mission = site.agent.json("propose", "-f", "-", "--sign", key, text=plan)["mission_id"]
    proven = site.agent.json("dry-run", mission)["proposer"]
    assert proven == {"kind": "agent", "person": AGENT, "sponsor": "owner"}
    refused = site.house.json("approve", mission, "--key", str(site.key("proposer")), "--yes", code=7)
    assert (refused["reason"], "can propose and not approve" in refused["message"]) == ("APPROVER_UNKNOWN", True)
    site.house.json("approve", mission, "--key", str(site.key("approver")), "--yes")
    assert site.house.json("execute", mission)["proposer"] == proven
    assert site.house.run("verify", mission).code == 0


def test_a_person_signs_a_mission_that_is_there(site: Site) -> None:
    """`gonogo sign` after the proposal; the agent can not sign it, and the owner not with the agent's key."""
    plan = plan_of(step("create_file", path="signed-later.txt", content="x"))
    mission = site.house.json("propose", "-f", "-", text=plan)["mission_id"]
    for someone, key in ((site.house, "proposer"), (site.agent, "proposer")):
        refused = someone.json("sign", mission, "--key", str(site.key(key)), "--yes", code=7)
        assert refused["reason"] == "SIGNATURE_INVALID"
        assert f"gonogo caller add {AGENT}" in refused["remedy"]
    site.house.json("sign", mission, "--yes")
    assert site.house.json("dry-run", mission)["proposer"]["person"] == "owner"


async def test_a_program_proposes_signs_and_gets_the_report_in_one_call(site: Site) -> None:
    """With a certificate of its own name; the report about what was signed knows who signed it."""
    async with site.calling(site.agent.state) as client:
        proposed = await client.propose(draft("own.txt"), dry_run=True, sign=site.signer("proposer", AGENT))
        told = report_of(proposed.report)
        assert (told.proposer.kind, told.proposer.person, told.proposer.sponsor) == (AGENT_KIND, AGENT, "owner")
        assert client.verified(proposed).report.report_id == told.report_id


def test_another_agent_comes_while_all_runs(site: Site, tmp_path: Path) -> None:
    """A key added to the trust file and a caller with a token: from then on it proposes in its own name."""
    key = new_signing_key()
    (tmp_path / "bot").write_bytes(key.private_bytes())
    (tmp_path / "bot").chmod(0o600)
    (tmp_path / "bot.pub").write_text(f"{key.public.line} bot\n")
    options = ("--kind", "agent", "--sponsor", "owner", "--use", "propose")
    site.house.json("trust", "add", "--person", "bot", "--key", str(tmp_path / "bot.pub"), *options)
    bot = caller(site.house, "bot", "propose")
    plan = plan_of(step("create_file", path="bot.txt", content="x"))
    command = ("propose", "-f", "-", "--sign", str(tmp_path / "bot"), "-o", "json")
    until(lambda: bot.run(*command, text=plan).code == 0)
    mission = bot.run(*command, text=plan).json["mission_id"]
    assert bot.json("dry-run", mission)["proposer"] == {"kind": "agent", "person": "bot", "sponsor": "owner"}


async def test_a_signature_over_another_plan_is_refused(site: Site) -> None:
    """A good signature of the proposer's own, but not of these bytes; the mission stays unsigned."""
    async with desk(site.house.state) as one:
        owner = one.signer
        first, second = [await one.client.propose(draft(f"{name}.txt")) for name in ("one", "two")]
        swapped = ProposedPlan(plan=handed(second).plan, digest=handed(second).digest, sealed=first.plan)
        with pytest.raises(RemoteError) as caught:
            await one.client.sign_plan(swapped, owner)
        assert caught.value.reason == "SIGNATURE_INVALID"
        assert caught.value.remedy
        assert not (await one.client.get(second.mission.mission_id)).plan.signatures
        await one.client.sign_plan(handed(second), owner)
        assert len((await one.client.get(second.mission.mission_id)).plan.signatures) == 1


def handed(proposed: orchestrator_pb2.ProposeMissionResponse, proposer: str = "owner") -> ProposedPlan:
    return handed_plan(orchestrator_pb2.GetMissionResponse(mission=proposed.mission, plan=proposed.plan), proposer)


async def test_nobody_signs_for_another_caller(site: Site) -> None:
    """Neither the owner, who has every role, for the agent, nor the agent for the owner; each in their own name."""
    async with desk(site.house.state) as one, site.calling(site.agent.state) as agent:
        theirs, ours = await agent.propose(draft("theirs.txt")), await one.client.propose(draft("ours.txt"))
        key = site.signer("proposer", AGENT)
        for client, plan, signer, reason in (
            (one.client, handed(theirs, AGENT), key, "ROLE_MISSING"),
            (agent, handed(ours), one.signer, "ROLE_MISSING"),
            (one.client, handed(ours), key, "SIGNATURE_INVALID"),
        ):
            with pytest.raises(RemoteError) as caught:
                await client.sign_plan(plan, signer)
            assert caught.value.reason == reason
            assert "certificate or token" in caught.value.remedy
        with pytest.raises(RemoteError) as caught:
            await agent.dry_run(ours.mission.mission_id)
        assert caught.value.reason == "ROLE_MISSING"
        assert report_of((await one.client.dry_run(theirs.mission.mission_id)).report).proposer.person == ""


async def test_the_executor_takes_no_approval_by_an_agent_s_key(site: Site) -> None:
    """Past the orchestrator, in the agent's own name and in the owner's: the executor refuses the key for its use."""
    async with forger(site.house.state) as bad:
        plan = bad.sealed(bad.plan(created("bypassed.txt")))
        report = await bad.dry_run(plan)
        before = untouched(site.house)
        for name in (AGENT, "owner"):
            approval = signed(read_signing_key(site.key("proposer")), bad.approval(plan, report, approver=name))
            check(await bad.refused(bad.request(plan, report, approval)), bad, 3, "APPROVER_UNKNOWN")
        before.check()


async def test_the_receipt_says_which_person_proposed(site: Site) -> None:
    """A person proves with the key they approve with."""
    async with desk(site.house.state) as one:
        proposed = await one.client.propose(draft("person.txt"), dry_run=True, sign=one.signer)
        approval = one.client.approval(one.client.verified(proposed), one.signer)
        last = orchestrator_pb2.ExecuteMissionResponse()
        async for message in one.client.execute(proposed.mission.mission_id, approvals=[approval]):
            last = message
        receipt = sealing.open_sealed(last.receipt.body, evidence_pb2.Receipt)
        assert (receipt.proposer.kind, receipt.proposer.person) == (PERSON_KIND, "owner")
        assert receipt.execution_status == evidence_pb2.OUTCOME_SUCCESS
