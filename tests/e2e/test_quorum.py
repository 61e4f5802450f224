"""Two groups, three persons, nobody for their own: the quorum over the wire, and at the executor itself."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from client.api import GonogoClient
from client.certificates import issue_client, load_authority
from client.errors import RemoteError
from client.planfile import parse
from client.signing import Signer, read_signing_key
from client.state import StateDirectory
from client.verification import VerifiedMission
from gonogo import sealing
from gonogo.signatures import SigningKey, load_signing_key, new_signing_key
from gonogo.v1 import events_pb2, evidence_pb2, orchestrator_pb2, sealed_pb2
from tests.e2e.by_hand import Pair, prepared, start_executor, start_orchestrator
from tests.e2e.installation import Installation
from tests.e2e.test_gates import check
from tests.e2e.wire_house import created, forger, plan_of, signed, step, untouched

PROPOSED, APPROVED = events_pb2.MISSION_STATUS_PROPOSED, events_pb2.MISSION_STATUS_APPROVED
AGENT = "owner-agent"
NAMES = ("ann", "bob", "cid", "dan")

PERSON = """
[[persons]]
id = "{name}"
  [[persons.keys]]
  scheme = "sshsig"
  public_key = "{line}"
"""
RULES = """
[[groups]]
id = "sre"
members = ["ann", "bob", "cid", "owner"]
[[groups]]
id = "security"
members = ["cid", "dan"]

[[rules]]
id = "both"
require = [{ count = 2, group = "sre" }, { count = 1, group = "security" }]

[[rules]]
id = "unsigned"
when = { proposers = ["unknown"] }
require = [{ count = 1 }]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """Both services, four persons besides the owner, and the owner's agent."""

    pair: Pair
    keys: dict[str, SigningKey]
    agent: Path
    """Where the agent's certificate is."""

    @property
    def house(self) -> Installation:
        return self.pair.house

    def signer(self, name: str) -> Signer:
        return Signer(key=self.keys[name], person=name)

    @asynccontextmanager
    async def calling(self, root: Path | None = None) -> AsyncIterator["Caller"]:
        """Call as the owner, or with the certificate of another directory."""
        state = StateDirectory(root=root or self.house.state)
        async with GonogoClient.connect(state, address=self.pair.orchestrator.address) as client:
            yield Caller(team=self, client=client)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Somebody who calls, and hands in whoever's signatures."""

    team: Team
    client: GonogoClient

    async def proposed(self, name: str, by: str = "") -> VerifiedMission:
        """Propose a file, signed by somebody or by nobody, and have it dry-run."""
        draft = parse(plan_of(step("create_file", path=name, content="x")).encode())
        proposed = await self.client.propose(draft, dry_run=True, sign=self.team.signer(by) if by else None)
        return self.client.verified(proposed)

    async def approve(self, mission: VerifiedMission, name: str) -> orchestrator_pb2.Mission:
        return (await self.client.approve(mission, self.team.signer(name))).mission

    async def refused(self, mission: VerifiedMission, name: str) -> str:
        """Approve in vain; return the reason."""
        with pytest.raises(RemoteError) as caught:
            await self.approve(mission, name)
        assert caught.value.remedy
        return caught.value.reason

    async def execute(self, mission: VerifiedMission) -> evidence_pb2.Receipt:
        last = orchestrator_pb2.ExecuteMissionResponse()
        async for message in self.client.execute(mission.plan.mission_id):
            last = message
        return sealing.open_sealed(last.receipt.body, evidence_pb2.Receipt)


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """An executor whose trust file leaves everything to two rules, and refuses everybody's approval of their own."""
    folder = tmp_path_factory.mktemp("quorum")
    house = prepared(folder)
    keys = {name: new_signing_key() for name in NAMES}
    trust = house.state / "trust.toml"
    text = trust.read_text().replace("approvals_required = 1\n", "").replace('"allowed"', '"refused"')
    text += "".join(PERSON.format(name=name, line=key.public.line) for name, key in keys.items())
    trust.write_text(text + RULES)
    keys |= {"owner": read_signing_key(house.state / "keys/approver"), AGENT: proposer_key(house)}
    executor = start_executor(house.state, house.workspaces)
    orchestrator = start_orchestrator(house.state, executor.address)
    yield Team(
        pair=Pair(house=house, executor=executor, orchestrator=orchestrator),
        keys=keys,
        agent=agent_directory(house, folder / "agent"),
    )
    orchestrator.stop()
    executor.stop()


def proposer_key(house: Installation) -> SigningKey:
    return load_signing_key((house.state / "keys/proposer").read_bytes())


def agent_directory(house: Installation, root: Path) -> Path:
    """Issue a certificate of the agent's name, as `gonogo caller certificate` does."""
    issued = issue_client(load_authority(house.state / "tls"), AGENT, timedelta(days=1))
    (root / "tls").mkdir(parents=True)
    (root / "keys").mkdir()
    (root / "tls/client.pem").write_bytes(issued.certificate)
    (root / "tls/client.key").write_bytes(issued.key)
    for name in ("tls/ca.pem", "keys/executor.pub"):
        (root / name).write_bytes((house.state / name).read_bytes())
    return root


