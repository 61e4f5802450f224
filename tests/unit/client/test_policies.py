"""Policies and trust files on the command line: who must approve and why, tables of cases, edits of the trust file."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from client.__main__ import run_command
from client.api import GonogoClient
from client.bundle import SealedText
from client.errors import ClientError
from client.explaining import Explanation, explain
from client.policy_cases import read_cases, run_case
from client.proving.opened import OpenApproval
from client.signing import Signer, sign_approval
from client.state import StateDirectory
from client.taken_back import TakenBack
from client.verification import VerifiedMission, verify_mission
from gonogo import sealing
from gonogo.digests import digest
from gonogo.policy import (
    Condition,
    Group,
    Key,
    KeyUse,
    Person,
    PersonKind,
    Policy,
    Proposer,
    ProposerKind,
    Requirement,
    Rule,
    demand_of,
)
from gonogo.policy_document import demand_to_proto, seal_policy
from gonogo.policy_words import demand_words
from gonogo.signatures import ED25519, SSHSIG, SigningKey, new_signing_key
from gonogo.ssh_keys import load_public_key
from gonogo.v1 import evidence_pb2, executor_pb2, plan_pb2, sealed_pb2
from tests.unit.client.orchestrator_simulator import Simulator

NOW = datetime(2027, 1, 4, 12, tzinfo=UTC)
TOUCHED = load_public_key(
    "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29t"
    "AAAAIGYRKj0ExK2tLUgkzwRSUrcKOaQhuPmRZ3MRrpcGx1fyAAAABHNzaDo="
)


Command = Callable[..., tuple[int, str, str]]


@dataclass(frozen=True, kw_only=True)
class Team:
    """Persons with keys, an agent, and a policy of theirs."""

    keys: dict[str, SigningKey]
    policy: Policy


@pytest.fixture
def team() -> Team:
    """Ann answers for an agent; she and Ben are of sre; Cat is not; Dan has a hardware key."""
    keys = {name: new_signing_key() for name in ("ann", "ben", "bot", "cat")}
    listed = {
        name: Key(key_id=key.public.key_id, scheme=SSHSIG, public_key=key.public.line) for name, key in keys.items()
    }
    dan = Key(key_id=TOUCHED.key_id, scheme=SSHSIG, public_key=TOUCHED.line, hardware=True)
    persons = [Person(person_id=name, keys=(listed[name],)) for name in ("ann", "ben", "cat")]
    bot = dataclasses.replace(listed["bot"], use=KeyUse.PROPOSE)
    persons += [
        Person(person_id="bot", keys=(bot,), kind=PersonKind.AGENT, sponsor="ann"),
        Person(person_id="dan", keys=(dan,)),
    ]
    policy = Policy(
        executor_id="e",
        trust_version=3,
        expires_at=datetime(2100, 1, 1, tzinfo=UTC),
        approvals_required=0,
        self_approval=False,
        max_approval_seconds=7200,
        persons=tuple(sorted(persons, key=lambda one: one.person_id)),
        groups=(Group(group_id="sre", members=("ann", "ben")),),
        rules=(Rule(rule_id="always", require=(Requirement(count=1, group="sre"),)),),
        labels={"site": ("prod",)},
    )
    return Team(keys=keys, policy=policy)


class Mission:
    """A mission that was dry run under a team's policy."""

    def __init__(self, team: Team, proposer: str = "bot") -> None:
        self.team = team
        key = new_signing_key()
        plan = plan_pb2.Plan(plan_id="p", mission_id="m", intent_id="i", workspace_id="site", executor_id="e")
        plan.steps.add(step_id="s1").delete_path.path = "a"
        body = sealing.seal(plan)
        report = evidence_pb2.Report(
            report_id="r",
            mission_id="m",
            intent_id="i",
            plan_id="p",
            plan_digest=digest(body),
            workspace_id="site",
            executor_id="e",
            status=evidence_pb2.REPORT_STATUS_SUCCESS,
            ladder_level=plan_pb2.LADDER_LEVEL_L2,
            policy_digest=digest(seal_policy(team.policy)),
            risk=evidence_pb2.Risk(level=evidence_pb2.RISK_LEVEL_LOW),
        )
        report.steps.add(step_id="s1", kind="delete_path", success=True)
        self.proposer = self._proposer(proposer)
        first = self._explained(self._verified(body, report, key), team.policy, ())
        report.demand.CopyFrom(demand_to_proto(first.demand))
        self.verified = self._verified(body, report, key)
        self.approvals: list[OpenApproval] = []
        self.taken_back: tuple[TakenBack, ...] | None = ()

    def approve(self, name: str, *, deny: bool = False, given: datetime = NOW) -> None:
        """Have somebody decide."""
        signer = Signer(key=self.team.keys[name], person=name, scheme=SSHSIG)
        sealed = sign_approval(self.verified, signer, lifetime=timedelta(hours=1), now=given)
        if deny:
            approval = sealing.open_sealed(sealed.body, evidence_pb2.Approval)
            approval.decision = evidence_pb2.DECISION_DENY
            sealed = signed(sealing.APPROVAL, sealing.seal(approval), signer.key, SSHSIG)  # type: ignore[arg-type]  # a key in memory
        self.approvals.append(opened(sealed))

    def explained(self, policy: Policy | None = None, now: datetime = NOW) -> Explanation:
        """What is said of the mission now."""
        return self._explained(self.verified, policy or self.team.policy, self.approvals, now)

    def _explained(
        self,
        verified: VerifiedMission,
        policy: Policy,
        approvals: "list[OpenApproval] | tuple[()]",
        now: datetime = NOW,
    ) -> Explanation:
        return explain(
            verified,
            approvals=approvals,
            policy=policy,
            policy_digest=digest(seal_policy(policy)),
            proposer=self.proposer,
            now=now,
            taken_back=getattr(self, "taken_back", ()),
        )

    def _proposer(self, name: str) -> Proposer:
        person = self.team.policy.person(name)
        if person is None:
            return Proposer()
        kind = ProposerKind.AGENT if person.sponsor else ProposerKind.PERSON
        return Proposer(kind=kind, person=name, sponsor=person.sponsor)

    @staticmethod
    def _verified(body: bytes, report: evidence_pb2.Report, key: SigningKey) -> VerifiedMission:
        return verify_mission(
            mission_id="m",
            plan=sealed_pb2.Sealed(media_type=sealing.PLAN, body=body),
            report=signed(sealing.REPORT, sealing.seal(report), key, ED25519),
            executor_key=key.public,
        )


def signed(media_type: str, body: bytes, key: SigningKey, scheme: str) -> sealed_pb2.Sealed:
    """A document with one signature."""
    blob = key.sign(scheme, media_type, body)
    signature = sealed_pb2.Signature(key_id=key.public.key_id, scheme=scheme, signature=blob)
    return sealed_pb2.Sealed(media_type=media_type, body=body, signatures=[signature])


def opened(sealed: sealed_pb2.Sealed) -> OpenApproval:
    """An approval as it was handed in."""
    approval = sealing.open_sealed(sealed.body, evidence_pb2.Approval)
    document = SealedText(sealed=sealed, digest=digest(sealed.body))
    return OpenApproval(document=document, digest=document.digest, approval=approval)


def states(found: Explanation) -> dict[str, str]:
    """How each person stands."""
    return {one.person: one.state for one in found.standings}


def why(found: Explanation, person: str) -> str:
    """Why somebody stands so."""
    return next(one.why for one in found.standings if one.person == person)


class TestExplain:
    def test_who_may_approve_and_who_may_not(self, team: Team) -> None:
        """Before anybody has approved: members of the group may, the sponsor, the agent and others may not."""
        found = Mission(team).explained()
        assert states(found) == {
            "ann": "may not approve",
            "ben": "may approve",
            "bot": "may not approve",
            "cat": "may not approve",
            "dan": "may not approve",
        }
        assert "stands behind bot, who proposed" in why(found, "ann")
        assert "an agent never approves" in why(found, "bot")
        assert "in no group" in why(found, "cat")
        assert found.rules == ("rule always: always: approved by 1 of group sre",)
        assert (found.verdict.reason, found.remarks) == ("QUORUM_NOT_MET", ())

    def test_who_has_approved(self, team: Team) -> None:
        """Approvals that count, and those that do not with their reason."""
        mission = Mission(team)
        for name in ("ann", "ben", "cat"):
            mission.approve(name)
        found = mission.explained()
        assert found.verdict.met
        assert states(found) | {"cat": ""} == {
            "ann": "does not count",
            "ben": "counts",
            "bot": "may not approve",
            "cat": "",
            "dan": "may not approve",
        }
        assert why(found, "dan") == "enough have approved"

    def test_an_approval_out_of_time(self, team: Team) -> None:
        """One that has expired does not count, and neither does one that is older than the policy takes."""
        mission = Mission(team)
        mission.approve("ben", given=NOW - timedelta(hours=2))
        assert "has expired" in why(mission.explained(), "ben")
        short = dataclasses.replace(team.policy, max_approval_seconds=60)
        mission = Mission(dataclasses.replace(team, policy=short))
        mission.approve("ben", given=NOW - timedelta(minutes=5))
        assert "more than 60 seconds ago" in why(mission.explained(), "ben")

    def test_one_denial_is_final(self, team: Team) -> None:
        """Where somebody denied, nobody may approve any more."""
        mission = Mission(team)
        mission.approve("ben", deny=True)
        found = mission.explained()
        assert (found.verdict.reason, states(found)["ben"]) == ("NOT_APPROVED", "denied")
        assert "ben denied it" in why(found, "cat")

    def test_what_was_taken_back(self, team: Team) -> None:
        """An approval that its person took back counts no more, whoever denied at the executor is named."""
        mission = Mission(team, proposer="cat")
        mission.approve("ben")
        assert mission.explained().verdict.met
        mission.taken_back = (TakenBack(person="ben", denied=False, revocation_id="rv-1", reason="not today"),)
        found = mission.explained()
        assert (found.verdict.met, states(found)["ben"], states(found)["ann"]) == (False, "taken back", "may approve")
        assert "(rv-1): not today" in why(found, "ben")
        mission.taken_back = (TakenBack(person="dan", denied=True, revocation_id="rv-2", reason=""),)
        found = mission.explained()
        assert (found.verdict.message, states(found)["dan"]) == ("dan denied it, and one denial is final", "denied")
        mission.taken_back = None
        assert any("is not known now" in remark for remark in mission.explained().remarks)

    def test_a_key_that_was_taken_out_of_the_trust_file(self, team: Team) -> None:
        """Its approvals do not count, and that is why."""
        mission = Mission(team, proposer="cat")
        mission.approve("ben")
        public = new_signing_key().public
        new = Key(key_id=public.key_id, scheme=SSHSIG, public_key=public.line)
        persons = [
            dataclasses.replace(one, keys=(new,)) if one.person_id == "ben" else one for one in team.policy.persons
        ]
        found = mission.explained(dataclasses.replace(team.policy, persons=tuple(persons)))
        assert states(found)["ben"] == "does not count"
        assert "not in the trust file, or not any more" in why(found, "ben")

    def test_an_unknown_proposer(self, team: Team) -> None:
        """Nobody may approve what anybody of them may have proposed, unless a rule is about that."""
        found = Mission(team, proposer="").explained()
        assert found.verdict.reason == "SELF_APPROVAL"
        assert "may approve" not in states(found).values()
        allowing = Rule(rule_id="unknown", when=Condition(proposers=(ProposerKind.UNKNOWN,)), hardware_key=True)
        policy = dataclasses.replace(team.policy, rules=(*team.policy.rules, allowing))
        found = Mission(dataclasses.replace(team, policy=policy), proposer="").explained()
        assert why(found, "ben") == "has no hardware key"

    def test_hardware_keys(self, team: Team) -> None:
        """Where a rule asks for hardware keys, who has none may not approve, and a file's key does not count."""
        rule = Rule(rule_id="hard", require=(Requirement(count=1),), hardware_key=True)
        mission = Mission(dataclasses.replace(team, policy=dataclasses.replace(team.policy, rules=(rule,))))
        mission.approve("cat")
        found = mission.explained()
        assert (states(found)["cat"], why(found, "cat")) == ("does not count", "has no hardware key")
        assert states(found)["dan"] == "may approve"

    def test_what_is_remarked(self, team: Team) -> None:
        """A changed policy, another set of rules than at the dry run, an end, and too little isolation are said."""
        mission = Mission(team)
        newer = dataclasses.replace(team.policy, trust_version=4)
        assert "changed since the dry run" in mission.explained(newer).remarks[0]
        assert "expired" in mission.explained(now=datetime(2100, 1, 2, tzinfo=UTC)).remarks[0]
        night = Rule(rule_id="sunday", when=Condition(days=("sun",)), min_ladder_level=3)
        policy = dataclasses.replace(team.policy, rules=(*team.policy.rules, night))
        sunday = Mission(dataclasses.replace(team, policy=policy)).explained(now=NOW - timedelta(days=1))
        assert "other rules held" in sunday.remarks[0]
        assert "L3 is demanded" in sunday.remarks[1]

    def test_nobody_is_left(self, team: Team) -> None:
        """Where approvals are missing and nobody may give them, the trust file has to change: that is said."""
        alone = dataclasses.replace(team.policy, groups=(Group(group_id="sre", members=("ann",)),))
        found = Mission(dataclasses.replace(team, policy=alone)).explained()
        assert "may approve" not in states(found).values()
        assert "nobody is left" in found.remarks[-1]
        assert "nobody is left" not in " ".join(Mission(team).explained().remarks)

    def test_the_json_is_whole(self, team: Team) -> None:
        """Scripts get all of it, under names that stay."""
        mission = Mission(team)
        mission.approve("ben")
        data: Any = json.loads(json.dumps(mission.explained().as_json()))
        assert data["met"] is True
        assert data["trust_expires_at"].endswith("Z")
        assert data["demand"]["requirements"] == [{"count": 1, "group": "sre"}]
        assert data["proposer"] == {"kind": "agent", "person": "bot", "sponsor": "ann"}
        assert data["persons"][1] == {"person": "ben", "state": "counts", "why": "has approved"}