async def test_three_persons_of_two_groups(team: Team) -> None:
    """Two of one and one of the other; neither the same person again nor one who fills two places makes up for it."""
    async with team.calling() as owner:
        mission = await owner.proposed("three.txt", by="owner")
        demand = mission.report.demand
        assert [(one.count, one.group) for one in demand.requirements] == [(2, "sre"), (1, "security")]
        assert [(await owner.approve(mission, name)).status for name in ("cid", "cid", "ann", "ann")] == [PROPOSED] * 4
        assert (await owner.approve(mission, "bob")).status == APPROVED
        receipt = await owner.execute(mission)
        assert {one.approver for one in receipt.approvals} == {"ann", "bob", "cid"}
        assert (receipt.proposer.person, receipt.demand) == ("owner", demand)
        assert receipt.execution_status == evidence_pb2.OUTCOME_SUCCESS


async def test_heads_of_one_group_do_not_fill_the_other(team: Team) -> None:
    """Three of the four of one group leave the other's place empty, until one of that comes."""
    async with team.calling() as owner:
        mission = await owner.proposed("heads.txt", by="owner")
        assert [(await owner.approve(mission, name)).status for name in ("ann", "bob")] == [PROPOSED] * 2
        assert (await owner.approve(mission, "dan")).status == APPROVED


async def test_the_proposer_does_not_count(team: Team) -> None:
    """The owner, who is of a group, proposed; their own approval is refused at once."""
    async with team.calling() as owner:
        mission = await owner.proposed("own.txt", by="owner")
        assert await owner.refused(mission, "owner") == "SELF_APPROVAL"


async def test_the_agent_s_sponsor_does_not_count(team: Team) -> None:
    """The owner's agent proposed, with a certificate and a key of its own; three others are needed and enough."""
    async with team.calling(team.agent) as agent, team.calling() as owner:
        with pytest.raises(RemoteError) as caught:
            await agent.client.list()
        assert "gonogo caller add" in caught.value.remedy
        await owner.client.add_caller(
            orchestrator_pb2.AddCallerRequest(
                name=AGENT,
                credential=orchestrator_pb2.CALLER_CREDENTIAL_CERTIFICATE,
                roles=[orchestrator_pb2.ROLE_PROPOSE],
            )
        )
        mission = await agent.proposed("agent.txt", by=AGENT)
        assert mission.report.proposer.sponsor == "owner"
        assert await owner.refused(mission, "owner") == "SELF_APPROVAL"
        assert await owner.refused(mission, AGENT) == "APPROVER_UNKNOWN"
        assert [(await owner.approve(mission, name)).status for name in ("ann", "bob")] == [PROPOSED] * 2
        assert (await owner.approve(mission, "dan")).status == APPROVED
        receipt = await owner.execute(mission)
        assert (receipt.proposer.person, receipt.proposer.sponsor) == (AGENT, "owner")


async def test_an_unknown_proposer_needs_one_more(team: Team) -> None:
    """A rule is about plans that nobody signed: a fourth person, and not the one who called."""
    async with team.calling() as owner:
        mission = await owner.proposed("unknown.txt")
        assert list(mission.report.demand.rules) == ["both", "unsigned"]
        assert await owner.refused(mission, "owner") == "SELF_APPROVAL"
        assert [(await owner.approve(mission, name)).status for name in ("ann", "bob", "dan")] == [PROPOSED] * 3
        assert (await owner.approve(mission, "cid")).status == APPROVED
        receipt = await owner.execute(mission)
        assert receipt.proposer.kind == evidence_pb2.PROPOSER_KIND_UNKNOWN
        assert len(receipt.approvals) == 4


@pytest.mark.parametrize(
    ("by", "approvers", "reason"),
    [
        ("owner", ("ann", "bob"), "QUORUM_NOT_MET"),
        ("owner", ("ann", "cid"), "QUORUM_NOT_MET"),
        ("owner", ("ann", "ann", "dan"), "QUORUM_NOT_MET"),
        ("owner", ("ann", "owner", "dan"), "SELF_APPROVAL"),
        (AGENT, ("ann", "owner", "dan"), "SELF_APPROVAL"),
        (AGENT, ("ann", "bob", AGENT), "APPROVER_UNKNOWN"),
        ("", ("ann", "bob", "dan"), "QUORUM_NOT_MET"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else None,
)
async def test_the_executor_itself_counts(team: Team, by: str, approvers: tuple[str, ...], reason: str) -> None:
    """Past the orchestrator, which would not have sent these: refused, signed, and nothing touched."""
    async with forger(team.house.state) as bad:
        plan = bad.sealed(bad.plan(created(f"bypassed-{by}.txt"), proposer=by or "owner"))
        if by:
            plan.signatures.append(plan_signature(team.keys[by], plan))
        report = await bad.dry_run(plan)
        approvals = [signed(team.keys[name], bad.approval(plan, report, approver=name)) for name in approvers]
        before = untouched(team.house)
        check(await bad.refused(bad.request(plan, report, *approvals)), bad, 3, reason)
        before.check()


def plan_signature(key: SigningKey, plan: sealed_pb2.Sealed) -> sealed_pb2.Signature:
    signature = key.sign("sshsig", sealing.PLAN, plan.body)
    return sealed_pb2.Signature(key_id=key.public.key_id, scheme="sshsig", signature=signature)