class TestCommand:
    @pytest.fixture
    def mission(self, simulator: Simulator, plan_file: Path, capsys: pytest.CaptureFixture[str]) -> str:
        """A mission of the simulator's that was dry run."""
        assert run_command(["propose", "-f", str(plan_file), "-o", "json"]) == 0
        found: str = json.loads(capsys.readouterr().out)["mission_id"]
        assert run_command(["dry-run", found]) == 0
        capsys.readouterr()
        del simulator
        return found

    def test_explain_before_and_after(self, mission: str, capsys: pytest.CaptureFixture[str]) -> None:
        """The command says who may approve, and after that that it is enough."""
        assert run_command(["policy", "explain", mission]) == 0
        assert "owner   may approve" in capsys.readouterr().out
        assert run_command(["approve", mission, "--yes"]) == 0
        capsys.readouterr()
        assert run_command(["policy", "explain", mission, "-o", "json"]) == 0
        assert json.loads(capsys.readouterr().out)["met"] is True

    def test_explain_after_a_revocation(
        self, mission: str, simulator: Simulator, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """What the executor's log has of it counts, proven to be in it."""
        assert run_command(["approve", mission, "--yes"]) == 0
        capsys.readouterr()
        simulator.audit.record_revocation(mission, "owner", "withdraw")
        assert run_command(["policy", "explain", mission]) == 0
        text = capsys.readouterr().out
        assert "owner   taken back  has taken the approval back" in text
        assert "not approved" in text
        simulator.audit.executor.key = new_signing_key()
        assert run_command(["policy", "explain", mission, "-o", "json"]) == 7
        assert json.loads(capsys.readouterr().err)["reason"] == "SIGNATURE_INVALID"

    def test_a_policy_of_somebody_else(
        self, mission: str, simulator: Simulator, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A policy that the pinned executor did not sign is not believed."""
        simulator.audit.policy = signed(sealing.POLICY, simulator.audit.policy.body, new_signing_key(), ED25519)
        assert run_command(["policy", "explain", mission, "-o", "json"]) == 7
        assert json.loads(capsys.readouterr().err)["reason"] == "SIGNATURE_INVALID"

    def test_an_orchestrator_that_keeps_the_policy_to_itself(
        self, mission: str, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Without the executor's policy nothing is explained."""

        async def silent(_: GonogoClient) -> executor_pb2.GetExecutorResponse:
            return executor_pb2.GetExecutorResponse()

        monkeypatch.setattr(GonogoClient, "executor", silent)
        del simulator
        assert run_command(["policy", "explain", mission, "-o", "json"]) == 1
        assert "does not say what its policy is" in json.loads(capsys.readouterr().err)["message"]


TABLE = """\
cases:
  - name: sre for a low risk
    facts:
      step_kinds: [write_file]
      risk: low
      risk_facts: []
      workspace: site
      changes: 1
      size: 10
      at: 2027-01-04T10:00:00+01:00
      proposer: {kind: agent, person: bot, sponsor: ann}
    votes: [ben, {person: dan, hardware: true}]
    expect: {met: true, reason: "", rules: [always], requirements: [{count: 1, group: sre}]}
  - name: not by the sponsor
    facts: {proposer: {kind: agent, person: bot, sponsor: ann}}
    votes: [ann]
    expect: {met: false, reason: SELF_APPROVAL}
"""


class TestCases:
    def test_a_table(self, team: Team) -> None:
        """Every case is decided by the policy, and compared with what it expects."""
        results = [run_case(case, team.policy) for case in read_cases(TABLE).cases]
        assert [one.differences for one in results] == [(), ()]
        assert [one.verdict.met for one in results] == [True, False]

    def test_a_difference_is_said(self, team: Team) -> None:
        """What came is said beside what was expected."""
        text = "cases: [{expect: {met: true, rules: [], requirements: [{count: 2}], reason: QUORUM_NOT_MET}}]"
        [case] = read_cases(text).cases
        assert run_case(case, team.policy).differences == (
            "met is false, not true",
            "reason is 'SELF_APPROVAL', not 'QUORUM_NOT_MET'",
            "requirements is [1 of sre], not [2 of all]",
            "rules is [always], not []",
        )

    def test_the_steps_that_a_rule_marks(self, team: Team) -> None:
        """Of each kind there is one step, which a rule may want approved by itself."""
        rule = Rule(rule_id="one-by-one", when=Condition(step_kinds=("run_sql",)), approve_steps=True)
        policy = dataclasses.replace(team.policy, rules=(*team.policy.rules, rule))
        text = "cases: [{facts: {step_kinds: [write_file, run_sql]}, expect: {approve_steps: [run_sql]}}]"
        [case] = read_cases(text).cases
        assert run_case(case, policy).differences == ()
        assert run_case(case, team.policy).differences == ("approve_steps is [], not [run_sql]",)
        assert "approved once more, each before it is committed: run_sql" in demand_words(demand_of(policy, case.facts))

    def test_a_vote_without_such_a_key(self, team: Team) -> None:
        """Somebody who shall vote with a hardware key that they do not have does not count."""
        text = TABLE.replace("votes: [ben, {person: dan, hardware: true}]", "votes: [{person: ben, hardware: true}]")
        assert not run_case(read_cases(text).cases[0], team.policy).verdict.met

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            pytest.param("cases: []", "no cases", id="none"),
            pytest.param("- 1", "no mapping", id="a list"),
            pytest.param("cases: [{name: x}]", "expects nothing", id="nothing expected"),
            pytest.param("cases: [{expect: {met: maybe}}]", "neither true nor false", id="maybe"),
            pytest.param("cases: [{expect: {meets: true}}]", "'meets'", id="misspelt"),
            pytest.param("cases:\n  - expect: {met: true}\n    facts: {risk: none}", "line 3: risk", id="risk"),
            pytest.param("cases: [{expect: {met: true}, facts: {step_kinds: [fly]}}]", "step_kinds", id="kind"),
            pytest.param("cases: [{expect: {met: true}, facts: {changes: -1}}]", "whole number", id="number"),
            pytest.param("cases: [{expect: {met: true}, facts: {at: 2027-01-04}}]", "no moment", id="no time"),
            pytest.param("cases: {a: b}", "no list", id="no list"),
            pytest.param("cases: [&a {expect: {met: true}}, *a]", "anchor", id="something hidden"),
        ],
    )
    def test_a_table_of_another_form(self, text: str, says: str) -> None:
        """A table is read strictly: what is misspelt is refused with its line."""
        with pytest.raises(ClientError) as caught:
            read_cases(text)
        assert says in caught.value.message


class TestTrust:
    @pytest.fixture
    def gonogo(self, shared_state: StateDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
        """Run a command on a state directory of this test's own."""
        shutil.copytree(shared_state.root, tmp_path / "state")

        def command(*arguments: str) -> tuple[int, str, str]:
            code = run_command([*arguments, "--state", str(tmp_path / "state")])
            captured = capsys.readouterr()
            return code, captured.out, captured.err

        return command

    def test_show_add_check_and_revoke(self, gonogo: Command, tmp_path: Path) -> None:
        """The executor's own program does it, and the client passes on what it says."""
        public = new_signing_key().public
        (tmp_path / "alice.pub").write_text(public.line)
        trust = tmp_path / "state" / "trust.toml"
        before = trust.read_text()
        assert "owner may approve" in gonogo("trust", "show")[1]
        code, out, _ = gonogo("trust", "add", "--person", "alice", "--key", str(tmp_path / "alice.pub"), "-o", "json")
        assert (code, json.loads(out)["version"]) == (0, 2)
        copy = tmp_path / "copy.toml"
        copy.write_text(trust.read_text().replace("version = 2", "version = 3"))
        assert "It would be taken." in gonogo("trust", "check", str(copy))[1]
        code, out, _ = gonogo("trust", "revoke", "--key", public.key_id)
        assert code == 0
        assert "- alice may approve" in out
        assert trust.read_text() == before.replace("version = 1", "version = 3")

    def test_what_is_refused(self, gonogo: Command) -> None:
        """The executor's reason and remedy are the command's."""
        code, _, err = gonogo("trust", "revoke", "--person", "nobody", "-o", "json")
        assert code == 1
        assert json.loads(err)["remedy"] == "gonogo trust show lists everybody"
        assert gonogo("trust", "revoke")[0] == 2

    def test_a_table_against_the_states_trust_file(self, gonogo: Command, tmp_path: Path) -> None:
        """The policy is read by the executor's program, from the state's file or from one that the table names."""
        table = tmp_path / "cases.yaml"
        table.write_text("cases: [{name: one, votes: [owner], expect: {met: true}}]")
        assert gonogo("policy", "test", str(table))[0] == 0
        table.write_text("trust: state/trust.toml\ncases: [{name: none, expect: {met: true}}]")
        code, out, err = gonogo("policy", "test", str(table))
        assert code == 1
        assert "FAILED" in out
        assert "'none'" in err
        table.write_text("trust: nowhere.toml\ncases: [{expect: {met: true}}]")
        assert "nowhere.toml can not be read" in gonogo("policy", "test", str(table))[2]
